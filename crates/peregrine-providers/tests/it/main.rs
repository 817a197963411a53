//! Integration tests of the providers.

mod ollama;
mod ollama_request;
mod recordings;
