//! Streamed answers: a chunk in each frame, a finish reason in one of the last, and `[DONE]` at the end. Without
//! both the answer is not whole.

use peregrine_core::{Error, Result};

use super::assembly::Assembly;
use super::reply::Reply;
use crate::wire::{EventDecoder, Events, Frame, json};

pub(super) struct ChatDecoder {
    assembly: Assembly,
    done: bool,
}

impl ChatDecoder {
    pub(super) fn new(provider: &str) -> Self {
        Self {
            assembly: Assembly::new(provider),
            done: false,
        }
    }
}

impl EventDecoder for ChatDecoder {
    fn frame(&mut self, frame: Frame<'_>, events: &mut Events) -> Result<()> {
        let data = frame.data.trim();
        if self.done || data.is_empty() {
            return Ok(());
        }
        if data.starts_with("[DONE]") {
            // A proxy that lost its upstream ends the stream in good order all the same.
            if self.assembly.has_answered() && !self.assembly.has_reason() {
                return Err(Error::truncated(
                    "the stream of the chat completion ended without a finish reason",
                ));
            }
            self.done = true;
            return self.assembly.finish(events);
        }
        if frame.event == Some("error") {
            return Err(self.assembly.error(data));
        }
        let reply: Reply<'_> = serde_json::from_str(data)
            .map_err(|error| json::protocol_error("a chunk of the chat completion", &error))?;
        self.assembly.read(reply, data, events)
    }

    fn end(&mut self, _: &mut Events) -> Result<()> {
        if self.done {
            Ok(())
        } else {
            Err(Error::truncated(
                "the stream of the chat completion ended without `[DONE]`",
            ))
        }
    }
}
