//! Recorded traffic of real providers, decoded without a socket, against what an independent decoder read.
//!
//! The recordings lie beside the project (`../shared/wire`); where they are absent these tests check nothing
//! and say so. A codec's own test module calls [`check`] with the API's name in the recordings.

#![allow(dead_code, reason = "used by the codecs' test modules")]
#![allow(clippy::print_stdout, reason = "a test says why it checked nothing")]
#![allow(
    clippy::result_large_err,
    reason = "what a stream gave before it failed is what is compared"
)]

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::OnceLock;

use bytes::Bytes;
use peregrine_core::{Capabilities, ChatEvent, ChatResponse, Error, Finish, Fold, RawResponse, Usage};
use peregrine_providers::wire::ndjson::NdjsonDecoder;
use peregrine_providers::wire::sse::SseDecoder;
use peregrine_providers::wire::{ChatCodec, Framing, Target};
use serde_json::{Value, json};

/// One recorded exchange and what an independent decoder made of it.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) name: String,
    pub(crate) provider: String,
    pub(crate) path: String,
    pub(crate) request: Value,
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: String,
    pub(crate) expected: Value,
}

impl Exchange {
    pub(crate) fn is_stream(&self) -> bool {
        self.expected["stream"] == true
    }
}

/// The recorded exchanges of an API that have an expected row; `None` where there are no recordings.
pub(crate) fn exchanges(api: &str) -> Option<Vec<&'static Exchange>> {
    static ALL: OnceLock<Option<Vec<Exchange>>> = OnceLock::new();
    let all = ALL.get_or_init(load).as_ref()?;
    Some(
        all.iter()
            .filter(|exchange| exchange.expected["api"] == api)
            .collect(),
    )
}

fn load() -> Option<Vec<Exchange>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/wire");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let lines = |text: String| -> Vec<Value> {
        text.lines()
            .map(|line| serde_json::from_str(line).expect("the recordings are JSON lines"))
            .collect()
    };
    let (recordings, expected) = (lines(read("recordings.jsonl")?), lines(read("expected.jsonl")?));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let exchanges = expected.into_iter().map(|row| {
        let recording = recordings
            .iter()
            .find(|r| r["name"] == row["name"])
            .expect("each row has a recording");
        let index = usize::try_from(row["i"].as_u64().expect("an index")).expect("a small index");
        let it = &recording["interactions"][index];
        Exchange {
            name: format!("{}[{index}]", text(&row["name"])),
            provider: text(&it["provider"]),
            path: text(&it["path"]),
            request: it["request"].clone(),
            status: u16::try_from(it["status"].as_u64().expect("a status")).expect("a status"),
            content_type: text(&it["headers"]["content-type"]),
            body: text(&it["body"]),
            expected: row,
        }
    });
    Some(exchanges.collect())
}

/// Decodes every recorded exchange of `api`, whole and, for streams, cut in several ways.
pub(crate) fn check(api: &str, codec_for: impl Fn(&Exchange) -> Box<dyn ChatCodec>) {
    let Some(exchanges) = exchanges(api) else {
        println!("no recordings beside the project: nothing checked for {api}");
        return;
    };
    assert!(!exchanges.is_empty(), "no recorded exchange of {api}");
    let mut wrong = Vec::new();
    for exchange in &exchanges {
        let codec = codec_for(exchange);
        let found = match decode(codec.as_ref(), exchange, &[]) {
            Ok(response) => row(&response),
            Err((partial, error)) => error_row(&partial, &error),
        };
        for field in ["text", "tool_calls", "finish", "usage"] {
            let found = if field == "usage" {
                as_reported(api, &found[field])
            } else {
                found[field].clone()
            };
            if exchange
                .expected
                .get(field)
                .is_some_and(|expected| *expected != found)
            {
                wrong.push(format!(
                    "{}: {field}: {found} is not {}",
                    exchange.name, exchange.expected[field]
                ));
            }
        }
        if exchange.is_stream() {
            check_cuts(codec.as_ref(), exchange);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} rows differ:\n{}",
        wrong.len(),
        exchanges.len(),
        wrong.join("\n")
    );
}

/// The same events whatever way the bytes are cut.
fn check_cuts(codec: &dyn ChatCodec, exchange: &Exchange) {
    let whole = events(codec, exchange, &[]);
    let len = exchange.body.len();
    let mut seed = 42_u64;
    for round in 0..12 {
        let mut cuts = Vec::new();
        let mut at = 0;
        while at < len {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let longest = [1, 2, 3, 7, 64, 1500][round % 6];
            at += 1 + usize::try_from(seed >> 33).expect("31 bits") % longest;
            cuts.push(at.min(len));
        }
        let cut = events(codec, exchange, &cuts);
        assert_eq!(whole.0, cut.0, "{} cut differently", exchange.name);
        assert_eq!(whole.1.is_some(), cut.1.is_some(), "{}", exchange.name);
    }
}

/// The events of a recorded stream, cut at these places, and the error that ended it.
pub(crate) fn events(
    codec: &dyn ChatCodec,
    exchange: &Exchange,
    cuts: &[usize],
) -> (Vec<ChatEvent>, Option<Error>) {
    let capabilities = Capabilities::default();
    let model = exchange.request["model"].as_str().unwrap_or_default();
    let target = Target {
        provider: &exchange.provider,
        model,
        capabilities: &capabilities,
    };
    let mut decoder = codec.decoder(&target);
    let mut found = VecDeque::new();
    let mut run = || -> peregrine_core::Result<()> {
        let mut from = 0;
        let pieces = cuts.iter().copied().chain([exchange.body.len()]).map(|to| {
            let piece = &exchange.body.as_bytes()[from..to];
            from = to;
            piece
        });
        match codec.framing() {
            Framing::Ndjson => {
                let mut lines = NdjsonDecoder::new(1 << 20);
                for piece in pieces {
                    lines.push(piece, &mut |frame| decoder.frame(frame, &mut found))?;
                }
                lines.finish(&mut |frame| decoder.frame(frame, &mut found))?;
            }
            _ => {
                let mut frames = SseDecoder::new(1 << 22);
                for piece in pieces {
                    frames.push(piece, &mut |frame| decoder.frame(frame, &mut found))?;
                }
                frames.finish(&mut |frame| decoder.frame(frame, &mut found))?;
            }
        }
        decoder.end(&mut found)
    };
    let error = run().err();
    (found.into(), error)
}

/// The answer of a recorded exchange, or what came of it and the error.
pub(crate) fn decode(
    codec: &dyn ChatCodec,
    exchange: &Exchange,
    cuts: &[usize],
) -> Result<ChatResponse, (ChatResponse, Error)> {
    let capabilities = Capabilities::default();
    let model = exchange.request["model"].as_str().unwrap_or_default();
    let target = Target {
        provider: &exchange.provider,
        model,
        capabilities: &capabilities,
    };
    let nothing = || ChatResponse::new(Vec::new(), Finish::Stop);
    if exchange.status >= 400 {
        let body = codec.error_body(exchange.body.as_bytes());
        assert!(
            !body.message.is_empty(),
            "{}: an error without a message",
            exchange.name
        );
        let error = body.into_error(
            &exchange.provider,
            exchange.status,
            None,
            peregrine_core::UnixTime(0),
        );
        return Err((nothing(), error.into()));
    }
    if exchange.is_stream() {
        let (events, error) = events(codec, exchange, cuts);
        let mut fold = Fold::new();
        for event in events {
            fold.push(event).expect("the events are in order");
        }
        return match error {
            Some(error) => Err((fold.partial().clone(), error)),
            None => Ok(fold
                .finish()
                .expect("a decoder that ends well has made the end event")),
        };
    }
    let headers = vec![("content-type".to_owned(), exchange.content_type.clone())];
    let raw = RawResponse::new(exchange.status, headers, vec![Bytes::from(exchange.body.clone())]);
    codec.decode(&target, raw).map_err(|error| (nothing(), error))
}

/// The fields of an expected row, from an answer.
fn row(response: &ChatResponse) -> Value {
    let calls = response.tool_calls().map(|call| {
        let arguments = call
            .parse_arguments()
            .unwrap_or_else(|_| Value::String(call.arguments.clone()));
        json!({"name": call.name, "arguments": arguments})
    });
    let finish = match &response.finish {
        // The rows have no word for an answer that a server still works on in the background.
        Finish::Other(word) if matches!(word.as_str(), "queued" | "in_progress") => "stop",
        Finish::Other(_) => "other",
        known => known.as_str(),
    };
    json!({
        "text": response.message.text(),
        "tool_calls": calls.collect::<Vec<_>>(),
        "finish": finish,
        "usage": response.usage.map(|usage| usage_row(&usage)),
    })
}

fn error_row(partial: &ChatResponse, _: &Error) -> Value {
    let mut found = row(partial);
    found["finish"] = Value::Null;
    found
}

fn usage_row(usage: &Usage) -> Value {
    json!({"input": usage.input_tokens, "output": usage.output_tokens,
           "cache_read": usage.cached_input_tokens, "cache_write": usage.cache_write_tokens,
           "plain_input": usage.plain_input_tokens()})
}

/// Usage as the API counts it: Anthropic leaves cached tokens out of the input, the others have one number.
fn as_reported(api: &str, usage: &Value) -> Value {
    match (usage, api) {
        (Value::Null, _) => Value::Null,
        (usage, "anthropic") => json!({"input": usage["plain_input"], "output": usage["output"],
                                       "cache_read": usage["cache_read"], "cache_write": usage["cache_write"]}),
        (usage, _) => json!({"input": usage["input"], "output": usage["output"]}),
    }
}
