//! The text form of signatures, the builder and the registry.

use std::num::NonZeroUsize;
use std::sync::Arc;

use peregrine_signatures::{DefinitionError, Error, Field, Registry, SignatureSpec, Type, parse};

#[test]
fn the_text_form_says_what_the_builder_says() {
    let text = parse(
        "question 'what is asked', context: list[str] , when: date?, opts: dict[str, float] \
         -> answer, confidence: float, kind: Literal[\"fact\", 'guess', 3, true], n: optional[int], \
         any: any, at: datetime, ok: bool",
    )
    .unwrap();
    let built = SignatureSpec::new("signature")
        .with_input(Field::new("question", Type::Text).with_description("what is asked"))
        .with_input(Field::new("context", Type::list(Type::Text)))
        .with_input(Field::new("when", Type::optional(Type::Date)))
        .with_input(Field::new("opts", Type::map(Type::Number)))
        .with_output(Field::new("answer", Type::Text))
        .with_output(Field::new("confidence", Type::Number))
        .with_output(Field::new(
            "kind",
            Type::one_of([serde_json::json!("fact"), "guess".into(), 3.into(), true.into()]),
        ))
        .with_output(Field::new("n", Type::optional(Type::Integer)))
        .with_output(Field::new("any", Type::Any))
        .with_output(Field::new("at", Type::DateTime))
        .with_output(Field::new("ok", Type::Boolean))
        .compile()
        .unwrap();
    assert_eq!(text.schema(), built.schema());
    assert_eq!(text.instruction(), built.instruction());
    assert_eq!(text.digest(), built.digest());
}

#[test]
fn errors_name_the_place() {
    for (text, column, problem) in [
        ("", 1, "expected the name of an input, found the end"),
        (
            "a",
            2,
            "expected `->` between the inputs and the outputs, or `,` and another input, found the end",
        ),
        ("a -> ", 6, "expected the name of an output, found the end"),
        ("a, -> b", 4, "expected the name of an input, found `-`"),
        (
            "a b -> c",
            3,
            "expected `->` between the inputs and the outputs, or `,` and another input, found `b`",
        ),
        (
            "a -> b c",
            8,
            "expected `,` and another output, or the end, found `c`",
        ),
        ("a -> b: strng", 9, "unknown type `strng`"),
        ("a -> b: list", 13, "expected `[` and a type, found the end"),
        ("a -> b: list[int", 17, "expected `]`, found the end"),
        ("a -> b: dict[int, str]", 14, "the keys of a dict are `str`"),
        (
            "a -> b: literal[]",
            17,
            "expected a value in quotes, a number or a boolean, found `]`",
        ),
        ("a -> b: literal['x', 'x']", 22, "\"x\" stands here twice"),
        ("a, é -> b", 4, "expected the name of an input, found `é`"),
        ("a, a -> b", 4, "`a` stands here twice; rename one of them"),
        ("a -> b 'open", 8, "a text without its closing quote"),
        ("1a -> b", 1, "expected the name of an input, found `1`"),
    ] {
        let Err(Error::Definition(error)) = parse(text) else {
            panic!("{text} was taken")
        };
        let DefinitionError::Text(error) = *error else {
            panic!("{text}: {error}")
        };
        assert_eq!(
            (error.column(), error.problem.contains(problem)),
            (column, true),
            "{text}: {error}"
        );
    }
}

#[test]
fn a_caret_points_at_the_place() {
    let Err(Error::Definition(error)) = parse("frage: é?") else {
        panic!()
    };
    let DefinitionError::Text(error) = *error else {
        panic!()
    };
    assert_eq!(error.caret(), "frage: é?\n       ^");
}

#[test]
fn definitions_that_cannot_work_are_refused() {
    let spec = || SignatureSpec::new("s").with_input(Field::new("a", Type::Text));
    let problem = |spec: SignatureSpec| spec.compile().unwrap_err().to_string();
    assert_eq!(
        problem(spec()),
        "signature `s` has no outputs; it needs at least one"
    );
    let b = |ty| Field::new("b", ty);
    for (field, expected) in [
        (
            b(Type::Image),
            "field `b` is an image, audio or document, which can be an input only",
        ),
        (
            Field::new("b c", Type::Text),
            "`b c` can not be a name here: only letters, digits and `_` can stand in it",
        ),
        (
            b(Type::Text).with_range(1..=2),
            "range on field `b` does not work: its type is not a number",
        ),
        (
            b(Type::Integer).with_range(3..3),
            "range on field `b` does not work: no number lies in it",
        ),
        (
            b(Type::Integer).with_length(1..=2),
            "length on field `b` does not work: its type is not a text, a list or a map",
        ),
        (
            b(Type::Integer).with_one_of([1.into(), serde_json::json!("x")]),
            "one_of on field `b` does not work: \"x\" does not fit the field's type",
        ),
        (
            b(Type::Text).with_one_of(["x", "x"]),
            "one_of on field `b` does not work: it lists \"x\" twice",
        ),
        (
            b(Type::OneOf(Vec::new())),
            "one_of on field `b` does not work: it lists no value",
        ),
        (
            b(Type::Schema(
                serde_json::json!({"not": {"type": "string"}}).into(),
            )),
            "the schema of field `b` can not be used: `not` is not supported here; leave it out at `#`",
        ),
        (
            b(Type::Schema(
                serde_json::json!({"type": "object", "properties": {"x/y": {"$ref": "#/nowhere"}}}).into(),
            )),
            "the schema of field `b` can not be used: `$ref: #/nowhere` leads nowhere; refer to a place in the same \
             schema at `#/properties/x~1y`",
        ),
        (
            b(Type::Schema(
                serde_json::json!({"anyOf": [{"$ref": "#"}, {"type": "null"}]}).into(),
            )),
            "the schema of field `Value` can not be used: a union that contains itself directly fits nothing or \
             everything at `#`",
        ),
    ] {
        assert_eq!(problem(spec().with_output(field)), expected);
    }
    let twice = spec().with_output(b(Type::Text)).with_output(b(Type::Text));
    assert_eq!(
        problem(twice),
        "signature `s` has two fields named `b`; rename one of them"
    );
}

#[test]
fn the_registry_keeps_what_was_used_last() {
    let registry = Registry::new(NonZeroUsize::new(2).unwrap());
    let first = registry.parse("a -> b").unwrap();
    registry.parse("a -> c").unwrap();
    assert!(Arc::ptr_eq(&first, &registry.parse("a -> b").unwrap()));
    registry.parse("a -> d").unwrap();
    assert!(
        Arc::ptr_eq(&first, &registry.parse("a -> b").unwrap()),
        "it was used after `a -> c`"
    );
    assert_eq!(registry.len(), 2);
    assert!(registry.parse("a ->").is_err());
    assert_eq!(registry.len(), 2, "errors are not kept");
    assert!(Arc::ptr_eq(&parse("x -> y").unwrap(), &parse("x -> y").unwrap()));
}
