//! What every store must do, as code: for the stores of this crate, and for those who write another one.
//!
//! It is a feature of this crate, not part of the testkit: who implements [`Store`] depends on this crate anyway, and
//! so needs nothing else, least of all an LLM server.
//!
//! ```no_run
//! # use std::sync::Arc;
//! use peregrine_checkpoints::{MemoryStore, Store, async_trait, conformance};
//!
//! struct Mine(MemoryStore);
//!
//! #[async_trait]
//! impl conformance::Subject for Mine {
//!     async fn open(&self) -> Arc<dyn Store> {
//!         Arc::new(self.0.clone())
//!     }
//! }
//!
//! # async fn test() {
//! conformance::run(&Mine(MemoryStore::new())).await;
//! # }
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a suite of tests fails by panicking"
)]

mod forks;
mod leases;
mod records;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use peregrine_core::{RunId, Scope};

use crate::{Checkpoints, Error, Kind, Options, Record, RunKey, Store};

/// A store under test.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Opens it, as another process would: what one handle stores, all of them see.
    async fn open(&self) -> Arc<dyn Store>;
}

/// Runs every check, each in a scope of its own. Needs a tokio runtime with time.
pub async fn run(subject: &dyn Subject) {
    records::round_trip(subject).await;
    records::keys(subject).await;
    records::spans_and_snapshots(subject).await;
    records::snapshots_first(subject).await;
    records::parts_once(subject).await;
    records::durabilities(subject).await;
    records::dropped_appends(subject).await;
    records::limits(subject).await;
    records::listing(subject).await;
    records::trimming(subject).await;
    leases::one_writer(subject).await;
    leases::takeover(subject).await;
    leases::order(subject).await;
    forks::sharing(subject).await;
    forks::out_of_range(subject).await;
    forks::removal(subject).await;
    forks::trimming(subject).await;
}

/// Journals with usual options, in a scope that nobody has used.
async fn fresh(subject: &dyn Subject) -> (Checkpoints, Scope) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let unique = format!("{}-{count}-{}", std::process::id(), now_nanos());
    let scope = Scope::new("conformance", unique).unwrap();
    (Checkpoints::new(subject.open().await, Options::default()), scope)
}

fn now_nanos() -> u128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap_or_default().as_nanos()
}

/// The run with this number.
fn run_of(scope: &Scope, number: u8) -> RunKey {
    RunKey::new(
        scope.clone(),
        RunId::from_parts(1_700_000_000_000 + u64::from(number), [number; 10]),
    )
}

/// A run with `events` events, the numbers from 0.
async fn run_with(checkpoints: &Checkpoints, key: &RunKey, events: u64) {
    let mut journal = checkpoints.create(key).await.unwrap();
    for event in 0..events {
        assert_eq!(journal.append(Kind::Event, 1, &event).await.unwrap(), event);
    }
    journal.finish().await.unwrap();
}

/// The numbers in events; markers and snapshots are left out.
fn numbers(records: &[Record]) -> Vec<u64> {
    let events = records.iter().filter(|record| record.kind == Kind::Event);
    events.map(|record| record.decode().unwrap()).collect()
}

/// Tries again while the run is held: a lease that is given back by dropping may take a moment.
async fn when_free<T, F: Future<Output = Result<T, Error>>>(mut attempt: impl FnMut() -> F) -> T {
    for _ in 0..2_000 {
        match attempt().await {
            Err(Error::Leased { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            other => return other.unwrap(),
        }
    }
    panic!("the lease was not given back within ten seconds");
}
