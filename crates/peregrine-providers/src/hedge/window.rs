//! The latencies of late, and the time that a given share of them stays below.
//!
//! Algorithm: a ring of the last 512 samples. The quantile (nearest rank) is found by selection among them, which is
//! exact, each time that a sixteenth of the samples is new; in between the last one stands. Rejected: a histogram or a
//! sketch (HDR, t-digest, P2), which bound the error and the memory for millions of samples, but forget nothing, and
//! what matters here is how slow the provider is now.

use std::time::Duration;

const SAMPLES: usize = 512;

/// The latest latencies.
#[derive(Debug, Clone)]
pub(crate) struct LatencyWindow {
    /// In microseconds, which hold 71 minutes; what is longer counts as that.
    samples: Vec<u32>,
    next: usize,
    /// How many samples have come since the quantile was found.
    fresh: usize,
    quantile: f64,
    known: Option<u32>,
}

impl LatencyWindow {
    /// No latencies yet. `quantile` is a share of 0 to 1.
    pub(crate) fn new(quantile: f64) -> Self {
        Self {
            samples: Vec::new(),
            next: 0,
            fresh: 0,
            quantile,
            known: None,
        }
    }

    /// Adds a latency.
    pub(crate) fn push(&mut self, latency: Duration) {
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        match self.samples.get_mut(self.next) {
            Some(oldest) => *oldest = micros,
            None => self.samples.push(micros),
        }
        self.next = (self.next + 1) % SAMPLES;
        self.fresh += 1;
    }

    /// How many latencies there are.
    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }

    /// The time that the share of the latencies stays below; `None` without any.
    pub(crate) fn quantile(&mut self) -> Option<Duration> {
        if self.known.is_none() || self.fresh * 16 >= self.samples.len() {
            self.fresh = 0;
            let mut sorted = self.samples.clone();
            let rank = (sorted.len() as f64 * self.quantile).ceil() as usize;
            let place = rank.clamp(1, sorted.len().max(1)) - 1;
            self.known = (place < sorted.len()).then(|| *sorted.select_nth_unstable(place).1);
        }
        self.known.map(|micros| Duration::from_micros(micros.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_is_a_sample_and_forgets_the_past() {
        let ms = Duration::from_millis;
        let mut window = LatencyWindow::new(0.95);
        assert_eq!(window.quantile(), None);
        (1..=100).rev().for_each(|n| window.push(ms(n)));
        assert_eq!((window.len(), window.quantile()), (100, Some(ms(95))));
        (0..SAMPLES).for_each(|_| window.push(ms(7)));
        assert_eq!((window.len(), window.quantile()), (SAMPLES, Some(ms(7))));
        window.push(Duration::MAX);
        assert_eq!(window.quantile(), Some(ms(7)), "one of them changes nothing");
        (0..SAMPLES).for_each(|_| window.push(Duration::MAX));
        assert_eq!(window.quantile(), Some(Duration::from_micros(u32::MAX.into())));
    }

    #[test]
    fn it_equals_sorting_for_every_number_of_samples() {
        for share in [0.0, 0.5, 0.9, 0.95, 0.99, 1.0] {
            for count in [1_usize, 2, 3, 10, 99, 511] {
                let mut window = LatencyWindow::new(share);
                let mut all: Vec<_> = (0..count).map(|n| (n * 7919 % 1009) as u64).collect();
                all.iter().for_each(|ms| window.push(Duration::from_millis(*ms)));
                all.sort_unstable();
                let rank = ((count as f64 * share).ceil() as usize).clamp(1, count);
                assert_eq!(
                    window.quantile(),
                    Some(Duration::from_millis(all[rank - 1])),
                    "{share} of {count}"
                );
            }
        }
    }
}
