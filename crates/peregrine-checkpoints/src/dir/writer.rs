//! Appending to a run in files.
//!
//! Invariant: behind `end` in the current segment stands nothing that could pass for a record, or `cut_first` is set
//! and nothing is written before it has been cut. A record that was written in part, or whose commit failed, would else
//! come back behind the next one that has its length.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use peregrine_core::UnixTime;

use super::chain::{self, Tip};
use super::commit::{Committer, Entry, Outcome};
use super::layout::{Layout, SegmentHead, SegmentName, pins, segments};
use super::lease::Held;
use super::sys::{if_there, sync_folder, write_all_at};
use super::{Inner, parts, removal};
use crate::error::{Error, Result};
use crate::history::Tail;
use crate::record::{Origin, RunKey};
use crate::store::{Acquire, Batch, Intent, Lease, Persist, RunWriter, out_of_order};

/// The writer of a run.
#[derive(Debug)]
pub(crate) struct Writer {
    store: Arc<Inner>,
    key: RunKey,
    folder: PathBuf,
    lease: Held,
    /// There if the run is to be power-safe.
    committer: Option<Arc<Committer>>,
    origin: Option<Origin>,
    name: SegmentName,
    /// The current segment, relative to the base of the store.
    file_name: Arc<str>,
    file: File,
    /// Where its last whole record ends.
    end: u64,
    next: u64,
    cut_first: bool,
    under_way: Option<UnderWay>,
    cut: Option<Tail>,
}

/// A record that is written, and waits to be durable.
#[derive(Debug)]
struct UnderWay {
    outcome: Outcome,
    /// Where to go back to if that fails.
    end: u64,
    next: u64,
}

/// How a segment that is written comes to its name.
#[derive(Debug, Clone, Copy)]
enum Show {
    /// Nothing has it.
    New,
    /// In the place of one without records.
    Instead,
}

impl Writer {
    pub(crate) fn acquire(store: &Arc<Inner>, key: &RunKey, how: Acquire) -> Result<Self> {
        let Acquire {
            intent,
            persist,
            takeover,
            at,
        } = how;
        let layout = &store.layout;
        let folder = layout.run(key);
        let failed = |source| Error::io("open the run in", folder.display(), source);
        let committer = match persist {
            Persist::Process => None,
            Persist::Power => Some(store.committer()?),
        };
        if let Intent::Create(_) = intent {
            fs::create_dir_all(layout.runs(&key.scope)).map_err(failed)?;
            match fs::create_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.map_err(failed)?,
            }
        }
        let has_segments = |folder: &Path| {
            let names = segments(folder).map_err(failed)?;
            Ok::<_, Error>(names.is_some_and(|names| !names.is_empty()))
        };
        match intent {
            Intent::Create(_) if has_segments(&folder)? => return Err(Error::AlreadyExists { run: key.run }),
            Intent::Resume
                if !has_segments(&folder)? || folder.join("removed").try_exists().map_err(failed)? =>
            {
                return Err(Error::NotFound { run: key.run });
            }
            _ => {}
        }
        let lease = Held::take(&folder, key, takeover, at)?;
        let new = Opened {
            store,
            key,
            folder: &folder,
            lease,
            committer,
        };
        match intent {
            Intent::Create(origin) => new.create(origin, at),
            Intent::Resume => new.resume(takeover, at),
        }
    }

    fn store_relative(&self, name: SegmentName) -> Arc<str> {
        relative(&self.store.layout, &self.folder, name)
    }

    fn persist(&self) -> Persist {
        if self.committer.is_some() {
            Persist::Power
        } else {
            Persist::Process
        }
    }

    fn io(&self, action: &'static str, source: io::Error) -> Error {
        Error::io(action, self.folder.join(self.name.file()).display(), source)
    }

    /// Sees to it that nothing stands behind the last whole record.
    fn clear_tail(&mut self) -> Result<()> {
        if self.cut_first {
            self.file
                .set_len(self.end)
                .map_err(|source| self.io("cut an unfinished record in", source))?;
            self.cut_first = false;
        }
        Ok(())
    }

    /// Waits for what is under way; takes it back if it failed.
    async fn finish_commit(&mut self) -> Result<()> {
        let Some(under_way) = &mut self.under_way else {
            return Ok(());
        };
        let outcome = (&mut under_way.outcome).await;
        let (end, next) = (under_way.end, under_way.next);
        self.under_way = None;
        let failure = match outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) => io::Error::new(failure.kind(), failure),
            Err(_) => io::Error::other("the committing thread is gone"),
        };
        (self.end, self.next, self.cut_first) = (end, next, true);
        self.clear_tail()?;
        Err(self.io("make durable", failure))
    }

    /// Begins a segment that holds `frames`, and goes on there.
    fn begin_segment(&mut self, first: u64, snapshot: bool, frames: &[u8], at: UnixTime) -> Result<()> {
        let name = SegmentName {
            token: self.lease.token,
            first,
        };
        if name == self.name {
            return self.begin_anew(snapshot, frames);
        }
        let head = SegmentHead {
            key: self.key.clone(),
            name,
            at,
            snapshot,
            origin: self.origin,
            previous: Some((self.name, self.end)),
        };
        let (file, len) = self.new_segment(&head, frames)?;
        self.file_name = self.store_relative(head.name);
        (self.name, self.file, self.end) = (head.name, file, len);
        Ok(())
    }

    /// Puts another file in the place of the current segment, in which no record stands yet. Its head is as long as before:
    /// a successor that has seen the old one still knows where it ends.
    fn begin_anew(&mut self, snapshot: bool, frames: &[u8]) -> Result<()> {
        let head = SegmentHead::read(&self.folder, &self.key, self.name)?;
        let Some((head, frames_at)) = head.filter(|(_, frames_at)| *frames_at == self.end) else {
            return Err(Error::damaged(
                self.key.run,
                &self.name.file(),
                0,
                self.name.first,
                "the segment was empty, and is not any more",
            ));
        };
        let head = SegmentHead { snapshot, ..head };
        let (file, len) = self.new_segment(&head, frames)?;
        (self.file, self.end) = (file, len);
        debug_assert_eq!(
            frames_at + frames.len() as u64,
            len,
            "the head is as long as before"
        );
        Ok(())
    }

    fn new_segment(&self, head: &SegmentHead, frames: &[u8]) -> Result<(File, u64)> {
        let failed = |source| Error::io("begin a segment in", self.folder.display(), source);
        let show = if head.name == self.name {
            Show::Instead
        } else {
            Show::New
        };
        let made = make_segment(&self.folder, head, frames, self.persist(), show, || {
            self.lease.check(&self.key, &self.folder)
        })?;
        let made = made.map_err(|source| match source.kind() {
            // Only a successor could have made it.
            io::ErrorKind::AlreadyExists => Error::Fenced {
                run: self.key.run,
                token: self.lease.token,
            },
            _ => failed(source),
        })?;
        // As with a record: it shows, so a successor that raised the token later has seen it.
        self.lease.check(&self.key, &self.folder)?;
        Ok(made)
    }
}

/// Takes back a run that could not be made, while its lease is still held: whoever waits for that one finds that its
/// lock is gone.
fn abandon(folder: &Path) {
    if matches!(segments(folder), Ok(Some(names)) if names.is_empty()) {
        for file in ["lock", "token"] {
            let _gone = fs::remove_file(folder.join(file));
        }
        let _gone = fs::remove_dir(folder);
    }
}

/// A segment that shows under its name only when it is whole. The check runs when it is about to show.
fn make_segment(
    folder: &Path,
    head: &SegmentHead,
    frames: &[u8],
    persist: Persist,
    how: Show,
    check: impl FnOnce() -> Result<()>,
) -> Result<io::Result<(File, u64)>> {
    let path = folder.join(head.name.file());
    let unfinished = path.with_extension("tmp");
    let mut bytes = head.encode()?;
    bytes.extend_from_slice(frames);
    let write = || -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&unfinished)?;
        write_all_at(&file, &bytes, 0)?;
        if persist == Persist::Power {
            file.sync_all()?;
        }
        Ok(file)
    };
    let show = |file: File| -> io::Result<(File, u64)> {
        match how {
            Show::New => fs::hard_link(&unfinished, &path),
            Show::Instead => fs::rename(&unfinished, &path),
        }
        .or_else(|error| match error {
            error if error.kind() == io::ErrorKind::Unsupported && !path.try_exists()? => {
                fs::rename(&unfinished, &path)
            }
            error => Err(error),
        })?;
        if persist == Persist::Power {
            sync_folder(folder)?;
        }
        Ok((file, bytes.len() as u64))
    };
    let made = match write() {
        Ok(file) => check().map(|()| show(file)),
        Err(error) => Ok(Err(error)),
    };
    let _gone = fs::remove_file(&unfinished);
    made
}

fn relative(layout: &Layout, folder: &Path, name: SegmentName) -> Arc<str> {
    let below = folder.strip_prefix(&layout.base).unwrap_or(folder);
    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
    format!("{}/{}", parts.join("/"), name.file()).into()
}

/// A run whose lease was just taken.
struct Opened<'a> {
    store: &'a Arc<Inner>,
    key: &'a RunKey,
    folder: &'a Path,
    lease: Held,
    committer: Option<Arc<Committer>>,
}

impl Opened<'_> {
    fn failed(&self) -> impl Fn(io::Error) -> Error + use<> {
        let place = self.folder.display().to_string();
        move |source| Error::io("open the run in", &place, source)
    }

    fn create(self, origin: Option<Origin>, at: UnixTime) -> Result<Writer> {
        match self.make(origin, at) {
            Ok((name, file, end)) => Ok(self.writer(origin, name, file, end, name.first, None)),
            Err(error) => {
                abandon(self.folder);
                Err(error)
            }
        }
    }

    fn make(&self, origin: Option<Origin>, at: UnixTime) -> Result<(SegmentName, File, u64)> {
        let failed = self.failed();
        // Somebody else may have made it between the first look and the lease.
        if segments(self.folder)
            .map_err(&failed)?
            .is_some_and(|names| !names.is_empty())
        {
            return Err(Error::AlreadyExists { run: self.key.run });
        }
        if let Some(origin) = origin {
            self.pin(origin)?;
        }
        let persist = if self.committer.is_some() {
            Persist::Power
        } else {
            Persist::Process
        };
        let first = origin.map_or(0, |origin| origin.at);
        let head = SegmentHead {
            key: self.key.clone(),
            name: SegmentName {
                token: self.lease.token,
                first,
            },
            at,
            snapshot: false,
            origin,
            previous: None,
        };
        let made = make_segment(self.folder, &head, &[], persist, Show::New, || Ok(()))?;
        let (file, end) = made.map_err(&failed)?;
        if persist == Persist::Power {
            self.lease.sync().map_err(&failed)?;
            // The run's folder and those above it, which may be new.
            let mut folder = self.folder;
            while let Some(parent) = folder.parent() {
                sync_folder(parent).map_err(&failed)?;
                if folder == self.store.layout.base {
                    break;
                }
                folder = parent;
            }
        }
        Ok((head.name, file, end))
    }

    /// Makes the run that is forked keep what is shared.
    fn pin(&self, origin: Origin) -> Result<()> {
        let parent = self.store.layout.run(&self.key.sibling(origin.run));
        let failed = self.failed();
        let pinned = || -> io::Result<()> {
            match fs::create_dir(parent.join("forks")) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            fs::write(super::layout::pin(&parent, self.key.run, origin.at), b"")?;
            if self.committer.is_some() {
                sync_folder(&parent.join("forks"))?;
                sync_folder(&parent)?;
                sync_segments(&parent)?;
            }
            Ok(())
        };
        pinned().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NotFound { run: origin.run },
            _ => failed(source),
        })
    }

    fn resume(self, takeover: bool, at: UnixTime) -> Result<Writer> {
        let failed = self.failed();
        // Again, now that nobody can remove it; and whoever wanted to collect it meanwhile left that to us.
        if self.folder.join("removed").try_exists().map_err(&failed)? {
            removal::collect(&self.store.layout, self.key, self.lease)?;
            return Err(Error::NotFound { run: self.key.run });
        }
        self.sweep().map_err(&failed)?;
        let Tip {
            link,
            end,
            next,
            tail,
            empty,
        } = chain::tip(self.folder, self.key)?;
        let path = link.path(self.folder);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(&failed)?;
        if let Some(name) = empty {
            if_there(fs::remove_file(self.folder.join(name.file()))).map_err(&failed)?;
        }
        let power = self.committer.is_some();
        let (folder, origin) = (self.folder, link.head.origin);
        let mut writer = self.writer(origin, link.head.name, file, end, next, tail.clone());
        if takeover {
            // The old holder may still write: from now on what it adds is behind the end that counts.
            writer.begin_segment(next, false, &[], at)?;
        } else {
            writer.cut_first = tail.is_some();
            writer.clear_tail()?;
        }
        if power {
            sync_segments(folder).map_err(&failed)?;
            writer.lease.sync().map_err(&failed)?;
            sync_folder(folder).map_err(&failed)?;
        }
        Ok(writer)
    }

    /// Removes what a writer that died left unfinished.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|kind| kind == "tmp") {
                if_there(fs::remove_file(path))?;
            }
        }
        Ok(())
    }

    fn writer(
        self,
        origin: Option<Origin>,
        name: SegmentName,
        file: File,
        end: u64,
        next: u64,
        cut: Option<Tail>,
    ) -> Writer {
        Writer {
            store: Arc::clone(self.store),
            key: self.key.clone(),
            folder: self.folder.to_owned(),
            lease: self.lease,
            committer: self.committer,
            origin,
            name,
            file_name: relative(&self.store.layout, self.folder, name),
            file,
            end,
            next,
            cut_first: false,
            under_way: None,
            cut,
        }
    }
}

/// Makes every segment of a run durable.
fn sync_segments(folder: &Path) -> io::Result<()> {
    for name in segments(folder)?.unwrap_or_default() {
        if let Some(file) = if_there(File::open(folder.join(name.file())))? {
            file.sync_data()?;
        }
    }
    Ok(())
}

#[async_trait]
impl RunWriter for Writer {
    fn lease(&self) -> Lease {
        Lease {
            token: self.lease.token,
        }
    }

    async fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        self.finish_commit().await?;
        self.clear_tail()?;
        if batch.first != self.next {
            return Err(out_of_order(batch.first, self.next));
        }
        let segment = if batch.begins_segment {
            SegmentName {
                token: self.lease.token,
                first: batch.first,
            }
        } else {
            self.name
        };
        parts::put(
            &self.store.layout,
            &self.key.scope,
            &self.folder,
            segment,
            batch.parts,
            self.persist(),
        )?;
        if batch.begins_segment {
            self.begin_segment(batch.first, true, batch.frames, batch.at)?;
            self.next = batch.next();
            return Ok(());
        }
        let (end, next) = (self.end, self.next);
        if let Err(source) = write_all_at(&self.file, batch.frames, end) {
            self.cut_first = true;
            let error = self.io("append to", source);
            // If that fails too, the next append tries again before it writes.
            let _later = self.clear_tail();
            return Err(error);
        }
        self.lease.check(&self.key, &self.folder)?;
        self.end += batch.frames.len() as u64;
        self.next = batch.next();
        if let Some(committer) = &self.committer {
            let outcome = committer.commit(Entry {
                file: Arc::clone(&self.file_name),
                offset: end,
                bytes: batch.frames.to_vec(),
            });
            self.under_way = Some(UnderWay { outcome, end, next });
            self.finish_commit().await?;
        }
        Ok(())
    }

    fn cut(&self) -> Option<Tail> {
        self.cut.clone()
    }

    async fn settle(&mut self) -> Result<u64> {
        // What failed was told to whoever waited, or is told by the number.
        let _told = self.finish_commit().await;
        self.clear_tail()?;
        self.lease.check(&self.key, &self.folder)?;
        Ok(self.next)
    }

    async fn trim(&mut self, before: u64) -> Result<u64> {
        self.finish_commit().await?;
        self.lease.check(&self.key, &self.folder)?;
        let failed = |source| Error::io("trim", self.folder.display(), source);
        let mut chain = chain::Chain::of(&self.folder, &self.key)?;
        let first = chain.first;
        // The segments on the chain, the last one first; those from the last snapshot on stay.
        let (mut links, mut kept) = (Vec::new(), false);
        while let Some(link) = chain.back()? {
            if kept {
                links.push(link.head.name);
            }
            kept |= link.head.snapshot && link.head.name.first <= before;
        }
        let needed = pins(&self.folder)
            .map_err(failed)?
            .iter()
            .any(|pin| pin.at > first);
        if links.is_empty() || needed {
            return Ok(first);
        }
        for name in links.iter().rev() {
            if_there(fs::remove_file(self.folder.join(name.file()))).map_err(failed)?;
            let links = self.folder.join(name.parts());
            parts::remove(&self.store.layout, &self.key.scope, &links).map_err(failed)?;
        }
        // Without its first records, the run no longer needs what it was forked from.
        removal::unpin_and_collect(&self.store.layout, &self.key, self.origin)?;
        Ok(chain::Chain::of(&self.folder, &self.key)?.first)
    }

    async fn release(mut self: Box<Self>) -> Result<()> {
        self.finish_commit().await
    }
}
