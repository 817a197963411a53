//! Plans for those who perform the steps themselves: inside another state machine, over a queue, by hand.
//!
//! A [`PlanMachine`] says what may begin, is told what ended, and knows neither futures nor actions nor the time: it is given
//! the time. What it decides follows from the plan, the limits and how far the steps are, not from the way there. So
//! whoever keeps that ([`Known`]) need not keep the machine: one that is made anew from it goes on in the same way.

use std::time::Duration;

use serde_json::Value;

use crate::run::{AttemptEnd, Cause, Observers, PlanState, Start, StepRecord};
use crate::{Executor, Plan, PlanError, Report};

/// A plan that is being run, without anything that runs.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use peregrine_executor::{Executor, Plan, StepState, VirtualTimer, builtin};
/// use serde_json::json;
///
/// let plan = Plan::from_json(r#"[
///     {"id": "one", "action": "echo", "parameters": {"ms": 1}},
///     {"id": "two", "action": "echo", "parameters": {"after": "$one.ms"}}
/// ]"#)?;
/// let executor = Executor::new(builtin::actions(), VirtualTimer::new());
/// let mut machine = executor.machine(&plan, [])?;
/// let now = Duration::ZERO;
/// let begun = machine.next(now).unwrap();
/// assert_eq!((begun.place, &begun.parameters), (0, &json!({"ms": 1})));
/// assert!(machine.next(now).is_none(), "the other one waits for it");
///
/// machine.ended(0, None, Ok(json!({"ms": 7})), now);
/// assert_eq!(machine.next(now).unwrap().parameters, json!({"after": 7}));
/// machine.ended(1, None, Ok(json!(null)), now);
/// assert!(machine.is_done());
/// assert_eq!(machine.record(1).unwrap().state, StepState::Succeeded);
/// # Ok::<(), peregrine_executor::PlanError>(())
/// ```
#[derive(Debug)]
pub struct PlanMachine {
    state: PlanState,
    max_parallel: usize,
}

/// An attempt that begins now. To be told: [`PlanMachine::ended`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Begun {
    /// The place of the step in the plan, from 0.
    pub place: usize,
    /// Which check of that step it is, from 0; none for the step itself.
    pub check: Option<usize>,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// The parameters, with the results of other steps put in.
    pub parameters: Value,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// What is known of a step from before.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// It had this result.
    Succeeded(Value),
    /// It failed.
    Failed(Cause),
    /// It did not begin, because of what it depends on.
    Skipped(Cause),
    /// It has begun, and its end will be told.
    Running,
}

impl Executor {
    /// A plan to be run by the caller, with the actions (for what they say about themselves), limits and order of this
    /// executor.
    ///
    /// `known` is what is known of steps, by their places: of all that have begun, and of all that came to their end in an
    /// earlier machine ([`PlanMachine::records`]). Checks of steps that are known to have succeeded are done again, and
    /// retries are counted anew.
    ///
    /// # Errors
    ///
    /// The plan cannot run; see [`check`](Self::check).
    pub fn machine(
        &self,
        plan: &Plan,
        known: impl IntoIterator<Item = (usize, Known)>,
    ) -> Result<PlanMachine, PlanError> {
        let mut state = PlanState::new(self.graph(plan)?, self.bounds());
        state.take_in(None, &mut Observers::default(), Duration::ZERO)?;
        let running = state.take_over_ends(known);
        state.release(true, Duration::ZERO);
        for place in running {
            state.take_up(place);
        }
        Ok(PlanMachine {
            state,
            max_parallel: self.limits().steps,
        })
    }
}

impl PlanMachine {
    /// What begins now; nothing until something is told, or the time has come that [`wakes_at`](Self::wakes_at) says.
    /// Steps that cannot begin come to their end in here.
    pub fn next(&mut self, now: Duration) -> Option<Begun> {
        self.state.tick(now);
        let start = self
            .state
            .next(&mut Observers::default(), now, &mut { usize::MAX })?;
        let Start {
            node: _,
            place,
            check,
            action: _,
            effect: _,
            attempt,
            parameters,
            timeout,
        } = start;
        Some(Begun {
            place: place as usize,
            check: check.map(|index| index as usize),
            attempt,
            parameters,
            timeout,
        })
    }

    /// Says how an attempt ended that had begun: of a step, or of one of its checks. `false`, and nothing changes, if that
    /// does not run.
    pub fn ended(
        &mut self,
        place: usize,
        check: Option<usize>,
        end: Result<Value, Cause>,
        now: Duration,
    ) -> bool {
        let Some(node) = self.state.running_node(place, check) else {
            return false;
        };
        let end = match end {
            Ok(value) => AttemptEnd::Done(value),
            Err(cause) => AttemptEnd::Failed(cause),
        };
        self.state.finished(node, end, &mut Observers::default(), now);
        true
    }

    /// Whether an attempt of the step runs.
    pub fn is_running(&self, place: usize) -> bool {
        self.state.running_node(place, None).is_some()
    }

    /// When a step is to be tried again, if one is.
    pub fn wakes_at(&self) -> Option<Duration> {
        self.state.wakes_at()
    }

    /// Whether every step and every check has ended.
    pub fn is_done(&self) -> bool {
        self.state.is_done()
    }

    /// How far a step is.
    pub fn record(&self, place: usize) -> Option<&StepRecord> {
        self.state.records().get(place)
    }

    /// How far the steps are, in the order of the plan.
    pub fn records(&self) -> &[StepRecord] {
        self.state.records()
    }

    /// What became of the plan, in times that count as those did that were given.
    pub fn into_report(self, now: Duration) -> Report {
        Report::new(self.state, self.max_parallel, now, None)
    }
}
