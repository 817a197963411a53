//! Parts of a request's contents.

use peregrine_core::{
    DocumentPart, Error, MediaPart, MediaSource, Message, OpaquePart, Part, ProviderData, ReasoningPart,
    Result, Role, TextPart, ToolCall, ToolResult,
};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::DIALECT;
use crate::wire::body::cannot_say;
use crate::wire::json;
use crate::wire::turns::{TurnDialect, Written};

/// The field in which a signature stands on a part, and the kind of the opaque part that keeps the
/// signature of an image.
pub(super) const SIGNATURE: &str = "thoughtSignature";

/// What Google gives for calls that another model made: `skip_thought_signature_validator`, in base64 as
/// every signature is.
const SKIP_VALIDATOR: &str = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I=";

/// Writes the parts of messages.
#[derive(Hash)]
pub(super) struct Content {
    /// The model is of Gemini 3 or later: it demands signatures, and sees images in results.
    is_gemini_3: bool,
}

impl Content {
    pub(super) fn for_model(model: &str) -> Self {
        let name = model.rsplit('/').next().unwrap_or(model);
        let generation = name.strip_prefix("gemini-").map(|rest| {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..digits].parse::<u32>()
        });
        Self {
            is_gemini_3: matches!(generation, Some(Ok(3..))),
        }
    }
}

impl TurnDialect for Content {
    const LIST: &'static str = "parts";

    fn role(&self, role: Role) -> Option<&'static str> {
        match role {
            Role::System => None,
            Role::Assistant => Some("model"),
            _ => Some("user"),
        }
    }

    fn item(&self, message: &Message, index: usize, out: &mut Vec<u8>) -> Result<Written> {
        let Some(part) = message.parts.get(index) else {
            return Ok(Written::Nothing);
        };
        match (message.role, part) {
            (_, Part::Opaque(opaque)) => return Ok(write_opaque(opaque, message, index, out)),
            (Role::Assistant, Part::Text(text))
                if text.text.is_empty() && own_signature(text.data.as_ref()).is_none() =>
            {
                return Ok(Written::Nothing);
            }
            (_, Part::Text(text)) => write_text(text, out),
            (Role::Assistant, Part::Refusal(text)) => write_text(text, out),
            (Role::Assistant, Part::Reasoning(reasoning)) => return Ok(write_thought(reasoning, out)),
            (Role::Assistant, Part::ToolCall(call)) => {
                let skips = self.is_gemini_3 && is_first_call(message, index);
                write_call(call, skips, out);
            }
            (Role::User | Role::Tool, Part::ToolResult(result)) => self.write_result(result, out)?,
            (Role::User | Role::Tool | Role::Assistant, Part::Image(media) | Part::Audio(media)) => {
                let signature = message.parts.get(index + 1).and_then(signature_of_media);
                write_media(media, signature, out)?;
            }
            (Role::User | Role::Tool, Part::Document(document)) => write_document(document, out)?,
            (role, _) => {
                let what = format!("part {index} of a message of the role {}", role.as_str());
                return Err(cannot_say(
                    DIALECT,
                    &what,
                    "move it to a message of the side that it belongs to",
                ));
            }
        }
        Ok(Written::Object)
    }

    fn mark(&self) -> Option<&[u8]> {
        None
    }
}

impl Content {
    fn write_result(&self, result: &ToolResult, out: &mut Vec<u8>) -> Result<()> {
        let ToolResult {
            call_id,
            name,
            content,
            is_error,
        } = result;
        if name.is_empty() {
            return Err(Error::invalid_request(format!(
                "the result of the call {call_id:?} does not name its tool, and {DIALECT} needs the name"
            )));
        }
        out.extend_from_slice(br#"{"functionResponse":{"#);
        if !call_id.is_empty() {
            out.extend_from_slice(br#""id":"#);
            json::write(out, call_id);
            out.push(b',');
        }
        out.extend_from_slice(br#""name":"#);
        json::write(out, name);
        out.extend_from_slice(br#","response":"#);
        write_response(&result.text(), *is_error, out);
        let media: Vec<&Part> = content
            .iter()
            .filter(|part| !matches!(part, Part::Text(_) | Part::Opaque(_)))
            .collect();
        if media.is_empty() {
            out.extend_from_slice(b"}}");
            return Ok(());
        }
        out.extend_from_slice(if self.is_gemini_3 {
            br#","parts":["#
        } else {
            b"}},"
        });
        for (place, part) in media.into_iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            match part {
                Part::Image(media) | Part::Audio(media) => write_media(media, None, out)?,
                Part::Document(document) if self.is_gemini_3 => write_titled(document, out)?,
                Part::Document(document) => write_document(document, out)?,
                _ => {
                    return Err(cannot_say(
                        DIALECT,
                        &format!("this part of the result of {name}"),
                        "a result holds text, images, audio and documents",
                    ));
                }
            }
        }
        if self.is_gemini_3 {
            out.extend_from_slice(b"]}}");
        }
        Ok(())
    }
}

/// The response of a function is an object.
fn write_response(text: &str, is_error: bool, out: &mut Vec<u8>) {
    let trimmed = text.trim();
    let is_object = trimmed.starts_with('{') && serde_json::from_str::<IgnoredAny>(trimmed).is_ok();
    if is_object && !is_error {
        out.extend_from_slice(trimmed.as_bytes());
        return;
    }
    out.extend_from_slice(if is_error {
        br#"{"error":"#
    } else {
        br#"{"result":"#
    });
    json::write(out, text);
    out.push(b'}');
}

fn write_text(part: &TextPart, out: &mut Vec<u8>) {
    let TextPart { text, data } = part;
    out.extend_from_slice(br#"{"text":"#);
    json::write(out, text);
    json::optional(out, SIGNATURE, own_signature(data.as_ref()));
    out.push(b'}');
}

/// A signed thought goes back; the provider reads nothing from an unsigned one.
fn write_thought(part: &ReasoningPart, out: &mut Vec<u8>) -> Written {
    let ReasoningPart { text, data } = part;
    let Some(signature) = own_signature(data.as_ref()) else {
        return Written::Nothing;
    };
    out.extend_from_slice(br#"{"text":"#);
    json::write(out, text);
    json::field(out, "thought", &true);
    json::field(out, SIGNATURE, signature);
    out.push(b'}');
    Written::Object
}

fn write_call(call: &ToolCall, skips_validator: bool, out: &mut Vec<u8>) {
    let ToolCall {
        id,
        name,
        arguments,
        data,
    } = call;
    out.extend_from_slice(br#"{"functionCall":{"#);
    if !id.is_empty() {
        out.extend_from_slice(br#""id":"#);
        json::write(out, id);
        out.push(b',');
    }
    out.extend_from_slice(br#""name":"#);
    json::write(out, name);
    out.extend_from_slice(br#","args":"#);
    json::write_arguments(out, arguments);
    out.push(b'}');
    match own_signature(data.as_ref()) {
        Some(signature) => json::field(out, SIGNATURE, signature),
        None if skips_validator => json::field(out, SIGNATURE, SKIP_VALIDATOR),
        None => {}
    }
    out.push(b'}');
}

/// Of the calls of a message only the first one is signed.
fn is_first_call(message: &Message, index: usize) -> bool {
    !message
        .parts
        .iter()
        .take(index)
        .any(|part| matches!(part, Part::ToolCall(_)))
}

fn write_media(part: &MediaPart, signature: Option<&Value>, out: &mut Vec<u8>) -> Result<()> {
    // `detail` is a wish for providers that offer it for each part, which this one does not.
    let MediaPart {
        source,
        media_type,
        detail: _,
    } = part;
    out.push(b'{');
    write_source(source, media_type.as_deref(), None, out)?;
    json::optional(out, SIGNATURE, signature);
    out.push(b'}');
    Ok(())
}

fn write_document(part: &DocumentPart, out: &mut Vec<u8>) -> Result<()> {
    let DocumentPart {
        source,
        media_type,
        title,
    } = part;
    if let Some(title) = title {
        out.extend_from_slice(br#"{"text":"#);
        json::write(out, &format!("Document: {title}"));
        out.extend_from_slice(b"},");
    }
    out.push(b'{');
    write_source(source, media_type.as_deref(), None, out)?;
    out.push(b'}');
    Ok(())
}

/// A document of a result, the one place where the dialect has a field for its title.
fn write_titled(part: &DocumentPart, out: &mut Vec<u8>) -> Result<()> {
    let DocumentPart {
        source,
        media_type,
        title,
    } = part;
    out.push(b'{');
    write_source(source, media_type.as_deref(), title.as_deref(), out)?;
    out.push(b'}');
    Ok(())
}

fn write_source(
    source: &MediaSource,
    media_type: Option<&str>,
    title: Option<&str>,
    out: &mut Vec<u8>,
) -> Result<()> {
    match source {
        MediaSource::Bytes { data } => {
            let Some(media_type) = media_type else {
                return Err(Error::invalid_request(format!(
                    "{DIALECT} needs the media type of the bytes of a part; state it on the part"
                )));
            };
            write_inline(media_type, data, out);
        }
        MediaSource::Text { text } => write_inline(media_type.unwrap_or("text/plain"), text.as_bytes(), out),
        // Files uploaded to the provider have addresses, too.
        MediaSource::Url { url: uri } | MediaSource::File { id: uri } => {
            out.extend_from_slice(br#""fileData":{"fileUri":"#);
            json::write(out, uri);
            json::optional(out, "mimeType", media_type.as_ref());
        }
        _ => return Err(cannot_say(DIALECT, "this source of a part", "send its bytes")),
    }
    json::optional(out, "displayName", title.as_ref());
    out.push(b'}');
    Ok(())
}

/// Bytes sent along, without the closing brace.
fn write_inline(media_type: &str, data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(br#""inlineData":{"mimeType":"#);
    json::write(out, media_type);
    json::field(out, "data", &json::Base64(data));
}

fn write_opaque(part: &OpaquePart, message: &Message, index: usize, out: &mut Vec<u8>) -> Written {
    let OpaquePart { dialect, kind, value } = part;
    let is_media = |part: &Part| matches!(part, Part::Image(_) | Part::Audio(_));
    let before = index.checked_sub(1).and_then(|before| message.parts.get(before));
    // The signature of an image is written with the image.
    let is_written = kind == SIGNATURE && before.is_some_and(is_media);
    if dialect != DIALECT || !value.is_object() || is_written {
        return Written::Nothing;
    }
    json::write(out, value);
    Written::Object
}

/// The signature that stood on the image or audio before this part.
fn signature_of_media(part: &Part) -> Option<&Value> {
    match part {
        Part::Opaque(opaque) if opaque.dialect == DIALECT && opaque.kind == SIGNATURE => {
            opaque.value.get(SIGNATURE)
        }
        _ => None,
    }
}

/// The signature that this dialect left on a part.
fn own_signature(data: Option<&ProviderData>) -> Option<&Value> {
    data.filter(|data| data.dialect == DIALECT)
        .and_then(|data| data.value.get(SIGNATURE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_is_read_from_the_name() {
        let is_3 = |model| Content::for_model(model).is_gemini_3;
        for model in ["gemini-3-pro-preview", "models/gemini-3.5-flash", "gemini-10"] {
            assert!(is_3(model), "{model}");
        }
        for model in [
            "gemini-2.5-pro",
            "gemini-flash-latest",
            "gemma-3",
            "tunedModels/x",
            "gemini-",
            "",
        ] {
            assert!(!is_3(model), "{model}");
        }
    }
}
