//! The vocabulary of a journal: runs, records, drafts and parts.

use std::fmt;

use bytes::Bytes;
use peregrine_core::{RunId, Scope, UnixTime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::payload;

/// Bytes that `Debug` does not show.
pub(crate) struct Unshown(pub(crate) usize);

impl fmt::Debug for Unshown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0)
    }
}

/// A run and whose it is. There is no way to name a run without its scope.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunKey {
    /// Whose run it is.
    pub scope: Scope,
    /// The run.
    pub run: RunId,
}

impl RunKey {
    /// The run of a scope.
    pub fn new(scope: Scope, run: RunId) -> Self {
        Self { scope, run }
    }

    /// Another run of the same scope.
    #[must_use]
    pub fn sibling(&self, run: RunId) -> Self {
        Self {
            scope: self.scope.clone(),
            run,
        }
    }
}

/// What a record is. The journal treats all alike, except that a snapshot is a place from which loading may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// Something that happened: what a model answered, what a person approved.
    Event,
    /// A side effect that is about to be dispatched.
    Effect,
    /// What came of a side effect.
    EffectResult,
    /// The whole state at this point: whoever has it needs no record before it.
    Snapshot,
    /// A note on the run itself, such as where it was forked from.
    Marker,
}

impl Kind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Event => 0,
            Self::Effect => 1,
            Self::EffectResult => 2,
            Self::Snapshot => 3,
            Self::Marker => 4,
        }
    }

    pub(crate) fn from_code(code: u8) -> Result<Self> {
        Ok(match code {
            0 => Self::Event,
            1 => Self::Effect,
            2 => Self::EffectResult,
            3 => Self::Snapshot,
            4 => Self::Marker,
            found => {
                return Err(Error::Unsupported {
                    what: "record kind",
                    found: found.into(),
                    known: 4,
                });
            }
        })
    }
}

/// A record as it stands in a journal.
///
/// `Debug` shows how long payloads are, not what they say; so do all types here.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Its place: 0 for the first record of a run, then without a gap.
    pub seq: u64,
    /// What it is.
    pub kind: Kind,
    /// The version of the payload's schema, as its writer counts it.
    pub schema: u32,
    /// When it was appended, by the writer's wall clock, which may jump.
    pub at: UnixTime,
    /// The payload, as its writer gave it.
    pub payload: Bytes,
    /// Parts that the payload refers to by their place in this list.
    pub parts: Vec<Part>,
}

impl Record {
    /// The payload as a value, read as MessagePack.
    ///
    /// Nothing is constructed by a name in the data, and nesting is limited to
    /// [`Limits::DEFAULT_DEPTH`](crate::Limits::DEFAULT_DEPTH).
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] if the payload is not such a value, or has more bytes than the value takes;
    /// [`Error::TooDeep`].
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        payload::decode(
            &self.payload,
            crate::Limits::DEFAULT_DEPTH,
            (self.seq, self.schema),
        )
    }

    /// Whether `other` says the same: everything but the time is equal.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            seq,
            kind,
            schema,
            at: _,
            payload,
            parts,
        } = self;
        (*seq, *kind, *schema) == (other.seq, other.kind, other.schema)
            && *payload == other.payload
            && *parts == other.parts
    }
}

/// A part of a record: large or repeated bytes, which the store keeps once by content.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Small enough to stand in the record itself.
    Inline(Bytes),
    /// Kept beside the journal; [`Checkpoints::part`](crate::Checkpoints::part) fetches it.
    Stored(PartRef),
}

/// Names a part that is kept beside the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartRef {
    /// The name of the content.
    pub id: PartId,
    /// Its length in bytes.
    pub len: u64,
}

/// The name of a content: its BLAKE3 hash, keyed where the journal is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId(pub [u8; 32]);

impl fmt::Display for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A record to be: everything but its place.
#[derive(Clone)]
#[non_exhaustive]
pub struct Draft {
    /// What it is.
    pub kind: Kind,
    /// The version of the payload's schema.
    pub schema: u32,
    /// The time to write; the journal's clock says it if there is none.
    pub at: Option<UnixTime>,
    /// The payload.
    pub payload: Bytes,
    /// Parts that the payload refers to by their place in this list.
    pub parts: Vec<Bytes>,
}

impl Draft {
    /// A record whose payload is `value` in MessagePack, structs as maps with names.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] if `value` cannot be encoded; [`Error::TooDeep`] if it could not be read again.
    pub fn new<T: Serialize + ?Sized>(kind: Kind, schema: u32, value: &T) -> Result<Self> {
        let mut payload = Vec::new();
        payload::encode(&mut payload, value, crate::Limits::DEFAULT_DEPTH)?;
        Ok(Self::raw(kind, schema, payload))
    }

    /// A record with a payload of any bytes.
    pub fn raw(kind: Kind, schema: u32, payload: impl Into<Bytes>) -> Self {
        Self {
            kind,
            schema,
            at: None,
            payload: payload.into(),
            parts: Vec::new(),
        }
    }

    /// Adds a part, which is kept once however often it comes.
    #[must_use]
    pub fn with_part(mut self, part: impl Into<Bytes>) -> Self {
        self.parts.push(part.into());
        self
    }

    /// Says the time to write.
    #[must_use]
    pub fn with_time(mut self, at: UnixTime) -> Self {
        self.at = Some(at);
        self
    }
}

/// Where a fork comes from: it shares the first `at` records of `run`, and its own begin with number `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The run whose records it shares.
    pub run: RunId,
    /// How many of them.
    pub at: u64,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seq,
            kind,
            schema,
            at,
            payload,
            parts,
        } = self;
        f.debug_struct("Record")
            .field("seq", seq)
            .field("kind", kind)
            .field("schema", schema)
            .field("at", at)
            .field("payload", &Unshown(payload.len()))
            .field("parts", parts)
            .finish()
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(bytes) => f.debug_tuple("Inline").field(&Unshown(bytes.len())).finish(),
            Self::Stored(part) => f.debug_tuple("Stored").field(part).finish(),
        }
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            schema,
            at,
            payload,
            parts,
        } = self;
        let parts: Vec<_> = parts.iter().map(|part| Unshown(part.len())).collect();
        f.debug_struct("Draft")
            .field("kind", kind)
            .field("schema", schema)
            .field("at", at)
            .field("payload", &Unshown(payload.len()))
            .field("parts", &parts)
            .finish()
    }
}
