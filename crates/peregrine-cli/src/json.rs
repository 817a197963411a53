//! What programs see with `--json`. Fields are added, never renamed; the README of this crate lists them.

use std::time::Duration;

use peregrine::RunEvent;
use peregrine::agent::{CalledTool, RunReport};
use peregrine::core::{ChatEvent, ChatResponse, Cost, RunId, Usage};
use serde::Serialize;
use serde_json::Value;

use crate::cache::around::Counts;
use crate::failure::Failure;
use crate::model::Chosen;

/// The answer, and how it came about.
pub(crate) fn answer(
    chosen: Option<&Chosen>,
    run: Option<RunId>,
    response: &ChatResponse,
    report: &RunReport,
    cache: Option<Counts>,
    elapsed: Duration,
) -> String {
    to_line(&Answer {
        answer: &response.message.text(),
        run,
        model: chosen.map(Chosen::name),
        why: chosen.map(|chosen| chosen.why.as_str()),
        usage: report.usage,
        cost: report.cost.into(),
        steps: report.steps,
        tool_calls: called(report),
        finish: response.finish.as_str(),
        cache,
        elapsed_ms: millis(elapsed),
    })
}

/// What went wrong, and what was done before.
pub(crate) fn failure(
    failure: &Failure,
    run: Option<RunId>,
    chosen: Option<&Chosen>,
    report: Option<&RunReport>,
    elapsed: Duration,
) -> String {
    to_line(&Failed {
        error: Problem::of(failure),
        run,
        model: chosen.map(Chosen::name),
        steps: report.map_or(0, |report| report.steps),
        tool_calls: report.map_or_else(Vec::new, called),
        elapsed_ms: millis(elapsed),
    })
}

/// What went wrong in a command that asks no model.
pub(crate) fn failed(failure: &Failure) -> String {
    #[derive(Serialize)]
    struct Alone<'a> {
        error: Problem<'a>,
    }
    to_line(&Alone {
        error: Problem::of(failure),
    })
}

/// Which model answers: the first line of a stream.
pub(crate) fn model(chosen: &Chosen, run: Option<RunId>) -> String {
    to_line(&Line::Model {
        model: &chosen.name(),
        why: &chosen.why,
        run,
    })
}

/// What happens in a run, as a line of a stream; `None` for what the model's own events say.
pub(crate) fn event(event: &RunEvent) -> Option<String> {
    let line = match event {
        RunEvent::Turn { turn, .. } => Line::Step { step: *turn },
        RunEvent::ToolStart {
            call_id,
            name,
            arguments,
            ..
        } => Line::ToolRun {
            id: call_id,
            name,
            arguments: parsed(arguments),
        },
        RunEvent::ToolEnd { call_id, result, .. } => Line::ToolResult {
            id: call_id,
            name: &result.name,
            ok: !result.is_error,
            text: result.text(),
        },
        _ => return None,
    };
    Some(to_line(&line))
}

/// An event of the model's own, as a line of a stream.
pub(crate) fn model_event(event: &ChatEvent) -> String {
    to_line(event)
}

/// Lines of a stream beside the model's own events (`ChatEvent`), whose types have other names.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'l> {
    Model {
        model: &'l str,
        why: &'l str,
        #[serde(skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
    },
    Step {
        step: u32,
    },
    ToolRun {
        id: &'l str,
        name: &'l str,
        arguments: Value,
    },
    ToolResult {
        id: &'l str,
        name: &'l str,
        ok: bool,
        text: String,
    },
}

#[derive(Serialize)]
struct Answer<'a> {
    answer: &'a str,
    /// Under which it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<RunId>,
    /// Not there if nobody was asked, because the run was over before.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    usage: Option<Usage>,
    cost: Price,
    steps: u32,
    tool_calls: Vec<Called<'a>>,
    finish: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<Counts>,
    elapsed_ms: u64,
}

#[derive(Serialize)]
struct Failed<'a> {
    error: Problem<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    steps: u32,
    tool_calls: Vec<Called<'a>>,
    elapsed_ms: u64,
}

#[derive(Serialize)]
struct Problem<'a> {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    message: String,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

impl<'a> Problem<'a> {
    fn of(failure: &'a Failure) -> Self {
        Self {
            code: failure.kind().code(),
            cause: failure.cause(),
            message: failure.to_string(),
            retryable: failure.is_retryable(),
            retry_after_ms: failure.retry_after().map(millis),
            request_id: failure.request_id(),
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum Price {
    Priced { nano_usd: u64 },
    Unpriced,
}

impl From<Cost> for Price {
    fn from(cost: Cost) -> Self {
        match cost.amount() {
            Some(amount) => Self::Priced { nano_usd: amount.0 },
            None => Self::Unpriced,
        }
    }
}

#[derive(Serialize)]
struct Called<'a> {
    name: &'a str,
    arguments: Value,
    ok: bool,
}

fn called(report: &RunReport) -> Vec<Called<'_>> {
    fn called(call: &CalledTool) -> Called<'_> {
        Called {
            name: &call.name,
            arguments: parsed(&call.arguments),
            ok: call.ok,
        }
    }
    report.tool_calls.iter().map(called).collect()
}

/// Arguments as a value; as their text where they are no JSON.
fn parsed(arguments: &str) -> Value {
    serde_json::from_str(arguments).unwrap_or_else(|_| Value::from(arguments))
}

fn to_line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("all maps in it have string keys")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
