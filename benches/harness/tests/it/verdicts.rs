//! Verdicts, as a table: what two sides are, what is said, what follows.

use std::collections::BTreeMap;

use peregrine_harness::bootstrap::{Interval, Method};
use peregrine_harness::compare::{
    Comparison, Exit, Metric, Severity, Verdict, compare, judge_count, judge_time, noise,
};
use peregrine_harness::protocol::Role;
use peregrine_harness::result::{Counts, Failure, SuiteResult};

use crate::support::{allocations, result, round, rounds, suite, suites};

fn interval(lower: f64, upper: f64) -> Interval {
    Interval {
        estimate: (lower * upper).sqrt(),
        lower,
        upper,
        confidence: 0.95,
        method: Method::Rounds,
    }
}

#[test]
fn times_are_judged_by_the_whole_interval() {
    use Severity::{Alert, Fail, Fine};
    use Verdict::{Improved, Inconclusive, Regressed, Unchanged};
    for (lower, upper, noise, verdict, severity) in [
        (0.99, 1.01, 0.0, Unchanged, Fine),
        (0.96, 1.04, 0.0, Unchanged, Fine),
        (1.02, 1.049, 0.0, Unchanged, Fine),
        (0.97, 1.07, 0.0, Inconclusive, Fine),
        (0.80, 1.30, 0.0, Inconclusive, Fine),
        (1.049, 1.2, 0.0, Inconclusive, Fine),
        (1.051, 1.2, 0.0, Regressed, Alert),
        (1.06, 1.09, 0.0, Regressed, Alert),
        (1.101, 1.2, 0.0, Regressed, Fail),
        (1.9, 2.1, 0.0, Regressed, Fail),
        (0.80, 0.951, 0.0, Improved, Fine),
        (0.80, 0.96, 0.0, Inconclusive, Fine),
        // What nothing moves by that much says nothing.
        (1.051, 1.2, 0.08, Inconclusive, Fine),
        (1.09, 1.2, 0.08, Regressed, Alert),
        (1.12, 1.2, 0.15, Inconclusive, Fine),
        (1.16, 1.2, 0.15, Regressed, Fail),
        (0.80, 0.90, 0.15, Inconclusive, Fine),
        (0.70, 0.80, 0.15, Improved, Fine),
        (0.99, 1.01, 0.15, Unchanged, Fine),
    ] {
        let (said, follows, reason) = judge_time(Some(interval(lower, upper)), noise);
        assert_eq!((said, follows), (verdict, severity), "{lower} {upper} {noise}");
        assert_eq!(
            reason.is_empty(),
            said != Inconclusive,
            "{lower} {upper} {noise}: {reason}"
        );
    }
    let unsure = Interval {
        confidence: 0.9375,
        ..interval(2.0, 3.0)
    };
    assert_eq!(judge_time(Some(unsure), 0.0).0, Inconclusive);
    assert_eq!(judge_time(None, 0.0).0, Inconclusive);
}

#[test]
fn counts_are_judged_by_their_ratio() {
    use Severity::{Alert, Fail, Fine};
    use Verdict::{Improved, Regressed, Unchanged};
    let thresholds = Metric::Instructions.thresholds();
    for (base, head, verdict, severity) in [
        (1_000.0, 1_000.0, Unchanged, Fine),
        (1_000.0, 1_010.0, Unchanged, Fine),
        (1_000.0, 1_011.0, Regressed, Alert),
        (1_000.0, 1_030.0, Regressed, Alert),
        (1_000.0, 1_031.0, Regressed, Fail),
        (1_000.0, 1_050.0, Regressed, Fail),
        (1_000.0, 991.0, Unchanged, Fine),
        (1_000.0, 989.0, Improved, Fine),
        (25.0, 26.0, Regressed, Fail),
        (0.0, 0.0, Unchanged, Fine),
        (0.0, 1.0, Regressed, Fail),
        (1.0, 0.0, Improved, Fine),
    ] {
        assert_eq!(
            judge_count(base, head, thresholds),
            (verdict, severity),
            "{base} {head}"
        );
    }
}

fn one(median_us: f64) -> SuiteResult {
    suite(vec![result(
        "s/op/1/ours",
        Role::Ours,
        rounds(median_us),
        allocations(20.0),
    )])
}

fn both(base: SuiteResult, head: SuiteResult) -> Comparison {
    compare(&suites(base), &suites(head), &BTreeMap::new())
}

fn said(comparison: &Comparison, metric: Metric) -> (Verdict, Severity) {
    let row = comparison.rows.iter().find(|row| row.metric == metric).unwrap();
    (row.verdict, row.severity)
}

#[test]
fn what_changed_is_said_and_the_exit_follows() {
    let equal = both(one(100.0), one(100.0));
    assert_eq!(
        said(&equal, Metric::WallTime),
        (Verdict::Unchanged, Severity::Fine)
    );
    assert_eq!(
        said(&equal, Metric::Allocations),
        (Verdict::Unchanged, Severity::Fine)
    );
    assert_eq!(equal.exit(), Exit::Ok);
    let alert = both(one(100.0), one(107.0));
    assert_eq!(
        said(&alert, Metric::WallTime),
        (Verdict::Regressed, Severity::Alert)
    );
    assert_eq!(alert.exit(), Exit::Ok, "an alert fails nothing");
    let slower = both(one(100.0), one(115.0));
    assert_eq!(
        said(&slower, Metric::WallTime),
        (Verdict::Regressed, Severity::Fail)
    );
    assert_eq!(slower.exit(), Exit::Failed);
    assert_eq!(slower.rows[0].severity, Severity::Fail, "the worst comes first");
    let faster = both(one(100.0), one(80.0));
    assert_eq!(
        said(&faster, Metric::WallTime),
        (Verdict::Improved, Severity::Fine)
    );

    let mut head = one(100.0);
    head.benchmark_results[0].counts = allocations(21.0);
    let more = both(one(100.0), head);
    assert_eq!(
        said(&more, Metric::Allocations),
        (Verdict::Regressed, Severity::Fail)
    );
    assert_eq!(more.exit(), Exit::Failed);
}

#[test]
fn what_was_measured_otherwise_is_not_compared() {
    let mut head = one(300.0);
    head.benchmark_results[0].workload = "more work".to_owned();
    let other = both(one(100.0), head);
    assert_eq!(other.rows.len(), 1);
    assert_eq!(
        said(&other, Metric::WallTime),
        (Verdict::Incomparable, Severity::Fine)
    );
    assert_eq!(other.exit(), Exit::CouldNotCompare);

    let mut head = one(300.0);
    head.environment.cpu_model = Some("another".to_owned());
    let other = both(one(100.0), head);
    assert_eq!(said(&other, Metric::WallTime).0, Verdict::Incomparable);
    assert_eq!(
        said(&other, Metric::Allocations).0,
        Verdict::Unchanged,
        "allocations know no processor"
    );
    assert_eq!(other.exit(), Exit::Ok);

    let mut head = one(300.0);
    head.environment.profile = "dev".to_owned();
    assert_eq!(both(one(100.0), head).exit(), Exit::CouldNotCompare);
}

#[test]
fn what_came_and_what_went_is_told() {
    let other = suite(vec![result(
        "s/op/2/ours",
        Role::Ours,
        rounds(50.0),
        Counts::default(),
    )]);
    let comparison = both(one(100.0), other.clone());
    let verdicts: Vec<_> = comparison
        .rows
        .iter()
        .map(|row| (row.verdict, row.severity))
        .collect();
    assert_eq!(
        verdicts,
        [(Verdict::Missing, Severity::Fail), (Verdict::New, Severity::Fine)]
    );
    assert_eq!(comparison.exit(), Exit::Failed);

    let mut failed = other;
    failed.failures.push(Failure {
        name: "s/op/1".to_owned(),
        message: "the answer was wrong".to_owned(),
    });
    let comparison = both(one(100.0), failed);
    assert!(comparison.rows[0].reason.contains("the answer was wrong"));
    let nothing = compare(&suites(one(100.0)), &BTreeMap::new(), &BTreeMap::new());
    assert_eq!(nothing.exit(), Exit::Failed, "a whole suite went");
}

#[test]
fn floors_fail_nothing() {
    let floor = |us| {
        suite(vec![result(
            "s/op/1/floor",
            Role::Floor,
            rounds(us),
            allocations(us),
        )])
    };
    let comparison = both(floor(100.0), floor(300.0));
    assert_eq!(
        said(&comparison, Metric::WallTime),
        (Verdict::Regressed, Severity::Fine)
    );
    assert_eq!(comparison.exit(), Exit::Ok);
}

#[test]
fn noise_is_how_far_nothing_moves_it() {
    assert!(noise(&rounds(100.0)) < 0.02);
    assert_eq!(noise(&rounds(100.0)[..3]), 0.0);
    let restless: Vec<_> = (0..10)
        .map(|n| round([100.0 + f64::from(n % 2) * 20.0; 50]))
        .collect();
    assert!((noise(&restless) - 0.2).abs() < 0.001);

    // The base run twice in a session, 12 % apart: a change of 11 % is no finding.
    let (base, head, again) = (suites(one(100.0)), suites(one(111.0)), suites(one(112.0)));
    let without = compare(&base, &head, &BTreeMap::new());
    assert_eq!(said(&without, Metric::WallTime).0, Verdict::Regressed);
    let with = compare(&base, &head, &again);
    assert_eq!(
        said(&with, Metric::WallTime),
        (Verdict::Inconclusive, Severity::Fine)
    );
}

#[test]
fn times_of_short_runs_are_told_and_fail_nothing() {
    let short = |us: f64, allocations_per_op: f64| {
        let mut all = suite(vec![result(
            "s/op/1/ours",
            Role::Ours,
            rounds(us),
            allocations(allocations_per_op),
        )]);
        all.settings.quick = true;
        suites(all)
    };
    let slower = compare(&short(100.0, 20.0), &short(200.0, 20.0), &BTreeMap::new());
    assert_eq!(slower.exit(), Exit::Ok);
    assert_eq!(
        (slower.rows[0].verdict, slower.rows[0].severity),
        (Verdict::Regressed, Severity::Alert)
    );
    let more = compare(&short(100.0, 20.0), &short(100.0, 21.0), &BTreeMap::new());
    assert_eq!(more.exit(), Exit::Failed);
}
