//! Where things are in a directory store.
//!
//! ```text
//! ROOT/v1/SCOPE/runs/RUN/lock                    locked by the operating system while somebody writes the run
//!                        token                   the fencing token (8 bytes, big-endian), then who holds it, for people
//!                        FIRST-TOKEN.seg         a segment: its head, then frames
//!                        FIRST-TOKEN.parts/NAME  the parts it names: hard links
//!                        forks/RUN-AT            a fork that shares the first AT records
//!                        removed                 removed, but kept for its forks
//!              parts/XX/NAME                     every part of the scope, once
//!              trash/..                          on its way out
//! ROOT/v1/wal/..                                 the commit log of each open store that promises power safety
//! ```
//!
//! SCOPE is a readable beginning and a hash of the scope's key, so that no name that a tenant chooses reaches the file
//! system. The head of each segment names scope and run in full, and is checked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use peregrine_core::{RunId, Scope, UnixTime};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::sys::if_there;
use crate::error::{Error, Result};
use crate::record::{Origin, PartId, RunKey};

/// As PNG does it: not text, and it shows whether something changed line ends or cut the eighth bit.
const MAGIC: [u8; 8] = *b"\x89PGJ\r\n\x1a\n";
const VERSION: u16 = 1;
/// Magic, version, two bytes of zero, length of the body.
const HEAD_BYTES: usize = 16;
const CHECK_BYTES: usize = 8;
/// Scope and run names have at most some 600 bytes.
pub(crate) const MAX_HEAD_BYTES: usize = 4_096;

/// The paths of a store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// `ROOT/v1`.
    pub(crate) base: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            base: root.join("v1"),
        }
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.base.join("wal")
    }

    pub(crate) fn scope(&self, scope: &Scope) -> PathBuf {
        self.base.join(scope_name(scope))
    }

    pub(crate) fn runs(&self, scope: &Scope) -> PathBuf {
        self.scope(scope).join("runs")
    }

    pub(crate) fn run(&self, key: &RunKey) -> PathBuf {
        self.runs(&key.scope).join(key.run.to_string())
    }

    pub(crate) fn trash(&self, scope: &Scope) -> PathBuf {
        self.scope(scope).join("trash")
    }

    pub(crate) fn part(&self, scope: &Scope, part: &PartId) -> PathBuf {
        let name = part.to_string();
        self.scope(scope).join("parts").join(&name[..2]).join(name)
    }
}

fn scope_name(scope: &Scope) -> String {
    let hash = blake3::hash(&scope.key()).to_hex();
    let session = scope.session.as_ref().map_or("", |session| session.as_str());
    let readable = [scope.tenant.as_str(), session].join("-");
    let mut name: String = readable
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => c,
            _ => '_',
        })
        .take(32)
        .collect();
    name.push('-');
    name.push_str(&hash.as_str()[..40]);
    name
}

/// The name of a segment. The one with the highest token, then number, is the last of its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SegmentName {
    pub(crate) token: u64,
    pub(crate) first: u64,
}

impl SegmentName {
    pub(crate) fn file(&self) -> String {
        format!("{:020}-{:010}.seg", self.first, self.token)
    }

    pub(crate) fn parts(&self) -> String {
        format!("{:020}-{:010}.parts", self.first, self.token)
    }

    pub(crate) fn parse(file: &str) -> Option<Self> {
        let (first, token) = file.strip_suffix(".seg")?.split_once('-')?;
        let name = Self {
            first: first.parse().ok()?,
            token: token.parse().ok()?,
        };
        (name.file() == file).then_some(name)
    }
}

/// What a segment says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentHead {
    pub(crate) key: RunKey,
    pub(crate) name: SegmentName,
    pub(crate) at: UnixTime,
    /// Whether its first frame is a snapshot.
    pub(crate) snapshot: bool,
    pub(crate) origin: Option<Origin>,
    /// The segment before it, and how many bytes of that count: what a writer that was fenced off adds does not.
    pub(crate) previous: Option<(SegmentName, u64)>,
}

/// Why bytes are no head of a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Flaw {
    Damaged(&'static str),
    Later(u16),
}

impl SegmentHead {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let body = rmp_serde::to_vec_named(self).map_err(|source| Error::Encode {
            source: std::sync::Arc::new(source),
        })?;
        let mut out = Vec::with_capacity(HEAD_BYTES + body.len() + CHECK_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        // Ids have at most 256 bytes each.
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&body);
        let check = xxh3_64(&out);
        out.extend_from_slice(&check.to_le_bytes());
        Ok(out)
    }

    /// The head at the beginning of `bytes` and its length, which must be of this run and name.
    pub(crate) fn decode(bytes: &[u8], key: &RunKey, name: SegmentName) -> Result<(Self, u64)> {
        let damaged = |why| Error::damaged(key.run, &name.file(), 0, name.first, why);
        match Self::open(bytes) {
            Ok((head, end)) if head.key == *key && head.name == name => Ok((head, end)),
            Ok(_) => Err(damaged("the segment belongs to another run or place")),
            Err(Flaw::Damaged(why)) => Err(damaged(why)),
            Err(Flaw::Later(found)) => Err(Error::Unsupported {
                what: "format version",
                found: found.into(),
                known: VERSION.into(),
            }),
        }
    }

    /// The head at the beginning of `bytes`, whosever it is, and its length.
    pub(crate) fn open(bytes: &[u8]) -> Result<(Self, u64), Flaw> {
        if bytes.get(..8) != Some(&MAGIC) {
            return Err(Flaw::Damaged("the file is no segment of a journal"));
        }
        let cut = Flaw::Damaged("the head of the segment is cut");
        let head = bytes.get(..HEAD_BYTES).ok_or(cut)?;
        let version = u16::from_le_bytes([head[8], head[9]]);
        if version != VERSION {
            return Err(Flaw::Later(version));
        }
        let body = u32::from_le_bytes([head[12], head[13], head[14], head[15]]) as usize;
        let end = HEAD_BYTES.saturating_add(body);
        let check = bytes.get(end..end.saturating_add(CHECK_BYTES)).ok_or(cut)?;
        if xxh3_64(&bytes[..end]).to_le_bytes() != check {
            return Err(Flaw::Damaged("the head of the segment does not fit its check"));
        }
        let head = rmp_serde::from_slice(&bytes[HEAD_BYTES..end]);
        let head = head.map_err(|_| Flaw::Damaged("the head of the segment cannot be read"))?;
        Ok((head, (end + CHECK_BYTES) as u64))
    }

    /// Reads the head of a segment; `None` if there is no such file.
    pub(crate) fn read(folder: &Path, key: &RunKey, name: SegmentName) -> Result<Option<(Self, u64)>> {
        use std::io::Read as _;
        let path = folder.join(name.file());
        let read = || -> io::Result<Option<Vec<u8>>> {
            let Some(file) = if_there(fs::File::open(&path))? else {
                return Ok(None);
            };
            let mut bytes = Vec::with_capacity(1_024);
            file.take(MAX_HEAD_BYTES as u64).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        };
        match read().map_err(|source| Error::io("read", path.display(), source))? {
            Some(bytes) => Self::decode(&bytes, key, name).map(Some),
            None => Ok(None),
        }
    }
}

/// The segments of a run by their names, oldest first; `None` if there is no such folder.
pub(crate) fn segments(folder: &Path) -> io::Result<Option<Vec<SegmentName>>> {
    let Some(entries) = if_there(fs::read_dir(folder))? else {
        return Ok(None);
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().to_str().and_then(SegmentName::parse));
    }
    names.sort_unstable();
    Ok(Some(names))
}

/// The forks of a run, with how many records each shares.
pub(crate) fn pins(folder: &Path) -> io::Result<Vec<Origin>> {
    let Some(entries) = if_there(fs::read_dir(folder.join("forks")))? else {
        return Ok(Vec::new());
    };
    let mut pins = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let pin = name.to_str().and_then(|name| {
            let (run, at) = name.split_once('-')?;
            Some(Origin {
                run: run.parse().ok()?,
                at: at.parse().ok()?,
            })
        });
        pins.extend(pin);
    }
    Ok(pins)
}

/// The file by which a fork pins what it shares.
pub(crate) fn pin(folder: &Path, fork: RunId, at: u64) -> PathBuf {
    folder.join("forks").join(format!("{fork}-{at}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_scopes_stay_in_their_folder_and_apart() {
        let layout = Layout::new(Path::new("/r"));
        let hostile = [
            "../../etc",
            "a/b",
            "..",
            "COM1",
            "A",
            "a",
            "ä",
            "x".repeat(256).as_str(),
        ]
        .map(|name| layout.scope(&Scope::tenant(name).unwrap()));
        for (i, path) in hostile.iter().enumerate() {
            assert_eq!(path.parent(), Some(layout.base.as_path()), "{path:?}");
            assert!(path.file_name().unwrap().len() < 100);
            assert!(hostile.iter().skip(i + 1).all(|other| other != path));
        }
        let session = Scope::new("a", "b").unwrap();
        assert_ne!(
            layout.scope(&session),
            layout.scope(&Scope::tenant("a-b").unwrap())
        );
    }

    #[test]
    fn every_bit_of_a_head_counts() {
        let key = RunKey::new(Scope::new("t", "s").unwrap(), RunId::from_parts(1, [2; 10]));
        let name = SegmentName { token: 3, first: 40 };
        let head = SegmentHead {
            key: key.clone(),
            name,
            at: UnixTime(5),
            snapshot: true,
            origin: Some(Origin { run: key.run, at: 6 }),
            previous: Some((SegmentName { token: 2, first: 6 }, 700)),
        };
        let bytes = head.encode().unwrap();
        assert_eq!(
            SegmentHead::decode(&bytes, &key, name).unwrap(),
            (head, bytes.len() as u64)
        );
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHead::decode(&bytes, &key, name).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(
                SegmentHead::decode(&bytes[..cut], &key, name).is_err(),
                "cut {cut}"
            );
        }
        assert_eq!(SegmentName::parse(&name.file()), Some(name));
        assert_eq!(SegmentName::parse("40-3.seg"), None);
    }
}
