//! Results to test with.

use std::collections::BTreeMap;

use peregrine_harness::environment::Environment;
use peregrine_harness::protocol::{Descriptor, Role};
use peregrine_harness::result::{BenchmarkResult, Counts, Gathered, SCHEMA_VERSION, Settings, SuiteResult};
use peregrine_harness::samples::Round;

pub(crate) fn round(us: impl IntoIterator<Item = f64>) -> Round {
    Round::of(us.into_iter().map(|us| (us * 1e6) as u64).collect())
}

/// Ten rounds, each a little apart from the others, around a median.
pub(crate) fn rounds(median_us: f64) -> Vec<Round> {
    let shifts = [
        0.0, 0.004, -0.004, 0.008, -0.008, 0.002, -0.002, 0.006, -0.006, 0.001,
    ];
    let one = |shift: f64| {
        round((0..101).map(|n| median_us * (1.0 + shift) * (1.0 + (f64::from(n) - 50.0) / 1_000.0)))
    };
    shifts.into_iter().map(one).collect()
}

pub(crate) fn result(name: &str, role: Role, rounds: Vec<Round>, counts: Counts) -> BenchmarkResult {
    let descriptor = Descriptor {
        id: name.parse().unwrap(),
        role,
        workload: "work".to_owned(),
        counted: true,
        hidden: false,
    };
    let gathered = Gathered {
        iterations: rounds.iter().map(|round| round.moments.count).sum(),
        rounds,
        batch: 1,
        counts,
        ..Gathered::default()
    };
    BenchmarkResult::of(&descriptor, gathered).unwrap()
}

pub(crate) fn suite(results: Vec<BenchmarkResult>) -> SuiteResult {
    SuiteResult {
        schema_version: SCHEMA_VERSION,
        suite_name: "s".to_owned(),
        benchmark_results: results,
        failures: Vec::new(),
        environment: Environment {
            cpu_model: Some("a processor".to_owned()),
            cores: 2,
            rustc: Some("rustc 1".to_owned()),
            target: Some("a-target".to_owned()),
            profile: "release".to_owned(),
            ..Environment::default()
        },
        settings: Settings {
            quick: false,
            rounds: 10,
            seed: 42,
            session: Some("one".to_owned()),
            condensed: false,
        },
    }
}

pub(crate) fn suites(suite: SuiteResult) -> BTreeMap<String, SuiteResult> {
    BTreeMap::from([(suite.suite_name.clone(), suite)])
}

pub(crate) fn allocations(count: f64) -> Counts {
    Counts {
        allocations_per_op: Some(count),
        ..Counts::default()
    }
}
