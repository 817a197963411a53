//! Layers: what wraps a model and is a model.
//!
//! [`Layer`] is the general form: it takes a model and gives a model. Most layers only do something around
//! each call; they implement [`Middleware`], and every middleware is a layer. Composition is static: nothing
//! is boxed until [`ChatModel::into_handle`].

use std::future::Future;

use crate::{ChatModel, ChatRequest, ChatResponse, ChatStream, ModelInfo, Result};

/// Takes a model and gives a model.
pub trait Layer<M: ChatModel> {
    /// The model it gives.
    type Model: ChatModel;

    /// Wraps `inner`.
    fn layer(self, inner: M) -> Self::Model;
}

/// What to do around the calls of a model.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ChatStream, Middleware, Result};
///
/// #[derive(Default)]
/// struct CountCalls(AtomicU64);
///
/// impl Middleware for CountCalls {
///     async fn complete<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatResponse> {
///         self.0.fetch_add(1, Ordering::Relaxed);
///         inner.complete(request).await
///     }
///
///     async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatStream> {
///         self.0.fetch_add(1, Ordering::Relaxed);
///         inner.stream(request).await
///     }
/// }
///
/// fn counted(model: impl ChatModel) -> impl ChatModel {
///     model.layered(CountCalls::default())
/// }
/// ```
pub trait Middleware: Send + Sync + 'static {
    /// Around a whole answer.
    fn complete<M: ChatModel>(
        &self,
        inner: &M,
        request: &ChatRequest,
    ) -> impl Future<Output = Result<ChatResponse>> + Send;

    /// Around a streamed answer.
    fn stream<M: ChatModel>(
        &self,
        inner: &M,
        request: &ChatRequest,
    ) -> impl Future<Output = Result<ChatStream>> + Send;
}

/// A layer that may be there or not: without it, calls pass straight through.
///
/// # Examples
///
/// ```
/// use peregrine_core::{ChatModel, Middleware};
///
/// fn perhaps(model: impl ChatModel, layer: Option<impl Middleware>) -> impl ChatModel {
///     model.layered(layer)
/// }
/// ```
impl<W: Middleware> Middleware for Option<W> {
    async fn complete<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatResponse> {
        match self {
            Some(middleware) => middleware.complete(inner, request).await,
            None => inner.complete(request).await,
        }
    }

    async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatStream> {
        match self {
            Some(middleware) => middleware.stream(inner, request).await,
            None => inner.stream(request).await,
        }
    }
}

/// A model with a middleware around it: a model.
#[derive(Debug, Clone)]
pub struct Layered<W, M> {
    middleware: W,
    inner: M,
}

impl<W, M> Layered<W, M> {
    /// The middleware.
    pub fn middleware(&self) -> &W {
        &self.middleware
    }

    /// The model within.
    pub fn inner(&self) -> &M {
        &self.inner
    }
}

impl<W: Middleware, M: ChatModel> Layer<M> for W {
    type Model = Layered<W, M>;

    fn layer(self, inner: M) -> Layered<W, M> {
        Layered {
            middleware: self,
            inner,
        }
    }
}

impl<W: Middleware, M: ChatModel> ChatModel for Layered<W, M> {
    fn info(&self) -> &ModelInfo {
        self.inner.info()
    }

    fn complete(&self, request: &ChatRequest) -> impl Future<Output = Result<ChatResponse>> + Send {
        self.middleware.complete(&self.inner, request)
    }

    fn stream(&self, request: &ChatRequest) -> impl Future<Output = Result<ChatStream>> + Send {
        self.middleware.stream(&self.inner, request)
    }
}
