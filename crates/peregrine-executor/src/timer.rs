//! Time, passed in: of the runtime, or virtual.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::sync::lock;

/// A future that ends at a point in time. Dropping it forgets the timer.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where time comes from, as the time since an origin of the timer's own.
pub trait Timer: Send + Sync + fmt::Debug {
    /// Now. Never goes back.
    fn now(&self) -> Duration;

    /// Ends at this point in time; at once where it has passed.
    fn sleep_until(&self, at: Duration) -> Sleep;

    /// The timer itself, where its time is virtual: a plan then moves it on whenever nothing can go on without that.
    fn as_virtual(&self) -> Option<&VirtualTimer> {
        None
    }
}

impl<T: Timer + ?Sized> Timer for Arc<T> {
    fn now(&self) -> Duration {
        (**self).now()
    }

    fn sleep_until(&self, at: Duration) -> Sleep {
        (**self).sleep_until(at)
    }

    fn as_virtual(&self) -> Option<&VirtualTimer> {
        (**self).as_virtual()
    }
}

/// Tokio's time, its paused clock included. Needs a runtime with time when it sleeps.
#[cfg(feature = "tokio")]
#[derive(Debug, Clone, Copy)]
pub struct TokioTimer {
    origin: tokio::time::Instant,
}

#[cfg(feature = "tokio")]
impl TokioTimer {
    /// A timer whose origin is now.
    pub fn new() -> Self {
        let origin = tokio::time::Instant::now();
        Self { origin }
    }
}

#[cfg(feature = "tokio")]
impl Default for TokioTimer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "tokio")]
impl Timer for TokioTimer {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn sleep_until(&self, at: Duration) -> Sleep {
        // Beyond what tokio can count it is never, which is as far as it goes.
        match self.origin.checked_add(at) {
            Some(at) => Box::pin(tokio::time::sleep_until(at)),
            None => Box::pin(std::future::pending()),
        }
    }
}

/// Time that moves only when nothing else can: hours of waiting take no time, and every run is the same run.
///
/// Clones show the same time. Everything that waits has to wait for this timer: what waits for a socket is left behind by
/// it.
#[derive(Debug, Clone, Default)]
pub struct VirtualTimer(Arc<Mutex<Virtual>>);

#[derive(Debug, Default)]
struct Virtual {
    now: Duration,
    made: u64,
    /// By end, then by age, so that what ends together ends in the order in which it was begun.
    sleeping: BTreeMap<(Duration, u64), Waker>,
}

impl VirtualTimer {
    /// A timer at its origin.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves to the end of the next sleep and wakes everything that ends there. False, and nothing moves, where nothing
    /// sleeps.
    pub fn advance_to_next(&self) -> bool {
        let woken = {
            let mut state = lock(&self.0);
            let Some(&(at, _)) = state.sleeping.keys().next() else {
                return false;
            };
            state.now = state.now.max(at);
            let later = state.sleeping.split_off(&(at, u64::MAX));
            std::mem::replace(&mut state.sleeping, later)
        };
        woken.into_values().for_each(Waker::wake);
        true
    }
}

impl Timer for VirtualTimer {
    fn now(&self) -> Duration {
        lock(&self.0).now
    }

    fn sleep_until(&self, at: Duration) -> Sleep {
        let key = {
            let mut state = lock(&self.0);
            state.made += 1;
            (at, state.made)
        };
        let timer = self.clone();
        Box::pin(VirtualSleep { timer, key })
    }

    fn as_virtual(&self) -> Option<&VirtualTimer> {
        Some(self)
    }
}

struct VirtualSleep {
    timer: VirtualTimer,
    key: (Duration, u64),
}

impl Future for VirtualSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Wakers are dropped after the lock.
        let _removed;
        let _replaced;
        let mut state = lock(&self.timer.0);
        if state.now >= self.key.0 {
            _removed = state.sleeping.remove(&self.key);
            return Poll::Ready(());
        }
        _replaced = state.sleeping.insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for VirtualSleep {
    fn drop(&mut self) {
        let _removed = lock(&self.timer.0).sleeping.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_time_moves_to_the_next_end_and_forgets_what_was_dropped() {
        let timer = VirtualTimer::new();
        let mut context = Context::from_waker(Waker::noop());
        let mut early = timer.sleep_until(Duration::from_secs(1));
        let mut late = timer.sleep_until(Duration::from_secs(9));
        let mut dropped = timer.sleep_until(Duration::from_millis(1));
        for sleep in [&mut early, &mut late, &mut dropped] {
            assert!(sleep.as_mut().poll(&mut context).is_pending());
        }
        drop(dropped);
        assert!(timer.advance_to_next());
        assert_eq!(timer.now(), Duration::from_secs(1));
        assert!(early.as_mut().poll(&mut context).is_ready());
        assert!(late.as_mut().poll(&mut context).is_pending());
        assert!(timer.advance_to_next());
        assert!(late.as_mut().poll(&mut context).is_ready());
        assert!(!timer.advance_to_next());
        assert_eq!(timer.now(), Duration::from_secs(9));
    }
}
