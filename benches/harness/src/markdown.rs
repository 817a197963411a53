//! Tables in Markdown: for the terminal and for pull requests.

use std::fmt::Write as _;

use crate::ablation::{self, Worth};
use crate::compare::{Comparison, Exit, Metric, Row, Severity, Verdict};
use crate::drive::ABLATIONS;
use crate::goals::{self, Reached};
use crate::limits::{self, Rated, human_ms, three_digits};
use crate::protocol::Role;
use crate::result::{BenchmarkResult, Counts, SuiteResult};

/// How many rows are shown of what did not change: a comment on a pull request has an end.
const MOST_UNCHANGED: usize = 200;

/// The results of suites: the rated operations, what optimisations are worth, then everything.
pub fn results<'a>(suites: impl IntoIterator<Item = &'a SuiteResult> + Clone) -> String {
    let mut text = String::new();
    let rated = limits::rated(suites.clone());
    if !rated.is_empty() {
        text += "### Rated operations\n\n";
        text += &self::rated(&rated);
        text.push('\n');
    }
    let reached = goals::reached(suites.clone());
    if !reached.is_empty() {
        text += "### Targets\n\n";
        text += &goals(&reached);
        text.push('\n');
    }
    for suite in suites {
        let _ = writeln!(text, "### {}\n", suite.suite_name);
        text += &match suite.suite_name == ABLATIONS {
            true => ablations(suite),
            false => self::suite(suite),
        };
        for failure in &suite.failures {
            let _ = writeln!(
                text,
                "\n**{} failed**: {}",
                failure.name,
                one_line(&failure.message)
            );
        }
        text.push('\n');
    }
    text
}

/// The table of rated operations.
pub fn rated(rated: &[Rated<'_>]) -> String {
    let head = [
        "operation",
        "p50",
        "others' limits",
        "rating",
        "target",
        "met",
        "floor",
        "× floor",
    ];
    table(&head, &rated.iter().map(rated_row).collect::<Vec<_>>())
}

/// The table of what we want of each path.
pub fn goals(reached: &[Reached]) -> String {
    let head = ["path", "ours", "beside it", "ratio", "target", "met"];
    let row = |one: &Reached| {
        let (beside, ratio) = match &one.beside {
            Some((beside, ratio)) => (beside.clone(), three_digits(*ratio)),
            None => (dash(), dash()),
        };
        let met = match (one.met, one.missed_by) {
            (true, _) => "yes".to_owned(),
            (false, by) => format!("no, by {} %", three_digits(by * 100.0)),
        };
        vec![
            one.goal.path.to_owned(),
            one.ours.clone(),
            beside,
            ratio,
            one.wanted.clone(),
            met,
        ]
    };
    table(&head, &reached.iter().map(row).collect::<Vec<_>>())
}

/// The table of a suite; nothing if it has no results.
pub fn suite(suite: &SuiteResult) -> String {
    let results: Vec<&BenchmarkResult> = suite.benchmark_results.iter().collect();
    if results.is_empty() {
        return String::new();
    }
    let rows: Vec<_> = results
        .iter()
        .map(|result| result_row(result, &results))
        .collect();
    let head = [
        "benchmark",
        "p50",
        "95 % interval",
        "p95",
        "p99",
        "samples",
        "ops/s",
        "alloc",
        "instr",
        "× floor",
    ];
    table(&head, &rows)
}

/// The table of what each optimisation is worth.
pub fn ablations(suite: &SuiteResult) -> String {
    let head = [
        "optimisation",
        "on",
        "off",
        "off / on",
        "95 % interval",
        "alloc on / off",
        "instr on / off",
    ];
    let rows: Vec<_> = ablation::worth(suite).iter().map(worth_row).collect();
    match rows.is_empty() {
        true => String::new(),
        false => table(&head, &rows),
    }
}

fn worth_row(worth: &Worth<'_>) -> Vec<String> {
    let pair = |of: fn(&Counts) -> Option<f64>| match (of(&worth.on.counts), of(&worth.off.counts)) {
        (Some(on), Some(off)) => format!("{} / {}", count(on), count(off)),
        _ => dash(),
    };
    vec![
        worth.name.to_owned(),
        human_ms(worth.on.latency_ms.p50),
        human_ms(worth.off.latency_ms.p50),
        format!("× {}", three_digits(worth.times)),
        worth.interval.map_or_else(dash, |[lower, upper]| {
            format!("{} .. {}", three_digits(lower), three_digits(upper))
        }),
        pair(|counts| counts.allocations_per_op),
        pair(|counts| counts.instructions_per_op),
    ]
}

fn rated_row(rated: &Rated<'_>) -> Vec<String> {
    let p50 = rated.result.latency_ms.p50;
    let (target, met) = &rated.target;
    vec![
        format!("{}: {}", rated.limit.part, rated.name),
        human_ms(p50),
        format!(
            "{} / {}",
            human_ms(rated.limit.excellent_ms),
            human_ms(rated.limit.good_ms)
        ),
        rated.rating.name().to_owned(),
        target.clone(),
        met.map_or("-", |met| if met { "yes" } else { "no" }).to_owned(),
        rated.floor.map_or_else(dash, |floor| {
            format!("{} {}", floor.implementation(), human_ms(floor.latency_ms.p50))
        }),
        times_floor(p50, rated.floor),
    ]
}

fn result_row(result: &BenchmarkResult, beside: &[&BenchmarkResult]) -> Vec<String> {
    let latency = &result.latency_ms;
    let interval = &result.confidence_interval;
    let name = result
        .name
        .split_once('/')
        .map_or(result.name.as_str(), |(_, rest)| rest);
    let floor = limits::floor(beside, result).filter(|floor| floor.name != result.name);
    vec![
        match result.role {
            Role::Ours => format!("**{name}**"),
            Role::Floor | Role::Rival => name.to_owned(),
        },
        human_ms(latency.p50),
        format!("{} .. {}", human_ms(interval.lower), human_ms(interval.upper)),
        human_ms(latency.p95),
        latency.p99.map_or_else(dash, human_ms),
        latency.count.to_string(),
        result.throughput_ops_per_sec.map_or_else(dash, count),
        result.counts.allocations_per_op.map_or_else(dash, count),
        result.counts.instructions_per_op.map_or_else(dash, count),
        times_floor(latency.p50, floor),
    ]
}

/// How many times the floor a median is.
pub(crate) fn times_floor(p50: f64, floor: Option<&BenchmarkResult>) -> String {
    match floor
        .map(|floor| floor.latency_ms.p50)
        .filter(|floor| *floor > 0.0)
    {
        Some(floor) => three_digits(p50 / floor),
        None => dash(),
    }
}

/// A comparison: what it came to, then what changed, then the rest behind a fold.
pub fn comparison(comparison: &Comparison) -> String {
    let mut text = match comparison.exit() {
        Exit::Ok => "### Benchmarks: nothing failed\n\n".to_owned(),
        Exit::Failed => "### Benchmarks: **failed**\n\n".to_owned(),
        Exit::CouldNotCompare => "### Benchmarks: nothing could be compared\n\n".to_owned(),
    };
    let tally: Vec<String> = comparison
        .tally()
        .iter()
        .map(|(verdict, count)| format!("{count} {verdict}"))
        .collect();
    if !tally.is_empty() {
        let _ = writeln!(text, "{}.\n", tally.join(", "));
    }
    for note in &comparison.notes {
        let _ = writeln!(text, "- {note}");
    }
    if !comparison.notes.is_empty() {
        text.push('\n');
    }
    let tells = |row: &&Row| {
        row.severity > Severity::Fine || matches!(row.verdict, Verdict::Improved | Verdict::Regressed)
    };
    let head = [
        "benchmark",
        "what",
        "base",
        "head",
        "change",
        "95 % interval",
        "noise",
        "verdict",
    ];
    let (told, rest): (Vec<&Row>, Vec<&Row>) = comparison.rows.iter().partition(tells);
    if !told.is_empty() {
        text += &table(&head, &told.into_iter().map(comparison_row).collect::<Vec<_>>());
        text.push('\n');
    }
    if !rest.is_empty() {
        let _ = writeln!(text, "<details><summary>{} more</summary>\n", rest.len());
        let shown = rest.len().min(MOST_UNCHANGED);
        text += &table(
            &head,
            &rest[..shown]
                .iter()
                .copied()
                .map(comparison_row)
                .collect::<Vec<_>>(),
        );
        if shown < rest.len() {
            let _ = writeln!(text, "\nThe other {} are in the report.", rest.len() - shown);
        }
        text += "\n</details>\n";
    }
    text
}

fn comparison_row(row: &Row) -> Vec<String> {
    let value = |value: Option<f64>| match (value, row.metric) {
        (Some(value), Metric::WallTime) => human_ms(value),
        (Some(value), _) => count(value),
        (None, _) => dash(),
    };
    let verdict = match (row.severity, row.reason.is_empty()) {
        (Severity::Fail, true) => format!("**{}**", row.verdict),
        (Severity::Fail, false) => format!("**{}**: {}", row.verdict, one_line(&row.reason)),
        (_, true) => row.verdict.to_string(),
        (_, false) => format!("{}: {}", row.verdict, one_line(&row.reason)),
    };
    let is_time = row.metric == Metric::WallTime;
    vec![
        row.name.clone(),
        row.metric.to_string(),
        value(row.base),
        value(row.head),
        row.ratio.map_or_else(dash, |[_, ratio, _]| change(ratio)),
        row.ratio
            .filter(|_| is_time)
            .map_or_else(dash, |[lower, _, upper]| {
                format!("{} .. {}", change(lower), change(upper))
            }),
        if is_time && row.ratio.is_some() {
            format!("± {:.1} %", row.noise * 100.0)
        } else {
            dash()
        },
        verdict,
    ]
}

/// A ratio as people say it.
pub(crate) fn change(ratio: f64) -> String {
    match ratio {
        twice if twice >= 2.0 => format!("× {}", three_digits(twice)),
        _ => format!("{:+.1} %", (ratio - 1.0) * 100.0),
    }
}

/// A count: whole where it is, with its thousands apart.
pub(crate) fn count(value: f64) -> String {
    if value < 1_000.0 {
        return three_digits(value);
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn dash() -> String {
    "-".to_owned()
}

fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace('|', "\\|")
}

/// Columns as wide as their widest cell, so that it reads well as text too.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count(), 3]).max().unwrap_or(3)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        for (cell, width) in cells.zip(&widths) {
            let _ = write!(
                text,
                "| {cell}{} ",
                " ".repeat(width.saturating_sub(cell.chars().count()))
            );
        }
        text += "|\n";
    };
    line(&mut head.iter().copied());
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    line(&mut rule.iter().map(String::as_str));
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0.0), "0");
        assert_eq!(count(25.0), "25");
        assert_eq!(count(2.5), "2.5");
        assert_eq!(count(1_234_567.2), "1,234,567");
        assert_eq!(count(123_456.0), "123,456");
        assert_eq!(change(1.053), "+5.3 %");
        assert_eq!(change(0.5), "-50.0 %");
        assert_eq!(change(2.0), "× 2");
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".to_owned(), "µs".to_owned()],
            vec!["long name".to_owned(), "1".to_owned()],
        ];
        let text = table(&["x", "y"], &rows);
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths, [19; 4], "{text}");
    }
}
