//! Decoders on random input: seeded and bounded on the stable toolchain, or one cargo-fuzz target without an end.
//!
//! The bounded form runs the tests named `seeded_fuzz` with `PEREGRINE_FUZZ_CASES` and `PEREGRINE_FUZZ_SEED` set.
//! It builds exactly what `cargo xtask test` builds, so in `ci` it compiles nothing.

use crate::args::Args;
use crate::command::{Cmd, cargo, root};
use crate::report::{Done, Outcome, Problem, say};

/// The name, or the part of a name, of every bounded fuzz test.
const TEST_FILTER: &str = "seeded_fuzz";
/// The crate with the decoders; without it there is nothing to run, with it the tests must be there.
const DECODERS: &str = "crates/peregrine-providers";
const MANIFEST: &str = "fuzz/Cargo.toml";
const TARGETS: &str = "fuzz/fuzz_targets";

#[derive(Debug)]
pub(crate) struct Options {
    cases: u64,
    seed: u64,
    libfuzzer_target: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cases: 2_000,
            seed: 0,
            libfuzzer_target: None,
        }
    }
}

impl Options {
    pub(crate) fn from_args(mut args: Args) -> Result<Self, Problem> {
        let given_cases = args.number("--cases")?;
        let given_seed = args.number("--seed")?;
        let libfuzzer_target = args.option("--libfuzzer")?;
        args.finish()?;
        let default = Self::default();
        // A libFuzzer target runs until it is stopped, unless a number is given.
        let cases = given_cases.unwrap_or(if libfuzzer_target.is_some() {
            0
        } else {
            default.cases
        });
        Ok(Self {
            cases,
            seed: given_seed.unwrap_or(default.seed),
            libfuzzer_target,
        })
    }
}

pub(crate) fn run(options: &Options) -> Outcome {
    match &options.libfuzzer_target {
        Some(target) => libfuzzer(target, options),
        None => targets_compile().and(seeded(options)),
    }
}

/// The endless targets run rarely; at least they must not rot.
fn targets_compile() -> Outcome {
    if !root().join(MANIFEST).exists() {
        return Ok(Done::Ok);
    }
    // A path given here keeps libfuzzer-sys from compiling its C++ part, which only linking would need.
    cargo(["check", "--manifest-path", MANIFEST, "--all-targets"])
        .shown_env("CUSTOM_LIBFUZZER_PATH", "/dev/null")
        .run()
}

fn seeded(options: &Options) -> Outcome {
    if !root().join(DECODERS).join("Cargo.toml").exists() {
        return Ok(Done::Skipped(format!("there is no {DECODERS}")));
    }
    let words = ["test", "--workspace", "--all-features", "--test", "it"];
    let listed = cargo(words)
        .args(["--quiet", "--", TEST_FILTER, "--list"])
        .captured()?;
    let tests = listed.lines().filter(|line| line.ends_with(": test")).count();
    if tests == 0 {
        // The filter would select nothing, and nothing always passes.
        return Err(Problem::Failed(format!(
            "no test of {DECODERS} has `{TEST_FILTER}` in its name"
        )));
    }
    say!(
        "{tests} fuzz tests, {} cases each from seed {}",
        options.cases,
        options.seed
    );
    cargo(words)
        .args(["--no-fail-fast", "--", TEST_FILTER])
        .shown_env("PEREGRINE_FUZZ_CASES", &options.cases.to_string())
        .shown_env("PEREGRINE_FUZZ_SEED", &options.seed.to_string())
        .run()
}

fn libfuzzer(target: &str, options: &Options) -> Outcome {
    let known = targets();
    if !known.iter().any(|name| name == target) {
        let list = if known.is_empty() {
            "there are none".to_owned()
        } else {
            known.join(", ")
        };
        return Err(Problem::CouldNotRun(format!(
            "`{target}` is not a fuzz target in {TARGETS}: {list}"
        )));
    }
    let nightly = || {
        // Not `cargo +nightly`: our own `cargo` is the toolchain's, which does not know the `+`.
        Cmd::new("rustup", "rustup")
            .args(["run", "nightly", "cargo", "fuzz"])
            .env_remove("CARGO")
            .env_remove("RUSTC")
            .env_remove("RUSTUP_TOOLCHAIN")
    };
    if nightly()
        .args(["--version"])
        .hidden()
        .silent()
        .captured()
        .is_err()
    {
        return Err(Problem::CouldNotRun(
            "cargo-fuzz on a nightly toolchain is missing; `rustup toolchain install nightly` and \
             `cargo install cargo-fuzz --locked` install it"
                .to_owned(),
        ));
    }
    let runs = if options.cases == 0 {
        "-1".to_owned()
    } else {
        options.cases.to_string()
    };
    let limits = [format!("-runs={runs}"), format!("-seed={}", options.seed)];
    nightly().args(["run", target, "--"]).args(limits).run()
}

fn targets() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(root().join(TARGETS)) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            entry
                .ok()?
                .path()
                .file_name()?
                .to_str()?
                .strip_suffix(".rs")
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}
