//! A call of a signature, field by field, with repairs in between.
//!
//! All state lies in the stream itself, so a dropped `next` loses no event.

use std::collections::VecDeque;
use std::fmt;

use peregrine_core::{ChatModel, ChatStream, Fold};

use crate::Error;
use crate::error::Violation;
use crate::events::EventReader;
use crate::extract::{Extraction, Prediction};
use crate::parse::FieldEvent;
use crate::predict;
use crate::signature::Outputs;

/// The events of one call. Made by [`Predict::stream`](crate::Predict::stream). Dropping it cancels the call.
pub struct PredictStream<'m, M, O> {
    model: &'m M,
    extraction: Extraction<O>,
    early_abort: bool,
    turn: Option<Turn>,
    ready: VecDeque<FieldEvent>,
    buffer: Vec<FieldEvent>,
    prediction: Option<Prediction<O>>,
    failed: bool,
}

/// One answer on its way.
struct Turn {
    events: ChatStream,
    fold: Fold,
    reader: EventReader,
}

impl<'m, M: ChatModel, O: Outputs> PredictStream<'m, M, O> {
    pub(crate) fn new(model: &'m M, extraction: Extraction<O>, early_abort: bool) -> Self {
        Self {
            model,
            extraction,
            early_abort,
            turn: None,
            ready: VecDeque::new(),
            buffer: Vec::new(),
            prediction: None,
            failed: false,
        }
    }

    /// The next event; `None` when the answer is complete and fits, or after an error.
    ///
    /// # Errors
    ///
    /// What went wrong with the call, or an answer that does not fit after all repairs. The stream ends after it.
    ///
    /// # Cancel safety
    ///
    /// No event is lost when the future is dropped; a call that was just being made is made again.
    pub async fn next(&mut self) -> Option<Result<FieldEvent, Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.failed || self.prediction.is_some() {
                return None;
            }
            if let Err(error) = self.advance().await {
                self.failed = true;
                self.turn = None;
                return Some(Err(error));
            }
        }
    }

    /// Reads the rest and gives the whole prediction.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub async fn finish(mut self) -> Result<Prediction<O>, Error> {
        while let Some(event) = self.next().await {
            event?;
        }
        self.prediction.ok_or_else(|| {
            peregrine_core::Error::truncated(
                "the stream was read after it had failed; its error was given before",
            )
            .into()
        })
    }

    /// Waits for one event of the model and takes it in.
    async fn advance(&mut self) -> Result<(), Error> {
        let Some(turn) = &mut self.turn else {
            let events = self.model.stream(self.extraction.request()).await?;
            self.turn = Some(Turn {
                events,
                fold: Fold::new(),
                reader: self.extraction.reader(),
            });
            return Ok(());
        };
        let event = match turn.events.next().await {
            Some(event) => event?,
            None => {
                return Err(
                    peregrine_core::Error::truncated("the stream ended without its end event").into(),
                );
            }
        };
        let outcome = turn.reader.push(&event, &mut self.buffer);
        self.ready.extend(self.buffer.drain(..));
        turn.fold.push(event)?;
        match (turn.fold.is_done(), outcome) {
            (false, Err(problem)) if self.early_abort => self.abort(problem),
            (true, _) => self.end_turn(),
            _ => Ok(()),
        }
    }

    fn abort(&mut self, problem: Violation) -> Result<(), Error> {
        // Taken first: dropping its events is what cancels the call.
        if let Some(Turn { fold, .. }) = self.turn.take() {
            self.extraction.aborted(fold.partial(), problem.clone())?;
            self.ready.push_back(FieldEvent::Restarted { problem });
        }
        Ok(())
    }

    fn end_turn(&mut self) -> Result<(), Error> {
        let Some(Turn { fold, reader, .. }) = self.turn.take() else {
            return Ok(());
        };
        let response = fold.finish()?;
        let step = self
            .extraction
            .answered_in_pieces(reader, response, &mut self.buffer);
        self.ready.extend(self.buffer.drain(..));
        match predict::advance(&mut self.extraction, step?)? {
            Some(prediction) => self.prediction = Some(prediction),
            None => {
                let problem = self.extraction.last_problem().cloned();
                self.ready
                    .extend(problem.map(|problem| FieldEvent::Restarted { problem }));
            }
        }
        Ok(())
    }
}

impl<M, O> fmt::Debug for PredictStream<'_, M, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PredictStream")
            .field("extraction", &self.extraction)
            .finish_non_exhaustive()
    }
}
