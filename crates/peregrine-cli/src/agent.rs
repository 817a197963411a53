//! The bounded tool loop: ask the model, run the tools it calls, tell it the results, until it answers.
//!
//! Invariants:
//!
//! - every run ends: steps, tool calls, bytes of tool output and time are bounded, and a run that meets a
//!   bound is an error that names it, never an answer;
//! - the calls of one turn run side by side, and their results go back in the order in which the model asked;
//! - a tool that does not exist, or arguments that are none, become an error result for the model;
//! - nothing is printed here: what happens is told to a callback, and whoever drops the run cancels it.

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, join_all, select};
use peregrine::core::{
    ChatEvent, ChatModel as _, ChatRequest, ChatResponse, Error, Fold, Message, Messages, ModelHandle,
    Sampling, Timer, ToolCall, ToolResult, ToolSpec, Usage,
};
use serde_json::Value;

/// What a tool gives back: text for the model, or what went wrong, also for the model.
pub(crate) type ToolOutput = Result<String, String>;

/// The tools of a run.
pub(crate) trait Toolbox: Send + Sync {
    /// What is on offer.
    fn specs(&self) -> Arc<[ToolSpec]>;

    /// Runs one of them. `arguments` is an object. Dropping the future cancels the call.
    fn call<'a>(&'a self, name: &'a str, arguments: Value) -> BoxFuture<'a, ToolOutput>;
}

/// No tools.
#[derive(Debug)]
pub(crate) struct NoTools;

impl Toolbox for NoTools {
    fn specs(&self) -> Arc<[ToolSpec]> {
        Arc::from([])
    }

    fn call<'a>(&'a self, name: &'a str, _: Value) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move { Err(unknown_tool(name, &[])) })
    }
}

/// The bounds of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How often the model is asked.
    pub(crate) max_steps: u32,
    /// How many tools are called in all.
    pub(crate) max_tool_calls: usize,
    /// How many bytes all results of tools have together.
    pub(crate) max_tool_output_bytes: usize,
    /// How long the run takes.
    pub(crate) wall_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_steps: 12,
            max_tool_calls: 64,
            max_tool_output_bytes: 512 << 10,
            wall_time: Duration::from_secs(300),
        }
    }
}

/// A bound that a run met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Steps(u32),
    ToolCalls(usize),
    ToolOutput(usize),
    WallTime(Duration),
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Steps(max) => {
                write!(
                    f,
                    "the model had not answered after {max} steps; raise --max-steps or ask more narrowly"
                )
            }
            Self::ToolCalls(max) => write!(
                f,
                "the model asked for more than {max} tool calls; ask more narrowly"
            ),
            Self::ToolOutput(max) => {
                write!(
                    f,
                    "the tools returned more than {} KiB; ask more narrowly or give fewer paths",
                    max >> 10
                )
            }
            Self::WallTime(max) => write!(f, "no answer within {} s; raise --timeout", max.as_secs_f64()),
        }
    }
}

/// Why a run ended without an answer.
#[derive(Debug)]
pub(crate) enum RunError {
    /// The call to the model failed.
    Model(Error),
    /// A bound was met.
    Limit(Limit),
    /// The callback broke the run off.
    Stopped,
}

impl From<Error> for RunError {
    fn from(error: Error) -> Self {
        Self::Model(error)
    }
}

/// What happens in a run.
#[derive(Debug)]
pub(crate) enum Event<'e> {
    /// The model is asked, for the n-th time from 1.
    Step(u32),
    /// A piece of the answer; only if the run streams.
    Chat(&'e ChatEvent),
    /// A tool is called.
    ToolCall(&'e ToolCall),
    /// A tool returned.
    ToolResult(&'e ToolCall, &'e ToolResult),
}

/// What a run has done so far. It is the caller's, so that it is there also when the run fails or is dropped.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// How often the model was asked.
    pub(crate) steps: u32,
    /// The tools that were called, in order.
    pub(crate) tool_calls: Vec<CalledTool>,
    /// What each answer used; `None` where the provider did not say.
    pub(crate) usages: Vec<Option<Usage>>,
}

impl Progress {
    /// What the run used in all; `None` as soon as one answer does not say.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let mut usages = self.usages.iter().copied();
        let first = usages.next()??;
        usages.try_fold(first, |sum, usage| Some(sum + usage?))
    }
}

/// A tool that was called.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CalledTool {
    /// Its name.
    pub(crate) name: String,
    /// Its arguments, as the model wrote them.
    pub(crate) arguments: String,
    /// Whether it returned what was asked for.
    pub(crate) ok: bool,
}

/// A model with tools and bounds.
pub(crate) struct Agent {
    pub(crate) model: ModelHandle,
    pub(crate) tools: Arc<dyn Toolbox>,
    pub(crate) limits: Limits,
    pub(crate) sampling: Sampling,
    /// Whether answers are asked for piece by piece.
    pub(crate) streaming: bool,
    pub(crate) timer: Arc<dyn Timer>,
}

type Callback<'c> = dyn FnMut(Event<'_>) -> ControlFlow<()> + 'c;

impl Agent {
    /// Runs until the model answers without calling a tool. What is said is appended to `messages`; after an
    /// error they hold what was said until then, and the caller decides what to keep.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call to the model and the tools that run.
    pub(crate) async fn run(
        &self,
        messages: &mut Messages,
        progress: &mut Progress,
        on_event: &mut Callback<'_>,
    ) -> Result<ChatResponse, RunError> {
        let deadline = self.timer.sleep(self.limits.wall_time);
        let run = std::pin::pin!(self.run_unbounded(messages, progress, on_event));
        match select(run, deadline).await {
            Either::Left((ended, _)) => ended,
            Either::Right(_) => Err(RunError::Limit(Limit::WallTime(self.limits.wall_time))),
        }
    }

    async fn run_unbounded(
        &self,
        messages: &mut Messages,
        progress: &mut Progress,
        on_event: &mut Callback<'_>,
    ) -> Result<ChatResponse, RunError> {
        let specs = self.tools.specs();
        let mut output_left = self.limits.max_tool_output_bytes;
        for step in 1..=self.limits.max_steps {
            progress.steps = step;
            emit(on_event, Event::Step(step))?;
            let response = {
                let request = ChatRequest {
                    messages: messages.clone(),
                    tools: Arc::clone(&specs),
                    sampling: self.sampling.clone(),
                    ..ChatRequest::default()
                };
                self.ask(&request, on_event).await?
            };
            progress.usages.push(response.usage);
            messages.push(response.message.clone());
            let calls: Vec<&ToolCall> = response.tool_calls().collect();
            if calls.is_empty() {
                return Ok(response);
            }
            if step == self.limits.max_steps {
                // Nobody would hear of the results.
                break;
            }
            if progress.tool_calls.len() + calls.len() > self.limits.max_tool_calls {
                return Err(RunError::Limit(Limit::ToolCalls(self.limits.max_tool_calls)));
            }
            for call in &calls {
                emit(on_event, Event::ToolCall(call))?;
            }
            let results = join_all(calls.iter().map(|call| self.call(&specs, call))).await;
            for (call, result) in calls.into_iter().zip(results) {
                progress.tool_calls.push(CalledTool {
                    name: call.name.clone(),
                    arguments: call.arguments.clone(),
                    ok: !result.is_error,
                });
                emit(on_event, Event::ToolResult(call, &result))?;
                let bytes: usize = result
                    .content
                    .iter()
                    .filter_map(|part| part.as_text())
                    .map(str::len)
                    .sum();
                output_left = output_left
                    .checked_sub(bytes)
                    .ok_or(RunError::Limit(Limit::ToolOutput(
                        self.limits.max_tool_output_bytes,
                    )))?;
                messages.push(Message::tool(result));
            }
        }
        Err(RunError::Limit(Limit::Steps(self.limits.max_steps)))
    }

    async fn ask(
        &self,
        request: &ChatRequest,
        on_event: &mut Callback<'_>,
    ) -> Result<ChatResponse, RunError> {
        if !self.streaming {
            return Ok(self.model.complete(request).await?);
        }
        let mut stream = self.model.stream(request).await?;
        let mut fold = Fold::new();
        while let Some(event) = stream.next().await {
            let event = event?;
            emit(on_event, Event::Chat(&event))?;
            fold.push(event)?;
        }
        Ok(fold.finish()?)
    }

    async fn call(&self, specs: &[ToolSpec], call: &ToolCall) -> ToolResult {
        if !specs.iter().any(|spec| spec.name == call.name) {
            return ToolResult::error(call, unknown_tool(&call.name, specs));
        }
        let arguments = match call.parse_arguments() {
            Ok(arguments @ Value::Object(_)) => arguments,
            Ok(_) => return ToolResult::error(call, "the arguments must be a JSON object"),
            Err(error) => return ToolResult::error(call, format!("the arguments are not JSON: {error}")),
        };
        match self.tools.call(&call.name, arguments).await {
            Ok(text) => ToolResult::new(call, text),
            Err(text) => ToolResult::error(call, text),
        }
    }
}

fn unknown_tool(name: &str, specs: &[ToolSpec]) -> String {
    let name: String = name.chars().take(80).collect();
    let known: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
    match known.as_slice() {
        [] => format!("there is no tool {name:?}; there are no tools"),
        known => format!("there is no tool {name:?}; there are: {}", known.join(", ")),
    }
}

fn emit(on_event: &mut Callback<'_>, event: Event<'_>) -> Result<(), RunError> {
    match on_event(event) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(RunError::Stopped),
    }
}
