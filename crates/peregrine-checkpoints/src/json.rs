//! Journals as JSON, for people and other programs: one object a line.
//!
//! ```text
//! {"peregrine_journal": 1, "scope": {..}, "run": "..", "origin": null, "first": 0, "records": 2}
//! {"seq": 0, "kind": "event", "schema": 1, "at": 1700000000000, "payload": {"role": "user", ..}}
//! {"seq": 1, "kind": "effect_result", "schema": 1, "at": .., "payload_base64": "..", "parts": [{"base64": ".."}, {"id": ".."}]}
//! ```
//!
//! A payload is shown as JSON if reading it back gives the same bytes, else in base64. A part that came before is
//! named by its id. What a fork shares is written out, so that an export needs no other one.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, Read as _, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use peregrine_core::{RunId, Scope, UnixTime};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoints::Checkpoints;
use crate::error::{Error, Result};
use crate::history::Span;
use crate::journal::Journal;
use crate::options::Limits;
use crate::payload;
use crate::record::{Draft, Kind, Origin, Part, Record, RunKey};

const VERSION: u32 = 1;
/// So many records are appended at once.
const BATCH: usize = 256;
/// A line may be so many times the largest record: base64, and JSON's own escapes.
const LINE_FACTOR: u64 = 6;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    peregrine_journal: u32,
    scope: Scope,
    run: RunId,
    origin: Option<Origin>,
    first: u64,
    records: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: u64,
    kind: Kind,
    schema: u32,
    at: UnixTime,
    #[serde(default, with = "present", skip_serializing_if = "Option::is_none")]
    payload: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<JsonPart>,
}

/// `null` is a payload; only a key that is not there is none.
mod present {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(value: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
        Value::deserialize(deserializer).map(Some)
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonPart {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl Checkpoints {
    /// Writes a run as JSON lines, what it shares included; returns the number of records.
    ///
    /// # Errors
    ///
    /// As for [`Checkpoints::load`]; [`Error::Io`] from `out`.
    pub async fn export(&self, key: &RunKey, out: &mut (dyn Write + Send)) -> Result<u64> {
        let history = self.load(key, Span::ALL).await?;
        let head = Head {
            peregrine_journal: VERSION,
            scope: key.scope.clone(),
            run: key.run,
            origin: history.origin,
            first: history
                .records
                .first()
                .map_or(history.next_seq, |record| record.seq),
            records: history.records.len() as u64,
        };
        write_line(out, &head)?;
        let mut seen = HashSet::new();
        for record in &history.records {
            let mut parts = Vec::with_capacity(record.parts.len());
            for part in &record.parts {
                parts.push(match part {
                    Part::Inline(bytes) => JsonPart {
                        id: None,
                        base64: Some(STANDARD.encode(bytes)),
                    },
                    Part::Stored(part) => JsonPart {
                        id: Some(part.id.to_string()),
                        base64: if seen.insert(part.id) {
                            Some(STANDARD.encode(self.part(key, *part).await?))
                        } else {
                            None
                        },
                    },
                });
            }
            write_line(out, &line(record, parts))?;
        }
        out.flush()
            .map_err(|source| Error::io("export", "the output", source))?;
        Ok(head.records)
    }

    /// Makes a run of JSON lines that [`Checkpoints::export`] wrote, and returns its journal. Whatever run they came
    /// from, they become the run `key`; its records are numbered from 0.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for lines that are no journal, with the number of the line; [`Error::Unsupported`] for a later
    /// version; [`Error::AlreadyExists`]; as for [`Journal::append`]. After an error the run is removed again.
    pub async fn import(&self, key: &RunKey, input: &mut (dyn BufRead + Send)) -> Result<Journal> {
        let mut journal = self.create(key).await?;
        match self.import_into(&mut journal, input).await {
            Ok(()) => Ok(journal),
            Err(error) => {
                drop(journal.finish().await);
                drop(self.remove(key).await);
                Err(error)
            }
        }
    }

    async fn import_into(&self, journal: &mut Journal, input: &mut (dyn BufRead + Send)) -> Result<()> {
        let limits = &self.options.limits;
        let mut lines = Lines {
            input,
            number: 0,
            buffer: Vec::new(),
            max_bytes: (limits.max_record_bytes as u64 + limits.max_part_bytes as u64)
                .saturating_mul(LINE_FACTOR),
        };
        let head: Head = lines
            .next()?
            .ok_or_else(|| Error::config("line 1: a journal was expected"))?;
        if head.peregrine_journal != VERSION {
            return Err(Error::Unsupported {
                what: "export version",
                found: head.peregrine_journal,
                known: VERSION,
            });
        }
        let mut parts = Parts {
            known: HashMap::new(),
            left: limits.max_load_bytes,
            limit: limits.max_load_bytes,
        };
        let mut drafts = Vec::with_capacity(BATCH);
        let mut expected = head.first;
        while let Some(line) = lines.next::<Line>()? {
            if line.seq != expected {
                return Err(lines.wrong(&format!("record {expected} was expected, not {}", line.seq)));
            }
            expected += 1;
            drafts.push(draft(line, &mut parts).map_err(|error| match error {
                Error::Config { message } => lines.wrong(&message),
                other => other,
            })?);
            if drafts.len() == BATCH {
                journal.append_all(&drafts).await?;
                drafts.clear();
            }
        }
        if expected != head.first.saturating_add(head.records) {
            return Err(lines.wrong(&format!("{} records were promised", head.records)));
        }
        journal.append_all(&drafts).await.map(drop)
    }
}

fn line(record: &Record, parts: Vec<JsonPart>) -> Line {
    let payload = readable(&record.payload);
    Line {
        seq: record.seq,
        kind: record.kind,
        schema: record.schema,
        at: record.at,
        payload_base64: payload.is_none().then(|| STANDARD.encode(&record.payload)),
        payload,
        parts,
    }
}

/// The payload as JSON, if the same bytes can be made of it again.
fn readable(payload: &[u8]) -> Option<Value> {
    let value: Value = payload::decode(payload, Limits::DEFAULT_DEPTH, (0, 0)).ok()?;
    let text = serde_json::to_vec(&value).ok()?;
    let again: Value = serde_json::from_slice(&text).ok()?;
    (encode(&again).ok()? == payload).then_some(value)
}

fn encode(value: &Value) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    payload::encode(&mut bytes, value, Limits::DEFAULT_DEPTH)?;
    Ok(bytes)
}

struct Parts {
    known: HashMap<String, Bytes>,
    left: u64,
    limit: u64,
}

fn draft(line: Line, parts: &mut Parts) -> Result<Draft> {
    let decode = |text: &str| {
        STANDARD
            .decode(text)
            .map_err(|_| Error::config("this is no base64"))
    };
    let payload = match (&line.payload, &line.payload_base64) {
        (Some(value), None) => encode(value)?,
        (None, Some(text)) => decode(text)?,
        _ => return Err(Error::config("a record has either `payload` or `payload_base64`")),
    };
    let mut draft = Draft::raw(line.kind, line.schema, payload).with_time(line.at);
    for JsonPart { id, base64 } in line.parts {
        let content = match (base64, &id) {
            (Some(text), _) => Bytes::from(decode(&text)?),
            (None, Some(id)) => parts
                .known
                .get(id)
                .cloned()
                .ok_or_else(|| Error::config("a part names one that did not come before"))?,
            (None, None) => return Err(Error::config("a part has `id`, `base64` or both")),
        };
        if let Some(id) = id
            && !parts.known.contains_key(&id)
        {
            parts.left = parts
                .left
                .checked_sub(content.len() as u64)
                .ok_or(Error::TooLarge {
                    what: "all parts together",
                    bytes: parts.limit.saturating_add(1),
                    limit: parts.limit,
                })?;
            parts.known.insert(id, content.clone());
        }
        draft = draft.with_part(content);
    }
    Ok(draft)
}

fn write_line(out: &mut (dyn Write + Send), value: &impl Serialize) -> Result<()> {
    let written = serde_json::to_writer(&mut *out, value)
        .map_err(io::Error::from)
        .and_then(|()| out.write_all(b"\n"));
    written.map_err(|source| Error::io("export", "the output", source))
}

struct Lines<'a> {
    input: &'a mut (dyn BufRead + Send),
    number: u64,
    buffer: Vec<u8>,
    max_bytes: u64,
}

impl Lines<'_> {
    fn wrong(&self, why: &str) -> Error {
        Error::config(format!("line {}: {why}", self.number))
    }

    /// The next line that is not empty.
    fn next<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<T>> {
        loop {
            self.number += 1;
            self.buffer.clear();
            let read = (&mut *self.input)
                .take(self.max_bytes)
                .read_until(b'\n', &mut self.buffer);
            let read = read.map_err(|source| Error::io("import", "the input", source))?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 == self.max_bytes {
                return Err(Error::TooLarge {
                    what: "a line",
                    bytes: self.max_bytes,
                    limit: self.max_bytes,
                });
            }
            if !self.buffer.trim_ascii().is_empty() {
                let parsed = serde_json::from_slice(&self.buffer);
                return parsed.map(Some).map_err(|source: serde_json::Error| {
                    let column = source.column();
                    self.wrong(&format!(
                        "column {column}: {}",
                        payload::Reason::of(&source.to_string())
                    ))
                });
            }
        }
    }
}
