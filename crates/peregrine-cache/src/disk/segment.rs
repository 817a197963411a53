//! One file of records.
//!
//! A segment begins with eight bytes that name the format and is only ever appended to, by the one process that holds its
//! lock; beside that, any process may change the state byte of a record from live to dead. When its writer is done with
//! it, it ends with a seal. A file that nobody holds and that has no seal belonged to a process that is gone: its whole
//! records are good, and what stands behind them is cut off.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{DEAD, Head, MAX_HEAD};
use crate::Key;

pub(super) const MAGIC: [u8; 8] = *b"PGRNSEG1";
pub(super) const SEAL: [u8; 8] = *b"PGRNSEAL";
const SUFFIX: &str = ".seg";
/// No segment is larger.
const MAX_RECORD: usize = super::MAX_SEGMENT_BYTES as usize;

/// A segment as this process knows it.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    /// Up to where it was read, or written: the end of its last whole record.
    pub(super) end: u64,
    pub(super) sealed: bool,
    /// The records, in order; some are not current any more.
    pub(super) records: Vec<(Key, u64)>,
}

/// How reading on in a segment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// At its end, or at its seal.
    Clean,
    /// Before bytes that are no record, or not a whole one.
    Rest,
}

impl Segment {
    /// Creates the segment of a number, and locks it. `None` if there is one.
    pub(super) fn create(dir: &Path, id: u64) -> io::Result<Option<Self>> {
        let path = path(dir, id);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = match options.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(error),
        };
        // Somebody who lists the directory now may hold the lock for a moment; then the next number does as well.
        if file.try_lock().is_err() {
            return Ok(None);
        }
        file.write_all_at(&MAGIC, 0)?;
        Ok(Some(Self::new(path, file)))
    }

    /// Opens a segment.
    pub(super) fn open(dir: &Path, id: u64) -> io::Result<Self> {
        let path = path(dir, id);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self::new(path, file))
    }

    fn new(path: PathBuf, file: File) -> Self {
        Self {
            path,
            file: Arc::new(file),
            end: MAGIC.len() as u64,
            sealed: false,
            records: Vec::new(),
        }
    }

    /// Whether it is a segment at all; `None` if it is too short to tell.
    pub(super) fn is_one(&self) -> io::Result<Option<bool>> {
        let mut magic = [0; MAGIC.len()];
        match self.file.read_exact_at(&mut magic, 0) {
            Ok(()) => Ok(Some(magic == MAGIC)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads on from where it was read to; tells each record and its offset.
    pub(super) fn scan(&mut self, mut tell: impl FnMut(&Head, u64)) -> io::Result<Tail> {
        let len = self.file.metadata()?.len();
        let mut bytes = vec![0; MAX_HEAD];
        while !self.sealed && self.end < len {
            let there = usize::try_from(len - self.end)
                .unwrap_or(usize::MAX)
                .min(MAX_HEAD);
            let bytes = &mut bytes[..there];
            match self.file.read_exact_at(bytes, self.end) {
                Ok(()) => {}
                // It was cut meanwhile.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Tail::Rest),
                Err(error) => return Err(error),
            }
            if bytes.starts_with(&SEAL) {
                self.sealed = true;
                break;
            }
            // Nobody writes a larger one; a file that says so would only cost memory.
            let Some(head) = Head::read(bytes).filter(|head| head.record_len() <= MAX_RECORD) else {
                return Ok(Tail::Rest);
            };
            let next = self.end + head.record_len() as u64;
            if next > len {
                return Ok(Tail::Rest);
            }
            if head.live {
                tell(&head, self.end);
                self.records.push((head.key, self.end));
            }
            self.end = next;
        }
        Ok(Tail::Clean)
    }

    /// Appends a record, and says where it stands.
    pub(super) fn append(&mut self, key: Key, record: &[u8]) -> io::Result<u64> {
        let at = self.end;
        if let Err(error) = self.file.write_all_at(record, at) {
            // What was written of it is no record; it must not stand before the next one.
            let _if_that_fails_too_the_next_overwrites_it = self.file.set_len(at);
            return Err(error);
        }
        self.end += record.len() as u64;
        self.records.push((key, at));
        Ok(at)
    }

    /// Cuts off what is no record, and lets nobody write on.
    pub(super) fn seal(&mut self) -> io::Result<()> {
        self.file.set_len(self.end)?;
        self.file.write_all_at(&SEAL, self.end)?;
        self.sealed = true;
        Ok(())
    }

    /// Whether it still has a name. Another process may have removed it.
    pub(super) fn is_linked(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
    }

    /// How many bytes it takes, with its seal.
    pub(super) fn bytes(&self) -> u64 {
        self.end + SEAL.len() as u64
    }
}

/// Marks a record as dead, in every process and for good.
pub(super) fn kill(file: &File, offset: u64) -> io::Result<()> {
    file.write_all_at(&[DEAD], offset)
}

/// Whether a record is known to be dead.
pub(super) fn is_dead(file: &File, offset: u64) -> bool {
    let mut state = [0];
    file.read_exact_at(&mut state, offset).is_ok() && state == [DEAD]
}

/// The numbers of the segments in a directory, oldest first.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    for file in std::fs::read_dir(dir)? {
        let name = file?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        ids.extend(id.and_then(|id| u64::from_str_radix(id, 16).ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}{SUFFIX}"))
}
