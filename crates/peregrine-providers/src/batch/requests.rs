//! Equal small requests within a window share one call.
//!
//! Two requests are equal if everything that is asked is equal, model and scope included; labels (`metadata`) are no part of it. The
//! first one makes the call, at once: there is nothing to wait for, because nothing is added to a call by more who
//! want its answer. Whoever asks the same until the window closes, counted from the first request, gets the same
//! answer, whether it is still on its way or has come already. So an answer is never older than the window and the time of
//! its call. This is not a cache: nothing is kept for longer, and a failure is told to those who are waiting for it
//! and then forgotten.
//!
//! Requests that are sampled at random are not equal in what their authors want: five drafts are asked for five times.
//! So only a temperature of 0 counts, unless it was said that any may share.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, ChatStream, Clock, Middleware, ModelInfo, Monotonic, Part,
    RawResponse, Result, Usage,
};

use super::flight::{Claim, Flights, Lead};

/// A larger answer is given to those who wait for it, and not kept for those who come later in the window.
const MAX_KEPT_BYTES: usize = 64 << 10;

/// Which requests share a call, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoalescePolicy {
    /// For how long after the first request others may join it. 50 ms.
    pub window: Duration,
    /// How large a request may be in its stored form to take part, in bytes. 8 KiB. Comparing large ones costs more
    /// than they are likely to save.
    pub max_request_bytes: usize,
    /// How many different requests can be shared at a time. 1,024. Further ones are passed on as they are. Each of them
    /// takes up to the bytes of a request and 64 KiB of an answer while its window is open.
    pub max_requests: usize,
    /// Whether requests may share an answer although their temperature is not 0. False.
    pub any_temperature: bool,
}

impl Default for CoalescePolicy {
    fn default() -> Self {
        Self {
            window: Duration::from_millis(50),
            max_request_bytes: 8 << 10,
            max_requests: 1_024,
            any_temperature: false,
        }
    }
}

impl CoalescePolicy {
    /// Sets for how long others may join.
    #[must_use]
    pub fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets how large a request may be, and how many different ones can be shared at a time.
    #[must_use]
    pub fn with_bounds(mut self, max_request_bytes: usize, max_requests: usize) -> Self {
        (self.max_request_bytes, self.max_requests) = (max_request_bytes, max_requests);
        self
    }

    /// Lets requests share an answer whatever their temperature is.
    #[must_use]
    pub fn with_any_temperature(mut self) -> Self {
        self.any_temperature = true;
        self
    }
}

/// Gives equal small requests within a window one answer. A [`Middleware`]: `model.layered(Coalesce::new(policy, clock))`.
///
/// An answer that somebody else's call made says so in its metadata (`shared`), and its usage is zero, so that sums of
/// usage stay what was paid for. Streams are passed on as they are. If whoever makes the call is dropped, one of those
/// who wait makes it instead.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use peregrine_core::{ChatModel, ModelHandle, SystemClock};
/// use peregrine_providers::{Coalesce, CoalescePolicy};
///
/// fn sharing(model: ModelHandle) -> ModelHandle {
///     let layer = Coalesce::new(CoalescePolicy::default(), Arc::new(SystemClock));
///     model.layered(layer).into_handle()
/// }
/// ```
#[derive(Clone)]
pub struct Coalesce(Arc<Shared>);

struct Shared {
    policy: CoalescePolicy,
    clock: Arc<dyn Clock>,
    /// Calls under way, by request and by the window that they belong to.
    flights: Flights<Key, Result<Arc<ChatResponse>>>,
    windows: Mutex<Windows>,
    calls: AtomicU64,
    shared: AtomicU64,
    passed: AtomicU64,
}

/// A request in one of its windows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    request: Arc<[u8]>,
    window: u64,
}

/// The windows that are open.
struct Windows {
    /// By request; the oldest window is the least recently used, because looking does not count as using.
    open: LruCache<Arc<[u8]>, Window>,
    next: u64,
}

struct Window {
    number: u64,
    began: Monotonic,
    answer: Option<Arc<ChatResponse>>,
}

/// What a layer of this kind has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoalesceStats {
    /// Calls that were made for requests that can be shared.
    pub calls: u64,
    /// Requests that got the answer of somebody else's call.
    pub shared: u64,
    /// Requests that were passed on as they are: large, sampled at random, streamed, or too many.
    pub passed: u64,
    /// Windows that are kept now; some may have closed already.
    pub windows: usize,
}

impl Coalesce {
    /// Shares by `policy`, with time from `clock`.
    pub fn new(policy: CoalescePolicy, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            policy,
            clock,
            flights: Flights::default(),
            windows: Mutex::new(Windows {
                open: LruCache::unbounded(),
                next: 0,
            }),
            calls: AtomicU64::new(0),
            shared: AtomicU64::new(0),
            passed: AtomicU64::new(0),
        }))
    }

    /// What it has done so far.
    pub fn stats(&self) -> CoalesceStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CoalesceStats {
            calls: count(&self.0.calls),
            shared: count(&self.0.shared),
            passed: count(&self.0.passed),
            windows: self.windows().open.len(),
        }
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.0.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes that stand for what is asked; `None` if the request is not to be shared.
    fn asked(&self, info: &ModelInfo, request: &ChatRequest) -> Option<Arc<[u8]>> {
        let policy = &self.0.policy;
        let exact = request.sampling.temperature == Some(0.0);
        if !(exact || policy.any_temperature) || text_bytes(request) > policy.max_request_bytes {
            return None;
        }
        let mut asked = request.clone();
        asked.metadata.clear();
        let mut bytes = Bounded {
            bytes: Vec::with_capacity(512),
            left: policy.max_request_bytes,
        };
        // One layer may stand around several models.
        serde_json::to_writer(&mut bytes, &(info.provider(), info.model(), &asked)).ok()?;
        Some(Arc::from(bytes.bytes))
    }

    /// The window of a request that is open now, opened if there is none; `None` if there are too many.
    fn window(&self, asked: &Arc<[u8]>) -> Option<(Key, Option<Arc<ChatResponse>>)> {
        let now = self.0.clock.now();
        let is_open = |window: &Window| now.since(window.began) < self.0.policy.window;
        let mut windows = self.windows();
        if let Some(window) = windows.open.peek(asked).filter(|window| is_open(window)) {
            let key = Key {
                request: Arc::clone(asked),
                window: window.number,
            };
            return Some((key, window.answer.clone()));
        }
        windows.open.pop(asked);
        while windows
            .open
            .peek_lru()
            .is_some_and(|(_, oldest)| !is_open(oldest))
        {
            windows.open.pop_lru();
        }
        if windows.open.len() >= self.0.policy.max_requests {
            return None;
        }
        let number = windows.next;
        windows.next += 1;
        windows.open.push(
            Arc::clone(asked),
            Window {
                number,
                began: now,
                answer: None,
            },
        );
        let key = Key {
            request: Arc::clone(asked),
            window: number,
        };
        Some((key, None))
    }

    /// Keeps an answer until its window closes, or closes the window of a failure.
    fn settle(&self, key: &Key, answered: &Result<Arc<ChatResponse>>) {
        let mut windows = self.windows();
        let known = windows
            .open
            .peek_mut(&key.request)
            .filter(|window| window.number == key.window);
        match (known, answered) {
            (Some(window), Ok(answer)) => {
                window.answer = (answer_bytes(answer) <= MAX_KEPT_BYTES).then(|| Arc::clone(answer));
            }
            (Some(_), Err(_)) => {
                windows.open.pop(&key.request);
            }
            (None, _) => {}
        }
    }

    async fn lead<M: ChatModel>(
        &self,
        lead: Lead<Key, Result<Arc<ChatResponse>>>,
        inner: &M,
        request: &ChatRequest,
    ) -> Result<ChatResponse> {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        let answered = inner.complete(request).await.map(Arc::new);
        self.settle(lead.key(), &answered);
        lead.finish(answered.clone());
        // Without anybody else it need not be copied.
        answered.map(Arc::unwrap_or_clone)
    }

    fn share(&self, answer: &ChatResponse) -> ChatResponse {
        self.0.shared.fetch_add(1, Ordering::Relaxed);
        let mut answer = answer.clone().with_metadata("shared", true);
        answer.usage = answer.usage.map(|_| Usage::default());
        answer
    }
}

impl Middleware for Coalesce {
    async fn complete<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatResponse> {
        let Some(asked) = self.asked(inner.info(), request) else {
            self.0.passed.fetch_add(1, Ordering::Relaxed);
            return inner.complete(request).await;
        };
        loop {
            let Some((key, answer)) = self.window(&asked) else {
                self.0.passed.fetch_add(1, Ordering::Relaxed);
                return inner.complete(request).await;
            };
            if let Some(answer) = answer {
                return Ok(self.share(&answer));
            }
            // Somebody may have finished between the look and the claim.
            let known = || self.windows().open.peek(&key.request)?.answer.clone().map(Ok);
            match self.0.flights.claim(&key, known) {
                Ok(Claim::Lead(lead)) => return self.lead(lead, inner, request).await,
                Ok(Claim::Follow(follow)) => {
                    if let Some(answered) = follow.result().await {
                        return answered.map(|answer| self.share(&answer));
                    }
                    // Who led was dropped: somebody who waited makes the call.
                }
                Err(known) => return known.map(|answer| self.share(&answer)),
            }
        }
    }

    async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatStream> {
        self.0.passed.fetch_add(1, Ordering::Relaxed);
        inner.stream(request).await
    }
}

impl fmt::Debug for Coalesce {
    /// Counts, not requests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalesce")
            .field("policy", &self.0.policy)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// At least how many bytes a request has: a quick look before it is written.
fn text_bytes(request: &ChatRequest) -> usize {
    let parts = request.messages.iter().flat_map(|message| &message.parts);
    let texts = parts.map(|part| match part {
        Part::Text(text) => text.text.len(),
        _ => 0,
    });
    texts.fold(0, usize::saturating_add)
}

/// About how many bytes an answer holds; more than can be kept if it holds media.
fn answer_bytes(answer: &ChatResponse) -> usize {
    let raw = answer.raw.as_ref().map_or(0, RawResponse::body_len);
    let parts = answer.message.parts.iter().map(|part| match part {
        Part::Text(part) | Part::Refusal(part) => part.text.len(),
        Part::Reasoning(part) => part.text.len(),
        Part::ToolCall(call) => call.arguments.len(),
        _ => usize::MAX,
    });
    parts.fold(raw, usize::saturating_add)
}

/// A buffer that refuses what is too much.
struct Bounded {
    bytes: Vec<u8>,
    left: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self
            .left
            .checked_sub(bytes.len())
            .ok_or(io::ErrorKind::FileTooLarge)?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
