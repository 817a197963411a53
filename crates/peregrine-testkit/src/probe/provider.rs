//! Where a model answers, and how long it may take: the options that commands share.

use std::time::Duration;

use clap::Args;
use peregrine_core::{ModelHandle, Result};
use peregrine_providers::{Connector, HttpConfig, RetryPolicy};

#[derive(Debug, Args)]
pub(crate) struct Provider {
    /// The provider's base URL; its own if it is not given.
    #[arg(long)]
    base_url: Option<String>,
    /// How many times a failed call is tried again.
    #[arg(long, default_value_t = 2)]
    retries: u32,
    /// The limit for a connection, in milliseconds.
    #[arg(long)]
    connect_timeout_ms: Option<u64>,
    /// The limit for the first byte of the answer, in milliseconds.
    #[arg(long)]
    first_byte_timeout_ms: Option<u64>,
    /// The limit between two pieces of the answer, in milliseconds.
    #[arg(long)]
    idle_timeout_ms: Option<u64>,
    /// How large the answer may be, in bytes.
    #[arg(long)]
    max_body_bytes: Option<usize>,
}

impl Provider {
    /// A model of a provider.
    ///
    /// # Errors
    ///
    /// That there is no such provider, or no key for it.
    pub(crate) fn model(&self, provider: &str, model: Option<&str>) -> Result<ModelHandle> {
        let spec = match model {
            Some(model) if provider != "offline" => format!("{provider}/{model}"),
            _ => provider.to_owned(),
        };
        self.connector().chat(&spec)
    }

    fn connector(&self) -> Connector {
        let milliseconds = |given: Option<u64>, usual: Duration| given.map_or(usual, Duration::from_millis);
        let usual = HttpConfig::default();
        let http = HttpConfig::default()
            .with_connect_timeout(milliseconds(self.connect_timeout_ms, usual.connect_timeout))
            .with_first_byte_timeout(milliseconds(self.first_byte_timeout_ms, usual.first_byte_timeout))
            .with_idle_timeout(milliseconds(self.idle_timeout_ms, usual.idle_timeout))
            .with_max_body_bytes(self.max_body_bytes.unwrap_or(usual.max_body_bytes));
        let connector = Connector::new()
            .with_http(http)
            .with_retry(RetryPolicy::new(self.retries));
        match &self.base_url {
            Some(url) => connector.with_base_url(url),
            None => connector,
        }
    }
}
