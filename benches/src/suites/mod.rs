//! The suites. One that has no crate yet is absent.

mod ablations;
mod cache;
mod checkpoints;
mod concurrency;
mod execution;
mod executor;
mod initialization;
mod interrupts;
mod limits;
mod long;
pub(crate) mod ollama;
mod providers;
mod selftest;
mod streaming;
mod structured;
mod tools;

use std::io::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use peregrine_core::{ModelHandle, Secret};
use peregrine_providers::Connector;

use crate::bench::Group;

/// Every group, in the order of the suites.
pub(crate) fn all() -> Vec<Group> {
    [
        initialization::groups(),
        execution::groups(),
        long::groups(),
        ollama::groups(),
        tools::groups(),
        interrupts::groups(),
        checkpoints::groups(),
        providers::groups(),
        cache::groups(),
        limits::groups(),
        executor::groups(),
        structured::groups(),
        streaming::groups(),
        concurrency::groups(),
        ablations::groups(),
        selftest::groups(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A model at a server of ours.
pub(crate) fn connect(base_url: &str) -> ModelHandle {
    connector(base_url).chat("openai/test-model").unwrap()
}

/// What connects to a server of ours.
fn connector(base_url: &str) -> Connector {
    Connector::new()
        .with_base_url(base_url)
        .with_api_key(Secret::new("sk-test"))
}

/// A Redis that may be used: that of the tests, or one on the usual port of this machine, if it answers.
fn redis_url() -> Option<String> {
    static FOUND: LazyLock<Option<String>> = LazyLock::new(|| {
        let url = std::env::var("PEREGRINE_TEST_REDIS_URL").ok();
        let url = url.filter(|url| !url.is_empty());
        let url = url.unwrap_or_else(|| "redis://127.0.0.1:6379".to_owned());
        let second = Some(Duration::from_secs(1));
        let answers = || -> redis::RedisResult<()> {
            let client = redis::Client::open(url.as_str())?;
            let mut connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
            connection.set_read_timeout(second)?;
            redis::cmd("PING").exec(&mut connection)
        };
        match answers() {
            Ok(()) => Some(url),
            Err(error) => {
                let missing = format!(
                    "without what needs a Redis, because there is none at {}: {error}\n",
                    shown(&url)
                );
                // Nothing is to be done if nobody listens.
                let _ = std::io::stderr().write_all(missing.as_bytes());
                None
            }
        }
    });
    FOUND.clone()
}

/// A URL without what is nobody's business.
fn shown(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, place)| place)
}
