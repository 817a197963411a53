//! From a model's text to checked outputs.
//!
//! A whole text is read as exact JSON first. If that fails it is read tolerantly: code fences, prose around the
//! answer, trailing commas, comments, single quotes, Python's `True`, `False` and `None`, unquoted keys, raw line
//! ends in texts, a last closing bracket that was cut off. Invariant: tolerance never changes what was said. Nothing is
//! filled in: an answer of which more than that bracket was cut off is an error, a number at the end of the text may be
//! the beginning of another one, and where a text holds two different answers neither is taken.

mod exact;
mod fields;
mod machine;

use serde_json::{Map, Value};

pub use fields::{FieldEvent, FieldParser, FieldPath};

use crate::error::{Violation, ViolationKind};
use crate::inputs::Fields;
use crate::shape::{Shape, check};
use machine::Machine;

/// How answers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reading {
    /// What to do with fields that nobody asked for.
    pub unknown_fields: UnknownFields,
    /// How many bytes an answer may have.
    pub max_bytes: usize,
    /// How deep lists and objects may be nested in it, at most 120.
    pub max_depth: usize,
}

impl Default for Reading {
    /// Unknown fields are refused; 4 MiB; 64 levels.
    fn default() -> Self {
        Self {
            unknown_fields: UnknownFields::Reject,
            max_bytes: 4 * 1024 * 1024,
            max_depth: 64,
        }
    }
}

impl Reading {
    /// Says what to do with fields that nobody asked for.
    #[must_use]
    pub fn with_unknown_fields(mut self, unknown_fields: UnknownFields) -> Self {
        self.unknown_fields = unknown_fields;
        self
    }

    /// Bounds an answer's size.
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Bounds an answer's nesting.
    #[must_use]
    pub fn with_max_depth(mut self, max_depth: usize) -> Self {
        self.max_depth = max_depth.min(MAX_DEPTH);
        self
    }
}

/// What is nested deeper cannot be dropped, compared or serialised without fear for the stack.
const MAX_DEPTH: usize = 120;

/// What to do with fields in an answer that nobody asked for, at every level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnknownFields {
    /// They are a misfit: the model said something that would be lost.
    #[default]
    Reject,
    /// They are dropped.
    Ignore,
}

/// How an answer could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Exactness {
    /// It was JSON and nothing else.
    Exact,
    /// It was read tolerantly.
    Tolerant,
}

impl Exactness {
    /// The word that is recorded in a response's metadata under `structured_parse`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Tolerant => "tolerant",
        }
    }
}

/// Reads a whole answer.
pub(crate) fn read(
    shape: &Shape,
    text: &str,
    reading: Reading,
) -> Result<(Fields, Exactness), Vec<Violation>> {
    if text.len() > reading.max_bytes {
        return Err(vec![too_long(reading.max_bytes)]);
    }
    match exact::parse(text) {
        Some(Ok(Value::Object(answer))) => {
            if !depth_within(&answer, reading.max_depth) {
                return Err(vec![too_deep(reading.max_depth)]);
            }
            checked(shape, answer, reading, Exactness::Exact)
        }
        Some(Err(duplicate)) => Err(vec![duplicate]),
        // An answer written as a JSON string is still that answer.
        Some(Ok(Value::String(inner))) => read_tolerantly(shape, &inner, reading),
        Some(Ok(_)) | None => read_tolerantly(shape, text, reading),
    }
}

fn read_tolerantly(
    shape: &Shape,
    text: &str,
    reading: Reading,
) -> Result<(Fields, Exactness), Vec<Violation>> {
    let mut machine = Machine::collecting(reading);
    let found = match machine.push(text, &mut Vec::new()) {
        Ok(()) => machine.finish(shape),
        Err(problem) => Err(problem),
    };
    let mut found = found.map_err(|problem| vec![problem])?;
    // Other objects may stand in the prose around an answer; those that share no field with it are not meant.
    let fields = &shape.root_object().fields;
    let is_meant = |object: &Fields| fields.iter().any(|field| object.contains_key(&*field.name));
    if found.iter().any(is_meant) {
        found.retain(is_meant);
    }
    found.dedup();
    let mut found = found.into_iter();
    let Some(first) = found.next() else {
        return Err(vec![no_answer(text)]);
    };
    let first = checked(shape, first, reading, Exactness::Tolerant);
    // The same answer twice is one answer, also where only its spelling differs.
    let mut others = found.map(|other| checked(shape, other, reading, Exactness::Tolerant));
    match others.all(|other| other.is_ok() && other == first) {
        true => first,
        false => Err(vec![ambiguous()]),
    }
}

fn checked(
    shape: &Shape,
    answer: Fields,
    reading: Reading,
    exactness: Exactness,
) -> Result<(Fields, Exactness), Vec<Violation>> {
    let mut answer = Value::Object(answer);
    check(shape, &mut answer, reading.unknown_fields)?;
    match answer {
        Value::Object(answer) => Ok((answer, exactness)),
        _ => unreachable!("a check keeps the kind of a value"),
    }
}

/// Whether lists and objects are nested no deeper; the outermost object is level 1.
fn depth_within(answer: &Map<String, Value>, max_depth: usize) -> bool {
    // Only what can be nested is kept, so that flat answers cost no allocation.
    let nested = |value: &&Value| value.is_array() || value.is_object();
    let mut open: Vec<(&Value, usize)> = answer.values().filter(nested).map(|value| (value, 2)).collect();
    while let Some((value, depth)) = open.pop() {
        if depth > max_depth {
            return false;
        }
        match value {
            Value::Array(items) => open.extend(items.iter().filter(nested).map(|item| (item, depth + 1))),
            Value::Object(map) => open.extend(map.values().filter(nested).map(|value| (value, depth + 1))),
            _ => {}
        }
    }
    max_depth > 0
}

fn too_long(max_bytes: usize) -> Violation {
    Violation::new(
        ViolationKind::TooLarge,
        format!("at most {max_bytes} bytes"),
        "more",
    )
}

fn too_deep(max_depth: usize) -> Violation {
    Violation::new(
        ViolationKind::TooLarge,
        format!("at most {max_depth} levels of nesting"),
        "more",
    )
}

pub(crate) fn ambiguous() -> Violation {
    Violation::new(
        ViolationKind::Ambiguous,
        "one JSON object",
        "several different ones",
    )
}

fn no_answer(text: &str) -> Violation {
    let found = match text.trim() {
        "" => "nothing".to_owned(),
        text => crate::shape::found_text(text),
    };
    Violation::new(ViolationKind::NoAnswer, "a JSON object", found)
}
