//! What programs see with `--json`. Fields are added, never renamed; the README of this crate lists them.

use std::time::Duration;

use peregrine::core::{ChatResponse, Cost, ToolCall, ToolResult, Usage};
use serde::Serialize;
use serde_json::Value;

use crate::agent::{CalledTool, Event, Progress};
use crate::failure::Failure;
use crate::model::Chosen;

/// The answer, and how it came about.
pub(crate) fn answer(
    chosen: &Chosen,
    response: &ChatResponse,
    progress: &Progress,
    elapsed: Duration,
) -> String {
    to_line(&Answer {
        answer: &response.message.text(),
        model: &chosen.name(),
        why: &chosen.why,
        usage: progress.usage(),
        cost: chosen.cost(&progress.usages).into(),
        steps: progress.steps,
        tool_calls: progress.tool_calls.iter().map(Called::from).collect(),
        finish: response.finish.as_str(),
        elapsed_ms: millis(elapsed),
    })
}

/// What went wrong, and what was done before.
pub(crate) fn failure(
    failure: &Failure,
    chosen: Option<&Chosen>,
    progress: &Progress,
    elapsed: Duration,
) -> String {
    to_line(&Failed {
        error: Problem {
            code: failure.kind().code(),
            message: &failure.to_string(),
            retryable: failure.is_retryable(),
            retry_after_ms: failure.retry_after().map(millis),
            request_id: failure.request_id(),
        },
        model: chosen.map(Chosen::name),
        steps: progress.steps,
        tool_calls: progress.tool_calls.iter().map(Called::from).collect(),
        elapsed_ms: millis(elapsed),
    })
}

/// Which model answers: the first line of a stream.
pub(crate) fn model(chosen: &Chosen) -> String {
    to_line(&Line::Model {
        model: &chosen.name(),
        why: &chosen.why,
    })
}

/// What happens in a run, as a line of a stream.
pub(crate) fn event(event: &Event<'_>) -> String {
    match event {
        Event::Step(step) => to_line(&Line::Step { step: *step }),
        Event::Chat(event) => to_line(event),
        Event::ToolCall(ToolCall {
            id, name, arguments, ..
        }) => to_line(&Line::ToolRun {
            id,
            name,
            arguments: parsed(arguments),
        }),
        Event::ToolResult(call, result) => {
            let ToolResult { is_error, .. } = result;
            to_line(&Line::ToolResult {
                id: &call.id,
                name: &call.name,
                ok: !is_error,
                text: &result.text(),
            })
        }
    }
}

/// Lines of a stream beside the model's own events (`ChatEvent`), whose types have other names.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'l> {
    Model {
        model: &'l str,
        why: &'l str,
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
        text: &'l str,
    },
}

#[derive(Serialize)]
struct Answer<'a> {
    answer: &'a str,
    model: &'a str,
    why: &'a str,
    usage: Option<Usage>,
    cost: Price,
    steps: u32,
    tool_calls: Vec<Called<'a>>,
    finish: &'a str,
    elapsed_ms: u64,
}

#[derive(Serialize)]
struct Failed<'a> {
    error: Problem<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    steps: u32,
    tool_calls: Vec<Called<'a>>,
    elapsed_ms: u64,
}

#[derive(Serialize)]
struct Problem<'a> {
    code: &'static str,
    message: &'a str,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
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

impl<'a> From<&'a CalledTool> for Called<'a> {
    fn from(called: &'a CalledTool) -> Self {
        let CalledTool { name, arguments, ok } = called;
        Self {
            name,
            arguments: parsed(arguments),
            ok: *ok,
        }
    }
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
