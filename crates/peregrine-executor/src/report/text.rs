//! A Gantt chart of characters.

use std::fmt::Write as _;
use std::time::Duration;

use super::Report;
use crate::{StepRecord, StepState};

const MAX_ROWS: usize = 200;
const MAX_NAME: usize = 24;

pub(super) fn render(report: &Report, width: usize) -> String {
    let rows = &report.steps[..report.steps.len().min(MAX_ROWS)];
    let longest = rows.iter().map(|record| record.id.len()).max().unwrap_or(0);
    let name_width = longest.min(MAX_NAME);
    // Name, two bars, state of at most nine letters.
    let chart_width = width.saturating_sub(name_width + 13).clamp(10, 400);
    let mut chart = String::new();
    for record in rows {
        let name: String = record.id.chars().take(name_width).collect();
        let bar = bar(report, record, chart_width);
        let state = record.state.name();
        // Writing to a string does not fail.
        let _ = writeln!(chart, "{name:name_width$} |{bar}| {state}");
    }
    if rows.len() < report.steps.len() {
        let _ = writeln!(chart, "and {} more steps", report.steps.len() - rows.len());
    }
    let _ = writeln!(
        chart,
        "{} in {:?}, critical path {:?}, {:.2} x faster than one by one, at most {} at a time",
        report.outcome.name(),
        report.makespan,
        report.critical_path,
        report.speed_up(),
        report.peak_parallel,
    );
    chart
}

fn bar(report: &Report, record: &StepRecord, width: usize) -> String {
    let column = |at: Duration| {
        let share = at.as_secs_f64() / report.makespan.as_secs_f64().max(f64::MIN_POSITIVE);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the width"
        )]
        let column = (share.clamp(0.0, 1.0) * width as f64) as usize;
        column.min(width)
    };
    let mut bar = vec![b' '; width];
    if let Some(started) = record.started_at {
        let first = column(started).min(width - 1);
        bar[column(record.ready_at).min(first)..first].fill(b'.');
        let last = column(record.ended_at).clamp(first + 1, width);
        bar[first..last].fill(if record.state == StepState::Succeeded {
            b'#'
        } else {
            b'x'
        });
    }
    bar.into_iter().map(char::from).collect()
}
