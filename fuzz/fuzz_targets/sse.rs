//! Any bytes through the sse framing: the same frames for every cut.

#![no_main]

#[path = "../../crates/peregrine-providers/tests/it/decoding.rs"]
mod decoding;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decoding::sse(bytes));
