//! Child processes: every command is shown before it runs, starts in the workspace root and keeps our streams.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::report::{Done, Outcome, Problem, say};

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable at run time too; the one from build time would point at the old place of a moved clone.
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map_or_else(|| xtask.clone(), Path::to_path_buf)
}

/// A command of the toolchain that runs us.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Cmd {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cmd = Cmd::new(program, "cargo");
    // `cargo run` describes the xtask package in the environment of its child. Build scripts that watch such
    // variables would be run again by every other cargo command, with all that depends on them.
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let of_the_package = name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if of_the_package
            || matches!(
                name,
                "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE"
            )
        {
            cmd.inner.env_remove(name);
        }
    }
    cmd.args(arguments)
}

/// A cargo command that a rustup component or another package adds; without it the step cannot run.
pub(crate) fn cargo_has(subcommand: &str, install: &str) -> Result<(), Problem> {
    match cargo([subcommand, "--version"]).hidden().silent().captured() {
        Ok(_) => Ok(()),
        Err(_) => Err(Problem::CouldNotRun(format!(
            "`cargo {subcommand}` is not installed; `{install}` installs it"
        ))),
    }
}

/// A [`Command`] together with the line that shows it.
#[derive(Debug)]
pub(crate) struct Cmd {
    inner: Command,
    shown: String,
    show: bool,
    swallow_stderr: bool,
}

impl Cmd {
    pub(crate) fn new(program: impl AsRef<OsStr>, shown: &str) -> Self {
        let mut inner = Command::new(program);
        inner.current_dir(root());
        Self {
            inner,
            shown: shown.to_owned(),
            show: true,
            swallow_stderr: false,
        }
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        for argument in arguments {
            self.inner.arg(&argument);
            let text = argument.as_ref().to_string_lossy();
            let quote = text.is_empty() || text.contains([' ', '|', '*', '{']);
            self.shown += &if quote {
                format!(" '{text}'")
            } else {
                format!(" {text}")
            };
        }
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// Like [`Cmd::env`], and shown: for what one must type to repeat the command.
    pub(crate) fn shown_env(mut self, name: &str, value: &str) -> Self {
        let value_shown = if value.contains(' ') {
            format!("'{value}'")
        } else {
            value.to_owned()
        };
        self.shown = format!("{name}={value_shown} {}", self.shown);
        self.env(name, value)
    }

    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.inner.env_remove(name);
        self
    }

    /// Starts it where the person stands: for a program that takes paths of theirs.
    pub(crate) fn here(mut self) -> Self {
        if let Ok(folder) = std::env::current_dir() {
            self.inner.current_dir(folder);
        }
        self
    }

    /// Does not show the line: for questions asked of a tool, not for work.
    pub(crate) fn hidden(mut self) -> Self {
        self.show = false;
        self
    }

    /// Swallows standard error: for questions where "no" is an ordinary answer.
    pub(crate) fn silent(mut self) -> Self {
        self.swallow_stderr = true;
        self
    }

    /// Runs it with our own streams; an exit status other than 0 is a failure.
    pub(crate) fn run(mut self) -> Outcome {
        if self.show {
            say!("$ {}", self.shown);
        }
        let status = self
            .inner
            .stdin(Stdio::null())
            .status()
            .map_err(|error| self.did_not_start(&error))?;
        if status.success() {
            return Ok(Done::Ok);
        }
        Err(Problem::Failed(format!("`{}` ended with {status}", self.shown)))
    }

    /// Runs it with our own streams, not shown, and gives its exit status; `None` if a signal ended it.
    pub(crate) fn status(mut self) -> Result<Option<i32>, Problem> {
        let status = self
            .inner
            .stdin(Stdio::null())
            .status()
            .map_err(|error| self.did_not_start(&error))?;
        Ok(status.code())
    }

    /// Runs it and returns its standard output; standard error stays ours unless [`Cmd::silent`].
    pub(crate) fn captured(self) -> Result<String, Problem> {
        let shown = self.shown.clone();
        let (stdout, status) = self.captured_even_if_failed()?;
        if status {
            Ok(stdout)
        } else {
            Err(Problem::Failed(format!("`{shown}` failed")))
        }
    }

    /// Like [`Cmd::captured`], with whether the exit status was 0 instead of an error.
    pub(crate) fn captured_even_if_failed(mut self) -> Result<(String, bool), Problem> {
        if self.show {
            say!("$ {}", self.shown);
        }
        let stderr = if self.swallow_stderr {
            Stdio::null()
        } else {
            Stdio::inherit()
        };
        let output = self
            .inner
            .stdin(Stdio::null())
            .stderr(stderr)
            .output()
            .map_err(|error| self.did_not_start(&error))?;
        let stdout = String::from_utf8(output.stdout)
            .map_err(|_| Problem::Failed(format!("`{}` printed what is not UTF-8", self.shown)))?;
        Ok((stdout, output.status.success()))
    }

    fn did_not_start(&self, error: &std::io::Error) -> Problem {
        Problem::CouldNotRun(format!("`{}` did not start: {error}", self.shown))
    }
}
