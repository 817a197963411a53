//! A timer that moves when told to.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use slab::Slab;

use crate::sync::lock;
use crate::{Sleep, Timer};

/// A [`Timer`] for tests, simulations and examples: its time moves by [`advance`](Self::advance) and not otherwise.
///
/// Clones show the same time. Both clocks begin at zero, the wall clock at 1970-01-01.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use peregrine_interrupts::{Limits, ManualTimer, Scope, Source};
///
/// let timer = ManualTimer::new();
/// let limits = Limits::new().with_time(Duration::from_secs(60));
/// let run = Scope::root_with("run-1", timer.clone(), limits);
/// # use std::{future::Future, pin::pin, task::{Context, Waker}};
/// # let mut cx = Context::from_waker(Waker::noop());
/// let mut stop = run.graceful();
/// # let mut stop = pin!(stop);
/// assert!(stop.as_mut().poll(&mut cx).is_pending());
///
/// timer.advance(Duration::from_secs(59));
/// timer.set_wall(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(3_000_000_000)); // changes nothing
/// assert!(stop.as_mut().poll(&mut cx).is_pending());
///
/// timer.advance(Duration::from_secs(1));
/// assert!(stop.as_mut().poll(&mut cx).is_ready());
/// ```
#[derive(Clone, Default)]
pub struct ManualTimer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    now: Duration,
    wall: Duration,
    sleepers: Slab<(Duration, Waker)>,
}

impl ManualTimer {
    /// One that stands at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves both clocks on, and wakes who slept long enough.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state();
        state.now = state.now.saturating_add(by);
        state.wall = state.wall.saturating_add(by);
        let now = state.now;
        let due = state.sleepers.iter_mut().filter(|(_, (until, _))| *until <= now);
        let due: Vec<Waker> = due
            .map(|(_, (_, waker))| std::mem::replace(waker, Waker::noop().clone()))
            .collect();
        drop(state);
        due.into_iter().for_each(Waker::wake);
    }

    /// Sets the wall clock, and it alone.
    pub fn set_wall(&self, wall: SystemTime) {
        self.state().wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    }

    /// How many sleeps are going on.
    pub fn sleepers(&self) -> usize {
        self.state().sleepers.len()
    }

    /// When the next sleep ends, as [`now`](Timer::now) will say then.
    pub fn next_wake(&self) -> Option<Duration> {
        self.state().sleepers.iter().map(|(_, (until, _))| *until).min()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl Timer for ManualTimer {
    fn now(&self) -> Duration {
        self.state().now
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let until = self.state().now.saturating_add(duration);
        Box::pin(Nap {
            timer: self.clone(),
            until,
            place: None,
        })
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH.checked_add(self.state().wall).unwrap_or(UNIX_EPOCH)
    }
}

impl fmt::Debug for ManualTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualTimer").field(&self.now()).finish()
    }
}

struct Nap {
    timer: ManualTimer,
    until: Duration,
    place: Option<usize>,
}

impl Future for Nap {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let sleeper = (this.until, cx.waker().clone());
        let mut state = this.timer.state();
        if state.now >= this.until {
            drop(state);
            return Poll::Ready(());
        }
        let before = match this.place {
            Some(place) => Some(std::mem::replace(&mut state.sleepers[place], sleeper)),
            None => {
                this.place = Some(state.sleepers.insert(sleeper));
                None
            }
        };
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Nap {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let sleeper = self.timer.state().sleepers.remove(place);
            drop(sleeper);
        }
    }
}
