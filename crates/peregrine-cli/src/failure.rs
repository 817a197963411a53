//! What can go wrong in a command: in words for a person, as a code for a program, and as an exit status.

use std::fmt;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use peregrine::agent::{Error as AgentError, LimitReached, Resource};
use peregrine::cache::{Error as CacheError, ErrorKind as CacheErrorKind};
use peregrine::checkpoints::Error as StoreError;
use peregrine::interrupts::Signal;
use peregrine::{Error, ErrorKind, Finish};

/// The status of a command that found what it looks for: nothing failed, but a script must see it.
pub(crate) const FOUND: u8 = 3;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A model could not be chosen, called or understood.
    Model(Error),
    /// A bound of the run was met.
    Limit(Limit),
    /// A store of runs, or a run in it.
    Store(StoreError),
    /// A store of answers.
    Cache(CacheError),
    /// Something on this side: a path, standard input, a file.
    Local { kind: ErrorKind, message: String },
    /// The model ended without an answer.
    NoAnswer { finish: Finish, said: String },
    /// The reader of standard output went away.
    BrokenPipe,
    /// Standard output could not be written.
    Output(io::Error),
    /// Ctrl-C, or another signal.
    Interrupted(Option<Signal>),
}

/// A bound that a run met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Limit {
    Steps(u64),
    ToolCalls(u64),
    ToolOutput(u64),
    WallTime(Duration),
    /// One that no option of the command line sets.
    Other(LimitReached),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(max) => write!(
                f,
                "the model had not answered after {max} steps; raise --max-steps or ask more narrowly"
            ),
            Self::ToolCalls(max) => write!(
                f,
                "the model asked for more than {max} tool calls; ask more narrowly"
            ),
            Self::ToolOutput(max) => write!(
                f,
                "the tools returned more than {} KiB; ask more narrowly or give fewer paths",
                max >> 10
            ),
            Self::WallTime(max) => write!(f, "no answer within {} s; raise --timeout", max.as_secs_f64()),
            Self::Other(reached) => reached.fmt(f),
        }
    }
}

impl From<LimitReached> for Limit {
    fn from(reached: LimitReached) -> Self {
        match reached.resource {
            Resource::Steps => Self::Steps(reached.limit),
            Resource::ToolCalls => Self::ToolCalls(reached.limit),
            Resource::ToolOutput => Self::ToolOutput(reached.limit),
            Resource::WallTime => Self::WallTime(Duration::from_millis(reached.limit)),
            _ => Self::Other(reached),
        }
    }
}

impl Failure {
    /// Something that the command itself is to blame for.
    pub(crate) fn internal(message: &str) -> Self {
        Self::Local {
            kind: ErrorKind::Internal,
            message: message.to_owned(),
        }
    }

    /// A failure to open something.
    pub(crate) fn io(error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::InvalidRequest,
        };
        Self::Local {
            kind,
            message: error.to_string(),
        }
    }

    /// The stable code.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Model(error) => error.kind(),
            Self::Limit(Limit::WallTime(_)) => ErrorKind::Timeout,
            Self::Limit(_) => ErrorKind::Refused,
            Self::Store(error) => error.kind(),
            Self::Cache(error) => match error.kind() {
                CacheErrorKind::Unavailable => ErrorKind::Connect,
                CacheErrorKind::Timeout => ErrorKind::Timeout,
                CacheErrorKind::Config => ErrorKind::Config,
                _ => ErrorKind::Internal,
            },
            Self::Local { kind, .. } => *kind,
            Self::NoAnswer {
                finish: Finish::ContentFilter,
                ..
            } => ErrorKind::ContentFilter,
            Self::NoAnswer { .. } => ErrorKind::Protocol,
            Self::BrokenPipe | Self::Output(_) => ErrorKind::Internal,
            Self::Interrupted(_) => ErrorKind::Cancelled,
        }
    }

    /// Whether the same command may succeed later.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Model(error) => error.is_retryable(),
            Self::Limit(_) => false,
            Self::Store(error) => error.is_retryable(),
            Self::Cache(error) => error.is_retryable(),
            other => other.kind().is_retryable(),
        }
    }

    /// How long the provider asked to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Model(error) => error.retry_after(),
            _ => None,
        }
    }

    /// The provider's id of the request.
    pub(crate) fn request_id(&self) -> Option<&str> {
        match self {
            Self::Model(error) => error.request_id(),
            _ => None,
        }
    }

    /// The store's own, finer code.
    pub(crate) fn cause(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => Some(error.code()),
            Self::Cache(error) => Some(error.kind().code()),
            _ => None,
        }
    }

    /// What to try, where the message does not say it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        if let Self::Store(error) = self {
            return store_hint(error);
        }
        if let Self::Cache(_) = self {
            return Some(
                "see that the cache is where --cache-dir or --cache-url says, and that it can be written",
            );
        }
        Some(match self.kind() {
            ErrorKind::Connect => "see what is reachable with: peregrine models",
            ErrorKind::Authentication => "check the key in the provider's variable",
            ErrorKind::RateLimited | ErrorKind::Overloaded => {
                "try again later, or choose another model with --model"
            }
            ErrorKind::ContextLength => {
                "give fewer paths, or choose a model with a longer context with --model"
            }
            ErrorKind::NotFound if matches!(self, Self::Model(_)) => {
                "see which models there are with: peregrine models"
            }
            _ => return None,
        })
    }

    /// The status that the program exits with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::BrokenPipe => ExitCode::SUCCESS,
            // As a shell says it of a program that a signal ended: 128 and the number.
            Self::Interrupted(Some(Signal::Terminate)) => ExitCode::from(143),
            Self::Interrupted(_) => ExitCode::from(130),
            _ => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(error) => error.fmt(f),
            Self::Limit(limit) => write!(f, "stopped: {limit}"),
            Self::Store(error) => error.fmt(f),
            Self::Cache(error) => error.fmt(f),
            Self::Local { message, .. } => f.write_str(message),
            Self::NoAnswer { finish, said } if said.is_empty() => {
                write!(f, "the model ended without an answer (finish: {finish})")
            }
            Self::NoAnswer { finish, said } => write!(f, "the model declined (finish: {finish}): {said}"),
            Self::BrokenPipe => f.write_str("nobody reads the output"),
            Self::Output(error) => write!(f, "could not write the output: {error}"),
            Self::Interrupted(_) => f.write_str("interrupted"),
        }
    }
}

fn store_hint(error: &StoreError) -> Option<&'static str> {
    Some(match error {
        StoreError::NotFound { .. } => {
            "see which runs there are with: peregrine runs list; --scope, --dir and --database-url say where to look"
        }
        StoreError::AlreadyExists { .. } => "import it under another id with --as new",
        StoreError::OutOfRange { .. } => "see the records of a run with: peregrine runs show",
        StoreError::Damaged(_) => "see what is left with: peregrine runs show",
        StoreError::MissingKey { .. } | StoreError::Sealed { .. } => {
            "this command has no keys; look at the run with the program that wrote it"
        }
        StoreError::Unavailable { .. } => {
            "see that the database is there, and that the name and the password in its URL are right"
        }
        _ => return None,
    })
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        Self::Cache(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Model(error)
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Model(error) => Self::Model(error),
            AgentError::Limit(reached) => Self::Limit(reached.into()),
            AgentError::Interrupted(_) => Self::Interrupted(None),
            AgentError::Checkpoints(error) => Self::Store(error),
            AgentError::Diverged(divergence) => Self::Local {
                kind: ErrorKind::Protocol,
                message: divergence.to_string(),
            },
            AgentError::InDoubt(_) => Self::Local {
                kind: ErrorKind::Refused,
                message: error.to_string(),
            },
            AgentError::Config(problem) => Self::Local {
                kind: ErrorKind::InvalidRequest,
                message: problem.to_string(),
            },
            // Of what the command does not use: signatures, guards, memories, windows, tools that end a run.
            other => Self::internal(&other.to_string()),
        }
    }
}

impl From<io::Error> for Failure {
    /// For errors of standard output.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Output(error),
        }
    }
}
