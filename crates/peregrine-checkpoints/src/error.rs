//! What can go wrong with a journal, and the words by which programs tell the cases apart.
//!
//! Invariant: no error holds a payload, a key or a connection string; what it names is a run, a place in a store and
//! numbers. [`Error::kind`] and [`Error::is_retryable`] are decided where the error arises, never from a message.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::{ErrorKind, RunId, UnixTime};

/// The result of an operation on a journal or a store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Arc<dyn StdError + Send + Sync + 'static>;

/// What went wrong. Cheap to clone, so that one failed commit can be told to all who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The run is not in this store, or not in this scope.
    #[error("there is no run {run} in this scope")]
    NotFound {
        /// The run.
        run: RunId,
    },
    /// A run of this id is already there.
    #[error("the run {run} already exists; resume it, or choose another id")]
    AlreadyExists {
        /// The run.
        run: RunId,
    },
    /// Somebody else is writing this run.
    #[error("the run {run} is held by {}; try again when it is done", HolderOr(holder))]
    Leased {
        /// The run.
        run: RunId,
        /// Who holds it, where that is known.
        holder: Option<Box<Holder>>,
    },
    /// Somebody took the run over; this writer may write no more, and what it just tried is not acknowledged.
    #[error("the lease {token} on the run {run} is lost to a later holder; resume the run to go on")]
    Fenced {
        /// The run.
        run: RunId,
        /// The fencing token that is no longer valid.
        token: u64,
    },
    /// The journal does not have the records that were asked for.
    #[error("record {asked} of the run {run} was asked for, it has {first} up to {next}, exclusive")]
    OutOfRange {
        /// The run.
        run: RunId,
        /// What was asked for.
        asked: u64,
        /// The first record there is.
        first: u64,
        /// One past the last record there is.
        next: u64,
    },
    /// Bytes in the middle of a journal, or a part, are not what was written.
    #[error("{0}")]
    Damaged(Box<Damage>),
    /// The journal was written by a later version, in a form that this one does not know.
    #[error("{what} {found} is not known to this version (up to {known} is); use a newer Peregrine")]
    Unsupported {
        /// What is not known: `format version`, `frame flags`, `record kind`.
        what: &'static str,
        /// What was found.
        found: u32,
        /// The latest one that is known.
        known: u32,
    },
    /// Something is larger than the limits allow.
    #[error("{what} of {bytes} bytes is over the limit of {limit}; raise the limit if that is expected")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is, or at least is.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A payload is nested deeper than the limits allow, or a run is forked from a fork too many times.
    #[error("{what} is nested deeper than {limit} levels")]
    TooDeep {
        /// What is too deep.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A value could not be turned into MessagePack.
    #[error("the value could not be encoded: {source}")]
    Encode {
        /// Why.
        source: Source,
    },
    /// A payload is not the value that was asked for.
    #[error("record {seq} (schema {schema}) could not be decoded: {source}")]
    Decode {
        /// The record.
        seq: u64,
        /// Its schema version.
        schema: u32,
        /// Why.
        source: Source,
    },
    /// A payload is encrypted with a key that was not given.
    #[error("the key `{key_id}` is needed to read this journal")]
    MissingKey {
        /// The id of the key.
        key_id: String,
    },
    /// A payload does not open with its key: it was changed, moved from elsewhere, or the key is another one.
    #[error("{what} does not open with the key `{key_id}`: it was altered, or the key is another one")]
    Sealed {
        /// What does not open.
        what: String,
        /// The id of the key.
        key_id: String,
    },
    /// There is no room for another record. Nothing of it was kept; the run can go on when there is.
    #[error("there is no room to {action}: {source}; make room and try again")]
    Full {
        /// What was attempted.
        action: &'static str,
        /// What the system said.
        source: Source,
    },
    /// The store cannot be reached now. What was acknowledged is safe; the run can go on when it is back.
    #[error("the store could not {action}: {source}")]
    Unavailable {
        /// What was attempted.
        action: &'static str,
        /// What the store said.
        source: Source,
    },
    /// The operating system or the database refused.
    #[error("could not {action} {}: {source}", place)]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Where.
        place: String,
        /// What the system said.
        source: Source,
    },
    /// What was asked for makes no sense: an unknown URI, an option that contradicts another.
    #[error("{message}")]
    Config {
        /// What is wrong, and what would help.
        message: String,
    },
}

/// What a damaged place looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The run whose journal it is.
    pub run: RunId,
    /// The file or row.
    pub place: String,
    /// The offset in bytes at which the first damaged frame begins, within the file or row.
    pub offset: u64,
    /// The record that should stand there.
    pub seq: u64,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            run,
            place,
            offset,
            seq,
            why,
        } = self;
        write!(
            f,
            "the journal of the run {run} is damaged at offset {offset} of {place}, where record {seq} should be: \
             {why}; fork the run before it, or restore the file"
        )
    }
}

/// Who holds a lease, as far as it is known: for people, never a basis for decisions.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Holder {
    /// The process id.
    pub process: u32,
    /// The name of the host.
    pub host: String,
    /// Since when.
    pub since: UnixTime,
}

struct HolderOr<'a>(&'a Option<Box<Holder>>);

impl fmt::Display for HolderOr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(holder) => write!(f, "process {} on {}", holder.process, holder.host),
            None => f.write_str("somebody else"),
        }
    }
}

impl Error {
    /// A configuration that makes no sense.
    pub fn config(message: impl Into<String>) -> Self {
        Self::Config {
            message: message.into(),
        }
    }

    /// A store that cannot be reached now.
    pub fn unavailable(action: &'static str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Unavailable {
            action,
            source: Arc::from(source.into()),
        }
    }

    /// An error of the operating system at a place: [`Error::Full`] where it says that there is no room.
    pub fn io(action: &'static str, place: impl fmt::Display, source: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match source.kind() {
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => Self::Full {
                action,
                source: Arc::new(source),
            },
            _ => Self::Io {
                action,
                place: place.to_string(),
                source: Arc::new(source),
            },
        }
    }

    /// The code of this case: what programs branch on and tools print.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::AlreadyExists { .. } => "already_exists",
            Self::Leased { .. } => "leased",
            Self::Fenced { .. } => "fenced",
            Self::OutOfRange { .. } => "out_of_range",
            Self::Damaged(_) => "damaged",
            Self::Unsupported { .. } => "unsupported",
            Self::TooLarge { .. } => "too_large",
            Self::TooDeep { .. } => "too_deep",
            Self::Encode { .. } => "encode",
            Self::Decode { .. } => "decode",
            Self::MissingKey { .. } => "missing_key",
            Self::Sealed { .. } => "sealed",
            Self::Full { .. } => "full",
            Self::Unavailable { .. } => "unavailable",
            Self::Io { .. } => "io",
            Self::Config { .. } => "config",
        }
    }

    /// The nearest kind of the workspace's errors.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AlreadyExists { .. } | Self::OutOfRange { .. } | Self::Encode { .. } => {
                ErrorKind::InvalidRequest
            }
            Self::Leased { .. } | Self::Fenced { .. } => ErrorKind::Refused,
            Self::Damaged(_) | Self::Unsupported { .. } | Self::Decode { .. } | Self::TooDeep { .. } => {
                ErrorKind::Protocol
            }
            Self::TooLarge { .. } => ErrorKind::RequestTooLarge,
            Self::MissingKey { .. } => ErrorKind::MissingCredential,
            Self::Sealed { .. } => ErrorKind::Authentication,
            Self::Unavailable { .. } => ErrorKind::Connection,
            Self::Full { .. } | Self::Io { .. } => ErrorKind::Internal,
            Self::Config { .. } => ErrorKind::Config,
        }
    }

    /// Whether the same call may succeed later without a change by the caller.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Leased { .. } | Self::Full { .. } | Self::Unavailable { .. }
        )
    }

    /// How long to wait before that; stores do not say.
    pub fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// An error that says where in a journal it is.
    pub(crate) fn damaged(run: RunId, place: &str, offset: u64, seq: u64, why: &'static str) -> Self {
        Self::Damaged(Box::new(Damage {
            run,
            place: place.to_owned(),
            offset,
            seq,
            why,
        }))
    }
}

impl From<Error> for peregrine_core::Error {
    fn from(error: Error) -> Self {
        Self::layer(error.kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_small_and_can_be_shared() {
        fn shareable<T: Send + Sync + Clone + 'static>() {}
        shareable::<Error>();
        assert!(size_of::<Error>() <= 64, "{}", size_of::<Error>());
    }

    #[test]
    fn a_full_disk_is_told_from_other_refusals() {
        let full = Error::io("append", "f", io::Error::from(io::ErrorKind::StorageFull));
        assert!(full.is_retryable() && full.code() == "full", "{full}");
        let refused = Error::io("append", "f", io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(!refused.is_retryable() && refused.code() == "io", "{refused}");
    }
}
