//! What a signature costs: its first use and later uses, a request, an answer, and typed streaming.
//!
//! `cargo bench -p peregrine-signatures`. Ids are `operation/parameter/implementation`; rivals and floors stand beside
//! ours in the same run, and every implementation's result is checked once outside the timed part. The rival in
//! streaming is what a parser without state does: it closes the text that has come so far and parses all of it again.
//! That takes time with the square of the text, so it runs on a tenth of it; ours runs there too.

#![allow(missing_docs, reason = "criterion's macros write undocumented functions")]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use peregrine_core::{ChatEvent, ChatRequest, ChatResponse, Done, Finish, Fold};
use peregrine_signatures::{
    Compiled, Contract, FieldEvent, FieldParser, Fields, JsonSchema, Plan, Registry, Reply, Signature,
    SignatureSpec, schemars,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
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

const TEXT: &str =
    "question, context: list[str] -> answer, confidence: float, kind: literal['fact', 'guess']";
/// How many characters a piece of a stream has.
const PIECE: usize = 8;

fn report() -> &'static Arc<Compiled> {
    Report::compiled().expect("it compiles")
}

/// The first use compiles, later uses find what was compiled.
fn compile(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    // A derived signature compiles once in a process, so its first use is measured on the same definition, built.
    let spec = || {
        SignatureSpec::new("Report")
            .with_instruction("Write a report.")
            .with_input(field::<String>("topic", "what it is to be about"))
            .with_output(field::<String>("title", "one line").with_length(1..=200))
            .with_output(field::<String>("summary", "a page"))
            .with_output(field::<Vec<Section>>("sections", ""))
            .with_output(field::<f64>("confidence", "").with_range(0.0..=1.0))
    };
    assert_eq!(
        spec().compile().expect("it compiles").digest(),
        report().digest(),
        "the same definition"
    );
    group.bench_function("derived/first-use", |b| {
        b.iter(|| spec().compile().expect("it compiles"))
    });
    group.bench_function("derived/later-use", |b| {
        b.iter(|| black_box(Report::compiled()).is_ok())
    });
    let registry = Registry::new(NonZeroUsize::new(16).expect("16 is not zero"));
    group.bench_function("text/first-use", |b| {
        b.iter(|| {
            SignatureSpec::parse(black_box(TEXT))
                .expect("it parses")
                .compile()
        })
    });
    let known = registry.parse(TEXT).expect("it parses");
    assert!(Arc::ptr_eq(&known, &registry.parse(TEXT).expect("it parses")));
    group.bench_function("text/later-use", |b| b.iter(|| registry.parse(black_box(TEXT))));
    group.finish();
}

fn field<T: JsonSchema>(name: &str, description: &str) -> peregrine_signatures::Field {
    peregrine_signatures::Field::of::<T>(name).with_description(description)
}

/// A request from inputs, and typed outputs from a response.
fn call(c: &mut Criterion) {
    let mut group = c.benchmark_group("call");
    let contract = Contract::new(report().clone(), Plan::NativeSchema);
    let inputs = ReportInput::new("the migration of the swallows");
    group.bench_function("request/ours", |b| {
        b.iter(|| {
            contract
                .ask(ChatRequest::default(), black_box(&inputs))
                .expect("they fit")
        })
    });
    for (size, answer) in [("small", answer(0, 1)), ("98k", answer(99, 80))] {
        let text = answer.to_string();
        let response = ChatResponse::text(text.as_str());
        group.throughput(Throughput::Bytes(text.len() as u64));
        let read = || match contract.read::<ReportOutput>(black_box(&response)) {
            Ok(Reply::Answer { output, .. }) => output,
            other => panic!("{other:?}"),
        };
        let floor = || serde_json::from_str::<ReportOutput>(black_box(&text)).expect("it fits");
        assert_eq!(read().sections.len(), floor().sections.len());
        group.bench_function(format!("answer-{size}/ours"), |b| b.iter(read));
        group.bench_function(format!("answer-{size}/serde_json-typed-floor"), |b| b.iter(floor));
    }
    group.finish();
}

/// An answer in pieces of eight characters, until all fields are told and checked.
fn stream(c: &mut Criterion) {
    let mut group = c.benchmark_group("stream");
    group.measurement_time(Duration::from_secs(5));
    for (name, answer) in [
        ("objects-98k", answer(99, 80)),
        ("long-text-98k", answer(1, 1_030)),
        ("objects-10k", answer(9, 8)),
    ] {
        let text = answer.to_string();
        let pieces: Vec<&str> = pieces(&text).collect();
        let events = events(&pieces);
        group.throughput(Throughput::Bytes(text.len() as u64));

        let Value::Object(expected) = &answer else {
            unreachable!("it is an object")
        };
        assert_eq!(incremental(&pieces).0, *expected);
        group.bench_function(format!("{name}/ours"), |b| {
            b.iter(|| incremental(black_box(&pieces)))
        });
        assert_eq!(from_events(events.clone()), *expected);
        group.bench_function(format!("{name}/ours-with-fold-of-model-events"), |b| {
            b.iter_batched(|| events.clone(), from_events, BatchSize::LargeInput)
        });

        let whole = || serde_json::from_str::<Value>(black_box(&text)).expect("it is JSON");
        assert_eq!(whole(), answer);
        group.bench_function(format!("{name}/serde_json-once-floor"), |b| b.iter(whole));
        // The pieces must be put together before they can be parsed once.
        let joined = || {
            let mut text = String::new();
            black_box(&pieces).iter().for_each(|piece| text.push_str(piece));
            serde_json::from_str::<Value>(&text).expect("it is JSON")
        };
        group.bench_function(format!("{name}/serde_json-joined-floor"), |b| b.iter(joined));

        if text.len() < 20_000 {
            assert_eq!(again_and_again(&pieces), answer);
            group.bench_function(format!("{name}/rival-parsing-again"), |b| {
                b.iter(|| again_and_again(black_box(&pieces)))
            });
        }
    }
    group.finish();
}

/// Ours: the fields, and how many events told them.
fn incremental(pieces: &[&str]) -> (Fields, usize) {
    let mut parser = FieldParser::new(report());
    let mut events: Vec<FieldEvent> = Vec::new();
    let mut told = 0;
    for piece in pieces {
        parser.push(piece, &mut events).expect("it fits");
        told += events.len();
        events.clear();
    }
    (parser.finish().expect("it is whole"), told)
}

/// Ours as an agent uses it: from the events of a model, with the fold beside it.
fn from_events(events: Vec<ChatEvent>) -> Fields {
    let contract = Contract::new(report().clone(), Plan::NativeSchema);
    let mut reader = contract.reader(&ChatRequest::default());
    let mut fold = Fold::new();
    let mut told: Vec<FieldEvent> = Vec::new();
    for event in events {
        reader.push(&event, &mut told).expect("it fits");
        fold.push(event).expect("they are in order");
        told.clear();
    }
    let response = fold.finish().expect("it is whole");
    match reader.finish(&response, &mut told) {
        Ok(Reply::Answer { output, .. }) => output,
        other => panic!("{other:?}"),
    }
}

/// The rival: at every piece the whole text so far, closed as it needs to be, is parsed again.
fn again_and_again(pieces: &[&str]) -> Value {
    let mut text = String::new();
    let mut last = Value::Null;
    for piece in pieces {
        text.push_str(piece);
        if let Ok(value) = serde_json::from_str(&closed(&text)) {
            last = value;
        }
    }
    last
}

/// The text with the quote and the brackets that it lacks.
fn closed(text: &str) -> String {
    let (mut open, mut quoted, mut escaped) = (Vec::new(), false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => open.push('}'),
            b'[' if !quoted => open.push(']'),
            b'}' | b']' if !quoted => {
                open.pop();
            }
            _ => {}
        }
    }
    let mut closed = text.to_owned();
    if quoted {
        closed.push('"');
    }
    closed.extend(open.iter().rev());
    closed
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
            "sources": ["log, 12 May", "keeper's diary", "https://example.org/swallows?year=1911"],
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

fn events(pieces: &[&str]) -> Vec<ChatEvent> {
    let delta = |piece: &&str| ChatEvent::TextDelta {
        text: (*piece).to_owned(),
    };
    let done = ChatEvent::Done(Box::new(Done::new(Finish::Stop)));
    pieces.iter().map(delta).chain([done]).collect()
}

criterion_group!(benches, compile, call, stream);
criterion_main!(benches);
