//! `runs resume`: a run goes on where it was, and gives its answer as `ask` does.

use std::process::ExitCode;
use std::time::Instant;

use peregrine::ErrorKind;
use peregrine::agent::RunReport;
use peregrine::agent::durable::{Resolution, RunStatus, StoredRun};
use peregrine::agent::run::{CallId, More};
use peregrine::core::RunId;

use super::args::ResumeArgs;
use crate::failure::{Failure, Limit};
use crate::interrupt::Interrupts;
use crate::keep::{self, Kept};
use crate::model::{self, Chosen};
use crate::output::Console;
use crate::run::{Asking, FirstSignal, Runner, Unanswered};
use crate::view::View;
use crate::{ask, files, json};

/// Goes on with a run.
///
/// # Errors
///
/// [`Failure`]; with `--json` it has been printed on standard output too.
pub(crate) async fn resume(args: &ResumeArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let mut going = Going {
        args,
        started: Instant::now(),
        run: None,
        chosen: None,
        report: None,
    };
    let ended = match Interrupts::new() {
        Ok(interrupts) => going.on(console, &interrupts).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = &ended
        && args.json
    {
        let (chosen, report) = (going.chosen.as_ref(), going.report.as_ref());
        console.line(&json::failure(
            failure,
            going.run,
            chosen,
            report,
            going.started.elapsed(),
        ))?;
    }
    console.end_line()?;
    ended.map(|()| ExitCode::SUCCESS)
}

/// A run that goes on; what it has come to stays here when it fails.
struct Going<'a> {
    args: &'a ResumeArgs,
    started: Instant,
    run: Option<RunId>,
    chosen: Option<Chosen>,
    report: Option<RunReport>,
}

impl Going<'_> {
    async fn on(&mut self, console: &mut Console, interrupts: &Interrupts) -> Result<(), Failure> {
        let ResumeArgs {
            name,
            paths,
            resolve,
            not_carried_out,
            take_over,
            json,
            stream,
            run,
            store,
        } = self.args;
        let set = [
            ("--system", run.system.is_some()),
            ("--temperature", run.temperature.is_some()),
            ("--max-tokens", run.max_tokens.is_some()),
        ];
        if let Some((option, _)) = set.iter().find(|(_, is_set)| *is_set) {
            return Err(Failure::Local {
                kind: ErrorKind::InvalidRequest,
                message: format!(
                    "{option} cannot be changed in a run that goes on; ask anew, or see what peregrine runs fork --set \
                     can change"
                ),
            });
        }
        let (runs, mut stored) = keep::find(store, name).await?;
        let key = stored.key().clone();
        self.run = Some(key.run);
        if *take_over {
            stored = stored.with_take_over();
        }
        for (call, result) in resolve {
            stored.resolve(CallId(*call), result.clone()).await?;
        }
        for call in not_carried_out {
            stored.resolve(CallId(*call), Resolution::NotCarriedOut).await?;
        }
        may_go_on(&stored)?;
        let is_over = stored.status() == RunStatus::Over;
        let spec = stored.run().spec();
        if let Some(name) = spec.tools.keys().find(|name| !files::is_tool(name))
            && !is_over
        {
            return Err(Failure::Local {
                kind: ErrorKind::Refused,
                message: format!(
                    "the run has tools that are not of this command, such as {name}; go on with it where they are"
                ),
            });
        }

        let (mut paths, mut run) = (paths.clone(), run.clone());
        let asking = match (*json, *stream) {
            (true, true) => Asking::Watched,
            (false, true) => Asking::Streamed,
            (false, false) if console.is_terminal() => Asking::Streamed,
            (_, false) => Asking::Whole,
        };
        let kept = Kept {
            checkpoints: runs.checkpoints.clone(),
            key: key.clone(),
            labels: spec.template.metadata.clone(),
        };
        let more = More {
            steps: run.max_steps.saturating_sub(stored.run().limits().max_steps),
            ..More::default()
        };
        let (limit, answered);
        if is_over {
            limit = run.wall_time();
            // Nobody is asked.
            answered = stored.resume(More::default()).await.map_err(Unanswered::from);
        } else {
            let labels = keep::labels(&runs.checkpoints, &stored).await?;
            keep::as_before(&labels, !spec.tools.is_empty(), &mut paths, &mut run)?;
            limit = run.wall_time();
            console.working("looking for a model");
            // Before the files are opened, because its recording may be named from where the user is.
            let chosen = interrupts.or(model::choose(&run)).await?;
            let chosen = self.chosen.insert(chosen);
            let tools = ask::tools(&paths)?;
            ask::announce(chosen, console);
            if *json && *stream {
                console.line(&json::model(chosen, Some(key.run)))?;
            }
            let left = limit.saturating_sub(self.started.elapsed());
            let runner = Runner::new(chosen, &tools, None, &run, left, asking, Some(&kept));
            let mut view = View {
                console,
                json: *json,
                asking,
            };
            answered = runner
                .go_on(
                    &key,
                    more,
                    *take_over,
                    &mut view,
                    interrupts,
                    FirstSignal::Finishes,
                )
                .await;
        }
        let output = match answered {
            Ok(output) => output,
            Err(Unanswered { failure, report }) => {
                self.report = report;
                kept.how_to_go_on(console).await;
                return Err(match failure {
                    Failure::Limit(Limit::WallTime(_)) => Failure::Limit(Limit::WallTime(limit)),
                    other => other,
                });
            }
        };
        let report = self.report.insert(output.report);
        let response = ask::check(output.response)?;
        if *json {
            let elapsed = self.started.elapsed();
            console.line(&json::answer(
                self.chosen.as_ref(),
                self.run,
                &response,
                report,
                None,
                elapsed,
            ))?;
        } else if asking == Asking::Whole || is_over {
            console.answer(&response.message.text())?;
        }
        console.end_line()?;
        ask::finish(&response, report, console);
        Ok(())
    }
}

fn may_go_on(stored: &StoredRun) -> Result<(), Failure> {
    let refuse = |message: String| {
        Err(Failure::Local {
            kind: ErrorKind::Refused,
            message,
        })
    };
    match stored.status() {
        RunStatus::New => refuse("nothing was asked in this run yet; ask again".to_owned()),
        RunStatus::InDoubt => {
            let calls = stored.in_doubt();
            let told = calls.iter().map(|doubt| {
                let (name, arguments) = (&doubt.tool_call.name, &doubt.tool_call.arguments);
                format!(
                    "call {}, {name} {}, under the key {}",
                    doubt.call.0,
                    super::text::brief(arguments, 200),
                    doubt.key
                )
            });
            let calls: Vec<_> = told.collect();
            refuse(format!(
                "nobody knows whether these calls were carried out: {}. Look, and say what came of each: --resolve \
                 CALL=RESULT, or --not-carried-out CALL to have it made",
                calls.join("; ")
            ))
        }
        _ => Ok(()),
    }
}
