//! A whole answer of the Messages API, and what both forms of an answer share: usage, ending, metadata.

use std::borrow::Cow;

use peregrine_core::{
    ChatResponse, Error, Finish, Metadata, OpaquePart, Part, ProtocolError, ProviderData, RawResponse,
    ReasoningPart, Result, TextPart, ToolCall, UnixTime, Usage,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::DIALECT;
use crate::wire::error::{ErrorBody, provider_error};
use crate::wire::fields::{self, Fields};
use crate::wire::{Target, json};

/// Reads a whole answer.
pub(super) fn decode(target: &Target<'_>, raw: RawResponse) -> Result<ChatResponse> {
    let body = raw.body();
    let unreadable = |source| {
        let message = format!(
            "{} did not answer with a message of the {DIALECT} dialect",
            target.provider
        );
        ProtocolError::new(message)
            .with_raw(raw.clone())
            .with_source(source)
    };
    let answer: Answer<'_> = serde_json::from_slice(&body).map_err(unreadable)?;
    if answer.error.is_some() {
        let error = provider_error(target.provider, raw.clone(), error_body(&body), UnixTime(0));
        return Err(error.into());
    }
    if answer.content.is_none() && answer.stop_reason.is_none() {
        let message = format!(
            "{} answered without content and without a stop reason",
            target.provider
        );
        return Err(ProtocolError::new(message).with_raw(raw.clone()).into());
    }
    let mut ending = Ending {
        stop_reason: answer.stop_reason,
        ..Ending::default()
    };
    ending.note("stop_sequence", answer.stop_sequence);
    ending.note("stop_details", answer.stop_details);
    ending.note("container", answer.container);
    ending.note("context_management", answer.context_management);
    if let Some(usage) = answer.usage {
        ending.count(usage);
    }
    let mut parts = Vec::new();
    let mut calls = 0;
    for block in answer
        .content
        .map(blocks)
        .transpose()
        .map_err(unreadable)?
        .unwrap_or_default()
    {
        parts.extend(part(block, answer.id.as_deref(), &mut calls).map_err(unreadable)?);
    }
    let (usage, finish, metadata) = ending.close(calls > 0);
    let mut response = ChatResponse::new(parts, finish);
    response.id = answer.id;
    response.model = answer.model.unwrap_or_default();
    response.usage = usage;
    response.metadata = metadata;
    response.raw = Some(raw);
    Ok(response)
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(default)]
    stop_sequence: Option<Value>,
    #[serde(default)]
    stop_details: Option<Value>,
    #[serde(default)]
    container: Option<Value>,
    #[serde(default)]
    context_management: Option<Value>,
    #[serde(default, deserialize_with = "json::or_none")]
    usage: Option<Counts>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

/// The blocks of a content: a list, or a text that stands for one text block.
fn blocks(content: &RawValue) -> serde_json::Result<Vec<&RawValue>> {
    if content.get().starts_with('"') {
        return Ok(vec![content]);
    }
    serde_json::from_str(content.get())
}

fn part(block: &RawValue, id: Option<&str>, calls: &mut usize) -> serde_json::Result<Option<Part>> {
    if block.get().starts_with('"') {
        return Ok(text_part(serde_json::from_str(block.get())?, None));
    }
    let fields: Fields<'_> = serde_json::from_str(block.get())?;
    let kind: String = fields.text("type").unwrap_or_default();
    Ok(match kind.as_str() {
        "text" => text_part(
            fields.text("text").unwrap_or_default(),
            citations(fields.read("citations")),
        ),
        "thinking" => {
            let (text, data) = (
                fields.text("thinking").unwrap_or_default(),
                signature(fields.text("signature")),
            );
            (!text.is_empty() || data.is_some()).then(|| Part::Reasoning(ReasoningPart { text, data }))
        }
        "tool_use" => {
            let mut call = call_head(&fields, id, *calls);
            call.arguments = fields::arguments(fields.get("input"));
            *calls += 1;
            Some(Part::ToolCall(call))
        }
        _ => Some(opaque(kind, serde_json::from_str(block.get())?)),
    })
}

fn text_part(text: String, data: Option<ProviderData>) -> Option<Part> {
    (!text.is_empty() || data.is_some()).then(|| Part::Text(TextPart { text, data }))
}

/// A block that only the provider understands.
pub(super) fn opaque(kind: String, value: Value) -> Part {
    Part::Opaque(OpaquePart {
        dialect: DIALECT.to_owned(),
        kind,
        value,
    })
}

/// A call without its arguments; `place` is its place among the calls of the answer.
pub(super) fn call_head(fields: &Fields<'_>, answer: Option<&str>, place: usize) -> ToolCall {
    let made_up = || match answer {
        Some(answer) => format!("{answer}_call_{place}"),
        None => format!("call_{place}"),
    };
    let mut call = ToolCall::new(
        fields.text("id").unwrap_or_else(made_up),
        fields.text("name").unwrap_or_default(),
        String::new(),
    );
    call.data = fields
        .beside(&["type", "id", "name", "input", "cache_control"])
        .map(|value| ProviderData::new(DIALECT, value));
    call
}

/// The sources that a text cites go back with it.
pub(super) fn citations(citations: Option<Vec<Value>>) -> Option<ProviderData> {
    citations
        .filter(|citations| !citations.is_empty())
        .map(|citations| ProviderData::new(DIALECT, json!({"citations": citations})))
}

/// The signature without which thinking is not taken back.
pub(super) fn signature(signature: Option<String>) -> Option<ProviderData> {
    signature
        .filter(|signature| !signature.is_empty())
        .map(|signature| ProviderData::new(DIALECT, json!({"signature": signature})))
}

/// Token counts as reported; later reports of a stream are cumulative and replace earlier ones.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Counts {
    #[serde(default, deserialize_with = "json::or_none")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "json::or_none")]
    output_tokens: Option<u64>,
    #[serde(default, deserialize_with = "json::or_none")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "json::or_none")]
    cache_read_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "json::or_none")]
    output_tokens_details: Option<OutputDetails>,
    #[serde(default)]
    service_tier: Option<Value>,
    #[serde(default)]
    server_tool_use: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
struct OutputDetails {
    #[serde(default, deserialize_with = "json::or_none")]
    thinking_tokens: Option<u64>,
}

/// What is known of an answer beside its content.
#[derive(Debug, Default)]
pub(super) struct Ending {
    pub(super) stop_reason: Option<String>,
    counts: Counts,
    metadata: Metadata,
}

impl Ending {
    /// Keeps a fact that says something.
    pub(super) fn note(&mut self, name: &str, value: Option<Value>) {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            self.metadata.insert(name.to_owned(), value);
        }
    }

    /// Takes a report of token counts.
    pub(super) fn count(&mut self, reported: Counts) {
        let Counts {
            input_tokens,
            output_tokens,
            cache_creation_input_tokens,
            cache_read_input_tokens,
            output_tokens_details,
            service_tier,
            server_tool_use,
        } = reported;
        self.note("service_tier", service_tier);
        self.note("server_tool_use", server_tool_use);
        let known = &mut self.counts;
        known.input_tokens = input_tokens.or(known.input_tokens);
        known.output_tokens = output_tokens.or(known.output_tokens);
        known.cache_creation_input_tokens = cache_creation_input_tokens.or(known.cache_creation_input_tokens);
        known.cache_read_input_tokens = cache_read_input_tokens.or(known.cache_read_input_tokens);
        if output_tokens_details.is_some() {
            known.output_tokens_details = output_tokens_details;
        }
    }

    /// The usage so far. The provider counts cached tokens beside the input; here they are part of it.
    pub(super) fn usage(&self) -> Option<Usage> {
        let counts = &self.counts;
        let (read, written) = (counts.cache_read_input_tokens, counts.cache_creation_input_tokens);
        counts
            .input_tokens
            .or(counts.output_tokens)
            .or(read)
            .or(written)?;
        let (plain, read, written) = (
            counts.input_tokens.unwrap_or(0),
            read.unwrap_or(0),
            written.unwrap_or(0),
        );
        Some(Usage {
            input_tokens: plain.saturating_add(read).saturating_add(written),
            cached_input_tokens: read,
            cache_write_tokens: written,
            output_tokens: counts.output_tokens.unwrap_or(0),
            reasoning_tokens: counts
                .output_tokens_details
                .as_ref()
                .and_then(|details| details.thinking_tokens)
                .unwrap_or(0),
        })
    }

    /// Usage, finish and metadata of the finished answer.
    pub(super) fn close(mut self, calls_tools: bool) -> (Option<Usage>, Finish, Metadata) {
        let usage = self.usage();
        let finish = match self.stop_reason.as_deref() {
            Some("end_turn" | "stop_sequence" | "tool_use") | None if calls_tools => Finish::ToolCalls,
            Some("end_turn" | "stop_sequence" | "tool_use") => Finish::Stop,
            Some("max_tokens") => Finish::Length,
            Some(word @ "model_context_window_exceeded") => {
                let word = Value::from(word);
                self.note("stop_reason", Some(word));
                Finish::Length
            }
            Some("refusal") => Finish::ContentFilter,
            Some(word) => Finish::Other(word.to_owned()),
            None => Finish::Other("unspecified".to_owned()),
        };
        (usage, finish, self.metadata)
    }
}

/// Reads the body of an error; the provider names the cause most closely in `details.error_code`.
pub(super) fn error_body(body: &[u8]) -> ErrorBody {
    let mut error = ErrorBody::parse(body);
    let cause = serde_json::from_slice::<ErrorShape<'_>>(body)
        .ok()
        .and_then(|shape| shape.error?.details?.error_code);
    if let Some(cause) = cause {
        error.code = Some(cause.into_owned());
    }
    error
}

#[derive(Deserialize)]
struct ErrorShape<'a> {
    #[serde(borrow)]
    error: Option<ErrorFields<'a>>,
}

#[derive(Deserialize)]
struct ErrorFields<'a> {
    #[serde(borrow)]
    details: Option<ErrorDetails<'a>>,
}

#[derive(Deserialize)]
struct ErrorDetails<'a> {
    error_code: Option<Cow<'a, str>>,
}

/// The error that a frame of a stream holds.
pub(super) fn stream_error(provider: &str, frame: &str) -> Error {
    error_body(frame.as_bytes())
        .into_error(provider, 200, None, UnixTime(0))
        .into()
}
