//! Plans of calls of tools: planner, triage and answer here, the steps in `steps`, what a plan may be in `plan`, what is said
//! of it in `told`.
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
mod steps;
mod told;

use std::fmt;

use peregrine_core::Message;
use peregrine_executor::{Cause, PlanMachine};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::forms;
use crate::run::compose::Stage;
use crate::run::effect::{Effect, Form};
use crate::run::strategy::{Dataflow, PlanAndExecute, Strategy, Triage};
use crate::run::thread::{State, Thread, ThreadFailure, note};
use crate::run::{End, Run};
use plan::{Kept, PlannedStep};

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
        if self.stopping.is_some() && flow.phase != Phase::Answering {
            // Nothing begins while the run stops. It is looked at again when it goes on.
            self.stage = Stage::Flow(flow);
            return;
        }
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
            // Also of what failed: whoever answers must not take it for done.
            let has_tried = !flow.kept.is_empty() || !flow.failed.is_empty();
            let told = has_tried.then(|| flow.results());
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
