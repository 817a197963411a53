//! A future as a task of its own, which ends when nobody waits for it any more.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::task::{JoinError, JoinHandle};

/// Runs `future` as a tokio task of its own, from now on, and aborts it when what is returned is dropped.
///
/// For work that computes, or that should not wait for its neighbours; everything else is faster without a task. A task
/// in the middle of a computation ends at its next `await`.
///
/// # Panics
///
/// Outside of a tokio runtime. The returned future panics if the task did, or if its runtime shut down;
/// [`parallel`](crate::parallel()) makes that an error.
///
/// # Examples
///
/// ```
/// use peregrine_executor::{parallel, spawned};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let sums = parallel((1..=3_u64).map(|n| spawned(async move { Ok::<_, String>((0..=n * 1000).sum::<u64>()) }))).await;
/// assert_eq!(sums.into_values().unwrap(), [500_500, 2_001_000, 4_501_500]);
/// # });
/// ```
pub fn spawned<F>(future: F) -> Spawned<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Spawned(tokio::spawn(future))
}

/// A task that is aborted when this is dropped; see [`spawned`].
#[derive(Debug)]
#[must_use = "dropping it aborts the task"]
pub struct Spawned<T>(JoinHandle<T>);

impl<T> Spawned<T> {
    /// Asks the task to end; it does at its next `await`.
    pub(crate) fn abort(&self) {
        self.0.abort();
    }

    pub(crate) fn poll_join(&mut self, context: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Future for Spawned<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match ready!(self.poll_join(context)) {
            Ok(output) => Poll::Ready(output),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => panic!("the task was cancelled: its runtime shut down"),
            },
        }
    }
}

impl<T> Drop for Spawned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
