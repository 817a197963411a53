//! `peregrine ask`: one question, one answer.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::time::Instant;

use peregrine::agent::RunReport;
use peregrine::agent::durable::RunStatus;
use peregrine::agent::run::End;
use peregrine::core::{ChatResponse, DocumentPart, Message, Messages, Part};
use peregrine::tools::Registry;
use peregrine::{ErrorKind, Finish, Input};

use crate::args::{AskArgs, DurableArgs, RunArgs};
use crate::cache::around::Cached;
use crate::failure::{Failure, Limit};
use crate::files::{self, Bounds};
use crate::interrupt::Interrupts;
use crate::keep::{self, Kept};
use crate::model::{self, Chosen};
use crate::output::{Console, Verbosity};
use crate::run::{Asking, FirstSignal, Runner, Unanswered};
use crate::runs::args::RunName;
use crate::runs::{self, resume};
use crate::view::View;
use crate::{command, json, prompt};

/// How much of standard input is read as a document.
const MAX_INPUT_BYTES: u64 = 1 << 20;

/// Answers a question.
///
/// # Errors
///
/// [`Failure`]; with `--json` it has been printed on standard output too.
pub(crate) async fn ask(args: &AskArgs, console: &mut Console) -> Result<(), Failure> {
    if let Some(name) = &args.durable.resume {
        match goes_on(name, args).await {
            Ok(false) => {}
            Ok(true) => return resume::resume(&args.resumed(name), console).await.map(drop),
            Err(failure) => {
                if args.json {
                    console.line(&json::failed(&failure))?;
                }
                return Err(failure);
            }
        }
    }
    let mut question = Question {
        args,
        started: Instant::now(),
        kept: None,
        chosen: None,
        report: None,
        cache: None,
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
            question.kept.as_ref().map(|kept| kept.key.run),
            chosen,
            report,
            question.started.elapsed(),
        ))?;
    }
    // In the middle of a streamed answer, what follows begins on a line of its own.
    console.end_line()?;
    if let Some(cache) = &question.cache {
        cache.tell(console).await;
    }
    ended
}

/// A question on its way; what it has come to stays here when it fails.
struct Question<'a> {
    args: &'a AskArgs,
    started: Instant,
    /// The run, if it is kept.
    kept: Option<Kept>,
    chosen: Option<Chosen>,
    report: Option<RunReport>,
    /// The cache around the model, if there is one.
    cache: Option<Cached>,
}

/// Whether the question of a run that is not over is asked (again), or none, so that the run goes on.
async fn goes_on(name: &RunName, args: &AskArgs) -> Result<bool, Failure> {
    let Some(question) = &args.question else {
        return Ok(true);
    };
    let (_, stored) = keep::find(&args.durable.store, name).await?;
    let run = stored.run();
    let asked = run.input().last().map(|message| message.text());
    match (stored.status(), asked) {
        (RunStatus::Over, _) => Ok(false),
        (_, Some(asked)) if asked == *question => Ok(true),
        _ => Err(Failure::Local {
            kind: ErrorKind::InvalidRequest,
            message:
                "the run is not over; let it go on before something else is asked: leave out the question"
                    .to_owned(),
        }),
    }
}

/// The conversation of a run that was answered, for a question that follows; with the files and the model of before, where
/// others are not given.
///
/// # Errors
///
/// [`Failure`] if there is none.
pub(crate) async fn answered(
    name: &RunName,
    durable: &DurableArgs,
    paths: &mut Vec<PathBuf>,
    run: &mut RunArgs,
) -> Result<Messages, Failure> {
    let (runs, stored) = keep::find(&durable.store, name).await?;
    if !matches!(stored.run().ended(), Some(End::Completed { .. })) {
        return Err(Failure::Local {
            kind: ErrorKind::InvalidRequest,
            message: "the run ended without an answer that another question could follow".to_owned(),
        });
    }
    let labels = keep::labels(&runs.checkpoints, &stored).await?;
    let needs_files = !stored.run().spec().tools.is_empty();
    keep::as_before(&labels, needs_files, paths, run)?;
    Ok(stored.run().messages())
}

impl Question<'_> {
    async fn answer(&mut self, console: &mut Console, interrupts: &Interrupts) -> Result<(), Failure> {
        let AskArgs {
            question,
            paths,
            json,
            stream,
            run,
            durable,
            cache,
        } = self.args;
        let question = question.as_deref().unwrap_or_default();
        let (mut paths, mut run) = (paths.clone(), run.clone());
        let before = match &durable.resume {
            Some(name) => answered(name, durable, &mut paths, &mut run).await?,
            None => Messages::new(),
        };
        let runs = durable.open().await?;
        let (paths, run) = (&paths, &run);
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
        let mut chosen = interrupts.or(model::choose(run)).await?;
        self.cache = Cached::around(&mut chosen, cache)?;
        let chosen = self.chosen.insert(chosen);
        announce(chosen, console);
        if let Some(runs) = &runs {
            let id = runs::new_id();
            let labels = command::labels(paths, chosen, run);
            self.kept = Some(Kept::begin(runs, id, labels));
            keep::announce(runs, id, console);
        }
        let kept = self.kept.as_ref();
        let id = kept.map(|kept| kept.key.run);
        if *json && *stream {
            console.line(&json::model(chosen, id))?;
        }

        let asking = match (*json, *stream) {
            (true, true) => Asking::Watched,
            (false, true) => Asking::Streamed,
            (false, false) if console.is_terminal() => Asking::Streamed,
            (_, false) => Asking::Whole,
        };
        let left = limit.saturating_sub(self.started.elapsed());
        let runner = Runner::new(chosen, &tools, system, run, left, asking, kept);
        let mut view = View {
            console,
            json: *json,
            asking,
        };
        let mut input = Input::from(&before);
        input.messages.push(asked);
        input.run_id = id;
        let first = FirstSignal::Finishes;
        let ended = runner.run(input, &mut view, interrupts, first).await;
        let output = match ended {
            Ok(output) => output,
            Err(Unanswered { failure, report }) => {
                self.report = report;
                if let Some(kept) = kept {
                    kept.how_to_go_on(console).await;
                }
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
            let elapsed = self.started.elapsed();
            console.line(&json::answer(
                Some(chosen),
                id,
                &response,
                report,
                self.cache.as_ref().map(Cached::counts),
                elapsed,
            ))?;
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
