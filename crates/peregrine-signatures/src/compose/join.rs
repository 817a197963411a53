//! Waits for several futures on the caller's task.
//!
//! Each wake-up polls those that are not done; with as many futures as a composition has stages that costs less than
//! a waker for each. The first error ends the wait and drops, and so cancels, the others.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The results, in the order of the futures.
pub(super) async fn all<T, E>(mut futures: Vec<Boxed<'_, Result<T, E>>>) -> Result<Vec<T>, E> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut waits = false;
        for (future, slot) in futures.iter_mut().zip(&mut done) {
            if slot.is_some() {
                continue;
            }
            match future.as_mut().poll(cx) {
                Poll::Ready(Ok(value)) => *slot = Some(value),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => waits = true,
            }
        }
        if waits { Poll::Pending } else { Poll::Ready(Ok(())) }
    })
    .await?;
    Ok(done.into_iter().flatten().collect())
}
