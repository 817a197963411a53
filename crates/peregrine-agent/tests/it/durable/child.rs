//! Processes that can be killed: this test program again, with one test in it that acts on the environment.
//!
//! Protocol: a line on standard output for each thing that happened, after it happened: `READY`, `PAUSED` (for ever, in
//! the middle of a tool), `DOUBT done|not`, `DONE text`, `ERROR code message`.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use peregrine_agent::durable::{Resolution, RunStatus};
use peregrine_agent::{Agent, Error, Input, Limits, More};
use peregrine_checkpoints::{Checkpoints, Error as StoreError, Options, SnapshotPolicy};
use peregrine_core::{Effect, JsonSchema, RunId, ToolSpec};
use peregrine_tools::{FnTool, Tool, ToolContext, ToolError, ToolInfo};

use super::support::scope;
use crate::support::{Script, calls, results, text};

const URI: &str = "PEREGRINE_TEST_AGENT_URI";
const RUN: &str = "PEREGRINE_TEST_AGENT_RUN";
const LEDGER: &str = "PEREGRINE_TEST_AGENT_LEDGER";
const SEED: &str = "PEREGRINE_TEST_AGENT_SEED";
const PAUSE: &str = "PEREGRINE_TEST_AGENT_PAUSE";

/// How many turns with tools a run has; each of them calls three.
pub(crate) const TURNS: usize = 5;

pub(crate) fn id(run: u64) -> RunId {
    RunId::from_parts(run + 1, [3; 10])
}

/// Starts this program as a child. It pauses in its call of a tool with the number `pause`: before it writes into the
/// ledger if that is even, after it if it is odd.
pub(crate) fn spawn(
    uri: &str,
    ledger: &str,
    run: u64,
    seed: u64,
    pause: Option<u64>,
) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "durable::child::acts",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(URI, uri)
        .env(LEDGER, ledger)
        .env(RUN, run.to_string())
        .env(SEED, seed.to_string())
        .env(PAUSE, pause.map_or_else(String::new, |pause| pause.to_string()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// The next line of the protocol; `None` when the child is gone.
pub(crate) fn line(output: &mut BufReader<ChildStdout>) -> Option<String> {
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
            return None;
        }
        // The test harness talks too.
        let line = line.trim_end().rsplit(" ... ").next().unwrap_or_default();
        if ["READY", "PAUSED", "DOUBT ", "DONE ", "ERROR "]
            .iter()
            .any(|word| line.starts_with(word))
        {
            return Some(line.to_owned());
        }
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever closed the pipe kills this process next.
    let _closed = out
        .write_all(format!("{text}\n").as_bytes())
        .and_then(|()| out.flush());
}

/// A moment, at random.
async fn moment(most: u64) {
    let micros = fastrand::u64(..most);
    if micros > 50 {
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}

/// Pauses for ever, if this is the moment.
async fn pause(moment: u64) {
    if std::env::var(PAUSE).is_ok_and(|pause| pause == moment.to_string()) {
        say("PAUSED");
        std::future::pending::<()>().await;
    }
}

/// Writes a line into the ledger, which is the world, and makes sure that it is there.
fn writing(name: &'static str, effect: Effect, ledger: String) -> impl Tool {
    let info = ToolInfo::new(ToolSpec::new(name, "Acts.", JsonSchema::empty_object())).with_effect(effect);
    FnTool::raw(info, move |context: ToolContext, _| {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let ledger = ledger.clone();
        async move {
            let call = CALLS.fetch_add(1, Ordering::Relaxed);
            moment(600).await;
            pause(2 * call).await;
            let mut file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(&ledger)
                .unwrap();
            file.write_all(format!("{name} {}\n", context.idempotency_key).as_bytes())
                .unwrap();
            file.sync_data().unwrap();
            pause(2 * call + 1).await;
            moment(600).await;
            Ok::<_, ToolError>(format!("{name} is done"))
        }
    })
}

pub(crate) fn agent(checkpoints: Checkpoints, ledger: &str) -> Agent {
    let limits = Limits {
        max_steps: 100_000,
        ..Limits::default()
    };
    let model = Script::new(|request, _| {
        Ok(match results(request).len() {
            seen if seen < 3 * TURNS => calls(&[("look", "{}"), ("put", "{}"), ("pay", "{}")]),
            _ => text("All is done."),
        })
    });
    Agent::new(model)
        .with_scope(scope())
        .with_limits(limits)
        .with_tool(writing("look", Effect::ReadOnly, ledger.to_owned()))
        .with_tool(writing("put", Effect::Idempotent, ledger.to_owned()))
        .with_tool(writing("pay", Effect::SideEffect, ledger.to_owned()))
        .with_allowed("put")
        .with_allowed("pay")
        .with_checkpoints(checkpoints)
}

pub(crate) fn lines(ledger: &str) -> Vec<String> {
    match File::open(ledger) {
        Ok(file) => BufReader::new(file).lines().map(Result::unwrap).collect(),
        Err(_) => Vec::new(),
    }
}

/// Does nothing as a test; as a child, what its environment says.
#[test]
fn acts() {
    let Ok(uri) = std::env::var(URI) else { return };
    let variable = |name: &str| std::env::var(name).unwrap();
    fastrand::seed(variable(SEED).parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let run = id(variable(RUN).parse().unwrap());
    if let Err(error) = runtime.block_on(act(&uri, &variable(LEDGER), run)) {
        say(&format!("ERROR {} {error}", error.code()));
    }
}

async fn act(uri: &str, ledger: &str, run: RunId) -> Result<(), Error> {
    let mut options = Options::default();
    options.snapshots = SnapshotPolicy::every_records(17);
    let checkpoints = Checkpoints::open(uri, options).await?;
    let agent = agent(checkpoints, ledger);
    say("READY");
    loop {
        let outcome = match agent.load(run).await {
            Ok(stored) if stored.status() != RunStatus::New => {
                let mut stored = stored;
                for doubt in stored.in_doubt() {
                    // Whoever settles it looks into the world.
                    let was_done = lines(ledger).iter().any(|line| line.ends_with(&doubt.key));
                    let resolution = match was_done {
                        true => Resolution::from(format!("{} is done", doubt.tool_call.name)),
                        false => Resolution::NotCarriedOut,
                    };
                    match stored.resolve(doubt.call, resolution).await {
                        Ok(()) => say(if was_done { "DOUBT done" } else { "DOUBT not" }),
                        // A lease of the one that was killed; or another look is needed.
                        Err(Error::Checkpoints(StoreError::Leased { .. }) | Error::Config(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
                stored.resume(More::default()).await
            }
            Ok(_) | Err(Error::Checkpoints(StoreError::NotFound { .. })) => {
                agent.run(Input::from("Do it all.").with_run_id(run)).await
            }
            Err(error) => return Err(error),
        };
        match outcome {
            Ok(output) => {
                say(&format!("DONE {}", output.text()));
                return Ok(());
            }
            Err(error) => match error.error() {
                Error::InDoubt(_) => {}
                Error::Checkpoints(StoreError::Leased { .. }) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                _ => return Err(error.into_error()),
            },
        }
    }
}
