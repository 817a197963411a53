//! Two calls for the same thing: the first success wins.
//!
//! Invariant: a failure that may heal is not an answer while the other call is still under way; one that cannot heal
//! is, because the other call would fail the same way and be paid for. A call that this side refused to make (its queue is
//! full) says nothing about the other one.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use peregrine_core::{Error, ErrorKind, Result, Timer};

/// Which of the two calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    First,
    Second,
}

/// How a race ended.
pub(super) struct Finish<T> {
    pub(super) winner: Which,
    pub(super) answer: T,
    /// What the other call answered, if it did so in the same moment.
    pub(super) other: Option<T>,
}

/// Waits for `future`, for as long as `delay` at the most; for ever without one.
pub(super) async fn within<T>(
    mut future: Pin<&mut (impl Future<Output = T> + Send)>,
    delay: Option<Duration>,
    timer: &dyn Timer,
) -> Option<T> {
    let Some(delay) = delay else {
        return Some(future.await);
    };
    // What is there at once needs no timer.
    let mut nap = None;
    poll_fn(|cx| {
        if let Poll::Ready(answer) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        let nap = nap.get_or_insert_with(|| timer.sleep(delay));
        nap.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// Waits for the first success of two calls, or for the failure of both: that of the first call then.
pub(super) async fn race<T>(
    mut first: Pin<&mut (impl Future<Output = Result<T>> + Send)>,
    mut second: Pin<&mut (impl Future<Output = Result<T>> + Send)>,
) -> Result<Finish<T>> {
    let (mut first_failed, mut second_failed) = (None, None);
    poll_fn(|cx| {
        if let Poll::Ready(ended) = turn(&mut first, &mut first_failed, second_failed.is_some(), cx) {
            return Poll::Ready(match ended {
                Ok(answer) => Ok(Finish {
                    winner: Which::First,
                    answer,
                    other: last_look(&mut second, second_failed.is_some(), cx),
                }),
                Err(error) => Err(error),
            });
        }
        match turn(&mut second, &mut second_failed, first_failed.is_some(), cx) {
            Poll::Ready(Ok(answer)) => Poll::Ready(Ok(Finish {
                winner: Which::Second,
                answer,
                other: None,
            })),
            Poll::Ready(Err(error)) => Poll::Ready(Err(first_failed.take().unwrap_or(error))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Lets one call go on, unless it has failed already.
fn turn<T>(
    call: &mut Pin<&mut (impl Future<Output = Result<T>> + Send)>,
    failed: &mut Option<Error>,
    other_failed: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<T>> {
    if failed.is_some() {
        return Poll::Pending;
    }
    match call.as_mut().poll(cx) {
        Poll::Ready(Err(error)) if says_little(&error) && !other_failed => {
            *failed = Some(error);
            Poll::Pending
        }
        ended => ended,
    }
}

/// Whether the other call may still succeed.
fn says_little(error: &Error) -> bool {
    error.is_retryable() || error.kind() == ErrorKind::Refused
}

/// What a call that lost has to say if it is ready too: it was paid for.
fn last_look<T>(
    call: &mut Pin<&mut (impl Future<Output = Result<T>> + Send)>,
    failed: bool,
    cx: &mut Context<'_>,
) -> Option<T> {
    if failed {
        return None;
    }
    match call.as_mut().poll(cx) {
        Poll::Ready(Ok(answer)) => Some(answer),
        Poll::Ready(Err(_)) | Poll::Pending => None,
    }
}
