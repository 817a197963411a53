//! What can go wrong.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::{Abandoned, Interrupted};

/// What can go wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// It was interrupted, as it should be.
    Interrupted(Interrupted),
    /// It did not stop when it should have, and runs on unseen.
    Abandoned(Abandoned),
    /// Signals cannot be listened to.
    Signals {
        /// What the operating system says.
        source: io::Error,
    },
    /// A child process could not be started or waited for.
    Process {
        /// What was attempted: `start` or `wait for`, and the program.
        attempt: String,
        /// What the operating system says.
        source: io::Error,
    },
}

/// An [`Error`] without what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// [`Error::Interrupted`].
    Interrupted,
    /// [`Error::Abandoned`].
    Abandoned,
    /// [`Error::Signals`].
    Signals,
    /// [`Error::Process`].
    Process,
}

impl Error {
    /// Which error it is.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Interrupted(_) => ErrorKind::Interrupted,
            Self::Abandoned(_) => ErrorKind::Abandoned,
            Self::Signals { .. } => ErrorKind::Signals,
            Self::Process { .. } => ErrorKind::Process,
        }
    }

    /// Whether the same may work later: only where the operating system lacks something for the moment.
    pub fn is_retryable(&self) -> bool {
        use io::ErrorKind::{Interrupted, OutOfMemory, WouldBlock};
        match self {
            Self::Interrupted(_) | Self::Abandoned(_) => false,
            Self::Signals { source } | Self::Process { source, .. } => {
                matches!(source.kind(), WouldBlock | OutOfMemory | Interrupted)
            }
        }
    }

    /// The interrupt behind it, if there is one.
    pub const fn interrupted(&self) -> Option<&Interrupted> {
        match self {
            Self::Interrupted(interrupted) => Some(interrupted),
            Self::Abandoned(abandoned) => Some(&abandoned.interrupted),
            Self::Signals { .. } | Self::Process { .. } => None,
        }
    }
}

impl From<Interrupted> for Error {
    fn from(interrupted: Interrupted) -> Self {
        Self::Interrupted(interrupted)
    }
}

impl From<Abandoned> for Error {
    fn from(abandoned: Abandoned) -> Self {
        Self::Abandoned(abandoned)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted(interrupted) => interrupted.fmt(f),
            Self::Abandoned(abandoned) => abandoned.fmt(f),
            Self::Signals { .. } => f.write_str("cannot listen to signals"),
            Self::Process { attempt, .. } => write!(f, "cannot {attempt}"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Interrupted(interrupted) => interrupted.source(),
            Self::Abandoned(abandoned) => abandoned.source(),
            Self::Signals { source } | Self::Process { source, .. } => Some(source),
        }
    }
}
