//! Entries on disk: bounded, shared by processes, and still there after a restart or a crash.
//!
//! Algorithm: a log in segments (after Rosenblum and Ousterhout: The design and implementation of a log-structured file
//! system, 1992), with the index in memory. Storing appends a record to the one segment that this process writes;
//! looking up is one positioned read. To remove a record its state byte is overwritten. When the room is used up, the
//! oldest segment is deleted as a whole; what was asked for while it stood there is first written anew (a second
//! chance, at most half a segment), so a scan that nobody repeats passes through.
//!
//! Each process writes a segment of its own, which it holds locked, and reads the others' as they grow: after a look-up
//! that found nothing, it looks whether there is more. A new process goes on with a segment whose writer is gone.
//!
//! Crashes: a record counts only if its checks fit, so what a crash (or a power cut, or a failing disk) left half
//! written is cut off when the segment is next opened. Nothing is synchronised to the disk when storing, because a
//! lost entry is a miss; removals are, because an entry that came back would be a lie. A damaged record is an error of
//! kind [`Corrupt`](crate::ErrorKind::Corrupt) once, which the tiers count and take as a miss, and gone after that; a
//! damaged file is cut or deleted. Nothing in a file can cause a panic.
//!
//! Reads and writes happen in place, on the caller's thread: mostly they touch the page cache, and another thread would
//! cost more than that. Put a slow network file system behind a store of your own.
//!
//! The directory is made for its user alone (mode 0700), the files too: they hold prompts' answers.

mod index;
mod record;
mod segment;
mod survey;
mod totals;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use self::index::{Index, Place};
use self::record::Head;
use self::segment::{MAGIC, SEAL, Segment, Tail};
use crate::sync::{Mutex, lock};
use crate::{Entry, Error, Key, Lookup, Result, Selector, Store, StoreStatus, Value};

/// The format; another one has another folder.
const FORMAT: &str = "v1";
/// A segment is an eighth of the room, but not more than this.
const MAX_SEGMENT_BYTES: u64 = 64 << 20;
/// Below this the room is not worth a directory.
const MIN_BYTES: u64 = 64 << 10;
/// A directory whose time is this near to now may change again without its time changing.
const TIME_GRAIN: Duration = Duration::from_millis(100);

/// Where a [`DiskStore`] is and how much it holds at most.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskConfig {
    /// The directory; it is made if it is not there.
    pub dir: PathBuf,
    /// How many bytes its files take (1 GiB). Several processes may exceed it by what they write at the same moment.
    pub max_bytes: u64,
    /// How many entries it holds (1,000,000): each takes some 200 bytes of memory in every process.
    pub max_entries: usize,
}

impl DiskConfig {
    /// A gibibyte in a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            max_bytes: 1 << 30,
            max_entries: 1_000_000,
        }
    }

    /// Bounds the bytes.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Bounds the number of entries.
    #[must_use]
    pub fn with_max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }
}

/// Entries on disk. See the [module](self) for how it works. Cheap to clone.
#[derive(Clone)]
pub struct DiskStore(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    max_bytes: u64,
    max_entries: usize,
    segment_bytes: u64,
    /// Taken before `index` by whoever needs both; held while files are written or read on.
    files: Mutex<Files>,
    /// Held for look-ups in memory only.
    index: Mutex<Index>,
    evictions: AtomicU64,
    corrupt: AtomicU64,
}

#[derive(Default)]
struct Files {
    segments: BTreeMap<u64, Segment>,
    /// The one that this process writes.
    active: Option<u64>,
    /// The directory's time when it was last listed, if it can be trusted.
    listed: Option<SystemTime>,
}

impl DiskStore {
    /// Opens a directory if it is a cache, and reads what is there; else nothing is made. For whoever only looks, or clears.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_existing(config: &DiskConfig) -> Result<Option<Self>> {
        match fs::metadata(config.dir.join(FORMAT)) {
            Ok(metadata) if metadata.is_dir() => Self::open(config).map(Some),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("the directory of the cache cannot be read", error))
            }
            _ => Ok(None),
        }
    }

    /// Opens a directory and reads what is there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be made or read; [`Error::Config`] for less room than 64 KiB or one entry.
    pub fn open(config: &DiskConfig) -> Result<Self> {
        let DiskConfig {
            dir,
            max_bytes,
            max_entries,
        } = config;
        if *max_bytes < MIN_BYTES || *max_entries == 0 {
            return Err(Error::Config {
                message: "a disk store needs room for 65,536 bytes and one entry".to_owned(),
            });
        }
        let dir = dir.join(FORMAT);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| Error::io("the directory of the cache cannot be made", source))?;
        let inner = Inner {
            dir,
            max_bytes: *max_bytes,
            max_entries: *max_entries,
            segment_bytes: (max_bytes / 8).min(MAX_SEGMENT_BYTES),
            files: Mutex::default(),
            index: Mutex::default(),
            evictions: AtomicU64::new(0),
            corrupt: AtomicU64::new(0),
        };
        {
            let mut files = lock(&inner.files);
            inner
                .refresh(&mut files)
                .and_then(|_| inner.take_over(&mut files))
                .map_err(|source| Error::io("the directory of the cache cannot be read", source))?;
        }
        Ok(Self(Arc::new(inner)))
    }

    /// The directory with the segments.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }
}

#[async_trait]
impl<V: Value> Store<V> for DiskStore {
    fn get_now(&self, key: &Key, now: u64) -> Result<Lookup<V>> {
        let inner = &self.0;
        // Twice: what was not there, or was replaced, may be in what another process wrote meanwhile.
        for last in [false, true] {
            let place = lock(&inner.index).find(key, now);
            let found = match place {
                Some(place) => inner.read(key, &place, now)?,
                None => None,
            };
            if let Some(entry) = found {
                return Ok(Lookup::Hit(entry));
            }
            if last || !inner.look_again()? {
                break;
            }
        }
        Ok(Lookup::Miss)
    }

    async fn get(&self, key: &Key, now: u64) -> Result<Option<Entry<V>>> {
        Ok(match self.get_now(key, now)? {
            Lookup::Hit(entry) => Some(entry),
            Lookup::Miss | Lookup::Ask => None,
        })
    }

    async fn put(&self, key: &Key, entry: &Entry<V>, now: u64) -> Result<bool> {
        let payload = entry.value.encode()?;
        let record = record::write(key, entry, &payload).filter(|_| entry.is_kept(now));
        self.0
            .store(key, record, now)
            .map_err(|source| Error::io("an entry cannot be written to disk", source))
    }

    async fn remove(&self, what: &Selector) -> Result<u64> {
        self.0
            .remove(what)
            .map_err(|source| Error::io("an entry cannot be removed from disk", source))
    }

    fn status(&self) -> StoreStatus {
        let files = lock(&self.0.files);
        let bytes = self.0.bytes(&files);
        let entries = lock(&self.0.index).len();
        StoreStatus {
            entries: Some(entries as u64),
            bytes: Some(bytes),
            evictions: self.0.evictions.load(Relaxed),
            corrupt: self.0.corrupt.load(Relaxed),
            ..StoreStatus::new("disk")
        }
    }
}

impl Inner {
    /// Reads a record. `None` if it is not there any more.
    fn read<V: Value>(&self, key: &Key, place: &Place, now: u64) -> Result<Option<Entry<V>>> {
        let mut bytes = vec![0; place.len];
        let read = place.file.read_exact_at(&mut bytes, place.offset);
        let damage = match read {
            Ok(()) => match Head::read(&bytes) {
                Some(head) if head.key == *key && head.record_len() == bytes.len() => {
                    if !head.live {
                        lock(&self.index).forget(key, place);
                        return Ok(None);
                    }
                    match head.payload(&bytes).and_then(V::decode) {
                        Ok(value) => {
                            let entry = Entry {
                                value: Arc::new(value),
                                created: head.created,
                                fresh_until: head.fresh_until,
                                keep_until: head.keep_until,
                                tags: head.tags.into(),
                            };
                            return Ok(Some(entry).filter(|entry| entry.is_kept(now)));
                        }
                        Err(error) => error,
                    }
                }
                _ => Error::corrupt("a record on disk is not what was written"),
            },
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Error::corrupt("a file on disk is shorter than it was")
            }
            Err(error) => return Err(Error::io("an entry cannot be read from disk", error)),
        };
        self.corrupt.fetch_add(1, Relaxed);
        lock(&self.index).forget(key, place);
        // So that it is not found again after a restart. If that fails, it is found damaged once more.
        let _best_effort = segment::kill(&place.file, place.offset);
        Err(damage)
    }

    /// Looks what other processes wrote. False if there is nothing new, or somebody is at it.
    fn look_again(&self) -> Result<bool> {
        let Ok(mut files) = self.files.try_lock() else {
            return Ok(false);
        };
        self.refresh(&mut files)
            .map_err(|source| Error::io("the directory of the cache cannot be read", source))
    }

    fn refresh(&self, files: &mut Files) -> io::Result<bool> {
        let modified = fs::metadata(&self.dir)?.modified()?;
        let mut changed = false;
        if files.listed != Some(modified) {
            let settled = SystemTime::now()
                .duration_since(modified)
                .is_ok_and(|age| age > TIME_GRAIN);
            files.listed = settled.then_some(modified);
            changed |= self.list(files)?;
        }
        let Files { segments, active, .. } = files;
        for (id, segment) in segments {
            if !segment.sealed && *active != Some(*id) && segment.file.metadata()?.len() > segment.end {
                changed |= self.scan(*id, segment)? == Tail::Clean;
            }
        }
        Ok(changed)
    }

    /// Opens the segments that are new and forgets those that are gone.
    fn list(&self, files: &mut Files) -> io::Result<bool> {
        let there: BTreeSet<u64> = segment::list(&self.dir)?.into_iter().collect();
        // A name says nothing of a file that has none any more.
        let gone: Vec<u64> = files
            .segments
            .iter()
            .filter(|(id, segment)| !there.contains(id) || !segment.is_linked())
            .map(|(id, _)| *id)
            .collect();
        let mut changed = !gone.is_empty();
        for id in gone {
            self.forget_segment(files, id);
        }
        for id in there {
            if files.segments.contains_key(&id) {
                continue;
            }
            let mut segment = match Segment::open(&self.dir, id) {
                Ok(segment) => segment,
                // Another process was faster, or it is no file.
                Err(_) => continue,
            };
            match segment.is_one()? {
                Some(true) => {}
                // Its writer has not come to that yet, unless it is gone.
                None if segment.file.try_lock().is_err() => {
                    files.listed = None;
                    continue;
                }
                None | Some(false) => {
                    self.corrupt.fetch_add(1, Relaxed);
                    remove_file(&segment.path)?;
                    continue;
                }
            }
            self.scan(id, &mut segment)?;
            files.segments.insert(id, segment);
            changed = true;
        }
        Ok(changed)
    }

    fn scan(&self, id: u64, segment: &mut Segment) -> io::Result<Tail> {
        let file = segment.file.clone();
        let mut index = lock(&self.index);
        segment.scan(|head, offset| {
            let place = Place {
                segment: id,
                file: file.clone(),
                offset,
                len: head.record_len(),
            };
            // Of two records of a key the newer one counts; the other one is not even marked, its writer does that.
            index.found(head, place);
        })
    }

    /// Cuts and seals the segments whose writers are gone; goes on with the last one if it has room.
    fn take_over(&self, files: &mut Files) -> io::Result<()> {
        let Files { segments, active, .. } = files;
        for (id, segment) in segments.iter_mut().rev() {
            if segment.sealed || segment.file.try_lock().is_err() {
                continue;
            }
            // Its writer may have written on before it let go of the lock.
            let tail = self.scan(*id, segment)?;
            if tail == Tail::Rest {
                self.corrupt.fetch_add(1, Relaxed);
                segment.file.set_len(segment.end)?;
            }
            if active.is_none() && !segment.sealed && segment.end < self.segment_bytes / 2 {
                *active = Some(*id);
            } else {
                if !segment.sealed {
                    segment.seal()?;
                }
                segment.file.unlock()?;
            }
        }
        Ok(())
    }

    /// Appends a record, or none: then only what it would replace goes.
    fn store(&self, key: &Key, record: Option<Vec<u8>>, now: u64) -> io::Result<bool> {
        let mut files = lock(&self.files);
        self.refresh(&mut files)?;
        let most = self.segment_bytes - (MAGIC.len() + SEAL.len()) as u64;
        let Some(record) = record.filter(|record| record.len() as u64 <= most) else {
            let old = lock(&self.index).remove(key);
            old.map_or(Ok(()), |old| segment::kill(&old.file, old.offset))?;
            return Ok(false);
        };
        self.make_room(&mut files, record.len() as u64, key, now)?;
        self.append(&mut files, &record)?;
        Ok(true)
    }

    fn append(&self, files: &mut Files, record: &[u8]) -> io::Result<()> {
        let Some(head) = Head::read(record) else {
            return Ok(());
        };
        let id = self.writable(files, record.len() as u64)?;
        let Some(segment) = files.segments.get_mut(&id) else {
            return Ok(());
        };
        let offset = segment.append(head.key, record)?;
        let place = Place {
            segment: id,
            file: segment.file.clone(),
            offset,
            len: record.len(),
        };
        let old = lock(&self.index).insert(&head, place);
        // Deleted segments take no harm from it.
        old.map_or(Ok(()), |old| segment::kill(&old.file, old.offset))
    }

    /// The segment to write so many bytes to.
    fn writable(&self, files: &mut Files, len: u64) -> io::Result<u64> {
        if let Some(id) = files.active
            && let Some(segment) = files.segments.get_mut(&id)
        {
            if !segment.is_linked() {
                self.forget_segment(files, id);
            } else if segment.end + len + SEAL.len() as u64 > self.segment_bytes
                || segment.records.len() >= (self.max_entries / 8).max(1)
            {
                segment.seal()?;
                segment.file.unlock()?;
            } else {
                return Ok(id);
            }
        }
        files.active = None;
        // Never one that was there before: others may still know the file that had it.
        let mut id = crate::Clock::unix_ms(&crate::SystemTimeClock);
        if let Some(last) = files.segments.keys().next_back() {
            id = id.max(last.saturating_add(1));
        }
        let segment = loop {
            match Segment::create(&self.dir, id)? {
                Some(segment) => break segment,
                None => id = id.checked_add(1).ok_or(io::ErrorKind::AlreadyExists)?,
            }
        };
        files.segments.insert(id, segment);
        files.active = Some(id);
        Ok(id)
    }

    /// Deletes the oldest segments until a record fits.
    fn make_room(&self, files: &mut Files, len: u64, key: &Key, now: u64) -> io::Result<()> {
        let overhead = (MAGIC.len() + SEAL.len()) as u64;
        loop {
            let entries = {
                let index = lock(&self.index);
                index.len() + usize::from(index.place(key).is_none())
            };
            let fits = self.bytes(files) + len + overhead <= self.max_bytes && entries <= self.max_entries;
            let oldest = files.segments.keys().next().copied();
            match oldest {
                Some(oldest) if !fits => self.drop_segment(files, oldest, now)?,
                _ => return Ok(()),
            }
        }
    }

    fn drop_segment(&self, files: &mut Files, id: u64, now: u64) -> io::Result<()> {
        let Some(segment) = files.segments.get(&id) else {
            return Ok(());
        };
        let file = segment.file.clone();
        let mut chances = Vec::new();
        let mut left = (segment.bytes() / 2) as usize;
        let mut chosen = 0;
        {
            let index = lock(&self.index);
            // The newest first, and never so many that nothing is gained.
            for (key, offset) in segment.records.iter().rev() {
                let Some(place) = index.place(key) else { continue };
                if index.is_at(key, id, *offset)
                    && index.is_wanted(key, now)
                    && place.len <= left
                    && chosen < segment.records.len() / 2
                {
                    left -= place.len;
                    chosen += 1;
                    chances.push(place.clone());
                }
            }
        }
        remove_file(&segment.path)?;
        let held = self.forget_segment(files, id);
        let mut kept = 0;
        for place in chances.iter().rev() {
            let mut record = vec![0; place.len];
            let whole = file.read_exact_at(&mut record, place.offset).is_ok();
            if whole && Head::read(&record).is_some_and(|head| head.live) {
                self.append(files, &record)?;
                kept += 1;
            }
        }
        self.evictions.fetch_add(held.saturating_sub(kept), Relaxed);
        Ok(())
    }

    /// Forgets a segment, and says how many entries it held.
    fn forget_segment(&self, files: &mut Files, id: u64) -> u64 {
        if files.active == Some(id) {
            files.active = None;
        }
        let mut held = 0;
        if let Some(segment) = files.segments.remove(&id) {
            let mut index = lock(&self.index);
            for (key, offset) in segment.records {
                if index.is_at(&key, id, offset) {
                    index.remove(&key);
                    held += 1;
                }
            }
        }
        held
    }

    fn remove(&self, what: &Selector) -> io::Result<u64> {
        let mut files = lock(&self.files);
        self.refresh(&mut files)?;
        let keys = lock(&self.index).keys(what);
        let mut touched = BTreeMap::new();
        let mut removed = 0;
        for key in &keys {
            let place = lock(&self.index).place(key).cloned();
            if let Some(place) = place {
                // Another process may have removed it before.
                removed += u64::from(!segment::is_dead(&place.file, place.offset));
                segment::kill(&place.file, place.offset)?;
                lock(&self.index).forget(key, &place);
                touched.insert(place.segment, place.file);
            }
        }
        for file in touched.values() {
            file.sync_data()?;
        }
        if *what == Selector::All {
            // The room too. Other processes still have these files open, but all in them is dead.
            for id in files.segments.keys().copied().collect::<Vec<_>>() {
                if let Some(segment) = files.segments.get(&id) {
                    remove_file(&segment.path)?;
                }
                self.forget_segment(&mut files, id);
            }
        }
        Ok(removed)
    }

    fn bytes(&self, files: &Files) -> u64 {
        files.segments.values().map(Segment::bytes).sum()
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore")
            .field("dir", &self.0.dir)
            .finish_non_exhaustive()
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
