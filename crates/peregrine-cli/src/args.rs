//! The command line, as data.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

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
    after_help = "Exit status: 0 ok, 1 failed, 2 usage, 3 found what it looks for (prompt lint), 130 interrupted, 143 terminated."
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
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    /// The question
    #[arg(value_parser = not_blank)]
    pub(crate) question: String,
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
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// Files and folders to answer from
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
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

/// What `ask` and `chat` have in common.
#[derive(Debug, Clone, Args)]
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

impl RunArgs {
    /// How long one answer may take.
    pub(crate) fn wall_time(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(300))
    }
}

fn not_blank(text: &str) -> Result<String, String> {
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
