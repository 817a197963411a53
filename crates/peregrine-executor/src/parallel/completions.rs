//! Results as they come.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::{CallError, Policy};
use crate::slots::{Next, POLL_BUDGET, Slots};

/// The results of calls as they come: a stream of `(place, result)`, the places being 0, 1, 2, .. in the order of the
/// calls.
///
/// Once the policy has stopped the calls, those that were running come as [`CallError::Cancelled`], in the order of
/// their places, and the stream ends; calls that were not begun are never made.
///
/// # Cancel safety
///
/// [`next`](Self::next) loses nothing when it is dropped. Dropping the stream cancels every call that runs.
///
/// # Examples
///
/// ```
/// use peregrine_executor::{CallError, Policy, parallel};
///
/// # futures_util::FutureExt::now_or_never(async {
/// let calls = [Ok(1), Err("down"), Ok(3)].map(std::future::ready);
/// let mut stream = parallel(calls).with_max_parallel(1).with_policy(Policy::FailFast).stream();
/// assert_eq!(stream.next().await, Some((0, Ok(1))));
/// assert_eq!(stream.next().await, Some((1, Err(CallError::Failed("down")))));
/// assert_eq!(stream.next().await, None);
/// # }).unwrap();
/// ```
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Completions<I, F> {
    calls: I,
    /// Whether there may be more to ask for.
    open: bool,
    begun: usize,
    slots: Slots<F>,
    max_parallel: usize,
    policy: Policy,
    succeeded: usize,
    failed: usize,
    /// What the policy stopped and has not yet been said, the next one last.
    stopped: Vec<usize>,
}

// Nothing in it is pinned in place: the futures are in boxes.
impl<I, F> Unpin for Completions<I, F> {}

impl<I, F> Completions<I, F> {
    pub(super) fn new(calls: I, max_parallel: usize, policy: Policy) -> Self {
        Self {
            calls,
            open: true,
            begun: 0,
            slots: Slots::new(),
            max_parallel,
            policy,
            succeeded: 0,
            failed: 0,
            stopped: Vec::new(),
        }
    }
}

impl<I, F, T, E> Completions<I, F>
where
    I: Iterator<Item = F>,
    F: Future<Output = Result<T, E>>,
{
    /// The next result; `None` when there are no more.
    ///
    /// # Cancel safety
    ///
    /// A result that was not handed out stays.
    pub async fn next(&mut self) -> Option<(usize, Result<T, CallError<E>>)> {
        poll_fn(|context| self.poll_completion(context, &mut { POLL_BUDGET })).await
    }

    #[expect(clippy::type_complexity, reason = "the item of the stream, spelled out")]
    pub(super) fn poll_completion(
        &mut self,
        context: &mut Context<'_>,
        budget: &mut usize,
    ) -> Poll<Option<(usize, Result<T, CallError<E>>)>> {
        if let Some(index) = self.stopped.pop() {
            return Poll::Ready(Some((index, Err(CallError::Cancelled))));
        }
        while self.open && !self.is_decided() && self.slots.len() < self.max_parallel {
            match self.calls.next() {
                Some(call) => {
                    self.slots.insert(self.begun, call);
                    self.begun += 1;
                }
                None => self.open = false,
            }
        }
        if self.is_decided() {
            self.stop();
            if let Some(index) = self.stopped.pop() {
                return Poll::Ready(Some((index, Err(CallError::Cancelled))));
            }
        }
        match self.slots.poll_next(context, budget) {
            Next::Ended(index, end) => {
                let result = match end {
                    Ok(result) => result.map_err(CallError::Failed),
                    Err(message) => Err(CallError::Panicked(message)),
                };
                match result {
                    Ok(_) => self.succeeded += 1,
                    Err(_) => self.failed += 1,
                }
                if self.is_decided() {
                    self.stop();
                }
                Poll::Ready(Some((index, result)))
            }
            Next::Idle if self.slots.len() == 0 && !self.open => Poll::Ready(None),
            Next::Idle => Poll::Pending,
            Next::Exhausted => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Whether the calls that have not ended can no longer change anything.
    fn is_decided(&self) -> bool {
        match self.policy {
            Policy::CollectAll => false,
            Policy::FailFast => self.failed > 0,
            Policy::Quorum(enough) => {
                let not_begun = if self.open {
                    self.calls.size_hint().1
                } else {
                    Some(0)
                };
                let most = not_begun.and_then(|rest| rest.checked_add(self.succeeded + self.slots.len()));
                self.succeeded >= enough || most.is_some_and(|most| most < enough)
            }
        }
    }

    fn stop(&mut self) {
        let stopped = &mut self.stopped;
        self.slots.remove(|index, _| {
            stopped.push(index);
            true
        });
        stopped.sort_unstable_by(|one, other| other.cmp(one));
        self.open = false;
    }

    /// Ends the iterator; how many calls it still held.
    pub(super) fn take_rest(&mut self) -> usize {
        self.calls.by_ref().count()
    }
}

impl<I, F, T, E> Stream for Completions<I, F>
where
    I: Iterator<Item = F>,
    F: Future<Output = Result<T, E>>,
{
    type Item = (usize, Result<T, CallError<E>>);

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_completion(context, &mut { POLL_BUDGET })
    }
}
