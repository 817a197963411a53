//! Real signals, sent to a process of its own: this test binary once more, told by a variable which program to be.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use peregrine_interrupts::signal::{self, Signals};
use peregrine_interrupts::{Kind, ManualTimer, Mode, Scope, Signal};
use rustix::process::{Pid, Signal as Number, kill_process};

const VARIABLE: &str = "PEREGRINE_INTERRUPTS_PROGRAM";
/// More than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program that gets the signals. A test in name only: without the variable it is a program that does nothing.
#[test]
fn program() {
    match std::env::var(VARIABLE).as_deref() {
        Ok("escalates") => escalates(),
        Ok("finishes") => finishes(),
        Ok("idle") => idle(),
        Ok("blocks_in_a_hook") => blocks_in_a_hook(),
        Ok("only_looks") => only_looks(),
        Ok("many_runs") => many_runs(),
        Ok("stuck_after_its_limit") => stuck_after_its_limit(),
        Ok("panics_in_a_hook") => panics_in_a_hook(),
        Ok("handles_by_itself") => handles_by_itself(),
        Ok(other) => panic!("there is no program `{other}`"),
        Err(_) => {}
    }
}

fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "> {line}").unwrap();
    out.flush().unwrap();
}

fn run(name: &'static str) -> Scope {
    Scope::root(name, ManualTimer::new())
}

/// Blocks until a scope is interrupted so, without a runtime.
fn wait_for(scope: &Scope, mode: Mode) {
    let (sender, told) = mpsc::channel();
    let _hook = scope.on(mode, move || {
        let _ = sender.send(());
    });
    told.recv_timeout(PATIENCE).unwrap();
}

fn hang() -> ! {
    std::thread::sleep(PATIENCE);
    say("nobody ended me");
    std::process::exit(3)
}

struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Program {
    fn start(name: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "signals::program", "--nocapture", "--test-threads=1"])
            .env(VARIABLE, name)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout: ChildStdout = child.stdout.take().unwrap();
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
    fn says(&self, expected: &str) {
        assert_eq!(self.lines.recv_timeout(PATIENCE).unwrap(), expected);
    }

    fn signal(&self, signal: Number) {
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

    #[track_caller]
    fn dies_of(&mut self, signal: Number) {
        let status = self.ends();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether whoever started this told the system to ignore the signal, as `nohup` and the `&` of scripts do. Programs inherit
/// that, and nobody dies of such a signal.
fn is_ignored(signal: Number) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0) >> (signal.as_raw() - 1) & 1 == 1
}

fn escalates() {
    let run = run("run-1");
    let tool = run.child(Kind::Tool, "t");
    let _listening = signal::subscribe(&run).unwrap();
    say("ready");
    wait_for(&tool, Mode::Graceful);
    say(tool.check().unwrap_err());
    wait_for(&tool, Mode::Immediate);
    say(tool.check().unwrap_err().latest());
    hang()
}

#[test]
fn the_second_signal_escalates_and_the_third_ends_the_process() {
    for (signal, name) in [(Number::INT, "SIGINT"), (Number::TERM, "SIGTERM")] {
        let mut program = Program::start("escalates");
        program.says("ready");
        program.signal(signal);
        program.says(&format!("graceful interrupt of run `run-1`: {name} received"));
        program.signal(signal);
        program.says(&format!("immediate interrupt of run `run-1`: {name} received"));
        program.signal(signal);
        program.dies_of(signal);
    }
}

#[test]
fn different_signals_escalate_too_and_others_are_left_alone() {
    let mut program = Program::start("escalates");
    program.says("ready");
    program.signal(Number::TERM);
    program.says("graceful interrupt of run `run-1`: SIGTERM received");
    program.signal(Number::INT);
    program.says("immediate interrupt of run `run-1`: SIGINT received");
    if !is_ignored(Number::HUP) {
        program.signal(Number::HUP);
        program.dies_of(Number::HUP);
    }
}

fn finishes() {
    let run = run("run-1");
    let listening = Signals::only([Signal::Hangup, Signal::Quit])
        .subscribe(&run)
        .unwrap();
    say("ready");
    wait_for(&run, Mode::Graceful);
    say("finishing the step");
    drop(listening);
    std::process::exit(130)
}

#[test]
fn a_program_can_finish_and_choose_its_status() {
    for signal in [Number::HUP, Number::QUIT] {
        let mut program = Program::start("finishes");
        program.says("ready");
        program.signal(signal);
        program.says("finishing the step");
        assert_eq!(program.ends().code(), Some(130));
    }
    if !is_ignored(Number::INT) {
        let mut program = Program::start("finishes");
        program.says("ready");
        program.signal(Number::INT);
        program.dies_of(Number::INT);
    }
}

fn idle() {
    let run = run("run-1");
    for _ in 0..3 {
        drop(signal::subscribe(&run).unwrap());
    }
    let of_a_scope_that_is_gone = signal::subscribe(&self::run("gone")).unwrap();
    drop(of_a_scope_that_is_gone);
    say("idle");
    // As stuck as it gets: the only thread of ours holds no runtime and looks at nothing.
    hang()
}

#[test]
fn a_program_that_no_longer_listens_is_ended_by_the_first_signal() {
    for signal in [Number::INT, Number::TERM] {
        let mut program = Program::start("idle");
        program.says("idle");
        program.signal(signal);
        program.dies_of(signal);
    }
}

/// The worst a program can do to us: the thread that listens is stuck in one of its hooks.
fn blocks_in_a_hook() {
    let run = run("run-1");
    let listening = signal::subscribe(&run).unwrap();
    let _hook = run.on(Mode::Graceful, || hang());
    say("ready");
    while run.check().is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(listening);
    say("stuck");
    hang()
}

#[test]
fn a_program_that_no_longer_listens_needs_no_thread_to_be_ended() {
    let mut program = Program::start("blocks_in_a_hook");
    program.says("ready");
    program.signal(Number::INT);
    program.says("stuck");
    program.signal(Number::INT);
    program.dies_of(Number::INT);
}

fn only_looks() {
    let run = run("run-1");
    let _listening = signal::subscribe(&run).unwrap();
    say("ready");
    let began = Instant::now();
    while run.check().is_ok() {
        assert!(began.elapsed() < PATIENCE);
        std::hint::spin_loop();
    }
    say("seen");
    std::process::exit(0)
}

#[test]
fn code_that_only_looks_sees_a_signal() {
    let mut program = Program::start("only_looks");
    program.says("ready");
    program.signal(Number::INT);
    program.says("seen");
    assert_eq!(program.ends().code(), Some(0));
}

fn many_runs() {
    let runs = [run("run-1"), run("run-2")];
    let [first, _second] = runs.each_ref().map(|run| signal::subscribe(run).unwrap());
    say("ready");
    runs.iter().for_each(|run| wait_for(run, Mode::Graceful));
    // One leaves, one stays, one comes.
    drop(first);
    let late = run("run-3");
    let _late = signal::subscribe(&late).unwrap();
    say("three");
    wait_for(&runs[1], Mode::Immediate);
    wait_for(&late, Mode::Graceful);
    assert_eq!(
        runs[0].mode(),
        Some(Mode::Graceful),
        "it does not listen any more"
    );
    say("again");
    wait_for(&late, Mode::Immediate);
    say("all told");
    hang()
}

#[test]
fn runs_do_not_fight_over_signals() {
    let mut program = Program::start("many_runs");
    for line in ["ready", "three", "again"] {
        program.says(line);
        program.signal(Number::INT);
    }
    program.says("all told");
    program.signal(Number::INT);
    program.dies_of(Number::INT);
}

fn stuck_after_its_limit() {
    let run = run("run-1");
    let _listening = signal::subscribe(&run).unwrap();
    run.interrupt(Mode::Immediate);
    say("stuck");
    hang()
}

#[test]
fn a_program_that_should_have_stopped_is_ended_by_the_first_signal() {
    let mut program = Program::start("stuck_after_its_limit");
    program.says("stuck");
    program.signal(Number::INT);
    program.dies_of(Number::INT);
}

fn panics_in_a_hook() {
    let runs = [run("run-1"), run("run-2")];
    let _listening = runs.each_ref().map(|run| signal::subscribe(run).unwrap());
    let _hook = runs[0].on(Mode::Graceful, || panic!("a hook that panics"));
    say("ready");
    wait_for(&runs[1], Mode::Graceful);
    say("told all the same");
    wait_for(&runs[0], Mode::Immediate);
    say("and again");
    std::process::exit(0)
}

#[test]
fn a_panicking_hook_does_not_end_listening() {
    let mut program = Program::start("panics_in_a_hook");
    program.says("ready");
    program.signal(Number::INT);
    program.says("told all the same");
    program.signal(Number::INT);
    program.says("and again");
    assert_eq!(program.ends().code(), Some(0));
}

#[cfg(not(feature = "process"))]
fn handles_by_itself() {}

#[cfg(feature = "process")]
fn handles_by_itself() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut own = signal(SignalKind::interrupt()).unwrap();
        let run = run("run-1");
        let listening = Signals::new().without_default_action().subscribe(&run).unwrap();
        say("ready");
        own.recv().await.unwrap();
        wait_for(&run, Mode::Graceful);
        drop(listening);
        say("both told");
        own.recv().await.unwrap();
        say("told alone");
        std::process::exit(0)
    });
}

#[cfg(feature = "process")]
#[test]
fn a_program_that_handles_signals_by_itself_can_say_so() {
    let mut program = Program::start("handles_by_itself");
    program.says("ready");
    program.signal(Number::INT);
    program.says("both told");
    program.signal(Number::INT);
    program.says("told alone");
    assert_eq!(program.ends().code(), Some(0));
}
