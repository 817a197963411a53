//! Short ways to encode a request and to decode an answer, whole or streamed.

use bytes::Bytes;
use peregrine_core::{
    Capabilities, ChatEvent, ChatRequest, ChatResponse, Fold, Messages, RawResponse, Result,
};
use peregrine_providers::wire::sse::SseDecoder;
use peregrine_providers::wire::{ChatCodec, EncodedPrefix, Events, Mode, Target};

/// The body of a request, or the message of the error.
pub(crate) fn encode(
    codec: &dyn ChatCodec,
    model: &str,
    request: &ChatRequest,
) -> std::result::Result<String, String> {
    let capabilities = Capabilities::default();
    encode_for(codec, &target(model, &capabilities), request, Mode::Complete).map(|(body, _)| body)
}

/// The body of a request and where its messages stand, or the message of the error.
pub(crate) fn encode_for(
    codec: &dyn ChatCodec,
    target: &Target<'_>,
    request: &ChatRequest,
    mode: Mode,
) -> std::result::Result<(String, Option<EncodedPrefix>), String> {
    let mut out = Vec::new();
    let prefix = codec
        .encode(target, request, mode, &mut out)
        .map_err(|error| error.to_string())?;
    let body = String::from_utf8(out).expect("a body is UTF-8");
    serde_json::from_str::<serde::de::IgnoredAny>(&body).expect("a body is JSON");
    Ok((body, prefix))
}

pub(crate) fn target<'a>(model: &'a str, capabilities: &'a Capabilities) -> Target<'a> {
    Target {
        provider: "p",
        model,
        capabilities,
    }
}

/// Reads a whole answer.
pub(crate) fn decode(codec: &dyn ChatCodec, body: impl Into<Bytes>) -> Result<ChatResponse> {
    let capabilities = Capabilities::default();
    let headers: Vec<(String, String)> = Vec::new();
    codec.decode(
        &target("m", &capabilities),
        RawResponse::new(200, headers, vec![body.into()]),
    )
}

/// The events of a stream of these bytes, and how it ended.
pub(crate) fn events(codec: &dyn ChatCodec, bytes: &[u8]) -> (Vec<ChatEvent>, Result<()>) {
    let capabilities = Capabilities::default();
    let mut decoder = codec.decoder(&target("m", &capabilities));
    let mut frames = SseDecoder::new(1 << 22);
    let mut events = Events::new();
    let ended = frames
        .push(bytes, &mut |frame| decoder.frame(frame, &mut events))
        .and_then(|()| frames.finish(&mut |frame| decoder.frame(frame, &mut events)))
        .and_then(|()| decoder.end(&mut events));
    (events.into(), ended)
}

/// The fold of a stream of these bytes.
pub(crate) fn stream(codec: &dyn ChatCodec, bytes: &[u8]) -> Result<ChatResponse> {
    let (events, ended) = events(codec, bytes);
    ended?;
    let mut fold = Fold::new();
    for event in events {
        fold.push(event)?;
    }
    fold.finish()
}

/// Server-sent events of these data.
pub(crate) fn sse<S: AsRef<str>>(data: impl IntoIterator<Item = S>) -> String {
    data.into_iter()
        .map(|data| format!("data: {}\n\n", data.as_ref()))
        .collect()
}

/// Encodes a growing conversation turn by turn, remembering prefixes as a client does, and checks that
///
/// - each body without its closing brackets is a prefix of the next one;
/// - the bytes are the same with and without what is remembered.
///
/// Returns how often a remembered prefix was there to be used.
pub(crate) fn check_prefixes(
    codec: &dyn ChatCodec,
    model: &str,
    base: &ChatRequest,
    script: &[peregrine_core::Message],
    is_turn: impl Fn(usize) -> bool,
) -> usize {
    let capabilities = Capabilities::default();
    let target = target(model, &capabilities);
    let mut request = base.clone();
    request.messages = Messages::new();
    let mut last_body = String::new();
    let mut used = 0;
    for (index, message) in script.iter().enumerate() {
        request.messages.push(message.clone());
        if !is_turn(index) {
            continue;
        }
        let (body, prefix) = encode_for(codec, &target, &request, Mode::Complete).expect("it can be said");
        let mut fresh = request.clone();
        fresh.messages = request.messages.iter().cloned().collect();
        let (without, _) = encode_for(codec, &target, &fresh, Mode::Complete).expect("it can be said");
        assert_eq!(body, without, "{} messages", request.messages.len());
        let open = last_body.trim_end_matches(['}', ']']);
        assert!(body.starts_with(open), "\n{open}\nis no prefix of\n{body}");
        if let Some(EncodedPrefix { key, count, range }) = prefix {
            assert!(request.messages.len() > 1 && count < request.messages.len());
            let bytes = Bytes::copy_from_slice(&body.as_bytes()[range]);
            request.messages.remember_prefix(key, count, bytes);
            used += 1;
        }
        last_body = body;
    }
    used
}
