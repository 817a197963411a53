//! Laws, on generated types, values and texts.

use peregrine_core::ChatResponse;
use peregrine_signatures::{
    Compiled, Error, FieldEvent, FieldParser, Fields, Reading, Reply, Type, UnknownFields, Violation,
    ViolationKind,
};
use peregrine_signatures::{Field, JsonSchema, SignatureSpec, parse};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Variants that can only be told apart by what is in them.
#[derive(serde::Deserialize, JsonSchema)]
#[schemars(crate = "peregrine_signatures::schemars")]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
enum Untagged {
    Pair { a: u8, b: Vec<u8> },
    Other { a: i16, b: Vec<Untagged> },
    Map(std::collections::BTreeMap<u32, bool>),
    Text(String),
    Float(f32),
}

fn untagged() -> impl Strategy<Value = (Type, Value)> {
    prop::sample::select(vec![
        json!({"a": 1, "b": [2, 3]}),
        json!({"a": -1, "b": [{"a": 1, "b": []}, "x"]}),
        json!({"a": 300, "b": [{"7": true}, 0.5]}),
        json!({"7": false}),
        json!({}),
        json!("text"),
        json!(-0.25),
    ])
    .prop_map(|value| (Type::of::<Untagged>(), value))
}

/// A type and a value that fits it.
fn typed() -> impl Strategy<Value = (Type, Value)> {
    let leaf = prop_oneof![
        text().prop_map(|text| (Type::Text, Value::from(text))),
        any::<i64>().prop_map(|n| (Type::Integer, n.into())),
        (-1e12..1e12_f64).prop_map(|n| (Type::Number, n.into())),
        any::<bool>().prop_map(|b| (Type::Boolean, b.into())),
        json_value().prop_map(|value| (Type::Any, value)),
        (2000..2100_u16, 1..13_u8, 1..29_u8)
            .prop_map(|(y, m, d)| (Type::Date, format!("{y:04}-{m:02}-{d:02}").into())),
        prop::collection::vec(text(), 1..4)
            .prop_map(|texts| (Type::one_of(texts.clone()), texts[texts.len() / 2].clone().into())),
        text().prop_map(|text| (Type::optional(Type::Text), text.into())),
        Just((Type::optional(Type::Integer), Value::Null)),
        untagged(),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            (inner.clone(), 0..4_usize)
                .prop_map(|((ty, value), n)| (Type::list(ty), Value::Array(vec![value; n]))),
            (inner.clone(), prop::collection::btree_set(text(), 0..3)).prop_map(|((ty, value), keys)| {
                let map: Map<String, Value> = keys.into_iter().map(|key| (key, value.clone())).collect();
                (Type::map(ty), Value::Object(map))
            }),
            prop::collection::vec(inner, 1..4).prop_map(|members| {
                let named = |n: usize| format!("m{n}");
                let fields = members
                    .iter()
                    .enumerate()
                    .map(|(n, (ty, _))| Field::new(named(n), ty.clone()));
                let ty = Type::object(fields.collect::<Vec<_>>());
                let map: Map<String, Value> = members
                    .into_iter()
                    .enumerate()
                    .map(|(n, (_, value))| (named(n), value))
                    .collect();
                (ty, Value::Object(map))
            }),
        ]
    })
}

/// A signature and an answer that fits it.
fn contract() -> impl Strategy<Value = (Arc<Compiled>, Fields)> {
    prop::collection::vec(typed(), 1..5).prop_map(|members| {
        let mut spec = SignatureSpec::new("generated").with_input(Field::new("q", Type::Text));
        let mut answer = Fields::new();
        for (n, (ty, value)) in members.into_iter().enumerate() {
            spec = spec.with_output(Field::new(format!("f{n}"), ty));
            answer.insert(format!("f{n}"), value);
        }
        (
            spec.compile().expect("the generator makes types that compile"),
            answer,
        )
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z ]{0,12}",
        any::<String>().prop_map(|text| text.chars().take(12).collect()),
        Just("\"quoted\" \\ {\"f0\": 1}\n```".to_owned()),
        Just("𝄞é\u{0}\u{7f}".to_owned()),
    ]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A text cut at random places.
fn cut<'t>(text: &'t str, cuts: &[prop::sample::Index]) -> Vec<&'t str> {
    let mut places: Vec<usize> = cuts
        .iter()
        .map(|cut| cut.index(text.len() + 1))
        .filter(|place| text.is_char_boundary(*place))
        .chain([0, text.len()])
        .collect();
    places.sort_unstable();
    places.windows(2).map(|ends| &text[ends[0]..ends[1]]).collect()
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..20)
}

fn streamed(
    signature: &Compiled,
    pieces: &[&str],
    reading: Reading,
) -> Result<(Fields, Vec<FieldEvent>), Violation> {
    let mut parser = FieldParser::with_reading(signature, reading);
    let mut events = Vec::new();
    pieces
        .iter()
        .try_for_each(|piece| parser.push(piece, &mut events))?;
    Ok((parser.finish()?, events))
}

fn whole(signature: &Arc<Compiled>, text: &str, reading: Reading) -> Result<Fields, Vec<Violation>> {
    match crate::model::read(signature, &ChatResponse::text(text), reading) {
        Ok(Reply::Answer { output, .. }) => Ok(output),
        Err(Error::Output(error)) => Err(error.problems),
        other => panic!("{other:?}"),
    }
}

/// The same JSON with other spellings, none of which changes what it says.
fn respelled(value: &Value, style: u8, out: &mut String) {
    use std::fmt::Write as _;
    let (single, trailing, python, comments) =
        (style & 1 != 0, style & 2 != 0, style & 4 != 0, style & 8 != 0);
    if comments {
        out.push_str(" /* , } */ ");
    }
    match value {
        Value::Null if python => out.push_str("None"),
        Value::Bool(true) if python => out.push_str("True"),
        Value::Bool(false) if python => out.push_str("False"),
        Value::String(text) => respell_text(text, single, out),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                out.push_str(if n == 0 { "" } else { ", " });
                respelled(item, style, out);
            }
            out.push_str(if trailing && !items.is_empty() { ",]" } else { "]" });
        }
        Value::Object(map) => {
            out.push('{');
            for (n, (key, value)) in map.iter().enumerate() {
                out.push_str(if n == 0 { "" } else { "," });
                respell_text(key, single, out);
                out.push_str(if comments { " : # so\n" } else { ":" });
                respelled(value, style, out);
            }
            out.push_str(if trailing && !map.is_empty() { ",\n}" } else { "}" });
        }
        scalar => {
            let _ = write!(out, "{scalar}");
        }
    }
}

fn respell_text(text: &str, single: bool, out: &mut String) {
    let json = Value::from(text).to_string();
    match single {
        true => {
            let inner = json[1..json.len() - 1].replace("\\\"", "\"").replace('\'', "\\'");
            // A backslash that was escaped before a quote stays one.
            match json.contains("\\\\") {
                true => out.push_str(&json),
                false => {
                    out.push('\'');
                    out.push_str(&inner);
                    out.push('\'');
                }
            }
        }
        false => out.push_str(&json),
    }
}

/// Fields and items are told once each, in order, with the value that the answer has; partial texts join to it.
fn check_events(answer: &Fields, events: &[FieldEvent]) {
    let mut completed = Fields::new();
    let mut texts: std::collections::HashMap<String, String> = std::collections::HashMap::new();
    for event in events {
        match event {
            FieldEvent::Partial { path, text } => {
                assert!(!text.is_empty());
                texts.entry(path.to_string()).or_default().push_str(text);
            }
            FieldEvent::Completed { path, value } => {
                if let Some(partial) = texts.remove(&path.to_string()) {
                    assert_eq!(Value::from(partial), *value, "{path}");
                }
                match path.index() {
                    None => assert_eq!(completed.insert(path.name().to_owned(), value.clone()), None),
                    Some(index) => assert_eq!(answer[path.name()][index], *value, "{path}"),
                }
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(completed, *answer);
    assert!(texts.is_empty(), "every text was completed");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_fits_comes_back_equal_however_it_is_cut((signature, answer) in contract(), cuts in cuts()) {
        let text = Value::Object(answer.clone()).to_string();
        prop_assert_eq!(&whole(&signature, &text, Reading::default()).expect("it fits"), &answer);
        let pieces = cut(&text, &cuts);
        let (fields, events) = streamed(&signature, &pieces, Reading::default()).expect("it fits");
        prop_assert_eq!(&fields, &answer);
        check_events(&answer, &events);
    }

    #[test]
    fn other_spellings_and_surroundings_mean_the_same(
        (signature, answer) in contract(),
        style in 0..16_u8,
        around in 0..4_u8,
        cuts in cuts(),
    ) {
        let mut spelled = String::new();
        respelled(&Value::Object(answer.clone()), style, &mut spelled);
        let text = match around {
            0 => spelled,
            1 => format!("```json\n{spelled}\n```"),
            2 => format!("Here you {{go}}:\n{spelled}\nAnything else {{?"),
            _ => format!("<think>{{\"f0\": </think>{spelled}"),
        };
        prop_assert_eq!(&whole(&signature, &text, Reading::default()).expect("it fits"), &answer, "{}", text);
        let (fields, events) = streamed(&signature, &cut(&text, &cuts), Reading::default()).expect("it fits");
        prop_assert_eq!(&fields, &answer);
        check_events(&answer, &events);
    }

    /// Only the answer's own closing bracket may be missing.
    #[test]
    fn a_cut_off_answer_is_no_answer_or_the_whole_one((signature, answer) in contract(), style in 0..16_u8, at in any::<prop::sample::Index>()) {
        let mut text = String::new();
        respelled(&Value::Object(answer.clone()), style, &mut text);
        let last_value = text.trim_end_matches([' ', '\n', ',', '}']).len();
        let mut end = at.index(text.trim_end().len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let in_pieces = streamed(&signature, &[&text[..end]], Reading::default());
        match whole(&signature, &text[..end], Reading::default()) {
            Ok(fields) => {
                prop_assert!(end >= last_value, "{} of {}", &text[..end], text);
                prop_assert_eq!(&fields, &answer);
                prop_assert_eq!(in_pieces.expect("it is whole").0, answer);
            }
            Err(problems) => {
                let kind = problems[0].kind;
                prop_assert!(matches!(kind, ViolationKind::CutOff | ViolationKind::NoAnswer), "{}", problems[0]);
                prop_assert!(in_pieces.is_err());
            }
        }
    }

    #[test]
    fn the_incremental_parser_agrees_with_serde_json(value in json_value(), pretty in any::<bool>(), cuts in cuts()) {
        let signature = parse("q -> any: any").unwrap();
        let answer = Fields::from_iter([("any".to_owned(), value)]);
        let text = match pretty {
            true => serde_json::to_string_pretty(&answer).unwrap(),
            false => serde_json::to_string(&answer).unwrap(),
        };
        let expected: Fields = serde_json::from_str(&text).unwrap();
        let (fields, _) = streamed(&signature, &cut(&text, &cuts), Reading::default()).expect("it is JSON");
        prop_assert_eq!(fields, expected);
    }

    /// Mutated answers: whatever serde_json takes, both readings take with the same value or refuse for a reason of
    /// the signature; and both readings agree with each other.
    #[test]
    fn broken_answers_are_judged_alike(
        (signature, answer) in contract(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, "[\\[\\]{}\",:0-9a-z\\\\ '/#.-]"), 1..4),
        cuts in cuts(),
        ignore in any::<bool>(),
    ) {
        let mut chars: Vec<char> = Value::Object(answer).to_string().chars().collect();
        for (at, edit, with) in edits {
            if chars.is_empty() {
                break;
            }
            let at = at.index(chars.len());
            match edit {
                0 => { chars.remove(at); }
                1 => chars.insert(at, with.chars().next().unwrap()),
                2 => chars[at] = with.chars().next().unwrap(),
                _ => chars.truncate(at),
            }
        }
        let text: String = chars.into_iter().collect();
        let unknown = if ignore { UnknownFields::Ignore } else { UnknownFields::Reject };
        let reading = Reading::default().with_unknown_fields(unknown);
        let read = whole(&signature, &text, reading);
        let in_pieces = streamed(&signature, &cut(&text, &cuts), reading);
        match (&read, &in_pieces) {
            (Ok(read), Ok((fields, _))) => prop_assert_eq!(read, fields, "{}", text),
            // In pieces, what stands at the start is the answer; a whole text may show that another object was meant,
            // or be an answer in quotes. Never the other way round.
            (Ok(_), Err(problem)) => prop_assert!(
                problem.kind == ViolationKind::Unknown && text.trim_start().starts_with('{')
                    || text.trim_start().starts_with('"'),
                "{} for {}", problem, text
            ),
            (Err(problems), Ok(_)) => prop_assert!(false, "{} was refused whole: {}", text, problems[0]),
            (Err(_), Err(_)) => {}
        }
        if let (Ok(Value::Object(exact)), Ok(read)) = (serde_json::from_str::<Value>(&text), &read)
            && !ignore
        {
            for (key, value) in read {
                prop_assert_eq!(value, &exact[key], "what is JSON means what JSON says");
            }
            prop_assert_eq!(exact.len(), read.len());
        }
    }

    /// Answers, other objects and prose in any order: both readings find the same answer, or both find none. Only an
    /// object of other fields at the very start is refused in pieces at once.
    #[test]
    fn several_objects_are_judged_alike(
        parts in prop::collection::vec(prop::sample::select(vec![
            r#"{"a": 1, "b": "x"}"#, r#"{"b": 'x', "a": 1.0}"#, r#"{"a": 2, "b": "x"}"#, r#"{"a": 1}"#, r#"{"c": 1}"#,
            r#"{"c": {"a": 1, "b": "x"}}"#, r#"{"c": 1, "a": 1, "b": "x"}"#, "{}", "prose", "{prose}", "```json\n", "```", "[", "]", ",",
            r#"{"a": 1, "b": "#, r#"{"a": 1, "b": "x""#, "null", "\"",
        ]), 0..6),
        cuts in cuts(),
        ignore in any::<bool>(),
    ) {
        let signature = parse("q -> a: int, b: str").unwrap();
        let text = parts.join(" ");
        let unknown = if ignore { UnknownFields::Ignore } else { UnknownFields::Reject };
        let reading = Reading::default().with_unknown_fields(unknown);
        let read = whole(&signature, &text, reading);
        match (&read, streamed(&signature, &cut(&text, &cuts), reading)) {
            (Ok(read), Ok((fields, events))) => {
                prop_assert_eq!(read, &fields, "{}", text);
                check_events(&fields, &events);
            }
            (Ok(_), Err(problem)) => {
                let at_start = text.starts_with('{') && !text.starts_with("{}") && !text.starts_with("{prose");
                prop_assert!(
                    matches!(problem.kind, ViolationKind::Unknown | ViolationKind::Missing) && (at_start || ignore),
                    "{} for {}", problem, text
                );
            }
            (Err(problems), Ok(_)) => prop_assert!(false, "{} was refused whole: {}", text, problems[0]),
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn hostile_texts_never_panic_and_pieces_never_matter(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        noise in "[\\[\\]{}\",:0-9a-zA-Z\\\\ '/*#.\n<>`-]{0,200}",
        cuts in cuts(),
    ) {
        let signature = parse("q -> a: any, b: list[int]?, c: literal['x', 'y']").unwrap();
        for text in [String::from_utf8_lossy(&bytes).into_owned(), noise.clone(), format!("{{\"a\":{noise}")] {
            let _ = whole(&signature, &text, Reading::default());
            let at_once = streamed(&signature, &[&text], Reading::default()).map(|(fields, _)| fields);
            let in_pieces = streamed(&signature, &cut(&text, &cuts), Reading::default()).map(|(fields, _)| fields);
            match (&at_once, &in_pieces) {
                (Ok(one), Ok(other)) => prop_assert_eq!(one, other),
                // What is found where may be shown with less of the text behind it.
                (Err(one), Err(other)) => prop_assert_eq!((one.kind, &one.path), (other.kind, &other.path), "{}", text),
                _ => prop_assert!(false, "{:?} and {:?} for {}", at_once, in_pieces, text),
            }
        }
    }

    #[test]
    fn texts_of_signatures_never_panic(text in "[a-z:,>?\\[\\]'\" \\-é]{0,60}", noise in any::<String>()) {
        let _ = SignatureSpec::parse(&text).map(SignatureSpec::compile);
        if let Err(error) = SignatureSpec::parse(&noise) {
            let _ = (error.caret(), error.column());
        }
    }
}
