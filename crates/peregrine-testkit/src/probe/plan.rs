//! `plan run`: runs a plan of the built-in actions, in real or in virtual time.

use std::future::IntoFuture as _;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use peregrine_core::{Error, Result};
use peregrine_executor::{
    CheckRecord, Event, Executor, Order, Plan, Report, StepRecord, StepState, TokioTimer, VirtualTimer,
    builtin,
};
use serde_json::{Map, Value, json};

use crate::output::Output;

/// How much of the file is read.
const MAX_PLAN_BYTES: u64 = 256 << 20;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a plan of the built-in actions sleep, echo, fail, panic and check, and print what becomes of each step.
    Run(Run),
}

#[derive(Debug, Args)]
struct Run {
    /// The plan: a JSON list of steps, or an object with it as `steps`.
    file: PathBuf,
    /// How many steps run at the same time.
    #[arg(long, default_value_t = NonZeroUsize::new(peregrine_executor::DEFAULT_MAX_PARALLEL).unwrap_or(NonZeroUsize::MIN))]
    max_parallel: NonZeroUsize,
    /// Run in virtual time: waiting takes none.
    #[arg(long)]
    simulate: bool,
    /// In which order steps may start.
    #[arg(long, value_enum, default_value_t = GivenOrder::Dataflow)]
    order: GivenOrder,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GivenOrder {
    Dataflow,
    Levels,
    Sequential,
}

pub(crate) async fn run(arguments: Arguments, output: &mut Output) -> Result<()> {
    let Command::Run(arguments) = arguments.command;
    let invalid = |error: peregrine_executor::PlanError| Error::invalid_request(error.to_string());
    let plan = Plan::from_json(&read(&arguments.file)?).map_err(invalid)?;
    let executor = if arguments.simulate {
        Executor::new(builtin::actions(), VirtualTimer::new())
    } else {
        Executor::new(builtin::actions(), TokioTimer::new())
    };
    let executor = executor
        .with_max_parallel(arguments.max_parallel.get())
        .with_order(match arguments.order {
            GivenOrder::Dataflow => Order::Dataflow,
            GivenOrder::Levels => Order::Levels,
            GivenOrder::Sequential => Order::Sequential,
        });
    let mut written = Ok(());
    let mut observer = |event: &Event<'_>| {
        if written.is_ok()
            && let Some(line) = line(event)
        {
            written = output.line(&line);
        }
    };
    let report = executor.run(&plan).observed_by(&mut observer).into_future().await;
    let report = report.map_err(invalid)?;
    written?;
    output.line(&summary(&report))
}

fn read(path: &Path) -> Result<String> {
    let refuse = |source: std::io::Error| {
        Error::invalid_request(format!("the plan {} could not be read: {source}", path.display()))
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(refuse)?;
    file.take(MAX_PLAN_BYTES)
        .read_to_string(&mut text)
        .map_err(refuse)?;
    Ok(text)
}

/// What is printed of an event, if anything.
fn line(event: &Event<'_>) -> Option<Value> {
    match event {
        Event::Ended { record, .. } => Some(step(record)),
        Event::Checked { step, record, .. } => Some(check(step, record)),
        _ => None,
    }
}

fn step(record: &StepRecord) -> Value {
    let mut line = Map::new();
    line.insert("id".into(), json!(record.id));
    line.insert(
        "start_ms".into(),
        milliseconds(record.started_at.unwrap_or(record.ended_at)),
    );
    line.insert("end_ms".into(), milliseconds(record.ended_at));
    line.insert("state".into(), json!(record.state));
    line.insert("attempts".into(), json!(record.attempts));
    line.insert("queued_ms".into(), milliseconds(record.queued()));
    if let Some(cause) = &record.cause {
        line.insert("cause".into(), json!(cause.to_string()));
        line.insert("cause_kind".into(), json!(cause.kind()));
        if let Some(root) = cause.root() {
            line.insert("caused_by".into(), json!(root));
        }
    }
    if let Some(result) = &record.result {
        line.insert("result".into(), result.clone());
    }
    Value::Object(line)
}

fn check(step: &str, record: &CheckRecord) -> Value {
    json!({"check": {
        "step": step,
        "action": record.action,
        "policy": record.policy,
        "start_ms": milliseconds(record.started_at.unwrap_or(record.ended_at)),
        "end_ms": milliseconds(record.ended_at),
        "state": record.state,
        "cause": record.cause.as_ref().map(ToString::to_string),
    }})
}

fn summary(report: &Report) -> Value {
    let states = [
        StepState::Succeeded,
        StepState::Failed,
        StepState::Skipped,
        StepState::Cancelled,
    ];
    let counts: Map<String, Value> = states
        .map(|state| (state.name().to_owned(), json!(report.count(state))))
        .into_iter()
        .collect();
    json!({
        "makespan_ms": milliseconds(report.makespan),
        "critical_path_ms": milliseconds(report.critical_path),
        "outcome": report.outcome.name(),
        "steps": counts,
        "critical_path": report.critical_steps,
        "work_ms": milliseconds(report.work),
        "queued_ms": milliseconds(report.queued),
        "lower_bound_ms": milliseconds(report.lower_bound()),
        "speed_up": report.speed_up(),
        "parallelism": report.parallelism(),
        "peak_parallel": report.peak_parallel,
        "max_parallel": report.max_parallel,
    })
}

/// To the microsecond; whole milliseconds without a fraction.
fn milliseconds(time: Duration) -> Value {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    if micros.is_multiple_of(1_000) {
        json!(micros / 1_000)
    } else {
        json!(micros as f64 / 1_000.0)
    }
}
