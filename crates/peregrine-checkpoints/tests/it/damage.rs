//! Files that are not as they were written.

use std::fs;
use std::path::{Path, PathBuf};

use peregrine_checkpoints::{Checkpoints, Draft, Error, Kind, Options, Record, RunKey, SnapshotPolicy, Span};
use peregrine_core::{RunId, Scope};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::child::Random;

pub(crate) fn key() -> RunKey {
    RunKey::new(Scope::tenant("t").unwrap(), RunId::from_parts(1, [1; 10]))
}

pub(crate) async fn open(folder: &Path) -> Checkpoints {
    Checkpoints::open(&format!("dir:{}", folder.display()), Options::default())
        .await
        .unwrap()
}

/// The segments of the one run in a store, oldest first.
pub(crate) fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "seg") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A store with a run of a few small records, in one segment.
async fn small(records: u64) -> (TempDir, PathBuf, Vec<Record>) {
    let folder = TempDir::new().unwrap();
    let checkpoints = open(folder.path()).await;
    let mut journal = checkpoints.create(&key()).await.unwrap();
    for record in 0..records {
        journal
            .append(Kind::Event, 1, &format!("record {record}"))
            .await
            .unwrap();
    }
    journal.finish().await.unwrap();
    let records = checkpoints.load(&key(), Span::ALL).await.unwrap().records;
    let segment = segments(folder.path()).remove(0);
    (folder, segment, records)
}

/// Where the frames of a run begin in its first segment: what an empty run has.
async fn head_bytes() -> usize {
    let (_folder, segment, _) = small(0).await;
    usize::try_from(fs::metadata(segment).unwrap().len()).unwrap()
}

#[tokio::test]
async fn a_tail_that_was_never_finished_is_cut_and_reported() {
    let (folder, segment, records) = small(3).await;
    let whole = fs::read(&segment).unwrap();
    let head = head_bytes().await;
    let frame = (whole.len() - head) / 3;
    let checkpoints = open(folder.path()).await;
    for cut in head..=whole.len() {
        fs::write(&segment, &whole[..cut]).unwrap();
        let (left, torn) = ((cut - head) / frame, (cut - head) % frame);
        let loaded = checkpoints.load(&key(), Span::ALL).await.unwrap();
        assert_eq!(loaded.records, records[..left], "cut at {cut}");
        let (mut journal, resumed) = checkpoints.resume(&key()).await.unwrap();
        assert_eq!(resumed.records, records[..left], "cut at {cut}");
        for tail in [loaded.tail, resumed.tail] {
            let expected = (torn > 0).then_some(((cut - torn) as u64, torn as u64));
            assert_eq!(
                tail.map(|tail| (tail.offset, tail.bytes)),
                expected,
                "cut at {cut}"
            );
        }
        // The run goes on from there, and nothing of the tail is left.
        assert_eq!(
            journal.append(Kind::Event, 1, "after the cut").await.unwrap(),
            left as u64
        );
        journal.finish().await.unwrap();
        let after = checkpoints.load(&key(), Span::ALL).await.unwrap();
        assert_eq!(
            (after.records.len(), after.tail),
            (left + 1, None),
            "cut at {cut}"
        );
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_an_error_that_names_the_offset() {
    let (folder, segment, records) = small(4).await;
    let whole = fs::read(&segment).unwrap();
    let head = head_bytes().await;
    let frame = (whole.len() - head) / 4;
    let checkpoints = open(folder.path()).await;
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&segment, &bytes).unwrap();
        let loaded = checkpoints.load(&key(), Span::ALL).await;
        let hit = (bit / 8).checked_sub(head).map(|at| at / frame);
        match (hit, loaded) {
            (None, Err(Error::Damaged(damage))) => assert_eq!(damage.offset, 0, "bit {bit}"),
            (
                None,
                Err(Error::Unsupported {
                    what: "format version",
                    ..
                }),
            ) => assert!((64..80).contains(&bit)),
            // The last record: nothing whole follows, so it counts as never finished.
            (Some(3), Ok(history)) => {
                assert_eq!(history.records, records[..3], "bit {bit}");
                assert_eq!(
                    history.tail.unwrap().offset as usize,
                    head + 3 * frame,
                    "bit {bit}"
                );
            }
            (Some(hit), Err(Error::Damaged(damage))) if hit < 3 => {
                assert_eq!(
                    (damage.seq, damage.offset as usize),
                    (hit as u64, head + hit * frame),
                    "bit {bit}"
                );
                assert!(damage.place.ends_with(".seg"), "{damage}");
            }
            (hit, loaded) => panic!("bit {bit} in record {hit:?}: {loaded:?}"),
        }
    }
    // What is before the damage can be forked, and that is how the run goes on.
    let mut bytes = whole.clone();
    bytes[head + 2 * frame + 25] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    assert!(matches!(checkpoints.resume(&key()).await, Err(Error::Damaged(_))));
    let verification = checkpoints.verify(&key()).await.unwrap();
    assert!(matches!(verification.damage, Some(Error::Damaged(damage)) if damage.seq == 2));
    assert_eq!(verification.next_seq, 2);
    let fork = key().sibling(RunId::from_parts(2, [2; 10]));
    assert!(matches!(
        checkpoints.fork(&key(), 3, fork.run).await,
        Err(Error::Damaged(_))
    ));
    let (journal, shared) = checkpoints.fork(&key(), 2, fork.run).await.unwrap();
    assert_eq!(shared.records, records[..2]);
    journal.finish().await.unwrap();
}

#[tokio::test]
async fn a_segment_of_which_a_power_cut_left_nothing_is_passed_over() {
    let folder = TempDir::new().unwrap();
    let checkpoints = open(folder.path()).await;
    let mut journal = checkpoints.create(&key()).await.unwrap();
    journal.append(Kind::Event, 1, "one").await.unwrap();
    journal.snapshot(1, "state").await.unwrap();
    journal.finish().await.unwrap();
    let last = segments(folder.path()).pop().unwrap();
    for blank in [vec![], vec![0; 300]] {
        fs::write(&last, &blank).unwrap();
        assert_eq!(
            checkpoints.load(&key(), Span::ALL).await.unwrap().records.len(),
            1
        );
    }
    let (mut journal, history) = checkpoints.resume(&key()).await.unwrap();
    assert_eq!((history.records.len(), history.tail.unwrap().offset), (1, 0));
    assert_eq!(journal.snapshot(1, "state").await.unwrap(), 1);
    journal.finish().await.unwrap();
    assert_eq!(
        checkpoints.load(&key(), Span::ALL).await.unwrap().records.len(),
        2
    );
}

#[tokio::test]
async fn lost_and_swapped_files_are_errors() {
    let folder = TempDir::new().unwrap();
    let checkpoints = open(folder.path()).await;
    let mut journal = checkpoints.create(&key()).await.unwrap();
    let part = Random(1).bytes(9_000);
    for state in 0..3 {
        journal
            .append_draft(&Draft::raw(Kind::Event, 1, "x").with_part(part.clone()))
            .await
            .unwrap();
        journal.snapshot(1, &state).await.unwrap();
    }
    journal.finish().await.unwrap();
    let files = segments(folder.path());
    assert_eq!(files.len(), 4);
    // A segment in the middle.
    let kept = fs::read(&files[1]).unwrap();
    fs::remove_file(&files[1]).unwrap();
    assert!(matches!(
        checkpoints.load(&key(), Span::from(0)).await,
        Err(Error::Damaged(_)) | Err(Error::OutOfRange { .. })
    ));
    assert!(!checkpoints.verify(&key()).await.unwrap().is_whole());
    // Another segment in its place.
    fs::copy(&files[2], &files[1]).unwrap();
    assert!(matches!(
        checkpoints.load(&key(), Span::ALL).await,
        Err(Error::Damaged(_))
    ));
    fs::write(&files[1], &kept[..kept.len() - 1]).unwrap();
    assert!(matches!(
        checkpoints.load(&key(), Span::ALL).await,
        Err(Error::Damaged(_))
    ));
    fs::write(&files[1], &kept).unwrap();
    assert!(checkpoints.verify(&key()).await.unwrap().is_whole());
    // A segment of another run.
    let other = key().sibling(RunId::from_parts(3, [3; 10]));
    checkpoints.create(&other).await.unwrap().finish().await.unwrap();
    let foreign = segments(folder.path())
        .into_iter()
        .find(|path| !files.contains(path))
        .unwrap();
    fs::copy(&files[3], foreign.with_file_name(files[3].file_name().unwrap())).unwrap();
    assert!(matches!(
        checkpoints.load(&other, Span::ALL).await,
        Err(Error::Damaged(_))
    ));
    // A part that was altered.
    let parts: Vec<_> = fs::read_dir(files[0].with_extension("parts"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let mut content = fs::read(&parts[0]).unwrap();
    content[40] ^= 1;
    fs::write(&parts[0], content).unwrap();
    let verification = checkpoints.verify(&key()).await.unwrap();
    assert!(
        matches!(verification.damage, Some(Error::Damaged(_))),
        "{verification:?}"
    );
}

/// Whatever stands in a segment: records that were written, in order, or an error; never a panic, never another record.
async fn load_mangled(folder: &Path, written: &[Record]) {
    let checkpoints = open(folder).await;
    for span in [Span::ALL, Span::SINCE_SNAPSHOT, Span::from(3).upto(5)] {
        if let Ok(history) = checkpoints.load(&key(), span).await {
            for record in &history.records {
                let original = written.iter().find(|original| original.seq == record.seq);
                assert_eq!(Some(record), original, "a record that was not written");
            }
        }
    }
    drop(checkpoints.verify(&key()).await);
    if let Ok((mut journal, history)) = checkpoints.resume(&key()).await {
        assert_eq!(
            journal.append(Kind::Event, 1, "on").await.unwrap(),
            history.next_seq
        );
    }
}

async fn written() -> (TempDir, Vec<PathBuf>, Vec<Record>) {
    let folder = TempDir::new().unwrap();
    let checkpoints = open(folder.path()).await.with_options(|options| {
        options.snapshots = SnapshotPolicy::every_records(4);
        options.compress_bytes = 40;
    });
    let mut journal = checkpoints.create(&key()).await.unwrap();
    for record in 0..9_usize {
        journal
            .append(Kind::Event, 1, &"abc ".repeat(record * 10))
            .await
            .unwrap();
        if journal.snapshot_due() {
            journal.snapshot(1, "state").await.unwrap();
        }
    }
    journal.finish().await.unwrap();
    let records = checkpoints.load(&key(), Span::ALL).await.unwrap().records;
    let files = segments(folder.path());
    (folder, files, records)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Damages every file of a store in seeded ways.
#[test]
fn seeded_fuzz_mangled_journals() {
    let setting = |name: &str, usual: u64| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse().ok())
            .unwrap_or(usual)
    };
    let (cases, seed) = (
        setting("PEREGRINE_FUZZ_CASES", 300),
        setting("PEREGRINE_FUZZ_SEED", 0),
    );
    block_on(async {
        let (folder, files, records) = written().await;
        let originals: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        for case in 0..cases {
            let case_seed = seed.wrapping_add(case);
            println!("case with PEREGRINE_FUZZ_SEED={case_seed}");
            let mut random = Random(case_seed);
            for (file, original) in files.iter().zip(&originals) {
                let other = &originals[random.below(originals.len() as u64) as usize];
                fs::write(file, crate::seeded_fuzz::mangle(&mut random, original, other)).unwrap();
            }
            load_mangled(folder.path(), &records).await;
            for file in segments(folder.path()) {
                if !files.contains(&file) {
                    fs::remove_file(file).unwrap();
                }
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_as_a_segment_are_an_error_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..600), keep in 0_usize..400) {
        block_on(async {
            let (folder, segment, records) = small(2).await;
            // Behind a good head, or in its place.
            let mut mangled = fs::read(&segment).unwrap();
            mangled.truncate(keep);
            mangled.extend_from_slice(&bytes);
            fs::write(&segment, mangled).unwrap();
            load_mangled(folder.path(), &records).await;
        });
    }

    #[test]
    fn any_bytes_as_a_commit_log_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        block_on(async {
            let (folder, _, records) = small(2).await;
            let log = folder.path().join("v1").join("wal").join("1-1.wal");
            let mut group = b"PWAL".to_vec();
            group.extend_from_slice(&bytes);
            fs::write(&log, group).unwrap();
            let checkpoints = open(folder.path()).await;
            assert!(!log.exists());
            assert_eq!(checkpoints.load(&key(), Span::ALL).await.unwrap().records, records);
        });
    }
}
