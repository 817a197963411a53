//! Samples of one benchmark: every one is kept, in buckets of 0.1 %, beside exact moments and extremes.
//!
//! Times are counted in picoseconds, so that the share of one operation in a batch does not round to nothing. A
//! [`Recorder`] fills a `HdrHistogram` of three significant digits (G. Tene); what it saw becomes a [`Round`], a sorted
//! list of buckets and how often each was hit, which is what travels and is stored. Mean and variance are carried beside
//! it by Welford's recurrence (1962) and merged by that of Chan, Golub and LeVeque (1979), so they are not rounded to
//! buckets.

use std::time::Duration;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Picoseconds in a millisecond.
pub const PS_PER_MS: f64 = 1e9;
const SIGNIFICANT_DIGITS: u8 = 3;

/// Takes samples one by one.
#[derive(Debug)]
pub struct Recorder {
    buckets: Histogram<u64>,
    moments: Moments,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            buckets: Histogram::new(SIGNIFICANT_DIGITS).expect("three digits are between 0 and 5"),
            moments: Moments::default(),
        }
    }

    /// A sample: what one of `operations` took that took `elapsed` together.
    pub fn push(&mut self, elapsed: Duration, operations: u64) {
        let ps = elapsed.as_nanos().saturating_mul(1_000) / u128::from(operations.max(1));
        // Longer than a hundred days is a hundred days.
        let ps = u64::try_from(ps).unwrap_or(u64::MAX).clamp(1, u64::MAX >> 1);
        self.moments.push(ps);
        self.buckets
            .record(ps)
            .expect("a histogram that resizes takes every value from 1 on");
    }

    /// How many samples it took.
    pub fn count(&self) -> u64 {
        self.moments.count
    }

    /// What it saw.
    pub fn finish(self) -> Round {
        let buckets = &self.buckets;
        let samples = buckets
            .iter_recorded()
            .map(|bucket| {
                let middle = buckets.median_equivalent(bucket.value_iterated_to());
                (middle, bucket.count_since_last_iteration())
            })
            .collect();
        Round {
            moments: self.moments,
            samples,
        }
    }
}

/// Count, mean, spread and extremes, exact.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Moments {
    /// How many samples.
    pub count: u64,
    /// The smallest, in picoseconds; 0 without samples.
    pub min_ps: u64,
    /// The largest, in picoseconds; 0 without samples.
    pub max_ps: u64,
    /// Their mean, in picoseconds.
    pub mean_ps: f64,
    /// The sum of the squares of the deviations from the mean, in square picoseconds.
    pub squares: f64,
}

impl Moments {
    fn push(&mut self, ps: u64) {
        let value = ps as f64;
        self.min_ps = if self.count == 0 { ps } else { self.min_ps.min(ps) };
        self.max_ps = self.max_ps.max(ps);
        self.count += 1;
        let before = value - self.mean_ps;
        self.mean_ps += before / self.count as f64;
        self.squares += before * (value - self.mean_ps);
    }

    /// These and those.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        if self.count == 0 || other.count == 0 {
            return if self.count == 0 { other } else { self };
        }
        let (ours, theirs) = (self.count as f64, other.count as f64);
        let apart = other.mean_ps - self.mean_ps;
        Self {
            count: self.count + other.count,
            min_ps: self.min_ps.min(other.min_ps),
            max_ps: self.max_ps.max(other.max_ps),
            mean_ps: self.mean_ps + apart * theirs / (ours + theirs),
            squares: self.squares + other.squares + apart * apart * ours * theirs / (ours + theirs),
        }
    }

    /// Standard deviation of a sample (with n - 1), in picoseconds; 0 below two samples.
    pub fn stddev_ps(&self) -> f64 {
        match self.count {
            0 | 1 => 0.0,
            count => (self.squares / (count - 1) as f64).max(0.0).sqrt(),
        }
    }
}

/// What one process measured of one benchmark.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Round {
    /// Exact figures of the samples.
    pub moments: Moments,
    /// The samples: the middle of each bucket of at most 0.1 % in picoseconds, ascending, and how many fell into it.
    pub samples: Vec<(u64, u64)>,
}

impl Round {
    /// Values in picoseconds as they are, each in a bucket of its own: for few samples, and for those that are simulated.
    pub fn of(mut values: Vec<u64>) -> Self {
        let mut moments = Moments::default();
        values.iter().for_each(|ps| moments.push(*ps));
        values.sort_unstable();
        let alike = values.chunk_by(|one, next| one == next);
        Self {
            moments,
            samples: alike.map(|alike| (alike[0], alike.len() as u64)).collect(),
        }
    }

    /// The rounds as one.
    pub fn merged<'a>(rounds: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        for round in rounds {
            all.moments = all.moments.merged(round.moments);
            all.samples.extend_from_slice(&round.samples);
        }
        all.samples.sort_unstable();
        all.samples.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 += later.1;
            }
            same
        });
        all
    }

    /// The smallest sample that at least `share` (0 to 1) of them do not exceed, in picoseconds; `None` without samples.
    pub fn percentile(&self, share: f64) -> Option<u64> {
        let wanted = ((self.moments.count as f64 * share).ceil() as u64).clamp(1, self.moments.count.max(1));
        let mut seen = 0;
        let bucket = self.samples.iter().find(|(_, times)| {
            seen += times;
            seen >= wanted
        })?;
        // The middle of a bucket can lie beyond what was seen.
        Some(bucket.0.clamp(self.moments.min_ps, self.moments.max_ps))
    }

    /// The median, in picoseconds; 0 without samples.
    pub fn median(&self) -> f64 {
        self.percentile(0.5).unwrap_or(0) as f64
    }

    /// Whether it is what a recorder makes: buckets in order, none empty, as many samples as the moments say.
    pub fn is_consistent(&self) -> bool {
        let ascending = self.samples.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let counted = self
            .samples
            .iter()
            .try_fold(0_u64, |sum, (_, times)| sum.checked_add(*times));
        let filled = self.samples.iter().all(|(value, times)| *value > 0 && *times > 0);
        let Moments {
            count,
            min_ps,
            max_ps,
            mean_ps,
            squares,
        } = self.moments;
        ascending
            && filled
            && counted == Some(count)
            && min_ps <= max_ps
            && mean_ps.is_finite()
            && squares.is_finite()
    }
}
