//! The runs of the execution suite against a real Ollama, which has to be asked for: `cargo xtask bench --ollama MODEL`.
//!
//! Ollama answers at `OLLAMA_HOST`, or on its usual port. Ours and the hand-written call use its own chat API with the same
//! settings, so the ratio shows what a framework is worth beside a model's time. What a model says is its own: checked is
//! that it said something, and that the history was sent, by the tokens that Ollama counted.

use std::rc::Rc;
use std::sync::OnceLock;

use peregrine_agent::{Agent, Input, TurnMemory};
use peregrine_checkpoints::{Checkpoints, Options, RunKey, Span};
use peregrine_core::{ModelHandle, RunId, Sampling, Scope};
use peregrine_providers::{Connector, wire::ollama::base_url};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::bench::{Group, Work, each_async, floor, ours, runtime};
use crate::fake::add;
use crate::serve::{QUESTION, SYSTEM};

/// How long an answer may be, in tokens.
const MAX_TOKENS: u32 = 16;
const SEED: i64 = 42;
const QUESTIONS: usize = 20;

static MODEL: OnceLock<String> = OnceLock::new();

/// Adds these groups, with this model.
///
/// # Errors
///
/// That there is no Ollama, or that it has no such model.
pub(crate) fn ask_for(model: &str) -> Result<(), String> {
    let address = address()?;
    let there = runtime().block_on(models(&address));
    let there = there.map_err(|error| format!("no Ollama answers at {address}: {error}"))?;
    let is_meant = |name: &&String| *name == model || name.strip_suffix(":latest") == Some(model);
    let Some(name) = there.iter().find(is_meant) else {
        let there = there.join(", ");
        return Err(format!(
            "Ollama at {address} has no model {model}; it has: {there}"
        ));
    };
    // Only the first one counts, and there is only one.
    let _ = MODEL.set(name.clone());
    Ok(())
}

fn address() -> Result<String, String> {
    let host = std::env::var("OLLAMA_HOST").unwrap_or_default();
    base_url(&host).map_err(|error| error.to_string())
}

async fn models(address: &str) -> reqwest::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Tags {
        models: Vec<Tag>,
    }
    #[derive(Deserialize)]
    struct Tag {
        name: String,
    }
    let response = reqwest::get(format!("{address}/api/tags")).await?;
    let tags: Tags = response.error_for_status()?.json().await?;
    Ok(tags.models.into_iter().map(|tag| tag.name).collect())
}

/// None without a model that was asked for.
pub(super) fn groups() -> Vec<Group> {
    let Some(model) = MODEL.get() else {
        return Vec::new();
    };
    let group = |op: &str, what: &str, make: fn(&Rc<Runtime>) -> Vec<Work>| {
        Group::new(
            format!("execution/{op}/ollama"),
            format!("{what}; {model} on Ollama, at most {MAX_TOKENS} tokens an answer, temperature 0, seed {SEED}"),
            &[ours("peregrine"), floor("reqwest")],
            move || make(&runtime()),
        )
        // The model needs all cores there are.
        .unpinned()
    };
    vec![
        group(
            "single_shot",
            "one question with instructions, one answer",
            single_shot,
        ),
        group(
            "multi_turn",
            "three questions in a row, the history of which is sent again each time",
            multi_turn,
        ),
        group(
            "long_running",
            "twenty questions in a row with a tool at hand and a journal of each run in files; the floor has neither",
            long_running,
        ),
    ]
}

fn connect() -> ModelHandle {
    let model = MODEL.get().expect("it was asked for");
    Connector::new().chat(&format!("ollama/{model}")).unwrap()
}

fn agent() -> Agent {
    Agent::new(connect())
        .with_instructions(SYSTEM)
        .with_sampling(Sampling {
            temperature: Some(0.0),
            max_tokens: Some(MAX_TOKENS),
            seed: Some(SEED),
            ..Sampling::default()
        })
}

fn single_shot(runtime: &Rc<Runtime>) -> Vec<Work> {
    let (agent, hand) = (agent(), Hand::new());
    vec![
        each_async(
            runtime,
            move || {
                let agent = agent.clone();
                async move { agent.run(QUESTION).await.unwrap() }
            },
            |output| assert!(!output.text().is_empty()),
        ),
        each_async(
            runtime,
            move || {
                let hand = hand.clone();
                async move { hand.conversation(1).await }
            },
            |read| assert!(*read > 0),
        ),
    ]
}

fn multi_turn(runtime: &Rc<Runtime>) -> Vec<Work> {
    conversation(runtime, 3, agent)
}

fn conversation(runtime: &Rc<Runtime>, questions: usize, agent: fn() -> Agent) -> Vec<Work> {
    let hand = Hand::new();
    let model = agent();
    vec![
        each_async(
            runtime,
            move || {
                let agent = model.clone().with_memory(TurnMemory::new(questions));
                async move { ask(&agent, questions, None).await }
            },
            assert_grew,
        ),
        each_async(
            runtime,
            move || {
                let hand = hand.clone();
                async move { hand.conversation(questions).await }
            },
            |read| assert!(*read > 0),
        ),
    ]
}

fn long_running(runtime: &Rc<Runtime>) -> Vec<Work> {
    let folder = TempDir::new().unwrap();
    let uri = format!("dir:{}", folder.path().join("store").display());
    let checkpoints = runtime
        .block_on(Checkpoints::open(&uri, Options::default()))
        .unwrap();
    let kept = agent().with_tool(add()).with_checkpoints(checkpoints.clone());
    let (hand, looking) = (Hand::new(), Rc::clone(runtime));
    let mut number = 0;
    vec![
        each_async(
            runtime,
            move || {
                assert!(folder.path().exists());
                let agent = kept.clone().with_memory(TurnMemory::new(QUESTIONS));
                let first = number;
                number += QUESTIONS as u64;
                async move { (ask(&agent, QUESTIONS, Some(first)).await, first) }
            },
            move |(read, first)| {
                assert_grew(read);
                let last = RunId::from_parts(first + QUESTIONS as u64, [3; 10]);
                let key = RunKey::new(Scope::tenant("bench").unwrap(), last);
                let history = looking.block_on(checkpoints.load(&key, Span::ALL)).unwrap();
                assert!(!history.records.is_empty(), "the last run has a journal");
            },
        ),
        each_async(
            runtime,
            move || {
                let hand = hand.clone();
                async move { hand.conversation(QUESTIONS).await }
            },
            |read| assert!(*read > 0),
        ),
    ]
}

/// Asks so many questions; how many tokens the model read for the first and for the last of them.
async fn ask(agent: &Agent, questions: usize, runs_from: Option<u64>) -> (u64, u64) {
    let scope = Scope::tenant("bench").unwrap();
    let mut read = Vec::with_capacity(questions);
    for number in 1..=questions {
        let mut input = Input::from(question(number)).with_scope(scope.clone());
        if let Some(first) = runs_from {
            input = input.with_run_id(RunId::from_parts(first + number as u64, [3; 10]));
        }
        let output = agent.run(input).await.unwrap();
        let usage = output.report.usage.expect("Ollama counts tokens");
        read.push(usage.input_tokens);
    }
    (read[0], read[questions - 1])
}

fn assert_grew((first, last): &(u64, u64)) {
    assert!(
        last > first,
        "the history was not sent: {first} tokens, then {last}"
    );
}

fn question(number: usize) -> String {
    format!("Question {number}: {QUESTION}")
}

/// What somebody would write by hand for Ollama's own API.
#[derive(Debug, Clone)]
struct Hand {
    client: reqwest::Client,
    url: Rc<str>,
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: &'a [Message],
    stream: bool,
    options: Settings,
}

#[derive(Serialize)]
struct Settings {
    temperature: f64,
    num_predict: u32,
    seed: i64,
}

#[derive(Serialize, Deserialize)]
struct Message {
    role: String,
    content: String,
}

#[derive(Deserialize)]
struct Response {
    message: Message,
    #[serde(default)]
    prompt_eval_count: u64,
}

impl Hand {
    fn new() -> Self {
        let address = address().expect("it was read before");
        Self {
            client: reqwest::Client::new(),
            url: format!("{address}/api/chat").into(),
        }
    }

    /// So many questions in a row; how many tokens were read for the last.
    async fn conversation(&self, questions: usize) -> u64 {
        let message = |role: &str, content: String| Message {
            role: role.to_owned(),
            content,
        };
        let mut messages = vec![message("system", SYSTEM.to_owned())];
        let mut read = 0;
        for number in 1..=questions {
            messages.push(message("user", question(number)));
            let request = Request {
                model: MODEL.get().expect("it was asked for"),
                messages: &messages,
                stream: false,
                options: Settings {
                    temperature: 0.0,
                    num_predict: MAX_TOKENS,
                    seed: SEED,
                },
            };
            let response = self.client.post(&*self.url).json(&request).send().await.unwrap();
            let response: Response = response.error_for_status().unwrap().json().await.unwrap();
            read = response.prompt_eval_count;
            messages.push(response.message);
        }
        read
    }
}
