//! Loading: the records of a run, across the runs it was forked from.

use std::sync::Arc;

use peregrine_core::RunId;
use serde::Serialize;

use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::frame::{self, Step};
use crate::options::Options;
use crate::record::{Origin, Part, PartRef, Record, RunKey};
use crate::store::{Begin, Chunk, Range, Store};

/// Which records to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    from: Begin,
    upto: Option<u64>,
}

impl Span {
    /// All that the store still has.
    pub const ALL: Self = Self {
        from: Begin::Start,
        upto: None,
    };
    /// The last snapshot and what follows; all if there is no snapshot. What resuming needs.
    pub const SINCE_SNAPSHOT: Self = Self {
        from: Begin::LastSnapshot,
        upto: None,
    };

    /// From this record on.
    pub const fn from(seq: u64) -> Self {
        Self {
            from: Begin::Record(seq),
            upto: None,
        }
    }

    /// Only what comes before this record; the last snapshot then is the last one before it.
    #[must_use]
    pub const fn upto(mut self, seq: u64) -> Self {
        self.upto = Some(seq);
        self
    }
}

/// What was loaded of a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct History {
    /// The records in order, without a gap.
    pub records: Vec<Record>,
    /// The number of the record behind the last one.
    pub next_seq: u64,
    /// Where the run was forked from.
    pub origin: Option<Origin>,
    /// What stood behind the last whole record and was passed over. When a run is resumed, it has been cut.
    pub tail: Option<Tail>,
    pub(crate) sizes: Sizes,
}

/// Bytes at the end of a journal that are no whole record: what a crash in the middle of a write leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Tail {
    /// The file or row.
    pub place: String,
    /// Where in it the tail begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
}

/// For the policy of snapshots.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sizes {
    pub(crate) records_since: u64,
    pub(crate) bytes_since: u64,
    pub(crate) snapshot: u64,
}

impl Sizes {
    pub(crate) fn add(&mut self, bytes: u64, is_snapshot: bool) {
        if is_snapshot {
            *self = Self {
                snapshot: bytes,
                ..Self::default()
            };
        } else {
            self.records_since += 1;
            self.bytes_since += bytes;
        }
    }
}

struct Piece {
    key: RunKey,
    chunks: Vec<Chunk>,
    upto: Option<u64>,
}

/// Loads a span of a run.
pub(crate) async fn load(
    store: &Arc<dyn Store>,
    options: &Arc<Options>,
    key: &RunKey,
    span: Span,
) -> Result<History> {
    let limits = &options.limits;
    let Span { from, mut upto } = span;
    let mut left = limits.max_load_bytes;
    let mut pieces: Vec<Piece> = Vec::new();
    let mut key = key.clone();
    let mut origin = None;
    let mut first = 0;
    loop {
        let range = Range::new(from, upto)
            .with_ancestors(!pieces.is_empty())
            .with_max_bytes(left);
        let stored = store.read(&key, &range).await?;
        if pieces.is_empty() {
            (origin, first) = (stored.origin, stored.first);
        }
        let bytes: u64 = stored.chunks.iter().map(|chunk| chunk.frames.len() as u64).sum();
        left = left.checked_sub(bytes).ok_or(Error::TooLarge {
            what: "a load",
            bytes: limits.max_load_bytes.saturating_add(1),
            limit: limits.max_load_bytes,
        })?;
        let complete = match from {
            Begin::Start | Begin::Nothing => false,
            Begin::LastSnapshot => stored
                .chunks
                .first()
                .is_some_and(|chunk| chunk.begins_with_snapshot),
            Begin::Record(seq) => seq >= stored.first,
        };
        pieces.push(Piece {
            key: key.clone(),
            chunks: stored.chunks,
            upto,
        });
        // A run that was trimmed begins with a snapshot and no longer needs what it was forked from.
        match stored.origin.filter(|origin| origin.at == stored.first) {
            Some(Origin { run, at }) if !complete && at > 0 => {
                if pieces.len() > limits.max_lineage {
                    return Err(Error::TooDeep {
                        what: "the lineage",
                        limit: limits.max_lineage,
                    });
                }
                key = key.sibling(run);
                upto = Some(upto.map_or(at, |upto| upto.min(at)));
            }
            _ => break,
        }
    }
    let mut reader = Reader {
        from: match from {
            Begin::Record(seq) => seq,
            Begin::Start | Begin::LastSnapshot | Begin::Nothing => 0,
        },
        left: limits.max_load_bytes,
        limit: limits.max_load_bytes,
        records: Vec::new(),
        spilled: Vec::new(),
        next: None,
        tail: None,
        sizes: Sizes::default(),
    };
    let runs = pieces.len();
    for (place, piece) in pieces.into_iter().rev().enumerate() {
        let codec = Codec::new(&piece.key, options);
        reader.read(&codec, &piece, place + 1 == runs)?;
    }
    let Reader {
        mut records,
        spilled,
        next,
        tail,
        sizes,
        ..
    } = reader;
    for (index, part, owner) in spilled {
        left = left.checked_sub(part.len).ok_or(Error::TooLarge {
            what: "a load",
            bytes: limits.max_load_bytes.saturating_add(1),
            limit: limits.max_load_bytes,
        })?;
        let owner = key.sibling(owner);
        records[index].payload = fetch(store, options, &owner, part).await?;
    }
    Ok(History {
        next_seq: next.unwrap_or(span.upto.map_or(first, |upto| upto.min(first))),
        records,
        origin,
        tail,
        sizes,
    })
}

/// The content of a part.
pub(crate) async fn fetch(
    store: &Arc<dyn Store>,
    options: &Arc<Options>,
    key: &RunKey,
    part: PartRef,
) -> Result<bytes::Bytes> {
    let limit = options.limits.max_part_bytes as u64;
    if part.len > limit {
        return Err(Error::TooLarge {
            what: "a part",
            bytes: part.len,
            limit,
        });
    }
    let codec = Codec::new(key, options);
    let stored = store.part(key, &part.id, codec.max_stored_part()).await?;
    codec.decode_part(part, &stored)
}

struct Reader {
    from: u64,
    /// How many bytes the records may still take when they are decompressed.
    left: u64,
    limit: u64,
    records: Vec<Record>,
    /// Payloads to fetch: the place in `records`, the part, the run.
    spilled: Vec<(usize, PartRef, RunId)>,
    next: Option<u64>,
    tail: Option<Tail>,
    sizes: Sizes,
}

impl Reader {
    /// A record of few bytes in the store may take many more in memory.
    fn charge(&mut self, record: &Record) -> Result<()> {
        let inline = record.parts.iter().map(|part| match part {
            Part::Inline(bytes) => bytes.len(),
            Part::Stored(_) => 0,
        });
        let bytes = (record.payload.len() + inline.sum::<usize>()) as u64;
        self.left = self.left.checked_sub(bytes).ok_or(Error::TooLarge {
            what: "a load",
            bytes: self.limit.saturating_add(1),
            limit: self.limit,
        })?;
        Ok(())
    }

    fn read(&mut self, codec: &Codec, piece: &Piece, is_last: bool) -> Result<()> {
        let run = piece.key.run;
        let mut chunks = piece.chunks.iter().peekable();
        while let Some(chunk) = chunks.next() {
            let missing = |seq, why| Error::damaged(run, &chunk.place, chunk.offset, seq, why);
            if let Some(next) = self.next.filter(|next| *next != chunk.first) {
                return Err(missing(next, "the records before it are missing"));
            }
            let place = frame::Place {
                run,
                salt: codec.salt(),
                name: &chunk.place,
                offset: chunk.offset,
                may_be_torn: chunk.may_be_torn && chunks.peek().is_none(),
                max_body: codec.max_body(),
            };
            let (mut at, mut seq) = (0, chunk.first);
            let bytes = &chunk.frames;
            while piece.upto.is_none_or(|upto| seq < upto) {
                match frame::step(bytes, at, seq, &place)? {
                    Step::Frame(frame) => {
                        if seq >= self.from {
                            let (record, spilled) = codec.read(bytes, &frame)?;
                            self.charge(&record)?;
                            let is_snapshot = frame.flags & frame::SNAPSHOT != 0;
                            self.sizes.add((frame.end - frame.start) as u64, is_snapshot);
                            self.spilled
                                .extend(spilled.map(|part| (self.records.len(), part, run)));
                            self.records.push(record);
                        }
                        (at, seq) = (frame.end, seq + 1);
                    }
                    Step::End => break,
                    Step::Torn => {
                        self.tail = Some(Tail {
                            place: chunk.place.clone(),
                            offset: chunk.offset + at as u64,
                            bytes: (bytes.len() - at) as u64,
                        });
                        break;
                    }
                }
            }
            self.next = Some(seq);
        }
        // What a fork shares was whole when it was forked.
        match (is_last, piece.upto) {
            (false, Some(upto)) if self.next.unwrap_or(0) < upto => Err(Error::damaged(
                run,
                "the shared records",
                0,
                self.next.unwrap_or(0),
                "a fork shares records that are no longer there",
            )),
            _ => Ok(()),
        }
    }
}
