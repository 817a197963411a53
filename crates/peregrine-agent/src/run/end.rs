//! How a run stops or ends.

use peregrine_core::ChatResponse;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::budget::LimitReached;
use crate::run::{CallId, Failure, Interrupt, Run, Veto};
use crate::window::WindowTooSmall;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
#[non_exhaustive]
pub enum End {
    /// With an answer.
    Completed {
        /// The model's last response. Its metadata says what the strategy made of it.
        response: Box<ChatResponse>,
        /// What was read from it, if a form was asked for.
        value: Option<Map<String, Value>>,
    },
    /// The models failed.
    ModelFailed {
        /// How the last one did.
        failure: Failure,
    },
    /// A tool failed in a way that ends a run.
    ToolFailed {
        /// The tool.
        tool: String,
        /// What went wrong.
        message: String,
    },
    /// No answer had the form that was asked for.
    AnswerRejected {
        /// What was wrong with the last one.
        problem: String,
        /// How often the model was asked again.
        repairs: u32,
    },
    /// The model or its provider declined to answer.
    Declined {
        /// What it said.
        text: String,
    },
    /// A bound was reached.
    Limit {
        /// Which.
        limit: LimitReached,
    },
    /// What must be sent is larger than the window.
    WindowTooSmall {
        /// By how much.
        too_small: WindowTooSmall,
    },
    /// A guard refused.
    Vetoed {
        /// Who, and why.
        veto: Veto,
    },
    /// The memory failed; the answer, if there was one, was not kept there.
    MemoryFailed {
        /// How.
        failure: Failure,
        /// The answer that was there already.
        response: Option<Box<ChatResponse>>,
    },
}

impl End {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Completed { .. } => "completed",
            Self::ModelFailed { .. } => "model_failed",
            Self::ToolFailed { .. } => "tool_failed",
            Self::AnswerRejected { .. } => "answer_rejected",
            Self::Declined { .. } => "declined",
            Self::Limit { .. } => "limit",
            Self::WindowTooSmall { .. } => "window_too_small",
            Self::Vetoed { .. } => "vetoed",
            Self::MemoryFailed { .. } => "memory_failed",
        }
    }
}

/// Why a run has stopped, and can go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stop", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stop {
    /// It was told to.
    Interrupted {
        /// How, and why.
        interrupt: Interrupt,
    },
    /// A bound was reached.
    Limit {
        /// Which.
        limit: LimitReached,
    },
    /// Calls of tools with side effects were under way when the run was interrupted, and nobody knows whether they were
    /// carried out. Each is settled by an [`Event::ToolReturned`](super::Event::ToolReturned).
    InDoubt {
        /// The calls.
        calls: Vec<CallId>,
    },
}

impl Run {
    /// The first reason stands; an interrupt that is stronger than the one before says both.
    pub(super) fn stop(&mut self, stop: Stop) {
        match (&mut self.stopping, stop) {
            (Some(Stop::Interrupted { interrupt }), Stop::Interrupted { interrupt: later })
                if later.mode > interrupt.mode =>
            {
                *interrupt = later;
            }
            (Some(_), _) => {}
            (none, stop) => *none = Some(stop),
        }
    }
}
