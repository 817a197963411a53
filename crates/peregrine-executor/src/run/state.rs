//! A plan that is being run, without running anything: what starts, with which parameters, and what an end means.
//!
//! Between the [`Scheduler`], which knows nodes and edges, and the driver, which knows futures and time. Both the driver
//! and the simulation are built on it. Everything is told with the time at which it happened.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::attempt::AttemptEnd;
use super::event::{Event, Observers};
use super::graph::{Graph, Role};
use super::record::{Cause, StepRecord, StepState};
use crate::reference::{Budget, measure};
use crate::scheduler::Next;
use crate::{Effect, OnFailure};

/// What a step's parameters and result may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) max_parameter_bytes: usize,
    pub(crate) max_result_bytes: usize,
}

/// An attempt that is to begin now.
#[derive(Debug)]
pub(crate) struct Start {
    /// To be given back with its end.
    pub(crate) node: u32,
    pub(crate) place: u32,
    /// Which check of the step at `place`; none for the step itself.
    pub(crate) check: Option<u32>,
    pub(crate) action: u32,
    pub(crate) effect: Effect,
    pub(crate) attempt: u32,
    pub(crate) parameters: Value,
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct PlanState {
    pub(super) graph: Graph,
    pub(super) records: Vec<StepRecord>,
    pub(super) progress: Vec<Progress>,
    bounds: Bounds,
    pub(super) ended: usize,
    peak_parallel: usize,
    /// Why nothing starts any more.
    pub(super) stopped: Option<Cause>,
    /// Whether it was stopped before all of its steps were known.
    is_cut: bool,
}

/// What is needed of a step besides its record.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    attempt_began_at: Duration,
    /// In this run.
    attempts: u32,
}

impl PlanState {
    pub(crate) fn new(graph: Graph, bounds: Bounds) -> Self {
        Self {
            graph,
            records: Vec::new(),
            progress: Vec::new(),
            bounds,
            ended: 0,
            peak_parallel: 0,
            stopped: None,
            is_cut: false,
        }
    }

    pub(crate) fn graph_mut(&mut self) -> &mut Graph {
        &mut self.graph
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(crate) fn records(&self) -> &[StepRecord] {
        &self.records
    }

    pub(crate) fn into_records(self) -> Vec<StepRecord> {
        self.records
    }

    pub(crate) fn peak_parallel(&self) -> usize {
        self.peak_parallel
    }

    /// Lets go what may.
    pub(crate) fn release(&mut self, whole: bool, now: Duration) {
        self.graph.release(whole, now);
    }

    /// Whether every step and every check has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.graph.scheduler().is_done()
    }

    /// Why nothing starts any more, if that is so.
    pub(crate) fn stopped(&self) -> Option<&Cause> {
        self.stopped.as_ref()
    }

    /// Notes that more steps were to come, and will not.
    pub(crate) fn cut(&mut self) {
        self.is_cut = true;
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub(crate) fn wakes_at(&self) -> Option<Duration> {
        self.graph.scheduler().wakes_at()
    }

    pub(crate) fn tick(&mut self, now: Duration) {
        self.graph.scheduler_mut().tick(now);
    }

    /// The next attempt to begin, until there is none, or the budget is used up by steps that cannot begin: those come
    /// to their end in here.
    pub(crate) fn next(
        &mut self,
        observers: &mut Observers<'_>,
        now: Duration,
        budget: &mut usize,
    ) -> Option<Start> {
        while *budget > 0 {
            match self.graph.scheduler_mut().next()? {
                Next::Skip { node, culprit } => match self.graph.role(node) {
                    Role::Step(place) => self.skip_step(place as usize, culprit, observers, now),
                    Role::Check { place, index } => {
                        self.skip_check(place as usize, index as usize, culprit, observers, now);
                    }
                    Role::Join => {}
                },
                Next::Start(node) => {
                    let start = match self.graph.role(node) {
                        Role::Step(place) => self.start_step(node, place, observers, now),
                        Role::Check { place, index } => self.start_check(node, place, index, observers, now),
                        Role::Join => None,
                    };
                    if start.is_some() {
                        let running = self.graph.scheduler().running_steps();
                        self.peak_parallel = self.peak_parallel.max(running);
                        return start;
                    }
                }
            }
            *budget -= 1;
        }
        None
    }

    fn start_step(
        &mut self,
        node: u32,
        place: u32,
        observers: &mut Observers<'_>,
        now: Duration,
    ) -> Option<Start> {
        let at = place as usize;
        let compiled = &self.graph.compiled()[at];
        let parameters = compiled
            .parameters
            .evaluate(self.budget(), &|place| self.value_of(place as usize));
        let record = &mut self.records[at];
        if record.started_at.is_none() {
            record.ready_at = self.graph.scheduler().ready_at(node);
        }
        match parameters {
            Ok(parameters) => {
                let progress = &mut self.progress[at];
                progress.attempt_began_at = now;
                progress.attempts += 1;
                record.started_at.get_or_insert(now);
                record.state = StepState::Running;
                record.attempts = record.attempts.saturating_add(1);
                record.ended_at = now;
                let start = Start {
                    node,
                    place,
                    check: None,
                    action: self.graph.action(at),
                    effect: self.graph.effect(at),
                    attempt: record.attempts,
                    parameters,
                    timeout: self.graph.compiled()[at].step.timeout,
                };
                observers.tell(Event::Started { record });
                Some(start)
            }
            Err(unresolved) => {
                self.end_step(at, StepState::Failed, Err(unresolved.into()), observers, now);
                None
            }
        }
    }

    /// An attempt that was started has ended.
    pub(crate) fn finished(
        &mut self,
        node: u32,
        end: AttemptEnd,
        observers: &mut Observers<'_>,
        now: Duration,
    ) {
        match self.graph.role(node) {
            Role::Step(place) => self.step_finished(node, place as usize, end, observers, now),
            Role::Check { place, index } => {
                self.check_finished(place as usize, index as usize, end, observers, now);
            }
            Role::Join => {}
        }
    }

    fn step_finished(
        &mut self,
        node: u32,
        at: usize,
        end: AttemptEnd,
        observers: &mut Observers<'_>,
        now: Duration,
    ) {
        let Progress { attempt_began_at, .. } = self.progress[at];
        self.records[at].busy += now.saturating_sub(attempt_began_at);
        let cause = match end {
            AttemptEnd::Done(value) => match self.too_large(&value) {
                None => return self.end_step(at, StepState::Succeeded, Ok(value), observers, now),
                Some(message) => Cause::Result { message },
            },
            AttemptEnd::Known(value) => {
                self.records[at].reused = true;
                return self.end_step(at, StepState::Succeeded, Ok(value), observers, now);
            }
            AttemptEnd::Cancelled => {
                let cause = self.stopped.clone().unwrap_or(Cause::Cancelled);
                return self.end_step(at, StepState::Cancelled, Err(cause), observers, now);
            }
            AttemptEnd::Failed(cause) => cause,
        };
        match self.wait_before_retry(at, &cause) {
            Some(wait) => {
                let record = &mut self.records[at];
                record.ended_at = now;
                observers.tell(Event::Retrying {
                    record,
                    cause: &cause,
                    wait,
                });
                self.graph.scheduler_mut().retry(node, now.saturating_add(wait));
            }
            None => self.end_step(at, StepState::Failed, Err(cause), observers, now),
        }
    }

    /// How long the step waits for its next attempt; `None` if it is over.
    fn wait_before_retry(&self, at: usize, cause: &Cause) -> Option<Duration> {
        let retries = &self.graph.compiled()[at].step.retries;
        let attempts = self.progress[at].attempts;
        if self.stopped.is_some() || attempts > retries.max {
            return None;
        }
        let repeatable = self.graph.effect(at) != Effect::SideEffect;
        let (again, asked) = match cause {
            Cause::Error {
                retryable,
                retry_after,
                ..
            } => (retryable.unwrap_or(repeatable), *retry_after),
            Cause::Timeout { .. } => (repeatable, None),
            Cause::Panic { .. } => (repeatable && retries.panics, None),
            _ => (false, None),
        };
        let fingerprint = self.graph.compiled()[at].fingerprint;
        let wait = retries
            .wait_after(attempts, fingerprint)
            .max(asked.unwrap_or_default());
        (again && (asked.is_none() || wait <= retries.max_wait)).then_some(wait)
    }

    fn skip_step(&mut self, at: usize, culprit: u32, observers: &mut Observers<'_>, now: Duration) {
        let cause = self.blame(culprit);
        self.records[at].ready_at = now;
        self.end_step(at, StepState::Skipped, Err(cause), observers, now);
    }

    pub(super) fn blame(&self, culprit: u32) -> Cause {
        match self.graph.role(culprit) {
            Role::Check { place, index } => {
                let record = &self.records[place as usize];
                Cause::CheckFailed {
                    step: Arc::clone(&record.id),
                    check: record.checks[index as usize].action.clone(),
                }
            }
            Role::Step(place) => {
                let StepRecord { id, cause, .. } = &self.records[place as usize];
                let root = match cause {
                    Some(Cause::Dependency { root: step, .. } | Cause::CheckFailed { step, .. }) => step,
                    _ => id,
                };
                Cause::Dependency {
                    step: Arc::clone(id),
                    root: Arc::clone(root),
                }
            }
            // A join is never blamed: it hands on what came before it.
            Role::Join => Cause::Cancelled,
        }
    }

    fn end_step(
        &mut self,
        at: usize,
        state: StepState,
        end: Result<Value, Cause>,
        observers: &mut Observers<'_>,
        now: Duration,
    ) {
        let record = &mut self.records[at];
        record.state = state;
        record.ended_at = now;
        match end {
            Ok(value) => record.result = Some(value),
            Err(cause) => record.cause = Some(cause),
        }
        self.ended += 1;
        let passed = self.passes(at);
        self.tell_end(at, observers);
        self.graph.settle(self.graph.node_of(at), passed, now);
        let aborts = state == StepState::Failed
            && matches!(self.graph.compiled()[at].step.on_failure, OnFailure::Abort);
        if aborts && self.stopped.is_none() {
            let step = Arc::clone(&self.records[at].id);
            self.stop(&Cause::Aborted { step }, observers, now);
        }
    }

    /// Lets nothing start any more. What runs is to be dropped and told as [`AttemptEnd::Cancelled`], or ends.
    pub(crate) fn stop(&mut self, cause: &Cause, observers: &mut Observers<'_>, now: Duration) {
        if self.stopped.is_some() {
            return;
        }
        self.stopped = Some(cause.clone());
        for node in self.graph.scheduler_mut().close() {
            match self.graph.role(node) {
                Role::Step(place) => {
                    let record = &mut self.records[place as usize];
                    record.state = StepState::Cancelled;
                    record.cause = Some(cause.clone());
                    record.ended_at = now;
                    self.ended += 1;
                    self.tell_end(place as usize, observers);
                }
                Role::Check { place, index } => {
                    let StepRecord { id, checks, .. } = &mut self.records[place as usize];
                    let record = &mut checks[index as usize];
                    record.state = StepState::Cancelled;
                    record.cause = Some(cause.clone());
                    record.ended_at = now;
                    observers.tell(Event::Checked {
                        step: id,
                        index: index as usize,
                        record,
                    });
                }
                Role::Join => {}
            }
        }
    }

    pub(super) fn tell_end(&self, at: usize, observers: &mut Observers<'_>) {
        observers.tell(Event::Ended {
            record: &self.records[at],
            ended: self.ended,
            known: self.records.len(),
        });
    }

    /// Whether what requires the step may start.
    pub(super) fn passes(&self, at: usize) -> bool {
        let has_fallback = || matches!(self.graph.compiled()[at].step.on_failure, OnFailure::Fallback(_));
        self.records[at].state == StepState::Succeeded || has_fallback()
    }

    /// What references to the step give.
    pub(super) fn value_of(&self, at: usize) -> Option<&Value> {
        self.records[at]
            .result
            .as_ref()
            .or(match &self.graph.compiled()[at].step.on_failure {
                OnFailure::Fallback(value) => Some(value),
                _ => None,
            })
    }

    pub(super) fn budget(&self) -> Budget {
        Budget {
            max_bytes: self.bounds.max_parameter_bytes,
            max_depth: crate::plan::MAX_DEPTH,
        }
    }

    fn too_large(&self, value: &Value) -> Option<String> {
        let max_bytes = self.bounds.max_result_bytes;
        measure(value, max_bytes, crate::plan::MAX_DEPTH).map(|excess| format!("the result {excess}"))
    }
}
