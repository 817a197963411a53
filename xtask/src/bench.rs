//! Benchmarks: `bench` runs them, `compare` judges two runs, `docs` checks what is written of them. All are the program of
//! `peregrine-harness`, which is given the arguments as they are: this crate stays as quick to build as CI wants it, which
//! builds it first. What measures is built in the release profile; `docs` only reads and writes text.

use crate::args::Args;
use crate::command::cargo;
use crate::report::{Done, Outcome, Problem};

const PACKAGE: &str = "peregrine-harness";

pub(crate) fn run(verb: &str, args: Args) -> Outcome {
    let words = args.rest();
    // Figures are made in the release profile; text needs none.
    let profile = match words.iter().any(|word| word == "--write-docs") {
        true => "dev",
        false => "release",
    };
    let status = cargo([
        "run",
        "--profile",
        profile,
        "--quiet",
        "--package",
        PACKAGE,
        "--",
        verb,
    ])
    .args(words)
    .here()
    .status()?;
    outcome(verb, status)
}

/// Whether the documents that are made from kept results are what those say; with `fix`, makes them.
pub(crate) fn docs(fix: bool) -> Outcome {
    let check: &[&str] = if fix { &[] } else { &["--check"] };
    let status = cargo([
        "run",
        "--quiet",
        "--package",
        PACKAGE,
        "--",
        "bench",
        "--write-docs",
    ])
    .args(check)
    .status()?;
    outcome("docs", status)
}

/// The harness has our exit statuses.
fn outcome(verb: &str, status: Option<i32>) -> Outcome {
    match status {
        Some(0) => Ok(Done::Ok),
        Some(1) => Err(Problem::Failed(format!("{verb}: something failed, see above"))),
        Some(2) => Err(Problem::CouldNotRun(format!("{verb}, see above"))),
        // Cargo's own failures are 101, and a signal is none.
        status => Err(Problem::Failed(format!("{verb} ended with {status:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_the_harness_are_ours() {
        assert_eq!(outcome("bench", Some(0)), Ok(Done::Ok));
        assert!(matches!(outcome("bench", Some(1)), Err(Problem::Failed(_))));
        assert!(matches!(outcome("bench", Some(2)), Err(Problem::CouldNotRun(_))));
        assert!(matches!(outcome("bench", Some(101)), Err(Problem::Failed(_))));
        assert!(matches!(outcome("bench", None), Err(Problem::Failed(_))));
    }
}
