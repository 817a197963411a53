//! Documents made from results that are kept in the repository: `docs/benchmarks.md`, and the table in the README.
//!
//! The same results give the same bytes, so that whoever changes one without the other is found out. Every figure is from a
//! result; the words around them are in this program.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::compare::Metric;
use crate::drive::{ABLATIONS, Effort};
use crate::error::{Error, Result};
use crate::goals;
use crate::limits::{self, Rated, Rating, human_ms, three_digits};
use crate::markdown;
use crate::protocol::Role;
use crate::result::{BenchmarkResult, SuiteResult, read_all, write_whole};
use crate::stats::SAMPLES_FOR_P99;

/// What stands before the table in the README; what stands behind it.
const MARKS: [&str; 2] = ["<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"];
/// How large all kept results may be.
pub const MAX_BYTES: u64 = 300_000;
/// How the documents are made; written into them.
const COMMAND: &str = "cargo xtask bench --write-docs";

/// Results that are kept, by target and suite.
pub type Kept = BTreeMap<String, BTreeMap<String, SuiteResult>>;

/// Where results are kept.
pub fn folder(root: &Path) -> PathBuf {
    root.join("benches").join("results")
}

/// Keeps results, without their samples, in place of what was there of their suites.
///
/// # Errors
///
/// [`Error::Usage`] for results of a short run, or without a target; [`Error::Write`].
pub fn keep<'a>(root: &Path, suites: impl IntoIterator<Item = &'a SuiteResult>) -> Result<PathBuf> {
    let mut kept = folder(root);
    for suite in suites {
        if suite.settings.quick {
            return Err(Error::Usage(
                "figures of a short run are not for documents".to_owned(),
            ));
        }
        if !suite.failures.is_empty() {
            let message = format!(
                "{} has benchmarks that failed, so it is not kept",
                suite.suite_name
            );
            return Err(Error::Usage(message));
        }
        let target = suite.environment.target.as_deref();
        let target = target.ok_or_else(|| Error::Usage("`rustc` does not say its target".to_owned()))?;
        kept = folder(root).join(target);
        let path = kept.join(format!("{}.json", suite.suite_name));
        write_whole(&path, &suite.condensed().to_lines())?;
    }
    Ok(kept)
}

/// The results that are kept.
///
/// # Errors
///
/// As [`read_all`]; [`Error::Usage`] if they are too large.
pub fn kept(root: &Path) -> Result<Kept> {
    let folder = folder(root);
    let mut all = Kept::new();
    let Ok(entries) = fs::read_dir(&folder) else {
        return Ok(all);
    };
    let mut bytes = 0;
    for entry in entries.filter_map(std::result::Result::ok) {
        let path = entry.path();
        if !path.is_dir() {
            continue;
        }
        let suites = read_all(&path)?;
        let sizes = suites
            .keys()
            .map(|name| fs::metadata(path.join(format!("{name}.json"))));
        bytes += sizes.map(|file| file.map_or(0, |file| file.len())).sum::<u64>();
        all.insert(entry.file_name().to_string_lossy().into_owned(), suites);
    }
    if bytes > MAX_BYTES {
        let folder = folder.display();
        return Err(Error::Usage(format!(
            "{folder} has {bytes} bytes; at most {MAX_BYTES} are kept"
        )));
    }
    Ok(all)
}

/// The documents with their paths, as they should be.
///
/// # Errors
///
/// As [`kept`]; [`Error::Read`] without a README, [`Error::Format`] if it has no place for the table.
pub fn documents(root: &Path) -> Result<[(PathBuf, String); 2]> {
    let kept = kept(root)?;
    let path = root.join("README.md");
    let readme = fs::read_to_string(&path).map_err(|source| Error::Read {
        path: path.clone(),
        source,
    })?;
    let readme = with_block(&readme, &block(&kept)).map_err(|message| Error::Format {
        path: path.clone(),
        message,
    })?;
    Ok([(path, readme), (root.join("docs/benchmarks.md"), page(&kept))])
}

/// A text with what stands between the marks replaced.
///
/// # Errors
///
/// What is wrong with the marks.
pub fn with_block(text: &str, block: &str) -> Result<String, String> {
    let [begin, end] = MARKS;
    let parts = text.split_once(begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(end)?;
        Some((before, after))
    });
    match parts {
        Some((before, after)) if !after.contains(begin) && !after.contains(end) => {
            Ok(format!("{before}{begin}\n{block}{end}{after}"))
        }
        _ => Err(format!(
            "it has no place for the table: `{begin}` and `{end}`, once each"
        )),
    }
}

/// The table of the README: a row for each part of the rated operations.
pub fn block(kept: &Kept) -> String {
    let mut text = format!("<!-- made by `{COMMAND}`; not to be edited -->\n\n");
    let Some((_, suites)) = kept
        .iter()
        .find(|(_, suites)| !limits::rated(suites.values()).is_empty())
    else {
        text += "No results are kept yet.\n\n";
        return text;
    };
    let rated = limits::rated(suites.values());
    if let Some(suite) = suites
        .values()
        .find(|suite| suite.suite_name == rated[0].limit.part)
    {
        let environment = &suite.environment;
        let rustc = environment.rustc.as_deref().unwrap_or("an unknown compiler");
        let _ = writeln!(
            text,
            "Medians, and in brackets how many times the floor they are: the same work by hand and nothing else, in the same \
             processes in turns. {}, {} cores; {}; {}; `cargo xtask bench`.\n",
            environment.cpu_model.as_deref().unwrap_or("an unknown processor"),
            environment.cores,
            rustc.split(" (").next().unwrap_or(rustc),
            environment.date.split('T').next().unwrap_or_default(),
        );
    }
    let mut rows: Vec<(&str, Vec<String>)> = Vec::new();
    for one in &rated {
        let told = told(one);
        match rows.last_mut() {
            Some((part, all)) if *part == one.limit.part => all.push(told),
            _ => rows.push((one.limit.part, vec![told])),
        }
    }
    text += "| part | p50 (times the floor) |\n|---|---|\n";
    for (part, told) in rows {
        let _ = writeln!(text, "| {part} | {} |", told.join("; "));
    }
    let excellent = rated.iter().filter(|one| one.rating == Rating::Excellent).count();
    let _ = writeln!(
        text,
        "\n{excellent} of {} are excellent by the limits where others start. [docs/benchmarks.md](docs/benchmarks.md) has the method, its \
         biases, and everything else that is measured.\n",
        rated.len()
    );
    text
}

fn told(one: &Rated<'_>) -> String {
    let p50 = one.result.latency_ms.p50;
    let times = match one.floor {
        Some(floor) if floor.latency_ms.p50 > 0.0 => {
            format!(" ({})", three_digits(p50 / floor.latency_ms.p50))
        }
        _ => String::new(),
    };
    format!("{} {}{times}", one.name, human_ms(p50))
}

/// `docs/benchmarks.md`.
pub fn page(kept: &Kept) -> String {
    let mut text =
        format!("<!-- Made by `{COMMAND}` from benches/results; not to be edited. -->\n\n# Benchmarks\n\n");
    text += &method();
    if kept.is_empty() {
        text += "## Results\n\nNo results are kept yet; `cargo xtask bench --write-docs --from target/bench` takes those of a run.\n";
    }
    for (target, suites) in kept {
        results(&mut text, target, suites);
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// What is measured and how, with the figures that the program itself goes by.
fn method() -> String {
    let (full, quick) = (Effort::full(), Effort::quick());
    let [wall, counted] = [Metric::WallTime, Metric::Instructions].map(Metric::thresholds);
    let percent = |share: f64| three_digits(share * 100.0);
    let values = [
        ("ROUNDS", full.rounds.to_string()),
        ("WARMUP", full.warmup.as_millis().to_string()),
        ("MEASURE", full.measure.as_millis().to_string()),
        ("QUICK_ROUNDS", quick.rounds.to_string()),
        ("P99", SAMPLES_FOR_P99.to_string()),
        ("TIME_ALERT", percent(wall.alert)),
        ("TIME_FAIL", percent(wall.fail)),
        ("COUNT_ALERT", percent(counted.alert)),
        ("COUNT_FAIL", percent(counted.fail)),
    ];
    let mut text = include_str!("method.md").to_owned() + "\n";
    for (name, value) in values {
        text = text.replace(&format!("{{{name}}}"), &value);
    }
    text
}

fn results(text: &mut String, target: &str, suites: &BTreeMap<String, SuiteResult>) {
    let _ = writeln!(text, "## Results: {target}\n");
    environments(text, suites);
    let rated = limits::rated(suites.values());
    if !rated.is_empty() {
        text.push_str("### Rated operations\n\n");
        *text += &markdown::rated(&rated);
        text.push('\n');
    }
    let reached = goals::reached(suites.values());
    if !reached.is_empty() {
        let met = reached.iter().filter(|one| one.met).count();
        let _ = writeln!(text, "### Targets\n\n{met} of {} are met.\n", reached.len());
        *text += &markdown::goals(&reached);
        text.push('\n');
    }
    if let Some(suite) = suites.get(ABLATIONS) {
        text.push_str("### What each optimisation is worth\n\n");
        *text += &markdown::ablations(suite);
        text.push('\n');
        workloads(text, suite);
    }
    for suite in suites.values().filter(|suite| suite.suite_name != ABLATIONS) {
        let _ = writeln!(text, "### {}\n", suite.suite_name);
        *text += &markdown::suite(suite);
        text.push('\n');
        workloads(text, suite);
    }
}

/// Where it was measured: once for all suites where that is the same.
fn environments(text: &mut String, suites: &BTreeMap<String, SuiteResult>) {
    let mut seen: BTreeMap<Vec<(&str, String)>, Vec<&str>> = BTreeMap::new();
    for suite in suites.values() {
        let names = seen.entry(suite.environment.facts()).or_default();
        names.push(&suite.suite_name);
    }
    for (facts, names) in &seen {
        if seen.len() > 1 {
            let _ = writeln!(text, "{}:\n", names.join(", "));
        }
        for (name, value) in facts {
            let _ = writeln!(text, "- {name}: {value}");
        }
        text.push('\n');
    }
}

/// What the names in a table stand for.
fn workloads(text: &mut String, suite: &SuiteResult) {
    let mut told: Vec<&str> = Vec::new();
    for result in &suite.benchmark_results {
        let group = result.group();
        if !told.contains(&group) {
            told.push(group);
            let name = group.split_once('/').map_or(group, |(_, rest)| rest);
            let _ = writeln!(text, "- `{name}`: {}", result.workload);
        }
        let figures: Vec<String> = result
            .figures
            .iter()
            .map(|(name, value)| format!("{name} {}", three_digits(*value)))
            .collect();
        if !figures.is_empty() {
            let _ = writeln!(text, "  - {}: {}", named(result), figures.join(", "));
        }
    }
    text.push('\n');
}

fn named(result: &BenchmarkResult) -> String {
    match result.role {
        Role::Ours => format!("**{}**", result.implementation()),
        Role::Floor | Role::Rival => result.implementation().to_owned(),
    }
}
