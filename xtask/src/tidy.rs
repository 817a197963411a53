//! The style rules that are code, on the files git tracks. Each rule is a function from files to findings, so that
//! its tests show it failing without a disk.

mod layout;
mod lexer;
mod manifest;
mod rust;
mod text;

use std::fmt;

use crate::command::{Cmd, root};
use crate::report::{Done, Outcome, Problem, say};

/// A tracked file; `text` is `None` where it is not UTF-8.
#[derive(Debug)]
struct File {
    path: String,
    text: Option<String>,
}

/// Something a rule does not like, at a line where there is one.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    message: String,
}

type Rule = fn(&[File], &mut Vec<Finding>);

/// Every rule, in the order in which they are explained in `CONTRIBUTING.md`.
const RULES: &[Rule] = &[
    rust::opens_with_a_doc_line,
    rust::is_not_too_long,
    rust::has_no_unfinished_code,
    rust::ignores_no_test,
    text::is_clean,
    text::names_no_path_of_a_machine,
    text::examples_are_not_ignored,
    manifest::names,
    manifest::inherits_from_the_workspace,
    manifest::versions_are_in_the_workspace,
    layout::readmes,
    layout::changelog,
    layout::one_integration_binary,
    layout::workflows_call_the_verbs,
];

pub(crate) fn run() -> Outcome {
    let files = tracked()?;
    let findings = check(&files);
    for finding in &findings {
        say!("{finding}");
    }
    say!(
        "{} files, {} rules, {} findings",
        files.len(),
        RULES.len(),
        findings.len()
    );
    match findings.len() {
        0 => Ok(Done::Ok),
        count => Err(Problem::Failed(format!("{count} findings"))),
    }
}

fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in RULES {
        rule(files, &mut findings);
    }
    findings.sort();
    findings
}

fn tracked() -> Result<Vec<File>, Problem> {
    let listed = Cmd::new("git", "git")
        .args(["ls-files", "-z"])
        .hidden()
        .captured()
        .map_err(|problem| {
            // No repository or no git: either way the rules cannot be checked.
            Problem::CouldNotRun(problem.to_string())
        })?;
    let mut files = Vec::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        let full = root().join(path);
        // Deleted but not yet committed, a link, or a submodule.
        if !full.symlink_metadata().is_ok_and(|file| file.is_file()) {
            continue;
        }
        let bytes = std::fs::read(&full)
            .map_err(|error| Problem::CouldNotRun(format!("reading {}: {error}", full.display())))?;
        files.push(File {
            path: path.to_owned(),
            text: String::from_utf8(bytes).ok(),
        });
    }
    Ok(files)
}

impl File {
    /// The text of a file with this ending, else nothing.
    fn text_if(&self, ending: &str) -> Option<&str> {
        self.path
            .ends_with(ending)
            .then_some(self.text.as_deref())
            .flatten()
    }

    fn finding(&self, line: usize, message: impl Into<String>) -> Finding {
        Finding {
            path: self.path.clone(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, message } = self;
        match line {
            0 => write!(f, "{path}: {message}"),
            line => write!(f, "{path}:{line}: {message}"),
        }
    }
}

/// What one rule finds in files given as (path, text).
#[cfg(test)]
fn found(rule: Rule, files: &[(&str, &str)]) -> Vec<String> {
    let file = |&(path, text): &(&str, &str)| File {
        path: path.to_owned(),
        text: Some(text.to_owned()),
    };
    let files: Vec<File> = files.iter().map(file).collect();
    let mut findings = Vec::new();
    rule(&files, &mut findings);
    findings.iter().map(Finding::to_string).collect()
}
