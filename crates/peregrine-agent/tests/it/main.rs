//! Integration tests of the agent crate.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod budget;
mod budget_model;
mod budget_queue;
mod budget_race;
mod cancel;
mod hooks;
mod hostile;
#[cfg(target_os = "linux")]
mod hundred;
mod limits;
mod lint;
mod loopback;
mod machine;
mod matrix;
mod paths;
mod resume;
mod stop;
mod stop_places;
#[cfg(target_os = "linux")]
mod stop_process;
mod stop_tools;
mod strategies;
mod streams;
mod support;
mod tools;
mod typed;
mod window;
