//! The suites. One that has no crate yet is absent.

mod checkpoints;
mod concurrency;
mod execution;
mod executor;
mod initialization;
mod interrupts;
mod selftest;
mod streaming;
mod structured;
mod tools;

use peregrine_core::{ModelHandle, Secret};
use peregrine_providers::Connector;

use crate::bench::Group;

/// Every group, in the order of the suites.
pub(crate) fn all() -> Vec<Group> {
    [
        initialization::groups(),
        execution::groups(),
        tools::groups(),
        interrupts::groups(),
        checkpoints::groups(),
        executor::groups(),
        structured::groups(),
        streaming::groups(),
        concurrency::groups(),
        selftest::groups(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A model at a server of ours.
fn connect(base_url: &str) -> ModelHandle {
    Connector::new()
        .with_base_url(base_url)
        .with_api_key(Secret::new("sk-test"))
        .chat("openai/test-model")
        .unwrap()
}
