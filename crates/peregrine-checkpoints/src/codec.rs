//! From records to frames and back: the envelope in MessagePack, then compression, then encryption.
//!
//! The body of a frame is the envelope `[kind, schema, at, payload, parts]`. With the flag `compressed`, it is the
//! envelope's length (4 bytes) and a zstd frame; with `encrypted`, that is sealed, behind the id of the key and a
//! nonce. With `spilled`, the payload is the name and length of a part that holds it.
//!
//! Invariant: what comes out of a body is bounded before it is made: lengths are checked against the limits first.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use peregrine_core::UnixTime;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::crypt::Sealer;
use crate::error::{Error, Result};
use crate::frame::{self, Frame, Salt};
use crate::options::Options;
use crate::payload;
use crate::record::{Kind, Part, PartId, PartRef, Record, RunKey};

/// The most parts that an envelope is read with, whatever the limits.
const MAX_ENTRIES: usize = 65_536;
/// Levels of an envelope that are no payload: itself, the list of parts, a part.
const ENVELOPE_DEPTH: usize = 3;
const RECORD_LEVEL: i32 = 1;
const SNAPSHOT_LEVEL: i32 = 3;
/// What encryption and the envelope may add to a body of the largest record.
const BODY_SLACK_BYTES: usize = 64 << 10;

/// Bytes that MessagePack knows as such.
struct Bin<'a>(&'a [u8]);

impl Serialize for Bin<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bin<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = &'de [u8];
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_bytes(Borrowed).map(Bin)
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a>(
    u8,
    u32,
    u64,
    #[serde(borrow)] Bin<'a>,
    #[serde(borrow)] Entries<'a>,
);

/// A part: its name (empty if it stands here), its length, its bytes (empty if it is kept elsewhere).
#[derive(Serialize, Deserialize)]
struct Entry<'a>(#[serde(borrow)] Bin<'a>, u64, #[serde(borrow)] Bin<'a>);

#[derive(Serialize)]
#[serde(transparent)]
struct Entries<'a>(Vec<Entry<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Few;
        impl<'de> Visitor<'de> for Few {
            type Value = Vec<Entry<'de>>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of parts")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = seq.next_element()? {
                    if entries.len() == MAX_ENTRIES {
                        return Err(de::Error::custom("there are too many parts"));
                    }
                    entries.push(entry);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_seq(Few).map(Entries)
    }
}

/// Where a payload stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body<'a> {
    Inline(&'a [u8]),
    Spilled(PartRef),
}

/// What a frame is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) seq: u64,
    pub(crate) kind: Kind,
    pub(crate) schema: u32,
    pub(crate) at: UnixTime,
    pub(crate) body: Body<'a>,
    pub(crate) parts: &'a [Part],
}

/// Writes and reads the frames of one run.
#[derive(Debug, Clone)]
pub(crate) struct Codec {
    key: RunKey,
    salt: Salt,
    options: Arc<Options>,
    sealer: Sealer,
}

impl Codec {
    pub(crate) fn new(key: &RunKey, options: &Arc<Options>) -> Self {
        Self {
            key: key.clone(),
            salt: Salt::of(key),
            options: Arc::clone(options),
            sealer: Sealer::new(key, options),
        }
    }

    pub(crate) fn salt(&self) -> Salt {
        self.salt
    }

    /// The largest body that is taken from a store.
    pub(crate) fn max_body(&self) -> usize {
        self.options
            .limits
            .max_record_bytes
            .saturating_add(BODY_SLACK_BYTES)
    }

    /// The largest part that is taken from a store.
    pub(crate) fn max_stored_part(&self) -> u64 {
        self.options
            .limits
            .max_part_bytes
            .saturating_add(BODY_SLACK_BYTES) as u64
    }

    /// Appends a frame to `out`; on an error `out` is as it was.
    pub(crate) fn push(&self, out: &mut Vec<u8>, fields: Fields<'_>) -> Result<()> {
        let start = out.len();
        self.push_unguarded(out, fields)
            .inspect_err(|_| out.truncate(start))
    }

    fn push_unguarded(&self, out: &mut Vec<u8>, fields: Fields<'_>) -> Result<()> {
        let Fields {
            seq,
            kind,
            schema,
            at,
            body,
            parts,
        } = fields;
        let start = frame::open(out);
        let body_start = out.len();
        let mut flags = if kind == Kind::Snapshot {
            frame::SNAPSHOT
        } else {
            0
        };
        let reference;
        let payload = match body {
            Body::Inline(bytes) => bytes,
            Body::Spilled(part) => {
                flags |= frame::SPILLED;
                reference = spilled(part);
                &reference
            }
        };
        let entries = parts.iter().map(|part| match part {
            Part::Inline(bytes) => Entry(Bin(&[]), bytes.len() as u64, Bin(bytes)),
            Part::Stored(PartRef { id, len }) => Entry(Bin(&id.0), *len, Bin(&[])),
        });
        let envelope = Envelope(
            kind.code(),
            schema,
            at.0,
            Bin(payload),
            Entries(entries.collect()),
        );
        let encoded = rmp_serde::encode::write(out, &envelope);
        encoded.map_err(|source| Error::Encode {
            source: Arc::new(source),
        })?;
        let raw_bytes = out.len() - body_start;
        let limit = self.options.limits.max_record_bytes;
        if raw_bytes > limit.saturating_add(BODY_SLACK_BYTES / 2) {
            return Err(too_large("a record", raw_bytes, limit));
        }
        if raw_bytes >= self.options.compress_bytes {
            let level = if kind == Kind::Snapshot {
                SNAPSHOT_LEVEL
            } else {
                RECORD_LEVEL
            };
            flags |= compress_tail(out, body_start, level)?;
        }
        if self.sealer.seals() {
            flags |= frame::ENCRYPTED;
            self.sealer
                .seal_tail(out, body_start, &record_context(seq, flags))?;
        }
        frame::close(out, start, self.salt, flags, seq)
    }

    /// The record in a frame of `bytes`. A spilled payload is returned as its reference, for the caller to fetch.
    pub(crate) fn read(&self, bytes: &Bytes, frame: &Frame) -> Result<(Record, Option<PartRef>)> {
        let Frame { seq, flags, .. } = *frame;
        let mut body = bytes.slice(frame.body());
        if flags & frame::ENCRYPTED != 0 {
            let opened = self.sealer.open(&body, &record_context(seq, flags));
            body = opened.map_err(|error| error.of(&format!("record {seq}")))?.into();
        }
        let damaged = |why| Error::damaged(self.key.run, "a record", 0, seq, why);
        if flags & frame::COMPRESSED != 0 {
            body = decompress(&body, self.max_body(), "a record")?
                .ok_or_else(|| damaged("its compressed body cannot be read"))?
                .into();
        }
        let whole = payload::check(&body, ENVELOPE_DEPTH) == Ok(body.len());
        let envelope = whole.then(|| rmp_serde::from_slice(&body).ok()).flatten();
        let Envelope(kind, schema, at, Bin(payload), Entries(entries)) =
            envelope.ok_or_else(|| damaged("its envelope cannot be read"))?;
        let mut parts = Vec::with_capacity(entries.len());
        for Entry(Bin(id), len, Bin(inline)) in entries {
            parts.push(match <[u8; 32]>::try_from(id) {
                Ok(id) => Part::Stored(PartRef { id: PartId(id), len }),
                Err(_) if id.is_empty() && len == inline.len() as u64 => Part::Inline(body.slice_ref(inline)),
                Err(_) => return Err(damaged("one of its parts has a name of the wrong form")),
            });
        }
        let mut spilled_to = None;
        let mut payload = body.slice_ref(payload);
        if flags & frame::SPILLED != 0 {
            let reference = read_spilled(&payload).ok_or_else(|| damaged("its payload has a wrong name"))?;
            (spilled_to, payload) = (Some(reference), Bytes::new());
        }
        let record = Record {
            seq,
            kind: Kind::from_code(kind)?,
            schema,
            at: UnixTime(at),
            payload,
            parts,
        };
        Ok((record, spilled_to))
    }

    /// The name of a content.
    pub(crate) fn part_id(&self, content: &[u8]) -> PartId {
        self.sealer.part_id(content)
    }

    /// A part as it is stored: its frame has the flags of a record's, the number 0, and the bytes as they are.
    pub(crate) fn encode_part(&self, part: PartRef, content: &[u8]) -> Result<Vec<u8>> {
        let limit = self.options.limits.max_part_bytes;
        if content.len() > limit {
            return Err(too_large("a part", content.len(), limit));
        }
        let mut out = Vec::with_capacity(content.len() / 2 + frame::OVERHEAD_BYTES);
        let start = frame::open(&mut out);
        let body_start = out.len();
        out.extend_from_slice(content);
        let mut flags = compress_tail(&mut out, body_start, SNAPSHOT_LEVEL)?;
        if self.sealer.seals() {
            flags |= frame::ENCRYPTED;
            self.sealer
                .seal_tail(&mut out, body_start, &part_context(part.id, flags))?;
        }
        frame::close(&mut out, start, part_salt(part.id), flags, 0)?;
        Ok(out)
    }

    /// The content of a stored part, checked against its name.
    pub(crate) fn decode_part(&self, part: PartRef, stored: &[u8]) -> Result<Bytes> {
        let name = part.id.to_string();
        let max_part = self.options.limits.max_part_bytes;
        let place = frame::Place {
            run: self.key.run,
            salt: part_salt(part.id),
            name: &name,
            offset: 0,
            may_be_torn: false,
            max_body: max_part.saturating_add(BODY_SLACK_BYTES),
        };
        let damaged = |why| Error::damaged(self.key.run, &name, 0, 0, why);
        let frame::Step::Frame(frame) = frame::step(stored, 0, 0, &place)? else {
            return Err(damaged("the part is empty"));
        };
        if frame.end != stored.len() {
            return Err(damaged("bytes follow the part"));
        }
        let mut content = std::borrow::Cow::Borrowed(&stored[frame.body()]);
        if frame.flags & frame::ENCRYPTED != 0 {
            let opened = self.sealer.open(&content, &part_context(part.id, frame.flags));
            content = opened.map_err(|error| error.of("a part"))?.into();
        }
        if frame.flags & frame::COMPRESSED != 0 {
            let whole = decompress(&content, max_part, "a part")?;
            content = whole
                .ok_or_else(|| damaged("its compressed bytes cannot be read"))?
                .into();
        }
        if content.len() as u64 != part.len || !self.sealer.is_named(&content, part.id) {
            return Err(damaged("its content does not fit its name"));
        }
        Ok(content.into_owned().into())
    }
}

fn too_large(what: &'static str, bytes: usize, limit: usize) -> Error {
    Error::TooLarge {
        what,
        bytes: bytes as u64,
        limit: limit as u64,
    }
}

/// Parts belong to a scope and are bound to their content by their name, not to a run.
fn part_salt(id: PartId) -> Salt {
    Salt::of_part(&id.0)
}

/// What an encrypted record is bound to, beside its run: its place and form.
fn record_context(seq: u64, flags: u8) -> Vec<u8> {
    let mut context = b"record".to_vec();
    context.extend_from_slice(&seq.to_le_bytes());
    context.push(flags);
    context
}

fn part_context(id: PartId, flags: u8) -> Vec<u8> {
    let mut context = b"part".to_vec();
    context.extend_from_slice(&id.0);
    context.push(flags);
    context
}

fn spilled(PartRef { id, len }: PartRef) -> [u8; 40] {
    let mut reference = [0; 40];
    reference[..32].copy_from_slice(&id.0);
    reference[32..].copy_from_slice(&len.to_le_bytes());
    reference
}

fn read_spilled(payload: &[u8]) -> Option<PartRef> {
    let (id, len) = payload.split_first_chunk::<32>()?;
    let len = u64::from_le_bytes(len.try_into().ok()?);
    Some(PartRef { id: PartId(*id), len })
}

thread_local! {
    /// Compression state is large and takes longer to make than a record to compress.
    static ZSTD: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static UNZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses what stands behind `start` if that makes it smaller; returns the flag to set.
fn compress_tail(out: &mut Vec<u8>, start: usize, level: i32) -> Result<u8> {
    let raw = &out[start..];
    let Ok(raw_len) = u32::try_from(raw.len()) else {
        return Ok(0);
    };
    let compressed = ZSTD.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(zstd::bulk::Compressor::new(level)?),
        };
        compressor.set_compression_level(level)?;
        compressor.compress(raw)
    });
    let compressed = compressed.map_err(|source| Error::Encode {
        source: Arc::new(source),
    })?;
    if compressed.len() + 4 >= raw.len() {
        return Ok(0);
    }
    out.truncate(start);
    out.extend_from_slice(&raw_len.to_le_bytes());
    out.extend_from_slice(&compressed);
    Ok(frame::COMPRESSED)
}

/// The whole of what was compressed, `None` if it is not what was written.
fn decompress(body: &[u8], limit: usize, what: &'static str) -> Result<Option<Vec<u8>>> {
    let Some((raw_len, compressed)) = body.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let raw_len = u32::from_le_bytes(*raw_len) as usize;
    if raw_len > limit {
        return Err(too_large(what, raw_len, limit));
    }
    let raw = UNZSTD.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(zstd::bulk::Decompressor::new()?),
        };
        decompressor.decompress(compressed, raw_len)
    });
    // A context that failed in the middle is not used again.
    let raw = raw.inspect_err(|_| UNZSTD.set(None));
    Ok(raw.ok().filter(|raw| raw.len() == raw_len))
}
