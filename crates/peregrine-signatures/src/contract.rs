//! A signature and how a model is held to it: the pieces of a typed call, none of which does I/O.
//!
//! Whoever calls models (an agent's loop, [`Predict`](crate::Predict), a server) takes what it needs: a
//! [`Contract`] adds to a request, reads a response, and says what to tell a model whose answer does not fit. It keeps
//! nothing between these steps, so a caller that stores its messages and counts its repairs can stop and go on
//! anywhere. [`Extraction`](crate::Extraction) is for callers that would rather not.

use std::borrow::Cow;
use std::sync::Arc;

use peregrine_core::{
    Capabilities, ChatRequest, ChatResponse, Finish, Message, Messages, Part, ResponseFormat, Role, ToolCall,
    ToolChoice, ToolResult,
};
use serde_json::Value;

use crate::compiled::Compiled;
use crate::error::{OutputError, Violation, ViolationKind};
use crate::events::EventReader;
use crate::inputs::{Fields, Inputs};
use crate::parse::{self, Exactness, Reading};
use crate::plan::{ANSWER_TOOL, Plan};
use crate::signature::{OutputReader, Outputs, Signature};
use crate::{Error, InputError};

/// A signature, the [`Plan`] by which a model is held to it, and how its answers are read. Cheap to clone.
///
/// # Examples
///
/// A tool loop with a typed answer, without a model: what is asked, what comes back, and what is asked then.
///
/// ```
/// use peregrine_core::{Capabilities, ChatRequest, ChatResponse, Message, ToolSpec};
/// use peregrine_signatures::{Contract, Error, Fields, Reply, parse};
///
/// let mut model = Capabilities::default();
/// (model.tools, model.tool_choice) = (true, true);
/// let search = ToolSpec::new("search", "Looks things up.", serde_json::json!({"type": "object"}));
/// let request = ChatRequest::new([Message::system("You are a clerk.")]).with_tools([search]);
///
/// // What the signature adds to a request that has tools and a history of its own.
/// let contract = Contract::for_model(parse("question -> answer, confidence: float")?, &model, true);
/// let inputs = Fields::from_iter([("question".to_owned(), "why?".into())]);
/// let mut request = contract.ask(request, &inputs)?;
/// assert_eq!((request.messages.len(), request.tools.len()), (3, 2));
///
/// // Here the model is called. Its answer does not fit, and is told so:
/// let response = ChatResponse::text(r#"{"answer": "because", "confidence": "high"}"#);
/// let Err(Error::Output(error)) = contract.read::<Fields>(&response) else { panic!() };
/// request.messages.extend(contract.repair(&response, &error.problems));
///
/// let response = ChatResponse::text(r#"{"answer": "because", "confidence": 0.9}"#);
/// let Reply::Answer { output, .. } = contract.read::<Fields>(&response)? else { panic!() };
/// assert_eq!(output["confidence"], 0.9);
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Contract {
    signature: Arc<Compiled>,
    plan: Plan,
    reading: Reading,
}

/// What a response turned out to be.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Reply<O = Fields> {
    /// An answer that fits.
    Answer {
        /// The outputs.
        output: O,
        /// How the answer could be read.
        exactness: Exactness,
    },
    /// The model calls tools of its caller's first. An answer that came beside them does not count: the model had not
    /// seen their results. [`Contract::postponed`] says so to the model.
    Tools,
}

impl Contract {
    /// A signature, and how a model is held to it.
    pub fn new(signature: Arc<Compiled>, plan: Plan) -> Self {
        Self {
            signature,
            plan,
            reading: Reading::default(),
        }
    }

    /// A signature held by the [strongest plan](Plan::choose) for a model, which may have tools of its caller's.
    pub fn for_model(signature: Arc<Compiled>, model: &Capabilities, has_tools: bool) -> Self {
        Self::new(signature, Plan::choose(model, has_tools))
    }

    /// As [`for_model`](Self::for_model), for a derived signature.
    ///
    /// # Errors
    ///
    /// [`Error::Definition`] if the signature cannot be compiled.
    pub fn of<S: Signature>(model: &Capabilities, has_tools: bool) -> Result<Self, Error> {
        Ok(Self::for_model(S::compiled()?.clone(), model, has_tools))
    }

    /// Says how answers are read.
    #[must_use]
    pub fn with_reading(mut self, reading: Reading) -> Self {
        self.reading = reading;
        self
    }

    /// The signature.
    pub fn signature(&self) -> &Arc<Compiled> {
        &self.signature
    }

    /// How the model is held to it.
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// How answers are read.
    pub fn reading(&self) -> Reading {
        self.reading
    }
}

/// Asking.
impl Contract {
    /// The instruction, the inputs and outputs and what the plan needs to be said: a system message.
    pub fn system(&self) -> &Arc<Message> {
        self.signature.system(self.plan)
    }

    /// The inputs: a user's message.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if they do not fit.
    pub fn user<I: Inputs + ?Sized>(&self, inputs: &I) -> Result<Message, Error> {
        self.signature.user(inputs)
    }

    /// Makes a request ask for the form of the answer: its response format, its tools and tool choice. Its messages are
    /// left as they are.
    ///
    /// The caller's own tools stay. With [`Plan::ForcedTool`] beside them, the model must call one of them or
    /// [`ANSWER_TOOL`] at each turn; if the caller forces a tool of its own, or forbids tools, that counts first: the
    /// former is kept, the latter makes the answer the only thing left to call.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if one of the caller's tools has the name [`ANSWER_TOOL`].
    pub fn apply(&self, mut request: ChatRequest) -> Result<ChatRequest, Error> {
        match self.plan {
            Plan::NativeSchema => request.response_format = self.signature.format().clone(),
            Plan::JsonMode => request.response_format = ResponseFormat::Json,
            Plan::Prompt => {}
            Plan::ForcedTool | Plan::OfferedTool => {
                if request.tools.iter().any(|tool| tool.name == ANSWER_TOOL) {
                    return Err(InputError {
                        signature: self.signature.name().to_owned(),
                        field: ANSWER_TOOL.to_owned(),
                        problem: "a tool has this name, which is kept for the answer; rename the tool"
                            .to_owned(),
                    }
                    .into());
                }
                let alone = request.tools.is_empty();
                request.tool_choice = match std::mem::take(&mut request.tool_choice) {
                    ToolChoice::None => ToolChoice::Tool(ANSWER_TOOL.to_owned()),
                    ToolChoice::Auto if self.plan == Plan::ForcedTool && alone => {
                        ToolChoice::Tool(ANSWER_TOOL.to_owned())
                    }
                    ToolChoice::Auto if self.plan == Plan::ForcedTool => ToolChoice::Required,
                    as_asked => as_asked,
                };
                let ours = self.signature.answer_tool();
                request.tools = match alone {
                    true => ours.clone(),
                    false => request.tools.iter().chain(ours.iter()).cloned().collect(),
                };
            }
        }
        Ok(request)
    }

    /// The whole question: a request that may have messages and tools of its own, with the [instruction](Self::system)
    /// behind its leading system messages, the [inputs](Self::user) at its end, and the form [applied](Self::apply).
    ///
    /// # Errors
    ///
    /// As [`user`](Self::user) and [`apply`](Self::apply).
    pub fn ask<I: Inputs + ?Sized>(
        &self,
        mut request: ChatRequest,
        inputs: &I,
    ) -> Result<ChatRequest, Error> {
        let user = self.user(inputs)?;
        let leading = request.messages.iter();
        let leading = leading.take_while(|message| message.role == Role::System).count();
        if leading == request.messages.len() {
            request.messages.push(self.system().clone());
        } else {
            let mut messages = Messages::new();
            for (place, message) in request.messages.iter().enumerate() {
                if place == leading {
                    messages.push(self.system().clone());
                }
                messages.push(message.clone());
            }
            request.messages = messages;
        }
        request.messages.push(user);
        self.apply(request)
    }
}

/// Reading.
impl Contract {
    /// Reads a response, by whichever plan it came: the arguments of a call to [`ANSWER_TOOL`] if there is one, else
    /// the text.
    ///
    /// # Errors
    ///
    /// [`Error::Output`] if the answer does not fit, [`Error::Refused`] if the model or its provider declined.
    pub fn read<O: Outputs>(&self, response: &ChatResponse) -> Result<Reply<O>, Error> {
        let Some(text) = self.answer_text(response)? else {
            return Ok(Reply::Tools);
        };
        match parse::read(self.signature.shape(), &text, self.reading) {
            Ok((fields, exactness)) => self.typed(fields, exactness, &text),
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
                Err(self.misfit(problems, &text))
            }
        }
    }

    /// Reads the answer to a request while it arrives.
    pub fn reader(&self, request: &ChatRequest) -> EventReader {
        EventReader::new(self.clone(), request)
    }

    /// Where the answer stands in a response; `None` if the caller's tools come first.
    pub(crate) fn answer_text<'r>(&self, response: &'r ChatResponse) -> Result<Option<Cow<'r, str>>, Error> {
        if response.tool_calls().any(|call| call.name != ANSWER_TOOL) {
            return Ok(None);
        }
        let mut calls = response.tool_calls();
        if let Some(first) = calls.next() {
            let same = |call: &ToolCall| match (call.parse_arguments(), first.parse_arguments()) {
                (Ok(one), Ok(other)) => one == other,
                _ => call.arguments == first.arguments,
            };
            return match calls.all(same) {
                true => Ok(Some(Cow::Borrowed(&first.arguments))),
                false => Err(self.misfit(vec![parse::ambiguous()], &first.arguments)),
            };
        }
        let parts = &response.message.parts;
        let refusal = parts.iter().find_map(|part| match part {
            Part::Refusal(refusal) => Some(refusal.text.as_str()),
            _ => None,
        });
        match refusal {
            Some(refusal) => Err(Error::Refused {
                text: crate::error::excerpt(refusal, 1_000),
            }),
            None if response.finish == Finish::ContentFilter => Err(Error::Refused {
                text: "its provider withheld the answer".to_owned(),
            }),
            None => {
                let mut texts = parts.iter().filter_map(Part::as_text);
                Ok(Some(match (texts.next(), texts.next()) {
                    (Some(only), None) => Cow::Borrowed(only),
                    _ => Cow::Owned(response.message.text()),
                }))
            }
        }
    }

    /// Fields that were read by this contract, as the signature's output type: for callers that keep answers as
    /// [`Fields`], which can be stored, and know the type only at the end. What was read as fields is what the types
    /// of a derived signature take, so this does not fail for them.
    ///
    /// # Errors
    ///
    /// [`Error::Output`] if they are fields of another signature.
    pub fn outputs<O: Outputs>(&self, fields: Fields) -> Result<O, Error> {
        O::read(OutputReader::new(fields)).map_err(|problem| self.misfit(vec![problem], ""))
    }

    /// Fields that fit the schema, if the outputs' types take them too.
    pub(crate) fn typed<O: Outputs>(
        &self,
        fields: Fields,
        exactness: Exactness,
        text: &str,
    ) -> Result<Reply<O>, Error> {
        let judged = match self.signature.judge() {
            Some(judge) if O::IS_UNTYPED => judge(fields.clone()),
            _ => Ok(()),
        };
        match judged.and_then(|()| O::read(OutputReader::new(fields))) {
            Ok(output) => Ok(Reply::Answer { output, exactness }),
            Err(problem) => Err(self.misfit(vec![problem], text)),
        }
    }

    fn misfit(&self, problems: Vec<Violation>, text: &str) -> Error {
        OutputError::new(self.signature.name(), problems, text).into()
    }
}

/// Going on.
impl Contract {
    /// What to append to the messages to ask again after an answer that does not fit: the answer, and what is wrong
    /// with it. An answer whose call was ended goes through [`cut_short`](Self::cut_short) first.
    pub fn repair(&self, response: &ChatResponse, problems: &[Violation]) -> Vec<Message> {
        let mut told = String::from("That answer can not be used:");
        for problem in problems {
            told.push_str("\n- ");
            told.push_str(&problem.to_string());
        }
        let is_cut_off = problems
            .iter()
            .any(|problem| problem.kind == ViolationKind::CutOff);
        told.push_str(match is_cut_off {
            true => "\nAnswer again in full and in the same form, but shorter.",
            false => "\nAnswer again in full and in the same form.",
        });
        let answer = match response.message.parts.is_empty() {
            // Providers refuse empty messages; the model sees that it wrote nothing from what follows.
            true => Message::new(Role::Assistant, vec![Part::text("(nothing)")]),
            false => response.message.clone(),
        };
        let mut messages = vec![answer];
        let results = response
            .tool_calls()
            .map(|call| Message::tool(ToolResult::error(call, told.as_str())));
        messages.extend(results);
        if messages.len() == 1 {
            messages.push(Message::user(told));
        }
        messages
    }

    /// The results of calls to [`ANSWER_TOOL`] in a response that calls other tools too: that the answer does not count
    /// yet. They go to the model with the results of the others, because every call needs one.
    pub fn postponed(&self, response: &ChatResponse) -> impl Iterator<Item = ToolResult> {
        response
            .tool_calls()
            .filter(|call| call.name == ANSWER_TOOL)
            .map(|call| ToolResult::error(call, "Look at the results of the other tools first, then answer."))
    }

    /// A response as it may stand in a conversation that goes on: calls to [`ANSWER_TOOL`] become text, because
    /// providers refuse calls that nobody gave a result.
    pub fn settled(&self, response: &ChatResponse) -> ChatResponse {
        let mut settled = response.clone();
        for part in &mut settled.message.parts {
            if let Part::ToolCall(call) = part
                && call.name == ANSWER_TOOL
            {
                *part = Part::text(std::mem::take(&mut call.arguments));
            }
        }
        settled
    }

    /// What had come of an answer when its call was ended, as a response that [`repair`](Self::repair) can show the
    /// model: calls become text and reasoning is left out, because providers refuse both where they are not whole.
    pub fn cut_short(&self, partial: &ChatResponse) -> ChatResponse {
        let mut response = partial.clone();
        response.message.parts.retain_mut(|part| {
            if let Part::ToolCall(call) = part {
                *part = Part::text(std::mem::take(&mut call.arguments));
            }
            part.as_text().is_some_and(|text| !text.is_empty())
        });
        response
    }

    /// Records in a response's metadata how its answer came about: `structured_output` (the [`Plan`]),
    /// `structured_parse` ([`Exactness`]) and, if there were any, `structured_repairs`.
    pub fn record(&self, response: &mut ChatResponse, exactness: Exactness, repairs: u32) {
        let facts = &mut response.metadata;
        facts.insert("structured_output".to_owned(), Value::from(self.plan.as_str()));
        facts.insert("structured_parse".to_owned(), Value::from(exactness.as_str()));
        if repairs > 0 {
            facts.insert("structured_repairs".to_owned(), Value::from(repairs));
        }
    }
}
