//! Integration tests: what a cache promises to whoever asks it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod cache;
#[cfg(unix)]
mod child;
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
mod schedule;
#[cfg(feature = "layer")]
mod semantic;
#[cfg(unix)]
mod steps;
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

/// Runs a test on seeded random input: as many cases as `PEREGRINE_FUZZ_CASES` says, from `PEREGRINE_FUZZ_SEED` on. The seed
/// of a case that fails is printed.
#[allow(clippy::print_stderr, reason = "whoever sees it fail needs the seed")]
fn seeded_fuzz(cases: u64, case: impl Fn(&mut dyn FnMut(usize) -> usize)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("PEREGRINE_FUZZ_SEED").unwrap_or(1);
    for seed in first..first + number("PEREGRINE_FUZZ_CASES").unwrap_or(cases) {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // SplitMix64.
        let mut random = move |below: usize| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) % below.max(1) as u64) as usize
        };
        let run = std::panic::AssertUnwindSafe(|| case(&mut random));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("failed with PEREGRINE_FUZZ_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Flips, cuts, and adds some bytes.
fn damage(bytes: &mut Vec<u8>, random: &mut dyn FnMut(usize) -> usize) {
    for _ in 0..random(6) {
        let at = random(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte = random(256) as u8;
        }
    }
    if random(2) == 0 {
        bytes.truncate(bytes.len() - random(bytes.len() / 2));
    }
    if random(2) == 0 {
        for _ in 0..random(64) {
            bytes.push(random(256) as u8);
        }
    }
}
