//! Why a request is not let through.

use std::fmt;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quantity {
    /// Requests.
    Requests,
    /// Tokens.
    Tokens,
}

impl Quantity {
    pub(crate) const ALL: [Self; 2] = [Self::Requests, Self::Tokens];
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        })
    }
}

/// Why a request is not let through. Waiting is no error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request asks for more than a whole minute has: it would wait for ever.
    #[error(
        "the request asks for {asked} {quantity}, a minute has {limit}; make it smaller or raise the limit"
    )]
    TooLarge {
        /// What it asks for too much of.
        quantity: Quantity,
        /// How much it asks for.
        asked: u64,
        /// How much a minute has.
        limit: u64,
    },
    /// As many wait as may.
    #[error("{waiting} requests wait already, which is as many as may; try again later or allow more")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// The limits make no sense.
    #[error("the limits make no sense: {message}")]
    Config {
        /// What is wrong, and what would be right.
        message: String,
    },
}

/// What a caller branches on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// [`Error::TooLarge`].
    TooLarge,
    /// [`Error::QueueFull`].
    QueueFull,
    /// [`Error::Config`].
    Config,
}

impl Error {
    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::QueueFull { .. } => ErrorKind::QueueFull,
            Self::Config { .. } => ErrorKind::Config,
        }
    }

    /// Whether the same request may be let through later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::QueueFull { .. })
    }
}
