//! Typed streaming: fields as they complete, and texts as they grow.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::machine::Machine;
use super::{Exactness, Reading};
use crate::compiled::Compiled;
use crate::error::Violation;
use crate::inputs::Fields;
use crate::shape::Shape;

/// Reads an answer while it arrives.
///
/// The first misfit ends it: see [`push`](Self::push). An answer may stand in a code fence or behind prose or a
/// `<think>` block; from its first field on it must be JSON, read as tolerantly as a whole answer.
///
/// # Examples
///
/// ```
/// use peregrine_signatures::{FieldEvent, FieldParser, parse};
///
/// let mut parser = FieldParser::new(&*parse("question -> answer, confidence: float")?);
/// let mut events = Vec::new();
/// for piece in ["{\"answer\": \"for", "ty-two\", \"confid", "ence\": 0.9}"] {
///     parser.push(piece, &mut events)?;
/// }
/// let told: Vec<String> = events.iter().map(FieldEvent::to_string).collect();
/// assert_eq!(told, ["answer += for", "answer += ty-two", r#"answer = "forty-two""#, "confidence = 0.9"]);
/// assert_eq!(parser.finish()?["confidence"], 0.9);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Performance
///
/// Linear in the text, however it is cut: each byte is looked at once, and each value built once and cloned into its
/// event.
pub struct FieldParser {
    machine: Machine,
    shape: Arc<Shape>,
    failed: Option<Violation>,
}

impl FieldParser {
    /// A parser for a signature's answers.
    pub fn new(signature: &Compiled) -> Self {
        Self::with_reading(signature, Reading::default())
    }

    /// A parser that reads in this way.
    pub fn with_reading(signature: &Compiled, reading: Reading) -> Self {
        Self {
            machine: Machine::fitting(signature.shape().clone(), reading),
            shape: signature.shape().clone(),
            failed: None,
        }
    }

    /// Takes the next piece of the answer and adds what it brings to `events`.
    ///
    /// # Errors
    ///
    /// The first [`Violation`], as soon as it is certain: a value of the wrong type at its first character, a choice
    /// that no value begins with, a number out of range, an unknown or duplicate field. Nothing can heal it, so the
    /// call to the model may be ended; further pieces give the same error.
    pub fn push(&mut self, piece: &str, events: &mut Vec<FieldEvent>) -> Result<(), Violation> {
        if let Some(problem) = &self.failed {
            return Err(problem.clone());
        }
        self.machine
            .push(piece, events)
            .inspect_err(|problem| self.failed = Some(problem.clone()))
    }

    /// Whether the answer was exact JSON so far.
    pub fn exactness(&self) -> Exactness {
        if self.machine.is_tolerant() {
            Exactness::Tolerant
        } else {
            Exactness::Exact
        }
    }

    /// The whole answer, checked.
    ///
    /// # Errors
    ///
    /// The [`Violation`] of an earlier piece, or that the answer is not there or not at its end.
    pub fn finish(self) -> Result<Fields, Violation> {
        self.finish_read().map(|(fields, _)| fields)
    }

    /// The whole answer, and how it could be read.
    pub(crate) fn finish_read(mut self) -> Result<(Fields, Exactness), Violation> {
        if let Some(problem) = self.failed {
            return Err(problem);
        }
        let found = self.machine.finish(&self.shape)?;
        let answer = found.into_iter().next().ok_or_else(|| super::no_answer(""))?;
        Ok((answer, self.exactness()))
    }
}

impl fmt::Debug for FieldParser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FieldParser")
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// What a piece of an answer brings.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum FieldEvent {
    /// More of a text that is not complete.
    Partial {
        /// The field, or the item of a list.
        path: FieldPath,
        /// The new piece; the pieces joined are the text.
        text: String,
    },
    /// A value is complete and fits. The items of a list come before the list.
    Completed {
        /// The field, or the item of a list.
        path: FieldPath,
        /// The whole value.
        value: Value,
    },
    /// What was told before counts no more: the answer did not fit and is read otherwise or asked for again, or the
    /// model went on to call tools. Not from a [`FieldParser`].
    Restarted {
        /// Why.
        problem: Violation,
    },
}

impl fmt::Display for FieldEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partial { path, text } => write!(f, "{path} += {text}"),
            Self::Completed { path, value } => write!(f, "{path} = {value}"),
            Self::Restarted { problem } => write!(f, "restarted: {problem}"),
        }
    }
}

/// An output, or an item of an output that is a list. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldPath {
    field: Arc<str>,
    index: Option<usize>,
}

/// As its text, such as `answer` or `people[2]`.
impl serde::Serialize for FieldPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FieldPath {
    pub(crate) fn field(field: Arc<str>) -> Self {
        Self { field, index: None }
    }

    pub(super) fn item(field: Arc<str>, index: usize) -> Self {
        Self {
            field,
            index: Some(index),
        }
    }

    /// The output's name.
    pub fn name(&self) -> &str {
        &self.field
    }

    /// The item's place, from 0.
    pub fn index(&self) -> Option<usize> {
        self.index
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            None => f.write_str(&self.field),
            Some(index) => write!(f, "{}[{index}]", self.field),
        }
    }
}
