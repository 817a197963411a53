//! The vocabulary of Peregrine: data types and traits that every other crate names.
//!
//! This crate knows no runtime, no HTTP, no provider and no disk. It holds
//!
//! - what is said: [`Message`], [`Part`], [`ToolCall`], [`ToolSpec`];
//! - what is asked and answered: [`ChatRequest`], [`ChatResponse`], [`ChatEvent`], [`EmbedRequest`];
//! - what it costs: [`Usage`], [`NanoUsd`], [`PriceTable`], [`Cost`];
//!   and how much a request is, roughly, beforehand: [`tokens`];
//! - who asks: [`Scope`], [`RunId`];
//! - what goes wrong: [`Error`], [`ErrorKind`];
//! - who answers: [`ChatModel`], [`EmbeddingModel`], their erased handles, [`Layer`] and [`Middleware`].
//!
//! # Examples
//!
//! A model is one small trait; everything that wraps a model is a model.
//!
//! ```
//! use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ModelInfo, Result};
//!
//! struct Parrot(ModelInfo);
//!
//! impl ChatModel for Parrot {
//!     fn info(&self) -> &ModelInfo {
//!         &self.0
//!     }
//!
//!     async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
//!         let heard = request.messages.last().map(|m| m.text()).unwrap_or_default();
//!         Ok(ChatResponse::text(heard).with_model("parrot"))
//!     }
//! }
//!
//! let model = Parrot(ModelInfo::new("example", "parrot")).into_handle();
//! assert_eq!(model.info().model(), "parrot");
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod clock;
mod embed;
mod error;
mod event;
mod fallback;
mod fold;
mod id;
mod layer;
mod message;
mod messages;
mod model;
mod money;
mod price;
mod raw;
mod request;
mod response;
mod sampling;
mod schema;
mod scope;
mod secret;
mod stream;
pub mod tokens;
mod tool;
mod unavailable;
mod usage;

pub use clock::{Clock, Monotonic, SystemClock, Timer, UnixTime};
pub use embed::{EmbedPurpose, EmbedRequest, EmbedResponse, EmbeddingHandle, EmbeddingModel, Embeddings};
pub use error::{
    ConfigError, Error, ErrorKind, InvalidRequest, ProtocolError, ProviderError, Result, TimeoutStage,
    TransportError,
};
pub use event::{ChatEvent, Done};
pub use fallback::FallbackOn;
pub use fold::Fold;
pub use id::{InvalidId, RunId, SessionId, TenantId};
pub use layer::{Layer, Layered, Middleware};
pub use message::{
    DocumentPart, MediaPart, MediaSource, Message, OpaquePart, Part, ProviderData, ReasoningPart, Role,
    TextPart,
};
pub use messages::Messages;
pub use model::{Capabilities, ChatModel, ModelHandle, ModelInfo};
pub use money::{Cost, NanoUsd};
pub use price::{Price, PriceTable};
pub use raw::{HeaderView, RawResponse};
pub use request::{ChatRequest, PromptCache, ProviderOptions, ResponseFormat};
pub use response::{ChatResponse, Finish, Metadata, Timings};
pub use sampling::{Effort, ReasoningConfig, Sampling};
pub use schema::JsonSchema;
pub use scope::Scope;
pub use secret::Secret;
pub use stream::ChatStream;
pub use tool::{Danger, Effect, ToolCall, ToolChoice, ToolResult, ToolSpec};
pub use unavailable::Unavailable;
pub use usage::Usage;
