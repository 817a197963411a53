//! Power cuts, as far as they can be had without cutting power: a copy of the store as the disk would have it.

use std::fs;
use std::path::Path;

use peregrine_checkpoints::{Checkpoints, DirStore, Durability, Kind, Options, RunKey, Span};
use tempfile::TempDir;

use crate::damage::{key, segments};

async fn power_safe(folder: &Path) -> (DirStore, Checkpoints) {
    let store = DirStore::open(folder).await.unwrap();
    let mut options = Options::default();
    options.durability = Durability::PowerSafe;
    let checkpoints = Checkpoints::new(std::sync::Arc::new(store.clone()), options);
    (store, checkpoints)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[tokio::test]
async fn what_the_files_lost_is_in_the_commit_log() {
    let folder = TempDir::new().unwrap();
    let (_store, checkpoints) = power_safe(folder.path()).await;
    let mut journal = checkpoints.create(&key()).await.unwrap();
    let synced = fs::read(&segments(folder.path())[0]).unwrap();
    for event in 0..20_u64 {
        journal.append(Kind::Event, 1, &event).await.unwrap();
    }
    let drafts: Vec<_> = (20..25_u64)
        .map(|event| peregrine_checkpoints::Draft::new(Kind::Event, 1, &event).unwrap())
        .collect();
    journal.append_all(&drafts).await.unwrap();
    let written = fs::read(&segments(folder.path())[0]).unwrap();
    let frame = (written.len() - synced.len()) / 25;
    // What the page cache held is lost: all of it, the end of it, or a block in the middle, whose bytes read as zeros.
    let mut hole = written.clone();
    hole[synced.len() + 3 * frame..synced.len() + 9 * frame - 5].fill(0);
    let mut last = written.clone();
    last[written.len() - frame - 7..].fill(0);
    let remains = [
        synced.clone(),
        written[..written.len() - 2 * frame - 3].to_vec(),
        hole,
        last,
        written.clone(),
    ];
    for (case, remains) in remains.iter().enumerate() {
        let after = TempDir::new().unwrap();
        copy(folder.path(), after.path());
        fs::write(&segments(after.path())[0], remains).unwrap();
        let (_store, recovered) = power_safe(after.path()).await;
        let history = recovered.load(&key(), Span::ALL).await.unwrap();
        let events: Vec<u64> = history
            .records
            .iter()
            .map(|record| record.decode().unwrap())
            .collect();
        assert_eq!(events, (0..25).collect::<Vec<_>>(), "case {case}");
        let logs = fs::read_dir(after.path().join("v1/wal")).unwrap();
        let left: Vec<_> = logs
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| *name != "recovery.lock")
            .collect();
        assert_eq!(left, Vec::<std::ffi::OsString>::new(), "case {case}");
        let (mut journal, _) = recovered.resume(&key()).await.unwrap();
        assert_eq!(journal.append(Kind::Event, 1, &25_u64).await.unwrap(), 25);
    }
}

#[tokio::test]
async fn the_log_of_a_living_store_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let (_store, checkpoints) = power_safe(folder.path()).await;
    let mut journal = checkpoints.create(&key()).await.unwrap();
    journal.append(Kind::Event, 1, &0_u64).await.unwrap();
    let logs = || fs::read_dir(folder.path().join("v1/wal")).unwrap().count();
    let before = logs();
    let (_other_store, other) = power_safe(folder.path()).await;
    assert_eq!(logs(), before);
    assert_eq!(other.load(&key(), Span::ALL).await.unwrap().records.len(), 1);
    journal.append(Kind::Event, 1, &1_u64).await.unwrap();
    drop(journal);
    drop((checkpoints, _store));
    // A store that is closed in order leaves none.
    assert_eq!(logs(), before - 1);
}

#[tokio::test]
async fn a_log_that_is_full_begins_again() {
    let folder = TempDir::new().unwrap();
    let store = DirStore::open_with(folder.path(), 0).await.unwrap();
    let mut options = Options::default();
    options.durability = Durability::PowerSafe;
    let checkpoints = Checkpoints::new(std::sync::Arc::new(store), options);
    let mut journal = checkpoints.create(&key()).await.unwrap();
    let filler = "x".repeat(1_500);
    for event in 0..150_u64 {
        journal.append(Kind::Event, 1, &(event, &filler)).await.unwrap();
    }
    // And a record that is too large for it.
    journal
        .append(Kind::Event, 1, &(150_u64, "y".repeat(40_000)))
        .await
        .unwrap();
    let after = TempDir::new().unwrap();
    copy(folder.path(), after.path());
    // The log only has the last round, so the file has to have the rest.
    let segment = &segments(after.path())[0];
    let mut bytes = fs::read(segment).unwrap();
    let lost = bytes.len() - 4_000;
    bytes[lost..].fill(0);
    drop(journal);
    let (_store, recovered) = power_safe(after.path()).await;
    assert_eq!(
        recovered.load(&key(), Span::ALL).await.unwrap().records.len(),
        151
    );
    assert!(recovered.verify(&key()).await.unwrap().is_whole());
}

#[tokio::test]
async fn runs_that_wait_together_share_one_sync() {
    let folder = TempDir::new().unwrap();
    let (store, checkpoints) = power_safe(folder.path()).await;
    let keys: Vec<RunKey> = (1..=40)
        .map(|run| key().sibling(peregrine_core::RunId::from_parts(run, [0; 10])))
        .collect();
    let mut journals = Vec::new();
    for key in &keys {
        journals.push(checkpoints.create(key).await.unwrap());
    }
    let before = store.syncs();
    for round in 0..10_u64 {
        let appends = journals
            .iter_mut()
            .map(|journal| journal.append(Kind::Event, 1, &round));
        for appended in futures_util::future::join_all(appends).await {
            assert_eq!(appended.unwrap(), round);
        }
    }
    let syncs = store.syncs() - before;
    assert!(
        (10..=80).contains(&syncs),
        "{syncs} syncs for 400 records of 40 runs"
    );
    for key in &keys {
        assert_eq!(checkpoints.load(key, Span::ALL).await.unwrap().records.len(), 10);
    }
}
