//! What can go wrong in a cache, and how callers are to treat it.
//!
//! Invariant: an error of a store never becomes the error of a call. It is counted, reported, and the call goes on
//! without the cache; only whoever uses a store by hand sees these. Types of other libraries stay out of them.

use std::io;
use std::sync::Arc;

/// The result of an operation on a store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Cheap to clone.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store cannot be reached, or refuses.
    #[error("the {store} cache cannot be used: {message}")]
    Unavailable {
        /// Which store.
        store: &'static str,
        /// What it said.
        message: String,
    },
    /// The store did not answer in time.
    #[error("the {store} cache did not answer in time")]
    Timeout {
        /// Which store.
        store: &'static str,
    },
    /// The file system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// What was stored is not what was put there.
    #[error("a stored entry is damaged: {message}")]
    Corrupt {
        /// What is wrong with it.
        message: String,
    },
    /// A value cannot be stored as bytes.
    #[error("a value cannot be stored: {message}")]
    Encode {
        /// Why.
        message: String,
    },
    /// A setting is wrong.
    #[error("the cache is configured wrongly: {message}")]
    Config {
        /// What is wrong with it.
        message: String,
    },
}

/// The kind of an [`Error`]: what a caller branches on, with a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store cannot be reached, or refuses.
    Unavailable,
    /// The store did not answer in time.
    Timeout,
    /// The file system failed.
    Io,
    /// What was stored is not what was put there.
    Corrupt,
    /// A value cannot be stored as bytes.
    Encode,
    /// A setting is wrong.
    Config,
}

impl ErrorKind {
    /// The stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Io => "io",
            Self::Corrupt => "corrupt",
            Self::Encode => "encode",
            Self::Config => "config",
        }
    }
}

impl Error {
    /// The kind.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Io { .. } => ErrorKind::Io,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Encode { .. } => ErrorKind::Encode,
            Self::Config { .. } => ErrorKind::Config,
        }
    }

    /// Whether the same operation may succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Io
        )
    }

    /// Damage, in words.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::Corrupt {
            message: message.into(),
        }
    }

    pub(crate) fn io(what: &'static str, source: io::Error) -> Self {
        Self::Io {
            what,
            source: Arc::new(source),
        }
    }
}
