//! Whole answers: an answer of one piece, put together by [`Assembly`] and folded.

use peregrine_core::{ChatResponse, Error, Fold, RawResponse, Result};

use super::assembly::Assembly;
use super::reply::Reply;
use crate::wire::{Events, json};

pub(super) fn decode(provider: &str, raw: RawResponse) -> Result<ChatResponse> {
    match read(provider, &raw) {
        Ok(mut response) => {
            response.raw = Some(raw);
            Ok(response)
        }
        Err(error) => Err(keep_raw(error, raw)),
    }
}

fn read(provider: &str, raw: &RawResponse) -> Result<ChatResponse> {
    let body = raw.body();
    // Looked at once for its encoding, not text by text.
    let text = std::str::from_utf8(&body);
    let reply: Reply<'_> = match text {
        Ok(text) => serde_json::from_str(text),
        // What is not read may be anything.
        Err(_) => serde_json::from_slice(&body),
    }
    .map_err(|error| json::protocol_error("the chat completion", &error))?;
    let mut assembly = Assembly::new(provider);
    let mut events = Events::with_capacity(8);
    assembly.read(reply, text.unwrap_or_default(), &mut events)?;
    assembly.finish(&mut events)?;
    fold(events)
}

/// The answer of all its events.
pub(crate) fn fold(events: Events) -> Result<ChatResponse> {
    let mut fold = Fold::new();
    for event in events {
        fold.push(event)?;
    }
    fold.finish()
}

/// Puts the response that holds an error into it.
pub(crate) fn keep_raw(error: Error, raw: RawResponse) -> Error {
    match error {
        Error::Provider(mut error) => {
            std::sync::Arc::make_mut(&mut error).raw = Some(raw);
            Error::Provider(error)
        }
        Error::Protocol(mut error) => {
            std::sync::Arc::make_mut(&mut error).raw = Some(raw);
            Error::Protocol(error)
        }
        other => other,
    }
}
