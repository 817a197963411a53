//! The model traits: one to implement, one handle to pass around.
//!
//! [`ChatModel`] has native async methods, so a stack of layers compiles to one state machine;
//! [`ModelHandle`] erases the type once, at the boundary of an agent, for one allocation per call.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{ChatRequest, ChatResponse, ChatStream, Layer, Result};

/// A model that completes chats.
///
/// Layers (cache, limit, retry, record) wrap a model and are models.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a chat model",
    note = "pass a model, a `ModelHandle`, or implement `ChatModel`"
)]
pub trait ChatModel: Send + Sync + 'static {
    /// What this model is.
    fn info(&self) -> &ModelInfo;

    /// Asks for a whole answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call; whether the provider bills it is the provider's affair.
    fn complete(&self, request: &ChatRequest) -> impl Future<Output = Result<ChatResponse>> + Send;

    /// Asks for an answer piece by piece. The future ends when the provider accepted the request.
    ///
    /// A model that cannot stream answers with the events of its whole answer, which is what this default
    /// does.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future or the stream cancels the call.
    fn stream(&self, request: &ChatRequest) -> impl Future<Output = Result<ChatStream>> + Send {
        async move { self.complete(request).await.map(ChatStream::from_response) }
    }

    /// Wraps this model in a layer.
    fn layered<L: Layer<Self>>(self, layer: L) -> L::Model
    where
        Self: Sized,
    {
        layer.layer(self)
    }

    /// Erases the type.
    fn into_handle(self) -> ModelHandle
    where
        Self: Sized,
    {
        ModelHandle::new(self)
    }
}

/// Any model, behind one cheap handle.
#[derive(Clone)]
pub struct ModelHandle(Arc<dyn ErasedModel>);

impl ModelHandle {
    /// Erases a model's type.
    pub fn new(model: impl ChatModel) -> Self {
        Self(Arc::new(model))
    }
}

impl ChatModel for ModelHandle {
    fn info(&self) -> &ModelInfo {
        self.0.erased_info()
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
        self.0.erased_complete(request).await
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChatStream> {
        self.0.erased_stream(request).await
    }

    fn into_handle(self) -> ModelHandle {
        self
    }
}

impl fmt::Debug for ModelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ModelHandle").field(self.info()).finish()
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The object-safe twin of [`ChatModel`].
trait ErasedModel: Send + Sync {
    fn erased_info(&self) -> &ModelInfo;
    fn erased_complete<'a>(&'a self, request: &'a ChatRequest) -> BoxFuture<'a, Result<ChatResponse>>;
    fn erased_stream<'a>(&'a self, request: &'a ChatRequest) -> BoxFuture<'a, Result<ChatStream>>;
}

impl<M: ChatModel> ErasedModel for M {
    fn erased_info(&self) -> &ModelInfo {
        ChatModel::info(self)
    }

    fn erased_complete<'a>(&'a self, request: &'a ChatRequest) -> BoxFuture<'a, Result<ChatResponse>> {
        Box::pin(ChatModel::complete(self, request))
    }

    fn erased_stream<'a>(&'a self, request: &'a ChatRequest) -> BoxFuture<'a, Result<ChatStream>> {
        Box::pin(ChatModel::stream(self, request))
    }
}

/// What a model is: where it runs, its name, and what it can do. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct ModelInfo(Arc<InfoInner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct InfoInner {
    provider: String,
    model: String,
    capabilities: Capabilities,
}

impl ModelInfo {
    /// A model with [default capabilities](Capabilities::default).
    pub fn new(provider: impl Into<String>, model: impl Into<String>) -> Self {
        Self(Arc::new(InfoInner {
            provider: provider.into(),
            model: model.into(),
            capabilities: Capabilities::default(),
        }))
    }

    /// States what it can do.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        Arc::make_mut(&mut self.0).capabilities = capabilities;
        self
    }

    /// Who serves it, such as `openai`.
    pub fn provider(&self) -> &str {
        &self.0.provider
    }

    /// Its name there.
    pub fn model(&self) -> &str {
        &self.0.model
    }

    /// What it can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }
}

impl fmt::Debug for ModelInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider(), self.model())
    }
}

impl fmt::Display for ModelInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider(), self.model())
    }
}

/// What a model can do. Capabilities are data: planners read them, nothing calls a model to find out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Capabilities {
    /// It answers in pieces.
    pub streaming: bool,
    /// It calls tools.
    pub tools: bool,
    /// It may call several tools in one turn.
    pub parallel_tools: bool,
    /// It can be made to call a tool, or a given tool.
    pub tool_choice: bool,
    /// It can be held to a JSON Schema.
    pub json_schema: bool,
    /// It can be held to JSON.
    pub json_mode: bool,
    /// It sees images.
    pub images: bool,
    /// It hears audio.
    pub audio: bool,
    /// It reads documents (PDF) sent along.
    pub documents: bool,
    /// It reasons before it answers.
    pub reasoning: bool,
    /// Its provider takes explicit prompt-cache breakpoints.
    pub prompt_cache_breakpoints: bool,
    /// How many tokens prompt and output may have together.
    pub context_tokens: Option<u32>,
    /// How many tokens the output may have.
    pub max_output_tokens: Option<u32>,
}

impl Default for Capabilities {
    /// A model that only completes text.
    fn default() -> Self {
        Self {
            streaming: false,
            tools: false,
            parallel_tools: false,
            tool_choice: false,
            json_schema: false,
            json_mode: false,
            images: false,
            audio: false,
            documents: false,
            reasoning: false,
            prompt_cache_breakpoints: false,
            context_tokens: None,
            max_output_tokens: None,
        }
    }
}
