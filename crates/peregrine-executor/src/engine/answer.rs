//! An answer that is there, or comes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::EngineError;
use crate::BoxFuture;

/// What an engine answers: at once, without an allocation, or later. Await it.
///
/// # Panics
///
/// When polled again after it has ended.
#[must_use = "an answer does nothing unless awaited"]
pub struct Answer<T>(Inner<T>);

enum Inner<T> {
    Now(Result<T, EngineError>),
    Later(BoxFuture<Result<T, EngineError>>),
    Given,
}

impl<T> Answer<T> {
    /// Known at once.
    pub fn now(answer: Result<T, EngineError>) -> Self {
        Self(Inner::Now(answer))
    }

    /// What is known at once; the answer itself where that is nothing.
    pub(crate) fn into_now(self) -> Result<Result<T, EngineError>, Self> {
        match self.0 {
            Inner::Now(answer) => Ok(answer),
            later => Err(Self(later)),
        }
    }

    /// Known when the future ends.
    pub fn later(answer: impl Future<Output = Result<T, EngineError>> + Send + 'static) -> Self {
        Self(Inner::Later(Box::pin(answer)))
    }
}

// Nothing in it is pinned in place.
impl<T> Unpin for Answer<T> {}

impl<T> Future for Answer<T> {
    type Output = Result<T, EngineError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match std::mem::replace(&mut self.0, Inner::Given) {
            Inner::Now(answer) => answer,
            Inner::Later(mut future) => match future.as_mut().poll(context) {
                Poll::Ready(answer) => answer,
                Poll::Pending => {
                    self.0 = Inner::Later(future);
                    return Poll::Pending;
                }
            },
            Inner::Given => panic!("an answer was polled after it had ended"),
        };
        Poll::Ready(answer)
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.0 {
            Inner::Now(_) => "Answer(now)",
            Inner::Later(_) => "Answer(later)",
            Inner::Given => "Answer(given)",
        })
    }
}
