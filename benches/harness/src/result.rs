//! Result files: one for each suite, JSON, with a published schema.
//!
//! The base shape is one that people's tools read already: `suite_name` and `benchmark_results` with `name`, `iterations`,
//! `latency_ms`, `throughput_ops_per_sec`, `resources`, `confidence_interval`, `outliers_removed`. The rest is ours. Where
//! a field means something stricter than its name promises elsewhere, its description says so; the schema is made from
//! these descriptions ([`schema`]) and kept in `benches/schema`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bootstrap::{Interval, Method};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::protocol::{Descriptor, Role};
use crate::samples::{PS_PER_MS, Round};
use crate::stats::{Latency, Trimmed};

/// The version of the schema that is written. A reader takes files of the same number; new optional fields do not change
/// it.
pub const SCHEMA_VERSION: u32 = 1;
/// A result file larger than this is none of ours.
const MAX_BYTES: u64 = 256 << 20;

/// The results of one suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SuiteResult {
    /// 1.
    pub schema_version: u32,
    /// The suite, the first part of the names of its benchmarks.
    pub suite_name: String,
    /// What was measured, in the order it ran.
    pub benchmark_results: Vec<BenchmarkResult>,
    /// What failed, and how: benchmarks whose effect was not what it should be give no figures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// The machine, the toolchain, the source.
    pub environment: Environment,
    /// How it was run.
    pub settings: Settings,
}

/// How a suite was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// Whether it was a short run, to see that everything works; its figures are not for the record.
    pub quick: bool,
    /// How many processes measured each benchmark one after the other.
    pub rounds: u32,
    /// What all randomness starts from.
    pub seed: u64,
    /// The session in which several results were measured in turns; results of one session are compared round by round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Whether the samples were left out and figures rounded to six digits, which makes results small enough to be kept in
    /// the repository. Documents are made from them; verdicts need samples.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub condensed: bool,
}

/// A benchmark that gave no figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// The benchmark, or the group of benchmarks that share a process.
    pub name: String,
    /// What went wrong.
    pub message: String,
}

/// What was measured of one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BenchmarkResult {
    /// `suite/op/param/impl`.
    pub name: String,
    /// Whether it is ours, a floor (the least that the work could take) or a rival.
    pub role: Role,
    /// What is done, in words. Results of different workloads are not compared.
    pub workload: String,
    /// How many operations were measured.
    pub iterations: u64,
    /// How many operations ran before, not measured.
    pub warmup_iterations: u64,
    /// How many operations a sample took together, at most; 1 where each was timed alone.
    pub batch: u64,
    /// Times of one operation.
    pub latency_ms: Latency,
    /// The same without the values far out.
    pub trimmed: Trimmed,
    /// Operations a second under concurrent load. Stricter than usual: never 1 / mean, so `null` where nothing ran at the
    /// same time.
    pub throughput_ops_per_sec: Option<f64>,
    /// What the process used.
    pub resources: Resources,
    /// The bootstrap interval of the median, in milliseconds. Stricter than usual: of the median, with processes drawn, not
    /// samples.
    pub confidence_interval: ConfidenceInterval,
    /// How many values lie beyond three standard deviations. Stricter than usual: they are missing from `trimmed` only,
    /// never from `latency_ms`.
    pub outliers_removed: u64,
    /// What does not drift: counted, not timed.
    pub counts: Counts,
    /// Figures that only this benchmark has, such as a ratio of compression.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
    /// Every sample, by process; none where `settings` says that the results are condensed.
    pub rounds: Vec<Round>,
}

/// Where the median lies, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConfidenceInterval {
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// How sure, from 0 to 1: 0.95, or less where there are too few rounds for it.
    pub confidence: f64,
    /// What was drawn.
    pub method: Method,
}

/// What a process used while it measured, seen from outside, every 10 milliseconds. `null` where this cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Share of one core, in percent; above 100 on several cores. Of the process with all variants in turns.
    pub cpu_mean: Option<f64>,
    /// The same, the most in any span of 50 milliseconds.
    pub cpu_peak: Option<f64>,
    /// Resident memory, in MB of 1,000,000 bytes.
    pub memory_mean_mb: Option<f64>,
    /// The most resident memory.
    pub memory_peak_mb: Option<f64>,
    /// Threads.
    pub threads_mean: Option<f64>,
    /// The most threads.
    pub threads_peak: Option<f64>,
    /// Processor time that the calling thread took for an operation, in nanoseconds: of this variant alone.
    pub cpu_ns_per_op: Option<f64>,
}

/// Counts of one operation. `null` where it was not counted: work on several threads, or tools that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Allocations on the calling thread.
    pub allocations_per_op: Option<f64>,
    /// Bytes allocated on the calling thread.
    pub bytes_per_op: Option<f64>,
    /// Instructions of the process in user space, from callgrind.
    pub instructions_per_op: Option<f64>,
}

impl Counts {
    /// These, and those where these are missing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            allocations_per_op: self.allocations_per_op.or(other.allocations_per_op),
            bytes_per_op: self.bytes_per_op.or(other.bytes_per_op),
            instructions_per_op: self.instructions_per_op.or(other.instructions_per_op),
        }
    }
}

/// What a benchmark gathered while it ran, before it is summarised.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gathered {
    /// Every sample, by process.
    pub rounds: Vec<Round>,
    /// Operations measured.
    pub iterations: u64,
    /// Operations before.
    pub warmup_iterations: u64,
    /// Operations in a sample, at most.
    pub batch: u64,
    /// Throughput of each process that has one.
    pub throughput: Vec<f64>,
    /// Processor time of the calling thread, in nanoseconds.
    pub cpu_ns: u64,
    /// What the process used.
    pub resources: Resources,
    /// What was counted.
    pub counts: Counts,
    /// Its own figures.
    pub figures: BTreeMap<String, f64>,
}

impl BenchmarkResult {
    /// Summarises.
    ///
    /// # Errors
    ///
    /// [`Error::NoSamples`] if nothing was measured.
    pub fn of(descriptor: &Descriptor, gathered: Gathered) -> Result<Self> {
        let name = descriptor.id.to_string();
        let Some(interval) = Interval::of_median(&gathered.rounds) else {
            return Err(Error::NoSamples { name });
        };
        let all = Round::merged(&gathered.rounds);
        let trimmed = Trimmed::of(&all);
        let mut throughput = gathered.throughput;
        throughput.sort_unstable_by(f64::total_cmp);
        let mut resources = gathered.resources;
        if gathered.cpu_ns > 0 && gathered.iterations > 0 {
            resources.cpu_ns_per_op = Some(gathered.cpu_ns as f64 / gathered.iterations as f64);
        }
        Ok(Self {
            name,
            role: descriptor.role,
            workload: descriptor.workload.clone(),
            iterations: gathered.iterations,
            warmup_iterations: gathered.warmup_iterations,
            batch: gathered.batch,
            latency_ms: Latency::of(&all),
            trimmed,
            throughput_ops_per_sec: throughput.get(throughput.len() / 2).copied(),
            resources,
            confidence_interval: ConfidenceInterval {
                lower: interval.lower / PS_PER_MS,
                upper: interval.upper / PS_PER_MS,
                confidence: interval.confidence,
                method: interval.method,
            },
            outliers_removed: all.moments.count - trimmed.count,
            counts: gathered.counts,
            figures: gathered.figures,
            rounds: gathered.rounds,
        })
    }

    /// The name without its last part: what the variants of one benchmark share.
    pub fn group(&self) -> &str {
        self.name.rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// The last part of the name.
    pub fn implementation(&self) -> &str {
        self.name.rsplit_once('/').map_or(&self.name, |(_, last)| last)
    }
}

impl SuiteResult {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if it cannot be read or is too large, [`Error::Format`] if it is not what its schema says.
    pub fn read(path: &Path) -> Result<Self> {
        let read = |source| Error::Read {
            path: path.to_path_buf(),
            source,
        };
        let bytes = fs::metadata(path).map_err(read)?.len();
        let wrong = |message: String| Error::Format {
            path: path.to_path_buf(),
            message,
        };
        if bytes > MAX_BYTES {
            return Err(wrong(format!("it has {bytes} bytes, more than any result file")));
        }
        let text = fs::read_to_string(path).map_err(read)?;
        let version: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        match version["schema_version"].as_u64() {
            Some(version) if version == u64::from(SCHEMA_VERSION) => {}
            Some(version) => {
                let message =
                    format!("its schema has version {version}, this program reads {SCHEMA_VERSION}");
                return Err(wrong(message));
            }
            None => return Err(wrong("it has no `schema_version`".to_owned())),
        }
        let result: Self = serde_json::from_value(version).map_err(|error| wrong(error.to_string()))?;
        for benchmark in &result.benchmark_results {
            let is_whole = !benchmark.rounds.is_empty() && benchmark.rounds.iter().all(Round::is_consistent);
            if benchmark.rounds.is_empty() != result.settings.condensed
                || !(is_whole || result.settings.condensed)
            {
                return Err(wrong(format!("the samples of {} do not add up", benchmark.name)));
            }
        }
        Ok(result)
    }

    /// Writes the file of this suite into a folder, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::Write`].
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(format!("{}.json", self.suite_name));
        let mut text = serde_json::to_string(self).expect("names are text and figures are finite or null");
        text.push('\n');
        write_whole(&path, &text)?;
        Ok(path)
    }
}

impl SuiteResult {
    /// Without samples, and with figures of six digits: what documents are made from.
    #[must_use]
    pub fn condensed(&self) -> Self {
        let mut condensed = self.clone();
        condensed.settings.condensed = true;
        for result in &mut condensed.benchmark_results {
            result.rounds.clear();
        }
        let mut value =
            serde_json::to_value(&condensed).expect("names are text and figures are finite or null");
        round(&mut value);
        serde_json::from_value(value).expect("rounding changes no shape")
    }

    /// As text with a line for each benchmark, so that a change of it is seen as such.
    pub fn to_lines(&self) -> String {
        let mut head = self.clone();
        let results = std::mem::take(&mut head.benchmark_results);
        let head = serde_json::to_string(&head).expect("names are text and figures are finite or null");
        let lines: Vec<String> = results
            .iter()
            .map(|result| {
                serde_json::to_string(result).expect("names are text and figures are finite or null")
            })
            .collect();
        let filled = format!("\"benchmark_results\":[\n{}\n]", lines.join(",\n"));
        head.replacen("\"benchmark_results\":[]", &filled, 1) + "\n"
    }
}

/// Every figure that is no whole number, to six digits that count.
fn round(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let exact = number.as_f64().unwrap_or_default();
            let rounded: f64 = format!("{exact:.5e}").parse().unwrap_or(exact);
            if let Some(rounded) = serde_json::Number::from_f64(rounded) {
                *number = rounded;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(round),
        Value::Object(fields) => fields.values_mut().for_each(round),
        _ => {}
    }
}

/// Writes a file beside its place and moves it there, so that no reader finds half of it.
///
/// # Errors
///
/// [`Error::Write`].
pub fn write_whole(path: &Path, text: &str) -> Result<()> {
    let write = |source| Error::Write {
        path: path.to_path_buf(),
        source,
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(write)?;
    }
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, text).map_err(write)?;
    fs::rename(&unfinished, path).map_err(write)
}

/// The results at a path: one file, or every `.json` file of a folder, by suite.
///
/// # Errors
///
/// As [`SuiteResult::read`]; [`Error::NothingThere`] for a folder without results, [`Error::Format`] for two files of one
/// suite.
pub fn read_all(path: &Path) -> Result<BTreeMap<String, SuiteResult>> {
    let read = |source| Error::Read {
        path: path.to_path_buf(),
        source,
    };
    let mut files = vec![path.to_path_buf()];
    if path.is_dir() {
        let entries: std::io::Result<Vec<_>> = fs::read_dir(path).map_err(read)?.collect();
        files = entries
            .map_err(read)?
            .into_iter()
            .map(|entry| entry.path())
            .collect();
        files.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
        files.sort();
    }
    let mut suites = BTreeMap::new();
    for file in files {
        let suite = SuiteResult::read(&file)?;
        let name = suite.suite_name.clone();
        if suites.insert(name.clone(), suite).is_some() {
            let message = format!("there are two files of the suite {name}");
            return Err(Error::Format { path: file, message });
        }
    }
    match suites.is_empty() {
        true => Err(Error::NothingThere {
            path: path.to_path_buf(),
        }),
        false => Ok(suites),
    }
}

/// The schema of result files.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(SuiteResult).to_value();
    schema["title"] = "Results of a Peregrine benchmark suite, version 1".into();
    schema
}
