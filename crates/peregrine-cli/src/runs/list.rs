//! `runs list`: the newest runs first, a page at a time.
//!
//! The store lists the oldest first, because a page behind an id is then the same however many runs begin meanwhile. So
//! all are looked at, and as many as a page has are kept.

use std::collections::VecDeque;
use std::process::ExitCode;

use comfy_table::Table;
use peregrine::agent::durable::RunStatus;
use peregrine::checkpoints::{Error, RunInfo, RunKey, Span};
use serde_json::{Value, json};

use super::args::{ListArgs, scope_name};
use super::json_line;
use super::store::Runs;
use super::text;
use crate::failure::Failure;
use crate::keep::{self, Looked};
use crate::output::{Console, Verbosity};

/// Shows a page of runs.
///
/// # Errors
///
/// [`Failure`]. A run that is damaged is listed as such.
pub(crate) async fn list(args: &ListArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let ListArgs {
        limit,
        before,
        json,
        store,
    } = args;
    let runs = Runs::find(store).await?;
    let before = match before {
        Some(name) => Some(runs.named(name).await?.run),
        None => None,
    };
    let (mut page, mut older) = (VecDeque::new(), 0_u64);
    runs.each(|info| {
        if before.is_none_or(|before| info.run < before) {
            if page.len() == *limit as usize {
                page.pop_front();
                older += 1;
            }
            page.push_back(info);
        }
    })
    .await?;
    let mut rows = Vec::with_capacity(page.len());
    for info in page.into_iter().rev() {
        // Removed meanwhile, if there is none.
        rows.extend(Row::of(&runs, info).await?);
    }
    let scope = scope_name(&runs.scope);
    let next = rows.last().filter(|_| older > 0).map(|row| row.info.run);
    if *json {
        let rows: Vec<_> = rows.iter().map(|row| row.to_json(&scope)).collect();
        let page =
            json!({"store": runs.place(), "scope": scope, "runs": rows, "older": older, "before": next});
        json_line(console, &page)?;
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        let note = format!("there are no runs of {scope} in {}", runs.place());
        console.note(Verbosity::Normal, &note);
        return Ok(ExitCode::SUCCESS);
    }
    console.answer(&to_table(&rows, &scope))?;
    if let Some(next) = next {
        let note = format!("{} more: --before {next}", text::counted(older, "older run"));
        console.note(Verbosity::Normal, &note);
    }
    Ok(ExitCode::SUCCESS)
}

/// A run, as shown.
struct Row {
    info: RunInfo,
    state: &'static str,
    /// The number of its records, what it shares included; `None` if its end cannot be read.
    records: Option<u64>,
}

impl Row {
    async fn of(runs: &Runs, info: RunInfo) -> Result<Option<Self>, Failure> {
        let key = runs.key(info.run);
        let (state, records) = match keep::look(&runs.checkpoints, &key).await {
            Ok(stored) => (state(stored.status()), Some(stored.records())),
            Err(Looked::Failed(Failure::Store(error))) => match error {
                Error::NotFound { .. } => return Ok(None),
                Error::Unavailable { .. } | Error::Io { .. } => return Err(error.into()),
                Error::TooLarge { .. } => ("too_large", None),
                Error::Damaged(_) => ("damaged", None),
                // Somebody else's journal, or one of a later version.
                _ => ("foreign", end(runs, &key).await),
            },
            Err(Looked::Failed(failure)) => return Err(failure),
            Err(Looked::Chat) => ("chat", end(runs, &key).await),
        };
        // Whoever holds it is at work on it.
        let state = if info.holder.is_some() { "running" } else { state };
        Ok(Some(Self { info, state, records }))
    }

    fn to_json(&self, scope: &str) -> Value {
        let RunInfo {
            run,
            origin,
            updated,
            bytes,
            holder,
            ..
        } = &self.info;
        json!({
            "run": run,
            "scope": scope,
            "state": self.state,
            "records": self.records,
            "bytes": bytes,
            "updated": text::time(*updated),
            "updated_ms": updated,
            "origin": origin,
            "holder": holder,
        })
    }
}

/// The number of its records.
async fn end(runs: &Runs, key: &RunKey) -> Option<u64> {
    // Beyond the end: only the last segment is read, to tell where the end is.
    let end = runs.checkpoints.load(key, Span::from(u64::MAX)).await;
    end.ok().map(|history| history.next_seq)
}

fn state(status: RunStatus) -> &'static str {
    match status {
        // Nobody is at work on it.
        RunStatus::Open => "interrupted",
        status => status.as_str(),
    }
}

fn to_table(rows: &[Row], scope: &str) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "RUN",
        "SCOPE",
        "STATE",
        "RECORDS",
        "SIZE",
        "UPDATED",
        "FORKED FROM",
    ]);
    for row in rows {
        let origin = row.info.origin;
        table.add_row([
            row.info.run.to_string(),
            scope.to_owned(),
            row.state.to_owned(),
            row.records
                .map_or_else(|| "-".to_owned(), |records| records.to_string()),
            text::size(row.info.bytes),
            text::time(row.info.updated),
            origin.map_or_else(String::new, |origin| format!("{} at {}", origin.run, origin.at)),
        ]);
    }
    let lines = table.lines().map(|line| line.trim().to_owned() + "\n");
    lines.collect()
}
