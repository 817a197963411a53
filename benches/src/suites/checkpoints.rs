//! Journals: a record is saved, a run is loaded, a state is compressed. Each beside the least that could be done.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use peregrine_checkpoints::{Checkpoints, Durability, Journal, Kind, Options, RunKey, SnapshotPolicy, Span};
use peregrine_core::{RunId, Scope};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::bench::{Group, Work, each, floor, ours, runtime};
use crate::words::{Turn, Words};

const RECORD_BYTES: usize = 1_024;
const RECORDS: u64 = 5_000;

pub(super) fn groups() -> Vec<Group> {
    vec![
        save(Durability::ProcessSafe, "process_safe", "bare_write"),
        save(Durability::PowerSafe, "power_safe", "write_fdatasync"),
        late_save(),
        load(),
        compression(),
    ]
}

/// A folder, a store in it, and a runtime to use it on.
struct Place {
    folder: TempDir,
    runtime: Rc<Runtime>,
    checkpoints: Checkpoints,
}

impl Place {
    fn new(durability: Durability) -> Rc<Self> {
        let folder = match std::env::var_os("PEREGRINE_BENCH_DIR") {
            Some(path) => TempDir::new_in(path).unwrap(),
            None => TempDir::new().unwrap(),
        };
        let uri = format!("dir:{}", folder.path().join("store").display());
        let mut options = Options::default();
        (options.durability, options.snapshots) = (durability, SnapshotPolicy::NEVER);
        let runtime = runtime();
        let checkpoints = runtime.block_on(Checkpoints::open(&uri, options)).unwrap();
        Rc::new(Self {
            folder,
            runtime,
            checkpoints,
        })
    }

    fn journal(&self, run: u64) -> Journal {
        self.runtime.block_on(self.checkpoints.create(&key(run))).unwrap()
    }
}

fn key(run: u64) -> RunKey {
    RunKey::new(Scope::tenant("bench").unwrap(), RunId::from_parts(run, [0; 10]))
}

fn save(durability: Durability, name: &str, bare: &'static str) -> Group {
    Group::new(
        format!("checkpoints/save/1kb_{name}"),
        "a record of 1 kB is appended to the journal of a run and acknowledged; the floor serialises it and writes it to a file",
        &[ours("peregrine"), floor(bare)],
        move || {
            let place = Place::new(durability);
            vec![
                append(Rc::clone(&place)),
                bare_append(&place, durability == Durability::PowerSafe),
            ]
        },
    )
}

fn append(place: Rc<Place>) -> Work {
    let turn = Words::new().turn(RECORD_BYTES);
    let mut journal = place.journal(1);
    Box::new(move |meter| {
        let first = journal.next_seq();
        let elapsed = place.runtime.block_on(async {
            let begun = Instant::now();
            for _ in 0..meter.operations() {
                journal.append(Kind::Event, 1, &turn).await.unwrap();
            }
            begun.elapsed()
        });
        meter.took(elapsed, meter.operations());
        assert_eq!(journal.next_seq(), first + meter.operations());
        // What was acknowledged is there; loading all of it each time would be most of the work.
        if first % 4_096 < meter.operations() {
            let last = Span::from(journal.next_seq() - 1);
            let history = place
                .runtime
                .block_on(place.checkpoints.load(&key(1), last))
                .unwrap();
            assert_eq!(history.records[0].decode::<Turn>().unwrap(), turn);
        }
    })
}

fn bare_append(place: &Rc<Place>, sync: bool) -> Work {
    let turn = Words::new().turn(RECORD_BYTES);
    let file = File::create_new(place.folder.path().join("bare")).unwrap();
    let (mut at, keep) = (0, Rc::clone(place));
    Box::new(move |meter| {
        let begun = Instant::now();
        for _ in 0..meter.operations() {
            let payload = rmp_serde::to_vec_named(&turn).unwrap();
            file.write_all_at(&payload, at).unwrap();
            if sync {
                file.sync_data().unwrap();
            }
            at += payload.len() as u64;
        }
        meter.took(begun.elapsed(), meter.operations());
        assert_eq!(file.metadata().unwrap().len(), at);
        assert!(keep.folder.path().exists());
    })
}

fn late_save() -> Group {
    Group::new(
        format!("checkpoints/save/at_record_{RECORDS}"),
        "a record of 1 kB is appended to a journal that has 5,000, process-safe; the floor is the same where there are ten",
        &[ours("peregrine"), floor("at_record_10")],
        || {
            let place = Place::new(Durability::ProcessSafe);
            vec![append_at(&place, 1, RECORDS), append_at(&place, 2, 10)]
        },
    )
}

/// How many records are appended at a place before there is a new run.
const APPENDS: u64 = 500;

fn append_at(place: &Rc<Place>, number: u64, records: u64) -> Work {
    let (place, turn) = (Rc::clone(place), Words::new().turn(RECORD_BYTES));
    let mut made = false;
    let mut make = move |place: &Place| {
        let again = std::mem::replace(&mut made, true);
        place.runtime.block_on(async {
            if again {
                place.checkpoints.remove(&key(number)).await.unwrap();
            }
            let quick = place.checkpoints.with_durability(Durability::OnFinish);
            let mut journal = quick.create(&key(number)).await.unwrap();
            for _ in 0..records {
                journal.append(Kind::Event, 1, &turn).await.unwrap();
            }
            journal.finish().await.unwrap();
            let (mut journal, history) = place.checkpoints.resume(&key(number)).await.unwrap();
            assert_eq!(history.records.len() as u64, records);
            // What was loaded to get there has left the caches cold, which is not what is asked.
            for _ in 0..5 {
                journal.append(Kind::Event, 1, &turn).await.unwrap();
            }
            journal
        })
    };
    let turn = Words::new().turn(RECORD_BYTES);
    let mut journal = None;
    Box::new(move |meter| {
        let mut left = meter.operations();
        while left > 0 {
            let open = journal.get_or_insert_with(|| make(&place));
            let first = open.next_seq();
            let some = left.min(APPENDS);
            let elapsed = place.runtime.block_on(async {
                let begun = Instant::now();
                for _ in 0..some {
                    open.append(Kind::Event, 1, &turn).await.unwrap();
                }
                begun.elapsed()
            });
            meter.took(elapsed, some);
            assert_eq!(open.next_seq(), first + some);
            left -= some;
            if first + some >= records + APPENDS {
                journal = None;
            }
        }
    })
}

/// The work, which has a figure that is known before.
fn with_figure(name: &'static str, value: f64, mut work: Work) -> Work {
    Box::new(move |meter| {
        work(meter);
        meter.figure(name, value);
    })
}

fn load() -> Group {
    Group::new(
        format!("checkpoints/load/{RECORDS}_records"),
        "a run of 5,000 records of 1 kB is loaded, checked and decoded; the floor reads the bytes of the same records from a \
         file and decodes them",
        &[ours("peregrine"), floor("read_decode")],
        || {
            let place = Place::new(Durability::OnFinish);
            let mut words = Words::new();
            let turns: Rc<[Turn]> = (0..RECORDS).map(|_| words.turn(RECORD_BYTES)).collect();
            let mut journal = place.journal(1);
            place.runtime.block_on(async {
                for turn in turns.iter() {
                    journal.append(Kind::Event, 1, turn).await.unwrap();
                }
                journal.finish().await.unwrap();
            });
            let bare = place.folder.path().join("bare");
            fs::write(&bare, rmp_serde::to_vec_named(&*turns).unwrap()).unwrap();
            let payload: usize = turns
                .iter()
                .map(|turn| rmp_serde::to_vec_named(turn).unwrap().len())
                .sum();
            let bytes = size_of(&place.folder.path().join("store")) as f64 / payload as f64;
            let (ours, hand) = (Rc::clone(&turns), turns);
            let keep = Rc::clone(&place);
            vec![
                with_figure(
                    "bytes in files × payload:",
                    bytes,
                    each(
                        move || -> Vec<Turn> {
                            let history = place.runtime.block_on(place.checkpoints.load(&key(1), Span::ALL));
                            let records = history.unwrap().records;
                            records.iter().map(|record| record.decode().unwrap()).collect()
                        },
                        move |loaded| assert_eq!(**loaded, *ours),
                    ),
                ),
                each(
                    move || -> Vec<Turn> { rmp_serde::from_slice(&fs::read(&bare).unwrap()).unwrap() },
                    move |loaded| {
                        assert_eq!(**loaded, *hand);
                        assert!(keep.folder.path().exists());
                    },
                ),
            ]
        },
    )
}

fn compression() -> Group {
    Group::new(
        "checkpoints/compression/100kb",
        "a state of 100 kB is written as a snapshot, compressed, process-safe; the floor serialises it, compresses it with zstd \
         and writes it to a file",
        &[ours("peregrine"), floor("zstd_write")],
        || {
            let place = Place::new(Durability::ProcessSafe);
            let mut words = Words::new();
            let state: Rc<[Turn]> = (0..100).map(|_| words.turn(1_000)).collect();
            let raw = rmp_serde::to_vec_named(&*state).unwrap().len() as f64;
            vec![
                snapshots(Rc::clone(&place), Rc::clone(&state), raw),
                by_zstd(place, state, raw),
            ]
        },
    )
}

fn snapshots(place: Rc<Place>, state: Rc<[Turn]>, raw: f64) -> Work {
    let mut journal = place.journal(1);
    let mut written = 0_u64;
    Box::new(move |meter| {
        let before = size_of(place.folder.path().join("store").as_path());
        let elapsed = place.runtime.block_on(async {
            let begun = Instant::now();
            for _ in 0..meter.operations() {
                journal.snapshot(1, &*state).await.unwrap();
            }
            begun.elapsed()
        });
        meter.took(elapsed, meter.operations());
        let grown = size_of(place.folder.path().join("store").as_path()) - before;
        // Space that is set aside in advance is none that a snapshot takes.
        if grown > 0 {
            meter.figure(
                "ratio of compression:",
                raw * meter.operations() as f64 / grown as f64,
            );
        }
        written += meter.operations();
        if written % 64 < meter.operations() {
            let key = key(1);
            let load = place.checkpoints.load(&key, Span::SINCE_SNAPSHOT);
            let history = place.runtime.block_on(load).unwrap();
            assert_eq!(history.records[0].decode::<Vec<Turn>>().unwrap(), *state);
        }
    })
}

fn by_zstd(place: Rc<Place>, state: Rc<[Turn]>, raw: f64) -> Work {
    /// That of snapshots.
    const LEVEL: i32 = 3;
    let file = File::create_new(place.folder.path().join("compressed")).unwrap();
    let mut at = 0;
    Box::new(move |meter| {
        let mut last = Vec::new();
        let begun = Instant::now();
        for _ in 0..meter.operations() {
            last = zstd::bulk::compress(&rmp_serde::to_vec_named(&*state).unwrap(), LEVEL).unwrap();
            file.write_all_at(&last, at).unwrap();
            at += last.len() as u64;
        }
        meter.took(begun.elapsed(), meter.operations());
        meter.figure("ratio of compression:", raw / last.len() as f64);
        let again = zstd::bulk::decompress(&last, 1 << 20).unwrap();
        assert_eq!(rmp_serde::from_slice::<Vec<Turn>>(&again).unwrap(), *state);
        assert!(place.folder.path().exists());
    })
}

fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => size_of(&entry.path()),
            false => entry.metadata().unwrap().len(),
        })
        .sum()
}
