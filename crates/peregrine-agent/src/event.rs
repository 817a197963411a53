//! What a run tells while it goes on: flat events, in the order in which things happen.

use peregrine_core::ToolResult;
use peregrine_signatures::FieldPath;
use serde::Serialize;
use serde_json::Value;

use crate::output::{Abandoned, RunOutput};
use crate::run::{Interrupt, InterruptSource};

/// Something that happens in a run.
///
/// `thread` is the thread of conversation: 0 is the main one; strategies with several (a vote, a plan) have more.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunEvent {
    /// A model is asked.
    Turn {
        /// The thread.
        thread: u32,
        /// Which turn of it, from 1.
        turn: u32,
        /// The model, as `provider/model`.
        model: String,
    },
    /// A piece of an answer's text. Texts of a turn that calls tools are told too; so are those of an answer that is then
    /// rejected, which [`Rejected`](Self::Rejected) says.
    Text {
        /// The thread.
        thread: u32,
        /// The piece.
        text: String,
    },
    /// A piece of what the model thinks.
    Reasoning {
        /// The thread.
        thread: u32,
        /// The piece.
        text: String,
    },
    /// A piece of a text output of a signature.
    FieldText {
        /// The thread.
        thread: u32,
        /// Where it belongs.
        path: FieldPath,
        /// The piece.
        text: String,
    },
    /// An output of a signature, or a value inside one, is complete and fits.
    FieldCompleted {
        /// The thread.
        thread: u32,
        /// Where it belongs.
        path: FieldPath,
        /// The value.
        value: Value,
    },
    /// The answer of this turn does not have the form that was asked for: what was told of it does not count, and the
    /// model is asked again if a repair is left.
    Rejected {
        /// The thread.
        thread: u32,
        /// What is wrong with it.
        problem: String,
    },
    /// A model failed, and the next one is asked. What was told of the failed one's answer does not count.
    Fallback {
        /// The thread.
        thread: u32,
        /// The model that failed, as `provider/model`.
        failed: String,
        /// How.
        problem: String,
    },
    /// A tool is called.
    ToolStart {
        /// The thread.
        thread: u32,
        /// The model's id of the call.
        call_id: String,
        /// The tool.
        name: String,
        /// The arguments, as the model wrote them.
        arguments: String,
    },
    /// A tool returned.
    ToolEnd {
        /// The thread.
        thread: u32,
        /// The model's id of the call.
        call_id: String,
        /// What it returned.
        result: ToolResult,
    },
    /// A person is asked whether a tool may be called.
    ApprovalAsked {
        /// The thread.
        thread: u32,
        /// The model's id of the call.
        call_id: String,
        /// The tool.
        name: String,
    },
    /// A limit of the scopes above, or of the run's budget, is nearly used up. Each of them is told of once.
    LimitNear {
        /// Which one, and how much of it is used, for people.
        limit: String,
        /// What it will stop the run as: [`TimeLimit`](InterruptSource::TimeLimit) or
        /// [`Budget`](InterruptSource::Budget).
        source: InterruptSource,
        /// Which part of it is used; above 1 where one step used up the whole rest and more.
        fraction: f64,
    },
    /// The run was told to stop, or to stop at once. After a graceful interrupt the step that is under way finishes.
    Interrupted {
        /// How, and why.
        interrupt: Interrupt,
    },
    /// Something that was told to stop did not.
    Abandoned {
        /// The thread.
        thread: u32,
        /// What.
        abandoned: Abandoned,
    },
    /// The run has its answer. The last event.
    Finished(Box<RunOutput>),
}
