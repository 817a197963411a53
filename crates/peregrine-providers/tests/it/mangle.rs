//! Broken bytes: whatever a server sends, a codec answers with a value or an error and never panics.
//!
//! Seeded, so that a failure can be repeated.

use peregrine_providers::wire::ChatCodec;
use serde_json::{Value, json};

use crate::support;

/// Decodes broken variants of a whole answer and of a stream.
pub(crate) fn survive(codec: &dyn ChatCodec, body: &str, is_stream: bool, seed: u64, rounds: usize) {
    let mut dice = Dice(seed);
    for _ in 0..rounds {
        let bytes = match dice.below(4) {
            0 => cut(body, &mut dice),
            1 => flip(body, &mut dice),
            2 => splice(body, &mut dice),
            _ if is_stream => swap_in_stream(body, &mut dice).into_bytes(),
            _ => swap(body, &mut dice).into_bytes(),
        };
        // A broken answer may still be an answer, so there is nothing to compare: it must only come back.
        drop(support::events(codec, &bytes));
        drop(codec.error_body(&bytes));
        drop(support::decode(codec, bytes));
    }
}

/// A small generator (Knuth's MMIX constants).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % limit.max(1)
    }
}

fn cut(body: &str, dice: &mut Dice) -> Vec<u8> {
    body.as_bytes()[..dice.below(body.len() + 1)].to_vec()
}

fn flip(body: &str, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = body.as_bytes().to_vec();
    for _ in 0..=dice.below(4) {
        if !bytes.is_empty() {
            let place = dice.below(bytes.len());
            bytes[place] ^= 1 << dice.below(8);
        }
    }
    bytes
}

/// Leaves a stretch out, or has it twice.
fn splice(body: &str, dice: &mut Dice) -> Vec<u8> {
    let bytes = body.as_bytes();
    let (one, two) = (dice.below(bytes.len() + 1), dice.below(bytes.len() + 1));
    let (from, to) = (one.min(two), one.max(two));
    match dice.below(2) {
        0 => [&bytes[..from], &bytes[to..]].concat(),
        _ => [&bytes[..to], &bytes[from..]].concat(),
    }
}

fn swap(text: &str, dice: &mut Dice) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(text) else {
        return text.to_owned();
    };
    for _ in 0..=dice.below(3) {
        swap_one(&mut value, dice);
    }
    value.to_string()
}

fn swap_in_stream(body: &str, dice: &mut Dice) -> String {
    let mut lines: Vec<String> = body.lines().map(str::to_owned).collect();
    for _ in 0..=dice.below(3) {
        let place = dice.below(lines.len());
        if let Some(data) = lines.get(place).and_then(|line| line.strip_prefix("data:")) {
            lines[place] = format!("data: {}", swap(data, dice));
        }
    }
    lines.join("\n") + "\n\n"
}

/// Walks down to a value and puts one of another kind in its place, or takes it away.
fn swap_one(value: &mut Value, dice: &mut Dice) {
    if dice.below(4) > 0 {
        match value {
            Value::Array(items) if !items.is_empty() => {
                let place = dice.below(items.len());
                if dice.below(8) == 0 {
                    items.remove(place);
                    return;
                }
                return swap_one(&mut items[place], dice);
            }
            Value::Object(fields) if !fields.is_empty() => {
                let key = fields
                    .keys()
                    .nth(dice.below(fields.len()))
                    .cloned()
                    .unwrap_or_default();
                if dice.below(8) == 0 {
                    fields.remove(&key);
                } else if let Some(field) = fields.get_mut(&key) {
                    swap_one(field, dice);
                }
                return;
            }
            _ => {}
        }
    }
    let others = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("x"),
        json!([]),
        json!([null, 1]),
        json!({}),
        json!({"type": 1, "text": []}),
    ];
    *value = others[dice.below(others.len())].clone();
}
