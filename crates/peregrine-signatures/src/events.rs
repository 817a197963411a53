//! From a model's events to the fields of its answer.
//!
//! Invariant: what the reader says in the end is what reading the whole response says. Events that were told and turn
//! out not to count (the model wrote JSON, then called a tool) are taken back with [`FieldEvent::Restarted`].

use peregrine_core::{ChatEvent, ChatRequest, ChatResponse};

use crate::Error;
use crate::contract::{Contract, Reply};
use crate::error::{Violation, ViolationKind};
use crate::inputs::Fields;
use crate::parse::{self, FieldEvent, FieldParser, FieldPath};
use crate::plan::{ANSWER_TOOL, Plan};
use crate::signature::Outputs;

/// Reads the answer to one request while it arrives. Made by [`Contract::reader`].
///
/// # Examples
///
/// ```
/// use peregrine_core::{ChatEvent, ChatRequest, ChatResponse, Fold};
/// use peregrine_signatures::{Contract, Fields, Plan, Reply, parse};
///
/// let contract = Contract::new(parse("question -> answer, confidence: float")?, Plan::Prompt);
/// let mut reader = contract.reader(&ChatRequest::default());
/// let mut fold = Fold::new();
/// let mut told = Vec::new();
/// for event in ChatResponse::text(r#"{"answer": "because", "confidence": 0.9}"#).into_events() {
///     if let Err(problem) = reader.push(&event, &mut told) {
///         panic!("the call may be ended here: {problem}");
///     }
///     fold.push(event)?;
/// }
/// let reply = reader.finish::<Fields>(&fold.finish()?, &mut told)?;
/// assert!(matches!(reply, Reply::Answer { output, .. } if output["confidence"] == 0.9));
/// let told: Vec<String> = told.iter().map(ToString::to_string).collect();
/// assert_eq!(told, ["answer += because", r#"answer = "because""#, "confidence = 0.9"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct EventReader {
    contract: Contract,
    parser: FieldParser,
    source: Source,
    /// Whether a text that does not fit cannot be followed by the answer.
    is_text_final: bool,
    misfit: Option<Violation>,
    /// Whether the misfit was reported: nothing is read any more.
    has_failed: bool,
    /// Whether any field was told that still counts.
    has_told: bool,
}

/// What is being read as the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Text,
    /// The call to the answer's tool with this index, of which nothing has come yet.
    Call(u32),
    /// The same, of which something has come.
    Arguments(u32),
    /// The model calls other tools: there is no answer in this response.
    Tools,
}

impl EventReader {
    pub(crate) fn new(contract: Contract, request: &ChatRequest) -> Self {
        let has_tools = request.tools.iter().any(|tool| tool.name != ANSWER_TOOL);
        let is_by_tool = matches!(contract.plan(), Plan::ForcedTool | Plan::OfferedTool);
        Self {
            parser: parser(&contract),
            contract,
            source: Source::Text,
            is_text_final: !has_tools && !is_by_tool,
            misfit: None,
            has_failed: false,
            has_told: false,
        }
    }

    /// Takes the next event of the model and adds what it brings to `told`.
    ///
    /// # Errors
    ///
    /// The first [`Violation`], once nothing can heal it: the call to the model may be ended. A text that does not fit
    /// is no error where a tool call may still follow. Whoever reads on regardless gets no more fields and no second
    /// error, and [`finish`](Self::finish) reads the answer as a whole.
    pub fn push(&mut self, event: &ChatEvent, told: &mut Vec<FieldEvent>) -> Result<(), Violation> {
        if self.has_failed {
            return Ok(());
        }
        let piece = match (event, self.source) {
            (ChatEvent::TextDelta { text }, Source::Text) => text,
            (
                ChatEvent::ToolCallStart { name, .. },
                Source::Text | Source::Call(_) | Source::Arguments(_),
            ) if name != ANSWER_TOOL => {
                self.turn_to(Source::Tools, told);
                return Ok(());
            }
            (ChatEvent::ToolCallStart { index, .. }, Source::Text) => {
                self.turn_to(Source::Call(*index), told);
                return Ok(());
            }
            (ChatEvent::ToolCallDelta { index, arguments }, Source::Call(ours) | Source::Arguments(ours))
                if *index == ours =>
            {
                arguments
            }
            // Some providers send the arguments only with the end.
            (ChatEvent::ToolCallEnd { index, call }, Source::Call(ours)) if *index == ours => &call.arguments,
            _ => return Ok(()),
        };
        if self.misfit.is_some() || piece.is_empty() {
            return Ok(());
        }
        if let Source::Call(index) = self.source {
            self.source = Source::Arguments(index);
        }
        let before = told.len();
        let outcome = self.parser.push(piece, told);
        self.has_told |= told.len() > before;
        let Err(problem) = outcome else { return Ok(()) };
        self.misfit = Some(problem.clone());
        self.has_failed = self.source != Source::Text || self.is_text_final;
        match self.has_failed {
            true => Err(problem),
            false => Ok(()),
        }
    }

    /// The model has answered; `response` is the fold of the events. Adds to `told` what could be told only now.
    ///
    /// # Errors
    ///
    /// As [`Contract::read`].
    pub fn finish<O: Outputs>(
        mut self,
        response: &ChatResponse,
        told: &mut Vec<FieldEvent>,
    ) -> Result<Reply<O>, Error> {
        let Some(text) = self.contract.answer_text(response)? else {
            self.turn_to(Source::Tools, told);
            return Ok(Reply::Tools);
        };
        if self.misfit.is_none() {
            let parser = std::mem::replace(&mut self.parser, parser(&self.contract));
            if let Ok((fields, exactness)) = parser.finish_read() {
                return self.contract.typed(fields, exactness, &text);
            }
        }
        // Read again as a whole: more tolerantly, and with all that is wrong with it.
        let reply = self.contract.read::<Fields>(response)?;
        let Reply::Answer { output, exactness } = reply else {
            return Ok(Reply::Tools);
        };
        if self.has_told {
            let problem = self.misfit.take().unwrap_or_else(parse::ambiguous);
            told.push(FieldEvent::Restarted { problem });
        }
        told.extend(output.iter().map(|(name, value)| FieldEvent::Completed {
            path: FieldPath::field(name.as_str().into()),
            value: value.clone(),
        }));
        self.contract.typed(output, exactness, &text)
    }

    /// What was told before came from elsewhere and counts no more.
    fn turn_to(&mut self, source: Source, told: &mut Vec<FieldEvent>) {
        self.source = source;
        self.parser = parser(&self.contract);
        self.misfit = None;
        if std::mem::take(&mut self.has_told) {
            let problem = Violation::new(
                ViolationKind::Ambiguous,
                "the answer alone",
                "calls of tools behind it",
            );
            told.push(FieldEvent::Restarted { problem });
        }
    }
}

fn parser(contract: &Contract) -> FieldParser {
    FieldParser::with_reading(contract.signature(), contract.reading())
}
