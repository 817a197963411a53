//! How a run can fail, and what it had done until then.

use std::fmt;
use std::time::Duration;

use peregrine_core::{Error as ModelError, ErrorKind};
use peregrine_tools::RegistryError;

use crate::budget::LimitReached;
use crate::output::RunReport;
use crate::run::{CallId, Failure, Interrupt, Run, Veto};
use crate::window::WindowTooSmall;

/// Why a run has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The agent cannot run as it is set up.
    #[error("the agent cannot run: {0}")]
    Config(ConfigProblem),
    /// The signature cannot be used, the inputs do not fit it, no answer did, or the model declined.
    #[error(transparent)]
    Signature(#[from] peregrine_signatures::Error),
    /// The call to the model failed, and so did those to its fallbacks.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A tool failed in a way that ends a run.
    #[error("the tool `{tool}` failed: {message}")]
    Tool {
        /// The tool.
        tool: String,
        /// What went wrong.
        message: String,
    },
    /// A bound was reached.
    #[error(transparent)]
    Limit(LimitReached),
    /// What must be sent is larger than the window.
    #[error(transparent)]
    WindowTooSmall(WindowTooSmall),
    /// A guard refused.
    #[error(transparent)]
    Vetoed(Veto),
    /// An answer of a strategy's own (a plan, a judgement) did not have its form.
    #[error("the model gave no usable answer after {repairs} repairs: {problem}")]
    Rejected {
        /// What was wrong with the last one.
        problem: String,
        /// How often the model was asked again.
        repairs: u32,
    },
    /// The model or its provider declined to answer.
    #[error("the model declined to answer: {text}")]
    Declined {
        /// What it said.
        text: String,
    },
    /// The memory failed.
    #[error("the memory failed: {0}")]
    Memory(Failure),
    /// The run was stopped.
    #[error("the run was stopped: {0}")]
    Interrupted(Interrupt),
    /// The run was stopped while calls with side effects were under way, and nobody knows whether they were carried out.
    #[error("{} calls of tools may or may not have been carried out", .0.len())]
    InDoubt(Vec<CallId>),
    /// The run's journal could not be written, or read, or is somebody else's. What was acknowledged is in the store, and
    /// the run goes on from there ([`Agent::load`](crate::Agent::load)).
    #[cfg(feature = "checkpoints")]
    #[error("the run's journal: {0}")]
    Checkpoints(#[from] peregrine_checkpoints::Error),
    /// A replay came to something else than what is recorded.
    #[cfg(feature = "checkpoints")]
    #[error(transparent)]
    Diverged(Box<crate::durable::Divergence>),
}

/// How an agent is set up wrongly.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigProblem {
    /// The tools cannot be offered together.
    #[error(transparent)]
    Tools(RegistryError),
    /// A tool is allowed or denied by a name that no tool has.
    #[error("no tool is called `{name}`, which is allowed or denied by name")]
    UnknownTool {
        /// The name.
        name: String,
    },
    /// Something is bounded in time, and nobody keeps time.
    #[error(
        "{what} needs a timer; give the agent one (`with_timer`), or turn on the feature `tokio` of peregrine-agent"
    )]
    NoTimer {
        /// What is bounded.
        what: String,
    },
    /// A limit on money needs prices.
    #[error(
        "the limit on money needs the price of {provider}/{model}; give the agent a table with it (`with_prices`)"
    )]
    NoPrice {
        /// The provider.
        provider: String,
        /// The model.
        model: String,
    },
    /// A run is to draw on two budgets that have nothing to do with each other.
    #[error(
        "the run cannot draw on both the budget `{input}` of its input and the budget `{shared}` that the agent's runs \
         share; make one of them a child of the other"
    )]
    TwoBudgets {
        /// The name of the input's.
        input: String,
        /// The name of the agent's.
        shared: String,
    },
    /// A stopped run cannot go on with this agent, or in this way. It is given back by [`RunError::run`].
    #[error("the run cannot go on here: {problem}")]
    Resume {
        /// Why not, and what would help.
        problem: String,
    },
    /// A run is to be journalled, and nobody says whose it is.
    #[cfg(feature = "checkpoints")]
    #[error("a durable run is kept under a scope; give the input or the agent one (`with_scope`)")]
    NoScope,
    /// A store is needed.
    #[cfg(feature = "checkpoints")]
    #[error("the agent has no store of runs; give it one (`with_checkpoints`)")]
    NoCheckpoints,
    /// A fork makes no sense.
    #[cfg(feature = "checkpoints")]
    #[error("the run cannot be forked like this: {problem}")]
    Fork {
        /// What is wrong with it, and what would help.
        problem: String,
    },
    /// The strategy's numbers make no sense.
    #[error("{problem}")]
    Strategy {
        /// What is wrong.
        problem: String,
    },
}

impl Error {
    /// The stable code: that of [`ErrorKind`] for a model's error, a word of its own for everything else.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "config",
            Self::Signature(error) => match error {
                peregrine_signatures::Error::Model(error) => error.kind().code(),
                peregrine_signatures::Error::Output(_) => "answer_rejected",
                peregrine_signatures::Error::Refused { .. } => "declined",
                _ => "signature",
            },
            Self::Model(error) => error.kind().code(),
            Self::Tool { .. } => "tool_failed",
            Self::Limit(_) => "limit",
            Self::WindowTooSmall(_) => "window_too_small",
            Self::Vetoed(_) => "vetoed",
            Self::Rejected { .. } => "answer_rejected",
            Self::Declined { .. } => "declined",
            Self::Memory(_) => "memory_failed",
            Self::Interrupted(_) => "interrupted",
            Self::InDoubt(_) => "in_doubt",
            #[cfg(feature = "checkpoints")]
            Self::Checkpoints(error) => error.code(),
            #[cfg(feature = "checkpoints")]
            Self::Diverged(_) => "diverged",
        }
    }

    /// The kind of the model's error, if it was the model that failed.
    pub fn model_kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Model(error) => Some(error.kind()),
            Self::Signature(peregrine_signatures::Error::Model(error)) => Some(error.kind()),
            _ => None,
        }
    }

    /// Whether the same run may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Model(error) => error.is_retryable(),
            Self::Memory(failure) => failure.retryable,
            #[cfg(feature = "checkpoints")]
            Self::Checkpoints(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// How long a provider asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Model(error) => error.retry_after(),
            _ => None,
        }
    }
}

/// A run without an answer: why, and all that was done until then.
///
/// A run that was [stopped](Error::Interrupted), or reached a limit at which it pauses, can
/// [go on](crate::Agent::resume).
#[derive(Clone)]
pub struct RunError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    error: Error,
    report: RunReport,
    run: Option<Run>,
}

impl RunError {
    pub(crate) fn new(error: impl Into<Error>, report: RunReport) -> Self {
        Self(Box::new(Inner {
            error: error.into(),
            report,
            run: None,
        }))
    }

    pub(crate) fn with_run(mut self, run: Option<Run>) -> Self {
        self.0.run = run;
        self
    }

    /// Why.
    pub fn error(&self) -> &Error {
        &self.0.error
    }

    /// Why, alone.
    pub fn into_error(self) -> Error {
        self.0.error
    }

    /// What was done until then.
    pub fn report(&self) -> &RunReport {
        &self.0.report
    }

    /// The run, if it can go on.
    pub fn run(&self) -> Option<&Run> {
        self.0.run.as_ref()
    }

    /// The run, if it can go on, and else the error again.
    ///
    /// # Errors
    ///
    /// The error itself, of a run that is over.
    pub fn into_run(mut self) -> Result<Run, Self> {
        self.0.run.take().ok_or(self)
    }
}

impl std::ops::Deref for RunError {
    type Target = Error;

    fn deref(&self) -> &Error {
        &self.0.error
    }
}

impl fmt::Debug for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunError")
            .field("error", &self.0.error)
            .field("steps", &self.0.report.steps)
            .field("can_go_on", &self.0.run.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.error, f)
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0.error)
    }
}
