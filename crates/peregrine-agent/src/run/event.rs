//! What happens to a run: the only way in which anything from outside reaches it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::{ChatResponse, Cost, Error, ErrorKind, Message, Metadata, ToolResult};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::budget::LimitReached;

/// Numbers what a run asks for, from 0 in the order in which it asks. Events name the effect that they answer by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub u64);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Something that happened to a run.
///
/// The events of a run, in order, are its whole history: the same events give the same effects and the same state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The run begins with these messages: what was said before, if anything, and what is asked now.
    Started {
        /// The messages, oldest first.
        input: Vec<Message>,
    },
    /// The memory gave what it has; answers [`Effect::LoadMemory`](crate::run::Effect::LoadMemory).
    MemoryLoaded {
        /// What belongs before the input, or why it could not be had.
        outcome: Result<Vec<Arc<Message>>, Failure>,
    },
    /// The memory took what it was given; answers [`Effect::SaveMemory`](crate::run::Effect::SaveMemory).
    MemorySaved {
        /// Why it could not.
        failure: Option<Failure>,
    },
    /// A model answered, or failed.
    ModelAnswered {
        /// Which call.
        call: CallId,
        /// What it answered.
        outcome: Result<Box<ChatResponse>, Failure>,
        /// What the call cost.
        cost: Cost,
    },
    /// An answer was compared with the form that was asked for.
    AnswerChecked {
        /// Which check.
        call: CallId,
        /// The result.
        verdict: Verdict,
    },
    /// A tool returned.
    ToolReturned {
        /// Which call.
        call: CallId,
        /// What came of it.
        outcome: ToolOutcome,
    },
    /// A person decided whether a tool may be called.
    ApprovalDecided {
        /// Which question.
        call: CallId,
        /// The decision.
        approval: Approval,
    },
    /// A limit that is kept outside of the run was reached: a budget, or its time.
    LimitReached {
        /// The call that was not made because of it, if it was one.
        call: Option<CallId>,
        /// The limit.
        limit: LimitReached,
    },
    /// A guard refused to let the run go on.
    Vetoed {
        /// The call that was not made, or whose result may not be used.
        call: Option<CallId>,
        /// Who refused, and why.
        veto: Veto,
    },
    /// The run is to stop.
    Interrupted {
        /// How, and why.
        interrupt: Interrupt,
    },
    /// Calls that were asked for were never begun, as whoever was to make them knows: they are asked for again when the
    /// run goes on. Settles calls in doubt too.
    NotBegun {
        /// Which calls.
        calls: Vec<CallId>,
    },
    /// A stopped run goes on. What was under way and gave no result is taken for lost.
    Resumed {
        /// Raises the run's own bounds first.
        #[serde(default)]
        more: More,
    },
}

impl Event {
    /// The word for it, as it is serialised.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::MemoryLoaded { .. } => "memory_loaded",
            Self::MemorySaved { .. } => "memory_saved",
            Self::ModelAnswered { .. } => "model_answered",
            Self::AnswerChecked { .. } => "answer_checked",
            Self::ToolReturned { .. } => "tool_returned",
            Self::ApprovalDecided { .. } => "approval_decided",
            Self::LimitReached { .. } => "limit_reached",
            Self::Vetoed { .. } => "vetoed",
            Self::Interrupted { .. } => "interrupted",
            Self::NotBegun { .. } => "not_begun",
            Self::Resumed { .. } => "resumed",
        }
    }
}

/// Why something failed, in a form that can be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Failure {
    /// What to branch on.
    pub kind: ErrorKind,
    /// What went wrong, for people.
    pub message: String,
    /// Whether the same may succeed later.
    pub retryable: bool,
    /// How long the provider asked to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retryable: kind.is_retryable(),
            retry_after: None,
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            message: error.to_string(),
            retryable: error.is_retryable(),
            retry_after: error.retry_after(),
        }
    }
}

/// What came of the call of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolOutcome {
    /// A result for the model; an error that the model may repair is one too.
    Returned(ToolResult),
    /// An error that ends the run.
    Fatal {
        /// What went wrong.
        message: String,
    },
    /// The call was stopped before it returned.
    Cancelled,
}

/// Whether an answer has the form that was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// It has.
    Accepted {
        /// What was read from it.
        value: Map<String, Value>,
        /// What is noted in the response's metadata.
        #[serde(default, skip_serializing_if = "Metadata::is_empty")]
        metadata: Metadata,
    },
    /// It has not, and the model is to be asked again.
    Rejected {
        /// What is said to the model, its answer included.
        told: Vec<Message>,
        /// What is wrong, for people.
        problem: String,
    },
    /// The model or its provider declined to answer.
    Declined {
        /// What it said.
        text: String,
    },
}

/// A person's decision about the call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Approval {
    /// The tool may be called with these arguments, this once.
    Approved,
    /// It may not.
    Denied {
        /// What the model is told.
        reason: String,
    },
}

/// A guard refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("refused by {by}: {reason}")]
#[non_exhaustive]
pub struct Veto {
    /// The guard's name.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Veto {
    /// A veto.
    pub fn new(by: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            by: by.into(),
            reason: reason.into(),
        }
    }
}

/// That a run is to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct Interrupt {
    /// Whether what is under way may finish.
    pub mode: InterruptMode,
    /// Why, for people.
    pub reason: String,
    /// What it came from, to branch on.
    #[serde(default)]
    pub by: InterruptSource,
    /// What made an immediate interrupt of a graceful one, if it was one at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalated_by: Option<InterruptSource>,
}

impl Interrupt {
    /// Lets what is under way finish, and begins nothing new.
    pub fn graceful(reason: impl Into<String>) -> Self {
        Self::new(InterruptMode::Graceful, reason.into())
    }

    /// Stops what is under way too.
    pub fn immediate(reason: impl Into<String>) -> Self {
        Self::new(InterruptMode::Immediate, reason.into())
    }

    fn new(mode: InterruptMode, reason: String) -> Self {
        Self {
            mode,
            reason,
            by: InterruptSource::User,
            escalated_by: None,
        }
    }

    /// Says what it comes from; a [user](InterruptSource::User) unless this is said.
    #[must_use]
    pub const fn with_source(mut self, source: InterruptSource) -> Self {
        self.by = source;
        self
    }
}

/// What an interrupt comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum InterruptSource {
    /// Someone who holds a handle, a scope or a canceller: a person, a program.
    #[default]
    User,
    /// The time of a scope was up.
    TimeLimit,
    /// A budget of a scope was used up.
    Budget,
    /// A signal of the operating system.
    Signal,
    /// A handler of the program's own.
    Handler,
    /// What was to finish gracefully did not, in the time it had.
    Grace,
    /// Nobody wants the result any more.
    Dropped,
    /// A tool that stopped in the middle of a call.
    Tool,
    /// Something that is not known here.
    Other,
}

impl InterruptSource {
    /// The word for labels and logs, as it is serialised.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::TimeLimit => "time_limit",
            Self::Budget => "budget",
            Self::Signal => "signal",
            Self::Handler => "handler",
            Self::Grace => "grace",
            Self::Dropped => "dropped",
            Self::Tool => "tool",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for InterruptSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a run is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterruptMode {
    /// What is under way finishes; nothing new begins.
    Graceful,
    /// What is under way is stopped.
    Immediate,
}

/// What is added to the bounds of a run when it goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct More {
    /// More calls to models.
    pub steps: u32,
    /// More calls of tools.
    pub tool_calls: u32,
    /// More bytes of results of tools.
    pub tool_output_bytes: u64,
}
