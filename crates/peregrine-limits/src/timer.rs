//! Time, passed in.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What [`Timer::sleep`] gives.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a limiter has its time from.
///
/// [`TokioTimer`](struct.TokioTimer.html) (feature `tokio`) is the real one. With the feature `layer` every
/// `Arc<dyn peregrine_core::Timer>` can be used through [`CoreTimer`](struct.CoreTimer.html).
pub trait Timer: Send + Sync + 'static {
    /// The time since some fixed moment, on a clock that never goes back. Should it go back all the same, it stands still
    /// for the limiter until it has caught up.
    fn now(&self) -> Duration;

    /// Ends when `now()` is later by `duration` than it is now. It may end early; then it is asked again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the timer.
    fn sleep(&self, duration: Duration) -> Sleep;

    /// The wall clock, which may jump: only for headers that name a point in time.
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
/// # Panics
///
/// What waits must be polled inside a tokio runtime whose time driver is on, as with everything of `tokio::time`.
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

/// A timer of `peregrine-core`.
#[cfg(feature = "layer")]
#[cfg_attr(docsrs, doc(cfg(feature = "layer")))]
#[derive(Debug, Clone)]
pub struct CoreTimer(pub Arc<dyn peregrine_core::Timer>);

#[cfg(feature = "layer")]
impl Timer for CoreTimer {
    fn now(&self) -> Duration {
        self.0.now().since_origin()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.0.sleep(duration)
    }

    fn wall(&self) -> SystemTime {
        let since = Duration::from_millis(self.0.unix().0);
        SystemTime::UNIX_EPOCH
            .checked_add(since)
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// The timer of one limiter, and since when it counts.
pub(crate) struct Clockwork {
    timer: Box<dyn Timer>,
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

    /// Nanoseconds since the limiter began: enough for five centuries.
    pub(crate) fn now(&self) -> u64 {
        let since = self.timer.now().saturating_sub(self.origin);
        since
            .as_secs()
            .saturating_mul(1_000_000_000)
            .saturating_add(u64::from(since.subsec_nanos()))
    }

    pub(crate) fn sleep(&self, nanos: u64) -> Sleep {
        self.timer.sleep(Duration::from_nanos(nanos))
    }

    #[cfg(feature = "layer")]
    pub(crate) fn wall(&self) -> SystemTime {
        self.timer.wall()
    }
}

impl fmt::Debug for Clockwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clockwork").finish_non_exhaustive()
    }
}
