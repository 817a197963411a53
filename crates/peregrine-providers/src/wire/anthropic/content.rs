//! Content blocks of a request.
//!
//! Invariant: a block is one JSON object without white space at its end, so a cache breakpoint can be put
//! before its closing brace.

use std::borrow::Cow;

use peregrine_core::{
    DocumentPart, Error, MediaPart, MediaSource, Message, OpaquePart, Part, ProviderData, ReasoningPart,
    Result, Role, TextPart, ToolCall, ToolResult,
};
use serde_json::Value;

use super::DIALECT;
use crate::wire::body::cannot_say;
use crate::wire::json;
use crate::wire::turns::{TurnDialect, Written};

/// Writes the parts of messages as content blocks.
pub(super) struct Content {
    /// `,"cache_control":{..}`
    mark: Vec<u8>,
}

impl Content {
    /// `control` is the JSON text of a cache breakpoint.
    pub(super) fn new(control: &str) -> Self {
        Self {
            mark: format!(r#","cache_control":{control}"#).into_bytes(),
        }
    }

    /// Marks the block that ends the buffer.
    pub(super) fn mark_last(&self, out: &mut Vec<u8>) -> Result<()> {
        if out.pop_if(|last| *last == b'}').is_none() {
            return Err(Error::invalid_request(
                "a system message has a cache breakpoint but no text that can carry it",
            ));
        }
        out.extend_from_slice(&self.mark);
        out.push(b'}');
        Ok(())
    }
}

impl TurnDialect for Content {
    const LIST: &'static str = "content";

    fn role(&self, role: Role) -> Option<&'static str> {
        Some(match role {
            Role::System => "system",
            Role::Assistant => "assistant",
            _ => "user",
        })
    }

    fn item(&self, message: &Message, index: usize, out: &mut Vec<u8>) -> Result<Written> {
        let Some(part) = message.parts.get(index) else {
            return Ok(Written::Nothing);
        };
        match (message.role, part) {
            (_, Part::Opaque(opaque)) => return Ok(write_opaque(opaque, out)),
            (Role::System, Part::Text(text)) => write_text(text, out),
            (Role::Assistant, Part::Text(text))
                if text.text.is_empty() && own(text.data.as_ref()).is_none() =>
            {
                return Ok(Written::Nothing);
            }
            // The provider has no block for a refusal; what the model said is text.
            (Role::Assistant, Part::Text(text) | Part::Refusal(text)) => write_text(text, out),
            (Role::Assistant, Part::ToolCall(call)) => write_call(call, out)?,
            (Role::Assistant, Part::Reasoning(reasoning)) => return Ok(write_thinking(reasoning, out)),
            (Role::User | Role::Tool, Part::ToolResult(result)) => write_result(result, out)?,
            (Role::User | Role::Tool, part) => write_given(part, out)?,
            (role, part) => return Err(misplaced(role.as_str(), part)),
        }
        Ok(Written::Markable)
    }

    fn mark(&self) -> Option<&[u8]> {
        Some(&self.mark)
    }
}

/// What a user or a tool may show the model.
fn write_given(part: &Part, out: &mut Vec<u8>) -> Result<()> {
    match part {
        Part::Text(text) => write_text(text, out),
        Part::Image(image) => write_image(image, out)?,
        Part::Document(document) => write_document(document, out)?,
        Part::Audio(_) => return Err(cannot_say(DIALECT, "audio", "send a transcript as text")),
        other => return Err(misplaced("user", other)),
    }
    Ok(())
}

fn write_text(part: &TextPart, out: &mut Vec<u8>) {
    let TextPart { text, data } = part;
    out.extend_from_slice(br#"{"type":"text","text":"#);
    json::write(out, text);
    json::optional(
        out,
        "citations",
        own(data.as_ref()).and_then(|data| data.get("citations")),
    );
    out.push(b'}');
}

fn write_image(part: &MediaPart, out: &mut Vec<u8>) -> Result<()> {
    // `detail` is a wish for providers that offer it, which this one does not.
    let MediaPart {
        source,
        media_type,
        detail: _,
    } = part;
    out.extend_from_slice(br#"{"type":"image","source":"#);
    match source {
        MediaSource::Bytes { data } => write_base64(media_type.as_deref(), "image", data, out)?,
        MediaSource::Url { url } => write_reference("url", "url", url, out),
        MediaSource::File { id } => write_reference("file", "file_id", id, out),
        _ => {
            return Err(cannot_say(
                DIALECT,
                "an image of text",
                "send it as a document or as text",
            ));
        }
    }
    out.push(b'}');
    Ok(())
}

fn write_document(part: &DocumentPart, out: &mut Vec<u8>) -> Result<()> {
    let DocumentPart {
        source,
        media_type,
        title,
    } = part;
    out.extend_from_slice(br#"{"type":"document","source":"#);
    let kind = media_type.as_deref();
    match source {
        MediaSource::Bytes { data } if kind.is_some_and(|kind| kind.starts_with("text/")) => {
            let text = std::str::from_utf8(data).map_err(|error| {
                Error::invalid_request(format!(
                    "a text document is not UTF-8 ({error}); convert it first"
                ))
            })?;
            write_plain(text, out);
        }
        MediaSource::Bytes { data } => write_base64(kind, "document", data, out)?,
        MediaSource::Url { url } => write_reference("url", "url", url, out),
        MediaSource::File { id } => write_reference("file", "file_id", id, out),
        MediaSource::Text { text } => write_plain(text, out),
        _ => {
            return Err(cannot_say(
                DIALECT,
                "this source of a document",
                "send its bytes or its text",
            ));
        }
    }
    json::optional(out, "title", title.as_ref());
    out.push(b'}');
    Ok(())
}

fn write_plain(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"text","media_type":"text/plain","data":"#);
    json::write(out, text);
    out.push(b'}');
}

fn write_base64(media_type: Option<&str>, what: &str, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let Some(media_type) = media_type else {
        return Err(Error::invalid_request(format!(
            "{DIALECT} needs the media type of the bytes of a part ({what}); state it on the part"
        )));
    };
    out.extend_from_slice(br#"{"type":"base64""#);
    json::field(out, "media_type", media_type);
    json::field(out, "data", &json::Base64(data));
    out.push(b'}');
    Ok(())
}

fn write_reference(kind: &str, field: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"#);
    json::write(out, kind);
    json::field(out, field, value);
    out.push(b'}');
}

fn write_result(result: &ToolResult, out: &mut Vec<u8>) -> Result<()> {
    // The provider matches results by the call's id; the name has no place.
    let ToolResult {
        call_id,
        name: _,
        content,
        is_error,
    } = result;
    out.extend_from_slice(br#"{"type":"tool_result""#);
    json::field(out, "tool_use_id", &call_id_in_dialect(call_id));
    out.extend_from_slice(br#","content":["#);
    for part in content {
        let before = out.len();
        if out.last() == Some(&b'}') {
            out.push(b',');
        }
        match part {
            Part::Opaque(opaque) => {
                if write_opaque(opaque, out) == Written::Nothing {
                    out.truncate(before);
                }
            }
            other => write_given(other, out)?,
        }
    }
    out.push(b']');
    if *is_error {
        json::field(out, "is_error", &true);
    }
    out.push(b'}');
    Ok(())
}

fn write_call(call: &ToolCall, out: &mut Vec<u8>) -> Result<()> {
    let ToolCall {
        id,
        name,
        arguments,
        data,
    } = call;
    if id.is_empty() {
        return Err(Error::invalid_request(format!(
            "a call of the tool {name:?} has no id, and anthropic needs one"
        )));
    }
    out.extend_from_slice(br#"{"type":"tool_use""#);
    json::field(out, "id", &call_id_in_dialect(id));
    json::field(out, "name", name);
    out.extend_from_slice(br#","input":"#);
    json::write_arguments(out, arguments);
    // What stood beside them, such as who called: `caller`, `toolset_name`.
    let beside = own(data.as_ref()).and_then(Value::as_object);
    for (name, value) in beside.into_iter().flatten() {
        if !matches!(name.as_str(), "type" | "id" | "name" | "input") {
            json::field(out, name, value);
        }
    }
    out.push(b'}');
    Ok(())
}

/// Signed thinking goes back; without a signature, or from another provider, it means nothing here.
fn write_thinking(part: &ReasoningPart, out: &mut Vec<u8>) -> Written {
    let ReasoningPart { text, data } = part;
    let signature = own(data.as_ref()).and_then(|data| data.get("signature"));
    let Some(signature) = signature else {
        return Written::Nothing;
    };
    out.extend_from_slice(br#"{"type":"thinking","thinking":"#);
    json::write(out, text);
    json::field(out, "signature", signature);
    out.push(b'}');
    Written::Object
}

fn write_opaque(part: &OpaquePart, out: &mut Vec<u8>) -> Written {
    let OpaquePart { dialect, kind, value } = part;
    if dialect != DIALECT || !value.is_object() {
        return Written::Nothing;
    }
    json::write(out, value);
    match kind.as_str() {
        "thinking" | "redacted_thinking" => Written::Object,
        _ => Written::Markable,
    }
}

/// The value that this dialect left on a part.
fn own(data: Option<&ProviderData>) -> Option<&Value> {
    data.filter(|data| data.dialect == DIALECT)
        .map(|data| &data.value)
}

/// The id with the characters that the provider takes: letters, digits, `_` and `-`.
fn call_id_in_dialect(id: &str) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if id.chars().all(fits) {
        Cow::Borrowed(id)
    } else {
        Cow::Owned(id.chars().map(|c| if fits(c) { c } else { '_' }).collect())
    }
}

fn misplaced(role: &str, part: &Part) -> Error {
    let kind = match part {
        Part::Text(_) => "text",
        Part::Image(_) => "an image",
        Part::Audio(_) => "audio",
        Part::Document(_) => "a document",
        Part::ToolCall(_) => "a tool call",
        Part::ToolResult(_) => "a tool result",
        Part::Reasoning(_) => "reasoning",
        Part::Refusal(_) => "a refusal",
        _ => "this part",
    };
    cannot_say(
        DIALECT,
        &format!("{kind} in a message of the role {role}"),
        "move it to a message of the side that it belongs to",
    )
}
