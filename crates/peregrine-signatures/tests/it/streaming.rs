//! Typed streaming: what is told, in which order, and where it ends early.

use peregrine_signatures::{
    Compiled, Exactness, FieldEvent, FieldParser, JsonSchema, Reading, Signature, UnknownFields, Violation,
    ViolationKind, parse, schemars,
};
use serde::{Deserialize, Serialize};

/// Pushes pieces and gives what was told, and how it ended.
fn told(signature: &Compiled, pieces: &[&str]) -> (Vec<String>, Result<String, Violation>) {
    let mut parser = FieldParser::new(signature);
    let mut events = Vec::new();
    let pushed = pieces
        .iter()
        .try_for_each(|piece| parser.push(piece, &mut events));
    let ended = pushed
        .and_then(|()| parser.finish())
        .map(|fields| serde_json::Value::Object(fields).to_string());
    (events.iter().map(FieldEvent::to_string).collect(), ended)
}

fn chars(text: &str) -> Vec<&str> {
    text.split_inclusive(|_: char| true).collect()
}

#[test]
fn fields_and_items_are_told_as_they_complete_and_texts_as_they_grow() {
    let signature = parse("q -> answer, tags: list[str], n: int, deep: any").unwrap();
    let pieces = [
        "{\"answer\": \"a\\u00",
        "e9\\n",
        "b\"",
        ", \"tags\": [\"x",
        "y\", \"z\"",
        "], \"n\": 1",
        "2",
        ", \"deep\": {\"t\": \"not told\", \"l\": [1, ",
        "2]}}",
    ];
    let (events, ended) = told(&signature, &pieces);
    assert_eq!(
        events,
        [
            "answer += a",
            "answer += é\n",
            "answer += b",
            r#"answer = "aé\nb""#,
            "tags[0] += x",
            "tags[0] += y",
            r#"tags[0] = "xy""#,
            "tags[1] += z",
            r#"tags[1] = "z""#,
            r#"tags = ["xy","z"]"#,
            "n = 12",
            r#"deep = {"t":"not told","l":[1,2]}"#,
        ]
    );
    assert_eq!(
        ended.unwrap(),
        r#"{"answer":"aé\nb","tags":["xy","z"],"n":12,"deep":{"t":"not told","l":[1,2]}}"#
    );
}

#[test]
fn partial_texts_are_flushed_with_their_piece_only() {
    let signature = parse("q -> kind: literal['billing', 'technical'], answer: str?").unwrap();
    let (events, _) = told(
        &signature,
        &["{\"kind\": \"bil", "ling\", \"answer\": \"yes", "\"}"],
    );
    assert_eq!(
        events,
        [r#"kind = "billing""#, "answer += yes", r#"answer = "yes""#],
        "a choice is told when it is made"
    );
}

/// Where reading ends: the number of characters that were taken before the error, and the error.
fn ends(signature: &Compiled, text: &str) -> (usize, Violation) {
    let mut parser = FieldParser::new(signature);
    for (place, piece) in chars(text).iter().enumerate() {
        if let Err(problem) = parser.push(piece, &mut Vec::new()) {
            assert_eq!(
                parser.push("}", &mut Vec::new()).unwrap_err(),
                problem,
                "an error stays"
            );
            return (place + 1, problem);
        }
    }
    (text.chars().count(), parser.finish().expect_err("it ends early"))
}

#[test]
fn the_first_misfit_ends_it_where_it_is_certain() {
    let signature = peregrine_signatures::SignatureSpec::parse(
        "q -> kind: literal['billing', 'technical'], n: int?, list: list[bool], date: date, o: dict[str, int], any: any",
    )
    .unwrap()
    .with_output(
        peregrine_signatures::Field::new("short", peregrine_signatures::Type::Text).with_length(..=3),
    )
    .with_output(
        peregrine_signatures::Field::new(
            "few",
            peregrine_signatures::Type::list(peregrine_signatures::Type::Integer),
        )
        .with_length(..=2)
        .with_range(1..=5),
    )
    .compile()
    .unwrap();
    for (text, path, kind) in [
        // The text up to and including the character at which it is certain.
        (r#"{"kind": "bo"#, "kind", ViolationKind::Choice),
        (r#"{"kind": 5"#, "kind", ViolationKind::Type),
        (r#"{"kind": "billing", "n": ""#, "n", ViolationKind::Type),
        (r#"{"kind": "billing", "n": t"#, "n", ViolationKind::Type),
        (r#"{"n": 1.5,"#, "n", ViolationKind::Type),
        (r#"{"list": {"#, "list", ViolationKind::Type),
        (r#"{"list": [true, 0"#, "list[1]", ViolationKind::Type),
        (r#"{"date": "2026-02-30""#, "date", ViolationKind::Pattern),
        (r#"{"o": {"x": {"#, "o.x", ViolationKind::Type),
        (r#"{"o": {"x y": {"#, "o[\"x y\"]", ViolationKind::Type),
        (r#"{"short": "abcd"#, "short", ViolationKind::Length),
        (r#"{"few": [1, 2, 3"#, "few", ViolationKind::Length),
        (r#"{"few": [1, 6,"#, "few[1]", ViolationKind::Range),
        (r#"{"other":"#, "other", ViolationKind::Unknown),
        (r#"{"n": 1, "n":"#, "n", ViolationKind::Duplicate),
        (
            r#"{"any": {"a": [{"b": 1, "b":"#,
            "any.a[0].b",
            ViolationKind::Duplicate,
        ),
        (r#"{"n": 1}"#, "kind", ViolationKind::Missing),
        (r#"{"n": 1 2"#, "", ViolationKind::Syntax),
        (r#"{"any": [1 2"#, "any[1]", ViolationKind::Syntax),
        (r#"{"n": nul,"#, "n", ViolationKind::Syntax),
    ] {
        let (place, problem) = ends(&signature, &format!("{text} and more that is never read"));
        assert_eq!(
            (problem.path.as_str(), problem.kind),
            (path, kind),
            "{text}: {problem}"
        );
        assert_eq!(place, text.chars().count(), "{text}: {problem}");
    }
}

#[test]
fn an_answer_is_found_behind_prose_fences_and_thoughts() {
    let signature = parse("q -> answer").unwrap();
    let plain = r#"{"answer": "a"}"#;
    for text in [
        plain.to_owned(),
        format!("```json\n{plain}\n```\n"),
        format!("Here {{is}} your {{ \"quoted\" }} answer:\n{plain} Done {{}}."),
        format!("<think>{{\"answer\": \"not yet\"}} </thin </think>\n\n{plain}"),
        format!("<thinking>hm</thinking>{plain}"),
        format!("<{plain}"),
    ] {
        let (events, ended) = told(&signature, &chars(&text));
        assert_eq!(events, ["answer += a", r#"answer = "a""#], "{text}");
        assert_eq!(ended.unwrap(), r#"{"answer":"a"}"#, "{text}");
    }
    let (_, ended) = told(&signature, &chars(&format!("{plain} or {{\"answer\": \"b\"}}")));
    assert_eq!(ended.unwrap_err().kind, ViolationKind::Ambiguous);
    for cut_off in [
        "",
        "no answer here",
        "{\"answer\": \"a",
        "{\"answer",
        "<think>still",
    ] {
        let (_, ended) = told(&signature, &chars(cut_off));
        let kind = ended.unwrap_err().kind;
        assert!(
            matches!(kind, ViolationKind::CutOff | ViolationKind::NoAnswer),
            "{cut_off}: {kind:?}"
        );
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
#[serde(untagged)]
enum Loose {
    Pair { a: u8, b: u8 },
    Single { a: String },
    Plain(bool),
}

/// Choose.
#[derive(Signature)]
struct Unions {
    #[input]
    q: String,
    #[output]
    loose: Vec<Loose>,
}

#[test]
fn unions_are_checked_as_early_as_they_can_be() {
    let compiled = Unions::compiled().unwrap();
    let (events, ended) = told(compiled, &[r#"{"loose": [{"a": 1, "b": 2}, {"a": "x"}, true]}"#]);
    assert_eq!(events.len(), 4);
    ended.unwrap();
    let (place, problem) = ends(compiled, r#"{"loose": [{"a": 1, "b": "x"}, "#);
    assert_eq!(
        (problem.path.as_str(), problem.kind),
        ("loose[0]", ViolationKind::Choice)
    );
    assert_eq!(place, r#"{"loose": [{"a": 1, "b": "x"}"#.len());
    let (place, problem) = ends(compiled, r#"{"loose": [null"#);
    assert_eq!(
        (problem.path.as_str(), problem.kind),
        ("loose[0]", ViolationKind::Type)
    );
    assert_eq!(place, r#"{"loose": [n"#.len());
}

#[test]
fn unknown_fields_can_be_dropped() {
    let signature = parse("q -> answer, list: list[str]").unwrap();
    let reading = Reading::default().with_unknown_fields(UnknownFields::Ignore);
    let mut parser = FieldParser::with_reading(&signature, reading);
    let mut events = Vec::new();
    for piece in chars(r#"{"why": ["x", {"y": "z"}], "answer": "a", "who": "me", "list": ["l"], "n": null}"#)
    {
        parser.push(piece, &mut events).unwrap();
    }
    let told: Vec<String> = events.iter().map(FieldEvent::to_string).collect();
    assert_eq!(
        told,
        [
            "answer += a",
            r#"answer = "a""#,
            "list[0] += l",
            r#"list[0] = "l""#,
            r#"list = ["l"]"#
        ]
    );
    let fields = parser.finish().unwrap();
    assert_eq!(
        serde_json::Value::Object(fields).to_string(),
        r#"{"answer":"a","list":["l"]}"#
    );
}

#[test]
fn a_key_whose_value_is_not_kept_counts_all_the_same() {
    #[derive(Debug, Deserialize, JsonSchema)]
    #[schemars(crate = "schemars")]
    #[allow(dead_code, reason = "only its schema is used")]
    struct Item {
        #[serde(default)]
        tags: Vec<u8>,
    }
    let signature = peregrine_signatures::SignatureSpec::parse("q -> answer")
        .unwrap()
        .with_output(peregrine_signatures::Field::of::<Item>("item"))
        .compile()
        .unwrap();
    let reading = Reading::default().with_unknown_fields(UnknownFields::Ignore);
    for (text, path) in [
        (
            r#"{"answer": "a", "item": {"tags": null, "tags": [1]}}"#,
            "item.tags",
        ),
        (
            r#"{"answer": "a", "item": {"tags": [1], "tags": null}}"#,
            "item.tags",
        ),
        (r#"{"why": 1, "answer": "a", "item": {}, "why": 1}"#, "why"),
        (
            r#"{"why": [{"x": 1, "x": 1}], "answer": "a", "item": {}}"#,
            "why[0].x",
        ),
    ] {
        let mut parser = FieldParser::with_reading(&signature, reading);
        let problem = parser.push(text, &mut Vec::new()).unwrap_err();
        assert_eq!(
            (problem.kind, problem.path.as_str()),
            (ViolationKind::Duplicate, path)
        );
        let response = peregrine_core::ChatResponse::text(text);
        let Err(peregrine_signatures::Error::Output(error)) =
            crate::model::read(&signature, &response, reading)
        else {
            panic!("{text} was read")
        };
        assert_eq!(error.problems[0], problem);
    }
}

#[test]
fn objects_around_the_answer_are_told_from_it() {
    let signature = parse("q -> answer, n: int").unwrap();
    let answer = r#"{"answer": "a", "n": 1}"#;
    let expected = ["answer += a", r#"answer = "a""#, "n = 1"];
    for text in [
        format!("The input {{\"q\": \"x\", \"m\": [{{\"answer\": 1}}]}} gives {answer}."),
        format!("```json\n{answer}\n```\nAgain: {{\"n\": 1.0, \"answer\": 'a'}}"),
        format!("{answer} for {{\"q\": \"x\"}}"),
    ] {
        let (events, ended) = told(&signature, &[&text]);
        let (by_chars, again) = told(&signature, &chars(&text));
        assert_eq!(
            (events.as_slice(), by_chars.as_slice()),
            (&expected.map(str::to_owned)[..], &expected.map(str::to_owned)[..]),
            "{text}"
        );
        assert_eq!(ended.unwrap(), r#"{"answer":"a","n":1}"#);
        again.unwrap();
    }
    for (text, kind) in [
        (
            format!("{answer} or {{\"answer\": \"b\"}}"),
            ViolationKind::Ambiguous,
        ),
        ("So {\"q\": 1, \"answer\":".to_owned(), ViolationKind::Unknown),
        ("So {\"q\": 1} and no more".to_owned(), ViolationKind::Unknown),
        (format!("{answer} or {{\"answer\": \"b"), ViolationKind::CutOff),
    ] {
        let (_, ended) = told(&signature, &chars(&text));
        assert_eq!(ended.unwrap_err().kind, kind, "{text}");
    }
}

#[test]
fn whole_floats_are_integers_in_events_too() {
    let signature = parse("q -> n: int").unwrap();
    let (events, ended) = told(&signature, &["{\"n\": 5.0}"]);
    assert_eq!(events, ["n = 5"]);
    assert_eq!(ended.unwrap(), r#"{"n":5}"#);
}

#[test]
fn it_is_known_whether_an_answer_was_exact() {
    let signature = parse("q -> any: any").unwrap();
    for (text, exactness) in [
        (" {\"any\": [1, {\"a\": \"\\u00e9\"}, null]}\n", Exactness::Exact),
        ("{\"any\": [1,]}", Exactness::Tolerant),
        ("{\"any\": {\"a\": 1,}}", Exactness::Tolerant),
        ("{\"any\": True}", Exactness::Tolerant),
        ("{\"any\": 'a'}", Exactness::Tolerant),
        ("{\"any\": \"it\\'s\"}", Exactness::Tolerant),
        ("{\"any\": \"a\nb\"}", Exactness::Tolerant),
        ("{any: 1}", Exactness::Tolerant),
        ("{\"any\": 1 /* one */}", Exactness::Tolerant),
        ("{\"any\": 1} .", Exactness::Tolerant),
        ("so {\"any\": 1}", Exactness::Tolerant),
        ("{} {\"any\": 1}", Exactness::Tolerant),
        ("<think></think>{\"any\": 1}", Exactness::Tolerant),
    ] {
        let mut parser = FieldParser::new(&signature);
        chars(text)
            .into_iter()
            .for_each(|piece| parser.push(piece, &mut Vec::new()).unwrap());
        assert_eq!(parser.exactness(), exactness, "{text}");
        parser.finish().unwrap();
    }
}
