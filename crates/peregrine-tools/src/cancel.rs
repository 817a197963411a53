//! Asking a running tool to stop, without a runtime.
//!
//! Who asks holds the [`Canceller`]; who is asked holds a [`Cancellation`], which can be looked at and waited for but
//! cannot cancel anything. Algorithm: a flag, and a list of wakers under a lock. The flag is set, and looked at before
//! a waker joins the list, under the same lock, so no wake is lost; a mere look takes no lock. A waiter that is dropped
//! takes its waker away, so the list is as long as there are waiters.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The side that asks.
///
/// # Examples
///
/// ```
/// use peregrine_tools::Canceller;
///
/// let canceller = Canceller::new();
/// let cancellation = canceller.cancellation();
/// assert!(!cancellation.is_cancelled());
/// canceller.cancel();
/// assert!(cancellation.is_cancelled());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Canceller(Arc<Shared>);

/// The side that is asked. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Option<Arc<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Canceller {
    /// Nothing is cancelled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everyone who holds a [`Cancellation`] of this to stop. Asking twice changes nothing.
    ///
    /// Returns whether somebody waited for it, and is woken. Who only looks now and then is not known.
    pub fn cancel(&self) -> bool {
        let mut waiting = self.0.waiting();
        self.0.cancelled.store(true, Ordering::Release);
        let wakers = std::mem::take(&mut waiting.wakers);
        // Not under the lock: a waker may run anything.
        drop(waiting);
        let is_awaited = !wakers.is_empty();
        wakers.into_values().for_each(Waker::wake);
        is_awaited
    }

    /// The other side.
    pub fn cancellation(&self) -> Cancellation {
        Cancellation(Some(self.0.clone()))
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
}

impl Cancellation {
    /// One that nobody can cancel.
    pub const fn never() -> Self {
        Self(None)
    }

    /// Whether nobody can cancel it: it was made by [`never`](Self::never).
    pub fn can_never_fire(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.is_cancelled())
    }

    /// Waits until it is cancelled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops waiting, and nothing else.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled {
            shared: self.0.clone(),
            place: None,
        }
    }
}

/// Ends when its [`Cancellation`] is cancelled.
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Cancelled {
    shared: Option<Arc<Shared>>,
    /// Where its waker is.
    place: Option<u64>,
}

impl Future for Cancelled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(shared) = &this.shared else {
            return Poll::Pending;
        };
        let mut waiting = shared.waiting();
        if shared.is_cancelled() {
            return Poll::Ready(());
        }
        let place = *this.place.get_or_insert_with(|| {
            waiting.next += 1;
            waiting.next
        });
        let before = waiting.wakers.insert(place, cx.waker().clone());
        drop(waiting);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        if let (Some(shared), Some(place)) = (&self.shared, self.place) {
            let waker = shared.waiting().wakers.remove(&place);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_are_woken_and_leave_nothing_behind() {
        let canceller = Canceller::new();
        let shared = canceller.0.clone();
        let mut one = Box::pin(canceller.cancellation().cancelled());
        let mut two = Box::pin(canceller.cancellation().cancelled());
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            assert!(one.as_mut().poll(&mut cx).is_pending());
            assert!(two.as_mut().poll(&mut cx).is_pending());
        }
        assert_eq!(shared.waiting().wakers.len(), 2);
        drop(two);
        assert_eq!(shared.waiting().wakers.len(), 1);
        assert!(canceller.cancel());
        assert!(!canceller.cancel(), "nobody waits any more");
        assert!(one.as_mut().poll(&mut cx).is_ready());
        drop(one);
        assert!(shared.waiting().wakers.is_empty());
        assert!(
            Box::pin(Cancellation::never().cancelled())
                .as_mut()
                .poll(&mut cx)
                .is_pending()
        );
    }

    #[test]
    fn a_waiter_on_another_thread_is_woken() {
        let canceller = Canceller::new();
        let cancellation = canceller.cancellation();
        let (ready, started) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn(move || {
            struct Unpark(std::thread::Thread);
            impl std::task::Wake for Unpark {
                fn wake(self: Arc<Self>) {
                    self.0.unpark();
                }
            }
            let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
            let mut wait = Box::pin(cancellation.cancelled());
            while wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                let _ = ready.send(());
                std::thread::park();
            }
        });
        started.recv().unwrap();
        canceller.cancel();
        waiter.join().unwrap();
    }
}
