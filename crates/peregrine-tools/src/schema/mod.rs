//! Validation of values against a JSON Schema that was compiled once.
//!
//! Invariant: whatever the schema says is enforced, or the schema is refused when it is compiled. A keyword that is
//! neither enforced nor known to be an annotation is a [`SchemaError`], never ignored.
//!
//! Algorithm: a schema becomes a flat list of nodes that name each other by index, so `$ref` costs an index and
//! recursive schemas are no special case. A value is first checked without collecting anything; only if it does not fit
//! is it checked again to say why.
//!
//! The dialect is draft 2020-12, with the older spellings of draft 7 that are still common (`definitions`, an array
//! under `items`, `dependencies`). References stay inside the document. `format` is enforced for integer widths, `uuid`,
//! `date`, `time`, `date-time`, `ipv4`, `ipv6` and `ip`; other formats are annotations, as the specification has it.

mod array;
mod check;
mod choice;
mod compile;
mod error;
mod format;
mod node;
mod number;
mod object;
mod path;
mod pattern;
mod scalar;
mod words;

use serde_json::Value;

pub use error::SchemaError;
pub use path::Problem;

pub(crate) use number::{canonical, equal};
pub(crate) use path::excerpt;
pub(crate) use words::found;

use node::Node;

/// A compiled schema.
///
/// # Examples
///
/// ```
/// use peregrine_tools::schema::Validator;
/// use serde_json::json;
///
/// let validator = Validator::new(&json!({
///     "type": "object",
///     "properties": {"city": {"type": "string", "minLength": 1}, "days": {"type": "integer", "maximum": 10}},
///     "required": ["city"],
/// }))?;
/// assert!(validator.is_valid(&json!({"city": "Oslo", "days": 3})));
/// let problems = validator.check(&json!({"days": 12})).unwrap_err();
/// assert_eq!(problems[0].to_string(), "/city: expected a string (required), found nothing");
/// assert_eq!(problems[1].to_string(), "/days: expected at most 10, found number 12");
/// # Ok::<(), peregrine_tools::schema::SchemaError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Validator {
    nodes: Vec<Node>,
    root: usize,
}

impl Validator {
    /// Compiles a schema.
    ///
    /// # Errors
    ///
    /// [`SchemaError`] if the schema is malformed, or says something that is not enforced here.
    pub fn new(schema: &Value) -> Result<Self, SchemaError> {
        compile::compile(schema)
    }

    /// Whether a value fits.
    pub fn is_valid(&self, value: &Value) -> bool {
        check::fits(&self.nodes, self.root, value).unwrap_or(false)
    }

    /// Checks a value.
    ///
    /// # Errors
    ///
    /// What does not fit, in the order of the schema; at most [`Validator::MAX_PROBLEMS`] of it.
    pub fn check(&self, value: &Value) -> Result<(), Vec<Problem>> {
        match check::fits(&self.nodes, self.root, value) {
            Ok(true) => Ok(()),
            Ok(false) => Err(check::problems(&self.nodes, self.root, value)),
            Err(exhausted) => Err(vec![exhausted.problem(value)]),
        }
    }

    /// How many problems [`check`](Self::check) tells at most.
    pub const MAX_PROBLEMS: usize = 8;

    /// How many steps a check may take: combinations of alternatives can cost exponentially many in the depth of the
    /// value, and a value that needs more than these is refused.
    pub const MAX_STEPS: u32 = 4_000_000;

    /// How deep schemas may nest while one value is checked.
    pub const MAX_DEPTH: u32 = 192;
}
