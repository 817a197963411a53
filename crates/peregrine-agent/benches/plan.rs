//! What a plan of 100 calls of tools costs in an agent, around a model and a tool that cost next to nothing. Beside it, in the
//! same run: the same calls in one answer of a tool loop, and the same plan in the executor alone, without an agent.
//!
//! `cargo bench -p peregrine-agent --bench plan`.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark fails by panicking; criterion's macros make its main function"
)]

use std::future::{Future, IntoFuture as _};
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use peregrine_agent::{Agent, Dataflow, Limits, PlanAndExecute, Strategy};
use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, Finish, Message, ModelInfo, Part, Result, Role, ToolCall,
};
use peregrine_executor::{ActionInfo, Actions, Effect, Executor, Plan, VirtualTimer};
use peregrine_tools::tool;
use serde_json::{Value, json};

const STEPS: usize = 100;

/// Adds two numbers.
#[tool(effect = "read_only", danger = "safe")]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

/// The form of a plan: what each step waits for.
#[derive(Clone, Copy)]
enum Shape {
    /// Nothing.
    Wide,
    /// The step before.
    Chain,
    /// Two of the ten steps of the layer before.
    Layers,
}

/// The steps, with the key under which the name of what they do stands, and that of what they do it with.
fn steps(shape: Shape, action: &str, parameters: &str) -> Value {
    let steps = (0..STEPS).map(|n| {
        let before = |back: usize| format!("$s{}", n - back);
        let (a, b) = match shape {
            Shape::Chain if n > 0 => (json!(before(1)), json!(1)),
            Shape::Layers if n >= 10 => (json!(before(10)), json!(before(n % 10 + 1))),
            _ => (json!(n), json!(1)),
        };
        json!({"id": format!("s{n}"), action: "add", parameters: {"a": a, "b": b}})
    });
    steps.collect()
}

/// Writes the plan, or calls all tools in one answer, and answers.
struct Fake {
    info: ModelInfo,
    first: ChatResponse,
}

impl ChatModel for Fake {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
        let is_new = |message: &Message| {
            message.role == Role::User && !message.text().ends_with("Now do what was asked.")
        };
        let is_first = request.messages.last().is_some_and(is_new);
        Ok(match is_first {
            true => self.first.clone(),
            false => ChatResponse::text("done"),
        })
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future
        .now_or_never()
        .expect("the model and the tools do not wait")
}

fn agent(first: ChatResponse) -> Agent {
    let info = ModelInfo::new("bench", "fake");
    let limits = Limits {
        max_tool_calls: 200,
        ..Limits::default()
    };
    Agent::new(Fake { info, first })
        .with_tool(add())
        .with_limits(limits)
}

fn planning(shape: Shape) -> Agent {
    let answer = json!({"steps": steps(shape, "tool", "arguments")}).to_string();
    let numbers = PlanAndExecute::new(100).with_dataflow(Dataflow::new());
    agent(ChatResponse::text(answer)).with_strategy(Strategy::PlanAndExecute(numbers))
}

fn plans(c: &mut Criterion) {
    let mut group = c.benchmark_group("agent/plan_100");
    for (name, shape) in [
        ("wide", Shape::Wide),
        ("chain", Shape::Chain),
        ("layers", Shape::Layers),
    ] {
        let agent = planning(shape);
        let output = now(agent.run("Add.")).unwrap();
        assert_eq!((output.report.tool_calls.len(), output.report.steps), (STEPS, 2));
        assert!(output.report.tool_calls.iter().all(|call| call.ok));
        group.bench_function(format!("{name}/agent"), |b| {
            b.iter(|| now(agent.run(black_box("Add."))).unwrap())
        });

        let text = steps(shape, "action", "parameters").to_string();
        let actions = Actions::new().with_fn("add", ActionInfo::new(Effect::ReadOnly), async |call| {
            let number = |name: &str| call.parameters()[name].as_i64().ok_or("a number is expected");
            Ok(json!(number("a")? + number("b")?))
        });
        let executor = Executor::new(actions, VirtualTimer::new());
        let run = || {
            let plan = Plan::from_json(black_box(&text)).unwrap();
            now(executor.run(&plan).into_future()).unwrap()
        };
        assert!(run().is_success());
        group.bench_function(format!("{name}/executor_alone"), |b| b.iter(run));
    }
    let calls = (0..STEPS).map(|n| {
        let arguments = json!({"a": n, "b": 1}).to_string();
        Part::ToolCall(ToolCall::new(format!("s{n}"), "add", arguments))
    });
    let looping = agent(ChatResponse::new(calls.collect(), Finish::ToolCalls));
    assert_eq!(now(looping.run("Add.")).unwrap().report.tool_calls.len(), STEPS);
    group.bench_function("wide/tool_loop", |b| {
        b.iter(|| now(looping.run(black_box("Add."))).unwrap())
    });
    group.finish();
}

criterion_group!(benches, plans);
criterion_main!(benches);
