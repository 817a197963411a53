//! A token bucket in integers.
//!
//! The level is kept in units of which [`SCALE`] make one request or token: a nanosecond at a rate of `r` thousandths a
//! minute adds exactly `r` of them, so nothing is ever rounded, however often the bucket is looked at. Equivalent to the
//! generic cell rate algorithm (ITU-T I.371) with the rate free to change and what was taken free to be given back.
//!
//! What is larger than the bucket is let through when the bucket is full, and leaves it in debt: it waits as long as it
//! would have with a larger bucket, and whatever comes behind it pays.

/// Nanoseconds of a minute, times a thousand for rates in thousandths.
const SCALE: i128 = 60_000_000_000 * 1_000;
/// No amount and no rate is larger, so that no product of them overflows.
pub(crate) const MAX_AMOUNT: u64 = 1 << 50;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    /// Thousandths a minute, at least 1.
    rate: u64,
    /// What it holds at most, in thousandths of a unit.
    capacity: u64,
    level: i128,
    at: u64,
}

impl Bucket {
    /// A full bucket of `capacity` thousandths of a unit, filled with `rate` thousandths of a unit a minute.
    pub(crate) fn new(rate: u64, capacity: u64, now: u64) -> Self {
        let mut bucket = Self {
            rate: 1,
            capacity: 1,
            level: 0,
            at: now,
        };
        bucket.set_rate(rate, capacity, now);
        bucket.level = bucket.full();
        bucket
    }

    pub(crate) fn rate(&self) -> u64 {
        self.rate
    }

    /// From now on fills at another rate. What is in it beyond the new capacity is lost.
    pub(crate) fn set_rate(&mut self, rate: u64, capacity: u64, now: u64) {
        self.refill(now);
        self.rate = rate.clamp(1, MAX_AMOUNT);
        // One whole unit always fits, or nothing would ever be ready.
        self.capacity = capacity.clamp(1_000, MAX_AMOUNT);
        self.level = self.level.min(self.full());
    }

    /// Counts the time up to `now`. A `now` before the last one adds nothing.
    pub(crate) fn refill(&mut self, now: u64) {
        if let Some(passed) = now.checked_sub(self.at)
            && passed > 0
        {
            self.at = now;
            let gained = i128::from(passed) * i128::from(self.rate);
            self.level = (self.level + gained).min(self.full());
        }
    }

    /// When `amount` may be taken if nothing else is. Refill first.
    pub(crate) fn ready_at(&self, amount: u64) -> u64 {
        let missing = self.needed(amount) - self.level;
        if missing <= 0 {
            return self.at;
        }
        // Both are positive, so adding all but one rounds up.
        let wait = (missing + i128::from(self.rate) - 1) / i128::from(self.rate);
        self.at.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    /// Takes `amount`, into debt if it must.
    pub(crate) fn take(&mut self, amount: u64) {
        // A floor under the debt keeps hostile amounts from adding up to an overflow.
        let floor = -(i128::from(MAX_AMOUNT) * SCALE);
        self.level = (self.level - scaled(amount)).max(floor);
    }

    /// Takes `amount` that was used already, but never into a debt of more than `most` that was not there before.
    pub(crate) fn owe(&mut self, amount: u64, most: u64) {
        let floor = self.level.min(-scaled(most));
        self.level = (self.level - scaled(amount)).max(floor);
    }

    /// Gives `amount` back.
    pub(crate) fn give(&mut self, amount: u64) {
        self.level = (self.level + scaled(amount)).min(self.full());
    }

    /// Leaves at most `amount` in it.
    pub(crate) fn lower_to(&mut self, amount: u64) {
        self.level = self.level.min(scaled(amount));
    }

    /// Whether less than half of it is left: somebody uses what the rate gives.
    pub(crate) fn is_in_use(&self) -> bool {
        self.level * 2 < self.full()
    }

    /// The share of it that is left; below 0 in debt.
    pub(crate) fn share_left(&self) -> f64 {
        self.level as f64 / self.full() as f64
    }

    fn full(&self) -> i128 {
        i128::from(self.capacity) * (SCALE / 1_000)
    }

    fn needed(&self, amount: u64) -> i128 {
        scaled(amount).min(self.full())
    }
}

fn scaled(amount: u64) -> i128 {
    i128::from(amount.min(MAX_AMOUNT)) * SCALE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn it_fills_to_the_nanosecond() {
        // One a second, one in it.
        let mut bucket = Bucket::new(60_000, 1_000, 0);
        bucket.take(1);
        assert_eq!(bucket.ready_at(1), SECOND);
        bucket.refill(SECOND - 1);
        assert_eq!(bucket.ready_at(1), SECOND);
        bucket.refill(SECOND);
        assert_eq!(bucket.ready_at(1), SECOND);
        bucket.take(1);
        assert_eq!(bucket.ready_at(1), 2 * SECOND);
    }

    #[test]
    fn what_is_larger_than_the_bucket_is_paid_afterwards() {
        let mut bucket = Bucket::new(60_000, 10_000, 0);
        assert_eq!(bucket.ready_at(50), 0, "full is as much as it can be");
        bucket.take(50);
        assert_eq!(bucket.ready_at(1), 41 * SECOND);
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing() {
        let mut bucket = Bucket::new(60_000, 1_000, 5 * SECOND);
        bucket.take(1);
        bucket.refill(0);
        assert_eq!(bucket.ready_at(1), 6 * SECOND);
    }

    #[test]
    fn nothing_overflows() {
        let mut bucket = Bucket::new(u64::MAX, u64::MAX, 0);
        for _ in 0..1_000 {
            bucket.take(u64::MAX);
        }
        bucket.refill(u64::MAX);
        bucket.give(u64::MAX);
        let mut slow = Bucket::new(0, 0, 0);
        slow.take(u64::MAX);
        assert_eq!(slow.ready_at(1), u64::MAX);
    }

    #[test]
    fn a_debt_has_an_end() {
        let mut bucket = Bucket::new(60_000, 10_000, 0);
        for _ in 0..100 {
            bucket.owe(u64::MAX, 600);
        }
        assert_eq!(bucket.ready_at(1), 601 * SECOND);
        bucket.take(5);
        bucket.owe(1, 600);
        assert_eq!(bucket.ready_at(1), 606 * SECOND, "a debt that is there stays");
    }

    proptest! {
        /// The law of the token bucket: in any span of time no more than capacity and what the rate gives.
        #[test]
        fn no_span_has_more_than_capacity_and_rate(
            rate in 1_u64..10_000_000,
            capacity in 1_u64..100,
            asks in proptest::collection::vec((0_u64..5 * SECOND, 1_u64..40), 1..60),
        ) {
            let mut bucket = Bucket::new(rate, capacity * 1_000, 0);
            let mut now = 0_u64;
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (later, amount) in asks {
                now += later;
                bucket.refill(now);
                if bucket.ready_at(amount) <= now {
                    bucket.take(amount);
                    taken.push((now, amount));
                }
            }
            for (first, (from, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                let largest = taken.iter().map(|(_, amount)| *amount).max().unwrap_or(0).max(capacity);
                for (at, amount) in &taken[first..] {
                    sum += amount;
                    let given = i128::from(at - from) * i128::from(rate);
                    prop_assert!(i128::from(sum) * SCALE <= i128::from(largest) * SCALE + given);
                }
            }
        }

        /// Looking often or seldom makes no difference.
        #[test]
        fn refills_add_up(steps in proptest::collection::vec(0_u64..SECOND, 1..50), rate in 1_u64..1_000_000) {
            let mut often = Bucket::new(rate, 1_000_000, 0);
            often.take(1_000_000);
            let mut once = often.clone();
            let mut now = 0;
            for step in steps {
                now += step;
                often.refill(now);
            }
            once.refill(now);
            prop_assert_eq!(often.level, once.level);
        }
    }
}
