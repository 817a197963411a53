//! JSON Schema as Anthropic's structured output takes it.
//!
//! Rules: every object is closed (`additionalProperties: false`); `oneOf` becomes `anyOf`; a `$ref` stands
//! alone; keywords that the grammar has none for (numeric, length and count limits, patterns, defaults, other
//! formats) move into the description. Keywords and properties keep the author's order.

use peregrine_core::{Error, Result};
use serde_json::{Map, Value};

use crate::wire::adapted::describe;

/// The string formats that the provider enforces.
const FORMATS: [&str; 10] = [
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "uri",
    "ipv4",
    "ipv6",
    "uuid",
];

/// The schema in the form that the provider enforces.
///
/// # Errors
///
/// For an object with arbitrary keys: closing it would change what it means.
pub(super) fn adapt(schema: &Value) -> Result<Value> {
    adapt_at(schema, "#")
}

fn adapt_at(schema: &Value, at: &str) -> Result<Value> {
    let Some(given) = schema.as_object() else {
        return Ok(schema.clone());
    };
    let mut adapted = Map::with_capacity(given.len() + 1);
    if let Some(target) = given.get("$ref") {
        adapted.insert("$ref".to_owned(), target.clone());
        for name in ["$defs", "definitions"] {
            if let Some(schemas) = given.get(name) {
                adapted.insert(name.to_owned(), adapt_each(schemas, at, name)?);
            }
        }
        return Ok(Value::Object(adapted));
    }
    let mut limits: Vec<(&str, &Value)> = Vec::new();
    for (name, value) in given {
        let kept = match name.as_str() {
            "type" | "enum" | "const" | "title" | "description" | "required" => value.clone(),
            "properties" | "$defs" | "definitions" => adapt_each(value, at, name)?,
            "anyOf" | "allOf" => adapt_list(value, at, name)?,
            "oneOf" if !given.contains_key("anyOf") => {
                adapted.insert("anyOf".to_owned(), adapt_list(value, at, name)?);
                continue;
            }
            "items" if value.is_object() => adapt_at(value, &format!("{at}/items"))?,
            "format" if value.as_str().is_some_and(|format| FORMATS.contains(&format)) => value.clone(),
            "minItems" if matches!(value.as_u64(), Some(0 | 1)) => value.clone(),
            "additionalProperties" if value.is_object() => return Err(open_object(at)),
            "additionalProperties" => Value::Bool(false),
            "$schema" | "$id" | "$comment" => continue,
            _ => {
                limits.push((name, value));
                continue;
            }
        };
        adapted.insert(name.clone(), kept);
    }
    if is_object(given) {
        adapted
            .entry("additionalProperties")
            .or_insert(Value::Bool(false));
    }
    describe(&mut adapted, &limits);
    Ok(Value::Object(adapted))
}

fn is_object(schema: &Map<String, Value>) -> bool {
    match schema.get("type") {
        Some(Value::String(name)) => name == "object",
        Some(Value::Array(names)) => names.iter().any(|name| name == "object"),
        _ => schema.contains_key("properties"),
    }
}

fn adapt_each(schemas: &Value, at: &str, name: &str) -> Result<Value> {
    let Some(schemas) = schemas.as_object() else {
        return Ok(schemas.clone());
    };
    schemas
        .iter()
        .map(|(key, schema)| Ok((key.clone(), adapt_at(schema, &format!("{at}/{name}/{key}"))?)))
        .collect::<Result<Map<_, _>>>()
        .map(Value::Object)
}

fn adapt_list(schemas: &Value, at: &str, name: &str) -> Result<Value> {
    let Some(schemas) = schemas.as_array() else {
        return Ok(schemas.clone());
    };
    schemas
        .iter()
        .enumerate()
        .map(|(index, schema)| adapt_at(schema, &format!("{at}/{name}/{index}")))
        .collect::<Result<Vec<_>>>()
        .map(Value::Array)
}

fn open_object(at: &str) -> Error {
    Error::invalid_request(format!(
        "the schema at {at} allows arbitrary keys, which anthropic cannot enforce; name the properties, use a list of key and value, or ask without strict"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_move_into_descriptions_and_the_order_stays() {
        let schema: Value = serde_json::from_str(
            r##"{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"P","type":"object",
                "properties":{"zip":{"type":"string","pattern":"^[0-9]{5}$","description":"Postcode."},
                "age":{"minimum":0,"type":["integer","null"],"format":"uint8"},
                "born":{"type":"string","format":"date"},
                "tags":{"type":"array","items":{"type":"string","maxLength":9},"minItems":1,"maxItems":3},
                "pair":{"type":"array","items":{"$ref":"#/$defs/X","description":"gone"},"minItems":2},
                "one":{"oneOf":[{"type":"null"},{"type":"object","additionalProperties":true}]}},
                "required":["zip"],"$defs":{"X":{"properties":{"a":{"default":1,"type":"number"}}}}}"##,
        )
        .unwrap();
        assert_eq!(
            adapt(&schema).unwrap().to_string(),
            concat!(
                r#"{"title":"P","type":"object","#,
                r#""properties":{"zip":{"type":"string","description":"Postcode. (pattern: \"^[0-9]{5}$\")"},"#,
                r#""age":{"type":["integer","null"],"description":"(minimum: 0, format: \"uint8\")"},"#,
                r#""born":{"type":"string","format":"date"},"#,
                r#""tags":{"type":"array","items":{"type":"string","description":"(maxLength: 9)"},"minItems":1,"description":"(maxItems: 3)"},"#,
                r##""pair":{"type":"array","items":{"$ref":"#/$defs/X"},"description":"(minItems: 2)"},"##,
                r#""one":{"anyOf":[{"type":"null"},{"type":"object","additionalProperties":false}]}},"#,
                r#""required":["zip"],"$defs":{"X":{"properties":{"a":{"type":"number","description":"(default: 1)"}},"additionalProperties":false}},"#,
                r#""additionalProperties":false}"#
            )
        );
    }

    #[test]
    fn a_root_reference_keeps_its_definitions_and_odd_schemas_pass() {
        let schema = json!({"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}}});
        assert_eq!(
            adapt(&schema).unwrap().to_string(),
            r##"{"$ref":"#/$defs/A","$defs":{"A":{"type":"object","additionalProperties":false}}}"##
        );
        for odd in [
            json!(true),
            json!({}),
            json!({"properties": 1, "anyOf": 2}),
            json!([]),
        ] {
            adapt(&odd).unwrap();
        }
    }

    #[test]
    fn maps_are_refused_by_place() {
        let schema = json!({"type": "object", "properties": {"m": {"type": "object",
            "additionalProperties": {"type": "integer"}}}});
        let error = adapt(&schema).unwrap_err().to_string();
        assert!(error.contains("#/properties/m"), "{error}");
    }
}
