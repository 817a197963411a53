//! The command line, as data.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use serde::{Deserialize, Serialize};

use crate::cache::args::{CacheArgs, CacheCommand};
use crate::runs::args::{ResumeArgs, RunName, RunsCommand, StoreArgs};

/// Ask a model about files, chat with it, and see which models are at hand.
///
/// Which model answers: --model, else PEREGRINE_MODEL, else the provider whose key is set (OPENAI_API_KEY,
/// ANTHROPIC_API_KEY, GEMINI_API_KEY, ..), else a local Ollama, else a small offline model that needs nothing and
/// quotes the passages that match. The choice and its reason are always printed.
#[derive(Debug, Parser)]
#[command(
    name = "peregrine",
    version,
    arg_required_else_help = true,
    max_term_width = 110
)]
#[command(
    after_help = "Exit status: 0 ok, 1 failed, 2 usage, 3 found what it looks for (prompt lint, plan check, runs verify, \
                  runs diff), 130 interrupted, 143 terminated."
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Answer a question, from files where some are given
    Ask(AskArgs),
    /// Answer one question after the other: a conversation
    Chat(ChatArgs),
    /// Show which providers are configured and reachable, and which model would answer
    Models(ModelsArgs),
    /// Look at recorded prompts: what keeps them out of the provider's prompt cache
    Prompt {
        #[command(subcommand)]
        command: PromptCommand,
    },
    /// Check or run a plan: steps that depend on each other
    Plan {
        #[command(subcommand)]
        command: PlanCommand,
    },
    /// Look at the runs that were kept, compare, move and remove them
    ///
    /// A run that is kept is a journal: every event is a record in it. Where runs are kept: --dir, --database-url, else the
    /// variables PEREGRINE_DATABASE_URL, PEREGRINE_RUNS_DIR, else peregrine/runs in $XDG_DATA_HOME or ~/.local/share.
    Runs {
        #[command(subcommand)]
        command: RunsCommand,
    },
    /// Look at the answers that `ask --cache` keeps, and remove them
    ///
    /// Where answers are kept: --cache-dir, --cache-url, else the variables PEREGRINE_CACHE_URL, PEREGRINE_CACHE_DIR, else
    /// peregrine/answers in $XDG_CACHE_HOME or ~/.cache.
    Cache {
        #[command(subcommand)]
        command: CacheCommand,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    /// The question; with --resume one that follows, or none to go on with the one before
    #[arg(value_parser = not_blank, required_unless_present = "resume")]
    pub(crate) question: Option<String>,
    /// Files and folders to answer from; without any, standard input is the document if it is not a terminal
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the answer as it arrives (the default on a terminal); with --json, a line for each event
    #[arg(long)]
    pub(crate) stream: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) durable: DurableArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// Files and folders to answer from
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(flatten)]
    pub(crate) durable: DurableArgs,
}

/// Whether a run is kept, and which one goes on.
#[derive(Debug, Clone, Args)]
pub(crate) struct DurableArgs {
    /// Keep the run, so that it goes on after whatever ends it (--resume); LEVEL says what it survives
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, require_equals = true, value_enum)]
    #[arg(default_missing_value = "process-safe")]
    pub(crate) durable: Option<Level>,
    /// Go on with a run that was kept: its id, a unique beginning or end of it, or `last`
    #[arg(long, value_name = "RUN")]
    pub(crate) resume: Option<RunName>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// What of a run survives what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Nothing is kept
    None,
    /// The end of the run, if it has one
    #[value(alias = "finish", alias = "on_finish")]
    OnFinish,
    /// kill -9, after every step
    #[value(alias = "process", alias = "process_safe")]
    ProcessSafe,
    /// A power cut, after every step
    #[value(alias = "power", alias = "power_safe")]
    PowerSafe,
}

#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PromptCommand {
    /// Name the first byte and field at which a prompt leaves the one before
    ///
    /// Providers charge a fraction for a prompt that begins with one that they have read. Exit status 3 if one does not,
    /// 0 if all do.
    Lint(LintArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    /// A file made with --record, or request bodies as JSON, one after the other; - is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// Show what waits for what, or everything that is wrong
    ///
    /// Ids, dependencies, cycles, references and actions are looked at; nothing runs. Exit status 3 if something is wrong,
    /// 0 if the plan can run.
    Check(PlanCheckArgs),
    /// Run a plan of the actions sleep, echo, fail, panic and check, and chart what became of it
    Run(PlanRunArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PlanCheckArgs {
    /// The plan: a JSON list of steps, or an object with it as `steps`; - is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Let steps ask for actions of any name: for plans that a program of yours runs
    #[arg(long)]
    pub(crate) any_action: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlanRunArgs {
    /// The plan: a JSON list of steps, or an object with it as `steps`; - is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// How many steps run at the same time
    #[arg(long, value_name = "N", default_value = "5")]
    pub(crate) max_parallel: NonZeroUsize,
    /// Run in virtual time: waiting takes none
    #[arg(long)]
    pub(crate) simulate: bool,
    /// Write a Gantt chart to a file
    #[arg(long, value_name = "SVG", value_hint = ValueHint::FilePath)]
    pub(crate) gantt: Option<PathBuf>,
    /// Print one JSON object instead of a chart
    #[arg(long)]
    pub(crate) json: bool,
    /// Say nothing but the outcome and errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// What `ask` and `chat` have in common.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RunArgs {
    /// The model, as PROVIDER/MODEL (openai/gpt-5-mini, ollama/llama3.2:1b), PROVIDER, or `offline`
    #[arg(long, short, value_parser = not_blank)]
    pub(crate) model: Option<String>,
    /// The address of the provider, or of a compatible server
    #[arg(long, value_name = "URL", value_parser = not_blank)]
    pub(crate) base_url: Option<String>,
    /// How often the model is asked for one answer
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) max_steps: u32,
    /// How long each output of the model may be, in tokens
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_tokens: Option<u32>,
    /// What one answer may use: a number of tokens, or JSON: {"tokens"?, "cost_nano_usd"?, "tool_calls"?}
    #[arg(long, value_name = "BUDGET", value_parser = budget)]
    pub(crate) budget: Option<Allotment>,
    /// How random the model is; 0 is the least
    #[arg(long, value_name = "T", value_parser = temperature)]
    pub(crate) temperature: Option<f64>,
    /// Instructions for the model, added to the built-in ones
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// How long one answer may take, in seconds [default: 300]
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Append every exchange with the model to a file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "replay")]
    pub(crate) record: Option<PathBuf>,
    /// Answer from a recording instead of calling the model
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) replay: Option<PathBuf>,
    /// Say what happens: steps, tools, usage
    #[arg(long, short, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// Say nothing but the answer and errors (and that the offline model answers, if nobody asked for it)
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// What one answer may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Allotment {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cost_nano_usd: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tool_calls: Option<u64>,
}

impl AskArgs {
    /// The same as `runs resume`.
    pub(crate) fn resumed(&self, name: &RunName) -> ResumeArgs {
        let Self {
            question: _,
            paths,
            json,
            stream,
            run,
            durable,
            cache: _,
        } = self;
        ResumeArgs {
            name: name.clone(),
            paths: paths.clone(),
            resolve: Vec::new(),
            not_carried_out: Vec::new(),
            take_over: false,
            json: *json,
            stream: *stream,
            run: run.clone(),
            store: durable.store.clone(),
        }
    }
}

impl RunArgs {
    /// How long one answer may take.
    pub(crate) fn wall_time(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(300))
    }
}

/// A number of tokens, or limits by name.
pub(crate) fn budget(text: &str) -> Result<Allotment, String> {
    match text.parse() {
        Ok(tokens) => Ok(Allotment {
            tokens: Some(tokens),
            ..Allotment::default()
        }),
        // A list would be taken for an object without its keys.
        Err(_) if !text.trim_start().starts_with('{') => {
            Err("a number of tokens or a JSON object is expected".to_owned())
        }
        Err(_) => serde_json::from_str(text).map_err(|error| error.to_string()),
    }
}

pub(crate) fn not_blank(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("a number from 0 on is expected, such as 0.2".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let day = 86_400.0;
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= day => Ok(Duration::from_secs_f64(value)),
        _ => Err("a number of seconds above 0 and up to 86400 is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn budgets_are_tokens_or_named() {
        assert_eq!(budget("700").unwrap().tokens, Some(700));
        let named = budget("{\"cost_nano_usd\": 5, \"tool_calls\": 0}").unwrap();
        assert_eq!(
            (named.tokens, named.cost_nano_usd, named.tool_calls),
            (None, Some(5), Some(0))
        );
        for bad in ["", "-1", "{\"steps\": 1}", "[1]", "x"] {
            assert!(budget(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_checked() {
        for bad in ["-1", "nan", "inf", "x", ""] {
            assert!(temperature(bad).is_err(), "{bad}");
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert_eq!(temperature("0"), Ok(0.0));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("0").is_err() && seconds("1e300").is_err());
    }
}
