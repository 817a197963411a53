//! What a store holds, and what caches over it did in all, across processes and restarts.
//!
//! [`CacheStats`] live as long as a cache. A program that ends adds its own to the totals that are kept beside the entries, so
//! that another one can show them. They are counts and nothing else: nothing depends on them, and where they are damaged
//! they begin anew.

use crate::CacheStats;

/// What a store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Survey {
    /// How many entries it may give out.
    pub entries: u64,
    /// How many are past their time and not yet cleared away.
    pub expired: u64,
    /// How many bytes they take in all, if that can be told without reading them.
    pub bytes: Option<u64>,
    /// When the oldest entry was made, in milliseconds of Unix time, if that is known.
    pub oldest: Option<u64>,
    /// When the newest one was made.
    pub newest: Option<u64>,
}

/// Totals of these counts of [`CacheStats`]. A count that is in one and not in the other does not compile.
macro_rules! totals {
    ($($count:ident),+ $(,)?) => {
        /// What caches did that added theirs. The fields are those of [`CacheStats`].
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "they are those of CacheStats")]
        pub struct Totals {
            /// When something was first added, in milliseconds of Unix time.
            pub since: Option<u64>,
            $(pub $count: u64,)+
        }

        /// How many counts there are.
        pub(crate) const COUNTS: usize = [$(stringify!($count)),+].len();

        impl Totals {
            /// The counts of one cache.
            pub fn of(stats: &CacheStats) -> Self {
                let CacheStats { $($count,)+ tiers: _ } = stats;
                Self { since: None, $($count: *$count,)+ }
            }

            /// The counts with their names, in the order in which they are kept.
            pub(crate) fn counts(&self) -> [(&'static str, u64); COUNTS] {
                let Self { since: _, $($count,)+ } = *self;
                [$((stringify!($count), $count)),+]
            }

            pub(crate) const fn from_counts(counts: [u64; COUNTS]) -> Self {
                let [$($count),+] = counts;
                Self { since: None, $($count,)+ }
            }
        }
    };
}

// In the order in which they are kept on disk: what is new goes to the end.
totals! {
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
}

impl Totals {
    /// What came to these since others, of the same cache, were taken.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        self.each(before, u64::saturating_sub)
    }

    /// These and others.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        self.each(others, u64::saturating_add)
    }

    /// The part of the calls that asked the cache and cost nothing, from 0 to 1.
    pub fn hit_rate(&self) -> f64 {
        let free = [self.stale, self.coalesced, self.similar];
        let free = free.into_iter().fold(self.hits, u64::saturating_add);
        crate::stats::hit_rate(free, self.misses)
    }

    fn each(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let mut counts = self.counts();
        for (count, (_, other)) in counts.iter_mut().zip(other.counts()) {
            count.1 = with(count.1, other);
        }
        Self {
            since: self.since,
            ..Self::from_counts(counts.map(|(_, count)| count))
        }
    }
}
