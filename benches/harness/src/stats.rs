//! What samples are summarised to: percentiles over all of them, and a second set without the values that lie far out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::samples::{Moments, PS_PER_MS, Round};

/// From how many samples on a 99th percentile is told.
pub const SAMPLES_FOR_P99: u64 = 1_000;
/// How many standard deviations from the mean a value may lie to be part of the trimmed set.
pub const FAR_OUT: f64 = 3.0;

/// Times of one operation, in milliseconds, over every sample that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// Median, nearest rank.
    pub p50: f64,
    /// 95th percentile, nearest rank.
    pub p95: f64,
    /// 99th percentile, nearest rank. Stricter than usual: `null` below 1,000 samples, where it would be little more than
    /// the maximum.
    pub p99: Option<f64>,
    /// Mean. Stricter than usual: of all samples, none left out.
    pub mean: f64,
    /// Standard deviation. Stricter than usual: of all samples, none left out.
    pub stddev: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many samples. Operations below 10 microseconds are timed in batches; a batch is one sample, its mean.
    pub count: u64,
}

impl Latency {
    /// Of samples; all zeros without any.
    pub fn of(samples: &Round) -> Self {
        let ms = |share| samples.percentile(share).unwrap_or(0) as f64 / PS_PER_MS;
        let moments = samples.moments;
        Self {
            p50: ms(0.5),
            p95: ms(0.95),
            p99: (moments.count >= SAMPLES_FOR_P99).then(|| ms(0.99)),
            mean: moments.mean_ps / PS_PER_MS,
            stddev: moments.stddev_ps() / PS_PER_MS,
            min: moments.min_ps as f64 / PS_PER_MS,
            max: moments.max_ps as f64 / PS_PER_MS,
            count: moments.count,
        }
    }
}

/// The samples without those beyond three standard deviations from their mean, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trimmed {
    /// How many samples are left.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation.
    pub stddev: f64,
    /// The normal 95 % interval of their mean. It takes samples for independent, which they hardly are; the interval to
    /// judge by is that of the median.
    pub confidence_interval: MeanInterval,
}

/// An interval of a mean, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MeanInterval {
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// How sure, from 0 to 1.
    pub confidence: f64,
}

impl Trimmed {
    /// Of samples, once: what is left is not trimmed again.
    pub fn of(samples: &Round) -> Self {
        let Moments {
            count,
            mean_ps: centre,
            ..
        } = samples.moments;
        let reach = FAR_OUT * samples.moments.stddev_ps();
        let near = || {
            samples
                .samples
                .iter()
                .filter(|(value, _)| (*value as f64 - centre).abs() <= reach)
                .map(|(value, times)| (*value as f64, *times))
        };
        let left: u64 = near().map(|(_, times)| times).sum();
        if left == count {
            // Nothing was left out, so the exact moments hold.
            return Self::from_moments(left, centre, samples.moments.stddev_ps());
        }
        let mean = near().map(|(value, times)| value * times as f64).sum::<f64>() / left.max(1) as f64;
        let squares: f64 = near()
            .map(|(value, times)| (value - mean).powi(2) * times as f64)
            .sum();
        let stddev = (squares / left.saturating_sub(1).max(1) as f64).sqrt();
        Self::from_moments(left, mean, stddev)
    }

    fn from_moments(count: u64, mean_ps: f64, stddev_ps: f64) -> Self {
        /// The 97.5th percentile of the normal distribution.
        const Z: f64 = 1.959_963_984_540_054;
        let half = Z * stddev_ps / (count.max(1) as f64).sqrt();
        Self {
            count,
            mean: mean_ps / PS_PER_MS,
            stddev: stddev_ps / PS_PER_MS,
            confidence_interval: MeanInterval {
                lower: (mean_ps - half) / PS_PER_MS,
                upper: (mean_ps + half) / PS_PER_MS,
                confidence: 0.95,
            },
        }
    }
}
