//! The tables: times, processor time and memory of each operation with their ratios to the floor, our targets, and what was
//! sent.

use std::fmt::Write as _;

use crate::bootstrap::Interval;
use crate::limits::{human_ms, three_digits};
use crate::markdown::table;
use crate::protocol::Role;
use crate::result::{BenchmarkResult, SuiteResult};

use super::programs::Competitor;
use super::wire::Sent;

/// Figures that the programs tell of themselves.
const CPU: &str = "CPU of a request, us";
const BEFORE: &str = "resident before, MB";
const PEAK: &str = "resident peak, MB";

/// What we want of an operation.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// The median at most so many times the floor's.
    Time(f64),
    /// The median at most so long, in milliseconds.
    Ms(f64),
    /// The processor time of a request at most so many times the floor's.
    Cpu(f64),
    /// The most resident memory at most so many times the floor's.
    Memory(f64),
}

/// The targets of the design, by group.
const TARGETS: [(&str, Target); 9] = [
    ("rivals/single_call/0ms", Target::Time(1.05)),
    ("rivals/tool_loop/0ms", Target::Time(1.08)),
    ("rivals/three_turns/0ms", Target::Time(1.05)),
    ("rivals/stream_first/0ms", Target::Time(1.1)),
    ("rivals/stream_all/0ms", Target::Time(1.1)),
    ("rivals/concurrent_1000/50ms", Target::Cpu(1.15)),
    ("rivals/concurrent_1000/50ms", Target::Memory(1.3)),
    ("rivals/agent/plain", Target::Ms(0.000_5)),
    ("rivals/agent/one_tool", Target::Ms(0.001)),
];

pub(super) fn summary(
    suite: &SuiteResult,
    groups: &[String],
    competitors: &[Competitor],
    sent: &[Sent],
) -> String {
    let environment = &suite.environment;
    let mut text = format!("### Rivals\n\n{}.\n", environment.features.join(", "));
    let _ = writeln!(
        text,
        "{} rounds, each a process for each of them, in turns; load before the run: {}.{}\n",
        suite.settings.rounds,
        environment.load.as_deref().unwrap_or("unknown"),
        match suite.settings.quick {
            true => " A quick run: not for the record.",
            false => "",
        }
    );
    for competitor in competitors {
        for note in &competitor.notes {
            let _ = writeln!(text, "- {}: {note}", competitor.name);
        }
    }
    for group in groups {
        let results: Vec<_> = suite
            .benchmark_results
            .iter()
            .filter(|result| result.group() == group)
            .collect();
        if let Some(first) = results.first() {
            let _ = writeln!(text, "\n#### {group}\n\n{}\n", first.workload);
            text += &table(
                &HEAD,
                &results
                    .iter()
                    .map(|result| row(result, &results))
                    .collect::<Vec<_>>(),
            );
            text += &verdicts(group, &results);
        }
    }
    for failure in &suite.failures {
        let message = failure.message.split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = writeln!(text, "\n**{} failed**: {message}", failure.name);
    }
    text += "\n#### What was sent\n\nCompared with the request written by hand: `+` it has more, `-` it lacks.\n\n";
    text += &table(
        &[
            "operation",
            "by",
            "requests",
            "bytes of heads",
            "bytes of bodies",
            "differences",
        ],
        &sent.iter().map(|one| sent_row(one, sent)).collect::<Vec<_>>(),
    );
    text
}

const HEAD: [&str; 11] = [
    "by",
    "p50",
    "95 % interval",
    "p95",
    "× floor",
    "interval of it",
    "CPU a request",
    "× floor",
    "memory peak",
    "× floor",
    "grown by",
];

fn row(result: &BenchmarkResult, beside: &[&BenchmarkResult]) -> Vec<String> {
    let floor = floor(beside).filter(|floor| floor.name != result.name);
    let figure = |name: &str| result.figures.get(name).copied();
    let times = |name: &str| ratio(result, floor?, name);
    let interval = &result.confidence_interval;
    let wall = floor.and_then(|floor| Interval::of_ratio(&floor.rounds, &result.rounds, true));
    let name = result.implementation();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        match result.role {
            Role::Ours => format!("**{name}**"),
            Role::Floor | Role::Rival => name.to_owned(),
        },
        human_ms(result.latency_ms.p50),
        format!("{} .. {}", human_ms(interval.lower), human_ms(interval.upper)),
        human_ms(result.latency_ms.p95),
        or_dash(wall.map(|wall| three_digits(wall.estimate))),
        or_dash(wall.map(|wall| format!("{} .. {}", three_digits(wall.lower), three_digits(wall.upper)))),
        or_dash(figure(CPU).map(|us| human_ms(us / 1e3))),
        or_dash(times(CPU).map(three_digits)),
        or_dash(figure(PEAK).map(|mb| format!("{} MB", three_digits(mb)))),
        or_dash(times(PEAK).map(three_digits)),
        or_dash(
            figure(PEAK)
                .zip(figure(BEFORE))
                .map(|(peak, before)| format!("{} MB", three_digits(peak - before))),
        ),
    ]
}

fn floor<'a>(beside: &[&'a BenchmarkResult]) -> Option<&'a BenchmarkResult> {
    beside.iter().find(|result| result.role == Role::Floor).copied()
}

fn ratio(result: &BenchmarkResult, floor: &BenchmarkResult, figure: &str) -> Option<f64> {
    let (one, other) = (result.figures.get(figure)?, floor.figures.get(figure)?);
    (*other > 0.0).then(|| one / other)
}

/// Whether ours met its targets, and how the fastest of the others did.
fn verdicts(group: &str, results: &[&BenchmarkResult]) -> String {
    let mut text = String::new();
    let (Some(ours), Some(floor)) = (
        results.iter().find(|result| result.role == Role::Ours),
        floor(results),
    ) else {
        return text;
    };
    let mut tell = |what: &str, is: f64, limit: f64, unit: &str| {
        let met = if is <= limit { "met" } else { "**missed**" };
        let _ = writeln!(
            text,
            "\nOurs, {what}: {}{unit}, target {}{unit}: {met}.",
            three_digits(is),
            three_digits(limit)
        );
    };
    for (_, target) in TARGETS.iter().filter(|(of, _)| *of == group) {
        match target {
            Target::Time(most) => {
                tell(
                    "time",
                    ours.latency_ms.p50 / floor.latency_ms.p50,
                    *most,
                    " × the floor",
                );
            }
            Target::Ms(most) => tell("time", ours.latency_ms.p50 * 1e3, most * 1e3, " µs"),
            Target::Cpu(most) => {
                if let Some(is) = ratio(ours, floor, CPU) {
                    tell("CPU of a request", is, *most, " × the floor");
                }
            }
            Target::Memory(most) => {
                if let Some(is) = ratio(ours, floor, PEAK) {
                    tell("memory", is, *most, " × the floor");
                }
            }
        }
    }
    let rivals = results.iter().filter(|result| result.role == Role::Rival);
    if let Some(best) = rivals.min_by(|one, other| one.latency_ms.p50.total_cmp(&other.latency_ms.p50)) {
        let times = Interval::of_ratio(&ours.rounds, &best.rounds, true);
        let (times, said) = match times {
            Some(times) if times.upper < 1.0 => (times.estimate, "**faster than ours**"),
            Some(times) if times.lower > 1.0 => (times.estimate, "slower than ours"),
            _ => (best.latency_ms.p50 / ours.latency_ms.p50, "not to be told apart"),
        };
        let _ = writeln!(
            text,
            "\nThe fastest of the others, {}, takes {} × the time of ours: {said}.",
            best.implementation(),
            three_digits(times)
        );
    }
    text
}

fn sent_row(one: &Sent, all: &[Sent]) -> Vec<String> {
    let floor = all.iter().find(|other| other.group == one.group);
    let sum = |of: fn(&super::wire::Request) -> u64| one.requests.iter().map(of).sum::<u64>().to_string();
    vec![
        one.group.split_once('/').map_or("", |(_, rest)| rest).to_owned(),
        one.name.clone(),
        one.requests.len().to_string(),
        sum(|request| request.head_bytes),
        sum(|request| request.body_bytes),
        floor
            .filter(|floor| floor.name != one.name)
            .map_or_else(|| "-".to_owned(), |floor| one.differences(floor)),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::protocol::Descriptor;
    use crate::result::Gathered;
    use crate::samples::Round;

    fn result(name: &str, role: Role, ns: u64, cpu: f64) -> BenchmarkResult {
        let descriptor = Descriptor {
            id: format!("rivals/single_call/0ms/{name}").parse().unwrap(),
            role,
            workload: "one question".to_owned(),
            counted: false,
            hidden: false,
        };
        let gathered = Gathered {
            rounds: vec![Round::of(vec![ns * 1_000]); 6],
            iterations: 6,
            figures: BTreeMap::from([(CPU.to_owned(), cpu)]),
            ..Gathered::default()
        };
        BenchmarkResult::of(&descriptor, gathered).unwrap()
    }

    #[test]
    fn targets_are_judged_and_a_faster_rival_is_named() {
        let group = "rivals/single_call/0ms";
        let said = |ours: u64, rival: u64| {
            let all = [
                result("reqwest", Role::Floor, 100_000, 50.0),
                result("peregrine", Role::Ours, ours, 60.0),
                result("rig", Role::Rival, rival, 70.0),
            ];
            verdicts(group, &all.iter().collect::<Vec<_>>())
        };
        let good = said(104_000, 208_000);
        assert!(
            good.contains("1.04 × the floor, target 1.05 × the floor: met"),
            "{good}"
        );
        assert!(good.contains("rig, takes 2 × the time of ours: slower"), "{good}");
        let bad = said(110_000, 99_000);
        assert!(
            bad.contains("**missed**") && bad.contains("**faster than ours**"),
            "{bad}"
        );
    }

    #[test]
    fn ratios_stand_beside_figures() {
        let all = [
            result("reqwest", Role::Floor, 100_000, 50.0),
            result("peregrine", Role::Ours, 110_000, 60.0),
        ];
        let all: Vec<_> = all.iter().collect();
        let ours = row(all[1], &all);
        assert_eq!((ours.len(), ours[0].as_str()), (HEAD.len(), "**peregrine**"));
        assert_eq!((ours[4].as_str(), ours[7].as_str()), ("1.1", "1.2"));
        assert_eq!(row(all[0], &all)[4], "-");
    }
}
