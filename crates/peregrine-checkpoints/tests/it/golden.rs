//! Journals of earlier versions, as files, which must load for ever.
//!
//! `tests/golden/v1` was written once by the version of that format, with `PEREGRINE_GOLDEN_WRITE=FOLDER`; it is never
//! written again. Beside the store is what its runs say, as exports. A change of the format adds a folder.

use std::fs;
use std::path::{Path, PathBuf};

use peregrine_checkpoints::{Checkpoints, Draft, Error, Kind, Options, RunKey, Span};
use peregrine_core::{RunId, Scope, UnixTime};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::child::Random;

const RUNS: [&str; 3] = ["plain", "fork", "sealed"];

fn key(place: usize) -> RunKey {
    RunKey::new(
        Scope::new("golden", "journals").unwrap(),
        RunId::from_parts(1_700_000_000_000 + place as u64, [7; 10]),
    )
}

fn options() -> Options {
    let mut options = Options::default();
    options.spill_bytes = 10_000;
    #[cfg(feature = "encrypt")]
    {
        let keys = peregrine_checkpoints::Keyring::new("golden", [9; 32]).unwrap();
        options.keys = Some(std::sync::Arc::new(keys));
    }
    options
}

async fn open(folder: &Path, options: Options) -> Checkpoints {
    Checkpoints::open(&format!("dir:{}", folder.display()), options)
        .await
        .unwrap()
}

/// Every form that a record can have, in a fixed order.
fn drafts() -> Vec<Draft> {
    let mut random = Random(11);
    let value = json!({"text": "Grüße", "list": [1, -1, 1.5, null, true, u64::MAX], "map": {"z": 1, "a": 2}});
    let mut drafts = vec![
        Draft::new(Kind::Event, 1, &value).unwrap(),
        Draft::new(Kind::Effect, 2, "announce").unwrap(),
        Draft::new(Kind::EffectResult, u32::MAX, &[0_u8; 300][..]).unwrap(),
        Draft::raw(Kind::Marker, 0, ""),
        Draft::raw(Kind::Event, 1, b"compressible ".repeat(700)),
        Draft::raw(Kind::Event, 1, random.bytes(12_000)),
        Draft::raw(Kind::Event, 1, "parts")
            .with_part("inline")
            .with_part(random.bytes(6_000)),
        Draft::new(Kind::Snapshot, 1, &value).unwrap(),
        Draft::raw(Kind::Event, 1, "parts again").with_part(Random(12).bytes(6_000)),
    ];
    for (place, draft) in drafts.iter_mut().enumerate() {
        draft.at = Some(UnixTime(1_700_000_000_000 + place as u64));
    }
    drafts
}

/// Writes a golden set.
async fn write(folder: &Path) {
    let store = folder.join("store");
    let mut plain = Options::default();
    plain.spill_bytes = 10_000;
    let checkpoints = open(&store, plain).await;
    let mut journal = checkpoints.create(&key(0)).await.unwrap();
    let drafts = drafts();
    for draft in &drafts[..4] {
        journal.append_draft(draft).await.unwrap();
    }
    // A segment that a takeover began.
    let (mut journal, _) = checkpoints.take_over(&key(0)).await.unwrap();
    journal.append_all(&drafts[4..]).await.unwrap();
    journal.finish().await.unwrap();
    let (mut fork, _) = checkpoints.fork(&key(0), 6, key(1).run).await.unwrap();
    fork.append_draft(&drafts[0]).await.unwrap();
    fork.finish().await.unwrap();
    let sealed = open(&store, options()).await;
    let mut journal = sealed.create(&key(2)).await.unwrap();
    journal.append_all(&drafts).await.unwrap();
    journal.finish().await.unwrap();
    for (place, name) in RUNS.iter().enumerate() {
        let mut text = Vec::new();
        sealed.export(&key(place), &mut text).await.unwrap();
        fs::write(folder.join(format!("{name}.jsonl")), text).unwrap();
    }
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

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn lines(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn journals_of_earlier_versions_load() {
    if let Ok(folder) = std::env::var("PEREGRINE_GOLDEN_WRITE") {
        write(Path::new(&folder)).await;
        return;
    }
    let versions: Vec<PathBuf> = fs::read_dir(golden())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    assert!(!versions.is_empty());
    for version in versions {
        // A copy: opening a store makes files.
        let folder = TempDir::new().unwrap();
        copy(&version.join("store"), folder.path());
        let checkpoints = open(folder.path(), options()).await;
        for (place, name) in RUNS.iter().enumerate() {
            if *name == "sealed" && cfg!(not(feature = "encrypt")) {
                continue;
            }
            let expected = lines(&fs::read(version.join(format!("{name}.jsonl"))).unwrap());
            let mut text = Vec::new();
            checkpoints.export(&key(place), &mut text).await.unwrap();
            // Ids of parts included: names of contents are part of the format.
            assert_eq!(lines(&text), expected, "{name} of {}", version.display());
            assert!(checkpoints.verify(&key(place)).await.unwrap().is_whole());
            // And it can be gone on with.
            let (mut journal, history) = checkpoints.resume(&key(place)).await.unwrap();
            let next = journal.append(Kind::Event, 1, "today").await.unwrap();
            assert_eq!((next, history.tail), (expected.len() as u64 - 1, None));
        }
        let sealed = open(folder.path(), Options::default())
            .await
            .load(&key(2), Span::ALL)
            .await;
        assert!(matches!(sealed, Err(Error::MissingKey { key_id }) if key_id == "golden"));
    }
}

#[tokio::test]
async fn what_is_said_twice_is_written_the_same() {
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    for folder in &folders {
        let checkpoints = open(folder.path(), Options::default()).await;
        let mut journal = checkpoints.create(&key(0)).await.unwrap();
        journal.append_all(&drafts()).await.unwrap();
        journal.finish().await.unwrap();
    }
    let [one, other] = folders.map(|folder| {
        let segments = crate::damage::segments(folder.path());
        // The head of a segment says when it was begun; the frames say nothing else.
        segments
            .iter()
            .map(|path| {
                let bytes = fs::read(path).unwrap();
                let frames = bytes
                    .windows(3)
                    .position(|window| window == b"PJ\x01")
                    .unwrap_or(bytes.len());
                bytes[frames..].to_vec()
            })
            .collect::<Vec<_>>()
    });
    assert_eq!(one.len(), 2);
    assert!(one == other);
}
