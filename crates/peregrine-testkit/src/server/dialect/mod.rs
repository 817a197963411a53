//! The wire formats: one module each, all with the same two sides. Reading takes from a request what an
//! answer depends on ([`View`]); writing renders an [`Answer`] as a complete body and as the frames of a
//! stream, and an error in the dialect's shape.
//!
//! Bodies are built with `json!` in the field order of the real services, and depend on nothing but the
//! request, the script and the request's number: equal inputs give equal bytes.

pub(crate) mod anthropic;
pub(crate) mod frames;
pub(crate) mod gemini;
pub(crate) mod ollama;
pub(crate) mod openai_chat;
pub(crate) mod openai_misc;
pub(crate) mod openai_responses;

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::answer::{Answer, Usage};
use super::fault::ApiError;
use super::seen::{Dialect, Endpoint, SeenRequest};
use frames::{Encoding, Frame};

/// What an answer depends on, read from a request.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) last_text: String,
    pub(crate) tool_result: Option<String>,
    pub(crate) tools: Vec<ToolView>,
    pub(crate) choice: Choice,
    /// The schema that the answer must follow; `json_mode` alone asks for any object.
    pub(crate) schema: Option<Value>,
    pub(crate) json_mode: bool,
    /// Characters of everything that the model would read.
    pub(crate) input_chars: u64,
}

#[derive(Debug)]
pub(crate) struct ToolView {
    pub(crate) name: String,
    pub(crate) parameters: Value,
}

/// Whether tools may or must be called.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    #[default]
    Auto,
    None,
    Required,
    Named(String),
}

/// What rendering needs beside the answer.
#[derive(Debug)]
pub(crate) struct Context<'r> {
    pub(crate) seq: u64,
    pub(crate) endpoint: Endpoint,
    pub(crate) body: &'r Value,
    pub(crate) query_alt: Option<&'r str>,
    pub(crate) model: String,
    pub(crate) include_usage: bool,
    pub(crate) usage: Usage,
    pub(crate) reasoning_field: &'r str,
}

impl Context<'_> {
    /// An id that is unique within the server and the same for the same request number.
    pub(crate) fn id(&self, prefix: &str) -> String {
        format!("{prefix}{:024}", self.seq)
    }

    /// A field of the request, or `null`.
    pub(crate) fn asked(&self, field: &str) -> Value {
        self.body.get(field).cloned().unwrap_or(Value::Null)
    }

    /// A field of the request, or another value.
    pub(crate) fn asked_or(&self, field: &str, default: impl Into<Value>) -> Value {
        match self.body.get(field) {
            None | Some(Value::Null) => default.into(),
            Some(value) => value.clone(),
        }
    }
}

/// The two sides of a wire format.
pub(crate) trait Wire: Sync {
    /// Reads a request to an endpoint that generates, and refuses one that the real service would refuse for
    /// its form.
    fn read(&self, request: &SeenRequest) -> Result<View, ApiError>;

    /// The complete body.
    fn complete(&self, answer: &Answer, context: &Context<'_>) -> Value;

    /// The frames of the stream.
    fn stream(&self, answer: &Answer, context: &Context<'_>) -> Vec<Frame>;

    /// How the frames are written.
    fn encoding(&self, context: &Context<'_>) -> Encoding;

    /// The body of an error.
    fn error_body(&self, error: &ApiError, request_id: &str) -> Value;

    /// An error in the middle of a stream.
    fn error_frame(&self, error: &ApiError, request_id: &str) -> Frame {
        Frame::end(self.error_body(error, request_id))
    }

    /// The content type of complete bodies.
    fn json_type(&self) -> &'static str {
        "application/json"
    }

    /// The header that carries the request id, if the service sends one.
    fn request_id_header(&self) -> Option<&'static str>;
}

/// The implementation of a dialect.
pub(crate) fn wire(dialect: Dialect) -> &'static dyn Wire {
    match dialect {
        Dialect::OpenAiChat => &openai_chat::OpenAiChat,
        Dialect::OpenAiResponses => &openai_responses::OpenAiResponses,
        Dialect::Anthropic => &anthropic::Anthropic,
        Dialect::Gemini => &gemini::Gemini,
        Dialect::Ollama => &ollama::Ollama,
    }
}

/// The body as a JSON object, or the error every service gives for something else.
pub(crate) fn object(request: &SeenRequest) -> Result<&Map<String, Value>, ApiError> {
    let value = request
        .json()
        .ok_or_else(|| ApiError::new(400, "the request body is not valid JSON"))?;
    value
        .as_object()
        .ok_or_else(|| ApiError::new(400, "the request body is not a JSON object"))
}

/// The model, which must be a string with something in it.
pub(crate) fn model(body: &Map<String, Value>) -> Result<String, ApiError> {
    match body.get("model").and_then(Value::as_str) {
        Some(model) if !model.is_empty() => Ok(model.to_owned()),
        _ => Err(missing("model")),
    }
}

/// A list that must be there and not be empty.
pub(crate) fn list<'b>(body: &'b Map<String, Value>, field: &str) -> Result<&'b Vec<Value>, ApiError> {
    body.get(field)
        .and_then(Value::as_array)
        .filter(|list| !list.is_empty())
        .ok_or_else(|| missing(field))
}

pub(crate) fn missing(field: &str) -> ApiError {
    ApiError::new(400, format!("missing required parameter: '{field}'")).with_param(field)
}

/// Text of a content that is a string, a part, or a list of parts with `text`.
pub(crate) fn text_of(content: &Value) -> Cow<'_, str> {
    match content {
        Value::String(text) => Cow::Borrowed(text),
        Value::Array(parts) => Cow::Owned(parts.iter().map(text_of).collect()),
        Value::Object(part) => part
            .get("text")
            .and_then(Value::as_str)
            .map_or(Cow::Borrowed(""), Cow::Borrowed),
        _ => Cow::Borrowed(""),
    }
}

/// Characters of all strings below a value. Keys do not count, nor what is no text to a model: roles, types,
/// the data and addresses of images. The depth is bounded by the JSON parser.
pub(crate) fn chars_below(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.chars().count() as u64,
        Value::Array(items) => items.iter().map(chars_below).sum(),
        Value::Object(fields) => {
            let counts = |(name, value): &(&String, &Value)| {
                !(value.is_string()
                    && matches!(name.as_str(), "role" | "type" | "data" | "url" | "image_url"))
            };
            fields
                .iter()
                .filter(counts)
                .map(|(_, value)| chars_below(value))
                .sum()
        }
        _ => 0,
    }
}

/// Characters below several fields of a request.
pub(crate) fn chars_of(body: &Map<String, Value>, fields: &[&str]) -> u64 {
    fields
        .iter()
        .filter_map(|field| body.get(*field))
        .map(chars_below)
        .sum()
}

pub(crate) fn str_at<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str)
}

pub(crate) fn flag(body: &Map<String, Value>, field: &str) -> Option<bool> {
    body.get(field).and_then(Value::as_bool)
}
