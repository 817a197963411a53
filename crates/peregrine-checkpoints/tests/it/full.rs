//! Disks that are full or cannot be written, and stores that go away.

use std::fs;
use std::path::Path;
use std::process::Command;

use peregrine_checkpoints::{
    Checkpoints, DirStore, Draft, Durability, Error, Kind, Options, SnapshotPolicy, Span,
};
use tempfile::TempDir;

use crate::child::{self, Random};
use crate::damage::{key, open};

/// A small file system of its own; `None` where this process may not mount one.
pub(crate) struct Small(TempDir);

impl Small {
    pub(crate) fn mount() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=400k", "tmpfs"])
            .arg(folder.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, how: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{how}")]).arg(self.0.path());
        assert!(mount.status().unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _busy = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Fills the disk, sees errors, makes room, goes on: the records are those that were acknowledged.
async fn fill(folder: &Path, durability: Durability, every_snapshot: u64) {
    let store = DirStore::open_with(folder, 0).await.unwrap();
    let mut options = Options::default();
    (options.durability, options.compress_bytes) = (durability, usize::MAX);
    let checkpoints = Checkpoints::new(std::sync::Arc::new(store), options);
    let run = key();
    let mut journal = checkpoints.create(&run).await.unwrap();
    let (mut random, mut acknowledged, mut full) = (Random(3), Vec::new(), 0);
    let ballast = fs::File::create(folder.join("ballast")).unwrap();
    std::io::Write::write_all(&mut &ballast, &[0; 240_000]).unwrap();
    for round in 0..4 {
        loop {
            let len = 200 + random.below(3_000) as usize;
            let event = random.bytes(len);
            let kind = if acknowledged.len() as u64 % every_snapshot == every_snapshot - 1 {
                Kind::Snapshot
            } else {
                Kind::Event
            };
            let drafts = [
                Draft::raw(kind, 1, event.clone()),
                Draft::raw(Kind::Effect, 1, event.clone()),
            ];
            match journal.append_all(&drafts).await {
                Ok(first) => {
                    assert_eq!(first, acknowledged.len() as u64);
                    acknowledged.extend([event.clone(), event]);
                }
                Err(error) => {
                    assert!(
                        matches!(error, Error::Full { .. }) && error.is_retryable(),
                        "{error}"
                    );
                    full += 1;
                    // Half of the time it is tried again at once, which fails again and does no harm.
                    if full % 2 == 0 {
                        break;
                    }
                }
            }
        }
        let loaded = checkpoints.load(&run, Span::ALL).await.unwrap();
        assert_eq!(loaded.records.len(), acknowledged.len(), "round {round}");
        ballast.set_len(180_000 - round * 60_000).unwrap();
        if round % 2 == 0 {
            drop(journal);
            let (resumed, history) = checkpoints.resume(&run).await.unwrap();
            assert_eq!(history.next_seq, acknowledged.len() as u64);
            journal = resumed;
        }
        assert_eq!(journal.settle().await.unwrap(), acknowledged.len() as u64);
        // Room for the next round.
        if every_snapshot < 100 {
            assert_eq!(
                journal.snapshot(1, "state").await.unwrap(),
                acknowledged.len() as u64
            );
            acknowledged.push(rmp_serde::to_vec("state").unwrap());
        }
    }
    let loaded = checkpoints.load(&run, Span::ALL).await.unwrap();
    for (record, event) in loaded.records.iter().zip(&acknowledged) {
        assert!(record.payload == *event, "record {} is another one", record.seq);
    }
    assert!(checkpoints.verify(&run).await.unwrap().is_whole());
    assert!(full >= 4);
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_the_run_goes_on_when_there_is_room() {
    for (durability, every_snapshot) in [
        (Durability::ProcessSafe, u64::MAX),
        (Durability::ProcessSafe, 20),
        (Durability::PowerSafe, u64::MAX),
    ] {
        // Where nothing can be mounted, the limit on the size of files below stands in for it.
        let Some(small) = Small::mount() else { return };
        fill(small.0.path(), durability, every_snapshot).await;
    }
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_is_an_error() {
    let Some(small) = Small::mount() else { return };
    let checkpoints = open(small.0.path()).await;
    let mut journal = checkpoints.create(&key()).await.unwrap();
    journal.append(Kind::Event, 1, "one").await.unwrap();
    journal.finish().await.unwrap();
    small.remount("ro");
    let refused = checkpoints.resume(&key()).await;
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    assert_eq!(
        checkpoints.load(&key(), Span::ALL).await.unwrap().records.len(),
        1
    );
    assert!(matches!(checkpoints.remove(&key()).await, Err(Error::Io { .. })));
    small.remount("rw");
    let (mut journal, _) = checkpoints.resume(&key()).await.unwrap();
    assert_eq!(journal.append(Kind::Event, 1, "two").await.unwrap(), 1);
}

/// A limit on the size of files fails in the middle of a write, as a full disk does, and needs no privileges.
#[tokio::test]
async fn a_limit_on_the_size_of_files_is_an_error_and_nothing_acknowledged_is_lost() {
    let folder = TempDir::new().unwrap();
    let uri = format!("dir:{}", folder.path().display());
    for (run, role) in ["append-few", "append-few-power"].into_iter().enumerate() {
        let run = run as u64;
        // The log of commits is made before, and is larger than the limit.
        let mut limited = Command::new("bash");
        let blocks = if role.contains("power") { 2_100 } else { 64 };
        limited
            .arg("-c")
            .arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""))
            .arg(std::env::current_exe().unwrap());
        let (mut process, mut output) = child::spawn_with(limited, role, &uri, run, 5);
        let (mut acknowledged, mut errors) = (Vec::new(), 0);
        while let Some(words) = child::line(&mut output) {
            match words[0].as_str() {
                "ACK" => acknowledged.push((words[1].parse::<u64>().unwrap(), words[2].clone())),
                "ERROR" => {
                    assert_eq!(words[1], "full", "{words:?}");
                    errors += 1;
                }
                _ => {}
            }
        }
        assert!(process.wait().unwrap().success());
        if !role.contains("power") {
            assert!(
                errors > 3 && acknowledged.len() > 20,
                "{errors} errors, {} records",
                acknowledged.len()
            );
        }
        let checkpoints = Checkpoints::open(&uri, Options::default()).await.unwrap();
        let checkpoints = checkpoints.with_options(|options| options.snapshots = SnapshotPolicy::NEVER);
        let (mut journal, _) = checkpoints.resume(&child::key(run)).await.unwrap();
        let history = checkpoints.load(&child::key(run), Span::ALL).await.unwrap();
        assert_eq!(history.records.len(), acknowledged.len());
        for (record, (seq, digest)) in history.records.iter().zip(&acknowledged) {
            assert_eq!((record.seq, &child::digest(&record.payload)), (*seq, digest));
        }
        journal.append(Kind::Event, 1, &"x".repeat(70_000)).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_goes_away_can_come_back() {
    let folder = TempDir::new().unwrap();
    let (here, away) = (folder.path().join("here"), folder.path().join("away"));
    let checkpoints = open(&here).await;
    let mut journal = checkpoints.create(&key()).await.unwrap();
    journal.append(Kind::Event, 1, &0_u64).await.unwrap();
    fs::rename(&here, &away).unwrap();
    // The open file is still the run's, so this one is there when the store is.
    journal.append(Kind::Event, 1, &1_u64).await.unwrap();
    let refused = journal.snapshot(1, "state").await;
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    assert!(checkpoints.load(&key(), Span::ALL).await.is_err());
    fs::rename(&away, &here).unwrap();
    assert_eq!(journal.snapshot(1, "state").await.unwrap(), 2);
    assert_eq!(journal.append(Kind::Event, 1, &3_u64).await.unwrap(), 3);
    journal.finish().await.unwrap();
    assert_eq!(
        checkpoints.load(&key(), Span::ALL).await.unwrap().records.len(),
        4
    );
}
