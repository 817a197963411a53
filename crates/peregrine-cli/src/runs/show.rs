//! `runs show`: the records of a run as a timeline.
//!
//! What comes before a damaged place is shown before the damage is told.

use std::process::ExitCode;

use peregrine::checkpoints::{Error, History, Kind, Part, Record, RunKey, Span};
use serde_json::{Value, json};

use super::args::{ShowArgs, scope_name};
use super::store::Runs;
use super::{json_line, text};
use crate::failure::Failure;
use crate::output::{Console, Verbosity};

/// So much is written at once.
const PIECE_BYTES: usize = 64 << 10;

/// Shows the records of a run.
///
/// # Errors
///
/// [`Failure`], after what can be shown has been.
pub(crate) async fn show(args: &ShowArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let runs = Runs::find(&args.store).await?;
    let key = runs.named(&args.run).await?;
    let span = args.from.map_or(Span::ALL, Span::from);
    let wanted = args.upto.map_or(span, |upto| span.upto(upto));
    match runs.checkpoints.load(&key, wanted).await {
        Ok(history) => print(args, &key, &history, console)?,
        Err(Error::Damaged(damage)) => {
            if let Ok(before) = runs.checkpoints.load(&key, span.upto(damage.seq)).await {
                print(args, &key, &before, console)?;
            }
            return Err(Error::Damaged(damage).into());
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn print(args: &ShowArgs, key: &RunKey, history: &History, console: &mut Console) -> Result<(), Failure> {
    if args.json {
        return print_json(args, key, history, console);
    }
    let History {
        records,
        next_seq,
        origin,
        tail,
        ..
    } = history;
    let mut out = format!(
        "run {}  scope {}  {}\n",
        key.run,
        scope_name(&key.scope),
        text::counted(*next_seq, "record")
    );
    if let Some(origin) = origin {
        out.push_str(&format!("forked from {} at {}\n", origin.run, origin.at));
    }
    let digits = next_seq.to_string().len().max(3);
    out.push_str(&format!(
        "{:>digits$}  {:24}  {:13}  {:>10}  WHAT\n",
        "SEQ", "TIME", "KIND", "SIZE"
    ));
    for record in records {
        let payload = text::payload(record);
        out.push_str(&format!(
            "{:>digits$}  {:24}  {:13}  {:>10}  {}\n",
            record.seq,
            text::time(record.at),
            kind(record.kind),
            text::size(size(record)),
            text::what(record, &payload)
        ));
        if args.full {
            let shown = serde_json::to_string_pretty(&payload).unwrap_or_default();
            for line in text::harmless(&shown).lines() {
                out.push_str(&format!("{:digits$}  {line}\n", ""));
            }
            for (at, part) in record.parts.iter().enumerate() {
                out.push_str(&format!("{:digits$}  part {at}: {}\n", "", part_text(part)));
            }
        }
        if out.len() >= PIECE_BYTES {
            console.answer(&out)?;
            out.clear();
        }
    }
    console.answer(&out)?;
    if let Some(tail) = tail {
        let note = format!(
            "an unfinished end of {} at offset {} of {} was passed over; going on with the run cuts it",
            text::counted(tail.bytes, "byte"),
            tail.offset,
            tail.place
        );
        console.note(Verbosity::Normal, &note);
    }
    Ok(())
}

fn print_json(
    args: &ShowArgs,
    key: &RunKey,
    history: &History,
    console: &mut Console,
) -> Result<(), Failure> {
    let head = json!({
        "type": "run",
        "run": key.run,
        "scope": scope_name(&key.scope),
        "origin": history.origin,
        "next": history.next_seq,
        "tail": history.tail,
    });
    json_line(console, &head)?;
    for record in &history.records {
        json_line(console, &to_json(record, args.full))?;
    }
    Ok(())
}

/// A record as JSON.
pub(crate) fn to_json(record: &Record, full: bool) -> Value {
    let payload = text::payload(record);
    let mut shown = json!({
        "type": "record",
        "seq": record.seq,
        "kind": record.kind,
        "schema": record.schema,
        "at": text::time(record.at),
        "at_ms": record.at,
        "bytes": size(record),
        "what": text::what(record, &payload),
    });
    if !record.parts.is_empty() {
        let parts = record.parts.iter().map(|part| match part {
            Part::Inline(bytes) => json!({"bytes": bytes.len()}),
            Part::Stored(part) => json!({"bytes": part.len, "id": part.id.to_string()}),
            _ => Value::Null,
        });
        shown["parts"] = parts.collect();
    }
    if full {
        shown["payload"] = payload;
    }
    shown
}

/// The kind in a word.
pub(crate) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Event => "event",
        Kind::Effect => "effect",
        Kind::EffectResult => "effect_result",
        Kind::Snapshot => "snapshot",
        Kind::Marker => "marker",
        _ => "other",
    }
}

/// Payload and parts.
fn size(record: &Record) -> u64 {
    let parts = record.parts.iter().map(|part| match part {
        Part::Inline(bytes) => bytes.len() as u64,
        Part::Stored(part) => part.len,
        _ => 0,
    });
    parts.fold(record.payload.len() as u64, u64::saturating_add)
}

fn part_text(part: &Part) -> String {
    match part {
        Part::Inline(bytes) => text::size(bytes.len() as u64),
        Part::Stored(part) => format!("{}, kept as {}", text::size(part.len), part.id),
        _ => "of another kind".to_owned(),
    }
}
