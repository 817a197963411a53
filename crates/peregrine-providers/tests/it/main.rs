//! Integration tests of the providers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod record;
mod recordings;
mod retry;
mod scripted;
