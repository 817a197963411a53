//! Checks of a plan that is being run: when they start, what their verdict is, what it means.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::attempt::AttemptEnd;
use super::event::{Event, Observers};
use super::record::{Cause, StepState};
use super::state::{PlanState, Start};

impl PlanState {
    pub(super) fn start_check(
        &mut self,
        node: u32,
        place: u32,
        index: u32,
        observers: &mut Observers<'_>,
        now: Duration,
    ) -> Option<Start> {
        let (at, which) = (place as usize, index as usize);
        if self.records[at].state != StepState::Succeeded {
            // Its step was given a fallback: there is nothing to check, and nothing is held up.
            self.end_check(at, which, StepState::Skipped, None, None, observers, now);
            return None;
        }
        let template = &self.graph.compiled()[at].checks[which];
        let timeout = template.check.timeout;
        let parameters = template
            .parameters
            .evaluate(self.budget(), &|place| self.value_of(place as usize));
        match parameters {
            Ok(parameters) => {
                let record = &mut self.records[at].checks[which];
                record.state = StepState::Running;
                record.started_at = Some(now);
                let action = self.graph.check_action(at, which);
                Some(Start {
                    node,
                    place,
                    check: Some(index),
                    action,
                    effect: self.graph.actions().info_at(action).effect,
                    attempt: 1,
                    parameters,
                    timeout,
                })
            }
            Err(unresolved) => {
                let cause = Some(unresolved.into());
                self.end_check(at, which, StepState::Failed, cause, None, observers, now);
                None
            }
        }
    }

    pub(super) fn check_finished(
        &mut self,
        at: usize,
        which: usize,
        end: AttemptEnd,
        observers: &mut Observers<'_>,
        now: Duration,
    ) {
        let failed = |message: String| (StepState::Failed, Some(Cause::Verdict { message }));
        let (state, cause, reason) = match end {
            AttemptEnd::Done(value) | AttemptEnd::Known(value) => {
                let reason = value.get("reason").and_then(Value::as_str).map(clipped);
                let verdict = value.as_bool().or_else(|| value.get("passed")?.as_bool());
                let (state, cause) = match verdict {
                    Some(true) => (StepState::Succeeded, None),
                    Some(false) => failed(
                        reason
                            .clone()
                            .unwrap_or_else(|| "the check did not pass".to_owned()),
                    ),
                    None => {
                        failed("the check gave no verdict: neither `true` or `false` nor `passed`".to_owned())
                    }
                };
                (state, cause, reason)
            }
            AttemptEnd::Failed(cause) => (StepState::Failed, Some(cause), None),
            AttemptEnd::Cancelled => {
                let cause = self.stopped.clone().unwrap_or(Cause::Cancelled);
                (StepState::Cancelled, Some(cause), None)
            }
        };
        self.end_check(at, which, state, cause, reason, observers, now);
    }

    pub(super) fn skip_check(
        &mut self,
        at: usize,
        which: usize,
        culprit: u32,
        observers: &mut Observers<'_>,
        now: Duration,
    ) {
        // Without a result there is nothing to check. With one, a check that cannot be made has not passed.
        let (state, cause) = if self.records[at].state == StepState::Succeeded {
            (StepState::Failed, Some(self.blame(culprit)))
        } else {
            (StepState::Skipped, None)
        };
        self.end_check(at, which, state, cause, None, observers, now);
    }

    #[expect(clippy::too_many_arguments, reason = "one place where checks end")]
    pub(super) fn end_check(
        &mut self,
        at: usize,
        which: usize,
        state: StepState,
        cause: Option<Cause>,
        reason: Option<String>,
        observers: &mut Observers<'_>,
        now: Duration,
    ) {
        let step = Arc::clone(&self.records[at].id);
        let record = &mut self.records[at].checks[which];
        record.state = state;
        record.cause = cause;
        record.reason = reason;
        record.ended_at = now;
        // Where there was nothing to check, nothing is held up by that.
        let passed = matches!(state, StepState::Succeeded | StepState::Skipped);
        observers.tell(Event::Checked {
            step: &step,
            index: which,
            record,
        });
        self.graph.settle(self.graph.check_node(at, which), passed, now);
    }
}

/// What a check says, up to a bound.
fn clipped(text: &str) -> String {
    text[..text.floor_char_boundary(4096)].to_owned()
}
