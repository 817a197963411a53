//! What the fuzz targets and the seeded cases run: bytes through every decoder. Shared with `fuzz/`.
//!
//! Laws: nothing panics; any cut of the bytes gives the same events; a stream that ends well has ended with
//! its end event, and its events fold; an error has a kind that fits.

#![allow(dead_code, reason = "each fuzz target uses one of these")]

use std::collections::VecDeque;

use bytes::Bytes;
use peregrine_core::{Capabilities, ChatEvent, ErrorKind, Fold, RawResponse, Result};
use peregrine_providers::wire::anthropic::Anthropic;
use peregrine_providers::wire::gemini::Gemini;
use peregrine_providers::wire::ndjson::NdjsonDecoder;
use peregrine_providers::wire::ollama::Ollama;
use peregrine_providers::wire::openai_chat::{ChatCompat, OpenAiChat};
use peregrine_providers::wire::openai_responses::OpenAiResponses;
use peregrine_providers::wire::sse::SseDecoder;
use peregrine_providers::wire::{ChatCodec, Framing, Target};

/// A small bound, so that it is met.
const MAX_EVENT_BYTES: usize = 1 << 16;

/// Every chat codec, by its dialect's name.
pub(crate) fn codecs() -> Vec<Box<dyn ChatCodec>> {
    vec![
        Box::new(OpenAiChat::new(ChatCompat::openai())),
        Box::new(OpenAiChat::new(ChatCompat::mistral())),
        Box::new(OpenAiResponses::default()),
        Box::new(Anthropic::new()),
        Box::new(Gemini::new()),
        Box::new(Ollama::new()),
    ]
}

/// The frames of an SSE stream are the same for every cut.
pub(crate) fn sse(bytes: &[u8]) {
    let run = |pieces: &[&[u8]]| {
        let mut decoder = SseDecoder::new(MAX_EVENT_BYTES);
        let mut frames = Vec::new();
        let mut sink = |frame: peregrine_providers::wire::Frame<'_>| {
            frames.push((frame.event.map(str::to_owned), frame.data.to_owned()));
            Ok(())
        };
        let result = pieces.iter().try_for_each(|piece| decoder.push(piece, &mut sink));
        let result = result.and_then(|()| decoder.finish(&mut sink));
        (frames, result.err().map(|error| error.kind()))
    };
    same_for_every_cut(bytes, run);
}

/// The lines of an NDJSON stream are the same for every cut.
pub(crate) fn ndjson(bytes: &[u8]) {
    let run = |pieces: &[&[u8]]| {
        let mut decoder = NdjsonDecoder::new(MAX_EVENT_BYTES);
        let mut lines = Vec::new();
        let mut sink = |frame: peregrine_providers::wire::Frame<'_>| {
            lines.push(frame.data.to_owned());
            Ok(())
        };
        let result = pieces.iter().try_for_each(|piece| decoder.push(piece, &mut sink));
        let result = result.and_then(|()| decoder.finish(&mut sink));
        (lines, result.err().map(|error| error.kind()))
    };
    same_for_every_cut(bytes, run);
}

fn same_for_every_cut<T: PartialEq + std::fmt::Debug>(bytes: &[u8], run: impl Fn(&[&[u8]]) -> T) {
    let whole = run(&[bytes]);
    let singles: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(run(&singles), whole, "cut into single bytes");
    let cut = bytes
        .first()
        .map_or(0, |first| usize::from(*first) % (bytes.len() + 1));
    let (one, two) = bytes.split_at(cut);
    assert_eq!(run(&[one, two]), whole, "cut at {cut}");
}

/// A streamed answer of one codec.
pub(crate) fn stream(codec: &dyn ChatCodec, bytes: &[u8]) {
    let (whole, whole_error) = events(codec, &[bytes]);
    let singles: Vec<_> = bytes.chunks(3).collect();
    let (cut, cut_error) = events(codec, &singles);
    assert_eq!(whole, cut, "{}: cut differently", codec.dialect());
    assert_eq!(whole_error, cut_error, "{}", codec.dialect());

    let mut fold = Fold::new();
    for event in whole {
        fold.push(event)
            .unwrap_or_else(|error| panic!("{}: events out of order: {error}", codec.dialect()));
    }
    assert_eq!(
        fold.is_done(),
        whole_error.is_none(),
        "{}: {whole_error:?}",
        codec.dialect()
    );
    check_kind(whole_error);
}

fn events(codec: &dyn ChatCodec, pieces: &[&[u8]]) -> (Vec<ChatEvent>, Option<ErrorKind>) {
    let capabilities = Capabilities::default();
    let target = Target {
        provider: "fuzz",
        model: "m",
        capabilities: &capabilities,
    };
    let mut decoder = codec.decoder(&target);
    let mut found = VecDeque::new();
    let mut run = || -> Result<()> {
        let mut sse = SseDecoder::new(MAX_EVENT_BYTES);
        let mut ndjson = NdjsonDecoder::new(MAX_EVENT_BYTES);
        let lines = codec.framing() == Framing::Ndjson;
        for piece in pieces {
            let mut sink =
                |frame: peregrine_providers::wire::Frame<'_>| take(&mut *decoder, frame, &mut found);
            if lines {
                ndjson.push(piece, &mut sink)?
            } else {
                sse.push(piece, &mut sink)?
            }
        }
        let mut sink = |frame: peregrine_providers::wire::Frame<'_>| take(&mut *decoder, frame, &mut found);
        if lines {
            ndjson.finish(&mut sink)?
        } else {
            sse.finish(&mut sink)?
        }
        if matches!(found.back(), Some(ChatEvent::Done(_))) {
            Ok(())
        } else {
            decoder.end(&mut found)
        }
    };
    let error = run().err().map(|error| error.kind());
    (found.into(), error)
}

/// As the HTTP stream does: what follows the end event belongs to nobody.
fn take(
    decoder: &mut dyn peregrine_providers::wire::EventDecoder,
    frame: peregrine_providers::wire::Frame<'_>,
    found: &mut VecDeque<ChatEvent>,
) -> Result<()> {
    if matches!(found.back(), Some(ChatEvent::Done(_))) {
        Ok(())
    } else {
        decoder.frame(frame, found)
    }
}

/// A whole answer of one codec, and the body of an error.
pub(crate) fn body(codec: &dyn ChatCodec, bytes: &[u8]) {
    let capabilities = Capabilities::default();
    let target = Target {
        provider: "fuzz",
        model: "m",
        capabilities: &capabilities,
    };
    let raw = RawResponse::new(200, Vec::new(), vec![Bytes::copy_from_slice(bytes)]);
    match codec.decode(&target, raw) {
        Ok(response) => {
            assert!(
                response.raw.is_some(),
                "{}: the raw answer is kept",
                codec.dialect()
            );
            let mut fold = Fold::new();
            for event in response.clone().into_events() {
                fold.push(event).expect("an answer's events are in order");
            }
            assert_eq!(fold.finish().expect("an answer's events are whole"), response);
        }
        Err(error) => check_kind(Some(error.kind())),
    }
    let _any_shape = codec.error_body(bytes);
}

fn check_kind(kind: Option<ErrorKind>) {
    let ours = [
        ErrorKind::Internal,
        ErrorKind::Config,
        ErrorKind::Cancelled,
        ErrorKind::MissingCredential,
    ];
    assert!(
        !kind.is_some_and(|kind| ours.contains(&kind)),
        "bytes from outside are no fault of ours: {kind:?}"
    );
}
