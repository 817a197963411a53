//! Integration tests of signatures, by their public face.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bounds;
mod compose;
mod derive;
mod laws;
mod model;
mod predict;
mod prompts;
mod reading;
mod schemas;
mod streaming;
mod text;
