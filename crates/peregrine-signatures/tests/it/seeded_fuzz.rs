//! A bounded number of seeded cases through every way of reading an answer.
//!
//! The cases are answers in the spellings of models, and then damaged: bytes flipped, pieces cut out, doubled, swapped
//! between cases. `PEREGRINE_FUZZ_CASES` and `PEREGRINE_FUZZ_SEED` set how many and which; the same seed gives the same
//! cases.

use crate::judging::judge;

const MADE: &[&str] = &[
    r#"{"a": {"x": [1, null, true]}, "n": 3, "l": [0.5, 1e3], "k": "why", "m": {"d": "2026-01-31"}, "s": "it's \"so\"\n"}"#,
    "```json\n{\"a\": null, \"n\": null, \"l\": [], \"k\": 3, \"m\": {}, \"s\": \"\\u00e9\\ud83d\\ude00\"}\n```\n",
    "<think>{\"a\": 1}</think> Sure: {'a': 'b', n: None, \"l\": [1, 2,], 'k': \"x\", // so\n \"m\": {}, \"s\": 'x',} {\"q\": 1}",
    r#"{"a": [[[[{}]]]], "n": -9223372036854775808, "l": [1], "k": "x", "m": {"a": "2024-02-29"}, "s": ""} {"s": "", "a": [[[[{}]]]], "n": -9223372036854775808, "l": [1.0], "k": "x", "m": {"a": "2024-02-29"}}"#,
    r#""{\"a\": 1, \"n\": 1, \"l\": [], \"k\": \"x\", \"m\": {}, \"s\": \"s\"}""#,
];

const PIECES: &[&str] = &[
    "null", "None", "NaN", "{}", "[]", "\"\"", "-1", "1e999", "1e-999", "\\", "\"", "'", "{", "}", "[", "]",
    ",", ":", "\u{0}", "é", "😀", "\\ud800", "```", "<think>", "</think>", "//", "/*", "*/", "#", "\n",
    "\"a\": ", "\"zz\": ",
];

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

fn damaged(random: &mut Random) -> Vec<u8> {
    let made = |random: &mut Random| MADE[random.below(MADE.len())].as_bytes();
    let mut case = vec![random.below(256) as u8, random.below(2) as u8];
    case.extend_from_slice(made(random));
    for _ in 0..random.below(5) {
        let at = 2 + random.below(case.len() - 1);
        let to = (at + random.below(30)).min(case.len());
        match random.below(6) {
            0 => case.truncate(at),
            1 => drop(case.drain(at..to)),
            2 => {
                let again = case[at..to].to_vec();
                case.splice(at..at, again);
            }
            3 if at < case.len() => case[at] ^= 1 << random.below(8),
            4 => {
                let other = made(random);
                let from = random.below(other.len());
                let end = (from + random.below(60)).min(other.len());
                case.splice(at..to, other[from..end].iter().copied());
            }
            _ => {
                let piece = PIECES[random.below(PIECES.len())];
                case.splice(at..to, piece.bytes());
            }
        }
    }
    case
}

#[test]
fn answers_of_any_bytes_are_judged_alike_in_every_way() {
    let setting = |name: &str, usual: u64| {
        let value = std::env::var(name).ok();
        value.and_then(|value| value.parse().ok()).unwrap_or(usual)
    };
    let (cases, seed) = (
        setting("PEREGRINE_FUZZ_CASES", 1_000),
        setting("PEREGRINE_FUZZ_SEED", 42),
    );
    MADE.iter()
        .for_each(|text| judge(format!("\u{8}\u{0}{text}").as_bytes()));
    for number in 0..cases {
        let case = damaged(&mut Random(seed.wrapping_add(number)));
        if let Err(panic) = std::panic::catch_unwind(|| judge(&case)) {
            let shown = String::from_utf8_lossy(&case);
            panic!(
                "case {number} of seed {seed} failed: {panic:?}\nPEREGRINE_FUZZ_SEED={} PEREGRINE_FUZZ_CASES=1\n{shown}",
                seed.wrapping_add(number)
            );
        }
    }
}
