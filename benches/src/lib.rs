//! Helpers shared by the benchmarks: pinning, and percentiles over all samples.

use std::time::Duration;

/// Pins this thread, and those it starts from now on, to one core, so that a caller and its test server
/// share it and no migration disturbs the ratio. Says whether it could.
pub fn pin_to_one_core() -> bool {
    let mut one = rustix::thread::CpuSet::new();
    one.set(0);
    rustix::thread::sched_setaffinity(None, &one).is_ok()
}

/// All samples of one operation.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Adds a sample.
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value below which `share` (0 to 1) of the samples lie; zero without samples.
    pub fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let place = (sorted.len() as f64 * share) as usize;
        sorted
            .get(place.min(sorted.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let mut samples = Samples::default();
        assert_eq!(samples.percentile(0.5), Duration::ZERO);
        (1..=100)
            .rev()
            .for_each(|ms| samples.push(Duration::from_millis(ms)));
        assert_eq!(samples.percentile(0.5), Duration::from_millis(51));
        assert_eq!(samples.percentile(1.0), Duration::from_millis(100));
    }
}
