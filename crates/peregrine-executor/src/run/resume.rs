//! What an earlier run leaves to this one.

use std::sync::Arc;
use std::time::Duration;

use super::event::{Observers, Snapshot};
use super::record::{Cause, CheckRecord, StepRecord, StepState};
use super::state::{PlanState, Progress};
use crate::plan::{Compiled, PlanError, Problem, Problems};
use crate::{Effect, Known, OnFailure};

impl PlanState {
    /// Takes in the steps that were added to the graph. Those that `known` has the end of are not done again.
    ///
    /// # Errors
    ///
    /// `known` is about other steps of the same names.
    pub(crate) fn take_in(
        &mut self,
        known: Option<&Snapshot>,
        observers: &mut Observers<'_>,
        now: Duration,
    ) -> Result<(), PlanError> {
        let mut problems = Problems::default();
        let first = self.records.len();
        self.records.reserve(self.graph.len() - first);
        for place in first..self.graph.len() {
            let Compiled { id, fingerprint, .. } = &*self.graph.compiled()[place];
            let checks = self.new_checks(place);
            let mut record = StepRecord::new(Arc::clone(id), *fingerprint, checks);
            if let Some(earlier) = known.and_then(|known| known.steps.get(&**id)) {
                if earlier.fingerprint != *fingerprint {
                    problems.push(|| Problem::ChangedStep { step: id.to_string() });
                } else {
                    take_over(&mut record, earlier, self.graph.effect(place));
                }
            }
            self.records.push(record);
        }
        self.progress.resize(self.records.len(), Progress::default());
        problems.into_result()?;
        if known.is_some() {
            self.settle_known(first, observers, now);
        }
        Ok(())
    }

    /// Takes in how steps have ended; the places of those that run. Those that there are not are passed over.
    pub(crate) fn take_over_ends(&mut self, known: impl IntoIterator<Item = (usize, Known)>) -> Vec<usize> {
        let mut running = Vec::new();
        for (place, known) in known {
            let Some(record) = self.records.get_mut(place) else {
                continue;
            };
            let (state, cause) = match known {
                Known::Running => {
                    running.push(place);
                    continue;
                }
                Known::Succeeded(value) => {
                    record.result = Some(value);
                    (StepState::Succeeded, None)
                }
                Known::Failed(cause) => (StepState::Failed, Some(cause)),
                Known::Skipped(cause) => (StepState::Skipped, Some(cause)),
            };
            (record.state, record.cause) = (state, cause);
            record.attempts = u32::from(state != StepState::Skipped);
            record.reused = true;
        }
        self.settle_known(0, &mut Observers::default(), Duration::ZERO);
        running
    }

    /// Takes in that a step, whose inputs have ended, has been running since before. Nothing if they have not.
    pub(crate) fn take_up(&mut self, place: usize) {
        if self.graph.take_up(place) {
            let record = &mut self.records[place];
            record.state = StepState::Running;
            record.attempts = record.attempts.max(1);
            record.started_at.get_or_insert(Duration::ZERO);
            self.progress[place].attempts = 1;
        }
    }

    fn new_checks(&self, place: usize) -> Vec<CheckRecord> {
        let checks = &self.graph.compiled()[place].checks;
        if checks.is_empty() {
            return Vec::new();
        }
        checks
            .iter()
            .map(|template| {
                CheckRecord::new(
                    template.check.action.clone(),
                    template.check.policy,
                    template.fingerprint,
                )
            })
            .collect()
    }

    /// Settles what ended in an earlier run.
    fn settle_known(&mut self, first: usize, observers: &mut Observers<'_>, now: Duration) {
        let mut aborted = None;
        for place in first..self.records.len() {
            if !self.records[place].state.is_terminal() {
                continue;
            }
            let passed = self.passes(place);
            if !passed && matches!(self.graph.compiled()[place].step.on_failure, OnFailure::Abort) {
                aborted.get_or_insert_with(|| Arc::clone(&self.records[place].id));
            }
            self.records[place].ended_at = now;
            self.ended += 1;
            self.tell_end(place, observers);
            self.graph.settle(self.graph.node_of(place), passed, now);
            for index in 0..self.records[place].checks.len() {
                let check = &self.records[place].checks[index];
                if check.state.is_terminal() {
                    let passed = check.passed();
                    self.graph
                        .settle(self.graph.check_node(place, index), passed, now);
                }
            }
        }
        if let Some(step) = aborted {
            self.stop(&Cause::Aborted { step }, observers, now);
        }
    }
}

/// What an earlier run leaves to this one.
fn take_over(record: &mut StepRecord, earlier: &StepRecord, effect: Effect) {
    record.attempts = earlier.attempts;
    let begun = earlier.state == StepState::Running
        || (earlier.state == StepState::Cancelled && earlier.attempts > 0);
    match earlier.state {
        StepState::Succeeded => {
            record.state = StepState::Succeeded;
            record.result = Some(earlier.result.clone().unwrap_or_default());
            record.reused = true;
            for (check, earlier) in record.checks.iter_mut().zip(&earlier.checks) {
                let same = check.fingerprint == earlier.fingerprint;
                let ended = matches!(earlier.state, StepState::Succeeded | StepState::Failed);
                if same && ended {
                    check.state = earlier.state;
                    check.cause.clone_from(&earlier.cause);
                    check.reason.clone_from(&earlier.reason);
                }
            }
        }
        StepState::Failed => {
            record.state = StepState::Failed;
            record.cause.clone_from(&earlier.cause);
            record.reused = true;
        }
        _ if begun && effect == Effect::SideEffect => {
            record.state = StepState::Failed;
            record.cause = Some(Cause::InDoubt);
            record.reused = true;
        }
        StepState::Pending | StepState::Running | StepState::Skipped | StepState::Cancelled => {}
    }
}
