//! From expressions and results to values, within bounds.
//!
//! A plan of n steps that each name the step before twice would make 2^n values, and a chain of steps that each wrap
//! the one before a value too deep to be dropped. So what is put in is counted, in bytes and in depth.

use serde_json::{Map, Value};

use super::Segment;
use super::expression::{Bound, Expression, TextPiece};

/// What a value counts for besides its text, in bytes.
const VALUE_BYTES: usize = 16;

/// Why a reference has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unresolved {
    /// The result has no such field or element.
    #[error("`{reference}` is nothing: {problem}")]
    Missing {
        /// The reference, as it stands in the plan.
        reference: String,
        /// What was found on the way.
        problem: String,
    },
    /// What was to be put in is larger than allowed.
    #[error("the parameters would take more than {max_bytes} bytes with `{reference}` put in")]
    TooLarge {
        /// The reference, as it stands in the plan.
        reference: String,
        /// How much there may be.
        max_bytes: usize,
    },
    /// What was to be put in nests deeper than allowed.
    #[error("the parameters would nest more than {max_depth} deep with `{reference}` put in")]
    TooDeep {
        /// The reference, as it stands in the plan.
        reference: String,
        /// How deep they may nest.
        max_depth: usize,
    },
}

/// What one step's parameters may grow to by substitution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) max_bytes: usize,
    pub(crate) max_depth: usize,
}

impl Expression {
    /// The value, with the results that `result_of` gives for the places of steps.
    pub(crate) fn evaluate<'a>(
        &self,
        budget: Budget,
        result_of: &dyn Fn(u32) -> Option<&'a Value>,
    ) -> Result<Value, Unresolved> {
        match self {
            // The usual parameters of a step that has none; cloning would copy an empty table.
            Self::Plain(Value::Object(fields)) if fields.is_empty() => return Ok(Value::Object(Map::new())),
            Self::Plain(value) => return Ok(value.clone()),
            _ => {}
        }
        let mut left = budget.max_bytes;
        let mut evaluation = Evaluation {
            budget,
            left: &mut left,
            result_of,
        };
        evaluation.value(self, 0)
    }
}

struct Evaluation<'a, 'b> {
    budget: Budget,
    left: &'b mut usize,
    result_of: &'b dyn Fn(u32) -> Option<&'a Value>,
}

/// What is too much of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Excess {
    Bytes,
    Depth,
}

/// What is too much of a value that may take this many bytes and nest this deep, in words; nothing if it fits.
pub(crate) fn measure(value: &Value, max_bytes: usize, max_depth: usize) -> Option<String> {
    let mut left = max_bytes;
    match charge(value, max_depth, &mut left) {
        Ok(()) => None,
        Err(Excess::Bytes) => Some(format!("takes more than {max_bytes} bytes")),
        Err(Excess::Depth) => Some(format!("nests more than {max_depth} deep")),
    }
}

impl<'a> Evaluation<'a, '_> {
    // The recursion is bounded: expressions nest no deeper than `max_depth`.
    fn value(&mut self, expression: &Expression, depth: usize) -> Result<Value, Unresolved> {
        Ok(match expression {
            Expression::Plain(value) => value.clone(),
            Expression::Reference(bound) => {
                let found = self.find(bound)?;
                let Budget { max_depth, .. } = self.budget;
                copy(found, max_depth.saturating_sub(depth), self.left)
                    .map_err(|excess| self.exceeded(&excess, bound))?
            }
            Expression::Text(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        TextPiece::Text(piece) => text.push_str(piece),
                        TextPiece::Reference(bound) => self.write(bound, &mut text)?,
                    }
                }
                Value::String(text)
            }
            Expression::List(items) => {
                let items = items.iter().map(|item| self.value(item, depth + 1));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Expression::Object(fields) => {
                let mut object = Map::with_capacity(fields.len());
                for (name, value) in fields {
                    object.insert(name.clone(), self.value(value, depth + 1)?);
                }
                Value::Object(object)
            }
        })
    }

    /// Texts as they are, everything else as JSON.
    fn write(&mut self, bound: &Bound, text: &mut String) -> Result<(), Unresolved> {
        let found = self.find(bound)?;
        charge(found, self.budget.max_depth, self.left).map_err(|excess| self.exceeded(&excess, bound))?;
        match found {
            Value::String(found) => text.push_str(found),
            other => text.push_str(&other.to_string()),
        }
        Ok(())
    }

    fn find(&self, bound: &Bound) -> Result<&'a Value, Unresolved> {
        let missing = |problem: String| Unresolved::Missing {
            reference: bound.reference.to_string(),
            problem,
        };
        let result = (self.result_of)(bound.step)
            .ok_or_else(|| missing(format!("`{}` has no result", bound.reference.step)))?;
        look_up(result, &bound.reference.path).map_err(missing)
    }

    fn exceeded(&self, excess: &Excess, bound: &Bound) -> Unresolved {
        let reference = bound.reference.to_string();
        let Budget { max_bytes, max_depth } = self.budget;
        match excess {
            Excess::Bytes => Unresolved::TooLarge { reference, max_bytes },
            Excess::Depth => Unresolved::TooDeep { reference, max_depth },
        }
    }
}

/// What is at the end of the path, or what was found instead, in words.
pub(crate) fn look_up<'a>(result: &'a Value, path: &[Segment]) -> Result<&'a Value, String> {
    let mut value = result;
    for segment in path {
        value = match (segment, value) {
            (Segment::Field(name), Value::Object(fields)) => fields
                .get(name)
                .ok_or_else(|| format!("there is no field `{}`{}", excerpt(name), known(fields)))?,
            (Segment::Index(index), Value::Array(items)) => items
                .get(*index)
                .ok_or_else(|| format!("the list has {} elements, none at {index}", items.len()))?,
            (Segment::Field(name), other) => {
                return Err(format!("{} has no field `{}`", kind(other), excerpt(name)));
            }
            (Segment::Index(index), other) => {
                return Err(format!("{} has no element {index}", kind(other)));
            }
        };
    }
    Ok(value)
}

fn known(fields: &Map<String, Value>) -> String {
    if fields.is_empty() {
        return "; the object is empty".to_owned();
    }
    let names: Vec<&str> = fields.keys().take(16).map(|name| excerpt(name)).collect();
    let more = if fields.len() > names.len() { ", .." } else { "" };
    format!("; there are {}{more}", names.join(", "))
}

pub(crate) fn excerpt(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}

pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn take(left: &mut usize, bytes: usize) -> Result<(), Excess> {
    *left = left.checked_sub(bytes).ok_or(Excess::Bytes)?;
    Ok(())
}

/// A copy, if it nests at most `depth` deep and takes at most what is left. The recursion is bounded by `depth`.
fn copy(value: &Value, depth: usize, left: &mut usize) -> Result<Value, Excess> {
    take(left, VALUE_BYTES)?;
    Ok(match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(text) => {
            take(left, text.len())?;
            value.clone()
        }
        Value::Array(items) => {
            let below = depth.checked_sub(1).ok_or(Excess::Depth)?;
            let items = items.iter().map(|item| copy(item, below, left));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Value::Object(fields) => {
            let below = depth.checked_sub(1).ok_or(Excess::Depth)?;
            let mut object = Map::new();
            for (name, value) in fields {
                take(left, name.len())?;
                object.insert(name.clone(), copy(value, below, left)?);
            }
            Value::Object(object)
        }
    })
}

/// As [`copy`], without the copy. An escape in JSON may take six bytes for one.
fn charge(value: &Value, depth: usize, left: &mut usize) -> Result<(), Excess> {
    take(left, VALUE_BYTES)?;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        Value::String(text) => take(left, text.len()),
        Value::Array(items) => {
            let below = depth.checked_sub(1).ok_or(Excess::Depth)?;
            items.iter().try_for_each(|item| charge(item, below, left))
        }
        Value::Object(fields) => {
            let below = depth.checked_sub(1).ok_or(Excess::Depth)?;
            fields.iter().try_for_each(|(name, value)| {
                take(left, name.len())?;
                charge(value, below, left)
            })
        }
    }
}
