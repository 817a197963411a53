//! Integration tests of the testkit: the server through sockets alone, and the services.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests, where a panic is the failure"
)]

mod client;
mod counts;
mod decode;
mod endpoints;
mod equivalence;
mod faults;
mod hostile;
#[cfg(feature = "probe")]
mod probe;
#[cfg(feature = "probe")]
mod probe_agent;
#[cfg(feature = "probe")]
mod probe_cache;
#[cfg(feature = "probe")]
mod probe_ckpt;
#[cfg(feature = "probe")]
mod probe_durable;
#[cfg(feature = "probe")]
mod probe_limiter;
mod recordings;
mod service;
mod shapes;
mod streams;
mod timing;

use std::time::Duration;

use peregrine_testkit::server::LlmServer;

/// Long enough for anything that should happen, so that a failure is a failure and not a hanging test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it takes too long")
}

pub(crate) async fn server() -> LlmServer {
    LlmServer::start().await.unwrap()
}
