//! Baselines of counts: kept, compared, and not compared where the compiler differs.

use peregrine_harness::baseline::Baseline;
use peregrine_harness::compare::{Exit, Metric, Severity, Verdict};
use peregrine_harness::protocol::Role;
use peregrine_harness::result::{Counts, SuiteResult};

use crate::support::{result, rounds, suite};

fn counted(allocations: f64, instructions: f64) -> SuiteResult {
    let counts = Counts {
        allocations_per_op: Some(allocations),
        bytes_per_op: Some(allocations * 100.0),
        instructions_per_op: Some(instructions),
    };
    suite(vec![
        result("s/op/1/ours", Role::Ours, rounds(100.0), counts),
        result("s/op/1/floor", Role::Floor, rounds(100.0), counts),
    ])
}

#[test]
fn counts_are_kept_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("here/a-target.json");
    assert_eq!(Baseline::read(&path).unwrap(), None);
    let kept = Baseline::of([&counted(20.0, 1_000.0)], None).unwrap();
    assert_eq!(kept.counts.len(), 1, "only ours");
    kept.write(&path).unwrap();
    assert_eq!(Baseline::read(&path).unwrap().unwrap(), kept);

    assert_eq!(kept.compare([&counted(20.0, 1_005.0)]).exit(), Exit::Ok);
    let more = kept.compare([&counted(20.0, 1_050.0)]);
    assert_eq!(more.exit(), Exit::Failed);
    let first = &more.rows[0];
    assert_eq!(
        (first.metric, first.verdict, first.severity),
        (Metric::Instructions, Verdict::Regressed, Severity::Fail)
    );
    std::fs::write(&path, "{}").unwrap();
    assert!(Baseline::read(&path).is_err());
}

#[test]
fn another_compiler_counts_otherwise() {
    let kept = Baseline::of([&counted(20.0, 1_000.0)], None).unwrap();
    let mut newer = counted(20.0, 1_500.0);
    newer.environment.rustc = Some("rustc 2".to_owned());
    let comparison = kept.compare([&newer]);
    assert_eq!(comparison.exit(), Exit::Ok);
    let verdict = |metric| {
        comparison
            .rows
            .iter()
            .find(|row| row.metric == metric)
            .unwrap()
            .verdict
    };
    assert_eq!(verdict(Metric::Instructions), Verdict::Incomparable);
    assert_eq!(verdict(Metric::Allocations), Verdict::Unchanged);
}

#[test]
fn a_run_of_one_suite_keeps_the_others_counts() {
    let before = Baseline::of([&counted(20.0, 1_000.0)], None).unwrap();
    let mut other = counted(5.0, 50.0);
    for result in &mut other.benchmark_results {
        result.name = result.name.replace("s/op", "s/other");
    }
    let both = Baseline::of([&other], Some(before.clone())).unwrap();
    assert_eq!(both.counts.len(), 2);
    other.environment.rustc = Some("rustc 2".to_owned());
    let anew = Baseline::of([&other], Some(before)).unwrap();
    assert_eq!(
        anew.counts.len(),
        1,
        "counts of two compilers do not stand in one file"
    );
    assert_eq!(Baseline::of([], None), None);
}
