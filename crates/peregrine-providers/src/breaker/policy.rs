//! When a circuit opens, for how long, and how it is tried again.

use std::time::Duration;

/// The settings of a circuit.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use peregrine_providers::BreakerPolicy;
///
/// let policy = BreakerPolicy::default().with_failure_rate(0.3, 20).with_window(Duration::from_secs(60));
/// assert_eq!((policy.failure_rate, policy.min_calls), (0.3, 20));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BreakerPolicy {
    /// How far back calls count. 30 s.
    pub window: Duration,
    /// The share of failures, from 0 to 1, at which the circuit opens. 0.5.
    pub failure_rate: f64,
    /// How many calls there must have been in the window before it may open; at least 1. 10.
    pub min_calls: u32,
    /// How long it is open the first time. 5 s. Each time that a probe fails doubles it.
    pub open_for: Duration,
    /// How long it is open at the most, before jitter. 60 s.
    pub max_open_for: Duration,
    /// How much longer, at random, it is open: up to this share of the time. 0.2. So that many processes do not try at
    /// the same moment.
    pub jitter: f64,
    /// How many probes may be under way at once while it is half open; at least 1. 1.
    pub probes: u32,
    /// How many probes must succeed before it closes; at least 1. 2.
    pub successes_to_close: u32,
    /// How long a probe keeps its place. 120 s. One that takes longer frees it for another and does not count any more.
    pub probe_lease: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(30),
            failure_rate: 0.5,
            min_calls: 10,
            open_for: Duration::from_secs(5),
            max_open_for: Duration::from_secs(60),
            jitter: 0.2,
            probes: 1,
            successes_to_close: 2,
            probe_lease: Duration::from_secs(120),
        }
    }
}

impl BreakerPolicy {
    /// Sets how far back calls count.
    #[must_use]
    pub fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets the share of failures, and of how many calls at least.
    #[must_use]
    pub fn with_failure_rate(mut self, rate: f64, min_calls: u32) -> Self {
        (self.failure_rate, self.min_calls) = (rate, min_calls);
        self
    }

    /// Sets how long the circuit is open the first time, and at the most.
    #[must_use]
    pub fn with_open_for(mut self, first: Duration, max: Duration) -> Self {
        (self.open_for, self.max_open_for) = (first, max);
        self
    }

    /// Sets the jitter.
    #[must_use]
    pub fn with_jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// Sets how many probes may be under way at once, and how many must succeed.
    #[must_use]
    pub fn with_probes(mut self, at_once: u32, successes_to_close: u32) -> Self {
        (self.probes, self.successes_to_close) = (at_once, successes_to_close);
        self
    }

    /// Sets how long a probe keeps its place.
    #[must_use]
    pub fn with_probe_lease(mut self, lease: Duration) -> Self {
        self.probe_lease = lease;
        self
    }

    /// How long the circuit is open for the `nth` time in a row (from 0); `random` is in `[0, 1)`.
    pub(super) fn open_time(&self, nth: u32, random: f64) -> Duration {
        let doubled = self
            .open_for
            .saturating_mul(1_u32.checked_shl(nth).unwrap_or(u32::MAX));
        let base = doubled.min(self.max_open_for.max(self.open_for));
        base.saturating_add(share_of(base, within(self.jitter) * within(random)))
    }

    /// The share of failures, as a number between 0 and 1.
    pub(super) fn rate(&self) -> f64 {
        within(self.failure_rate)
    }
}

/// `share` of a time; never a panic, as `mul_f64` of the longest times is.
fn share_of(time: Duration, share: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * share).unwrap_or(Duration::ZERO)
}

fn within(share: f64) -> f64 {
    if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        1.0
    }
}
