//! Chat and embedding models over the wire.
//!
//! Two halves:
//!
//! - [`wire`]: sans-IO codecs, one module for each dialect. They turn requests into bytes and bytes into
//!   responses and events, and know no socket, no clock and no runtime.
//! - everything else moves those bytes, or wraps a model.
//!
//! # Layers and their order
//!
//! A layer wraps a model and is a model. All of them are optional, and none knows of another, but their order matters.
//! From the caller to the provider:
//!
//! | layer | where | why there |
//! |---|---|---|
//! | telemetry | `peregrine-telemetry` | sees what the caller sees, and how long it took |
//! | record, replay | [`Record`], [`Replay`] | keep what the caller sees, not how it came about |
//! | cache | `peregrine-cache` | a hit costs nothing of what follows |
//! | single flight | `peregrine-cache`, [`Coalesce`] | equal misses are one call |
//! | fallback | [`Fallback`] | each model has all that follows for itself; what is cached is the answer, whoever gave it |
//! | limit | `peregrine-limits` | a call waits for its turn once, in the order of calls |
//! | retry | [`Retry`] | tries again what is within it |
//! | breaker | [`Breaker`] | sees each attempt; when it opens, retries end and the fallback is asked |
//! | hedge | [`Hedge`] | two calls are one attempt; what is timed is the provider, not waiting |
//! | limit, once more | `peregrine-limits` | the first attempt uses the turn of its call, each further one takes its own |
//! | provider | [`wire`] over HTTP | |
//!
//! The limit stands in two places, as the same layer: outside of retries a call waits once; inside of the hedge it counts
//! what really goes out, retries and hedges included, and learns of a refusal at once. Without the inner one, further
//! attempts go out uncounted. [`Connector::with_inner`](struct.Connector.html#method.with_inner) is the inner place of the
//! models that a connector makes.
//!
//! [`ChatModel::layered`](peregrine_core::ChatModel::layered) puts a layer around a model, so the innermost comes first; an
//! `Option` of a layer is a layer:
//!
//! ```
//! use std::sync::Arc;
//! use peregrine_core::{ChatModel, ModelHandle, Timer};
//! use peregrine_providers::{Breaker, BreakerPolicy, Fallback, Hedge, HedgePolicy, Retry, RetryPolicy};
//!
//! fn resilient(model: ModelHandle, hedge: bool, timer: Arc<dyn Timer>) -> ModelHandle {
//!     let hedge = hedge.then(|| Hedge::new(HedgePolicy::default(), timer.clone()));
//!     model
//!         // .layered(limit.clone())
//!         .layered(hedge)
//!         .layered(Breaker::new(BreakerPolicy::default(), Arc::new(peregrine_core::SystemClock)))
//!         .layered(Retry::new(RetryPolicy::default(), timer))
//!         // .layered(limit).layered(cache)
//!         .into_handle()
//! }
//!
//! fn robust(first: ModelHandle, second: ModelHandle, timer: Arc<dyn Timer>) -> ModelHandle {
//!     let first = resilient(first, true, timer.clone());
//!     Fallback::new(first).or(resilient(second, false, timer)).into_handle()
//! }
//! ```
//!
//! Many requests are asked with [`complete_many`]; many texts are embedded with [`EmbedBatcher`]. None of the layers needs
//! the feature `http`, and none spawns: dropping a call drops all that it began.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod batch;
mod begin;
pub mod breaker;
mod capabilities;
#[cfg(feature = "http")]
mod codecs;
#[cfg(feature = "http")]
mod connect;
#[cfg(feature = "http")]
mod env;
mod fallback;
mod hedge;
#[cfg(feature = "http")]
mod http;
mod many;
#[cfg(feature = "offline")]
#[cfg_attr(docsrs, doc(cfg(feature = "offline")))]
pub mod offline;
#[cfg(feature = "http")]
mod pool;
#[cfg(feature = "http")]
mod profile;
mod record;
mod retry;
pub mod wire;

pub use batch::{
    Coalesce, CoalescePolicy, CoalesceStats, EmbedBatchPolicy, EmbedBatcher, EmbedCache, EmbedStats,
    Embedded, Vector,
};
pub use breaker::{Breaker, BreakerPolicy, BreakerStats, CircuitState};
pub use capabilities::CapabilityTable;
pub use fallback::Fallback;
pub use hedge::{Hedge, HedgePolicy, HedgeStats};
pub use many::{ManyCompletions, complete_many, stream_many};
pub use record::{Record, Replay};
pub use retry::{Retry, RetryBudget, RetryPolicy};
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use {
    connect::{Connector, connect},
    env::{Choice, ProviderStatus, from_env, from_env_with, survey},
    http::{Auth, Credential, Endpoint, HttpConfig, RemoteEmbedder, RemoteModel, TokioClock},
    pool::{Address, Pool, PoolConfig, PoolStats},
    profile::{Dialect, Profile},
};
