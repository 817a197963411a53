//! What several tests need: running futures and plans in virtual time, and counting actions.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use peregrine_executor::{
    ActionInfo, Actions, Effect, Event, Executor, Plan, Report, StepState, VirtualTimer, builtin,
};
use serde_json::{Value, json};

/// Runs a future that never waits for anything but virtual time.
pub(crate) fn finish<F: Future>(future: F) -> F::Output {
    let mut future = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    panic!("it waits for something that does not come");
}

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) fn plan(steps: &Value) -> Plan {
    Plan::from_json(&steps.to_string()).unwrap()
}

/// The built-in actions in virtual time.
pub(crate) fn executor() -> Executor {
    Executor::new(builtin::actions(), VirtualTimer::new())
}

pub(crate) fn run(steps: &Value) -> Report {
    finish(executor().run(&plan(steps)).into_future()).unwrap()
}

pub(crate) fn result<'a>(report: &'a Report, id: &str) -> &'a Value {
    report.step(id).unwrap().result.as_ref().unwrap()
}

/// State and cause of every step, in the order of the plan.
pub(crate) fn states(report: &Report) -> Vec<String> {
    let state = |record: &peregrine_executor::StepRecord| match &record.cause {
        None => format!("{}: {}", record.id, record.state.name()),
        Some(cause) => format!("{}: {}: {cause}", record.id, record.state.name()),
    };
    report.steps.iter().map(state).collect()
}

pub(crate) fn state(report: &Report, id: &str) -> StepState {
    report.step(id).unwrap().state
}

/// What happened, in words.
#[derive(Debug, Default)]
pub(crate) struct Story(pub(crate) Vec<String>);

impl peregrine_executor::Observer for Story {
    fn observe(&mut self, event: &Event<'_>) {
        self.0.push(match event {
            Event::Started { record } => format!("{} starts {}", record.id, record.attempts),
            Event::Retrying { record, cause, .. } => format!("{} again: {cause}", record.id),
            Event::Ended { record, ended, known } => {
                format!("{} {} {ended}/{known}", record.id, record.state.name())
            }
            Event::Checked { step, index, record } => {
                format!("{step} check {index} {}", record.state.name())
            }
            _ => return,
        });
    }
}

/// Writes down which steps were really called, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    pub(crate) fn add(&self, id: &str) {
        self.0.lock().unwrap().push(id.to_owned());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// The built-in actions, and `note`, `write` (has side effects) and `put` (idempotent), which wait for `ms`, write
    /// down their step and give their parameters back.
    pub(crate) fn actions(&self) -> Actions {
        let mut actions = builtin::actions();
        for (name, effect) in [
            ("note", Effect::ReadOnly),
            ("write", Effect::SideEffect),
            ("put", Effect::Idempotent),
        ] {
            let calls = self.clone();
            actions = actions.with_fn(name, ActionInfo::new(effect), move |call| {
                let calls = calls.clone();
                async move {
                    calls.add(call.id());
                    let wait = call.parameters().get("ms").and_then(Value::as_u64).unwrap_or(0);
                    call.sleep(ms(wait)).await;
                    Ok(json!({"id": call.id(), "key": call.idempotency_key()}))
                }
            });
        }
        actions
    }

    pub(crate) fn executor(&self) -> Executor {
        Executor::new(self.actions(), VirtualTimer::new())
    }
}
