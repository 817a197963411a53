//! The benchmarks, and the runner that measures them.
//!
//! A [`Group`](bench::Group) is one operation on one input, done by several [`Variant`](bench::Variant)s: ours, the least
//! that the work could take (a floor), what one would use instead (a rival). The runner measures one group in one process,
//! its variants in turns, and says what it saw; `peregrine-harness` starts it, and does the rest. Each benchmark checks its
//! effect outside the timed part, and a check that fails ends the process.
//!
//! `cargo xtask bench` is the way in. Benchmarks of the crates' insides are criterion's, beside the crates.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::missing_panics_doc,
    reason = "a benchmark fails by panicking and tells its results on its standard output"
)]

use std::time::Duration;

pub mod bench;
mod crowd;
mod fake;
mod hand;
pub mod runner;
mod serve;
mod suites;
mod words;

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
