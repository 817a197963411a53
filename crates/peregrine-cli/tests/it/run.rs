//! Running the binary in a clean environment: no keys, no local servers, a folder of its own.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use peregrine_testkit::server::LlmServer;
use serde_json::Value;
use tempfile::TempDir;

/// A folder with some files, and a way to run the binary in it.
pub(crate) struct World {
    folder: TempDir,
    variables: Vec<(String, String)>,
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: Option<i32>,
}

impl Ran {
    /// The last line of standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        let line = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Fails unless the run ended well.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
            variables: Vec::new(),
        };
        world.write(
            "README.md",
            "# Falcons\n\nThe peregrine dives at 320 km/h. It lives on every continent but one.\n",
        );
        world.write(
            "docs/nests.md",
            "# Nests\n\nPeregrines nest on cliffs and on church towers, in March.\n",
        );
        world.write(
            "docs/food.md",
            "# Food\n\nThey hunt pigeons and ducks in the air.\n",
        );
        world
    }

    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The binary with these arguments, in this folder.
    pub(crate) fn command(&self, arguments: &[impl AsRef<str>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peregrine"));
        command
            .args(arguments.iter().map(AsRef::as_ref))
            .current_dir(self.path())
            .env_clear();
        // A port that nobody listens on: what runs on this machine must not decide a test.
        command.env("OLLAMA_HOST", "127.0.0.1:1").env("NO_PROXY", "*");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[impl AsRef<str>]) -> Ran {
        wait(self.command(arguments).spawn().unwrap())
    }

    /// Runs with this standard input.
    pub(crate) fn run_with_input(&self, arguments: &[impl AsRef<str>], input: impl AsRef<[u8]>) -> Ran {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.as_ref().to_vec();
        let writer = std::thread::spawn(move || {
            // The child may have ended without reading all of it.
            let _ = stdin.write_all(&input);
        });
        let ran = wait(child);
        writer.join().unwrap();
        ran
    }

    /// Runs a command against a server.
    pub(crate) fn run_against(&self, server: &LlmServer, arguments: &[&str]) -> Ran {
        self.run(&against(server, arguments))
    }
}

/// The arguments with the server's address and a model of it.
pub(crate) fn against(server: &LlmServer, arguments: &[&str]) -> Vec<String> {
    let url = server.url();
    let place = ["--base-url", &url, "--model", "openai/test-model"];
    arguments
        .iter()
        .chain(&place)
        .map(|argument| (*argument).to_owned())
        .collect()
}

/// The body of the newest request that a server got.
pub(crate) fn newest(server: &LlmServer) -> Value {
    server.last_request().unwrap().json().unwrap().clone()
}

/// Waits for the end of a run.
pub(crate) fn wait(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let ran = Ran {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code(),
    };
    assert!(!ran.err.contains("panicked"), "{ran:?}");
    ran
}
