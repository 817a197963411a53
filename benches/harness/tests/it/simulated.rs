//! The simulated part of the self-test, and that it can fail.

use std::collections::BTreeMap;

use peregrine_harness::compare::{Metric, Severity, Verdict, compare};
use peregrine_harness::simulate::{Side, alarms, self_test, session, verdict};

#[test]
fn equal_runs_raise_no_alarm_and_planted_changes_are_caught() {
    let findings = self_test(200).unwrap();
    assert!(findings.wrong.is_empty(), "{:?}", findings.wrong);
    assert_eq!(findings.seen.len(), 3);
    assert!(
        findings.seen[0].starts_with("0 alarms in 200"),
        "{:?}",
        findings.seen
    );
}

#[test]
fn small_changes_are_seen_where_the_noise_allows_it() {
    let calm = Side {
        between_rounds: 0.003,
        ..Side::default()
    };
    let slower = Side {
        median_us: calm.median_us * 1.07,
        ..calm
    };
    let seen = (0..50).filter(|seed| {
        let [base, head] = session(*seed, calm, slower);
        let said = verdict(&compare(&base, &head, &BTreeMap::new()), Metric::WallTime);
        said == Some((Verdict::Regressed, Severity::Alert))
    });
    assert!(seen.count() >= 25, "7 % in a calm session is mostly an alert");

    let restless = Side {
        between_rounds: 0.30,
        ..Side::default()
    };
    let told = (0..50).filter(|seed| {
        let [base, head] = session(*seed, restless, restless);
        alarms(&compare(&base, &head, &BTreeMap::new()))
    });
    assert!(told.count() <= 2, "restless runs are inconclusive, not alarming");
}

#[test]
fn an_alarm_is_seen_as_one() {
    let base = Side::default();
    let faster = Side {
        median_us: base.median_us / 2.0,
        ..base
    };
    let [one, other] = session(1, base, faster);
    assert!(alarms(&compare(&one, &other, &BTreeMap::new())));
}
