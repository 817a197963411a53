//! Integration tests of the providers.

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
mod recordings;
