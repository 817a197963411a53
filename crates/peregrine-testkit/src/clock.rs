//! A clock that moves when told to.
//!
//! Invariant: time only moves by [`FakeClock::advance`], or, with [`FakeClock::jumping`], to the end of each
//! sleep as soon as it is awaited; so tests of waits take no time and depend on no machine.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use peregrine_core::{Clock, Monotonic, Timer, UnixTime};

/// A clock for tests. Clones show the same time.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use peregrine_core::{Clock, Timer};
/// use peregrine_testkit::FakeClock;
///
/// let clock = FakeClock::new();
/// let nap = clock.sleep(Duration::from_secs(3600));
/// clock.advance(Duration::from_secs(3600));
/// # let mut nap = nap;
/// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// assert!(nap.as_mut().poll(&mut context).is_ready());
/// ```
#[derive(Debug, Clone)]
pub struct FakeClock {
    state: Arc<Mutex<State>>,
    jumps: bool,
}

#[derive(Debug)]
struct State {
    now: Duration,
    unix_ms_at_start: u64,
    sleeps: Vec<Duration>,
    wakers: Vec<Waker>,
}

impl FakeClock {
    /// A clock that stands still until it is advanced. Its wall time starts at 2026-01-01T00:00:00Z.
    pub fn new() -> Self {
        let state = State {
            now: Duration::ZERO,
            unix_ms_at_start: 1_767_225_600_000,
            sleeps: Vec::new(),
            wakers: Vec::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            jumps: false,
        }
    }

    /// A clock on which every sleep is over as soon as it is awaited, and time has moved by its length.
    pub fn jumping() -> Self {
        Self {
            jumps: true,
            ..Self::new()
        }
    }

    /// Moves time on and wakes who waits.
    pub fn advance(&self, by: Duration) {
        let wakers = {
            let mut state = self.state();
            state.now = state.now.saturating_add(by);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The sleeps that were asked for so far, in order.
    pub fn sleeps(&self) -> Vec<Duration> {
        self.state().sleeps.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for FakeClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Monotonic {
        Monotonic::new(self.state().now)
    }

    fn unix(&self) -> UnixTime {
        let state = self.state();
        let passed = u64::try_from(state.now.as_millis()).unwrap_or(u64::MAX);
        UnixTime(state.unix_ms_at_start.saturating_add(passed))
    }
}

impl Timer for FakeClock {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let until = {
            let mut state = self.state();
            state.sleeps.push(duration);
            state.now.saturating_add(duration)
        };
        Box::pin(Nap {
            clock: self.clone(),
            until,
        })
    }
}

struct Nap {
    clock: FakeClock,
    until: Duration,
}

impl Future for Nap {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.state();
        if self.clock.jumps {
            state.now = state.now.max(self.until);
        }
        if state.now >= self.until {
            return Poll::Ready(());
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
