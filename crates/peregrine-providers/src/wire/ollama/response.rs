//! A whole answer of `/api/chat`.

use peregrine_core::{ChatResponse, Done, Error, Part, ProtocolError, RawResponse, ReasoningPart, Result};

use super::chunk::Chunk;
use crate::wire::Target;

/// Reads the answer; the error that the body holds, or what is wrong with it, carries the raw response.
pub(super) fn decode(target: &Target<'_>, raw: RawResponse) -> Result<ChatResponse> {
    let body = raw.body();
    let mut chunk = match Chunk::parse(&body) {
        Ok(chunk) => chunk,
        Err(source) => {
            let error = ProtocolError::new("the answer is not an object of Ollama's /api/chat");
            return Err(error.with_source(source).with_raw(raw).into());
        }
    };
    if let Some(mut error) = chunk.take_error(target.provider) {
        error.raw = Some(raw);
        return Err(error.into());
    }
    let wrong = |error: ProtocolError| -> Error { error.with_raw(raw.clone()).into() };
    if chunk.done != Some(true) {
        let mut error = ProtocolError::new("the answer does not say that it is done");
        error.kind = peregrine_core::ErrorKind::Truncated;
        return Err(wrong(error));
    }
    let mut parts = Vec::new();
    let mut pending = Vec::new();
    if let Some(mut message) = chunk.message.take() {
        if let Some(text) = message.thinking.take().filter(|text| !text.is_empty()) {
            parts.push(Part::Reasoning(ReasoningPart { text, data: None }));
        }
        if let Some(text) = message.content.take().filter(|text| !text.is_empty()) {
            parts.push(Part::text(text));
        }
        message.take_calls(&mut pending).map_err(wrong)?;
    }
    let (done, usage) = chunk.end(!pending.is_empty());
    parts.extend(chunk.calls(pending).map(Part::ToolCall));
    let Done {
        finish,
        timings,
        metadata,
        raw: _,
    } = done;
    let mut response = ChatResponse::new(parts, finish);
    response.model = chunk.model.take().unwrap_or_default();
    response.usage = usage;
    response.timings = timings;
    response.metadata = metadata;
    drop(chunk);
    response.raw = Some(raw);
    Ok(response)
}
