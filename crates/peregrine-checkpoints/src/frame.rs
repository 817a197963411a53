//! Frames: how records stand in files and rows, and how damage is told from an end.
//!
//! ```text
//!  0  magic       2 bytes   "PJ"
//!  2  version     1 byte    1
//!  3  flags       1 byte    1 compressed, 2 encrypted, 4 snapshot, 8 payload kept as a part
//!  4  length      4 bytes   of the body, little-endian like all numbers here
//!  8  seq         8 bytes   the number of the record
//! 16  head check  4 bytes   the low half of XXH3-64 of bytes 0..16, seeded with the run's salt
//! 20  body        `length` bytes
//!     body check  8 bytes   XXH3-64 of the body, seeded with XXH3-64 of bytes 0..16
//! ```
//!
//! The salt is derived from scope and run: a frame of another run, or one that stands inside a payload, does not pass
//! for one of this run. A later version keeps the first 20 bytes, so that it is recognised as such.
//!
//! Invariant: whatever the bytes are, a scan yields a prefix of the frames that were written, then an end, a torn tail
//! or an error. A tail is torn if no whole frame of the run follows the first damaged byte; else the damage is in the
//! middle. The check protects from accidents; who wants to be safe from people encrypts.

use peregrine_core::RunId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Error, Result};
use crate::record::RunKey;

pub(crate) const MAGIC: [u8; 2] = *b"PJ";
pub(crate) const VERSION: u8 = 1;
pub(crate) const HEAD_BYTES: usize = 20;
pub(crate) const CHECK_BYTES: usize = 8;
/// What a frame adds to its body.
pub(crate) const OVERHEAD_BYTES: usize = HEAD_BYTES + CHECK_BYTES;

pub(crate) const COMPRESSED: u8 = 1;
pub(crate) const ENCRYPTED: u8 = 2;
pub(crate) const SNAPSHOT: u8 = 4;
pub(crate) const SPILLED: u8 = 8;
const KNOWN_FLAGS: u8 = 15;

/// While looking for frames behind a damage, so many times the bytes that are left may be hashed: what stands there
/// may have been made to take quadratic time.
const SEARCH_FACTOR: usize = 4;

/// What distinguishes the frames of one run from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Salt(u64);

impl Salt {
    pub(crate) fn of(key: &RunKey) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"peregrine journal salt 1");
        hasher.update(&key.scope.key());
        hasher.update(key.run.to_string().as_bytes());
        Self::first_of(hasher.finalize().as_bytes())
    }

    /// That of a part, whose name is already a hash.
    pub(crate) fn of_part(name: &[u8; 32]) -> Self {
        Self::first_of(name)
    }

    fn first_of(hash: &[u8; 32]) -> Self {
        Self(u64::from_le_bytes(number(hash, 0)))
    }
}

/// Makes room for the head of a frame whose body follows; returns where the frame begins.
pub(crate) fn open(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    start
}

/// Completes the frame that begins at `start` and whose body is the rest of `out`.
pub(crate) fn close(out: &mut Vec<u8>, start: usize, salt: Salt, flags: u8, seq: u64) -> Result<()> {
    let body = out.len() - start - HEAD_BYTES;
    let len = u32::try_from(body).map_err(|_| Error::TooLarge {
        what: "a record",
        bytes: body as u64,
        limit: u32::MAX.into(),
    })?;
    let head = &mut out[start..start + HEAD_BYTES];
    head[..2].copy_from_slice(&MAGIC);
    head[2] = VERSION;
    head[3] = flags;
    head[4..8].copy_from_slice(&len.to_le_bytes());
    head[8..16].copy_from_slice(&seq.to_le_bytes());
    let head_check = xxh3_64_with_seed(&head[..16], salt.0);
    head[16..].copy_from_slice(&(head_check as u32).to_le_bytes());
    let body_check = xxh3_64_with_seed(&out[start + HEAD_BYTES..], head_check);
    out.extend_from_slice(&body_check.to_le_bytes());
    Ok(())
}

/// A whole frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) seq: u64,
    pub(crate) flags: u8,
    /// Where the frame begins in the scanned bytes.
    pub(crate) start: usize,
    /// One past its end.
    pub(crate) end: usize,
}

impl Frame {
    pub(crate) fn body(&self) -> std::ops::Range<usize> {
        self.start + HEAD_BYTES..self.end - CHECK_BYTES
    }
}

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Frame(Frame),
    /// Nothing: the bytes end here.
    End,
    /// The beginning of something that was never finished, up to the end of the bytes.
    Torn,
}

/// What a scan must know about the bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) run: RunId,
    pub(crate) salt: Salt,
    /// The file or row, for errors.
    pub(crate) name: &'a str,
    /// Where in it the bytes begin.
    pub(crate) offset: u64,
    /// Whether the bytes may end in the middle of a frame.
    pub(crate) may_be_torn: bool,
    /// The largest body.
    pub(crate) max_body: usize,
}

/// The number of the frame whose head begins at `at`, unchecked.
pub(crate) fn seq_at(bytes: &[u8], at: usize) -> Option<u64> {
    let head = bytes.get(at..at + HEAD_BYTES)?;
    Some(u64::from_le_bytes(number(head, 8)))
}

/// The length of the frame whose head begins at `at`, unchecked.
pub(crate) fn len_at(bytes: &[u8], at: usize) -> Option<usize> {
    let head = bytes.get(at..at + HEAD_BYTES)?;
    (u32::from_le_bytes(number(head, 4)) as usize).checked_add(OVERHEAD_BYTES)
}

/// What stands at `at`, where record `seq` is expected.
pub(crate) fn step(bytes: &[u8], at: usize, seq: u64, place: &Place<'_>) -> Result<Step> {
    if at >= bytes.len() {
        return Ok(Step::End);
    }
    let why = match frame_at(bytes, at, place.salt) {
        Found::Whole(frame) => {
            if frame.flags & !KNOWN_FLAGS != 0 {
                return Err(unsupported("frame flags", frame.flags, KNOWN_FLAGS));
            }
            let body = frame.body().len();
            if body > place.max_body {
                return Err(Error::TooLarge {
                    what: "a record",
                    bytes: body as u64,
                    limit: place.max_body as u64,
                });
            }
            if frame.seq == seq {
                return Ok(Step::Frame(frame));
            }
            "a record with another number stands there"
        }
        Found::Later(version) => return Err(unsupported("format version", version, VERSION)),
        // The head is what was written, so its length is, and the bytes end before the frame does.
        Found::Short if place.may_be_torn => return Ok(Step::Torn),
        Found::Short => "the record ends in its middle",
        Found::Nothing(why) => {
            if place.may_be_torn && !frame_follows(bytes, at + 1, seq, place.salt) {
                return Ok(Step::Torn);
            }
            why
        }
    };
    Err(Error::damaged(
        place.run,
        place.name,
        place.offset + at as u64,
        seq,
        why,
    ))
}

fn unsupported(what: &'static str, found: u8, known: u8) -> Error {
    Error::Unsupported {
        what,
        found: found.into(),
        known: known.into(),
    }
}

enum Found {
    Whole(Frame),
    /// A good head of another version, whose body may be checked differently.
    Later(u8),
    /// A good head of a frame that ends beyond the bytes.
    Short,
    Nothing(&'static str),
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut digits = [0; N];
    digits.copy_from_slice(&bytes[at..at + N]);
    digits
}

fn head_at(bytes: &[u8], at: usize, salt: Salt) -> Option<(Frame, u64)> {
    let head = bytes.get(at..at + HEAD_BYTES)?;
    if head[..2] != MAGIC {
        return None;
    }
    let check = xxh3_64_with_seed(&head[..16], salt.0);
    if (check as u32).to_le_bytes() != head[16..] {
        return None;
    }
    let len = u32::from_le_bytes(number(head, 4)) as usize;
    let frame = Frame {
        seq: u64::from_le_bytes(number(head, 8)),
        flags: head[3],
        start: at,
        end: at.checked_add(len)?.checked_add(OVERHEAD_BYTES)?,
    };
    Some((frame, check))
}

fn frame_at(bytes: &[u8], at: usize, salt: Salt) -> Found {
    let Some((frame, head_check)) = head_at(bytes, at, salt) else {
        return Found::Nothing("the head of a record does not fit its check");
    };
    if bytes[at + 2] != VERSION {
        return Found::Later(bytes[at + 2]);
    }
    if frame.end > bytes.len() {
        return Found::Short;
    }
    let check = xxh3_64_with_seed(&bytes[frame.body()], head_check);
    if check.to_le_bytes() == number(bytes, frame.end - CHECK_BYTES) {
        Found::Whole(frame)
    } else {
        Found::Nothing("the body of a record does not fit its check")
    }
}

/// Whether a whole frame with a number above `seq` begins at `from` or later. When the search gets too long, it is
/// taken that one does: the caller then reports damage and cuts nothing.
fn frame_follows(bytes: &[u8], from: usize, seq: u64, salt: Salt) -> bool {
    let mut budget = bytes.len().saturating_sub(from).saturating_mul(SEARCH_FACTOR);
    let mut at = from;
    while let Some(found) = find_magic(bytes, at) {
        at = found;
        if let Some((frame, check)) = head_at(bytes, at, salt)
            && frame.seq > seq
            && frame.end <= bytes.len()
        {
            let body = &bytes[frame.body()];
            if xxh3_64_with_seed(body, check).to_le_bytes() == number(bytes, frame.end - CHECK_BYTES) {
                return true;
            }
            match budget.checked_sub(body.len()) {
                Some(left) => budget = left,
                None => return true,
            }
        }
        at += 1;
    }
    false
}

fn find_magic(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(2)
        .position(|pair| pair == MAGIC)
        .map(|found| from + found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_core::Scope;

    const BODIES: [&[u8]; 4] = [b"one", b"", b"a longer third body", b"four"];

    fn key() -> RunKey {
        RunKey::new(Scope::tenant("t").unwrap(), RunId::from_parts(1, [7; 10]))
    }

    fn place(key: &RunKey) -> Place<'static> {
        Place {
            run: key.run,
            salt: Salt::of(key),
            name: "bytes",
            offset: 0,
            may_be_torn: true,
            max_body: 1 << 20,
        }
    }

    fn journal(key: &RunKey, bodies: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for (seq, body) in bodies.iter().enumerate() {
            let start = open(&mut bytes);
            bytes.extend_from_slice(body);
            close(&mut bytes, start, Salt::of(key), 0, seq as u64).unwrap();
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    /// The number of whole frames, and whether a torn tail follows.
    fn scan(bytes: &[u8], place: &Place<'_>) -> Result<(usize, bool)> {
        let (mut at, mut seq) = (0, 0);
        loop {
            match step(bytes, at, seq, place)? {
                Step::Frame(frame) => {
                    assert_eq!(
                        &bytes[frame.body()],
                        BODIES[seq as usize],
                        "a frame that was not written"
                    );
                    (at, seq) = (frame.end, seq + 1);
                }
                Step::End => return Ok((seq as usize, false)),
                Step::Torn => return Ok((seq as usize, true)),
            }
        }
    }

    #[test]
    fn every_truncation_gives_the_whole_frames_before_it() {
        let key = key();
        let (bytes, ends) = journal(&key, &BODIES);
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let torn = cut != 0 && !ends.contains(&cut);
            assert_eq!(
                scan(&bytes[..cut], &place(&key)).unwrap(),
                (whole, torn),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn every_flipped_bit_is_a_tail_or_an_error_that_names_the_place() {
        let key = key();
        let (bytes, ends) = journal(&key, &BODIES);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let hit = ends.iter().position(|end| bit / 8 < *end).unwrap();
            match scan(&bytes, &place(&key)) {
                Ok(found) => assert_eq!((hit, found), (3, (3, true)), "bit {bit}"),
                Err(Error::Damaged(damage)) => {
                    let start = if hit == 0 { 0 } else { ends[hit - 1] };
                    assert!(hit < 3, "bit {bit}");
                    assert_eq!(
                        (damage.seq, damage.offset),
                        (hit as u64, start as u64),
                        "bit {bit}"
                    );
                }
                Err(other) => panic!("bit {bit}: {other}"),
            }
        }
    }

    #[test]
    fn a_lost_or_doubled_frame_is_damage() {
        let key = key();
        let (bytes, ends) = journal(&key, &BODIES);
        let lost = [&bytes[..ends[0]], &bytes[ends[1]..]].concat();
        let doubled = [&bytes[..ends[0]], &bytes[..ends[0]], &bytes[ends[1]..]].concat();
        for bytes in [lost, doubled] {
            match scan(&bytes, &place(&key)) {
                Err(Error::Damaged(damage)) => assert_eq!(damage.offset, ends[0] as u64),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn frames_of_another_run_are_not_taken() {
        let (key, mut other) = (key(), key());
        other.run = RunId::from_parts(2, [7; 10]);
        let (foreign, _) = journal(&other, &BODIES);
        // Inside a torn payload, they do not make it damage in the middle.
        assert_eq!(scan(&foreign, &place(&key)).unwrap(), (0, true));
        let (own, _) = journal(&key, &[b"one", &foreign]);
        assert_eq!(scan(&own[..own.len() - 1], &place(&key)).unwrap(), (1, true));
    }

    #[test]
    fn a_later_version_is_named() {
        let key = key();
        let (mut bytes, _) = journal(&key, &BODIES);
        bytes[2] = 2;
        let check = xxh3_64_with_seed(&bytes[..16], Salt::of(&key).0);
        bytes[16..20].copy_from_slice(&(check as u32).to_le_bytes());
        assert!(matches!(
            scan(&bytes, &place(&key)),
            Err(Error::Unsupported {
                what: "format version",
                found: 2,
                known: 1
            })
        ));
    }

    #[test]
    fn zeros_behind_the_last_frame_are_a_tail() {
        let key = key();
        let (mut bytes, _) = journal(&key, &BODIES);
        bytes.extend_from_slice(&[0; 4096]);
        assert_eq!(scan(&bytes, &place(&key)).unwrap(), (4, true));
    }
}
