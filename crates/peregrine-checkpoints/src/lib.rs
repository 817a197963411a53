//! Durable runs: an append-only journal for each run, and the stores it is kept in.
//!
//! A run is a deterministic state machine fed by events; this crate keeps the events. What a payload means, it does not
//! know: it numbers records, frames them, compresses and encrypts them, and sees to it that what was acknowledged is
//! there again. From that one sequence come
//!
//! - checkpoints: a position in the journal, and now and then a snapshot ([`Journal::snapshot`]) so that loading stays
//!   short;
//! - resuming: [`Checkpoints::resume`] loads the last snapshot and what follows, for the caller to fold;
//! - forks: [`Checkpoints::fork`] shares the records before a point, and copies none of them;
//! - replay, diff, export: [`Checkpoints::load`], [`Checkpoints::diff`], [`Checkpoints::export`].
//!
//! # What holds
//!
//! - `Ok` from an append is a promise, and [`Durability`] says which.
//! - Appending costs the same at record 5,000 as at record 10, however many snapshots there are.
//! - A run has one writer. Two processes that resume it: one gets it, the other a typed [`Error::Leased`]; a writer that
//!   lost its lease is refused by its token ([`Error::Fenced`]).
//! - A record that was cut by a crash is cut off and reported ([`History::tail`]); damage in the middle is an error that
//!   names the place ([`Error::Damaged`]), never a record that was not written.
//! - Loading constructs nothing by name, executes nothing, and is bounded in size and depth ([`Limits`]).
//! - No secret is looked for: payloads are the caller's to redact. `peregrine_core::Secret` cannot be serialised, and with
//!   the feature `encrypt` nothing of a payload can be read without its key.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod checkpoints;
mod codec;
#[cfg(feature = "conformance")]
#[cfg_attr(docsrs, doc(cfg(feature = "conformance")))]
pub mod conformance;
mod crypt;
mod diff;
mod dir;
mod error;
mod frame;
mod history;
mod journal;
mod json;
mod memory;
mod options;
mod payload;
mod record;
mod retention;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
pub mod store;
mod uri;
mod verify;

pub use checkpoints::{Checkpoints, Forked};
#[cfg(feature = "encrypt")]
pub use crypt::Keyring;
pub use diff::Diff;
pub use dir::DirStore;
pub use error::{Damage, Error, Holder, Result};
pub use history::{History, Span, Tail};
pub use journal::Journal;
pub use memory::MemoryStore;
pub use options::{Durability, Limits, Options, SnapshotPolicy};
pub use record::{Draft, Kind, Origin, Part, PartId, PartRef, Record, RunKey};
pub use retention::{Pruned, Retention};
#[cfg(feature = "postgres")]
pub use sql::PostgresStore;
#[cfg(feature = "sqlite")]
pub use sql::SqliteStore;
pub use store::{Lease, RunInfo, Store};
pub use verify::Verification;

pub use async_trait::async_trait;

#[cfg(test)]
mod tests;
