//! A cache for LLM answers, and for anything else that is slow and dear.
//!
//! - [`Key`]s are canonical and prefix-free: equal requests have equal keys, different ones never.
//! - [`Store`]s keep entries: [`MemoryStore`] (bounded, scan-resistant), `DiskStore` (Unix; survives restarts and crashes,
//!   shared by processes), `RedisStore` (feature `redis`), and [`Tiers`] of them.
//! - [`Cache`] computes each value once, however many ask at the same time (single flight), and survives the
//!   cancellation of whoever asked first.
//! - With the feature `layer`, `CacheLayer` wraps a chat model and is a chat model: calls and streams.
//!
//! A store that fails never fails a call: it is counted, reported once and left out for a while.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod cache;
mod clock;
pub mod conformance;
#[cfg(unix)]
pub mod disk;
mod engine;
mod entry;
mod error;
#[cfg_attr(
    not(feature = "layer"),
    allow(dead_code, reason = "streams are shared by the layer only")
)]
mod flight;
mod key;
#[cfg(feature = "layer")]
pub mod layer;
pub mod memory;
mod policy;
#[cfg(feature = "redis")]
pub mod redis;
mod removals;
pub mod semantic;
mod stats;
mod store;
mod sync;
mod tiers;
mod totals;

pub use cache::Cache;
pub use clock::{Clock, SystemTimeClock};
#[cfg(unix)]
pub use disk::{DiskConfig, DiskStore};
pub use engine::{Settings, Spawn};
pub use entry::{Entry, NEVER, SKEW_MS, Value};
pub use error::{Error, ErrorKind, Result};
pub use key::{Key, KeyBuilder, Tag};
#[cfg(feature = "layer")]
pub use layer::{CacheControl, CacheLayer, CachedModel, Partition, StoredAnswer};
pub use memory::{MemoryConfig, MemoryStore};
pub use policy::{Control, Mode, Served, Ttl};
#[cfg(feature = "redis")]
pub use redis::{RedisConfig, RedisStore};
pub use stats::{CacheStats, Latency, TierStats};
pub use store::{Lookup, Selector, Store, StoreStatus};
pub use tiers::{Operation, TierEvent, Tiers};
pub use totals::{Survey, Totals};
