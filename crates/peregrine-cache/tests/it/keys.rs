//! Keys: equal for the same values, different for all others, however values are split.

use peregrine_cache::{Key, KeyBuilder, Tag};
use proptest::prelude::*;

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(String),
    Bytes(Vec<u8>),
    Count(u64),
    Integer(i64),
    Float(i32),
    Flag(bool),
    Variant(u8),
    Option(Option<String>),
    List(Vec<String>),
}

fn value() -> impl Strategy<Value = Value> {
    let text = "[a-c\\x00ut]{0,4}";
    prop_oneof![
        text.prop_map(Value::Text),
        // Long ones take another way into the hash.
        (16_200_usize..16_500, "[ab]").prop_map(|(len, letter)| Value::Text(letter.repeat(len))),
        proptest::collection::vec(any::<u8>(), 0..4).prop_map(Value::Bytes),
        (0_u64..3).prop_map(Value::Count),
        (-1_i64..2).prop_map(Value::Integer),
        (-1_i32..2).prop_map(Value::Float),
        any::<bool>().prop_map(Value::Flag),
        (0_u8..3).prop_map(Value::Variant),
        proptest::option::of(text).prop_map(Value::Option),
        proptest::collection::vec(text, 0..3).prop_map(Value::List),
    ]
}

fn key(values: &[Value]) -> Key {
    let mut key = KeyBuilder::new("test", b"scope");
    for value in values {
        match value {
            Value::Text(text) => key.text(text),
            Value::Bytes(bytes) => key.bytes(bytes),
            Value::Count(number) => key.count(*number),
            Value::Integer(number) => key.integer(*number),
            Value::Float(number) => key.float(f64::from(*number)),
            Value::Flag(truth) => key.flag(*truth),
            Value::Variant(which) => key.variant(*which),
            Value::Option(text) => key.option(text.as_deref(), |key, text| {
                key.text(text);
            }),
            Value::List(texts) => {
                key.list(texts.len());
                for text in texts {
                    key.text(text);
                }
                &mut key
            }
        };
    }
    key.finish()
}

proptest! {
    #[test]
    fn keys_are_equal_exactly_if_the_values_are(
        one in proptest::collection::vec(value(), 0..5),
        two in proptest::collection::vec(value(), 0..5),
    ) {
        prop_assert_eq!(key(&one) == key(&two), one == two);
        prop_assert_eq!(key(&one), key(&one));
    }

    #[test]
    fn domain_and_scope_are_part_of_a_key(
        one in ("[ab]{0,3}", "[ab]{0,3}"),
        two in ("[ab]{0,3}", "[ab]{0,3}"),
    ) {
        let key = |(domain, scope): &(String, String)| KeyBuilder::new(domain, scope.as_bytes()).finish();
        prop_assert_eq!(key(&one) == key(&two), one == two);
    }
}

#[test]
fn numbers_that_are_equal_are_one() {
    let float = |number: f64| {
        let mut key = KeyBuilder::new("test", b"");
        key.float(number);
        key.finish()
    };
    assert_eq!(float(0.0), float(-0.0));
    assert_eq!(float(f64::NAN), float(-f64::NAN));
    assert_ne!(float(0.5), float(0.25));
}

#[test]
fn kinds_of_tags_never_meet() {
    let tags = [
        Tag::label("a"),
        Tag::scope(b"a"),
        Tag::model("a", ""),
        Tag::model("", "a"),
        Tag::label(""),
    ];
    for (i, one) in tags.iter().enumerate() {
        for (j, two) in tags.iter().enumerate() {
            assert_eq!(one == two, i == j);
        }
    }
}

#[test]
fn the_encoding_stays_as_it_is() {
    // What is stored under today's keys is to be found tomorrow.
    let mut key = KeyBuilder::new("test", b"scope");
    key.text("a")
        .count(1)
        .integer(-1)
        .float(0.5)
        .flag(true)
        .variant(2)
        .list(0);
    assert_eq!(
        key.finish().to_string(),
        "c97a2319cb63d0f03acfc507e74a1e0a5aeec57350f0be1cfed08d4b1132d2d8"
    );
}
