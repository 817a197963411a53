//! The segments of a run, from the last one back.
//!
//! The last segment is the one with the highest token and number; each head names the one before it and how much of it
//! counts. What is not on this chain does not count: it was left by a writer that had lost its lease.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::layout::{SegmentHead, SegmentName, segments};
use super::sys::if_there;
use crate::error::{Error, Result};
use crate::history::Tail;
use crate::record::{Origin, RunKey};
use crate::store::{Begin, Chunk, Range, Stored};

const MISSING: &str = "the segment is missing";

/// A segment that counts.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) head: SegmentHead,
    /// Where the frames begin.
    pub(crate) frames_at: u64,
    /// Where they end, if a later segment says so.
    pub(crate) end: Option<u64>,
}

/// Walks over the segments of a run, the last one first.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    folder: &'a Path,
    key: &'a RunKey,
    next: Option<(SegmentName, Option<u64>)>,
    /// The first record that the run still has.
    pub(crate) first: u64,
    /// A last segment of which nothing was ever written, as a power cut leaves it.
    pub(crate) empty_tip: Option<SegmentName>,
}

impl<'a> Chain<'a> {
    pub(crate) fn of(folder: &'a Path, key: &'a RunKey) -> Result<Self> {
        let names = segments(folder).map_err(|source| Error::io("list", folder.display(), source))?;
        let mut names = names.unwrap_or_default();
        let mut empty_tip = None;
        if let [.., _, last] = names[..]
            && is_blank(&folder.join(last.file()))
        {
            empty_tip = names.pop();
        }
        let tip = names.last().copied().ok_or(Error::NotFound { run: key.run })?;
        let first = names.iter().map(|name| name.first).min().unwrap_or(0);
        Ok(Self {
            folder,
            key,
            next: Some((tip, None)),
            first,
            empty_tip,
        })
    }

    /// The segment before the last one that was returned; `None` at the beginning.
    pub(crate) fn back(&mut self) -> Result<Option<Link>> {
        let Some((name, end)) = self.next.take() else {
            return Ok(None);
        };
        let Some((head, frames_at)) = SegmentHead::read(self.folder, self.key, name)? else {
            return match end {
                // The oldest ones are trimmed away, and the oldest first.
                Some(_) if name.first <= self.first => Ok(None),
                Some(_) => Err(Error::damaged(self.key.run, &name.file(), 0, name.first, MISSING)),
                None => Err(Error::NotFound { run: self.key.run }),
            };
        };
        self.next = head.previous.map(|(name, end)| (name, Some(end)));
        Ok(Some(Link { head, frames_at, end }))
    }
}

/// Whether a file has no byte, or nothing but zeros where the head of a segment begins.
fn is_blank(path: &Path) -> bool {
    let mut magic = [0; 8];
    let read = File::open(path).and_then(|mut file| {
        let mut filled = 0;
        while filled < magic.len() {
            match file.read(&mut magic[filled..])? {
                0 => break,
                more => filled += more,
            }
        }
        Ok(())
    });
    read.is_ok() && magic == [0; 8]
}

impl Link {
    pub(crate) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(self.head.name.file())
    }

    /// The frames, as far as they count.
    fn chunk(&self, folder: &Path, left: &mut u64) -> Result<Option<Chunk>> {
        let path = self.path(folder);
        let failed = |source| Error::io("read", path.display(), source);
        let Some(file) = if_there(File::open(&path)).map_err(failed)? else {
            return Ok(None);
        };
        let len = file.metadata().map_err(failed)?.len();
        let wanted = self.end.unwrap_or(len).min(len).saturating_sub(self.frames_at);
        *left = left.checked_sub(wanted).ok_or(Error::TooLarge {
            what: "a load",
            bytes: wanted,
            limit: *left,
        })?;
        // A writer may be at work: what it adds meanwhile is not read.
        let mut frames = vec![0; usize::try_from(wanted).unwrap_or(usize::MAX)];
        match super::sys::read_exact_at(&file, &mut frames, self.frames_at) {
            Ok(()) => {}
            // It was cut meanwhile; then what is whole is still at its beginning.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                frames = fs::read(&path).map_err(failed)?;
                let skip = usize::try_from(self.frames_at)
                    .unwrap_or(usize::MAX)
                    .min(frames.len());
                frames.drain(..skip);
                frames.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
            }
            Err(error) => return Err(failed(error)),
        }
        let chunk = Chunk::new(self.head.name.first, Bytes::from(frames), self.head.name.file())
            .with_snapshot(self.head.snapshot)
            .at(self.frames_at, self.end.is_none());
        Ok(Some(chunk))
    }
}

/// How often a run is looked at when it changes meanwhile.
const LOOKS: u32 = 16;

/// Reads a range of a run's own frames.
pub(crate) fn read(folder: &Path, key: &RunKey, range: &Range) -> Result<Stored> {
    let Range {
        from,
        upto,
        as_ancestor,
        max_bytes,
    } = *range;
    // A segment may be trimmed away, or a last one added, between two looks.
    let mut looks = 0;
    loop {
        looks += 1;
        match read_once(folder, key, from, upto, max_bytes) {
            Ok(Some((stored, removed))) if as_ancestor || !removed => return Ok(stored),
            Ok(Some(_)) => return Err(Error::NotFound { run: key.run }),
            Ok(None) if looks < LOOKS => {}
            Err(Error::Damaged(damage)) if damage.why == MISSING && looks < LOOKS => {}
            // A folder that changes while it is listed may show neither what was there before nor what is there now.
            Err(Error::NotFound { .. }) if looks < LOOKS && folder.exists() => {}
            Ok(None) => return Err(Error::NotFound { run: key.run }),
            Err(error) => return Err(error),
        }
    }
}

type Once = Option<(Stored, bool)>;

fn read_once(folder: &Path, key: &RunKey, from: Begin, upto: Option<u64>, max_bytes: u64) -> Result<Once> {
    let mut chain = Chain::of(folder, key)?;
    let removed = folder.join("removed").try_exists().unwrap_or(false);
    let upto = upto.unwrap_or(u64::MAX);
    let mut left = max_bytes;
    let mut origin: Option<Option<Origin>> = None;
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut missing = false;
    while let Some(link) = chain.back()? {
        origin.get_or_insert(link.head.origin);
        let first = link.head.name.first;
        if from == Begin::Nothing {
            break;
        }
        if first < upto {
            match link.chunk(folder, &mut left)? {
                Some(chunk) if chunk.frames.is_empty() => continue,
                Some(chunk) => chunks.push(chunk),
                None => {
                    missing = true;
                    break;
                }
            }
            let enough = match from {
                Begin::Start | Begin::Nothing => false,
                Begin::LastSnapshot => link.head.snapshot,
                Begin::Record(seq) => first <= seq,
            };
            if enough {
                break;
            }
        }
    }
    chunks.reverse();
    let mut first = chain.first;
    let begin = chunks.first().map(|chunk| chunk.first);
    if missing || (from == Begin::Start && begin.is_some_and(|begin| begin > first)) {
        // The oldest ones were trimmed away meanwhile, which is no loss to who wants all there is. Or the whole run
        // was removed, or one of them is lost: the next look tells.
        first = Chain::of(folder, key)?.first;
        if from != Begin::Start || begin != Some(first) {
            return Ok(None);
        }
    }
    Ok(Some((Stored::new(origin.flatten(), first, chunks), removed)))
}

/// What the last segment holds, for who goes on to write it.
#[derive(Debug)]
pub(crate) struct Tip {
    pub(crate) link: Link,
    /// Where the last whole record ends.
    pub(crate) end: u64,
    /// The number of the next record.
    pub(crate) next: u64,
    pub(crate) tail: Option<Tail>,
    pub(crate) empty: Option<SegmentName>,
}

/// Looks where the last whole record of a run ends.
pub(crate) fn tip(folder: &Path, key: &RunKey) -> Result<Tip> {
    use crate::frame::{self, Step};
    let mut chain = Chain::of(folder, key)?;
    let empty = chain.empty_tip;
    let link = chain.back()?.ok_or(Error::NotFound { run: key.run })?;
    let chunk = link.chunk(folder, &mut u64::MAX.clone())?;
    let chunk = chunk.ok_or(Error::NotFound { run: key.run })?;
    let place = frame::Place {
        run: key.run,
        salt: frame::Salt::of(key),
        name: &chunk.place,
        offset: chunk.offset,
        may_be_torn: true,
        max_body: u32::MAX as usize,
    };
    let (mut at, mut next) = (0, chunk.first);
    let tail = loop {
        match frame::step(&chunk.frames, at, next, &place)? {
            Step::Frame(frame) => (at, next) = (frame.end, next + 1),
            Step::End => break None,
            Step::Torn => {
                break Some(Tail {
                    place: chunk.place.clone(),
                    offset: chunk.offset + at as u64,
                    bytes: (chunk.frames.len() - at) as u64,
                });
            }
        }
    };
    let empty_tail = empty.map(|name| Tail {
        place: name.file(),
        offset: 0,
        bytes: 0,
    });
    Ok(Tip {
        end: link.frames_at + at as u64,
        link,
        next,
        tail: tail.or(empty_tail),
        empty,
    })
}
