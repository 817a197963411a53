//! A run as a state machine: events in, effects out, no I/O, no clock, no randomness.
//!
//! A [`Run`] is handed what happened ([`Event`]) and says what is to be done ([`Effect`]). Whoever drives it performs the
//! effects in any order and at any pace and hands in what came of them. Same events, same effects; and because a run can be
//! serialised between any two events, it can be stopped in one process and go on in another.
//!
//! Algorithm. Handling an event has two halves. The first changes state only: the thread that waited for the event takes
//! it. The second looks at the whole state and asks for whatever is needed and not yet asked for. So a run that was
//! interrupted or restored needs no list of what to repeat: what it needs follows from its state.
//!
//! Invariants:
//!
//! - no order of events panics; an event that nobody waits for is handed back, untouched, and changes nothing but the
//!   count of such events;
//! - while a run is neither stopped nor over, something is under way;
//! - results of tools go to the model in the order in which it asked, whatever the order in which they arrived;
//! - `steps` counts calls to models when they are asked for, so that no order of events gets around the bound.

#[cfg(feature = "checkpoints")]
mod amend;
mod ask;
mod compose;
mod effect;
mod end;
mod event;
mod flow;
mod hand_over;
mod kept;
mod spec;
mod strategy;
pub(crate) mod thread;
mod turn;

use std::sync::Arc;

use peregrine_core::{Cost, Message, Messages, NanoUsd, RunId, ToolCall, Usage};
use serde::{Deserialize, Serialize};

pub use effect::{Effect, Form, ModelCall, ToolTask};
pub use end::{End, Stop};
pub use event::{
    Approval, CallId, Event, Failure, Interrupt, InterruptMode, InterruptSource, More, ToolOutcome, Verdict,
    Veto,
};
pub use spec::{FallbackOn, Limits, OnLimit, RunSpec, ToolRule};
pub use strategy::{BestOfN, Dataflow, PlanAndExecute, Reflection, Strategy, Triage};

use crate::budget::{LimitReached, Resource};
use compose::Stage;
use hand_over::Kept;
use thread::{State, Thread};
use turn::SlotState;

/// A run of an agent, as data.
///
/// # Examples
///
/// One question and one answer, driven by hand:
///
/// ```
/// use peregrine_agent::run::{Effect, End, Event, Run, RunSpec};
/// use peregrine_core::{ChatResponse, Cost, Message};
///
/// let mut run = Run::new(RunSpec::default());
/// let effects = run.handle(Event::Started { input: vec![Message::user("What is the answer?")] })?;
/// let [Effect::CallModel(asked)] = effects.as_slice() else { panic!() };
/// assert_eq!(asked.request.messages.len(), 1);
///
/// let answer = Box::new(ChatResponse::text("Forty-two."));
/// let effects = run.handle(Event::ModelAnswered { call: asked.call, outcome: Ok(answer), cost: Cost::Unpriced })?;
/// assert!(matches!(&effects[..], [Effect::Finish { end: End::Completed { .. } }]));
/// # Ok::<(), peregrine_agent::run::Stray>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    format: Format,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<RunId>,
    spec: Arc<RunSpec>,
    phase: Phase,
    /// Why it stands still, if it does.
    paused: Option<Stop>,
    /// Why it begins nothing new, while something is still under way.
    stopping: Option<Stop>,
    /// Whether what was under way was told to stop, so that nothing is waited for.
    is_cut_short: bool,
    /// How it ends, once nothing is under way any more.
    ending: Option<End>,
    input: Vec<Arc<Message>>,
    /// How many messages of the main thread were there before the input.
    before: u32,
    threads: Vec<Thread>,
    stage: Stage,
    next_call: u64,
    limits: Limits,
    counts: Counts,
    #[serde(skip)]
    kept: Kept,
}

/// The version of the serialised form; a reader refuses others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
struct Format;

impl Format {
    const VERSION: u32 = 1;
}

impl TryFrom<u32> for Format {
    type Error = String;

    fn try_from(version: u32) -> Result<Self, String> {
        match version {
            Self::VERSION => Ok(Self),
            other => Err(format!(
                "a run of format {other} cannot be read; this reads format {}",
                Self::VERSION
            )),
        }
    }
}

impl From<Format> for u32 {
    fn from(_: Format) -> Self {
        Format::VERSION
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    New,
    /// The memory is being asked, or is to be.
    Loading {
        asked: bool,
    },
    Working,
    /// The memory is being told, or is to be; `ending` says what comes after.
    Saving {
        asked: bool,
    },
    Over,
}

/// What a run has done and used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Counts {
    /// How often a model was asked, calls under way included.
    pub steps: u32,
    /// How many calls of tools were begun.
    pub tool_calls: u32,
    /// How many bytes the results of tools had.
    pub tool_output_bytes: u64,
    /// What the models' answers used in all; `None` as soon as one of them does not say.
    pub usage: Option<Usage>,
    /// What they cost in all.
    pub cost: Cost,
    /// How many events were taken.
    pub events: u64,
    /// How many events nobody waited for.
    pub strays: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            steps: 0,
            tool_calls: 0,
            tool_output_bytes: 0,
            usage: Some(Usage::default()),
            cost: Cost::Priced(NanoUsd(0)),
            events: 0,
            strays: 0,
        }
    }
}

/// An event that the run did not wait for, handed back.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the run does not wait for this event: {reason}")]
#[non_exhaustive]
pub struct Stray {
    /// The event.
    pub event: Box<Event>,
    /// Why nobody waits for it.
    pub reason: &'static str,
}

impl Run {
    /// A run that has not begun.
    pub fn new(spec: impl Into<Arc<RunSpec>>) -> Self {
        let spec = spec.into();
        Self {
            format: Format,
            id: None,
            limits: spec.limits,
            phase: Phase::New,
            paused: None,
            stopping: None,
            is_cut_short: false,
            ending: None,
            input: Vec::new(),
            before: 0,
            threads: Vec::new(),
            stage: Stage::Single,
            next_call: 0,
            counts: Counts::default(),
            kept: Kept::All,
            spec,
        }
    }

    /// Gives it an id, which it keeps wherever it goes on: what is done for it under keys made of the id (calls of tools)
    /// is then known to be the same again.
    #[must_use]
    pub fn with_id(mut self, id: RunId) -> Self {
        self.id = Some(id);
        self
    }

    /// Its id, if it was given one.
    pub fn id(&self) -> Option<RunId> {
        self.id
    }

    /// Takes what happened, and says what is to be done now.
    ///
    /// # Errors
    ///
    /// [`Stray`], with the event, if the run does not wait for it: it names a call that was not asked for or was answered
    /// already, or it comes before the start or after the end.
    pub fn handle(&mut self, event: Event) -> Result<Vec<Effect>, Stray> {
        let mut effects = Vec::new();
        match self.apply(event, &mut effects) {
            Ok(()) => {
                self.counts.events = self.counts.events.saturating_add(1);
                self.ask(&mut effects);
                Ok(effects)
            }
            Err(stray) => {
                self.counts.strays = self.counts.strays.saturating_add(1);
                Err(stray)
            }
        }
    }

    fn apply(&mut self, event: Event, effects: &mut Vec<Effect>) -> Result<(), Stray> {
        let stray = |event, reason| {
            Err(Stray {
                event: Box::new(event),
                reason,
            })
        };
        if self.phase == Phase::Over {
            return stray(event, "it is over");
        }
        if self.phase == Phase::New
            && !matches!(
                event,
                Event::Started { .. } | Event::Vetoed { call: None, .. } | Event::Interrupted { .. }
            )
        {
            return stray(event, "it has not begun");
        }
        match event {
            Event::Started { input } if self.phase == Phase::New => {
                self.input = input.into_iter().map(Arc::new).collect();
                match self.spec.has_memory {
                    true => self.phase = Phase::Loading { asked: false },
                    false => self.begin(Vec::new()),
                }
            }
            Event::Started { .. } => return stray(event, "it has begun already"),
            Event::MemoryLoaded { outcome } if self.phase == (Phase::Loading { asked: true }) => {
                match outcome {
                    Ok(remembered) => self.begin(remembered),
                    Err(failure) => self.end(End::MemoryFailed {
                        failure,
                        response: None,
                    }),
                }
            }
            Event::MemorySaved { failure } if self.phase == (Phase::Saving { asked: true }) => {
                self.saved(failure);
            }
            Event::MemoryLoaded { .. } | Event::MemorySaved { .. } => {
                return stray(event, "the memory was not asked");
            }
            Event::ModelAnswered { call, outcome, cost } => {
                let Some(thread) = self.waiting_for_model(call) else {
                    return stray(Event::ModelAnswered { call, outcome, cost }, NOT_ASKED);
                };
                if let Ok(response) = &outcome {
                    self.count(response.usage, cost);
                }
                let spec = Arc::clone(&self.spec);
                if let Some(thread) = self.threads.get_mut(thread) {
                    thread.answered(outcome, &spec, &mut self.next_call);
                }
            }
            Event::AnswerChecked { call, verdict } => {
                let Some(place) = self.place_of(
                    |thread| matches!(&thread.state, State::AwaitsCheck { call: ours, .. } if *ours == call),
                ) else {
                    return stray(Event::AnswerChecked { call, verdict }, NOT_ASKED);
                };
                if let Some(thread) = self.threads.get_mut(place) {
                    thread.checked(verdict, self.limits.max_repairs);
                }
            }
            Event::ToolReturned { call, outcome } => self.tool_returned(call, outcome)?,
            Event::ApprovalDecided { call, approval } => {
                let asked = |thread: &Thread| thread.slot_state(call) == Some(&SlotState::AwaitsApproval);
                match self.place_of(asked).and_then(|place| self.threads.get_mut(place)) {
                    Some(thread) => thread.decided(call, approval),
                    None => return stray(Event::ApprovalDecided { call, approval }, NOT_ASKED),
                }
            }
            Event::LimitReached { call, limit } => {
                if call.is_some_and(|call| !self.not_made(call)) {
                    return stray(Event::LimitReached { call, limit }, NOT_ASKED);
                }
                if limit.resource == Resource::WallTime {
                    self.cancel(effects);
                }
                self.reach(limit);
            }
            Event::Vetoed { call, veto } => {
                if call.is_some_and(|call| !self.not_made(call)) {
                    return stray(Event::Vetoed { call, veto }, NOT_ASKED);
                }
                self.end(End::Vetoed { veto });
            }
            Event::Interrupted { interrupt } => {
                if self.paused.is_some() {
                    return stray(Event::Interrupted { interrupt }, "it stands still already");
                }
                if interrupt.mode == InterruptMode::Immediate {
                    self.cancel(effects);
                }
                self.stop(Stop::Interrupted { interrupt });
            }
            Event::NotBegun { calls } => self.not_begun(calls)?,
            Event::Resumed { more } => {
                if self.paused.is_none() {
                    return stray(Event::Resumed { more }, "it does not stand still");
                }
                self.resume(more, effects);
            }
        }
        Ok(())
    }

    fn begin(&mut self, remembered: Vec<Arc<Message>>) {
        self.phase = Phase::Working;
        let head = self.spec.head.iter().cloned();
        let before = self.spec.head.len() + remembered.len();
        self.before = u32::try_from(before).unwrap_or(u32::MAX);
        let messages: Messages = head.chain(remembered).chain(self.input.iter().cloned()).collect();
        self.begin_strategy(&messages);
    }

    fn tool_returned(&mut self, call: CallId, outcome: ToolOutcome) -> Result<(), Stray> {
        let running = |thread: &Thread| {
            matches!(
                thread.slot_state(call),
                Some(SlotState::Running | SlotState::Unknown)
            )
        };
        let Some(thread) = self
            .place_of(running)
            .and_then(|place| self.threads.get_mut(place))
        else {
            return Err(Stray {
                event: Box::new(Event::ToolReturned { call, outcome }),
                reason: NOT_ASKED,
            });
        };
        match outcome {
            ToolOutcome::Returned(result) => {
                let bytes = thread.returned(call, result);
                self.counts.tool_output_bytes = self.counts.tool_output_bytes.saturating_add(bytes);
                self.check_output();
            }
            ToolOutcome::Fatal { message } => {
                let tool = thread.gave_nothing(call);
                self.end(End::ToolFailed { tool, message });
            }
            ToolOutcome::Cancelled => {
                thread.gave_nothing(call);
                self.stop(Stop::Interrupted {
                    interrupt: Interrupt::graceful("a tool was cancelled").with_source(InterruptSource::Tool),
                });
            }
        }
        Ok(())
    }

    fn check_output(&mut self) {
        let (used, limit) = (self.counts.tool_output_bytes, self.limits.max_tool_output_bytes);
        if used > limit {
            self.reach(self.bound(Resource::ToolOutput, limit, used, 0));
        }
    }

    fn bound(&self, resource: Resource, limit: u64, used: u64, asked: u64) -> LimitReached {
        LimitReached::new(resource, limit, used, asked, "run")
    }

    fn count(&mut self, usage: Option<Usage>, cost: Cost) {
        self.counts.usage = self.counts.usage.zip(usage).map(|(sum, usage)| sum + usage);
        self.counts.cost = self.counts.cost + cost;
    }

    /// A call was announced and not made.
    fn not_made(&mut self, call: CallId) -> bool {
        for thread in &mut self.threads {
            if matches!(thread.state, State::AwaitsModel { call: ours } if ours == call) {
                thread.state = State::NeedsModel;
                thread.turns = thread.turns.saturating_sub(1);
                self.counts.steps = self.counts.steps.saturating_sub(1);
                return true;
            }
            if thread.not_called(call) {
                return true;
            }
        }
        false
    }

    fn place_of(&self, is_it: impl Fn(&Thread) -> bool) -> Option<usize> {
        self.threads.iter().position(is_it)
    }

    fn waiting_for_model(&self, call: CallId) -> Option<usize> {
        self.place_of(|thread| match thread.state {
            State::AwaitsModel { call: ours } | State::Abandoned { call: Some(ours) } => ours == call,
            _ => false,
        })
    }

    fn reach(&mut self, limit: LimitReached) {
        match self.spec.on_limit {
            // The memory took too long: the answer is there, and was not kept.
            OnLimit::End if self.is_cut_short && self.is_saving() => {
                self.phase = Phase::Working;
                self.ending = Some(End::Limit { limit });
            }
            OnLimit::End => self.end(End::Limit { limit }),
            OnLimit::Pause => self.stop(Stop::Limit { limit }),
        }
    }

    fn is_saving(&self) -> bool {
        self.phase == (Phase::Saving { asked: true })
    }

    /// The first reason stands.
    fn end(&mut self, end: End) {
        self.ending.get_or_insert(end);
    }

    /// What is under way is stopped; its threads still take a result that comes in time.
    fn cancel(&mut self, effects: &mut Vec<Effect>) {
        let calls: Vec<CallId> = self.threads.iter().flat_map(Thread::outstanding).collect();
        if !calls.is_empty() {
            effects.push(Effect::Cancel { calls });
        }
        self.is_cut_short = true;
    }

    fn resume(&mut self, more: More, effects: &mut Vec<Effect>) {
        let Limits {
            max_steps,
            max_tool_calls,
            max_tool_output_bytes,
            max_repairs: _,
        } = &mut self.limits;
        *max_steps = max_steps.saturating_add(more.steps);
        *max_tool_calls = max_tool_calls.saturating_add(more.tool_calls);
        *max_tool_output_bytes = max_tool_output_bytes.saturating_add(more.tool_output_bytes);
        match &mut self.phase {
            Phase::Loading { asked } | Phase::Saving { asked } => *asked = false,
            _ => {}
        }
        let in_doubt: Vec<CallId> = self.threads.iter_mut().flat_map(Thread::lose).collect();
        self.stopping = None;
        self.is_cut_short = false;
        self.paused = None;
        if !in_doubt.is_empty() {
            let stop = Stop::InDoubt { calls: in_doubt };
            self.paused = Some(stop.clone());
            effects.push(Effect::Pause { stop });
            return;
        }
        self.check_output();
    }

    fn saved(&mut self, failure: Option<Failure>) {
        if let Some(failure) = failure {
            self.put_back();
            let response = match self.ending.take() {
                Some(End::Completed { response, .. }) => Some(response),
                _ => None,
            };
            self.ending = Some(End::MemoryFailed { failure, response });
        }
        self.phase = Phase::Working;
        self.before = u32::MAX;
    }

    /// The rules of the run.
    pub fn spec(&self) -> &Arc<RunSpec> {
        &self.spec
    }

    /// What it has done and used so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The conversation of its main thread so far: what the agent was told, what was remembered, the input, and all that
    /// was said since. Empty before it has begun.
    pub fn messages(&self) -> Messages {
        self.threads
            .first()
            .map(|main| main.messages.clone())
            .unwrap_or_default()
    }

    /// What it began with; empty if it has not begun.
    pub fn input(&self) -> &[Arc<Message>] {
        &self.input
    }

    /// The model that a thread asks.
    pub(crate) fn model_of(&self, thread: u32) -> u32 {
        self.threads.get(thread as usize).map_or(0, |thread| thread.model)
    }

    /// Whether a thread is offered tools.
    pub(crate) fn has_tools(&self, thread: u32) -> bool {
        let thread = self.threads.get(thread as usize);
        thread.is_some_and(|thread| thread.has_tools) && !self.spec.template.tools.is_empty()
    }

    /// The bounds that hold now: those of the rules, and what [`Event::Resumed`] added.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether it has its input.
    pub(crate) fn has_begun(&self) -> bool {
        self.phase != Phase::New
    }

    /// The threads, the latest turn of each, and whether its tools are or were under way, so that the next turn ends it.
    pub(crate) fn turns(&self) -> impl Iterator<Item = (u32, u32, bool)> {
        (0..).zip(&self.threads).map(|(place, thread)| {
            let last = thread.messages.iter().next_back();
            let is_open = matches!(thread.state, State::Tools(_))
                || last.is_some_and(|message| message.role == peregrine_core::Role::Tool);
            (place, thread.turns, thread.turns > 0 && is_open)
        })
    }

    /// The calls of tools that have a result, thread by thread, in the order in which the models asked for them.
    pub(crate) fn tool_results(&self) -> Vec<(ToolCall, bool)> {
        let known = (self.before as usize).saturating_add(self.input.len());
        self.threads
            .iter()
            .flat_map(|thread| thread.tool_results(known))
            .collect()
    }

    /// Why it stands still, if it does.
    pub fn paused(&self) -> Option<&Stop> {
        self.paused.as_ref()
    }

    /// How it ended, if it is over.
    pub fn ended(&self) -> Option<&End> {
        match self.phase {
            Phase::Over => self.ending.as_ref(),
            _ => None,
        }
    }

    /// The calls that are under way, lowest first.
    pub fn outstanding(&self) -> Vec<CallId> {
        let mut calls: Vec<CallId> = self.threads.iter().flat_map(Thread::outstanding).collect();
        calls.sort_unstable();
        calls
    }
}

const NOT_ASKED: &str = "it names a call that is not under way";
