//! `peregrine runs`: the runs that were kept, and what can be done with them.
//!
//! | file | what |
//! |---|---|
//! | `args` | the command line as data |
//! | `store` | which store, and which run of it |
//! | `list`, `show`, `resume`, `fork`, `replay`, `verify`, `diff`, `transfer`, `prune` | the verbs; `transfer` is export and import |
//! | `text` | times, sizes and payloads, for people |
//!
//! Invariant: what is shown of a payload cannot drive a terminal, in text and in JSON.

pub(crate) mod args;
mod diff;
mod fork;
mod list;
mod prune;
mod replay;
pub(crate) mod resume;
mod show;
pub(crate) mod store;
pub(crate) mod text;
mod transfer;
mod verify;

use std::hash::{BuildHasher as _, RandomState};
use std::process::ExitCode;

use peregrine::core::{Clock as _, RunId, SystemClock};
use serde_json::Value;

use crate::failure::Failure;
use crate::json;
use crate::output::Console;
use args::RunsCommand;

/// Does what a verb says.
///
/// # Errors
///
/// [`Failure`]; with `--json` it has been printed on standard output too.
pub(crate) async fn runs(command: &RunsCommand, console: &mut Console) -> Result<ExitCode, Failure> {
    let (is_json, ended) = match command {
        RunsCommand::List(args) => (args.json, list::list(args, console).await),
        RunsCommand::Show(args) => (args.json, show::show(args, console).await),
        // Prints its own failures.
        RunsCommand::Resume(args) => (false, resume::resume(args, console).await),
        RunsCommand::Fork(args) => (args.json, fork::fork(args, console).await),
        RunsCommand::Replay(args) => (args.json, replay::replay(args, console).await),
        RunsCommand::Verify(args) => (args.json, verify::verify(args, console).await),
        RunsCommand::Diff(args) => (args.json, diff::diff(args, console).await),
        RunsCommand::Export(args) => (false, transfer::export(args, console).await),
        RunsCommand::Import(args) => (args.json, transfer::import(args, console).await),
        RunsCommand::Prune(args) => (args.json, prune::prune(args, console).await),
    };
    if let Err(failure) = &ended
        && is_json
    {
        console.line(&json::failed(failure))?;
    }
    ended
}

/// Writes a value for a program.
fn json_line(console: &mut Console, value: &Value) -> Result<(), Failure> {
    Ok(console.line(&text::harmless(&value.to_string()))?)
}

/// An id that no run has: the time, and what the system gives to seed hash maps.
pub(crate) fn new_id() -> RunId {
    let mut random = [0; 10];
    let halves = [
        RandomState::new().hash_one(0_u8),
        RandomState::new().hash_one(1_u8),
    ];
    random[..8].copy_from_slice(&halves[0].to_be_bytes());
    random[8..].copy_from_slice(&halves[1].to_be_bytes()[..2]);
    RunId::from_parts(SystemClock.unix().0, random)
}
