//! The project's tasks, run as `cargo xtask VERB`. Exit status: 0 ok, 1 something failed, 2 could not run.
//!
//! This file only chooses the verb; each verb is a function from its arguments to an [`Outcome`] in a module of
//! the same name. `ci` is nothing but the other verbs in a row, so what CI checks can be run one by one by hand.

mod args;
mod bench;
mod checks;
mod ci;
mod command;
mod deps;
mod examples;
mod features;
mod fuzz;
mod metadata;
mod peers;
mod report;
mod services;
mod test;
mod tidy;
mod wire;

use std::process::ExitCode;

use args::Args;
use report::{Outcome, Problem, Report, say};

const USAGE: &str = "\
The project's tasks. Usage: cargo xtask VERB [OPTIONS]

  test [CARGO TEST ARGUMENTS]   every test with every feature, documentation tests included; starts what services it
                                finds (Redis, PostgreSQL, NATS) and lists by name the tests that could not run
  ci                            fmt, tidy, docs, deps, lint, features, test, examples, doc, fuzz, wire, peers: what must be green on
                                main
  fmt [--fix]                   formatting: checks it, or writes it
  lint                          clippy on every target with every feature, warnings are errors
  tidy                          the style rules that are code: sizes, headers, manifests, layout
  docs [--fix]                  docs/benchmarks.md and the README's table are what benches/results says: checks or writes them
  deps [--markdown]             what each crate may reach, closure sizes, licences; or the size table for the README
  examples [--fix]              the facade's examples without keys: they succeed and print what is written beside them
  doc                           documentation of every crate, warnings are errors
  features                      every feature of every crate built alone, and each crate without any
  fuzz [--cases N] [--seed S]   the decoders on seeded random input, bounded, on the stable toolchain
       [--libfuzzer TARGET]     or one cargo-fuzz target on the nightly toolchain, until it is stopped
  wire [--dir DIR] [--dev]      recorded provider traffic decoded by the real clients, compared with what is expected
  peers [--litellm] [--ollama]  the real clients against llama.cpp's server (and LiteLLM's proxy; and the official Ollama
                                client against the test server)
  bench [--suite S] [--quick]   the benchmarks: a JSON file for each suite, a summary and an HTML report in target/bench;
        [--against GIT_REF]     or two revisions in turns, compared; `--ablate`: what each optimisation is worth;
        [--json DIR] [--save NAME]  `--write-docs [--from DIR]`: the documents; `bench --help` says more
        [--ollama MODEL]        the execution suite against a real Ollama too
        [--rivals]              or the same work with other frameworks, ours and bare reqwest in turns
  compare BASE HEAD             verdicts on two results (files, folders, saved names); `--self-test` tests the verdicts

Exit status: 0 ok, 1 something failed, 2 could not run (bad usage, missing tool).
";

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.is_empty() {
        eprint(USAGE);
        return ExitCode::from(2);
    }
    let verb = words.remove(0);
    // These two have more to say of themselves.
    let helps_itself = matches!(verb.as_str(), "bench" | "compare");
    if matches!(verb.as_str(), "help" | "--help" | "-h") || (asks_for_help(&words) && !helps_itself) {
        say!("{}", USAGE.trim_end());
        return ExitCode::SUCCESS;
    }
    exit_code(run(&verb, Args::new(words)))
}

/// Runs one verb as a step of its own, so that every verb ends with the same table.
fn run(verb: &str, mut args: Args) -> Outcome {
    let mut report = Report::new();
    match verb {
        "test" => report.step("test", || test::run(args)),
        "ci" => return ci::run(args),
        "fmt" => {
            let fix = args.flag("--fix");
            args.finish()?;
            report.step("fmt", || checks::fmt(fix));
        }
        "lint" => {
            args.finish()?;
            report.step("lint", checks::lint);
        }
        "tidy" => {
            args.finish()?;
            report.step("tidy", tidy::run);
        }
        "docs" => {
            let fix = args.flag("--fix");
            args.finish()?;
            report.step("docs", || bench::docs(fix));
        }
        "deps" => {
            let markdown = args.flag("--markdown");
            args.finish()?;
            if markdown {
                // Bare output, so that it can be pasted or piped as it is.
                return deps::print_markdown();
            }
            report.step("deps", deps::run);
        }
        "doc" => {
            args.finish()?;
            report.step("doc", checks::doc);
        }
        "features" => {
            args.finish()?;
            report.step("features", features::run);
        }
        "fuzz" => {
            let options = fuzz::Options::from_args(args)?;
            report.step("fuzz", || fuzz::run(&options));
        }
        // Bare output, so that tables can be piped, and no table of steps behind theirs.
        "bench" | "compare" => return bench::run(verb, args),
        "examples" => report.step("examples", || examples::run(args)),
        "peers" => report.step("peers", || peers::run(args)),
        "wire" => {
            let options = wire::Options::from_args(args)?;
            report.step("wire", || wire::run(&options));
        }
        unknown => {
            return Err(Problem::CouldNotRun(format!(
                "there is no verb `{unknown}`; `cargo xtask help` lists them"
            )));
        }
    }
    report.finish()
}

/// `--help` after a verb shows the usage too, but not behind `--`, where words belong to the test harness.
fn asks_for_help(words: &[String]) -> bool {
    words
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word == "--help" || word == "-h")
}

fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(_) => ExitCode::SUCCESS,
        Err(problem) => {
            eprint(&format!("xtask: {problem}\n"));
            match problem {
                Problem::Failed(_) => ExitCode::from(1),
                Problem::CouldNotRun(_) => ExitCode::from(2),
            }
        }
    }
}

/// Writes to standard error; a closed pipe there is nobody's failure.
fn eprint(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stderr().write_all(text.as_bytes());
}
