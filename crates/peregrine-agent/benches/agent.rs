//! What an agent costs around a model that costs next to nothing: one call, a tool loop of 16 turns, a typed answer, the
//! construction of an agent, and a turn late in a long run. The rival in the same run is the same work written by hand over
//! the same model.
//!
//! `cargo bench -p peregrine-agent --bench agent`. Allocations are counted and printed first; they do not drift.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark fails by panicking; criterion's macros make its main function"
)]

use std::future::Future;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use peregrine_agent::{Agent, Input, Limits};
use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, Finish, Message, Messages, ModelHandle, ModelInfo, Part, Result,
    ToolCall, ToolResult, Usage,
};
use peregrine_interrupts::{ManualTimer, Scope};
use peregrine_providers::wire::openai_chat::{ChatCompat, OpenAiChat};
use peregrine_providers::wire::{ChatCodec as _, Mode, Target};
use peregrine_signatures::Signature;
use peregrine_tools::{Tool as _, tool};
use serde::Deserialize;

/// Calls a tool in each turn but the last, which a conversation of so many messages has.
struct Fake {
    info: ModelInfo,
    turns: usize,
    answer: &'static str,
    /// Encodes each request as a codec does, and notes when.
    watch: Option<Arc<Mutex<Watch>>>,
}

#[derive(Default)]
struct Watch {
    at: Vec<Instant>,
    /// The size of the last body.
    body_bytes: usize,
}

impl Fake {
    fn new(turns: usize) -> Self {
        Self {
            info: ModelInfo::new("bench", "fake"),
            turns,
            answer: "forty-two",
            watch: None,
        }
    }
}

impl ChatModel for Fake {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
        if let Some(watch) = &self.watch {
            let mut watch = watch.lock().unwrap();
            watch.at.push(Instant::now());
            watch.body_bytes = encode(&self.info, request, watch.body_bytes);
        }
        // The question, and two messages for each turn.
        let part = match request.messages.len() / 2 + 1 < self.turns {
            true => Part::ToolCall(ToolCall::new("call", "add", r#"{"a": 40, "b": 2}"#)),
            false => Part::text(self.answer),
        };
        Ok(ChatResponse::new(vec![part], Finish::Stop).with_usage(Usage::new(10, 5)))
    }
}

/// What the HTTP client does with a request before it is sent: the body, and what of it is remembered for the next turn.
fn encode(info: &ModelInfo, request: &ChatRequest, last_bytes: usize) -> usize {
    let target = Target {
        provider: info.provider(),
        model: info.model(),
        capabilities: info.capabilities(),
    };
    let mut body = Vec::with_capacity(match request.messages.has_encoding() {
        true => 0,
        false => last_bytes + last_bytes / 8 + 256,
    });
    let codec = OpenAiChat::new(ChatCompat::default());
    let prefix = codec.encode(&target, request, Mode::Complete, &mut body).unwrap();
    let body = Bytes::from(body);
    if let Some(prefix) = prefix {
        request
            .messages
            .remember_body(prefix.key, prefix.count, body.clone(), prefix.range);
    }
    black_box(body).len()
}

/// Adds two numbers.
#[tool(effect = "read_only", danger = "safe")]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

/// The arguments of [`add`], as a program would write them that has no agent.
#[derive(Deserialize)]
struct Sum {
    a: i64,
    b: i64,
}

/// Answer a question.
#[derive(Signature)]
struct Ask {
    #[input]
    question: String,
    #[output]
    answer: String,
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future
        .now_or_never()
        .expect("the model and the tools do not wait")
}

/// The tool loop by hand: the same requests, the same answer, nothing else.
async fn by_hand(model: &ModelHandle, tools: &Arc<[peregrine_core::ToolSpec]>) -> String {
    let mut messages: Messages = [Message::user("How much is 40 + 2?")].into_iter().collect();
    loop {
        let response = {
            let request = ChatRequest {
                messages: messages.clone(),
                tools: Arc::clone(tools),
                ..ChatRequest::default()
            };
            model.complete(&request).await.unwrap()
        };
        let calls: Vec<ToolCall> = response.tool_calls().cloned().collect();
        if calls.is_empty() {
            return response.message.text();
        }
        messages.push(response.message);
        for call in calls {
            let Sum { a, b } = serde_json::from_str(&call.arguments).unwrap();
            messages.push(Message::tool(ToolResult::new(&call, (a + b).to_string())));
        }
    }
}

fn loop_agent(turns: usize) -> Agent {
    Agent::new(Fake::new(turns))
        .with_tool(add())
        .with_limits(limits())
}

fn limits() -> Limits {
    Limits {
        max_steps: 2_000,
        max_tool_calls: 2_000,
        ..Limits::default()
    }
}

fn count(name: &str, work: impl FnOnce()) -> u64 {
    let counted = allocation_counter::measure(work);
    println!(
        "{name}: {} allocations, {} bytes",
        counted.count_total, counted.bytes_total
    );
    counted.count_total
}

fn allocations(_: &mut Criterion) {
    let direct = Agent::new(Fake::new(1));
    let run = direct.clone().with_direct_path(false);
    let looping = loop_agent(16);
    let model = Fake::new(16).into_handle();
    let one = Fake::new(1).into_handle();
    let tools: Arc<[_]> = Arc::from([add().info().spec().clone()]);
    // What is made once is made before.
    let input = AskInput::new("why?");
    let typed = Agent::new(Fake {
        answer: r#"{"answer": "because"}"#,
        ..Fake::new(1)
    });
    for agent in [&direct, &run, &looping] {
        now(agent.run("How much is 40 + 2?")).unwrap();
    }
    now(typed.run_as::<Ask>(&input)).unwrap();

    let question = "How much is 40 + 2?";
    let calls = [
        count("allocations/single_call/direct", || {
            drop(now(direct.run(question)).unwrap())
        }),
        count("allocations/single_call/run", || {
            drop(now(run.run(question)).unwrap())
        }),
    ];
    let scope = Scope::root("bench", ManualTimer::new());
    count("allocations/single_call/scope", || {
        drop(now(direct.run(Input::from(question).with_interrupts(&scope))).unwrap())
    });
    count("allocations/single_call/by_hand", || {
        drop(now(by_hand(&one, &tools)))
    });
    count("allocations/typed_call/direct", || {
        drop(now(typed.run_as::<Ask>(&input)).unwrap())
    });
    count("allocations/tool_loop_16/run", || {
        drop(now(looping.run(question)).unwrap())
    });
    count("allocations/tool_loop_16/by_hand", || {
        drop(now(by_hand(&model, &tools)))
    });
    assert!(calls[0] <= 25, "one call takes at most 25 allocations");
}

fn single_call(c: &mut Criterion) {
    let mut group = c.benchmark_group("agent/single_call");
    let direct = Agent::new(Fake::new(1));
    let run = direct.clone().with_direct_path(false);
    let model = Fake::new(1).into_handle();
    let tools: Arc<[_]> = Arc::from([]);
    assert_eq!(now(direct.run("?")).unwrap().text(), "forty-two");
    assert_eq!(now(run.run("?")).unwrap().text(), "forty-two");
    group.bench_function("direct", |b| {
        b.iter(|| now(direct.run(black_box("How much is 40 + 2?"))).unwrap())
    });
    group.bench_function("run", |b| {
        b.iter(|| now(run.run(black_box("How much is 40 + 2?"))).unwrap())
    });
    let scope = Scope::root("bench", ManualTimer::new());
    group.bench_function("scope", |b| {
        let input = || Input::from(black_box("How much is 40 + 2?")).with_interrupts(&scope);
        b.iter(|| now(run.run(input())).unwrap());
    });
    group.bench_function("by_hand", |b| b.iter(|| now(by_hand(black_box(&model), &tools))));
    group.finish();
}

fn typed_call(c: &mut Criterion) {
    let mut group = c.benchmark_group("agent/typed_call");
    let direct = Agent::new(Fake {
        answer: r#"{"answer": "because"}"#,
        ..Fake::new(1)
    });
    let run = direct.clone().with_direct_path(false);
    let input = AskInput::new("why?");
    assert_eq!(
        now(direct.run_as::<Ask>(&input)).unwrap().output.answer,
        "because"
    );
    group.bench_function("direct", |b| {
        b.iter(|| now(direct.run_as::<Ask>(black_box(&input))).unwrap())
    });
    group.bench_function("run", |b| {
        b.iter(|| now(run.run_as::<Ask>(black_box(&input))).unwrap())
    });
    group.finish();
}

fn tool_loop(c: &mut Criterion) {
    let mut group = c.benchmark_group("agent/tool_loop_16");
    let agent = loop_agent(16);
    let model = Fake::new(16).into_handle();
    let tools: Arc<[_]> = Arc::from([add().info().spec().clone()]);
    let output = now(agent.run("?")).unwrap();
    assert_eq!((output.report.steps, output.report.tool_calls.len()), (16, 15));
    assert_eq!(now(by_hand(&model, &tools)), "forty-two");
    group.bench_function("run", |b| {
        b.iter(|| now(agent.run(black_box("How much is 40 + 2?"))).unwrap())
    });
    let scope = Scope::root("bench", ManualTimer::new());
    group.bench_function("scope", |b| {
        let input = || Input::from(black_box("How much is 40 + 2?")).with_interrupts(&scope);
        b.iter(|| now(agent.run(input())).unwrap());
    });
    group.bench_function("by_hand", |b| b.iter(|| now(by_hand(black_box(&model), &tools))));
    group.finish();
}

fn construction(c: &mut Criterion) {
    let mut group = c.benchmark_group("agent/construction");
    let model = Fake::new(1).into_handle();
    group.bench_function("agent", |b| b.iter(|| Agent::new(black_box(model.clone()))));
    group.bench_function("with_one_tool", |b| {
        b.iter(|| Agent::new(black_box(model.clone())).with_tool(add()));
    });
    group.bench_function("tool_alone", |b| b.iter(add));
    group.finish();
}

/// The time between two calls to the model, early and late in one run of 1,010 turns, each request encoded as for the wire.
fn late_turns(_: &mut Criterion) {
    let (mut early, mut late) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        let watch = Arc::new(Mutex::new(Watch::default()));
        let model = Fake {
            watch: Some(Arc::clone(&watch)),
            ..Fake::new(1_010)
        };
        let agent = Agent::new(model).with_tool(add()).with_limits(limits());
        let output = now(agent.run("How much is 40 + 2?")).unwrap();
        assert_eq!(output.report.steps, 1_010);
        let at = &watch.lock().unwrap().at;
        let steps: Vec<Duration> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        early.extend_from_slice(&steps[5..15]);
        late.extend_from_slice(&steps[995..1_005]);
    }
    let (early, late) = (median(&mut early), median(&mut late));
    println!(
        "agent/late_turns: turn 10 {early:?}, turn 1,000 {late:?}, ratio {:.2} (median of 500 turns each)",
        late.as_secs_f64() / early.as_secs_f64()
    );
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

criterion_group!(
    benches,
    allocations,
    single_call,
    typed_call,
    tool_loop,
    construction,
    late_turns
);
criterion_main!(benches);
