//! After a power cut: from the commit logs of processes that are gone back to the files of the runs.
//!
//! Done once when a store is opened, before any run is. After a mere crash of a process the files have everything, and
//! this only makes them durable.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commit::{self, Entry};
use super::layout::{Layout, MAX_HEAD_BYTES, SegmentHead, SegmentName};
use super::sys::{create_private_folder, if_there, read_exact_at, write_all_at};
use crate::error::{Error, Result};
use crate::frame::{self, Salt, Step};

/// How long another process may take to recover before opening gives up.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOKS_EVERY: Duration = Duration::from_millis(2);

/// Applies and removes the logs of processes that are gone.
pub(super) fn run(layout: &Layout) -> Result<()> {
    let wal = layout.wal();
    let failed = |source| Error::io("recover from", wal.display(), source);
    create_private_folder(&wal).map_err(failed)?;
    let guard = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(wal.join("recovery.lock"))
        .map_err(failed)?;
    // Nobody opens a run before it has what the logs say.
    let begun = Instant::now();
    loop {
        match guard.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => std::thread::sleep(LOOKS_EVERY),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::unavailable(
                    "recover: another process has been at it for too long",
                    io::Error::from(io::ErrorKind::TimedOut),
                ));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    let mut logs = Vec::new();
    for entry in fs::read_dir(&wal).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let kind = path.extension().and_then(|kind| kind.to_str());
        if matches!(kind, Some("wal" | "new")) {
            logs.push(path);
        }
    }
    logs.sort();
    for path in logs {
        apply(layout, &path).map_err(failed)?;
    }
    Ok(())
}

fn apply(layout: &Layout, path: &Path) -> io::Result<()> {
    let Some(mut file) = if_there(OpenOptions::new().read(true).write(true).open(path))? else {
        return Ok(());
    };
    match file.try_lock() {
        Ok(()) => {}
        // Its store is open; then there was no power cut since.
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut log = Vec::new();
    file.read_to_end(&mut log)?;
    let mut by_file: BTreeMap<_, Vec<Entry>> = BTreeMap::new();
    for entry in commit::decode(&log) {
        by_file.entry(Arc::clone(&entry.file)).or_default().push(entry);
    }
    for (name, entries) in by_file {
        if !is_below(&name) {
            continue;
        }
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .open(layout.base.join(&*name));
        // A run that was removed needs nothing.
        if let Some(file) = if_there(open)? {
            restore(&file, &entries)?;
            file.sync_data()?;
        }
    }
    if_there(fs::remove_file(path))?;
    Ok(())
}

/// A log is data: it names segments of this store and nothing else.
fn is_below(file: &str) -> bool {
    let path = Path::new(file);
    let name = path.file_name().and_then(|name| name.to_str());
    path.components().all(|part| matches!(part, Component::Normal(_)))
        && name.and_then(SegmentName::parse).is_some()
}

/// Writes the records that are missing, and leaves what is there: a whole record at its place is the same or newer.
fn restore(file: &File, entries: &[Entry]) -> io::Result<()> {
    let mut head = Vec::with_capacity(MAX_HEAD_BYTES);
    file.take(MAX_HEAD_BYTES as u64).read_to_end(&mut head)?;
    let Ok((head, _)) = SegmentHead::open(&head) else {
        // Not even its beginning is there; loading says so.
        return Ok(());
    };
    let place = frame::Place {
        run: head.key.run,
        salt: Salt::of(&head.key),
        name: "",
        offset: 0,
        may_be_torn: false,
        max_body: usize::MAX,
    };
    for Entry { offset, bytes, .. } in entries {
        let mut at = 0;
        while let Some(seq) = frame::seq_at(bytes, at) {
            let Ok(Step::Frame(frame)) = frame::step(bytes, at, seq, &place) else {
                break;
            };
            let record = &bytes[frame.start..frame.end];
            let offset = offset + frame.start as u64;
            let there = read_record(file, offset)?;
            if !matches!(frame::step(&there, 0, seq, &place), Ok(Step::Frame(_))) {
                write_all_at(file, record, offset)?;
            }
            at = frame.end;
        }
    }
    Ok(())
}

/// As many bytes as the frame at `offset` says it has, or as there are.
fn read_record(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len().saturating_sub(offset);
    let mut bytes = vec![0; usize::try_from(len.min(frame::HEAD_BYTES as u64)).unwrap_or(0)];
    read_exact_at(file, &mut bytes, offset)?;
    if let Some(whole) = frame::len_at(&bytes, 0).filter(|whole| *whole as u64 <= len) {
        bytes.resize(whole, 0);
        read_exact_at(file, &mut bytes, offset)?;
    }
    Ok(bytes)
}
