//! Hostile answers: bombs of depth, size and choice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_core::ChatResponse;
use peregrine_signatures::{
    Compiled, Error, FieldParser, JsonSchema, Reading, Signature, Violation, ViolationKind, parse, schemars,
};
use serde::{Deserialize, Serialize};

use crate::model;

fn read(signature: &Arc<Compiled>, text: &str, reading: Reading) -> Result<(), Violation> {
    match model::read(signature, &ChatResponse::text(text), reading) {
        Ok(_) => Ok(()),
        Err(Error::Output(error)) => Err(error.problems[0].clone()),
        Err(other) => panic!("{other}"),
    }
}

fn stream(signature: &Arc<Compiled>, text: &str, reading: Reading) -> Result<(), Violation> {
    let mut parser = FieldParser::with_reading(signature, reading);
    let mut events = Vec::new();
    text.split_inclusive(|_: char| true).try_for_each(|piece| {
        events.clear();
        parser.push(piece, &mut events)
    })?;
    parser.finish().map(drop)
}

#[test]
fn depth_is_bounded_in_every_way_of_reading() {
    let signature = parse("q -> any: any").unwrap();
    let nested = |depth: usize| format!("{{\"any\": {}1{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    for text in [nested(64), nested(64).replace(']', ",]")] {
        read(&signature, &text, Reading::default()).unwrap();
        stream(&signature, &text, Reading::default()).unwrap();
    }
    for text in [
        nested(65),
        nested(65).replace(']', ",]"),
        nested(100_000),
        "{\"any\":".repeat(100_000),
    ] {
        for read in [read, stream] {
            let problem = read(&signature, &text, Reading::default()).unwrap_err();
            assert_eq!(
                (problem.kind, problem.path.len() < 1_000),
                (ViolationKind::TooLarge, true),
                "{problem}"
            );
        }
    }
    let mut reading = Reading::default();
    reading.max_depth = usize::MAX;
    assert!(
        stream(&signature, &nested(100_000), reading).is_err(),
        "no setting lifts the bound"
    );
    assert!(read(&signature, &nested(100_000), reading).is_err());
}

#[test]
fn size_is_bounded_before_anything_is_read() {
    let signature = parse("q -> answer").unwrap();
    let reading = Reading::default().with_max_bytes(1_000);
    let fits = format!("{{\"answer\": \"{}\"}}", "x".repeat(980));
    let large = format!("{{\"answer\": \"{}\"}}", "x".repeat(990));
    for read in [read, stream] {
        read(&signature, &fits, reading).unwrap();
        assert_eq!(
            read(&signature, &large, reading).unwrap_err().kind,
            ViolationKind::TooLarge
        );
    }
}

#[test]
fn ten_megabytes_of_brackets_are_refused_at_once() {
    let signature = parse("q -> any: any").unwrap();
    let wide = Reading::default().with_max_bytes(64 * 1024 * 1024);
    let started = Instant::now();
    for text in ["[", "{", "{\"", "[{", "\"{", "{a", "{}", "'", "{\"any\":[1]}"] {
        let bytes = if text == "[" { 10_000_000 } else { 1_000_000 };
        let text = text.repeat(bytes / text.len());
        for (text, reading) in [
            (text.clone(), Reading::default()),
            (text.clone(), wide),
            (format!("{{\"any\": {text}"), wide),
            (format!("{{\"any\": [{text}"), wide),
        ] {
            let mut parser = FieldParser::with_reading(&signature, reading);
            let streamed = parser
                .push(&text, &mut Vec::new())
                .and_then(|()| parser.finish().map(drop));
            assert_eq!(
                streamed.is_ok(),
                read(&signature, &text, reading).is_ok(),
                "{}",
                &text[..20]
            );
        }
    }
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
#[serde(untagged)]
enum Expression {
    Left { inner: Box<Expression>, a: u8 },
    Right { inner: Box<Expression>, a: i16 },
    Leaf(u8),
}

/// Parse.
#[derive(Signature)]
struct Parse {
    #[input]
    text: String,
    #[output]
    tree: Expression,
}

#[test]
fn trying_alternatives_does_not_explode() {
    let compiled = Parse::compiled().unwrap();
    // At every level both alternatives look possible until the innermost value refuses them all.
    let depth = 60;
    let bomb = format!(
        "{{\"tree\": {}[]{}}}",
        "{\"inner\": ".repeat(depth),
        ", \"a\": 1}".repeat(depth)
    );
    let started = Instant::now();
    for read in [read, stream] {
        let problem = read(compiled, &bomb, Reading::default()).unwrap_err();
        assert_eq!(problem.kind, ViolationKind::TooLarge, "{problem}");
    }
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
    let fine = bomb.replace("[]", "7");
    read(compiled, &fine, Reading::default()).unwrap();
    stream(compiled, &fine, Reading::default()).unwrap();
}

#[test]
fn many_keys_and_long_tokens_take_linear_time() {
    let signature = parse("q -> any: any, n: float").unwrap();
    let keys: Vec<String> = (0..50_000).map(|n| format!("\"k{n}\": {n}")).collect();
    let text = format!(
        "{{\"any\": {{{}}}, \"n\": 1{}}}",
        keys.join(", "),
        "0".repeat(100)
    );
    let started = Instant::now();
    read(&signature, &text, Reading::default()).unwrap();
    stream(&signature, &text, Reading::default()).unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn errors_stay_small_however_large_the_answer() {
    let signature = parse("q -> answer: int").unwrap();
    let huge = "x".repeat(1_000_000);
    for text in [
        format!("{{\"answer\": \"{huge}\"}}"),
        format!("{{\"{huge}\": 1}}"),
        format!("{{\"answer\": 1, \"b\": {{\"{huge}\": 1}}}}"),
        huge,
    ] {
        let Err(error) = model::read(&signature, &ChatResponse::text(text.as_str()), Reading::default())
        else {
            panic!()
        };
        assert!(error.to_string().len() < 1_000, "{}", error.to_string().len());
        let Error::Output(output) = error else { panic!() };
        assert!(format!("{output:?}").len() < 3_000);
        let problem = stream(&signature, &text, Reading::default()).unwrap_err();
        assert!(problem.to_string().len() < 1_000);
    }
}
