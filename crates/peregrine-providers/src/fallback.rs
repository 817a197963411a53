//! Other models where one fails: in order, by the kind of the failure.
//!
//! Each model stands for all of its own layers (its limit, its retries, its circuit), so the next one is asked when
//! the one before has given up. Which failures count is decided by the table that agents use too, [`FallbackOn`].
//!
//! Invariant: a stream falls back only before its first content; what was handed on is never taken back.

use std::fmt::Write as _;

use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, ChatStream, Error, FallbackOn, Metadata, ModelHandle, ModelInfo,
    Result, Unavailable,
};

use crate::begin::begin;

/// How much of each failure the joint error shows.
const MAX_SHOWN_CHARS: usize = 200;

/// A model that asks others where its first choice fails. They may be of other providers.
///
/// An answer that did not come from the first model says so in its metadata: `answered_by` names the model
/// (`provider/model`), `fallbacks` the ones that were asked before it, each with the kind of its failure. If every model
/// failed, the error is [`Error::Unavailable`] with the kind of a failure that may heal, if there is one, and the shortest
/// wait that any of them asked for. A failure that is not covered is handed on as it is.
///
/// # Examples
///
/// ```
/// use peregrine_core::{ChatModel, ModelHandle};
/// use peregrine_providers::Fallback;
///
/// fn robust(first: ModelHandle, second: ModelHandle) -> ModelHandle {
///     Fallback::new(first).or(second).into_handle()
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Fallback {
    first: ModelHandle,
    others: Vec<ModelHandle>,
    on: FallbackOn,
}

impl Fallback {
    /// A first choice, without fallbacks yet.
    pub fn new(first: impl ChatModel) -> Self {
        Self {
            first: first.into_handle(),
            others: Vec::new(),
            on: FallbackOn::default(),
        }
    }

    /// Adds a model that is asked when all before it failed.
    #[must_use]
    pub fn or(mut self, model: impl ChatModel) -> Self {
        self.others.push(model.into_handle());
        self
    }

    /// Says after which failures the next model is asked.
    #[must_use]
    pub fn with_fallback_on(mut self, on: FallbackOn) -> Self {
        self.on = on;
        self
    }

    /// The models, in the order in which they are asked.
    pub fn models(&self) -> impl Iterator<Item = &ModelHandle> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The error of a call that nobody answered.
    fn give_up(&self, failures: Vec<Error>) -> Error {
        let mut message = format!("none of {} models answered:", failures.len());
        for (model, error) in self.models().zip(&failures) {
            let shown = error.to_string();
            let end = shown
                .char_indices()
                .nth(MAX_SHOWN_CHARS)
                .map_or(shown.len(), |(at, _)| at);
            // Writing to a string cannot fail.
            let _ = write!(message, " [{}] {}", model.info(), &shown[..end]);
        }
        let wait = failures
            .iter()
            .filter(|error| error.is_retryable())
            .filter_map(Error::retry_after)
            .min();
        let worst = failures
            .iter()
            .position(Error::is_retryable)
            .unwrap_or(failures.len().saturating_sub(1));
        match failures.into_iter().nth(worst) {
            Some(error) => Unavailable::new(error.kind(), message)
                .with_retry_after(wait)
                .with_source(error)
                .into(),
            None => Error::Cancelled,
        }
    }

    /// Asks the models after the first one, which failed.
    async fn ask_others<T>(&self, failed: Error, ask: impl AsyncAsk<T>) -> Result<(T, Failures)> {
        if self.others.is_empty() || !self.on.covers(failed.kind()) {
            return Err(failed);
        }
        let mut failures = vec![failed];
        for model in &self.others {
            match ask.ask(model).await {
                Ok(answer) => {
                    let asked = self.models().zip(&failures);
                    let before = asked.map(|(model, error)| format!("{}: {}", model.info(), error.kind()));
                    let failures = Failures {
                        answered_by: model.info().clone(),
                        before: before.collect(),
                    };
                    return Ok((answer, failures));
                }
                Err(error) => {
                    // This side's veto or cancellation ends the call. Everything else a substitute may have for
                    // itself (it cannot say what was asked for), and whether the call can heal depends on the others.
                    if !FallbackOn::Any.covers(error.kind()) {
                        return Err(error);
                    }
                    failures.push(error);
                }
            }
        }
        Err(self.give_up(failures))
    }
}

/// One way to ask a model. (An async closure whose future is `Send` cannot be named yet.)
trait AsyncAsk<T> {
    fn ask(&self, model: &ModelHandle) -> impl Future<Output = Result<T>> + Send;
}

struct Whole<'a>(&'a ChatRequest);

impl AsyncAsk<ChatResponse> for Whole<'_> {
    async fn ask(&self, model: &ModelHandle) -> Result<ChatResponse> {
        model.complete(self.0).await
    }
}

struct Streamed<'a>(&'a ChatRequest);

impl AsyncAsk<crate::begin::Begun> for Streamed<'_> {
    async fn ask(&self, model: &ModelHandle) -> Result<crate::begin::Begun> {
        begin(model, self.0).await
    }
}

/// Who answered, and who did not.
struct Failures {
    answered_by: ModelInfo,
    before: Vec<String>,
}

impl Failures {
    fn note(self, metadata: &mut Metadata) {
        metadata.insert("answered_by".to_owned(), self.answered_by.to_string().into());
        metadata.insert("fallbacks".to_owned(), self.before.into());
    }
}

impl ChatModel for Fallback {
    /// The first choice.
    fn info(&self) -> &ModelInfo {
        self.first.info()
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
        let failed = match self.first.complete(request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let (mut response, failures) = self.ask_others(failed, Whole(request)).await?;
        failures.note(&mut response.metadata);
        Ok(response)
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChatStream> {
        let failed = match begin(&self.first, request).await {
            Ok(begun) => return Ok(begun.into_stream()),
            Err(error) => error,
        };
        let (begun, failures) = self.ask_others(failed, Streamed(request)).await?;
        Ok(begun.noting(|metadata| failures.note(metadata)))
    }
}
