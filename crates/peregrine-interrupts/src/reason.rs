//! Why something was interrupted: by what, where, when.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::name::{Printable, cut};
use crate::tree::Reasons;
use crate::{Mode, Name, Unit};

/// What a scope is around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A whole run: the root of a tree, or one of several that a service stops together.
    Run,
    /// An agent that works for another one.
    Agent,
    /// A call of a tool.
    Tool,
    /// A call of a model.
    ModelCall,
    /// Anything else: a plan, a batch, a process that serves many runs.
    Other,
}

impl Kind {
    /// `run`, `agent`, `tool`, `model call` or `scope`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Agent => "agent",
            Self::Tool => "tool",
            Self::ModelCall => "model call",
            Self::Other => "scope",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which scope.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ScopeInfo {
    /// Counted from 1 in its tree, in the order in which scopes were made; never used again.
    pub id: u64,
    /// What it is around.
    pub kind: Kind,
    /// How whoever made it called it.
    pub name: Name,
}

/// ``tool `search` ``
impl fmt::Display for ScopeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, self.name)
    }
}

/// A signal of the operating system that can interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// `SIGINT`: Ctrl-C.
    Interrupt,
    /// `SIGTERM`: what service managers send first.
    Terminate,
    /// `SIGHUP`: the terminal went away.
    Hangup,
    /// `SIGQUIT`: Ctrl-\.
    Quit,
}

impl Signal {
    /// `SIGINT` and so on.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Hangup => "SIGHUP",
            Self::Quit => "SIGQUIT",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What interrupted.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Source {
    /// Someone who holds the scope or a [`Handle`](crate::Handle): a person, a parent, a program.
    User,
    /// The scope's time was up.
    TimeLimit {
        /// How long it was given.
        limit: Duration,
    },
    /// A budget was used up.
    Budget {
        /// What it counts.
        unit: Unit,
        /// How much was used when it fired.
        used: u64,
        /// How much there was.
        limit: u64,
    },
    /// The operating system.
    Signal(Signal),
    /// A [`Handler`](crate::Handler).
    Handler {
        /// Which one.
        name: Name,
    },
    /// After a graceful interrupt the step was not finished in time.
    Grace {
        /// How long it was given, counted from the graceful interrupt.
        period: Duration,
    },
    /// A [`CancelOnDrop`](crate::CancelOnDrop) was dropped: whoever wanted the result is gone.
    Dropped,
}

impl Source {
    /// A word for labels and logs: `user`, `time_limit`, `budget`, `signal`, `handler`, `grace`, `dropped`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::User => "user",
            Self::TimeLimit { .. } => "time_limit",
            Self::Budget { .. } => "budget",
            Self::Signal(_) => "signal",
            Self::Handler { .. } => "handler",
            Self::Grace { .. } => "grace",
            Self::Dropped => "dropped",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("asked to stop"),
            Self::TimeLimit { limit } => write!(f, "time limit of {limit:?} reached"),
            Self::Budget { unit, used, limit } => write!(f, "budget used up: {used} of {limit} {unit}"),
            Self::Signal(signal) => write!(f, "{signal} received"),
            Self::Handler { name } => write!(f, "handler `{name}` fired"),
            Self::Grace { period } => write!(f, "not finished within the grace period of {period:?}"),
            Self::Dropped => f.write_str("dropped by its owner"),
        }
    }
}

/// A wish to interrupt, as [`Scope::interrupt`](crate::Scope::interrupt) takes and a [`Handler`](crate::Handler) gives it.
///
/// A [`Mode`] is one, too, without a source or detail of its own.
///
/// # Examples
///
/// ```
/// use peregrine_interrupts::{Interrupt, ManualTimer, Mode, Scope};
///
/// let run = Scope::root("run-1", ManualTimer::new());
/// run.interrupt(Interrupt::new(Mode::Graceful).with_detail("the user closed the window"));
/// let interrupted = run.check().unwrap_err();
/// assert_eq!(
///     interrupted.to_string(),
///     "graceful interrupt of run `run-1`: asked to stop: the user closed the window"
/// );
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "nothing is interrupted until a scope is given this"]
pub struct Interrupt {
    pub(crate) mode: Mode,
    pub(crate) source: Option<Source>,
    pub(crate) detail: Option<Arc<str>>,
}

impl Interrupt {
    /// How long a detail can be; what is longer is cut, at a whole character.
    pub const MAX_DETAIL_BYTES: usize = 512;

    /// One from whoever hands it in: [`Source::User`], or the handler it comes from.
    pub const fn new(mode: Mode) -> Self {
        Self {
            mode,
            source: None,
            detail: None,
        }
    }

    /// Says what interrupts.
    pub fn with_source(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Adds what people should read. It ends up in errors, logs and journals: no secrets.
    pub fn with_detail(mut self, detail: impl AsRef<str>) -> Self {
        self.detail = Some(cut(detail.as_ref(), Self::MAX_DETAIL_BYTES).into());
        self
    }
}

impl From<Mode> for Interrupt {
    fn from(mode: Mode) -> Self {
        Self::new(mode)
    }
}

/// Why a scope was interrupted.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Reason {
    /// What was asked for.
    pub mode: Mode,
    /// By what.
    pub source: Source,
    /// The scope that it was aimed at; the one at hand, or one above it.
    pub scope: ScopeInfo,
    /// When, on the monotonic clock: since the tree's root scope was made.
    pub after: Duration,
    /// When, as people count it. The wall clock may jump; nothing is decided by it.
    pub at: SystemTime,
    /// More for people to read; at most [`Interrupt::MAX_DETAIL_BYTES`].
    pub detail: Option<Arc<str>>,
}

/// ``graceful interrupt of tool `search`: time limit of 30s reached``, and the detail if there is one.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} interrupt of {}: {}", self.mode, self.scope, self.source)?;
        match &self.detail {
            Some(detail) => write!(f, ": {}", Printable(detail)),
            None => Ok(()),
        }
    }
}

/// The error of everything that was interrupted: the reasons that a scope has so far. Cheap to clone.
///
/// The first reason is never replaced. If a scope was told to stop gracefully and then immediately, the second reason
/// is the [escalation](Self::escalation); after that nothing changes any more.
///
/// # Examples
///
/// ```
/// use peregrine_interrupts::{Interrupt, ManualTimer, Mode, Scope, Signal, Source};
///
/// let run = Scope::root("run-1", ManualTimer::new());
/// run.interrupt(Mode::Graceful);
/// run.interrupt(Interrupt::new(Mode::Immediate).with_source(Source::Signal(Signal::Interrupt)));
/// run.interrupt(Interrupt::new(Mode::Immediate).with_detail("too late to matter"));
///
/// let interrupted = run.check().unwrap_err();
/// assert_eq!(interrupted.mode(), Mode::Immediate);
/// assert_eq!(interrupted.reason().source, Source::User);
/// assert_eq!(interrupted.escalation().unwrap().source, Source::Signal(Signal::Interrupt));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Interrupted {
    first: Arc<Reason>,
    escalation: Option<Arc<Reason>>,
}

impl Interrupted {
    pub(crate) fn of(reasons: Reasons<Arc<Reason>>) -> Self {
        Self {
            first: reasons.first,
            escalation: reasons.escalation,
        }
    }

    /// What is asked for by now.
    pub fn mode(&self) -> Mode {
        self.latest().mode
    }

    /// The first reason.
    pub fn reason(&self) -> &Reason {
        &self.first
    }

    /// Why a graceful interrupt became an immediate one, if it did.
    pub fn escalation(&self) -> Option<&Reason> {
        self.escalation.as_deref()
    }

    /// The reason for [`mode`](Self::mode): the escalation, or else the first.
    pub fn latest(&self) -> &Reason {
        self.escalation().unwrap_or(&self.first)
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        match &self.escalation {
            Some(escalation) => write!(f, "; then {escalation}"),
            None => Ok(()),
        }
    }
}

impl StdError for Interrupted {}
