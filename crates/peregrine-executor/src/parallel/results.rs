//! What became of the calls.

use std::ops::Deref;

use super::Policy;

/// Why a call gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// It failed by itself.
    #[error("{0}")]
    Failed(E),
    /// It panicked with this message, at most 1 KiB of it.
    #[error("the call panicked: {0}")]
    Panicked(String),
    /// The policy stopped it, or it was never begun.
    #[error("the call was cancelled because the others had decided the outcome")]
    Cancelled,
}

/// The result of every call, in the order of the calls: a slice that knows its policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Results<T, E> {
    results: Vec<Result<T, CallError<E>>>,
    policy: Policy,
}

impl<T, E> Results<T, E> {
    pub(super) fn new(results: Vec<Result<T, CallError<E>>>, policy: Policy) -> Self {
        Self { results, policy }
    }

    /// Whether the policy was met: every call succeeded, or enough of them for a quorum.
    pub fn is_success(&self) -> bool {
        match self.policy {
            Policy::CollectAll | Policy::FailFast => self.results.iter().all(Result::is_ok),
            Policy::Quorum(enough) => self.results.iter().filter(|result| result.is_ok()).count() >= enough,
        }
    }

    /// The results as they are.
    pub fn into_vec(self) -> Vec<Result<T, CallError<E>>> {
        self.results
    }

    /// The values of the calls that succeeded, in the order of the calls.
    ///
    /// # Errors
    ///
    /// Where the policy was not met: the error of the first call, in the order of the calls, that failed by itself.
    /// Where none did and there were too few calls for a quorum, [`CallError::Cancelled`].
    pub fn into_values(self) -> Result<Vec<T>, CallError<E>> {
        let met = self.is_success();
        let mut values = Vec::with_capacity(self.results.len());
        let mut failure = None;
        for result in self.results {
            match result {
                Ok(value) => values.push(value),
                Err(error) if matches!(failure, None | Some(CallError::Cancelled)) => failure = Some(error),
                Err(_) => {}
            }
        }
        if met {
            Ok(values)
        } else {
            Err(failure.unwrap_or(CallError::Cancelled))
        }
    }
}

impl<T, E> Deref for Results<T, E> {
    type Target = [Result<T, CallError<E>>];

    fn deref(&self) -> &Self::Target {
        &self.results
    }
}

impl<T, E> IntoIterator for Results<T, E> {
    type Item = Result<T, CallError<E>>;
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.results.into_iter()
    }
}
