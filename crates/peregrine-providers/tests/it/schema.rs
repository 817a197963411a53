//! Strict schemas: each rule, each refusal, and the bounds.

use peregrine_core::{ErrorKind, JsonSchema};
use peregrine_providers::wire::schema::strict;
use serde_json::{Value, json};

/// The strict form of an object with one required property `a` of this schema.
fn property(schema: &Value) -> Value {
    let whole = json!({"type": "object", "properties": {"a": schema}, "required": ["a"]});
    strict(&JsonSchema::new(whole)).expect("it can be said").value()["properties"]["a"].clone()
}

fn refusal(schema: Value) -> String {
    let error = strict(&JsonSchema::new(schema)).expect_err("it cannot be said");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    error.to_string()
}

#[test]
fn objects_are_closed_and_all_properties_required_in_their_order() {
    let schema = JsonSchema::parse(
        r##"{"$schema":"x","title":"T","type":"object","additionalProperties":true,"required":["z"],
            "properties":{"z":{"type":"integer","format":"uint32","minimum":0},
                "b":{"type":"string","enum":["x","y"]},"c":{"type":["string","null"]},"d":{"const":1},
                "e":{"anyOf":[{"type":"string"},{"type":"integer"}],"default":null},
                "f":{"$ref":"#/$defs/F"},"g":{"type":"array","items":{"type":"object","properties":{}}}},
            "$defs":{"F":{"type":"object","properties":{"x":{"type":"string","format":"date"}}}}}"##,
    )
    .unwrap();
    assert_eq!(
        strict(&schema).unwrap().as_str(),
        concat!(
            r#"{"$schema":"x","title":"T","type":"object","additionalProperties":false,"required":["z","b","c","d","e","f","g"],"#,
            r#""properties":{"z":{"type":"integer","minimum":0},"#,
            r#""b":{"type":["string","null"],"enum":["x","y",null]},"c":{"type":["string","null"]},"#,
            r#""d":{"anyOf":[{"const":1},{"type":"null"}]},"#,
            r#""e":{"anyOf":[{"type":"string"},{"type":"integer"},{"type":"null"}]},"#,
            r##""f":{"anyOf":[{"$ref":"#/$defs/F"},{"type":"null"}]},"##,
            r#""g":{"type":["array","null"],"items":{"type":"object","properties":{},"required":[],"additionalProperties":false}}},"#,
            r#""$defs":{"F":{"type":"object","properties":{"x":{"type":["string","null"],"format":"date"}},"#,
            r#""required":["x"],"additionalProperties":false}}}"#
        )
    );
    let again = strict(&strict(&schema).unwrap()).unwrap();
    assert_eq!(again, strict(&schema).unwrap(), "a strict schema stays as it is");
}

#[test]
fn references_with_siblings_and_single_intersections_are_flattened() {
    let with = |property: Value| {
        let whole = json!({"type": "object", "required": ["a"], "properties": {"a": property},
            "$defs": {"S": {"type": "string", "description": "inner"}, "T": {"$ref": "#/$defs/S", "title": "t"}}});
        strict(&JsonSchema::new(whole)).unwrap().value()["properties"]["a"].clone()
    };
    let outer = json!({"type": "string", "description": "outer"});
    assert_eq!(with(json!({"$ref": "#/$defs/S", "description": "outer"})), outer);
    assert_eq!(
        with(json!({"allOf": [{"$ref": "#/$defs/S"}], "description": "outer"})),
        outer
    );
    assert_eq!(with(json!({"$ref": "#/$defs/S"})), json!({"$ref": "#/$defs/S"}));
    assert_eq!(
        with(json!({"allOf": [{"$ref": "#/$defs/S"}]})),
        json!({"$ref": "#/$defs/S"})
    );
    let twice = json!({"type": "string", "description": "inner", "title": "t", "default": "x"});
    assert_eq!(with(json!({"$ref": "#/$defs/T", "default": "x"})), twice);
    assert_eq!(
        with(json!({"allOf": [], "type": "null"})),
        json!({"type": "null"})
    );
    let root = json!({"$ref": "#/$defs/R", "$defs": {"R": {"type": "object", "properties": {}}}});
    assert_eq!(strict(&JsonSchema::new(root)).unwrap().value()["type"], "object");
}

#[test]
fn recursive_types_end() {
    let node = json!({"type": "object", "required": ["next", "same"], "properties": {
        "next": {"$ref": "#/$defs/Node", "description": "the next one"}, "same": {"$ref": "#/$defs/Node"}}});
    let whole = json!({"type": "object", "required": ["a"],
        "properties": {"a": {"$ref": "#/$defs/Node", "description": "first"}}, "$defs": {"Node": node}});
    let made = strict(&JsonSchema::new(whole)).unwrap();
    let a = &made.value()["properties"]["a"];
    assert_eq!(a["description"], "first");
    assert_eq!(
        a["properties"]["next"],
        json!({"description": "the next one", "anyOf": [{"$ref": "#/$defs/Node"}]}),
        "the description stays, and the reference is not followed again"
    );
    let own = json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]});
    assert_eq!(
        strict(&JsonSchema::new(own)).unwrap().value()["properties"]["a"],
        json!({"$ref": "#"})
    );
}

#[test]
fn unions_and_constraints_in_words() {
    let choices =
        json!([{"type": "string", "const": "x"}, {"type": "object", "properties": {"y": {"type": "null"}}}]);
    let closed = json!({"anyOf": [{"type": "string", "const": "x"},
        {"type": "object", "properties": {"y": {"type": "null"}}, "required": ["y"], "additionalProperties": false}]});
    assert_eq!(
        property(&json!({"oneOf": choices, "discriminator": {"propertyName": "y"}})),
        closed
    );
    assert_eq!(property(&json!({"anyOf": choices})), closed);
    let told =
        json!({"type": "string", "minLength": 1, "maxLength": 5, "pattern": "a", "description": "a name"});
    let words =
        json!({"type": "string", "pattern": "a", "description": "a name (minLength: 1, maxLength: 5)"});
    assert_eq!(property(&told), words);
    let unique = json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true, "minItems": 1});
    let words = json!({"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "uniqueItems: true"});
    assert_eq!(property(&unique), words);
}

#[test]
fn what_cannot_be_said_is_named_with_its_place() {
    let at =
        |schema: Value| json!({"type": "object", "properties": {"a/b": {"type": "array", "items": schema}}});
    for (schema, words) in [
        (
            json!({"allOf": [{"type": "string"}, {"minLength": 1}]}),
            "`allOf` of several",
        ),
        (json!({"not": {"type": "string"}}), "`not`"),
        (json!({"if": {}, "then": {}, "else": {}}), "`if`"),
        (json!({"dependentRequired": {}}), "`dependentRequired`"),
        (
            json!({"type": "object", "patternProperties": {}}),
            "`patternProperties`",
        ),
        (json!({"type": "array", "prefixItems": []}), "`prefixItems`"),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            "a map",
        ),
        (
            json!({"type": "object", "additionalProperties": true}),
            "any properties",
        ),
        (
            json!({"type": "object", "properties": {}, "required": ["x"]}),
            "\"x\"",
        ),
        (
            json!({"$ref": "https://example.org/x"}),
            "`$ref: https://example.org/x`",
        ),
        (json!({"$ref": "#/$defs/missing"}), "`$ref: #/$defs/missing`"),
        (json!({"oneOf": [], "anyOf": []}), "another union"),
        (json!(true), "no object"),
    ] {
        let message = refusal(at(schema));
        assert!(
            message.contains(words) && message.contains(" at #/properties/a~1b/items"),
            "{message}"
        );
    }
    let clash = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/S", "type": "integer"}},
        "$defs": {"S": {"type": "string"}}});
    assert!(refusal(clash).contains("`type` beside a reference"));
    for root in [
        json!({"type": "string"}),
        json!({"anyOf": [{"type": "object"}]}),
        json!(7),
        json!({}),
    ] {
        assert!(refusal(root).contains("at #"), "the root is an object");
    }
}

#[test]
fn depth_and_growth_are_bounded() {
    let mut deep = json!({"type": "string"});
    for _ in 0..100 {
        deep = json!({"type": "array", "items": deep});
    }
    assert!(refusal(json!({"type": "object", "properties": {"a": deep}})).contains("too deeply"));
    // Each definition inlines the one before twice: 2^40 subschemas without a bound.
    let mut defs = serde_json::Map::new();
    defs.insert("D0".to_owned(), json!({"type": "string"}));
    for n in 1..40 {
        let before = json!({"$ref": format!("#/$defs/D{}", n - 1), "description": "x"});
        defs.insert(
            format!("D{n}"),
            json!({"type": "object", "properties": {"a": before, "b": before}}),
        );
    }
    let bomb =
        json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/D39", "title": "x"}}, "$defs": defs});
    assert!(refusal(bomb).contains("too deeply or too large"));
    let mut chain = serde_json::Map::new();
    for n in 0..100 {
        let next = json!({"$ref": format!("#/$defs/D{}", n + 1), "title": "x"});
        chain.insert(format!("D{n}"), next);
    }
    chain.insert("D100".to_owned(), json!({"type": "string"}));
    let chain =
        json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/D0", "title": "x"}}, "$defs": chain});
    assert!(refusal(chain).contains("too often"));
    let ring = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/A", "title": "x"}},
        "$defs": {"A": {"$ref": "#/$defs/B", "title": "a"}, "B": {"$ref": "#/$defs/A", "title": "b"}}});
    strict(&JsonSchema::new(ring)).expect("a ring of references ends");
}
