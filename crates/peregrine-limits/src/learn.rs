//! The true limit, found by using it: additive increase, multiplicative decrease, with a memory of where it was.
//!
//! After Chiu and Jain (1989), in the shape of CUBIC (RFC 9438). A 429 marks the *knee*, the rate at which the limit was
//! met, and cuts the rate below it. From there the rate grows with the answers that succeed (time in which the limiter is
//! not used teaches nothing): fast while far below the knee, slowly near it, and beyond it faster and faster, because a
//! limit that was not there any more has moved. Progress `u` is counted in epochs:
//!
//! ```text
//! rate(u) = knee - depth * (1 - u)^3     u <= 1, from the cut rate back to the knee
//!         = knee + reach * (u - 1)^3     u >  1, in search of a limit that has gone up
//! ```
//!
//! Each epoch spends about one 429, so its length in answers is what the tolerated share of rejections allows, and at
//! least a minute's worth, because providers count by the minute. For the same reason the search is bounded in a minute:
//! one that counts in fixed windows tells only at the end of one.
//!
//! How deep a cut goes is measured: what was let through in the last minute, less what was refused, is what the provider
//! took, and a provider that says no takes no more than that. The measure is believed within bounds that widen with each
//! 429 in a row (*strikes*). Answers to requests that were sent before the last cut say nothing about the rate after it;
//! as in TCP there is one cut for each round trip. Strikes in a row also halve the burst, for servers that take less at
//! once.
//!
//! What the provider announces in its headers is believed: it bounds the rate and is the knee.

use crate::config::{Learning, Limits};
use crate::error::Quantity;
use crate::trail::Trail;

/// How much the n-th 429 in a row leaves of the rate at most, and at least.
const CUTS: [(f64, f64); 4] = [(0.985, 0.95), (0.985, 0.85), (0.97, 0.7), (0.95, 0.6)];
/// What is used at most of a limit that the provider announces: a request that takes a little longer than the one before
/// it would otherwise fall into a minute that is full.
const OF_ANNOUNCED: f64 = 0.99;
/// How many answers an epoch has for each 429 that is tolerated, by how many of the tolerated ones have been saved up.
const ANSWERS: [(f64, f64); 4] = [(3.0, 1.6), (0.0, 2.2), (-3.0, 3.0), (f64::NEG_INFINITY, 5.0)];
/// The share of the tolerated 429s that is aimed at: meeting a limit costs one or more at a time, and what is saved up in the
/// beginning is spent too.
const AIMED_AT: f64 = 0.85;
/// How many tolerated 429s are saved up at most, and how many are owed at most.
const MAX_SAVED: f64 = 10.0;
/// A measure of less than this many seconds says nothing.
const MEASURED: u64 = 20;
/// How much faster progress is beyond the knee.
const SEARCH: f64 = 3.0;
/// How much an epoch of search adds, as a share of the knee.
const REACH: f64 = 0.03;
/// How much the search adds in a minute at most.
const REACH_A_MINUTE: f64 = 0.08;
/// How often the burst is halved at most.
const MAX_HALVINGS: u32 = 5;
/// How often it is halved in the beginning, when nobody knows yet what the server takes at once.
const FIRST_HALVINGS: u32 = 3;

/// One limit as it is known so far, in units a minute.
#[derive(Debug, Clone)]
pub(crate) struct Learner {
    floor: f64,
    ceiling: f64,
    rejections: f64,
    rate: f64,
    knee: f64,
    depth: f64,
    progress: f64,
    strikes: usize,
    /// When the rate was cut for the last time.
    cut_at: Option<u64>,
    /// How many answers succeeded since.
    since_cut: u64,
    /// How often the burst was halved.
    halvings: u32,
    announced: Option<u64>,
    /// Tolerated 429s that were not needed.
    saved: f64,
    trail: Trail,
}

impl Learner {
    pub(crate) fn new(limits: &Limits, learning: &Learning, quantity: Quantity, now: u64) -> Option<Self> {
        let limit = limits.per_minute(quantity)? as f64;
        let (floor, ceiling) = (limit * learning.floor, limit * learning.ceiling);
        let rate = (limit * limits.margin).clamp(floor, ceiling);
        let knee = limit.min(ceiling);
        Some(Self {
            floor,
            ceiling,
            rejections: learning.rejections,
            rate,
            knee,
            depth: knee - rate,
            progress: 0.0,
            strikes: 0,
            cut_at: None,
            since_cut: 0,
            halvings: FIRST_HALVINGS,
            announced: None,
            saved: MAX_SAVED / 2.0,
            trail: Trail::new(now),
        })
    }

    /// Thousandths a minute.
    pub(crate) fn rate_milli(&self) -> u64 {
        // Bounded by the checks of the configuration, and never negative.
        (self.rate * 1_000.0) as u64
    }

    /// How often the burst is to be halved.
    pub(crate) fn halvings(&self) -> u32 {
        self.halvings
    }

    /// So much was let through.
    pub(crate) fn granted(&mut self, now: u64, amount: u64) {
        self.trail.add(now, amount as f64);
    }

    /// How much of what the rate gives was let through of late, as a share.
    pub(crate) fn in_use(&mut self, now: u64) -> f64 {
        let (sum, seconds) = self.trail.last_minute(now);
        sum * 60.0 / (self.rate * seconds.max(1) as f64)
    }

    /// What was let through at `sent` was `more` than it seemed, or less.
    pub(crate) fn corrected(&mut self, sent: u64, more: f64) {
        self.trail.add(sent, more);
    }

    /// An answer succeeded that was let through at `sent`. `per_minute` is how many such requests the rate makes in a
    /// minute, `used` whether the limit is what held it back. Says whether the rate changed.
    pub(crate) fn succeeded(&mut self, sent: u64, per_minute: f64, used: bool) -> bool {
        self.saved = (self.saved + self.rejections * AIMED_AT).min(MAX_SAVED);
        if self.cut_at.is_some_and(|cut| sent <= cut) {
            return false;
        }
        self.since_cut += 1;
        let per_minute = per_minute.max(1.0);
        let answers = ANSWERS.iter().find(|(saved, _)| self.saved > *saved);
        let epoch = (answers.map_or(1.0, |(_, answers)| *answers) / self.rejections).max(per_minute);
        // Some seconds of success end a row of strikes.
        if self.since_cut as f64 > (per_minute / 12.0).max(4.0) {
            self.strikes = 0;
        }
        if self.since_cut as f64 > epoch && self.halvings > 0 {
            self.halvings -= 1;
            self.since_cut = 0;
        }
        if !used || self.rate >= self.most() {
            return false;
        }
        let missing = 1.0 - self.progress;
        let curve = if missing > 0.0 {
            self.progress += 1.0 / epoch;
            self.knee - self.depth * missing.powi(3)
        } else {
            self.progress += SEARCH / epoch;
            let bound = self.rate * (1.0 + REACH_A_MINUTE / per_minute);
            (self.knee * (1.0 - REACH * missing.powi(3))).min(bound)
        };
        self.rate = curve.clamp(self.floor, self.most());
        true
    }

    /// A request of `amount` that was let through at `sent` was answered 429. Says how many came in a row; `None` if it
    /// belongs to one that was seen already.
    pub(crate) fn rejected(&mut self, sent: u64, amount: u64, now: u64) -> Option<u32> {
        self.trail.add(sent, -(amount as f64));
        self.saved = (self.saved - 1.0).max(-MAX_SAVED);
        if self.cut_at.is_some_and(|cut| sent <= cut) {
            return None;
        }
        let (most, least) = CUTS.get(self.strikes).copied().unwrap_or(CUTS[CUTS.len() - 1]);
        // Before there is a measure, half of what is allowed.
        let measured = match self.trail.last_minute(now) {
            (sum, seconds) if seconds >= MEASURED => sum,
            _ => self.rate * (1.0 + least) / 2.0,
        };
        self.knee = measured.clamp(self.rate * least, self.rate).max(self.floor);
        self.rate = (self.knee * most).clamp(self.floor, self.most());
        self.depth = (self.knee - self.rate).max(0.0);
        self.progress = 0.0;
        self.cut_at = Some(now);
        self.since_cut = 0;
        self.strikes += 1;
        if self.strikes > 1 {
            self.halvings = (self.halvings + 1).min(MAX_HALVINGS);
        }
        u32::try_from(self.strikes).ok()
    }

    /// The provider says what the limit is.
    pub(crate) fn announced(&mut self, limit: u64) -> bool {
        let before = self.announced.replace(limit);
        if before == Some(limit) {
            return false;
        }
        let (new, old) = (limit as f64, before.map_or(self.knee, |before| before as f64));
        // As near to the new limit as it was to the old one.
        let near = if old > 0.0 {
            (self.rate / old).min(1.0)
        } else {
            1.0
        };
        self.knee = (new * OF_ANNOUNCED).clamp(self.floor, self.ceiling);
        self.rate = (new * near).clamp(self.floor, self.most());
        self.depth = (self.knee - self.rate).max(0.0);
        self.progress = 0.0;
        true
    }

    fn most(&self) -> f64 {
        match self.announced {
            Some(limit) => self.ceiling.min(limit as f64 * OF_ANNOUNCED).max(self.floor),
            None => self.ceiling,
        }
    }
}

#[cfg(feature = "redis")]
impl Learner {
    /// What there is to remember, as text.
    pub(crate) fn store(&self) -> String {
        let Self {
            floor: _,
            ceiling: _,
            rejections: _,
            rate,
            knee,
            depth,
            progress,
            strikes,
            cut_at,
            since_cut,
            halvings,
            announced,
            saved,
            trail,
        } = self;
        let optional = |value: &Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        format!(
            "{rate} {knee} {depth} {progress} {strikes} {} {since_cut} {halvings} {} {saved} {}",
            optional(cut_at),
            optional(announced),
            trail.store()
        )
    }

    /// Takes over what was stored. What is no such text changes nothing; and where it is from later than `now`, because the
    /// clock was set back, its times are forgotten.
    pub(crate) fn restore(&mut self, stored: &str, now: u64) {
        // Bounded, as everything from outside.
        if stored.len() <= 4_096
            && let Some(restored) = self.restored(stored)
        {
            *self = restored;
            // What the processes take for the time of the server differs a little.
            let later = now.saturating_add(2_000_000_000);
            self.cut_at = self.cut_at.filter(|cut| *cut <= later);
            if self.trail.is_after(later) {
                self.trail = Trail::new(now);
            }
        }
    }

    fn restored(&self, stored: &str) -> Option<Self> {
        let mut words = stored.split(' ');
        let mut float = || {
            words
                .next()?
                .parse::<f64>()
                .ok()
                .filter(|value| value.is_finite())
        };
        let (rate, knee, depth, progress) = (float()?, float()?, float()?, float()?);
        let strikes = words.next()?.parse().ok()?;
        let optional = |word: &str| match word {
            "-" => Some(None),
            word => word.parse().ok().map(Some),
        };
        let cut_at = optional(words.next()?)?;
        let since_cut = words.next()?.parse().ok()?;
        let halvings = words.next()?.parse::<u32>().ok()?.min(MAX_HALVINGS);
        let announced = optional(words.next()?)?;
        let saved = words.next()?.parse::<f64>().ok()?.clamp(-MAX_SAVED, MAX_SAVED);
        let mut restored = Self {
            knee: knee.clamp(self.floor, self.ceiling),
            depth: depth.clamp(0.0, self.ceiling),
            progress: progress.clamp(0.0, 1e6),
            strikes,
            cut_at,
            since_cut,
            halvings,
            announced,
            saved,
            trail: Trail::restored(words)?,
            ..self.clone()
        };
        restored.rate = rate.clamp(restored.floor, restored.most());
        Some(restored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn learner() -> Learner {
        let limits = Limits::new().with_requests_per_minute(600);
        Learner::new(&limits, &Learning::new(), Quantity::Requests, 0).unwrap()
    }

    #[test]
    fn a_cut_is_one_for_each_round_trip_and_never_below_the_floor() {
        let mut learner = learner();
        let before = learner.rate;
        assert_eq!(learner.rejected(SECOND, 1, 2 * SECOND), Some(1));
        let after = learner.rate;
        assert!(after < before);
        assert_eq!(
            learner.rejected(SECOND + 1, 1, 3 * SECOND),
            None,
            "sent before the cut"
        );
        assert_eq!(learner.rate, after);
        for round in 0..1_000 {
            learner.rejected((4 + 2 * round) * SECOND, 1, (5 + 2 * round) * SECOND);
        }
        assert_eq!(learner.rate, 30.0);
    }

    #[test]
    fn it_grows_to_the_ceiling_only_while_it_is_used() {
        let mut learner = learner();
        for at in 0..10_000 {
            learner.succeeded(at * SECOND / 10, 600.0, false);
        }
        assert_eq!(learner.rate, 540.0);
        for at in 0..10_000 {
            learner.succeeded(at * SECOND / 10, 600.0, true);
        }
        assert_eq!(learner.rate, 600.0);
    }

    #[test]
    fn what_is_announced_is_believed_within_bounds() {
        let mut learner = learner();
        assert!(learner.announced(300));
        assert!(!learner.announced(300), "nothing new");
        assert!(learner.rate <= 300.0, "{}", learner.rate);
        learner.announced(u64::MAX);
        assert!(learner.rate <= 600.0, "the ceiling is ours");
        learner.announced(1);
        assert_eq!(learner.rate, 30.0, "and so is the floor");
    }

    #[cfg(feature = "redis")]
    #[test]
    fn what_is_stored_comes_back_and_nonsense_does_not() {
        let mut one = learner();
        one.granted(5 * SECOND, 3);
        one.rejected(6 * SECOND, 1, 7 * SECOND);
        one.announced(500);
        let mut other = learner();
        other.restore(&one.store(), 7 * SECOND);
        assert_eq!(other.store(), one.store());
        for nonsense in [
            "",
            "1 2 3",
            "NaN NaN NaN NaN 0 - 0 0 - 0 0 0",
            &"9 ".repeat(5_000),
        ] {
            other.restore(nonsense, 7 * SECOND);
            assert_eq!(other.store(), one.store(), "{nonsense}");
        }
        // The clock was set back by an hour: what is learned stays, the times do not.
        let mut later = learner();
        later.rejected(3_600 * SECOND, 1, 3_601 * SECOND);
        other.restore(&later.store(), SECOND);
        assert_eq!(other.rate_milli(), later.rate_milli());
        assert!(
            other.rejected(2 * SECOND, 1, 3 * SECOND).is_some(),
            "it still learns"
        );
    }
}
