//! Many calls, a few at a time.

mod completions;
mod results;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

pub use completions::Completions;
pub use results::{CallError, Results};

use crate::slots::POLL_BUDGET;

/// How many calls run at the same time unless something else is asked for.
pub const DEFAULT_MAX_PARALLEL: usize = 5;

/// Runs calls side by side, at most [`DEFAULT_MAX_PARALLEL`] of them at a time unless
/// [`with_max_parallel`](Parallel::with_max_parallel) says otherwise.
///
/// A call is a future that gives a `Result`. Awaiting the whole gives every result in the order of the calls;
/// [`stream`](Parallel::stream) gives each as it comes. The iterator is asked for a call when there is room for one, so
/// it may be long, and may make its calls as it goes.
///
/// Calls are polled on the caller's own task: they may borrow from it, and nothing is spawned. What needs a thread of its
/// own is wrapped in `spawned` (feature `tokio`).
///
/// # Cancel safety
///
/// Dropping what is awaited drops, and so cancels, every call that runs.
///
/// # Performance
///
/// The slots are allocated once, `max_parallel` of them; a call costs no allocation of ours.
///
/// # Examples
///
/// ```
/// use peregrine_executor::parallel;
///
/// async fn square(n: u32) -> Result<u32, String> {
///     n.checked_mul(n).ok_or_else(|| format!("{n} is too large"))
/// }
///
/// # futures_util::FutureExt::now_or_never(async {
/// let results = parallel([3, 70_000, 5].map(square)).with_max_parallel(2).await;
/// assert_eq!(results[0], Ok(9));
/// assert_eq!(results[1].as_ref().unwrap_err().to_string(), "70000 is too large");
/// assert_eq!(results[2], Ok(25));
/// # }).unwrap();
/// ```
pub fn parallel<C: IntoIterator>(calls: C) -> Parallel<C::IntoIter> {
    Parallel {
        calls: calls.into_iter(),
        max_parallel: DEFAULT_MAX_PARALLEL,
        policy: Policy::CollectAll,
    }
}

/// What a failure of one call means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Policy {
    /// Nothing: each call runs to its end. Met if all of them succeed.
    #[default]
    CollectAll,
    /// The first failure cancels the others. Met if there is none.
    FailFast,
    /// This many successes are enough: with them, or once they are out of reach, the others are cancelled.
    Quorum(usize),
}

/// Calls that are to run side by side; see [`parallel`].
#[derive(Debug, Clone)]
#[must_use = "calls only run when this is awaited"]
pub struct Parallel<I> {
    calls: I,
    max_parallel: usize,
    policy: Policy,
}

impl<I> Parallel<I> {
    /// At most this many at the same time; 0 counts as 1.
    pub fn with_max_parallel(mut self, max_parallel: usize) -> Self {
        self.max_parallel = max_parallel.max(1);
        self
    }

    /// What a failure means for the others.
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The results as they come, each with the place of its call. See [`Completions`].
    pub fn stream<F, T, E>(self) -> Completions<I, F>
    where
        I: Iterator<Item = F>,
        F: Future<Output = Result<T, E>>,
    {
        Completions::new(self.calls, self.max_parallel, self.policy)
    }
}

impl<I, F, T, E> IntoFuture for Parallel<I>
where
    I: Iterator<Item = F>,
    F: Future<Output = Result<T, E>>,
{
    type Output = Results<T, E>;
    type IntoFuture = AllResults<I, F, T, E>;

    fn into_future(self) -> Self::IntoFuture {
        AllResults {
            policy: self.policy,
            completions: self.stream(),
            results: Vec::new(),
        }
    }
}

/// All results, in the order of the calls. A call that the policy stopped, or that was not even begun, is
/// [`CallError::Cancelled`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct AllResults<I, F, T, E> {
    policy: Policy,
    completions: Completions<I, F>,
    results: Vec<Option<Result<T, CallError<E>>>>,
}

// Nothing in it is pinned in place: the futures are in boxes.
impl<I, F, T, E> Unpin for AllResults<I, F, T, E> {}

impl<I, F, T, E> Future for AllResults<I, F, T, E>
where
    I: Iterator<Item = F>,
    F: Future<Output = Result<T, E>>,
{
    type Output = Results<T, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut budget = POLL_BUDGET;
        while let Some((index, result)) = ready!(this.completions.poll_completion(context, &mut budget)) {
            if this.results.len() <= index {
                this.results.resize_with(index + 1, || None);
            }
            this.results[index] = Some(result);
        }
        let never_begun = this.completions.take_rest();
        let results = std::mem::take(&mut this.results).into_iter();
        let results = results
            .map(|result| result.unwrap_or(Err(CallError::Cancelled)))
            .chain((0..never_begun).map(|_| Err(CallError::Cancelled)))
            .collect();
        Poll::Ready(Results::new(results, this.policy))
    }
}
