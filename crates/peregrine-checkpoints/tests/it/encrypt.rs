//! Encrypted journals.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use peregrine_checkpoints::{Checkpoints, Draft, Error, Keyring, Kind, Options, Part, Span};
use tempfile::TempDir;

use crate::child::Random;
use crate::damage::{key, segments};

async fn open(folder: &Path, keys: Option<Keyring>) -> Checkpoints {
    let mut options = Options::default();
    options.keys = keys.map(Arc::new);
    Checkpoints::open(&format!("dir:{}", folder.display()), options)
        .await
        .unwrap()
}

fn ring(id: &str, key: u8) -> Keyring {
    Keyring::new(id, [key; 32]).unwrap()
}

fn everything(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        bytes.extend(if path.is_dir() {
            everything(&path)
        } else {
            fs::read(&path).unwrap()
        });
    }
    bytes
}

fn drafts() -> Vec<Draft> {
    let secret = "a very secret sentence that nobody may read ".repeat(3);
    vec![
        Draft::new(Kind::Event, 1, &secret).unwrap(),
        Draft::raw(Kind::Event, 1, secret.repeat(1_000)),
        Draft::raw(Kind::Snapshot, 1, Random(3).bytes(70_000))
            .with_part(Random(4).bytes(6_000))
            .with_part(secret),
    ]
}

#[tokio::test]
async fn nothing_of_a_payload_is_in_the_files() {
    let folder = TempDir::new().unwrap();
    let checkpoints = open(folder.path(), Some(ring("k1", 1))).await;
    let mut journal = checkpoints.create(&key()).await.unwrap();
    journal.append_all(&drafts()).await.unwrap();
    journal.finish().await.unwrap();
    let stored = everything(folder.path());
    for needle in [
        &b"secret"[..],
        b"nobody",
        &Random(4).bytes(6_000)[..16],
        &Random(3).bytes(70_000)[..16],
    ] {
        assert!(!stored.windows(needle.len()).any(|window| window == needle));
    }
    // Nor does the name of a part tell its content to who guesses it.
    let guess = blake3::hash(&Random(4).bytes(6_000)).to_hex().to_string();
    assert!(!format!("{:?}", segments_and_parts(folder.path())).contains(&guess));
    let history = checkpoints.load(&key(), Span::ALL).await.unwrap();
    for (record, draft) in history.records.iter().zip(drafts()) {
        assert!(record.payload == draft.payload);
    }
    let Part::Stored(part) = history.records[2].parts[0] else {
        panic!("the part stands in the record");
    };
    assert!(checkpoints.part(&key(), part).await.unwrap() == Random(4).bytes(6_000));
    assert!(checkpoints.verify(&key()).await.unwrap().is_whole());
}

fn segments_and_parts(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(segments_and_parts(&path));
        }
        found.push(path);
    }
    found
}

#[tokio::test]
async fn wrong_and_missing_keys_are_told_apart_and_old_ones_open() {
    let folder = TempDir::new().unwrap();
    let first = open(folder.path(), Some(ring("k1", 1))).await;
    let mut journal = first.create(&key()).await.unwrap();
    journal.append_all(&drafts()).await.unwrap();
    journal.finish().await.unwrap();
    for keys in [None, Some(ring("k2", 2))] {
        let missing = open(folder.path(), keys).await.load(&key(), Span::ALL).await;
        assert!(
            matches!(missing, Err(Error::MissingKey { ref key_id }) if key_id == "k1"),
            "{missing:?}"
        );
    }
    let wrong = open(folder.path(), Some(ring("k1", 7)))
        .await
        .load(&key(), Span::ALL)
        .await;
    assert!(matches!(wrong, Err(Error::Sealed { .. })), "{wrong:?}");
    // A new key takes over; what was written with the old one stays readable, parts too.
    let rotated = open(
        folder.path(),
        Some(ring("k2", 2).with_old("k1", [1; 32]).unwrap()),
    )
    .await;
    let (mut journal, _) = rotated.resume(&key()).await.unwrap();
    journal.append_all(&drafts()).await.unwrap();
    journal.finish().await.unwrap();
    let verification = rotated.verify(&key()).await.unwrap();
    assert!(
        verification.is_whole() && verification.next_seq == 6,
        "{verification:?}"
    );
    let old = first.load(&key(), Span::ALL).await;
    assert!(
        matches!(old, Err(Error::MissingKey { ref key_id }) if key_id == "k2"),
        "{old:?}"
    );
}

#[tokio::test]
async fn forks_and_rewritten_records_never_reuse_a_nonce() {
    let folder = TempDir::new().unwrap();
    let checkpoints = open(folder.path(), Some(ring("k1", 1))).await;
    let draft = Draft::raw(Kind::Event, 1, "the same thing every time, forty characters");
    let mut journal = checkpoints.create(&key()).await.unwrap();
    journal.append_draft(&draft).await.unwrap();
    journal.append_draft(&draft).await.unwrap();
    journal.finish().await.unwrap();
    let segment = segments(folder.path()).remove(0);
    let before = fs::read(&segment).unwrap();
    // The second record is cut and written again under the same number.
    fs::write(&segment, &before[..before.len() - 1]).unwrap();
    let (mut journal, history) = checkpoints.resume(&key()).await.unwrap();
    assert!(history.tail.is_some());
    journal.append_draft(&draft).await.unwrap();
    journal.finish().await.unwrap();
    let after = fs::read(&segment).unwrap();
    assert_eq!(before.len(), after.len());
    let nonce = |bytes: &[u8]| {
        // Behind the id of the key in the last frame.
        let at = bytes.windows(3).rposition(|window| window == b"\x02k1").unwrap() + 3;
        bytes[at..at + 24].to_vec()
    };
    assert_ne!(nonce(&before), nonce(&after));
}

#[tokio::test]
async fn a_sealed_record_cannot_be_moved() {
    use xxhash_rust::xxh3::xxh3_64_with_seed;
    let folder = TempDir::new().unwrap();
    let checkpoints = open(folder.path(), Some(ring("k1", 1))).await;
    let mut journal = checkpoints.create(&key()).await.unwrap();
    let start = fs::metadata(&segments(folder.path())[0]).unwrap().len() as usize;
    for event in 0..2_u64 {
        journal.append(Kind::Event, 1, &event).await.unwrap();
    }
    journal.finish().await.unwrap();
    let segment = segments(folder.path()).remove(0);
    let bytes = fs::read(&segment).unwrap();
    let frame = (bytes.len() - start) / 2;
    // The first record again in place of the second, with its number and checks made to fit: who knows the format can
    // do that, but the cipher knows the number too.
    let mut moved = bytes[start..start + frame].to_vec();
    moved[8] = 1;
    let salt = salt();
    let head = xxh3_64_with_seed(&moved[..16], salt);
    moved[16..20].copy_from_slice(&(head as u32).to_le_bytes());
    let body = xxh3_64_with_seed(&moved[20..frame - 8], head);
    moved[frame - 8..].copy_from_slice(&body.to_le_bytes());
    fs::write(&segment, [&bytes[..start + frame], &moved].concat()).unwrap();
    let loaded = checkpoints.load(&key(), Span::ALL).await;
    assert!(
        matches!(loaded, Err(Error::Sealed { ref what, .. }) if what == "record 1"),
        "{loaded:?}"
    );
}

/// The salt of the run, as `frame.rs` says it is made.
fn salt() -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"peregrine journal salt 1");
    hasher.update(&key().scope.key());
    hasher.update(key().run.to_string().as_bytes());
    u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().unwrap())
}

#[test]
fn keyrings_are_checked_and_show_no_key() {
    assert!(Keyring::new("", [1; 32]).is_err());
    assert!(Keyring::new("x".repeat(65), [1; 32]).is_err());
    assert!(ring("a", 1).with_old("a", [2; 32]).is_err());
    let shown = format!(
        "{:?}",
        ring("current", 0xab).with_old("older", [0xcd; 32]).unwrap()
    );
    assert!(shown.contains("current") && shown.contains("older"), "{shown}");
    for byte in ["171", "205", "ab, ", "cd, "] {
        assert!(!shown.contains(byte), "{shown}");
    }
}
