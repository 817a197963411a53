//! `runs verify`: everything is read, and what is damaged is named by file and offset.

use std::process::ExitCode;

use peregrine::checkpoints::{Error, RunKey, Verification};
use serde_json::{Value, json};

use super::args::VerifyArgs;
use super::store::Runs;
use super::{json_line, text};
use crate::failure::{FOUND, Failure};
use crate::output::{Console, Verbosity};

/// Verifies a run, or all.
///
/// # Errors
///
/// [`Failure`] if a run cannot be looked at. That one is damaged is told by the exit status.
pub(crate) async fn verify(args: &VerifyArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let runs = Runs::find(&args.store).await?;
    let mut keys = Vec::new();
    match &args.run {
        Some(name) => keys.push(runs.named(name).await?),
        None => runs.each(|info| keys.push(runs.key(info.run))).await?,
    }
    let (mut seen, mut damaged) = (0_u64, 0_u64);
    for key in &keys {
        console.working(&format!("reading {}", key.run));
        let found = match runs.checkpoints.verify(key).await {
            Ok(found) => found,
            // Removed since it was listed.
            Err(Error::NotFound { .. }) if args.run.is_none() => continue,
            Err(error) => return Err(error.into()),
        };
        seen += 1;
        damaged += u64::from(!found.is_whole());
        match args.json {
            true => json_line(console, &to_json(&runs, key, &found))?,
            false => console.answer(&to_text(&runs, key, &found))?,
        }
    }
    if args.run.is_none() && !args.json {
        let note = format!("{}, {damaged} damaged", text::counted(seen, "run"));
        console.note(Verbosity::Normal, &note);
    }
    Ok(match damaged {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(FOUND),
    })
}

fn to_text(runs: &Runs, key: &RunKey, found: &Verification) -> String {
    let mut out = format!(
        "{}  {}  {}, {}\n",
        key.run,
        if found.is_whole() { "whole" } else { "damaged" },
        text::counted(found.next_seq.saturating_sub(found.first), "record"),
        text::counted(found.parts as u64, "part"),
    );
    if found.first > 0 {
        out.push_str(&format!("  the records before {} were trimmed\n", found.first));
    }
    if let Some(tail) = &found.tail {
        out.push_str(&format!(
            "  an unfinished end of {} at offset {} of {} is passed over; going on with the run cuts it\n",
            text::counted(tail.bytes, "byte"),
            tail.offset,
            tail.place
        ));
    }
    if let Some(damage) = &found.damage {
        out.push_str(&format!("  {damage}\n"));
        if let Some(file) = file(runs, damage) {
            out.push_str(&format!("  the file is {file}\n"));
        }
    }
    out
}

fn to_json(runs: &Runs, key: &RunKey, found: &Verification) -> Value {
    json!({
        "run": key.run,
        "whole": found.is_whole(),
        "first": found.first,
        "next": found.next_seq,
        "records": found.next_seq.saturating_sub(found.first),
        "parts": found.parts,
        "origin": found.origin,
        "tail": found.tail,
        "damage": found.damage.as_ref().map(|error| damage(runs, error)),
    })
}

fn damage(runs: &Runs, error: &Error) -> Value {
    let mut fields = json!({"cause": error.code(), "message": error.to_string()});
    if let Error::Damaged(damage) = error {
        fields["place"] = damage.place.as_str().into();
        fields["offset"] = damage.offset.into();
        fields["seq"] = damage.seq.into();
    }
    if let Some(file) = file(runs, error) {
        fields["file"] = file.into();
    }
    fields
}

/// The whole path of what is damaged, where that is a file.
fn file(runs: &Runs, error: &Error) -> Option<String> {
    match error {
        Error::Damaged(damage) => {
            let file = runs.file(damage.run, &damage.place)?;
            Some(file.display().to_string())
        }
        _ => None,
    }
}
