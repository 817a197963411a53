//! A bounded number of seeded cases through every decoder, on the stable toolchain.
//!
//! The cases are real bodies where the recordings are at hand, else small made ones, and then damaged: bytes
//! flipped, pieces cut out, doubled, swapped between bodies, JSON values replaced. `PEREGRINE_FUZZ_CASES` and
//! `PEREGRINE_FUZZ_SEED` set how many and which; the same seed gives the same cases. The endless form is
//! `cargo fuzz` in `fuzz/`.

use crate::decoding;
use crate::recordings;

const MADE: &[&str] = &[
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]},\"finishReason\":\"STOP\"}]}\r\n\r\n",
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"i\",\"output_index\":0,\"content_index\":0,\"delta\":\"a\"}\n\n",
    "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"a\"},\"done\":false}\n{\"model\":\"m\",\"message\":{\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1}}}]},\"done\":true,\"done_reason\":\"stop\"}\n",
    "{\"id\":\"c\",\"choices\":[{\"message\":{\"content\":null,\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},\"finish_reason\":\"tool_calls\"}]}",
    "{\"error\":{\"message\":\"m\",\"type\":\"t\",\"code\":429}}",
];

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        if bound == 0 {
            0
        } else {
            (self.next() % bound as u64) as usize
        }
    }
}

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(usual)
}

fn damage(random: &mut Random, seeds: &[Vec<u8>], case: &mut Vec<u8>) {
    const PIECES: &[&str] = &[
        "null",
        "{}",
        "[]",
        "\"\"",
        "-1",
        "1e999",
        "\n\n",
        "\r",
        "data: ",
        "[DONE]",
        "\u{0}",
        "é",
        "\"index\":0",
        ":",
    ];
    for _ in 0..random.below(6) {
        let at = random.below(case.len() + 1);
        let to = (at + random.below(40)).min(case.len());
        match random.below(6) {
            0 => case.truncate(at),
            1 => drop(case.drain(at..to)),
            2 => {
                let again = case[at..to].to_vec();
                case.splice(at..at, again);
            }
            3 if at < case.len() => case[at] ^= 1 << random.below(8),
            4 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let end = (from + random.below(200)).min(other.len());
                case.splice(at..to, other[from..end].iter().copied());
            }
            _ => {
                let piece = PIECES[random.below(PIECES.len())];
                case.splice(at..to, piece.bytes());
            }
        }
    }
}

#[test]
fn every_decoder_survives_damaged_bytes() {
    let mut seeds: Vec<Vec<u8>> = MADE.iter().map(|text| text.as_bytes().to_vec()).collect();
    for api in ["openai-chat", "openai-responses", "anthropic", "gemini"] {
        let recorded = recordings::exchanges(api).unwrap_or_default();
        seeds.extend(
            recorded
                .iter()
                .filter(|e| e.body.len() < 20_000)
                .map(|e| e.body.clone().into_bytes()),
        );
    }
    let codecs = decoding::codecs();
    let (cases, seed) = (
        setting("PEREGRINE_FUZZ_CASES", 400),
        setting("PEREGRINE_FUZZ_SEED", 42),
    );
    for number in 0..cases {
        let mut random = Random(seed.wrapping_add(number));
        let mut case = seeds[random.below(seeds.len())].clone();
        damage(&mut random, &seeds, &mut case);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if case.len() < 4_000 {
                decoding::sse(&case);
                decoding::ndjson(&case);
            }
            for codec in &codecs {
                decoding::stream(codec.as_ref(), &case);
                decoding::body(codec.as_ref(), &case);
            }
        }));
        if let Err(panic) = outcome {
            let shown = String::from_utf8_lossy(&case);
            panic!(
                "case {number} of seed {seed} failed: {panic:?}\nPEREGRINE_FUZZ_SEED={} PEREGRINE_FUZZ_CASES=1\n{shown}",
                seed.wrapping_add(number)
            );
        }
    }
}
