//! `agent`: a run of an agent with built-in tools, with a provider's model or a scripted one.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use peregrine_agent::durable::{Entry, RunStatus, StoredRun, What};
use peregrine_agent::run::{Event, More};
use peregrine_agent::{
    Agent, BestOfN, BudgetLimits, Error as AgentError, Input, Limits, PlanAndExecute, Reflection, RunEvent,
    RunReport, Strategy, Unstreamed,
};
use peregrine_checkpoints::{Checkpoints, Error as JournalError, Options, RunKey, Span};
use peregrine_core::{
    ChatModel as _, Clock as _, Cost, Error, Message, ModelHandle, NanoUsd, PriceTable, Result, SystemClock,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::approve::{Asking, Lines};
use crate::ckpt::{Level, run_id, told};
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
    /// The tenant, or tenant/session, whose run it is; `probe` if it is kept and nobody says.
    #[arg(long)]
    scope: Option<String>,
    /// Keeps the run in a store: dir:PATH, sqlite:PATH, postgres://..
    #[arg(long, value_name = "URI")]
    store: Option<String>,
    /// The run: an id of 26 characters, or any name, of which an id is made. One that the store has goes on.
    #[arg(long, value_name = "R")]
    run: Option<String>,
    /// What of a kept run survives.
    #[arg(long, value_enum, default_value_t = Level::ProcessSafe, requires = "store")]
    durability: Level,
    /// Takes a run that goes on from whoever has it.
    #[arg(long, requires = "store")]
    take_over: bool,
    /// Who decides about tools that are not allowed by name: nobody, so that they are refused, or standard input.
    #[arg(long, value_enum, default_value_t = Approve::None)]
    approve: Approve,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Approve {
    None,
    Stdin,
}

/// Where a run is kept.
struct Kept {
    checkpoints: Checkpoints,
    key: RunKey,
    /// What is there already.
    stored: Option<StoredRun>,
}

impl Kept {
    async fn open(arguments: &Arguments, uri: &str) -> Result<Self, Failure> {
        let mut options = Options::default();
        options.durability = arguments.durability.durability();
        let checkpoints = Checkpoints::open(uri, options).await.map_err(Error::from)?;
        let scope = parse_scope(arguments.scope.as_deref().unwrap_or("probe"))?;
        let now = || format!("{} {}", SystemClock.unix().0, std::process::id());
        let run = run_id(&arguments.run.clone().unwrap_or_else(now));
        let key = RunKey::new(scope, run);
        let agent = Agent::new(ScriptModel::silent().into_handle()).with_checkpoints(checkpoints.clone());
        let stored = match agent.load(&key).await {
            Ok(stored) if stored.status() == RunStatus::New => None,
            Ok(stored) => Some(stored),
            Err(AgentError::Checkpoints(JournalError::NotFound { .. })) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            checkpoints,
            key,
            stored,
        })
    }

    /// How many answers of models are recorded.
    async fn answers(&self) -> Result<usize> {
        if self.stored.is_none() {
            return Ok(0);
        }
        let history = self.checkpoints.load(&self.key, Span::ALL).await?;
        let answered = history.records.iter().filter(|found| {
            let entry = Entry::read(found);
            matches!(entry, Ok(entry) if matches!(entry.what, What::Event(Event::ModelAnswered { outcome: Ok(_), .. })))
        });
        Ok(answered.count())
    }
}

pub(crate) async fn run(arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let kept = match &arguments.store {
        Some(uri) => Some(Kept::open(&arguments, uri).await?),
        None => None,
    };
    if let Some(Kept { key, stored, .. }) = &kept {
        output.line(&json!({"opened": {"run": key.run, "agent": stored.as_ref().map(told)}}))?;
    }
    let goes_on = kept.as_ref().is_some_and(|kept| kept.stored.is_some());
    let mut lines = (arguments.approve == Approve::Stdin).then(Lines::read);
    // What a run that goes on was asked is in its journal.
    let (asked_model, mut request) = match &mut lines {
        _ if goes_on => Asked::default(),
        Some(lines) => parse(lines.next().await?)?,
        None => request::read(parse).await?,
    };
    let answers = match &kept {
        Some(kept) => kept.answers().await?,
        None => 0,
    };
    let model = model(&arguments, asked_model, answers)?;
    let messages: Vec<Message> = std::mem::take(&mut request.messages).iter().cloned().collect();
    request.scope = match &kept {
        Some(kept) => Some(kept.key.scope.clone()),
        None => arguments.scope.as_deref().map(parse_scope).transpose()?,
    };
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
    let mut agent = arguments.allow.into_iter().fold(agent, Agent::with_allowed);
    if let Some(lines) = lines {
        agent = agent.with_approver(Asking::new(lines));
    }
    let mut events = match &kept {
        Some(Kept {
            checkpoints,
            key,
            stored,
        }) => {
            let agent = agent.with_checkpoints(checkpoints.clone());
            if stored.is_some() {
                let stored = agent.load(key).await?;
                let stored = if arguments.take_over {
                    stored.with_take_over()
                } else {
                    stored
                };
                stored.resume_stream(More::default())
            } else {
                agent.run_stream(Input::new(messages).with_run_id(key.run))
            }
        }
        None => {
            let mut input = Input::new(messages);
            input.run_id = arguments.run.as_deref().map(run_id);
            agent.run_stream(input)
        }
    };
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

/// The model; of a script, without the answers that were given before.
fn model(arguments: &Arguments, asked: Option<String>, answers: usize) -> Result<ModelHandle> {
    let model = arguments.model.clone().or(asked);
    let provider = arguments.provider.as_deref();
    match &arguments.script {
        Some(path) => {
            let (provider, model) = (provider.unwrap_or("script"), model.as_deref().unwrap_or("script"));
            let script = ScriptModel::open(path, provider, model)?;
            Ok(script.without(answers).into_handle())
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
