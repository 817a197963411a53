//! How many extra calls may be made: a share of all calls, and a few saved up.
//!
//! Invariant: the extra calls of any time are at most the reserve and the share of the calls of that time.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a whole extra call costs.
const WHOLE: u64 = 10_000;

#[derive(Debug)]
pub(super) struct ExtraCalls {
    saved: AtomicU64,
    per_call: u64,
    max: u64,
}

impl ExtraCalls {
    /// A full reserve of `burst` calls, and `share` (0 to 1) of a call for each call.
    pub(super) fn new(share: f64, burst: u32) -> Self {
        let share = if share.is_finite() {
            share.clamp(0.0, 1.0)
        } else {
            0.0
        };
        let max = u64::from(burst) * WHOLE;
        Self {
            saved: AtomicU64::new(max),
            per_call: (share * WHOLE as f64) as u64,
            max,
        }
    }

    pub(super) fn pay_in(&self) {
        let add = |saved: u64| (saved < self.max).then(|| (saved + self.per_call).min(self.max));
        // An error only says that the reserve is full.
        let _full = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    pub(super) fn take_out(&self) -> bool {
        let take = |saved: u64| saved.checked_sub(WHOLE);
        self.saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_calls_are_the_reserve_and_the_share() {
        let budget = ExtraCalls::new(0.05, 2);
        let taken = (0..1_000)
            .filter(|_| {
                budget.pay_in();
                budget.take_out()
            })
            .count();
        assert_eq!(taken, 2 + 49, "the first call found the reserve full");
        let none = ExtraCalls::new(f64::NAN, 0);
        none.pay_in();
        assert!(!none.take_out());
        let zero = ExtraCalls::new(1.0, 0);
        zero.pay_in();
        assert!(!zero.take_out(), "nothing can be saved up in no reserve");
    }
}
