//! `chat --durable` and `chat --resume`: the conversation goes on after kill -9, in the middle of an answer too.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::time::Duration;

use peregrine_testkit::server::{LlmServer, Reply};
use serde_json::{Value, json};

use crate::durable::until_heard;
use crate::kept::{Kept, in_every_store};
use crate::run::{against, newest, wait};

/// Starts a chat on a pipe.
fn start(kept: &Kept, server: &LlmServer, more: &[&str]) -> Child {
    let arguments = kept.arguments(&[&["chat"], more].concat());
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut command = kept.world.command(&against(server, &arguments));
    command.stdin(Stdio::piped()).spawn().unwrap()
}

fn say(child: &mut Child, line: &str) {
    let stdin = child.stdin.as_mut().unwrap();
    stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    stdin.flush().unwrap();
}

fn texts(request: &Value) -> Vec<String> {
    let messages = request["messages"].as_array().unwrap();
    let texts = messages
        .iter()
        .map(|message| message["content"].as_str().unwrap_or_default());
    texts.map(str::to_owned).collect()
}

fn runs(kept: &Kept) -> Vec<Value> {
    let listed = kept.run(&["runs", "list", "--json"]).ok().json();
    listed["runs"].as_array().unwrap().clone()
}

#[test]
fn a_conversation_goes_on_after_kill() {
    in_every_store(|kept| {
        let server = LlmServer::start_blocking().unwrap();
        server.push(Reply::text("Hello Ada."));
        server.push(Reply::tool_call(
            "a",
            "read_file",
            json!({"path": "docs/food.md"}),
        ));
        server.set_reply(Reply::text("late").with_first_byte_latency(Duration::from_secs(600)));
        let mut child = start(kept, &server, &["docs", "--durable"]);
        say(&mut child, "I am Ada.");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "Hello Ada.");
        say(&mut child, "What do they hunt?");
        until_heard(&server, 3, &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        let cut_off = newest(&server);
        let listed = runs(kept);
        assert_eq!(
            listed.len(),
            2,
            "the chat, and the run of its open question: {listed:?}"
        );
        let chat = listed.iter().find(|row| row["state"] == "chat").unwrap()["run"].clone();
        let chat = chat.as_str().unwrap();
        let refused = kept.run(&["runs", "resume", chat]);
        assert!(
            refused.code == Some(1) && refused.err.contains("peregrine chat --resume"),
            "{refused:?}"
        );

        // The model, its address and the files are those of before.
        server.set_reply(Reply::text("Pigeons."));
        let ran = kept
            .run_with_input(&["chat", "--resume", "last"], "Who am I?\n")
            .ok();
        assert_eq!(ran.out, "Pigeons.\nPigeons.\n", "{ran:?}");
        assert!(ran.err.contains("going on with: What do they hunt?"), "{ran:?}");
        let heard: Vec<_> = server
            .requests()
            .iter()
            .map(|request| request.json().unwrap().clone())
            .collect();
        assert_eq!(heard.len(), 5, "what was read is not read again");
        assert_eq!(heard[3], cut_off);
        assert!(texts(&heard[4]).contains(&"I am Ada.".to_owned()) && heard[4]["tools"].is_array());
        let listed = runs(kept);
        assert_eq!(
            listed.len(),
            1,
            "the runs of answered questions are gone: {listed:?}"
        );
        let shown = kept.run(&["runs", "show", chat]).ok();
        for told in ["begun", "asked", "answered"] {
            assert!(shown.out.contains(told), "{told}: {shown:?}");
        }
        kept.run(&["runs", "verify"]).ok();
    });
}

#[test]
fn a_question_that_failed_leaves_no_trace_and_what_is_forgotten_stays_so() {
    let kept = Kept::in_dir();
    let server = LlmServer::start_blocking().unwrap();
    server.push_all([Reply::text("One."), Reply::error(400, "no"), Reply::text("Two.")]);
    let arguments = kept.arguments(&["chat", "--durable"]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let arguments = against(&server, &arguments);
    let ran = kept.world.run_with_input(&arguments, "a\nb\n/reset\nc\n");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(runs(&kept).len(), 1);
    server.set_reply(Reply::text("Three."));
    drop(kept.run_with_input(&["chat", "--resume", "last"], "d\n").ok());
    assert_eq!(texts(&newest(&server)), ["c", "Two.", "d"]);
}

#[test]
fn a_chat_goes_on_from_an_answered_run_and_one_at_a_time() {
    let kept = Kept::in_dir();
    let server = LlmServer::start_blocking().unwrap();
    server.push_all([Reply::text("Pigeons."), Reply::text("Ducks.")]);
    drop(wait(kept.start(&server, &["ask", "What do they hunt?", "--durable"])).ok());
    let ran = kept
        .run_with_input(&["chat", "--resume", "last"], "What else?\n")
        .ok();
    assert_eq!(ran.out, "Ducks.\n");
    assert_eq!(
        texts(&newest(&server)),
        ["What do they hunt?", "Pigeons.", "What else?"]
    );

    let mut open = start(&kept, &server, &["--resume", "last"]);
    say(&mut open, "And?");
    until_heard(&server, 3, &mut open);
    let second = kept.run_with_input(&["chat", "--resume", "last"], "x\n");
    assert!(
        second.code == Some(1) && second.err.contains("is held by process"),
        "{second:?}"
    );
    drop(open.stdin.take());
    drop(wait(open).ok());
}

#[test]
fn what_is_to_survive_the_end_is_written_there() {
    let kept = Kept::in_dir();
    let server = LlmServer::start_blocking().unwrap();
    server.push_all([Reply::text("One."), Reply::text("Two.")]);
    let mut child = start(&kept, &server, &["--durable=on-finish"]);
    say(&mut child, "a");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "One.");
    // Its input stays open, so that it is the signal that ends it.
    let input = child.stdin.take();
    crate::signals::interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(input);
    drop(kept.run_with_input(&["chat", "--resume", "last"], "b\n").ok());
    assert_eq!(texts(&newest(&server)), ["a", "One.", "b"]);
}
