//! Reports: Markdown and HTML that say what the results say, and nothing that was smuggled into them.

use std::collections::BTreeMap;

use peregrine_harness::compare::compare;
use peregrine_harness::protocol::Role;
use peregrine_harness::result::{Counts, Failure, SuiteResult};
use peregrine_harness::{html, markdown};

use crate::support::{allocations, result, rounds, suite, suites};

fn example(us: f64) -> SuiteResult {
    let mut all = suite(vec![
        result(
            "checkpoints/load/5000_records/peregrine",
            Role::Ours,
            rounds(us),
            allocations(20.0),
        ),
        result(
            "checkpoints/load/5000_records/read",
            Role::Floor,
            rounds(100.0),
            Counts::default(),
        ),
    ]);
    all.suite_name = "checkpoints".to_owned();
    all
}

#[test]
fn the_summary_rates_and_names_target_and_floor() {
    let text = markdown::results([&example(12_000.0)]);
    let row = text
        .lines()
        .find(|line| line.contains("checkpoints: load"))
        .unwrap();
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    assert_eq!(
        cells[1..9],
        [
            "checkpoints: load",
            "12 ms",
            "10 ms / 20 ms",
            "good",
            "≤ 5 ms",
            "no",
            "read 100 µs",
            "120"
        ]
    );
    assert!(text.contains("**load/5000_records/peregrine**"), "{text}");
}

#[test]
fn a_comparison_begins_with_what_it_came_to() {
    let (base, head) = (suites(example(100.0)), suites(example(150.0)));
    let comparison = compare(&base, &head, &BTreeMap::new());
    let text = markdown::comparison(&comparison);
    assert!(text.starts_with("### Benchmarks: **failed**"), "{text}");
    let first = text.lines().find(|line| line.contains("peregrine")).unwrap();
    assert!(
        first.contains("+50.0 %") && first.contains("**regressed**"),
        "{first}"
    );
    assert!(text.contains("<details>"), "what did not change is behind a fold");
}

#[test]
fn a_page_stands_alone_and_markup_in_results_stays_text() {
    let mut hostile = example(100.0);
    hostile.environment.cpu_model = Some("<script>alert('x')</script> & \"co\"".to_owned());
    hostile.failures.push(Failure {
        name: "a/b/c".to_owned(),
        message: "<img src=x onerror=y>".to_owned(),
    });
    let comparison = compare(&suites(example(90.0)), &suites(hostile.clone()), &BTreeMap::new());
    let page = html::report([&hostile], Some(&comparison));
    for never in ["<script", "<img", "http:", "https:", "url(", "@import", "src="] {
        let text = page.replace("&lt;img src=x", "");
        assert!(!text.contains(never), "{never}");
    }
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;co&quot;"));
    assert!(page.contains("prefers-color-scheme: dark"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(
        page.matches("class=\"shape\"").count() == 2,
        "a distribution for each variant"
    );
    assert!(
        !page.contains("NaN") && !page.contains("inf"),
        "coordinates are numbers"
    );
}

#[test]
fn a_page_without_samples_that_differ_is_a_page_too() {
    let mut flat = example(100.0);
    let same = crate::support::round([0.000_001; 3]);
    flat.benchmark_results = vec![result("s/op/1/ours", Role::Ours, vec![same], Counts::default())];
    let page = html::report([&flat], None);
    assert!(!page.contains("NaN"), "{page}");
    assert!(html::report([], None).contains("</html>"));
}
