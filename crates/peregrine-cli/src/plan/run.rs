//! `peregrine plan run`: runs a plan of the executor's own actions, in real or in virtual time.

use std::collections::BTreeSet;
use std::fs::File;
use std::future::IntoFuture as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use peregrine::ErrorKind;
use peregrine::executor::{
    CheckRecord, Event, Executor, Outcome, Plan, PlanError, Report, StepState, TokioTimer, VirtualTimer,
    builtin,
};

use super::text::PlanText;
use super::{check, invalid, local, read, report};
use crate::args::PlanRunArgs;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::json::failed;
use crate::output::{Console, Verbosity};

/// How wide the chart is, in characters.
const CHART_WIDTH: usize = 100;
/// How many steps that run are named while they do.
const NAMED: usize = 5;

/// Runs a plan and shows what became of it.
///
/// # Errors
///
/// [`Failure`] if the plan cannot be read or cannot run, if a step that it needs did not succeed, and after Ctrl-C; what was
/// done until then is shown.
pub(crate) async fn run(args: &PlanRunArgs, console: &mut Console) -> Result<ExitCode, Failure> {
    let ended = run_to_report(args, console).await;
    let Ended {
        plan,
        report,
        written,
        interrupted,
    } = match ended {
        Ok(ended) => ended,
        Err(failure) => {
            if args.json {
                console.line(&failed(&failure))?;
            }
            return Err(failure);
        }
    };
    match args.json {
        true => console.line(&report::to_json(&report).to_string())?,
        false => console.answer(&report.gantt_text(CHART_WIDTH))?,
    }
    written?;
    match report.outcome {
        Outcome::Succeeded => Ok(ExitCode::SUCCESS),
        Outcome::Cancelled => Err(interrupted),
        _ => Err(local(ErrorKind::Internal, what_failed(&plan, &report))),
    }
}

/// A plan that was run.
struct Ended {
    plan: Plan,
    report: Report,
    /// Whether the chart could be written.
    written: Result<(), Failure>,
    /// What it fails with if it was interrupted.
    interrupted: Failure,
}

async fn run_to_report(args: &PlanRunArgs, console: &mut Console) -> Result<Ended, Failure> {
    let interrupts = Interrupts::new()?;
    let text = read(&args.file, &interrupts).await?;
    let cannot_run = |error: &PlanError| {
        let wrong = PlanText::new(&text).explain(error);
        let told = check::to_text(&wrong, error);
        invalid(format!("the plan cannot run:\n{}", told.trim_end()))
    };
    let plan = Plan::from_json(&text).map_err(|error| cannot_run(&error))?;
    let executor = match args.simulate {
        true => Executor::new(builtin::actions(), VirtualTimer::new()),
        false => Executor::new(builtin::actions(), TokioTimer::new()),
    };
    let executor = executor.with_max_parallel(args.max_parallel.get());
    executor.check(&plan).map_err(|error| cannot_run(&error))?;
    // Opened first: a chart that cannot be written must not be found out after an hour.
    let chart = args.gantt.as_deref().map(|path| (path, File::create(path)));
    let chart = match chart {
        None => None,
        Some((path, Ok(file))) => Some((path, file)),
        Some((path, Err(error))) => return Err(could_not_write(path, &error)),
    };

    let mut progress = Progress::new(console, plan.len());
    let mut observer = |event: &Event<'_>| progress.show(event);
    let run = executor
        .run(&plan)
        .observed_by(&mut observer)
        .until(async { drop(interrupts.scope().graceful().await) });
    let report = run.into_future().await.map_err(|error| cannot_run(&error))?;
    console.settle();
    let written = match chart {
        None => Ok(()),
        Some((path, mut file)) => file
            .write_all(report.gantt_svg().as_bytes())
            .map_err(|error| could_not_write(path, &error)),
    };
    Ok(Ended {
        plan,
        report,
        written,
        interrupted: interrupts.failure(),
    })
}

fn could_not_write(path: &Path, error: &std::io::Error) -> Failure {
    let kind = Failure::io(error).kind();
    local(kind, format!("could not write {}: {error}", path.display()))
}

/// What the plan failed of: the first step in its order, of those that it needs, that failed or has a gate that did not
/// pass.
fn what_failed(plan: &Plan, report: &Report) -> String {
    let needed = report.steps.iter().zip(plan.steps());
    let needed = needed.filter(|(_, step)| step.on_failure.is_required());
    let culprit = needed.map(|(record, _)| record).find_map(|record| {
        if record.state == StepState::Failed {
            return Some(report::line(record));
        }
        let failed = |check: &&CheckRecord| check.policy.is_gate() && check.state == StepState::Failed;
        let check = record.checks.iter().find(failed)?;
        Some(report::check_line(&record.id, check))
    });
    match culprit {
        Some(culprit) => format!("the plan failed; {culprit}"),
        None => "the plan failed".to_owned(),
    }
}

/// What is shown while steps run: on a terminal what runs now, elsewhere a line for each end.
struct Progress<'c> {
    console: &'c mut Console,
    running: BTreeSet<String>,
    ended: usize,
    steps: usize,
}

impl<'c> Progress<'c> {
    fn new(console: &'c mut Console, steps: usize) -> Self {
        Self {
            console,
            running: BTreeSet::new(),
            ended: 0,
            steps,
        }
    }

    fn show(&mut self, event: &Event<'_>) {
        let is_live = self.console.is_live();
        match event {
            Event::Started { record } => {
                self.running.insert(record.id.to_string());
            }
            Event::Retrying { record, cause, wait } => {
                let told = format!("{}: tried again in {wait:?}: {cause}", record.id);
                self.console.note(Verbosity::Normal, &told);
            }
            Event::Ended { record, ended, .. } => {
                self.running.remove(&*record.id);
                self.ended = *ended;
                if !is_live || record.state != StepState::Succeeded {
                    self.console.note(Verbosity::Normal, &report::line(record));
                }
            }
            Event::Checked { step, record, .. } if !is_live || !record.passed() => {
                let told = report::check_line(step, record);
                self.console.note(Verbosity::Normal, &told);
            }
            _ => {}
        }
        if is_live {
            let Self {
                running,
                ended,
                steps,
                ..
            } = self;
            let names: Vec<&str> = running.iter().take(NAMED).map(String::as_str).collect();
            let more = if running.len() > NAMED { ", .." } else { "" };
            let now = if names.is_empty() { "" } else { "; now " };
            let told = format!("{ended} of {steps} steps{now}{}{more}", names.join(", "));
            self.console.working(&told);
        }
    }
}
