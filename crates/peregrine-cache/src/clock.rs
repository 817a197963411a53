//! Time, passed in.
//!
//! Expiry is wall time, because it has to mean the same in another process and after a restart; latencies and the
//! waits of a broken tier are monotonic. Wall time jumps: what that does to an entry is in [`Entry`](crate::Entry).

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a cache has its time from. With the feature `layer`, every clock of `peregrine-core` is one.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn unix_ms(&self) -> u64;

    /// The time since some fixed point; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The operating system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemTimeClock;

impl Clock for SystemTimeClock {
    fn unix_ms(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        ORIGIN.get_or_init(Instant::now).elapsed()
    }
}

#[cfg(feature = "layer")]
impl<C: peregrine_core::Clock> Clock for C {
    fn unix_ms(&self) -> u64 {
        self.unix().0
    }

    fn monotonic(&self) -> Duration {
        self.now().since_origin()
    }
}
