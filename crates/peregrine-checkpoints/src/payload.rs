//! Payloads as typed values: MessagePack by serde, with names, and bounds on how deep they nest.
//!
//! Structs are written as maps: the compact form of `rmp-serde` cannot read back a struct whose fields were skipped.
//! Depth is checked without recursion before anything is deserialised, and when a value is written, so that what
//! was accepted can be read again.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Appends `value` to `out`.
pub(crate) fn encode<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T, max_depth: usize) -> Result<()> {
    let start = out.len();
    let encoded = value.serialize(&mut rmp_serde::Serializer::new(&mut *out).with_struct_map());
    encoded.map_err(|source| Error::Encode {
        source: Arc::new(source),
    })?;
    match check(&out[start..], max_depth) {
        Ok(_) => Ok(()),
        Err(Flaw::Deep) => Err(Error::TooDeep {
            what: "the payload",
            limit: max_depth,
        }),
        Err(flaw) => Err(Error::Encode {
            source: Arc::new(flaw),
        }),
    }
}

/// The value in `bytes`, all of them.
pub(crate) fn decode<T: DeserializeOwned>(
    bytes: &[u8],
    max_depth: usize,
    (seq, schema): (u64, u32),
) -> Result<T> {
    let wrong = |source: Arc<dyn std::error::Error + Send + Sync>| Error::Decode { seq, schema, source };
    match check(bytes, max_depth) {
        Ok(len) if len == bytes.len() => {}
        Ok(_) => return Err(wrong(Arc::new(Flaw::Trailing))),
        Err(Flaw::Deep) => {
            return Err(Error::TooDeep {
                what: "the payload",
                limit: max_depth,
            });
        }
        Err(flaw) => return Err(wrong(Arc::new(flaw))),
    }
    // The check above is the bound; serde's own count includes newtypes and options, so it gets some room.
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(max_depth * 4);
    T::deserialize(&mut deserializer).map_err(|source| {
        wrong(Arc::new(match source {
            rmp_serde::decode::Error::Syntax(message) | rmp_serde::decode::Error::Uncategorized(message) => {
                Reason::of(&message)
            }
            other => Reason(other.to_string()),
        }))
    })
}

/// Why a value could not be read, without the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Reason(String);

impl Reason {
    /// Serde's messages quote what they found. What was expected, and the names that the type has, may be told.
    pub(crate) fn of(message: &str) -> Self {
        let expected = || message.rfind(", expected ").map(|at| &message[at + 2..]);
        let told = ["missing field ", "duplicate field "];
        Self(
            if told.iter().any(|begin| message.starts_with(begin)) && !message.contains('"') {
                message.to_owned()
            } else if let Some(kind) = message
                .strip_prefix("invalid type: ")
                .and_then(|rest| rest.split([' ', ',']).next())
            {
                format!(
                    "invalid type: {kind}, {}",
                    expected().unwrap_or("another one was expected")
                )
            } else if message.starts_with("unknown ") || message.starts_with("invalid ") {
                let what = message.split([' ', ':']).take(2).collect::<Vec<_>>().join(" ");
                format!("{what}, {}", expected().unwrap_or("another one was expected"))
            } else {
                "it is not the value that was asked for".to_owned()
            },
        )
    }
}

/// Why bytes are no MessagePack value that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("it ends in the middle of a value")]
    Short,
    #[error("it holds a byte that begins no value")]
    Marker,
    #[error("it is nested too deeply")]
    Deep,
    #[error("more bytes follow the value")]
    Trailing,
}

/// Walks over the first value in `bytes` and says how long it is. Takes no recursion, no allocation beyond `max_depth`
/// numbers, and one step for each element that is really there.
pub(crate) fn check(bytes: &[u8], max_depth: usize) -> Result<usize, Flaw> {
    // How many values are still to come on each open level.
    let mut open: Vec<u64> = Vec::new();
    let mut at = 0_usize;
    loop {
        let marker = *bytes.get(at).ok_or(Flaw::Short)?;
        at += 1;
        let mut number = |width: usize| -> Result<u64, Flaw> {
            let end = at.checked_add(width).ok_or(Flaw::Short)?;
            let digits = bytes.get(at..end).ok_or(Flaw::Short)?;
            at = end;
            Ok(digits
                .iter()
                .fold(0, |value, digit| (value << 8) | u64::from(*digit)))
        };
        // Bytes to pass over, then values within.
        let (skip, within) = match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (0, 0),
            0x80..=0x8f => (0, 2 * u64::from(marker & 0x0f)),
            0x90..=0x9f => (0, u64::from(marker & 0x0f)),
            0xa0..=0xbf => (u64::from(marker & 0x1f), 0),
            0xc1 => return Err(Flaw::Marker),
            0xc4 | 0xd9 => (number(1)?, 0),
            0xc5 | 0xda => (number(2)?, 0),
            0xc6 | 0xdb => (number(4)?, 0),
            0xc7 => (number(1)? + 1, 0),
            0xc8 => (number(2)? + 1, 0),
            0xc9 => (number(4)? + 1, 0),
            0xcc | 0xd0 => (1, 0),
            0xcd | 0xd1 => (2, 0),
            0xca | 0xce | 0xd2 => (4, 0),
            0xcb | 0xcf | 0xd3 => (8, 0),
            0xd4..=0xd8 => (1 + (1 << (marker - 0xd4)), 0),
            0xdc => (0, number(2)?),
            0xdd => (0, number(4)?),
            0xde => (0, 2 * number(2)?),
            0xdf => (0, 2 * number(4)?),
        };
        at = usize::try_from(skip)
            .ok()
            .and_then(|skip| at.checked_add(skip))
            .filter(|end| *end <= bytes.len())
            .ok_or(Flaw::Short)?;
        if within > 0 {
            if open.len() >= max_depth {
                return Err(Flaw::Deep);
            }
            open.push(within);
            continue;
        }
        // A value is complete; so may be those around it.
        loop {
            match open.last_mut() {
                None => return Ok(at),
                Some(left) if *left > 1 => {
                    *left -= 1;
                    break;
                }
                Some(_) => {
                    open.pop();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn nested(depth: usize) -> Value {
        (0..depth).fold(json!(1), |inner, _| json!([inner]))
    }

    #[test]
    fn the_walk_agrees_with_the_encoder_about_every_form() {
        let values = [
            json!(null),
            json!([
                0,
                127,
                128,
                255,
                256,
                65_535,
                65_536,
                u64::MAX,
                -1,
                -32,
                -33,
                -129,
                -40_000,
                i64::MIN,
                1.5
            ]),
            json!({"a": {}, "b": [], "c": "x".repeat(31), "d": "x".repeat(32), "e": "x".repeat(300), "f": "x".repeat(70_000)}),
            json!(vec![1; 16]),
            json!(vec![1; 70_000]),
        ];
        for value in &values {
            let mut bytes = Vec::new();
            encode(&mut bytes, value, 128).unwrap();
            assert_eq!(check(&bytes, 128), Ok(bytes.len()));
            assert_eq!(&decode::<Value>(&bytes, 128, (0, 0)).unwrap(), value);
            for cut in 0..bytes.len().min(400) {
                assert_eq!(check(&bytes[..cut], 128), Err(Flaw::Short));
            }
        }
    }

    #[test]
    fn depth_is_bounded_when_written_and_when_read() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &nested(128), 128).unwrap();
        decode::<Value>(&bytes, 128, (0, 0)).unwrap();
        assert!(matches!(
            encode(&mut Vec::new(), &nested(129), 128),
            Err(Error::TooDeep { limit: 128, .. })
        ));
        let hostile = vec![0x91; 1_000_000];
        assert!(matches!(
            decode::<Value>(&hostile, 128, (7, 1)),
            Err(Error::TooDeep { .. })
        ));
    }

    #[test]
    fn reasons_tell_no_values() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "only its reading matters")]
        struct Wanted {
            count: u8,
            kind: Option<Inner>,
        }
        #[derive(Debug, serde::Deserialize)]
        #[allow(dead_code, reason = "only its reading matters")]
        enum Inner {
            One,
        }
        let wrong = [
            json!({"count": "secret"}),
            json!({"count": "secret, expected, x"}),
            json!({"count": ["secret"]}),
            json!({"secret": 1}),
            json!({"count": 1, "kind": "secret"}),
            json!({"count": 1, "kind": {"secret": 1}}),
            json!("secret"),
        ];
        for value in wrong {
            let mut bytes = Vec::new();
            encode(&mut bytes, &value, 128).unwrap();
            let error = decode::<Wanted>(&bytes, 128, (7, 2)).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(
                !shown.contains("secret") && shown.contains("record 7 (schema 2)"),
                "{shown}"
            );
        }
        for (message, told) in [
            ("missing field `count`", "missing field `count`"),
            (
                "invalid type: string \"s, expected s\", expected u8",
                "invalid type: string, expected u8",
            ),
            (
                "invalid type: map, expected a string",
                "invalid type: map, expected a string",
            ),
            (
                "invalid value: integer `666`, expected u8",
                "invalid value, expected u8",
            ),
            (
                "invalid length 666, expected tuple",
                "invalid length, expected tuple",
            ),
            (
                "unknown variant `s`, expected `One`",
                "unknown variant, expected `One`",
            ),
            (
                "unknown field `s`, there are no fields",
                "unknown field, another one was expected",
            ),
            ("the word is s", "it is not the value that was asked for"),
        ] {
            assert_eq!(Reason::of(message).to_string(), told);
        }
    }

    #[test]
    fn what_follows_a_value_is_an_error() {
        assert!(matches!(
            decode::<u8>(&[1, 2], 8, (3, 1)),
            Err(Error::Decode { seq: 3, .. })
        ));
    }
}
