//! What is expected and what was found, in words.

use std::fmt::Write as _;

use serde_json::Value;

use super::node::{Keyword, Node, NodeId, Types};
use super::path::excerpt;

/// How many names or values one sentence lists.
const MAX_LISTED: usize = 12;
/// How far a summary follows references.
const MAX_SUMMARY_DEPTH: u32 = 4;

/// What stands somewhere: its type, and its size or value, but no text of it.
pub(crate) fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(bool) => format!("boolean {bool}"),
        Value::Number(number) => format!("number {number}"),
        Value::String(text) => format!("string of {}", characters(text.chars().count() as u64)),
        Value::Array(list) => format!("array of {}", items(list.len() as u64)),
        Value::Object(map) => format!("object with {}", properties(map.len() as u64)),
    }
}

pub(super) fn characters(number: u64) -> String {
    count(number, "character", "characters")
}

pub(super) fn items(number: u64) -> String {
    count(number, "item", "items")
}

pub(super) fn properties(number: u64) -> String {
    count(number, "property", "properties")
}

/// `1 item`, `2 items`.
fn count(number: u64, one: &str, many: &str) -> String {
    let word = if number == 1 { one } else { many };
    format!("{number} {word}")
}

/// `a string`, `an integer or null`.
pub(super) fn types(types: Types) -> String {
    let words = types.names().map(|name| match name {
        "null" => name.to_owned(),
        "integer" | "array" | "object" => format!("an {name}"),
        _ => format!("a {name}"),
    });
    words.collect::<Vec<_>>().join(" or ")
}

/// `one of "a", "b"`.
pub(super) fn one_of<'a>(values: impl ExactSizeIterator<Item = &'a Value>) -> String {
    match values.len() {
        1 => joined(values.map(literal), ""),
        _ => format!("one of {}", joined(values.map(literal), ", ")),
    }
}

/// A value out of a schema, as JSON.
pub(super) fn literal(value: &Value) -> String {
    excerpt(&value.to_string())
}

/// `` `a`, `b` ``.
pub(super) fn names<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    joined(names.map(|name| format!("`{}`", excerpt(name))), ", ")
}

fn joined(items: impl ExactSizeIterator<Item = String>, separator: &str) -> String {
    let more = items.len().saturating_sub(MAX_LISTED);
    let mut text = items.take(MAX_LISTED).collect::<Vec<_>>().join(separator);
    if more > 0 {
        let _ = write!(text, " or {more} others");
    }
    text
}

/// What a schema expects, in a few words.
pub(super) fn summary(nodes: &[Node], id: NodeId) -> String {
    summarise(nodes, id, MAX_SUMMARY_DEPTH).unwrap_or_else(|| "a value".to_owned())
}

fn summarise(nodes: &[Node], id: NodeId, depth: u32) -> Option<String> {
    let keywords = &nodes[id].keywords;
    let required = keywords.iter().find_map(|keyword| match keyword {
        Keyword::Required(names) if !names.is_empty() => Some(names),
        _ => None,
    });
    keywords.iter().find_map(|keyword| match keyword {
        Keyword::Never => Some("nothing".to_owned()),
        Keyword::Const(value) => Some(literal(value)),
        Keyword::Enum(values) => Some(one_of(values.iter())),
        Keyword::Type(kinds) => {
            let mut words = types(*kinds);
            if let Some(required) = required.filter(|_| words == "an object") {
                let _ = write!(
                    words,
                    " with {}",
                    names(required.iter().map(|needed| &needed.name))
                );
            }
            // An enumeration says more than the type that it is of.
            let narrower = |keyword: &Keyword| matches!(keyword, Keyword::Const(_) | Keyword::Enum(_));
            if keywords.iter().any(narrower) {
                None
            } else {
                Some(words)
            }
        }
        Keyword::Ref(node) if depth > 0 => summarise(nodes, *node, depth - 1),
        Keyword::AllOf(parts) if depth > 0 => {
            parts.iter().find_map(|part| summarise(nodes, *part, depth - 1))
        }
        Keyword::AnyOf(parts) | Keyword::OneOf(parts) if depth > 0 => {
            let parts: Option<Vec<_>> = parts
                .iter()
                .map(|part| summarise(nodes, *part, depth - 1))
                .collect();
            Some(joined(dedup(parts?).into_iter(), " or "))
        }
        _ => None,
    })
}

/// What any of several schemas expects.
pub(super) fn any_of(nodes: &[Node], ids: &[NodeId]) -> String {
    let parts = dedup(ids.iter().map(|id| summary(nodes, *id)).collect());
    match parts.as_slice() {
        [one] if ids.len() > 1 => format!("{one} that fits one of {} alternatives", ids.len()),
        _ => joined(parts.into_iter(), " or "),
    }
}

fn dedup(mut parts: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    parts.retain(|part| seen.insert(part.clone()));
    parts
}
