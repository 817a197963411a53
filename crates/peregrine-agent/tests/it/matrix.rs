//! Every strategy with every window, with text and with a form: a stream folds to what a run gives, prompts keep their
//! beginnings, turns begin and end once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use peregrine_agent::{
    Agent, BestOfN, Cause, Dataflow, HookContext, Input, Observer, PlanAndExecute, Reflection, RunOutput,
    Strategy, Window, async_trait, lint_requests,
};
use peregrine_core::{ChatRequest, ChatResponse, ErrorKind, Message, ProviderError, Role, RunId};
use peregrine_signatures::Signature;
use peregrine_tools::tool;

use crate::support::{Script, calls, text};

/// Adds two numbers.
#[tool(effect = "read_only", danger = "safe")]
async fn add(a: i64, b: i64) -> i64 {
    tokio::task::yield_now().await;
    a + b
}

/// Answer the question.
#[derive(Signature)]
struct Ask {
    #[input]
    question: String,
    #[output]
    answer: String,
}

/// Answers what it is asked by what the request looks like: plans, judgements, calls of tools, answers.
fn answer(request: &ChatRequest, typed: bool) -> ChatResponse {
    let told: Vec<String> = request.messages.iter().map(Message::text).collect();
    let says = |words: &str| told.iter().any(|text| text.contains(words));
    if says("Split a task into steps") {
        return text(r#"{"steps": ["add", "add more"]}"#);
    }
    if says("Plan how a task is done") {
        // The first one is sent back.
        return text(match says("cannot run") {
            false => r#"{"steps": [{"id": "a", "tool": "add", "arguments": {"a": "1", "b": 2}}]}"#,
            true => {
                r#"{"steps": [{"id": "a", "tool": "add", "arguments": {"a": 1, "b": 2}},
                              {"id": "b", "tool": "add", "arguments": {"a": 1, "b": 3}},
                              {"id": "c", "task": "look at $a"},
                              {"id": "d", "tool": "add", "arguments": {"a": "$a", "b": "$b"}}]}"#
            }
        });
    }
    if says("Judge an answer") {
        let accept = says("better");
        return text(&format!(r#"{{"problems": ["more"], "accept": {accept}}}"#));
    }
    let results = request
        .messages
        .iter()
        .filter(|message| message.role == Role::Tool)
        .count();
    if !request.tools.is_empty() && results < 3 {
        return calls(&[("add", &format!(r#"{{"a": {results}, "b": 1}}"#))]);
    }
    let word = if says("looked at") { "better" } else { "four" };
    let is_step = says("Do only this step now");
    match typed && !is_step {
        true => text(&format!(r#"{{"answer": "{word}"}}"#)),
        false => text(word),
    }
}

/// What was sent in each thread, and the turns as they began and ended.
#[derive(Clone, Default)]
struct Watches(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    requests: BTreeMap<u32, Vec<ChatRequest>>,
    turns: BTreeMap<(u32, u32), Vec<&'static str>>,
}

impl Watches {
    fn note(&self, context: &HookContext, what: &'static str) {
        let mut seen = self.0.lock().unwrap();
        seen.turns
            .entry((context.thread, context.turn))
            .or_default()
            .push(what);
    }
}

#[async_trait]
impl Observer for Watches {
    async fn before_turn(&self, context: &HookContext) {
        self.note(context, "before");
    }
    async fn after_turn(&self, context: &HookContext) {
        self.note(context, "after");
    }
    async fn before_model(&self, context: &HookContext, request: &ChatRequest) {
        let mut seen = self.0.lock().unwrap();
        seen.requests
            .entry(context.thread)
            .or_default()
            .push(request.clone());
    }
}

fn strategies() -> [Strategy; 6] {
    // A majority would do, but how many are asked until then is a matter of time.
    let mut vote = BestOfN::new(3);
    vote.min_answers = 3;
    [
        Strategy::SingleShot,
        Strategy::ToolLoop,
        Strategy::PlanAndExecute(PlanAndExecute::new(4)),
        Strategy::PlanAndExecute(PlanAndExecute::new(4).with_dataflow(Dataflow::new())),
        Strategy::Reflection(Reflection::new(2)),
        Strategy::BestOfN(vote),
    ]
}

fn windows() -> [Window; 3] {
    [Window::all(), Window::last_turns(2), Window::tokens(700)]
}

fn history() -> Vec<Message> {
    let turns = (0..6).flat_map(|turn| {
        [
            Message::user(format!("question {turn}")),
            Message::assistant("well"),
        ]
    });
    turns.collect()
}

fn agent(strategy: &Strategy, window: &Window, model: Script, watches: &Watches) -> Agent {
    let away = Script::new(|_, _| Err(ProviderError::new("test", 529, ErrorKind::Overloaded, "away").into()));
    Agent::new(away)
        .with_fallback(model)
        .with_instructions("Be brief.")
        .with_tool(add())
        .with_strategy(strategy.clone())
        .with_window(*window)
        .with_limits(peregrine_agent::Limits {
            max_steps: 64,
            ..peregrine_agent::Limits::default()
        })
        .with_observer(watches.clone())
        .with_timer(Arc::new(peregrine_providers::TokioClock))
}

async fn go(agent: &Agent, typed: bool, streamed: bool, read_first: usize) -> (RunOutput, Option<String>) {
    let input = || Input::new(history()).with_run_id(RunId::from_parts(1, [1; 10]));
    let inputs = AskInput::new("2 + 2?");
    match (typed, streamed) {
        (false, false) => (agent.run(input().with_user("2 + 2?")).await.unwrap(), None),
        (false, true) => {
            let mut events = agent.run_stream(input().with_user("2 + 2?"));
            for _ in 0..read_first {
                events.next().await.unwrap().unwrap();
            }
            (events.collect().await.unwrap(), None)
        }
        (true, false) => {
            let output = agent.run_as::<Ask>((&inputs, input())).await.unwrap();
            (output.run, Some(output.output.answer))
        }
        (true, true) => {
            let mut events = agent.run_stream_as::<Ask>((&inputs, input()));
            for _ in 0..read_first {
                events.next().await.unwrap().unwrap();
            }
            let output = events.collect_as::<Ask>().await.unwrap();
            (output.run, Some(output.output.answer))
        }
    }
}

#[tokio::test]
async fn streams_fold_to_runs_and_prompts_keep_their_beginnings() {
    for strategy in strategies() {
        for window in windows() {
            for typed in [false, true] {
                let case = format!("{strategy:?}, {window:?}, {typed}");
                let mut outcomes = Vec::new();
                for (streamed, read_first) in [(false, 0), (true, 0), (true, 3)] {
                    let watches = Watches::default();
                    let model = Script::new(move |request, _| Ok(answer(request, typed)));
                    let agent = agent(&strategy, &window, model.clone(), &watches);
                    let (run, output) = go(&agent, typed, streamed, read_first).await;
                    let seen = std::mem::take(&mut *watches.0.lock().unwrap());
                    check_turns(&case, &seen);
                    check_prompts(&case, &window, &seen);
                    outcomes.push((run, output, model.requests().len()));
                }
                let called = outcomes[0].0.report.tool_calls.len();
                assert_eq!(
                    called > 0,
                    strategy != Strategy::SingleShot,
                    "{case}: {called} calls"
                );
                assert_eq!(outcomes[0], outcomes[1], "{case}");
                assert_eq!(outcomes[0], outcomes[2], "{case}");
            }
        }
    }
}

fn check_turns(case: &str, seen: &Seen) {
    for (turn, moments) in &seen.turns {
        assert_eq!(*moments, ["before", "after"], "{case}: {turn:?}");
    }
}

fn check_prompts(case: &str, window: &Window, seen: &Seen) {
    for (thread, requests) in &seen.requests {
        for found in lint_requests(requests).breaks {
            let is_cut = *window != Window::all() && found.cause == Some(Cause::Dropped);
            assert!(is_cut, "{case}, thread {thread}: {found:?}");
        }
    }
}
