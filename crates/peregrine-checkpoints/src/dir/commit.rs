//! Group commit: one `fdatasync` for all runs that wait at the same time.
//!
//! A power-safe record is first written to its run's file like any other, then handed to the one committing thread of
//! the store. That thread writes what has gathered to the commit log, a file that was filled with zeros before so that
//! overwriting it changes no metadata, and makes it durable with one `fdatasync`. While it waits for the disk, the next
//! group gathers. When the log is full, or the store is closed, the files of the runs are made durable themselves and
//! the log begins again; after a power cut it says what they have lost ([`super::recover`]).
//!
//! Against one `fdatasync` for each record in its own file this saves one for each run that waits, and the change of
//! the file's length, which costs the file system a transaction of its own.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::sys::{if_there, sync_folder, write_all_at};

pub(super) const MAGIC: [u8; 4] = *b"PWAL";
/// Magic, length, epoch, check.
pub(super) const HEAD_BYTES: usize = 24;
/// Groups begin at multiples of this, so that writing one never rewrites a sector of another.
pub(super) const ALIGN_BYTES: usize = 512;
/// Larger groups go to the files of the runs at once.
const DIRECT_SHARE: usize = 4;
/// So many files are made durable at once when the log begins again.
const MAX_DIRTY_FILES: usize = 4_096;

/// Why a commit failed, told to all who waited for it.
pub(super) type Failure = Arc<io::Error>;
/// What a commit came to.
pub(super) type Outcome = oneshot::Receiver<Result<(), Failure>>;

/// Bytes that were written to a file and are to be durable.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(Debug, PartialEq, Eq))]
pub(super) struct Entry {
    /// The file, below the base of the store, with `/` between its parts.
    pub(super) file: Arc<str>,
    pub(super) offset: u64,
    #[serde(with = "bin")]
    pub(super) bytes: Vec<u8>,
}

/// Bytes as MessagePack's own kind of bytes.
mod bin {
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

struct Job {
    entry: Entry,
    done: oneshot::Sender<Result<(), Failure>>,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    bell: Condvar,
    /// How often the disk was asked to make something durable: what group commit is to keep small.
    syncs: AtomicU64,
}

/// The committing thread. Dropping it commits what waits, makes the runs' files durable and removes the log.
pub(super) struct Committer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").field("syncs", &self.syncs()).finish()
    }
}

impl Committer {
    /// Makes a log of `log_bytes` and starts the thread.
    pub(super) fn start(base: &Path, wal: &Path, log_bytes: usize) -> io::Result<Self> {
        let log = Log::create(wal, log_bytes)?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            bell: Condvar::new(),
            syncs: AtomicU64::new(0),
        });
        let mut work = Work {
            base: base.to_owned(),
            wal: wal.to_owned(),
            log_bytes,
            log: Some(log),
            dirty: HashSet::new(),
            buffer: Vec::new(),
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::Builder::new().name("peregrine-commit".to_owned());
        let thread = thread.spawn(move || work.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Hands in what was written. The outcome arrives when it is durable, whether or not anybody waits for it.
    pub(super) fn commit(&self, entry: Entry) -> Outcome {
        let (done, outcome) = oneshot::channel();
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.jobs.push(Job { entry, done });
        drop(queue);
        self.shared.bell.notify_one();
        outcome
    }

    /// How often the disk was asked to make something durable.
    pub(super) fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .closed = true;
        self.shared.bell.notify_one();
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, those who waited know.
            let _ended = thread.join();
        }
    }
}

/// The log of this store: held by a lock as long as the process lives.
struct Log {
    file: File,
    path: PathBuf,
    /// Grows whenever the log begins again, so that what is left of earlier rounds is told from this one.
    epoch: u64,
    /// Where the next group goes.
    at: usize,
}

impl Log {
    fn create(wal: &Path, log_bytes: usize) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(wal)?;
        // Somebody who recovers may sweep an unfinished log away before it is locked.
        for _ in 0..8 {
            let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let unfinished = wal.join(format!("{name}.new"));
            let path = wal.join(format!("{name}.wal"));
            let open = OpenOptions::new().write(true).create_new(true).open(&unfinished);
            let file = match open {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            };
            let made = || -> io::Result<bool> {
                file.lock()?;
                write_all_at(&file, &vec![0; log_bytes], 0)?;
                file.sync_all()?;
                // A log of a process with this number may be left; it is not to be lost.
                match fs::hard_link(&unfinished, &path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                    linked => linked?,
                }
                sync_folder(wal)?;
                Ok(true)
            };
            let made = made();
            if_there(fs::remove_file(&unfinished))?;
            if made? {
                return Ok(Self {
                    file,
                    path,
                    epoch: 1,
                    at: 0,
                });
            }
        }
        Err(io::Error::other("no commit log could be made"))
    }
}

struct Work {
    base: PathBuf,
    wal: PathBuf,
    log_bytes: usize,
    /// None after a failure, until a new one can be made.
    log: Option<Log>,
    /// The files that the log has bytes of.
    dirty: HashSet<Arc<str>>,
    buffer: Vec<u8>,
    shared: Arc<Shared>,
}

impl Work {
    fn run(&mut self) {
        loop {
            let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            while queue.jobs.is_empty() && !queue.closed {
                queue = self
                    .shared
                    .bell
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            let jobs = std::mem::take(&mut queue.jobs);
            let closed = queue.closed;
            drop(queue);
            if !jobs.is_empty() {
                self.commit(jobs);
            } else if closed {
                // A log that cannot be removed is read when the store is opened again, which does no harm.
                let _left = self.end_log();
                return;
            }
        }
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let (entries, waiting): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.entry, job.done)).unzip();
        let outcome = self.write(&entries).map_err(|error| {
            // What the log holds of this group must not come back: those who wrote it are told that it failed. So the
            // log is given up, after what it held before has become durable where it belongs.
            let _given_up = self.end_log();
            Arc::new(error)
        });
        for done in waiting {
            // Whoever no longer waits looks at the next append.
            let _gone = done.send(outcome.clone());
        }
    }

    fn write(&mut self, entries: &[Entry]) -> io::Result<()> {
        let bytes: usize = entries.iter().map(|entry| entry.bytes.len()).sum();
        if bytes > self.log_bytes / DIRECT_SHARE {
            return entries.iter().try_for_each(|entry| self.sync_file(&entry.file));
        }
        if self.log.is_none() {
            self.log = Some(Log::create(&self.wal, self.log_bytes)?);
        }
        let Some(log) = &mut self.log else {
            return Err(io::Error::other("there is no commit log"));
        };
        encode(&mut self.buffer, log.epoch, entries)?;
        if log.at + self.buffer.len() > self.log_bytes || self.dirty.len() > MAX_DIRTY_FILES {
            let dirty = std::mem::take(&mut self.dirty);
            if let Err(error) = dirty.iter().try_for_each(|file| self.sync_file(file)) {
                self.dirty = dirty;
                return Err(error);
            }
            if let Some(log) = &mut self.log {
                (log.epoch, log.at) = (log.epoch + 1, 0);
                encode(&mut self.buffer, log.epoch, entries)?;
            }
        }
        let Some(log) = &mut self.log else {
            return Err(io::Error::other("there is no commit log"));
        };
        if log.at + self.buffer.len() > self.log_bytes {
            return entries.iter().try_for_each(|entry| self.sync_file(&entry.file));
        }
        write_all_at(&log.file, &self.buffer, log.at as u64)?;
        log.file.sync_data()?;
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        log.at += self.buffer.len();
        for entry in entries {
            if !self.dirty.contains(&entry.file) {
                self.dirty.insert(Arc::clone(&entry.file));
            }
        }
        Ok(())
    }

    /// Makes a run's file durable; a run that was removed needs it no longer.
    fn sync_file(&self, file: &str) -> io::Result<()> {
        if let Some(file) = if_there(OpenOptions::new().write(true).open(self.base.join(file)))? {
            file.sync_data()?;
            self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Makes the runs' files durable and removes the log.
    fn end_log(&mut self) -> io::Result<()> {
        let Some(log) = self.log.take() else {
            return Ok(());
        };
        let dirty = std::mem::take(&mut self.dirty);
        dirty.iter().try_for_each(|file| self.sync_file(file))?;
        if_there(fs::remove_file(&log.path))?;
        Ok(())
    }
}

/// A group of entries as it stands in the log.
fn encode(out: &mut Vec<u8>, epoch: u64, entries: &[Entry]) -> io::Result<()> {
    out.clear();
    out.resize(HEAD_BYTES, 0);
    rmp_serde::encode::write(out, entries).map_err(io::Error::other)?;
    let len = u32::try_from(out.len() - HEAD_BYTES).map_err(io::Error::other)?;
    let check = xxh3_64_with_seed(&out[HEAD_BYTES..], epoch);
    out[..4].copy_from_slice(&MAGIC);
    out[4..8].copy_from_slice(&len.to_le_bytes());
    out[8..16].copy_from_slice(&epoch.to_le_bytes());
    out[16..24].copy_from_slice(&check.to_le_bytes());
    out.resize(out.len().next_multiple_of(ALIGN_BYTES), 0);
    Ok(())
}

/// The groups of the last round in a log, in order: all that were durable, and perhaps one that was not acknowledged.
pub(super) fn decode(log: &[u8]) -> Vec<Entry> {
    let (mut at, mut epoch, mut entries) = (0, None, Vec::new());
    while let Some(head) = log.get(at..at + HEAD_BYTES) {
        let number = |from: usize| u64::from_le_bytes(head[from..from + 8].try_into().unwrap_or_default());
        if head[..4] != MAGIC || epoch.is_some_and(|epoch| epoch != number(8)) {
            break;
        }
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let Some(body) = log.get(at + HEAD_BYTES..(at + HEAD_BYTES).saturating_add(len)) else {
            break;
        };
        if xxh3_64_with_seed(body, number(8)) != number(16) {
            break;
        }
        let Ok(group) = rmp_serde::from_slice::<Vec<Entry>>(body) else {
            break;
        };
        entries.extend(group);
        epoch = Some(number(8));
        at = (at + HEAD_BYTES + len).next_multiple_of(ALIGN_BYTES);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(file: &str, offset: u64, bytes: &[u8]) -> Entry {
        Entry {
            file: file.into(),
            offset,
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn a_commit_that_fails_is_told_and_the_next_one_succeeds() {
        let folder = tempfile::TempDir::new().unwrap();
        let wal = folder.path().join("wal");
        let committer = Committer::start(folder.path(), &wal, 64 << 10).unwrap();
        let commit = |file: &str, len: usize| {
            let outcome = committer.commit(entry(file, 0, &vec![1; len]));
            outcome.blocking_recv().unwrap()
        };
        fs::create_dir(folder.path().join("folder")).unwrap();
        fs::write(folder.path().join("file"), b"bytes").unwrap();
        commit("file", 100).unwrap();
        // Too large for the log, so the file itself is made durable, and this is none.
        assert!(commit("folder", 30_000).is_err());
        // The log was given up with what it held; the next one is another.
        commit("file", 100).unwrap();
        let logs: Vec<_> = fs::read_dir(&wal)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(logs.len(), 1);
        assert_eq!(
            decode(&fs::read(&logs[0]).unwrap()),
            [entry("file", 0, &[1; 100])]
        );
        drop(committer);
        assert_eq!(fs::read_dir(&wal).unwrap().count(), 0);
    }

    #[test]
    fn a_log_yields_the_groups_of_its_last_round() {
        let (mut log, mut group) = (vec![0; 8_192], Vec::new());
        let groups = [
            vec![entry("a", 0, b"one")],
            vec![entry("a", 3, b"two"), entry("b", 0, &[7; 900])],
        ];
        let mut at = 0;
        for entries in &groups {
            encode(&mut group, 1, entries).unwrap();
            log[at..at + group.len()].copy_from_slice(&group);
            at += group.len();
        }
        assert_eq!(decode(&log), groups.concat());
        // A torn last group is none; nor is what an earlier round left.
        let mut torn = log.clone();
        torn[ALIGN_BYTES + HEAD_BYTES + 5] ^= 1;
        assert_eq!(decode(&torn), groups[0]);
        encode(&mut group, 2, &groups[0]).unwrap();
        log[..group.len()].copy_from_slice(&group);
        assert_eq!(decode(&log), groups[0]);
        assert_eq!(decode(&[0; 512]), []);
    }
}
