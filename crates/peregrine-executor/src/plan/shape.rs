//! Which references can never point at anything, as far as the actions say what they give.

use std::sync::Arc;

use serde_json::Value;

use super::Compiled;
use crate::reference::{Expression, Segment, look_up};
use crate::{Actions, Output};

/// How many steps that give back their parameters, `$ref`s and alternatives are followed.
const MAX_HOPS: usize = 64;

/// What there is instead, where `path` leads nowhere in the result of the step at `place`.
pub(crate) fn dangling(
    steps: &[Arc<Compiled>],
    actions: &Actions,
    place: u32,
    path: &[Segment],
) -> Option<String> {
    let (mut place, mut path) = (place, path);
    for _ in 0..MAX_HOPS {
        if path.is_empty() {
            return None;
        }
        let compiled = &steps[place as usize];
        if matches!(compiled.step.on_failure, crate::OnFailure::Fallback(_)) {
            return None;
        }
        let info = actions.info(&compiled.step.action)?;
        match &info.output {
            Output::Unknown => return None,
            Output::Schema(schema) => return in_schema(schema, schema, path, MAX_HOPS),
            // On to what its parameters refer to there, if anything.
            Output::Parameters => match in_expression(&compiled.parameters, path) {
                Ok(Some((next, rest))) => (place, path) = (next, rest),
                Ok(None) => return None,
                Err(message) => return Some(message),
            },
        }
    }
    None
}

/// Where the path comes to a reference, the step that it refers to and the rest of the path, if it refers to the whole
/// result. Nothing where the path is good or cannot be followed.
fn in_expression<'a>(
    expression: &Expression,
    path: &'a [Segment],
) -> Result<Option<(u32, &'a [Segment])>, String> {
    let (mut expression, mut path) = (expression, path);
    loop {
        match expression {
            Expression::Plain(value) => return look_up(value, path).map(|_| None),
            Expression::Reference(bound) if bound.reference.path.is_empty() => {
                return Ok(Some((bound.step, path)));
            }
            Expression::Reference(_) => return Ok(None),
            Expression::Text(_) => {
                return match path.first() {
                    Some(segment) => Err(format!("a text has no `{segment}`")),
                    None => Ok(None),
                };
            }
            Expression::List(items) => match path.split_first() {
                None => return Ok(None),
                Some((Segment::Index(index), rest)) => {
                    let missing = || format!("the list has {} elements, none at {index}", items.len());
                    expression = items.get(*index).ok_or_else(missing)?;
                    path = rest;
                }
                Some((Segment::Field(name), _)) => return Err(format!("a list has no field `{name}`")),
            },
            Expression::Object(fields) => match path.split_first() {
                None => return Ok(None),
                Some((Segment::Field(name), rest)) => {
                    let found = fields.iter().find(|(known, _)| known == name);
                    let known = || fields.iter().map(|(name, _)| name.as_str());
                    let (_, below) = found.ok_or_else(|| no_field(name, known()))?;
                    expression = below;
                    path = rest;
                }
                Some((Segment::Index(index), _)) => return Err(format!("an object has no element {index}")),
            },
        }
    }
}

/// What there is instead, where no value that fits the schema has something at the end of the path.
fn in_schema(root: &Value, schema: &Value, path: &[Segment], hops: usize) -> Option<String> {
    let hops = hops.checked_sub(1)?;
    let (segment, rest) = path.split_first()?;
    let schema = schema.as_object()?;
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let name = target.strip_prefix("#/$defs/")?;
        return in_schema(root, root.get("$defs")?.get(name)?, path, hops);
    }
    for keyword in ["anyOf", "oneOf"] {
        if let Some(branches) = schema.get(keyword).and_then(Value::as_array) {
            // One branch that has it is enough.
            let mut first = None;
            for branch in branches {
                let message = in_schema(root, branch, path, hops)?;
                first.get_or_insert(message);
            }
            return first;
        }
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let may_be = |name: &str| types.is_empty() || types.contains(&name);
    match segment {
        Segment::Field(name) => {
            if !may_be("object") {
                return Some(format!("{} has no field `{name}`", types.join(" or ")));
            }
            let properties = schema.get("properties")?.as_object()?;
            match (properties.get(name), schema.get("additionalProperties")) {
                (Some(below), _) => in_schema(root, below, rest, hops),
                (None, None | Some(Value::Bool(false))) => {
                    Some(no_field(name, properties.keys().map(String::as_str)))
                }
                (None, Some(below)) => in_schema(root, below, rest, hops),
            }
        }
        Segment::Index(index) => {
            if !may_be("array") {
                return Some(format!("{} has no element {index}", types.join(" or ")));
            }
            let prefix = schema.get("prefixItems").and_then(Value::as_array);
            match (prefix.and_then(|items| items.get(*index)), schema.get("items")) {
                (Some(below), _) => in_schema(root, below, rest, hops),
                (None, Some(Value::Bool(false))) => Some(format!("the list has no element {index}")),
                (None, Some(below)) => in_schema(root, below, rest, hops),
                (None, None) => None,
            }
        }
    }
}

fn no_field<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = known.take(16).collect();
    let names = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    format!("there is no field `{name}`; there are {names}")
}
