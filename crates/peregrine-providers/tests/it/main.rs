//! Integration tests of the providers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod anthropic;
mod anthropic_odd;
mod anthropic_request;
mod anthropic_settings;
mod gemini;
mod gemini_embed;
mod gemini_request;
mod mangle;
mod record;
mod recordings;
mod retry;
mod scripted;
mod support;
