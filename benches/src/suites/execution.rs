//! Runs of an agent: one call, a conversation of three turns with memory, a call with a tool. Long runs are in `long`.
//!
//! Over loopback the model takes 0 or 50 ms; in process it takes nothing, and what is left is the framework.

use std::rc::Rc;
use std::sync::Arc;

use peregrine_agent::{Agent, Input, TurnMemory};
use peregrine_core::{ChatModel as _, ChatRequest, Message, Scope};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use super::connect;
use crate::bench::{Group, Work, each_async, floor, ours, runtime};
use crate::fake::{FAKE_TEXT, Fake, add};
use crate::hand::{Bare, Hand, HandMessage, add_spec};
use crate::serve::{QUESTION, SYSTEM, Script, Server, TEXT, sum_text, turn_text};

const TURNS: [&str; 3] = [
    "Which animals are in it?",
    "Which of them is quick?",
    "And which one is lazy, then?",
];

pub(super) fn groups() -> Vec<Group> {
    let mut groups = Vec::new();
    for latency_ms in [0, 50] {
        groups.extend([single_shot(latency_ms), multi_turn(latency_ms)]);
    }
    groups.extend([single_shot_bare(), tool_loop(), single_shot_in_process()]);
    groups
}

fn over_loopback(op: &str, latency_ms: u64, what: &str, make: impl Fn(u64) -> Vec<Work> + 'static) -> Group {
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
            let hand = Hand::new(&server.url());
            let keep = Rc::clone(&server);
            vec![
                one_answer(&runtime, server),
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

/// An agent that asks once.
fn one_answer(runtime: &Rc<Runtime>, server: Rc<Server>) -> Work {
    let agent = Agent::new(connect(&server.url())).with_instructions(SYSTEM);
    each_async(
        runtime,
        move || {
            let (agent, _server) = (agent.clone(), &server);
            async move { agent.run(QUESTION).await.unwrap() }
        },
        |output| assert_eq!(output.text(), TEXT),
    )
}

/// The floor of the floor: what is left below it is the kernel, the test server and hyper.
fn single_shot_bare() -> Group {
    Group::new(
        "execution/single_shot_bare/0ms",
        "one question with instructions, one answer, over loopback; beside one connection that is kept by hand",
        &[ours("peregrine"), floor("hyper")],
        || {
            let (runtime, server) = (runtime(), Rc::new(Server::start(Script::Text, 0)));
            let bare = runtime.block_on(Bare::connect(&server.url()));
            let bare = Rc::new(Mutex::new(bare));
            let keep = Rc::clone(&server);
            vec![
                one_answer(&runtime, server),
                each_async(
                    &runtime,
                    move || {
                        let (bare, _server) = (Rc::clone(&bare), &keep);
                        async move { bare.lock().await.ask(SYSTEM, QUESTION).await }
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

fn tool_loop() -> Group {
    let what = "two turns: a call of a tool, and the answer with its result";
    over_loopback("tool_loop", 0, what, |latency_ms| {
        let (runtime, server) = (runtime(), Rc::new(Server::start(Script::OneTool, latency_ms)));
        let agent = Agent::new(connect(&server.url()))
            .with_instructions(SYSTEM)
            .with_tool(add());
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
                    assert_eq!(output.text(), sum_text(2, 1));
                    assert_eq!((output.report.steps, output.report.tool_calls.len()), (2, 1));
                },
            ),
            each_async(
                &runtime,
                move || {
                    let (hand, tools, _server) = (hand.clone(), Arc::clone(&tools), &keep);
                    async move { hand.tool_loop(SYSTEM, QUESTION, &tools).await }
                },
                |text| assert_eq!(*text, sum_text(2, 1)),
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
