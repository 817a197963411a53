//! The middleware around the circuit, and what counts as a failure.
//!
//! Invariant: the lock is held for the circuit's few steps only, never across an await; a permit ends with the future
//! or stream that holds it, however that ends.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, Clock, Error, ErrorKind, Middleware,
    ModelInfo, Result, Unavailable,
};

use super::{BreakerPolicy, Circuit, CircuitState, Permit, Refusal, Verdict};

/// Leaves a provider alone that fails too often. A [`Middleware`]: `model.layered(Breaker::new(policy, clock))`.
///
/// Clones share one circuit, so that all models of one provider can stand behind it. A call that is not let through ends
/// at once in [`Error::Unavailable`] of the kind `overloaded`, with the time until calls are let through again.
///
/// What counts: a provider that cannot be reached, breaks off, fails, is overloaded, takes too long or talks nonsense has
/// failed. One that refuses a request by its rules is there, which is a success. A rate limit, a call that this side
/// cancelled or held back, and a request that could not be said count as neither. A stream counts when it has ended.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use peregrine_core::{ChatModel, ModelHandle, SystemClock};
/// use peregrine_providers::{Breaker, BreakerPolicy};
///
/// fn guarded(model: ModelHandle) -> ModelHandle {
///     let breaker = Breaker::new(BreakerPolicy::default(), Arc::new(SystemClock));
///     model.layered(breaker).into_handle()
/// }
/// ```
#[derive(Clone)]
pub struct Breaker(Arc<Shared>);

struct Shared {
    circuit: Mutex<Circuit>,
    clock: Arc<dyn Clock>,
    random: Box<dyn Fn() -> f64 + Send + Sync>,
    refused: AtomicU64,
}

/// What a breaker sees at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerStats {
    /// What it does with calls.
    pub state: CircuitState,
    /// How many calls of the window failed.
    pub failures: u64,
    /// How many calls there are in the window.
    pub calls: u64,
    /// How many calls were not let through, ever.
    pub refused: u64,
}

impl Breaker {
    /// A closed circuit that tells time by `clock`.
    pub fn new(policy: BreakerPolicy, clock: Arc<dyn Clock>) -> Self {
        Self::with_random(policy, clock, fastrand::f64)
    }

    /// As [`Breaker::new`], with randomness in `[0, 1)` for the jitter from `random`.
    pub fn with_random(
        policy: BreakerPolicy,
        clock: Arc<dyn Clock>,
        random: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            circuit: Mutex::new(Circuit::new(policy)),
            clock,
            random: Box::new(random),
            refused: AtomicU64::new(0),
        }))
    }

    /// What it sees now.
    pub fn stats(&self) -> BreakerStats {
        let now = self.0.clock.now();
        let circuit = self.circuit();
        let (failures, calls) = circuit.counts(now);
        BreakerStats {
            state: circuit.state(now),
            failures,
            calls,
            refused: self.0.refused.load(Ordering::Relaxed),
        }
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.0.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, info: &ModelInfo) -> Result<Held> {
        let now = self.0.clock.now();
        let refusal = match self.circuit().admit(now) {
            Ok(permit) => {
                return Ok(Held {
                    breaker: self.clone(),
                    permit: Some(permit),
                });
            }
            Err(refusal) => refusal,
        };
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        let (wait, message) = match refusal {
            Refusal::Open(wait) => (
                Some(wait),
                format!(
                    "{info} failed too often: the circuit is open for another {} ms, nothing was sent",
                    wait.as_millis().saturating_add(1)
                ),
            ),
            Refusal::Probing => (
                None,
                format!("{info} failed too often and is being tried by others, nothing was sent"),
            ),
        };
        Err(Unavailable::new(ErrorKind::Overloaded, message)
            .with_retry_after(wait)
            .into())
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// A permit that ends by itself: neutrally, unless told how the call ended.
struct Held {
    breaker: Breaker,
    permit: Option<Permit>,
}

impl Held {
    fn end(&mut self, verdict: Verdict) {
        if let Some(permit) = self.permit.take() {
            let shared = &self.breaker.0;
            let (now, random) = match verdict {
                Verdict::Failure => (shared.clock.now(), (shared.random)()),
                Verdict::Success | Verdict::Neutral => (shared.clock.now(), 0.0),
            };
            self.breaker.circuit().end(permit, verdict, now, random);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end(Verdict::Neutral);
    }
}

impl Middleware for Breaker {
    async fn complete<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatResponse> {
        let mut held = self.admit(inner.info())?;
        let answered = inner.complete(request).await;
        held.end(answered.as_ref().map_or_else(verdict, |_| Verdict::Success));
        answered
    }

    async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatStream> {
        let mut held = self.admit(inner.info())?;
        match inner.stream(request).await {
            Ok(stream) => Ok(ChatStream::new(Watched { stream, held })),
            Err(error) => {
                held.end(verdict(&error));
                Err(error)
            }
        }
    }
}

/// A stream that tells the circuit how it ended.
struct Watched {
    stream: ChatStream,
    held: Held,
}

impl Stream for Watched {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(Pin::new(&mut self.stream).poll_next(cx));
        match &next {
            Some(Ok(ChatEvent::Done(_))) => self.held.end(Verdict::Success),
            Some(Ok(_)) => {}
            Some(Err(error)) => self.held.end(verdict(error)),
            // It ended without its end event.
            None => self.held.end(Verdict::Failure),
        }
        Poll::Ready(next)
    }
}

/// What an error says about who was asked.
fn verdict(error: &Error) -> Verdict {
    use ErrorKind as Kind;
    match (error, error.kind()) {
        (Error::Unavailable(_), _) => Verdict::Neutral,
        (
            _,
            Kind::Overloaded
            | Kind::Server
            | Kind::UnexpectedStatus
            | Kind::Connect
            | Kind::Connection
            | Kind::Timeout
            | Kind::Protocol
            | Kind::Truncated,
        ) => Verdict::Failure,
        (_, Kind::RateLimited) => Verdict::Neutral,
        // It answered, by its rules.
        (Error::Provider(_), _) => Verdict::Success,
        _ => Verdict::Neutral,
    }
}
