//! What starts when: dataflow and its baselines, limits, priorities, resources.

use std::time::Duration;

use peregrine_executor::{
    ActionInfo, Effect, Executor, Order, Placement, TokioTimer, VirtualTimer, builtin, spawned,
};
use serde_json::{Value, json};

use crate::support::{Calls, executor, finish, ms, plan, result, states};

fn sleep(id: &str, milliseconds: u64, after: &[&str]) -> Value {
    json!({"id": id, "action": "sleep", "parameters": {"ms": milliseconds}, "depends_on": after})
}

/// When each step began, in milliseconds.
fn starts(executor: &Executor, steps: &Value) -> Vec<(String, u128)> {
    let report = finish(executor.run(&plan(steps)).into_future()).unwrap();
    assert!(report.is_success(), "{:?}", states(&report));
    let start = |record: &peregrine_executor::StepRecord| {
        (record.id.to_string(), record.started_at.unwrap().as_millis())
    };
    report.steps.iter().map(start).collect()
}

#[test]
fn a_step_starts_when_its_own_inputs_are_there() {
    // b2 follows the quick b1; level by level it waits for the slow a1.
    let steps = json!([
        sleep("a1", 100, &[]),
        sleep("b1", 10, &[]),
        sleep("b2", 10, &["b1"]),
        sleep("a2", 10, &["a1"])
    ]);
    let at = |pairs: &[(&str, u128)]| {
        pairs
            .iter()
            .map(|(id, at)| ((*id).to_owned(), *at))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        starts(&executor(), &steps),
        at(&[("a1", 0), ("b1", 0), ("b2", 10), ("a2", 100)])
    );
    let levels = executor().with_order(Order::Levels);
    assert_eq!(
        starts(&levels, &steps),
        at(&[("a1", 0), ("b1", 0), ("b2", 100), ("a2", 100)])
    );
    let sequential = executor().with_order(Order::Sequential);
    assert_eq!(
        starts(&sequential, &steps),
        at(&[("a1", 0), ("b1", 100), ("b2", 110), ("a2", 120)])
    );
}

#[test]
fn at_most_so_many_steps_and_model_calls_run_at_once() {
    let calls = Calls::default();
    let asks = ActionInfo::new(Effect::ReadOnly).with_model_call();
    let actions = calls.actions().with_fn("ask", asks, async |call| {
        call.sleep(ms(10)).await;
        Ok(json!(true))
    });
    let executor = Executor::new(actions, VirtualTimer::new());
    let asks = (0..12).map(|n| json!({"id": format!("ask{n}"), "action": "ask"}));
    let notes = (0..8).map(|n| json!({"id": format!("note{n}"), "action": "note", "parameters": {"ms": 10}}));
    let steps: Vec<Value> = asks.chain(notes).collect();
    let report = finish(executor.run(&plan(&json!(steps))).into_future()).unwrap();
    assert_eq!(
        (report.makespan, report.peak_parallel, report.max_parallel),
        (ms(40), 5, 5)
    );
    let of = |name: &str, at: Duration| {
        let running = |record: &&peregrine_executor::StepRecord| {
            record.id.starts_with(name) && record.started_at.unwrap() <= at && at < record.ended_at
        };
        report.steps.iter().filter(running).count()
    };
    for at in 0..4 {
        assert_eq!(
            (of("ask", ms(at * 10)), of("note", ms(at * 10))),
            (3, 2),
            "while {at}"
        );
    }
    let one = executor.with_max_model_calls(1).with_max_parallel(2);
    let report = finish(one.run(&plan(&json!(steps))).into_future()).unwrap();
    assert_eq!((report.makespan, report.peak_parallel), (ms(120), 2));
}

#[test]
fn a_check_that_asks_a_model_takes_one_of_its_places() {
    let asks = ActionInfo::new(Effect::ReadOnly).with_model_call();
    let actions = builtin::actions().with_fn("ask", asks, async |call| {
        call.sleep(ms(10)).await;
        Ok(json!(true))
    });
    let executor = Executor::new(actions, VirtualTimer::new()).with_max_model_calls(1);
    let steps: Vec<Value> = (0..4)
        .map(|n| json!({"id": format!("s{n}"), "action": "echo", "checks": [{"action": "ask"}]}))
        .collect();
    let report = finish(executor.run(&plan(&json!(steps))).into_future()).unwrap();
    assert_eq!(report.makespan, ms(40));
}

#[test]
fn the_longest_way_to_the_end_goes_first() {
    // One place. The short chain comes first in the plan, the long one holds up the end.
    let steps = json!([
        sleep("s1", 10, &[]),
        sleep("s2", 10, &[]),
        sleep("s3", 10, &[]),
        sleep("c1", 10, &[]),
        sleep("c2", 50, &["c1"]),
        sleep("c3", 50, &["c2"]),
    ]);
    let started = |executor: &Executor| {
        let mut starts = starts(executor, &steps);
        starts.sort_by_key(|(_, at)| *at);
        starts.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(
        started(&executor().with_max_parallel(1)),
        ["c1", "c2", "c3", "s1", "s2", "s3"]
    );
    // What a step says about itself goes before what its action knows.
    let said = json!([
        {"id": "a", "action": "sleep", "parameters": {"ms": 10}, "estimate": 5},
        {"id": "b", "action": "sleep", "parameters": {"ms": 10}, "estimate": "1h"},
    ]);
    let report = finish(executor().with_max_parallel(1).run(&plan(&said)).into_future()).unwrap();
    assert_eq!(report.step("b").unwrap().started_at, Some(ms(0)));
}

#[test]
fn resources_are_used_in_the_order_of_the_plan() {
    let step = |id: &str, milliseconds: u64, resources: Value| json!({"id": id, "action": "sleep", "parameters": {"ms": milliseconds}, "resources": resources});
    let steps = json!([
        step("w1", 10, json!({"write": ["db"]})),
        step("r1", 30, json!({"read": ["db"]})),
        step("r2", 10, json!({"read": ["db", "db", "other"]})),
        step("w2", 10, json!(["db", "db"])),
        step("r3", 10, json!({"read": ["db"], "write": ["db", "other"]})),
        step("free", 10, json!(["elsewhere"])),
    ]);
    let starts = starts(&executor(), &steps);
    let at: Vec<u128> = starts.into_iter().map(|(_, at)| at).collect();
    assert_eq!(at, [0, 10, 10, 40, 50, 0]);

    // A failure of one who uses it is no failure of the next.
    let failing = json!([
        {"id": "w", "action": "fail", "resources": ["db"]},
        {"id": "r", "action": "echo", "resources": {"read": ["db"]}},
    ]);
    let report = finish(executor().run(&plan(&failing)).into_future()).unwrap();
    assert_eq!(
        states(&report),
        ["w: failed: it was asked to fail", "r: succeeded"]
    );

    // Where a dependency says otherwise it decides, and there is no cycle.
    let against = json!([
        {"id": "first", "action": "sleep", "parameters": {"ms": 1}, "resources": ["db"], "depends_on": ["second"]},
        {"id": "second", "action": "sleep", "parameters": {"ms": 1}, "resources": ["db"]},
    ]);
    let report = finish(executor().run(&plan(&against)).into_future()).unwrap();
    assert_eq!(report.step("first").unwrap().started_at, Some(ms(1)));
}

#[test]
fn the_same_plan_is_the_same_story_every_time() {
    let steps: Vec<Value> = (0..60_usize)
        .map(|n| {
            let after: Vec<String> = (0..n)
                .filter(|m| (n * 7 + m * 3) % 11 == 0)
                .map(|m| format!("s{m}"))
                .collect();
            json!({"id": format!("s{n}"), "action": if n % 9 == 4 { "fail" } else { "sleep" },
                "parameters": {"ms": n * 13 % 7}, "depends_on": after})
        })
        .collect();
    let tell = || {
        let mut story = crate::support::Story::default();
        let report = finish(
            executor()
                .run(&plan(&json!(steps)))
                .observed_by(&mut story)
                .into_future(),
        )
        .unwrap();
        (story.0, states(&report), report.makespan)
    };
    assert_eq!(tell(), tell());
}

#[test]
fn steps_may_be_tasks_of_their_own() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let info = || ActionInfo::new(Effect::ReadOnly);
    let actions = || {
        builtin::actions().with_fn("thread", info(), async |_| {
            Ok(json!(format!("{:?}", std::thread::current().id())))
        })
    };
    let steps = json!([
        {"id": "a", "action": "thread"}, {"id": "b", "action": "panic", "parameters": {"message": "boom"}},
        {"id": "c", "action": "echo", "parameters": "$a"}, {"id": "late", "action": "sleep", "parameters": {"ms": 60_000}, "timeout": 20},
    ]);
    runtime.block_on(async {
        let here = json!(format!("{:?}", std::thread::current().id()));
        let executor = Executor::new(actions(), TokioTimer::new()).with_placement(Placement::Spawned);
        let report = executor.run(&plan(&steps)).await.unwrap();
        assert_ne!(result(&report, "a"), &here);
        assert_eq!(result(&report, "c"), result(&report, "a"));
        assert_eq!(states(&report)[1], "b: failed: the action panicked: boom");
        assert_eq!(states(&report)[3], "late: failed: it took longer than 20ms");
        let report = executor
            .with_placement(Placement::InPlace)
            .run(&plan(&steps))
            .await
            .unwrap();
        assert_eq!(result(&report, "a"), &here);
        // A run is a future that may itself be a task.
        let executor = Executor::new(actions(), TokioTimer::new());
        let plan = plan(&steps);
        let report = spawned(async move { executor.run(&plan).await }).await.unwrap();
        assert_eq!(report.steps.len(), 4);
    });
}
