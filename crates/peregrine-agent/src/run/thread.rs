//! One conversation with a model inside a run: its messages, and what it waits for.
//!
//! A thread changes only in two ways: something it waited for arrived (`answered`, `checked`, `returned`), or it was asked
//! what it needs next ([`Thread::needs`]). What it needs follows from its state alone, so a thread that was interrupted, or
//! restored, asks again by itself.

use std::collections::VecDeque;
use std::sync::Arc;

use peregrine_core::{ChatResponse, Effect as ToolEffect, Message, Messages, Part, ToolCall, ToolResult};
use peregrine_signatures::ANSWER_TOOL;
use peregrine_tools::ToolError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::run::effect::Form;
use crate::run::turn::{Batch, Slot, SlotState, ToolTurn, is_cut_off, tell_apart};
use crate::run::{Approval, CallId, Failure, RunSpec, Verdict};
use crate::window::WindowState;

/// One conversation with a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Thread {
    pub(crate) messages: Messages,
    /// How many messages at the start say what the agent is to do.
    pub(crate) head: u32,
    pub(crate) window: WindowState,
    pub(crate) form: Form,
    pub(crate) has_tools: bool,
    /// Which of the models is asked.
    pub(crate) model: u32,
    /// Added to the seed of its calls.
    pub(crate) seed: u32,
    /// How often a model was asked.
    pub(crate) turns: u32,
    pub(crate) repairs: u32,
    pub(crate) state: State,
}

/// What a thread waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    NeedsModel,
    AwaitsModel {
        call: CallId,
    },
    NeedsCheck {
        response: Arc<ChatResponse>,
    },
    AwaitsCheck {
        call: CallId,
        response: Arc<ChatResponse>,
    },
    Tools(ToolTurn),
    /// It has its answer, which the strategy has not looked at yet, or needs no more.
    Done {
        response: Arc<ChatResponse>,
        value: Option<Map<String, Value>>,
    },
    Failed(ThreadFailure),
    /// Its answer is not needed any more; what it used still counts if the call ends.
    Abandoned {
        call: Option<CallId>,
    },
}

/// Why a thread has no answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ThreadFailure {
    Model(Failure),
    Rejected { problem: String, repairs: u32 },
    Declined { text: String },
}

/// What a thread needs next.
#[derive(Debug, PartialEq)]
pub(crate) enum Need {
    /// Nothing: it waits, or it is through.
    Nothing,
    Model,
    Check(Arc<ChatResponse>),
    /// Some slots of the batch.
    Tools,
}

impl Thread {
    pub(crate) fn new(messages: Messages, head: usize, form: Form, has_tools: bool) -> Self {
        Self {
            messages,
            head: u32::try_from(head).unwrap_or(u32::MAX),
            window: WindowState::new(),
            form,
            has_tools,
            model: 0,
            seed: 0,
            turns: 0,
            repairs: 0,
            state: State::NeedsModel,
        }
    }

    pub(crate) fn needs(&self) -> Need {
        match &self.state {
            State::NeedsModel => Need::Model,
            State::NeedsCheck { response } => Need::Check(Arc::clone(response)),
            State::Tools(turn) if !turn.is_admitted || turn.current().iter().any(Slot::is_waiting) => {
                Need::Tools
            }
            _ => Need::Nothing,
        }
    }

    /// The calls that are under way.
    pub(crate) fn outstanding(&self) -> impl Iterator<Item = CallId> {
        let (single, slots) = match &self.state {
            State::AwaitsModel { call } | State::AwaitsCheck { call, .. } => (Some(*call), &[][..]),
            State::Tools(turn) => (None, turn.slots.as_slice()),
            _ => (None, &[][..]),
        };
        let running = slots
            .iter()
            .filter(|slot| matches!(slot.state, SlotState::Running | SlotState::AwaitsApproval))
            .map(|slot| slot.call);
        single.into_iter().chain(running)
    }

    /// The model answered.
    pub(crate) fn answered(
        &mut self,
        outcome: Result<Box<ChatResponse>, Failure>,
        spec: &RunSpec,
        next_call: &mut u64,
    ) {
        if let State::Abandoned { .. } = self.state {
            self.state = State::Abandoned { call: None };
            return;
        }
        self.state = match outcome {
            Ok(response) => self.read(response, spec, next_call),
            Err(failure)
                if spec.fallback_on.covers(failure.kind) && self.model.saturating_add(1) < spec.models =>
            {
                self.model += 1;
                State::NeedsModel
            }
            Err(failure) => State::Failed(ThreadFailure::Model(failure)),
        };
    }

    fn read(&mut self, mut response: Box<ChatResponse>, spec: &RunSpec, next_call: &mut u64) -> State {
        let has_form = self.form != Form::Text;
        let is_answer = |call: &ToolCall| has_form && call.name == ANSWER_TOOL;
        if response.tool_calls().all(is_answer) {
            if has_form {
                // What of it belongs into the conversation is decided with it.
                return State::NeedsCheck {
                    response: Arc::from(response),
                };
            }
            self.messages.push(response.message.clone());
            return State::Done {
                response: Arc::from(response),
                value: None,
            };
        }
        tell_apart(&mut response.message);
        let mut slots: Vec<Slot> = response
            .message
            .tool_calls()
            .map(|call| {
                let id = CallId(*next_call);
                *next_call = next_call.saturating_add(1);
                self.slot(id, call, spec, is_answer(call))
            })
            .collect();
        if let Some(last) = slots.last_mut()
            && is_cut_off(&response.finish, &last.tool_call)
        {
            let told =
                "The answer was cut off before the arguments of this call. It was not called; call it again.";
            last.state = SlotState::Done(ToolResult::error(&last.tool_call, told));
        }
        self.messages.push(response.message);
        State::Tools(ToolTurn {
            slots,
            batch: 0..0,
            is_admitted: false,
        })
    }

    fn slot(&self, id: CallId, call: &ToolCall, spec: &RunSpec, is_answer: bool) -> Slot {
        let rule = spec.tools.get(&call.name).filter(|_| self.has_tools);
        let state = match rule {
            _ if is_answer => SlotState::Done(ToolResult::error(
                call,
                "Look at the results of the other tools first, then answer.",
            )),
            Some(rule) if rule.ask => SlotState::NeedsApproval,
            Some(_) => SlotState::Ready,
            None => SlotState::Done(ToolResult::error(call, self.unknown(&call.name, spec))),
        };
        Slot {
            call: id,
            tool_call: Arc::new(call.clone()),
            // Those that have no rule do not run.
            effect: rule.map_or(ToolEffect::ReadOnly, |rule| rule.effect),
            is_approved: false,
            state,
        }
    }

    fn unknown(&self, name: &str, spec: &RunSpec) -> String {
        let known = spec.template.tools.iter().filter(|_| self.has_tools);
        let error = ToolError::NotFound {
            tool: name.to_owned(),
            known: known.take(32).map(|tool| tool.name.clone()).collect(),
        };
        error.for_model().unwrap_or_else(|| error.to_string())
    }

    /// The next neighbours that may run side by side, or the next turn if there are none left.
    fn next_batch(&mut self, mut turn: ToolTurn) -> State {
        let slots = &turn.slots;
        let mut start = turn.batch.end as usize;
        while slots.get(start).is_some_and(Slot::is_done) {
            start += 1;
        }
        let mut end = start;
        let mut batch = Batch::default();
        while let Some(slot) = slots.get(end)
            && (slot.is_done() || slots.len() == 1 || batch.takes(slot))
        {
            end += 1;
        }
        if start >= slots.len() {
            for slot in turn.slots {
                if let SlotState::Done(result) = slot.state {
                    self.messages.push(Message::tool(result));
                }
            }
            return State::NeedsModel;
        }
        turn.batch = to_u32(start)..to_u32(end);
        State::Tools(turn)
    }

    /// Its answer was checked.
    pub(crate) fn checked(&mut self, verdict: Verdict, max_repairs: u32) {
        let State::AwaitsCheck { response, .. } = std::mem::replace(&mut self.state, State::NeedsModel)
        else {
            return;
        };
        self.state = match verdict {
            Verdict::Accepted { value, metadata } => {
                let mut response = response;
                if !metadata.is_empty() {
                    Arc::make_mut(&mut response).metadata.extend(metadata);
                }
                if self.repairs > 0 {
                    note(&mut response, "structured_repairs", Value::from(self.repairs));
                }
                self.messages.push(settled(&response));
                State::Done {
                    response,
                    value: Some(value),
                }
            }
            Verdict::Rejected { told, problem } if self.repairs >= max_repairs => {
                // Kept, so that whoever looks at the conversation sees what was wrong.
                self.messages.extend(told);
                State::Failed(ThreadFailure::Rejected {
                    problem,
                    repairs: self.repairs,
                })
            }
            Verdict::Rejected { told, .. } => {
                self.repairs += 1;
                self.messages.extend(told);
                State::NeedsModel
            }
            Verdict::Declined { text } => {
                self.messages.push(response.message.clone());
                State::Failed(ThreadFailure::Declined { text })
            }
        };
    }

    fn awaited(&mut self, call: CallId) -> Option<&mut Slot> {
        match &mut self.state {
            State::Tools(turn) => turn.slots.iter_mut().find(|slot| slot.call == call),
            _ => None,
        }
    }

    /// What became of one of its calls of tools.
    pub(crate) fn slot_state(&self, call: CallId) -> Option<&SlotState> {
        match &self.state {
            State::Tools(turn) => {
                let slot = turn.slots.iter().find(|slot| slot.call == call);
                slot.map(|slot| &slot.state)
            }
            _ => None,
        }
    }

    /// Whether something is under way that ends by itself.
    pub(crate) fn is_busy(&self) -> bool {
        match &self.state {
            State::AwaitsModel { .. } | State::AwaitsCheck { .. } => true,
            State::Tools(turn) => turn.slots.iter().any(|slot| slot.state == SlotState::Running),
            _ => false,
        }
    }

    /// A tool returned with a result. The bytes of the result.
    pub(crate) fn returned(&mut self, call: CallId, mut result: ToolResult) -> u64 {
        let bytes = size_bytes(&result);
        if let Some(slot) = self.awaited(call) {
            // Whoever made the result: it answers this call, or providers refuse the conversation.
            if result.call_id != slot.tool_call.id || result.name != slot.tool_call.name {
                result.call_id.clone_from(&slot.tool_call.id);
                result.name.clone_from(&slot.tool_call.name);
            }
            slot.state = SlotState::Done(result);
        }
        self.go_on_with_tools();
        bytes
    }

    /// A call of a tool was not made after all; `false` if it was not under way.
    pub(crate) fn not_called(&mut self, call: CallId) -> bool {
        match self.awaited(call) {
            Some(slot) if slot.state == SlotState::Running => {
                slot.state = SlotState::Ready;
                true
            }
            _ => false,
        }
    }

    /// A call of a tool that was taken for begun was not; `false` if it was not taken for that.
    pub(crate) fn never_ran(&mut self, call: CallId) -> bool {
        match self.awaited(call) {
            Some(slot) if slot.state == SlotState::Unknown => {
                slot.state = SlotState::Ready;
                true
            }
            _ => false,
        }
    }

    /// A call of a tool ended, and nobody knows what it did. Its name.
    pub(crate) fn gave_nothing(&mut self, call: CallId) -> String {
        match self.awaited(call) {
            Some(slot) => {
                slot.state = SlotState::Unknown;
                slot.tool_call.name.clone()
            }
            None => String::new(),
        }
    }

    /// A person decided.
    pub(crate) fn decided(&mut self, call: CallId, approval: Approval) {
        let Some(slot) = self.awaited(call) else {
            return;
        };
        slot.is_approved = approval == Approval::Approved;
        slot.state = match approval {
            Approval::Approved => SlotState::Ready,
            Approval::Denied { reason } => {
                let error = ToolError::Refused {
                    tool: slot.tool_call.name.clone(),
                    reason,
                };
                SlotState::Done(ToolResult::error(&slot.tool_call, error.to_string()))
            }
        };
        self.go_on_with_tools();
    }

    /// The next tools that may run, if those before are done.
    pub(crate) fn go_on_with_tools(&mut self) {
        if let State::Tools(turn) = &self.state
            && turn.is_admitted
            && turn.current().iter().all(Slot::is_done)
            && let State::Tools(turn) = std::mem::replace(&mut self.state, State::NeedsModel)
        {
            self.state = self.next_batch(turn);
        }
    }

    /// Asks again for what was under way and is lost. Calls that may have changed something are left, and given.
    pub(crate) fn lose(&mut self) -> Vec<CallId> {
        let mut in_doubt = Vec::new();
        match &mut self.state {
            State::AwaitsModel { .. } => self.state = State::NeedsModel,
            State::AwaitsCheck { response, .. } => {
                self.state = State::NeedsCheck {
                    response: Arc::clone(response),
                };
            }
            State::Tools(turn) => {
                for slot in &mut turn.slots {
                    match (&slot.state, slot.effect) {
                        (SlotState::AwaitsApproval, _) => slot.state = SlotState::NeedsApproval,
                        (SlotState::Running | SlotState::Unknown, ToolEffect::SideEffect) => {
                            slot.state = SlotState::Unknown;
                            in_doubt.push(slot.call);
                        }
                        (SlotState::Running | SlotState::Unknown, _) => slot.state = SlotState::Ready,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        in_doubt
    }

    /// Nobody needs its answer any more. Gives what is to be stopped.
    pub(crate) fn abandon(&mut self) -> Vec<CallId> {
        let calls: Vec<CallId> = self.outstanding().collect();
        if !matches!(self.state, State::Done { .. } | State::Failed(_)) {
            let call = match self.state {
                State::AwaitsModel { call } => Some(call),
                _ => None,
            };
            self.state = State::Abandoned { call };
        }
        calls
    }

    /// The calls of tools that have a result, in the order in which the model asked for them, and whether it is one that
    /// was asked for. The first `known` messages were there before.
    pub(crate) fn tool_results(&self, known: usize) -> Vec<(ToolCall, bool)> {
        let mut open: VecDeque<ToolCall> = VecDeque::new();
        let mut done = Vec::new();
        for part in self
            .messages
            .iter()
            .skip(known)
            .flat_map(|message| &message.parts)
        {
            match part {
                Part::ToolCall(call) => open.push_back(call.clone()),
                Part::ToolResult(result) => {
                    // Results stand in the order of their calls.
                    while let Some(call) = open.pop_front() {
                        if call.id == result.call_id {
                            done.push((call, !result.is_error));
                            break;
                        }
                    }
                }
                _ => {}
            }
        }
        if let State::Tools(turn) = &self.state {
            done.extend(turn.slots.iter().filter_map(|slot| match &slot.state {
                SlotState::Done(result) if turn.is_admitted => {
                    Some(((*slot.tool_call).clone(), !result.is_error))
                }
                _ => None,
            }));
        }
        done
    }

    /// Takes a finished thread up again.
    pub(crate) fn continue_with(&mut self, message: Message) {
        self.messages.push(message);
        self.state = State::NeedsModel;
    }
}

impl ThreadFailure {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Model(failure) => failure.message.clone(),
            Self::Rejected { problem, .. } => problem.clone(),
            Self::Declined { text } => text.clone(),
        }
    }
}

/// An answer as it stands in a conversation that goes on: one that came by a tool becomes text, because providers refuse
/// calls that nobody gave a result.
pub(crate) fn settled(response: &ChatResponse) -> Message {
    let mut message = response.message.clone();
    for part in &mut message.parts {
        if let Part::ToolCall(call) = part {
            *part = Part::text(std::mem::take(&mut call.arguments));
        }
    }
    message
}

/// Adds facts to a response.
pub(crate) fn note(response: &mut Arc<ChatResponse>, key: &str, value: Value) {
    Arc::make_mut(response).metadata.insert(key.to_owned(), value);
}

fn size_bytes(result: &ToolResult) -> u64 {
    let sizes = result.content.iter().map(|part| match part {
        Part::Text(part) => part.text.len(),
        other => serde_json::to_vec(other).map_or(0, |json| json.len()),
    });
    sizes.sum::<usize>() as u64
}

fn to_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
