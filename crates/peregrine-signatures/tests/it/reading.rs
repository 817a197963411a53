//! How whole answers are read: exactly, tolerantly, and not at all.

use peregrine_core::{ChatResponse, Finish, Part, TextPart};
use peregrine_signatures::{
    Error, Exactness, Field, Fields, OutputError, Reading, Reply, Type, UnknownFields, ViolationKind, parse,
    predict,
};
use serde_json::json;

use crate::model::{self, Script, calls, run};

const SIGNATURE: &str = "q -> answer, score: float?, tags: list[str], meta: dict[str, any]";

fn read(text: &str) -> Result<(Fields, Exactness), OutputError> {
    read_as(text, Reading::default())
}

fn read_as(text: &str, reading: Reading) -> Result<(Fields, Exactness), OutputError> {
    match model::read(&parse(SIGNATURE).unwrap(), &ChatResponse::text(text), reading) {
        Ok(Reply::Answer {
            output, exactness, ..
        }) => Ok((output, exactness)),
        Err(Error::Output(error)) => Err(*error),
        other => panic!("{other:?}"),
    }
}

fn kind(text: &str) -> ViolationKind {
    match read(text) {
        Err(error) => error.problems[0].kind,
        Ok(read) => panic!("{text} was read as {read:?}"),
    }
}

const GOOD: &str =
    r#"{"answer": "it's \"so\"", "score": 0.5, "tags": ["a", "b"], "meta": {"x": [1, null, true]}}"#;

#[test]
fn exact_json_is_read_exactly() {
    let (fields, exactness) = read(&format!(" \n{GOOD}\n")).unwrap();
    assert_eq!(exactness, Exactness::Exact);
    assert_eq!(fields["answer"], "it's \"so\"");
    assert_eq!(fields["meta"]["x"], json!([1, null, true]));
}

#[test]
fn what_is_meant_is_read_tolerantly() {
    let (expected, _) = read(GOOD).unwrap();
    for text in [
        format!("```json\n{GOOD}\n```"),
        format!("```\n{GOOD}\n```\nI hope this helps {{:"),
        format!("Sure! Here is the {{json}} you asked for:\n\n{GOOD}\n\nLet me know."),
        format!("<think>\nMaybe {{\"answer\": \"no\"}}?\n</think>\n{GOOD}"),
        format!("[{GOOD}]"),
        GOOD[..GOOD.len() - 1].to_owned(),
        format!("```json\n{}\n", &GOOD[..GOOD.len() - 1]),
        format!("{GOOD}\n\nThat is:\n```json\n{GOOD}\n```"),
        format!("For {{\"question\": \"why\"}} it is {GOOD}, not {{\"other\": 1}}."),
        serde_json::Value::from(GOOD).to_string(),
        GOOD.replace("]", ",]").replace('}', ",}"),
        GOOD.replace("null", "None").replace("true", "True"),
        GOOD.replace(", \"score\"", ", // how sure\n /* very\n */ \"score\"")
            .replace(", \"tags\"", ", # words\n \"tags\""),
        GOOD.replace("\"answer\"", "answer")
            .replace("\"tags\"", "tags")
            .replace("\"x\"", "x"),
        r#"{'answer': 'it\'s "so"', 'score': 0.5, 'tags': ['a', 'b'], 'meta': {'x': [1, None, True]}}"#
            .to_owned(),
        format!("{GOOD}\n{GOOD}"),
        format!("Input was {{\"q\": 1}}.\n{GOOD}"),
    ] {
        let (fields, exactness) = read(&text).unwrap_or_else(|error| panic!("{text}\n{error}"));
        assert_eq!(
            (fields, exactness),
            (expected.clone(), Exactness::Tolerant),
            "{text}"
        );
    }
    let (fields, _) = read("{\"answer\": \"two\nlines\ttab\", score: null, tags: [], meta: {}}").unwrap();
    assert_eq!(fields["answer"], "two\nlines\ttab");
}

#[test]
fn what_could_mean_something_else_is_refused() {
    for (text, kind_of) in [
        // Cut off, anywhere: nothing is completed.
        (&GOOD[..GOOD.len() - 2], ViolationKind::CutOff),
        (
            r#"{"answer": "a", "tags": [], "meta": {}, "score": 12"#,
            ViolationKind::CutOff,
        ),
        (
            r#"{"answer": "a", "tags": [], "meta": {}, "score": null, "#,
            ViolationKind::CutOff,
        ),
        (
            r#"{"answer": "a", "score": null, "meta": {}, "tags": ["a""#,
            ViolationKind::CutOff,
        ),
        (
            r#"{"answer": "a", "score": null, "meta": {}"#,
            ViolationKind::CutOff,
        ),
        (&GOOD[..GOOD.len() - 3], ViolationKind::CutOff),
        (&GOOD[..20], ViolationKind::CutOff),
        (
            r#"{"answer": "a", "score": 0.5, "tags": ["a", "b"], "meta": {"#,
            ViolationKind::CutOff,
        ),
        (r#"{"answer": "a", "score": 1"#, ViolationKind::CutOff),
        (
            r#"{"answer": "a", "score": 1, "tags": [], "meta": {}} {"answer": "b"#,
            ViolationKind::CutOff,
        ),
        ("{\"ans", ViolationKind::CutOff),
        ("<think>I wonder {\"answer\": 1}", ViolationKind::CutOff),
        // Left out by the model itself.
        (
            r#"{"answer": "a", "score": null, "tags": ["a", ...], "meta": {}}"#,
            ViolationKind::Syntax,
        ),
        (
            r#"{"answer": "a", "score": null, "tags": ["a", "b" "c"], "meta": {}}"#,
            ViolationKind::Syntax,
        ),
        (
            r#"{"answer": "a", "score": null, "tags": ["a",, "b"], "meta": {}}"#,
            ViolationKind::Syntax,
        ),
        (
            r#"{"answer": "say "hi" now", "score": null, "tags": [], "meta": {}}"#,
            ViolationKind::Syntax,
        ),
        (
            r#"{"answer": 'it's', "score": null, "tags": [], "meta": {}}"#,
            ViolationKind::Syntax,
        ),
        (
            r#"{"answer": a, "score": null, "tags": [], "meta": {}}"#,
            ViolationKind::Syntax,
        ),
        (
            r#"{"answer": "a"; "score": null, "tags": [], "meta": {}}"#,
            ViolationKind::Syntax,
        ),
        (
            r#"{"answer": "a", "score": null, "tags": ["a"; "b"], "meta": {}}"#,
            ViolationKind::Syntax,
        ),
        (
            r#"{"answer" = "a", "score": null, "tags": [], "meta": {}}"#,
            ViolationKind::NoAnswer,
        ),
        (
            r#"{"answer": "a", "score": .5, "tags": [], "meta": {}}"#,
            ViolationKind::Syntax,
        ),
        (
            r#"{"answer": "a", "score": 1e999, "tags": [], "meta": {}}"#,
            ViolationKind::Range,
        ),
        (
            r#"{"answer": "a", "score": NaN, "tags": [], "meta": {}}"#,
            ViolationKind::Syntax,
        ),
        (
            r#"{"answer": "\ud800", "score": 1, "tags": [], "meta": {}}"#,
            ViolationKind::Syntax,
        ),
        (
            r#"{"answer": "a", "score": 1, "tags": ["a"}, "meta": {}}"#,
            ViolationKind::Syntax,
        ),
        // Two answers, or one value twice.
        (r#"{"answer": "a"} {"answer": "b"}"#, ViolationKind::Ambiguous),
        (r#"[{"answer": "a"}, {"tags": []}]"#, ViolationKind::Ambiguous),
        (
            r#"{"answer": "a", "answer": "b", "score": 1, "tags": [], "meta": {}}"#,
            ViolationKind::Duplicate,
        ),
        (
            r#"{answer: "a", "score": 1, "tags": [], "meta": {"x": {"y": 1, "y": 1}}}"#,
            ViolationKind::Duplicate,
        ),
        (
            r#"{"answer": "a", "score": 1, "tags": [], "meta": {}} {"answer": "b", "score": 1, "tags": [], "meta": {}}"#,
            ViolationKind::Ambiguous,
        ),
        // No answer.
        ("", ViolationKind::NoAnswer),
        ("I can not do that.", ViolationKind::NoAnswer),
        ("\"text\"", ViolationKind::NoAnswer),
        ("[]", ViolationKind::NoAnswer),
        ("{} {}", ViolationKind::NoAnswer),
        // Another object than the one that was asked for.
        (
            r#"{"result": {"answer": "a", "score": 1, "tags": [], "meta": {}}}"#,
            ViolationKind::Unknown,
        ),
    ] {
        assert_eq!(kind(text), kind_of, "{text}");
    }
}

#[test]
fn errors_say_where_what_and_with_which_text() {
    let error =
        read(r#"{"answer": 5, "score": "high", "tags": ["a", {"b": 1}], "meta": {}, "more": [1, 2]}"#)
            .unwrap_err();
    let problems: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "`answer`: expected string, found 5",
            "`score`: expected number or null, found \"high\"",
            "`tags[1]`: expected string, found an object with the keys [b]",
            "`more`: expected no such field, only answer, score, tags, meta, found a list of 2",
        ]
    );
    assert!(
        error
            .to_string()
            .starts_with("the answer does not fit `signature`: `answer`: expected string")
    );
    assert!(error.text.starts_with(r#"{"answer": 5"#));

    let error = read(r#"{"answer": "a", "score": 1, "tags": ["a", "b", "meta": {}}"#).unwrap_err();
    assert_eq!(
        error.problems[0].to_string(),
        r#"`tags[3]`: expected `,` or the closing bracket, found ":" in ": {}}""#
    );
    let error = read(&format!("{{\"answer\": \"{}", "long ".repeat(10_000))).unwrap_err();
    assert!(error.text.len() < 1_100 && error.text.ends_with("long ") && error.is_cut_off());
    assert_eq!(
        error.problems[0].to_string(),
        "`answer`: expected the rest of the answer, found its end"
    );
}

#[test]
fn unknown_fields_are_refused_or_dropped_as_asked() {
    let text = GOOD.replace("{\"answer\"", "{\"why\": \"because\", \"answer\"");
    assert_eq!(kind(&text), ViolationKind::Unknown);
    let ignoring = Reading::default().with_unknown_fields(UnknownFields::Ignore);
    let (fields, _) = read_as(&text, ignoring).unwrap();
    assert_eq!(fields, read(GOOD).unwrap().0);
}

#[test]
fn numbers_are_read_as_they_were_written_or_not_at_all() {
    let signature = peregrine_signatures::SignatureSpec::parse("q -> n: int?, f: float?, x: any")
        .unwrap()
        .with_output(Field::of::<f32>("single"))
        .with_output(Field::of::<u128>("wide"))
        .with_output(Field::new("half", Type::Number).with_one_of([0.5, 1.0]))
        .with_output(Field::new("step", Type::Integer).with_one_of([1, 2]))
        .compile()
        .unwrap();
    let fits = json!({"n": null, "f": null, "x": null, "single": 0, "wide": 0, "half": 0.5, "step": 1});
    let read = |field: &str, number: &str| {
        let text = fits.to_string();
        let old = format!("\"{field}\":{}", fits[field]);
        assert!(text.contains(&old), "{text}");
        let text = text.replace(&old, &format!("\"{field}\":{number}"));
        match model::read(&signature, &ChatResponse::text(text), Reading::default()) {
            Ok(Reply::Answer { output, .. }) => output[field].to_string(),
            Err(Error::Output(error)) => error.problems[0].to_string(),
            other => panic!("{other:?}"),
        }
    };
    for (field, number, told) in [
        ("n", "18446744073709551615", "18446744073709551615"),
        ("n", "-9223372036854775808", "-9223372036854775808"),
        ("n", "9007199254740991.0", "9007199254740991"),
        ("n", "1e3", "1000"),
        ("f", "0.1", "0.1"),
        ("f", "9007199254740993", "9007199254740993"),
        ("half", "1", "1.0"),
        ("step", "2.0", "2"),
        ("single", "3.4028234e38", "3.4028234e+38"),
    ] {
        assert_eq!(read(field, number), told, "{number}");
    }
    for (field, number, told) in [
        (
            "n",
            "18446744073709551616",
            "`n`: expected integer, found 1.8446744073709552e+19",
        ),
        // Which of two integers it was can not be told any more.
        (
            "n",
            "9007199254740993.0",
            "`n`: expected integer, found 9007199254740992.0",
        ),
        (
            "n",
            "-9007199254740992.0",
            "`n`: expected integer, found -9007199254740992.0",
        ),
        ("n", "1e400", "`n`: expected a number of 64 bits, found `1e400`"),
        ("f", "-1e400", "`f`: expected a number of 64 bits, found `-1e400`"),
        ("x", "1e400", "`x`: expected a number of 64 bits, found `1e400`"),
        ("f", "NaN", "`f`: expected `true`, `false` or `null`, found `NaN`"),
        ("f", "1.e5", "`f`: expected a JSON number, found `1.e5`"),
        ("single", "1e39", "`single`: expected number, found 1e+39"),
        ("half", "0.75", "`half`: expected 0.5 | 1.0, found 0.75"),
        ("step", "1.5", "`step`: expected 1 | 2, found 1.5"),
    ] {
        assert_eq!(read(field, number), told, "{number}");
    }
}

#[test]
fn an_answer_by_its_tool_is_read_from_the_call() {
    let signature = parse("q -> answer").unwrap();
    let read = |response: &ChatResponse| model::read(&signature, response, Reading::default());
    let one = calls([("final_answer", r#"{"answer": "a"}"#)]);
    assert!(matches!(read(&one), Ok(Reply::Answer { .. })));
    let same = calls([
        ("final_answer", r#"{"answer":"a"}"#),
        ("final_answer", r#"{"answer": "a"}"#),
    ]);
    assert!(matches!(read(&same), Ok(Reply::Answer { .. })));
    let two = calls([
        ("final_answer", r#"{"answer": "a"}"#),
        ("final_answer", r#"{"answer": "b"}"#),
    ]);
    assert!(
        matches!(read(&two), Err(Error::Output(error)) if error.problems[0].kind == ViolationKind::Ambiguous)
    );
    let early = calls([("search", "{}"), ("final_answer", r#"{"answer": "a"}"#)]);
    assert_eq!(read(&early).unwrap(), Reply::Tools);
}

#[test]
fn a_refusal_is_no_misfit() {
    let signature = parse("q -> answer").unwrap();
    let refusal = Part::Refusal(TextPart {
        text: "I would rather not.".to_owned(),
        data: None,
    });
    let refused = ChatResponse::new(vec![refusal], Finish::Stop);
    let error = model::read(&signature, &refused, Reading::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the model declined to answer: I would rather not."
    );
    assert_eq!(error.kind(), peregrine_core::ErrorKind::ContentFilter);
    let withheld = ChatResponse::new(Vec::new(), Finish::ContentFilter);
    assert!(matches!(
        model::read(&signature, &withheld, Reading::default()),
        Err(Error::Refused { .. })
    ));
}

#[test]
fn an_answer_at_its_length_limit_is_known_to_be_cut_off() {
    let signature = parse("q -> answer").unwrap();
    let mut response = ChatResponse::text("I will now write");
    response.finish = Finish::Length;
    let error = model::read(&signature, &response, Reading::default()).unwrap_err();
    assert_eq!(error.kind(), peregrine_core::ErrorKind::Truncated);
    assert!(!error.is_retryable());
}

#[test]
fn null_stands_for_absence_only_where_absence_is_allowed() {
    use peregrine_signatures::{JsonSchema, Signature, schemars};

    #[derive(Debug, Clone, PartialEq, serde::Deserialize, JsonSchema)]
    #[schemars(crate = "schemars")]
    struct Item {
        name: String,
        #[serde(default)]
        tags: Vec<String>,
        #[serde(default)]
        size: Option<u8>,
    }

    /// List.
    #[derive(Signature)]
    struct List {
        #[input]
        text: String,
        #[output]
        item: Item,
    }

    let compiled = List::compiled().unwrap();
    let read = |text: &str| model::read(compiled, &ChatResponse::text(text), Reading::default());
    // Strict modes require every field, so models write null where a field may be absent.
    let text = r#"{"item": {"name": "a", "tags": null, "size": null}}"#;
    let Ok(Reply::Answer { output: fields, .. }) = read(text) else {
        panic!("{text} fits")
    };
    assert_eq!(
        serde_json::Value::Object(fields),
        json!({"item": {"name": "a", "size": null}})
    );
    assert!(read(r#"{"item": {"name": null}}"#).is_err());
    let list = run(predict::<List>(&Script::texts([text]), &ListInput::new("t")))
        .unwrap()
        .output;
    let item = Item {
        name: "a".to_owned(),
        tags: Vec::new(),
        size: None,
    };
    assert_eq!(list.item, item);
}
