//! Everything of the executor that its users see.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod checks;
mod decoder;
mod decoding;
mod engine;
mod failures;
mod interrupts;
mod makespan;
mod parallel;
mod plans;
mod random;
mod ready_queue;
mod references;
mod report;
mod resume;
mod scheduling;
mod streaming;
mod support;
