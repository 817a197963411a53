//! What a failure means: causes, retries, optional steps, aborts, time limits, panics, cancellation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peregrine_executor::{
    ActionError, ActionInfo, Actions, Cause, Effect, Executor, Outcome, Placement, StepState, Timer as _,
    TokioTimer, VirtualTimer, builtin,
};
use serde_json::{Value, json};

use crate::support::{Calls, Story, executor, finish, ms, plan, result, run, state, states};

#[test]
fn what_depends_on_a_failure_is_skipped_with_its_cause_and_the_rest_is_done() {
    let report = run(&json!([
        {"id": "a", "action": "fail", "parameters": {"message": "no such city"}},
        {"id": "b", "action": "echo", "parameters": "$a"},
        {"id": "c", "action": "echo", "depends_on": ["b"]},
        {"id": "other", "action": "sleep", "parameters": {"ms": 5}},
        {"id": "more", "action": "echo", "parameters": "$other.ms"},
    ]));
    assert_eq!(
        states(&report),
        [
            "a: failed: no such city",
            "b: skipped: `a`, which it depends on, did not succeed",
            "c: skipped: `b`, which it depends on, did not succeed, because of `a`",
            "other: succeeded",
            "more: succeeded",
        ]
    );
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(
        report.step("c").unwrap().cause.as_ref().unwrap().root(),
        Some("a")
    );
}

#[test]
fn of_several_failures_the_first_in_the_plan_is_blamed_whichever_came_first() {
    for (one, other) in [(1, 9), (9, 1)] {
        let report = run(&json!([
            {"id": "x", "action": "fail", "parameters": {"ms": one}},
            {"id": "y", "action": "fail", "parameters": {"ms": other}},
            {"id": "z", "action": "echo", "parameters": ["$y", "$x"]},
        ]));
        assert_eq!(
            states(&report)[2],
            "z: skipped: `x`, which it depends on, did not succeed"
        );
    }
}

#[test]
fn optional_steps_and_fallbacks() {
    let report = run(&json!([
        {"id": "a", "action": "fail", "on_failure": "optional"},
        {"id": "b", "action": "echo", "on_failure": "optional", "parameters": "$a"},
        {"id": "c", "action": "fail", "on_failure": {"fallback": {"items": [7]}}},
        {"id": "d", "action": "echo", "parameters": ["$c.items[0]", "x$c"]},
        {"id": "e", "action": "panic", "on_failure": "continue"},
        {"id": "f", "action": "echo", "parameters": "$e", "depends_on": ["e"]},
        {"id": "g", "action": "echo", "parameters": "$a", "on_failure": {"fallback": "instead"}},
        {"id": "h", "action": "echo", "parameters": "$g"},
    ]));
    assert_eq!(report.outcome, Outcome::Succeeded, "{:?}", states(&report));
    assert_eq!(state(&report, "b"), StepState::Skipped);
    assert_eq!(state(&report, "c"), StepState::Failed);
    assert_eq!(result(&report, "d"), &json!([7, "x{\"items\":[7]}"]));
    assert_eq!(result(&report, "f"), &json!(null));
    assert_eq!(
        (state(&report, "g"), result(&report, "h")),
        (StepState::Skipped, &json!("instead"))
    );
    // A required step behind an optional one that failed did not succeed.
    let report = run(&json!([
        {"id": "a", "action": "fail", "on_failure": "optional"}, {"id": "b", "action": "echo", "depends_on": ["a"]}
    ]));
    assert_eq!(report.outcome, Outcome::Failed);
}

#[test]
fn an_abort_cancels_everything_else() {
    let calls = Calls::default();
    let steps = json!([
        {"id": "slow", "action": "note", "parameters": {"ms": 1000}},
        {"id": "bad", "action": "fail", "parameters": {"ms": 10}, "on_failure": "abort"},
        {"id": "waits", "action": "fail", "retries": {"max": 9, "wait": "1h", "max_wait": "1h"}},
        {"id": "after", "action": "note", "depends_on": ["bad"]},
        {"id": "later", "action": "note", "depends_on": ["slow"], "checks": [{"action": "check"}]},
        {"id": "quick", "action": "note"},
    ]);
    let report = finish(calls.executor().run(&plan(&steps)).into_future()).unwrap();
    let aborted = "cancelled: the plan was aborted, because `bad` failed";
    assert_eq!(
        states(&report),
        [
            format!("slow: {aborted}"),
            "bad: failed: it was asked to fail".to_owned(),
            format!("waits: {aborted}"),
            format!("after: {aborted}"),
            format!("later: {aborted}"),
            "quick: succeeded".to_owned(),
        ]
    );
    assert_eq!((report.outcome, report.makespan), (Outcome::Failed, ms(10)));
    assert_eq!(
        report.step("later").unwrap().checks[0].state,
        StepState::Cancelled
    );
    assert_eq!(calls.take(), ["slow", "quick"]);
}

/// Fails until the given attempt, then gives the number of the attempt.
fn flaky(effect: Effect, error: ActionError) -> Actions {
    Actions::new().with_fn("flaky", ActionInfo::new(effect), move |call| {
        let error = error.clone();
        async move {
            let until = call.parameters()["until"].as_u64().unwrap();
            if u64::from(call.attempt()) < until {
                Err(error)
            } else {
                Ok(json!(call.attempt()))
            }
        }
    })
}

#[test]
fn retries_are_made_by_the_policy_of_the_step() {
    let actions = flaky(Effect::ReadOnly, ActionError::new("busy"));
    let executor = Executor::new(actions, VirtualTimer::new());
    let step = |until: u64, retries: Value| json!([{"id": "a", "action": "flaky", "parameters": {"until": until}, "retries": retries}]);
    let attempt = |steps: &Value| {
        let mut story = Story::default();
        let report = finish(executor.run(&plan(steps)).observed_by(&mut story).into_future()).unwrap();
        (
            report.steps[0].state,
            report.steps[0].attempts,
            report.makespan,
            story.0,
        )
    };
    let (state, attempts, makespan, story) = attempt(&step(3, json!(2)));
    assert_eq!((state, attempts), (StepState::Succeeded, 3));
    // 100 ms and 200 ms, each shortened by up to a half.
    assert!(makespan > ms(150) && makespan <= ms(300), "{makespan:?}");
    assert_eq!(
        story,
        [
            "a starts 1",
            "a again: busy",
            "a starts 2",
            "a again: busy",
            "a starts 3",
            "a succeeded 1/1"
        ]
    );
    let (state, attempts, ..) = attempt(&step(4, json!(2)));
    assert_eq!((state, attempts), (StepState::Failed, 3));
    let (state, attempts, makespan, _) = attempt(&step(9, json!({"max": 20, "wait": 1, "max_wait": 4})));
    assert_eq!((state, attempts), (StepState::Succeeded, 9));
    assert!(
        makespan >= Duration::from_micros(500 + 1000 + 6 * 2000) && makespan <= ms(1 + 2 + 6 * 4),
        "{makespan:?}"
    );
    let (state, attempts, makespan, _) = attempt(&step(2, json!(null)));
    assert_eq!((state, attempts, makespan), (StepState::Failed, 1, ms(0)));
}

#[test]
fn what_an_error_says_about_retries_is_obeyed() {
    let run = |error: ActionError, effect: Effect, retries: Value| {
        let executor = Executor::new(flaky(effect, error), VirtualTimer::new());
        let steps = json!([{"id": "a", "action": "flaky", "parameters": {"until": 2}, "retries": retries}]);
        let report = finish(executor.run(&plan(&steps)).into_future()).unwrap();
        (report.steps[0].attempts, report.makespan)
    };
    let error = || ActionError::new("no");
    assert_eq!(
        run(error().with_retryable(false), Effect::ReadOnly, json!(5)).0,
        1
    );
    assert_eq!(run(error(), Effect::Idempotent, json!(5)).0, 2);
    assert_eq!(
        run(error(), Effect::SideEffect, json!(5)).0,
        1,
        "nobody knows what has happened"
    );
    assert_eq!(
        run(error().with_retryable(true), Effect::SideEffect, json!(5)).0,
        2
    );
    assert_eq!(
        run(error().with_retry_after(ms(5_000)), Effect::ReadOnly, json!(1)),
        (2, ms(5_000))
    );
    let longest = json!({"max": 1, "max_wait": "4s"});
    assert_eq!(
        run(error().with_retry_after(ms(5_000)), Effect::ReadOnly, longest),
        (1, ms(0))
    );
}

#[test]
fn a_step_that_waits_for_its_next_attempt_takes_no_place() {
    let steps = json!([
        {"id": "a", "action": "fail", "parameters": {"times": 1}, "retries": {"max": 1, "wait": "1s"}},
        {"id": "b", "action": "sleep", "parameters": {"ms": 100}},
    ]);
    let report = finish(executor().with_max_parallel(1).run(&plan(&steps)).into_future()).unwrap();
    assert!(report.is_success());
    assert_eq!(report.step("b").unwrap().started_at, Some(ms(0)));
    let a = report.step("a").unwrap();
    assert!(a.busy.is_zero() && a.duration() >= ms(500), "{a:?}");
}

#[test]
fn time_limits_end_an_attempt_and_drop_what_it_did() {
    let dropped = Arc::new(AtomicUsize::new(0));
    struct Guard(Arc<AtomicUsize>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let counter = Arc::clone(&dropped);
    let actions = builtin::actions()
        .with_fn("hang", ActionInfo::new(Effect::ReadOnly), move |call| {
            let guard = Guard(Arc::clone(&counter));
            async move {
                let _guard = guard;
                call.sleep(Duration::MAX).await;
                Ok(json!(null))
            }
        })
        .with_fn("hang once", ActionInfo::new(Effect::ReadOnly), async |call| {
            call.sleep(ms(if call.attempt() == 1 { 999 } else { 1 })).await;
            Ok(json!(call.attempt()))
        })
        .with_fn(
            "hang outside",
            ActionInfo::new(Effect::SideEffect),
            async |call| {
                call.sleep(ms(999)).await;
                Ok(json!(null))
            },
        );
    let executor = Executor::new(actions, VirtualTimer::new());
    let report = finish(
        executor
            .run(&plan(&json!([
                {"id": "a", "action": "hang", "timeout": "30ms", "retries": {"max": 2, "wait": 0}},
                {"id": "b", "action": "hang once", "timeout": 20, "retries": {"max": 1, "wait": 0}},
                {"id": "c", "action": "hang outside", "timeout": 10, "retries": {"max": 7, "wait": 0}},
                {"id": "in-time", "action": "sleep", "timeout": 10, "parameters": {"ms": 9}},
            ])))
            .into_future(),
    )
    .unwrap();
    assert_eq!(
        states(&report),
        [
            "a: failed: it took longer than 30ms",
            "b: succeeded",
            "c: failed: it took longer than 10ms",
            "in-time: succeeded"
        ]
    );
    assert_eq!(
        report
            .steps
            .iter()
            .map(|record| record.attempts)
            .collect::<Vec<_>>(),
        [3, 2, 1, 1]
    );
    assert_eq!((report.makespan, dropped.load(Ordering::SeqCst)), (ms(90), 3));
    assert_eq!(
        report.step("a").unwrap().cause,
        Some(Cause::Timeout { limit: ms(30) })
    );
}

#[test]
fn panics_are_failures_wherever_they_happen() {
    struct Eager;
    impl peregrine_executor::Action for Eager {
        fn call(
            &self,
            _: peregrine_executor::StepCall,
        ) -> peregrine_executor::BoxFuture<peregrine_executor::ActionResult> {
            panic!("before the future")
        }
    }
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in the destructor");
        }
    }
    let info = || ActionInfo::new(Effect::ReadOnly);
    let actions = builtin::actions()
        .with("eager", info(), Eager)
        .with_fn("bomb", info(), async |_| {
            let bomb = Bomb;
            drop(bomb);
            Ok(json!(null))
        })
        .with_fn("sleeping bomb", info(), async |call| {
            let _bomb = Bomb;
            call.sleep(ms(50)).await;
            Ok(json!(null))
        });
    let executor = Executor::new(actions, VirtualTimer::new());
    let report = finish(
        executor
            .run(&plan(&json!([
                {"id": "a", "action": "eager"},
                {"id": "b", "action": "panic", "parameters": {"message": "in the future"}},
                {"id": "c", "action": "bomb"},
                {"id": "d", "action": "sleeping bomb", "timeout": 5},
                {"id": "e", "action": "panic", "retries": 3},
                {"id": "f", "action": "panic", "retries": {"max": 3, "panics": true}},
            ])))
            .into_future(),
    )
    .unwrap();
    assert_eq!(
        states(&report),
        [
            "a: failed: the action panicked: before the future",
            "b: failed: the action panicked: in the future",
            "c: failed: the action panicked: in the destructor",
            "d: failed: it took longer than 5ms",
            "e: failed: the action panicked: it was asked to panic",
            "f: failed: the action panicked: it was asked to panic",
        ]
    );
    assert_eq!((report.steps[4].attempts, report.steps[5].attempts), (1, 4));
}

#[test]
fn a_cancelled_run_says_what_it_did() {
    let calls = Calls::default();
    let steps = json!([
        {"id": "done", "action": "note", "parameters": {"ms": 5}},
        {"id": "runs", "action": "write", "parameters": {"ms": 100}},
        {"id": "retries", "action": "fail", "retries": {"max": 3, "wait": "1h", "max_wait": "1h"}},
        {"id": "after", "action": "note", "depends_on": ["runs"]},
        {"id": "checked", "action": "note", "checks": [{"action": "sleep", "parameters": {"ms": 100}}]},
    ]);
    let timer = VirtualTimer::new();
    let executor = Executor::new(calls.actions(), timer.clone());
    let report = finish(
        executor
            .run(&plan(&steps))
            .until(timer.sleep_until(ms(20)))
            .into_future(),
    )
    .unwrap();
    assert_eq!(
        states(&report),
        [
            "done: succeeded",
            "runs: cancelled: the run was cancelled",
            "retries: cancelled: the run was cancelled",
            "after: cancelled: the run was cancelled",
            "checked: succeeded",
        ]
    );
    assert_eq!((report.outcome, report.makespan), (Outcome::Cancelled, ms(20)));
    assert_eq!(
        report.step("checked").unwrap().checks[0].state,
        StepState::Cancelled
    );
    // The longest way to the end first, else in the order of the plan.
    assert_eq!(calls.take(), ["runs", "checked", "done"]);
    // Cancelled before it begins, nothing begins; cancelled after its end, it has succeeded.
    let report = finish(
        executor
            .run(&plan(&steps))
            .until(std::future::ready(()))
            .into_future(),
    )
    .unwrap();
    assert_eq!((report.count(StepState::Cancelled), calls.take().len()), (5, 0));
    let timer = VirtualTimer::new();
    let executor = Executor::new(calls.actions(), timer.clone());
    let one = plan(&json!([{"id": "a", "action": "echo"}]));
    let report = finish(executor.run(&one).until(timer.sleep_until(ms(1))).into_future()).unwrap();
    assert_eq!(report.outcome, Outcome::Succeeded);
}

#[test]
fn cancelled_tasks_have_ended_when_the_report_comes() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let alive = Arc::new(AtomicUsize::new(0));
    struct Alive(Arc<AtomicUsize>);
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let counter = Arc::clone(&alive);
    let actions = Actions::new().with_fn("hang", ActionInfo::new(Effect::ReadOnly), move |call| {
        counter.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(Arc::clone(&counter));
        async move {
            let _alive = alive;
            call.sleep(Duration::from_secs(3600)).await;
            Ok(json!(null))
        }
    });
    let executor = Executor::new(actions, TokioTimer::new()).with_placement(Placement::Spawned);
    let steps: Vec<Value> = (0..9)
        .map(|n| json!({"id": format!("s{n}"), "action": "hang"}))
        .collect();
    let plan = plan(&json!(steps));
    runtime.block_on(async {
        let count = Arc::clone(&alive);
        let five_run = async move {
            while count.load(Ordering::SeqCst) < 5 {
                tokio::task::yield_now().await;
            }
        };
        let report = executor.run(&plan).until(five_run).await.unwrap();
        assert_eq!(
            (report.outcome, alive.load(Ordering::SeqCst)),
            (Outcome::Cancelled, 0)
        );
        assert_eq!(report.count(StepState::Cancelled), 9);

        // Dropped in the middle: the tasks end too, only later.
        let run = tokio::time::timeout(ms(50), executor.run(&plan).into_future()).await;
        assert!(run.is_err());
        while alive.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn results_have_a_bound() {
    let actions = Actions::new()
        .with_fn("large", ActionInfo::default(), async |_| {
            Ok(json!("x".repeat(4000)))
        })
        .with_fn("deep", ActionInfo::default(), async |_| {
            Ok((0..101).fold(json!(1), |inner, _| json!([inner])))
        });
    let executor = Executor::new(actions, VirtualTimer::new()).with_max_result_bytes(3000);
    let steps = json!([{"id": "a", "action": "large"}, {"id": "b", "action": "deep"}]);
    let report = finish(executor.run(&plan(&steps)).into_future()).unwrap();
    assert_eq!(
        states(&report),
        [
            "a: failed: the result takes more than 3000 bytes",
            "b: failed: the result nests more than 100 deep"
        ]
    );
}
