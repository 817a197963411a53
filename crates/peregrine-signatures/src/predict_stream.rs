//! A call of a signature, field by field, with repairs in between.
//!
//! All state lies in the stream itself, so a dropped `next` loses no event.

use std::collections::VecDeque;
use std::fmt;

use peregrine_core::{ChatEvent, ChatModel, ChatResponse, ChatStream, Fold, Part};

use crate::Error;
use crate::error::Violation;
use crate::extract::{Answer, Extraction, Step};
use crate::inputs::Inputs;
use crate::parse::{FieldEvent, FieldParser, FieldPath};
use crate::plan::ANSWER_TOOL;
use crate::predict::{Predict, Prediction};
use crate::signature::Outputs;

/// The events of one call. Made by [`Predict::stream`]. Dropping it cancels the call.
pub struct PredictStream<'m, M, I, O> {
    predict: Predict<I, O>,
    model: &'m M,
    extraction: Extraction,
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
    parser: FieldParser,
    call: Call,
    misfit: Option<Violation>,
    /// Whether any field was told.
    has_told: bool,
}

/// The call to the answer's tool that is being read.
#[derive(Debug, Clone, Copy)]
enum Call {
    None,
    /// It began, and none of its arguments have come.
    Empty(u32),
    Begun(u32),
}

impl<'m, M: ChatModel, I: Inputs, O: Outputs> PredictStream<'m, M, I, O> {
    pub(crate) fn new(predict: Predict<I, O>, model: &'m M, extraction: Extraction) -> Self {
        Self {
            predict,
            model,
            extraction,
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
                parser: self.extraction.parser(),
                call: Call::None,
                misfit: None,
                has_told: false,
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
        let told_before = self.buffer.len();
        let outcome = turn.parse(&event, &self.extraction, &mut self.buffer);
        turn.has_told |= self.buffer.len() > told_before;
        self.ready.extend(self.buffer.drain(..));
        turn.fold.push(event)?;
        if let Err(problem) = outcome {
            turn.misfit.get_or_insert(problem);
        }
        if turn.fold.is_done() || (turn.misfit.is_some() && self.predict.aborts_early()) {
            self.end_turn()?;
        }
        Ok(())
    }

    fn end_turn(&mut self) -> Result<(), Error> {
        let Some(turn) = self.turn.take() else {
            return Ok(());
        };
        let Turn {
            events,
            fold,
            parser,
            misfit,
            has_told,
            ..
        } = turn;
        // Dropped first: this is what cancels a call whose answer does not fit.
        drop(events);
        let problem = match (fold.is_done(), misfit) {
            (false, Some(problem)) => {
                let response = as_text(fold.partial());
                self.extraction.count(&response);
                self.extraction.refused(&response, problem.clone())?;
                problem
            }
            (_, misfit) => {
                let response = fold.finish()?;
                let exactness = parser.exactness();
                let is_one_answer = response.tool_calls().count() <= 1
                    && response.tool_calls().all(|call| call.name == ANSWER_TOOL);
                let whole = if is_one_answer && misfit.is_none() {
                    parser.finish().ok()
                } else {
                    None
                };
                let told_whole = whole.is_some();
                let step = match whole {
                    Some(fields) => self.extraction.answered_in_pieces(response, fields, exactness),
                    // Read again as a whole: more tolerantly, and with all that is wrong with it.
                    None => self.extraction.answered(response)?,
                };
                if let Step::Done(answer) = &step
                    && !told_whole
                {
                    self.tell_again(has_told.then_some(misfit).flatten(), answer);
                }
                if let Some(prediction) = self.predict.advance(&mut self.extraction, step)? {
                    self.prediction = Some(prediction);
                    return Ok(());
                }
                match self.extraction.last_problem() {
                    Some(problem) => problem.clone(),
                    None => unreachable!("a repair has a reason"),
                }
            }
        };
        self.ready.push_back(FieldEvent::Restarted { problem });
        Ok(())
    }

    /// Tells the fields of an answer that could only be read as a whole.
    fn tell_again(&mut self, misfit: Option<Violation>, answer: &Answer) {
        self.ready
            .extend(misfit.map(|problem| FieldEvent::Restarted { problem }));
        for (name, value) in &answer.fields {
            self.ready.push_back(FieldEvent::Completed {
                path: FieldPath::field(name.as_str().into()),
                value: value.clone(),
            });
        }
    }
}

impl Turn {
    /// Hands what belongs to the answer to the parser.
    fn parse(
        &mut self,
        event: &ChatEvent,
        extraction: &Extraction,
        events: &mut Vec<FieldEvent>,
    ) -> Result<(), Violation> {
        match (event, self.call) {
            (ChatEvent::TextDelta { text }, Call::None) => self.parser.push(text, events),
            (ChatEvent::ToolCallStart { index, name, .. }, Call::None) if name == ANSWER_TOOL => {
                // What came before as text was said to the caller of the tool, not as the answer.
                self.call = Call::Empty(*index);
                self.parser = extraction.parser();
                match self.has_told {
                    true => Err(crate::parse::ambiguous()),
                    false => Ok(()),
                }
            }
            (ChatEvent::ToolCallDelta { index, arguments }, Call::Empty(ours) | Call::Begun(ours))
                if *index == ours && !arguments.is_empty() =>
            {
                self.call = Call::Begun(ours);
                self.parser.push(arguments, events)
            }
            (ChatEvent::ToolCallEnd { index, call }, Call::Empty(ours)) if *index == ours => {
                self.call = Call::Begun(ours);
                self.parser.push(&call.arguments, events)
            }
            _ => Ok(()),
        }
    }
}

/// A partial answer as a message of text. Calls and reasoning that were not finished are none, and providers refuse
/// them.
fn as_text(partial: &ChatResponse) -> ChatResponse {
    let mut response = partial.clone();
    response.message.parts.retain_mut(|part| {
        if let Part::ToolCall(call) = part {
            *part = Part::text(std::mem::take(&mut call.arguments));
        }
        part.as_text().is_some_and(|text| !text.is_empty())
    });
    response
}

impl<M, I, O> fmt::Debug for PredictStream<'_, M, I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PredictStream")
            .field("extraction", &self.extraction)
            .finish_non_exhaustive()
    }
}
