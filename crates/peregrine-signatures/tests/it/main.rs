//! Integration tests of signatures, by their public face.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bounds;
mod compose;
mod contract;
mod derive;
mod judging;
mod laws;
mod model;
mod predict;
mod prompts;
mod reading;
mod schemas;
mod seeded_fuzz;
mod streaming;
mod text;
