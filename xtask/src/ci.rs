//! Everything that must be green on main, cheap steps first. A failed step does not hide what comes after it.
//!
//! One set of features (all of them) and one profile (dev) serve lint, test, examples, doc, fuzz, wire and peers, so that each
//! dependency is checked once and compiled once. Only `features` builds others, which is what it is for.

use crate::args::Args;
use crate::report::{Outcome, Report};
use crate::{bench, checks, deps, examples, features, fuzz, peers, test, tidy, wire};

pub(crate) fn run(args: Args) -> Outcome {
    args.finish()?;
    let mut report = Report::new();
    report.step("fmt", || checks::fmt(false));
    report.step("tidy", tidy::run);
    report.step("docs", || bench::docs(false));
    report.step("deps", deps::run);
    report.step("lint", checks::lint);
    report.step("features", features::run);
    report.step("test", || test::run(Args::new(Vec::new())));
    report.step("examples", || examples::run(Args::new(Vec::new())));
    report.step("doc", checks::doc);
    report.step("fuzz", || fuzz::run(&fuzz::Options::default()));
    report.step("wire", || wire::run(&wire::Options::for_ci()));
    report.step("peers", || peers::run(Args::new(Vec::new())));
    report.finish()
}
