//! What we want of each path, in numbers: the targets of the design, each with the benchmark that shows whether it is met.
//!
//! What is not measured yet is absent from the table, not from here: its benchmark has its name already.

use crate::limits::{human_ms, three_digits};
use crate::markdown::count;
use crate::result::{BenchmarkResult, SuiteResult};

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measure {
    /// The median, in milliseconds.
    P50,
    /// The 99th percentile, in milliseconds; the 95th where there are too few samples for it.
    P99,
    /// The median of one of so many things that are done together, in milliseconds.
    P50Of(f64),
    /// Allocations of an operation.
    Allocations,
    /// A figure of its own, by its name.
    Figure(&'static str),
}

/// How much of it is wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// At most so much.
    AtMost(f64),
    /// At least so much.
    AtLeast(f64),
    /// At most so many times what the floor of the same processes has.
    Floor(f64),
}

/// One target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// What for.
    pub path: &'static str,
    /// The benchmark.
    pub benchmark: &'static str,
    /// What of it.
    pub measure: Measure,
    /// How much.
    pub bound: Bound,
}

const fn goal(path: &'static str, benchmark: &'static str, measure: Measure, bound: Bound) -> Goal {
    Goal {
        path,
        benchmark,
        measure,
        bound,
    }
}

const RESIDENT: Measure = Measure::Figure("resident peak of the process, MB:");

/// All of them.
#[rustfmt::skip]
pub const GOALS: &[Goal] = {
    use Bound::{AtLeast, AtMost, Floor};
    use Measure::{Allocations, Figure, P50, P50Of, P99};
    &[
        goal("one agent call over loopback", "execution/single_shot/0ms/peregrine", P50, Floor(1.05)),
        goal("tool loop of two calls", "execution/tool_loop/0ms/peregrine", P50, Floor(1.08)),
        goal("three turns", "execution/multi_turn/0ms/peregrine", P50, Floor(1.05)),
        goal("stream of 64 pieces: first", "streaming/first_token/0ms/peregrine", P50, Floor(1.1)),
        goal("stream of 64 pieces: all", "streaming/whole/0ms/peregrine", P50, Floor(1.1)),
        goal("1,000 concurrent agents at 50 ms: processor for a call", "concurrency/process/1000_agents/peregrine", P50, Floor(1.15)),
        goal("1,000 concurrent agents at 50 ms: memory", "concurrency/process/1000_agents/peregrine", RESIDENT, Floor(1.3)),
        goal("one agent call, model in process", "execution/single_shot/in_process/peregrine", P50, AtMost(0.002)),
        goal("one agent call, model in process: allocations", "execution/single_shot/in_process/peregrine", Allocations, AtMost(25.0)),
        goal("tool loop of 16 turns, model in process", "execution/tool_loop/16_in_process/peregrine", P50, AtMost(0.05)),
        goal("turn 1,000 against turn 10", "execution/late_turn/1000/turn_1000", P50, Floor(1.2)),
        goal("agent from scratch", "initialization/agent/scratch/peregrine", P50, AtMost(0.000_5)),
        goal("agent with one tool", "initialization/agent/one_tool/peregrine", P50, AtMost(0.001)),
        goal("process start to first byte", "initialization/cold_start/process/peregrine", P50, AtMost(5.5)),
        goal("process start: resident", "initialization/cold_start/process/peregrine", RESIDENT, AtMost(12.0)),
        goal("cache hit in memory, 1.3 kB", "cache/hit/memory_1.3kb/peregrine", P50, AtMost(0.002)),
        goal("cache hit on disk, 1.3 kB", "cache/hit/disk_1.3kb/peregrine", P50, AtMost(0.015)),
        goal("1,000 equal misses: calls", "cache/flight/1000_equal/peregrine", Figure("calls made:"), AtMost(1.0)),
        goal("permission decision, 10,000 rules", "tools/permission/10000_names/peregrine", P50, AtMost(0.001)),
        goal("permission decision: allocations", "tools/permission/10000_names/peregrine", Allocations, AtMost(0.0)),
        goal("interrupt check", "interrupts/detection/check/peregrine", P50, AtMost(0.000_005)),
        goal("signal to observed", "interrupts/detection/signal/peregrine", P99, AtMost(0.1)),
        goal("journal append, process-safe", "checkpoints/save/1kb_process_safe/peregrine", P50, AtMost(0.005)),
        goal("journal append, power-safe", "checkpoints/save/1kb_power_safe/peregrine", P50, Floor(1.3)),
        goal("journal: bytes in files to payload", "checkpoints/load/5000_records/peregrine", Figure("bytes in files × payload:"), AtMost(1.3)),
        goal("append at record 5,000 against record 10", "checkpoints/save/at_record_5000/peregrine", P50, Floor(1.2)),
        goal("load of 5,000 records", "checkpoints/load/5000_records/peregrine", P50, AtMost(5.0)),
        goal("plan: a node in place", "executor/run/mesh_1000/peregrine", P50Of(1_000.0), AtMost(0.000_4)),
        goal("plan: a node spawned", "executor/spawned/mesh_1000/peregrine", P50Of(1_000.0), AtMost(0.002)),
        goal("plan: makespan to its bound", "executor/makespan/mesh_1000/peregrine", Figure("makespan × its bound:"), AtMost(1.05)),
        goal("limiter: acquire", "limits/acquire/uncontended/peregrine", P50, AtMost(0.000_3)),
        goal("limiter: used of the allowed rate, %", "limits/rate/hour_of_1000_rpm/peregrine", Figure("used of what is allowed, %:"), AtLeast(97.0)),
        goal("limiter: answered 429, %", "limits/rate/hour_of_1000_rpm/peregrine", Figure("answered 429, %:"), AtMost(0.1)),
        goal("typed partial JSON, 98 kB in pieces of 8", "structured/stream/98kb/peregrine", P50, AtMost(5.0)),
    ]
};

/// A target that was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Reached {
    /// Which.
    pub goal: &'static Goal,
    /// Ours, in words.
    pub ours: String,
    /// What is beside it: the fastest floor, else the fastest rival, by its name; and how many times that ours is.
    pub beside: Option<(String, f64)>,
    /// What was wanted, in words.
    pub wanted: String,
    /// Whether it was met.
    pub met: bool,
    /// By how much it was missed, as a share of what was wanted; 0 if it was met.
    pub missed_by: f64,
}

/// Those that were measured, in their order.
pub fn reached<'a>(suites: impl IntoIterator<Item = &'a SuiteResult>) -> Vec<Reached> {
    let results: Vec<&BenchmarkResult> = suites
        .into_iter()
        .flat_map(|suite| &suite.benchmark_results)
        .collect();
    GOALS.iter().filter_map(|goal| one(goal, &results)).collect()
}

fn one(goal: &'static Goal, results: &[&BenchmarkResult]) -> Option<Reached> {
    let result = results.iter().find(|result| result.name == goal.benchmark)?;
    let ours = value(goal.measure, result)?;
    let beside = beside(results, result).and_then(|other| Some((other, value(goal.measure, other)?)));
    let (wanted, limit) = match goal.bound {
        Bound::AtMost(limit) => (format!("≤ {}", shown(goal.measure, limit)), limit),
        Bound::AtLeast(limit) => (format!("≥ {}", shown(goal.measure, limit)), limit),
        Bound::Floor(times) => (format!("≤ {times} × floor"), times * beside?.1),
    };
    let missed_by = match goal.bound {
        Bound::AtLeast(_) => (limit - ours) / limit,
        // Nothing is allowed at all, and there is something.
        _ if limit == 0.0 => ours,
        _ => (ours - limit) / limit,
    };
    let times = |(other, value): (&BenchmarkResult, f64)| {
        let name = format!("{} {}", other.implementation(), shown(goal.measure, value));
        (value > 0.0).then(|| (name, ours / value))
    };
    Some(Reached {
        goal,
        ours: shown(goal.measure, ours),
        beside: beside.and_then(times),
        wanted,
        met: missed_by <= 0.0,
        missed_by: missed_by.max(0.0),
    })
}

/// The fastest floor beside a result, else the fastest rival.
fn beside<'a>(results: &[&'a BenchmarkResult], result: &BenchmarkResult) -> Option<&'a BenchmarkResult> {
    let others = results
        .iter()
        .copied()
        .filter(|other| other.group() == result.group() && other.name != result.name);
    others.min_by(|a, b| {
        let key = |one: &BenchmarkResult| (one.role != crate::protocol::Role::Floor, one.latency_ms.p50);
        let (a, b) = (key(a), key(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    })
}

fn value(measure: Measure, result: &BenchmarkResult) -> Option<f64> {
    match measure {
        Measure::P50 => Some(result.latency_ms.p50),
        Measure::P99 => Some(result.latency_ms.p99.unwrap_or(result.latency_ms.p95)),
        Measure::P50Of(things) => Some(result.latency_ms.p50 / things),
        Measure::Allocations => result.counts.allocations_per_op,
        Measure::Figure(name) => result.figures.get(name).copied(),
    }
}

fn shown(measure: Measure, value: f64) -> String {
    match measure {
        Measure::P50 | Measure::P50Of(_) => human_ms(value),
        Measure::P99 => format!("p99 {}", human_ms(value)),
        Measure::Allocations => count(value),
        Measure::Figure(_) => three_digits(value),
    }
}
