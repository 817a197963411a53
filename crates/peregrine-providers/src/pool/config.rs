//! How many entries a pool has, and for how long unused.

use std::time::Duration;

/// The bounds of a pool. Those of the connections of each entry are in [`HttpConfig`](crate::HttpConfig).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolConfig {
    /// How many entries there may be; at least 1. 1,024.
    pub max_entries: usize,
    /// How long an entry is kept that nobody holds. 600 s. It is evicted when the next one is added.
    pub idle_timeout: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_entries: 1_024,
            idle_timeout: Duration::from_secs(600),
        }
    }
}

impl PoolConfig {
    /// Sets how many entries there may be.
    #[must_use]
    pub fn with_max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }

    /// Sets how long an entry is kept that nobody holds.
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }
}
