//! Integration tests of the providers.

mod anthropic;
mod anthropic_odd;
mod anthropic_request;
mod anthropic_settings;
mod gemini;
mod gemini_embed;
mod gemini_request;
mod mangle;
mod recordings;
mod support;
