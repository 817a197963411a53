//! Tool calls of an answer that is being put together.
//!
//! Algorithm: pieces are told apart by `index`; where that is missing, or the same for calls that differ in
//! their ids, by id, and where there is neither, a piece with a name begins a call and one without continues the
//! last. A call is told of as soon as its name is known.

use std::borrow::Cow;

use peregrine_core::{ChatEvent, ProtocolError, ProviderData, Result, ToolCall};
use serde_json::{Map, Value};

use super::DIALECT;
use super::reply::{Call, Function, arguments};
use crate::wire::{Events, tool_ids};

/// How many calls one answer may hold.
const MAX_CALLS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Calls(Vec<OpenCall>);

#[derive(Debug, Default)]
struct OpenCall {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    started: bool,
    is_custom: bool,
    extra_content: Option<Value>,
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a piece of a call. `answer` is the answer's id, for calls without one.
    ///
    /// # Errors
    ///
    /// A protocol error if there are more calls than any model makes.
    pub(super) fn piece(&mut self, call: Call<'_>, answer: Option<&str>, events: &mut Events) -> Result<()> {
        let Call {
            index,
            id,
            function,
            custom,
            extra_content,
        } = call;
        let is_custom = custom.is_some();
        let Function {
            name,
            arguments: written,
        } = function.unwrap_or_default();
        let (name, written) = match custom {
            Some(custom) => (custom.name, custom.input.into_string().map(Cow::Owned)),
            None => (name, written.map(arguments)),
        };
        let place = self.place_of(index.0, id.get(), name.get());
        if place >= MAX_CALLS {
            return Err(
                ProtocolError::new(format!("the answer holds more than {MAX_CALLS} tool calls")).into(),
            );
        }
        let open = &mut self.0[place];
        open.is_custom |= is_custom;
        if open.id.is_empty() {
            open.id = id.into_string().unwrap_or_default();
        }
        if open.name.is_empty() {
            open.name = name.into_string().unwrap_or_default();
        }
        if let Some(extra) = extra_content.and_then(|extra| serde_json::from_str(extra.get()).ok()) {
            open.extra_content = Some(extra);
        }
        let written = written.unwrap_or_default();
        open.arguments.push_str(&written);
        if open.started {
            push_arguments(number(place), written.into_owned(), events);
        } else if !open.name.is_empty() {
            open.begin(place, answer, events);
        }
        Ok(())
    }

    /// Which call a piece belongs to; a new one if it begins one.
    fn place_of(&mut self, index: Option<u64>, id: Option<&str>, name: Option<&str>) -> usize {
        let calls = &self.0;
        let is_another =
            |call: &OpenCall| name.is_some() && id.is_some_and(|id| !call.id.is_empty() && call.id != id);
        let known = match (index, id) {
            (Some(index), _) => {
                let same = calls.iter().rposition(|call| call.index == Some(index));
                same.filter(|place| !is_another(&calls[*place]))
            }
            (None, Some(id)) => calls.iter().rposition(|call| call.id == id),
            (None, None) if name.is_none() => calls.len().checked_sub(1),
            (None, None) => None,
        };
        known.unwrap_or_else(|| {
            self.0.push(OpenCall {
                index,
                ..OpenCall::default()
            });
            self.0.len() - 1
        })
    }

    /// All calls are complete.
    pub(super) fn finish(&mut self, answer: Option<&str>, events: &mut Events) {
        for (place, mut call) in std::mem::take(&mut self.0).into_iter().enumerate() {
            call.begin(place, answer, events);
            events.push_back(ChatEvent::ToolCallEnd {
                index: number(place),
                call: call.complete(),
            });
        }
    }
}

impl OpenCall {
    /// Tells of the call, if that has not been done.
    fn begin(&mut self, place: usize, answer: Option<&str>, events: &mut Events) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        if self.id.is_empty() {
            self.id = tool_ids::made_up(answer, place);
        }
        events.push_back(ChatEvent::ToolCallStart {
            index: number(place),
            id: self.id.clone(),
            name: self.name.clone(),
        });
        push_arguments(number(place), self.arguments.clone(), events);
    }

    fn complete(self) -> ToolCall {
        let has_none = self.arguments.trim().is_empty() && !self.is_custom;
        let arguments = if has_none { "{}".to_owned() } else { self.arguments };
        let mut data = Map::new();
        if self.is_custom {
            data.insert("type".to_owned(), "custom".into());
        }
        data.extend(
            self.extra_content
                .map(|extra| ("extra_content".to_owned(), extra)),
        );
        let mut call = ToolCall::new(self.id, self.name, arguments);
        call.data = (!data.is_empty()).then(|| ProviderData::new(DIALECT, Value::Object(data)));
        call
    }
}

fn push_arguments(index: u32, arguments: String, events: &mut Events) {
    if !arguments.is_empty() {
        events.push_back(ChatEvent::ToolCallDelta { index, arguments });
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).expect("there are at most 1,024 calls")
}
