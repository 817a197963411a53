//! Plans of calls of tools: planner, triage, execution, new plans, answer.
//!
//! What is kept of a plan is data: its steps, and how far each of them is ([`Progress`]). Which step may begin is decided by
//! the executor's [`PlanMachine`], which is made anew from that data wherever it is not at hand, and goes on in the same way:
//! so a run with a plan in it can be stored at any moment like every other.
//!
//! Calls of tools stand in one thread, in a turn that stays open as long as the plan runs, and are slots there like those
//! of a tool loop. So approvals, interrupts, doubt, results that come late and bounds are those of every call. Steps in
//! words are threads of their own.
//!
//! Invariants: no step begins before all that it refers to is done; no call is asked for that would break a bound; after
//! each event, everything that may begin has begun. Results of steps that are done are kept from plan to plan.

mod plan;

use std::fmt;
use std::time::Duration;

use peregrine_core::{Message, ToolCall};
use peregrine_executor::{Begun, Cause, Known, PlanMachine, StepState};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::budget::{LimitReached, Resource};
use crate::forms;
use crate::run::compose::{Stage, shown};
use crate::run::effect::{Effect, Form};
use crate::run::strategy::{Dataflow, PlanAndExecute, Strategy, Triage};
use crate::run::thread::{State, Thread, ThreadFailure, note};
use crate::run::{CallId, End, Run};
use plan::{Kept, PlannedStep};

/// How much of a result a planner is shown; it can refer to the whole.
const SHOWN_BYTES: usize = 2_000;
/// The machine knows no time: nothing in these plans depends on it.
const NOW: Duration = Duration::ZERO;

/// How far the strategy has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flow {
    phase: Phase,
    /// How many plans were asked for.
    plans: u32,
    /// How often this plan was sent back.
    repairs: u32,
    triage: Triaged,
    /// Which model is to answer.
    model: u32,
    /// Whether the chosen model failed, and the first choice is asked after all.
    fell_back: bool,
    /// What earlier plans have done.
    kept: Vec<Kept>,
    /// What failed in earlier plans.
    failed: Vec<FailedStep>,
    /// The steps of the plan that runs.
    steps: Vec<PlannedStep>,
    /// How far each of them is.
    progress: Vec<Progress>,
    /// The thread with their calls of tools.
    calls: u32,
    #[serde(skip)]
    machine: Machine,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// A planner writes a plan.
    Planning { planner: u32 },
    /// Its steps are done.
    Executing,
    /// The main thread answers.
    Answering,
}

/// How far a step is, besides what its call or its thread says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Progress {
    Waiting,
    /// It is the call at this place of the thread of calls.
    Calls(u32),
    /// It is this thread.
    Works(u32),
    /// It failed before it began.
    Failed(Cause),
    /// Something that it needs failed.
    Skipped(Cause),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct FailedStep {
    what: String,
    problem: String,
}

/// What came of the look at what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Triaged {
    /// Nobody looks.
    Not,
    /// This thread does.
    Asked(u32),
    NeedsPlan,
    NeedsNone,
    /// It came to nothing in time.
    Late,
    Failed,
}

/// The machine of the plan that runs, where it is at hand. Not part of a run's state: it follows from that.
#[derive(Default)]
struct Machine(Option<Box<PlanMachine>>);

impl Clone for Machine {
    fn clone(&self) -> Self {
        Self(None)
    }
}

impl PartialEq for Machine {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Machine")
    }
}

/// What is to be done with the stage next.
enum Next {
    /// Events are waited for.
    Wait,
    /// Something changed that may allow more.
    Again,
    /// The run has its end, or was stopped.
    Over,
}

impl Run {
    /// The numbers of the strategy, if it is this one.
    fn dataflow(&self) -> Option<(&PlanAndExecute, &Dataflow)> {
        match &self.spec.strategy {
            Strategy::PlanAndExecute(numbers) => Some((numbers, numbers.dataflow.as_ref()?)),
            _ => None,
        }
    }

    pub(super) fn begin_flow(&mut self) {
        let mut flow = Flow {
            phase: Phase::Answering,
            plans: 0,
            repairs: 0,
            triage: Triaged::Not,
            model: 0,
            fell_back: false,
            kept: Vec::new(),
            failed: Vec::new(),
            steps: Vec::new(),
            progress: Vec::new(),
            calls: 0,
            machine: Machine::default(),
        };
        self.write_plan(&mut flow);
        if let Some(triage) = self.dataflow().and_then(|(_, dataflow)| dataflow.triage.clone()) {
            flow.triage = Triaged::Asked(self.begin_triage(&triage));
        }
        self.stage = Stage::Flow(Box::new(flow));
    }

    fn begin_triage(&mut self, triage: &Triage) -> u32 {
        let models = triage.models.iter().enumerate();
        let models: Vec<String> = models
            .map(|(place, good_for)| format!("{place}: {good_for}"))
            .collect();
        let models = match models.is_empty() {
            true => "0: the only one".to_owned(),
            false => models.join("\n"),
        };
        let (task, tools) = (self.task(), self.tools_in_short());
        let inputs = [("task", task.as_str()), ("tools", &tools), ("models", &models)];
        let asked = forms::ask(forms::triage(), &inputs);
        let head = self.spec.triage.clone();
        let place = self.spawn_form(Form::Triage, head.as_ref(), asked);
        let model = triage.asked.min(self.spec.models.saturating_sub(1));
        if let Some(thread) = self.threads.get_mut(place as usize) {
            thread.model = model;
        }
        place
    }

    /// Asks a planner.
    fn write_plan(&mut self, flow: &mut Flow) {
        let (task, tools, known) = (self.task(), plan::catalogue(&self.spec), flow.known());
        let inputs = [("task", task.as_str()), ("tools", &tools), ("known", &known)];
        let asked = forms::ask(forms::dataflow(), &inputs);
        let head = self.spec.planner.clone();
        let planner = self.spawn_form(Form::Dataflow, head.as_ref(), asked);
        flow.plans = flow.plans.saturating_add(1);
        flow.repairs = 0;
        flow.phase = Phase::Planning { planner };
    }

    /// Looks at the threads that are through, and does what follows from that.
    pub(super) fn go_on_with_flow(&mut self, mut flow: Box<Flow>, effects: &mut Vec<Effect>) {
        self.hear_triage(&mut flow, effects);
        loop {
            let next = match flow.phase {
                Phase::Planning { planner } => self.planned_flow(&mut flow, planner),
                Phase::Executing => self.execute(&mut flow),
                Phase::Answering => self.answered_flow(&mut flow, effects),
            };
            match next {
                Next::Again => {}
                Next::Wait | Next::Over => break,
            }
        }
        self.stage = Stage::Flow(flow);
    }

    fn hear_triage(&mut self, flow: &mut Flow, effects: &mut Vec<Effect>) {
        let Triaged::Asked(place) = flow.triage else {
            return;
        };
        let Some(outcome) = self.outcome(place) else {
            return;
        };
        let Ok((_, Some(said))) = outcome else {
            flow.triage = Triaged::Failed;
            return;
        };
        let described = self
            .dataflow()
            .and_then(|(_, dataflow)| dataflow.triage.as_ref())
            .map_or(0, |triage| triage.models.len());
        let chosen = said.get("model").and_then(Value::as_u64).unwrap_or_default();
        if let Ok(chosen) = u32::try_from(chosen)
            && chosen < self.spec.models
            && (chosen as usize) < described
        {
            flow.model = chosen;
        }
        flow.triage = match said.get("needs_plan").and_then(Value::as_bool) {
            Some(false) => Triaged::NeedsNone,
            _ => Triaged::NeedsPlan,
        };
        if flow.triage == Triaged::NeedsNone
            && flow.plans == 1
            && let Phase::Planning { planner } = flow.phase
            // A plan that is there is done.
            && self.outcome(planner).is_none()
        {
            self.leave(planner, effects);
            self.answer(flow, None);
        }
    }

    /// Nobody needs the answer of a thread any more.
    fn leave(&mut self, thread: u32, effects: &mut Vec<Effect>) {
        let calls = self.threads.get_mut(thread as usize).map(Thread::abandon);
        if let Some(calls) = calls.filter(|calls| !calls.is_empty()) {
            effects.push(Effect::Cancel { calls });
        }
    }

    fn planned_flow(&mut self, flow: &mut Flow, planner: u32) -> Next {
        let value = match self.outcome(planner) {
            None => return Next::Wait,
            Some(Err(failure)) => {
                self.conclude(Err(failure));
                return Next::Over;
            }
            Some(Ok((_, value))) => value.unwrap_or_default(),
        };
        let Some((numbers, dataflow)) = self.dataflow() else {
            return Next::Wait;
        };
        let max_repairs = dataflow.max_plan_repairs;
        let steps = match plan::read(&value, &flow.kept, numbers.max_plan_steps, &self.spec) {
            Ok(steps) => steps,
            Err(problems) if flow.repairs >= max_repairs => {
                self.end(End::AnswerRejected {
                    problem: format!("the plan cannot run: {}", problems.join("; ")),
                    repairs: flow.repairs,
                });
                return Next::Over;
            }
            Err(problems) => {
                flow.repairs = flow.repairs.saturating_add(1);
                let told = format!(
                    "This plan cannot run:\n- {}\nGive the whole plan again, with this put right.",
                    problems.join("\n- ")
                );
                if let Some(planner) = self.threads.get_mut(planner as usize) {
                    planner.continue_with(Message::user(told));
                }
                return Next::Wait;
            }
        };
        // The whole of it is held against the bound before anything of it is done.
        let calls = steps.iter().filter(|step| step.tool.is_some()).count();
        if let Some(limit) = self.too_many_calls(u32::try_from(calls).unwrap_or(u32::MAX)) {
            self.reach(limit);
            return Next::Over;
        }
        if steps.is_empty() {
            let told = (!flow.kept.is_empty()).then(|| flow.results());
            self.answer(flow, told);
            return Next::Again;
        }
        let Some(main) = self.threads.first() else {
            return Next::Wait;
        };
        let thread = Thread::of_calls(main.messages.clone(), self.spec.head.len());
        flow.calls = self.spawn(thread);
        flow.progress = vec![Progress::Waiting; steps.len()];
        flow.steps = steps;
        flow.machine = Machine::default();
        flow.phase = Phase::Executing;
        Next::Again
    }

    /// The bound that so many calls of tools would break.
    fn too_many_calls(&self, calls: u32) -> Option<LimitReached> {
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
    fn execute(&mut self, flow: &mut Flow) -> Next {
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

    fn machine(&self, flow: &Flow) -> Result<PlanMachine, String> {
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
    fn end_of(&self, calls: u32, progress: &Progress) -> Option<Result<Value, Cause>> {
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

    fn begin_step(&mut self, flow: &mut Flow, begun: Begun) -> Result<(), LimitReached> {
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
    fn plan_ended(&mut self, flow: &mut Flow, machine: &PlanMachine) -> Next {
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
    fn failure_of(&self, flow: &Flow, place: usize, problem: String) -> Result<End, ThreadFailure> {
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

    /// Lets the main thread answer, with what was found out.
    fn answer(&mut self, flow: &mut Flow, told: Option<String>) {
        flow.phase = Phase::Answering;
        flow.machine = Machine::default();
        if let Some(main) = self.threads.first_mut() {
            main.model = flow.model;
            match told {
                Some(told) => main.continue_with(Message::user(told)),
                None => main.state = State::NeedsModel,
            }
        }
    }

    fn answered_flow(&mut self, flow: &mut Flow, effects: &mut Vec<Effect>) -> Next {
        if let Triaged::Asked(thread) = flow.triage {
            flow.triage = Triaged::Late;
            self.leave(thread, effects);
        }
        match self.outcome(0) {
            None => Next::Wait,
            Some(Err(ThreadFailure::Model(failure)))
                if flow.model > 0 && !flow.fell_back && self.spec.fallback_on.covers(failure.kind) =>
            {
                flow.fell_back = true;
                if let Some(main) = self.threads.first_mut() {
                    main.model = 0;
                    main.state = State::NeedsModel;
                }
                Next::Wait
            }
            Some(Err(failure)) => {
                self.conclude(Err(failure));
                Next::Over
            }
            Some(Ok((mut response, value))) => {
                note(&mut response, "plan", flow.facts());
                self.conclude(Ok((response, value)));
                Next::Over
            }
        }
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

    /// What earlier plans found out, for a planner: by ids, to be referred to.
    fn known(&self) -> String {
        let kept = self.kept.iter().map(|Kept { step, value }| {
            let text = text_of(value);
            let start = &text[..text.floor_char_boundary(SHOWN_BYTES)];
            let more = match text.len() - start.len() {
                0 => String::new(),
                left => format!(" .. ({left} bytes more; `${}` is the whole)", step.id),
            };
            format!("- `{}`, {} (done): {start}{more}", step.id, step.what())
        });
        let failed = self
            .failed
            .iter()
            .map(|FailedStep { what, problem }| format!("- {what} (failed): {problem}"));
        lines(kept.chain(failed))
    }

    /// What was found out, for whoever answers.
    fn results(&self) -> String {
        let kept = self.kept.iter();
        let kept =
            kept.map(|Kept { step, value }| format!("- `{}`, {}: {}", step.id, step.what(), text_of(value)));
        let failed = self
            .failed
            .iter()
            .map(|FailedStep { what, problem }| format!("- {what} (failed): {problem}"));
        format!(
            "This was found out by steps that are done:\n{}\n\nNow do what was asked.",
            lines(kept.chain(failed))
        )
    }

    /// For the metadata of the answer.
    fn facts(&self) -> Value {
        let mut facts = Map::new();
        facts.insert("plans".to_owned(), json!(self.plans));
        facts.insert("steps".to_owned(), json!(self.kept.len()));
        facts.insert("failed".to_owned(), json!(self.failed.len()));
        let triage = match self.triage {
            Triaged::Not => return Value::Object(facts),
            Triaged::NeedsPlan => "needs_plan",
            Triaged::NeedsNone => "needs_none",
            Triaged::Asked(_) | Triaged::Late => "late",
            Triaged::Failed => "failed",
        };
        facts.insert("triage".to_owned(), json!(triage));
        facts.insert(
            "model".to_owned(),
            json!(if self.fell_back { 0 } else { self.model }),
        );
        Value::Object(facts)
    }
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    match lines.collect::<Vec<_>>() {
        none if none.is_empty() => "(nothing yet)".to_owned(),
        lines => lines.join("\n"),
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn cause(message: String) -> Cause {
    Cause::Error {
        message,
        retryable: None,
        retry_after: None,
    }
}
