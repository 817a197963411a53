//! Documents: made from kept results, the same each time, and found out where they are stale.

use std::fs;

use peregrine_harness::ablation;
use peregrine_harness::docs::{self, Kept, block, documents, keep, page, with_block};
use peregrine_harness::error::Error;
use peregrine_harness::protocol::Role;
use peregrine_harness::result::{Counts, SuiteResult, schema};
use peregrine_harness::{html, markdown};

use crate::support::{allocations, result, rounds, suite, suites};

fn checkpoints() -> SuiteResult {
    let mut all = suite(vec![
        result(
            "checkpoints/load/5000_records/peregrine",
            Role::Ours,
            rounds(6_000.0),
            allocations(20.0),
        ),
        result(
            "checkpoints/load/5000_records/read",
            Role::Floor,
            rounds(3_000.0),
            Counts::default(),
        ),
    ]);
    all.suite_name = "checkpoints".to_owned();
    all
}

fn ablations() -> SuiteResult {
    let mut all = suite(vec![
        result(
            "ablations/cache/memory/on",
            Role::Ours,
            rounds(10.0),
            allocations(2.0),
        ),
        result(
            "ablations/cache/memory/off",
            Role::Rival,
            rounds(250.0),
            allocations(40.0),
        ),
        result(
            "ablations/alone/x/on",
            Role::Ours,
            rounds(10.0),
            Counts::default(),
        ),
    ]);
    all.suite_name = "ablations".to_owned();
    all
}

fn kept(results: [SuiteResult; 2]) -> Kept {
    let suites = results.map(|suite| (suite.suite_name.clone(), suite.condensed()));
    Kept::from([("a-target".to_owned(), suites.into())])
}

#[test]
fn condensed_results_are_small_lines_that_are_read_back_and_fit_the_schema() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoints.json");
    let condensed = checkpoints().condensed();
    let text = condensed.to_lines();
    assert_eq!(text.lines().count(), 4, "head, two benchmarks, tail: {text}");
    assert!(text.len() < 4_000, "{}", text.len());
    fs::write(&path, &text).unwrap();
    assert_eq!(SuiteResult::read(&path).unwrap(), condensed);
    let validator = jsonschema::validator_for(&schema()).unwrap();
    assert!(validator.is_valid(&serde_json::from_str(&text).unwrap()));
    let p50 = condensed.benchmark_results[0].latency_ms.p50;
    assert!((p50 - 6.0).abs() < 0.001, "{p50}");

    fs::write(&path, text.replace("\"condensed\":true", "\"condensed\":false")).unwrap();
    assert!(
        matches!(SuiteResult::read(&path), Err(Error::Format { .. })),
        "samples are missing"
    );
    // What has none is shown without plots.
    let page = html::report([&condensed], None);
    assert!(!page.contains("NaN") && !page.contains("class=\"shape\""));
}

#[test]
fn what_an_optimisation_is_worth_is_the_ratio_of_both_ways() {
    let suite = ablations();
    let worth = ablation::worth(&suite);
    assert_eq!(worth.len(), 1, "one way alone says nothing");
    assert_eq!((worth[0].name, worth[0].times), ("cache/memory", 25.0));
    let [lower, upper] = worth[0].interval.unwrap();
    assert!(
        lower <= 25.0 && 25.0 <= upper && upper - lower < 1.0,
        "{lower} {upper}"
    );
    let text = markdown::results([&suite]);
    let row = text.lines().find(|line| line.contains("cache/memory")).unwrap();
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    assert_eq!(cells[1..5], ["cache/memory", "10 µs", "250 µs", "× 25"]);
    assert_eq!(cells[6], "2 / 40");
    assert!(html::report([&suite], None).contains("× 25"));
}

#[test]
fn the_page_has_every_figure_and_the_target_that_was_missed() {
    let kept = kept([checkpoints(), ablations()]);
    let text = page(&kept);
    assert_eq!(text, page(&kept));
    assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
    for wanted in [
        "## Method",
        "## Biases",
        "## Results: a-target",
        "| checkpoints: load | 6 ms",
        "| cache/memory | 10 µs",
        "0 of 1 are met",
        "- `load/5000_records`: work",
        "- processor: a processor, 2 cores",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let row = text
        .lines()
        .find(|line| line.contains("load of 5,000 records"))
        .unwrap();
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    assert_eq!(cells[2..7], ["6 ms", "read 3 ms", "2", "≤ 5 ms", "no, by 20 %"]);
    assert!(!text.contains('{'), "nothing was left to fill in");
    let short = block(&kept);
    assert!(short.contains("| checkpoints | load 6 ms (2) |"), "{short}");
    assert!(short.contains("1 of 1 are excellent"), "{short}");
    assert!(
        page(&Kept::new()).contains("No results are kept yet") && block(&Kept::new()).contains("No results")
    );
}

#[test]
fn the_block_of_the_readme_is_replaced_and_nothing_else() {
    let text = "# A\n<!-- benchmarks: begin -->\nold\n<!-- benchmarks: end -->\nrest\n";
    let new = with_block(text, "new\n").unwrap();
    assert_eq!(
        new,
        "# A\n<!-- benchmarks: begin -->\nnew\n<!-- benchmarks: end -->\nrest\n"
    );
    assert_eq!(with_block(&new, "new\n").unwrap(), new);
    assert!(with_block("# A\n", "new\n").is_err());
    assert!(with_block(&format!("{text}{text}"), "new\n").is_err());
}

#[test]
fn results_are_kept_by_target_and_short_or_failed_ones_are_not() {
    let root = tempfile::tempdir().unwrap();
    fs::write(
        root.path().join("README.md"),
        "<!-- benchmarks: begin -->\n<!-- benchmarks: end -->\n",
    )
    .unwrap();
    let none = documents(root.path()).unwrap();
    assert!(none[0].1.contains("No results"));
    keep(root.path(), suites(checkpoints()).values()).unwrap();
    keep(root.path(), suites(ablations()).values()).unwrap();
    let kept = docs::kept(root.path()).unwrap();
    assert_eq!(kept["a-target"].len(), 2, "each run replaces its own suites");
    let [(readme, text), (page, _)] = documents(root.path()).unwrap();
    assert!(readme.ends_with("README.md") && page.ends_with("docs/benchmarks.md"));
    assert!(text.contains("load 6 ms"));

    let mut short = checkpoints();
    short.settings.quick = true;
    assert!(matches!(keep(root.path(), [&short]), Err(Error::Usage(_))));
    let mut failed = checkpoints();
    failed.failures.push(peregrine_harness::result::Failure {
        name: "checkpoints/save".to_owned(),
        message: "the answer was wrong".to_owned(),
    });
    assert!(matches!(keep(root.path(), [&failed]), Err(Error::Usage(_))));

    let mut large = checkpoints();
    large.benchmark_results[0].workload = "w".repeat(usize::try_from(docs::MAX_BYTES).unwrap());
    keep(root.path(), [&large]).unwrap();
    assert!(
        matches!(docs::kept(root.path()), Err(Error::Usage(_))),
        "the repository stays small"
    );
}
