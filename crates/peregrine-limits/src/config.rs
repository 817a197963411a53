//! What may be used: the limits, and how far they may be learned.

use std::time::Duration;

use crate::bucket::MAX_AMOUNT;
use crate::{Error, Quantity};

/// What may be used in a minute, how much of it at once, and by how many at the same time.
///
/// What is not set is not limited.
///
/// # Examples
///
/// ```
/// use peregrine_limits::{Learning, Limits};
///
/// let limits = Limits::new()
///     .with_requests_per_minute(500)
///     .with_tokens_per_minute(200_000)
///     .with_concurrency(64)
///     .with_learning(Learning::new());
/// assert_eq!(limits.margin, 0.9);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Requests a minute, as the provider counts them.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute, prompt and answer together.
    pub tokens_per_minute: Option<u64>,
    /// Requests at the same time.
    pub concurrency: Option<u32>,
    /// The share of the limits that is used, in (0, 1]. 0.9.
    pub margin: f64,
    /// How much may be used at once after a rest, as time of the rate; at least one request always may. `None` is the
    /// part of a minute that the margin leaves (6 s), so that no minute has more than the limit, wherever it begins, as long
    /// as no single request is larger than that; but never less than a second. A larger request is let through when the
    /// whole burst is there, and what follows it pays for it.
    pub burst: Option<Duration>,
    /// How many requests may wait, those of all tenants together. 10,000.
    pub max_waiting: usize,
    /// The longest that a provider's wish to wait is kept. 2 min.
    pub max_pause: Duration,
    /// Whether and how far the limits follow what the provider says and does. `None`: its wishes to wait are kept, and
    /// when it says that less is left than seems to be, that is believed; the rates stay.
    pub learning: Option<Learning>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_minute: None,
            tokens_per_minute: None,
            concurrency: None,
            margin: 0.9,
            burst: None,
            max_waiting: 10_000,
            max_pause: Duration::from_secs(120),
            learning: None,
        }
    }
}

impl Limits {
    /// No limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the requests a minute.
    #[must_use]
    pub fn with_requests_per_minute(mut self, requests: u64) -> Self {
        self.requests_per_minute = Some(requests);
        self
    }

    /// Limits the tokens a minute.
    #[must_use]
    pub fn with_tokens_per_minute(mut self, tokens: u64) -> Self {
        self.tokens_per_minute = Some(tokens);
        self
    }

    /// Limits the requests at the same time.
    #[must_use]
    pub fn with_concurrency(mut self, requests: u32) -> Self {
        self.concurrency = Some(requests);
        self
    }

    /// Sets the share of the limits that is used.
    #[must_use]
    pub fn with_margin(mut self, margin: f64) -> Self {
        self.margin = margin;
        self
    }

    /// Sets how much may be used at once after a rest, as time of the rate.
    #[must_use]
    pub fn with_burst(mut self, burst: Duration) -> Self {
        self.burst = Some(burst);
        self
    }

    /// Sets how many requests may wait.
    #[must_use]
    pub fn with_max_waiting(mut self, requests: usize) -> Self {
        self.max_waiting = requests;
        self
    }

    /// Sets the longest that a provider's wish to wait is kept.
    #[must_use]
    pub fn with_max_pause(mut self, pause: Duration) -> Self {
        self.max_pause = pause;
        self
    }

    /// Lets the limits follow the provider.
    #[must_use]
    pub fn with_learning(mut self, learning: Learning) -> Self {
        self.learning = Some(learning);
        self
    }

    /// A part of these limits, for one of `parts` that share them; each part has at least one of everything.
    #[cfg(feature = "redis")]
    pub(crate) fn divided(&self, parts: u64) -> Self {
        let parts = parts.max(1);
        Self {
            requests_per_minute: self.requests_per_minute.map(|all| (all / parts).max(1)),
            tokens_per_minute: self.tokens_per_minute.map(|all| (all / parts).max(1)),
            concurrency: self
                .concurrency
                .map(|all| u32::try_from(u64::from(all) / parts).unwrap_or(all).max(1)),
            ..self.clone()
        }
    }

    pub(crate) fn checked(self) -> Result<Self, Error> {
        let refuse = |message: String| Err(Error::Config { message });
        let rates = [
            (Quantity::Requests, self.requests_per_minute),
            (Quantity::Tokens, self.tokens_per_minute),
        ];
        for (quantity, limit) in rates {
            if limit.is_some_and(|limit| !(1..=MAX_AMOUNT / 1_000_000).contains(&limit)) {
                let most = MAX_AMOUNT / 1_000_000;
                return refuse(format!("a limit of {quantity} a minute is between 1 and {most}"));
            }
        }
        if self.concurrency == Some(0) {
            return refuse("with a concurrency of 0 nothing ever runs; leave it out for no limit".to_owned());
        }
        if !(self.margin > 0.0 && self.margin <= 1.0) {
            return refuse(format!(
                "the margin is a share in (0, 1], {} is none",
                self.margin
            ));
        }
        if self.burst.is_some_and(|burst| burst > Duration::from_secs(3_600)) {
            return refuse("a burst of more than an hour is no limit".to_owned());
        }
        if let Some(learning) = &self.learning {
            learning.check()?;
        }
        Ok(self)
    }

    /// How much may be used at once, in nanoseconds of the rate.
    pub(crate) fn burst_ns(&self) -> u64 {
        let rest = Duration::from_secs_f64(60.0 * (1.0 - self.margin.clamp(0.0, 1.0)));
        nanos(self.burst.unwrap_or(rest.max(Duration::from_secs(1))))
    }

    pub(crate) fn per_minute(&self, quantity: Quantity) -> Option<u64> {
        match quantity {
            Quantity::Requests => self.requests_per_minute,
            Quantity::Tokens => self.tokens_per_minute,
        }
    }
}

/// How far a limit may be learned, as shares of the configured one, and at what price.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Learning {
    /// Never less than this share. 0.05.
    pub floor: f64,
    /// Never more than this share: more than 1 where the true limit may be higher than the configured one. 1.
    pub ceiling: f64,
    /// The share of requests that may be answered 429 for the sake of finding the limit. 0.001.
    pub rejections: f64,
}

impl Default for Learning {
    fn default() -> Self {
        Self {
            floor: 0.05,
            ceiling: 1.0,
            rejections: 0.001,
        }
    }
}

impl Learning {
    /// Between a twentieth of the configured limits and all of them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Between these shares of the configured limits.
    #[must_use]
    pub fn with_bounds(mut self, floor: f64, ceiling: f64) -> Self {
        (self.floor, self.ceiling) = (floor, ceiling);
        self
    }

    /// Sets the share of requests that may be answered 429 for the sake of finding the limit.
    #[must_use]
    pub fn with_rejections(mut self, share: f64) -> Self {
        self.rejections = share;
        self
    }

    fn check(&self) -> Result<(), Error> {
        let Self {
            floor,
            ceiling,
            rejections,
        } = *self;
        if floor > 0.0 && floor <= ceiling && ceiling <= 1_000.0 && rejections > 0.0 && rejections <= 0.5 {
            return Ok(());
        }
        let message = format!(
            "learning is between a floor above 0 and a ceiling of at most 1000 times the limit, and its share of \
             rejections in (0, 0.5]; {floor}, {ceiling} and {rejections} are not"
        );
        Err(Error::Config { message })
    }
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
