//! Streamed answers.
//!
//! Algorithm: a slot for each item that has begun, found by `output_index`, else by item id, else the newest.
//! Pieces are handed on as they come; when an item is done, what only its end tells (its data) follows; an item
//! that came without pieces is handed on whole. The terminal event holds the whole response: items that never
//! came are taken from it. Ids may differ between the two (proxies make them up anew), so an item is missing
//! only if there are more of its kind than came.

use peregrine_core::{ChatEvent, Error, ProviderData, Result, ToolCall};
use serde_json::value::RawValue;

use super::assembly::{Assembly, BETWEEN, call_data, check_items, finished, item_data, message_data};
use super::reply::{Event, Item, Response};
use crate::wire::openai_chat::arguments;
use crate::wire::{EventDecoder, Events, Frame, json};

pub(super) struct ResponsesDecoder {
    assembly: Assembly,
    slots: Vec<Slot>,
    /// The slot and content index of the text that is open.
    open_text: Option<(usize, u64)>,
    /// The slot of the reasoning that is open.
    open_reasoning: Option<usize>,
    done: bool,
}

/// An item that has begun.
struct Slot {
    output_index: Option<u64>,
    id: String,
    kind: String,
    /// What is known of the item's data before its end (messages).
    data: Option<ProviderData>,
    /// The call, and which of the answer's calls it is.
    call: Option<(u32, ToolCall)>,
    /// The kind and index of the last piece of text, refusal or reasoning.
    last: Option<(Voice, u64)>,
    done: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Voice {
    Text,
    Refusal,
    Reasoning,
    Summary,
}

impl ResponsesDecoder {
    pub(super) fn new(provider: &str) -> Self {
        Self {
            assembly: Assembly::new(provider),
            slots: Vec::new(),
            open_text: None,
            open_reasoning: None,
            done: false,
        }
    }

    /// The slot of a piece: by index, else by id, else the newest of its kind that is not done; a new one if
    /// there is none.
    fn slot(&mut self, kind: &str, output_index: Option<u64>, id: Option<&str>) -> usize {
        let newest = || {
            self.slots
                .iter()
                .rposition(|slot| slot.kind == kind && !slot.done)
        };
        self.begun(kind, output_index, id)
            .or_else(|| newest().filter(|_| output_index.is_none() && id.is_none()))
            .unwrap_or_else(|| self.begin(kind, output_index, id))
    }

    fn slot_of(&mut self, kind: &str, event: &Event<'_>) -> usize {
        self.slot(kind, event.output_index.0, event.item_id.get())
    }

    fn begun(&self, kind: &str, output_index: Option<u64>, id: Option<&str>) -> Option<usize> {
        let place = match (output_index, id) {
            (Some(index), _) => self
                .slots
                .iter()
                .rposition(|slot| slot.output_index == Some(index)),
            (None, Some(id)) => self.slots.iter().rposition(|slot| slot.id == id),
            (None, None) => None,
        };
        place.filter(|place| self.slots[*place].kind == kind)
    }

    fn begin(&mut self, kind: &str, output_index: Option<u64>, id: Option<&str>) -> usize {
        self.slots.push(Slot {
            output_index,
            id: id.unwrap_or_default().to_owned(),
            kind: kind.to_owned(),
            data: None,
            call: None,
            last: None,
            done: false,
        });
        self.slots.len() - 1
    }

    fn added(&mut self, event: &Event<'_>, events: &mut Events) {
        let Some((_, item)) = event.item.and_then(read) else {
            return;
        };
        let kind = item.kind.get().unwrap_or_default();
        let (index, id) = (event.output_index.0, item.id.get());
        let place = self
            .begun(kind, index, id)
            .unwrap_or_else(|| self.begin(kind, index, id));
        let slot = &mut self.slots[place];
        match kind {
            "message" => slot.data = message_data(&item),
            "function_call" if slot.call.is_none() => {
                let (index, mut call) = self.assembly.begin_call(&item, events);
                if let Some(written) = item
                    .arguments
                    .map(arguments)
                    .filter(|written| !written.is_empty())
                {
                    call.arguments = written.clone().into_owned();
                    events.push_back(ChatEvent::ToolCallDelta {
                        index,
                        arguments: written.into_owned(),
                    });
                }
                slot.call = Some((index, call));
            }
            _ => {}
        }
    }

    fn text(&mut self, event: &Event<'_>, text: &str, events: &mut Events) {
        let place = self.slot_of("message", event);
        let piece = (place, event.content_index.0.unwrap_or(0));
        if self.open_text.is_some_and(|open| open != piece) {
            self.end_text(events);
        }
        self.open_text = Some(piece);
        self.slots[place].last = Some((Voice::Text, piece.1));
        events.push_back(ChatEvent::TextDelta {
            text: text.to_owned(),
        });
    }

    fn end_text(&mut self, events: &mut Events) {
        if let Some((place, _)) = self.open_text.take() {
            events.push_back(ChatEvent::TextEnd {
                data: self.slots[place].data.clone(),
            });
        }
    }

    fn refusal(&mut self, event: &Event<'_>, text: &str, events: &mut Events) {
        let place = self.slot_of("message", event);
        self.slots[place].last = Some((Voice::Refusal, 0));
        events.push_back(ChatEvent::RefusalDelta {
            text: text.to_owned(),
        });
    }

    fn reasoning(&mut self, event: &Event<'_>, voice: Voice, text: &str, events: &mut Events) {
        let place = self.slot_of("reasoning", event);
        let index = match voice {
            Voice::Summary => event.summary_index.0,
            _ => event.content_index.0,
        };
        let now = (voice, index.unwrap_or(0));
        let slot = &mut self.slots[place];
        let between = match slot.last {
            // The reasoning itself or its summary, whichever comes first.
            Some((before, _)) if before != voice => return,
            Some(last) if last != now => BETWEEN,
            _ => "",
        };
        slot.last = Some(now);
        if self.open_reasoning.is_some_and(|open| open != place) {
            events.push_back(ChatEvent::ReasoningEnd { data: None });
        }
        self.open_reasoning = Some(place);
        events.push_back(ChatEvent::ReasoningDelta {
            text: format!("{between}{text}"),
        });
    }

    fn arguments(&mut self, event: &Event<'_>, text: &str, events: &mut Events) {
        let place = self.slot_of("function_call", event);
        if let Some((index, call)) = &mut self.slots[place].call {
            call.arguments.push_str(text);
            events.push_back(ChatEvent::ToolCallDelta {
                index: *index,
                arguments: text.to_owned(),
            });
        }
    }

    fn item_done(&mut self, event: &Event<'_>, events: &mut Events) {
        let Some((raw, item)) = event.item.and_then(read) else {
            return;
        };
        let kind = item.kind.get().unwrap_or_default();
        // Without an index the id decides; ids that change on the way leave the newest open item.
        let index = event.output_index.0;
        let id = item
            .id
            .get()
            .filter(|id| index.is_some() || self.slots.iter().any(|slot| slot.id == *id));
        let place = self.slot(kind, index, id);
        self.complete(place, raw, &item, events);
    }

    /// The item in this slot is complete.
    fn complete(&mut self, place: usize, raw: &RawValue, item: &Item<'_>, events: &mut Events) {
        let slot = &mut self.slots[place];
        if std::mem::replace(&mut slot.done, true) {
            return;
        }
        match (slot.last, slot.call.take()) {
            (_, Some((index, call))) => {
                let call = ToolCall {
                    data: call_data(raw),
                    ..finished(call, item)
                };
                events.push_back(ChatEvent::ToolCallEnd { index, call });
            }
            (Some((Voice::Text | Voice::Refusal, _)), None) => {
                slot.data = message_data(item).or_else(|| slot.data.take());
                if self.open_text.is_some_and(|(open, _)| open == place) {
                    self.end_text(events);
                }
            }
            (Some(_), None) => {
                let data = item_data(raw);
                if self.open_reasoning.take_if(|open| *open == place).is_some() {
                    events.push_back(ChatEvent::ReasoningEnd { data });
                } else if self.open_reasoning.is_none() {
                    // Another item's reasoning came in between: the data stand in a part of their own.
                    events.push_back(ChatEvent::ReasoningEnd { data });
                }
            }
            (None, None) => {
                if slot.kind == "message" {
                    self.end_text(events);
                }
                self.assembly.item(raw, events);
            }
        }
    }

    /// The terminal event: takes what is missing from the whole response and ends what is open.
    fn terminal(&mut self, event: &Event<'_>, status: &str, events: &mut Events) -> Result<()> {
        let Some(raw) = event.response else {
            return Err(Error::truncated("the last event of the stream holds no response"));
        };
        let mut response: Response<'_> = serde_json::from_str(raw.get())
            .map_err(|error| json::protocol_error("the response in the stream", &error))?;
        self.assembly.start(&response, events);
        self.done = true;
        let items: Vec<(&RawValue, Item<'_>)> = response
            .output
            .take()
            .into_iter()
            .flatten()
            .filter_map(read)
            .collect();
        check_items(items.len())?;
        for (raw, item) in &items {
            let id = item.id.get();
            let known = |slot: &Slot| {
                !slot.done && id == Some(slot.id.as_str()) && item.kind.get() == Some(&slot.kind)
            };
            if let Some(place) = self.slots.iter().position(known) {
                self.complete(place, raw, item, events);
            }
        }
        for (raw, item) in self.missing(&items).into_iter().map(|place| &items[place]) {
            let place = self.begin(item.kind.get().unwrap_or_default(), None, item.id.get());
            self.complete(place, raw, item, events);
        }
        self.end_text(events);
        for slot in &mut self.slots {
            if let Some((index, mut call)) = slot.call.take() {
                if call.arguments.trim().is_empty() {
                    call.arguments = "{}".to_owned();
                }
                events.push_back(ChatEvent::ToolCallEnd { index, call });
            }
        }
        self.assembly.finish(&response, Some(status), events)
    }
}

impl ResponsesDecoder {
    /// The places of the items of the whole response that never came in the stream.
    fn missing(&self, items: &[(&RawValue, Item<'_>)]) -> Vec<usize> {
        let mut came: Vec<&Slot> = self.slots.iter().filter(|slot| slot.has_come()).collect();
        let kind = |place: usize| items[place].1.kind.get().unwrap_or_default();
        let mut missing = Vec::new();
        for (place, (_, item)) in items.iter().enumerate() {
            let same = |slot: &&Slot| slot.kind == kind(place) && item.id.get() == Some(&slot.id);
            match came.iter().position(same) {
                Some(at) => drop(came.remove(at)),
                None => missing.push(place),
            }
        }
        // What is left on both sides, kind by kind and in order, is the same under other ids.
        missing.retain(
            |place| match came.iter().position(|slot| slot.kind == kind(*place)) {
                Some(at) => {
                    came.remove(at);
                    false
                }
                None => true,
            },
        );
        missing
    }
}

impl Slot {
    /// Whether something of the item was handed on.
    fn has_come(&self) -> bool {
        self.done || self.last.is_some() || self.call.is_some()
    }
}

fn read(raw: &RawValue) -> Option<(&RawValue, Item<'_>)> {
    Some((raw, serde_json::from_str(raw.get()).ok()?))
}

impl EventDecoder for ResponsesDecoder {
    fn frame(&mut self, frame: Frame<'_>, events: &mut Events) -> Result<()> {
        let data = frame.data.trim();
        if self.done || data.is_empty() || data.starts_with("[DONE]") {
            return Ok(());
        }
        let event: Event<'_> = serde_json::from_str(data)
            .map_err(|error| json::protocol_error("an event of the response", &error))?;
        let kind = event.kind.get().or(frame.event).unwrap_or_default();
        check_items(self.slots.len())?;
        match kind {
            "response.output_text.delta" => {
                if let Some(text) = event.delta.get() {
                    self.text(&event, text, events);
                }
            }
            "response.function_call_arguments.delta" => {
                if let Some(text) = event.delta.get() {
                    self.arguments(&event, text, events);
                }
            }
            "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" => {
                let is_summary = kind == "response.reasoning_summary_text.delta";
                if let Some(text) = event.delta.get() {
                    let voice = if is_summary {
                        Voice::Summary
                    } else {
                        Voice::Reasoning
                    };
                    self.reasoning(&event, voice, text, events);
                }
            }
            "response.refusal.delta" => {
                if let Some(text) = event.delta.get() {
                    self.refusal(&event, text, events);
                }
            }
            "response.created" | "response.queued" | "response.in_progress" => {
                let response = event
                    .response
                    .map(|raw| serde_json::from_str::<Response<'_>>(raw.get()));
                if let Some(Ok(response)) = response {
                    self.assembly.start(&response, events);
                }
            }
            "response.output_item.added" => self.added(&event, events),
            "response.output_item.done" => self.item_done(&event, events),
            "response.completed" => return self.terminal(&event, "completed", events),
            "response.incomplete" => return self.terminal(&event, "incomplete", events),
            "response.failed" => return self.terminal(&event, "failed", events),
            "error" => return Err(self.assembly.error(data)),
            _ if event.error.is_some() => return Err(self.assembly.error(data)),
            // Ends of pieces whose items end later, progress of the provider's own tools, and news.
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Events) -> Result<()> {
        if self.done {
            Ok(())
        } else {
            Err(Error::truncated(
                "the stream of the response ended without its last event",
            ))
        }
    }
}
