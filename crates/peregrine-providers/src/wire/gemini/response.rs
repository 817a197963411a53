//! A whole answer of `generateContent`, and the errors of both forms.
//!
//! A whole answer is a stream of one piece, folded: so both forms give the same response.

use peregrine_core::{
    ChatResponse, Error, ErrorKind, Fold, ProtocolError, ProviderError, RawResponse, Result, UnixTime,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::DIALECT;
use super::assembler::{Answer, Assembler};
use crate::wire::error::{ErrorBody, provider_error};
use crate::wire::{Events, Target};

/// Reads a whole answer.
pub(super) fn decode(target: &Target<'_>, raw: RawResponse) -> Result<ChatResponse> {
    let body = raw.body();
    let with_raw = |problem: Problem| problem.into_error(target.provider, &raw, &body);
    let answer: Answer<'_> = serde_json::from_slice(&body).map_err(|source| with_raw(source.into()))?;
    let mut assembler = Assembler::new();
    let mut events = Events::new();
    assembler.piece(answer, &mut events).map_err(with_raw)?;
    if !assembler.has_candidate {
        return Err(with_raw(Problem::NoCandidate));
    }
    assembler.end(&mut events);
    let mut fold = Fold::new();
    for event in events {
        fold.push(event)?;
    }
    let mut response = fold.finish()?;
    response.raw = Some(raw);
    Ok(response)
}

/// Why an answer cannot be read.
pub(super) enum Problem {
    /// It is an error.
    Error,
    /// The prompt was blocked, for this reason and with this explanation.
    Blocked(String, Option<String>),
    /// It is not what the dialect promises.
    Unreadable(serde_json::Error),
    /// It holds neither an answer nor a reason.
    NoCandidate,
}

impl From<serde_json::Error> for Problem {
    fn from(source: serde_json::Error) -> Self {
        Self::Unreadable(source)
    }
}

impl Problem {
    /// The error, with the answer kept.
    fn into_error(self, provider: &str, raw: &RawResponse, body: &[u8]) -> Error {
        match self {
            // An error may come as the only item of a list.
            Self::Unreadable(_) if is_error_list(body) => Self::Error.into_error(provider, raw, body),
            Self::Error => provider_error(provider, raw.clone(), error_body(body), UnixTime(0)).into(),
            Self::Blocked(reason, message) => {
                let mut error = blocked(provider, raw.status(), reason, message);
                error.raw = Some(raw.clone());
                error.into()
            }
            Self::Unreadable(source) => {
                let message = format!("{provider} did not answer in the {DIALECT} dialect");
                ProtocolError::new(message)
                    .with_raw(raw.clone())
                    .with_source(source)
                    .into()
            }
            Self::NoCandidate => {
                let message = format!("{provider} answered without a candidate and without a reason");
                ProtocolError::new(message).with_raw(raw.clone()).into()
            }
        }
    }

    /// The error of a stream, of which this is the frame.
    pub(super) fn into_stream_error(self, provider: &str, frame: &str) -> Error {
        match self {
            Self::Unreadable(_) if is_error_list(frame.as_bytes()) => {
                Self::Error.into_stream_error(provider, frame)
            }
            Self::Error => error_body(frame.as_bytes())
                .into_error(provider, 200, None, UnixTime(0))
                .into(),
            Self::Blocked(reason, message) => blocked(provider, 200, reason, message).into(),
            Self::Unreadable(source) => {
                let message = format!("an event in the stream of {provider} cannot be read");
                ProtocolError::new(message).with_source(source).into()
            }
            Self::NoCandidate => ProtocolError::new(format!("{provider} sent no candidate")).into(),
        }
    }
}

fn blocked(provider: &str, status: u16, reason: String, message: Option<String>) -> ProviderError {
    let message = message.unwrap_or_else(|| format!("the prompt was blocked ({reason})"));
    let mut error = ProviderError::new(provider, status, ErrorKind::ContentFilter, message);
    error.code = Some(reason);
    error
}

fn is_error_list(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Item {
        #[serde(rename = "error")]
        _error: IgnoredAny,
    }
    serde_json::from_slice::<[Item; 1]>(body).is_ok()
}

/// Reads the body of an error. Google names the cause most closely as the `reason` among the details.
pub(in crate::wire) fn error_body(body: &[u8]) -> ErrorBody {
    let mut error = ErrorBody::parse(body);
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let value = value.get(0).unwrap_or(&value);
    let details = value.pointer("/error/details").and_then(Value::as_array);
    let reason = details
        .into_iter()
        .flatten()
        .find_map(|detail| detail.get("reason")?.as_str());
    // The status (`INVALID_ARGUMENT`, for a wrong key too) stays as the broader word.
    if let Some("API_KEY_INVALID") = reason {
        error.class = error.code.take();
        error.code = reason.map(str::to_owned);
    }
    error
}
