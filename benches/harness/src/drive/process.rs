//! One process of a runner: started, watched, read, and stopped if it takes too long.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Session, usage};
use crate::error::{Error, Result};
use crate::protocol::{Descriptor, Line, PROTOCOL};
use crate::result::Resources;

/// A line longer than this is no line of ours.
const MAX_LINE_BYTES: u64 = 64 << 20;
/// How much of what a runner complains of is kept.
const MAX_COMPLAINT_BYTES: usize = 4_096;

/// What a runner is and has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// With which profile it was built.
    pub profile: String,
    /// With which features.
    pub features: Vec<String>,
    /// Its benchmarks.
    pub benchmarks: Vec<Descriptor>,
}

/// Asks a runner what it is and has, with a model of Ollama if one is given. What it says beside that, such as what it has
/// to leave out here, is told to `say`.
///
/// # Errors
///
/// [`Error::Start`], or [`Error::Program`] if it fails or speaks otherwise.
pub fn list(runner: &Path, ollama: Option<&str>, say: &mut dyn FnMut(&str)) -> Result<Listing> {
    let mut command = Command::new(runner);
    command.arg("list");
    with_ollama(&mut command, ollama);
    let (lines, _, remarks) = watch_and_hear(command, Duration::from_secs(60), false)?;
    for remark in remarks.lines() {
        say(remark);
    }
    let mut listing = Listing {
        profile: String::new(),
        features: Vec::new(),
        benchmarks: Vec::new(),
    };
    for line in lines {
        match line {
            Line::Hello {
                profile, features, ..
            } => (listing.profile, listing.features) = (profile, features),
            Line::Benchmark(descriptor) => listing.benchmarks.push(descriptor),
            Line::Ready | Line::Measured(_) | Line::Counted(_) => {}
        }
    }
    Ok(listing)
}

/// Measures a group in one process.
pub(super) fn measure(
    runner: &Path,
    group: &str,
    round: u32,
    session: &Session,
) -> Result<(Vec<Line>, Resources)> {
    let effort = &session.effort;
    let mut command = Command::new(runner);
    command.args(["run", "--group", group]);
    command.args(["--round", &round.to_string()]);
    command.args(["--warmup-ms", &effort.warmup.as_millis().to_string()]);
    command.args(["--measure-ms", &effort.measure.as_millis().to_string()]);
    with_ollama(&mut command, session.ollama.as_deref());
    watch(command, effort.limit, true)
}

fn with_ollama(command: &mut Command, model: Option<&str>) {
    if let Some(model) = model {
        command.args(["--ollama", model]);
    }
}

/// Runs a command to its end; its lines, and what it used between `ready` and its end.
pub(crate) fn watch(command: Command, limit: Duration, with_usage: bool) -> Result<(Vec<Line>, Resources)> {
    let (lines, used, _) = watch_and_hear(command, limit, with_usage)?;
    Ok((lines, used))
}

/// The same, and the end of what it wrote to its standard error.
fn watch_and_hear(
    mut command: Command,
    limit: Duration,
    with_usage: bool,
) -> Result<(Vec<Line>, Resources, String)> {
    let program = shown(&command);
    let failed = |message: String| Error::Program {
        program: program.clone(),
        message,
    };
    let began = Instant::now();
    let mut child = command
        // Of a check that failed, what it says is worth keeping, not where it stood.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::Start {
            program: program.clone(),
            source,
        })?;
    let (sender, said) = mpsc::channel();
    let stdout = child.stdout.take().expect("it was piped");
    let reader = thread::spawn(move || read_lines(stdout, &sender));
    let stderr = child.stderr.take().expect("it was piped");
    let complaints = thread::spawn(move || last_bytes(stderr));

    let mut lines = Vec::new();
    let mut watcher = usage::Watcher::new(child.id());
    let mut ready = false;
    let mut wrong = None;
    let ended = loop {
        match said.recv_timeout(usage::INTERVAL) {
            Ok(Ok(line)) => {
                ready |= line == Line::Ready;
                lines.push(line);
                continue;
            }
            Ok(Err(message)) => {
                wrong = Some(message);
                stop(&mut child);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            // It has said everything, or was stopped.
            Err(mpsc::RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(1)),
        }
        if with_usage && ready {
            watcher.look();
        }
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if began.elapsed() > limit => {
                wrong = Some(format!("it took longer than {} s", limit.as_secs()));
                stop(&mut child);
            }
            Ok(None) => {}
            Err(error) => return Err(failed(format!("waiting for it: {error}"))),
        }
    };
    // A panic of a reader would be one of ours; there is nothing of it to report but that it is missing.
    let _ = reader.join();
    lines.extend(said.try_iter().filter_map(std::result::Result::ok));
    let complaint = complaints.join().unwrap_or_default();
    if let Some(message) = wrong {
        return Err(failed(message));
    }
    succeeded(ended, &complaint).map_err(failed)?;
    match lines.first() {
        Some(Line::Hello { protocol, .. }) if *protocol == PROTOCOL => {
            Ok((lines, watcher.finish(), complaint))
        }
        Some(Line::Hello { protocol, .. }) => Err(failed(format!(
            "it speaks version {protocol}, this harness {PROTOCOL}"
        ))),
        _ => Err(failed("it did not say which version it speaks".to_owned())),
    }
}

fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    let mut text = name.to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text += &argument.to_string_lossy();
    }
    text
}

fn stop(child: &mut Child) {
    // It may have ended just now.
    let _ = child.kill();
}

fn succeeded(status: ExitStatus, complaint: &str) -> Result<(), String> {
    match status.success() {
        true => Ok(()),
        false if complaint.is_empty() => Err(status.to_string()),
        false => Err(format!("{status}: {complaint}")),
    }
}

fn read_lines(stdout: impl Read, sender: &mpsc::Sender<Result<Line, String>>) {
    let mut reader = BufReader::new(stdout);
    loop {
        let mut line = String::new();
        let message = match reader.by_ref().take(MAX_LINE_BYTES).read_line(&mut line) {
            Ok(0) => return,
            Ok(_) => serde_json::from_str(&line).map_err(|error| {
                let begin: String = line.chars().take(80).collect();
                format!("it said what is not understood: {error}: {}", begin.trim_end())
            }),
            Err(error) => Err(format!("reading what it says: {error}")),
        };
        let is_wrong = message.is_err();
        if sender.send(message).is_err() || is_wrong {
            return;
        }
    }
}

fn last_bytes(mut stderr: impl Read) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4_096]);
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..count]);
        let surplus = kept.len().saturating_sub(MAX_COMPLAINT_BYTES);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const HELLO: &str = r#"{"say":"hello","protocol":1,"profile":"dev","features":[]}"#;

    fn shell(script: &str, limit: Duration) -> Result<Vec<Line>> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        watch(command, limit, true).map(|(lines, _)| lines)
    }

    fn message(script: &str, limit: Duration) -> String {
        match shell(script, limit) {
            Ok(lines) => panic!("it went well: {lines:?}"),
            Err(error) => error.chain(),
        }
    }

    #[test]
    fn what_a_runner_says_is_read_to_its_end() {
        let minute = Duration::from_secs(60);
        let lines = shell(&format!(r#"echo '{HELLO}'; echo '{{"say":"ready"}}'"#), minute).unwrap();
        assert_eq!((lines.len(), &lines[1]), (2, &Line::Ready));
    }

    #[test]
    fn a_runner_that_fails_babbles_or_hangs_is_reported_and_gone() {
        let minute = Duration::from_secs(60);
        let failed = message(
            &format!("echo '{HELLO}'; echo 'the answer was wrong' >&2; exit 3"),
            minute,
        );
        assert!(
            failed.contains("the answer was wrong") && failed.contains('3'),
            "{failed}"
        );
        let babble = message(&format!("echo '{HELLO}'; echo hm; exec sleep 600"), minute);
        assert!(babble.contains("not understood"), "{babble}");
        let other = message(&format!("echo '{}'", HELLO.replace(":1", ":7")), minute);
        assert!(other.contains("version 7"), "{other}");
        let silent = message("true", minute);
        assert!(silent.contains("which version"), "{silent}");
        let slow = message(
            &format!("echo '{HELLO}'; exec sleep 600"),
            Duration::from_millis(200),
        );
        assert!(slow.contains("longer"), "{slow}");
    }
}
