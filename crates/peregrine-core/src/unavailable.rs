//! The error of layers that hold calls back: what is not to be had for now, and when it may be.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use crate::ErrorKind;
use crate::error::Source;

/// This side has no answer for now, and knows it: a circuit is open, a limit is reached, every model failed.
///
/// Whoever made it has decided what to do about it, so a layer around it does not try again at once.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Unavailable {
    /// [`ErrorKind::Overloaded`], [`RateLimited`](ErrorKind::RateLimited) or another that fits.
    pub kind: ErrorKind,
    /// When asking again may help, if that is known.
    pub retry_after: Option<Duration>,
    /// Why there is no answer.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<Source>,
}

impl Unavailable {
    /// No answer for now, to be treated as `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            retry_after: None,
            message: message.into(),
            source: None,
        }
    }

    /// Says when asking again may help.
    #[must_use]
    pub fn with_retry_after(mut self, wait: impl Into<Option<Duration>>) -> Self {
        self.retry_after = wait.into();
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn what_is_unavailable_for_now_says_for_how_long() {
        let wait = Duration::from_secs(4);
        let error = Error::from(Unavailable::new(ErrorKind::Overloaded, "no").with_retry_after(wait));
        assert_eq!(
            (error.kind(), error.retry_after()),
            (ErrorKind::Overloaded, Some(wait))
        );
        assert!(error.is_retryable() && error.raw().is_none() && error.status().is_none());
    }
}
