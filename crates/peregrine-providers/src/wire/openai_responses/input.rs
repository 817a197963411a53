//! Messages as items of the input, written straight into the body.
//!
//! Invariant: the bytes of a message depend on the message and the encoder's own fields only, never on other
//! messages; so bytes that were written once can be used again. A message may become several items, or none.

use peregrine_core::{
    DocumentPart, Error, MediaPart, MediaSource, Message, Part, ProviderData, ReasoningPart, Result, Role,
    TextPart, ToolCall, ToolResult,
};
use serde_json::Value;

use super::DIALECT;
use crate::wire::body::{append_document, base64, data_url, unsupported};
use crate::wire::openai_chat::{audio_format, required_type};
use crate::wire::{ToolIds, json};

/// The longest id of a call that is taken.
const CALL_IDS: ToolIds = ToolIds::AtMost(64);

pub(super) struct Encoder<'a> {
    pub(super) provider: &'a str,
    pub(super) system_role: &'static str,
    /// Whether the provider keeps items and finds them again by id.
    pub(super) stored: bool,
    /// Whether refusals are known as such.
    pub(super) refusals: bool,
    /// Whether cache breakpoints are written.
    pub(super) marks: bool,
}

impl Encoder<'_> {
    pub(super) fn message(&self, out: &mut Vec<u8>, message: &Message) -> Result<()> {
        let Message {
            role,
            parts,
            cache_breakpoint,
        } = message;
        let mark = *cache_breakpoint && self.marks;
        match role {
            Role::System => self.spoken(out, self.system_role, parts, mark),
            Role::User => self.spoken(out, "user", parts, mark),
            Role::Assistant => self.assistant(out, parts),
            Role::Tool => self.tool(out, parts, mark),
            _ => Err(self.unsupported(&format!("a message of the role {role:?}"), "use another role")),
        }
    }

    fn unsupported(&self, what: &str, help: &str) -> Error {
        unsupported(self.provider, DIALECT, what, help)
    }

    fn spoken(&self, out: &mut Vec<u8>, role: &str, parts: &[Part], mark: bool) -> Result<()> {
        out.extend_from_slice(br#"{"role":"#);
        json::write(out, role);
        out.extend_from_slice(br#","content":"#);
        self.content(out, parts, mark)?;
        out.push(b'}');
        Ok(())
    }

    fn tool(&self, out: &mut Vec<u8>, parts: &[Part], mark: bool) -> Result<()> {
        let start = out.len();
        for (place, part) in parts.iter().enumerate() {
            if out.len() > start && !is_foreign(part) {
                out.push(b',');
            }
            match part {
                Part::ToolResult(ToolResult {
                    call_id,
                    name: _,
                    content,
                    is_error: _,
                }) => {
                    out.extend_from_slice(br#"{"type":"function_call_output","call_id":"#);
                    json::write(out, &CALL_IDS.fit(call_id));
                    out.extend_from_slice(br#","output":"#);
                    self.content(out, content, mark && place + 1 == parts.len())?;
                    out.push(b'}');
                }
                Part::Opaque(_) if is_foreign(part) => {}
                Part::Opaque(opaque) => json::write(out, &opaque.value),
                _ => {
                    let message = "a message of the role tool holds results of tools only";
                    return Err(Error::invalid_request(message));
                }
            }
        }
        Ok(())
    }

    fn assistant(&self, out: &mut Vec<u8>, parts: &[Part]) -> Result<()> {
        let start = out.len();
        let mut rest = parts;
        while let Some((part, behind)) = rest.split_first() {
            let mut taken = 1;
            let end = out.len();
            if end > start {
                out.push(b',');
            }
            let from = out.len();
            match part {
                Part::Text(text) if text.text.is_empty() && own_data(&text.data).is_none() => {}
                Part::Text(_) | Part::Refusal(_) => {
                    taken += behind.iter().take_while(|next| same_message(part, next)).count();
                    self.said(out, &rest[..taken]);
                }
                Part::Reasoning(ReasoningPart { text: _, data }) => {
                    if let Some(item) = own_data(data).filter(|item| self.can_go_back(item)) {
                        json::write(out, item);
                    }
                }
                Part::ToolCall(call) => call_item(out, call),
                Part::Opaque(_) if is_foreign(part) => {}
                Part::Opaque(opaque) => json::write(out, &opaque.value),
                Part::ToolResult(_) => {
                    return Err(Error::invalid_request(
                        "a tool result belongs in a message of the role tool",
                    ));
                }
                _ => {
                    let what = "an image, audio or document of the assistant";
                    return Err(self.unsupported(what, "move it to a user message"));
                }
            }
            if out.len() == from {
                out.truncate(end);
            }
            rest = &rest[taken..];
        }
        Ok(())
    }

    /// Reasoning of which only the id came can be found again only where it is stored.
    fn can_go_back(&self, item: &Value) -> bool {
        let has = |name: &str| match &item[name] {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            _ => true,
        };
        self.stored || has("encrypted_content") || has("content")
    }

    /// Writes texts and refusals of one message. Some servers know a message of the assistant by its type only,
    /// so the short form without one is not used.
    fn said(&self, out: &mut Vec<u8>, parts: &[Part]) {
        let data = said_data(&parts[0]);
        out.extend_from_slice(br#"{"type":"message","role":"assistant""#);
        for (name, value) in data.and_then(Value::as_object).into_iter().flatten() {
            json::field(out, name, value);
            if name == "id" {
                json::field(out, "status", "completed");
            }
        }
        out.extend_from_slice(br#","content":["#);
        for part in parts {
            match part {
                Part::Refusal(refusal) if self.refusals => {
                    out.extend_from_slice(br#"{"type":"refusal","refusal":"#);
                    json::write(out, &refusal.text);
                }
                Part::Refusal(said) | Part::Text(said) => {
                    out.extend_from_slice(br#"{"type":"output_text","text":"#);
                    json::write(out, &said.text);
                    out.extend_from_slice(br#","annotations":[]"#);
                }
                _ => {}
            }
            out.extend_from_slice(b"},");
        }
        *out.last_mut().expect("a piece was written") = b']';
        out.push(b'}');
    }

    fn content(&self, out: &mut Vec<u8>, parts: &[Part], mark: bool) -> Result<()> {
        if let ([Part::Text(only)], false) = (parts, mark) {
            json::write(out, &only.text);
            return Ok(());
        }
        out.push(b'[');
        let start = out.len();
        for part in parts {
            if is_foreign(part) {
                continue;
            }
            if out.len() > start {
                out.extend_from_slice(b"},");
            }
            self.piece(out, part)?;
        }
        if out.len() == start {
            out.truncate(start - 1);
            out.extend_from_slice(br#""""#);
            return Ok(());
        }
        if mark {
            out.extend_from_slice(br#","prompt_cache_breakpoint":{"mode":"explicit"}"#);
        }
        out.extend_from_slice(b"}]");
        Ok(())
    }

    /// Writes a piece of the content without its closing brace.
    fn piece(&self, out: &mut Vec<u8>, part: &Part) -> Result<()> {
        match part {
            Part::Text(text) => {
                out.extend_from_slice(br#"{"type":"input_text","text":"#);
                json::write(out, &text.text);
            }
            Part::Image(image) => self.image(out, image)?,
            Part::Audio(MediaPart {
                source: MediaSource::Bytes { data },
                media_type,
                detail: _,
            }) => {
                out.extend_from_slice(br#"{"type":"input_audio","input_audio":{"data":"#);
                base64(out, data);
                json::field(out, "format", audio_format(required_type(media_type, "audio")?));
                out.push(b'}');
            }
            Part::Audio(_) => return Err(self.unsupported("audio by address or file id", "send its bytes")),
            Part::Document(document) => self.document(out, document)?,
            Part::Opaque(opaque) if opaque.value.as_object().is_some_and(|value| !value.is_empty()) => {
                json::write(out, &opaque.value);
                out.pop();
            }
            Part::ToolCall(_) | Part::Reasoning(_) | Part::Refusal(_) => {
                return Err(Error::invalid_request(
                    "tool calls, reasoning and refusals belong in a message of the assistant",
                ));
            }
            Part::ToolResult(_) => {
                return Err(Error::invalid_request(
                    "a tool result belongs in a message of the role tool",
                ));
            }
            _ => return Err(self.unsupported("this part", "leave it out")),
        }
        Ok(())
    }

    fn image(&self, out: &mut Vec<u8>, image: &MediaPart) -> Result<()> {
        let MediaPart {
            source,
            media_type,
            detail,
        } = image;
        out.extend_from_slice(br#"{"type":"input_image","detail":"#);
        json::write(out, detail.as_deref().unwrap_or("auto"));
        match source {
            MediaSource::Bytes { data } => {
                out.extend_from_slice(br#","image_url":"#);
                data_url(out, required_type(media_type, "an image")?, data);
            }
            MediaSource::Url { url } => json::field(out, "image_url", url),
            MediaSource::File { id } => json::field(out, "file_id", id),
            _ => return Err(self.unsupported("an image from this source", "send its bytes")),
        }
        Ok(())
    }

    fn document(&self, out: &mut Vec<u8>, document: &DocumentPart) -> Result<()> {
        let DocumentPart {
            source,
            media_type,
            title,
        } = document;
        if let MediaSource::Text { text } = source {
            out.extend_from_slice(br#"{"type":"input_text","text":"#);
            append_document(out, title.as_deref(), text);
            return Ok(());
        }
        out.extend_from_slice(br#"{"type":"input_file""#);
        match source {
            MediaSource::Bytes { data } => {
                // The server refuses file data without a name.
                json::field(out, "filename", title.as_deref().unwrap_or("document"));
                out.extend_from_slice(br#","file_data":"#);
                data_url(out, required_type(media_type, "a document")?, data);
            }
            MediaSource::Url { url } => json::field(out, "file_url", url),
            MediaSource::File { id } => json::field(out, "file_id", id),
            _ => return Err(self.unsupported("a document from this source", "send its bytes")),
        }
        Ok(())
    }
}

fn call_item(out: &mut Vec<u8>, call: &ToolCall) {
    let ToolCall {
        id,
        name,
        arguments,
        data,
    } = call;
    out.extend_from_slice(br#"{"type":"function_call","call_id":"#);
    json::write(out, &CALL_IDS.fit(id));
    json::field(out, "name", name);
    json::field(
        out,
        "arguments",
        if arguments.is_empty() { "{}" } else { arguments },
    );
    for (name, value) in own_data(data).and_then(Value::as_object).into_iter().flatten() {
        if !CALL_FIELDS.contains(&name.as_str()) {
            json::field(out, name, value);
        }
    }
    out.push(b'}');
}

/// Fields of a call's item that have their own place in a [`ToolCall`], or mean nothing when sent back.
pub(super) const CALL_FIELDS: [&str; 5] = ["type", "call_id", "name", "arguments", "status"];

fn own_data(data: &Option<ProviderData>) -> Option<&Value> {
    data.as_ref()
        .filter(|data| data.dialect == DIALECT)
        .map(|data| &data.value)
}

/// A piece that only another dialect understands.
fn is_foreign(part: &Part) -> bool {
    matches!(part, Part::Opaque(opaque) if opaque.dialect != DIALECT)
}

fn said_data(part: &Part) -> Option<&Value> {
    match part {
        Part::Text(TextPart { text: _, data }) | Part::Refusal(TextPart { text: _, data }) => own_data(data),
        _ => None,
    }
}

/// Whether the next part belongs to the message item of this one.
fn same_message(part: &Part, next: &Part) -> bool {
    matches!(next, Part::Text(_) | Part::Refusal(_)) && said_data(part) == said_data(next)
}
