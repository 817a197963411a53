//! Bounds on how many values a JSON text may hold, because a value costs more memory than its text.
//!
//! Algorithm: containers and commas outside of strings are counted, in pieces cut anywhere, before anything is
//! read from the text. `{},` takes 3 bytes on the wire and some hundred in memory; real answers of any length
//! are mostly strings.

use memchr::memchr2;
use peregrine_core::{ChatEvent, Error, ErrorKind, Part, ProtocolError, ProviderData, Result};
use serde_json::Value;

/// A text of at most this many bytes cannot hold too much.
pub(crate) const SMALL_BODY_BYTES: usize = 64 << 10;

/// What has been counted so far.
#[derive(Debug, Default)]
pub(crate) struct Structure {
    containers: usize,
    commas: usize,
    in_string: bool,
    escaped: bool,
}

impl Structure {
    /// How many objects and lists a text may hold.
    pub(crate) const MAX_CONTAINERS: usize = 128 << 10;
    /// How many values a text may hold.
    pub(crate) const MAX_VALUES: usize = 1 << 20;

    /// Counts in the next piece of the text.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            if std::mem::take(&mut self.escaped) {
                bytes = rest;
            } else if self.in_string {
                let Some(end) = memchr2(b'"', b'\\', bytes) else {
                    return;
                };
                self.in_string = bytes[end] != b'"';
                self.escaped = self.in_string;
                bytes = &bytes[end + 1..];
            } else {
                match first {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.containers += 1,
                    b',' => self.commas += 1,
                    _ => {}
                }
                bytes = rest;
            }
        }
    }

    /// Refuses what has too many containers, or more than `max_values` values.
    pub(crate) fn check(&self, what: &str, max_values: usize) -> Result<()> {
        if self.containers > Self::MAX_CONTAINERS {
            return Err(Self::too_many(what, Self::MAX_CONTAINERS));
        }
        if self.commas > max_values {
            return Err(Self::too_many(what, max_values));
        }
        Ok(())
    }

    /// The error for more than `limit` values.
    pub(crate) fn too_many(what: &str, limit: usize) -> Error {
        let mut error = ProtocolError::new(format!(
            "{what} holds more than {limit} values, which no model writes"
        ));
        error.kind = ErrorKind::ResponseTooLarge;
        error.into()
    }
}

/// How many values of an event stay in the answer: a part is one, and so is every value of its data.
pub(crate) fn kept_values(event: &ChatEvent) -> usize {
    let of_data = |data: &Option<ProviderData>| data.as_ref().map_or(0, |data| count(&data.value));
    match event {
        ChatEvent::TextEnd { data } | ChatEvent::ReasoningEnd { data } => 1 + of_data(data),
        ChatEvent::ToolCallEnd { call, .. } => 1 + of_data(&call.data),
        ChatEvent::Part { part } => match &**part {
            Part::Opaque(opaque) => 1 + count(&opaque.value),
            _ => 1,
        },
        _ => 0,
    }
}

/// Values come from a parser that bounds their depth.
fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_hide_what_they_hold_wherever_the_text_is_cut() {
        let text = br#"{"a,[{\\\"":[1,{},"\\"],"b":",,"}"#;
        for cut in 0..=text.len() {
            let mut structure = Structure::default();
            structure.read(&text[..cut]);
            structure.read(&text[cut..]);
            assert_eq!((structure.containers, structure.commas), (3, 3), "cut at {cut}");
        }
    }

    #[test]
    fn bombs_are_refused_and_long_texts_are_not() {
        let check = |text: &str| {
            let mut structure = Structure::default();
            structure.read(text.as_bytes());
            structure.check("it", Structure::MAX_VALUES)
        };
        for bomb in ["{},".repeat(200_000), "0,".repeat(1_100_000)] {
            assert_eq!(check(&bomb).unwrap_err().kind(), ErrorKind::ResponseTooLarge);
        }
        check(&format!("\"{}\"", "[,{".repeat(1_000_000))).unwrap();
    }
}
