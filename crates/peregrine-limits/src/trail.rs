//! How much was let through in the last minute, in slots of a second.

const SECOND: u64 = 1_000_000_000;
const SLOTS: u64 = 61;

/// What was let through in each of the last 61 seconds.
#[derive(Debug, Clone)]
pub(crate) struct Trail {
    slots: [f64; SLOTS as usize],
    began: u64,
    /// The newest second.
    second: u64,
}

impl Trail {
    pub(crate) fn new(now: u64) -> Self {
        Self {
            slots: [0.0; SLOTS as usize],
            began: now,
            second: now / SECOND,
        }
    }

    /// Adds to what was let through at `at`, or takes off. What is older than a minute is past correcting.
    pub(crate) fn add(&mut self, at: u64, amount: f64) {
        let second = at / SECOND;
        self.advance(second);
        if second + SLOTS > self.second {
            self.slots[(second % SLOTS) as usize] += amount;
        }
    }

    /// The sum of the last 60 seconds, or of as many as there have been, and how many those are.
    pub(crate) fn last_minute(&mut self, now: u64) -> (f64, u64) {
        self.advance(now / SECOND);
        // The oldest slot is a second of which only the end is within the minute.
        let oldest = (self.second + 1) % SLOTS;
        let within = 1.0 - (now % SECOND) as f64 / SECOND as f64;
        let all: f64 = self.slots.iter().sum();
        let sum = (all - self.slots[oldest as usize] * (1.0 - within)).max(0.0);
        (sum, (now.saturating_sub(self.began) / SECOND).min(60))
    }

    fn advance(&mut self, second: u64) {
        let from = self.second.max(second.saturating_sub(SLOTS));
        for passed in from..second {
            self.slots[((passed + 1) % SLOTS) as usize] = 0.0;
        }
        self.second = self.second.max(second);
    }
}

#[cfg(feature = "redis")]
impl Trail {
    pub(crate) fn is_after(&self, now: u64) -> bool {
        self.second > now / SECOND
    }

    pub(crate) fn store(&self) -> String {
        let slots: Vec<String> = self.slots.iter().map(f64::to_string).collect();
        format!("{} {} {}", self.began, self.second, slots.join(" "))
    }

    pub(crate) fn restored<'w>(mut words: impl Iterator<Item = &'w str>) -> Option<Self> {
        let began = words.next()?.parse().ok()?;
        // Far from an overflow.
        let second = words
            .next()?
            .parse()
            .ok()
            .filter(|second| *second < u64::MAX / 4)?;
        let mut slots = [0.0; SLOTS as usize];
        for slot in &mut slots {
            *slot = words
                .next()?
                .parse::<f64>()
                .ok()
                .filter(|value| value.is_finite())?;
        }
        words.next().is_none().then_some(Self { slots, began, second })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_slides() {
        let mut trail = Trail::new(0);
        for second in 0..60 {
            trail.add(second * SECOND, 2.0);
        }
        assert_eq!(trail.last_minute(20 * SECOND), (120.0, 20));
        assert_eq!(trail.last_minute(60 * SECOND), (120.0, 60));
        assert_eq!(trail.last_minute(60 * SECOND + SECOND / 2), (119.0, 60));
        trail.add(30 * SECOND, -2.0);
        assert_eq!(trail.last_minute(70 * SECOND), (98.0, 60));
        assert_eq!(trail.last_minute(1_000_000 * SECOND), (0.0, 60));
        trail.add(0, 5.0);
        assert_eq!(trail.last_minute(1_000_000 * SECOND), (0.0, 60), "long ago");
    }
}
