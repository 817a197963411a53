//! The steps of a plan: what begins, how it ends, and what follows when all have ended.

use std::time::Duration;

use peregrine_core::{Message, ToolCall};
use peregrine_executor::{Begun, Cause, Known, PlanMachine, StepState};
use serde_json::Value;

use super::plan::{self, Kept};
use super::{FailedStep, Flow, Next, Progress};
use crate::budget::{LimitReached, Resource};
use crate::run::compose::shown;
use crate::run::effect::Form;
use crate::run::thread::{Thread, ThreadFailure};
use crate::run::{CallId, End, Run};

/// The machine knows no time: nothing in these plans depends on it.
const NOW: Duration = Duration::ZERO;

impl Run {
    /// The bound that so many calls of tools would break.
    pub(super) fn too_many_calls(&self, calls: u32) -> Option<LimitReached> {
        if calls == 0 {
            return None;
        }
        if self.counts.steps >= self.limits.max_steps {
            // Nobody would hear of the results.
            let steps = u64::from(self.limits.max_steps);
            return Some(self.bound(Resource::Steps, steps, u64::from(self.counts.steps), 1));
        }
        if self.counts.tool_calls.saturating_add(calls) > self.limits.max_tool_calls {
            let limit = u64::from(self.limits.max_tool_calls);
            let used = u64::from(self.counts.tool_calls);
            return Some(self.bound(Resource::ToolCalls, limit, used, u64::from(calls)));
        }
        None
    }

    /// Tells the machine what has ended, and begins what it says.
    pub(super) fn execute(&mut self, flow: &mut Flow) -> Next {
        let mut machine = match flow.machine.0.take() {
            Some(machine) => machine,
            None => match self.machine(flow) {
                Ok(machine) => Box::new(machine),
                // Only a run from elsewhere can hold what is no plan.
                Err(problem) => {
                    self.end(End::AnswerRejected { problem, repairs: 0 });
                    return Next::Over;
                }
            },
        };
        let first = flow.kept.len();
        loop {
            for (place, progress) in flow.progress.iter().enumerate() {
                if machine.is_running(first + place)
                    && let Some(end) = self.end_of(flow.calls, progress)
                {
                    machine.ended(first + place, None, end, NOW);
                }
            }
            let mut has_begun = false;
            while let Some(begun) = machine.next(NOW) {
                match self.begin_step(flow, begun) {
                    Ok(()) => has_begun = true,
                    Err(limit) => {
                        // What the machine takes for begun has not: it is made anew when the run goes on.
                        flow.note_ends(&machine);
                        self.reach(limit);
                        return Next::Over;
                    }
                }
            }
            flow.note_ends(&machine);
            if machine.is_done() {
                return self.plan_ended(flow, &machine);
            }
            // Of what has begun, something may have its end already: a tool that there is not.
            if !has_begun {
                flow.machine.0 = Some(machine);
                return Next::Wait;
            }
        }
    }

    pub(super) fn machine(&self, flow: &Flow) -> Result<PlanMachine, String> {
        let Some((_, dataflow)) = self.dataflow() else {
            return Err("it has a plan, and its strategy makes none".to_owned());
        };
        let executor = plan::executor(&self.spec, dataflow);
        let plan = plan::compile(&flow.steps, &flow.kept, &self.spec);
        let first = flow.kept.len();
        let kept = flow.kept.iter().map(|kept| Known::Succeeded(kept.value.clone()));
        let ours = flow.progress.iter().enumerate().filter_map(|(place, progress)| {
            let known = match progress {
                Progress::Waiting => return None,
                Progress::Calls(_) | Progress::Works(_) => match self.end_of(flow.calls, progress) {
                    None => Known::Running,
                    Some(Ok(value)) => Known::Succeeded(value),
                    Some(Err(cause)) => Known::Failed(cause),
                },
                Progress::Failed(cause) => Known::Failed(cause.clone()),
                Progress::Skipped(cause) => Known::Skipped(cause.clone()),
            };
            Some((first + place, known))
        });
        let machine = plan.and_then(|plan| executor.machine(&plan, kept.enumerate().chain(ours)));
        machine.map_err(|error| error.to_string())
    }

    /// How a step that has begun ended, if it has.
    pub(super) fn end_of(&self, calls: u32, progress: &Progress) -> Option<Result<Value, Cause>> {
        match progress {
            Progress::Calls(place) => {
                let thread = self.threads.get(calls as usize)?;
                let result = thread.call_result(*place)?;
                Some(match result.is_error {
                    true => Err(cause(result.text())),
                    false => Ok(plan::value_of(result)),
                })
            }
            Progress::Works(thread) => Some(match self.outcome(*thread)? {
                Ok((response, value)) => Ok(Value::String(shown(&response, value.as_ref()))),
                Err(failure) => Err(cause(failure.text())),
            }),
            Progress::Waiting | Progress::Failed(_) | Progress::Skipped(_) => None,
        }
    }

    pub(super) fn begin_step(&mut self, flow: &mut Flow, begun: Begun) -> Result<(), LimitReached> {
        let Some(place) = begun.place.checked_sub(flow.kept.len()) else {
            return Ok(());
        };
        let Some(step) = flow.steps.get(place) else {
            return Ok(());
        };
        let progress = match &step.tool {
            Some(tool) => {
                if let Some(limit) = self.too_many_calls(1) {
                    return Err(limit);
                }
                let arguments = plan::fitted(begun.parameters, tool, &self.spec);
                let call = ToolCall::new(step.id.as_str(), tool.as_str(), arguments.to_string());
                let id = CallId(self.next_call);
                let thread = self.threads.get_mut(flow.calls as usize);
                let Some(slot) = thread.and_then(|thread| thread.add_call(id, &call, &self.spec)) else {
                    return Ok(());
                };
                self.next_call = self.next_call.saturating_add(1);
                self.counts.tool_calls = self.counts.tool_calls.saturating_add(1);
                Progress::Calls(slot)
            }
            None => {
                let Some(main) = self.threads.first() else {
                    return Ok(());
                };
                let task = match begun.parameters {
                    Value::String(task) => task,
                    other => other.to_string(),
                };
                let mut messages = main.messages.clone();
                messages.push(Message::user(format!(
                    "The task above is done in steps. Do only this step now, and say what came of it: {task}"
                )));
                let worker = Thread::new(messages, self.spec.head.len(), Form::Text, true);
                Progress::Works(self.spawn(worker))
            }
        };
        if let Some(known) = flow.progress.get_mut(place) {
            *known = progress;
        }
        Ok(())
    }

    /// Every step has ended: there is an answer to give, a new plan to make, or nothing more to try.
    pub(super) fn plan_ended(&mut self, flow: &mut Flow, machine: &PlanMachine) -> Next {
        let first = flow.kept.len();
        let mut kept = Vec::new();
        let mut failure: Option<(usize, String)> = None;
        for (place, step) in flow.steps.iter().enumerate() {
            let Some(record) = machine.record(first + place) else {
                continue;
            };
            match (record.state, &record.cause) {
                (StepState::Succeeded, _) => kept.push(Kept {
                    step: step.clone(),
                    value: record.result.clone().unwrap_or_default(),
                }),
                (StepState::Failed, Some(cause)) => {
                    failure.get_or_insert_with(|| (place, cause.to_string()));
                    flow.failed.push(FailedStep {
                        what: step.what(),
                        problem: cause.to_string(),
                    });
                }
                _ => {}
            }
        }
        let max_replans = self.dataflow().map_or(0, |(numbers, _)| numbers.max_replans);
        let end = failure.map(|(place, problem)| self.failure_of(flow, place, problem));
        if let Some(thread) = self.threads.get_mut(flow.calls as usize) {
            thread.close_calls();
        }
        flow.kept.append(&mut kept);
        flow.steps.clear();
        flow.progress.clear();
        match end {
            None => {
                let told = flow.results();
                self.answer(flow, Some(told));
            }
            Some(end) if flow.plans > max_replans => {
                match end {
                    Ok(end) => self.end(end),
                    Err(failure) => self.conclude(Err(failure)),
                }
                return Next::Over;
            }
            Some(_) => self.write_plan(flow),
        }
        Next::Wait
    }

    /// How the run ends if nothing more is tried after this step failed.
    pub(super) fn failure_of(
        &self,
        flow: &Flow,
        place: usize,
        problem: String,
    ) -> Result<End, ThreadFailure> {
        let step = flow.steps.get(place);
        match (flow.progress.get(place), step.and_then(|step| step.tool.clone())) {
            (Some(Progress::Works(thread)), _) => {
                if let Some(Err(failure)) = self.outcome(*thread) {
                    return Err(failure);
                }
            }
            (Some(Progress::Calls(_)), Some(tool)) => {
                return Ok(End::ToolFailed {
                    tool,
                    message: problem,
                });
            }
            _ => {}
        }
        let id = step.map(|step| step.id.as_str()).unwrap_or_default();
        Ok(End::AnswerRejected {
            problem: format!("step `{id}` of the plan: {problem}"),
            repairs: flow.repairs,
        })
    }
}

impl Flow {
    /// Keeps what came to its end in the machine, which nothing else says.
    fn note_ends(&mut self, machine: &PlanMachine) {
        let first = self.kept.len();
        for (place, progress) in self.progress.iter_mut().enumerate() {
            if *progress != Progress::Waiting {
                continue;
            }
            let Some(record) = machine.record(first + place) else {
                continue;
            };
            match (record.state, &record.cause) {
                (StepState::Failed, Some(cause)) => *progress = Progress::Failed(cause.clone()),
                (StepState::Skipped, Some(cause)) => *progress = Progress::Skipped(cause.clone()),
                _ => {}
            }
        }
    }
}

fn cause(message: String) -> Cause {
    Cause::Error {
        message,
        retryable: None,
        retry_after: None,
    }
}
