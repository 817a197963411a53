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

/// The programs of one build, in a folder of their own: what cargo builds meanwhile does not change them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runners {
    /// Measures times.
    pub time: PathBuf,
    /// The same, with an allocator that counts.
    pub count: PathBuf,
}

/// Builds the runners of a source in the release profile, and copies every program of their package into a folder.
///
/// # Errors
///
/// [`Error::Start`] without cargo; [`Error::Program`] if the build fails; [`Error::Write`].
pub fn build(source: &Path, target: &Path, into: &Path) -> Result<Runners> {
    let mut command = cargo(source);
    command
        .args(["build", "--release", "--quiet", "--package", PACKAGE, "--bins"])
        .args(["--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(target);
    let said = output(command, "cargo build", source)?;
    if into.exists() {
        fs::remove_dir_all(into).map_err(|source| unwritten(into, source))?;
    }
    fs::create_dir_all(into).map_err(|source| unwritten(into, source))?;
    for program in said.lines().filter_map(executable) {
        if let Some(name) = program.file_name() {
            let copy = into.join(name);
            fs::copy(&program, &copy).map_err(|source| unwritten(&copy, source))?;
            strip(&copy);
        }
    }
    let program = |name: &str| {
        let path = into.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        path.exists().then_some(path).ok_or_else(|| Error::Program {
            program: "cargo build".to_owned(),
            message: format!("it did not say where it put {name}"),
        })
    };
    Ok(Runners {
        time: program(TIME)?,
        count: program(COUNT)?,
    })
}

/// Takes the tables for debuggers out, which valgrind would read each time. Without the tool it reads them.
fn strip(program: &Path) {
    let mut command = Command::new("strip");
    let silent = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _ = silent.arg("--strip-debug").arg(program).status();
}

/// Whether the workspace of a folder has the package with both programs.
fn has_runners(source: &Path) -> bool {
    let mut command = cargo(source);
    let silent = command.stdin(Stdio::null()).stderr(Stdio::null());
    let output = silent
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output();
    let metadata = output.ok().filter(|output| output.status.success());
    let metadata = metadata.and_then(|output| serde_json::from_slice::<Value>(&output.stdout).ok());
    let packages = metadata
        .as_ref()
        .and_then(|metadata| metadata["packages"].as_array());
    let package = packages.and_then(|all| all.iter().find(|package| package["name"] == PACKAGE));
    let targets = package.and_then(|package| package["targets"].as_array());
    let has = |name: &str| targets.is_some_and(|targets| targets.iter().any(|target| target["name"] == name));
    has(TIME) && has(COUNT)
}

fn cargo(source: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(source);
    // `cargo run` describes its package in the environment of what it runs; build scripts that look would run again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

fn output(mut command: Command, program: &str, source: &Path) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| Error::Start {
            program: program.to_owned(),
            source,
        })?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Error::Program {
            program: program.to_owned(),
            message: format!("in {}: {}", source.display(), output.status),
        }),
    }
}

fn unwritten(path: &Path, source: std::io::Error) -> Error {
    Error::Write {
        path: path.to_path_buf(),
        source,
    }
}

/// The program in a message of cargo, if it is about one of our package.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let kinds = message["target"]["kind"].as_array()?;
    let is_program = message["reason"] == "compiler-artifact" && kinds.iter().any(|kind| kind == "bin");
    is_program
        .then(|| message["executable"].as_str())
        .flatten()
        .map(PathBuf::from)
}

/// Gives a target folder that does not exist yet what another one has of foreign crates, so that another revision need not
/// compile them again. Nothing of ours: cargo tells our crates of two folders apart by their times only.
///
/// # Errors
///
/// [`Error::Write`] if it cannot be copied; then nothing is left.
pub fn seed(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (from.join("release"), to.join("release"));
    if to.exists() || !from.exists() {
        return Ok(());
    }
    let parts = [".fingerprint", "build", "deps"];
    let copied = parts
        .iter()
        .try_for_each(|part| copy_foreign(&from.join(part), &to.join(part)));
    copied.map_err(|source| {
        // What is there in part would be taken for the whole.
        let _ = fs::remove_dir_all(&to);
        unwritten(&to, source)
    })
}

fn copy_foreign(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_ours(&name.to_string_lossy()) {
            continue;
        }
        let (path, copy) = (entry.path(), to.join(&name));
        if entry.file_type()?.is_dir() {
            copy_foreign(&path, &copy)?;
        } else {
            fs::copy(&path, &copy)?;
            // Cargo goes by the order of these times.
            let modified = entry.metadata()?.modified()?;
            fs::File::options()
                .append(true)
                .open(&copy)?
                .set_modified(modified)?;
        }
    }
    Ok(())
}

/// Whether a file or folder of a build is of one of our packages, programs among them.
fn is_ours(name: &str) -> bool {
    let name = name.trim_start_matches("lib");
    ["peregrine", "cold-", "cold_", "xtask"]
        .iter()
        .any(|ours| name.starts_with(ours))
}

/// A revision in a folder of its own, beside our results. Its path and its commit.
///
/// # Errors
///
/// [`Error::Start`] without git; [`Error::Usage`] if there is no such revision, or nothing in it that measures;
/// [`Error::Program`] if it cannot be checked out.
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
        Error::Program { .. } => Error::Usage(format!("there is no commit `{revision}` in this repository")),
        other => other,
    })?;
    let path = folder(root).join("against").join("source");
    let text = path.to_string_lossy().into_owned();
    // One folder for every revision, so that cargo finds the build of what did not change.
    if path.join(".git").exists() {
        git(&path, &["checkout", "--quiet", "--force", "--detach", &commit])?;
    } else {
        if path.exists() {
            fs::remove_dir_all(&path).map_err(|source| unwritten(&path, source))?;
        }
        git(root, &["worktree", "prune"])?;
        git(
            root,
            &[
                "worktree", "add", "--quiet", "--force", "--detach", &text, &commit,
            ],
        )?;
    }
    match has_runners(&path) {
        true => Ok((path, commit)),
        false => Err(Error::Usage(format!(
            "`{revision}` cannot be measured: it is older than the programs {TIME} and {COUNT} of `{PACKAGE}`"
        ))),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_what_cargo_says() {
        let message = |reason: &str, kind: &str| {
            format!(
                r#"{{"reason":"{reason}","target":{{"kind":["{kind}"],"name":"x"}},"executable":"/there/x"}}"#
            )
        };
        assert_eq!(
            executable(&message("compiler-artifact", "bin")),
            Some(PathBuf::from("/there/x"))
        );
        assert_eq!(executable(&message("compiler-artifact", "custom-build")), None);
        assert_eq!(executable(&message("build-finished", "bin")), None);
        assert_eq!(executable("warning: something"), None);
    }

    #[test]
    fn a_seed_has_nothing_of_ours_and_keeps_times() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let deps = from.join("release/deps");
        for part in [".fingerprint/serde-1", "build", "deps"] {
            fs::create_dir_all(from.join("release").join(part)).unwrap();
        }
        for name in [
            "libserde-1.rlib",
            "libperegrine_core-1.rlib",
            "peregrine_bench-1",
            "cold_reqwest-1",
        ] {
            fs::write(deps.join(name), name).unwrap();
        }
        seed(&from, &to).unwrap();
        let copied: Vec<_> = fs::read_dir(to.join("release/deps"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(copied, ["libserde-1.rlib"]);
        let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        assert_eq!(
            modified(&to.join("release/deps/libserde-1.rlib")),
            modified(&deps.join("libserde-1.rlib"))
        );
        assert!(to.join("release/.fingerprint/serde-1").exists());
        fs::write(deps.join("libother-1.rlib"), "").unwrap();
        seed(&from, &to).unwrap();
        assert!(
            !to.join("release/deps/libother-1.rlib").exists(),
            "what is there stays as it is"
        );
    }
}
