//! Integration tests of the providers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod anthropic;
mod anthropic_odd;
mod anthropic_request;
mod anthropic_settings;
mod breaker;
mod coalesce;
mod decoding;
mod embed_batch;
mod fallback;
mod gemini;
mod gemini_embed;
mod gemini_request;
mod hedge;
#[cfg(feature = "http")]
mod hostile;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "http")]
mod interrupts;
#[cfg(feature = "http")]
mod layers;
mod mangle;
mod many;
#[cfg(feature = "http")]
mod memory;
#[cfg(feature = "offline")]
mod offline;
#[cfg(feature = "offline")]
mod offline_agent;
#[cfg(feature = "offline")]
mod offline_embed;
#[cfg(feature = "offline")]
mod offline_schema;
mod ollama;
mod ollama_request;
mod openai_chat;
mod openai_chat_messages;
mod openai_chat_request;
mod openai_embed;
mod openai_responses;
mod openai_responses_request;
mod peer;
#[cfg(feature = "http")]
mod peers;
#[cfg(feature = "http")]
mod pool;
mod record;
mod recordings;
mod retry;
mod schema;
mod scripted;
mod seeded_fuzz;
mod stage;
mod support;
mod ways;
