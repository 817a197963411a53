//! The middleware.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, ChatStream, Metadata, Middleware, Monotonic, Result, Timer, Usage,
};
use serde_json::json;

use super::HedgePolicy;
use super::budget::ExtraCalls;
use super::race::{Finish, Which, race, within};
use super::window::LatencyWindow;
use crate::begin::begin_noting;

/// Asks a second time where the first call takes unusually long, and takes the first answer. A [`Middleware`]:
/// `model.layered(Hedge::new(policy, timer))`.
///
/// Streams are hedged until the first content has come, never after. The call that lost is dropped, which closes its
/// connection; whether the provider bills it is the provider's affair. Where its usage is known by then, it is added to
/// the usage of the answer. An answer for which two calls were made says so in its metadata: `hedged`, with which call
/// `answered` (`first` or `second`) and whether the other one's usage is counted (`other_usage_known`).
///
/// Clones share what they have learnt and the budget. Put it around one model: latencies of different models do not mix.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use peregrine_core::{ChatModel, ModelHandle, Timer};
/// use peregrine_providers::{Hedge, HedgePolicy};
///
/// fn prompt(model: ModelHandle, timer: Arc<dyn Timer>) -> ModelHandle {
///     model.layered(Hedge::new(HedgePolicy::default(), timer)).into_handle()
/// }
/// ```
#[derive(Clone)]
pub struct Hedge(Arc<Shared>);

struct Shared {
    policy: HedgePolicy,
    timer: Arc<dyn Timer>,
    budget: ExtraCalls,
    windows: Mutex<[LatencyWindow; 2]>,
    calls: AtomicU64,
    hedged: AtomicU64,
    won: AtomicU64,
    denied: AtomicU64,
}

/// What is timed.
#[derive(Debug, Clone, Copy)]
enum Timed {
    Whole = 0,
    FirstContent = 1,
}

/// What a hedge has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HedgeStats {
    /// Calls that came in.
    pub calls: u64,
    /// Calls that were made a second time.
    pub hedged: u64,
    /// Calls of which the second one answered.
    pub won: u64,
    /// Calls that would have been made a second time if the budget had allowed it.
    pub denied: u64,
    /// After how long a whole answer is asked for again; `None` while too little is known.
    pub whole_delay: Option<Duration>,
    /// After how long a stream without content is asked for again.
    pub first_content_delay: Option<Duration>,
}

impl Hedge {
    /// Hedges by `policy`, with time from `timer`.
    pub fn new(policy: HedgePolicy, timer: Arc<dyn Timer>) -> Self {
        let quantile = match policy.quantile.is_finite() {
            true => policy.quantile.clamp(0.0, 1.0),
            false => 1.0,
        };
        Self(Arc::new(Shared {
            budget: ExtraCalls::new(policy.extra_share, policy.burst),
            policy,
            timer,
            windows: Mutex::new([LatencyWindow::new(quantile), LatencyWindow::new(quantile)]),
            calls: AtomicU64::new(0),
            hedged: AtomicU64::new(0),
            won: AtomicU64::new(0),
            denied: AtomicU64::new(0),
        }))
    }

    /// What it has done so far.
    pub fn stats(&self) -> HedgeStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HedgeStats {
            calls: count(&self.0.calls),
            hedged: count(&self.0.hedged),
            won: count(&self.0.won),
            denied: count(&self.0.denied),
            whole_delay: self.delay(Timed::Whole),
            first_content_delay: self.delay(Timed::FirstContent),
        }
    }

    /// After how long a second call begins, if enough is known.
    fn delay(&self, timed: Timed) -> Option<Duration> {
        let window = &mut self.windows()[timed as usize];
        match window.len() >= self.0.policy.min_samples.max(1) {
            true => window.quantile().map(|time| time.max(self.0.policy.min_delay)),
            false => None,
        }
    }

    fn windows(&self) -> MutexGuard<'_, [LatencyWindow; 2]> {
        self.0.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of how long calls took.
    fn learn(&self, timed: Timed, latencies: impl IntoIterator<Item = Duration>) {
        let window = &mut self.windows()[timed as usize];
        latencies.into_iter().for_each(|latency| window.push(latency));
    }

    /// Makes a call, and perhaps a second one.
    async fn call<T, F>(&self, timed: Timed, ask: impl Fn(Which) -> F + Send) -> Result<(Finish<T>, bool)>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let shared = &*self.0;
        shared.calls.fetch_add(1, Ordering::Relaxed);
        shared.budget.pay_in();
        let now = || shared.timer.now();
        let started = now();
        let alone = |answered: Result<T>| {
            let answer = answered?;
            self.learn(timed, [now().since(started)]);
            let winner = Which::First;
            Ok((
                Finish {
                    winner,
                    answer,
                    other: None,
                },
                false,
            ))
        };
        let mut first = pin!(ask(Which::First));
        if let Some(answered) = within(first.as_mut(), self.delay(timed), &*shared.timer).await {
            return alone(answered);
        }
        if !shared.budget.take_out() {
            shared.denied.fetch_add(1, Ordering::Relaxed);
            return alone(first.await);
        }
        shared.hedged.fetch_add(1, Ordering::Relaxed);
        let second_started: Monotonic = now();
        let mut second = Box::pin(ask(Which::Second));
        let finish = race(first, second.as_mut()).await?;
        let ended = now();
        match finish.winner {
            Which::First => self.learn(timed, [ended.since(started)]),
            Which::Second => {
                shared.won.fetch_add(1, Ordering::Relaxed);
                // The first call took at least this long.
                self.learn(timed, [ended.since(started), ended.since(second_started)]);
            }
        }
        Ok((finish, true))
    }
}

impl fmt::Debug for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge")
            .field("policy", &self.0.policy)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Middleware for Hedge {
    async fn complete<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatResponse> {
        let (finish, hedged) = self.call(Timed::Whole, |_| inner.complete(request)).await?;
        let mut response = finish.answer;
        if hedged {
            let other = finish.other.and_then(|other| other.usage);
            if let (Some(usage), Some(other)) = (&mut response.usage, other) {
                *usage += other;
            }
            note(&mut response.metadata, finish.winner, other.is_some());
        }
        Ok(response)
    }

    async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatStream> {
        // What each call has announced to have used so far.
        let announced = [Mutex::new(None), Mutex::new(None)];
        let slot = |which: Which| &announced[usize::from(which == Which::Second)];
        let lock = |which| slot(which).lock().unwrap_or_else(PoisonError::into_inner);
        let ask = |which| begin_noting(inner, request, move |usage: Usage| *lock(which) = Some(usage));
        let (finish, hedged) = self.call(Timed::FirstContent, ask).await?;
        if !hedged {
            return Ok(finish.answer.into_stream());
        }
        let winner = finish.winner;
        let other = *lock(match winner {
            Which::First => Which::Second,
            Which::Second => Which::First,
        });
        let note = move |facts: &mut Metadata| note(facts, winner, other.is_some());
        Ok(finish.answer.adjusted(other.unwrap_or_default(), note))
    }
}

fn note(metadata: &mut Metadata, winner: Which, other_usage_known: bool) {
    let answered = match winner {
        Which::First => "first",
        Which::Second => "second",
    };
    let fact = json!({ "answered": answered, "other_usage_known": other_usage_known });
    metadata.insert("hedged".to_owned(), fact);
}
