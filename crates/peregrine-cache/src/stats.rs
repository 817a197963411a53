//! What a cache did: counts, savings, and how long its tiers took.
//!
//! Counters are atomics that are only added to; a snapshot is not taken at one instant. Latencies stand in buckets of
//! powers of two, so a quantile is exact within a factor of two, in a fixed few hundred bytes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::{Served, StoreStatus};

/// Up to 2^40 ns, which is 18 minutes.
const BUCKETS: usize = 41;

/// What a cache did since it was built.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CacheStats {
    /// Calls answered from a store, fresh.
    pub hits: u64,
    /// Calls answered from a store, past their time, while a new answer was fetched.
    pub stale: u64,
    /// Calls that ended as an equal one did that was under way.
    pub coalesced: u64,
    /// Calls answered with that of a similar one.
    pub similar: u64,
    /// Calls whose answer was not there: as many as were made, where equal ones shared one.
    pub misses: u64,
    /// Calls that did not ask.
    pub bypassed: u64,
    /// Answers stored.
    pub stored: u64,
    /// Answers that no store took, for their size or because a removal came between.
    pub not_stored: u64,
    /// Entries removed on request.
    pub removed: u64,
    /// Bytes of answers given out without a call, as they take in memory.
    pub bytes_served: u64,
    /// Tokens that were not used because an answer was there.
    pub tokens_saved: u64,
    /// What those would have cost, in nano-US-dollars.
    pub nano_usd_saved: u64,
    /// Calls answered without a call whose price is not known, so that they are missing in the line above.
    pub unpriced: u64,
    /// The tiers, fastest first.
    pub tiers: Vec<TierStats>,
}

impl CacheStats {
    /// The part of the calls that asked the cache and cost nothing, from 0 to 1.
    pub fn hit_rate(&self) -> f64 {
        let Self {
            hits,
            stale,
            coalesced,
            similar,
            misses,
            ..
        } = self;
        hit_rate(hits + stale + coalesced + similar, *misses)
    }

    /// Entries dropped for want of room, in all tiers.
    pub fn evictions(&self) -> u64 {
        self.tiers.iter().map(|tier| tier.store.evictions).sum()
    }
}

pub(crate) fn hit_rate(free: u64, paid: u64) -> f64 {
    match free.saturating_add(paid) {
        0 => 0.0,
        all => free as f64 / all as f64,
    }
}

/// What one tier did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TierStats {
    /// What it holds.
    pub store: StoreStatus,
    /// Look-ups that found something.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Operations that failed.
    pub failures: u64,
    /// Operations that were left out because the tier had failed just before.
    pub skipped: u64,
    /// Whether it is left out at the moment.
    pub down: bool,
    /// How long look-ups that found something took.
    pub hit_latency: Latency,
}

/// How long something took, in buckets of powers of two nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latency {
    counts: Vec<u64>,
}

impl Latency {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// An upper bound, within a factor of two, of what this part (0 to 1) took at most. `None` if there were none.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let rank = (self.count() as f64 * part.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_nanos(1 << bucket))
    }
}

#[derive(Debug)]
pub(crate) struct Histogram([AtomicU64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Histogram {
    pub(crate) fn add(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        // The power of two at or above it.
        let bucket = (u64::BITS - nanos.saturating_sub(1).leading_zeros()) as usize;
        self.0[bucket.min(BUCKETS - 1)].fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Latency {
        Latency {
            counts: self.0.iter().map(|count| count.load(Relaxed)).collect(),
        }
    }
}

/// The counters behind [`CacheStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    hits: AtomicU64,
    stale: AtomicU64,
    coalesced: AtomicU64,
    similar: AtomicU64,
    misses: AtomicU64,
    bypassed: AtomicU64,
    pub(crate) stored: AtomicU64,
    pub(crate) not_stored: AtomicU64,
    pub(crate) removed: AtomicU64,
    bytes_served: AtomicU64,
    tokens_saved: AtomicU64,
    nano_usd_saved: AtomicU64,
    unpriced: AtomicU64,
}

impl Counters {
    pub(crate) fn served(&self, how: Served, bytes: usize) {
        let counter = match how {
            Served::Hit => &self.hits,
            Served::Stale => &self.stale,
            Served::Coalesced => &self.coalesced,
            Served::Similar => &self.similar,
            Served::Miss => &self.misses,
            Served::Bypass => &self.bypassed,
        };
        counter.fetch_add(1, Relaxed);
        if how.is_free() {
            self.bytes_served.fetch_add(bytes as u64, Relaxed);
        }
    }

    #[cfg(feature = "layer")]
    pub(crate) fn saved(&self, tokens: u64, nano_usd: Option<u64>) {
        self.tokens_saved.fetch_add(tokens, Relaxed);
        match nano_usd {
            Some(amount) => self.nano_usd_saved.fetch_add(amount, Relaxed),
            None => self.unpriced.fetch_add(1, Relaxed),
        };
    }

    pub(crate) fn snapshot(&self, tiers: Vec<TierStats>) -> CacheStats {
        let Self {
            hits,
            stale,
            coalesced,
            similar,
            misses,
            bypassed,
            stored,
            not_stored,
            removed,
            bytes_served,
            tokens_saved,
            nano_usd_saved,
            unpriced,
        } = self;
        CacheStats {
            hits: hits.load(Relaxed),
            stale: stale.load(Relaxed),
            coalesced: coalesced.load(Relaxed),
            similar: similar.load(Relaxed),
            misses: misses.load(Relaxed),
            bypassed: bypassed.load(Relaxed),
            stored: stored.load(Relaxed),
            not_stored: not_stored.load(Relaxed),
            removed: removed.load(Relaxed),
            bytes_served: bytes_served.load(Relaxed),
            tokens_saved: tokens_saved.load(Relaxed),
            nano_usd_saved: nano_usd_saved.load(Relaxed),
            unpriced: unpriced.load(Relaxed),
            tiers,
        }
    }
}
