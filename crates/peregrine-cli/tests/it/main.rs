//! The real binary, driven from outside: with files, a scripted server, pipes, signals and a terminal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod ask;
#[cfg(unix)]
mod cache;
mod chat;
mod confinement;
#[cfg(unix)]
mod durable;
#[cfg(unix)]
mod durable_chat;
mod durable_fork;
mod json;
mod kept;
mod lint;
mod models;
mod plan;
mod run;
mod runs;
mod runs_hostile;
#[cfg(unix)]
mod signals;
#[cfg(target_os = "linux")]
mod terminal;
mod usage;
