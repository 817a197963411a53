//! Child processes: they end with their scope, with all they started, and are reaped.

use std::process::Stdio;
use std::time::{Duration, Instant};

use peregrine_interrupts::process::ProcessGroup;
use peregrine_interrupts::{Error, ErrorKind, Kind, ManualTimer, Mode, Scope};
use rustix::process::{Pid, test_kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(30);

fn run() -> Scope {
    Scope::root("run-1", ManualTimer::new())
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// A shell with a grandchild in the background, whose id it tells.
async fn with_grandchild(scope: &Scope, then: &str) -> (ProcessGroup, u32) {
    let mut group = ProcessGroup::spawn(scope, shell(&format!("sleep 1000 & echo $!; {then}"))).unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(group.stdout().unwrap());
    stdout.read_line(&mut line).await.unwrap();
    assert!(group.stdout().is_none());
    (group, line.trim().parse().unwrap())
}

/// Not there, or dead and only not reaped by whoever adopted it.
fn is_gone(id: u32) -> bool {
    let pid = Pid::from_raw(id.cast_signed()).unwrap();
    let is_zombie = || {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
    };
    test_kill_process(pid).is_err() || is_zombie()
}

/// Not even a zombie of ours.
fn is_reaped(id: u32) -> bool {
    test_kill_process(Pid::from_raw(id.cast_signed()).unwrap()).is_err()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_child_that_ends_has_its_status_and_its_output() {
    let run = run();
    let mut group = ProcessGroup::spawn(&run, shell("echo hello; exit 7")).unwrap();
    let id = group.id().unwrap();
    let mut output = String::new();
    group.stdout().unwrap().read_to_string(&mut output).await.unwrap();
    assert_eq!(group.wait().await.unwrap().code(), Some(7));
    assert_eq!((output.as_str(), group.id()), ("hello\n", None));
    assert!(is_reaped(id));
    assert_eq!(group.wait().await.unwrap().code(), Some(7), "asked again");
    assert!(!group.kill() && !group.terminate());
    run.interrupt(Mode::Immediate);
    assert_eq!(group.wait().await.unwrap().code(), Some(7), "it had ended before");
}

#[tokio::test]
async fn a_child_can_be_written_to_and_waiting_closes_its_input() {
    let run = run();
    let mut cat = Command::new("cat");
    cat.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut group = ProcessGroup::spawn(&run, cat).unwrap();
    let (mut stdin, mut stdout) = (group.stdin().unwrap(), group.stdout().unwrap());
    assert!(group.stderr().is_some() && group.stdin().is_none());
    stdin.write_all(b"through").await.unwrap();
    drop(stdin);
    let mut output = String::new();
    stdout.read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "through");
    assert!(group.wait().await.unwrap().success());

    let mut cat = Command::new("cat");
    cat.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut group = ProcessGroup::spawn(&run, cat).unwrap();
    assert!(group.try_wait().unwrap().is_none());
    assert!(
        group.wait().await.unwrap().success(),
        "it saw the end of its input"
    );
}

#[tokio::test]
async fn an_immediate_interrupt_kills_the_whole_group_and_wait_reaps_it() {
    let run = run();
    let tool = run.child(Kind::Tool, "shell");
    let (mut group, grandchild) = with_grandchild(&tool, "sleep 1000").await;
    let child = group.id().unwrap();
    run.interrupt(Mode::Graceful);
    assert!(group.try_wait().unwrap().is_none(), "a step is finished");
    run.interrupt(Mode::Immediate);
    // By now, without anything being polled.
    until("the grandchild is gone", || is_gone(grandchild)).await;
    let error = group.wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_eq!(error.interrupted().unwrap().mode(), Mode::Immediate);
    assert!(is_reaped(child));
}

#[test]
fn nobody_needs_to_be_polled_for_a_kill() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let run = run();
    let (group, grandchild) = runtime.block_on(with_grandchild(&run, "sleep 1000"));
    run.interrupt(Mode::Immediate);
    let began = Instant::now();
    while !is_gone(grandchild) || !is_gone(group.id().unwrap()) {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    let _context = runtime.enter();
    drop(group);
}

#[tokio::test]
async fn a_drop_kills_the_whole_group_and_the_runtime_reaps_it() {
    let run = run();
    let (group, grandchild) = with_grandchild(&run, "sleep 1000").await;
    let child = group.id().unwrap();
    drop(group);
    until("both are gone", || is_gone(grandchild) && is_reaped(child)).await;
    assert!(!run.is_interrupted());
    assert_eq!(run.tree_len(), 1);
}

#[tokio::test]
async fn a_wait_that_is_dropped_changes_nothing() {
    let run = run();
    let (mut group, grandchild) = with_grandchild(&run, "sleep 1000").await;
    for _ in 0..3 {
        let waited = tokio::time::timeout(Duration::from_millis(5), group.wait()).await;
        assert!(waited.is_err());
    }
    assert!(!is_gone(grandchild));
    assert!(group.kill());
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(
        group.wait().await.unwrap().signal(),
        Some(9),
        "killed by hand is not interrupted"
    );
    until("the grandchild is gone", || is_gone(grandchild)).await;
}

#[tokio::test]
async fn what_a_child_leaves_in_the_background_ends_with_it() {
    let run = run();
    let (mut group, grandchild) = with_grandchild(&run, "exit 0").await;
    assert!(group.wait().await.unwrap().success());
    until("the grandchild is gone", || is_gone(grandchild)).await;
}

#[tokio::test]
async fn terminate_asks_and_the_child_may_tidy_up() {
    let run = run();
    let script = "trap 'echo tidied; exit 5' TERM; echo ready; while :; do sleep 0.01; done";
    let mut command = shell(script);
    // The shell tells of the `sleep` that was terminated, too.
    command.stderr(Stdio::null());
    let mut group = ProcessGroup::spawn(&run, command).unwrap();
    let mut lines = BufReader::new(group.stdout().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("ready"));
    assert!(group.terminate());
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("tidied"));
    assert_eq!(group.wait().await.unwrap().code(), Some(5));
}

#[tokio::test]
async fn nothing_starts_under_an_interrupt_and_a_missing_program_is_an_error() {
    let run = run();
    let error = ProcessGroup::spawn(&run, Command::new("/no/such/program")).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Process, false));
    assert_eq!(error.to_string(), "cannot start `/no/such/program`");
    let Error::Process { source, .. } = error else {
        panic!()
    };
    assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(run.tree_len(), 1);
    run.interrupt(Mode::Immediate);
    let error = ProcessGroup::spawn(&run, shell("exit 0")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
}

#[tokio::test]
async fn arguments_are_not_shown() {
    let run = run();
    let group = ProcessGroup::spawn(&run, shell("sleep 1000 # secret-token")).unwrap();
    assert!(!format!("{group:?}").contains("secret-token"));
}

/// Many at once: every end wakes every wait, and each finds its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_children_end_each_with_its_own_status() {
    let run = run();
    let waits: Vec<_> = (0..50)
        .map(|number| {
            let mut group = ProcessGroup::spawn(&run, shell(&format!("exit {number}"))).unwrap();
            tokio::spawn(async move { group.wait().await.unwrap().code() })
        })
        .collect();
    for (number, wait) in (0..).zip(waits) {
        assert_eq!(wait.await.unwrap(), Some(number));
    }
}
