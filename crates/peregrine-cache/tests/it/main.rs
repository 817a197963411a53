//! Integration tests: what a cache promises to whoever asks it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod cache;
#[cfg(unix)]
mod disk;
#[path = "../../src/flight/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the model tests use a part of it, with loom's locks"
)]
mod flight;
mod keys;
#[cfg(feature = "layer")]
mod layer;
mod memory;
mod model;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "layer")]
mod requests;
#[cfg(feature = "layer")]
mod semantic;
mod sync;
mod tiers;

use std::time::Duration;

use peregrine_core::Clock as _;
use peregrine_testkit::FakeClock;

/// The test clock as a cache without the feature `layer` takes it.
#[derive(Debug, Clone)]
struct Time(FakeClock);

impl Time {
    fn new() -> Self {
        Self(FakeClock::new())
    }

    fn advance(&self, by: Duration) {
        self.0.advance(by);
    }
}

impl peregrine_cache::Clock for Time {
    fn unix_ms(&self) -> u64 {
        self.0.unix().0
    }

    fn monotonic(&self) -> Duration {
        self.0.now().since_origin()
    }
}
