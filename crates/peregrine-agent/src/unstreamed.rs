//! Whole answers for runs that are watched.

use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ChatStream, Middleware, Result};

/// A layer that asks its model for whole answers, also where a stream is asked for.
///
/// [`Agent::run_stream`](crate::Agent::run_stream) asks models for streams. With this around the model a run can be watched
/// without: its tools are told as ever, and its texts in one piece each. That is for servers whose streams are not to be
/// trusted, and for whole answers being repeatable where half a stream is not.
///
/// # Examples
///
/// ```
/// use peregrine_agent::{Agent, Unstreamed};
/// use peregrine_core::ChatModel;
///
/// fn watched(model: impl ChatModel) -> Agent {
///     Agent::new(model.layered(Unstreamed))
/// }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Unstreamed;

impl Middleware for Unstreamed {
    async fn complete<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatResponse> {
        inner.complete(request).await
    }

    async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatStream> {
        inner.complete(request).await.map(ChatStream::from_response)
    }
}
