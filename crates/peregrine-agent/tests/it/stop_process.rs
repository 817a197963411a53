//! What only a process of its own can show: real signals, and that nothing is left of a hundred agents. This test binary
//! once more, told by a variable which program to be.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use peregrine_agent::run::{InterruptMode, InterruptSource};
use peregrine_agent::{Agent, Error, Input, More};
use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ModelInfo};
use peregrine_interrupts::{Kind, Mode, Scope, TokioTimer, signal};
use rustix::process::{Pid, Signal, kill_process};

use crate::hundred::stop_all;

const VARIABLE: &str = "PEREGRINE_AGENT_PROGRAM";
/// More than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program. A test in name only: without the variable it is a program that does nothing.
#[test]
fn program() {
    match std::env::var(VARIABLE).as_deref() {
        Ok("hundred") => hundred(),
        Ok("two_runs") => two_runs(),
        Ok(other) => panic!("there is no program `{other}`"),
        Err(_) => {}
    }
}

fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "> {line}").unwrap();
    out.flush().unwrap();
}

struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Program {
    fn start(name: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "stop_process::program",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(VARIABLE, name)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Libtest writes the name of the test without a line break before our first line.
                if let Some((_, line)) = line.split_once("> ") {
                    let _ = sender.send(line.to_owned());
                }
            }
        });
        Self { child, lines }
    }

    #[track_caller]
    fn says(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[track_caller]
    fn ends(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the program does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A hundred agents, twenty-five deep, four times: stopped at once, and gracefully with an escalation.
fn hundred() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // What is made once for the process is there from then on.
        stop_all(1, 2, |scope| {
            scope.interrupt(Mode::Immediate);
            Mode::Immediate
        })
        .await;
        let gone = stop_all(4, 25, |scope| {
            scope.interrupt(Mode::Immediate);
            Mode::Immediate
        })
        .await;
        say(format!("immediate: {gone}"));
        let gone = stop_all(10, 10, |scope| {
            // Nothing finishes, so that the second request is needed.
            scope.interrupt(Mode::Graceful);
            scope.interrupt(Mode::Immediate);
            Mode::Immediate
        })
        .await;
        say(format!("escalated: {gone}"));
    });
    say("nothing is left");
}

#[test]
fn nothing_is_left_of_a_hundred_nested_agents() {
    let mut program = Program::start("hundred");
    for _ in 0..2 {
        println!("{}", program.says());
    }
    assert_eq!(program.says(), "nothing is left");
    assert!(program.ends().success());
}

/// A model that answers after it was told to, once for all runs.
struct Answers(ModelInfo, tokio::sync::watch::Receiver<bool>);

impl ChatModel for Answers {
    fn info(&self) -> &ModelInfo {
        &self.0
    }

    async fn complete(&self, _: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
        let _ = self.1.clone().wait_for(|go| *go).await;
        Ok(ChatResponse::text("There you are."))
    }
}

/// Two runs under one subscription, two with one each. The first signal lets every one finish its step; of the two that
/// hang, the second stops both.
fn two_runs() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Scope::root("server", TokioTimer::new());
        let shared = signal::subscribe(&server).unwrap();
        let own = Scope::root("own", TokioTimer::new());
        let of_own = signal::subscribe(&own).unwrap();
        let (go, told) = tokio::sync::watch::channel(false);
        let (_never, never) = tokio::sync::watch::channel(false);
        let info = ModelInfo::new("test", "answers");
        let answers = Agent::new(Answers(info.clone(), told));
        let hangs = Agent::new(Answers(info, never));
        let one = server.child(Kind::Other, "request-1");
        let two = server.child(Kind::Other, "request-2");

        let finishes = async {
            let finished = answers.run(Input::from("Go.").with_interrupts(&one)).await;
            say("stopping");
            finished
        };
        let runs = async {
            tokio::join!(
                finishes,
                hangs.run(Input::from("Go.").with_interrupts(&two)),
                hangs.run(Input::from("Go.").with_interrupts(&own)),
            )
        };
        let script = async {
            say("running");
            server.graceful().await;
            own.graceful().await;
            go.send(true).unwrap();
        };
        let ((finished, stopped, alone), ()) = tokio::join!(runs, script);
        assert_eq!(finished.unwrap().text(), "There you are.", "it finished its step");
        let mut kept = None;
        for error in [stopped.unwrap_err(), alone.unwrap_err()] {
            let Error::Interrupted(interrupt) = error.error() else {
                panic!("{error}")
            };
            assert_eq!(
                (interrupt.mode, interrupt.by),
                (InterruptMode::Immediate, InterruptSource::Signal)
            );
            assert_eq!(interrupt.escalated_by, Some(InterruptSource::Signal));
            assert!(
                interrupt.reason.contains("SIGINT received"),
                "{}",
                interrupt.reason
            );
            assert!(
                interrupt.reason.contains("SIGTERM received"),
                "{}",
                interrupt.reason
            );
            kept = error.into_run().ok();
        }
        let output = answers.resume(kept.unwrap(), More::default()).await.unwrap();
        assert_eq!(output.text(), "There you are.");
        drop((shared, of_own));
    });
    say("stopped");
    // Nobody listens any more: the signal ends the process.
    std::thread::sleep(PATIENCE);
}

#[test]
fn several_runs_share_the_signals_and_none_takes_one_from_another() {
    use std::os::unix::process::ExitStatusExt as _;

    let mut program = Program::start("two_runs");
    assert_eq!(program.says(), "running");
    program.signal(Signal::INT);
    assert_eq!(program.says(), "stopping");
    program.signal(Signal::TERM);
    assert_eq!(program.says(), "stopped");
    program.signal(Signal::INT);
    assert_eq!(program.ends().signal(), Some(Signal::INT.as_raw()));
}
