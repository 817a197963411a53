//! JSON Schema in the OpenAPI subset of Gemini's `Schema`.
//!
//! Rules: references are resolved in place; `null` among the types or alternatives becomes `nullable`;
//! `const` becomes an `enum` of one; `oneOf` becomes `anyOf`; keywords that the subset lacks move into the
//! description. Keywords and properties keep the author's order.

use peregrine_core::{Error, Result};
use serde_json::{Map, Value};

use crate::wire::adapted::describe;

/// How deep references may lead: a schema that refers to itself has no end.
const MAX_DEPTH: usize = 64;

/// The schema in the subset.
///
/// # Errors
///
/// For a schema that refers to itself, or to what is not there.
pub(super) fn adapt(schema: &Value) -> Result<Value> {
    adapt_at(schema, schema, 0)
}

fn adapt_at(schema: &Value, root: &Value, depth: usize) -> Result<Value> {
    if depth > MAX_DEPTH {
        return Err(Error::invalid_request(
            "the schema refers to itself or is very deep, which gemini's OpenAPI form cannot express; send it as JSON Schema",
        ));
    }
    let Some(given) = schema.as_object() else {
        return Ok(schema.clone());
    };
    if let Some(target) = given.get("$ref").and_then(Value::as_str) {
        let found = target.strip_prefix('#').and_then(|place| root.pointer(place));
        let found = found.ok_or_else(|| {
            Error::invalid_request(format!("the schema refers to {target}, which is not in it"))
        })?;
        return adapt_at(found, root, depth + 1);
    }
    let mut adapted = Map::with_capacity(given.len());
    let mut limits: Vec<(&str, &Value)> = Vec::new();
    for (name, value) in given {
        let kept = match name.as_str() {
            "type" => match value.as_array() {
                Some(types) => {
                    one_type(types, &mut adapted, &mut limits, value);
                    continue;
                }
                None => value.clone(),
            },
            "format" | "title" | "description" | "nullable" | "minItems" | "maxItems" | "required"
            | "minProperties" | "maxProperties" | "minimum" | "maximum" | "minLength" | "maxLength"
            | "pattern" | "example" | "default" | "propertyOrdering" => value.clone(),
            "enum"
                if value
                    .as_array()
                    .is_some_and(|values| values.iter().all(Value::is_string)) =>
            {
                value.clone()
            }
            "const" if value.is_string() => {
                adapted.insert("enum".to_owned(), Value::Array(vec![value.clone()]));
                continue;
            }
            "properties" => match value.as_object() {
                Some(properties) => properties
                    .iter()
                    .map(|(key, schema)| Ok((key.clone(), adapt_at(schema, root, depth + 1)?)))
                    .collect::<Result<Map<_, _>>>()
                    .map(Value::Object)?,
                None => value.clone(),
            },
            "items" if value.is_object() => adapt_at(value, root, depth + 1)?,
            "anyOf" | "oneOf" => {
                alternatives(value, root, depth, &mut adapted)?;
                continue;
            }
            "$schema" | "$id" | "$comment" | "$defs" | "definitions" => continue,
            "additionalProperties" if value.is_boolean() => continue,
            _ => {
                limits.push((name, value));
                continue;
            }
        };
        adapted.insert(name.clone(), kept);
    }
    describe(&mut adapted, &limits);
    Ok(Value::Object(adapted))
}

/// `["string", "null"]` is a nullable string; other unions of types are only described.
fn one_type<'a>(
    types: &[Value],
    adapted: &mut Map<String, Value>,
    limits: &mut Vec<(&'a str, &'a Value)>,
    all: &'a Value,
) {
    let mut others = types.iter().filter(|name| *name != "null");
    match (others.next(), others.next()) {
        (Some(only), None) => {
            adapted.insert("type".to_owned(), only.clone());
            if types.len() > 1 {
                adapted.insert("nullable".to_owned(), Value::Bool(true));
            }
        }
        _ => limits.push(("type", all)),
    }
}

/// Alternatives without `null`; a single one that is left takes the place of the union.
fn alternatives(value: &Value, root: &Value, depth: usize, adapted: &mut Map<String, Value>) -> Result<()> {
    let Some(schemas) = value.as_array() else {
        return Ok(());
    };
    let is_null = |schema: &&Value| schema.get("type").is_some_and(|name| name == "null");
    let mut kept = schemas
        .iter()
        .filter(|schema| !is_null(schema))
        .map(|schema| adapt_at(schema, root, depth + 1))
        .collect::<Result<Vec<_>>>()?;
    if kept.len() < schemas.len() {
        adapted.insert("nullable".to_owned(), Value::Bool(true));
    }
    match kept.pop() {
        Some(Value::Object(only)) if kept.is_empty() => {
            for (name, value) in only {
                adapted.entry(name).or_insert(value);
            }
        }
        Some(last) => {
            kept.push(last);
            adapted.insert("anyOf".to_owned(), Value::Array(kept));
        }
        None => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_subset_says_the_same() {
        let schema: Value = serde_json::from_str(
            r##"{"$schema":"s","type":"object","additionalProperties":false,
                "properties":{"z":{"type":["string","null"]},"a":{"$ref":"#/$defs/A"},
                "o":{"oneOf":[{"type":"null"},{"type":"integer","minimum":1,"multipleOf":2}]},
                "u":{"anyOf":[{"type":"string"},{"type":"number"}],"description":"D"},
                "c":{"const":"x"},"n":{"enum":[1,2]}},"required":["z"],
                "$defs":{"A":{"type":"array","items":{"type":"string","const":"q"}}}}"##,
        )
        .unwrap();
        assert_eq!(
            adapt(&schema).unwrap().to_string(),
            concat!(
                r#"{"type":"object","properties":{"z":{"type":"string","nullable":true},"#,
                r#""a":{"type":"array","items":{"type":"string","enum":["q"]}},"#,
                r#""o":{"nullable":true,"type":"integer","minimum":1,"description":"(multipleOf: 2)"},"#,
                r#""u":{"anyOf":[{"type":"string"},{"type":"number"}],"description":"D"},"#,
                r#""c":{"enum":["x"]},"n":{"description":"(enum: [1,2])"}},"required":["z"]}"#
            )
        );
    }

    #[test]
    fn endless_and_missing_references_are_refused() {
        let endless = json!({"$ref": "#"});
        assert!(adapt(&endless).unwrap_err().to_string().contains("itself"));
        let missing = json!({"$ref": "#/$defs/X"});
        assert!(adapt(&missing).unwrap_err().to_string().contains("#/$defs/X"));
    }
}
