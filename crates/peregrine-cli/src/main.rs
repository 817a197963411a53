//! The `peregrine` command: from arguments to a command, from its end to an exit status.
//!
//! | file | what |
//! |---|---|
//! | `args` | the command line as data |
//! | `ask`, `chat`, `models`, `lint`, `plan` | the commands |
//! | `cache` | the answers that are kept: taken, counted, removed |
//! | `runs` | the runs that were kept: looked at, gone on with, compared, moved, removed |
//! | `run`, `view` | one run of the agent, followed to its end, and what is shown of it |
//! | `files` | read-only tools confined to the given paths |
//! | `model` | which model answers, and why |
//! | `chat_log` | the journal of a chat |
//! | `keep` | runs that are kept while they go on |
//! | `command` | with what a kept run was asked, sealed |
//! | `prompt` | what the model is told |
//! | `output`, `json` | what people see, what programs see |
//! | `interrupt`, `failure` | Ctrl-C and SIGTERM, and what can go wrong |

mod args;
mod ask;
mod cache;
mod chat;
mod chat_log;
mod command;
mod failure;
mod files;
mod interrupt;
mod json;
mod keep;
mod lint;
mod model;
mod models;
mod output;
mod plan;
mod prompt;
mod run;
mod runs;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Command, CommandLine, PlanCommand, PlanRunArgs, PromptCommand, RunArgs};
use failure::Failure;
use output::{Console, Verbosity};
use runs::args::RunsCommand;

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    // One TLS provider for the process, whatever else is linked. An error only says that there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut console = Console::new(verbosity(&command));
    // One thread is enough: a run waits for one model at a time. Disks have the few blocking threads.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(run(command, &mut console));
            // A read of standard input or of a dead disk must not keep the process alive.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(Failure::io(&error)),
    };
    match ended {
        Ok(code) => code,
        Err(failure) => {
            console.failure(&failure);
            failure.exit_code()
        }
    }
}

async fn run(command: Command, console: &mut Console) -> Result<ExitCode, Failure> {
    match command {
        Command::Ask(args) => ask::ask(&args, console).await?,
        Command::Chat(args) => chat::chat(args, console).await?,
        Command::Models(args) => models::models(args.json, console).await?,
        Command::Prompt {
            command: PromptCommand::Lint(args),
        } => return lint::lint(&args, console),
        Command::Plan {
            command: PlanCommand::Check(args),
        } => return plan::check(&args, console).await,
        Command::Plan {
            command: PlanCommand::Run(args),
        } => return plan::run(&args, console).await,
        Command::Cache { command } => return cache::cache(&command, console).await,
        Command::Runs { command } => return runs::runs(&command, console).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "peregrine", &mut script);
            console.line(String::from_utf8_lossy(&script).trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn verbosity(command: &Command) -> Verbosity {
    let run: Option<&RunArgs> = match command {
        Command::Ask(args) => Some(&args.run),
        Command::Chat(args) => Some(&args.run),
        Command::Plan {
            command: PlanCommand::Run(PlanRunArgs { quiet: true, .. }),
        } => return Verbosity::Quiet,
        Command::Runs {
            command: RunsCommand::Resume(args),
        } => Some(&args.run),
        Command::Models(_)
        | Command::Prompt { .. }
        | Command::Plan { .. }
        | Command::Runs { .. }
        | Command::Cache { .. }
        | Command::Completions { .. } => None,
    };
    match run {
        Some(RunArgs { quiet: true, .. }) => Verbosity::Quiet,
        Some(RunArgs { verbose: true, .. }) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    }
}
