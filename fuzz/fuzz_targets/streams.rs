//! Any bytes as a streamed answer, through the codec that the first byte picks.

#![no_main]

#[path = "../../crates/peregrine-providers/tests/it/decoding.rs"]
mod decoding;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((pick, bytes)) = bytes.split_first() {
        let codecs = decoding::codecs();
        decoding::stream(codecs[usize::from(*pick) % codecs.len()].as_ref(), bytes);
    }
});
