//! What a model answered.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Message, Part, RawResponse, Role, ToolCall, Usage};

/// Facts about an answer that have no field of their own, in a fixed order.
pub type Metadata = BTreeMap<String, Value>;

/// The answer to a [`ChatRequest`](crate::ChatRequest).
///
/// Equality compares what was answered; [`raw`](Self::raw) is left out, because the same answer streamed
/// and whole has different bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChatResponse {
    /// The provider's id of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The model that answered, as the provider names it; empty if it does not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// What was said.
    pub message: Message,
    /// Why it ended.
    pub finish: Finish,
    /// What it used; `None` if the provider did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The server's own times, where it reports them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
    /// Other facts, such as the stop sequence that was met.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// What the provider really sent. Not stored, not compared.
    #[serde(skip)]
    pub raw: Option<RawResponse>,
}

impl ChatResponse {
    /// An answer of these parts.
    pub fn new(parts: Vec<Part>, finish: Finish) -> Self {
        Self {
            id: None,
            model: String::new(),
            message: Message::new(Role::Assistant, parts),
            finish,
            usage: None,
            timings: None,
            metadata: Metadata::new(),
            raw: None,
        }
    }

    /// A finished answer of one text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(vec![Part::text(text)], Finish::Stop)
    }

    /// Names the model that answered.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<String>) -> Self {
        self.model = model.into();
        self
    }

    /// States the usage.
    #[must_use]
    pub fn with_usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// The tool calls, in order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.message.tool_calls()
    }

    /// The provider's id of the request, for its support.
    pub fn request_id(&self) -> Option<&str> {
        self.raw.as_ref().and_then(RawResponse::request_id)
    }
}

impl PartialEq for ChatResponse {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            id,
            model,
            message,
            finish,
            usage,
            timings,
            metadata,
            raw: _,
        } = self;
        *id == other.id
            && *model == other.model
            && *message == other.message
            && *finish == other.finish
            && *usage == other.usage
            && *timings == other.timings
            && *metadata == other.metadata
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum Finish {
    /// The model was done, or met a stop sequence.
    Stop,
    /// The output reached its bound.
    Length,
    /// The model asks for tools.
    ToolCalls,
    /// The provider or the model withheld the answer.
    ContentFilter,
    /// Another reason, in the provider's word.
    Other(String),
}

impl Finish {
    /// The word: `stop`, `length`, `tool_calls`, `content_filter`, or the provider's own.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::Other(word) => word,
        }
    }
}

impl fmt::Display for Finish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<String> for Finish {
    fn from(word: String) -> Self {
        match word.as_str() {
            "stop" => Self::Stop,
            "length" => Self::Length,
            "tool_calls" => Self::ToolCalls,
            "content_filter" => Self::ContentFilter,
            _ => Self::Other(word),
        }
    }
}

impl From<Finish> for String {
    fn from(finish: Finish) -> Self {
        match finish {
            Finish::Other(word) => word,
            known => Cow::Borrowed(known.as_str()).into_owned(),
        }
    }
}

/// The server's own account of where the time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timings {
    /// The whole call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Duration>,
    /// Loading the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<Duration>,
    /// Reading the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Duration>,
    /// Writing the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<Duration>,
}
