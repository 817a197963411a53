//! Integration tests: what the scopes promise to whoever runs something under them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod handlers;
mod limits;
mod model;
#[cfg(all(unix, feature = "process"))]
mod process;
mod scopes;
#[cfg(all(unix, feature = "signal"))]
mod signals;
mod sync;
#[cfg(all(target_os = "linux", feature = "process"))]
mod teardown;
#[path = "../../src/tree/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the model tests use a part of it, with loom's locks"
)]
mod tree;
mod waits;
mod warnings;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// A task without a runtime: polls one future when told to, and counts how often it was woken.
struct Task<F: Future> {
    future: Pin<Box<F>>,
    wakes: Arc<Wakes>,
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl<F: Future> Task<F> {
    fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            wakes: Arc::default(),
        }
    }

    fn poll(&mut self) -> Poll<F::Output> {
        let waker = Waker::from(self.wakes.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// How often it was woken since the last time this was asked.
    fn wakes(&self) -> usize {
        self.wakes.0.swap(0, Ordering::SeqCst)
    }

    #[track_caller]
    fn pending(&mut self) {
        assert!(self.poll().is_pending());
    }

    #[track_caller]
    fn ready(&mut self) -> F::Output {
        match self.poll() {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("the future is not ready"),
        }
    }
}
