//! A layer that keeps a model within its provider's limits.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, Error, ErrorKind, Middleware, RawResponse,
    Result, Usage, tokens,
};

use crate::{Ask, Limiter, Permit, Signals};

/// Counts the tokens of a request's prompt.
type Count = dyn Fn(&ChatRequest) -> u64 + Send + Sync;

/// Waits for a [`Limiter`] before each call of a model, and settles with what the call really used. A
/// [`Middleware`]: `model.layered(RateLimit::new(limiter))`.
///
/// - **Estimate.** The prompt by [`tokens::estimate_request`], or [counted](Self::with_count); the answer by what nine of
///   ten answers had so far, but never more than the request allows.
/// - **Tenant.** That of the request's scope.
/// - **Settled** with the usage that the provider reports. Without a report the estimate stands. Calls that never reached
///   the provider are refunded; what is known of no other end counts as used.
/// - **Learns** from the headers of answers and errors, and from 429. A stream is settled at its end; dropped before,
///   its estimate stands.
///
/// Retries go around this layer, not inside of it, so that each attempt asks and waits as long as the provider said:
/// `model.layered(RateLimit::new(limiter)).layered(retry)`.
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

    async fn acquire(&self, request: &ChatRequest) -> Result<Permit> {
        let answer = self.answers.expected();
        let answer = match request.sampling.max_tokens {
            Some(most) => answer.min(u64::from(most)),
            None => answer,
        };
        let tenant = request.scope.as_ref().map_or("", |scope| scope.tenant.as_str());
        let ask = Ask::tokens((self.count)(request).saturating_add(answer)).for_tenant(tenant);
        self.limiter.acquire(ask).await.map_err(|error| {
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
        signals.retry_after = error.retry_after().or(signals.retry_after);
        match error.kind() {
            ErrorKind::RateLimited => permit.rejected(&signals),
            ErrorKind::Connect
            | ErrorKind::InvalidRequest
            | ErrorKind::Config
            | ErrorKind::MissingCredential
            | ErrorKind::NoRecording
                if error.status().is_none() =>
            {
                permit.refund();
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
        let permit = self.acquire(request).await?;
        let answered = inner.complete(request).await;
        match &answered {
            Ok(response) => self.succeeded(permit, response.usage.as_ref(), response.raw.as_ref()),
            Err(error) => self.failed(permit, error),
        }
        answered
    }

    async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatStream> {
        let permit = self.acquire(request).await?;
        match inner.stream(request).await {
            Ok(events) => Ok(ChatStream::new(Limited {
                events,
                layer: self.clone(),
                permit: Some(permit),
                usage: None,
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
    usage: Option<Usage>,
}

impl Stream for Limited {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let next = ready!(Pin::new(&mut this.events).poll_next(cx));
        match &next {
            Some(Ok(ChatEvent::Usage { usage })) => this.usage = Some(*usage),
            Some(Ok(ChatEvent::Done(done))) => {
                if let Some(permit) = this.permit.take() {
                    this.layer
                        .succeeded(permit, this.usage.as_ref(), done.raw.as_ref());
                }
            }
            Some(Err(error)) => {
                if let Some(permit) = this.permit.take() {
                    this.layer.failed(permit, error);
                }
            }
            Some(Ok(_)) => {}
            // Cut off: nobody knows what was used.
            None => drop(this.permit.take()),
        }
        Poll::Ready(next)
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
