//! The default responder: an answer that follows from the request alone, so that a client works against a
//! server without a script.
//!
//! In this order: a conversation that ends with a tool result is answered `tool said: {result}`; else, if
//! tools are offered and not forbidden, the first one (or the one demanded) is called with arguments made
//! from its schema; else, if a schema or JSON is demanded, the text is JSON made from it; else the text is
//! `echo: {last user text}`. Strings made from a schema are the last user text.

use serde_json::{Map, Value, json};

use super::answer::{Answer, ToolCall, Usage};
use super::dialect::{Choice, View};

/// Nested schemas are followed this deep; below it everything is `null`.
const MAX_DEPTH: usize = 12;

/// The answer to a request.
pub(crate) fn answer(view: &View) -> Answer {
    if let Some(result) = &view.tool_result {
        return Answer {
            text: Some(structured(view, format!("tool said: {result}"))),
            ..Answer::default()
        };
    }
    let tool = match &view.choice {
        Choice::None => None,
        Choice::Named(name) => view.tools.iter().find(|tool| tool.name == *name),
        Choice::Auto | Choice::Required => view.tools.first(),
    };
    if let Some(tool) = tool {
        let arguments = match from_schema(&tool.parameters, &tool.parameters, &view.last_text, 0) {
            arguments @ Value::Object(_) => arguments,
            _ => json!({}),
        };
        return Answer {
            tool_calls: vec![ToolCall::new("", &tool.name, arguments)],
            ..Answer::default()
        };
    }
    Answer {
        text: Some(structured(view, format!("echo: {}", view.last_text))),
        ..Answer::default()
    }
}

/// The text itself, or JSON if the request demands JSON.
fn structured(view: &View, text: String) -> String {
    match &view.schema {
        Some(schema) => from_schema(schema, schema, &view.last_text, 0).to_string(),
        None if view.json_mode => json!({"text": text}).to_string(),
        None => text,
    }
}

/// A value that follows a JSON schema (or Gemini's subset, with upper-case types).
fn from_schema(schema: &Value, root: &Value, text: &str, depth: usize) -> Value {
    let Some(fields) = schema.as_object().filter(|_| depth < MAX_DEPTH) else {
        return Value::Null;
    };
    for word in ["const", "default"] {
        if let Some(value) = fields.get(word) {
            return value.clone();
        }
    }
    if let Some(value) = fields
        .get("enum")
        .and_then(Value::as_array)
        .and_then(|values| values.first())
    {
        return value.clone();
    }
    if let Some(target) = fields
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|r| root.pointer(r.strip_prefix('#')?))
    {
        return from_schema(target, root, text, depth + 1);
    }
    for word in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = fields
            .get(word)
            .and_then(Value::as_array)
            .and_then(|all| all.first())
        {
            return from_schema(first, root, text, depth + 1);
        }
    }
    let kind = match fields.get("type") {
        Some(Value::String(kind)) => kind.to_ascii_lowercase(),
        Some(Value::Array(kinds)) => kinds
            .first()
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_ascii_lowercase(),
        _ if fields.contains_key("properties") => "object".to_owned(),
        _ => String::new(),
    };
    match kind.as_str() {
        "object" => {
            let properties = fields.get("properties").and_then(Value::as_object);
            let required: Vec<&str> = fields
                .get("required")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let mut object = Map::new();
            for (name, property) in properties.into_iter().flatten() {
                if required.is_empty() || required.contains(&name.as_str()) {
                    object.insert(name.clone(), from_schema(property, root, text, depth + 1));
                }
            }
            Value::Object(object)
        }
        "array" => match fields.get("items") {
            Some(items) => json!([from_schema(items, root, text, depth + 1)]),
            None => json!([]),
        },
        "string" => json!(text),
        "integer" | "number" => fields.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        "boolean" => json!(true),
        _ => Value::Null,
    }
}

/// The tokens of a text with this many characters: a quarter, rounded up.
pub(crate) fn tokens(chars: u64) -> u64 {
    chars.div_ceil(4)
}

/// The tokens that an answer without prescribed usage reports; the prompt counts at least one.
pub(crate) fn usage(view: &View, answer: &Answer) -> Usage {
    let (all, reasoning) = answer.written_chars();
    Usage::new(tokens(view.input_chars).max(1), tokens(all)).with_reasoning(tokens(reasoning))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::dialect::ToolView;

    fn fill(schema: &Value) -> Value {
        from_schema(schema, schema, "T", 0)
    }

    #[test]
    fn values_follow_the_schema() {
        let schema = json!({
            "type": "object",
            "properties": {
                "city": {"type": "STRING"}, "unit": {"enum": ["c", "f"]}, "n": {"type": "integer", "minimum": 3},
                "tags": {"type": "array", "items": {"type": ["string", "null"]}}, "inner": {"$ref": "#/$defs/I"},
                "left_out": {"type": "string"},
            },
            "required": ["city", "unit", "n", "tags", "inner"],
            "$defs": {"I": {"properties": {"ok": {"type": "boolean"}}}},
        });
        assert_eq!(
            fill(&schema),
            json!({"city": "T", "unit": "c", "n": 3, "tags": ["T"], "inner": {"ok": true}})
        );
    }

    #[test]
    fn a_schema_that_contains_itself_ends() {
        let schema = json!({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]});
        assert!(fill(&schema).is_object());
    }

    #[test]
    fn a_tool_is_called_once_and_its_result_ends_the_loop() {
        let tool = ToolView {
            name: "add".into(),
            parameters: json!({"type": "object"}),
        };
        let mut view = View {
            last_text: "hi".into(),
            tools: vec![tool],
            ..View::default()
        };
        assert_eq!(answer(&view).tool_calls.len(), 1);
        view.tool_result = Some("3".into());
        assert_eq!(answer(&view).text.as_deref(), Some("tool said: 3"));
        (view.tool_result, view.choice) = (None, Choice::None);
        assert_eq!(answer(&view).text.as_deref(), Some("echo: hi"));
    }
}
