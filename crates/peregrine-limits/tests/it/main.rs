//! Tests from outside.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[cfg(feature = "tokio")]
mod hidden;
