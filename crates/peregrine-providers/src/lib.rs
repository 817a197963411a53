//! Chat and embedding models over the wire.
//!
//! Two halves:
//!
//! - [`wire`]: sans-IO codecs, one module for each dialect. They turn requests into bytes and bytes into
//!   responses and events, and know no socket, no clock and no runtime.
//! - everything else moves those bytes, or wraps a model.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod batch;
mod begin;
mod breaker;
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
mod profile;
mod record;
mod retry;
pub mod wire;

pub use batch::{
    Coalesce, CoalescePolicy, CoalesceStats, EmbedBatchPolicy, EmbedBatcher, EmbedCache, EmbedStats,
    Embedded, Vector,
};
pub use breaker::{Breaker, BreakerPolicy, BreakerStats, Circuit, CircuitState, Permit, Refusal, Verdict};
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
    profile::{Dialect, Profile},
};
