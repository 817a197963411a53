//! Messages and the parts they are made of.
//!
//! Invariant: whatever a provider needs to see again unchanged (reasoning signatures, encrypted items,
//! thought signatures) travels in [`ProviderData`] or [`OpaquePart`] and goes back only to that provider.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ToolCall, ToolResult};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// The operator's instructions. Sent as `developer` where a provider calls it so.
    System,
    /// The person, or the program that asks.
    User,
    /// The model.
    Assistant,
    /// The results of tools that the model called.
    Tool,
}

impl Role {
    /// The lower-case name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One message of a conversation.
///
/// # Examples
///
/// ```
/// use peregrine_core::{MediaPart, Message, Part};
///
/// let message = Message::user("What is in this picture?")
///     .with_part(Part::Image(MediaPart::url("https://example.org/cat.png")));
/// assert_eq!(message.text(), "What is in this picture?");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub parts: Vec<Part>,
    /// A hint that the prompt up to and including this message will be sent again, so that a provider with
    /// explicit prompt caching marks a cache breakpoint here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cache_breakpoint: bool,
}

impl Message {
    /// A message of these parts.
    pub fn new(role: Role, parts: Vec<Part>) -> Self {
        Self {
            role,
            parts,
            cache_breakpoint: false,
        }
    }

    /// Instructions for the model.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new(Role::System, vec![Part::text(text)])
    }

    /// What the user says.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new(Role::User, vec![Part::text(text)])
    }

    /// What the model said.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new(Role::Assistant, vec![Part::text(text)])
    }

    /// The result of one tool call.
    pub fn tool(result: ToolResult) -> Self {
        Self::new(Role::Tool, vec![Part::ToolResult(result)])
    }

    /// Adds a part.
    #[must_use]
    pub fn with_part(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }

    /// Marks a prompt-cache breakpoint behind this message.
    #[must_use]
    pub fn with_cache_breakpoint(mut self) -> Self {
        self.cache_breakpoint = true;
        self
    }

    /// The text parts, joined. Reasoning, refusals and tool results are not text of the message.
    pub fn text(&self) -> String {
        let mut texts = self.parts.iter().filter_map(Part::as_text);
        let first = texts.next().unwrap_or_default().to_owned();
        texts.fold(first, |joined, text| joined + text)
    }

    /// The tool calls, in order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| match part {
            Part::ToolCall(call) => Some(call),
            _ => None,
        })
    }

    /// The reasoning parts, joined.
    pub fn reasoning(&self) -> String {
        self.parts
            .iter()
            .filter_map(|part| match part {
                Part::Reasoning(reasoning) => Some(reasoning.text.as_str()),
                _ => None,
            })
            .collect()
    }
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Part {
    /// Text.
    Text(TextPart),
    /// An image.
    Image(MediaPart),
    /// Audio.
    Audio(MediaPart),
    /// A document, as a file or as plain text.
    Document(DocumentPart),
    /// The model asks for a tool.
    ToolCall(ToolCall),
    /// What a tool returned.
    ToolResult(ToolResult),
    /// What the model thought, or a summary of it.
    Reasoning(ReasoningPart),
    /// The model declined; the text says why.
    Refusal(TextPart),
    /// A piece that only its provider understands, kept word for word.
    Opaque(OpaquePart),
}

impl Part {
    /// A text part.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(TextPart {
            text: text.into(),
            data: None,
        })
    }

    /// The text, if this is a text part.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(part) => Some(&part.text),
            _ => None,
        }
    }
}

/// Text, with what its provider wants to see again beside it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TextPart {
    /// The text.
    pub text: String,
    /// Data that goes back to the provider with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ProviderData>,
}

/// Reasoning text, with the signature or encrypted form that its provider wants to see again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReasoningPart {
    /// The text; empty where the provider only gives it encrypted.
    pub text: String,
    /// Data that goes back to the provider with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ProviderData>,
}

/// A value that belongs to one provider and goes back to it unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProviderData {
    /// The dialect that it came from and may go back to, such as `anthropic`.
    pub dialect: String,
    /// The value, in a form the dialect's codec defines.
    pub value: Value,
}

impl ProviderData {
    /// Data of a dialect.
    pub fn new(dialect: impl Into<String>, value: Value) -> Self {
        Self {
            dialect: dialect.into(),
            value,
        }
    }
}

/// A whole piece of a message in its provider's own form: a server-side tool's call or result, redacted
/// reasoning, a compaction item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpaquePart {
    /// The dialect that it came from and may go back to.
    pub dialect: String,
    /// What the provider calls this piece, such as `server_tool_use`.
    pub kind: String,
    /// The piece, word for word.
    pub value: Value,
}

/// An image or audio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MediaPart {
    /// Where the bytes are.
    pub source: MediaSource,
    /// The media type, such as `image/png`; required with [`MediaSource::Bytes`] by most providers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// How closely the model is to look, where a provider offers it (`low`, `high`, `auto`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl MediaPart {
    /// Media that the provider fetches from an address.
    pub fn url(url: impl Into<String>) -> Self {
        Self {
            source: MediaSource::Url { url: url.into() },
            media_type: None,
            detail: None,
        }
    }

    /// Media sent along.
    pub fn bytes(media_type: impl Into<String>, data: impl Into<Bytes>) -> Self {
        Self {
            source: MediaSource::Bytes { data: data.into() },
            media_type: Some(media_type.into()),
            detail: None,
        }
    }

    /// Media uploaded to the provider before.
    pub fn file(id: impl Into<String>) -> Self {
        Self {
            source: MediaSource::File { id: id.into() },
            media_type: None,
            detail: None,
        }
    }

    /// States the media type.
    #[must_use]
    pub fn with_media_type(mut self, media_type: impl Into<String>) -> Self {
        self.media_type = Some(media_type.into());
        self
    }
}

/// A document for the model to read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentPart {
    /// Where its content is.
    pub source: MediaSource,
    /// The media type, such as `application/pdf` or `text/plain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Its title or file name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

impl DocumentPart {
    /// A document of plain text.
    pub fn text(title: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            source: MediaSource::Text { text: text.into() },
            media_type: Some("text/plain".to_owned()),
            title: Some(title.into()),
        }
    }

    /// A document sent along as bytes.
    pub fn bytes(media_type: impl Into<String>, data: impl Into<Bytes>) -> Self {
        Self {
            source: MediaSource::Bytes { data: data.into() },
            media_type: Some(media_type.into()),
            title: None,
        }
    }

    /// A document that the provider fetches.
    pub fn url(url: impl Into<String>) -> Self {
        Self {
            source: MediaSource::Url { url: url.into() },
            media_type: None,
            title: None,
        }
    }

    /// States the title or file name.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }
}

/// Where the content of an image, audio or document is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum MediaSource {
    /// Sent along. Base64 in JSON.
    Bytes {
        /// The bytes.
        #[serde(with = "base64_bytes")]
        data: Bytes,
    },
    /// Fetched by the provider.
    Url {
        /// The address.
        url: String,
    },
    /// Uploaded to the provider before.
    File {
        /// The provider's id of the file.
        id: String,
    },
    /// Plain text (documents only).
    Text {
        /// The text.
        text: String,
    },
}

mod base64_bytes {
    //! Bytes as standard base64 text.

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD
            .decode(text.as_bytes())
            .map(Bytes::from)
            .map_err(D::Error::custom)
    }
}
