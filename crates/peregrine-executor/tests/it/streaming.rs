//! Plans that are still being written while they run.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use peregrine_executor::{
    Cause, Executor, Outcome, PlanDecoder, PlanError, Problem, Snapshot, Step, StepState, Timer, VirtualTimer,
};
use serde_json::{Value, json};

use crate::support::{Calls, Story, finish, ms, states};

/// Gives each item after its time, in milliseconds from the start.
struct Timed {
    timer: VirtualTimer,
    items: std::vec::IntoIter<(u64, Result<Step, PlanError>)>,
    next: Option<(peregrine_executor::Sleep, Result<Step, PlanError>)>,
}

impl Timed {
    fn new(timer: &VirtualTimer, items: Vec<(u64, Result<Step, PlanError>)>) -> Self {
        let timer = timer.clone();
        Self {
            timer,
            items: items.into_iter(),
            next: None,
        }
    }
}

impl Stream for Timed {
    type Item = Result<Step, PlanError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.next.is_none() {
            let Some((at, item)) = self.items.next() else {
                return Poll::Ready(None);
            };
            self.next = Some((self.timer.sleep_until(ms(at)), item));
        }
        let Some((sleep, _)) = &mut self.next else {
            return Poll::Pending;
        };
        if sleep.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(self.next.take().map(|(_, item)| item))
    }
}

fn step(value: &Value) -> Step {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn steps_start_while_the_plan_is_written() {
    let timer = VirtualTimer::new();
    let calls = Calls::default();
    let executor = Executor::new(calls.actions(), timer.clone());
    let items = vec![
        (
            0,
            Ok(step(
                &json!({"id": "a", "action": "sleep", "parameters": {"ms": 30}}),
            )),
        ),
        (
            10,
            Ok(step(
                &json!({"id": "b", "action": "sleep", "parameters": {"ms": 5}}),
            )),
        ),
        (
            20,
            Ok(step(
                &json!({"id": "c", "action": "echo", "parameters": ["$a.ms", "$b.ms"]}),
            )),
        ),
        (
            100,
            Ok(step(&json!({"id": "d", "action": "echo", "parameters": "$c[0]"}))),
        ),
    ];
    let mut story = Story::default();
    let run = executor
        .run_stream(Timed::new(&timer, items))
        .observed_by(&mut story);
    let report = finish(run.into_future()).unwrap();
    assert!(report.is_success(), "{:?}", states(&report));
    let starts: Vec<_> = report
        .steps
        .iter()
        .map(|record| record.started_at.unwrap().as_millis())
        .collect();
    assert_eq!(starts, [0, 10, 30, 100]);
    assert_eq!(report.step("d").unwrap().result, Some(json!(30)));
    assert_eq!(
        story.0,
        [
            "a starts 1",
            "b starts 1",
            "b succeeded 1/2",
            "a succeeded 2/3",
            "c starts 1",
            "c succeeded 3/3",
            "d starts 1",
            "d succeeded 4/4"
        ]
    );
}

#[test]
fn failures_gates_resources_and_limits_hold_there_too() {
    let timer = VirtualTimer::new();
    let calls = Calls::default();
    let executor = Executor::new(calls.actions(), timer.clone()).with_max_parallel(2);
    let items = [
        json!({"id": "bad", "action": "fail"}),
        json!({"id": "gated", "action": "note", "resources": ["db"], "checks": [{"action": "check", "policy": "gate_effects", "parameters": {"ms": 10, "passed": false, "of": "$gated.id"}}]}),
        json!({"id": "skipped", "action": "note", "parameters": "$bad"}),
        json!({"id": "reads", "action": "note", "depends_on": ["gated"], "resources": {"read": ["db"]}, "parameters": {"ms": 30}}),
        json!({"id": "writes", "action": "write", "depends_on": ["reads"]}),
        json!({"id": "after", "action": "note", "resources": ["db"]}),
    ];
    // At once, and each long after the last.
    for gap in [0, 1000] {
        let base = timer.now();
        let items = items.iter().zip(0..).map(|(item, n)| {
            let at = u64::try_from(base.as_millis()).unwrap() + n * gap;
            (at, Ok(step(item)))
        });
        let report = finish(
            executor
                .run_stream(Timed::new(&timer, items.collect()))
                .into_future(),
        )
        .unwrap();
        assert_eq!(
            states(&report),
            [
                "bad: failed: it was asked to fail",
                "gated: succeeded",
                "skipped: skipped: `bad`, which it depends on, did not succeed",
                "reads: succeeded",
                "writes: skipped: the check `check` of `gated`, which it depends on, did not pass",
                "after: succeeded",
            ],
            "gap {gap}"
        );
        let [reads, after] = ["reads", "after"].map(|id| report.step(id).unwrap());
        assert!(after.started_at.unwrap() >= reads.ended_at);
        assert!(report.peak_parallel <= 2);
    }
}

#[test]
fn a_wrong_step_ends_the_plan_and_what_runs_goes_on_to_its_end() {
    for (wrong, expected) in [
        (
            Ok(step(
                &json!({"id": "c", "action": "note", "parameters": "$later"}),
            )),
            "no step before it is called that",
        ),
        (
            Ok(step(&json!({"id": "a", "action": "note"}))),
            "the id `a` is given twice, to steps 0 and 2",
        ),
        (
            Ok(step(&json!({"id": "c", "action": "nope"}))),
            "the action `nope`, which there is not",
        ),
        (
            Ok(step(&json!({"id": "c", "action": "note", "depends_on": ["c"]}))),
            "no step before it is called that",
        ),
        (
            Ok(step(&json!({"id": "c", "action": "echo", "parameters": "$e.x"}))),
            "no step before it",
        ),
        (
            Err(PlanError::unreadable("the model broke off")),
            "the steps could not be read on: the model broke off",
        ),
    ] {
        let timer = VirtualTimer::new();
        let calls = Calls::default();
        let executor = Executor::new(calls.actions(), timer.clone());
        let items = vec![
            (
                0,
                Ok(step(
                    &json!({"id": "a", "action": "write", "parameters": {"ms": 50}}),
                )),
            ),
            (
                0,
                Ok(step(&json!({"id": "b", "action": "note", "depends_on": ["a"]}))),
            ),
            (10, wrong),
            (20, Ok(step(&json!({"id": "z", "action": "note"})))),
        ];
        let report = finish(executor.run_stream(Timed::new(&timer, items)).into_future()).unwrap();
        assert_eq!(
            states(&report),
            [
                "a: succeeded",
                "b: cancelled: the plan could not be read to its end"
            ]
        );
        assert_eq!((report.outcome, report.makespan), (Outcome::Failed, ms(50)));
        let error = report.source_error.unwrap().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(calls.take(), ["a"]);
    }
}

#[test]
fn a_cancel_ends_the_reading_too_and_more_surely_than_an_error() {
    let timer = VirtualTimer::new();
    let executor = Executor::new(Calls::default().actions(), timer.clone());
    let items = |wrong: bool| {
        let base = u64::try_from(timer.now().as_millis()).unwrap();
        let mut items = vec![(
            base,
            Ok(step(
                &json!({"id": "a", "action": "note", "parameters": {"ms": 50_000}}),
            )),
        )];
        items.push(if wrong {
            (base + 5, Err(PlanError::unreadable("x")))
        } else {
            (base + 90_000, Ok(step(&json!({"id": "b", "action": "note"}))))
        });
        Timed::new(&timer, items)
    };
    let report = finish(
        executor
            .run_stream(items(false))
            .until(timer.sleep_until(ms(20)))
            .into_future(),
    )
    .unwrap();
    assert_eq!(
        (report.outcome, report.makespan, report.steps.len()),
        (Outcome::Cancelled, ms(20), 1)
    );
    let start = timer.now();
    let report = finish(
        executor
            .run_stream(items(true))
            .until(timer.sleep_until(start + ms(20)))
            .into_future(),
    )
    .unwrap();
    assert_eq!(
        (report.makespan, report.steps[0].state),
        (ms(20), StepState::Cancelled)
    );
    assert_eq!(report.steps[0].cause, Some(Cause::Unreadable));
}

#[test]
fn a_streamed_plan_can_be_resumed() {
    let calls = Calls::default();
    let steps = || {
        let step = |n: u64| {
            step(
                &json!({"id": format!("s{n}"), "action": "note", "depends_on": if n == 0 { vec![] } else { vec![format!("s{}", n - 1)] }}),
            )
        };
        futures_util::stream::iter((0..500).map(step).map(Ok::<_, PlanError>).collect::<Vec<_>>())
    };
    let mut snapshot = Snapshot::default();
    finish(
        calls
            .executor()
            .run_stream(steps())
            .observed_by(&mut snapshot)
            .into_future(),
    )
    .unwrap();
    assert_eq!(calls.take().len(), 500);
    snapshot.steps.remove("s250");
    let report = finish(
        calls
            .executor()
            .run_stream(steps())
            .resumed_from(&snapshot)
            .into_future(),
    )
    .unwrap();
    assert!(report.is_success());
    assert_eq!(calls.take(), ["s250"]);
    snapshot.steps.get_mut("s9").unwrap().fingerprint ^= 1;
    let report = finish(
        calls
            .executor()
            .run_stream(steps())
            .resumed_from(&snapshot)
            .into_future(),
    )
    .unwrap();
    let changed = [Problem::ChangedStep {
        step: "s9".to_owned(),
    }];
    assert_eq!(report.source_error.unwrap().problems(), changed);
}

#[test]
fn from_the_words_of_a_planner_to_running_steps() {
    // The text comes in pieces that end anywhere.
    let text = json!({"goal": "x", "steps": [
        {"id": "a", "action": "sleep", "parameters": {"ms": 5, "q": "\"]}"}}, {"id": "b", "action": "echo", "parameters": "${a.q}!"}
    ]})
    .to_string();
    let mut decoder = PlanDecoder::new();
    let mut items: Vec<(u64, Result<Step, PlanError>)> = Vec::new();
    for (at, piece) in (0..).zip(text.as_bytes().chunks(7)) {
        items.extend(
            decoder
                .push(piece)
                .unwrap()
                .into_iter()
                .map(|step| (at, Ok(step))),
        );
    }
    decoder.finish().unwrap();
    let timer = VirtualTimer::new();
    let executor = Executor::new(Calls::default().actions(), timer.clone());
    let report = finish(executor.run_stream(Timed::new(&timer, items)).into_future()).unwrap();
    assert_eq!(report.step("b").unwrap().result, Some(json!("\"]}!")));
    assert!(report.step("a").unwrap().started_at.unwrap() < report.step("b").unwrap().started_at.unwrap());
}
