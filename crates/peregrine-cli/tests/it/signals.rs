//! Ctrl-C: it ends an answer at once, with its own status.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use peregrine_testkit::server::{LlmServer, Reply};
use rustix::process::{Pid, Signal, kill_process};

use crate::run::{World, against, wait};

pub(crate) fn interrupt(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
}

/// A server that answers when nobody waits any more.
pub(crate) fn late() -> LlmServer {
    let server = LlmServer::start_blocking().unwrap();
    server.set_reply(Reply::text("late").with_first_byte_latency(Duration::from_secs(600)));
    server
}

/// Waits until the server has heard a question; fails if the child ends before, or asks nothing for a minute.
pub(crate) fn until_asked(server: &LlmServer, child: &mut Child) {
    let started = Instant::now();
    while server.requests().is_empty() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended without a question");
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("it asks nothing");
        }
        std::thread::yield_now();
    }
}

#[test]
fn an_answer_on_its_way_is_cancelled() {
    let world = World::new();
    for more in [&[][..], &["--json"], &["--stream"]] {
        let server = late();
        let mut child = world
            .command(&against(&server, &[&["ask", "Slow?"], more].concat()))
            .spawn()
            .unwrap();
        until_asked(&server, &mut child);
        interrupt(&child);
        let ran = wait(child);
        assert_eq!(ran.code, Some(130), "{more:?}: {ran:?}");
        if more == ["--json"] {
            assert_eq!(ran.json()["error"]["code"], "cancelled");
        } else {
            assert_eq!(ran.out, "");
        }
    }
}

#[test]
fn what_was_done_before_is_told() {
    let world = World::new();
    for more in [&["--json"][..], &["--json", "--stream"]] {
        let server = late();
        server.push(Reply::tool_call("a", "list_files", serde_json::json!({})));
        let arguments = against(&server, &[&["ask", "Slow?", "docs"], more].concat());
        let mut child = world.command(&arguments).spawn().unwrap();
        until_asked(&server, &mut child);
        while server.requests().len() < 2 {
            assert_eq!(
                child.try_wait().unwrap(),
                None,
                "it ended without its second question"
            );
            std::thread::yield_now();
        }
        interrupt(&child);
        let ran = wait(child);
        assert_eq!(ran.code, Some(130), "{ran:?}");
        let failed = ran.json();
        assert_eq!(failed["error"]["code"], "cancelled");
        assert_eq!(failed["steps"], 2);
        assert_eq!(failed["tool_calls"][0]["name"], "list_files");
    }
}

#[test]
fn a_read_of_standard_input_is_cancelled() {
    let world = World::new();
    let mut child = world
        .command(&["ask", "What?"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // It listens for signals before it reads, and more than a pipe holds is only taken by a reader.
    let mut input = child.stdin.take().unwrap();
    input.write_all(&vec![b'x'; 256 << 10]).unwrap();
    interrupt(&child);
    let ran = wait(child);
    assert_eq!((ran.code, ran.out.as_str()), (Some(130), ""), "{ran:?}");
    drop(input);
}

#[test]
fn a_chat_over_a_pipe_ends() {
    let world = World::new();
    let server = late();
    let mut child = world
        .command(&against(&server, &["chat"]))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"Slow?\n").unwrap();
    until_asked(&server, &mut child);
    interrupt(&child);
    assert_eq!(wait(child).code, Some(130));
    drop(input);
}
