//! A streamed answer of the Messages API.
//!
//! Algorithm: blocks are opened, grown and closed by their `index`. Text and reasoning go on as they come;
//! the arguments of a call go on as they come and once more, compacted, at its end; blocks that only the
//! provider understands are put together and handed on whole. Usage reports are cumulative. Only
//! `message_stop` ends the answer.

use std::borrow::Cow;

use peregrine_core::{ChatEvent, Done, Error, ProtocolError, Result, ToolCall};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::response::{Counts, Ending, call_head, citations, opaque, signature, stream_error};
use crate::wire::fields::{self, Fields};
use crate::wire::{EventDecoder, Events, Frame, json};

/// Decodes one answer.
pub(super) struct Decoder {
    provider: String,
    id: Option<String>,
    blocks: Vec<(u64, Block)>,
    calls: u32,
    ending: Ending,
    done: bool,
}

/// A block that has not ended.
enum Block {
    Text {
        citations: Vec<Value>,
    },
    Thinking {
        signature: String,
    },
    Call {
        index: u32,
        call: ToolCall,
        /// The arguments, where the block came with them.
        input: Option<String>,
    },
    /// A block that only the provider understands, and the JSON text of its input.
    Opaque {
        kind: String,
        fields: Map<String, Value>,
        input: String,
    },
}

impl Decoder {
    pub(super) fn new(provider: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            id: None,
            blocks: Vec::new(),
            calls: 0,
            ending: Ending::default(),
            done: false,
        }
    }

    fn unreadable(&self, what: &str, source: serde_json::Error) -> Error {
        let message = format!("{what} in the stream of {} cannot be read", self.provider);
        ProtocolError::new(message).with_source(source).into()
    }

    fn start(&mut self, message: Start, events: &mut Events) {
        let Start { id, model, usage } = message;
        self.id = id.clone();
        events.push_back(ChatEvent::Start { id, model });
        if let Some(counts) = usage {
            self.count(counts, events);
        }
    }

    fn count(&mut self, counts: Counts, events: &mut Events) {
        self.ending.count(counts);
        events.extend(self.ending.usage().map(|usage| ChatEvent::Usage { usage }));
    }

    fn open(&mut self, index: Option<u64>, block: &RawValue, events: &mut Events) -> Result<()> {
        let index = index.unwrap_or_else(|| self.blocks.last().map_or(0, |(last, _)| last.wrapping_add(1)));
        self.close(Some(index), events);
        let fields: Fields<'_> =
            serde_json::from_str(block.get()).map_err(|source| self.unreadable("a block", source))?;
        let kind = fields.text("type").unwrap_or_default();
        let opened = match kind.as_str() {
            "text" => {
                events.extend(fields.text("text").map(|text| ChatEvent::TextDelta { text }));
                Block::Text {
                    citations: fields.read("citations").unwrap_or_default(),
                }
            }
            "thinking" => {
                events.extend(
                    fields
                        .text("thinking")
                        .map(|text| ChatEvent::ReasoningDelta { text }),
                );
                Block::Thinking {
                    signature: fields.text("signature").unwrap_or_default(),
                }
            }
            "tool_use" => {
                let index = self.calls;
                self.calls += 1;
                let call = call_head(&fields, self.id.as_deref(), index as usize);
                events.push_back(ChatEvent::ToolCallStart {
                    index,
                    id: call.id.clone(),
                    name: call.name.clone(),
                });
                let input = fields.get("input").map(|input| fields::arguments(Some(input)));
                Block::Call { index, call, input }
            }
            _ => Block::Opaque {
                fields: serde_json::from_str(block.get())
                    .map_err(|source| self.unreadable("a block", source))?,
                kind,
                input: String::new(),
            },
        };
        self.blocks.push((index, opened));
        Ok(())
    }

    fn grow(&mut self, index: Option<u64>, delta: Delta<'_>, frame: &str, events: &mut Events) -> Result<()> {
        let Delta {
            kind,
            text,
            thinking,
            partial_json,
            signature,
            citation,
        } = delta;
        let place = match index {
            Some(index) => self.blocks.iter().position(|(open, _)| *open == index),
            None => self.blocks.len().checked_sub(1),
        };
        let text_of = |piece: Option<Cow<'_, str>>| piece.unwrap_or_default().into_owned();
        match (
            place.and_then(|place| self.blocks.get_mut(place)),
            kind.as_deref().unwrap_or_default(),
        ) {
            (Some((_, Block::Opaque { input, .. })), "input_json_delta") => {
                input.push_str(&text_of(partial_json))
            }
            (Some((_, Block::Opaque { fields, .. })), _) => extend(fields, frame),
            (Some((_, Block::Call { index, call, .. })), "input_json_delta") => {
                let arguments = text_of(partial_json);
                if !arguments.is_empty() {
                    call.arguments.push_str(&arguments);
                    events.push_back(ChatEvent::ToolCallDelta {
                        index: *index,
                        arguments,
                    });
                }
            }
            (Some((_, Block::Thinking { signature: known })), "signature_delta") => {
                *known = text_of(signature)
            }
            (Some((_, Block::Text { citations })), "citations_delta") => citations.extend(citation),
            // Deltas of text and thinking speak for themselves, even where a server opens no block.
            (open, "text_delta") => {
                let missing = open.is_none();
                let text = text_of(text);
                if !text.is_empty() {
                    events.push_back(ChatEvent::TextDelta { text });
                }
                if missing {
                    let citations = Vec::new();
                    self.blocks.push((index.unwrap_or(0), Block::Text { citations }));
                }
            }
            (open, "thinking_delta") => {
                let missing = open.is_none();
                let text = text_of(thinking);
                if !text.is_empty() {
                    events.push_back(ChatEvent::ReasoningDelta { text });
                }
                if missing {
                    let signature = String::new();
                    self.blocks
                        .push((index.unwrap_or(0), Block::Thinking { signature }));
                }
            }
            (None, "input_json_delta") => {
                let message = format!(
                    "{} sent a piece of a tool call that it never began",
                    self.provider
                );
                return Err(ProtocolError::new(message).into());
            }
            // Kinds of tomorrow.
            _ => {}
        }
        Ok(())
    }

    /// Closes the block of this index, or the newest one.
    fn close(&mut self, index: Option<u64>, events: &mut Events) {
        let place = match index {
            Some(index) => self.blocks.iter().position(|(open, _)| *open == index),
            None => self.blocks.len().checked_sub(1),
        };
        let Some(place) = place else { return };
        events.push_back(match self.blocks.remove(place).1 {
            Block::Text { citations: found } => ChatEvent::TextEnd {
                data: citations(Some(found)),
            },
            Block::Thinking { signature: found } => ChatEvent::ReasoningEnd {
                data: signature(Some(found)),
            },
            Block::Call {
                index,
                mut call,
                input,
            } => {
                call.arguments = if call.arguments.trim().is_empty() {
                    input.unwrap_or_else(|| "{}".to_owned())
                } else {
                    json::compact(&call.arguments)
                };
                ChatEvent::ToolCallEnd { index, call }
            }
            Block::Opaque {
                kind,
                mut fields,
                input,
            } => {
                if !input.trim().is_empty() {
                    let input = serde_json::from_str(&input).unwrap_or(Value::String(input));
                    fields.insert("input".to_owned(), input);
                }
                ChatEvent::Part {
                    part: Box::new(opaque(kind, Value::Object(fields))),
                }
            }
        });
    }

    fn stop(&mut self, events: &mut Events) {
        while !self.blocks.is_empty() {
            let first = self.blocks.first().map(|(index, _)| *index);
            self.close(first, events);
        }
        let (_, finish, metadata) = std::mem::take(&mut self.ending).close(self.calls > 0);
        let mut done = Done::new(finish);
        done.metadata = metadata;
        events.push_back(ChatEvent::Done(Box::new(done)));
        self.done = true;
    }
}

impl EventDecoder for Decoder {
    fn frame(&mut self, frame: Frame<'_>, events: &mut Events) -> Result<()> {
        let data = frame.data.trim();
        // Some gateways end every stream as OpenAI does.
        if self.done || data.is_empty() || data == "[DONE]" {
            return Ok(());
        }
        let event: Event<'_> =
            serde_json::from_str(data).map_err(|source| self.unreadable("an event", source))?;
        if event.error.is_some() {
            return Err(stream_error(&self.provider, data));
        }
        match event.kind.as_deref().or(frame.event).unwrap_or_default() {
            "message_start" => self.start(event.message.unwrap_or_default(), events),
            "content_block_start" => {
                if let Some(block) = event.content_block {
                    self.open(event.index, block, events)?;
                }
            }
            "content_block_delta" => {
                if let Some(delta) = event.delta {
                    let delta = serde_json::from_str(delta.get())
                        .map_err(|source| self.unreadable("a piece of a block", source))?;
                    self.grow(event.index, delta, data, events)?;
                }
            }
            "content_block_stop" => self.close(event.index, events),
            "message_delta" => {
                let ending: MessageDelta = match event.delta {
                    Some(delta) => serde_json::from_str(delta.get())
                        .map_err(|source| self.unreadable("the end of the message", source))?,
                    None => MessageDelta::default(),
                };
                self.ending.stop_reason = ending.stop_reason.or(self.ending.stop_reason.take());
                self.ending.note("stop_sequence", ending.stop_sequence);
                self.ending.note("stop_details", ending.stop_details);
                self.ending.note("container", ending.container);
                self.ending.note("context_management", event.context_management);
                if let Some(counts) = event.usage {
                    self.count(counts, events);
                }
            }
            "message_stop" => self.stop(events),
            "error" => return Err(stream_error(&self.provider, data)),
            // `ping`, and events of tomorrow.
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Events) -> Result<()> {
        if self.done {
            return Ok(());
        }
        Err(Error::truncated(format!(
            "the stream of {} ended without message_stop",
            self.provider
        )))
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", default)]
    kind: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "json::or_none")]
    index: Option<u64>,
    #[serde(default)]
    message: Option<Start>,
    #[serde(borrow, default)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "json::or_none")]
    usage: Option<Counts>,
    #[serde(default)]
    context_management: Option<Value>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
struct Start {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default, deserialize_with = "json::or_none")]
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    thinking: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    partial_json: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    signature: Option<Cow<'a, str>>,
    #[serde(default)]
    citation: Option<Value>,
}

#[derive(Default, Deserialize)]
struct MessageDelta {
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(default)]
    stop_sequence: Option<Value>,
    #[serde(default)]
    stop_details: Option<Value>,
    #[serde(default)]
    container: Option<Value>,
}

/// Grows a block that only the provider understands by a piece of a kind that only it knows: texts are
/// appended, other values replace.
fn extend(fields: &mut Map<String, Value>, frame: &str) {
    #[derive(Deserialize)]
    struct Piece {
        delta: Map<String, Value>,
    }
    let Ok(Piece { delta }) = serde_json::from_str(frame) else {
        return;
    };
    for (name, value) in delta {
        match (fields.get_mut(&name), value) {
            _ if name == "type" => {}
            (_, Value::Null) => {}
            (Some(Value::String(known)), Value::String(more)) => known.push_str(&more),
            (_, value) => drop(fields.insert(name, value)),
        }
    }
}
