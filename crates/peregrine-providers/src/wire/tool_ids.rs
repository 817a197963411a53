//! Ids of tool calls: made up where a server gives none, and bent to the form a server takes.
//!
//! Invariant: both are pure functions of the id (and, for made-up ones, of the answer and the call's place), so
//! a call and its result agree wherever they stand in the conversation, and the same conversation gives the
//! same bytes in every process.

use std::borrow::Cow;

/// The form of tool call ids that a server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ToolIds {
    /// Any text.
    Any,
    /// At most this many bytes; longer ids are replaced by a digest of them.
    AtMost(usize),
    /// Exactly nine letters and digits (Mistral); other ids are replaced by a digest of them.
    Nine,
}

impl ToolIds {
    /// The id as the server takes it.
    pub(crate) fn fit(self, id: &str) -> Cow<'_, str> {
        match self {
            Self::AtMost(limit) if id.len() > limit => Cow::Owned(format!("call_{}", digest(id, 11))),
            Self::Nine if id.len() != 9 || !id.bytes().all(|c| c.is_ascii_alphanumeric()) => {
                Cow::Owned(digest(id, 9))
            }
            _ => Cow::Borrowed(id),
        }
    }
}

/// An id for the call at a place of an answer: `call_<answer>_<place>`, or `call_<place>` if the answer has no
/// id. At most 40 characters of `[A-Za-z0-9_-]`, which every provider takes.
pub(crate) fn made_up(answer: Option<&str>, place: usize) -> String {
    let kept: Vec<char> = answer
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == '-')
        .collect();
    let tail: String = kept[kept.len().saturating_sub(24)..].iter().collect();
    if tail.is_empty() {
        format!("call_{place}")
    } else {
        format!("call_{tail}_{place}")
    }
}

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// FNV-1a over the bytes, mixed by the finaliser of MurmurHash3, in base 62.
fn digest(id: &str, len: usize) -> String {
    let mut hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^= hash >> 33;
    let digit = |_| {
        let digit = usize::try_from(hash % 62).expect("a digit is small");
        hash /= 62;
        char::from(BASE62[digit])
    };
    (0..len).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_fit_and_differ() {
        assert_eq!(ToolIds::Nine.fit("abcDEF123"), "abcDEF123");
        let digests: std::collections::BTreeSet<_> = (0..10_000)
            .map(|n| ToolIds::Nine.fit(&format!("call_{n}")).into_owned())
            .collect();
        assert_eq!(digests.len(), 10_000);
        assert!(
            digests
                .iter()
                .all(|id| id.len() == 9 && id.bytes().all(|c| c.is_ascii_alphanumeric()))
        );
        assert_eq!(
            ToolIds::Nine.fit("call_1"),
            "nZH0Lo6jc",
            "the form is part of what providers cache"
        );
        assert_eq!(ToolIds::AtMost(40).fit("call_1"), "call_1");
        let long = ToolIds::AtMost(40).fit(&"x".repeat(41)).into_owned();
        assert!(long.starts_with("call_") && long.len() == 16, "{long}");
    }

    #[test]
    fn made_up_ids_are_short_and_plain() {
        assert_eq!(made_up(None, 2), "call_2");
        assert_eq!(made_up(Some("3SE-aKjdCcC"), 0), "call_3SE-aKjdCcC_0");
        assert_eq!(made_up(Some("é \n"), 1), "call_1");
        let long = made_up(Some("chatcmpl-4f39f3af-3267-4ac1-a0cf-6aa7451877dc"), 123);
        assert_eq!(long, "call_7-4ac1-a0cf-6aa7451877dc_123");
        assert!(long.len() <= 40);
    }
}
