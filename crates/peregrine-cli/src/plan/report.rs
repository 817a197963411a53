//! What became of a plan, for programs and for people. Fields are added, never renamed; the README lists them.

use std::time::Duration;

use peregrine::executor::{CheckRecord, Report, StepRecord, StepState};
use serde_json::{Map, Value, json};

/// One object, with every step in the order of the plan.
pub(super) fn to_json(report: &Report) -> Value {
    let states = [
        StepState::Succeeded,
        StepState::Failed,
        StepState::Skipped,
        StepState::Cancelled,
    ];
    let counts = states.map(|state| (state.name().to_owned(), json!(report.count(state))));
    json!({
        "outcome": report.outcome.name(),
        "makespan_ms": milliseconds(report.makespan),
        "critical_path_ms": milliseconds(report.critical_path),
        "critical_path": report.critical_steps,
        "lower_bound_ms": milliseconds(report.lower_bound()),
        "work_ms": milliseconds(report.work),
        "queued_ms": milliseconds(report.queued),
        "speed_up": report.speed_up(),
        "peak_parallel": report.peak_parallel,
        "max_parallel": report.max_parallel,
        "counts": counts.into_iter().collect::<Map<_, _>>(),
        "steps": report.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

fn step(record: &StepRecord) -> Value {
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| drop(shown.insert(name.to_owned(), value));
    put("id", json!(record.id));
    put("state", json!(record.state));
    put("attempts", json!(record.attempts));
    put("start_ms", json!(record.started_at.map(milliseconds)));
    put("end_ms", milliseconds(record.ended_at));
    put("queued_ms", milliseconds(record.queued()));
    if let Some(result) = &record.result {
        put("result", result.clone());
    }
    if let Some(cause) = &record.cause {
        put("cause", json!(cause.to_string()));
        put("cause_kind", json!(cause.kind()));
        if let Some(root) = cause.root() {
            put("caused_by", json!(root));
        }
    }
    if !record.checks.is_empty() {
        put(
            "checks",
            record.checks.iter().map(check).collect::<Vec<_>>().into(),
        );
    }
    Value::Object(shown)
}

fn check(record: &CheckRecord) -> Value {
    json!({
        "action": record.action,
        "policy": record.policy,
        "state": record.state,
        "start_ms": record.started_at.map(milliseconds),
        "end_ms": milliseconds(record.ended_at),
        "cause": record.cause.as_ref().map(ToString::to_string),
    })
}

/// To the microsecond; whole milliseconds without a fraction.
fn milliseconds(time: Duration) -> Value {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    match micros.is_multiple_of(1_000) {
        true => json!(micros / 1_000),
        false => json!(micros as f64 / 1_000.0),
    }
}

/// The end of a step in a line.
pub(super) fn line(record: &StepRecord) -> String {
    let state = record.state.name();
    match (&record.cause, record.started_at) {
        (Some(cause), _) => format!("{}: {state}: {cause}", record.id),
        (None, Some(_)) => format!("{}: {state} in {:?}", record.id, record.duration()),
        (None, None) => format!("{}: {state}", record.id),
    }
}

/// The end of a check in a line.
pub(super) fn check_line(step: &str, record: &CheckRecord) -> String {
    let CheckRecord { action, .. } = record;
    match &record.cause {
        Some(cause) => format!("{step}, check `{action}`: {}: {cause}", record.state.name()),
        None => format!("{step}, check `{action}`: {}", record.state.name()),
    }
}
