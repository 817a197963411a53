//! What a plan would take, without running anything: a simulation by discrete events.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use serde_json::Value;

use crate::run::{AttemptEnd, Cause, Observers, PlanState, Start};
use crate::{ActionError, ActionResult, Executor, Plan, PlanError, Report};

/// An attempt that is simulated.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SimulatedCall<'a> {
    /// The id of the step; of the step that is checked, in a check.
    pub id: &'a str,
    /// The name of the action.
    pub action: &'a str,
    /// The parameters, with the simulated results of others put in.
    pub parameters: &'a Value,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// Which check of the step it is, from 0; none for the step itself.
    pub check: Option<u32>,
}

/// What is to become of a simulated attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulated {
    /// How long it takes, unless its step's time limit is shorter.
    pub duration: Duration,
    /// How it ends.
    pub end: ActionResult,
}

impl Simulated {
    /// It takes this long and gives this value.
    pub fn ok(duration: Duration, value: Value) -> Self {
        let end = Ok(value);
        Self { duration, end }
    }

    /// It takes this long and fails.
    pub fn failed(duration: Duration, error: ActionError) -> Self {
        let end = Err(error);
        Self { duration, end }
    }
}

impl Executor {
    /// Runs a plan in a time of its own: the actions are not called, `behave` says what becomes of each attempt.
    ///
    /// The same scheduling, substitution, retries and checks as in a run, with the limits of this executor. What ends at
    /// the same time ends in the order in which it began, so every simulation is the same.
    ///
    /// # Errors
    ///
    /// The plan could not run; see [`check`](Self::check).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use peregrine_executor::{Executor, Plan, Simulated, VirtualTimer, builtin};
    /// use serde_json::json;
    ///
    /// let plan = Plan::from_json(r#"[
    ///     {"id": "a", "action": "echo"}, {"id": "b", "action": "echo"},
    ///     {"id": "c", "action": "echo", "depends_on": ["a", "b"]}
    /// ]"#)?;
    /// let executor = Executor::new(builtin::actions(), VirtualTimer::new());
    /// let report = executor.simulate(&plan, |_| Simulated::ok(Duration::from_secs(2), json!(null)))?;
    /// assert_eq!(report.makespan, Duration::from_secs(4));
    /// # Ok::<(), peregrine_executor::PlanError>(())
    /// ```
    pub fn simulate(
        &self,
        plan: &Plan,
        mut behave: impl FnMut(SimulatedCall<'_>) -> Simulated,
    ) -> Result<Report, PlanError> {
        let mut now = Duration::ZERO;
        let mut observers = Observers::default();
        let mut state = PlanState::new(self.graph(plan)?, self.bounds());
        state.take_in(None, &mut observers, now)?;
        state.release(true, now);
        let mut running = BinaryHeap::new();
        // What is to become of what runs, by the number under which it began.
        let mut ends: Vec<Option<(u32, AttemptEnd)>> = Vec::new();
        while !state.is_done() {
            state.tick(now);
            while let Some(start) = state.next(&mut observers, now, &mut { usize::MAX }) {
                let (duration, end) = attempt(plan, &start, &mut behave);
                running.push(Reverse((now.saturating_add(duration), ends.len())));
                ends.push(Some((start.node, end)));
            }
            if state.stopped().is_some() {
                for (node, _) in ends.iter_mut().filter_map(Option::take) {
                    state.finished(node, AttemptEnd::Cancelled, &mut observers, now);
                }
                continue;
            }
            let next_end = running.peek().map(|Reverse((at, _))| *at);
            match (next_end, state.wakes_at()) {
                (Some(at), wakes_at) if wakes_at.is_none_or(|other| at <= other) => {
                    now = at;
                    // All that ends now, before anything starts.
                    while let Some(&Reverse((at, number))) = running.peek()
                        && at == now
                    {
                        running.pop();
                        if let Some((node, end)) = ends[number].take() {
                            state.finished(node, end, &mut observers, now);
                        }
                    }
                }
                (_, Some(at)) => now = at,
                // Nothing runs and nothing waits, yet something has not ended: that cannot be.
                (_, None) => break,
            }
        }
        Ok(Report::new(state, self.limits().steps, now, None))
    }
}

fn attempt(
    plan: &Plan,
    start: &Start,
    behave: &mut impl FnMut(SimulatedCall<'_>) -> Simulated,
) -> (Duration, AttemptEnd) {
    let compiled = &plan.compiled()[start.place as usize];
    let action = match start.check {
        Some(index) => &compiled.checks[index as usize].check.action,
        None => &compiled.step.action,
    };
    let Simulated { duration, end } = behave(SimulatedCall {
        id: &compiled.id,
        action,
        parameters: &start.parameters,
        attempt: start.attempt,
        check: start.check,
    });
    match (start.timeout, end) {
        (Some(limit), _) if duration > limit => (limit, AttemptEnd::Failed(Cause::Timeout { limit })),
        (_, Ok(value)) => (duration, AttemptEnd::Done(value)),
        (_, Err(error)) => (duration, AttemptEnd::Failed(error.into())),
    }
}
