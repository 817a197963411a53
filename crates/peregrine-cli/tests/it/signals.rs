//! Ctrl-C and SIGTERM: the first finishes the step of an `ask`, the second ends it at once, with a status of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStderr, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use peregrine_testkit::server::{LlmServer, Reply};
use rustix::process::{Pid, Signal, kill_process};

use crate::run::{Ran, World, against, wait};

pub(crate) fn interrupt(child: &Child) {
    send(child, Signal::INT);
}

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// A server that answers when nobody waits any more.
pub(crate) fn late() -> LlmServer {
    let server = LlmServer::start_blocking().unwrap();
    server.set_reply(Reply::text("late").with_first_byte_latency(Duration::from_secs(600)));
    server
}

/// Waits until the server has heard a question; fails if the child ends before, or asks nothing for a minute.
pub(crate) fn until_asked(server: &LlmServer, child: &mut Child) {
    until_asked_times(server, child, 1);
}

fn until_asked_times(server: &LlmServer, child: &mut Child, times: usize) {
    let started = Instant::now();
    while server.requests().len() < times {
        assert_eq!(child.try_wait().unwrap(), None, "it ended without a question");
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("it asks nothing");
        }
        std::thread::yield_now();
    }
}

/// Reads what a child says on standard error until it has said this.
fn until_said(child: &mut Child, what: &str) -> (BufReader<ChildStderr>, String) {
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains(what) {
        assert!(lines.read_line(&mut said).unwrap() > 0, "it ended: {said}");
    }
    (lines, said)
}

const FINISHING: &str = "Ctrl-C again stops at once";

/// Interrupts, waits until that is noticed, and interrupts again.
fn interrupt_twice(mut child: Child, signal: Signal) -> Ran {
    send(&child, signal);
    let (mut rest, mut said) = until_said(&mut child, FINISHING);
    send(&child, signal);
    rest.read_to_string(&mut said).unwrap();
    Ran {
        err: said,
        ..wait(child)
    }
}

#[test]
fn an_answer_on_its_way_is_cancelled_by_the_second_signal() {
    let world = World::new();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        for more in [&[][..], &["--json"], &["--stream"]] {
            let server = late();
            let mut child = world
                .command(&against(&server, &[&["ask", "Slow?"], more].concat()))
                .spawn()
                .unwrap();
            until_asked(&server, &mut child);
            let ran = interrupt_twice(child, signal);
            assert_eq!(ran.code, Some(code), "{more:?}: {ran:?}");
            if more == ["--json"] {
                assert_eq!(ran.json()["error"]["code"], "cancelled");
            } else {
                assert_eq!(ran.out, "");
            }
        }
    }
}

/// Asks a server that answers once the first signal was noticed, and interrupts before that.
fn interrupted_meanwhile(world: &World, reply: Reply, arguments: &[&str]) -> (LlmServer, Ran) {
    let server = LlmServer::start_blocking().unwrap();
    let (asks, asked) = mpsc::channel();
    let (go, told) = mpsc::channel();
    let gate = Mutex::new((asks, told));
    server.set_responder(move |_| {
        let (asks, told) = &*gate.lock().unwrap();
        asks.send(()).unwrap();
        told.recv().unwrap();
        reply.clone()
    });
    let mut child = world.command(&against(&server, arguments)).spawn().unwrap();
    asked.recv_timeout(Duration::from_secs(60)).unwrap();
    interrupt(&child);
    let (mut rest, mut said) = until_said(&mut child, FINISHING);
    go.send(()).unwrap();
    rest.read_to_string(&mut said).unwrap();
    let ran = Ran {
        err: said,
        ..wait(child)
    };
    (server, ran)
}

#[test]
fn the_first_signal_lets_the_answer_finish() {
    let (_, ran) = interrupted_meanwhile(&World::new(), Reply::text("It is there."), &["ask", "Slow?"]);
    let ran = ran.ok();
    assert_eq!(ran.out, "It is there.\n", "{ran:?}");
}

#[test]
fn the_first_signal_begins_nothing_new_and_what_was_done_is_told() {
    let world = World::new();
    for more in [&["--json"][..], &["--json", "--stream"]] {
        let calls = Reply::tool_call("a", "list_files", serde_json::json!({}));
        let arguments = [&["ask", "Slow?", "docs"], more].concat();
        let (server, ran) = interrupted_meanwhile(&world, calls, &arguments);
        assert_eq!(ran.code, Some(130), "{ran:?}");
        let failed = ran.json();
        assert_eq!(failed["error"]["code"], "cancelled");
        assert_eq!(failed["steps"], 1);
        assert_eq!(server.requests().len(), 1, "no second question");
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
        until_asked_times(&server, &mut child, 2);
        let ran = interrupt_twice(child, Signal::INT);
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
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let server = late();
        let mut child = world
            .command(&against(&server, &["chat"]))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"Slow?\n").unwrap();
        until_asked(&server, &mut child);
        send(&child, signal);
        assert_eq!(wait(child).code, Some(code));
        drop(input);
    }
}
