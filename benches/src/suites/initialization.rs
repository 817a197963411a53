//! How long it takes until something can be asked: a process, an agent, what is built at its first use.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use peregrine_agent::Agent;
use peregrine_core::{ChatModel as _, ChatRequest, Message, ModelHandle};
use peregrine_providers::Pool;
use peregrine_signatures::SignatureSpec;
use peregrine_tools::{Registry, Tool as _};

use super::connector;
use crate::bench::{Group, Work, each, each_async, floor, ours, runtime};
use crate::crowd::peak_bytes;
use crate::fake::{Fake, add};
use crate::hand::Hand;
use crate::serve::{ANSWER, QUESTION, SYSTEM, Script, Server, TEXT};

pub(super) fn groups() -> Vec<Group> {
    vec![
        cold_start(),
        from_scratch(),
        with_one_tool(),
        warm_start(),
        first_call(),
        signature(),
    ]
}

fn cold_start() -> Group {
    Group::new(
        "initialization/cold_start/process",
        "a fresh process, until the first byte of its first request arrives; it ends with the right answer",
        &[ours("peregrine"), floor("reqwest")],
        || vec![process("cold-peregrine"), process("cold-reqwest")],
    )
}

/// A program that was built beside this one.
fn beside(name: &str) -> PathBuf {
    std::env::current_exe().unwrap().with_file_name(name)
}

fn process(name: &'static str) -> Work {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            let begun = Instant::now();
            let process = Command::new(beside(name))
                .arg(&url)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let (mut socket, _) = listener.accept().unwrap();
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            meter.took(begun.elapsed(), 1);
            assert_eq!(byte, *b"P", "a POST");
            read_request(&mut socket);
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{ANSWER}",
                ANSWER.len()
            );
            socket.write_all(answer.as_bytes()).unwrap();
            // What is resident now is what an agent needs that waits for its answer.
            if let Some(bytes) = peak_bytes(&process.id().to_string()) {
                meter.figure("resident peak of the process, MB:", bytes as f64 / 1e6);
            }
            let output = process.wait_with_output().unwrap();
            assert!(output.status.success());
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), TEXT);
        }
    })
}

/// Reads the rest of a request: its head, and as many bytes as that says.
fn read_request(socket: &mut impl std::io::Read) {
    let (mut request, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap();
            if body.len() >= length {
                assert!(
                    body.contains("every letter of the alphabet"),
                    "the question was sent"
                );
                return;
            }
        }
        let count = socket.read(&mut buffer).unwrap();
        assert!(count > 0, "the request ended in its middle");
        request.extend_from_slice(&buffer[..count]);
    }
}

fn from_scratch() -> Group {
    Group::new(
        "initialization/agent/scratch",
        "an agent around a model that is there; the floor clones the model's handle into an allocation of its own",
        &[ours("peregrine").counted(), floor("handle").counted()],
        || {
            let model = Fake::new(1).into_handle();
            let shared = model.clone();
            vec![
                each(move || Agent::new(shared.clone()), |agent| agent.check().unwrap()),
                each(
                    move || Arc::new(model.clone()),
                    |model| assert_eq!(model.info().provider(), "bench"),
                ),
            ]
        },
    )
}

fn with_one_tool() -> Group {
    Group::new(
        "initialization/agent/one_tool",
        "an agent around a model that is there, with a tool that is made for it; the floor makes the tool",
        &[ours("peregrine").counted(), floor("tool").counted()],
        || {
            let model = Fake::new(1).into_handle();
            vec![
                each(
                    move || Agent::new(model.clone()).with_tool(add()),
                    |agent| {
                        assert_eq!(agent.tools().len(), 1);
                        agent.check().unwrap();
                    },
                ),
                each(add, |tool| assert_eq!(tool.info().name(), "add")),
            ]
        },
    )
}

fn warm_start() -> Group {
    Group::new(
        "initialization/warm_start/one_tool",
        "an agent with instructions and a tool, from a model and a registry that are shared",
        &[ours("peregrine").counted(), floor("clones").counted()],
        || {
            let model = Fake::new(1).into_handle();
            let tools = Registry::builder().with(add()).build().unwrap();
            let shared = (model.clone(), tools.clone());
            vec![
                each(
                    move || {
                        Agent::new(shared.0.clone())
                            .with_instructions(SYSTEM)
                            .with_tools(shared.1.clone())
                    },
                    |agent| {
                        assert_eq!(agent.tools().len(), 1);
                        agent.check().unwrap();
                    },
                ),
                // The least that is an agent: its parts, shared, and its instructions.
                each(
                    move || -> Arc<(ModelHandle, Registry, Message)> {
                        Arc::new((model.clone(), tools.clone(), Message::system(SYSTEM)))
                    },
                    |parts| assert_eq!(parts.1.len(), 1),
                ),
            ]
        },
    )
}

fn first_call() -> Group {
    Group::new(
        "initialization/lazy_init/first_call",
        "the first call of a client that was just made, of a pool that has none yet: what it builds lazily, and the connection",
        &[ours("peregrine"), floor("reqwest")],
        || {
            let runtime = runtime();
            let server = Rc::new(Server::start(Script::Text, 0));
            let (ours, hand) = (Rc::clone(&server), server);
            let request = ChatRequest::new([Message::system(SYSTEM), Message::user(QUESTION)]);
            vec![
                each_async(
                    &runtime,
                    move || {
                        let pool = Pool::default();
                        let (model, request) = (connector(&ours.url()).with_pool(pool), request.clone());
                        let model = model.chat("openai/test-model").unwrap();
                        async move { model.complete(&request).await.unwrap().message.text() }
                    },
                    |text| assert_eq!(text, TEXT),
                ),
                each_async(
                    &runtime,
                    move || {
                        let hand = Hand::new(&hand.url());
                        async move { hand.ask(SYSTEM, QUESTION).await }
                    },
                    |text| assert_eq!(text, TEXT),
                ),
            ]
        },
    )
}

fn signature() -> Group {
    const TEXT: &str =
        "question, context: list[str] -> answer, confidence: float, kind: literal['fact', 'guess']";
    Group::new(
        "initialization/lazy_init/signature",
        "a line of text becomes a signature: parsed, and compiled to schema, prompt and parser",
        &[ours("peregrine").counted()],
        || {
            vec![each(
                || SignatureSpec::parse(TEXT).unwrap().compile().unwrap(),
                |compiled| {
                    assert_eq!(
                        compiled.digest(),
                        SignatureSpec::parse(TEXT).unwrap().compile().unwrap().digest()
                    )
                },
            )]
        },
    )
}
