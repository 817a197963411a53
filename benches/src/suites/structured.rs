//! Structured output: a request made of typed inputs, typed outputs read from an answer, and from an answer in pieces.

use std::rc::Rc;

use peregrine_core::{ChatRequest, ChatResponse};
use peregrine_signatures::{Contract, FieldEvent, FieldParser, JsonSchema, Plan, Reply, Signature, schemars};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bench::{Group, each, floor, ours};

/// How many characters a piece of a stream has.
const PIECE: usize = 8;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
struct Section {
    heading: String,
    /// what it says, in Markdown
    body: String,
    /// from 0 to 1
    weight: f64,
    sources: Vec<String>,
}

/// Write a report.
#[derive(Signature)]
#[signature(derive(Deserialize))]
struct Report {
    /// what it is to be about
    #[input]
    topic: String,
    /// one line
    #[output(length = 1..=200)]
    title: String,
    /// a page
    #[output]
    summary: String,
    #[output]
    sections: Vec<Section>,
    #[output(range = 0.0..=1.0)]
    confidence: f64,
}

pub(super) fn groups() -> Vec<Group> {
    vec![
        request(),
        read("small", 0, 1),
        read("98kb", 99, 80),
        typed_stream("12kb", 12, 10),
        typed_stream("98kb", 99, 80),
    ]
}

fn contract() -> Contract {
    Contract::new(Report::compiled().unwrap().clone(), Plan::NativeSchema)
}

fn request() -> Group {
    Group::new(
        "structured/request/native_schema",
        "typed inputs become a request with a schema",
        &[ours("peregrine").counted()],
        || {
            let (contract, inputs) = (contract(), ReportInput::new("the migration of the swallows"));
            vec![each(
                move || contract.ask(ChatRequest::default(), &inputs).unwrap(),
                |request| assert!(request.response_format != ChatRequest::default().response_format),
            )]
        },
    )
}

fn read(size: &str, sections: usize, sentences: usize) -> Group {
    let text: Rc<str> = answer(sections, sentences).to_string().into();
    Group::new(
        format!("structured/read/{size}"),
        format!(
            "an answer of {} bytes becomes typed outputs, checked; the floor reads the same type",
            text.len()
        ),
        &[ours("peregrine").counted(), floor("serde_json").counted()],
        move || {
            let contract = contract();
            let response = ChatResponse::text(&*text);
            let text = Rc::clone(&text);
            vec![
                each(
                    move || match contract.read::<ReportOutput>(&response) {
                        Ok(Reply::Answer { output, .. }) => output,
                        other => panic!("{other:?}"),
                    },
                    move |output| assert!(output.sections.len() == sections && output.confidence == 0.75),
                ),
                each(
                    move || serde_json::from_str::<ReportOutput>(&text).unwrap(),
                    move |output| assert!(output.sections.len() == sections && output.confidence == 0.75),
                ),
            ]
        },
    )
    .with_counted_operations(5)
}

/// Two sizes, so that it is seen whether the time grows as the text does.
fn typed_stream(size: &str, sections: usize, sentences: usize) -> Group {
    let text: Rc<str> = answer(sections, sentences).to_string().into();
    let least = sections * 4;
    Group::new(
        format!("structured/stream/{size}"),
        format!("an answer of {} bytes in pieces of 8 characters, its fields told as they complete; the floor puts the pieces \
                 together and parses once", text.len()),
        &[ours("peregrine").counted(), floor("serde_json_once").counted()],
        move || {
            let pieces: Rc<[String]> = pieces(&text).map(str::to_owned).collect();
            let Value::Object(expected) = answer(sections, sentences) else {
                unreachable!("it is an object")
            };
            let (of_ours, of_hand) = (expected.clone(), Value::Object(expected));
            let again = Rc::clone(&pieces);
            vec![
                each(
                    move || {
                        let mut parser = FieldParser::new(Report::compiled().unwrap());
                        let (mut events, mut told): (Vec<FieldEvent>, _) = (Vec::new(), 0);
                        for piece in pieces.iter() {
                            parser.push(piece, &mut events).unwrap();
                            told += events.len();
                            events.clear();
                        }
                        (parser.finish().unwrap(), told)
                    },
                    move |(fields, told)| assert!(*fields == of_ours && *told > least),
                ),
                each(
                    move || -> Value {
                        let mut text = String::new();
                        again.iter().for_each(|piece| text.push_str(piece));
                        serde_json::from_str(&text).unwrap()
                    },
                    move |value| assert_eq!(*value, of_hand),
                ),
            ]
        },
    )
    .with_counted_operations(3)
}

/// About 1,000 bytes a section, 86 a sentence of the summary.
fn answer(sections: usize, sentences: usize) -> Value {
    let sentence =
        "The swallows left early; \"too early\", the keepers said, and wrote it down.\nNobody knew why. ";
    let section = |n: usize| {
        json!({
            "heading": format!("Part {n}"),
            "body": sentence.repeat(8),
            "weight": n as f64 / 128.0,
            "sources": ["log, 12 May", "keeper's diary", "a letter of 1911"],
        })
    };
    json!({
        "title": "Where the swallows went",
        "summary": sentence.repeat(sentences),
        "sections": (0..sections).map(section).collect::<Vec<_>>(),
        "confidence": 0.75,
    })
}

fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.char_indices().nth(PIECE).map_or(rest.len(), |(at, _)| at);
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}
