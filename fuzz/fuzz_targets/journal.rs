//! Any bytes as the frames of a run, the body of a good frame, or an export, as the first byte picks.

#![no_main]

#[path = "../../crates/peregrine-checkpoints/tests/it/decoding.rs"]
mod decoding;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((pick, bytes)) = bytes.split_first() {
        match pick % 3 {
            0 => drop(decoding::frames(bytes)),
            1 => decoding::body(bytes),
            _ => decoding::import(bytes),
        }
    }
});
