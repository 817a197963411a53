//! Time, passed in.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What [`Timer::sleep`] gives.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a tree of scopes has its time from.
///
/// [`TokioTimer`](struct.TokioTimer.html) (feature `tokio`) is the real one, [`ManualTimer`](crate::ManualTimer) the one for
/// tests and simulations. An adapter for another clock is two lines.
pub trait Timer: Send + Sync + 'static {
    /// The time since some fixed moment, on a clock that never goes back. Every limit and every grace period is
    /// measured with it, so a wall clock that jumps changes nothing.
    fn now(&self) -> Duration;

    /// Ends when `now()` is later by `duration` than it is now. It may end early; then it is asked again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the timer.
    fn sleep(&self, duration: Duration) -> Sleep;

    /// The wall clock, which may jump: only for [`Reason::at`](crate::Reason::at) and
    /// [`Warning::at`](crate::Warning::at), which people read.
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

impl<T: Timer + ?Sized> Timer for Arc<T> {
    fn now(&self) -> Duration {
        (**self).now()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        (**self).sleep(duration)
    }

    fn wall(&self) -> SystemTime {
        (**self).wall()
    }
}

/// The clock and timers of tokio, its paused clock included.
///
/// Time on a monotonic clock; on Linux it stands still while the machine is suspended.
///
/// # Panics
///
/// What waits for a scope with a limit or a grace period must then be polled inside a tokio runtime whose time driver
/// is on, as with everything of `tokio::time`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use peregrine_interrupts::{Limits, Scope, TokioTimer};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let limits = Limits::new().with_time(Duration::from_secs(60));
/// let run = Scope::root_with("run-1", TokioTimer::new(), limits);
/// let interrupted = run.run_until_graceful(std::future::pending::<()>()).await.unwrap_err();
/// assert_eq!(interrupted.to_string(), "graceful interrupt of run `run-1`: time limit of 60s reached");
/// # });
/// ```
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
#[derive(Debug, Clone, Copy)]
pub struct TokioTimer {
    origin: tokio::time::Instant,
}

#[cfg(feature = "tokio")]
impl TokioTimer {
    /// A timer that counts from now.
    pub fn new() -> Self {
        Self {
            origin: tokio::time::Instant::now(),
        }
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

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// What all scopes of a tree share.
pub(crate) struct Clockwork {
    timer: Box<dyn Timer>,
    /// The timer's time when the tree began.
    origin: Duration,
}

impl Clockwork {
    pub(crate) fn new(timer: impl Timer) -> Self {
        let origin = timer.now();
        Self {
            timer: Box::new(timer),
            origin,
        }
    }

    /// Since the tree began.
    pub(crate) fn now(&self) -> Duration {
        self.timer.now().saturating_sub(self.origin)
    }

    pub(crate) fn wall(&self) -> SystemTime {
        self.timer.wall()
    }

    pub(crate) fn sleep(&self, duration: Duration) -> Sleep {
        self.timer.sleep(duration)
    }
}

impl fmt::Debug for Clockwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clockwork").finish_non_exhaustive()
    }
}
