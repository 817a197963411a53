//! The 21 operations by which agent frameworks are rated, with the limits where others start, and our own targets.
//!
//! A limit is on the median in milliseconds, as others publish it; it says little about the work of a framework, because
//! most of it is the model's time. So a target and the floor of the same run stand beside it.

use crate::protocol::Role;
use crate::result::{BenchmarkResult, SuiteResult};

/// One of the 21.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// Which part.
    pub part: &'static str,
    /// What is done.
    pub name: &'static str,
    /// The benchmarks of ours that show it, once there are some: with a model that takes no time, one that takes 50 ms, and a
    /// real one where it was asked for.
    pub benchmarks: &'static [&'static str],
    /// Up to here it is excellent, in milliseconds.
    pub excellent_ms: f64,
    /// Up to here it is good.
    pub good_ms: f64,
    /// What we want of it.
    pub target: Target,
}

/// What we want of an operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// At most so long, in milliseconds.
    Ms(f64),
    /// At most so many times the floor of the same run.
    Floor(f64),
}

/// How others would rate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rating {
    /// Within the first limit.
    Excellent,
    /// Within the second.
    Good,
    /// Beyond both.
    NeedsWork,
}

impl Rating {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Excellent => "excellent",
            Self::Good => "good",
            Self::NeedsWork => "needs work",
        }
    }
}

const fn limit(
    part: &'static str,
    name: &'static str,
    benchmarks: &'static [&'static str],
    (excellent_ms, good_ms): (f64, f64),
    target: Target,
) -> Limit {
    Limit {
        part,
        name,
        benchmarks,
        excellent_ms,
        good_ms,
        target,
    }
}

/// All of them, in their order.
pub const LIMITS: [Limit; 21] = {
    use Target::{Floor, Ms};
    [
        limit(
            "initialization",
            "cold start",
            &["initialization/cold_start/process/peregrine"],
            (10.0, 20.0),
            Ms(5.5),
        ),
        limit(
            "initialization",
            "warm start",
            &["initialization/warm_start/one_tool/peregrine"],
            (2.0, 5.0),
            Ms(0.001),
        ),
        limit(
            "initialization",
            "lazy init",
            &["initialization/lazy_init/first_call/peregrine"],
            (1.0, 3.0),
            Floor(1.05),
        ),
        limit(
            "execution",
            "single shot",
            &[
                "execution/single_shot/0ms/peregrine",
                "execution/single_shot/50ms/peregrine",
                "execution/single_shot/ollama/peregrine",
            ],
            (200.0, 500.0),
            Floor(1.05),
        ),
        limit(
            "execution",
            "multi-turn",
            &[
                "execution/multi_turn/0ms/peregrine",
                "execution/multi_turn/50ms/peregrine",
                "execution/multi_turn/ollama/peregrine",
            ],
            (400.0, 800.0),
            Floor(1.05),
        ),
        limit(
            "execution",
            "long-running",
            &[
                "execution/long_running/0ms/peregrine",
                "execution/long_running/50ms/peregrine",
                "execution/long_running/ollama/peregrine",
            ],
            (2_000.0, 3_000.0),
            Floor(1.08),
        ),
        limit("memory", "hot", &[], (0.5, 1.0), Ms(0.000_2)),
        limit("memory", "warm", &[], (5.0, 10.0), Floor(1.2)),
        limit("memory", "cold", &[], (50.0, 100.0), Ms(1.0)),
        limit(
            "tools",
            "permission",
            &["tools/permission/10000_names/peregrine"],
            (0.1, 0.5),
            Ms(0.001),
        ),
        limit(
            "tools",
            "approval",
            &["tools/approval/granted/peregrine"],
            (1.0, 2.0),
            Ms(0.05),
        ),
        limit(
            "tools",
            "execution",
            &["tools/execution/one_call/peregrine"],
            (20.0, 50.0),
            Ms(0.05),
        ),
        limit(
            "interrupts",
            "detection",
            &["interrupts/detection/wake/peregrine"],
            (0.5, 1.0),
            Ms(0.1),
        ),
        limit(
            "interrupts",
            "shutdown",
            &["interrupts/shutdown/100_tasks/peregrine"],
            (5.0, 10.0),
            Floor(1.5),
        ),
        limit(
            "interrupts",
            "checkpoint on interrupt",
            &["interrupts/checkpoint/100kb/peregrine"],
            (20.0, 50.0),
            Floor(1.3),
        ),
        limit(
            "checkpoints",
            "save",
            &["checkpoints/save/1kb_process_safe/peregrine"],
            (10.0, 30.0),
            Ms(0.005),
        ),
        limit(
            "checkpoints",
            "load",
            &["checkpoints/load/5000_records/peregrine"],
            (10.0, 20.0),
            Ms(5.0),
        ),
        limit(
            "checkpoints",
            "compression",
            &["checkpoints/compression/100kb/peregrine"],
            (20.0, 50.0),
            Floor(1.3),
        ),
        limit("multi-agent", "A2A", &[], (1.0, 2.0), Floor(1.1)),
        limit("multi-agent", "routing", &[], (2.0, 5.0), Ms(0.01)),
        limit("multi-agent", "delegation", &[], (5.0, 10.0), Floor(1.1)),
    ]
};

impl Limit {
    /// How others would rate a median in milliseconds.
    pub fn rate(&self, p50_ms: f64) -> Rating {
        match () {
            () if p50_ms <= self.excellent_ms => Rating::Excellent,
            () if p50_ms <= self.good_ms => Rating::Good,
            () => Rating::NeedsWork,
        }
    }
}

/// One of the 21, measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Rated<'a> {
    /// Which.
    pub limit: &'static Limit,
    /// What is done; with what it was done, where more than that was measured.
    pub name: String,
    /// What was measured of it.
    pub result: &'a BenchmarkResult,
    /// The fastest floor of the same processes.
    pub floor: Option<&'a BenchmarkResult>,
    /// How others would rate it.
    pub rating: Rating,
    /// The target in words, and whether it was met; `None` where there is no floor to compare with.
    pub target: (String, Option<bool>),
}

/// Those of the 21 that were measured, in their order.
pub fn rated<'a>(suites: impl IntoIterator<Item = &'a SuiteResult>) -> Vec<Rated<'a>> {
    let results: Vec<&BenchmarkResult> = suites
        .into_iter()
        .flat_map(|suite| &suite.benchmark_results)
        .collect();
    let mut rated = Vec::new();
    for limit in &LIMITS {
        let measured: Vec<&BenchmarkResult> = limit
            .benchmarks
            .iter()
            .filter_map(|name| results.iter().copied().find(|result| result.name == **name))
            .collect();
        for result in &measured {
            let floor = floor(&results, result);
            let p50 = result.latency_ms.p50;
            let target = match limit.target {
                Target::Ms(ms) => (format!("≤ {}", human_ms(ms)), Some(p50 <= ms)),
                Target::Floor(times) => {
                    let met = floor.map(|floor| p50 <= times * floor.latency_ms.p50);
                    (format!("≤ {times} × floor"), met)
                }
            };
            let name = match measured.len() {
                1 => limit.name.to_owned(),
                _ => format!(
                    "{} ({})",
                    limit.name,
                    result.name.split('/').nth(2).unwrap_or_default()
                ),
            };
            rated.push(Rated {
                limit,
                name,
                result,
                floor,
                rating: limit.rate(p50),
                target,
            });
        }
    }
    rated
}

/// The fastest floor beside a result.
pub fn floor<'a>(results: &[&'a BenchmarkResult], result: &BenchmarkResult) -> Option<&'a BenchmarkResult> {
    let beside = results
        .iter()
        .copied()
        .filter(|other| other.role == Role::Floor && other.group() == result.group());
    beside.min_by(|a, b| a.latency_ms.p50.total_cmp(&b.latency_ms.p50))
}

/// A time in the unit that suits it, with three digits.
pub fn human_ms(ms: f64) -> String {
    if ms == 0.0 {
        return "0".to_owned();
    }
    let (value, unit) = match ms.abs() {
        small if small < 1e-3 => (ms * 1e6, "ns"),
        small if small < 1.0 => (ms * 1e3, "µs"),
        middle if middle < 1e3 => (ms, "ms"),
        _ => (ms / 1e3, "s"),
    };
    format!("{} {unit}", three_digits(value))
}

/// A number with three digits that count, without zeros at the end.
pub fn three_digits(value: f64) -> String {
    let places = match value.abs() {
        large if large >= 99.95 => 0,
        middle if middle >= 9.995 => 1,
        small if small >= 0.999_5 => 2,
        _ => 3,
    };
    let text = format!("{value:.places$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratings_follow_their_limits() {
        for limit in &LIMITS {
            assert!(limit.excellent_ms < limit.good_ms, "{}", limit.name);
            assert_eq!(limit.rate(limit.excellent_ms), Rating::Excellent);
            assert_eq!(limit.rate(limit.excellent_ms * 1.001), Rating::Good);
            assert_eq!(limit.rate(limit.good_ms), Rating::Good);
            assert_eq!(limit.rate(limit.good_ms * 1.001), Rating::NeedsWork);
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        for (ms, text) in [
            (0.0, "0"),
            (0.000_000_25, "0.25 ns"),
            (0.000_012_3, "12.3 ns"),
            (0.022, "22 µs"),
            (0.999, "999 µs"),
            (1.0, "1 ms"),
            (5.5, "5.5 ms"),
            (123.4, "123 ms"),
            (1_234.0, "1.23 s"),
        ] {
            assert_eq!(human_ms(ms), text);
        }
    }
}
