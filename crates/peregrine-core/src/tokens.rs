//! Tokens without a tokenizer: an estimate that costs next to nothing, and a bound that holds for all of them.
//!
//! Tokenizers differ by model and their vocabularies are megabytes; what was really used comes back with each answer.
//! So this is for deciding beforehand (windows, reservations), not for accounting.
//!
//! The estimate of a text is its UTF-8 bytes divided by 4, rounded up. English prose has 4 to 5 bytes a token, Chinese
//! and Japanese about 3 to 4, code and JSON 3 to 4, so it is mostly within a third. Each message adds
//! [`PER_MESSAGE`] and each tool call or result [`PER_CALL`] for what stands between the texts. Images, audio and
//! documents that are no plain text count [`PER_IMAGE`], [`PER_AUDIO`] and [`PER_DOCUMENT`], whatever their size.
//!
//! The bound of a text is its UTF-8 bytes: tokens of byte-level vocabularies (Sennrich et al. 2016, as used since GPT-2)
//! and of those with byte fallback stand for at least one byte. Each message and each part adds [`FRAME_AT_MOST`].
//! Media have no bound: what a provider makes of them depends on pixels, pages and seconds, which bytes do not tell.

use serde_json::Value;

use crate::{
    ChatRequest, DocumentPart, MediaSource, Message, OpaquePart, Part, ProviderData, ReasoningPart,
    ResponseFormat, TextPart, ToolCall, ToolResult, ToolSpec,
};

/// Tokens of a message beside its parts.
pub const PER_MESSAGE: u64 = 4;
/// Tokens of a tool call, a tool result or a tool's description beside its texts.
pub const PER_CALL: u64 = 8;
/// Tokens that an image is estimated at.
pub const PER_IMAGE: u64 = 1_000;
/// Tokens that a piece of audio is estimated at.
pub const PER_AUDIO: u64 = 1_500;
/// Tokens that a document other than plain text is estimated at.
pub const PER_DOCUMENT: u64 = 3_000;
/// What a message, a part or a tool adds to its texts at most.
pub const FRAME_AT_MOST: u64 = 32;

const BYTES_PER_TOKEN: u64 = 4;
/// How deep the values of tools nest at most here; what lies deeper is not counted, nor sent by any dialect.
const MAX_DEPTH: u32 = 128;

/// The estimated tokens of a message. O(parts), whatever the length of texts.
///
/// # Examples
///
/// ```
/// use peregrine_core::{Message, tokens};
///
/// assert_eq!(tokens::estimate(&Message::user("Why is the sky blue?")), 5 + tokens::PER_MESSAGE);
/// ```
pub fn estimate(message: &Message) -> u64 {
    message
        .parts
        .iter()
        .map(|part| part_size(part).estimate())
        .fold(PER_MESSAGE, u64::saturating_add)
}

/// Tokens that a message cannot exceed; `None` if it has media.
pub fn tokens_at_most(message: &Message) -> Option<u64> {
    message.parts.iter().try_fold(FRAME_AT_MOST, |sum, part| {
        Some(sum.saturating_add(part_size(part).at_most()?))
    })
}

/// The estimated tokens of a text of so many UTF-8 bytes.
pub const fn estimate_bytes(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(BYTES_PER_TOKEN)
}

/// The estimated tokens of a tool's description and schema.
pub fn estimate_tool(tool: &ToolSpec) -> u64 {
    estimate_bytes(tool_bytes(tool)).saturating_add(PER_CALL)
}

/// Tokens that a tool's description and schema cannot exceed.
pub fn tool_at_most(tool: &ToolSpec) -> u64 {
    (tool_bytes(tool) as u64).saturating_add(FRAME_AT_MOST)
}

/// The estimated tokens of everything that a request sends: messages, tools and the schema of the answer. What the
/// answer will have is not part of it.
///
/// # Examples
///
/// ```
/// use peregrine_core::{ChatRequest, tokens};
///
/// assert_eq!(tokens::estimate_request(&ChatRequest::user("Why is the sky blue?")), 5 + tokens::PER_MESSAGE);
/// ```
pub fn estimate_request(request: &ChatRequest) -> u64 {
    let ChatRequest {
        messages,
        tools,
        tool_choice: _,
        parallel_tool_calls: _,
        response_format,
        sampling: _,
        reasoning: _,
        prompt_cache: _,
        provider_options: _,
        scope: _,
        metadata: _,
    } = request;
    let format = match response_format {
        ResponseFormat::Text | ResponseFormat::Json => 0,
        ResponseFormat::Schema { name, schema, .. } => {
            estimate_bytes(name.len() + schema.as_str().len()).saturating_add(PER_CALL)
        }
    };
    let messages = messages.iter().map(estimate);
    let tools = tools.iter().map(estimate_tool);
    messages.chain(tools).fold(format, u64::saturating_add)
}

fn tool_bytes(tool: &ToolSpec) -> usize {
    let ToolSpec {
        name,
        description,
        parameters,
        strict: _,
    } = tool;
    name.len() + description.len() + parameters.as_str().len()
}

/// What a part amounts to.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    /// Text that a model reads.
    text_bytes: usize,
    /// What only the provider reads: signatures, encrypted reasoning. Part of the bound, not of the estimate.
    data_bytes: usize,
    /// Tokens of frames and media.
    tokens: u64,
    frames: u64,
    media: bool,
}

impl Size {
    fn text(bytes: usize) -> Self {
        Self {
            text_bytes: bytes,
            frames: 1,
            ..Self::default()
        }
    }

    fn media(tokens: u64) -> Self {
        Self {
            tokens,
            frames: 1,
            media: true,
            ..Self::default()
        }
    }

    fn with_data(mut self, data: Option<&ProviderData>) -> Self {
        self.data_bytes += data.map_or(0, |data| json_bytes(&data.value, MAX_DEPTH));
        self
    }

    fn and(self, other: Self) -> Self {
        Self {
            text_bytes: self.text_bytes + other.text_bytes,
            data_bytes: self.data_bytes + other.data_bytes,
            tokens: self.tokens + other.tokens,
            frames: self.frames + other.frames,
            media: self.media || other.media,
        }
    }

    fn estimate(self) -> u64 {
        estimate_bytes(self.text_bytes).saturating_add(self.tokens)
    }

    fn at_most(self) -> Option<u64> {
        let bytes = (self.text_bytes as u64).saturating_add(self.data_bytes as u64);
        (!self.media).then(|| bytes.saturating_add(self.frames.saturating_mul(FRAME_AT_MOST)))
    }
}

fn part_size(part: &Part) -> Size {
    let called = |bytes| Size {
        tokens: PER_CALL,
        ..Size::text(bytes)
    };
    match part {
        Part::Text(TextPart { text, data })
        | Part::Refusal(TextPart { text, data })
        | Part::Reasoning(ReasoningPart { text, data }) => Size::text(text.len()).with_data(data.as_ref()),
        Part::Image(_) => Size::media(PER_IMAGE),
        Part::Audio(_) => Size::media(PER_AUDIO),
        Part::Document(document) => document_size(document),
        Part::ToolCall(ToolCall {
            id,
            name,
            arguments,
            data,
        }) => called(id.len() + name.len() + arguments.len()).with_data(data.as_ref()),
        Part::ToolResult(ToolResult {
            call_id,
            name,
            content,
            is_error: _,
        }) => content
            .iter()
            .map(|part| match part {
                // A result in a result is nothing that a dialect can say.
                Part::ToolResult(_) => Size::default(),
                part => part_size(part),
            })
            .fold(called(call_id.len() + name.len()), Size::and),
        Part::Opaque(OpaquePart { kind, value, .. }) => Size::text(kind.len() + json_bytes(value, MAX_DEPTH)),
    }
}

fn document_size(document: &DocumentPart) -> Size {
    let DocumentPart {
        source,
        media_type,
        title,
    } = document;
    let title = Size::text(title.as_ref().map_or(0, String::len));
    let plain = media_type
        .as_deref()
        .is_some_and(|media_type| media_type.starts_with("text/"));
    let content = match source {
        MediaSource::Text { text } => Size::text(text.len()),
        MediaSource::Bytes { data } if plain => Size::text(data.len()),
        _ => Size::media(PER_DOCUMENT),
    };
    title.and(content)
}

/// About the length of a value as JSON: never shorter but for escapes, which no text that a model reads has.
fn json_bytes(value: &Value, depth: u32) -> usize {
    let Some(depth) = depth.checked_sub(1) else {
        return 0;
    };
    match value {
        Value::Null | Value::Bool(_) => 5,
        // The longest 64-bit numbers have 24 characters.
        Value::Number(_) => 24,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => {
            items
                .iter()
                .map(|item| json_bytes(item, depth) + 1)
                .sum::<usize>()
                + 2
        }
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| name.len() + 4 + json_bytes(value, depth);
            fields.iter().map(field).sum::<usize>() + 2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MediaPart, Role};
    use serde_json::json;

    #[test]
    fn the_formula_is_as_documented() {
        let call = ToolCall::new("call-1", "search", r#"{"q":"x"}"#);
        let cases = [
            (Message::user(""), PER_MESSAGE, Some(2 * FRAME_AT_MOST)),
            (
                Message::user("12345"),
                PER_MESSAGE + 2,
                Some(2 * FRAME_AT_MOST + 5),
            ),
            (
                Message::new(Role::Assistant, vec![Part::ToolCall(call.clone())]),
                PER_MESSAGE + PER_CALL + 6,
                Some(2 * FRAME_AT_MOST + 21),
            ),
            (
                Message::tool(ToolResult::new(&call, "found")),
                PER_MESSAGE + PER_CALL + 5,
                Some(3 * FRAME_AT_MOST + 17),
            ),
            (
                Message::user("look").with_part(Part::Image(MediaPart::url("https://example.org/cat.png"))),
                PER_MESSAGE + 1 + PER_IMAGE,
                None,
            ),
            (
                Message::new(
                    Role::User,
                    vec![Part::Document(DocumentPart::text("t", "12345678"))],
                ),
                PER_MESSAGE + 3,
                Some(3 * FRAME_AT_MOST + 9),
            ),
            (
                Message::new(
                    Role::User,
                    vec![Part::Document(DocumentPart::bytes("application/pdf", "x"))],
                ),
                PER_MESSAGE + PER_DOCUMENT,
                None,
            ),
        ];
        for (message, expected, at_most) in cases {
            assert_eq!(
                (estimate(&message), tokens_at_most(&message)),
                (expected, at_most),
                "{message:?}"
            );
        }
    }

    #[test]
    fn a_request_is_its_messages_its_tools_and_its_schema() {
        let message = Message::user("12345678");
        let tool = ToolSpec::new("search", "finds things", json!({"type": "object"}));
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        let bytes = "answer".len() + schema.to_string().len();
        let request = ChatRequest::new([message.clone()])
            .with_tools([tool.clone()])
            .with_response_format(ResponseFormat::schema("answer", schema));
        assert_eq!(
            estimate_request(&request),
            estimate(&message) + estimate_tool(&tool) + PER_CALL + estimate_bytes(bytes)
        );
    }

    #[test]
    fn the_bound_counts_what_only_the_provider_reads() {
        let value = json!({"signature": "x".repeat(500), "n": [1, true, null]});
        let part = Part::Reasoning(ReasoningPart {
            text: "hm".to_owned(),
            data: Some(ProviderData::new("anthropic", value.clone())),
        });
        let message = Message::new(Role::Assistant, vec![part]);
        assert_eq!(estimate(&message), PER_MESSAGE + 1);
        assert!(tokens_at_most(&message).unwrap() >= value.to_string().len() as u64 + 2);
    }
}
