//! References to the results of other steps: `$step`, `$step.field`, `$step.items[0].name`.
//!
//! One parser serves the analysis of a plan and the substitution of values, so that what is checked is what is done.
//! Grammar, of any text in the parameters of a step:
//!
//! ```text
//! text      = *( literal / "$$" / reference )          "$$" stands for one dollar sign
//! reference = "$" id *path / "${" id *path "}"
//! path      = "." field / "[" 1*DIGIT "]" / "['" key "']" / '["' key '"]'
//! id, field = ( ALPHA / DIGIT / "_" ) *( ALPHA / DIGIT / "_" / "-" )   ASCII; a dash is never the last of them
//! ```
//!
//! A dollar sign that is neither `$$` nor the beginning of a reference is an error, because a reference with a typing
//! mistake must not become text. A dot or a dash that no name follows ends a reference without braces: `$a.` at the end
//! of a sentence is `$a` and a dot, `$low-$high` is two references with a dash between them. Keys of objects are never
//! references. What is substituted is not read again.

mod expression;
mod parse;
mod substitute;

use std::fmt;

pub(crate) use expression::{Expression, Found};
pub(crate) use parse::is_id;
pub use substitute::Unresolved;
pub(crate) use substitute::{Budget, excerpt, look_up, measure};

/// The longest id of a step, in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// How many fields and indices a reference may have.
pub(crate) const MAX_PATH_LEN: usize = 64;

/// A reference to the result of a step, or to something in it. `Display` writes it as it stands in a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The id of the step.
    pub step: String,
    /// The way into its result; empty for the whole of it.
    pub path: Vec<Segment>,
}

/// One step of the way into a result.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Segment {
    /// A field of an object.
    Field(String),
    /// An element of a list, from 0.
    Index(usize),
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "${}", self.step)?;
        self.path
            .iter()
            .try_for_each(|segment| write!(formatter, "{segment}"))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) if parse::is_name(name) => write!(formatter, ".{name}"),
            Self::Field(name) => write!(formatter, "[{name:?}]"),
            Self::Index(index) => write!(formatter, "[{index}]"),
        }
    }
}

/// Why a text with a dollar sign is neither a reference nor plain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{problem} at byte {at}; a reference is `$step`, `$step.field` or `${{step[0]}}`, a dollar sign is `$$`"
)]
pub struct MalformedReference {
    /// Where the reference begins, in bytes from the start of the text.
    pub at: usize,
    problem: &'static str,
}

/// Writes a text such that a plan takes it word for word: each `$` becomes `$$`.
///
/// # Examples
///
/// ```
/// assert_eq!(peregrine_executor::escape("it costs $5"), "it costs $$5");
/// ```
pub fn escape(text: &str) -> String {
    text.replace('$', "$$")
}
