//! What an optimisation is worth: the same work with it and without it, in the same processes in turns.
//!
//! Groups of the suite of ablations have two variants, `on` and `off`. `off` is the slow way, really gone: through the public
//! interface, by one who does not use what makes it fast.

use crate::bootstrap::Interval;
use crate::result::{BenchmarkResult, SuiteResult};

/// The variant as it is.
pub const ON: &str = "on";
/// The variant without the optimisation.
pub const OFF: &str = "off";

/// One optimisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worth<'a> {
    /// Its name: what and in which case.
    pub name: &'a str,
    /// With it.
    pub on: &'a BenchmarkResult,
    /// Without it.
    pub off: &'a BenchmarkResult,
    /// How many times as long it takes without it, by the medians.
    pub times: f64,
    /// The bootstrap interval of that, by pairs of rounds; none where the samples were left out.
    pub interval: Option<[f64; 2]>,
}

/// What was measured both ways in a suite, in its order.
pub fn worth(suite: &SuiteResult) -> Vec<Worth<'_>> {
    let results = &suite.benchmark_results;
    let ons = results.iter().filter(|result| result.implementation() == ON);
    let both = ons.filter_map(|on| {
        let is_off = |other: &&BenchmarkResult| other.group() == on.group() && other.implementation() == OFF;
        Some((on, results.iter().find(is_off)?))
    });
    both.map(|(on, off)| Worth {
        name: on.group().split_once('/').map_or(on.group(), |(_, name)| name),
        on,
        off,
        times: off.latency_ms.p50 / on.latency_ms.p50,
        interval: Interval::of_ratio(&on.rounds, &off.rounds, true).map(|ratio| [ratio.lower, ratio.upper]),
    })
    .collect()
}
