//! The checks that are one cargo command each: formatting, lints, documentation. Warnings are errors in all of them.

use crate::command::{cargo, cargo_has, root};
use crate::report::Outcome;

/// The fuzz targets are a workspace of their own; `cargo fmt --all` does not know them.
const FUZZ_MANIFEST: &str = "fuzz/Cargo.toml";

pub(crate) fn fmt(fix: bool) -> Outcome {
    cargo_has("fmt", "rustup component add rustfmt")?;
    let check: &[&str] = if fix { &[] } else { &["--check"] };
    let ours = cargo(["fmt", "--all"]).args(check).run();
    if root().join(FUZZ_MANIFEST).exists() {
        let fuzz = cargo(["fmt", "--manifest-path", FUZZ_MANIFEST]).args(check).run();
        return ours.and(fuzz);
    }
    ours
}

pub(crate) fn lint() -> Outcome {
    cargo_has("clippy", "rustup component add clippy")?;
    cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ])
    .run()
}

pub(crate) fn doc() -> Outcome {
    cargo(["doc", "--no-deps", "--workspace", "--all-features"])
        .shown_env("RUSTDOCFLAGS", "-D warnings")
        .run()
}
