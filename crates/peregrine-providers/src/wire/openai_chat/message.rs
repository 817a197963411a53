//! Messages, written straight into the body.
//!
//! Invariant: the bytes of a message depend on the message, the kind of server and the form of cache marks
//! only, never on other messages; so bytes that were written once can be used again.

use peregrine_core::{
    Error, Message, OpaquePart, Part, ProviderData, ReasoningPart, Result, Role, ToolCall, ToolResult,
};
use serde_json::Value;

use super::DIALECT;
use super::compat::{ChatCompat, ReasoningEcho};
use crate::wire::body::unsupported;
use crate::wire::json;

/// Fields beside the content that the decoder keeps; they go back to servers that want them only.
pub(super) const KEPT_FIELDS: [&str; 2] = ["audio", "extra_content"];

/// Fields that the encoder writes, and an opaque part may not.
const OWN_FIELDS: [&str; 6] = [
    "role",
    "content",
    "refusal",
    "images",
    "reasoning_details",
    "tool_calls",
];

/// How a cache breakpoint is written on the last piece of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Mark {
    None,
    Breakpoint,
    CacheControl { an_hour: bool },
}

pub(super) struct Encoder<'a> {
    pub(super) compat: &'a ChatCompat,
    pub(super) provider: &'a str,
    pub(super) mark: Mark,
}

impl Encoder<'_> {
    pub(super) fn message(&self, out: &mut Vec<u8>, message: &Message) -> Result<()> {
        let Message {
            role,
            parts,
            cache_breakpoint,
        } = message;
        let mark = if *cache_breakpoint { self.mark } else { Mark::None };
        match role {
            Role::System => self.spoken(out, self.compat.system_role, parts, mark),
            Role::User => self.spoken(out, "user", parts, mark),
            Role::Assistant => self.assistant(out, parts, mark),
            Role::Tool => self.tool(out, parts, mark),
            _ => Err(self.unsupported(&format!("a message of the role {role:?}"), "use another role")),
        }
    }

    pub(super) fn unsupported(&self, what: &str, help: &str) -> Error {
        unsupported(self.provider, DIALECT, what, help)
    }

    fn spoken(&self, out: &mut Vec<u8>, role: &str, parts: &[Part], mark: Mark) -> Result<()> {
        out.extend_from_slice(br#"{"role":"#);
        json::write(out, role);
        out.extend_from_slice(br#","content":"#);
        self.content(out, parts.iter().filter(|part| !is_foreign(part)), mark)?;
        out.push(b'}');
        Ok(())
    }

    fn tool(&self, out: &mut Vec<u8>, parts: &[Part], mark: Mark) -> Result<()> {
        for (place, part) in parts.iter().enumerate() {
            let Part::ToolResult(ToolResult {
                call_id,
                name: _,
                content,
                is_error: _,
            }) = part
            else {
                return Err(Error::invalid_request(
                    "a message of the role tool holds results of tools only",
                ));
            };
            let plain = content.iter().all(|part| matches!(part, Part::Text(_)));
            if !plain && !self.compat.tool_result_media {
                let help = "send the image or document in a user message behind the results";
                return Err(self.unsupported("a tool result that is not text", help));
            }
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(br#"{"role":"tool","tool_call_id":"#);
            json::write(out, &self.compat.tool_ids.fit(call_id));
            out.extend_from_slice(br#","content":"#);
            let is_last = place + 1 == parts.len();
            self.content(out, content.iter(), if is_last { mark } else { Mark::None })?;
            out.push(b'}');
        }
        Ok(())
    }

    fn assistant(&self, out: &mut Vec<u8>, parts: &[Part], mark: Mark) -> Result<()> {
        let compat = self.compat;
        let pieces = parts.iter().filter(|part| match part {
            Part::Text(text) => !text.text.is_empty(),
            Part::Refusal(_) => !compat.refusal_field,
            Part::Opaque(opaque) => is_piece(opaque),
            Part::Reasoning(part) => {
                compat.reasoning_echo == ReasoningEcho::ThinkingPiece && own_data(&part.data).is_some()
            }
            _ => false,
        });
        let has_calls = parts.iter().any(|part| matches!(part, Part::ToolCall(_)));
        out.extend_from_slice(br#"{"role":"assistant","content":"#);
        if pieces.clone().next().is_none()
            && (has_calls || parts.iter().any(|part| own_field(part).is_some()))
        {
            out.extend_from_slice(b"null");
        } else {
            self.content(out, pieces, mark)?;
        }
        if compat.refusal_field {
            let refusal = joined(parts, |part| match part {
                Part::Refusal(refusal) => Some(&refusal.text),
                _ => None,
            });
            json::optional(out, "refusal", refusal.as_ref());
        }
        self.reasoning(out, parts, has_calls);
        self.images(out, parts)?;
        if has_calls {
            out.extend_from_slice(br#","tool_calls":["#);
            for call in parts.iter().filter_map(|part| match part {
                Part::ToolCall(call) => Some(call),
                _ => None,
            }) {
                self.call(out, call);
                out.push(b',');
            }
            *out.last_mut().expect("a call was written") = b']';
        }
        self.fields(out, parts)?;
        out.push(b'}');
        Ok(())
    }

    fn reasoning(&self, out: &mut Vec<u8>, parts: &[Part], has_calls: bool) {
        let own = |part: &'_ ReasoningPart| own_data(&part.data).is_some();
        let text = || {
            joined(parts, |part| match part {
                Part::Reasoning(part) if own(part) => Some(&part.text),
                _ => None,
            })
        };
        match self.compat.reasoning_echo {
            ReasoningEcho::Field(name) => json::optional(out, name, text().as_ref()),
            ReasoningEcho::FieldWithToolCalls(name) if has_calls => {
                json::optional(out, name, text().as_ref());
            }
            ReasoningEcho::Details => {
                let details = parts.iter().filter_map(|part| match part {
                    Part::Reasoning(part) => own_data(&part.data)?.get("reasoning_details")?.as_array(),
                    _ => None,
                });
                let details: Vec<&Value> = details.flatten().collect();
                if details.is_empty() {
                    json::optional(out, "reasoning", text().as_ref());
                } else {
                    json::field(out, "reasoning_details", &details);
                }
            }
            _ => {}
        }
    }

    /// Checks that nothing stands in an assistant's message that cannot go back, and writes its images.
    fn images(&self, out: &mut Vec<u8>, parts: &[Part]) -> Result<()> {
        let mut first = true;
        for part in parts {
            match part {
                Part::Image(_) if self.compat.images_field => {
                    out.extend_from_slice(if first { br#","images":["# } else { b"," });
                    first = false;
                    self.piece(out, part)?;
                    out.push(b'}');
                }
                Part::Image(_) | Part::Audio(_) | Part::Document(_) => {
                    let help = "move it to a user message";
                    return Err(self.unsupported("an image, audio or document of the assistant", help));
                }
                Part::ToolResult(_) => {
                    return Err(Error::invalid_request(
                        "a tool result belongs in a message of the role tool",
                    ));
                }
                _ => {}
            }
        }
        if !first {
            out.push(b']');
        }
        Ok(())
    }

    fn call(&self, out: &mut Vec<u8>, call: &ToolCall) {
        let ToolCall {
            id,
            name,
            arguments,
            data,
        } = call;
        let data = own_data(data);
        let arguments = if arguments.is_empty() { "{}" } else { arguments };
        out.extend_from_slice(br#"{"id":"#);
        json::write(out, &self.compat.tool_ids.fit(id));
        let is_custom = data.is_some_and(|data| data["type"] == "custom");
        let (before_name, input): (&[u8], _) = if is_custom {
            (br#","type":"custom","custom":{"name":"#, "input")
        } else {
            (br#","type":"function","function":{"name":"#, "arguments")
        };
        out.extend_from_slice(before_name);
        json::write(out, name);
        json::field(out, input, arguments);
        out.push(b'}');
        if self.compat.echoed_fields.contains(&"extra_content") {
            json::optional(
                out,
                "extra_content",
                data.and_then(|data| data.get("extra_content")),
            );
        }
        out.push(b'}');
    }

    fn fields(&self, out: &mut Vec<u8>, parts: &[Part]) -> Result<()> {
        for (place, part) in parts.iter().enumerate() {
            let Some(OpaquePart {
                dialect: _,
                kind,
                value,
            }) = own_field(part)
            else {
                continue;
            };
            if OWN_FIELDS.contains(&kind.as_str()) {
                let what = format!("an opaque part under the name {kind:?}");
                return Err(self.unsupported(&what, "use the part or field that it stands for"));
            }
            let unwanted =
                KEPT_FIELDS.contains(&kind.as_str()) && !self.compat.echoed_fields.contains(&kind.as_str());
            let again = parts[place + 1..]
                .iter()
                .filter_map(own_field)
                .any(|later| later.kind == *kind);
            if unwanted || again {
                continue;
            }
            match (kind.as_str(), value.get("id")) {
                // Of the audio that the model spoke, its id is all that goes back.
                ("audio", Some(id)) => json::field(out, "audio", &serde_json::json!({"id": id})),
                _ => json::field(out, kind, value),
            }
        }
        Ok(())
    }
}

/// The data of a part, if it came in this dialect.
pub(super) fn own_data(data: &Option<ProviderData>) -> Option<&Value> {
    data.as_ref()
        .filter(|data| data.dialect == DIALECT)
        .map(|data| &data.value)
}

/// A piece that only another dialect understands.
fn is_foreign(part: &Part) -> bool {
    matches!(part, Part::Opaque(opaque) if opaque.dialect != DIALECT)
}

/// An opaque piece of the content: an object that says its type.
pub(super) fn is_piece(opaque: &OpaquePart) -> bool {
    opaque.dialect == DIALECT && opaque.value["type"] == opaque.kind.as_str()
}

/// An opaque field of the message.
fn own_field(part: &Part) -> Option<&OpaquePart> {
    match part {
        Part::Opaque(opaque) if opaque.dialect == DIALECT && !is_piece(opaque) => Some(opaque),
        _ => None,
    }
}

/// The texts that `pick` finds, joined; `None` if there are none.
fn joined<'p>(parts: &'p [Part], pick: impl Fn(&'p Part) -> Option<&'p String>) -> Option<String> {
    let mut texts = parts.iter().filter_map(pick).filter(|text| !text.is_empty());
    let first = texts.next()?.clone();
    Some(texts.fold(first, |all, text| all + text))
}
