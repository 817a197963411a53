//! From the text that a model wrote to the arguments of a tool.
//!
//! Invariant: arguments reach a tool only if they are JSON, within the bound of the tool, and fit its schema. Nothing is
//! filled in and nothing is left out; only a whole number written as `5.0`, which JSON Schema takes as an integer,
//! becomes one where a Rust type reads it, because serde does not.

use peregrine_core::ToolCall;
use serde::de::DeserializeOwned;
use serde_json::{Number, Value};

use crate::schema::{Problem, excerpt, found};
use crate::{ToolError, ToolInfo};

/// How much of the text before a mistake is repeated to the model.
const CONTEXT_CHARS: usize = 24;

/// The checked arguments of a call.
pub(crate) fn check(info: &ToolInfo, call: &ToolCall) -> Result<Value, ToolError> {
    let invalid = |problem| ToolError::invalid(info.name(), vec![problem]);
    let (size, limit) = (call.arguments.len(), info.max_arguments_bytes());
    if size > limit {
        let expected = format!("at most {limit} bytes of JSON");
        return Err(invalid(Problem::new("", expected, format!("{size} bytes"))));
    }
    let value = call
        .parse_arguments()
        .map_err(|error| invalid(not_json(&call.arguments, &error)))?;
    // A registry takes no tool whose schema cannot be enforced, and only a registry makes calls.
    let validator = info.validator().map_err(|error| {
        ToolError::fatal("the tool's schema cannot be enforced").with_source(error.clone())
    })?;
    match validator.check(&value) {
        Ok(()) => Ok(value),
        Err(problems) => Err(ToolError::invalid(info.name(), problems)),
    }
}

/// Where and why a text is not JSON.
fn not_json(text: &str, error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    // serde_json says the place at the end, and nothing of the text.
    let why = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(why, _)| why);
    let found = format!("text that is not JSON: {why}, at line {line}, column {column}");
    let before = &text[..text.floor_char_boundary(offset(text, line, column))];
    let start = before
        .char_indices()
        .rev()
        .nth(CONTEXT_CHARS - 1)
        .map_or(0, |(start, _)| start);
    let problem = Problem::new("", "one JSON object", found);
    problem.with_detail(format!(
        "it goes wrong right after {:?}",
        excerpt(&before[start..])
    ))
}

/// The byte that a line and a column, both counted from 1, stand for.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    before + column.saturating_sub(1)
}

/// Arguments as a Rust type.
///
/// # Errors
///
/// Invalid arguments, if the type is narrower than its schema: a `u32` beyond its range, a check in a `Deserialize`.
pub(crate) fn typed<A: DeserializeOwned>(tool: &str, mut arguments: Value) -> Result<A, ToolError> {
    whole_numbers(&mut arguments);
    match A::deserialize(&arguments) {
        Ok(typed) => Ok(typed),
        // Again, slower, to learn where.
        Err(_) => serde_path_to_error::deserialize(&arguments).map_err(|error| {
            let path = pointer(error.path());
            let there = arguments.pointer(&path).map_or("nothing".to_owned(), found);
            let problem = Problem::new(path, "a value that this argument's type takes", there);
            ToolError::invalid(tool, vec![problem.with_detail(excerpt_of(error.inner()))])
        }),
    }
}

/// What serde says, which may quote the value.
fn excerpt_of(error: &serde_json::Error) -> String {
    error.to_string().chars().take(200).collect()
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        let step = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            // The name of a variant is where its content is; an unknown step leads no further.
            Segment::Enum { variant } => variant.clone(),
            Segment::Unknown => break,
        };
        pointer.push('/');
        pointer.push_str(&step);
    }
    pointer
}

/// Turns `5.0` into `5`, everywhere. A float takes either.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let float = number.as_f64().filter(|_| number.is_f64());
            // Beyond 2^53 a float no longer stands for one integer.
            if let Some(float) =
                float.filter(|float| float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0)
            {
                *number = Number::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
