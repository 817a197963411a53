//! A streamed answer of `/api/chat`, line by line.
//!
//! Algorithm: text and reasoning go on as they come; tool calls, which come whole, are kept until the line
//! with `done: true`, so that they follow all text as they do in a whole answer. Lines behind it are passed
//! over.

use peregrine_core::{ChatEvent, Error, ProtocolError, Result};

use super::chunk::{Chunk, PendingCall};
use crate::wire::{EventDecoder, Events, Frame};

pub(super) struct Decoder {
    provider: String,
    started: bool,
    done: bool,
    pending: Vec<PendingCall>,
}

impl Decoder {
    pub(super) fn new(provider: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            started: false,
            done: false,
            pending: Vec::new(),
        }
    }

    fn finish(&mut self, chunk: &Chunk<'_>, events: &mut Events) {
        let pending = std::mem::take(&mut self.pending);
        let (done, usage) = chunk.end(!pending.is_empty());
        for (index, call) in (0..).zip(chunk.calls(pending)) {
            events.push_back(ChatEvent::ToolCallStart {
                index,
                id: call.id.clone(),
                name: call.name.clone(),
            });
            events.push_back(ChatEvent::ToolCallDelta {
                index,
                arguments: call.arguments.clone(),
            });
            events.push_back(ChatEvent::ToolCallEnd { index, call });
        }
        events.extend(usage.map(|usage| ChatEvent::Usage { usage }));
        events.push_back(ChatEvent::Done(Box::new(done)));
        self.done = true;
    }
}

impl EventDecoder for Decoder {
    fn frame(&mut self, frame: Frame<'_>, events: &mut Events) -> Result<()> {
        if self.done {
            return Ok(());
        }
        let mut chunk = Chunk::parse(frame.data.as_bytes()).map_err(|source| {
            ProtocolError::new("a line of the stream is not an object of Ollama's /api/chat")
                .with_source(source)
        })?;
        if let Some(error) = chunk.take_error(&self.provider) {
            return Err(error.into());
        }
        let model = chunk.model.take().filter(|model| !model.is_empty());
        if !self.started && (model.is_some() || chunk.message.is_some()) {
            self.started = true;
            events.push_back(ChatEvent::Start { id: None, model });
        }
        if let Some(mut message) = chunk.message.take() {
            if let Some(text) = message.thinking.take().filter(|text| !text.is_empty()) {
                events.push_back(ChatEvent::ReasoningDelta { text });
            }
            if let Some(text) = message.content.take().filter(|text| !text.is_empty()) {
                events.push_back(ChatEvent::TextDelta { text });
            }
            message.take_calls(&mut self.pending)?;
        }
        if chunk.done == Some(true) {
            self.finish(&chunk, events);
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Events) -> Result<()> {
        if self.done {
            return Ok(());
        }
        Err(Error::truncated(format!(
            "the stream from {} ended without `done: true`",
            self.provider
        )))
    }
}
