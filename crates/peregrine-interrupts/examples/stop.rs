//! Agents below agents, each with a child process. Press Ctrl-C once and they finish; twice, and they are gone.
//!
//! `cargo run -p peregrine-interrupts --example stop --all-features`

#![allow(clippy::print_stdout, reason = "an example")]

use std::process::Stdio;
use std::time::Duration;

use peregrine_interrupts::process::ProcessGroup;
use peregrine_interrupts::{Budget, Error, Kind, Limits, Scope, TokioTimer, Unit, signal};
use tokio::process::Command;

/// Works step by step; the agent below it works meanwhile.
async fn agent(scope: &Scope, depth: usize) -> Result<(), Error> {
    let below = async {
        if depth > 1 {
            let below = scope.child(Kind::Agent, format!("agent {}", depth - 1));
            Box::pin(agent(&below, depth - 1)).await?;
        }
        Ok(())
    };
    let steps = async {
        loop {
            scope.check()?;
            let tool = scope.child(Kind::Tool, "sleep");
            let mut command = Command::new("sh");
            command
                .args(["-c", "sleep 1 & sleep 1; wait"])
                .stdin(Stdio::null());
            ProcessGroup::spawn(&tool, command)?.wait().await?;
            scope.charge(&Unit::TOOL_CALLS, 1);
            println!("{} finished a step", scope.info());
        }
    };
    // Not `try_join`, which drops the one when the other ends: each finishes its step.
    let (below, steps): (Result<(), Error>, Result<(), Error>) = tokio::join!(below, steps);
    below.and(steps)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let limits = Limits::new()
        .with_time(Duration::from_secs(60))
        .with_budget(Budget::new(Unit::TOOL_CALLS, 30))
        .with_grace(Duration::from_secs(10));
    let run = Scope::root_with("stop", TokioTimer::new(), limits);
    let listening = signal::subscribe(&run)?;
    let mut warnings = run.warnings();
    let warn = async {
        while let Some(warning) = warnings.next().await {
            println!("{warning}");
        }
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = agent(&run, 3) => outcome,
        () = warn => Ok(()),
    };
    drop(listening);
    if let Err(error) = outcome {
        println!("{error}");
    }
    println!("left in the tree: {} scope", run.tree_len());
    Ok(())
}
