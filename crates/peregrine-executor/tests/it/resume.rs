//! Going on where an earlier run was.

use peregrine_executor::{Cause, Outcome, Problem, Snapshot, StepState, Timer as _, VirtualTimer};
use serde_json::{Value, json};

use crate::support::{Calls, finish, ms, plan, result, state, states};

fn steps() -> Value {
    json!([
        {"id": "a", "action": "note", "parameters": {"ms": 5}, "checks": [{"action": "check", "parameters": {"passed": true}}]},
        {"id": "b", "action": "note", "parameters": {"ms": 40, "from": "$a"}},
        {"id": "pay", "action": "write", "parameters": {"ms": 40, "from": "$a.id"}},
        {"id": "put", "action": "put", "parameters": {"ms": 40, "from": "$a.id"}},
        {"id": "bad", "action": "fail", "depends_on": ["a"]},
        {"id": "after-bad", "action": "note", "depends_on": ["bad"]},
        {"id": "last", "action": "write", "parameters": ["$b", "$put"]},
    ])
}

/// A run that is cancelled, or that nobody hears of any more, after 20 ms; what is known of it then.
fn interrupted(calls: &Calls, is_told: bool) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let timer = VirtualTimer::new();
    let executor = peregrine_executor::Executor::new(calls.actions(), timer.clone());
    if is_told {
        let run = executor
            .run(&plan(&steps()))
            .with_id("r")
            .observed_by(&mut snapshot);
        finish(run.until(timer.sleep_until(ms(20))).into_future()).unwrap();
    } else {
        // As a crash does it: the run is dropped.
        let run = executor
            .run(&plan(&steps()))
            .with_id("r")
            .observed_by(&mut snapshot)
            .into_future();
        let mut both = Box::pin(futures_util::future::select(timer.sleep_until(ms(20)), run));
        let _dropped = finish(&mut both);
    }
    // Through a journal.
    let text = serde_json::to_string(&snapshot).unwrap();
    let read: Snapshot = serde_json::from_str(&text).unwrap();
    assert_eq!(read, snapshot);
    read
}

#[test]
fn what_was_done_is_not_done_again_and_side_effects_are_in_doubt() {
    for is_told in [true, false] {
        let calls = Calls::default();
        let snapshot = interrupted(&calls, is_told);
        assert_eq!(calls.take(), ["a", "b", "put", "pay"]);
        let run = calls.executor();
        let plan = plan(&steps());
        let report = finish(run.run(&plan).with_id("r").resumed_from(&snapshot).into_future()).unwrap();
        assert_eq!(calls.take(), ["b", "put", "last"], "told: {is_told}");
        assert_eq!(
            states(&report),
            [
                "a: succeeded",
                "b: succeeded",
                "pay: failed: an earlier attempt had begun and its end is not known; it has side effects and is not repeated",
                "put: succeeded",
                "bad: failed: it was asked to fail",
                "after-bad: skipped: `bad`, which it depends on, did not succeed",
                "last: succeeded",
            ]
        );
        assert_eq!(report.outcome, Outcome::Failed);
        let a = report.step("a").unwrap();
        assert!(
            a.reused && a.checks[0].passed() && a.checks[0].started_at.is_none(),
            "{a:?}"
        );
        assert_eq!(report.step("put").unwrap().attempts, 2);
        assert_eq!(
            result(&report, "put")["key"],
            "r/put",
            "the same key as the first time"
        );
        assert_eq!(report.step("pay").unwrap().cause, Some(Cause::InDoubt));
    }
}

#[test]
fn a_run_can_be_resumed_again_and_again() {
    let calls = Calls::default();
    let mut snapshot = interrupted(&calls, false);
    calls.take();
    let plan = plan(&steps());
    let before = snapshot.clone();
    let report = finish(
        calls
            .executor()
            .run(&plan)
            .resumed_from(&before)
            .observed_by(&mut snapshot)
            .into_future(),
    )
    .unwrap();
    calls.take();
    let complete = snapshot.clone();
    let again = finish(
        calls
            .executor()
            .run(&plan)
            .resumed_from(&complete)
            .observed_by(&mut snapshot)
            .into_future(),
    )
    .unwrap();
    assert_eq!(calls.take(), Vec::<String>::new());
    assert_eq!(states(&again), states(&report));
    assert!(again.makespan.is_zero());

    // Failures are forgotten when that is wanted; doubts are not.
    snapshot.forget_failures();
    let third = finish(calls.executor().run(&plan).resumed_from(&snapshot).into_future()).unwrap();
    assert_eq!(
        (state(&third, "bad"), third.step("bad").unwrap().reused),
        (StepState::Failed, false)
    );
    assert_eq!(third.step("pay").unwrap().cause, Some(Cause::InDoubt));
    snapshot.steps.remove("pay");
    finish(calls.executor().run(&plan).resumed_from(&snapshot).into_future()).unwrap();
    assert_eq!(calls.take(), ["pay"]);
}

#[test]
fn records_of_another_step_are_not_taken_for_this_one() {
    let calls = Calls::default();
    let snapshot = interrupted(&calls, true);
    let mut other = steps();
    other[1]["parameters"]["more"] = json!(1);
    other[3]["action"] = json!("note");
    calls.take();
    let run = finish(
        calls
            .executor()
            .run(&plan(&other))
            .resumed_from(&snapshot)
            .into_future(),
    );
    let changed = |id: &str| Problem::ChangedStep { step: id.to_owned() };
    assert_eq!(run.unwrap_err().problems(), [changed("b"), changed("put")]);
    assert!(calls.take().is_empty());
    // Records of steps that there are not any more harm nobody, and neither does another order of keys.
    let fewer = json!([{"action": "note", "id": "a", "parameters": {"ms": 5}}]);
    let report = finish(
        calls
            .executor()
            .run(&plan(&fewer))
            .resumed_from(&snapshot)
            .into_future(),
    )
    .unwrap();
    assert!(report.steps[0].reused);
}

#[test]
fn an_aborted_plan_stays_aborted() {
    let calls = Calls::default();
    let steps = plan(&json!([
        {"id": "a", "action": "fail", "on_failure": "abort"}, {"id": "b", "action": "note", "parameters": {"ms": 5}},
    ]));
    let mut snapshot = Snapshot::default();
    finish(
        calls
            .executor()
            .run(&steps)
            .observed_by(&mut snapshot)
            .into_future(),
    )
    .unwrap();
    calls.take();
    let report = finish(calls.executor().run(&steps).resumed_from(&snapshot).into_future()).unwrap();
    assert_eq!(
        states(&report)[1],
        "b: cancelled: the plan was aborted, because `a` failed"
    );
    assert!(calls.take().is_empty());
}

#[test]
fn a_check_that_has_not_ended_is_made_and_a_null_is_a_result() {
    let steps = plan(&json!([
        {"id": "a", "action": "echo", "parameters": null, "checks": [{"action": "check", "policy": "gate", "parameters": {"passed": false}}]},
        {"id": "n", "action": "echo", "parameters": "$e.x"}, {"id": "e", "action": "echo", "parameters": {"x": null}},
        {"id": "b", "action": "note", "parameters": ["$a", "$n"]},
    ]));
    let calls = Calls::default();
    let mut snapshot = Snapshot::default();
    finish(
        calls
            .executor()
            .run(&steps)
            .observed_by(&mut snapshot)
            .into_future(),
    )
    .unwrap();
    let text = serde_json::to_string(&snapshot).unwrap();
    let mut snapshot: Snapshot = serde_json::from_str(&text).unwrap();
    assert_eq!(snapshot.steps["n"].result, Some(json!(null)));
    // A failed gate stays failed.
    let report = finish(calls.executor().run(&steps).resumed_from(&snapshot).into_future()).unwrap();
    assert_eq!(state(&report, "b"), StepState::Skipped);
    snapshot.steps.get_mut("a").unwrap().checks.clear();
    let report = finish(calls.executor().run(&steps).resumed_from(&snapshot).into_future()).unwrap();
    assert!(report.step("a").unwrap().reused);
    assert!(report.step("a").unwrap().checks[0].started_at.is_some());
}
