//! The offline model and response schemas: what it fills, what it leaves out, what it refuses.

use peregrine_core::{ChatRequest, DocumentPart, ErrorKind, Message, Part, ResponseFormat, Result};
use serde_json::{Value, json};

use crate::offline::{about, complete};

fn fill(request: ChatRequest, schema: Value) -> Result<Value> {
    let request = request.with_response_format(ResponseFormat::schema("answer", schema));
    let answer = complete(&request)?;
    assert_eq!(answer.metadata["offline"], true);
    assert_eq!(answer.metadata["method"], "bm25 schema filling");
    Ok(serde_json::from_str(&answer.message.text()).expect("the answer is JSON"))
}

fn object(properties: &Value) -> Value {
    let required: Vec<&String> = properties.as_object().expect("an object").keys().collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

#[test]
fn values_stand_near_the_names_of_fields() {
    let schema = object(&json!({
        "port": {"type": "integer", "minimum": 1, "maximum": 65535},
        "msrv": {"type": "string", "description": "minimum supported Rust version"},
        "license": {"type": "string"},
        "contact": {"type": "string", "format": "email"},
        "chunk_size": {"type": "string"},
        "parallel_transfers": {"type": "number"},
        "encryption": {"type": "string", "enum": ["off", "optional", "always on"]},
        "checksum": {"enum": ["SHA-256", "BLAKE3"]},
        "kind": {"const": "tool"}
    }));
    assert_eq!(
        fill(about("Extract the settings."), schema).unwrap(),
        json!({
            "port": 7171,
            "msrv": "1.95",
            "license": "MIT OR Apache-2.0.",
            "contact": "grace@example.org",
            "chunk_size": "8 MiB",
            "parallel_transfers": 4,
            "encryption": "always on",
            "checksum": "BLAKE3",
            "kind": "tool"
        })
    );
}

#[test]
fn answers_sources_and_quotes() {
    let schema = object(&json!({
        "question": {"type": "string"},
        "answer": {"type": "string"},
        "source": {"type": "string"},
        "quotes": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "sources": {"type": "array", "items": {"type": "string"}, "minItems": 1}
    }));
    assert_eq!(
        fill(about("On which port does Falcon listen?"), schema).unwrap(),
        json!({
            "question": "On which port does Falcon listen?",
            "answer": "Falcon listens on port 7171.",
            "source": "docs/guide.md",
            "quotes": ["Falcon listens on port 7171."],
            "sources": ["docs/guide.md"]
        })
    );
}

#[test]
fn nothing_is_made_up() {
    let president = json!({"type": "string", "description": "the president of France"});
    let required = object(&json!({"president": president}));
    let error = fill(about("Who is the president of France?"), required).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("/president"), "{error}");

    let optional =
        json!({"type": "object", "properties": {"president": president, "port": {"type": "integer"}}});
    assert_eq!(
        fill(about("Tell me all."), optional).unwrap(),
        json!({"port": 7171})
    );
    let nullable = object(&json!({
        "president": {"type": ["string", "null"]},
        "capital": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "mayors": {"type": "array", "items": {"type": "object", "properties": {"mayor": {"type": "string"}}, "required": ["mayor"]}},
        "language": {"type": "string", "default": "unknown"}
    }));
    assert_eq!(
        fill(about("Who is the president of France?"), nullable).unwrap(),
        json!({"president": null, "capital": null, "mayors": [], "language": "unknown"})
    );
    let deep = object(
        &json!({"a": object(&json!({"b": {"type": "array", "items": {"type": "integer", "minimum": 9_999_999}, "minItems": 1}}))}),
    );
    let error = fill(about("Numbers?"), deep).unwrap_err().to_string();
    assert!(error.contains("/a/b"), "{error}");
}

#[test]
fn what_it_cannot_check_counts_as_not_found() {
    let pattern =
        json!({"type": "object", "properties": {"port": {"type": "string", "pattern": "^[0-9]+$"}}});
    assert_eq!(fill(about("port?"), pattern.clone()).unwrap(), json!({}));
    let required = object(&pattern["properties"]);
    assert!(
        fill(about("port?"), required)
            .unwrap_err()
            .to_string()
            .contains("\"pattern\"")
    );
    let short = object(&json!({"port": {"type": ["string", "null"], "maxLength": 3}}));
    assert_eq!(fill(about("port?"), short).unwrap(), json!({"port": null}));
    let undescribed = json!({"type": "object", "properties": {}, "required": ["x"]});
    assert!(
        fill(about("port?"), undescribed)
            .unwrap_err()
            .to_string()
            .contains("/x")
    );
    let endless = json!({"$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"]}}, "$ref": "#/$defs/n"});
    assert!(
        fill(about("port?"), endless)
            .unwrap_err()
            .to_string()
            .contains("too deeply")
    );
    let wide = json!({"$defs": {"n": {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"});
    assert!(fill(about("port?"), wide).unwrap().is_object(), "it ends");
    assert!(fill(about("port?"), json!(false)).is_err());
}

#[test]
fn arrays_of_objects_come_from_tables_lists_and_sentences() {
    let limits = object(&json!({"limits": {"type": "array", "items": object(&json!({
        "limit": {"type": "string"}, "default": {"type": "string"}, "maximum": {"type": "string"}
    }))}}));
    assert_eq!(
        fill(about("Which limits are there?"), limits).unwrap(),
        json!({"limits": [
            {"limit": "chunk size", "default": "8 MiB", "maximum": "64 MiB"},
            {"limit": "parallel transfers", "default": "4", "maximum": "128"},
            {"limit": "retries", "default": "5", "maximum": "50"}
        ]})
    );
    let people = object(&json!({"people": {"type": "array", "items": object(&json!({
        "name": {"type": "string"}, "age": {"type": "integer"}
    }))}}));
    let said = "Extract the people: Ada Lovelace is 36 years old. Our friend Bob is 41. Nobody else came.";
    assert_eq!(
        fill(ChatRequest::user(said), people).unwrap(),
        json!({"people": [{"name": "Ada Lovelace", "age": 36}, {"name": "Bob", "age": 41}]})
    );
}

#[test]
fn plain_text_and_lists() {
    let person = object(
        &json!({"name": {"type": "string"}, "age": {"type": "integer"}, "email": {"type": "string", "format": "email"}}),
    );
    assert_eq!(
        fill(
            ChatRequest::user("Ada Lovelace (ada@example.org) is 36 years old."),
            person
        )
        .unwrap(),
        json!({"name": "Ada Lovelace", "age": 36, "email": "ada@example.org"})
    );
    let text = "Owner: Grace Hopper\nTags: fast, small and safe\nActive: yes\nBeta: no\nScores: 3, 5, 8\n\nCommands:\n\n- init\n- run\n";
    let request = ChatRequest::new([
        Message::user("Fill the form.").with_part(Part::Document(DocumentPart::text("form.txt", text)))
    ]);
    let form = object(&json!({
        "owner": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "active": {"type": "boolean"},
        "beta": {"type": "boolean"},
        "scores": {"type": "array", "items": {"type": "integer"}},
        "commands": {"type": "array", "items": {"type": "string"}}
    }));
    assert_eq!(
        fill(request, form).unwrap(),
        json!({
            "owner": "Grace Hopper",
            "tags": ["fast", "small", "safe"],
            "active": true,
            "beta": false,
            "scores": [3, 5, 8],
            "commands": ["init", "run"]
        })
    );
}

#[test]
fn json_without_a_schema() {
    let with = |question| {
        let request = about(question).with_response_format(ResponseFormat::Json);
        let answer = complete(&request).unwrap();
        serde_json::from_str::<Value>(&answer.message.text()).unwrap()
    };
    assert_eq!(
        with("On which port does Falcon listen?"),
        json!({
            "answer": "Falcon listens on port 7171.",
            "quotes": [{"text": "Falcon listens on port 7171.", "source": "docs/guide.md"}]
        })
    );
    assert_eq!(
        with("Who is the president of France?"),
        json!({"answer": null, "quotes": []})
    );
}
