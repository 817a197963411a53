//! Retries: full jitter, the provider's own wait, and a budget that stops storms.
//!
//! Algorithm: "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015), full jitter: the n-th wait is
//! uniform in `[0, min(cap, base * 2^n))`. A wait that the provider asks for is kept instead, unless it is
//! longer than the policy allows (then the error is handed on at once) or zero. The budget follows Finagle's: every
//! call pays in a fraction of a retry, every retry takes out a whole one.
//!
//! Invariant: a streamed answer is never begun twice for the caller. A stream is retried only while nothing
//! of its content has been handed on; events that only announce the answer are held back until then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, ChatStream, Error, Metadata, Middleware, Result, Timer,
};

use crate::begin::begin;

/// How often and how long to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// How many times a call is tried again at the most. 2.
    pub max_retries: u32,
    /// The first wait is random between zero and this. 500 ms.
    pub base_delay: Duration,
    /// No random wait is longer than this. 8 s.
    pub max_delay: Duration,
    /// A provider that asks for a longer wait than this is not waited for. 60 s.
    pub max_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 2,
            base_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(8),
            max_retry_after: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// A policy with this many retries.
    pub fn new(max_retries: u32) -> Self {
        Self {
            max_retries,
            ..Self::default()
        }
    }

    /// Sets the first wait's upper bound and the bound of every random wait.
    #[must_use]
    pub fn with_delays(mut self, base: Duration, max: Duration) -> Self {
        (self.base_delay, self.max_delay) = (base, max);
        self
    }

    /// Sets the longest wait that a provider may ask for.
    #[must_use]
    pub fn with_max_retry_after(mut self, max: Duration) -> Self {
        self.max_retry_after = max;
        self
    }

    /// How long to wait before retry number `retry` (from 0) after `error`; `None` for no retry.
    ///
    /// `random` is in `[0, 1)`. What a layer of this side holds back ([`Error::Unavailable`]: a circuit is open, every
    /// model failed) is not tried again: that layer has decided.
    pub fn delay(&self, error: &Error, retry: u32, random: f64) -> Option<Duration> {
        let decided = matches!(error, Error::Unavailable(_));
        if retry >= self.max_retries || decided || !error.is_retryable() {
            return None;
        }
        match error.retry_after() {
            Some(wait) if wait > self.max_retry_after => None,
            Some(wait) if !wait.is_zero() => Some(wait),
            // Zero, or a date that has passed, says no time: a random wait spares the provider a storm.
            _ => {
                let share = if random.is_finite() {
                    random.clamp(0.0, 1.0)
                } else {
                    1.0
                };
                let doubled = self
                    .base_delay
                    .saturating_mul(1_u32.checked_shl(retry).unwrap_or(u32::MAX));
                Some(doubled.min(self.max_delay).mul_f64(share))
            }
        }
    }
}

/// How many retries may still be made, shared by all calls that hold a clone: each call pays in a tenth of a
/// retry, each retry takes out a whole one, and at most `reserve` can be saved up.
#[derive(Debug, Clone)]
pub struct RetryBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    tenths: AtomicU32,
    max_tenths: u32,
}

impl RetryBudget {
    /// A full budget of `reserve` retries.
    pub fn new(reserve: u32) -> Self {
        let max_tenths = reserve.saturating_mul(10);
        Self(Arc::new(Budget {
            tenths: AtomicU32::new(max_tenths),
            max_tenths,
        }))
    }

    /// How many whole retries are left.
    pub fn remaining(&self) -> u32 {
        self.0.tenths.load(Ordering::Relaxed) / 10
    }

    fn pay_in(&self) {
        let add = |tenths: u32| (tenths < self.0.max_tenths).then_some(tenths + 1);
        // An error only says that the budget is full.
        let _full = self
            .0
            .tenths
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn take_out(&self) -> bool {
        self.0
            .tenths
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tenths| {
                tenths.checked_sub(10)
            })
            .is_ok()
    }
}

impl Default for RetryBudget {
    /// Twenty retries.
    fn default() -> Self {
        Self::new(20)
    }
}

/// Tries failed calls again. A [`Middleware`]: `model.layered(Retry::new(policy, timer))`.
///
/// An answer that took more than one attempt says so in its metadata (`attempts`).
pub struct Retry {
    policy: RetryPolicy,
    budget: RetryBudget,
    timer: Arc<dyn Timer>,
    random: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl Retry {
    /// Retries by `policy`, waiting by `timer`, with a budget of its own.
    pub fn new(policy: RetryPolicy, timer: Arc<dyn Timer>) -> Self {
        Self {
            policy,
            budget: RetryBudget::default(),
            timer,
            random: Box::new(fastrand::f64),
        }
    }

    /// Shares a budget with others.
    #[must_use]
    pub fn with_budget(mut self, budget: RetryBudget) -> Self {
        self.budget = budget;
        self
    }

    /// Takes randomness in `[0, 1)` from `random`.
    #[must_use]
    pub fn with_random(mut self, random: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        self.random = Box::new(random);
        self
    }

    /// Waits before the next attempt, or gives the error back.
    async fn wait(&self, error: Error, retry: u32) -> Result<()> {
        match self.policy.delay(&error, retry, (self.random)()) {
            Some(delay) if self.budget.take_out() => {
                self.timer.sleep(delay).await;
                Ok(())
            }
            _ => Err(error),
        }
    }
}

impl std::fmt::Debug for Retry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retry")
            .field("policy", &self.policy)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

impl Middleware for Retry {
    async fn complete<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatResponse> {
        self.budget.pay_in();
        let mut retry = 0;
        loop {
            match inner.complete(request).await {
                Ok(mut response) => {
                    note_attempts(&mut response.metadata, retry);
                    return Ok(response);
                }
                Err(error) => self.wait(error, retry).await?,
            }
            retry += 1;
        }
    }

    async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatStream> {
        self.budget.pay_in();
        let mut retry = 0;
        loop {
            match begin(inner, request).await {
                Ok(begun) if retry == 0 => return Ok(begun.into_stream()),
                Ok(begun) => return Ok(begun.noting(move |facts| note_attempts(facts, retry))),
                Err(error) => self.wait(error, retry).await?,
            }
            retry += 1;
        }
    }
}

fn note_attempts(metadata: &mut Metadata, retries: u32) {
    if retries > 0 {
        metadata.insert("attempts".to_owned(), (retries + 1).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_core::{ErrorKind, ProviderError};

    #[test]
    fn a_wait_of_zero_is_no_wait_to_keep() {
        let mut error = ProviderError::new("p", 429, ErrorKind::RateLimited, "m");
        error.retry_after = Some(Duration::ZERO);
        let delay = RetryPolicy::default().delay(&error.clone().into(), 0, 0.5);
        assert_eq!(delay, Some(Duration::from_millis(250)), "no storm");
        error.retry_after = Some(Duration::from_millis(1));
        let delay = RetryPolicy::default().delay(&error.into(), 0, 0.5);
        assert_eq!(delay, Some(Duration::from_millis(1)));
    }
}
