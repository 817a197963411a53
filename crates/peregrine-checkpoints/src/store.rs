//! What a store is: where frames are kept, whoever wrote them.
//!
//! A store knows runs, numbers and bytes. It does not know what a record means, how it is compressed or who forked
//! from whom beyond one step: [`Checkpoints`](crate::Checkpoints) does, once for all stores. The suite in
//! `peregrine_checkpoints::conformance` (feature `conformance`) is the definition of what follows, as code.
//!
//! - A run's frames are a sequence without a gap. They are in *segments*, each of which begins with a snapshot (or is
//!   the first, or was begun by a takeover); loading from the last snapshot reads the segments from there on.
//! - At most one [`RunWriter`] of a run is alive. A [`Lease`] has a token that grows with each holder; a writer whose
//!   token is no longer the latest is refused ([`Error::Fenced`](crate::Error::Fenced)), whatever it tries.
//! - A fork pins what it shares: as long as it is there, no record before its origin is removed.
//! - Every key contains the scope. A run is not found from another scope.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use peregrine_core::{RunId, Scope, UnixTime};

use crate::error::{Holder, Result};
use crate::history::Tail;
use crate::record::{Origin, PartId, RunKey, Unshown};

/// Keeps runs.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// Takes the lease of a run, new or old, and returns who may write it. A tail that was never finished is cut.
    ///
    /// # Errors
    ///
    /// [`Leased`](crate::Error::Leased), [`NotFound`](crate::Error::NotFound),
    /// [`AlreadyExists`](crate::Error::AlreadyExists); [`NotFound`](crate::Error::NotFound) also if the origin of a fork
    /// is not there; [`Damaged`](crate::Error::Damaged).
    ///
    /// # Cancel safety
    ///
    /// A lease that was taken for a caller who is gone is released.
    async fn acquire(&self, key: &RunKey, how: Acquire) -> Result<Box<dyn RunWriter>>;

    /// Reads the run's own frames, not those of its origin. Needs no lease; a writer may be at work.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::Error::NotFound); [`TooLarge`](crate::Error::TooLarge) before more than
    /// [`Range::max_bytes`] are in memory.
    async fn read(&self, key: &RunKey, range: &Range) -> Result<Stored>;

    /// Reads a part as it was stored by a run of this scope.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::Error::NotFound) if neither this run nor one that it shares records with has it.
    async fn part(&self, key: &RunKey, part: &PartId, max_bytes: u64) -> Result<Bytes>;

    /// The runs of a scope, in the order of their ids, which is that of their beginnings; at most `limit`, behind
    /// `after`.
    ///
    /// # Errors
    ///
    /// Those of the medium.
    async fn runs(&self, scope: &Scope, after: Option<RunId>, limit: usize) -> Result<Vec<RunInfo>>;

    /// Removes a run. What kept forks need of it stays until they are gone too, but the run itself is no longer found.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::Error::NotFound); [`Leased`](crate::Error::Leased) if it is being written.
    async fn remove(&self, key: &RunKey) -> Result<()>;
}

/// The only one who may write a run. Dropping it releases the lease.
#[async_trait]
pub trait RunWriter: fmt::Debug + Send + Sync {
    /// The lease.
    fn lease(&self) -> Lease;

    /// Appends whole frames, the first of which has the number [`RunWriter::settle`] says.
    ///
    /// `Ok` acknowledges: the frames and their parts survive as [`Acquire::persist`] says. After an error none of them is
    /// there, except as [`Fenced`](crate::Error::Fenced) tells.
    ///
    /// # Errors
    ///
    /// [`Fenced`](crate::Error::Fenced), [`Full`](crate::Error::Full), [`Unavailable`](crate::Error::Unavailable),
    /// [`Io`](crate::Error::Io).
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the first frames of the batch up to some point, often all, may be there, each whole.
    /// Call [`RunWriter::settle`] before the next append.
    async fn append(&mut self, batch: &Batch<'_>) -> Result<()>;

    /// What was cut off the end when the run was acquired, because it was never finished.
    fn cut(&self) -> Option<Tail>;

    /// Waits until nothing is under way any more and returns the number of the next record.
    ///
    /// # Errors
    ///
    /// As for [`RunWriter::append`]. Can be called again.
    async fn settle(&mut self) -> Result<u64>;

    /// Drops the segments that end at or before record `before`, unless a fork needs them; returns the first record
    /// that is left. A segment is dropped whole or not at all, and the last snapshot never is.
    ///
    /// # Errors
    ///
    /// Those of the medium. Some segments may be gone, the oldest first.
    async fn trim(&mut self, before: u64) -> Result<u64>;

    /// Gives the lease back and waits until that is done.
    ///
    /// # Errors
    ///
    /// Those of the medium. The lease is then given back as if the writer had been dropped.
    async fn release(self: Box<Self>) -> Result<()>;
}

/// A lease on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Grows with each holder of the run: what an outside system can compare to refuse a stale one.
    pub token: u64,
}

/// How a run is acquired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Acquire {
    /// Whether it is to be made.
    pub intent: Intent,
    /// What acknowledging means.
    pub persist: Persist,
    /// Take the lease from whoever holds it, who is fenced off from then on.
    pub takeover: bool,
    /// The time now, for what is stored.
    pub at: UnixTime,
}

impl Acquire {
    /// Makes a new run.
    pub fn create(origin: Option<Origin>, persist: Persist, at: UnixTime) -> Self {
        Self {
            intent: Intent::Create(origin),
            persist,
            takeover: false,
            at,
        }
    }

    /// Goes on with a run.
    pub fn resume(persist: Persist, at: UnixTime) -> Self {
        Self {
            intent: Intent::Resume,
            persist,
            takeover: false,
            at,
        }
    }

    /// Takes the lease from whoever holds it.
    #[must_use]
    pub fn with_takeover(mut self, takeover: bool) -> Self {
        self.takeover = takeover;
        self
    }
}

/// Whether a run is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// The run is new, perhaps a fork: its first record has the number [`Origin::at`].
    Create(Option<Origin>),
    /// The run is there.
    Resume,
}

/// What acknowledging means to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Persist {
    /// The frames survive this process.
    Process,
    /// The frames survive a power cut.
    Power,
}

/// Whole frames to append at once.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Batch<'a> {
    /// The number of the first one.
    pub first: u64,
    /// The frames, one behind the other.
    pub frames: &'a [u8],
    /// Where each ends in `frames`.
    pub ends: &'a [usize],
    /// The first frame is a snapshot, which begins a segment. No other one is.
    pub begins_segment: bool,
    /// The parts that the frames name, ready to be stored, each at least once in a segment; those that are there need
    /// not be stored again.
    pub parts: &'a [(PartId, Bytes)],
    /// The time now, for what is stored.
    pub at: UnixTime,
}

impl<'a> Batch<'a> {
    /// Frames without parts.
    pub fn new(first: u64, frames: &'a [u8], ends: &'a [usize], at: UnixTime) -> Self {
        Self {
            first,
            frames,
            ends,
            begins_segment: false,
            parts: &[],
            at,
        }
    }

    /// The first frame is a snapshot.
    #[must_use]
    pub fn with_segment(mut self, begins_segment: bool) -> Self {
        self.begins_segment = begins_segment;
        self
    }

    /// With parts.
    #[must_use]
    pub fn with_parts(mut self, parts: &'a [(PartId, Bytes)]) -> Self {
        self.parts = parts;
        self
    }

    /// The frames, each with its number.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, &'a [u8])> + use<'a> {
        let (first, frames, ends) = (self.first, self.frames, self.ends);
        (0..ends.len()).map(move |place| {
            let start = if place == 0 { 0 } else { ends[place - 1] };
            (first + place as u64, &frames[start..ends[place]])
        })
    }

    /// The number of the record behind the batch.
    pub fn next(&self) -> u64 {
        self.first + self.ends.len() as u64
    }
}

/// What a batch gets that does not begin with the next record.
pub(crate) fn out_of_order(first: u64, next: u64) -> crate::Error {
    crate::Error::config(format!("record {first} cannot be appended, {next} is next"))
}

/// Which frames to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Range {
    /// Where to begin.
    pub from: Begin,
    /// Where to end, exclusive. Frames behind it may be returned too.
    pub upto: Option<u64>,
    /// A run that was removed, but is kept for its forks, is read too: for its forks.
    pub as_ancestor: bool,
    /// The most bytes to return.
    pub max_bytes: u64,
}

impl Range {
    /// A range without a bound on its bytes.
    pub fn new(from: Begin, upto: Option<u64>) -> Self {
        Self {
            from,
            upto,
            as_ancestor: false,
            max_bytes: u64::MAX,
        }
    }

    /// Bounds the bytes.
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Reads for a fork.
    #[must_use]
    pub fn with_ancestors(mut self, as_ancestor: bool) -> Self {
        self.as_ancestor = as_ancestor;
        self
    }
}

/// Where to begin to read. Frames before it may be returned too, never the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At the first record that the run still has.
    Start,
    /// At the last snapshot before the end of the range; at the start if there is none.
    LastSnapshot,
    /// At this record. Beyond the end, at the last segment that is not empty, so that the end can be told.
    Record(u64),
    /// No frames, only where the run comes from and begins.
    Nothing,
}

/// What a store has of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// Where it was forked from.
    pub origin: Option<Origin>,
    /// The first record the store still has, or the next one if there is none.
    pub first: u64,
    /// The frames in order, without a gap between the chunks.
    pub chunks: Vec<Chunk>,
}

impl Stored {
    /// What was read.
    pub fn new(origin: Option<Origin>, first: u64, chunks: Vec<Chunk>) -> Self {
        Self {
            origin,
            first,
            chunks,
        }
    }
}

/// Frames, one behind the other.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chunk {
    /// The number of the first one.
    pub first: u64,
    /// The frames.
    pub frames: Bytes,
    /// The file or row they come from, for errors.
    pub place: String,
    /// Where in it they begin.
    pub offset: u64,
    /// Whether the last one may be unfinished.
    pub may_be_torn: bool,
    /// Whether the first one is a snapshot.
    pub begins_with_snapshot: bool,
}

impl Chunk {
    /// Whole frames that begin with record `first`.
    pub fn new(first: u64, frames: impl Into<Bytes>, place: impl Into<String>) -> Self {
        Self {
            first,
            frames: frames.into(),
            place: place.into(),
            offset: 0,
            may_be_torn: false,
            begins_with_snapshot: false,
        }
    }

    /// The first frame is a snapshot.
    #[must_use]
    pub fn with_snapshot(mut self, begins_with_snapshot: bool) -> Self {
        self.begins_with_snapshot = begins_with_snapshot;
        self
    }

    /// Says where in its place it begins, and whether it may end in the middle of a frame.
    #[must_use]
    pub fn at(mut self, offset: u64, may_be_torn: bool) -> Self {
        (self.offset, self.may_be_torn) = (offset, may_be_torn);
        self
    }
}

/// A run, as it is listed. None of this takes longer the longer the run is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunInfo {
    /// The run.
    pub run: RunId,
    /// Where it was forked from.
    pub origin: Option<Origin>,
    /// When the last record was appended, by the clock of the store.
    pub updated: UnixTime,
    /// How many bytes its own records take; parts are not counted.
    pub bytes: u64,
    /// Who is writing it now, if somebody is and left a name.
    pub holder: Option<Holder>,
}

impl RunInfo {
    /// A run without an origin or a holder.
    pub fn new(run: RunId, updated: UnixTime, bytes: u64) -> Self {
        Self {
            run,
            origin: None,
            updated,
            bytes,
            holder: None,
        }
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("first", &self.first)
            .field("records", &self.ends.len())
            .field("frames", &Unshown(self.frames.len()))
            .field("begins_segment", &self.begins_segment)
            .field("parts", &self.parts.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            first,
            frames,
            place,
            offset,
            may_be_torn,
            begins_with_snapshot,
        } = self;
        f.debug_struct("Chunk")
            .field("first", first)
            .field("frames", &Unshown(frames.len()))
            .field("place", place)
            .field("offset", offset)
            .field("may_be_torn", may_be_torn)
            .field("begins_with_snapshot", begins_with_snapshot)
            .finish()
    }
}
