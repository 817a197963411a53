//! A Gantt chart as SVG: no script, no font, no address in it but the name space.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::Report;
use crate::{CheckRecord, StepRecord, StepState};

const MAX_ROWS: usize = 1_000;
const MAX_NAME: usize = 32;
const ROW: usize = 18;
const LEFT: usize = 220;
const CHART: usize = 760;
const TOP: usize = 44;

pub(super) fn render(report: &Report) -> String {
    let rows = &report.steps[..report.steps.len().min(MAX_ROWS)];
    let height = TOP + (rows.len() + 1) * ROW;
    let mut svg = String::with_capacity(512 + rows.len() * 320);
    // Writing to a string does not fail.
    let _ = write(&mut svg, report, rows, height);
    svg
}

fn write(svg: &mut String, report: &Report, rows: &[StepRecord], height: usize) -> fmt::Result {
    let width = LEFT + CHART + 20;
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="11">"#
    )?;
    writeln!(
        svg,
        r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##
    )?;
    writeln!(
        svg,
        r#"<text x="8" y="16" font-size="13">{} in {:?}; critical path {:?}; {:.2} x faster than one by one; at most {} at a time</text>"#,
        report.outcome.name(),
        report.makespan,
        report.critical_path,
        report.speed_up(),
        report.peak_parallel,
    )?;
    for quarter in 0..=4_u32 {
        let x = LEFT + CHART * quarter as usize / 4;
        let at = report.makespan * quarter / 4;
        writeln!(
            svg,
            r##"<path d="M{x} {TOP}V{height}" stroke="#dddddd"/><text x="{x}" y="{y}" text-anchor="middle" fill="#666666">{at:?}</text>"##,
            y = TOP - 8,
        )?;
    }
    for (row, record) in rows.iter().enumerate() {
        let y = TOP + row * ROW;
        let name: String = record.id.chars().take(MAX_NAME).collect();
        writeln!(svg, r#"<g><title>{}</title>"#, Escaped(&title(record)))?;
        writeln!(svg, r#"<text x="8" y="{}">{}</text>"#, y + 13, Escaped(&name))?;
        if let Some(started) = record.started_at {
            bar(svg, report, record.ready_at, started, y + 7, 4, "#c8c8c8")?;
            let color = match record.state {
                StepState::Succeeded => "#3a7d44",
                StepState::Failed => "#c0392b",
                _ => "#b58900",
            };
            bar(svg, report, started, record.ended_at, y + 3, 12, color)?;
        }
        for CheckRecord {
            started_at,
            ended_at,
            state,
            ..
        } in &record.checks
        {
            if let Some(started) = *started_at {
                let color = if *state == StepState::Succeeded {
                    "#8fbf8f"
                } else {
                    "#e59a90"
                };
                bar(svg, report, started, *ended_at, y + 5, 8, color)?;
            }
        }
        writeln!(svg, "</g>")?;
    }
    if rows.len() < report.steps.len() {
        let y = TOP + rows.len() * ROW + 13;
        writeln!(
            svg,
            r#"<text x="8" y="{y}">and {} more steps</text>"#,
            report.steps.len() - rows.len()
        )?;
    }
    writeln!(svg, "</svg>")
}

fn title(record: &StepRecord) -> String {
    let state = record.state.name();
    let duration = record.duration();
    match &record.cause {
        None => format!("{}: {state}, {duration:?}", record.id),
        Some(cause) => format!("{}: {state}, {duration:?}: {cause}", record.id),
    }
}

fn bar(
    svg: &mut String,
    report: &Report,
    from: Duration,
    to: Duration,
    y: usize,
    height: usize,
    color: &str,
) -> fmt::Result {
    let x = |at: Duration| {
        let share = at.as_secs_f64() / report.makespan.as_secs_f64().max(f64::MIN_POSITIVE);
        LEFT as f64 + share.clamp(0.0, 1.0) * CHART as f64
    };
    let (left, width) = (x(from), (x(to) - x(from)).max(1.0));
    if to <= from && height == 4 {
        // It did not wait.
        return Ok(());
    }
    writeln!(
        svg,
        r#"<rect x="{left:.2}" y="{y}" width="{width:.2}" height="{height}" fill="{color}"/>"#
    )
}

/// Text for XML: what has a meaning there is written as an entity, what may not be in there is left out.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars().take(500) {
            match letter {
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '&' => formatter.write_str("&amp;")?,
                '"' => formatter.write_str("&quot;")?,
                '\n' | '\t' => formatter.write_char(' ')?,
                _ if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {}
                _ => formatter.write_char(letter)?,
            }
        }
        Ok(())
    }
}
