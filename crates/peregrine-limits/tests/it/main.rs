//! Tests from outside.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, its helpers too, and says what it measured"
)]

#[cfg(feature = "tokio")]
mod hidden;
#[cfg(all(feature = "tokio", feature = "layer"))]
mod layer;
#[cfg(feature = "tokio")]
mod local;
mod model;
#[cfg(feature = "redis")]
mod shared;
#[cfg(feature = "redis")]
mod shared_odd;
mod sync;
#[path = "../../src/wait/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the model tests use a part of it, with loom's lock"
)]
mod wait;
