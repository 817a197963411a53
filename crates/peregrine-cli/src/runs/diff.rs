//! `runs diff`: the first record in which two runs differ.

use std::process::ExitCode;

use peregrine::checkpoints::{Diff, Record, RunKey};
use serde_json::{Value, json};

use super::args::DiffArgs;
use super::store::Runs;
use super::{json_line, show, text};
use crate::failure::{FOUND, Failure};
use crate::output::Console;

/// Compares two runs.
///
/// # Errors
///
/// [`Failure`]. That they differ is told by the exit status.
pub(crate) async fn diff(args: &DiffArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let runs = Runs::find(&args.store).await?;
    let (left, right) = (runs.named(&args.left).await?, runs.named(&args.right).await?);
    let found = runs.checkpoints.diff(&left, &right).await?;
    match args.json {
        true => json_line(console, &to_json(&left, &right, &found))?,
        false => console.answer(&to_text(&left, &right, &found))?,
    }
    Ok(match found.is_same() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FOUND),
    })
}

fn to_text(left: &RunKey, right: &RunKey, found: &Diff) -> String {
    let mut out = String::new();
    if !found.is_same() {
        for (sign, record) in [('-', &found.left), ('+', &found.right)] {
            out.push_str(&match record {
                Some(record) => {
                    let payload = text::payload(record);
                    format!(
                        "{sign} {}  {}  {}  {}\n",
                        record.seq,
                        text::time(record.at),
                        show::kind(record.kind),
                        text::what(record, &payload)
                    )
                }
                None => format!("{sign} {}  (the run ends here)\n", found.common),
            });
        }
        if let Some(path) = path(found) {
            out.push_str(&format!("  they differ at {path}\n"));
        }
    }
    let more = |next: u64| text::counted(next.saturating_sub(found.common), "record");
    out.push_str(&format!("{} in common", text::counted(found.common, "record")));
    if found.shared > 0 {
        out.push_str(&format!(", {} of them shared", found.shared));
    }
    out.push_str(&match found.is_same() {
        true => "; the runs are the same\n".to_owned(),
        false => format!(
            "; then {} of {} and {} of {}\n",
            more(found.left_next),
            left.run,
            more(found.right_next),
            right.run
        ),
    });
    out
}

/// Where the payloads of two records of the same kind part.
fn path(found: &Diff) -> Option<String> {
    let (left, right) = (found.left.as_ref()?, found.right.as_ref()?);
    match (left.kind, left.schema) == (right.kind, right.schema) {
        true => text::first_difference(&text::payload(left), &text::payload(right)),
        false => None,
    }
}

fn to_json(left: &RunKey, right: &RunKey, found: &Diff) -> Value {
    let record = |record: &Option<Record>| record.as_ref().map(|record| show::to_json(record, true));
    json!({
        "same": found.is_same(),
        "common": found.common,
        "shared": found.shared,
        "path": path(found),
        "left": {"run": left.run, "next": found.left_next, "record": record(&found.left)},
        "right": {"run": right.run, "next": found.right_next, "record": record(&found.right)},
    })
}
