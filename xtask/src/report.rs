//! What a step came to, and the table of steps. A step that failed never hides the steps after it.

use std::fmt;
use std::time::{Duration, Instant};

/// What a verb or a step came to.
pub(crate) type Outcome = Result<Done, Problem>;

/// The good endings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    /// Everything asked for was done and is right.
    Ok,
    /// The same, and what one should know about it.
    Noted(String),
    /// There was nothing to do, and why.
    Skipped(String),
}

/// The bad endings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The check ran and found something wrong: exit status 1.
    Failed(String),
    /// The check could not be made (bad usage, a tool is missing): exit status 2.
    CouldNotRun(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(what) => f.write_str(what),
            Self::CouldNotRun(why) => write!(f, "could not run: {why}"),
        }
    }
}

/// Runs steps one after the other and keeps what each came to.
#[derive(Debug)]
pub(crate) struct Report {
    rows: Vec<Row>,
    started: Instant,
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            rows: Vec::new(),
            started: Instant::now(),
        }
    }

    pub(crate) fn step(&mut self, name: &'static str, run: impl FnOnce() -> Outcome) {
        say!("==> {name}");
        let started = Instant::now();
        let outcome = run();
        let took = started.elapsed();
        if let Err(problem) = &outcome {
            say!("{name}: {problem}");
        }
        say!("<== {name}: {}, {}", verdict(&outcome), seconds(took));
        self.rows.push(Row { name, outcome, took });
    }

    /// Prints the table. A failed step weighs more than one that could not run: it is the better news to act on.
    pub(crate) fn finish(self) -> Outcome {
        say!("\n{}", self.table());
        let named = |wanted: fn(&Problem) -> bool| -> Vec<&str> {
            let hit = |row: &&Row| row.outcome.as_ref().is_err_and(wanted);
            self.rows.iter().filter(hit).map(|row| row.name).collect()
        };
        let failed = named(|problem| matches!(problem, Problem::Failed(_)));
        let unable = named(|problem| matches!(problem, Problem::CouldNotRun(_)));
        if !failed.is_empty() {
            return Err(Problem::Failed(format!("failed: {}", failed.join(", "))));
        }
        if !unable.is_empty() {
            return Err(Problem::CouldNotRun(unable.join(", ")));
        }
        Ok(Done::Ok)
    }

    fn table(&self) -> String {
        let mut lines = vec![format!("{:<10} {:<14} {:>9}", "step", "result", "time")];
        for Row { name, outcome, took } in &self.rows {
            let note = match outcome {
                Ok(Done::Ok) => String::new(),
                Ok(Done::Noted(note) | Done::Skipped(note)) => format!("  {note}"),
                Err(Problem::Failed(what) | Problem::CouldNotRun(what)) => {
                    format!("  {}", what.lines().next().unwrap_or_default())
                }
            };
            lines.push(format!(
                "{name:<10} {:<14} {:>9}{note}",
                verdict(outcome),
                seconds(*took)
            ));
        }
        lines.push(format!(
            "{:<10} {:<14} {:>9}",
            "total",
            "",
            seconds(self.started.elapsed())
        ));
        lines.join("\n")
    }
}

fn verdict(outcome: &Outcome) -> &'static str {
    match outcome {
        Ok(Done::Ok | Done::Noted(_)) => "ok",
        Ok(Done::Skipped(_)) => "skipped",
        Err(Problem::Failed(_)) => "FAILED",
        Err(Problem::CouldNotRun(_)) => "COULD NOT RUN",
    }
}

pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// `println!` that does not panic when nobody reads any more (`cargo xtask deps | head`).
macro_rules! say {
    ($($arguments:tt)*) => {
        $crate::report::write_line(format_args!($($arguments)*))
    };
}
pub(crate) use say;

pub(crate) fn write_line(line: fmt::Arguments<'_>) {
    use std::io::Write as _;
    // The test harness does not capture this, and a table with FAILED in it would look like its own.
    if cfg!(not(test)) {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_does_not_stop_the_next_and_decides_the_end() {
        let mut report = Report::new();
        let mut ran = false;
        report.step("one", || Err(Problem::CouldNotRun("no such tool".into())));
        report.step("two", || Err(Problem::Failed("3 findings".into())));
        report.step("three", || {
            ran = true;
            Ok(Done::Ok)
        });
        assert!(ran);
        let table = report.table();
        assert!(table.contains("FAILED") && table.contains("3 findings") && table.contains("COULD NOT RUN"));
        assert_eq!(report.finish(), Err(Problem::Failed("failed: two".into())));
    }

    #[test]
    fn a_missing_tool_alone_is_could_not_run_and_a_skip_is_ok() {
        let mut report = Report::new();
        report.step("one", || Ok(Done::Skipped("nothing there".into())));
        report.step("two", || Err(Problem::CouldNotRun("no such tool".into())));
        assert_eq!(report.finish(), Err(Problem::CouldNotRun("two".into())));

        let mut report = Report::new();
        report.step("one", || Ok(Done::Skipped("nothing there".into())));
        assert_eq!(report.finish(), Ok(Done::Ok));
    }
}
