//! What a journal costs, beside the least that could be done: a bare `write`, a `write` and `fdatasync`, and the way
//! that does without a journal, the whole state as JSON in a file.
//!
//! `cargo bench -p peregrine-checkpoints` runs it; `PEREGRINE_BENCH_DIR` says on which disk. Everything is asserted
//! outside the timed parts. Besides what criterion prints, it prints the bytes on disk of a conversation.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use peregrine_checkpoints::{Checkpoints, Durability, Journal, Kind, Options, RunKey, SnapshotPolicy, Span};
use peregrine_core::{RunId, Scope};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// What a turn adds: the kind of thing an agent records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Turn {
    role: String,
    text: String,
    input_tokens: u32,
    output_tokens: u32,
}

/// Words as often as English has them, drawn without any order: harder to compress than what people write.
struct Words {
    state: u64,
    words: Vec<&'static str>,
}

impl Words {
    fn new() -> Self {
        let corpus = [
            include_str!("../../../CONTRIBUTING.md"),
            include_str!("../../../docs/design.md"),
        ];
        Self {
            state: 1,
            words: corpus.iter().flat_map(|text| text.split_whitespace()).collect(),
        }
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn text(&mut self, bytes: usize) -> String {
        let mut text = String::new();
        while text.len() < bytes {
            let word = usize::try_from(self.next() % self.words.len() as u64).unwrap();
            text.push_str(self.words[word]);
            text.push(' ');
        }
        text.truncate(text.floor_char_boundary(bytes));
        text
    }

    fn turn(&mut self, bytes: usize) -> Turn {
        Turn {
            role: "assistant".to_owned(),
            text: self.text(bytes),
            input_tokens: 1_234,
            output_tokens: 567,
        }
    }
}

struct Bench {
    runtime: Runtime,
    folder: TempDir,
    runs: u64,
}

impl Bench {
    fn new() -> Self {
        let disk =
            std::env::var("PEREGRINE_BENCH_DIR").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            folder: TempDir::new_in(disk).unwrap(),
            runs: 0,
        }
    }

    fn open(&self, durability: Durability) -> Checkpoints {
        let uri = format!("dir:{}", self.folder.path().join("store").display());
        let mut options = Options::default();
        (options.durability, options.snapshots) = (durability, SnapshotPolicy::NEVER);
        self.runtime.block_on(Checkpoints::open(&uri, options)).unwrap()
    }

    fn key(&mut self) -> RunKey {
        self.runs += 1;
        RunKey::new(
            Scope::tenant("bench").unwrap(),
            RunId::from_parts(self.runs, [0; 10]),
        )
    }

    fn file(&mut self) -> File {
        self.runs += 1;
        File::create_new(self.folder.path().join(format!("bare-{}", self.runs))).unwrap()
    }

    /// A journal with so many records.
    fn journal(&mut self, checkpoints: &Checkpoints, records: u64, turn: &Turn) -> Journal {
        let key = self.key();
        self.runtime.block_on(async {
            let mut journal = checkpoints
                .with_durability(Durability::OnFinish)
                .create(&key)
                .await
                .unwrap();
            for _ in 0..records {
                journal.append(Kind::Event, 1, turn).await.unwrap();
            }
            journal.finish().await.unwrap();
            let (journal, history) = checkpoints.resume(&key).await.unwrap();
            assert_eq!(history.records.len() as u64, records);
            journal
        })
    }

    /// The time that `iterations` appends take.
    fn append(
        &mut self,
        checkpoints: &Checkpoints,
        journal: &mut Journal,
        turn: &Turn,
        iterations: u64,
    ) -> Duration {
        let first = journal.next_seq();
        let elapsed = self.runtime.block_on(async {
            let begun = Instant::now();
            for _ in 0..iterations {
                journal.append(Kind::Event, 1, turn).await.unwrap();
            }
            begun.elapsed()
        });
        assert_eq!(journal.next_seq(), first + iterations);
        let last = Span::from(first + iterations - 1);
        let history = self
            .runtime
            .block_on(checkpoints.load(journal.key(), last))
            .unwrap();
        assert_eq!(&history.records[0].decode::<Turn>().unwrap(), turn);
        elapsed
    }
}

/// Appends that survive the process, of what an agent writes in a turn.
fn process_safe(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let checkpoints = bench.open(Durability::ProcessSafe);
    let mut group = criterion.benchmark_group("journal/append/process_safe");
    for bytes in [256, 1_024, 4_096] {
        let turn = Words::new().turn(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new(bytes.to_string(), "peregrine"), |bencher| {
            let mut journal = bench.journal(&checkpoints, 0, &turn);
            bencher.iter_custom(|iterations| bench.append(&checkpoints, &mut journal, &turn, iterations));
        });
        group.bench_function(BenchmarkId::new(bytes.to_string(), "bare_write"), |bencher| {
            let (file, mut at) = (bench.file(), 0);
            bencher.iter(|| {
                let payload = rmp_serde::to_vec_named(&turn).unwrap();
                file.write_all_at(&payload, at).unwrap();
                at += payload.len() as u64;
            });
            assert_eq!(file.metadata().unwrap().len(), at);
        });
    }
    group.finish();
}

/// Appends that survive a power cut: one run, and many at once.
fn power_safe(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let checkpoints = bench.open(Durability::PowerSafe);
    let turn = Words::new().turn(1_024);
    let mut group = criterion.benchmark_group("journal/append/power_safe");
    group.sample_size(20).measurement_time(Duration::from_secs(4));
    group.bench_function(BenchmarkId::new("1", "peregrine"), |bencher| {
        let mut journal = bench.journal(&checkpoints, 0, &turn);
        bencher.iter_custom(|iterations| bench.append(&checkpoints, &mut journal, &turn, iterations));
    });
    group.bench_function(BenchmarkId::new("1", "write_fdatasync"), |bencher| {
        let (file, mut at) = (bench.file(), 0);
        bencher.iter(|| {
            let payload = rmp_serde::to_vec_named(&turn).unwrap();
            file.write_all_at(&payload, at).unwrap();
            file.sync_data().unwrap();
            at += payload.len() as u64;
        });
    });
    const RUNS: usize = 64;
    group.throughput(Throughput::Elements(RUNS as u64));
    group.bench_function(BenchmarkId::new("64", "peregrine"), |bencher| {
        let mut journals: Vec<_> = (0..RUNS).map(|_| bench.journal(&checkpoints, 0, &turn)).collect();
        bencher.iter(|| {
            bench.runtime.block_on(async {
                let appends = journals
                    .iter_mut()
                    .map(|journal| journal.append(Kind::Event, 1, &turn));
                futures_util::future::try_join_all(appends).await.unwrap()
            })
        });
        assert!(
            journals
                .iter()
                .all(|journal| journal.next_seq() == journals[0].next_seq())
        );
    });
    group.bench_function(BenchmarkId::new("64", "write_fdatasync"), |bencher| {
        let (files, mut at): (Vec<_>, _) = ((0..RUNS).map(|_| bench.file()).collect(), 0);
        bencher.iter(|| {
            for file in &files {
                let payload = rmp_serde::to_vec_named(&turn).unwrap();
                file.write_all_at(&payload, at).unwrap();
                file.sync_data().unwrap();
            }
            at += 2_048;
        });
    });
    group.finish();
}

/// The tenth record and the five-thousandth, and the whole state rewritten at those places.
fn position(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let checkpoints = bench.open(Durability::ProcessSafe);
    let turn = Words::new().turn(1_024);
    let mut group = criterion.benchmark_group("journal/append/at_record");
    for records in [10, 5_000] {
        group.sample_size(if records == 10 { 100 } else { 20 });
        group.bench_function(BenchmarkId::new(records.to_string(), "peregrine"), |bencher| {
            bencher.iter_custom(|iterations| {
                let (mut elapsed, mut left) = (Duration::ZERO, iterations);
                while left > 0 {
                    let some = left.min(100);
                    let mut journal = bench.journal(&checkpoints, records - 5, &turn);
                    // What is loaded to get there leaves the caches cold, which is not what is asked.
                    bench.append(&checkpoints, &mut journal, &turn, 5);
                    elapsed += bench.append(&checkpoints, &mut journal, &turn, some);
                    left -= some;
                }
                elapsed
            });
        });
        group.bench_function(
            BenchmarkId::new(records.to_string(), "whole_state_json"),
            |bencher| {
                let state: Vec<Turn> = vec![turn.clone(); usize::try_from(records).unwrap()];
                let path = bench.folder.path().join("state.json");
                bencher.iter(|| {
                    let unfinished = path.with_extension("tmp");
                    fs::write(&unfinished, serde_json::to_vec(&state).unwrap()).unwrap();
                    fs::rename(&unfinished, &path).unwrap();
                });
                let again: Vec<Turn> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                assert_eq!(again, state);
            },
        );
    }
    group.finish();
}

/// SQLite: a hop to another thread and a transaction, beside the same through the client alone.
#[cfg(feature = "sqlite")]
fn sqlite(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let turn = Words::new().turn(1_024);
    let path = bench.folder.path().join("runs.db");
    let checkpoints = bench
        .runtime
        .block_on(Checkpoints::open(
            &format!("sqlite:{}", path.display()),
            Options::default(),
        ))
        .unwrap();
    let mut group = criterion.benchmark_group("journal/append/sqlite");
    group.bench_function("peregrine", |bencher| {
        let mut journal = bench.journal(&checkpoints, 0, &turn);
        bencher.iter_custom(|iterations| bench.append(&checkpoints, &mut journal, &turn, iterations));
    });
    group.bench_function("bare_insert", |bencher| {
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(bench.folder.path().join("bare.db"))
            .create_if_missing(true)
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
            .synchronous(sqlx::sqlite::SqliteSynchronous::Normal);
        let mut connection = bench.runtime.block_on(async {
            let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
            let table = "CREATE TABLE IF NOT EXISTS records (seq INTEGER PRIMARY KEY, frame BLOB NOT NULL)";
            sqlx::query(table).execute(&mut connection).await.unwrap();
            connection
        });
        bencher.iter(|| {
            bench.runtime.block_on(async {
                let payload = rmp_serde::to_vec_named(&turn).unwrap();
                let insert = sqlx::query("INSERT INTO records (frame) VALUES ($1)").bind(payload);
                insert.execute(&mut connection).await.unwrap()
            })
        });
    });
    group.finish();
}

fn load(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let checkpoints = bench.open(Durability::ProcessSafe);
    let mut group = criterion.benchmark_group("journal/load/5000");
    let (turn, mut words) = (Words::new().turn(1_024), Words::new());
    let mut journal = bench.journal(&checkpoints, 2_500, &turn);
    bench.runtime.block_on(async {
        for _ in 0..2_500 {
            journal.append(Kind::Event, 1, &words.turn(600)).await.unwrap();
        }
    });
    let key = journal.key().clone();
    group.bench_function("peregrine", |bencher| {
        bencher.iter(|| {
            let history = bench.runtime.block_on(checkpoints.load(&key, Span::ALL)).unwrap();
            assert_eq!(history.records.len(), 5_000);
            history
        });
    });
    group.bench_function("peregrine_decoded", |bencher| {
        bencher.iter(|| {
            let history = bench.runtime.block_on(checkpoints.load(&key, Span::ALL)).unwrap();
            history
                .records
                .iter()
                .map(|record| record.decode::<Turn>().unwrap().text.len())
                .sum::<usize>()
        });
    });
    group.finish();
}

/// Bytes on disk of a conversation of 500 turns, with snapshots of its whole state whenever they are due.
fn size(_: &mut Criterion) {
    let bench = Bench::new();
    for durability in [Durability::ProcessSafe, Durability::PowerSafe] {
        let folder = TempDir::new_in(bench.folder.path()).unwrap();
        let uri = format!("dir:{}", folder.path().display());
        let (mut words, mut text, mut state) = (Words::new(), 0, Vec::new());
        let key = RunKey::new(Scope::tenant("bench").unwrap(), RunId::from_parts(1, [0; 10]));
        let snapshots = bench.runtime.block_on(async {
            let mut options = Options::default();
            options.durability = durability;
            let checkpoints = Checkpoints::open(&uri, options).await.unwrap();
            let mut journal = checkpoints.create(&key).await.unwrap();
            let mut snapshots = 0;
            for turn in 0..500 {
                for bytes in [120, 900 + turn % 400] {
                    let turn = words.turn(bytes);
                    text += turn.text.len();
                    journal.append(Kind::Event, 1, &turn).await.unwrap();
                    state.push(turn);
                    if journal.snapshot_due() {
                        journal.snapshot(1, &state).await.unwrap();
                        snapshots += 1;
                    }
                }
            }
            journal.finish().await.unwrap();
            let history = checkpoints.load(&key, Span::ALL).await.unwrap();
            assert_eq!(history.next_seq, 1_000 + snapshots);
            snapshots
        });
        let bytes = size_of(folder.path());
        let ratio = bytes as f64 / text as f64;
        println!(
            "journal/size/500_turns {durability:?}: {bytes} bytes for {text} of text, {ratio:.3} x, {snapshots} snapshots"
        );
        assert!(ratio <= 1.3, "{ratio}");
    }
}

/// Single appends, in turns, so that what else the machine does meets all alike: percentiles over all samples.
fn percentiles(_: &mut Criterion) {
    const ROUNDS: u64 = 40;
    const APPENDS: u64 = 100;
    let mut bench = Bench::new();
    let checkpoints = bench.open(Durability::ProcessSafe);
    let turn = Words::new().turn(1_024);
    let mut samples: [Vec<u64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (place, records) in [10, 5_000].into_iter().enumerate() {
            let mut journal = bench.journal(&checkpoints, records - 5, &turn);
            bench.append(&checkpoints, &mut journal, &turn, 5);
            for _ in 0..APPENDS {
                let elapsed = bench.runtime.block_on(async {
                    let begun = Instant::now();
                    journal.append(Kind::Event, 1, &turn).await.unwrap();
                    begun.elapsed()
                });
                samples[place].push(u64::try_from(elapsed.as_nanos()).unwrap());
            }
            assert_eq!(journal.next_seq(), records + APPENDS);
        }
        let (file, mut at) = (bench.file(), 0);
        for _ in 0..APPENDS {
            let begun = Instant::now();
            let payload = rmp_serde::to_vec_named(&turn).unwrap();
            file.write_all_at(&payload, at).unwrap();
            samples[2].push(u64::try_from(begun.elapsed().as_nanos()).unwrap());
            at += payload.len() as u64;
        }
    }
    for (name, samples) in ["at_record/10", "at_record/5000", "bare_write"]
        .iter()
        .zip(&mut samples)
    {
        samples.sort_unstable();
        let [p50, p95, p99] = [50, 95, 99].map(|percent| samples[samples.len() * percent / 100]);
        println!(
            "journal/append/1024/{name}: p50 {p50} ns, p95 {p95} ns, p99 {p99} ns of {}",
            samples.len()
        );
    }
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

#[cfg(not(feature = "sqlite"))]
fn sqlite(_: &mut Criterion) {}

criterion_group!(
    benches,
    size,
    percentiles,
    process_safe,
    position,
    load,
    power_safe,
    sqlite
);
criterion_main!(benches);
