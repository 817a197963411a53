//! `runs diff`: the first record in which two runs differ.

use std::process::ExitCode;

use peregrine::agent::durable::{Difference, Entry};
use peregrine::checkpoints::{Diff, Record, RunKey};
use serde_json::{Value, json};

use super::args::DiffArgs;
use super::store::Runs;
use super::{json_line, show, text};
use crate::failure::{FOUND, Failure};
use crate::keep;
use crate::output::Console;

/// So many differences are shown.
const SHOWN: usize = 20;

/// Compares two runs.
///
/// # Errors
///
/// [`Failure`]. That they differ is told by the exit status.
pub(crate) async fn diff(args: &DiffArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let runs = Runs::find(&args.store).await?;
    let (left, right) = (runs.named(&args.left).await?, runs.named(&args.right).await?);
    let found = runs.checkpoints.diff(&left, &right).await?;
    // Of agents' runs it can be told what happened differently, beyond the first record.
    let happened = keep::looking(&runs.checkpoints, 1).diff(&left, &right).await;
    let happened = happened.map(|diff| diff.differences).ok();
    match args.json {
        true => json_line(console, &to_json(&left, &right, &found, happened.as_deref()))?,
        false => console.answer(&to_text(&left, &right, &found, happened.as_deref()))?,
    }
    Ok(match found.is_same() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FOUND),
    })
}

fn to_text(left: &RunKey, right: &RunKey, found: &Diff, happened: Option<&[Difference]>) -> String {
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
    if let Some(happened) = happened.filter(|_| !found.is_same()) {
        out.push_str(&match happened.len() {
            0 => "the same was said and done in both\n".to_owned(),
            count => format!("{} happened differently:\n", text::counted(count as u64, "thing")),
        });
        for Difference { left, right, .. } in happened.iter().take(SHOWN) {
            out.push_str(&format!("  {:30}  {}\n", told(left), told(right)));
        }
        if happened.len() > SHOWN {
            out.push_str("  ..\n");
        }
    }
    out
}

fn told(entry: &Option<Entry>) -> String {
    match entry {
        Some(entry) => format!("{} {}", entry.seq, entry.what.name()),
        None => "-".to_owned(),
    }
}

/// Where the payloads of two records of the same kind part.
fn path(found: &Diff) -> Option<String> {
    let (left, right) = (found.left.as_ref()?, found.right.as_ref()?);
    match (left.kind, left.schema) == (right.kind, right.schema) {
        true => text::first_difference(&text::payload(left), &text::payload(right)),
        false => None,
    }
}

fn to_json(left: &RunKey, right: &RunKey, found: &Diff, happened: Option<&[Difference]>) -> Value {
    let record = |record: &Option<Record>| record.as_ref().map(|record| show::to_json(record, true));
    json!({
        "same": found.is_same(),
        "common": found.common,
        "shared": found.shared,
        "path": path(found),
        "differences": happened.map(differences),
        "left": {"run": left.run, "next": found.left_next, "record": record(&found.left)},
        "right": {"run": right.run, "next": found.right_next, "record": record(&found.right)},
    })
}

fn differences(happened: &[Difference]) -> Value {
    let side = |entry: &Option<Entry>| {
        let entry = entry.as_ref()?;
        Some(json!({"seq": entry.seq, "what": entry.what.name()}))
    };
    let pairs = happened.iter();
    pairs
        .map(|pair| json!({"left": side(&pair.left), "right": side(&pair.right)}))
        .collect()
}
