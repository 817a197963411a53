//! Tests of the facade from outside: what only shows when the crates stand together.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[cfg(feature = "http")]
mod layers;
