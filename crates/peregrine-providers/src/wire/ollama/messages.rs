//! Messages in the form of `/api/chat`.
//!
//! Invariant: a message's bytes depend on nothing but the message, so the bytes of a conversation's first n
//! messages can be kept and used again for the next turn.
//!
//! A message has one text, a list of images and a list of calls: text parts are joined without a separator,
//! documents of plain text become marked text where they stand, and the order between text, images and
//! calls is not said. Each tool result is a message of its own. Reasoning that belongs to another dialect and
//! the other dialects' opaque pieces stay at home.

use std::borrow::Cow;
use std::ops::Range;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use peregrine_core::{
    DocumentPart, Error, MediaPart, MediaSource, Message, Messages, Part, ReasoningPart, Result, Role,
    ToolCall, ToolResult,
};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::DIALECT;
use super::request::cannot_say;
use crate::wire::body::resume;
use crate::wire::json;

/// Stands for everything that the bytes of messages depend on: the dialect, and this version of the codec.
pub(super) const PREFIX_KEY: u64 = u64::from_be_bytes(*b"ollama/1");

/// Appends the messages, with commas between them, and says where they stand.
pub(super) fn encode(messages: &Messages, out: &mut Vec<u8>) -> Result<Range<usize>> {
    let start = out.len();
    let known = resume(out, messages, PREFIX_KEY, 0).unwrap_or(0);
    for message in messages.iter().skip(known) {
        match message.role {
            Role::Tool => encode_results(message, start, out)?,
            _ => push(&WireMessage::read(message)?, start, out),
        }
    }
    Ok(start..out.len())
}

fn push(message: &WireMessage<'_>, start: usize, out: &mut Vec<u8>) {
    if out.len() > start {
        out.push(b',');
    }
    json::write(out, message);
}

fn encode_results(message: &Message, start: usize, out: &mut Vec<u8>) -> Result<()> {
    if message.parts.is_empty() {
        return Err(Error::invalid_request("a tool message holds no tool result"));
    }
    for part in &message.parts {
        let Part::ToolResult(result) = part else {
            return Err(misplaced(part, Role::Tool));
        };
        let ToolResult {
            call_id,
            name,
            content,
            // The dialect has no flag for it: the content says how the tool failed.
            is_error: _,
        } = result;
        let mut wire = WireMessage::new("tool");
        for part in content {
            wire.add(part, Role::Tool)?;
        }
        wire.tool_name = name;
        wire.tool_call_id = call_id;
        push(&wire, start, out);
    }
    Ok(())
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    content: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: Cow<'a, str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<Image<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    tool_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    tool_call_id: &'a str,
}

#[derive(Serialize)]
struct WireCall<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    function: WireFunction<'a>,
}

#[derive(Serialize)]
struct WireFunction<'a> {
    name: &'a str,
    arguments: &'a RawValue,
}

/// An image in base64, encoded while it is written.
enum Image<'a> {
    Bytes(&'a [u8]),
    Encoded(&'a str),
}

impl Serialize for Image<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => serializer.collect_str(&Base64Display::new(bytes, &STANDARD)),
            Self::Encoded(text) => serializer.serialize_str(text),
        }
    }
}

impl<'a> WireMessage<'a> {
    fn new(role: &'static str) -> Self {
        Self {
            role,
            content: Cow::Borrowed(""),
            thinking: Cow::Borrowed(""),
            images: Vec::new(),
            tool_calls: Vec::new(),
            tool_name: "",
            tool_call_id: "",
        }
    }

    fn read(message: &'a Message) -> Result<Self> {
        let Message {
            role,
            parts,
            // A hint; the server caches prefixes by itself.
            cache_breakpoint: _,
        } = message;
        let mut wire = Self::new(role.as_str());
        for part in parts {
            wire.add(part, *role)?;
        }
        Ok(wire)
    }

    fn add(&mut self, part: &'a Part, role: Role) -> Result<()> {
        match part {
            Part::Text(text) => append(&mut self.content, &text.text),
            Part::Image(image) => self.images.push(image_of(image)?),
            Part::Document(document) => {
                let text = document_text(document)?;
                self.content.to_mut().push_str(&text);
            }
            Part::Reasoning(reasoning) if role == Role::Assistant => {
                let ReasoningPart { text, data } = reasoning;
                if data.as_ref().is_none_or(|data| data.dialect == DIALECT) {
                    append(&mut self.thinking, text);
                }
            }
            Part::ToolCall(call) if role == Role::Assistant => self.tool_calls.push(call_of(call)?),
            // What the model said when it declined is what it said.
            Part::Refusal(text) if role == Role::Assistant => append(&mut self.content, &text.text),
            Part::Opaque(opaque) if opaque.dialect != DIALECT => {}
            Part::Audio(_) => return Err(cannot_say("audio", "in messages")),
            other => return Err(misplaced(other, role)),
        }
        Ok(())
    }
}

fn append<'a>(joined: &mut Cow<'a, str>, text: &'a str) {
    if joined.is_empty() {
        *joined = Cow::Borrowed(text);
    } else {
        joined.to_mut().push_str(text);
    }
}

fn image_of(image: &MediaPart) -> Result<Image<'_>> {
    match &image.source {
        MediaSource::Bytes { data } => Ok(Image::Bytes(data)),
        MediaSource::Url { url } => match url
            .strip_prefix("data:")
            .and_then(|url| url.split_once(";base64,"))
        {
            Some((_, encoded)) => Ok(Image::Encoded(encoded)),
            None => Err(cannot_say("image.url", "; send the bytes of the image")),
        },
        MediaSource::File { .. } => Err(cannot_say("image.file", "; send the bytes of the image")),
        _ => Err(cannot_say(
            "image.source",
            "of this kind; send the bytes of the image",
        )),
    }
}

/// A document of text, marked as one; anything else has no place in the dialect.
fn document_text(document: &DocumentPart) -> Result<String> {
    let text = match &document.source {
        MediaSource::Text { text } => text.as_str(),
        MediaSource::Bytes { data }
            if document
                .media_type
                .as_deref()
                .is_some_and(|media_type| media_type.starts_with("text/")) =>
        {
            std::str::from_utf8(data).map_err(|_| cannot_say("document", "with bytes that are not UTF-8"))?
        }
        _ => {
            return Err(cannot_say(
                "document",
                "other than plain text; extract its text first",
            ));
        }
    };
    let title = document.title.as_deref().unwrap_or_default().replace('"', "'");
    Ok(format!("<document title=\"{title}\">\n{text}\n</document>\n"))
}

fn call_of(call: &ToolCall) -> Result<WireCall<'_>> {
    let ToolCall {
        id,
        name,
        arguments,
        data: _,
    } = call;
    let arguments = match arguments.trim() {
        "" => "{}",
        object if object.starts_with('{') => object,
        _ => return Err(not_an_object(name)),
    };
    let arguments = serde_json::from_str(arguments).map_err(|_| not_an_object(name))?;
    Ok(WireCall {
        id,
        function: WireFunction { name, arguments },
    })
}

fn not_an_object(name: &str) -> Error {
    let help =
        format!("of the tool {name:?} unless they are a JSON object; leave this call out of the messages");
    cannot_say("tool_call.arguments", &help)
}

fn misplaced(part: &Part, role: Role) -> Error {
    let kind = match part {
        Part::Text(_) => "text",
        Part::Image(_) => "an image",
        Part::Audio(_) => "audio",
        Part::Document(_) => "a document",
        Part::ToolCall(_) => "a tool call",
        Part::ToolResult(_) => "a tool result",
        Part::Reasoning(_) => "reasoning",
        Part::Refusal(_) => "a refusal",
        Part::Opaque(_) => "an opaque piece",
        _ => "a part of this kind",
    };
    Error::invalid_request(format!(
        "the ollama dialect has no place for {kind} in a {} message",
        role.as_str()
    ))
}
