//! From events to the whole answer.
//!
//! Algorithm: a list of parts and, for text, reasoning, refusal and each tool call, the place of the part
//! that is still open. Every event is O(1) amortised in its own size.

use crate::{
    ChatEvent, ChatResponse, Error, Finish, Part, ProtocolError, ReasoningPart, Result, TextPart, ToolCall,
};

/// No model asks for more tools at once; without a bound a hostile stream could make the search below slow.
const MAX_CALLS: usize = 4_096;

/// Collects the events of one answer.
///
/// # Examples
///
/// ```
/// use peregrine_core::{ChatEvent, ChatResponse, Fold};
///
/// let answer = ChatResponse::text("forty-two").with_model("deep-thought");
/// let mut fold = Fold::new();
/// for event in answer.clone().into_events() {
///     fold.push(event)?;
/// }
/// assert_eq!(fold.finish()?, answer);
/// # Ok::<(), peregrine_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Fold {
    response: ChatResponse,
    open_text: Option<usize>,
    open_reasoning: Option<usize>,
    open_refusal: Option<usize>,
    calls: Vec<OpenCall>,
    done: bool,
}

#[derive(Debug)]
struct OpenCall {
    index: u32,
    place: usize,
    ended: bool,
}

impl Default for Fold {
    fn default() -> Self {
        Self::new()
    }
}

impl Fold {
    /// Nothing collected yet.
    pub fn new() -> Self {
        Self {
            response: ChatResponse::new(Vec::new(), Finish::Stop),
            open_text: None,
            open_reasoning: None,
            open_refusal: None,
            calls: Vec::new(),
            done: false,
        }
    }

    /// Takes the next event.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Protocol`](crate::ErrorKind::Protocol) if the event cannot stand here: a delta of a call
    /// that never started or has ended, a second start of the same call, anything after `Done`;
    /// [`ErrorKind::ResponseTooLarge`](crate::ErrorKind::ResponseTooLarge) for more than 4,096 tool calls.
    pub fn push(&mut self, event: ChatEvent) -> Result<()> {
        if self.done {
            return Err(out_of_order("an event after the end of the answer"));
        }
        match event {
            ChatEvent::Start { id, model } => {
                self.response.id = id.or(self.response.id.take());
                if let Some(model) = model {
                    self.response.model = model;
                }
            }
            ChatEvent::TextDelta { text } => {
                append_text(&mut self.response, &mut self.open_text, text, Part::Text)
            }
            ChatEvent::RefusalDelta { text } => {
                append_text(&mut self.response, &mut self.open_refusal, text, Part::Refusal);
            }
            ChatEvent::TextEnd { data } => match (self.open_text.take(), data) {
                (Some(place), data) => {
                    if let Some(Part::Text(part)) = self.response.message.parts.get_mut(place) {
                        part.data = data;
                    }
                }
                (None, Some(data)) => {
                    let part = TextPart {
                        text: String::new(),
                        data: Some(data),
                    };
                    self.response.message.parts.push(Part::Text(part));
                }
                (None, None) => {}
            },
            ChatEvent::ReasoningDelta { text } => self.append_reasoning(text),
            ChatEvent::ReasoningEnd { data } => {
                if self.open_reasoning.is_none() && data.is_some() {
                    self.append_reasoning(String::new());
                }
                if let Some(place) = self.open_reasoning.take()
                    && let Some(Part::Reasoning(part)) = self.response.message.parts.get_mut(place)
                {
                    part.data = data;
                }
            }
            ChatEvent::ToolCallStart { index, id, name } => self.start_call(index, id, name)?,
            ChatEvent::ToolCallDelta { index, arguments } => {
                self.open_call(index)?.arguments.push_str(&arguments);
            }
            ChatEvent::ToolCallEnd { index, call } => {
                *self.open_call(index)? = call;
                if let Some(open) = self.calls.iter_mut().find(|open| open.index == index) {
                    open.ended = true;
                }
            }
            ChatEvent::Part { part } => self.response.message.parts.push(*part),
            ChatEvent::Usage { usage } => self.response.usage = Some(usage),
            ChatEvent::Done(done) => {
                self.response.finish = done.finish;
                self.response.timings = done.timings;
                self.response.metadata = done.metadata;
                self.response.raw = done.raw;
                self.done = true;
            }
        }
        Ok(())
    }

    /// Whether the answer is complete.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// What has been collected so far, complete or not: for showing, not for acting on.
    pub fn partial(&self) -> &ChatResponse {
        &self.response
    }

    /// The whole answer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Truncated`](crate::ErrorKind::Truncated) if no `Done` came: half an answer is never an
    /// answer.
    pub fn finish(self) -> Result<ChatResponse> {
        if self.done {
            Ok(self.response)
        } else {
            Err(Error::truncated("the stream ended without its end event"))
        }
    }

    fn append_reasoning(&mut self, text: String) {
        let parts = &mut self.response.message.parts;
        match self.open_reasoning.and_then(|place| parts.get_mut(place)) {
            Some(Part::Reasoning(part)) => part.text.push_str(&text),
            _ => {
                self.open_reasoning = Some(parts.len());
                parts.push(Part::Reasoning(ReasoningPart { text, data: None }));
            }
        }
    }

    fn start_call(&mut self, index: u32, id: String, name: String) -> Result<()> {
        if self.calls.len() == MAX_CALLS {
            return Err(ProtocolError::too_many("tool calls in one answer", MAX_CALLS).into());
        }
        if self.calls.iter().any(|open| open.index == index) {
            return Err(out_of_order(&format!("a second start of tool call {index}")));
        }
        let parts = &mut self.response.message.parts;
        self.calls.push(OpenCall {
            index,
            place: parts.len(),
            ended: false,
        });
        parts.push(Part::ToolCall(ToolCall::new(id, name, String::new())));
        Ok(())
    }

    fn open_call(&mut self, index: u32) -> Result<&mut ToolCall> {
        let place = self
            .calls
            .iter()
            .rev()
            .find(|open| open.index == index && !open.ended)
            .map(|open| open.place);
        match place.and_then(|place| self.response.message.parts.get_mut(place)) {
            Some(Part::ToolCall(call)) => Ok(call),
            _ => Err(out_of_order(&format!(
                "a piece of tool call {index}, which is not open"
            ))),
        }
    }
}

fn append_text(
    response: &mut ChatResponse,
    open: &mut Option<usize>,
    text: String,
    wrap: fn(TextPart) -> Part,
) {
    let parts = &mut response.message.parts;
    match open.and_then(|place| parts.get_mut(place)) {
        Some(Part::Text(part) | Part::Refusal(part)) => part.text.push_str(&text),
        _ => {
            *open = Some(parts.len());
            parts.push(wrap(TextPart { text, data: None }));
        }
    }
}

fn out_of_order(what: &str) -> Error {
    Error::from(ProtocolError::new(format!(
        "the stream's events are out of order: {what}"
    )))
}
