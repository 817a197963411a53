//! From a request to a checked answer, with repairs: decisions only, no I/O.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use peregrine_core::{ChatRequest, ChatResponse, Message, ToolResult, Usage};

use crate::Error;
use crate::contract::{Contract, Reply};
use crate::error::{OutputError, Violation, ViolationKind, excerpt};
use crate::events::EventReader;
use crate::inputs::Fields;
use crate::parse::FieldEvent;
use crate::signature::Outputs;

/// The way from a request to a checked answer: ask, read, and ask again at most a number of times. Decides, and
/// leaves the calls to its caller. It keeps the request and its repairs; a [`Contract`] is the same without a memory.
///
/// # Examples
///
/// ```
/// use peregrine_core::{ChatRequest, ChatResponse};
/// use peregrine_signatures::{Contract, Extraction, Fields, Plan, Step, parse};
///
/// let contract = Contract::new(parse("question -> answer, confidence: float")?, Plan::Prompt);
/// let inputs = Fields::from_iter([("question".to_owned(), "why?".into())]);
/// let request = contract.ask(ChatRequest::default(), &inputs)?;
/// let mut extraction: Extraction = Extraction::new(contract, request);
///
/// // The caller asks the model with `extraction.request()`. Its first answer does not fit:
/// let step = extraction.answered(ChatResponse::text(r#"{"answer": "because", "confidence": "high"}"#))?;
/// assert!(matches!(step, Step::Ask));
/// assert_eq!(extraction.request().messages.len(), 4);
///
/// let step = extraction.answered(ChatResponse::text(r#"{"answer": "because", "confidence": 0.9}"#))?;
/// let Step::Done(answer) = step else { panic!() };
/// assert_eq!((answer.output["confidence"].as_f64(), answer.repairs), (Some(0.9), 1));
/// assert_eq!(answer.response.metadata["structured_output"], "prompt");
/// # Ok::<(), peregrine_signatures::Error>(())
/// ```
pub struct Extraction<O = Fields> {
    contract: Contract,
    request: ChatRequest,
    /// The response that waits for the results of its tools.
    waiting: Option<ChatResponse>,
    max_repairs: u32,
    repairs: u32,
    last_problem: Option<Violation>,
    usage: Option<Usage>,
    output: PhantomData<fn() -> O>,
}

/// What to do next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step<O = Fields> {
    /// Ask the model with [`Extraction::request`].
    Ask,
    /// Run the tools that the response calls, and hand their results to [`Extraction::tools_ran`].
    Tools,
    /// The answer fits.
    Done(Box<Prediction<O>>),
}

/// A checked and typed answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Prediction<O = Fields> {
    /// The outputs.
    pub output: O,
    /// The response that gave them. Its metadata says how; see [`Contract::record`].
    pub response: ChatResponse,
    /// How often the model was asked again.
    pub repairs: u32,
    /// What all calls together used; `None` if the provider did not say.
    pub usage: Option<Usage>,
}

/// How often a model is asked again unless the caller says otherwise.
pub(crate) const DEFAULT_REPAIRS: u32 = 2;

impl<O: Outputs> Extraction<O> {
    /// The way from a request, as [`Contract::ask`] made it, to an answer.
    pub fn new(contract: Contract, request: ChatRequest) -> Self {
        Self {
            contract,
            request,
            waiting: None,
            max_repairs: DEFAULT_REPAIRS,
            repairs: 0,
            last_problem: None,
            usage: None,
            output: PhantomData,
        }
    }

    /// Bounds how often the model is asked again; 2 unless said otherwise.
    #[must_use]
    pub fn with_max_repairs(mut self, max_repairs: u32) -> Self {
        self.max_repairs = max_repairs;
        self
    }

    /// The request to ask the model with.
    pub fn request(&self) -> &ChatRequest {
        &self.request
    }

    /// A reader for the next answer, if it comes in pieces.
    pub fn reader(&self) -> EventReader {
        self.contract.reader(&self.request)
    }

    /// The model answered.
    ///
    /// # Errors
    ///
    /// [`Error::Output`] if the answer does not fit and no repair is left, [`Error::Refused`] if there is none.
    pub fn answered(&mut self, response: ChatResponse) -> Result<Step<O>, Error> {
        let reply = self.contract.read(&response);
        self.replied(reply, response)
    }

    /// The model answered in pieces, which a [reader](Self::reader) has taken; `response` is their fold. Adds to `told`
    /// what could be told only now.
    ///
    /// # Errors
    ///
    /// As [`answered`](Self::answered).
    pub fn answered_in_pieces(
        &mut self,
        reader: EventReader,
        response: ChatResponse,
        told: &mut Vec<FieldEvent>,
    ) -> Result<Step<O>, Error> {
        let reply = reader.finish(&response, told);
        self.replied(reply, response)
    }

    /// The call was ended because the answer does not fit; `partial` is what had come of it. The model is asked again,
    /// if a repair is left.
    ///
    /// # Errors
    ///
    /// [`Error::Output`] if no repair is left.
    pub fn aborted(&mut self, partial: &ChatResponse, problem: Violation) -> Result<(), Error> {
        self.count(partial);
        self.refused(&self.contract.cut_short(partial), problem)
    }

    /// The tools that the last response called have run; their results, in any order.
    ///
    /// A call to [`ANSWER_TOOL`](crate::ANSWER_TOOL) beside them is answered here.
    pub fn tools_ran(&mut self, results: impl IntoIterator<Item = ToolResult>) {
        if let Some(response) = self.waiting.take() {
            let postponed = self.contract.postponed(&response);
            let results: Vec<Message> = results.into_iter().chain(postponed).map(Message::tool).collect();
            self.request.messages.push(response.message);
            self.request.messages.extend(results);
        }
    }

    /// An answer fits the signature, and its caller refuses it all the same: the model is asked again, if a repair is
    /// left.
    ///
    /// # Errors
    ///
    /// [`Error::Output`] if no repair is left.
    pub fn refused(&mut self, response: &ChatResponse, problem: Violation) -> Result<(), Error> {
        let text = match self.contract.answer_text(response) {
            Ok(Some(text)) => text,
            Err(Error::Refused { text }) => return Err(Error::Refused { text }),
            Ok(None) | Err(_) => Cow::Borrowed(""),
        };
        let error = OutputError::new(self.contract.signature().name(), vec![problem], &text);
        self.ask_again(response, error)
    }

    /// Nobody runs the tools that the last response called, because none were offered.
    pub(crate) fn no_such_tools(&mut self) -> Result<(), Error> {
        let Some(response) = self.waiting.take() else {
            return Ok(());
        };
        let names: Vec<&str> = response.tool_calls().map(|call| call.name.as_str()).collect();
        let found = excerpt(&format!("calls of unknown tools: {}", names.join(", ")), 200);
        let problem = Violation::new(ViolationKind::NoAnswer, "the answer", found);
        let name = self.contract.signature().name();
        let error = OutputError::new(name, vec![problem], &response.message.text());
        self.ask_again(&response, error)
    }

    /// What was wrong with the answer that was repaired last.
    pub fn last_problem(&self) -> Option<&Violation> {
        self.last_problem.as_ref()
    }

    fn replied(
        &mut self,
        reply: Result<Reply<O>, Error>,
        mut response: ChatResponse,
    ) -> Result<Step<O>, Error> {
        self.count(&response);
        match reply {
            Ok(Reply::Answer { output, exactness }) => {
                self.contract.record(&mut response, exactness, self.repairs);
                Ok(Step::Done(Box::new(Prediction {
                    output,
                    response,
                    repairs: self.repairs,
                    usage: self.usage,
                })))
            }
            Ok(Reply::Tools) => {
                self.waiting = Some(response);
                Ok(Step::Tools)
            }
            Err(Error::Output(error)) => self.ask_again(&response, *error).map(|()| Step::Ask),
            Err(error) => Err(error),
        }
    }

    fn count(&mut self, response: &ChatResponse) {
        self.usage = match (self.usage, response.usage) {
            (Some(sum), Some(usage)) => Some(sum + usage),
            (sum, usage) => sum.or(usage),
        };
    }

    fn ask_again(&mut self, response: &ChatResponse, mut error: OutputError) -> Result<(), Error> {
        if self.repairs == self.max_repairs {
            error.repairs = self.repairs;
            return Err(error.into());
        }
        self.repairs += 1;
        self.last_problem = error.problems.first().cloned();
        let repair = self.contract.repair(response, &error.problems);
        self.request.messages.extend(repair);
        Ok(())
    }
}

impl<O> fmt::Debug for Extraction<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extraction")
            .field("contract", &self.contract)
            .field("request", &self.request)
            .field("repairs", &self.repairs)
            .field("last_problem", &self.last_problem)
            .finish_non_exhaustive()
    }
}
