//! How an action fails.

use std::time::Duration;

/// Why an attempt of an action gave no value, and whether another may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ActionError {
    message: String,
    retryable: Option<bool>,
    retry_after: Option<Duration>,
}

impl ActionError {
    /// Says why, in words for people and models. The message goes into results, journals and reports: no secrets.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            retryable: None,
            retry_after: None,
        }
    }

    /// Whether another attempt may succeed and does no harm. `false` ends the step whatever its retries say; `true`
    /// allows a retry even of what has side effects, because nothing has happened.
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.retryable = Some(retryable);
        self
    }

    /// How long to wait at least before another attempt.
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Why it failed.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether another attempt may succeed, if that was said.
    pub fn retryable(&self) -> Option<bool> {
        self.retryable
    }

    /// How long to wait at least before another attempt, if that was said.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl From<String> for ActionError {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<&str> for ActionError {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}
