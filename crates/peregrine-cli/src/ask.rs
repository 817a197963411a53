//! `peregrine ask`: one question, one answer.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::time::Instant;

use peregrine::agent::RunReport;
use peregrine::core::{ChatResponse, DocumentPart, Message, Part};
use peregrine::tools::Registry;
use peregrine::{ErrorKind, Finish, Input};

use crate::args::AskArgs;
use crate::failure::{Failure, Limit};
use crate::files::{self, Bounds};
use crate::interrupt::Interrupts;
use crate::model::{self, Chosen};
use crate::output::{Console, Verbosity};
use crate::run::{Asking, FirstSignal, Runner, Unanswered};
use crate::view::View;
use crate::{json, prompt};

/// How much of standard input is read as a document.
const MAX_INPUT_BYTES: u64 = 1 << 20;

/// Answers a question.
///
/// # Errors
///
/// [`Failure`]; with `--json` it has been printed on standard output too.
pub(crate) async fn ask(args: &AskArgs, console: &mut Console) -> Result<(), Failure> {
    let mut question = Question {
        args,
        started: Instant::now(),
        chosen: None,
        report: None,
    };
    let ended = match Interrupts::new() {
        Ok(interrupts) => question.answer(console, &interrupts).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = &ended
        && args.json
    {
        let (chosen, report) = (question.chosen.as_ref(), question.report.as_ref());
        console.line(&json::failure(
            failure,
            chosen,
            report,
            question.started.elapsed(),
        ))?;
    }
    // In the middle of a streamed answer, what follows begins on a line of its own.
    console.end_line()?;
    ended
}

/// A question on its way; what it has come to stays here when it fails.
struct Question<'a> {
    args: &'a AskArgs,
    started: Instant,
    chosen: Option<Chosen>,
    report: Option<RunReport>,
}

impl Question<'_> {
    async fn answer(&mut self, console: &mut Console, interrupts: &Interrupts) -> Result<(), Failure> {
        let AskArgs {
            question,
            paths,
            json,
            stream,
            run,
        } = self.args;
        let limit = run.wall_time();
        let tools = tools(paths)?;
        let document = match paths.is_empty() {
            true => interrupts.or(self.document(console)).await?,
            false => None,
        };
        let system = prompt::system(paths, document.is_some(), run.system.as_deref());
        let asked = match document {
            Some(text) => {
                Message::user(question).with_part(Part::Document(DocumentPart::text("standard input", text)))
            }
            None => Message::user(question),
        };

        console.working("looking for a model");
        let chosen = interrupts.or(model::choose(run)).await?;
        let chosen = self.chosen.insert(chosen);
        announce(chosen, console);
        if *json && *stream {
            console.line(&json::model(chosen))?;
        }

        let asking = match (*json, *stream) {
            (true, true) => Asking::Watched,
            (false, true) => Asking::Streamed,
            (false, false) if console.is_terminal() => Asking::Streamed,
            (_, false) => Asking::Whole,
        };
        let left = limit.saturating_sub(self.started.elapsed());
        let runner = Runner::new(chosen, &tools, system, run, left, asking);
        let mut view = View {
            console,
            json: *json,
            asking,
        };
        let first = FirstSignal::Finishes;
        let ended = runner.run(Input::from(asked), &mut view, interrupts, first).await;
        let output = match ended {
            Ok(output) => output,
            Err(Unanswered { failure, report }) => {
                self.report = report;
                return Err(match failure {
                    // The limit that was asked for, not what was left of it when the run began.
                    Failure::Limit(Limit::WallTime(_)) => Failure::Limit(Limit::WallTime(limit)),
                    other => other,
                });
            }
        };
        let report = self.report.insert(output.report);
        let response = check(output.response)?;

        if *json {
            console.line(&json::answer(chosen, &response, report, self.started.elapsed()))?;
        } else if asking == Asking::Whole {
            console.answer(&response.message.text())?;
        }
        console.end_line()?;
        finish(&response, report, console);
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
pub(crate) fn tools(paths: &[PathBuf]) -> Result<Registry, Failure> {
    if paths.is_empty() {
        return Ok(Registry::new());
    }
    let tools = files::tools(paths, Bounds::default()).map_err(|error| Failure::io(&error))?;
    tools
        .build()
        .map_err(|error| Failure::internal(&error.to_string()))
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
pub(crate) fn finish(response: &ChatResponse, report: &RunReport, console: &mut Console) {
    match &response.finish {
        Finish::Length => console.note(
            Verbosity::Normal,
            "the answer was cut off: raise --max-tokens for the rest",
        ),
        Finish::ContentFilter => console.note(Verbosity::Normal, "the provider withheld part of the answer"),
        _ => {}
    }
    let usage = match report.usage {
        Some(usage) => format!("{} tokens in, {} out", usage.input_tokens, usage.output_tokens),
        None => "usage unknown".to_owned(),
    };
    let (steps, calls, cost) = (report.steps, report.tool_calls.len(), report.cost);
    let note = format!("{steps} steps, {calls} tool calls, {usage}, {cost}");
    console.note(Verbosity::Verbose, &note);
}
