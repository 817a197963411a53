//! A streamed answer of `streamGenerateContent?alt=sse`.
//!
//! Every event is a whole response (see [`Assembler`]). The answer is whole when the bytes end and a
//! candidate has said why it finished: the reason may come before the last piece.

use peregrine_core::{Error, Result};

use super::assembler::{Answer, Assembler};
use super::response::Problem;
use crate::wire::{EventDecoder, Events, Frame};

/// Decodes one answer.
pub(super) struct Decoder {
    provider: String,
    assembler: Assembler,
    done: bool,
}

impl Decoder {
    pub(super) fn new(provider: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            assembler: Assembler::new(),
            done: false,
        }
    }
}

impl EventDecoder for Decoder {
    fn frame(&mut self, frame: Frame<'_>, events: &mut Events) -> Result<()> {
        let data = frame.data.trim();
        // Some gateways end every stream as OpenAI does.
        if self.done || data.is_empty() || data == "[DONE]" {
            return Ok(());
        }
        serde_json::from_str::<Answer<'_>>(data)
            .map_err(Problem::from)
            .and_then(|answer| self.assembler.piece(answer, events))
            .map_err(|problem| problem.into_stream_error(&self.provider, data))
    }

    fn end(&mut self, events: &mut Events) -> Result<()> {
        if self.done {
            return Ok(());
        }
        if !self.assembler.is_finished() {
            return Err(Error::truncated(format!(
                "the stream of {} ended without a finish reason",
                self.provider
            )));
        }
        self.assembler.end(events);
        self.done = true;
        Ok(())
    }
}
