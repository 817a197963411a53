//! The checks that are one cargo command each: formatting, lints, documentation. Warnings are errors in all of them.

use crate::command::{cargo, cargo_has, root};
use crate::report::{Done, Outcome};

/// The fuzz targets and the rivals are workspaces of their own; `cargo fmt --all` does not know them.
const FUZZ_MANIFEST: &str = "fuzz/Cargo.toml";
const RIVALS_MANIFEST: &str = "benches/rivals/Cargo.toml";

pub(crate) fn fmt(fix: bool) -> Outcome {
    cargo_has("fmt", "rustup component add rustfmt")?;
    let check: &[&str] = if fix { &[] } else { &["--check"] };
    let mut all = cargo(["fmt", "--all"]).args(check).run();
    for manifest in [FUZZ_MANIFEST, RIVALS_MANIFEST] {
        if root().join(manifest).exists() {
            all = all.and(
                cargo(["fmt", "--all", "--manifest-path", manifest])
                    .args(check)
                    .run(),
            );
        }
    }
    all
}

/// CI does not build the rivals, but their lock file must fit the crates of ours that they are compared with.
pub(crate) fn rivals_are_locked() -> Outcome {
    if !root().join(RIVALS_MANIFEST).exists() {
        return Ok(Done::Ok);
    }
    // Without `--locked`, the same command makes it fit. It fetches nothing but the index.
    cargo([
        "update",
        "--workspace",
        "--locked",
        "--quiet",
        "--manifest-path",
        RIVALS_MANIFEST,
    ])
    .run()
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
