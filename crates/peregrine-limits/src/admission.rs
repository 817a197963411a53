//! The rules of admission: two buckets, a number of slots, and pauses that the provider asks for.
//!
//! Invariant: whatever order things happen in, what is taken is either used or given back once. A [`Grant`] is consumed
//! where it ends.

use crate::bucket::Bucket;
#[cfg(feature = "redis")]
use crate::bucket::MAX_AMOUNT;
use crate::config::{Limits, nanos};
use crate::error::{Error, Quantity};
use crate::learn::Learner;
use crate::signals::{Signals, Window};
use crate::wait::{Decision, Policy};

const MINUTE: u64 = 60_000_000_000;
const SECOND: u64 = 1_000_000_000;
/// The first pause after a 429 that names none; each further one in a row doubles it.
const FIRST_PAUSE: u64 = SECOND / 2;
/// How long the first request after a pause is watched before others follow, at least and at most: twice as long as
/// refusals take.
const TRIAL: (u64, u64) = (SECOND / 20, 2 * SECOND);

/// No usage that is reported counts for more than so many minutes: nothing that a provider says stops everybody for good.
const MOST_OWED: u64 = 10;
/// For how long a limit that was announced is a reason to refuse what is larger, if nobody announces it again. What is let
/// through then finds out.
const ANNOUNCED_FOR: u64 = 10 * MINUTE;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) tokens: u64,
}

/// What was granted.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) tokens: u64,
    /// When.
    pub(crate) at: u64,
    /// Which limits were in use by then, in the order of [`Quantity::ALL`].
    pub(crate) used: [bool; 2],
}

/// How a grant ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The provider answered; so many tokens were used.
    Used(u64),
    /// The provider answered 429.
    Rejected,
    /// The request never reached the provider.
    NotSent,
    /// The provider refused it for a reason of its own, before any work.
    Declined,
    /// Nobody knows: what was reserved counts as used.
    Unknown,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    rates: [Option<Rate>; 2],
    in_flight: u32,
    paused_until: u64,
    trial: Trial,
    /// How long refusals take.
    refusal: u64,
    /// Tokens of a request, on average.
    mean_tokens: f64,
}

#[derive(Debug)]
struct Rate {
    bucket: Bucket,
    learner: Option<Learner>,
    /// More than this is never granted.
    most: u64,
    /// The limit that the provider announced, and until when it is believed that more is never granted.
    announced: Option<(u64, u64)>,
}

/// After a pause one request goes ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    None,
    Due,
    /// One was sent; the others wait until then, or until it succeeds.
    Sent {
        at: u64,
    },
}

impl Admission {
    pub(crate) fn new(limits: Limits, now: u64) -> Self {
        let rates = Quantity::ALL.map(|quantity| Rate::new(&limits, quantity, now));
        Self {
            limits,
            rates,
            in_flight: 0,
            paused_until: 0,
            trial: Trial::None,
            refusal: SECOND / 2,
            mean_tokens: 0.0,
        }
    }

    /// Stands in for `whole`, of which its own limits are a part: starts with nothing to use at once, and refuses nothing
    /// that the whole would let through.
    #[cfg(feature = "redis")]
    pub(crate) fn standing_in_for(mut self, whole: &Limits) -> Self {
        for (quantity, rate) in Quantity::ALL.into_iter().zip(&mut self.rates) {
            if let Some(rate) = rate {
                rate.bucket.lower_to(0);
                rate.most = whole.most(quantity);
            }
        }
        self
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// What is used of a limit in a minute at the most, as learned so far; in thousandths.
    pub(crate) fn rate_milli(&self, quantity: Quantity) -> Option<u64> {
        self.rates[quantity as usize]
            .as_ref()
            .map(|rate| rate.bucket.rate())
    }

    /// Learns from headers of an answer to what was let through at `at`.
    pub(crate) fn hear(&mut self, now: u64, at: u64, signals: &Signals) {
        for quantity in Quantity::ALL {
            if let Some(window) = signals.window(quantity) {
                self.hear_window(now, at, quantity, window);
            }
        }
        if let Some(wait) = signals.retry_after {
            self.pause(now.saturating_add(nanos(wait.min(self.limits.max_pause))));
        }
    }

    /// The end of a grant.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "it ends here, and nobody can end it twice"
    )]
    pub(crate) fn finish(&mut self, now: u64, grant: Grant, outcome: Outcome, signals: &Signals) {
        let Grant { tokens, at, used } = grant;
        let paused_until = self.paused_until;
        self.in_flight = self.in_flight.saturating_sub(1);
        for rate in self.rates.iter_mut().flatten() {
            rate.bucket.refill(now);
        }
        let [requests, of_tokens] = &mut self.rates;
        match outcome {
            Outcome::Used(really) => {
                let mut really = really;
                if let Some(rate) = of_tokens {
                    let owed = rate.most.saturating_mul(MOST_OWED);
                    really = really.min(owed.max(tokens));
                    if let Some(learner) = &mut rate.learner {
                        learner.corrected(at, really as f64 - tokens as f64);
                    }
                    match really.checked_sub(tokens) {
                        Some(more) => rate.bucket.owe(more, owed),
                        None => rate.bucket.give(tokens - really),
                    }
                }
                self.succeeded(now, at, really, used);
            }
            // A request that is refused is a request all the same; its tokens were not used.
            Outcome::Rejected => {
                if let Some(rate) = of_tokens {
                    rate.bucket.give(tokens);
                }
            }
            Outcome::NotSent => {
                for (rate, amount) in [(requests, 1), (of_tokens, tokens)] {
                    if let Some(rate) = rate {
                        rate.bucket.give(amount);
                        if let Some(learner) = &mut rate.learner {
                            learner.corrected(at, -(amount as f64));
                        }
                    }
                }
                if self.trial == (Trial::Sent { at }) {
                    self.trial = Trial::Due;
                }
            }
            // It counts as a request, and shows that the provider takes requests.
            Outcome::Declined => {
                if let Some(rate) = of_tokens {
                    rate.bucket.give(tokens);
                    if let Some(learner) = &mut rate.learner {
                        learner.corrected(at, -(tokens as f64));
                    }
                }
                self.tried(at);
            }
            Outcome::Unknown => {}
        }
        self.hear(now, at, signals);
        if outcome == Outcome::Rejected {
            self.rejected(now, at, tokens, signals, paused_until);
        }
    }

    fn succeeded(&mut self, now: u64, at: u64, tokens: u64, used: [bool; 2]) {
        self.tried(at);
        self.mean_tokens += (tokens as f64 - self.mean_tokens) / 64.0;
        let mean = self.mean_tokens.max(1.0);
        for quantity in Quantity::ALL {
            let Some(rate) = &mut self.rates[quantity as usize] else {
                continue;
            };
            let size = match quantity {
                Quantity::Requests => 1.0,
                Quantity::Tokens => mean,
            };
            let Some(learner) = &mut rate.learner else {
                continue;
            };
            let per_minute = learner.rate_milli() as f64 / 1_000.0 / size;
            if learner.succeeded(at, per_minute, used[quantity as usize]) {
                rate.follow(&self.limits, now);
            }
        }
    }

    /// The provider took what was let through at `at`: if that was after the pause, others may follow.
    fn tried(&mut self, at: u64) {
        if matches!(self.trial, Trial::Sent { at: trial } if trial <= at) {
            self.trial = Trial::None;
        }
    }

    /// `paused_until` is what was known before this answer.
    fn rejected(&mut self, now: u64, at: u64, tokens: u64, signals: &Signals, paused_until: u64) {
        let took = now.saturating_sub(at).min(TRIAL.1);
        self.refusal = took.max(self.refusal - self.refusal / 8);
        let culprit = self.culprit(signals, now);
        let amounts = [1, tokens];
        let mut in_a_row = None;
        let mut learns = false;
        for (quantity, amount) in Quantity::ALL.into_iter().zip(amounts) {
            let Some(rate) = &mut self.rates[quantity as usize] else {
                continue;
            };
            if let Some(learner) = &mut rate.learner {
                if culprit != Some(quantity) {
                    learner.corrected(at, -(amount as f64));
                    continue;
                }
                learns = true;
                in_a_row = learner.rejected(at, amount, now);
            }
            if in_a_row.is_some() {
                rate.follow(&self.limits, now);
                // The provider has nothing left: neither have we.
                rate.bucket.lower_to(0);
            }
        }
        // One that was sent before the pause began says nothing new.
        let news = in_a_row.is_some() || !learns && at >= paused_until;
        if news && signals.retry_after.is_none() {
            let pause = Self::pause_after(in_a_row.unwrap_or(1), &self.limits);
            self.pause(now.saturating_add(pause));
        }
        if news {
            self.trial = Trial::Due;
        }
    }

    /// How long to wait after so many 429s in a row that say nothing about it.
    pub(crate) fn pause_after(in_a_row: u32, limits: &Limits) -> u64 {
        let doubled = FIRST_PAUSE << in_a_row.saturating_sub(1).min(16);
        doubled.min(nanos(limits.max_pause)).min(MINUTE / 2)
    }

    /// Which limit a 429 is about: the one that has nothing left by the provider's own account, else the one that we used
    /// most of in the last minute.
    fn culprit(&mut self, signals: &Signals, now: u64) -> Option<Quantity> {
        let told = Quantity::ALL.into_iter().find(|quantity| {
            let window = signals.window(*quantity);
            window.is_some_and(|window| window.remaining == Some(0))
        });
        let mut use_of = |quantity: Quantity| {
            let rate = self.rates[quantity as usize].as_mut()?;
            Some(match &mut rate.learner {
                Some(learner) => learner.in_use(now),
                None => 1.0 - rate.bucket.share_left(),
            })
        };
        let [requests, tokens] = Quantity::ALL.map(&mut use_of);
        let most = match (requests, tokens) {
            (Some(requests), Some(tokens)) if requests > tokens => Some(Quantity::Requests),
            (_, Some(_)) => Some(Quantity::Tokens),
            (Some(_), None) => Some(Quantity::Requests),
            (None, None) => None,
        };
        told.filter(|quantity| self.rates[*quantity as usize].is_some())
            .or(most)
    }

    fn hear_window(&mut self, now: u64, at: u64, quantity: Quantity, window: &Window) {
        let Window {
            limit,
            remaining,
            reset,
        } = *window;
        let Some(rate) = &mut self.rates[quantity as usize] else {
            return;
        };
        rate.bucket.refill(now);
        if let (Some(limit), Some(learner)) = (limit.filter(|limit| *limit > 0), &mut rate.learner) {
            rate.announced = Some((limit, now.saturating_add(ANNOUNCED_FOR)));
            if learner.announced(limit) {
                rate.follow(&self.limits, now);
            }
        }
        if let Some(remaining) = remaining {
            // What was left when the request came there; there is more by now.
            let age = now.saturating_sub(at);
            let since = u128::from(age) * u128::from(rate.bucket.rate()) / u128::from(MINUTE * 1_000);
            rate.bucket
                .lower_to(remaining.saturating_add(u64::try_from(since).unwrap_or(u64::MAX)));
            // Whether a reset is the end of a window or the time until everything is there again, headers do not tell.
            if let (0, Some(reset)) = (remaining, reset) {
                let pause = nanos(reset).min(SECOND);
                self.pause(at.saturating_add(pause));
            }
        }
    }

    fn pause(&mut self, until: u64) {
        self.paused_until = self.paused_until.max(until);
    }
}

impl Rate {
    fn new(limits: &Limits, quantity: Quantity, now: u64) -> Option<Self> {
        let limit = limits.per_minute(quantity)?;
        let learner = limits
            .learning
            .as_ref()
            .and_then(|learning| Learner::new(limits, learning, quantity, now));
        let rate = match &learner {
            Some(learner) => learner.rate_milli(),
            None => (limit as f64 * limits.margin * 1_000.0) as u64,
        };
        let halvings = learner.as_ref().map_or(0, Learner::halvings);
        Some(Self {
            bucket: Bucket::new(rate, limits.capacity(rate) >> halvings, now),
            learner,
            most: limits.most(quantity),
            announced: None,
        })
    }

    /// More than this is not granted now.
    fn most(&self, now: u64) -> u64 {
        match self.announced {
            Some((limit, until)) if now < until => self.most.min(limit),
            _ => self.most,
        }
    }

    fn follow(&mut self, limits: &Limits, now: u64) {
        if let Some(learner) = &self.learner {
            let rate = learner.rate_milli();
            let capacity = limits.capacity(rate) >> learner.halvings();
            self.bucket.set_rate(rate, capacity, now);
        }
    }
}

impl Limits {
    /// What a bucket of this rate holds, in thousandths.
    pub(crate) fn capacity(&self, rate_milli: u64) -> u64 {
        let capacity = u128::from(rate_milli) * u128::from(self.burst_ns()) / u128::from(MINUTE);
        u64::try_from(capacity).unwrap_or(u64::MAX)
    }

    /// No single request gets more than this.
    pub(crate) fn most(&self, quantity: Quantity) -> u64 {
        let limit = self.per_minute(quantity).unwrap_or(u64::MAX);
        match &self.learning {
            Some(learning) => limit.max((limit as f64 * learning.ceiling) as u64),
            None => limit,
        }
    }

    /// The most that is owed of what is limited.
    #[cfg(feature = "redis")]
    pub(crate) fn most_owed(&self, quantity: Quantity) -> Option<u64> {
        self.per_minute(quantity)?;
        Some(self.most(quantity).saturating_mul(MOST_OWED).min(MAX_AMOUNT))
    }

    /// Rate and capacity to begin with, in thousandths.
    #[cfg(feature = "redis")]
    pub(crate) fn first_rate(&self, quantity: Quantity) -> Option<(u64, u64)> {
        let Rate { bucket, learner, .. } = Rate::new(self, quantity, 0)?;
        let halvings = learner.map_or(0, |learner| learner.halvings());
        // One whole request always fits.
        Some((
            bucket.rate(),
            (self.capacity(bucket.rate()) >> halvings).max(1_000),
        ))
    }

    /// The share of the limits that a request of so many tokens uses, as nanoseconds of the slower rate.
    pub(crate) fn cost(&self, tokens: u64) -> u64 {
        let share = |amount: u64, limit: Option<u64>| {
            let limit = u128::from(limit.unwrap_or(u64::MAX).max(1));
            u64::try_from(u128::from(amount) * u128::from(MINUTE) / limit).unwrap_or(u64::MAX)
        };
        let cost = share(1, self.requests_per_minute).max(share(tokens, self.tokens_per_minute));
        // Beyond an hour all are alike, and sums of costs stay far from an overflow.
        cost.clamp(1, 60 * MINUTE)
    }
}

impl Policy for Admission {
    type Ask = Ask;
    type Grant = Grant;
    type Refusal = Error;

    fn decide(&mut self, now: u64, ask: &Ask) -> Decision<Grant, Error> {
        let Ask { tokens } = *ask;
        for (quantity, asked) in [(Quantity::Requests, 1), (Quantity::Tokens, tokens)] {
            if let Some(rate) = &self.rates[quantity as usize]
                && asked > rate.most(now)
            {
                let limit = rate.most(now);
                return Decision::Refuse(Error::TooLarge {
                    quantity,
                    asked,
                    limit,
                });
            }
        }
        if self.limits.concurrency.is_some_and(|most| self.in_flight >= most) {
            return Decision::Later;
        }
        let mut at = self.paused_until;
        if let Trial::Sent { at: sent } = self.trial {
            at = at.max(sent.saturating_add((2 * self.refusal).clamp(TRIAL.0, TRIAL.1)));
        }
        let amounts = [1, tokens];
        for (rate, amount) in self.rates.iter_mut().zip(amounts) {
            if let Some(rate) = rate {
                rate.bucket.refill(now);
                at = at.max(rate.bucket.ready_at(amount));
            }
        }
        if at > now {
            return Decision::At(at);
        }
        let mut used = [false; 2];
        for ((rate, amount), used) in self.rates.iter_mut().zip(amounts).zip(&mut used) {
            if let Some(rate) = rate {
                rate.bucket.take(amount);
                if let Some(learner) = &mut rate.learner {
                    learner.granted(now, amount);
                }
                *used = rate.bucket.is_in_use();
            }
        }
        self.in_flight = self.in_flight.saturating_add(1);
        self.trial = match self.trial {
            Trial::Due => Trial::Sent { at: now },
            Trial::None | Trial::Sent { .. } => Trial::None,
        };
        Decision::Grant(Grant {
            tokens,
            at: now,
            used,
        })
    }

    fn take_back(&mut self, now: u64, grant: Grant) {
        self.finish(now, grant, Outcome::NotSent, &Signals::default());
    }
}
