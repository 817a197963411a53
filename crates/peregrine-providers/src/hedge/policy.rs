//! After how long, and how often, a call is made a second time.

use std::time::Duration;

/// The settings of hedged calls.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use peregrine_providers::HedgePolicy;
///
/// let policy = HedgePolicy::default().with_quantile(0.99).with_budget(0.02, 5);
/// assert_eq!((policy.quantile, policy.extra_share, policy.burst), (0.99, 0.02, 5));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HedgePolicy {
    /// The share of calls, from 0 to 1, that is expected to be faster than the wait before the second call. 0.95.
    pub quantile: f64,
    /// How many calls must have been timed before any is made twice; at least 1. 30. Whole answers and streams are timed
    /// apart: a stream until its first content.
    pub min_samples: usize,
    /// No second call begins before this. 50 ms.
    pub min_delay: Duration,
    /// How many extra calls there may be, as a share of all calls, from 0 to 1. 0.05.
    pub extra_share: f64,
    /// How many extra calls can be saved up; at least 1, or there are none. 10. A new layer begins with as many.
    pub burst: u32,
}

impl Default for HedgePolicy {
    fn default() -> Self {
        Self {
            quantile: 0.95,
            min_samples: 30,
            min_delay: Duration::from_millis(50),
            extra_share: 0.05,
            burst: 10,
        }
    }
}

impl HedgePolicy {
    /// Sets the share of calls that is expected to be faster than the wait.
    #[must_use]
    pub fn with_quantile(mut self, quantile: f64) -> Self {
        self.quantile = quantile;
        self
    }

    /// Sets how many calls must have been timed before.
    #[must_use]
    pub fn with_min_samples(mut self, samples: usize) -> Self {
        self.min_samples = samples;
        self
    }

    /// Sets the shortest wait.
    #[must_use]
    pub fn with_min_delay(mut self, delay: Duration) -> Self {
        self.min_delay = delay;
        self
    }

    /// Sets how many extra calls there may be: a share of all calls, and how many can be saved up.
    #[must_use]
    pub fn with_budget(mut self, share: f64, burst: u32) -> Self {
        (self.extra_share, self.burst) = (share, burst);
        self
    }
}
