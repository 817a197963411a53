//! Time, passed in: a monotonic clock, wall time, and timers.
//!
//! Deadlines, latencies and leases use [`Monotonic`], which never goes back; only what people read uses
//! [`UnixTime`], which may jump. The real clock is here; its timers live where a runtime is.

use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point on one clock's monotonic time line, as the time since that clock's origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// The point `since_origin` after the clock's origin.
    pub const fn new(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// The time since the clock's origin.
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to this point; zero if it lies later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Monotonic {
    type Output = Self;
    fn add(self, after: Duration) -> Self {
        Self(self.0.saturating_add(after))
    }
}

impl Sub for Monotonic {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// Wall time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

/// Where the time comes from.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Now, on the monotonic line.
    fn now(&self) -> Monotonic;

    /// Now, as people count it.
    fn unix(&self) -> UnixTime;
}

/// A clock that can also wake its caller.
pub trait Timer: Clock {
    /// Ends after `duration` of this clock's time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the timer.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The operating system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Monotonic {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        Monotonic(ORIGIN.get_or_init(Instant::now).elapsed())
    }

    fn unix(&self) -> UnixTime {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixTime(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_never_panics_and_never_goes_below_zero() {
        let early = Monotonic::new(Duration::from_secs(1));
        let late = early + Duration::MAX;
        assert_eq!(early - late, Duration::ZERO);
        assert!(late > early);
        assert!(SystemClock.now() <= SystemClock.now());
        assert!(SystemClock.unix() > UnixTime(1_700_000_000_000));
    }
}
