//! What a run asks for. Whoever drives it performs these and answers with events.

use std::sync::Arc;

use peregrine_core::{ChatRequest, ChatResponse, Message, ToolCall, ToolResult};
use serde::{Deserialize, Serialize};

use crate::run::{CallId, End, Stop};

/// Something that a run asks to be done.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Effect {
    /// Load what the memory has for this run; answered by [`Event::MemoryLoaded`](super::Event::MemoryLoaded).
    LoadMemory,
    /// Give the memory what was said in this run; answered by [`Event::MemorySaved`](super::Event::MemorySaved).
    SaveMemory {
        /// The messages since the run began, its input included.
        messages: Vec<Arc<Message>>,
    },
    /// Ask a model; answered by [`Event::ModelAnswered`](super::Event::ModelAnswered).
    CallModel(Box<ModelCall>),
    /// Compare an answer with the form that was asked for; answered by
    /// [`Event::AnswerChecked`](super::Event::AnswerChecked).
    CheckAnswer {
        /// Which check.
        call: CallId,
        /// The thread it belongs to.
        thread: u32,
        /// What form was asked for.
        form: Form,
        /// The answer.
        response: Arc<ChatResponse>,
    },
    /// Call a tool; answered by [`Event::ToolReturned`](super::Event::ToolReturned). Tools that are asked for without an
    /// event in between may run at the same time.
    CallTool(ToolTask),
    /// Nothing: a call of a tool that there is not got its result at once. For whoever watches.
    RejectTool {
        /// The call.
        task: ToolTask,
        /// What the model is told.
        result: ToolResult,
    },
    /// Ask a person whether a tool may be called; answered by
    /// [`Event::ApprovalDecided`](super::Event::ApprovalDecided).
    AskPerson(ToolTask),
    /// Stop these; no answer is expected any more.
    Cancel {
        /// What is to be stopped.
        calls: Vec<CallId>,
    },
    /// The run has stopped and can go on after [`Event::Resumed`](super::Event::Resumed).
    Pause {
        /// Why it stopped.
        stop: Stop,
    },
    /// The run is over.
    Finish {
        /// How it ended.
        end: End,
    },
}

/// A call to a model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelCall {
    /// Which call.
    pub call: CallId,
    /// The thread of conversation that it belongs to; 0 is the main one.
    pub thread: u32,
    /// Which turn of that thread it begins, from 1.
    pub turn: u32,
    /// Which of the agent's models to ask: 0 is the first choice, the others are its fallbacks.
    pub model: u32,
    /// The form of the answer; whoever performs the call adds what that needs to the request.
    pub form: Form,
    /// The request, without what the form adds.
    pub request: ChatRequest,
    /// How many messages at its start say what the agent is to do.
    pub head: u32,
    /// Whether messages were left out at the front since the last call of this thread, so that the prompt has a new
    /// beginning.
    pub is_cut: bool,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ToolTask {
    /// Which call; the same again if it is repeated after an interruption, so that it can serve as idempotency key.
    pub call: CallId,
    /// The thread that it belongs to.
    pub thread: u32,
    /// What the model asked for.
    pub tool_call: Arc<ToolCall>,
    /// Whether a person approved it, with exactly these arguments.
    pub approved: bool,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Form {
    /// Free text.
    Text,
    /// What the caller asked for: the outputs of its signature.
    Answer,
    /// A plan: see [`forms::plan`](crate::forms::plan).
    Plan,
    /// A plan of calls of tools: see [`forms::dataflow`](crate::forms::dataflow).
    Dataflow,
    /// A look at what was asked: see [`forms::triage`](crate::forms::triage).
    Triage,
    /// A judgement of an answer: see [`forms::critique`](crate::forms::critique).
    Critique,
}
