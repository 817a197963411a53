//! A run's journal: the one who appends.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use peregrine_core::UnixTime;
use serde::Serialize;

use crate::codec::{Body, Codec, Fields};
use crate::error::{Error, Result};
use crate::history::Sizes;
use crate::options::{Durability, Options};
use crate::payload;
use crate::record::{Draft, Kind, Part, PartId, PartRef, RunKey, Unshown};
use crate::store::{Batch, Lease, RunWriter};

/// So many parts of a segment are remembered as stored; beyond it, some are offered to the store again.
const MAX_SEEN_PARTS: usize = 4_096;
/// Scratch memory above this is given back after use.
const MAX_SCRATCH_BYTES: usize = 1 << 20;

/// Appends the records of one run, under its lease.
///
/// There is one for a run at any time. Dropping it gives the lease back; under [`Durability::OnFinish`] what was not
/// finished is lost, as it is with the process.
///
/// # Cancel safety
///
/// Every method may be dropped at any await and the journal goes on. Of an append that was dropped, the records up to
/// some point are there, each whole, often all; [`Journal::next_seq`] tells after [`Journal::settle`].
pub struct Journal {
    key: RunKey,
    codec: Codec,
    options: Arc<Options>,
    /// None with [`Durability::None`].
    writer: Option<Box<dyn RunWriter>>,
    /// The number of the next record, those that wait included.
    next: u64,
    /// An operation of the writer did not end well, or did not end.
    in_doubt: bool,
    /// What the writer has not acknowledged.
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    /// An emptied one, for its memory.
    spare: Waiting,
    scratch: Vec<u8>,
    /// The parts that the current segment has.
    seen: HashSet<PartId>,
    sizes: Sizes,
    /// Before the last append, in case it fails.
    mark: Mark,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("key", &self.key)
            .field("durability", &self.options.durability)
            .field("writer", &self.writer)
            .field("next", &self.next)
            .field("in_doubt", &self.in_doubt)
            .field("waiting", &Unshown(self.waiting_bytes))
            .finish_non_exhaustive()
    }
}

/// A batch that owns its bytes.
struct Waiting {
    first: u64,
    frames: Vec<u8>,
    ends: Vec<usize>,
    begins_segment: bool,
    parts: Vec<(PartId, Bytes)>,
    at: UnixTime,
}

/// Where the journal stood before something was staged.
#[derive(Debug, Clone, Copy)]
struct Mark {
    next: u64,
    sizes: Sizes,
    waiting_bytes: usize,
    batches: usize,
    /// Lengths within the last batch.
    frames: usize,
    ends: usize,
    parts: usize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            first: 0,
            frames: Vec::new(),
            ends: Vec::new(),
            begins_segment: false,
            parts: Vec::new(),
            at: UnixTime(0),
        }
    }
}

impl Waiting {
    fn next(&self) -> u64 {
        self.first + self.ends.len() as u64
    }

    fn batch(&self) -> Batch<'_> {
        Batch::new(self.first, &self.frames, &self.ends, self.at)
            .with_segment(self.begins_segment)
            .with_parts(&self.parts)
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.ends.clear();
        self.parts.clear();
        self.begins_segment = false;
        if self.frames.capacity() > MAX_SCRATCH_BYTES {
            self.frames = Vec::new();
        }
    }

    /// Forgets the records before `seq`, which are in the store.
    fn drop_before(&mut self, seq: u64) {
        let Some(count) = seq
            .checked_sub(self.first)
            .and_then(|count| usize::try_from(count).ok())
        else {
            return;
        };
        if count == 0 {
            return;
        }
        let cut = self.ends[count - 1];
        self.frames.drain(..cut);
        self.ends.drain(..count);
        for end in &mut self.ends {
            *end -= cut;
        }
        self.first = seq;
        self.begins_segment = false;
    }
}

impl Journal {
    pub(crate) fn new(
        key: RunKey,
        options: &Arc<Options>,
        writer: Option<Box<dyn RunWriter>>,
        next: u64,
        sizes: Sizes,
    ) -> Self {
        Self {
            codec: Codec::new(&key, options),
            key,
            options: Arc::clone(options),
            writer,
            next,
            in_doubt: false,
            waiting: Vec::new(),
            waiting_bytes: 0,
            spare: Waiting::default(),
            scratch: Vec::new(),
            seen: HashSet::new(),
            sizes,
            mark: Mark {
                next,
                sizes,
                waiting_bytes: 0,
                batches: 0,
                frames: 0,
                ends: 0,
                parts: 0,
            },
        }
    }

    /// The run.
    pub fn key(&self) -> &RunKey {
        &self.key
    }

    /// The number that the next record gets. After an append that failed or was dropped, [`Journal::settle`] first.
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// What an acknowledgement promises here.
    pub fn durability(&self) -> Durability {
        self.options.durability
    }

    /// The lease, whose token outside systems can use to refuse a stale holder. There is none with
    /// [`Durability::None`].
    pub fn lease(&self) -> Option<Lease> {
        self.writer.as_ref().map(|writer| writer.lease())
    }

    /// Appends a record whose payload is `value` in MessagePack, and returns its number.
    ///
    /// `Ok` acknowledges, as the journal's [`Durability`] says.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`], [`Error::TooDeep`], [`Error::TooLarge`] for a value that cannot be kept; [`Error::Fenced`]
    /// when somebody took the run over; [`Error::Full`], [`Error::Unavailable`], [`Error::Io`] from the store. After
    /// all of them the journal can be used again, when the store can. The record is not there, except that a database
    /// that became unavailable in the middle may have it: [`Journal::settle`] tells.
    ///
    /// # Performance
    ///
    /// In a directory and process-safe: one encoding, one hash and one `write` on the caller's task.
    pub async fn append<T: Serialize + ?Sized>(&mut self, kind: Kind, schema: u32, value: &T) -> Result<u64> {
        self.ready().await?;
        self.mark();
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let encoded = payload::encode(&mut scratch, value, crate::Limits::DEFAULT_DEPTH)
            .and_then(|()| self.stage(kind, schema, None, &scratch, &[]));
        if scratch.capacity() <= MAX_SCRATCH_BYTES {
            self.scratch = scratch;
        }
        self.staged(encoded).await
    }

    /// Appends a record that was drafted before, and returns its number.
    ///
    /// # Errors
    ///
    /// As for [`Journal::append`].
    pub async fn append_draft(&mut self, draft: &Draft) -> Result<u64> {
        self.append_all(std::slice::from_ref(draft)).await
    }

    /// Appends several records with one write, and returns the number of the first one.
    ///
    /// It is one acknowledgement, not one transaction: after a crash, or an error of the store, the first few may be
    /// there.
    ///
    /// # Errors
    ///
    /// As for [`Journal::append`]. An error of encoding leaves none of them.
    pub async fn append_all(&mut self, drafts: &[Draft]) -> Result<u64> {
        self.ready().await?;
        self.mark();
        let first = self.next;
        let encoded = drafts.iter().try_fold(first, |_, draft| {
            let Draft {
                kind,
                schema,
                at,
                payload,
                parts,
            } = draft;
            self.stage(*kind, *schema, *at, payload, parts)
        });
        self.staged(encoded.map(|_| first)).await?;
        Ok(first)
    }

    /// Whether it is time for a snapshot, as [`Options::snapshots`] says.
    pub fn snapshot_due(&self) -> bool {
        let Sizes {
            records_since,
            bytes_since,
            snapshot,
        } = self.sizes;
        self.options.snapshots.due(records_since, bytes_since, snapshot)
    }

    /// Appends the whole state as a snapshot, from which loading begins from now on.
    ///
    /// # Errors
    ///
    /// As for [`Journal::append`].
    pub async fn snapshot<T: Serialize + ?Sized>(&mut self, schema: u32, state: &T) -> Result<u64> {
        self.append(Kind::Snapshot, schema, state).await
    }

    /// Drops the oldest records, up to a snapshot at or before `before`, unless a fork needs them; returns the first
    /// one that is left.
    ///
    /// # Errors
    ///
    /// Those of the store. Some of the oldest records may be gone.
    pub async fn trim(&mut self, before: u64) -> Result<u64> {
        self.ready().await?;
        match &mut self.writer {
            Some(writer) => writer.trim(before).await,
            None => Ok(self.next),
        }
    }

    /// Waits until nothing is under way any more and returns the number of the next record: what to call after an
    /// append that was dropped or failed, to know what is there. Without such an append it costs nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`], or what keeps the store from answering; can be called again.
    pub async fn settle(&mut self) -> Result<u64> {
        self.ready().await?;
        Ok(self.next)
    }

    /// Writes what waits under [`Durability::OnFinish`], without finishing.
    ///
    /// # Errors
    ///
    /// As for [`Journal::append`]; what could not be written waits on.
    pub async fn flush(&mut self) -> Result<()> {
        self.ready().await?;
        self.write().await
    }

    /// Writes what waits, gives the lease back and waits until that is done. The run can be resumed later.
    ///
    /// # Errors
    ///
    /// As for [`Journal::append`]. With [`Durability::OnFinish`] call [`Journal::flush`] before, if what could not be
    /// written is to be tried again.
    pub async fn finish(mut self) -> Result<()> {
        self.flush().await?;
        match self.writer.take() {
            Some(writer) => writer.release().await,
            None => Ok(()),
        }
    }

    /// Clears up after an operation that did not end well.
    async fn ready(&mut self) -> Result<()> {
        let (true, Some(writer)) = (self.in_doubt, &mut self.writer) else {
            return Ok(());
        };
        let stored = writer.settle().await?;
        if self.options.durability == Durability::OnFinish {
            self.waiting.retain(|waiting| waiting.next() > stored);
            if let Some(oldest) = self.waiting.first_mut() {
                oldest.drop_before(stored);
            }
        } else {
            if stored == self.mark.next {
                self.sizes = self.mark.sizes;
            }
            self.waiting.clear();
            self.waiting_bytes = 0;
            self.next = stored;
        }
        // Which parts got there is not known; the store knows those it has.
        self.seen.clear();
        self.in_doubt = false;
        Ok(())
    }

    fn mark(&mut self) {
        let last = self.waiting.last();
        self.mark = Mark {
            next: self.next,
            sizes: self.sizes,
            waiting_bytes: self.waiting_bytes,
            batches: self.waiting.len(),
            frames: last.map_or(0, |last| last.frames.len()),
            ends: last.map_or(0, |last| last.ends.len()),
            parts: last.map_or(0, |last| last.parts.len()),
        };
    }

    fn take_back(&mut self) {
        let Mark {
            next,
            sizes,
            waiting_bytes,
            batches,
            frames,
            ends,
            parts,
        } = self.mark;
        (self.next, self.sizes, self.waiting_bytes) = (next, sizes, waiting_bytes);
        self.waiting.truncate(batches);
        if let Some(last) = self.waiting.last_mut() {
            last.frames.truncate(frames);
            last.ends.truncate(ends);
            last.parts.truncate(parts);
        }
        self.seen.clear();
    }

    /// Encodes a record behind those that wait. After an error some of the last ones may have to be taken back.
    fn stage(
        &mut self,
        kind: Kind,
        schema: u32,
        at: Option<UnixTime>,
        payload: &[u8],
        parts: &[Bytes],
    ) -> Result<u64> {
        let limits = &self.options.limits;
        let too_large = |what, bytes: usize, limit: usize| Error::TooLarge {
            what,
            bytes: bytes as u64,
            limit: limit as u64,
        };
        if parts.len() > limits.max_parts {
            return Err(too_large("a list of parts", parts.len(), limits.max_parts));
        }
        let at = at.unwrap_or_else(|| self.options.clock.unix());
        if self.writer.is_none() {
            self.next += 1;
            return Ok(self.next - 1);
        }
        let seq = self.next;
        if kind == Kind::Snapshot || self.waiting.is_empty() {
            let mut waiting = std::mem::take(&mut self.spare);
            waiting.clear();
            waiting.first = seq;
            waiting.begins_segment = kind == Kind::Snapshot;
            self.waiting.push(waiting);
            if kind == Kind::Snapshot {
                self.seen.clear();
            }
        }
        let mut kept = Vec::with_capacity(parts.len());
        for part in parts {
            kept.push(if part.len() < self.options.part_bytes {
                Part::Inline(part.clone())
            } else {
                Part::Stored(self.keep(part)?)
            });
        }
        let body = if payload.len() < self.options.spill_bytes {
            Body::Inline(payload)
        } else {
            Body::Spilled(self.keep(payload)?)
        };
        let waiting = self.waiting.last_mut().expect("one was pushed above");
        let start = waiting.frames.len();
        let fields = Fields {
            seq,
            kind,
            schema,
            at,
            body,
            parts: &kept,
        };
        self.codec.push(&mut waiting.frames, fields)?;
        waiting.ends.push(waiting.frames.len());
        waiting.at = at;
        let bytes = waiting.frames.len() - start;
        self.waiting_bytes += bytes;
        self.sizes.add(bytes as u64, kind == Kind::Snapshot);
        self.next += 1;
        Ok(seq)
    }

    /// Sees to it that the current segment has this content.
    fn keep(&mut self, content: &[u8]) -> Result<PartRef> {
        let part = PartRef {
            id: self.codec.part_id(content),
            len: content.len() as u64,
        };
        if !self.seen.contains(&part.id) {
            let stored = self.codec.encode_part(part, content)?;
            self.waiting_bytes += stored.len();
            let waiting = self.waiting.last_mut().expect("a record is being staged");
            waiting.parts.push((part.id, stored.into()));
            if self.seen.len() == MAX_SEEN_PARTS {
                self.seen.clear();
            }
            self.seen.insert(part.id);
        }
        Ok(part)
    }

    /// Writes what was staged, if it is time, or takes it back if it could not be encoded.
    async fn staged(&mut self, encoded: Result<u64>) -> Result<u64> {
        let durability = self.options.durability;
        let seq = match encoded {
            Ok(seq) => seq,
            Err(error) => {
                self.take_back();
                return Err(error);
            }
        };
        if durability != Durability::OnFinish || self.waiting_bytes >= self.options.limits.max_buffered_bytes
        {
            self.write().await?;
        }
        Ok(seq)
    }

    async fn write(&mut self) -> Result<()> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        self.in_doubt = !self.waiting.is_empty();
        let mut done = 0;
        let mut outcome = Ok(());
        while let Some(waiting) = self.waiting.get(done) {
            outcome = writer.append(&waiting.batch()).await;
            if outcome.is_err() {
                break;
            }
            done += 1;
        }
        if outcome.is_ok() {
            self.in_doubt = false;
            self.spare = self.waiting.pop().unwrap_or_default();
            self.waiting.clear();
            self.waiting_bytes = 0;
        }
        outcome
    }
}
