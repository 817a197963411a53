//! How a call of a tool can fail, and how a set of tools can be wrong.
//!
//! Invariant: what the model may see of an error is [`ToolError::for_model`] and nothing else. `Display` and `Debug`
//! are for people and logs: they hold no arguments.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::{ToolCall, ToolResult};
use serde::{Deserialize, Serialize};

use crate::schema::{Problem, SchemaError, excerpt};

type Source = Arc<dyn StdError + Send + Sync + 'static>;

/// How many names are told to a model that asked for a tool that is not there.
const MAX_NAMES: usize = 32;

/// Why a call of a tool came to nothing. Cheap to clone.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// The tool failed, and the model is told why: it may try something else.
    #[error("{message}")]
    Failed {
        /// What the model is told.
        message: String,
        /// Whether the same call may succeed later.
        retryable: bool,
    },
    /// Something is wrong that no model can repair. The run must not go on as if nothing had happened.
    #[error("{message}")]
    Fatal {
        /// What is wrong.
        message: String,
        /// The cause.
        #[source]
        source: Option<Source>,
    },
    /// The arguments are not JSON, or do not fit the schema. The tool was not called.
    #[error(transparent)]
    InvalidArguments(Arc<InvalidArguments>),
    /// There is no such tool.
    #[error("no tool is called `{}`", excerpt(.tool))]
    NotFound {
        /// The name that was asked for.
        tool: String,
        /// Names of tools that are there, at most 32.
        known: Vec<String>,
    },
    /// The tool may not be called. It was not.
    #[error("the tool `{}` may not be called: {reason}", excerpt(.tool))]
    Refused {
        /// The tool.
        tool: String,
        /// Why not.
        reason: String,
    },
    /// The tool took longer than it may, and was stopped.
    #[error("the tool `{tool}` took longer than {limit:?} and was stopped")]
    Timeout {
        /// The tool.
        tool: String,
        /// How long it may take.
        limit: Duration,
    },
    /// The tool panicked.
    #[error("the tool `{tool}` panicked: {message}")]
    Panicked {
        /// The tool.
        tool: String,
        /// What it panicked with.
        message: String,
    },
    /// The call was cancelled from this side.
    #[error("the call was cancelled")]
    Cancelled,
}

impl ToolError {
    /// The tool failed, and the model is told why, in these words.
    ///
    /// # Examples
    ///
    /// ```
    /// use peregrine_tools::ToolError;
    ///
    /// fn read(path: &str) -> Result<String, ToolError> {
    ///     std::fs::read_to_string(path).map_err(ToolError::model)
    /// }
    /// assert!(read("/no/such/file").unwrap_err().for_model().is_some());
    /// ```
    pub fn model(message: impl fmt::Display) -> Self {
        Self::Failed {
            message: full(&message),
            retryable: false,
        }
    }

    /// Like [`model`](Self::model), for what may succeed if it is tried again later.
    pub fn temporary(message: impl fmt::Display) -> Self {
        Self::Failed {
            message: full(&message),
            retryable: true,
        }
    }

    /// Something is wrong that no model can repair: the run ends.
    pub fn fatal(message: impl fmt::Display) -> Self {
        Self::Fatal {
            message: full(&message),
            source: None,
        }
    }

    /// Keeps the cause of a fatal error; the others have none.
    #[must_use]
    pub fn with_source(mut self, cause: impl StdError + Send + Sync + 'static) -> Self {
        if let Self::Fatal { source, .. } = &mut self {
            *source = Some(Arc::new(cause));
        }
        self
    }

    pub(crate) fn invalid(tool: &str, problems: Vec<Problem>) -> Self {
        Self::InvalidArguments(Arc::new(InvalidArguments {
            tool: tool.to_owned(),
            problems,
        }))
    }

    pub(crate) fn not_found<'a>(tool: &str, known: impl Iterator<Item = &'a str>) -> Self {
        Self::NotFound {
            tool: tool.to_owned(),
            known: known.take(MAX_NAMES).map(str::to_owned).collect(),
        }
    }

    /// The kind.
    pub fn kind(&self) -> ToolErrorKind {
        match self {
            Self::Failed { .. } => ToolErrorKind::Failed,
            Self::Fatal { .. } => ToolErrorKind::Fatal,
            Self::InvalidArguments(_) => ToolErrorKind::InvalidArguments,
            Self::NotFound { .. } => ToolErrorKind::NotFound,
            Self::Refused { .. } => ToolErrorKind::Refused,
            Self::Timeout { .. } => ToolErrorKind::Timeout,
            Self::Panicked { .. } => ToolErrorKind::Panicked,
            Self::Cancelled => ToolErrorKind::Cancelled,
        }
    }

    /// Whether the same call may succeed later. Whether it may be repeated at all is said by the tool's
    /// [`Effect`](crate::Effect).
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Failed { retryable, .. } => *retryable,
            Self::Timeout { .. } => true,
            _ => false,
        }
    }

    /// Whether the run must end.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Fatal { .. })
    }

    /// What the model is told, so that it can do better; `None` if it is not to be told anything, because the run does
    /// not go on.
    pub fn for_model(&self) -> Option<String> {
        match self {
            Self::Fatal { .. } | Self::Cancelled => None,
            Self::InvalidArguments(invalid) => Some(invalid.for_model()),
            Self::NotFound { known, .. } if known.is_empty() => Some(format!("{self}; there are none")),
            Self::NotFound { known, .. } => Some(format!("{self}; there are `{}`", known.join("`, `"))),
            // What it panicked with is about this program and may be secret.
            Self::Panicked { tool, .. } => Some(format!("the tool `{tool}` failed unexpectedly")),
            Self::Failed { .. } | Self::Refused { .. } | Self::Timeout { .. } => Some(self.to_string()),
        }
    }

    /// The result as the model sees it; `None` as for [`for_model`](Self::for_model).
    pub fn to_result(&self, call: &ToolCall) -> Option<ToolResult> {
        self.for_model().map(|text| ToolResult::error(call, text))
    }
}

/// An error with its causes, where its alternate form has them.
fn full(message: &impl fmt::Display) -> String {
    format!("{message:#}")
}

/// The kind of a [`ToolError`]: what a caller branches on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolErrorKind {
    /// The tool failed in a way that the model may repair.
    Failed,
    /// The run must end.
    Fatal,
    /// The arguments are not JSON, or do not fit the schema.
    InvalidArguments,
    /// There is no such tool.
    NotFound,
    /// The tool may not be called.
    Refused,
    /// The tool took too long.
    Timeout,
    /// The tool panicked.
    Panicked,
    /// The call was cancelled.
    Cancelled,
}

impl ToolErrorKind {
    /// The stable code, such as `invalid_arguments`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Fatal => "fatal",
            Self::InvalidArguments => "invalid_arguments",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Panicked => "panicked",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for ToolErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Arguments that a tool does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidArguments {
    /// The tool.
    pub tool: String,
    /// What is wrong with them; never empty.
    pub problems: Vec<Problem>,
}

impl InvalidArguments {
    fn for_model(&self) -> String {
        let lines = self
            .problems
            .iter()
            .map(|problem| format!("\n- {}", problem.for_model()));
        format!(
            "cannot call `{}`, its arguments are not right:{}",
            self.tool,
            lines.collect::<String>()
        )
    }
}

impl fmt::Display for InvalidArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot call `{}`: ", self.tool)?;
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl StdError for InvalidArguments {}

/// Why a set of tools is not a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A name that providers do not take.
    #[error("`{}` cannot be the name of a tool: 1 to 64 characters of A-Z, a-z, 0-9, `_` and `-` are expected", excerpt(.name))]
    InvalidName {
        /// The name.
        name: String,
    },
    /// Two tools of one name.
    #[error("there are two tools called `{name}`; rename one of them, or leave it out")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A schema that cannot be enforced.
    #[error("cannot offer the tool `{tool}`: {source}")]
    Schema {
        /// The tool.
        tool: String,
        /// What is wrong with its schema.
        source: SchemaError,
    },
}
