//! What the validator says about single keywords, and what it refuses.

use peregrine_tools::schema::{SchemaError, Validator};
use serde_json::{Value, json};

#[track_caller]
fn problems(schema: &Value, value: &Value) -> Vec<String> {
    let problems = Validator::new(schema).unwrap().check(value).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_problem_says_where_what_and_what_instead() {
    let schema = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "minLength": 2, "pattern": "^[A-Z]"},
            "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 10},
            "unit": {"enum": ["C", "F"]},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2, "uniqueItems": true},
            "at": {"type": "string", "format": "date-time"}
        },
        "required": ["city", "days"],
        "additionalProperties": false
    });
    let value = json!({
        "city": "o", "unit": "K", "tags": ["x", 1, "x"], "at": "yesterday", "country": {"code": "NO"}
    });
    assert_eq!(
        problems(&schema, &value),
        [
            "/days: expected an integer or null (required), found nothing",
            "/city: expected at least 2 characters, found string of 1 character",
            "/city: expected a string that matches `^[A-Z]`, found string of 1 character",
            "/unit: expected one of \"C\", \"F\", found string of 1 character",
            "/tags: expected at most 2 items, found array of 3 items",
            "/tags/2: expected an item that is not there before, found string of 1 character",
            "/tags/1: expected a string, found number 1",
            "/at: expected a date and time such as 2026-11-21T13:05:00Z, found string of 9 characters",
        ]
    );
    assert_eq!(
        problems(
            &schema,
            &json!({"city": "Oslo", "days": 1.5, "country": {"code": "NO"}})
        ),
        [
            "/days: expected an integer or null, found number 1.5",
            "/country: expected no such property; there are `at`, `city`, `days`, `tags`, `unit`, found object with 1 property",
        ]
    );
    assert_eq!(
        problems(&schema, &json!([1])),
        ["the whole value: expected an object, found array of 1 item"]
    );
}

#[test]
fn of_alternatives_the_one_that_was_meant_is_explained() {
    let tagged = json!({"oneOf": [
        {"type": "object", "properties": {"kind": {"const": "circle"}, "radius": {"type": "number"}},
         "required": ["kind", "radius"]},
        {"type": "object", "properties": {"kind": {"const": "square"}, "side": {"type": "number"}},
         "required": ["kind", "side"]}
    ]});
    assert_eq!(
        problems(&tagged, &json!({"kind": "square", "side": "3"})),
        ["/side: expected a number, found string of 1 character"]
    );
    assert_eq!(
        problems(&tagged, &json!({"kind": "triangle"})),
        ["/kind: expected one of \"circle\", \"square\", found string of 8 characters"]
    );
    assert_eq!(
        problems(&tagged, &json!(3)),
        [
            "the whole value: expected an object with `kind`, `radius` or an object with `kind`, `side`, found number 3"
        ]
    );

    let optional = json!({"anyOf": [{"$ref": "#/$defs/Point"}, {"type": "null"}], "$defs": {
        "Point": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
    }});
    assert_eq!(
        problems(&optional, &json!({"x": []})),
        ["/x: expected a number, found array of 0 items"]
    );
    assert_eq!(
        problems(&optional, &json!("x")),
        ["the whole value: expected an object with `x` or null, found string of 1 character"]
    );

    let both = json!({"oneOf": [{"minimum": 1}, {"maximum": 5}]});
    assert_eq!(
        problems(&both, &json!(3)),
        [
            "the whole value: expected exactly one of 2 alternatives to fit, found number 3 that fits number 1 and 2"
        ]
    );
}

#[test]
fn the_older_spellings_are_enforced_too() {
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "definitions": {"name": {"type": "string"}},
        "properties": {
            "pair": {"items": [{"$ref": "#/definitions/name"}, {"type": "integer"}], "additionalItems": false},
        },
        "dependencies": {"pair": ["a"], "a": {"properties": {"b": {"type": "null"}}}}
    });
    let validator = Validator::new(&schema).unwrap();
    assert!(validator.is_valid(&json!({"pair": ["x", 1], "a": 1, "b": null})));
    for value in [
        json!({"pair": ["x", 1]}),
        json!({"pair": ["x", "y"], "a": 1}),
        json!({"pair": ["x", 1, 2], "a": 1}),
        json!({"a": 1, "b": 2}),
    ] {
        assert!(!validator.is_valid(&value), "{value}");
    }
}

#[test]
fn recursive_schemas_and_pointers_with_signs_work() {
    let tree = json!({
        "$ref": "#/$defs/a~1b%20c",
        "$defs": {"a/b c": {
            "type": "object",
            "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}},
            "required": ["value"]
        }}
    });
    let validator = Validator::new(&tree).unwrap();
    assert!(validator.is_valid(&json!({"value": 1, "children": [{"value": 2, "children": []}]})));
    assert_eq!(
        problems(
            &tree,
            &json!({"value": 1, "children": [{"value": 2, "children": [{}]}]})
        ),
        ["/children/0/children/0/value: expected an integer (required), found nothing"]
    );
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    let refused = |schema: Value| Validator::new(&schema).unwrap_err();
    let at = |path: &str| path.to_owned();
    assert_eq!(
        refused(json!({"properties": {"a": {"typ": "string"}}})),
        SchemaError::UnknownKeyword {
            at: at("/properties/a"),
            keyword: at("typ")
        }
    );
    assert!(
        Validator::new(&json!({"x-order": 3, "$comment": "a note", "examples": [1], "format": "email"}))
            .is_ok()
    );
    assert_eq!(
        refused(json!({"items": 3})),
        SchemaError::NotASchema {
            at: at("/items"),
            found: at("number 3")
        }
    );
    for (schema, keyword) in [
        (json!({"type": "strnig"}), "type"),
        (json!({"type": []}), "type"),
        (json!({"minimum": "1"}), "minimum"),
        (
            json!({"exclusiveMinimum": true, "minimum": 1}),
            "exclusiveMinimum",
        ),
        (json!({"maxLength": -1}), "maxLength"),
        (json!({"maxLength": 1.5}), "maxLength"),
        (json!({"multipleOf": 0}), "multipleOf"),
        (json!({"required": "a"}), "required"),
        (json!({"enum": []}), "enum"),
        (json!({"anyOf": []}), "anyOf"),
        (json!({"uniqueItems": 1}), "uniqueItems"),
        (json!({"properties": []}), "properties"),
    ] {
        let SchemaError::Malformed { keyword: found, .. } = refused(schema.clone()) else {
            panic!("{schema}");
        };
        assert_eq!(found, keyword, "{schema}");
    }
    for reference in [
        "#/$defs/missing",
        "https://example.org/schema",
        "#anchor",
        "#/%ff",
    ] {
        assert_eq!(
            refused(json!({"$ref": reference})),
            SchemaError::Reference {
                at: at(""),
                reference: at(reference)
            }
        );
    }
    assert!(matches!(
        refused(json!({"properties": {"a": {"$id": "b"}}})),
        SchemaError::Unsupported { .. }
    ));
    assert!(matches!(
        refused(json!({"pattern": "(?=a)"})),
        SchemaError::Pattern { .. }
    ));
}

#[test]
fn circles_are_refused_and_loops_through_the_value_are_not() {
    for circle in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"anyOf": [{"$ref": "#"}]}]}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"if": {"$ref": "#/$defs/a"}}}}),
    ] {
        assert!(
            matches!(
                Validator::new(&circle),
                Err(SchemaError::CircularReference { .. })
            ),
            "{circle}"
        );
    }
    assert!(Validator::new(&json!({"properties": {"a": {"$ref": "#"}}, "items": {"$ref": "#"}})).is_ok());
}

#[test]
fn no_schema_and_no_value_makes_a_check_endless() {
    // Each level doubles the ways to look at the value: 2^100 of them.
    let branch = |name: &str| json!({"allOf": [{"properties": {"a": {"$ref": "#"}}}, {"required": [name]}]});
    let hostile = json!({"anyOf": [branch("b"), branch("c")]});
    let validator = Validator::new(&hostile).unwrap();
    let mut value = json!({});
    for _ in 0..100 {
        value = Value::Object([("a".to_owned(), value)].into_iter().collect());
    }
    let problems = validator.check(&value).unwrap_err();
    assert!(problems[0].expected.contains("4000000 steps"), "{problems:?}");
}

#[test]
fn a_value_that_is_too_deep_is_told_so() {
    // Deeper than any text that is read could be, and a `not` does not turn exhaustion into a yes.
    let mut deep = json!(0);
    for _ in 0..2_000 {
        deep = Value::Array(vec![deep]);
    }
    for schema in [
        json!({"items": {"$ref": "#"}}),
        json!({"not": {"items": {"$ref": "#/not"}, "minItems": 1}}),
    ] {
        let problems = Validator::new(&schema).unwrap().check(&deep).unwrap_err();
        assert!(problems[0].expected.contains("192 levels"), "{problems:?}");
    }
}

#[test]
fn a_schema_that_is_too_deep_is_refused() {
    let mut schema = json!({});
    for _ in 0..200 {
        schema = Value::Object([("items".to_owned(), schema)].into_iter().collect());
    }
    assert!(matches!(
        Validator::new(&schema),
        Err(SchemaError::TooDeep { .. })
    ));
}

#[test]
fn large_values_take_no_time_to_speak_of() {
    let unique = Validator::new(&json!({"uniqueItems": true, "items": {"type": "integer"}})).unwrap();
    let items: Vec<u32> = (0..200_000).collect();
    assert!(unique.is_valid(&json!(items)));
    let text = "a".repeat(1_000_000);
    let pattern = Validator::new(&json!({"pattern": "^(a|aa)+$", "maxLength": 1_000_000})).unwrap();
    assert!(pattern.is_valid(&json!(text)));
}
