//! Errors of calls to models, and the words by which programs tell them apart.
//!
//! Invariant: [`Error::kind`], [`Error::is_retryable`] and [`Error::retry_after`] are decided from status,
//! headers and codes where the error arises, never from the text of a message. No error holds a credential
//! or a prompt; a provider's own message is kept as it came, with the credential blotted out.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{RawResponse, Unavailable};

/// The result of a call to a model.
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) type Source = Arc<dyn StdError + Send + Sync + 'static>;

/// What went wrong with a call. Cheap to clone, so that one failure can be told to everyone who waits.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The provider answered with an error.
    #[error(transparent)]
    Provider(Arc<ProviderError>),
    /// The provider could not be reached, or the connection broke or stalled.
    #[error(transparent)]
    Transport(Arc<TransportError>),
    /// What came back is not what the protocol promises.
    #[error(transparent)]
    Protocol(Arc<ProtocolError>),
    /// The request cannot be sent as it stands.
    #[error(transparent)]
    InvalidRequest(Arc<InvalidRequest>),
    /// Something is not configured, or configured wrongly.
    #[error(transparent)]
    Config(Arc<ConfigError>),
    /// This side has no answer for now, and knows it: a circuit is open, a limit is reached, every model failed.
    #[error(transparent)]
    Unavailable(Arc<Unavailable>),
    /// The call was cancelled from this side.
    #[error("the call was cancelled")]
    Cancelled,
    /// A layer's own error.
    #[error("{source}")]
    Layer {
        /// How callers are to treat it.
        kind: ErrorKind,
        /// The error.
        source: Source,
    },
}

/// The kind of an error: what a caller branches on, and the stable code that tools print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is malformed, or asks for what the model cannot do.
    InvalidRequest,
    /// The prompt is longer than the model's context.
    ContextLength,
    /// The request is larger than the provider takes.
    RequestTooLarge,
    /// The credential is missing.
    MissingCredential,
    /// The credential is wrong.
    Authentication,
    /// The credential does not allow this.
    PermissionDenied,
    /// The model, address or file does not exist.
    NotFound,
    /// The provider withheld the request or the answer.
    ContentFilter,
    /// Too many requests or tokens for now.
    RateLimited,
    /// The account has no money or quota left; waiting does not help.
    QuotaExceeded,
    /// The provider is overloaded.
    Overloaded,
    /// The provider failed.
    Server,
    /// The provider answered with something else that is not a success.
    UnexpectedStatus,
    /// No connection could be made.
    Connect,
    /// The connection broke.
    Connection,
    /// A time limit of this side ran out.
    Timeout,
    /// The provider redirects to another origin, or without end.
    Redirect,
    /// The bytes are not what the protocol promises.
    Protocol,
    /// The answer ended before its end.
    Truncated,
    /// The answer, or one event of it, is larger than allowed.
    ResponseTooLarge,
    /// A configuration is wrong.
    Config,
    /// No recording fits the request.
    NoRecording,
    /// This side cancelled the call.
    Cancelled,
    /// This side's own limit or budget refused the call.
    Refused,
    /// Something of this side failed that should not have.
    Internal,
}

impl ErrorKind {
    /// The stable code, such as `rate_limited`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::ContextLength => "context_length",
            Self::RequestTooLarge => "request_too_large",
            Self::MissingCredential => "missing_credential",
            Self::Authentication => "authentication",
            Self::PermissionDenied => "permission_denied",
            Self::NotFound => "not_found",
            Self::ContentFilter => "content_filter",
            Self::RateLimited => "rate_limited",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Overloaded => "overloaded",
            Self::Server => "server",
            Self::UnexpectedStatus => "unexpected_status",
            Self::Connect => "connect",
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Redirect => "redirect",
            Self::Protocol => "protocol",
            Self::Truncated => "truncated",
            Self::ResponseTooLarge => "response_too_large",
            Self::Config => "config",
            Self::NoRecording => "no_recording",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Internal => "internal",
        }
    }

    /// Whether the same request may succeed later, as far as the kind alone tells.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::Overloaded
                | Self::Server
                | Self::Connect
                | Self::Connection
                | Self::Timeout
                | Self::Truncated
        )
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Error {
    /// The answer ended before its end.
    pub fn truncated(message: impl Into<String>) -> Self {
        ProtocolError {
            kind: ErrorKind::Truncated,
            ..ProtocolError::new(message)
        }
        .into()
    }

    /// A request that cannot be sent as it stands.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        InvalidRequest {
            message: message.into(),
        }
        .into()
    }

    /// A layer's own error, to be treated as `kind`.
    pub fn layer(kind: ErrorKind, source: impl StdError + Send + Sync + 'static) -> Self {
        Self::Layer {
            kind,
            source: Arc::new(source),
        }
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Provider(error) => error.kind,
            Self::Transport(error) => error.kind,
            Self::Protocol(error) => error.kind,
            Self::InvalidRequest(_) => ErrorKind::InvalidRequest,
            Self::Config(error) => error.kind,
            Self::Unavailable(error) => error.kind,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Layer { kind, .. } => *kind,
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Provider(error) => error.retryable,
            other => other.kind().is_retryable(),
        }
    }

    /// How long the provider, or the layer that has no answer for now, asked to wait. Not bounded: whoever waits
    /// decides how long at most.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Provider(error) => error.retry_after,
            Self::Unavailable(error) => error.retry_after,
            _ => None,
        }
    }

    /// The HTTP status, if the provider answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Provider(error) => Some(error.status),
            Self::Protocol(error) => error.raw.as_ref().map(RawResponse::status),
            _ => None,
        }
    }

    /// The provider's id of the request, for its support.
    pub fn request_id(&self) -> Option<&str> {
        self.raw().and_then(RawResponse::request_id)
    }

    /// What the provider sent, if it answered.
    pub fn raw(&self) -> Option<&RawResponse> {
        match self {
            Self::Provider(error) => error.raw.as_ref(),
            Self::Protocol(error) => error.raw.as_ref(),
            _ => None,
        }
    }
}

/// The provider answered with an error: as the status, as a body in a success, or in the middle of a stream.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProviderError {
    /// Its kind.
    pub kind: ErrorKind,
    /// Whether the provider, or the status, says that trying again may help.
    pub retryable: bool,
    /// How long the provider asked to wait.
    pub retry_after: Option<Duration>,
    /// Who answered, such as `openai`.
    pub provider: String,
    /// The HTTP status; 200 for an error that came inside a success.
    pub status: u16,
    /// The provider's own code or type, such as `insufficient_quota`.
    pub code: Option<String>,
    /// The provider's own message.
    pub message: String,
    /// What the provider sent.
    pub raw: Option<RawResponse>,
}

impl ProviderError {
    /// An error of a kind, retryable as the kind says.
    pub fn new(
        provider: impl Into<String>,
        status: u16,
        kind: ErrorKind,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            retryable: kind.is_retryable(),
            retry_after: None,
            provider: provider.into(),
            status,
            code: None,
            message: message.into(),
            raw: None,
        }
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            provider,
            status,
            code,
            message,
            raw,
            ..
        } = self;
        write!(f, "{provider} answered {status} ({kind}")?;
        if let Some(code) = code.as_ref().filter(|code| code.as_str() != kind.code()) {
            write!(f, ", {code}")?;
        }
        write!(f, "): {message}")?;
        match raw.as_ref().and_then(RawResponse::request_id) {
            Some(id) => write!(f, " [request {id}]"),
            None => Ok(()),
        }
    }
}

impl StdError for ProviderError {}

/// The time limits of a call, by what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimeoutStage {
    /// A connection.
    Connect,
    /// The first byte of the answer.
    FirstByte,
    /// More of an answer that had begun.
    Idle,
    /// The whole call.
    Total,
}

impl fmt::Display for TimeoutStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "for a connection",
            Self::FirstByte => "for the first byte of the answer",
            Self::Idle => "for more of the answer",
            Self::Total => "for the whole answer",
        })
    }
}

/// The provider could not be reached, or the connection broke or stalled.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct TransportError {
    /// [`ErrorKind::Connect`], [`Connection`](ErrorKind::Connection), [`Timeout`](ErrorKind::Timeout) or
    /// [`Redirect`](ErrorKind::Redirect).
    pub kind: ErrorKind,
    /// What was waited for, with [`ErrorKind::Timeout`].
    pub stage: Option<TimeoutStage>,
    /// What was attempted, and what would help.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<Source>,
}

impl TransportError {
    /// A failed connection or transfer.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            stage: None,
            message: message.into(),
            source: None,
        }
    }

    /// A time limit that ran out.
    pub fn timeout(stage: TimeoutStage, limit: Duration, provider: &str) -> Self {
        let message = format!("waited {limit:?} {stage} from {provider}; raise the limit or try again later");
        Self {
            stage: Some(stage),
            ..Self::new(ErrorKind::Timeout, message)
        }
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

/// What came back is not what the protocol promises.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct ProtocolError {
    /// [`ErrorKind::Protocol`], [`Truncated`](ErrorKind::Truncated) or
    /// [`ResponseTooLarge`](ErrorKind::ResponseTooLarge).
    pub kind: ErrorKind,
    /// What is wrong, and where.
    pub message: String,
    /// What the provider sent.
    pub raw: Option<RawResponse>,
    /// The cause.
    #[source]
    pub source: Option<Source>,
}

impl ProtocolError {
    /// Bytes that are not what the protocol promises.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Protocol,
            message: message.into(),
            raw: None,
            source: None,
        }
    }

    /// An answer or event that is larger than allowed.
    pub fn too_large(what: &str, limit_bytes: usize) -> Self {
        let message =
            format!("{what} has more than {limit_bytes} bytes; raise the limit if that is expected");
        Self {
            kind: ErrorKind::ResponseTooLarge,
            ..Self::new(message)
        }
    }

    /// An answer with more pieces than allowed.
    pub fn too_many(what: &str, limit: usize) -> Self {
        let kind = ErrorKind::ResponseTooLarge;
        Self {
            kind,
            ..Self::new(format!("there are more than {limit} {what}"))
        }
    }

    /// Keeps what the provider sent.
    #[must_use]
    pub fn with_raw(mut self, raw: RawResponse) -> Self {
        self.raw = Some(raw);
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

/// A request that cannot be sent as it stands.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct InvalidRequest {
    /// What is wrong with it, and what would help.
    pub message: String,
}

/// Something is not configured, or configured wrongly.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct ConfigError {
    /// [`ErrorKind::Config`], [`MissingCredential`](ErrorKind::MissingCredential) or another that fits.
    pub kind: ErrorKind,
    /// What is missing or wrong, and where to put it right.
    pub message: String,
}

impl ConfigError {
    /// A wrong configuration.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Config,
            message: message.into(),
        }
    }

    /// A credential that is not there.
    pub fn missing_credential(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::MissingCredential,
            message: message.into(),
        }
    }

    /// Nothing recorded fits.
    pub fn no_recording(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::NoRecording,
            message: message.into(),
        }
    }
}

macro_rules! into_error {
    ($($name:ident => $variant:ident),*) => {$(
        impl From<$name> for Error {
            fn from(error: $name) -> Self {
                Self::$variant(Arc::new(error))
            }
        }
    )*};
}

into_error!(
    ProviderError => Provider,
    TransportError => Transport,
    ProtocolError => Protocol,
    InvalidRequest => InvalidRequest,
    ConfigError => Config,
    Unavailable => Unavailable
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_serialised_names() {
        for kind in [
            ErrorKind::InvalidRequest,
            ErrorKind::RateLimited,
            ErrorKind::NoRecording,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.code());
        }
    }

    #[test]
    fn an_error_is_small_and_can_be_shared() {
        fn shareable<T: Send + Sync + Clone + 'static>() {}
        shareable::<Error>();
        assert!(size_of::<Error>() <= 32, "{}", size_of::<Error>());
    }

    #[test]
    fn a_provider_error_tells_what_a_person_needs() {
        let mut error = ProviderError::new("openai", 429, ErrorKind::QuotaExceeded, "no credit");
        error.code = Some("insufficient_quota".to_owned());
        let headers = vec![("x-request-id".to_owned(), "req-9".to_owned())];
        error.raw = Some(RawResponse::new(429, headers, Vec::new()));
        let error = Error::from(error);
        assert_eq!(
            error.to_string(),
            "openai answered 429 (quota_exceeded, insufficient_quota): no credit [request req-9]"
        );
        assert!(!error.is_retryable());
        assert_eq!((error.status(), error.request_id()), (Some(429), Some("req-9")));
    }
}
