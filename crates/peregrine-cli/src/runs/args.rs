//! The command line of `peregrine runs`, as data.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueHint};
use peregrine::checkpoints::RunKey;
use peregrine::core::{RunId, Scope, Secret};

use crate::args::{Allotment, RunArgs, budget};

#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// List runs, the newest first
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show the records of a run
    Show(ShowArgs),
    /// Go on with a run that was kept
    ///
    /// The same model, address and files answer as before, if this user asked (what a journal says of them counts only with
    /// this user's seal); else they are given again. What was done is not done again; a run that is over gives the answer
    /// that it had.
    Resume(Box<ResumeArgs>),
    /// Begin a run that shares the first records of another, and differs from there
    ///
    /// Nothing is copied and nothing runs yet: `runs resume` goes on with the fork, whose id is printed. What the shared
    /// records say was done is not done again.
    Fork(ForkArgs),
    /// Go through a run once more, from its records alone, and print its answer
    ///
    /// No model is asked and no tool is called. What the run would ask for is compared with what was recorded; the first
    /// record that differs is an error.
    Replay(ReplayArgs),
    /// Read everything of one run, or of all, and say what is damaged
    ///
    /// Damage is named by file (or row) and offset; the exit status is 3 then. An end that a crash left unfinished is told
    /// and is no damage: going on with the run cuts it.
    Verify(VerifyArgs),
    /// Show where two runs part
    ///
    /// Times are not compared. The exit status is 3 if the runs differ.
    Diff(DiffArgs),
    /// Write a run as JSON lines, with what it shares with others
    Export(ExportArgs),
    /// Make a run of the JSON lines that export wrote
    Import(ImportArgs),
    /// Remove old runs
    ///
    /// A run stays if no limit excludes it. A run that is being written stays, and so do records that a kept fork shares.
    Prune(PruneArgs),
}

/// Which store, and whose runs.
///
/// Without an option the variables decide: PEREGRINE_DATABASE_URL, then PEREGRINE_RUNS_DIR.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Where runs are kept")]
pub(crate) struct StoreArgs {
    /// Keep runs in a directory [default: $PEREGRINE_RUNS_DIR, else peregrine/runs in $XDG_DATA_HOME or ~/.local/share]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath, conflicts_with = "database_url")]
    pub(crate) dir: Option<PathBuf>,
    /// Keep runs in a database: sqlite:PATH or postgres://.. [default: $PEREGRINE_DATABASE_URL, which hides a password]
    // It is looked at later: here an error would print it.
    #[arg(long, value_name = "URL", value_parser = secret)]
    pub(crate) database_url: Option<Secret>,
    /// Whose runs
    #[arg(long, value_name = "TENANT[/SESSION]", default_value = "local", value_parser = scope)]
    pub(crate) scope: Scope,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How many runs
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
    /// Only runs older than this one: the next page
    #[arg(long, value_name = "RUN")]
    pub(crate) before: Option<RunName>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The run: its id, a unique beginning or end of it, or `last`
    pub(crate) run: RunName,
    /// Begin with this record
    #[arg(long, value_name = "SEQ")]
    pub(crate) from: Option<u64>,
    /// Only what comes before this record
    #[arg(long, value_name = "SEQ")]
    pub(crate) upto: Option<u64>,
    /// Show payloads too
    #[arg(long)]
    pub(crate) full: bool,
    /// Print a JSON object for each record
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The run: its id, a unique beginning or end of it, or `last`
    #[arg(value_name = "RUN")]
    pub(crate) name: RunName,
    /// Files and folders to answer from [default: those of before]
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    /// Say what came of a tool call that is in doubt, as the model will be told it: 3="paid, receipt 17"
    #[arg(long, value_name = "CALL=RESULT", value_parser = resolution)]
    pub(crate) resolve: Vec<(u64, String)>,
    /// Say that a tool call that is in doubt was not carried out; it is made when the run goes on
    #[arg(long, value_name = "CALL")]
    pub(crate) not_carried_out: Vec<u64>,
    /// Take the run from whoever works on it and is known to hang
    #[arg(long)]
    pub(crate) take_over: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the answer as it arrives (the default on a terminal); with --json, a line for each event
    #[arg(long)]
    pub(crate) stream: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ForkArgs {
    /// The run
    pub(crate) run: RunName,
    /// Share the records before this one, as `runs show` numbers them [default: all]
    #[arg(long, value_name = "SEQ")]
    pub(crate) at: Option<u64>,
    /// What is different: prompt (the question, where no model has answered yet), system, model, base_url, budget (as
    /// --budget), max_steps, max_tool_calls, or result.CALL (what a tool returned, by the model's id of the call)
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub(crate) set: Vec<Setting>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The run
    pub(crate) run: RunName,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The run; all of them if it is not given
    pub(crate) run: Option<RunName>,
    /// Print a JSON object for each run
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// One run
    pub(crate) left: RunName,
    /// The other
    pub(crate) right: RunName,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The run
    pub(crate) run: RunName,
    /// A file that does not exist yet, instead of standard output
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The lines; - is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// The id of the new run, or `new` for a new id [default: the id it had]
    #[arg(long = "as", value_name = "RUN", value_parser = import_id)]
    pub(crate) id: Option<ImportId>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("limits").required(true).multiple(true).args(["older_than", "keep", "max_bytes"]))]
pub(crate) struct PruneArgs {
    /// Remove runs that were not written for so long: 90s, 15m, 12h, 30d, 2w
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) older_than: Option<Duration>,
    /// Keep only the N runs that were written last
    #[arg(long, value_name = "N")]
    pub(crate) keep: Option<usize>,
    /// Keep only as many of the runs written last as have so many bytes together: 500000, 20K, 64M, 2G
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) max_bytes: Option<u64>,
    /// Say what would go, and remove nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    /// Do not ask; without a terminal nothing is asked anyway
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// A run, as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RunName {
    /// The one that was written last.
    Last,
    /// The one with this id.
    Id(RunId),
    /// The only one whose id begins or ends so.
    Part(String),
}

impl RunName {
    /// The run, if nothing needs to be looked up.
    pub(crate) fn key(&self, scope: &Scope) -> Option<RunKey> {
        match self {
            Self::Id(run) => Some(RunKey::new(scope.clone(), *run)),
            Self::Last | Self::Part(_) => None,
        }
    }
}

impl std::str::FromStr for RunName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "last" {
            return Ok(Self::Last);
        }
        if let Ok(run) = text.parse() {
            return Ok(Self::Id(run));
        }
        match (4..26).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            true => Ok(Self::Part(text.to_ascii_uppercase())),
            false => Err("a run is named by its id of 26 characters, four or more of its first or last ones, or `last`"
                .to_owned()),
        }
    }
}

/// What an imported run is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImportId {
    New,
    Given(RunId),
}

/// What a fork does differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Setting {
    Prompt(String),
    System(String),
    Model(String),
    BaseUrl(String),
    Budget(Allotment),
    MaxSteps(u32),
    MaxToolCalls(u32),
    Result(String, String),
}

fn setting(text: &str) -> Result<Setting, String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is expected")?;
    let number = || {
        let number = value.parse().map_err(|_| format!("{key} is a number"));
        number.and_then(|number| {
            if number > 0 {
                Ok(number)
            } else {
                Err(format!("{key} is at least 1"))
            }
        })
    };
    let text = || match value.trim() {
        "" => Err(format!("{key} is empty")),
        _ => Ok(value.to_owned()),
    };
    Ok(match (key, key.strip_prefix("result.")) {
        ("prompt", _) => Setting::Prompt(text()?),
        ("system", _) => Setting::System(value.to_owned()),
        ("model", _) => Setting::Model(text()?),
        ("base_url", _) => Setting::BaseUrl(text()?),
        ("budget", _) => Setting::Budget(budget(value)?),
        ("max_steps", _) => Setting::MaxSteps(number()?),
        ("max_tool_calls", _) => Setting::MaxToolCalls(number()?),
        (_, Some(call)) if !call.is_empty() => Setting::Result(call.to_owned(), value.to_owned()),
        _ => {
            return Err(format!(
                "{key} is not known; there are prompt, system, model, base_url, budget, max_steps, max_tool_calls and \
                 result.CALL"
            ));
        }
    })
}

fn resolution(text: &str) -> Result<(u64, String), String> {
    text.split_once('=')
        .and_then(|(call, result)| Some((call.parse().ok()?, result.to_owned())))
        .ok_or_else(|| "a call's number and its result are expected, such as 3=\"it was sent\"".to_owned())
}

fn import_id(text: &str) -> Result<ImportId, String> {
    match text {
        "new" => Ok(ImportId::New),
        text => text
            .parse()
            .map(ImportId::Given)
            .map_err(|error| format!("{error}; give an id of 26 characters, or `new`")),
    }
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "clap asks for the form of a parser that can fail"
)]
pub(crate) fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(text))
}

/// `TENANT` or `TENANT/SESSION`.
pub(crate) fn scope(text: &str) -> Result<Scope, String> {
    let scope = match text.split_once('/') {
        Some((tenant, session)) => Scope::new(tenant, session),
        None => Scope::tenant(text),
    };
    scope.map_err(|error| error.to_string())
}

/// The form of [`scope`].
pub(crate) fn scope_name(scope: &Scope) -> String {
    match &scope.session {
        Some(session) => format!("{}/{}", scope.tenant.as_str(), session.as_str()),
        None => scope.tenant.as_str().to_owned(),
    }
}

pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let expected = || "a number and a unit are expected, such as 90s, 15m, 12h, 30d or 2w".to_owned();
    let (number, unit) = split(text).ok_or_else(expected)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(expected()),
    };
    number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(|| "that is too long".to_owned())
}

fn bytes(text: &str) -> Result<u64, String> {
    let expected = || "a number of bytes is expected, such as 500000, 20K, 64M or 2G".to_owned();
    let (number, unit) = split(text).ok_or_else(expected)?;
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(expected()),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "that is too much".to_owned())
}

/// A number and what follows it.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_have_units() {
        assert_eq!(age("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(age("0s"), Ok(Duration::ZERO));
        for bad in [
            "",
            "30",
            "d",
            "-1d",
            "1.5h",
            "30 d",
            "1y",
            "99999999999999999999d",
            "18446744073709551615w",
        ] {
            assert!(age(bad).is_err(), "{bad}");
        }
        assert_eq!(bytes("500000"), Ok(500_000));
        assert_eq!(bytes("20K"), Ok(20 << 10));
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        for bad in ["", "G", "-1", "1.5G", "1X", "18446744073709551615T"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn runs_have_names() {
        assert_eq!("last".parse(), Ok(RunName::Last));
        assert_eq!("w3ge".parse(), Ok(RunName::Part("W3GE".to_owned())));
        let id = "01HF7YAT000W3GE1R70W3GE1R7";
        assert_eq!(id.parse(), Ok(RunName::Id(id.parse().unwrap())));
        for bad in [
            "",
            "abc",
            "ab/cd",
            "01HF7YAT000W3GE1R70W3GE1R7X",
            "\u{e9}\u{e9}\u{e9}",
        ] {
            assert!(bad.parse::<RunName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_fork_sets_has_a_key_that_is_known() {
        assert_eq!(setting("prompt=a=b"), Ok(Setting::Prompt("a=b".to_owned())));
        assert_eq!(setting("max_steps=3"), Ok(Setting::MaxSteps(3)));
        assert_eq!(
            setting("result.c1="),
            Ok(Setting::Result("c1".to_owned(), String::new()))
        );
        for bad in [
            "prompt",
            "prompt= ",
            "steps=1",
            "max_steps=0",
            "max_steps=x",
            "result.=x",
            "budget=x",
            "=x",
        ] {
            assert!(setting(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scopes_are_read_as_they_are_shown() {
        for name in ["local", "acme/ticket-17", "acme/a/b"] {
            assert_eq!(scope_name(&scope(name).unwrap()), name);
        }
        assert!(scope("").is_err() && scope("acme/").is_err() && scope("/x").is_err());
    }
}
