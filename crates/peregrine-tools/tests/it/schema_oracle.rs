//! Random schemas and values: the validator agrees with an independent one.

use std::collections::BTreeSet;

use peregrine_tools::schema::{SchemaError, Validator};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

const NAMES: [&str; 3] = ["a", "b", "c1"];

fn scalar() -> impl Strategy<Value = Value> {
    select(vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(-2),
        json!(3),
        json!(1.0),
        json!(0.5),
        json!(2.25),
        json!(-0.0),
        json!(9_007_199_254_740_993_i64),
        json!(u64::MAX),
        json!(1e30),
        json!(""),
        json!("a"),
        json!("b1"),
        json!("éé"),
        json!("A b\n"),
    ])
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            btree_map(select(NAMES.to_vec()), inner, 0..4).prop_map(|map| {
                Value::Object(
                    map.into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

fn keyword(
    name: &'static str,
    value: impl Strategy<Value = Value>,
) -> impl Strategy<Value = (String, Value)> {
    value.prop_map(move |value| (name.to_owned(), value))
}

/// One keyword that needs no schema within.
fn flat_keyword() -> BoxedStrategy<(String, Value)> {
    let type_name = || {
        select(vec![
            "null", "boolean", "integer", "number", "string", "array", "object",
        ])
    };
    let number = || {
        select(vec![
            json!(0),
            json!(1),
            json!(1.5),
            json!(-1),
            json!(2.0),
            json!(1e19),
        ])
    };
    let size = || (0_u64..4).prop_map(Value::from);
    let pattern = || {
        let patterns = ["^a", "b", r"\d$", r"^\s*$", "^.{2}$", "[^a-c]", r"\W"];
        select(patterns.to_vec()).prop_map(Value::from)
    };
    let names = || vec(select(NAMES.to_vec()), 1..3).prop_map(|names| json!(BTreeSet::from_iter(names)));
    prop_oneof![
        3 => keyword("type", type_name().prop_map(Value::from)),
        1 => keyword("type", vec(type_name(), 1..4).prop_map(|names| json!(BTreeSet::from_iter(names)))),
        1 => keyword("enum", vec(value(), 1..4).prop_map(Value::Array)),
        1 => keyword("const", value()),
        1 => keyword("minimum", number()),
        1 => keyword("maximum", number()),
        1 => keyword("exclusiveMinimum", number()),
        1 => keyword("exclusiveMaximum", number()),
        1 => keyword("multipleOf", select(vec![json!(1), json!(0.5), json!(2), json!(0.25), json!(3)])),
        1 => keyword("minLength", size()),
        1 => keyword("maxLength", size()),
        1 => keyword("pattern", pattern()),
        1 => keyword("required", names()),
        1 => keyword("minProperties", size()),
        1 => keyword("maxProperties", size()),
        1 => keyword("minItems", size()),
        1 => keyword("maxItems", size()),
        1 => keyword("uniqueItems", any::<bool>().prop_map(Value::from)),
        1 => keyword("dependentRequired", (select(NAMES.to_vec()), names())
            .prop_map(|(given, names)| json!({given: names}))),
        1 => keyword("$ref", select(vec![json!("#/$defs/x"), json!("#/$defs/y"), json!("#")])),
        1 => keyword("title", Just(json!("a note"))),
    ]
    .boxed()
}

fn schema() -> BoxedStrategy<Value> {
    let object = |keywords: Vec<(String, Value)>| Value::Object(keywords.into_iter().collect::<Map<_, _>>());
    let leaf = prop_oneof![
        1 => any::<bool>().prop_map(Value::from),
        6 => vec(flat_keyword(), 0..3).prop_map(object),
    ];
    leaf.prop_recursive(4, 40, 4, move |inner| {
        let inner = inner.boxed();
        let one = || inner.clone();
        let some = || vec(inner.clone(), 1..4).prop_map(Value::Array);
        let named = || {
            btree_map(select(NAMES.to_vec()), inner.clone(), 1..3).prop_map(|map| json!(map)).boxed()
        };
        let by_pattern = (select(vec!["^a", "[0-9]", "."]), inner.clone());
        let nested = prop_oneof![
            4 => keyword("properties", named()),
            1 => keyword("patternProperties", by_pattern.prop_map(|(pattern, schema)| json!({pattern: schema}))),
            2 => keyword("additionalProperties", one()),
            1 => keyword("propertyNames", one()),
            1 => keyword("dependentSchemas", named()),
            2 => keyword("items", one()),
            1 => keyword("prefixItems", some()),
            1 => keyword("contains", one()),
            1 => keyword("minContains", (0_u64..3).prop_map(Value::from)),
            1 => keyword("maxContains", (0_u64..3).prop_map(Value::from)),
            1 => keyword("allOf", some()),
            2 => keyword("anyOf", some()),
            2 => keyword("oneOf", some()),
            1 => keyword("not", one()),
            1 => keyword("if", one()),
            1 => keyword("then", one()),
            1 => keyword("else", one()),
            1 => keyword("unevaluatedProperties", one()),
            1 => keyword("unevaluatedItems", one()),
        ];
        (vec(nested, 1..4), vec(flat_keyword(), 0..2))
            .prop_map(move |(nested, flat)| object(nested.into_iter().chain(flat).collect()))
    })
    .boxed()
}

/// A schema with two definitions that anything in it may refer to.
fn document() -> impl Strategy<Value = Value> {
    (schema(), schema(), schema()).prop_map(|(root, x, y)| match root {
        Value::Object(mut map) => {
            map.insert("$defs".to_owned(), json!({"x": x, "y": y}));
            Value::Object(map)
        }
        bool => bool,
    })
}

/// Every keyword at and around its bounds, and the keywords that look at each other.
#[test]
fn agrees_at_the_bounds() {
    let schemas = [
        json!({"minimum": 1}),
        json!({"minimum": 1.5}),
        json!({"maximum": 1}),
        json!({"maximum": 1.5}),
        json!({"exclusiveMinimum": 1}),
        json!({"exclusiveMaximum": 1}),
        json!({"multipleOf": 1}),
        json!({"multipleOf": 0.5}),
        json!({"minLength": 1}),
        json!({"maxLength": 1}),
        json!({"minLength": 2, "maxLength": 2}),
        json!({"minItems": 1, "maxItems": 2}),
        json!({"minProperties": 1, "maxProperties": 2}),
        json!({"uniqueItems": true}),
        json!({"enum": [1, "a", null, [1], {"a": 1}]}),
        json!({"const": 1}),
        json!({"const": {"a": 1, "b": [1.0]}}),
        json!({"required": ["a"]}),
        json!({"properties": {"a": {"type": "integer"}}}),
        json!({"properties": {"a": true}, "additionalProperties": false}),
        json!({"properties": {"a": true}, "patternProperties": {"^b": {"type": "integer"}}, "additionalProperties": false}),
        json!({"propertyNames": {"maxLength": 1, "pattern": "a"}}),
        json!({"dependentRequired": {"a": ["b"]}}),
        json!({"dependentSchemas": {"a": {"required": ["b"]}}}),
        json!({"items": {"type": "integer"}}),
        json!({"prefixItems": [{"type": "integer"}], "items": {"type": "string"}}),
        json!({"prefixItems": [{"type": "integer"}], "items": false}),
        json!({"contains": {"const": 1}}),
        json!({"contains": {"const": 1}, "minContains": 2}),
        json!({"contains": {"const": 1}, "minContains": 0, "maxContains": 1}),
        json!({"anyOf": [{"type": "string"}, {"minimum": 1}]}),
        json!({"oneOf": [{"type": "integer"}, {"minimum": 1}]}),
        json!({"allOf": [{"type": "integer"}, {"minimum": 1}]}),
        json!({"not": {"type": "integer"}}),
        json!({"if": {"type": "integer"}, "then": {"minimum": 1}, "else": {"type": "string"}}),
        json!({"if": {"required": ["a"]}, "then": {"required": ["b"]}}),
        json!({"unevaluatedProperties": false}),
        json!({"anyOf": [{"properties": {"a": true}, "required": ["a"]}, {"properties": {"b": true}, "required": ["b"]}],
            "unevaluatedProperties": false}),
        json!({"oneOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"properties": {"b": true}, "required": ["b"]}],
            "unevaluatedProperties": {"type": "integer"}}),
        json!({"if": {"properties": {"a": {"const": 1}}, "required": ["a"]}, "then": {"properties": {"b": true}},
            "unevaluatedProperties": false}),
        json!({"allOf": [{"properties": {"a": true}}], "dependentSchemas": {"a": {"properties": {"b": true}}},
            "unevaluatedProperties": false}),
        json!({"$ref": "#/$defs/x", "unevaluatedProperties": false, "$defs": {"x": {"properties": {"a": true}}}}),
        json!({"not": {"properties": {"a": {"const": 7}}}, "properties": {"a": true}, "unevaluatedProperties": false}),
        json!({"allOf": [{"additionalProperties": {"type": "integer"}}], "unevaluatedProperties": false}),
        json!({"properties": {"a": {"properties": {"b": true}}}, "unevaluatedProperties": false}),
        json!({"prefixItems": [true], "unevaluatedItems": false}),
        json!({"contains": {"const": 1}, "unevaluatedItems": {"type": "string"}}),
        json!({"anyOf": [{"prefixItems": [{"const": 1}]}, {"prefixItems": [true, {"const": "a"}]}],
            "unevaluatedItems": false}),
        json!({"items": {"type": "integer"}, "unevaluatedItems": false}),
    ];
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(0.75),
        json!(1),
        json!(1.0),
        json!(1.25),
        json!(1.5),
        json!(2),
        json!(-1),
        json!(""),
        json!("a"),
        json!("é"),
        json!("ab"),
        json!("éé"),
        json!("abc"),
        json!([]),
        json!([1]),
        json!([1.0]),
        json!(["a"]),
        json!([1, "a"]),
        json!([1, 1]),
        json!([1, 1.0]),
        json!(["a", 1]),
        json!([2, "a"]),
        json!([2, "b"]),
        json!([1, 1, "a"]),
        json!([{"a": 1}, {"a": 1.0}]),
        json!([{"a": 1}, {"a": 2}]),
        json!({}),
        json!({"a": 1}),
        json!({"a": "a"}),
        json!({"a": 2}),
        json!({"b": 1}),
        json!({"b": "a"}),
        json!({"ab": 1}),
        json!({"a": 1, "b": [1]}),
        json!({"b": [1.0], "a": 1}),
        json!({"a": 1, "b": 1}),
        json!({"a": "a", "b": 1}),
        json!({"a": 1, "c": 1}),
        json!({"a": 1, "b": 1, "c": 1}),
        json!({"a": {"b": 1}}),
        json!({"a": {"c": 1}}),
    ];
    for schema in &schemas {
        let ours = Validator::new(schema).unwrap();
        let theirs = jsonschema::draft202012::new(schema).unwrap();
        let fitting: Vec<_> = values.iter().filter(|value| ours.is_valid(value)).collect();
        for value in &values {
            assert_eq!(
                fitting.contains(&value),
                theirs.is_valid(value),
                "{schema} {value}"
            );
            assert_eq!(
                ours.check(value).is_ok(),
                theirs.is_valid(value),
                "{schema} {value}"
            );
        }
        assert!(
            !fitting.is_empty() && fitting.len() < values.len(),
            "{schema} tells nothing apart"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_an_independent_validator(schema in document(), values in vec(value(), 8)) {
        let ours = match Validator::new(&schema) {
            Ok(ours) => ours,
            // The other one answers these in its own way.
            Err(SchemaError::CircularReference { .. } | SchemaError::Reference { .. }) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let theirs = jsonschema::draft202012::new(&schema).unwrap();
        for value in &values {
            let fits = ours.is_valid(value);
            prop_assert_eq!(fits, theirs.is_valid(value), "{} {}", &schema, value);
            match ours.check(value) {
                Ok(()) => prop_assert!(fits),
                Err(problems) => {
                    prop_assert!(!fits && !problems.is_empty() && problems.len() <= Validator::MAX_PROBLEMS);
                    for problem in problems {
                        prop_assert!(!problem.expected.is_empty() && !problem.found.is_empty());
                    }
                }
            }
        }
    }
}

fn cases() -> u32 {
    std::env::var("PEREGRINE_FUZZ_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(200)
}
