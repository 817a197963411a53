//! Verdicts on two sets of results.
//!
//! Times are judged by the bootstrap interval of the ratio of the medians, head to base. Slower or faster is said only when
//! the whole interval lies beyond a threshold, and beyond the noise: how far two halves of one side, or two runs of the
//! base in the same session, lie apart although nothing differs between them. "Unchanged" is a finding too, and needs an
//! interval within the threshold; everything else is inconclusive, and says so. Counts do not drift, so their ratio alone
//! is judged.
//!
//! Only ours fail a comparison. A floor that moved says that the machine did. Times of short runs are told, and fail
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bootstrap::{CONFIDENCE, Interval};
use crate::environment::Environment;
use crate::protocol::Role;
use crate::result::{BenchmarkResult, Counts, SuiteResult};
use crate::samples::Round;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The median of an operation's time, in milliseconds.
    WallTime,
    /// Instructions of an operation.
    Instructions,
    /// Allocations of an operation.
    Allocations,
    /// Bytes allocated by an operation.
    AllocatedBytes,
}

impl Metric {
    /// Those that are counted.
    pub const COUNTED: [Self; 3] = [Self::Instructions, Self::Allocations, Self::AllocatedBytes];

    /// By how much it may grow before somebody is told, and before it fails.
    pub fn thresholds(self) -> Thresholds {
        match self {
            Self::WallTime => Thresholds {
                alert: 0.05,
                fail: 0.10,
            },
            _ => Thresholds {
                alert: 0.01,
                fail: 0.03,
            },
        }
    }

    /// Its value in counts.
    pub fn of(self, counts: &Counts) -> Option<f64> {
        match self {
            Self::WallTime => None,
            Self::Instructions => counts.instructions_per_op,
            Self::Allocations => counts.allocations_per_op,
            Self::AllocatedBytes => counts.bytes_per_op,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WallTime => "time",
            Self::Instructions => "instructions",
            Self::Allocations => "allocations",
            Self::AllocatedBytes => "bytes",
        })
    }
}

/// Growth from which on somebody is told, and from which on it fails, as a share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Somebody is told.
    pub alert: f64,
    /// It fails.
    pub fail: f64,
}

/// What became of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It costs more.
    Regressed,
    /// It was there before.
    Missing,
    /// It cannot be compared: another machine, another workload.
    Incomparable,
    /// The samples do not decide it.
    Inconclusive,
    /// It costs less.
    Improved,
    /// It was not there before.
    New,
    /// It costs what it did, within the threshold.
    Unchanged,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Improved => "improved",
            Self::Unchanged => "unchanged",
            Self::Regressed => "regressed",
            Self::Inconclusive => "inconclusive",
            Self::Missing => "missing",
            Self::New => "new",
            Self::Incomparable => "incomparable",
        })
    }
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing.
    Fine,
    /// Somebody is told.
    Alert,
    /// The comparison fails.
    Fail,
}

/// One metric of one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Whose work it is.
    pub role: Role,
    /// What was compared.
    pub metric: Metric,
    /// The value before.
    pub base: Option<f64>,
    /// The value now.
    pub head: Option<f64>,
    /// Head to base: lower end, ratio, upper end; all the same for counts.
    pub ratio: Option<[f64; 3]>,
    /// How far nothing moved it, as a share.
    pub noise: f64,
    /// What became of it.
    pub verdict: Verdict,
    /// What follows.
    pub severity: Severity,
    /// Why, where the verdict needs a reason.
    pub reason: String,
}

/// All of them, worst first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Comparison {
    /// One for each metric of each benchmark.
    pub rows: Vec<Row>,
    /// What one should know to read them.
    pub notes: Vec<String>,
}

/// What the process that compares ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Nothing failed.
    Ok,
    /// Something regressed beyond the threshold that fails, or is missing.
    Failed,
    /// Nothing could be compared.
    CouldNotCompare,
}

/// Compares results by suite. Suites of the base that the head did not run are missing as a whole. `noise` has more runs of
/// the base from the session, if there are any.
pub fn compare(
    base: &BTreeMap<String, SuiteResult>,
    head: &BTreeMap<String, SuiteResult>,
    again: &BTreeMap<String, SuiteResult>,
) -> Comparison {
    let mut comparison = Comparison::default();
    let names: BTreeSet<&String> = base.keys().chain(head.keys()).collect();
    for name in names {
        suite(base.get(name), head.get(name), again.get(name), &mut comparison);
    }
    comparison.sort();
    comparison
}

fn suite(
    base: Option<&SuiteResult>,
    head: Option<&SuiteResult>,
    again: Option<&SuiteResult>,
    comparison: &mut Comparison,
) {
    let by_name = |suite: Option<&SuiteResult>| -> BTreeMap<String, BenchmarkResult> {
        let results = suite
            .map(|suite| suite.benchmark_results.as_slice())
            .unwrap_or_default();
        results
            .iter()
            .map(|result| (result.name.clone(), result.clone()))
            .collect()
    };
    let (before, now, again) = (by_name(base), by_name(head), by_name(again));
    let sessions = |suite: &SuiteResult| suite.settings.session.clone();
    let paired = match (base.and_then(sessions), head.and_then(sessions)) {
        (Some(base), Some(head)) => base == head,
        _ => false,
    };
    if let (Some(base), Some(head)) = (base, head) {
        comparison.note_differences(base, head, paired);
    }
    let first = comparison.rows.len();
    for name in before.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
        match (before.get(name), now.get(name)) {
            (Some(before), None) => {
                let failed = head
                    .into_iter()
                    .flat_map(|head| &head.failures)
                    .find(|failure| name.starts_with(&failure.name));
                comparison
                    .rows
                    .push(missing(before, failed.map(|failure| failure.message.as_str())));
            }
            (None, Some(now)) => comparison.rows.push(Row {
                head: Some(now.latency_ms.p50),
                ..Row::bare(now, Metric::WallTime, Verdict::New)
            }),
            (Some(before), Some(now)) => {
                let environments = base
                    .zip(head)
                    .map(|(base, head)| (&base.environment, &head.environment));
                if let Some(environments) = environments {
                    both(
                        before,
                        now,
                        again.get(name),
                        environments,
                        paired,
                        &mut comparison.rows,
                    );
                }
            }
            (None, None) => {}
        }
    }
    let is_short = |suite: Option<&SuiteResult>| suite.is_some_and(|suite| suite.settings.quick);
    if is_short(base) || is_short(head) {
        let rows = comparison.rows[first..].iter_mut();
        for row in rows.filter(|row| row.metric == Metric::WallTime && row.verdict == Verdict::Regressed) {
            row.severity = row.severity.min(Severity::Alert);
        }
    }
}

fn missing(before: &BenchmarkResult, failure: Option<&str>) -> Row {
    let gated = before.role == Role::Ours;
    Row {
        base: Some(before.latency_ms.p50),
        severity: if gated { Severity::Fail } else { Severity::Alert },
        reason: failure
            .map(|message| format!("it failed: {message}"))
            .unwrap_or_default(),
        ..Row::bare(before, Metric::WallTime, Verdict::Missing)
    }
}

fn both(
    before: &BenchmarkResult,
    now: &BenchmarkResult,
    again: Option<&BenchmarkResult>,
    environments: (&Environment, &Environment),
    paired: bool,
    rows: &mut Vec<Row>,
) {
    if before.workload != now.workload {
        rows.push(Row {
            base: Some(before.latency_ms.p50),
            head: Some(now.latency_ms.p50),
            reason: "another workload".to_owned(),
            ..Row::bare(now, Metric::WallTime, Verdict::Incomparable)
        });
        return;
    }
    let mut time = Row {
        base: Some(before.latency_ms.p50),
        head: Some(now.latency_ms.p50),
        ..Row::bare(now, Metric::WallTime, Verdict::Incomparable)
    };
    match environments.0.why_times_differ(environments.1) {
        Some(why) => time.reason = why,
        None => {
            let ratio = Interval::of_ratio(&before.rounds, &now.rounds, paired);
            let apart = again.map_or(0.0, |again| gap(median(&before.rounds), median(&again.rounds)));
            time.noise = apart.max(match paired {
                true => noise_of_pairs(&before.rounds, &now.rounds),
                false => noise(&before.rounds).max(noise(&now.rounds)),
            });
            time.ratio = ratio.map(|ratio| [ratio.lower, ratio.estimate, ratio.upper]);
            (time.verdict, time.severity, time.reason) = judge_time(ratio, time.noise);
        }
    }
    rows.push(time.gated());
    for metric in Metric::COUNTED {
        let (Some(base), Some(head)) = (metric.of(&before.counts), metric.of(&now.counts)) else {
            continue;
        };
        let why_not = match metric {
            Metric::Instructions => environments.0.why_instructions_differ(environments.1),
            _ => environments.0.why_counts_differ(environments.1),
        };
        rows.push(Row::counted(now, metric, base, head, why_not).gated());
    }
}

impl Row {
    fn bare(result: &BenchmarkResult, metric: Metric, verdict: Verdict) -> Self {
        Self {
            name: result.name.clone(),
            role: result.role,
            metric,
            base: None,
            head: None,
            ratio: None,
            noise: 0.0,
            verdict,
            severity: Severity::Fine,
            reason: String::new(),
        }
    }

    /// A count, judged.
    pub(crate) fn counted(
        result: &BenchmarkResult,
        metric: Metric,
        base: f64,
        head: f64,
        why_not: Option<String>,
    ) -> Self {
        let mut row = Self {
            base: Some(base),
            head: Some(head),
            ..Self::bare(result, metric, Verdict::Incomparable)
        };
        match why_not {
            Some(why) => row.reason = why,
            None => {
                let ratio = if base == head { 1.0 } else { head / base };
                row.ratio = ratio.is_finite().then_some([ratio; 3]);
                (row.verdict, row.severity) = judge_count(base, head, metric.thresholds());
            }
        }
        row
    }

    /// Floors and rivals fail nothing.
    fn gated(mut self) -> Self {
        if self.role != Role::Ours {
            self.severity = Severity::Fine;
        }
        self
    }
}

/// What an interval of a ratio of times says.
pub fn judge_time(ratio: Option<Interval>, noise: f64) -> (Verdict, Severity, String) {
    let undecided = |reason: &str| (Verdict::Inconclusive, Severity::Fine, reason.to_owned());
    let Some(ratio) = ratio else {
        return undecided("no samples");
    };
    if ratio.confidence < CONFIDENCE {
        return undecided("too few rounds");
    }
    let Thresholds { alert, fail } = Metric::WallTime.thresholds();
    let beyond = |threshold: f64| 1.0 + threshold.max(noise);
    if ratio.lower > beyond(alert) {
        let severity = if ratio.lower > beyond(fail) {
            Severity::Fail
        } else {
            Severity::Alert
        };
        return (Verdict::Regressed, severity, String::new());
    }
    if ratio.upper < 1.0 / beyond(alert) {
        return (Verdict::Improved, Severity::Fine, String::new());
    }
    if ratio.lower >= 1.0 / (1.0 + alert) && ratio.upper <= 1.0 + alert {
        return (Verdict::Unchanged, Severity::Fine, String::new());
    }
    let moved = ratio.lower > 1.0 + alert || ratio.upper < 1.0 / (1.0 + alert);
    undecided(if moved {
        "no more than the noise"
    } else {
        "the interval is too wide"
    })
}

/// What two counts say.
pub fn judge_count(base: f64, head: f64, thresholds: Thresholds) -> (Verdict, Severity) {
    // Counts are exact; what differs in the ninth digit is how they were divided.
    let beyond = |threshold: f64| head > base * (1.0 + threshold) + 1e-9;
    match () {
        () if beyond(thresholds.fail) => (Verdict::Regressed, Severity::Fail),
        () if beyond(thresholds.alert) => (Verdict::Regressed, Severity::Alert),
        () if head * (1.0 + thresholds.alert) + 1e-9 < base => (Verdict::Improved, Severity::Fine),
        () => (Verdict::Unchanged, Severity::Fine),
    }
}

/// How far the medians of odd and even rounds lie apart, as a share: nothing differs between them. 0 below four rounds.
pub fn noise(rounds: &[Round]) -> f64 {
    match rounds.len() {
        0..4 => 0.0,
        _ => gap(median(&half(rounds, 0)), median(&half(rounds, 1))),
    }
}

/// The same for two sides that ran in turns: how far their ratios in odd and even rounds lie apart. What met both sides of
/// a round alike is no noise there. 0 below four rounds.
pub fn noise_of_pairs(base: &[Round], head: &[Round]) -> f64 {
    if base.len() < 4 || base.len() != head.len() {
        return 0.0;
    }
    let ratio = |parity| median(&half(head, parity)) / median(&half(base, parity));
    gap(ratio(0), ratio(1))
}

fn half(rounds: &[Round], parity: usize) -> Vec<Round> {
    rounds.iter().skip(parity).step_by(2).cloned().collect()
}

fn median(rounds: &[Round]) -> f64 {
    Round::merged(rounds).median()
}

fn gap(one: f64, other: f64) -> f64 {
    let gap = (one / other).max(other / one) - 1.0;
    // Without samples there is nothing to lie apart.
    if gap.is_finite() { gap } else { 0.0 }
}

impl Comparison {
    /// What the process ends with.
    pub fn exit(&self) -> Exit {
        let compared = |row: &Row| row.verdict != Verdict::Incomparable;
        match () {
            () if self.rows.iter().any(|row| row.severity == Severity::Fail) => Exit::Failed,
            () if !self.rows.iter().any(compared) => Exit::CouldNotCompare,
            () => Exit::Ok,
        }
    }

    /// How many rows of a verdict there are, worst first.
    pub fn tally(&self) -> BTreeMap<Verdict, usize> {
        let mut tally = BTreeMap::new();
        for row in &self.rows {
            *tally.entry(row.verdict).or_default() += 1;
        }
        tally
    }

    /// Adds those of another comparison.
    pub fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.notes.extend(other.notes);
        self.sort();
    }

    fn sort(&mut self) {
        self.rows.sort_by(|a, b| {
            let key = |row: &Row| (std::cmp::Reverse(row.severity), row.verdict);
            let by_name = (&a.name, a.metric).cmp(&(&b.name, b.metric));
            key(a).cmp(&key(b)).then(by_name)
        });
        self.notes.sort();
        self.notes.dedup();
    }

    fn note_differences(&mut self, base: &SuiteResult, head: &SuiteResult, paired: bool) {
        let (before, now) = (&base.environment, &head.environment);
        let unknown = || "unknown".to_owned();
        let mut differs = |what: &str, before: &Option<String>, now: &Option<String>| {
            if before != now {
                let (before, now) = (
                    before.clone().unwrap_or_else(unknown),
                    now.clone().unwrap_or_else(unknown),
                );
                self.notes.push(format!("{what}: {before}, then {now}"));
            }
        };
        differs("compiler", &before.rustc, &now.rustc);
        differs("kernel", &before.kernel, &now.kernel);
        if base.settings.quick || head.settings.quick {
            self.notes
                .push("short runs, not for the record: counts can fail, times cannot".to_owned());
        }
        if !paired {
            let note = "two sessions: what changed about the machine between them counts as a change here; \
                        `bench --against` runs both in turns";
            self.notes.push(note.to_owned());
        }
    }
}
