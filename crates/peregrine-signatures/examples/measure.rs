//! Measures what a signature costs: its first use and later uses, and typed streaming against its rival.
//!
//! Run it with `cargo run --release -p peregrine-signatures --example measure`. It prints medians over all samples of
//! one thread that does nothing else, so wall time is CPU time.

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use peregrine_core::ChatResponse;
use peregrine_signatures::{
    FieldEvent, FieldParser, JsonSchema, Plan, Reading, Registry, Reply, Signature, SignatureSpec, schemars,
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

fn main() {
    first_and_later_uses();
    streaming();
}

fn first_and_later_uses() {
    println!("first use and later uses");
    let started = Instant::now();
    let compiled = Report::compiled().expect("it compiles");
    println!("  derived, first use                 {:>12?}", started.elapsed());
    let later = median(1_000, || {
        for _ in 0..1_000 {
            black_box(Report::compiled().is_ok());
        }
    });
    println!("  derived, later uses                {:>12?}", later / 1_000);

    let text = "question, context: list[str] -> answer, confidence: float, kind: literal['fact', 'guess']";
    let registry = Registry::new(std::num::NonZeroUsize::new(16).expect("16 is not zero"));
    let compile = median(1_000, || {
        black_box(SignatureSpec::parse(text).expect("it parses").compile().is_ok());
    });
    println!("  run time, compiled each time       {compile:>12?}");
    black_box(registry.parse(text).is_ok());
    let later = median(1_000, || {
        for _ in 0..100 {
            black_box(registry.parse(black_box(text)).is_ok());
        }
    });
    println!("  run time, from the registry        {:>12?}", later / 100);

    let inputs = ReportInput::new("the migration of the swallows");
    let request = median(10_000, || {
        black_box(compiled.request(Plan::NativeSchema, &inputs).is_ok());
    });
    println!("  a request from inputs              {request:>12?}");
    let answer = json!({"title": "T", "summary": "S", "sections": [], "confidence": 0.5}).to_string();
    let response = ChatResponse::text(answer);
    let read = median(10_000, || {
        let reply = compiled.read(&response, Reading::default());
        assert!(matches!(reply, Ok(Reply::Answer { .. })));
    });
    println!("  a checked answer from a response   {read:>12?}");
}

fn streaming() {
    let sections = answer(99, 80);
    compare("a list of objects", &sections);
    let summary = answer(1, 1_030);
    compare("one long text", &summary);
}

fn compare(what: &str, answer: &Value) {
    let compiled = Report::compiled().expect("it compiles");
    let text = answer.to_string();
    let pieces: Vec<&str> = pieces(&text, 8).collect();
    println!(
        "typed streaming, {what}: {} bytes in {} pieces",
        text.len(),
        pieces.len()
    );

    let mut told = 0;
    let ours = median(200, || {
        let mut parser = FieldParser::new(compiled);
        let mut events: Vec<FieldEvent> = Vec::new();
        told = 0;
        for piece in &pieces {
            parser.push(piece, &mut events).expect("it fits");
            told += events.len();
            events.clear();
        }
        assert_eq!(Value::Object(parser.finish().expect("it is whole")), *answer);
    });
    println!("  incremental, {told:>6} events         {ours:>12?}");

    let whole = median(200, || {
        assert_eq!(serde_json::from_str::<Value>(&text).expect("it is JSON"), *answer);
    });
    println!("  floor: serde_json, the whole once  {whole:>12?}");

    let rival = median(1, || {
        let mut so_far = String::new();
        let mut values = 0;
        for piece in &pieces {
            so_far.push_str(piece);
            // What a parser without state does: the whole prefix again. The cut-off value is an error at its end.
            values += usize::from(serde_json::from_str::<Value>(&so_far).is_ok());
        }
        assert_eq!(values, 1);
    });
    println!("  rival: parse again at each piece   {rival:>12?}");
    println!(
        "  ratio                              {:>12.0}",
        rival.as_secs_f64() / ours.as_secs_f64()
    );
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

fn pieces(text: &str, chars: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.char_indices().nth(chars).map_or(rest.len(), |(at, _)| at);
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

fn median(samples: usize, mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..samples)
        .map(|_| {
            let started = Instant::now();
            run();
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}
