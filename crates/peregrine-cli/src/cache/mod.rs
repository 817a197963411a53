//! `peregrine cache`: the answers that `ask --cache` keeps, counted and removed.
//!
//! | file | what |
//! |---|---|
//! | `args` | the command line as data |
//! | `place` | which store |
//! | `around` | the cache around a model, for `ask` |
//! | `stats`, `clear` | the verbs |
//!
//! Invariants: looking makes no store; a URL is never shown, because it may hold a password.

pub(crate) mod args;
pub(crate) mod around;
mod clear;
mod place;
mod stats;

use std::process::ExitCode;

use crate::failure::Failure;
use crate::json;
use crate::output::Console;
use args::CacheCommand;

/// Does what a verb says.
///
/// # Errors
///
/// [`Failure`]; with `--json` it has been printed on standard output too.
pub(crate) async fn cache(command: &CacheCommand, console: &mut Console) -> Result<ExitCode, Failure> {
    let (is_json, ended) = match command {
        CacheCommand::Stats(args) => (args.json, stats::stats(args, console).await),
        CacheCommand::Clear(args) => (args.json, clear::clear(args, console).await),
    };
    if let Err(failure) = &ended
        && is_json
    {
        console.line(&json::failed(failure))?;
    }
    ended
}
