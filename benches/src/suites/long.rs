//! Long runs: twenty turns with a tool and a journal over loopback, sixteen in process, and a turn that has a thousand before it.

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use peregrine_agent::{Agent, Input, Limits};
use peregrine_checkpoints::{Checkpoints, Options, RunKey, Span};
use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, Message, Messages, ModelHandle, ModelInfo, Result, RunId, Scope,
    ToolCall, ToolResult,
};
use peregrine_providers::wire::openai_chat::{ChatCompat, OpenAiChat};
use peregrine_providers::wire::{ChatCodec as _, Mode, Target};
use peregrine_tools::Tool as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::connect;
use crate::bench::{Group, Work, each_async, floor, ours, runtime};
use crate::fake::{FAKE_TEXT, Fake, add};
use crate::hand::{Hand, Sum, add_spec};
use crate::serve::{LONG, QUESTION, SYSTEM, Script, Server, sum_text};

pub(super) fn groups() -> Vec<Group> {
    vec![long_running(0), long_running(50), in_process(), late_turn()]
}

fn limits() -> Limits {
    Limits {
        max_steps: 2_000,
        max_tool_calls: 2_000,
        ..Limits::default()
    }
}

fn long_running(latency_ms: u64) -> Group {
    Group::new(
        format!("execution/long_running/{latency_ms}ms"),
        format!(
            "twenty turns, of which nineteen call a tool, with a journal of all of it in files, process-safe; over loopback, the \
             model takes {latency_ms} ms; the floor writes what is new of the conversation to a file before it goes on"
        ),
        &[ours("peregrine"), floor("reqwest")],
        move || {
            let (runtime, server) = (runtime(), Rc::new(Server::start(Script::Tools, latency_ms)));
            let folder = Rc::new(TempDir::new().unwrap());
            vec![
                with_journal(&runtime, &server, &folder),
                with_file(&runtime, &server, &folder),
            ]
        },
    )
}

fn with_journal(runtime: &Rc<Runtime>, server: &Rc<Server>, folder: &Rc<TempDir>) -> Work {
    let (runtime, server, folder) = (Rc::clone(runtime), Rc::clone(server), Rc::clone(folder));
    let uri = format!("dir:{}", folder.path().join("store").display());
    let checkpoints = runtime
        .block_on(Checkpoints::open(&uri, Options::default()))
        .unwrap();
    let scope = Scope::tenant("bench").unwrap();
    let agent = Agent::new(connect(&server.url()))
        .with_instructions(SYSTEM)
        .with_tool(add())
        .with_limits(limits())
        .with_scope(scope.clone())
        .with_checkpoints(checkpoints.clone());
    let mut runs = 0;
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            runs += 1;
            let run = RunId::from_parts(runs, [2; 10]);
            let input = Input::from(QUESTION).with_run_id(run);
            let (output, elapsed) = runtime.block_on(async {
                let begun = Instant::now();
                let output = agent.run(input).await.unwrap();
                (output, begun.elapsed())
            });
            meter.took(elapsed, 1);
            assert_eq!(output.text(), sum_text(2, LONG - 1));
            assert_eq!(
                (output.report.steps, output.report.tool_calls.len()),
                (LONG as u32, LONG - 1)
            );
            let key = RunKey::new(scope.clone(), run);
            runtime.block_on(async {
                let history = checkpoints.load(&key, Span::ALL).await.unwrap();
                // Each turn but the last is an answer, a call of a tool, and what it gave.
                assert!(
                    history.records.len() >= 3 * (LONG - 1),
                    "{}",
                    history.records.len()
                );
                checkpoints.remove(&key).await.unwrap();
            });
        }
        assert!(!server.url().is_empty() && folder.path().exists());
    })
}

fn with_file(runtime: &Rc<Runtime>, server: &Rc<Server>, folder: &Rc<TempDir>) -> Work {
    let (runtime, server, folder) = (Rc::clone(runtime), Rc::clone(server), Rc::clone(folder));
    let (hand, tools) = (Hand::new(&server.url()), add_spec());
    let path = folder.path().join("conversation");
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            let (text, elapsed) = runtime.block_on(async {
                let begun = Instant::now();
                let mut file = File::create(&path).unwrap();
                let keep = |new: &[_]| file.write_all(&serde_json::to_vec(new).unwrap()).unwrap();
                let text = hand.kept_tool_loop(SYSTEM, QUESTION, &tools, keep).await;
                (text, begun.elapsed())
            });
            meter.took(elapsed, 1);
            assert_eq!(text, sum_text(2, LONG - 1));
            let kept = std::fs::read_to_string(&path).unwrap();
            assert!(kept.contains(QUESTION) && kept.contains(&text));
        }
        assert!(!server.url().is_empty());
    })
}

const LOOP: usize = 16;

fn in_process() -> Group {
    Group::new(
        "execution/tool_loop/16_in_process",
        "sixteen turns of a model in this process, of which fifteen call a tool; the floor is the loop by hand over the same model",
        &[ours("peregrine").counted(), floor("loop").counted()],
        || {
            let runtime = runtime();
            let model = Fake::new(LOOP).into_handle();
            let agent = Agent::new(model.clone()).with_tool(add()).with_limits(limits());
            let tools: Arc<[_]> = Arc::from([add().info().spec().clone()]);
            vec![
                each_async(
                    &runtime,
                    move || {
                        let agent = agent.clone();
                        async move { agent.run(QUESTION).await.unwrap() }
                    },
                    |output| {
                        assert_eq!(output.text(), FAKE_TEXT);
                        assert_eq!(output.report.tool_calls.len(), LOOP - 1);
                    },
                ),
                each_async(
                    &runtime,
                    move || by_hand(model.clone(), Arc::clone(&tools)),
                    |(text, calls)| assert_eq!((text.as_str(), *calls), (FAKE_TEXT, LOOP - 1)),
                ),
            ]
        },
    )
}

/// The loop by hand, over the same model: the same requests, nothing else.
async fn by_hand(model: ModelHandle, tools: Arc<[peregrine_core::ToolSpec]>) -> (String, usize) {
    let mut messages: Messages = [Message::user(QUESTION)].into_iter().collect();
    let mut called = 0;
    loop {
        let request = ChatRequest {
            messages: messages.clone(),
            tools: Arc::clone(&tools),
            ..ChatRequest::default()
        };
        let response = model.complete(&request).await.unwrap();
        drop(request);
        let calls: Vec<ToolCall> = response.tool_calls().cloned().collect();
        if calls.is_empty() {
            return (response.message.text(), called);
        }
        messages.push(response.message);
        for call in calls {
            let Sum { a, b } = serde_json::from_str(&call.arguments).unwrap();
            messages.push(Message::tool(ToolResult::new(&call, (a + b).to_string())));
            called += 1;
        }
    }
}

/// How many turns are timed of each run.
const TIMED: usize = 10;

fn late_turn() -> Group {
    Group::new(
        "execution/late_turn/1000",
        "a turn with a tool around turn 1,000 of a run, over a model in this process that encodes each request as for the wire; the \
         floor is the same around turn 10",
        &[ours("turn_1000"), floor("turn_10")],
        || vec![turns_around(1_000), turns_around(10)],
    )
}

/// Notes when it is asked, having encoded what it was asked, as the client does.
struct Watched {
    fake: Fake,
    watch: Arc<Mutex<Watch>>,
}

#[derive(Default)]
struct Watch {
    at: Vec<Instant>,
    /// The size of the last body.
    bytes: usize,
}

impl ChatModel for Watched {
    fn info(&self) -> &ModelInfo {
        self.fake.info()
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
        {
            let mut watch = self.watch.lock().unwrap();
            watch.at.push(Instant::now());
            watch.bytes = encode(self.fake.info(), request, watch.bytes);
        }
        self.fake.complete(request).await
    }
}

/// What is done with a request before it is sent: the body, and what of it is remembered for the next turn.
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

fn turns_around(turn: usize) -> Work {
    let (runtime, turns) = (runtime(), turn + TIMED);
    let watch = Arc::new(Mutex::new(Watch::default()));
    let model = Watched {
        fake: Fake::new(turns),
        watch: Arc::clone(&watch),
    };
    let agent = Agent::new(model).with_tool(add()).with_limits(limits());
    Box::new(move |meter| {
        for _ in 0..meter.operations().div_ceil(TIMED as u64) {
            *watch.lock().unwrap() = Watch::default();
            let output = runtime.block_on(agent.run(QUESTION)).unwrap();
            assert_eq!(output.report.steps as usize, turns);
            let watch = watch.lock().unwrap();
            assert!(watch.bytes > turn * 100, "all of the conversation was encoded");
            let (first, last) = (turn - TIMED / 2, turn + TIMED / 2);
            meter.took(watch.at[last].duration_since(watch.at[first]), TIMED as u64);
        }
    })
}
