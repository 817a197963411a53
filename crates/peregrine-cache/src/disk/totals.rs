//! The totals beside the segments: two slots in one small file, of which the newer whole one counts.
//!
//! Whoever adds holds the file's lock, reads, and writes the slot that does not count; so a crash in the middle loses what
//! was to be added, and nothing else. Nothing is synchronised to the disk.
//!
//! ```text
//!   0  magic   8
//!   8  number  8   of this writing
//!  16  since   8
//!  24  counts  8 each
//! 128  check  16   of the bytes 0 to 127
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::totals::{COUNTS, Totals};

const NAME: &str = "totals";
const MAGIC: [u8; 8] = *b"PGRNTOT1";
const CHECKED: usize = 24 + COUNTS * 8;
const SLOT: usize = CHECKED + 16;

/// What was added so far; nothing if nothing was, or if it cannot be told any more.
pub(super) fn read(dir: &Path) -> io::Result<Totals> {
    match File::open(dir.join(NAME)) {
        Ok(file) => {
            file.lock_shared()?;
            Ok(newest(&file)?.map_or_else(Totals::default, |(_, totals)| totals))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Totals::default()),
        Err(error) => Err(error),
    }
}

/// Adds to them.
pub(super) fn add(dir: &Path, more: &Totals, now: u64) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    let file = options.open(dir.join(NAME))?;
    file.lock()?;
    let (number, totals) = newest(&file)?.unwrap_or_default();
    let totals = Totals {
        since: totals.since.or(Some(now)),
        ..totals.and(more)
    };
    let number = number.wrapping_add(1);
    file.write_all_at(&write(number, &totals), (number % 2) * SLOT as u64)
}

fn newest(file: &File) -> io::Result<Option<(u64, Totals)>> {
    let mut newest: Option<(u64, Totals)> = None;
    for slot in 0..2 {
        let mut bytes = [0; SLOT];
        match file.read_exact_at(&mut bytes, slot * SLOT as u64) {
            Ok(()) => {
                newest = newest
                    .into_iter()
                    .chain(parse(&bytes))
                    .max_by_key(|(number, _)| *number)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
    }
    Ok(newest)
}

fn write(number: u64, totals: &Totals) -> [u8; SLOT] {
    let mut bytes = [0; SLOT];
    bytes[..8].copy_from_slice(&MAGIC);
    let counts = totals.counts().map(|(_, count)| count);
    let numbers = [number, totals.since.unwrap_or_default()]
        .into_iter()
        .chain(counts);
    for (place, number) in bytes[8..CHECKED].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let check = blake3::hash(&bytes[..CHECKED]);
    bytes[CHECKED..].copy_from_slice(&check.as_bytes()[..16]);
    bytes
}

fn parse(bytes: &[u8; SLOT]) -> Option<(u64, Totals)> {
    let check = blake3::hash(&bytes[..CHECKED]);
    if bytes[..8] != MAGIC || bytes[CHECKED..] != check.as_bytes()[..16] {
        return None;
    }
    let mut numbers = bytes[8..CHECKED]
        .as_chunks::<8>()
        .0
        .iter()
        .map(|n| u64::from_le_bytes(*n));
    let mut next = || numbers.next().unwrap_or_default();
    let (number, since) = (next(), next());
    let totals = Totals::from_counts(std::array::from_fn(|_| next()));
    Some((
        number,
        Totals {
            since: Some(since),
            ..totals
        },
    ))
}
