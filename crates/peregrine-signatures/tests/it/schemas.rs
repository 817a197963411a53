//! Golden tests of the schemas that providers are sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use peregrine_signatures::{
    Compiled, Composition, Field, JsonSchema, Signature, SignatureSpec, Stage, Type, schemars,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A party to a contract.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
struct Party {
    /// as written
    name: String,
    age: Option<u8>,
    role: Role,
    #[serde(default)]
    aliases: Vec<String>,
    parent: Option<Box<Party>>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
enum Role {
    Buyer,
    Seller,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
struct Clause {
    number: u32,
    #[serde(flatten)]
    content: Content,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
#[serde(tag = "type", rename_all = "snake_case")]
enum Content {
    Money { amount: f64 },
    Text { text: String },
}

/// Read a contract.
#[derive(Signature)]
struct Contract {
    #[input]
    text: String,
    /// who signs
    #[output(length = 2..=10)]
    parties: Vec<Party>,
    /// who is first
    #[output]
    first: Party,
    #[output]
    clauses: Vec<Clause>,
    /// its date
    #[output(pattern = r"^\d{4}$")]
    year: String,
}

#[test]
fn the_schema_is_plain_and_in_the_authors_order() {
    let compiled = Contract::compiled().unwrap();
    let party = r##"{"type":"object","description":"A party to a contract.","properties":{"name":{"type":"string","description":"as written"},"age":{"type":["integer","null"],"minimum":0,"maximum":255},"role":{"type":"string","enum":["Buyer","Seller"]},"aliases":{"type":"array","items":{"type":"string"}},"parent":{"anyOf":[{"$ref":"#/$defs/Party"},{"type":"null"}]}},"required":["name","age","role","parent"],"additionalProperties":false}"##;
    let clause = |rest: &str| {
        format!(
            r#"{{"type":"object","properties":{{"number":{{"type":"integer","minimum":0}},{rest},"additionalProperties":false}}"#
        )
    };
    let money = clause(
        r#""type":{"type":"string","enum":["money"]},"amount":{"type":"number"}},"required":["number","type","amount"]"#,
    );
    let text = clause(
        r#""type":{"type":"string","enum":["text"]},"text":{"type":"string"}},"required":["number","type","text"]"#,
    );
    let expected = format!(
        r##"{{"type":"object","properties":{{"parties":{{"type":"array","description":"who signs","items":{{"$ref":"#/$defs/Party"}},"minItems":2,"maxItems":10}},"first":{{"$ref":"#/$defs/Party2"}},"clauses":{{"type":"array","items":{{"anyOf":[{money},{text}]}}}},"year":{{"type":"string","description":"its date","pattern":"^\\d{{4}}$"}}}},"required":["parties","first","clauses","year"],"additionalProperties":false,"$defs":{{"Party":{party},"Party2":{}}}}}"##,
        party.replace("$defs/Party\"", "$defs/Party2\"")
    );
    assert_eq!(compiled.schema().as_str(), expected);
    assert!(compiled.is_strict());
}

#[test]
fn what_strict_modes_cannot_guarantee_is_sent_without_asking_for_it() {
    let strict = |ty: Type| {
        let spec = SignatureSpec::new("s").with_input(Field::new("a", Type::Text));
        spec.with_output(Field::new("b", ty))
            .compile()
            .unwrap()
            .is_strict()
    };
    assert!(strict(Type::object([Field::new(
        "x",
        Type::optional(Type::Date)
    )])));
    assert!(!strict(Type::Any));
    assert!(!strict(Type::map(Type::Integer)));
    assert!(!strict(Type::of::<(u8, String)>()));
    assert!(!strict(Type::of::<BTreeMap<String, u8>>()));
    assert!(strict(Type::of::<BTreeSet<String>>()));
    assert!(!strict(Type::list(Type::of::<Value>())));
}

#[test]
fn the_same_answers_fit_the_schema_read_back() {
    // A schema that was written out is read to the same schema: nothing is lost on the way.
    let compiled = Contract::compiled().unwrap();
    let again = SignatureSpec::new("again")
        .with_input(Field::new("a", Type::Text))
        .with_output(Field::new("b", Type::Schema(compiled.schema().clone())))
        .compile()
        .unwrap();
    let mut schema = again.schema().value()["properties"]["b"].clone();
    schema["$defs"] = again.schema().value()["$defs"].clone();
    assert_eq!(schema.to_string(), compiled.schema().as_str());
}

#[test]
fn schemas_by_hand_are_read() {
    let schema = json!({
        "type": "object",
        "$defs": {"id": {"type": "string", "format": "uuid"}},
        "properties": {
            "id": {"$ref": "#/$defs/id", "description": "which"},
            "size": {"allOf": [{"type": "integer"}, {"minimum": 1}], "maximum": 9},
            "tags": {"type": ["array", "null"], "items": {"enum": ["a", 1, null]}, "uniqueItems": true},
            "step": {"type": "number", "multipleOf": 0.5, "exclusiveMaximum": 3},
        },
        "required": ["id"],
    });
    let compiled = SignatureSpec::new("s")
        .with_input(Field::new("a", Type::Text))
        .with_output(Field::new("b", Type::Schema(schema.into())))
        .compile()
        .unwrap();
    assert_eq!(
        compiled.schema().value()["properties"]["b"],
        json!({
            "type": "object",
            "properties": {
                "id": {"type": "string", "description": "which", "format": "uuid"},
                "size": {"type": "integer", "minimum": 1, "maximum": 9},
                "tags": {"type": ["array", "null"], "items": {"enum": ["a", 1, null]}, "uniqueItems": true},
                "step": {"type": "number", "exclusiveMaximum": 3, "multipleOf": 0.5},
            },
            "required": ["id"],
            "additionalProperties": false,
        })
    );
}

#[test]
fn a_choice_or_null_keeps_its_null() {
    let kind = Type::optional(Type::one_of(["a", "b"]));
    let compiled = SignatureSpec::new("s")
        .with_input(Field::new("a", Type::Text))
        .with_output(Field::new("kind", kind))
        .compile()
        .unwrap();
    assert_eq!(
        compiled.schema().value()["properties"]["kind"],
        json!({"anyOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "null"}]})
    );
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
struct Options {
    plain: Option<u8>,
    any: Option<Value>,
    inner: Option<Box<Options>>,
    #[serde(default)]
    by_default: Option<u8>,
    #[serde(default)]
    list: Vec<u8>,
}

/// Make.
#[derive(Signature)]
struct Make {
    #[input]
    text: String,
    #[output]
    made: Options,
}

/// Use.
#[derive(Signature)]
struct Use {
    #[input]
    made: Options,
    #[output]
    text: String,
}

#[test]
fn an_option_is_a_value_or_null_and_not_nothing() {
    let compiled = Make::compiled().unwrap();
    let required = &compiled.schema().value()["$defs"]["Options"]["required"];
    assert_eq!(*required, json!(["plain", "any", "inner"]));
    let problems = |answer: Value| match crate::model::read(
        compiled,
        &peregrine_core::ChatResponse::text(json!({"made": answer}).to_string()),
        Default::default(),
    ) {
        Ok(_) => Vec::new(),
        Err(peregrine_signatures::Error::Output(error)) => {
            error.problems.iter().map(ToString::to_string).collect::<Vec<_>>()
        }
        Err(other) => panic!("{other}"),
    };
    assert_eq!(
        problems(json!({"plain": null, "any": null, "inner": null})),
        [""; 0]
    );
    assert_eq!(
        problems(json!({"any": 1, "inner": null, "list": null})),
        ["`made.plain`: expected integer from 0 to 255 or null, found nothing"]
    );
    assert_eq!(
        problems(json!({"plain": 1, "inner": {"plain": 1, "any": 1}})),
        [
            "`made.inner.inner`: expected object or null, found nothing",
            "`made.any`: expected any JSON value, found nothing"
        ]
    );
    // A schema by hand says itself what must be there.
    let by_hand = SignatureSpec::new("s")
        .with_input(Field::new("a", Type::Text))
        .with_output(Field::new(
            "b",
            Type::Schema(
                json!({"type": "object", "properties": {"x": {"type": ["integer", "null"]}}}).into(),
            ),
        ))
        .compile()
        .unwrap();
    assert_eq!(by_hand.schema().value()["properties"]["b"]["required"], json!([]));
    // So a value with options can be wired to an input of its type; what serde fills in itself may be absent.
    let wired = |first: &Arc<Compiled>, second: &Arc<Compiled>| {
        Composition::sequential("s", [Stage::new(first.clone()), Stage::new(second.clone())])
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let error = wired(compiled, Use::compiled().unwrap()).unwrap_err();
    assert!(error.contains("its field `by_default` may be absent"), "{error}");
    let make = |ty: Type| {
        SignatureSpec::parse("text -> n: int")
            .unwrap()
            .with_output(Field::new("made", ty))
    };
    let take = |ty: Type| {
        SignatureSpec::parse("n: int -> told")
            .unwrap()
            .with_input(Field::new("made", ty))
    };
    let made = make(Type::of::<Plain>()).compile().unwrap();
    wired(&made, &take(Type::of::<Plain>()).compile().unwrap()).unwrap();
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
struct Plain {
    plain: Option<u8>,
    inner: Option<Box<Plain>>,
}
