//! Many requests to one model, a few at a time.
//!
//! Nothing is spawned: the calls are polled with whoever waits for them, so dropping the future or the stream drops
//! them all. A model that panics has failed that one call.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use peregrine_core::{ChatModel, ChatRequest, ChatResponse, Error, ErrorKind, Result};

/// Asks a model all of these requests, at most `concurrency` at a time (at least 1), and waits for every result, in the
/// order of the requests. A failure is the result of its own request and stops nobody else.
///
/// # Cancel safety
///
/// Dropping the future cancels the calls under way and begins no others.
///
/// # Examples
///
/// ```
/// use peregrine_core::{ChatRequest, ModelHandle};
/// use peregrine_providers::complete_many;
///
/// async fn translate(model: &ModelHandle, words: &[&str]) -> Vec<String> {
///     let requests = words.iter().map(|word| ChatRequest::user(format!("In French: {word}")));
///     let answers = complete_many(model, requests, 8).await;
///     answers.into_iter().flatten().map(|answer| answer.message.text()).collect()
/// }
/// ```
pub async fn complete_many<M, I>(model: &M, requests: I, concurrency: usize) -> Vec<Result<ChatResponse>>
where
    M: ChatModel,
    I: IntoIterator<Item = ChatRequest>,
    I::IntoIter: Send,
{
    let mut results: Vec<Option<Result<ChatResponse>>> = Vec::new();
    let mut completions = stream_many(model, requests, concurrency);
    while let Some((index, result)) = completions.next().await {
        if results.len() <= index {
            results.resize_with(index + 1, || None);
        }
        results[index] = Some(result);
    }
    results
        .into_iter()
        .map(|result| result.unwrap_or(Err(Error::Cancelled)))
        .collect()
}

/// As [`complete_many`], with each result as soon as it is there: the place of its request, from 0, and the result.
///
/// Requests are taken from the iterator when there is room for them. The results are not ready unless the stream is
/// polled: nothing runs on its own.
pub fn stream_many<'a, M, I>(model: &'a M, requests: I, concurrency: usize) -> ManyCompletions<'a>
where
    M: ChatModel,
    I: IntoIterator<Item = ChatRequest>,
    I::IntoIter: Send + 'a,
{
    let calls = requests.into_iter().enumerate().map(move |(index, request)| {
        let call: Call<'a> = Box::pin(async move {
            let answered = AssertUnwindSafe(async { model.complete(&request).await }).catch_unwind();
            (
                index,
                answered.await.unwrap_or_else(|panic| Err(panicked(&*panic))),
            )
        });
        call
    });
    ManyCompletions {
        waiting: Some(Box::new(calls)),
        running: FuturesUnordered::new(),
        concurrency: concurrency.max(1),
    }
}

type Call<'a> = Pin<Box<dyn Future<Output = (usize, Result<ChatResponse>)> + Send + 'a>>;

/// The results of many requests in the order in which they come. See [`stream_many`].
pub struct ManyCompletions<'a> {
    /// `None` after its end.
    waiting: Option<Box<dyn Iterator<Item = Call<'a>> + Send + 'a>>,
    running: FuturesUnordered<Call<'a>>,
    concurrency: usize,
}

impl ManyCompletions<'_> {
    /// How many calls are under way.
    pub fn in_flight(&self) -> usize {
        self.running.len()
    }
}

impl Stream for ManyCompletions<'_> {
    type Item = (usize, Result<ChatResponse>);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while this.running.len() < this.concurrency {
            match this.waiting.as_mut().and_then(Iterator::next) {
                Some(call) => this.running.push(call),
                None => {
                    this.waiting = None;
                    break;
                }
            }
        }
        this.running.poll_next_unpin(cx)
    }
}

impl fmt::Debug for ManyCompletions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManyCompletions")
            .field("in_flight", &self.in_flight())
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// A model panicked instead of answering.
#[derive(Debug, thiserror::Error)]
#[error("the model panicked: {0}")]
struct Panicked(String);

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned());
    Error::layer(ErrorKind::Internal, Panicked(text.chars().take(200).collect()))
}
