//! `peregrine-probe`: every capability as a small command that reads and writes JSON lines.
//!
//! Invariant: one JSON object a line on standard output, logs on standard error, and an exit status that tells:
//! 0 ok, 2 usage, 3 a typed failure, whose last line is `{"error": {..}}`. `docs/probe.md` documents it.

#![allow(clippy::print_stderr, reason = "a command talks to its user there")]

mod agent;
mod approve;
mod cache;
mod chat;
mod ckpt;
mod failure;
mod limiter;
mod output;
mod plan;
mod provider;
mod request;
mod script;
mod tools;
mod version;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use peregrine_core::{Error, TimeoutStage, TransportError};

use crate::failure::Failure;
use crate::output::Output;

/// Drives Peregrine from scripts and other languages: JSON lines in, JSON lines out.
#[derive(Debug, Parser)]
#[command(name = "peregrine-probe", version)]
struct Arguments {
    /// Fail with a timeout error after this many milliseconds.
    #[arg(long, global = true, value_name = "MS")]
    timeout_ms: Option<u64>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print versions, enabled features and what the kernel offers for sandboxes.
    Version(version::Arguments),
    /// Send one chat request, given as a JSON object on standard input.
    Chat(chat::Arguments),
    /// Run an agent with built-in tools on the request on standard input.
    Agent(agent::Arguments),
    /// Send the requests on standard input, one a line, through a cache.
    Cache(cache::Arguments),
    /// Write, verify, load, fork, resume and replay the journals of runs.
    #[command(subcommand)]
    Ckpt(ckpt::Command),
    /// Ask a limiter, local or shared through Redis, with JSON lines on standard input.
    Limiter(limiter::Arguments),
    /// Run a plan of steps that depend on each other.
    Plan(plan::Arguments),
}

fn main() -> ExitCode {
    // The only failure is that somebody installed one before, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Arguments { timeout_ms, command } = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("peregrine-probe: the runtime could not be started: {error}");
            return ExitCode::from(1);
        }
    };
    let mut output = Output::stdout();
    let result = runtime.block_on(async {
        let work = run(command, &mut output);
        match timeout_ms.map(Duration::from_millis) {
            None => work.await,
            Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                let late = TransportError::timeout(TimeoutStage::Total, limit, "the command");
                Err(Error::from(late).into())
            }),
        }
    });
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(3)
        }
    }
}

async fn run(command: Command, output: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Version(arguments) => Ok(version::run(&arguments, output).await?),
        Command::Chat(arguments) => Ok(chat::run(arguments, output).await?),
        Command::Agent(arguments) => agent::run(arguments, output).await,
        Command::Cache(arguments) => cache::run(arguments, output).await,
        Command::Ckpt(command) => ckpt::run(command, output).await,
        Command::Limiter(arguments) => Ok(limiter::run(arguments, output).await?),
        Command::Plan(arguments) => Ok(plan::run(arguments, output).await?),
    }
}
