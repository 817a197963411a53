//! Runs of an agent: one call, a conversation of three turns with memory, twenty turns with a tool.
//!
//! Over loopback the model takes 0 or 50 ms; in process it takes nothing, and what is left is the framework. Agents do not
//! write journals yet, so the long run has no checkpoints.

use std::rc::Rc;
use std::sync::Arc;

use peregrine_agent::{Agent, Input, Limits, TurnMemory};
use peregrine_core::{
    ChatModel as _, ChatRequest, Message, Messages, ModelHandle, Scope, ToolCall, ToolResult,
};
use peregrine_tools::Tool as _;

use super::connect;
use crate::bench::{Group, each_async, floor, ours, runtime};
use crate::fake::{FAKE_TEXT, Fake, add};
use crate::hand::{Hand, HandMessage, Sum, add_spec};
use crate::serve::{LONG, QUESTION, SYSTEM, Script, Server, TEXT, sum_text, turn_text};

const TURNS: [&str; 3] = [
    "Which animals are in it?",
    "Which of them is quick?",
    "And which one is lazy, then?",
];

pub(super) fn groups() -> Vec<Group> {
    let mut groups = Vec::new();
    for latency_ms in [0, 50] {
        groups.extend([
            single_shot(latency_ms),
            multi_turn(latency_ms),
            long_running(latency_ms),
        ]);
    }
    groups.extend([single_shot_in_process(), long_running_in_process()]);
    groups
}

fn over_loopback(
    op: &str,
    latency_ms: u64,
    what: &str,
    make: impl Fn(u64) -> Vec<crate::bench::Work> + 'static,
) -> Group {
    Group::new(
        format!("execution/{op}/{latency_ms}ms"),
        format!("{what}, over loopback, the model takes {latency_ms} ms"),
        &[ours("peregrine"), floor("reqwest")],
        move || make(latency_ms),
    )
}

fn single_shot(latency_ms: u64) -> Group {
    over_loopback(
        "single_shot",
        latency_ms,
        "one question with instructions, one answer",
        |latency_ms| {
            let (runtime, server) = (runtime(), Rc::new(Server::start(Script::Text, latency_ms)));
            let agent = Agent::new(connect(&server.url())).with_instructions(SYSTEM);
            let hand = Hand::new(&server.url());
            let keep = Rc::clone(&server);
            vec![
                each_async(
                    &runtime,
                    move || {
                        let (agent, _server) = (agent.clone(), &server);
                        async move { agent.run(QUESTION).await.unwrap() }
                    },
                    |output| assert_eq!(output.text(), TEXT),
                ),
                each_async(
                    &runtime,
                    move || {
                        let (hand, _server) = (hand.clone(), &keep);
                        async move { hand.ask(SYSTEM, QUESTION).await }
                    },
                    |text| assert_eq!(text, TEXT),
                ),
            ]
        },
    )
}

fn multi_turn(latency_ms: u64) -> Group {
    let what = "three questions in a row, the history of which is sent again each time";
    over_loopback("multi_turn", latency_ms, what, |latency_ms| {
        let (runtime, server) = (runtime(), Rc::new(Server::start(Script::Turns, latency_ms)));
        let model = connect(&server.url());
        let hand = Hand::new(&server.url());
        let keep = Rc::clone(&server);
        // The third question has two questions and two answers before it, and the instructions.
        let last = turn_text(3, 6);
        let hand_last = last.clone();
        vec![
            each_async(
                &runtime,
                move || {
                    let (model, _server) = (model.clone(), &server);
                    async move {
                        let agent = Agent::new(model)
                            .with_instructions(SYSTEM)
                            .with_memory(TurnMemory::new(8));
                        let scope = Scope::tenant("bench").unwrap();
                        let mut text = String::new();
                        for question in TURNS {
                            let input = Input::from(question).with_scope(scope.clone());
                            text = agent.run(input).await.unwrap().text();
                        }
                        text
                    }
                },
                move |text| assert_eq!(*text, last),
            ),
            each_async(
                &runtime,
                move || {
                    let (hand, _server) = (hand.clone(), &keep);
                    async move {
                        let mut messages = vec![HandMessage::new("system", SYSTEM)];
                        let mut text = String::new();
                        for question in TURNS {
                            text = hand.turn(&mut messages, question).await;
                        }
                        text
                    }
                },
                move |text| assert_eq!(*text, hand_last),
            ),
        ]
    })
}

fn limits() -> Limits {
    Limits {
        max_steps: LONG as u32 + 1,
        max_tool_calls: LONG as u32 + 1,
        ..Limits::default()
    }
}

fn long_running(latency_ms: u64) -> Group {
    let what = "twenty turns, of which nineteen call a tool; without checkpoints";
    over_loopback("long_running", latency_ms, what, |latency_ms| {
        let (runtime, server) = (runtime(), Rc::new(Server::start(Script::Tools, latency_ms)));
        let agent = Agent::new(connect(&server.url()))
            .with_instructions(SYSTEM)
            .with_tool(add())
            .with_limits(limits());
        let hand = Hand::new(&server.url());
        let keep = Rc::clone(&server);
        let tools = Arc::new(add_spec());
        vec![
            each_async(
                &runtime,
                move || {
                    let (agent, _server) = (agent.clone(), &server);
                    async move { agent.run(QUESTION).await.unwrap() }
                },
                |output| {
                    assert_eq!(output.text(), sum_text(2));
                    assert_eq!(
                        (output.report.steps, output.report.tool_calls.len()),
                        (LONG as u32, LONG - 1)
                    );
                },
            ),
            each_async(
                &runtime,
                move || {
                    let (hand, tools, _server) = (hand.clone(), Arc::clone(&tools), &keep);
                    async move { hand.tool_loop(SYSTEM, QUESTION, &tools).await }
                },
                |text| assert_eq!(*text, sum_text(2)),
            ),
        ]
    })
}

fn single_shot_in_process() -> Group {
    Group::new(
        "execution/single_shot/in_process",
        "one question, one answer, of a model in this process",
        &[ours("peregrine").counted(), floor("model").counted()],
        || {
            let runtime = runtime();
            let model = Fake::new(1).into_handle();
            let agent = Agent::new(model.clone());
            vec![
                each_async(
                    &runtime,
                    move || {
                        let agent = agent.clone();
                        async move { agent.run(QUESTION).await.unwrap() }
                    },
                    |output| assert_eq!(output.text(), FAKE_TEXT),
                ),
                each_async(
                    &runtime,
                    move || {
                        let model = model.clone();
                        async move {
                            let request = ChatRequest::new([Message::user(QUESTION)]);
                            model.complete(&request).await.unwrap()
                        }
                    },
                    |response| assert_eq!(response.message.text(), FAKE_TEXT),
                ),
            ]
        },
    )
}

fn long_running_in_process() -> Group {
    Group::new(
        "execution/long_running/in_process",
        "twenty turns of a model in this process, of which nineteen call a tool; without checkpoints",
        &[ours("peregrine").counted(), floor("loop").counted()],
        || {
            let runtime = runtime();
            let model = Fake::new(LONG).into_handle();
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
                        assert_eq!(output.report.tool_calls.len(), LONG - 1);
                    },
                ),
                each_async(
                    &runtime,
                    move || by_hand(model.clone(), Arc::clone(&tools)),
                    |(text, calls)| assert_eq!((text.as_str(), *calls), (FAKE_TEXT, LONG - 1)),
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
