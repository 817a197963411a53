//! Checks beside the plan: policies, verdicts, what they hold up and what they do not.

use peregrine_executor::{ActionInfo, Effect, Executor, Outcome, Report, StepState, VirtualTimer};
use serde_json::{Value, json};

use crate::support::{Calls, Story, executor, finish, ms, plan, result, run, state, states};

fn check(report: &Report, id: &str, index: usize) -> String {
    let record = &report.step(id).unwrap().checks[index];
    match &record.cause {
        None => record.state.name().to_owned(),
        Some(cause) => format!("{}: {cause}", record.state.name()),
    }
}

/// `a` is read and checked for 50 ms; `read`, `write` and `put` depend on it, `far` writes behind `read`.
fn checked(policy: &str, passed: bool) -> (Report, Vec<String>) {
    let steps = json!([
        {"id": "a", "action": "note", "checks": [{"action": "check", "policy": policy, "parameters": {"ms": 50, "passed": passed, "message": "it is wrong", "seen": "$a.id"}}]},
        {"id": "read", "action": "note", "depends_on": ["a"]},
        {"id": "write", "action": "write", "depends_on": ["a"]},
        {"id": "put", "action": "put", "depends_on": ["a"]},
        {"id": "far", "action": "write", "parameters": "$read.id"},
        {"id": "read-far", "action": "note", "depends_on": ["far"]},
        {"id": "free", "action": "write"},
    ]);
    let calls = Calls::default();
    let report = finish(calls.executor().run(&plan(&steps)).into_future()).unwrap();
    let started = report.steps.iter().map(|record| match record.started_at {
        Some(at) => format!("{} {}", record.id, at.as_millis()),
        None => format!("{} {}", record.id, record.state.name()),
    });
    let started = started.collect();
    (report, started)
}

#[test]
fn an_advisory_check_is_reported_and_holds_nothing_up() {
    for passed in [true, false] {
        let (report, started) = checked("advisory", passed);
        assert_eq!(
            started,
            [
                "a 0",
                "read 0",
                "write 0",
                "put 0",
                "far 0",
                "read-far 0",
                "free 0"
            ]
        );
        assert_eq!(
            (report.outcome, report.makespan),
            (Outcome::Succeeded, ms(50)),
            "it is waited for"
        );
        let expected = if passed {
            "succeeded"
        } else {
            "failed: it is wrong"
        };
        assert_eq!(check(&report, "a", 0), expected);
        assert_eq!(
            report.step("a").unwrap().checks[0].reason.as_deref(),
            Some("it is wrong")
        );
    }
}

#[test]
fn a_gate_holds_up_all_that_depends_on_its_step() {
    let (report, started) = checked("gate", true);
    assert_eq!(
        started,
        [
            "a 0",
            "read 50",
            "write 50",
            "put 50",
            "far 50",
            "read-far 50",
            "free 0"
        ]
    );
    assert_eq!(report.outcome, Outcome::Succeeded);
    let (report, started) = checked("gate", false);
    assert_eq!(
        started,
        [
            "a 0",
            "read skipped",
            "write skipped",
            "put skipped",
            "far skipped",
            "read-far skipped",
            "free 0"
        ]
    );
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(
        states(&report)[1],
        "read: skipped: the check `check` of `a`, which it depends on, did not pass"
    );
    assert_eq!(
        states(&report)[4],
        "far: skipped: `read`, which it depends on, did not succeed, because of `a`"
    );
}

#[test]
fn a_gate_of_effects_holds_up_only_steps_with_effects_however_far_behind() {
    let (report, started) = checked("gate_effects", true);
    assert_eq!(
        started,
        [
            "a 0",
            "read 0",
            "write 50",
            "put 50",
            "far 50",
            "read-far 50",
            "free 0"
        ]
    );
    assert_eq!(report.outcome, Outcome::Succeeded);
    let (report, started) = checked("gate_effects", false);
    assert_eq!(
        started,
        [
            "a 0",
            "read 0",
            "write skipped",
            "put skipped",
            "far skipped",
            "read-far skipped",
            "free 0"
        ]
    );
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(
        states(&report)[4],
        "far: skipped: the check `check` of `a`, which it depends on, did not pass"
    );
}

#[test]
fn gates_of_effects_gather_over_many_steps() {
    // 300 read-only steps in a row, each with a gate of effects, and two writes at the end. Only the last check fails
    // in the second round.
    for failing in [None, Some(299), Some(0)] {
        let mut steps: Vec<Value> = (0..300)
            .map(|n| {
                let after: Vec<String> = if n == 0 { vec![] } else { vec![format!("s{}", n - 1)] };
                let passed = Some(n) != failing;
                json!({"id": format!("s{n}"), "action": "note", "depends_on": after,
                    "checks": [{"action": "check", "policy": "gate_effects", "parameters": {"ms": n % 7, "passed": passed}}]})
            })
            .collect();
        steps.push(json!({"id": "w1", "action": "write", "depends_on": ["s299"]}));
        steps.push(json!({"id": "w2", "action": "write", "depends_on": ["s299", "s7", "w1"]}));
        let calls = Calls::default();
        let report = finish(calls.executor().run(&plan(&json!(steps))).into_future()).unwrap();
        let expected = if failing.is_none() {
            StepState::Succeeded
        } else {
            StepState::Skipped
        };
        assert_eq!((state(&report, "w1"), state(&report, "w2")), (expected, expected));
        assert_eq!(
            report.count(StepState::Succeeded),
            if failing.is_none() { 302 } else { 300 }
        );
        if let Some(n) = failing {
            let expected =
                format!("w1: skipped: the check `check` of `s{n}`, which it depends on, did not pass");
            assert_eq!(states(&report)[300], expected);
        }
    }
}

#[test]
fn a_checker_that_fails_is_a_failed_check() {
    let actions = Calls::default()
        .actions()
        .with_fn("yes", ActionInfo::new(Effect::ReadOnly), async |_| {
            Ok(json!(true))
        })
        .with_fn("odd", ActionInfo::new(Effect::ReadOnly), async |_| {
            Ok(json!("looks good to me"))
        })
        .with_fn("missing", ActionInfo::new(Effect::ReadOnly), async |call| {
            Ok(call.into_parameters())
        })
        .with_fn("give", ActionInfo::new(Effect::ReadOnly), async |_| Ok(json!({})));
    let executor = Executor::new(actions, VirtualTimer::new());
    let steps = json!([
        {"id": "bad", "action": "fail", "on_failure": "optional", "checks": [{"action": "yes", "policy": "gate"}]},
        {"id": "a", "action": "give", "on_failure": "optional", "checks": [
            {"action": "yes", "policy": "gate"}, {"action": "odd"}, {"action": "fail"}, {"action": "panic"},
            {"action": "sleep", "parameters": {"ms": 100}, "timeout": 10}, {"action": "missing", "parameters": "$a.x"},
            {"action": "yes", "parameters": "$bad"}, {"action": "missing", "parameters": {"passed": false}},
            {"action": "missing", "parameters": {"passed": "true"}},
        ]},
    ]);
    let mut story = Story::default();
    let report = finish(executor.run(&plan(&steps)).observed_by(&mut story).into_future()).unwrap();
    let checks: Vec<String> = (0..9).map(|index| check(&report, "a", index)).collect();
    assert_eq!(
        checks,
        [
            "succeeded",
            "failed: the check gave no verdict: neither `true` or `false` nor `passed`",
            "failed: it was asked to fail",
            "failed: the action panicked: it was asked to panic",
            "failed: it took longer than 10ms",
            "failed: `$a.x` is nothing: there is no field `x`; the object is empty",
            "failed: `bad`, which it depends on, did not succeed",
            "failed: the check did not pass",
            "failed: the check gave no verdict: neither `true` or `false` nor `passed`",
        ]
    );
    assert_eq!(check(&report, "bad", 0), "skipped");
    assert_eq!(report.outcome, Outcome::Succeeded, "all of it is optional");
    assert_eq!(
        story.0.iter().filter(|line| line.contains(" check ")).count(),
        10,
        "{story:?}"
    );
}

#[test]
fn a_check_may_refer_to_a_step_that_comes_later() {
    let report = run(&json!([
        {"id": "a", "action": "echo", "parameters": 1, "checks": [{"action": "check", "policy": "gate", "parameters": {"value": "$b.ok"}}]},
        {"id": "c", "action": "echo", "parameters": "$a"},
        {"id": "b", "action": "sleep", "parameters": {"ms": 5, "ok": true}},
    ]));
    assert!(report.is_success());
    assert_eq!(report.step("c").unwrap().started_at, Some(ms(5)));
}

#[test]
fn a_fallback_is_not_checked_and_not_held_up() {
    let report = run(&json!([
        {"id": "a", "action": "fail", "on_failure": {"fallback": 1}, "checks": [{"action": "check", "policy": "gate"}]},
        {"id": "b", "action": "echo", "parameters": "$a"},
    ]));
    assert!(report.is_success());
    assert_eq!(
        (check(&report, "a", 0), state(&report, "b")),
        ("skipped".to_owned(), StepState::Succeeded)
    );
}

#[test]
fn checks_have_places_of_their_own() {
    let steps: Vec<Value> = (0..10)
        .map(|n| json!({"id": format!("s{n}"), "action": "sleep", "parameters": {"ms": 10}, "checks": [{"action": "check", "parameters": {"ms": 10, "passed": true}}]}))
        .collect();
    let executor = executor().with_max_parallel(10).with_max_checks(2);
    let report = finish(executor.run(&plan(&json!(steps))).into_future()).unwrap();
    assert_eq!((report.makespan, report.peak_parallel), (ms(60), 10));
    assert!(report.steps.iter().all(|record| record.checks[0].passed()));
}

#[test]
fn a_step_and_each_of_its_checks_have_keys_of_their_own() {
    let actions = Calls::default().actions().with_fn(
        "key",
        ActionInfo::new(Effect::Idempotent),
        async |call| {
            Ok(json!({"passed": true, "reason": format!("{} {:?}", call.idempotency_key(), call.check())}))
        },
    );
    let executor = Executor::new(actions, VirtualTimer::new());
    let steps = json!([{"id": "a", "action": "key", "checks": [{"action": "key"}, {"action": "key"}]}]);
    let report = finish(executor.run(&plan(&steps)).with_id("r").into_future()).unwrap();
    assert_eq!(result(&report, "a")["reason"], "r/a None");
    let reasons: Vec<_> = report.steps[0]
        .checks
        .iter()
        .map(|check| check.reason.as_deref().unwrap())
        .collect();
    assert_eq!(reasons, ["r/a/check-0 Some(0)", "r/a/check-1 Some(1)"]);
}
