//! What a run gives back.

use std::time::Duration;

use peregrine_core::{ChatResponse, Cost, Messages, NanoUsd, RunId, Usage};
use serde::{Deserialize, Serialize};

use crate::budget::Overshoot;

/// A run that has its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunOutput {
    /// The last response. Its metadata says how an answer in a form was arrived at (`structured_output`), and what the
    /// strategy made of it (`best_of_n`, `reflection`).
    pub response: ChatResponse,
    /// What was done for it.
    pub report: RunReport,
}

impl RunOutput {
    /// The text of the answer.
    pub fn text(&self) -> String {
        self.response.message.text()
    }

    /// The conversation, the answer included; the next run can begin with it.
    pub fn messages(&self) -> &Messages {
        &self.report.messages
    }

    /// What all calls to models used together; `None` if one of them did not say.
    pub fn usage(&self) -> Option<Usage> {
        self.report.usage
    }
}

/// A run whose answer has the form of a signature.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TypedOutput<O> {
    /// The outputs.
    pub output: O,
    /// The run.
    pub run: RunOutput,
}

/// What a run has done, whether it came to an answer or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunReport {
    /// The run.
    pub run_id: RunId,
    /// The conversation: what the agent was told, what was remembered, the input, and all that was said since.
    pub messages: Messages,
    /// How often a model was asked.
    pub steps: u32,
    /// The tools that were called, in the order in which they were asked for; without those that were still under way.
    pub tool_calls: Vec<CalledTool>,
    /// What all calls to models used together; `None` if one of them did not say.
    pub usage: Option<Usage>,
    /// What they cost together; unpriced without a table of prices.
    pub cost: Cost,
    /// By how much budgets were exceeded, because calls used more than was estimated for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overshoot: Vec<Overshoot>,
    /// How often an observer panicked or took too long.
    #[serde(default)]
    pub observer_failures: u32,
    /// What was under way when the run was stopped, was told, and did not end by itself. Whatever it did since is not
    /// known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub abandoned: Vec<Abandoned>,
}

/// Something that was dropped when a run under a scope was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Abandoned {
    /// What it was.
    pub kind: AbandonedKind,
    /// The tool, if it was the call of one, or a question about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The model's id of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// How long it had since the run was first told to stop.
    pub waited: Duration,
}

/// What was abandoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AbandonedKind {
    /// A call of a tool, with the hooks around it.
    Tool,
    /// A question to a person.
    Approver,
    /// A memory.
    Memory,
    /// The hooks before a run, or those after it.
    Hook,
}

impl RunReport {
    pub(crate) fn new(run_id: RunId) -> Self {
        Self {
            run_id,
            messages: Messages::new(),
            steps: 0,
            tool_calls: Vec::new(),
            usage: Some(Usage::default()),
            cost: Cost::Priced(NanoUsd(0)),
            overshoot: Vec::new(),
            observer_failures: 0,
            abandoned: Vec::new(),
        }
    }
}

/// A tool that was called, or that the model wanted to call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CalledTool {
    /// The model's id of the call.
    pub call_id: String,
    /// The tool.
    pub name: String,
    /// The arguments, as the model wrote them.
    pub arguments: String,
    /// Whether it returned what was asked for. An error, also a refusal, is told to the model.
    pub ok: bool,
}
