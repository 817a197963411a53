//! Any bytes as a plan: the same steps for every cut, never a panic, and what can run comes to its end.

#![no_main]

#[path = "../../crates/peregrine-executor/tests/it/decoding.rs"]
mod decoding;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decoding::plans(bytes));
