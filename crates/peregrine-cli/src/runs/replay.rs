//! `runs replay`: a run once more, from its records alone.

use std::process::ExitCode;

use serde_json::json;

use super::args::ReplayArgs;
use super::{json_line, text};
use crate::failure::Failure;
use crate::keep;
use crate::output::{Console, Verbosity};

/// Replays a run and prints its answer.
///
/// # Errors
///
/// [`Failure`] if it cannot be read, or parts from its journal: the record is named. That the run itself failed is told,
/// and is no failure here.
pub(crate) async fn replay(args: &ReplayArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let (runs, stored) = keep::find(&args.store, &args.run).await?;
    let agent = keep::looking(&runs.checkpoints, stored.run().spec().models);
    let replayed = agent.replay(stored.key()).await?;
    let (answer, failed) = match &replayed.outcome {
        Some(Ok(output)) => (Some(output.response.message.text()), None),
        Some(Err(error)) => (None, Some(error.error().to_string())),
        None => (None, None),
    };
    if args.json {
        let value = json!({
            "run": stored.key().run,
            "records": replayed.records,
            "calls": replayed.calls,
            "over": replayed.outcome.is_some(),
            "answer": answer,
            "failed": failed,
        });
        json_line(console, &value)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(answer) = &answer {
        console.answer(answer)?;
        console.end_line()?;
    }
    let end = match (&answer, &failed) {
        (Some(_), _) => "",
        (None, Some(failed)) => &format!("; the run ended without an answer: {failed}"),
        (None, None) => "; the run is not over",
    };
    let (records, calls) = (
        text::counted(replayed.records, "record"),
        text::counted(replayed.calls, "call"),
    );
    console.note(
        Verbosity::Normal,
        &format!("replayed: {records}, {calls} compared{end}"),
    );
    Ok(ExitCode::SUCCESS)
}
