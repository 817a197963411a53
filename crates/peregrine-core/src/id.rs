//! Identifiers: validated names for tenants and sessions, and sortable run ids.
//!
//! Invariant: an id is never empty, has at most 256 bytes and holds no control character, so it can stand
//! in a log line, a path component (after escaping) or a key without surprises.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

const MAX_ID_BYTES: usize = 256;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidId {
    /// The text was empty.
    #[error("an identifier must not be empty")]
    Empty,
    /// The text had more than 256 bytes.
    #[error("an identifier has at most 256 bytes, this one has {len}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The text held a control character.
    #[error("an identifier must not hold control characters (one stands at byte {at})")]
    ControlCharacter {
        /// Where it stands.
        at: usize,
    },
    /// The text is not of the form this id has.
    #[error("not a run id: 26 characters of Crockford's base 32 are expected")]
    Form,
}

fn check(text: &str) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty);
    }
    if text.len() > MAX_ID_BYTES {
        return Err(InvalidId::TooLong { len: text.len() });
    }
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => Err(InvalidId::ControlCharacter { at }),
        None => Ok(()),
    }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and makes it an id.
            ///
            /// # Errors
            ///
            /// [`InvalidId`] if it is empty, longer than 256 bytes or holds a control character.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                let text = text.as_ref();
                check(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name_id! {
    /// Whose data it is: the hard boundary that no cache, memory or checkpoint crosses.
    TenantId
}
name_id! {
    /// One conversation or job of a tenant.
    SessionId
}

/// The id of one run: 48 bits of Unix milliseconds and 80 random bits, written as 26 characters of
/// Crockford's base 32 (the ULID form), so that text order is time order.
///
/// Time and randomness are passed in; the same inputs give the same id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(u128);

const BASE32: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl RunId {
    /// Makes an id from a time and random bytes.
    pub fn from_parts(unix_ms: u64, random: [u8; 10]) -> Self {
        let time = u128::from(unix_ms & ((1 << 48) - 1)) << 80;
        let random = random
            .iter()
            .fold(0_u128, |acc, byte| (acc << 8) | u128::from(*byte));
        Self(time | random)
    }

    /// The time in the id, in Unix milliseconds.
    pub fn unix_ms(self) -> u64 {
        (self.0 >> 80) as u64
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0_u8; 26];
        for (place, slot) in text.iter_mut().enumerate() {
            let five_bits = (self.0 >> (125 - 5 * place)) & 31;
            *slot = BASE32[usize::try_from(five_bits).expect("five bits fit")];
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for RunId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() != 26 || text.as_bytes()[0] > b'7' {
            return Err(InvalidId::Form);
        }
        text.bytes()
            .map(|byte| BASE32.iter().position(|c| *c == byte.to_ascii_uppercase()))
            .try_fold(0_u128, |acc, digit| Some((acc << 5) | digit? as u128))
            .map(Self)
            .ok_or(InvalidId::Form)
    }
}

impl TryFrom<String> for RunId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_sort_by_time_and_survive_text() {
        let early = RunId::from_parts(1_700_000_000_000, [0xff; 10]);
        let late = RunId::from_parts(1_700_000_000_001, [0; 10]);
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(late.to_string().parse::<RunId>(), Ok(late));
        assert_eq!(late.unix_ms(), 1_700_000_000_001);
        assert_eq!(late.to_string().to_lowercase().parse::<RunId>(), Ok(late));
        let max = RunId::from_parts(u64::MAX, [0xff; 10]);
        assert_eq!(max.to_string(), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    }

    #[test]
    fn hostile_ids_are_refused() {
        assert_eq!(TenantId::new(""), Err(InvalidId::Empty));
        assert_eq!(TenantId::new("a\nb"), Err(InvalidId::ControlCharacter { at: 1 }));
        assert_eq!(
            SessionId::new("x".repeat(257)),
            Err(InvalidId::TooLong { len: 257 })
        );
        for bad in [
            "",
            "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "7ZZZZZZZZZZZZZZZZZZZZZZZZU",
            "é".repeat(13).as_str(),
        ] {
            assert_eq!(bad.parse::<RunId>(), Err(InvalidId::Form), "{bad}");
        }
    }
}
