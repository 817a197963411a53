//! `peregrine ask`: one question, one answer.

use std::io::{IsTerminal as _, Read as _};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use peregrine::core::{ChatResponse, DocumentPart, Message, Messages, Part, Sampling};
use peregrine::providers::TokioClock;
use peregrine::{ChatEvent, ErrorKind, Finish};

use crate::agent::{Agent, Event, Limit, Limits, NoTools, Progress, Toolbox};
use crate::args::{AskArgs, RunArgs};
use crate::failure::Failure;
use crate::files::{Bounds, FileTools};
use crate::interrupt::Interrupts;
use crate::model::{self, Chosen};
use crate::output::{Console, Verbosity};
use crate::{json, prompt};

/// How much of standard input is read as a document.
const MAX_INPUT_BYTES: u64 = 1 << 20;

/// Answers a question.
///
/// # Errors
///
/// [`Failure`]; with `--json` it has been printed on standard output too.
pub(crate) async fn ask(args: &AskArgs, console: &mut Console) -> Result<(), Failure> {
    let mut asking = Asking {
        args,
        started: Instant::now(),
        chosen: None,
        progress: Progress::default(),
    };
    let ended = match Interrupts::new() {
        Ok(mut interrupts) => tokio::select! {
            ended = asking.run(console) => ended,
            () = interrupts.next() => Err(Failure::Interrupted),
        },
        Err(error) => Err(Failure::io(&error)),
    };
    if let Err(failure) = &ended
        && args.json
    {
        let line = json::failure(
            failure,
            asking.chosen.as_ref(),
            &asking.progress,
            asking.started.elapsed(),
        );
        console.line(&line)?;
    }
    // In the middle of a streamed answer, what follows begins on a line of its own.
    console.end_line()?;
    ended
}

/// A question on its way; what it has come to stays here when it is interrupted.
struct Asking<'a> {
    args: &'a AskArgs,
    started: Instant,
    chosen: Option<Chosen>,
    progress: Progress,
}

impl Asking<'_> {
    async fn run(&mut self, console: &mut Console) -> Result<(), Failure> {
        let AskArgs {
            question,
            paths,
            json,
            stream,
            run,
        } = self.args;
        let limit = run.wall_time();
        let tools = tools(paths)?;
        let document = if paths.is_empty() {
            self.document(console).await?
        } else {
            None
        };
        let mut messages: Messages = prompt::system(paths, document.is_some(), run.system.as_deref())
            .map(Message::system)
            .into_iter()
            .collect();
        messages.push(match document {
            Some(text) => {
                Message::user(question).with_part(Part::Document(DocumentPart::text("standard input", text)))
            }
            None => Message::user(question),
        });

        console.working("looking for a model");
        let chosen = self.chosen.insert(model::choose(run).await?);
        announce(chosen, console);
        if *json && *stream {
            console.line(&json::model(chosen))?;
        }

        let left = limit.saturating_sub(self.started.elapsed());
        let streaming = *stream || (!*json && console.is_terminal());
        let agent = agent(
            chosen,
            tools,
            run,
            streaming,
            Limits {
                wall_time: left,
                ..limits(run)
            },
        );
        let mut view = View {
            console,
            json: *json,
            streaming,
            broken: None,
        };
        let ended = agent
            .run(&mut messages, &mut self.progress, &mut |event| view.see(&event))
            .await;
        let broken = view.broken.take();
        let response = ended.map_err(|error| match (broken, error.into()) {
            (Some(failure), _) => failure,
            // The limit that was asked for, not what was left of it when the run began.
            (None, Failure::Limit(Limit::WallTime(_))) => Failure::Limit(Limit::WallTime(limit)),
            (None, other) => other,
        })?;
        let response = check(response)?;

        if *json {
            console.line(&json::answer(
                chosen,
                &response,
                &self.progress,
                self.started.elapsed(),
            ))?;
        } else if !streaming {
            console.answer(&response.message.text())?;
        }
        console.end_line()?;
        finish(chosen, &response, &self.progress, console);
        Ok(())
    }

    /// Standard input as a document, if it is not a terminal and not empty.
    async fn document(&self, console: &mut Console) -> Result<Option<String>, Failure> {
        if std::io::stdin().is_terminal() {
            return Ok(None);
        }
        console.working("reading standard input");
        let limit = self.args.run.wall_time();
        let read = tokio::task::spawn_blocking(|| {
            let mut bytes = Vec::new();
            std::io::stdin()
                .lock()
                .take(MAX_INPUT_BYTES + 1)
                .read_to_end(&mut bytes)
                .map(|_| bytes)
        });
        let refuse = |message: String| Failure::Local {
            kind: ErrorKind::InvalidRequest,
            message,
        };
        let bytes = match tokio::time::timeout(limit, read).await {
            Err(_) => {
                let message = format!(
                    "standard input did not end within {} s; close it (< /dev/null)",
                    limit.as_secs_f64()
                );
                return Err(Failure::Local {
                    kind: ErrorKind::Timeout,
                    message,
                });
            }
            Ok(Err(panicked)) => return Err(refuse(format!("could not read standard input: {panicked}"))),
            Ok(Ok(Err(error))) => return Err(refuse(format!("could not read standard input: {error}"))),
            Ok(Ok(Ok(bytes))) => bytes,
        };
        if bytes.len() as u64 > MAX_INPUT_BYTES {
            let limit = MAX_INPUT_BYTES >> 20;
            return Err(refuse(format!(
                "standard input has more than {limit} MiB; put it into a file and name that"
            )));
        }
        if bytes.contains(&0) {
            return Err(refuse("standard input is not text but binary".to_owned()));
        }
        let text = String::from_utf8_lossy(&bytes);
        Ok((!text.trim().is_empty()).then(|| text.into_owned()))
    }
}

/// The tools for the given paths.
pub(crate) fn tools(paths: &[std::path::PathBuf]) -> Result<Arc<dyn Toolbox>, Failure> {
    if paths.is_empty() {
        return Ok(Arc::new(NoTools));
    }
    let tools = FileTools::open(paths, Bounds::default()).map_err(|error| Failure::io(&error))?;
    Ok(Arc::new(tools))
}

/// The bounds that the command line sets.
pub(crate) fn limits(run: &RunArgs) -> Limits {
    Limits {
        max_steps: run.max_steps,
        wall_time: run.wall_time(),
        ..Limits::default()
    }
}

/// The agent that answers.
pub(crate) fn agent(
    chosen: &Chosen,
    tools: Arc<dyn Toolbox>,
    run: &RunArgs,
    streaming: bool,
    limits: Limits,
) -> Agent {
    let sampling = Sampling {
        temperature: run.temperature,
        max_tokens: run.max_tokens,
        ..Sampling::default()
    };
    Agent {
        model: chosen.model.clone(),
        tools,
        limits,
        sampling,
        streaming,
        timer: Arc::new(TokioClock),
    }
}

/// Says which model answers, and why. Silence covers everything but an offline model that nobody asked for.
pub(crate) fn announce(chosen: &Chosen, console: &mut Console) {
    let unasked_offline = chosen.is_offline() && !chosen.asked_for;
    let level = if unasked_offline {
        Verbosity::Quiet
    } else {
        Verbosity::Normal
    };
    console.note(level, &format!("model: {} ({})", chosen.name(), chosen.why));
}

/// Half an answer, or none, is no answer.
pub(crate) fn check(response: ChatResponse) -> Result<ChatResponse, Failure> {
    if !response.message.text().trim().is_empty() {
        return Ok(response);
    }
    let refusals = response.message.parts.iter().filter_map(|part| match part {
        Part::Refusal(refusal) => Some(refusal.text.as_str()),
        _ => None,
    });
    Err(Failure::NoAnswer {
        said: refusals.collect(),
        finish: response.finish,
    })
}

/// Says what is worth knowing about a finished answer.
pub(crate) fn finish(chosen: &Chosen, response: &ChatResponse, progress: &Progress, console: &mut Console) {
    match &response.finish {
        Finish::Length => console.note(
            Verbosity::Normal,
            "the answer was cut off: raise --max-tokens for the rest",
        ),
        Finish::ContentFilter => console.note(Verbosity::Normal, "the provider withheld part of the answer"),
        _ => {}
    }
    let usage = match progress.usage() {
        Some(usage) => format!("{} tokens in, {} out", usage.input_tokens, usage.output_tokens),
        None => "usage unknown".to_owned(),
    };
    let calls = progress.tool_calls.len();
    let cost = chosen.cost(&progress.usages);
    console.note(
        Verbosity::Verbose,
        &format!("{} steps, {calls} tool calls, {usage}, {cost}", progress.steps),
    );
}

/// Shows a run while it runs.
pub(crate) struct View<'c> {
    pub(crate) console: &'c mut Console,
    pub(crate) json: bool,
    pub(crate) streaming: bool,
    /// Why standard output could not be written.
    pub(crate) broken: Option<Failure>,
}

impl View<'_> {
    /// Shows an event; breaks the run off if nobody can see it.
    pub(crate) fn see(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        match self.show(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.broken = Some(error.into());
                ControlFlow::Break(())
            }
        }
    }

    fn show(&mut self, event: &Event<'_>) -> std::io::Result<()> {
        if self.json && self.streaming {
            self.console.line(&json::event(event))?;
        }
        match event {
            Event::Step(1) => self.console.working("thinking"),
            Event::Step(step) => {
                if !self.json {
                    self.console.end_line()?;
                }
                self.console.working(&format!("thinking, step {step}"));
            }
            Event::Chat(ChatEvent::TextDelta { text }) if !self.json => self.console.answer(text)?,
            Event::ToolCall(call) => {
                let what = format!("{} {}", call.name, brief(&call.arguments));
                self.console.note(Verbosity::Verbose, &format!("tool: {what}"));
                self.console.working(&what);
            }
            Event::ToolResult(call, result) => {
                let text = result.text();
                let outcome = if result.is_error {
                    brief(&text)
                } else {
                    format!("{} lines", text.lines().count())
                };
                self.console
                    .note(Verbosity::Verbose, &format!("tool: {} gave {outcome}", call.name));
            }
            _ => {}
        }
        Ok(())
    }
}

/// The beginning of a text, on one line.
fn brief(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(100)
        .collect();
    if line.len() < text.len() {
        line + ".."
    } else {
        line
    }
}
