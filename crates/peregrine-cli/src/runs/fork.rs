//! `runs fork`: a run that shares the first records of another and differs from there.
//!
//! Bounds, instructions, results and the question are changes of the run, in its journal. The model, its address and the
//! budget are not the run's but those of whoever goes on with it, so they are kept as with `ask`: sealed, beside it.

use std::process::ExitCode;

use peregrine::ErrorKind;
use peregrine::agent::durable::Fork;
use serde_json::json;

use super::args::{ForkArgs, Setting};
use super::json_line;
use crate::command::{self, Command, Recalled};
use crate::failure::Failure;
use crate::keep;
use crate::output::{Console, Verbosity};

/// Forks a run.
///
/// # Errors
///
/// [`Failure`]; there is no fork then.
pub(crate) async fn fork(args: &ForkArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let (runs, stored) = keep::find(&args.store, &args.run).await?;
    let before = keep::labels(&runs.checkpoints, &stored).await?;
    let mut command = match command::recall(&before) {
        Recalled::Sealed(command) => Some(command),
        Recalled::Unsealed(_) | Recalled::Nothing => None,
    };
    let id = super::new_id();
    let mut fork = args.at.map_or_else(Fork::whole, Fork::at).with_run_id(id);
    let mut limits = *stored.run().limits();
    let (mut sets_limits, mut sets_command) = (false, false);
    for setting in &args.set {
        match setting {
            Setting::Prompt(text) => fork = fork.with_input(text.as_str()),
            Setting::System(text) => fork = fork.with_instructions(text.as_str()),
            Setting::Result(call, text) => fork = fork.with_tool_result(call.as_str(), text.as_str()),
            Setting::MaxSteps(most) => (limits.max_steps, sets_limits) = (*most, true),
            Setting::MaxToolCalls(most) => (limits.max_tool_calls, sets_limits) = (*most, true),
            Setting::Model(model) => {
                match &mut command {
                    Some(command) => command.model.clone_from(model),
                    None => command = Some(Command::bare(model).map_err(|error| Failure::io(&error))?),
                }
                sets_command = true;
            }
            Setting::BaseUrl(_) | Setting::Budget(_) => {}
        }
    }
    for setting in &args.set {
        if let Setting::BaseUrl(_) | Setting::Budget(_) = setting {
            let Some(command) = &mut command else {
                return Err(Failure::Local {
                    kind: ErrorKind::InvalidRequest,
                    message: "it was not you on this machine who asked; set the model too".to_owned(),
                });
            };
            match setting {
                Setting::BaseUrl(url) => command.set_base_url(url),
                Setting::Budget(budget) => command.budget = Some(*budget),
                _ => {}
            }
            sets_command = true;
        }
    }
    if sets_limits {
        fork = fork.with_limits(limits);
    }
    let agent = keep::looking(&runs.checkpoints, stored.run().spec().models);
    let forked = agent.fork(stored.key(), fork).await?;
    let labels = match command.filter(|_| sets_command) {
        Some(command) => command.labels(),
        None => before,
    };
    if labels != stored.run().spec().template.metadata
        && let Err(failure) = keep::say_labels(&runs.checkpoints, forked.key(), &labels).await
    {
        // A fork without what was set is none that was asked for.
        let _ = runs.checkpoints.remove(forked.key()).await;
        return Err(failure);
    }
    let at = forked.origin().map_or(0, |origin| origin.at);
    if args.json {
        let value =
            json!({"run": id, "from": stored.key().run, "at": at, "status": forked.status().as_str()});
        json_line(console, &value)?;
    } else {
        console.answer(&format!("{id}\n"))?;
        console.note(
            Verbosity::Normal,
            &format!("go on with it: peregrine runs resume {id}"),
        );
    }
    Ok(ExitCode::SUCCESS)
}
