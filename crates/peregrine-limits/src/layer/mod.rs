//! A layer that keeps a model within its provider's limits.

mod embed;
mod turn;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, Error, ErrorKind, Middleware, RawResponse,
    Result, Usage, tokens,
};

pub use self::embed::LimitedEmbedder;

use self::turn::{Right, Turn};
use crate::{Ask, Limiter, Permit, Quantity, Signals};

/// Counts the tokens of a request's prompt.
type Count = dyn Fn(&ChatRequest) -> u64 + Send + Sync;

/// Waits for a [`Limiter`] before each call of a model, and settles with what the call really used. A
/// [`Middleware`]: `model.layered(RateLimit::new(limiter))`.
///
/// - **Estimate.** The prompt by [`tokens::estimate_request`], or [counted](Self::with_count); the answer by what nine of
///   ten answers had so far, but never more than the request allows, and never so much that a prompt that fits into a
///   minute is refused for it.
/// - **Tenant.** That of the request's scope.
/// - **Settled** with the usage that the provider reports. Without a report the estimate stands. What never reached the
///   provider is refunded, held back by another layer included; what it refused before any work (400, 401, 503, ..) counts
///   as a request without tokens. A stream is settled at its end; one that breaks or is dropped in the middle, with the
///   prompt and what has come until then. What is known of no other end counts as used.
/// - **Learns** from the headers of answers and errors, and from 429.
///
/// # Where it stands
///
/// Inside of the cache and single flight, which save calls, and outside of retry, breaker and hedge: a call waits once, in
/// the order in which calls came. Around retries alone it sees a call only when it has ended. So the same layer is put
/// inside of them too: there, the first attempt uses the turn that the call has, and every further one, of a retry or a
/// hedge, takes a turn of its own and settles it; and a 429 stops everybody at once, not when its retries are over.
///
/// ```
/// use peregrine_core::{ChatModel, Middleware, ModelHandle};
/// use peregrine_limits::RateLimit;
///
/// fn limited(provider: ModelHandle, limit: RateLimit, hedge: impl Middleware, retry: impl Middleware) -> ModelHandle {
///     provider.layered(limit.clone()).layered(hedge).layered(retry).layered(limit).into_handle()
/// }
/// ```
///
/// Only what is polled inside of the call uses its turn; a layer in between that spawns its calls makes them calls of their
/// own.
///
/// # Errors
///
/// Requests that the limiter refuses are [`ErrorKind::RequestTooLarge`], or [`ErrorKind::Refused`] where too many wait;
/// the source is the [`limiter's error`](crate::Error).
#[derive(Clone)]
pub struct RateLimit {
    limiter: Limiter,
    count: Arc<Count>,
    answers: Arc<Answers>,
}

impl RateLimit {
    /// Keeps within these limits.
    pub fn new(limiter: Limiter) -> Self {
        Self {
            limiter,
            count: Arc::new(tokens::estimate_request),
            answers: Arc::new(Answers(AtomicU64::new(FIRST_ANSWER))),
        }
    }

    /// Counts the tokens of prompts in another way.
    #[must_use]
    pub fn with_count(mut self, count: impl Fn(&ChatRequest) -> u64 + Send + Sync + 'static) -> Self {
        self.count = Arc::new(count);
        self
    }

    /// The limiter.
    pub fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// The turn that the call has already, or one that is waited for.
    async fn turn(&self, request: &ChatRequest) -> Result<Arc<Turn>> {
        let right = match turn::take(&self.limiter) {
            Some(right) => right,
            None => self.acquire(request).await?,
        };
        Ok(Turn::new(&self.limiter, right))
    }

    async fn acquire(&self, request: &ChatRequest) -> Result<Right> {
        let answer = self.answers.expected();
        let answer = match request.sampling.max_tokens {
            Some(most) => answer.min(u64::from(most)),
            None => answer,
        };
        let tenant = request.scope.as_ref().map_or("", |scope| scope.tenant.as_str());
        let prompt = (self.count)(request);
        let permit = self.ask(prompt, answer, tenant).await?;
        Ok(Right { permit, prompt })
    }

    /// `answer` is a guess, which is no reason to refuse what fits without it.
    async fn ask(&self, prompt: u64, answer: u64, tenant: &str) -> Result<Permit> {
        let ask = Ask::tokens(prompt.saturating_add(answer)).for_tenant(tenant);
        let acquired = match self.limiter.acquire(ask).await {
            Err(crate::Error::TooLarge {
                quantity: Quantity::Tokens,
                limit,
                ..
            }) if prompt <= limit => self.limiter.acquire(Ask::tokens(limit).for_tenant(tenant)).await,
            acquired => acquired,
        };
        acquired.map_err(|error| {
            let kind = match &error {
                crate::Error::TooLarge { .. } => ErrorKind::RequestTooLarge,
                _ => ErrorKind::Refused,
            };
            Error::layer(kind, error)
        })
    }

    fn signals(&self, raw: Option<&RawResponse>) -> Signals {
        raw.map_or_else(Signals::default, |raw| {
            Signals::from_headers(self.limiter.wall(), |name| raw.header(name))
        })
    }

    fn succeeded(&self, permit: Permit, usage: Option<&Usage>, raw: Option<&RawResponse>) {
        if let Some(usage) = usage {
            self.answers.saw(usage.output_tokens);
        }
        let used = usage.map_or(permit.tokens(), Usage::total_tokens);
        permit.settle_with(used, &self.signals(raw));
    }

    fn failed(&self, permit: Permit, error: &Error) {
        let mut signals = self.signals(error.raw());
        if let Error::Provider(error) = error {
            signals.retry_after = error.retry_after.or(signals.retry_after);
        }
        let status = error.status();
        match (error, error.kind()) {
            (_, ErrorKind::RateLimited) => permit.rejected(&signals),
            // Held back before the provider; with a source, somebody was asked.
            (Error::Unavailable(held), _) if held.source.is_none() => permit.refund(),
            (
                _,
                ErrorKind::Connect
                | ErrorKind::InvalidRequest
                | ErrorKind::Config
                | ErrorKind::MissingCredential
                | ErrorKind::NoRecording
                | ErrorKind::Refused,
            ) if status.is_none() => permit.refund(),
            (_, ErrorKind::Overloaded) if status.is_some() => permit.declined(&signals),
            // 408 and 409 say nothing about what was done until then, nor does a server that failed.
            _ if status.is_some_and(|status| matches!(status, 400..=407 | 410..=499 | 503 | 529)) => {
                permit.declined(&signals);
            }
            _ => permit.abandon_with(&signals),
        }
    }
}

impl std::fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimit")
            .field("limiter", &self.limiter)
            .finish_non_exhaustive()
    }
}

impl Middleware for RateLimit {
    async fn complete<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatResponse> {
        let turn = self.turn(request).await?;
        let answered = turn.during(inner.complete(request)).await;
        if let Some(Right { permit, .. }) = turn.take() {
            match &answered {
                Ok(response) => self.succeeded(permit, response.usage.as_ref(), response.raw.as_ref()),
                Err(error) => self.failed(permit, error),
            }
        }
        answered
    }

    async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatStream> {
        let turn = self.turn(request).await?;
        let began = turn.during(inner.stream(request)).await;
        // Used up further inside, it ends there.
        let Some(Right { permit, prompt }) = turn.take() else {
            return began;
        };
        match began {
            Ok(events) => Ok(ChatStream::new(Limited {
                events,
                layer: self.clone(),
                permit: Some(permit),
                prompt,
                usage: None,
                bytes: 0,
                began: false,
            })),
            Err(error) => {
                self.failed(permit, &error);
                Err(error)
            }
        }
    }
}

/// A stream that holds its permit until its end.
struct Limited {
    events: ChatStream,
    layer: RateLimit,
    permit: Option<Permit>,
    /// The estimated tokens of the prompt.
    prompt: u64,
    usage: Option<Usage>,
    /// How much of the answer has come.
    bytes: u64,
    /// Whether anything has.
    began: bool,
}

impl Limited {
    fn saw(&mut self, event: &ChatEvent) {
        self.began = true;
        let bytes = match event {
            ChatEvent::TextDelta { text }
            | ChatEvent::ReasoningDelta { text }
            | ChatEvent::RefusalDelta { text } => text.len(),
            ChatEvent::ToolCallDelta { arguments, .. } => arguments.len(),
            ChatEvent::ToolCallStart { name, .. } => name.len(),
            ChatEvent::Usage { usage } => {
                self.usage = Some(*usage);
                0
            }
            _ => 0,
        };
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// It ended in the middle: the prompt was used, and what has come.
    fn broke(&mut self) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        if !self.began {
            return drop(permit);
        }
        let (prompt, answer) = match &self.usage {
            Some(usage) => (usage.input_tokens, usage.output_tokens),
            None => (self.prompt, 0),
        };
        let came = self.bytes.div_ceil(4);
        permit.settle(prompt.saturating_add(answer.max(came)));
    }
}

impl Stream for Limited {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let next = ready!(Pin::new(&mut this.events).poll_next(cx));
        match &next {
            Some(Ok(ChatEvent::Done(done))) => {
                if let Some(permit) = this.permit.take() {
                    this.layer
                        .succeeded(permit, this.usage.as_ref(), done.raw.as_ref());
                }
            }
            Some(Ok(event)) => this.saw(event),
            Some(Err(error)) if this.began && error.kind() != ErrorKind::RateLimited => this.broke(),
            Some(Err(error)) => {
                if let Some(permit) = this.permit.take() {
                    this.layer.failed(permit, error);
                }
            }
            None => this.broke(),
        }
        Poll::Ready(next)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.broke();
    }
}

/// The tokens that are expected of the first answer.
const FIRST_ANSWER: u64 = 512;

/// How many tokens nine of ten answers have at most, as far as can be told with one number of memory: frugal streaming
/// (Ma, Muthukrishnan and Sandler 2013) with steps in proportion.
#[derive(Debug)]
struct Answers(AtomicU64);

impl Answers {
    fn expected(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Two who see an answer at the same moment may lose one of them, which changes no estimate that matters.
    fn saw(&self, tokens: u64) {
        let expected = self.expected();
        let step = expected / 16 + 9;
        let next = if tokens > expected {
            expected.saturating_add(step).min(tokens)
        } else {
            (expected - (step / 9).min(expected)).max(tokens)
        };
        self.0.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_expected_as_nine_of_ten_are() {
        let answers = Answers(AtomicU64::new(FIRST_ANSWER));
        // 1 to 1000, in an order that mixes them.
        for round in 0..20_u64 {
            for place in 0..1_000 {
                answers.saw((place * 389 + round) % 1_000 + 1);
            }
        }
        let expected = answers.expected();
        assert!((700..=1_000).contains(&expected), "{expected}");
        for _ in 0..2_000 {
            answers.saw(10);
        }
        assert_eq!(answers.expected(), 10);
    }
}
