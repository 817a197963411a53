//! Integration tests of the harness.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod baselines;
mod documents;
mod files;
mod intervals;
mod reports;
mod samples;
mod simulated;
mod support;
mod verdicts;
