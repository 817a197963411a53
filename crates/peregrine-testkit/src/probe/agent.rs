//! `agent`: a run of an agent with built-in tools, with a provider's model or a scripted one.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use peregrine_agent::{
    Agent, BestOfN, BudgetLimits, Input, Limits, PlanAndExecute, Reflection, RunEvent, RunReport, Strategy,
    Unstreamed,
};
use peregrine_core::{ChatModel as _, Cost, Error, Message, ModelHandle, NanoUsd, PriceTable, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{Output, arguments_of, usage};
use crate::provider::Provider;
use crate::request::{self, Asked, parse_scope};
use crate::script::ScriptModel;
use crate::tools::tools;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The provider, as for `chat`; with --script the name that the scripted model goes by.
    #[arg(long, required_unless_present = "script")]
    provider: Option<String>,
    /// The model; the request's `model` if it is not given.
    #[arg(long)]
    model: Option<String>,
    /// A file with the model's answers, a JSON object a line, instead of a provider.
    #[arg(long, conflicts_with_all = ["base_url", "retries", "connect_timeout_ms", "first_byte_timeout_ms"])]
    #[arg(conflicts_with_all = ["idle_timeout_ms", "max_body_bytes"])]
    script: Option<PathBuf>,
    #[command(flatten)]
    place: Provider,
    /// Ask the model for streams; its texts then come in pieces.
    #[arg(long)]
    stream: bool,
    /// How an answer is arrived at: `single_shot`, `tool_loop`, `plan_and_execute[:STEPS]`, `reflection[:ROUNDS]`, `best_of_n:N`.
    #[arg(long, value_parser = strategy, default_value = "tool_loop")]
    strategy: Strategy,
    /// How often models are asked at most.
    #[arg(long)]
    max_steps: Option<u32>,
    /// What the run may spend, as JSON: {"tokens"?, "cost_nano_usd"?, "tool_calls"?, "wall_time_ms"?}.
    #[arg(long, value_parser = budget)]
    budget: Option<BudgetLimits>,
    /// Offers the tool write_line, which appends a line to this file at each call.
    #[arg(long)]
    effects: Option<PathBuf>,
    /// Allows a tool by its name; only read-only tools run otherwise.
    #[arg(long, value_name = "NAME")]
    allow: Vec<String>,
    /// The tenant, or tenant/session, whose run it is.
    #[arg(long)]
    scope: Option<String>,
}

pub(crate) async fn run(arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let (asked_model, mut request) = request::read(parse).await?;
    let model = model(&arguments, asked_model)?;
    let messages: Vec<Message> = std::mem::take(&mut request.messages).iter().cloned().collect();
    request.scope = arguments.scope.as_deref().map(parse_scope).transpose()?;
    let mut limits = Limits::default();
    limits.max_steps = arguments.max_steps.unwrap_or(limits.max_steps);
    let agent = match arguments.stream {
        true => Agent::new(model),
        false => Agent::new(model.layered(Unstreamed)),
    };
    let agent = agent
        .with_settings(request)
        .with_tools(tools(arguments.effects.as_deref())?)
        .with_strategy(arguments.strategy)
        .with_limits(limits)
        .with_budget(arguments.budget.unwrap_or_default())
        .with_prices(PriceTable::list_prices_2025());
    let agent = arguments.allow.into_iter().fold(agent, Agent::with_allowed);
    let mut events = agent.run_stream(Input::new(messages));
    while let Some(event) = events.next().await {
        match event? {
            RunEvent::Finished(finished) => {
                let mut done = report(&finished.report);
                done["text"] = finished.text().into();
                done["finish"] = json!(finished.response.finish);
                done["metadata"] = json!(finished.response.metadata);
                output.line(&json!({ "done": done }))?;
            }
            event => output.line(&event)?,
        }
    }
    Ok(())
}

/// What a run has done: `run_id`, `steps`, `tool_calls`, `usage`, `cost`.
pub(crate) fn report(report: &RunReport) -> Value {
    let calls = report.tool_calls.iter().map(|call| {
        json!({
            "id": call.call_id,
            "name": call.name,
            "arguments": arguments_of(&call.arguments),
            "ok": call.ok,
        })
    });
    json!({
        "run_id": report.run_id,
        "steps": report.steps,
        "tool_calls": calls.collect::<Vec<_>>(),
        "usage": report.usage.as_ref().map(usage),
        "cost": match report.cost {
            Cost::Priced(amount) => json!({"status": "priced", "nano_usd": amount}),
            Cost::Unpriced => json!({"status": "unpriced"}),
        },
    })
}

fn model(arguments: &Arguments, asked: Option<String>) -> Result<ModelHandle> {
    let model = arguments.model.clone().or(asked);
    let provider = arguments.provider.as_deref();
    match &arguments.script {
        Some(path) => {
            let (provider, model) = (provider.unwrap_or("script"), model.as_deref().unwrap_or("script"));
            Ok(ScriptModel::open(path, provider, model)?.into_handle())
        }
        None => arguments
            .place
            .model(provider.unwrap_or_default(), model.as_deref()),
    }
}

/// The request of `chat`, or one with `input`, a text, instead of messages.
fn parse(mut given: Value) -> Result<Asked> {
    if let Value::Object(fields) = &mut given
        && !fields.contains_key("messages")
        && let Some(input) = fields.remove("input")
    {
        if !input.is_string() {
            return Err(Error::invalid_request("`input` must be a text"));
        }
        fields.insert("messages".to_owned(), json!([{"role": "user", "content": input}]));
    }
    let asked = request::parse(given)?;
    match asked.1.tools.is_empty() {
        true => Ok(asked),
        false => Err(Error::invalid_request(
            "`tools` are for `chat`, where nobody runs them; an agent has tools of its own",
        )),
    }
}

fn strategy(text: &str) -> Result<Strategy, String> {
    let (name, number) = match text.split_once(':') {
        Some((name, number)) => {
            let number: u32 = number.parse().map_err(|_| format!("`{number}` is no number"))?;
            (name, Some(number))
        }
        None => (text, None),
    };
    Ok(match (name, number) {
        ("single_shot", None) => Strategy::SingleShot,
        ("tool_loop", None) => Strategy::ToolLoop,
        ("plan_and_execute", number) => {
            Strategy::PlanAndExecute(number.map_or_else(PlanAndExecute::default, PlanAndExecute::new))
        }
        ("reflection", number) => {
            Strategy::Reflection(number.map_or_else(Reflection::default, Reflection::new))
        }
        ("best_of_n", Some(n)) => Strategy::BestOfN(BestOfN::new(n)),
        _ => {
            return Err(
                "one of single_shot, tool_loop, plan_and_execute[:STEPS], reflection[:ROUNDS], best_of_n:N is expected"
                    .to_owned(),
            );
        }
    })
}

/// The limits in a form that names its units.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenBudget {
    tokens: Option<u64>,
    cost_nano_usd: Option<u64>,
    tool_calls: Option<u64>,
    wall_time_ms: Option<u64>,
}

fn budget(text: &str) -> Result<BudgetLimits, String> {
    let given: GivenBudget = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let GivenBudget {
        tokens,
        cost_nano_usd,
        tool_calls,
        wall_time_ms,
    } = given;
    let mut limits = BudgetLimits::default();
    limits.tokens = tokens;
    limits.cost = cost_nano_usd.map(NanoUsd);
    limits.tool_calls = tool_calls;
    limits.wall_time = wall_time_ms.map(Duration::from_millis);
    Ok(limits)
}
