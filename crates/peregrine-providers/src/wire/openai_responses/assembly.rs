//! From whole items to events, and what is said once for an answer: its start, its usage, its end.
//!
//! Invariant: an item makes the same events, after folding, whether it came whole or in pieces; the stream
//! decoder calls what stands here for every item that did not come in pieces.

use peregrine_core::{
    ChatEvent, ChatResponse, Done, Error, Finish, Metadata, OpaquePart, Part, ProtocolError, ProviderData,
    RawResponse, Result, ToolCall, UnixTime,
};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::DIALECT;
use super::input::CALL_FIELDS;
use super::reply::{ContentPiece, Item, Response};
use crate::wire::error::ErrorBody;
use crate::wire::json::Text;
use crate::wire::openai_chat::{Content, arguments, fold};
use crate::wire::{Events, json, tool_ids};

/// What stands between pieces of a summary, or of a reasoning text.
pub(super) const BETWEEN: &str = "\n\n";

/// Reads a whole answer.
pub(super) fn whole(provider: &str, raw: &RawResponse) -> Result<ChatResponse> {
    let body = raw.body();
    let mut response: Response<'_> =
        serde_json::from_slice(&body).map_err(|error| json::protocol_error("the response", &error))?;
    let mut assembly = Assembly::new(provider);
    if response.object.get() == Some("error") {
        // It has been read as JSON, so it is UTF-8.
        return Err(assembly.error(std::str::from_utf8(&body).unwrap_or_default()));
    }
    let mut events = Events::new();
    assembly.start(&response, &mut events);
    let output = response.output.take();
    if output.is_none() && response.status.get().is_none() && response.error.is_none() {
        return Err(ProtocolError::new("the response holds no `output`").into());
    }
    let output = output.unwrap_or_default();
    check_items(output.len())?;
    for item in output {
        assembly.item(item, &mut events);
    }
    assembly.finish(&response, None, &mut events)?;
    fold(events)
}

/// How many items one answer may hold.
const MAX_ITEMS: usize = 4096;

/// Refuses an answer of more items than any model makes.
pub(super) fn check_items(count: usize) -> Result<()> {
    if count > MAX_ITEMS {
        return Err(ProtocolError::new(format!("the answer holds more than {MAX_ITEMS} items")).into());
    }
    Ok(())
}

/// What both modes keep of an answer.
#[derive(Debug)]
pub(super) struct Assembly {
    provider: String,
    id: Option<String>,
    model: Option<String>,
    calls: u32,
}

impl Assembly {
    pub(super) fn new(provider: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            id: None,
            model: None,
            calls: 0,
        }
    }

    /// The error that a body or frame holds.
    pub(super) fn error(&self, text: &str) -> Error {
        ErrorBody::parse(text.as_bytes())
            .into_error(&self.provider, 200, None, UnixTime(0))
            .into()
    }

    pub(super) fn start(&mut self, response: &Response<'_>, events: &mut Events) {
        let new = |known: &Option<String>, text: &Text<'_>| {
            text.get().filter(|_| known.is_none()).map(str::to_owned)
        };
        let (id, model) = (new(&self.id, &response.id), new(&self.model, &response.model));
        if id.is_some() || model.is_some() {
            self.id = self.id.take().or_else(|| id.clone());
            self.model = self.model.take().or_else(|| model.clone());
            events.push_back(ChatEvent::Start { id, model });
        }
    }

    /// Makes the events of a whole item.
    pub(super) fn item(&mut self, raw: &RawValue, events: &mut Events) {
        let Ok(item) = serde_json::from_str::<Item<'_>>(raw.get()) else {
            return;
        };
        match item.kind.get().unwrap_or_default() {
            "message" => {
                let data = message_data(&item);
                self.said(&item.content, data.as_ref(), events);
            }
            "reasoning" => {
                let text = reasoning_text(&item);
                if !text.is_empty() {
                    events.push_back(ChatEvent::ReasoningDelta { text });
                }
                events.push_back(ChatEvent::ReasoningEnd { data: item_data(raw) });
            }
            "function_call" => {
                let (index, call) = self.begin_call(&item, events);
                let call = ToolCall {
                    data: call_data(raw),
                    ..finished(call, &item)
                };
                if !call.arguments.is_empty() {
                    let arguments = call.arguments.clone();
                    events.push_back(ChatEvent::ToolCallDelta { index, arguments });
                }
                events.push_back(ChatEvent::ToolCallEnd { index, call });
            }
            kind => {
                let value = serde_json::from_str(raw.get()).unwrap_or_default();
                let part = OpaquePart {
                    dialect: DIALECT.to_owned(),
                    kind: kind.to_owned(),
                    value,
                };
                events.push_back(ChatEvent::Part {
                    part: Box::new(Part::Opaque(part)),
                });
            }
        }
    }

    fn said(&self, content: &Content<'_>, data: Option<&ProviderData>, events: &mut Events) {
        let end = |events: &mut Events| events.push_back(ChatEvent::TextEnd { data: data.cloned() });
        match content {
            Content::None => {}
            Content::Text(text) => {
                events.push_back(ChatEvent::TextDelta {
                    text: text.as_ref().to_owned(),
                });
                end(events);
            }
            Content::Pieces(pieces) => {
                for piece in content_pieces(pieces) {
                    if piece.kind.get() == Some("refusal") {
                        let text = piece.refusal.into_string().unwrap_or_default();
                        events.push_back(ChatEvent::RefusalDelta { text });
                    } else if let Some(text) = piece.text.into_string() {
                        events.push_back(ChatEvent::TextDelta { text });
                        end(events);
                    }
                }
            }
        }
    }

    /// Tells of a call that begins.
    pub(super) fn begin_call(&mut self, item: &Item<'_>, events: &mut Events) -> (u32, ToolCall) {
        let index = self.calls;
        self.calls += 1;
        let id = item.call_id.get().or(item.id.get()).map_or_else(
            || tool_ids::made_up(self.id.as_deref(), usize::try_from(index).unwrap_or(usize::MAX)),
            str::to_owned,
        );
        let name = item.name.get().unwrap_or_default().to_owned();
        events.push_back(ChatEvent::ToolCallStart {
            index,
            id: id.clone(),
            name: name.clone(),
        });
        (index, ToolCall::new(id, name, String::new()))
    }

    /// The answer is complete. `event` is the status that the name of the last event says.
    pub(super) fn finish(
        &mut self,
        response: &Response<'_>,
        event: Option<&str>,
        events: &mut Events,
    ) -> Result<()> {
        let status = response.status.get().or(event);
        let error = response
            .error
            .filter(|error| !matches!(error.get(), "{}" | "\"\"" | "false"));
        if status == Some("failed") || (error.is_some() && status.is_none()) {
            let error = error.map_or(
                r#"{"message":"the response failed and says no reason"}"#,
                RawValue::get,
            );
            return Err(self.error(&format!(r#"{{"error":{error}}}"#)));
        }
        if let Some(usage) = response.usage.as_ref().and_then(|usage| usage.usage()) {
            events.push_back(ChatEvent::Usage { usage });
        }
        let reason = response
            .incomplete_details
            .as_ref()
            .and_then(|details| details.reason.get());
        let finish = match (status, reason) {
            (None | Some("completed"), _) if self.calls > 0 => Finish::ToolCalls,
            (None | Some("completed"), _) => Finish::Stop,
            (Some("incomplete"), Some("max_output_tokens")) => Finish::Length,
            (Some("incomplete"), Some("content_filter")) => Finish::ContentFilter,
            (Some("incomplete"), Some(reason)) => Finish::Other(reason.to_owned()),
            (Some(status), _) => Finish::Other(status.to_owned()),
        };
        let mut metadata = Metadata::new();
        for (name, fact) in [
            ("created_at", response.created_at),
            ("service_tier", response.service_tier),
        ] {
            if let Some(value) = fact.and_then(|fact| serde_json::from_str(fact.get()).ok()) {
                metadata.insert(name.to_owned(), value);
            }
        }
        if let Some(reason) = reason {
            metadata.insert("incomplete_reason".to_owned(), reason.into());
        }
        let mut done = Done::new(finish);
        done.metadata = metadata;
        events.push_back(ChatEvent::Done(Box::new(done)));
        Ok(())
    }
}

/// What goes back with the texts of a message: its id and phase.
pub(super) fn message_data(item: &Item<'_>) -> Option<ProviderData> {
    let fields = [("id", item.id.get()), ("phase", item.phase.get())].into_iter();
    let data: Map<String, Value> = fields
        .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
        .collect();
    (!data.is_empty()).then(|| ProviderData::new(DIALECT, Value::Object(data)))
}

/// What goes back with reasoning: the item, word for word.
pub(super) fn item_data(raw: &RawValue) -> Option<ProviderData> {
    let value = serde_json::from_str(raw.get()).ok()?;
    Some(ProviderData::new(DIALECT, value))
}

/// What goes back with a call beside what has its own place: its item's id, namespace and caller.
pub(super) fn call_data(raw: &RawValue) -> Option<ProviderData> {
    let mut fields: Map<String, Value> = serde_json::from_str(raw.get()).ok()?;
    fields.retain(|name, value| !CALL_FIELDS.contains(&name.as_str()) && !value.is_null());
    (!fields.is_empty()).then(|| ProviderData::new(DIALECT, Value::Object(fields)))
}

/// A call with the arguments of its whole item.
pub(super) fn finished(mut call: ToolCall, item: &Item<'_>) -> ToolCall {
    if let Some(written) = item
        .arguments
        .map(arguments)
        .filter(|written| !written.is_empty())
    {
        call.arguments = written.into_owned();
    }
    if call.arguments.trim().is_empty() {
        call.arguments = "{}".to_owned();
    }
    call
}

/// The text of a reasoning item: what is shown of the reasoning itself, else its summary.
pub(super) fn reasoning_text(item: &Item<'_>) -> String {
    let text = joined(&item.content);
    if text.is_empty() {
        joined(&item.summary)
    } else {
        text
    }
}

fn joined(content: &Content<'_>) -> String {
    match content {
        Content::None => String::new(),
        Content::Text(text) => text.as_ref().to_owned(),
        Content::Pieces(pieces) => {
            let texts: Vec<String> = content_pieces(pieces)
                .filter_map(|piece| piece.text.into_string())
                .collect();
            texts.join(BETWEEN)
        }
    }
}

fn content_pieces<'a>(pieces: &[&'a RawValue]) -> impl Iterator<Item = ContentPiece<'a>> {
    pieces
        .iter()
        .filter_map(|piece| serde_json::from_str(piece.get()).ok())
}
