//! One entry as bytes, and how to tell whether those bytes are what was written.
//!
//! ```text
//!  0  state        1   live or dead: the only byte that ever changes
//!  1  magic        3
//!  4  tags         1   how many
//!  5  zero         3
//!  8  payload      4   how many bytes, little-endian like all numbers
//! 12  zero         4
//! 16  created      8
//! 24  fresh until  8
//! 32  keep until   8
//! 40  key         32
//! 72  check       16  of the payload
//! 88  check       16  of the bytes 1 to 87 and the tags
//! 104 tags        16 each
//!     payload
//! ```
//!
//! Checks are the first half of a BLAKE3 digest. The header has its own, so that a scan can step over payloads.

use crate::{Entry, Error, Key, Result, Tag};

pub(super) const HEADER: usize = 104;
pub(super) const MAX_TAGS: usize = 32;
/// The longest header with tags.
pub(super) const MAX_HEAD: usize = HEADER + MAX_TAGS * 16;

pub(super) const LIVE: u8 = b'L';
pub(super) const DEAD: u8 = b'D';
const MAGIC: [u8; 3] = *b"PGR";

/// What stands before a payload.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) live: bool,
    pub(super) key: Key,
    pub(super) created: u64,
    pub(super) fresh_until: u64,
    pub(super) keep_until: u64,
    pub(super) tags: Vec<Tag>,
    payload: usize,
    check: [u8; 16],
}

/// An entry as bytes. `None` if it has too many tags, or too many bytes for the format.
pub(super) fn write<V>(key: &Key, entry: &Entry<V>, payload: &[u8]) -> Option<Vec<u8>> {
    let tags = u8::try_from(entry.tags.len())
        .ok()
        .filter(|tags| usize::from(*tags) <= MAX_TAGS)?;
    let len = u32::try_from(payload.len()).ok()?;
    let mut bytes = Vec::with_capacity(HEADER + entry.tags.len() * 16 + payload.len());
    bytes.push(LIVE);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[tags, 0, 0, 0]);
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for time in [entry.created, entry.fresh_until, entry.keep_until] {
        bytes.extend_from_slice(&time.to_le_bytes());
    }
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(&check(&[payload]));
    bytes.extend_from_slice(&[0; 16]);
    for tag in entry.tags.iter() {
        bytes.extend_from_slice(tag.as_bytes());
    }
    let head_check = check(&[&bytes[1..HEADER - 16], &bytes[HEADER..]]);
    bytes[HEADER - 16..HEADER].copy_from_slice(&head_check);
    bytes.extend_from_slice(payload);
    Some(bytes)
}

impl Head {
    /// Reads a header from the beginning of some bytes. `None` if they are none, or not all of one.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.get(..HEADER)?;
        let tags = usize::from(fixed[4]);
        let live = match fixed[0] {
            LIVE => true,
            DEAD => false,
            _ => return None,
        };
        if fixed[1..4] != MAGIC || tags > MAX_TAGS {
            return None;
        }
        let tags = bytes.get(HEADER..HEADER + tags * 16)?;
        if check(&[&fixed[1..HEADER - 16], tags]) != fixed[HEADER - 16..] {
            return None;
        }
        let number = |at: usize| {
            fixed[at..at + 8]
                .iter()
                .rev()
                .fold(0, |n, byte| n << 8 | u64::from(*byte))
        };
        Some(Self {
            live,
            payload: (number(8) & 0xffff_ffff) as usize,
            created: number(16),
            fresh_until: number(24),
            keep_until: number(32),
            key: Key::from_digest(array(&fixed[40..72])),
            check: array(&fixed[72..88]),
            tags: tags
                .chunks_exact(16)
                .map(|tag| Tag::from_bytes(array(tag)))
                .collect(),
        })
    }

    /// How long the header is.
    pub(super) fn len(&self) -> usize {
        HEADER + self.tags.len() * 16
    }

    /// How long the whole record is.
    pub(super) fn record_len(&self) -> usize {
        self.len() + self.payload
    }

    /// The payload, from the bytes of the whole record.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it is not what was written.
    pub(super) fn payload<'a>(&self, record: &'a [u8]) -> Result<&'a [u8]> {
        record
            .get(self.len()..self.record_len())
            .filter(|payload| check(&[payload]) == self.check)
            .ok_or_else(|| Error::corrupt("the payload of a record on disk is not what was written"))
    }
}

fn check(parts: &[&[u8]]) -> [u8; 16] {
    let digest = match parts {
        [whole] => blake3::hash(whole),
        parts => {
            let mut hasher = blake3::Hasher::new();
            parts.iter().for_each(|part| {
                hasher.update(part);
            });
            hasher.finalize()
        }
    };
    array(&digest.as_bytes()[..16])
}

/// The first `N` bytes, of which there must be as many.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> (Key, Vec<u8>) {
        let key = Key::from_digest([7; 32]);
        let entry = Entry::new(String::new(), 5, None, &[Tag::label("a"), Tag::label("b")]);
        (key, write(&key, &entry, b"the payload").unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        let (key, bytes) = record();
        let head = Head::read(&bytes).unwrap();
        assert_eq!((head.live, head.key, head.created), (true, key, 5));
        assert_eq!(head.tags, [Tag::label("a"), Tag::label("b")]);
        assert_eq!(head.payload(&bytes).unwrap(), b"the payload");
        assert_eq!(head.record_len(), bytes.len());
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let (_, bytes) = record();
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            let intact = Head::read(&bad).is_some_and(|head| head.live && head.payload(&bad).is_ok());
            assert!(!intact, "bit {at}");
        }
        for len in 0..bytes.len() {
            let intact = Head::read(&bytes[..len]).is_some_and(|head| head.payload(&bytes[..len]).is_ok());
            assert!(!intact, "cut to {len}");
        }
    }
}
