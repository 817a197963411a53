//! The report as one HTML file: no script, no network, light and dark as the reader's system is.

mod plot;

use std::fmt::{self, Display, Write as _};

use crate::ablation::{self, Worth};
use crate::compare::{Comparison, Exit, Metric, Row, Severity, Verdict};
use crate::drive::ABLATIONS;
use crate::goals;
use crate::limits::{self, Rating, human_ms};
use crate::markdown::{change, count, times_floor};
use crate::protocol::Role;
use crate::result::{BenchmarkResult, Counts, SuiteResult};

const STYLE: &str = include_str!("style.css");

/// The report of suites, and of a comparison with others where there is one.
pub fn report<'a>(
    suites: impl IntoIterator<Item = &'a SuiteResult>,
    comparison: Option<&Comparison>,
) -> String {
    let suites: Vec<&SuiteResult> = suites.into_iter().collect();
    let mut page = String::with_capacity(64 * 1024);
    page += "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
    page += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
    page += "<title>Peregrine benchmarks</title>\n<style>\n";
    page += STYLE;
    page += "</style>\n</head>\n<body>\n<main>\n<h1>Peregrine benchmarks</h1>\n";
    if let Some(first) = suites.first() {
        head(&mut page, first);
    }
    if let Some(comparison) = comparison {
        compared(&mut page, comparison);
    }
    rated(&mut page, &suites);
    reached(&mut page, &suites);
    worth(&mut page, &suites);
    for suite in &suites {
        one(&mut page, suite);
    }
    page += "</main>\n</body>\n</html>\n";
    page
}

fn head(page: &mut String, suite: &SuiteResult) {
    let settings = &suite.settings;
    let kind = if settings.quick {
        "A short run, not for the record. "
    } else {
        ""
    };
    let _ = writeln!(
        page,
        "<p class=\"soft\">{kind}{} rounds, each a process of its own; every sample counts.</p>\n<dl class=\"card\">",
        settings.rounds
    );
    for (name, value) in suite.environment.facts() {
        let _ = writeln!(page, "<div><dt>{name}</dt><dd>{}</dd></div>", Text(&value));
    }
    page.push_str("</dl>\n");
}

fn rated(page: &mut String, suites: &[&SuiteResult]) {
    let rated = limits::rated(suites.iter().copied());
    if rated.is_empty() {
        return;
    }
    page.push_str(
        "<h2>Rated operations</h2>\n<p class=\"soft\">The limits are where others start, on the median. Next to each \
         stand our own target and the floor of the same run: the least that the work could take.</p>\n\
         <div class=\"card scroll\"><table>\n<tr><th>operation</th><th class=\"n\">median</th><th>rating</th>\
         <th class=\"n\">excellent</th><th class=\"n\">good</th><th>target</th><th>floor</th><th class=\"n\">× floor</th></tr>\n",
    );
    for row in rated {
        let class = match row.rating {
            Rating::Excellent => "good",
            Rating::Good => "fair",
            Rating::NeedsWork => "bad",
        };
        let p50 = row.result.latency_ms.p50;
        let (target, met) = row.target;
        let met = match met {
            Some(true) => " <span class=\"tag good\">met</span>",
            Some(false) => " <span class=\"tag bad\">missed</span>",
            None => "",
        };
        let floor = row.floor.map_or_else(
            || "-".to_owned(),
            |floor| format!("{} {}", floor.implementation(), human_ms(floor.latency_ms.p50)),
        );
        let _ = writeln!(
            page,
            "<tr class=\"ours\"><td>{}: {}</td><td class=\"n\">{}</td><td><span class=\"tag {class}\">{}</span></td>\
             <td class=\"n soft\">{}</td><td class=\"n soft\">{}</td><td>{target}{met}</td><td>{}</td><td class=\"n\">{}</td></tr>",
            row.limit.part,
            row.name,
            human_ms(p50),
            row.rating.name(),
            human_ms(row.limit.excellent_ms),
            human_ms(row.limit.good_ms),
            Text(&floor),
            times_floor(p50, row.floor),
        );
    }
    page.push_str("</table></div>\n");
}

fn reached(page: &mut String, suites: &[&SuiteResult]) {
    let reached = goals::reached(suites.iter().copied());
    if reached.is_empty() {
        return;
    }
    page.push_str(
        "<h2>Targets</h2>\n<p class=\"soft\">What we want of each path, and what stands beside it in the same processes.</p>\n\
         <div class=\"card scroll\"><table>\n<tr><th>path</th><th class=\"n\">ours</th><th>beside it</th><th class=\"n\">ratio</th>\
         <th>target</th><th></th></tr>\n",
    );
    for one in &reached {
        let (beside, ratio) = match &one.beside {
            Some((beside, ratio)) => (beside.as_str(), limits::three_digits(*ratio)),
            None => ("-", "-".to_owned()),
        };
        let met = match one.met {
            true => "<span class=\"tag good\">met</span>".to_owned(),
            false => format!(
                "<span class=\"tag bad\">missed by {} %</span>",
                limits::three_digits(one.missed_by * 100.0)
            ),
        };
        let _ = writeln!(
            page,
            "<tr class=\"ours\"><td>{}</td><td class=\"n\">{}</td><td class=\"soft\">{}</td><td class=\"n\">{ratio}</td><td>{}</td><td>{met}</td></tr>",
            Text(one.goal.path),
            one.ours,
            Text(beside),
            one.wanted,
        );
    }
    page.push_str("</table></div>\n");
}

fn worth(page: &mut String, suites: &[&SuiteResult]) {
    let all: Vec<Worth<'_>> = suites
        .iter()
        .filter(|suite| suite.suite_name == ABLATIONS)
        .flat_map(|suite| ablation::worth(suite))
        .collect();
    if all.is_empty() {
        return;
    }
    page.push_str(
        "<h2>What each optimisation is worth</h2>\n<p class=\"soft\">The same work with it and without it, in turns in the same \
         processes. The bar is logarithmic.</p>\n<div class=\"card scroll\"><table>\n<tr><th>optimisation</th><th class=\"n\">on</th>\
         <th class=\"n\">off</th><th class=\"n\">off / on</th><th></th><th class=\"n\">95 % interval</th><th class=\"n\">allocations</th>\
         <th class=\"n\">instructions</th></tr>\n",
    );
    let longest = all.iter().map(|worth| worth.times).fold(1.0, f64::max);
    for worth in &all {
        let interval = worth.interval.map_or_else(
            || "-".to_owned(),
            |[lower, upper]| {
                format!(
                    "{} – {}",
                    limits::three_digits(lower),
                    limits::three_digits(upper)
                )
            },
        );
        let pair = |of: fn(&Counts) -> Option<f64>| match (of(&worth.on.counts), of(&worth.off.counts)) {
            (Some(on), Some(off)) => format!("{} → {}", count(on), count(off)),
            _ => "-".to_owned(),
        };
        let _ = write!(
            page,
            "<tr class=\"ours\"><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">× {}</td><td>",
            Text(worth.name),
            human_ms(worth.on.latency_ms.p50),
            human_ms(worth.off.latency_ms.p50),
            limits::three_digits(worth.times),
        );
        plot::times(page, worth.times, longest);
        let _ = writeln!(
            page,
            "</td><td class=\"n soft\">{interval}</td><td class=\"n soft\">{}</td><td class=\"n soft\">{}</td></tr>",
            pair(|counts| counts.allocations_per_op),
            pair(|counts| counts.instructions_per_op),
        );
    }
    page.push_str("</table></div>\n");
}

fn one(page: &mut String, suite: &SuiteResult) {
    let _ = writeln!(page, "<h2>{}</h2>", Text(&suite.suite_name));
    for failure in &suite.failures {
        let _ = writeln!(
            page,
            "<p><span class=\"tag bad\">failed</span> <b>{}</b>: {}</p>",
            Text(&failure.name),
            Text(&failure.message)
        );
    }
    let results: Vec<&BenchmarkResult> = suite.benchmark_results.iter().collect();
    if results.is_empty() {
        return;
    }
    page.push_str(
        "<div class=\"card scroll\"><table>\n<tr><th>benchmark</th><th class=\"n\">p50</th><th class=\"n\">95 % interval</th>\
         <th class=\"n\">p95</th><th class=\"n\">p99</th><th class=\"n\">max</th><th class=\"n\">samples</th><th class=\"n\">far out</th>\
         <th class=\"n\">ops/s</th><th class=\"n\">allocations</th><th class=\"n\">instructions</th><th class=\"n\">× floor</th></tr>\n",
    );
    for result in &results {
        row(page, result, &results);
    }
    page.push_str("</table></div>\n<p></p>\n");
    page.push_str(
        "<div class=\"legend\"><span><i class=\"dot ours\"></i>Peregrine</span><span><i class=\"dot\"></i>floor</span>\
         <span><i class=\"dot rival\"></i>rival</span><span>shape: every sample to p99.5, on a logarithmic scale; dot: median; bar: its 95 % interval</span></div>\n<div class=\"plots\">\n",
    );
    let mut groups: Vec<&str> = results.iter().map(|result| result.group()).collect();
    groups.dedup();
    for group in groups {
        let members: Vec<&BenchmarkResult> = results
            .iter()
            .copied()
            .filter(|result| result.group() == group)
            .collect();
        let title = group.split_once('/').map_or(group, |(_, rest)| rest);
        let workload = members.first().map_or("", |first| first.workload.as_str());
        let _ = writeln!(
            page,
            "<div class=\"card\"><h3>{}</h3><p class=\"soft\">{}</p>",
            Text(title),
            Text(workload)
        );
        if members.iter().any(|member| !member.rounds.is_empty()) {
            plot::distributions(page, &members);
        }
        figures(page, &members);
        resources(page, &members);
        page.push_str("</div>\n");
    }
    page.push_str("</div>\n");
}

fn row(page: &mut String, result: &BenchmarkResult, beside: &[&BenchmarkResult]) {
    let latency = &result.latency_ms;
    let interval = &result.confidence_interval;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let name = result
        .name
        .split_once('/')
        .map_or(result.name.as_str(), |(_, rest)| rest);
    let floor = limits::floor(beside, result).filter(|floor| floor.name != result.name);
    let _ = write!(
        page,
        "<tr class=\"{}\"><td><i class=\"dot\"></i>{}</td>",
        class(result.role),
        Text(name)
    );
    for cell in [
        human_ms(latency.p50),
        format!("{} – {}", human_ms(interval.lower), human_ms(interval.upper)),
        human_ms(latency.p95),
        or_dash(latency.p99.map(human_ms)),
        human_ms(latency.max),
        count(latency.count as f64),
        count(result.outliers_removed as f64),
        or_dash(result.throughput_ops_per_sec.map(count)),
        or_dash(result.counts.allocations_per_op.map(count)),
        or_dash(result.counts.instructions_per_op.map(count)),
        times_floor(latency.p50, floor),
    ] {
        let _ = write!(page, "<td class=\"n\">{cell}</td>");
    }
    page.push_str("</tr>\n");
}

fn figures(page: &mut String, members: &[&BenchmarkResult]) {
    for member in members {
        let own: Vec<String> = member
            .figures
            .iter()
            .map(|(name, value)| format!("{name} {}", limits::three_digits(*value)))
            .collect();
        if !own.is_empty() {
            let text = format!("{}: {}", member.implementation(), own.join(", "));
            let _ = writeln!(page, "<p class=\"soft\">{}</p>", Text(&text));
        }
    }
}

/// What the process of a group used, which is that of all its variants.
fn resources(page: &mut String, members: &[&BenchmarkResult]) {
    let Some(used) = members.first().map(|member| member.resources) else {
        return;
    };
    let pair = |mean: Option<f64>, peak: Option<f64>, unit: &str| {
        let (mean, peak) = (limits::three_digits(mean?), limits::three_digits(peak?));
        Some(format!("{mean}{unit} ({peak})"))
    };
    let told: Vec<String> = [
        pair(used.cpu_mean, used.cpu_peak, " % of a core"),
        pair(used.memory_mean_mb, used.memory_peak_mb, " MB"),
        pair(used.threads_mean, used.threads_peak, " threads"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !told.is_empty() {
        let _ = writeln!(
            page,
            "<p class=\"soft used\">used, mean (peak): {}</p>",
            told.join(", ")
        );
    }
}

fn compared(page: &mut String, comparison: &Comparison) {
    let (class, says) = match comparison.exit() {
        Exit::Ok => ("good", "nothing failed"),
        Exit::Failed => ("bad", "failed"),
        Exit::CouldNotCompare => ("fair", "nothing could be compared"),
    };
    let tally: Vec<String> = comparison
        .tally()
        .iter()
        .map(|(verdict, count)| format!("{count} {verdict}"))
        .collect();
    let _ = writeln!(
        page,
        "<h2>Comparison <span class=\"tag {class}\">{says}</span></h2>\n<p class=\"soft\">{}</p>",
        tally.join(", ")
    );
    for note in &comparison.notes {
        let _ = writeln!(page, "<p class=\"soft\">{}</p>", Text(note));
    }
    let is_told = |row: &&Row| {
        row.severity > Severity::Fine || matches!(row.verdict, Verdict::Improved | Verdict::Regressed)
    };
    let (told, rest): (Vec<&Row>, Vec<&Row>) = comparison.rows.iter().partition(is_told);
    compared_rows(page, &told);
    if !rest.is_empty() {
        let _ = writeln!(
            page,
            "<details><summary>{} without a change</summary>",
            rest.len()
        );
        compared_rows(page, &rest);
        page.push_str("</details>\n");
    }
}

fn compared_rows(page: &mut String, rows: &[&Row]) {
    if rows.is_empty() {
        return;
    }
    page.push_str(
        "<div class=\"card scroll\"><table>\n<tr><th>benchmark</th><th>verdict</th><th>what</th><th class=\"n\">base</th>\
         <th class=\"n\">head</th><th class=\"n\">change</th><th>−20 % … +20 %</th><th class=\"n\">noise</th><th></th></tr>\n",
    );
    for row in rows {
        compared_row(page, row);
    }
    page.push_str("</table></div>\n");
}

fn compared_row(page: &mut String, row: &Row) {
    let value = |value: Option<f64>| match (value, row.metric) {
        (Some(value), Metric::WallTime) => human_ms(value),
        (Some(value), _) => count(value),
        (None, _) => "-".to_owned(),
    };
    let tag = match (row.severity, row.verdict) {
        (Severity::Fail, _) => "bad",
        (Severity::Alert, _) => "fair",
        (_, Verdict::Improved) => "good",
        _ => "",
    };
    let noise = match row.metric {
        Metric::WallTime if row.ratio.is_some() => format!("± {:.1} %", row.noise * 100.0),
        _ => "-".to_owned(),
    };
    let _ = write!(
        page,
        "<tr class=\"{}\"><td><i class=\"dot\"></i>{}</td><td><span class=\"tag {tag}\">{}</span></td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>",
        class(row.role),
        Text(&row.name),
        row.verdict,
        row.metric,
        value(row.base),
        value(row.head),
        row.ratio
            .map_or_else(|| "-".to_owned(), |[_, ratio, _]| change(ratio)),
    );
    if let Some(ratio) = row.ratio {
        plot::ratio(page, ratio, row);
    }
    let _ = writeln!(
        page,
        "</td><td class=\"n soft\">{noise}</td><td class=\"soft\">{}</td></tr>",
        Text(&row.reason)
    );
}

fn class(role: Role) -> &'static str {
    match role {
        Role::Ours => "ours",
        Role::Floor => "floor",
        Role::Rival => "rival",
    }
}

/// Text in a page: nothing in it is markup.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
