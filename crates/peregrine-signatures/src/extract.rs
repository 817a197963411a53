//! From responses to checked outputs, with repairs: decisions only, no I/O.
//!
//! [`Compiled::read`] looks at one response; [`Compiled::repair`] makes the request that asks again;
//! [`Extraction`] is the loop of both, for whoever calls the model.

use std::borrow::Cow;
use std::sync::Arc;

use peregrine_core::{ChatRequest, ChatResponse, Finish, Message, Part, Role, ToolCall, ToolResult, Usage};
use serde_json::Value;

use crate::Error;
use crate::compiled::Compiled;
use crate::error::{OutputError, Violation, ViolationKind};
use crate::inputs::Fields;
use crate::parse::{self, Exactness, FieldParser, Reading};
use crate::plan::{ANSWER_TOOL, Plan};
use crate::signature::{OutputReader, Outputs};

/// What a response turned out to be.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// An answer that fits.
    Answer {
        /// The outputs.
        fields: Fields,
        /// How the answer could be read.
        exactness: Exactness,
    },
    /// The model calls tools of its caller's first. An answer that came beside them does not count: the model had not
    /// seen their results.
    Tools,
}

impl Compiled {
    /// Reads a response: the arguments of a call to [`ANSWER_TOOL`] if there is one, else the text.
    ///
    /// # Errors
    ///
    /// [`Error::Output`] if the answer does not fit, [`Error::Refused`] if the model or its provider declined.
    pub fn read(&self, response: &ChatResponse, reading: Reading) -> Result<Reply, Error> {
        if response.tool_calls().any(|call| call.name != ANSWER_TOOL) {
            return Ok(Reply::Tools);
        }
        let text = self.answer_text(response)?;
        match parse::read(self.shape(), &text, reading) {
            Ok((fields, exactness)) => Ok(Reply::Answer { fields, exactness }),
            Err(mut problems) => {
                // A provider that says so knows better than a parser that the end is missing.
                let is_cut_off = problems
                    .iter()
                    .any(|problem| problem.kind == ViolationKind::CutOff);
                if response.finish == Finish::Length && !is_cut_off {
                    problems.push(Violation::new(
                        ViolationKind::CutOff,
                        "the rest of the answer",
                        "the end of the output, which has reached its limit",
                    ));
                }
                Err(OutputError::new(self.name(), problems, &text).into())
            }
        }
    }

    fn answer_text<'r>(&self, response: &'r ChatResponse) -> Result<Cow<'r, str>, Error> {
        let mut calls = response.tool_calls();
        if let Some(first) = calls.next() {
            let same = |call: &ToolCall| match (call.parse_arguments(), first.parse_arguments()) {
                (Ok(one), Ok(other)) => one == other,
                _ => call.arguments == first.arguments,
            };
            return match calls.all(same) {
                true => Ok(Cow::Borrowed(&first.arguments)),
                false => {
                    Err(OutputError::new(self.name(), vec![parse::ambiguous()], &first.arguments).into())
                }
            };
        }
        let parts = &response.message.parts;
        let refusal = parts.iter().find_map(|part| match part {
            Part::Refusal(refusal) => Some(refusal.text.as_str()),
            _ => None,
        });
        let text = match parts.iter().filter_map(Part::as_text).collect::<Vec<_>>()[..] {
            [only] => Cow::Borrowed(only),
            _ => Cow::Owned(response.message.text()),
        };
        match refusal {
            Some(refusal) => Err(Error::Refused {
                text: crate::error::excerpt(refusal, 1_000),
            }),
            None if response.finish == Finish::ContentFilter => Err(Error::Refused {
                text: "its provider withheld the answer".to_owned(),
            }),
            None => Ok(text),
        }
    }

    /// The request that shows the model its answer and what is wrong with it, and asks again.
    pub fn repair(
        &self,
        request: &ChatRequest,
        response: &ChatResponse,
        problems: &[Violation],
    ) -> ChatRequest {
        let mut told = String::from("That answer can not be used:");
        for problem in problems {
            told.push_str("\n- ");
            told.push_str(&problem.to_string());
        }
        let is_cut_off = problems
            .iter()
            .any(|problem| problem.kind == ViolationKind::CutOff);
        told.push_str(if is_cut_off {
            "\nAnswer again in full and in the same form, but shorter."
        } else {
            "\nAnswer again in full and in the same form."
        });
        let mut request = request.clone();
        let calls: Vec<ToolCall> = response.tool_calls().cloned().collect();
        if response.message.parts.is_empty() {
            // Providers refuse empty messages; the model sees that it wrote nothing from what follows.
            request
                .messages
                .push(Message::new(Role::Assistant, vec![Part::text("(nothing)")]));
        } else {
            request.messages.push(response.message.clone());
        }
        if calls.is_empty() {
            request.messages.push(Message::user(told));
        } else {
            let results = calls
                .iter()
                .map(|call| Message::tool(ToolResult::error(call, told.as_str())));
            request.messages.extend(results);
        }
        request
    }
}

/// The way from a request to a checked answer: ask, read, and ask again at most a number of times. Decides, and
/// leaves the calls to its caller.
///
/// # Examples
///
/// ```
/// use peregrine_core::ChatResponse;
/// use peregrine_signatures::{Extraction, Fields, Plan, Step, parse};
///
/// let signature = parse("question -> answer, confidence: float")?;
/// let inputs = Fields::from_iter([("question".to_owned(), "why?".into())]);
/// let mut extraction = Extraction::new(signature.clone(), Plan::Prompt, signature.request(Plan::Prompt, &inputs)?);
///
/// // The caller asks the model with `extraction.request()`. Its first answer does not fit:
/// let step = extraction.answered(ChatResponse::text(r#"{"answer": "because", "confidence": "high"}"#))?;
/// assert!(matches!(step, Step::Ask));
/// assert_eq!(extraction.request().messages.len(), 4);
///
/// let step = extraction.answered(ChatResponse::text(r#"{"answer": "because", "confidence": 0.9}"#))?;
/// let Step::Done(answer) = step else { panic!() };
/// assert_eq!((answer.fields["confidence"].as_f64(), answer.repairs), (Some(0.9), 1));
/// assert_eq!(answer.response.metadata["structured_output"], "prompt");
/// # Ok::<(), peregrine_signatures::Error>(())
/// ```
#[derive(Debug)]
pub struct Extraction {
    signature: Arc<Compiled>,
    plan: Plan,
    reading: Reading,
    request: ChatRequest,
    /// The response that waits for the results of its tools, or for its caller's judgement.
    last: Option<ChatResponse>,
    max_repairs: u32,
    repairs: u32,
    last_problem: Option<Violation>,
    usage: Option<Usage>,
}

/// What to do next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step {
    /// Ask the model with [`Extraction::request`].
    Ask,
    /// Run the tools that the response calls, and hand their results to [`Extraction::tools_ran`].
    Tools,
    /// The answer fits.
    Done(Box<Answer>),
}

/// A checked answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The outputs.
    pub fields: Fields,
    /// The response that gave them. Its metadata says how: `structured_output` (the [`Plan`]), `structured_parse`
    /// ([`Exactness`]), `structured_repairs` if there were any.
    pub response: ChatResponse,
    /// How often the model was asked again.
    pub repairs: u32,
    /// What all calls together used; `None` if the provider did not say.
    pub usage: Option<Usage>,
}

/// How often a model is asked again unless the caller says otherwise.
pub(crate) const DEFAULT_REPAIRS: u32 = 2;

impl Extraction {
    /// The way from a request, as [`Compiled::request`] or [`Compiled::prepare`] made it, to an answer.
    pub fn new(signature: Arc<Compiled>, plan: Plan, request: ChatRequest) -> Self {
        Self {
            signature,
            plan,
            reading: Reading::default(),
            request,
            last: None,
            max_repairs: DEFAULT_REPAIRS,
            repairs: 0,
            last_problem: None,
            usage: None,
        }
    }

    /// Bounds how often the model is asked again; 2 unless said otherwise.
    #[must_use]
    pub fn with_max_repairs(mut self, max_repairs: u32) -> Self {
        self.max_repairs = max_repairs;
        self
    }

    /// Says how answers are read.
    #[must_use]
    pub fn with_reading(mut self, reading: Reading) -> Self {
        self.reading = reading;
        self
    }

    /// The request to ask the model with.
    pub fn request(&self) -> &ChatRequest {
        &self.request
    }

    /// A parser for an answer that comes in pieces.
    pub fn parser(&self) -> FieldParser {
        FieldParser::with_reading(&self.signature, self.reading)
    }

    /// The model answered.
    ///
    /// # Errors
    ///
    /// [`Error::Output`] if the answer does not fit and no repair is left, [`Error::Refused`] if there is none.
    pub fn answered(&mut self, response: ChatResponse) -> Result<Step, Error> {
        self.count(&response);
        match self.signature.read(&response, self.reading) {
            Ok(Reply::Answer { fields, exactness }) => Ok(self.done(fields, exactness, response)),
            Ok(Reply::Tools) => {
                self.last = Some(response);
                Ok(Step::Tools)
            }
            Err(Error::Output(error)) => self.ask_again(&response, *error),
            Err(error) => Err(error),
        }
    }

    /// The model answered in pieces, and its [`parser`](Self::parser) has read it to its end. `response` is
    /// the fold of the pieces.
    pub fn answered_in_pieces(
        &mut self,
        response: ChatResponse,
        fields: Fields,
        exactness: Exactness,
    ) -> Step {
        self.count(&response);
        self.done(fields, exactness, response)
    }

    /// The tools that the last response called have run; their results, in any order.
    ///
    /// A call to [`ANSWER_TOOL`] beside them is answered here.
    pub fn tools_ran(&mut self, results: impl IntoIterator<Item = ToolResult>) -> Step {
        if let Some(response) = self.last.take() {
            let early: Vec<ToolResult> = response
                .tool_calls()
                .filter(|call| call.name == ANSWER_TOOL)
                .map(|call| {
                    ToolResult::error(call, "Look at the results of the other tools first, then answer.")
                })
                .collect();
            self.request.messages.push(response.message);
            self.request
                .messages
                .extend(results.into_iter().chain(early).map(Message::tool));
        }
        Step::Ask
    }

    /// An answer fits the schema, and its caller (or a field's own type) refuses it all the same: the model is asked
    /// again, if a repair is left. Also for an answer whose reading in pieces ended with a misfit.
    ///
    /// # Errors
    ///
    /// [`Error::Output`] if no repair is left.
    pub fn refused(&mut self, response: &ChatResponse, problem: Violation) -> Result<Step, Error> {
        let text = match self.signature.answer_text(response) {
            Ok(text) => text,
            Err(Error::Refused { text }) => return Err(Error::Refused { text }),
            Err(_) => Cow::Borrowed(""),
        };
        let error = OutputError::new(self.signature.name(), vec![problem], &text);
        self.ask_again(response, error)
    }

    /// Nobody runs the tools that the last response called, because none were offered.
    pub(crate) fn no_such_tools(&mut self) -> Result<(), Error> {
        let Some(response) = self.last.take() else {
            return Ok(());
        };
        let names: Vec<&str> = response.tool_calls().map(|call| call.name.as_str()).collect();
        let found = crate::error::excerpt(&format!("calls of unknown tools: {}", names.join(", ")), 200);
        let problem = Violation::new(ViolationKind::NoAnswer, "the answer", found);
        let error = OutputError::new(self.signature.name(), vec![problem], &response.message.text());
        self.ask_again(&response, error).map(drop)
    }

    /// What was wrong with the answer that was repaired last.
    pub fn last_problem(&self) -> Option<&Violation> {
        self.last_problem.as_ref()
    }

    /// Counts what a response used that will not be handed in whole.
    pub(crate) fn count(&mut self, response: &ChatResponse) {
        self.usage = match (self.usage, response.usage) {
            (Some(sum), Some(usage)) => Some(sum + usage),
            (sum, usage) => sum.or(usage),
        };
    }

    fn ask_again(&mut self, response: &ChatResponse, mut error: OutputError) -> Result<Step, Error> {
        if self.repairs == self.max_repairs {
            error.repairs = self.repairs;
            return Err(error.into());
        }
        self.repairs += 1;
        self.last_problem = error.problems.first().cloned();
        self.request = self.signature.repair(&self.request, response, &error.problems);
        Ok(Step::Ask)
    }

    fn done(&mut self, fields: Fields, exactness: Exactness, mut response: ChatResponse) -> Step {
        let facts = &mut response.metadata;
        facts.insert("structured_output".to_owned(), Value::from(self.plan.as_str()));
        facts.insert("structured_parse".to_owned(), Value::from(exactness.as_str()));
        if self.repairs > 0 {
            facts.insert("structured_repairs".to_owned(), Value::from(self.repairs));
        }
        Step::Done(Box::new(Answer {
            fields,
            response,
            repairs: self.repairs,
            usage: self.usage,
        }))
    }
}

impl Answer {
    /// The outputs as a type.
    ///
    /// # Errors
    ///
    /// A [`Violation`] if a field's own type refuses its value; [`Extraction::refused`] takes it.
    pub fn output<O: Outputs>(&mut self) -> Result<O, Violation> {
        O::read(OutputReader::new(std::mem::take(&mut self.fields)))
    }
}
