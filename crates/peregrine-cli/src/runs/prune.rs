//! `runs prune`: which runs go, said before and done after.
//!
//! Invariant: only what was said goes. A run that was written after the question was asked stays.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use peregrine::checkpoints::{Error, RunInfo};
use peregrine::core::{Clock as _, RunId, SystemClock, UnixTime};
use serde_json::json;

use super::args::{PruneArgs, scope_name};
use super::store::Runs;
use super::{json_line, text};
use crate::failure::Failure;
use crate::keep;
use crate::output::{Console, Verbosity};

/// So many runs are named before the question; the rest is counted.
const NAMED: usize = 20;

/// Removes the runs that no limit keeps.
///
/// # Errors
///
/// [`Failure`]; some of the runs may be gone, the oldest first.
pub(crate) async fn prune(args: &PruneArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let runs = Runs::find(&args.store).await?;
    let mut all = Vec::new();
    runs.each(|info| all.push(info)).await?;
    let total = all.len();
    let going = going(all, args, SystemClock.unix());
    let bytes = going
        .iter()
        .fold(0_u64, |sum, info| sum.saturating_add(info.bytes));
    let what = format!(
        "{} of {} in {} ({})",
        text::counted(going.len() as u64, "run"),
        scope_name(&runs.scope),
        runs.place(),
        text::size(bytes)
    );
    let mut done = Done::default();
    if !args.dry_run && !going.is_empty() {
        if !args.yes && std::io::stdin().is_terminal() && !confirmed(&going, &what, console)? {
            console.note(Verbosity::Normal, "nothing was removed");
            return Ok(ExitCode::SUCCESS);
        }
        done = remove(&runs, &going, console).await?;
    }
    let gone = if args.dry_run {
        going.iter().map(|info| info.run).collect()
    } else {
        done.removed
    };
    if args.json {
        let kept = total - gone.len();
        let value = json!({
            "dry_run": args.dry_run, "removed": gone, "busy": done.busy, "kept": kept, "bytes": bytes,
        });
        json_line(console, &value)?;
        return Ok(ExitCode::SUCCESS);
    }
    let lines: String = gone.iter().map(|run| format!("{run}\n")).collect();
    console.answer(&lines)?;
    for run in &done.busy {
        console.note(Verbosity::Normal, &format!("{run} stays: it is being written"));
    }
    let verb = if args.dry_run { "would be" } else { "were" };
    let note = match gone.len() == going.len() {
        true => format!("{what} {verb} removed, {} left", total - gone.len()),
        false => format!(
            "{} of {} {verb} removed",
            gone.len(),
            text::counted(going.len() as u64, "run")
        ),
    };
    console.note(Verbosity::Normal, &note);
    Ok(ExitCode::SUCCESS)
}

/// The runs that go, the oldest first: as `Checkpoints::prune` decides, of which this is the half that only looks.
fn going(mut runs: Vec<RunInfo>, args: &PruneArgs, now: UnixTime) -> Vec<RunInfo> {
    let age = args
        .older_than
        .map_or(u64::MAX, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let oldest = now.0.saturating_sub(age);
    runs.sort_unstable_by_key(|info| std::cmp::Reverse((info.updated, info.run)));
    let mut bytes = 0_u64;
    let stay = runs.iter().enumerate().take_while(|(place, info)| {
        bytes = bytes.saturating_add(info.bytes);
        info.updated.0 >= oldest
            && args.keep.is_none_or(|most| *place < most)
            && args.max_bytes.is_none_or(|most| bytes <= most)
    });
    let stay = stay.count();
    let mut going = runs.split_off(stay);
    going.reverse();
    going
}

/// Asks a person.
fn confirmed(going: &[RunInfo], what: &str, console: &mut Console) -> Result<bool, Failure> {
    for info in going.iter().take(NAMED) {
        let line = format!(
            "{}  {}  {}",
            info.run,
            text::time(info.updated),
            text::size(info.bytes)
        );
        console.note(Verbosity::Quiet, &line);
    }
    if going.len() > NAMED {
        console.note(Verbosity::Quiet, &format!("and {} more", going.len() - NAMED));
    }
    console
        .confirms(&format!("remove {what}?"))
        .map_err(|error| Failure::io(&error))
}

#[derive(Debug, Default)]
struct Done {
    removed: Vec<RunId>,
    busy: Vec<RunId>,
}

async fn remove(runs: &Runs, going: &[RunInfo], console: &mut Console) -> Result<Done, Failure> {
    // A person may take a while to answer.
    let mut now = BTreeMap::new();
    runs.each(|info| {
        now.insert(info.run, info.updated);
    })
    .await?;
    console.working("removing");
    let mut done = Done::default();
    for info in going {
        if now.get(&info.run).is_some_and(|updated| *updated != info.updated) {
            done.busy.push(info.run);
            continue;
        }
        match runs.checkpoints.remove(&runs.key(info.run)).await {
            Ok(()) => {
                done.removed.push(info.run);
                if info.origin.is_some() {
                    keep::forget_labels(&runs.checkpoints, &runs.key(info.run)).await;
                }
            }
            Err(Error::Leased { .. }) => done.busy.push(info.run),
            // Somebody else removed it.
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}
