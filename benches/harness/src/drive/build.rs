//! Builds the runners of a revision.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::folder;
use crate::error::{Error, Result};

const PACKAGE: &str = "peregrine-benches";
const TIME: &str = "peregrine-bench";
const COUNT: &str = "peregrine-bench-counts";

/// The programs of one build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runners {
    /// Measures times.
    pub time: PathBuf,
    /// The same, with an allocator that counts.
    pub count: PathBuf,
}

/// Builds the runners of a source, in the release profile.
///
/// # Errors
///
/// [`Error::Start`] without cargo; [`Error::Program`] if the build fails, or has no runner because the source is older than
/// they are.
pub fn build(source: &Path, target: &Path) -> Result<Runners> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(source)
        .args(["build", "--release", "--quiet", "--package", PACKAGE, "--bins"])
        .args(["--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(target);
    // `cargo run` describes its package in the environment of what it runs; build scripts that look would run again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| Error::Start {
            program: "cargo build".to_owned(),
            source,
        })?;
    let failed = |message: String| Error::Program {
        program: format!("cargo build --release --package {PACKAGE} --bins"),
        message,
    };
    if !output.status.success() {
        return Err(failed(format!("in {}: {}", source.display(), output.status)));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let program = |name: &str| {
        let path = said.lines().find_map(|line| executable(line, name));
        path.ok_or_else(|| failed(format!("{} has no program {name}", source.display())))
    };
    Ok(Runners {
        time: program(TIME)?,
        count: program(COUNT)?,
    })
}

fn executable(message: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_it = message["reason"] == "compiler-artifact" && message["target"]["name"] == name;
    is_it
        .then(|| message["executable"].as_str())
        .flatten()
        .map(PathBuf::from)
}

/// A revision in a folder of its own, beside our results. Its path and its commit.
///
/// # Errors
///
/// [`Error::Start`] without git; [`Error::Usage`] if there is no such revision; [`Error::Program`] if it cannot be checked
/// out.
pub fn checkout(root: &Path, revision: &str) -> Result<(PathBuf, String)> {
    let commit = git(
        root,
        &[
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &format!("{revision}^{{commit}}"),
        ],
    )
    .map_err(|error| match error {
        Error::Program { .. } => Error::Usage(format!("there is no revision `{revision}`")),
        other => other,
    })?;
    let path = folder(root).join("against").join("source");
    let text = path.to_string_lossy().into_owned();
    // One folder for every revision, so that cargo finds the build of what did not change.
    if path.join(".git").exists() {
        git(&path, &["checkout", "--quiet", "--force", "--detach", &commit])?;
        return Ok((path, commit));
    }
    if path.exists() {
        fs::remove_dir_all(&path).map_err(|source| Error::Write {
            path: path.clone(),
            source,
        })?;
    }
    git(root, &["worktree", "prune"])?;
    git(
        root,
        &[
            "worktree", "add", "--quiet", "--force", "--detach", &text, &commit,
        ],
    )?;
    Ok((path, commit))
}

fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    let program = || format!("git {}", arguments[0]);
    let output = Command::new("git")
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start {
            program: program(),
            source,
        })?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(Error::Program {
            program: program(),
            message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}
