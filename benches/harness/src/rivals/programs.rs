//! The programs of `benches/rivals`: built, asked what they have, and the servers among them kept running.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::drive::list;
use crate::error::{Error, Result};
use crate::protocol::Descriptor;

/// Whom to run, in the order of the tables: the floor, ours, the others.
const COMPETITORS: [&str; 5] = ["reqwest", "peregrine", "autoagents", "genai", "rig"];
const SERVER: &str = "server";
/// The packages whose versions are told.
const VERSIONS: [&str; 9] = [
    "reqwest",
    "hyper",
    "tokio",
    "serde_json",
    "autoagents",
    "genai",
    "rig-core",
    "rig-agent",
    "rig-reqwest",
];

/// One framework.
#[derive(Debug)]
pub(super) struct Competitor {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) has: Vec<Descriptor>,
    /// What a reader has to know of it.
    pub(super) notes: Vec<String>,
}

impl Competitor {
    /// What it does in a group, if it does.
    pub(super) fn descriptor(&self, group: &str) -> Option<&Descriptor> {
        self.has.iter().find(|descriptor| descriptor.id.group() == group)
    }
}

#[derive(Debug)]
pub(super) struct Programs {
    pub(super) competitors: Vec<Competitor>,
    pub(super) server: PathBuf,
}

/// Builds each program by itself: built together, each would get the features that any of them asks of what they share.
pub(super) fn build(root: &Path, say: &mut dyn FnMut(&str)) -> Result<Programs> {
    let server = program(root, SERVER, say)?;
    let mut competitors = Vec::new();
    for name in COMPETITORS {
        let program = program(root, name, say)?;
        competitors.push(Competitor {
            name,
            has: list(&program, None, &mut *say)?.benchmarks,
            notes: notes(&program)?,
            program,
        });
    }
    Ok(Programs { competitors, server })
}

fn folder(root: &Path) -> PathBuf {
    root.join("benches").join("rivals")
}

fn program(root: &Path, name: &str, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    say(&format!("building {name}"));
    let package = format!("peregrine-rivals-{name}");
    let target = root.join("target").join("rivals");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(folder(root))
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--package",
            &package,
            "--target-dir",
        ])
        .arg(&target);
    // `cargo run` describes its package in the environment of what it runs; build scripts that look would run again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    let shown = format!("cargo build --release --locked --package {package}");
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|source| Error::Start {
            program: shown.clone(),
            source,
        })?;
    match status.success() {
        true => Ok(target
            .join("release")
            .join(format!("{package}{}", std::env::consts::EXE_SUFFIX))),
        false => Err(Error::Program {
            program: shown,
            message: status.to_string(),
        }),
    }
}

fn notes(program: &Path) -> Result<Vec<String>> {
    let output = Command::new(program).arg("notes").stdin(Stdio::null()).output();
    let output = output.map_err(|source| Error::Start {
        program: program.display().to_string(),
        source,
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(str::to_owned).collect())
}

/// The versions of what is compared, from the lock file.
pub(super) fn versions(root: &Path) -> Result<Vec<String>> {
    let path = folder(root).join("Cargo.lock");
    let text = fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
    let locked = locked(&text);
    let found = VERSIONS.iter().flat_map(|name| {
        let versions = locked.iter().filter(move |(known, _)| known == name);
        versions.map(move |(_, version)| format!("{name} {version}"))
    });
    Ok(found.collect())
}

/// Names and versions of a lock file. Cargo writes each on a line of its own.
fn locked(text: &str) -> Vec<(&str, &str)> {
    let value = |line: &'_ str, key: &str| -> Option<usize> {
        line.starts_with(key)
            .then_some(key.len())
            .filter(|_| line.ends_with('"'))
    };
    let mut found = Vec::new();
    let mut name = None;
    for line in text.lines() {
        if let Some(begin) = value(line, "name = \"") {
            name = Some(&line[begin..line.len() - 1]);
        } else if let Some(begin) = value(line, "version = \"") {
            found.extend(name.take().map(|name| (name, &line[begin..line.len() - 1])));
        }
    }
    found
}

/// How the server of a group is started.
fn arguments(group: &str) -> [String; 4] {
    let mut parts = group.split('/').skip(1);
    let (op, param) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let script = match op {
        "tool_loop" => "tool",
        "three_turns" => "turns",
        "stream_first" | "stream_all" => "stream",
        _ => "text",
    };
    let latency_ms = param.strip_suffix("ms").unwrap_or("0");
    ["--script", script, "--latency-ms", latency_ms].map(str::to_owned)
}

/// The servers, each started when it is first needed.
#[derive(Debug)]
pub(super) struct Servers {
    program: PathBuf,
    running: BTreeMap<Vec<String>, Server>,
}

impl Servers {
    pub(super) fn new(program: PathBuf) -> Self {
        Self {
            program,
            running: BTreeMap::new(),
        }
    }

    /// The base URL for a group.
    pub(super) fn url(&mut self, group: &str) -> Result<String> {
        let mut arguments = arguments(group).to_vec();
        if !group.contains("/concurrent") {
            arguments.push("--pinned".to_owned());
        }
        if let Some(server) = self.running.get(&arguments) {
            return Ok(server.url.clone());
        }
        let server = Server::start(&self.program, &arguments)?;
        let url = server.url.clone();
        self.running.insert(arguments, server);
        Ok(url)
    }
}

/// A server in a process of its own, which ends with this value.
#[derive(Debug)]
struct Server {
    process: Child,
    said: BufReader<ChildStdout>,
    url: String,
}

impl Server {
    fn start(program: &Path, arguments: &[String]) -> Result<Self> {
        let name = program.display().to_string();
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| Error::Start {
                program: name.clone(),
                source,
            })?;
        let mut said = BufReader::new(process.stdout.take().expect("it was piped"));
        let mut url = String::new();
        let read = said.read_line(&mut url);
        let server = Self {
            process,
            said,
            url: url.trim_end().to_owned(),
        };
        match read {
            Ok(_) if server.url.starts_with("http://") => Ok(server),
            _ => Err(Error::Program {
                program: name,
                message: "it did not say where it listens".to_owned(),
            }),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends by itself when its standard input does, so it may be gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server that keeps what it is sent.
#[derive(Debug)]
pub(super) struct Recorder(Server);

impl Recorder {
    pub(super) fn start(program: &Path, group: &str) -> Result<Self> {
        let mut arguments = arguments(group).to_vec();
        arguments.push("--record".to_owned());
        Server::start(program, &arguments).map(Self)
    }

    pub(super) fn url(&self) -> &str {
        &self.0.url
    }

    /// Stops it. What it was sent.
    pub(super) fn finish(mut self) -> Result<Vec<Value>> {
        let failed = |message: String| Error::Program {
            program: "the server that records".to_owned(),
            message,
        };
        drop(self.0.process.stdin.take());
        let mut text = String::new();
        self.0
            .said
            .read_to_string(&mut text)
            .map_err(|error| failed(error.to_string()))?;
        let requests = text.lines().map(serde_json::from_str);
        requests
            .collect::<Result<_, _>>()
            .map_err(|error| failed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock_file() {
        let text = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.2.3\"\nsource = \"x\"\ndependencies = [\n \"b\",\n]\n\n\
                    [[package]]\nname = \"a-b\"\nversion = \"0.1.0\"\n";
        assert_eq!(locked(text), [("a", "1.2.3"), ("a-b", "0.1.0")]);
    }

    #[test]
    fn a_group_has_its_server() {
        let said = |group: &str| arguments(group).join(" ");
        assert_eq!(said("rivals/single_call/50ms"), "--script text --latency-ms 50");
        assert_eq!(said("rivals/stream_all/0ms"), "--script stream --latency-ms 0");
        assert_eq!(said("rivals/agent/one_tool"), "--script text --latency-ms 0");
    }
}
