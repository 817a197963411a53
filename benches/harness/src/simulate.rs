//! Simulated runs, to see that verdicts mean what they say: equal runs raise no alarm, planted changes are found.
//!
//! Times are log-normal with a long tail of stalls; each round is slower or faster as a whole, as processes are; in a
//! session, what the machine does meets both sides of a round alike. All of it starts from a seed.

use std::collections::BTreeMap;

use crate::bootstrap::{SEED, normal};
use crate::compare::{Comparison, Metric, Severity, Verdict, compare};
use crate::environment::Environment;
use crate::error::Result;
use crate::protocol::{Descriptor, Role};
use crate::result::{BenchmarkResult, Counts, Gathered, SCHEMA_VERSION, Settings, SuiteResult};
use crate::samples::Round;

/// How a simulated side of a comparison is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Side {
    /// Median, in microseconds.
    pub median_us: f64,
    /// Instructions of an operation.
    pub instructions: f64,
    /// Rounds.
    pub rounds: usize,
    /// Samples in each of them.
    pub samples: usize,
    /// How much rounds differ, as the deviation of the logarithm.
    pub between_rounds: f64,
    /// How much samples of a round differ, likewise.
    pub within_rounds: f64,
    /// How many samples in a thousand stall, for up to twenty times as long.
    pub stalls: u32,
}

impl Default for Side {
    fn default() -> Self {
        Self {
            median_us: 22.0,
            instructions: 40_000.0,
            rounds: 10,
            samples: 200,
            between_rounds: 0.02,
            within_rounds: 0.15,
            stalls: 20,
        }
    }
}

/// Both sides of a session of one benchmark. `weather` is what each round of both meets.
pub fn session(seed: u64, base: Side, head: Side) -> [BTreeMap<String, SuiteResult>; 2] {
    let mut random = fastrand::Rng::with_seed(seed);
    let weather: Vec<f64> = (0..base.rounds.max(head.rounds))
        .map(|_| (0.10 * normal(&mut random)).exp())
        .collect();
    [base, head].map(|side| BTreeMap::from([("simulated".to_owned(), suite(&mut random, side, &weather))]))
}

fn suite(random: &mut fastrand::Rng, side: Side, weather: &[f64]) -> SuiteResult {
    let descriptor = Descriptor {
        id: "simulated/op/1/ours".parse().expect("it has four parts"),
        role: Role::Ours,
        workload: "simulated".to_owned(),
        counted: true,
        hidden: false,
    };
    let rounds = weather[..side.rounds].iter().map(|weather| {
        let round = side.median_us * weather * (side.between_rounds * normal(random)).exp();
        let samples = (0..side.samples).map(|_| {
            let stalled = random.u32(0..1_000) < side.stalls;
            let longer = if stalled { 1.0 + 19.0 * random.f64() } else { 1.0 };
            let us = round * longer * (side.within_rounds * normal(random)).exp();
            (us * 1e6) as u64
        });
        Round::of(samples.collect())
    });
    let gathered = Gathered {
        rounds: rounds.collect(),
        iterations: (side.rounds * side.samples) as u64,
        batch: 1,
        counts: Counts {
            instructions_per_op: Some(side.instructions),
            ..Counts::default()
        },
        ..Gathered::default()
    };
    let result = BenchmarkResult::of(&descriptor, gathered).expect("each side has samples");
    SuiteResult {
        schema_version: SCHEMA_VERSION,
        suite_name: "simulated".to_owned(),
        benchmark_results: vec![result],
        failures: Vec::new(),
        environment: Environment {
            cores: 1,
            ..Environment::default()
        },
        settings: Settings {
            quick: false,
            rounds: u32::try_from(side.rounds).unwrap_or(u32::MAX),
            seed: SEED,
            session: Some("simulated".to_owned()),
            condensed: false,
        },
    }
}

/// What a self-test found: a line for each part, and what was wrong.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// What was tried and seen.
    pub seen: Vec<String>,
    /// What should not have been.
    pub wrong: Vec<String>,
}

impl Findings {
    /// Notes what was seen, and that it was wrong unless it `holds`.
    pub fn note(&mut self, holds: bool, what: String) {
        if !holds {
            self.wrong.push(what.clone());
        }
        self.seen.push(what);
    }
}

/// Whether somebody would be told of a change where there is none.
pub fn alarms(comparison: &Comparison) -> bool {
    let changed = |verdict| matches!(verdict, Verdict::Improved | Verdict::Regressed);
    comparison
        .rows
        .iter()
        .any(|row| row.severity > Severity::Fine || (row.role == Role::Ours && changed(row.verdict)))
}

/// The verdict on a metric of ours.
pub fn verdict(comparison: &Comparison, metric: Metric) -> Option<(Verdict, Severity)> {
    let rows = comparison.rows.iter();
    let mut ours = rows.filter(|row| row.metric == metric && row.role == Role::Ours);
    ours.next().map(|row| (row.verdict, row.severity))
}

/// Compares simulated runs: so many equal ones, and as many with something planted.
///
/// # Errors
///
/// None today; the part with real runs has them.
pub fn self_test(runs: u64) -> Result<Findings> {
    let equal = Side::default();
    let slower = Side {
        median_us: equal.median_us * 2.0,
        ..equal
    };
    let more = Side {
        instructions: equal.instructions * 1.05,
        ..equal
    };
    let compared = |seed, head| {
        let [base, head] = session(SEED.wrapping_add(seed), equal, head);
        compare(&base, &head, &BTreeMap::new())
    };
    let mut findings = Findings::default();
    let false_alarms = (0..runs).filter(|seed| alarms(&compared(*seed, equal))).count();
    findings.note(
        false_alarms == 0,
        format!("{false_alarms} alarms in {runs} simulated equal runs"),
    );
    let caught = |metric, head| {
        let failed = (Verdict::Regressed, Severity::Fail);
        let hit = |seed: &u64| verdict(&compared(*seed, head), metric) == Some(failed);
        (0..runs).filter(hit).count() as u64
    };
    let found = caught(Metric::WallTime, slower);
    findings.note(
        found == runs,
        format!("{found} of {runs} simulated slowdowns of 2 x caught"),
    );
    let found = caught(Metric::Instructions, more);
    findings.note(
        found == runs,
        format!("{found} of {runs} simulated increases of instructions by 5 % caught"),
    );
    Ok(findings)
}
