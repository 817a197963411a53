//! One place that answers, with the limits of the calls to it; and how a credential is found and sent.
//!
//! An endpoint is a handle to an entry of the [`Pool`], which holds the connections. Endpoints with different limits for
//! calls share an entry.

use std::fmt;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, TryStreamExt as _};
use http::Uri;
use peregrine_core::{ConfigError, Result, Secret};
use subtle::ConstantTimeEq as _;
use url::Url;

use super::entry::{Entry, Ready};
use super::exchange::touch;
use super::{HttpConfig, TokioClock};
use crate::breaker::{Breaker, BreakerPolicy};
use crate::hedge::{Hedge, HedgePolicy};
use crate::pool::{Address, Pool};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How the credential is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Auth {
    /// `Authorization: Bearer ..`.
    Bearer,
    /// In a header of this name, as it is.
    Header(&'static str),
}

/// Where the credential comes from. It is read at the first call.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Credential {
    /// None is sent.
    None,
    /// This one.
    Key(Secret),
    /// The first of these environment variables that is set and not empty.
    Env {
        /// The variables, in order.
        variables: &'static [&'static str],
        /// Whether a call without a credential is an error; else none is sent.
        required: bool,
    },
}

impl Credential {
    pub(super) fn read(&self, provider: &str) -> Result<Option<Secret>> {
        match self {
            Self::None => Ok(None),
            Self::Key(secret) => Ok(Some(secret.clone())),
            Self::Env { variables, required } => {
                let found = variables
                    .iter()
                    .find_map(|name| std::env::var(name).ok().filter(|key| !key.trim().is_empty()));
                match found {
                    Some(key) => Ok(Some(Secret::new(key.trim()))),
                    None if !required => Ok(None),
                    None => Err(ConfigError::missing_credential(format!(
                        "no API key for {provider}: set the environment variable {}",
                        variables.join(" or ")
                    ))
                    .into()),
                }
            }
        }
    }

    /// Whether it is the same one. Keys are compared in a time that does not depend on where they differ.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Key(one), Self::Key(two)) => {
                bool::from(one.expose().as_bytes().ct_eq(two.expose().as_bytes()))
            }
            (
                Self::Env {
                    variables: v1,
                    required: r1,
                },
                Self::Env {
                    variables: v2,
                    required: r2,
                },
            ) => v1 == v2 && r1 == r2,
            _ => false,
        }
    }
}

/// One place that answers: a base URL with a credential. Models of it share its connections.
///
/// As long as it is held, its entry of the [`Pool`] stays.
pub struct Endpoint {
    entry: Arc<Entry>,
    provider: Arc<str>,
    config: HttpConfig,
}

impl Endpoint {
    /// An endpoint of `provider` at `base_url`, from the pool of this process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](peregrine_core::ErrorKind::Config) if `base_url` is not an `http` or `https` URL, or holds a
    /// user name, a password, a query or a fragment; [`ErrorKind::Refused`](peregrine_core::ErrorKind::Refused) as for
    /// [`Pool::endpoint`].
    pub fn shared(
        provider: &str,
        base_url: &str,
        credential: Credential,
        auth: Auth,
        headers: Vec<(&'static str, String)>,
        config: HttpConfig,
    ) -> Result<Arc<Self>> {
        let address = Address::new(provider, base_url, credential)?
            .with_auth(auth)
            .with_headers(headers);
        Pool::global().endpoint(&address, config)
    }

    pub(crate) fn new(entry: Arc<Entry>, config: HttpConfig) -> Self {
        Self {
            provider: entry.address().shared_provider(),
            entry,
            config,
        }
    }

    /// Who answers here.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    pub(super) fn shared_provider(&self) -> Arc<str> {
        Arc::clone(&self.provider)
    }

    /// The base URL, without a trailing slash.
    pub fn base_url(&self) -> &str {
        self.entry.address().base_url()
    }

    /// The time limits and bounds.
    pub fn config(&self) -> &HttpConfig {
        &self.config
    }

    /// Whether calls to both use the same connections.
    pub fn shares_connections_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.entry, &other.entry)
    }

    /// The circuit of one model here. Equal policies share it for as long as the entry stays.
    pub fn breaker(&self, model: &str, policy: &BreakerPolicy) -> Breaker {
        let make = |policy| Breaker::new(policy, Arc::new(TokioClock));
        self.entry.circuits.get(model, policy, make)
    }

    /// The hedge of one model here: its latencies and its budget. Equal policies share it for as long as the entry stays.
    pub fn hedge(&self, model: &str, policy: &HedgePolicy) -> Hedge {
        let make = |policy| Hedge::new(policy, Arc::new(TokioClock));
        self.entry.hedges.get(model, policy, make)
    }

    /// Makes ready for the first call what can be without being billed: reads the credential, builds the client, and opens
    /// so many connections (at least 1, at most as many as are kept unused) by asking for the head of the base URL,
    /// without the credential. What the server answers to that does not matter, unless it closes the connection after it.
    /// Over HTTP/2 one connection serves all.
    ///
    /// # Errors
    ///
    /// What the first call would fail with: a missing credential, or a provider that cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the connections that are open.
    pub async fn warm(&self, connections: usize) -> Result<()> {
        let ready = self.ready()?;
        let connections = connections.clamp(1, self.config.max_idle_connections.max(1));
        let touches: FuturesUnordered<_> = (0..connections).map(|_| touch(self, ready)).collect();
        touches.try_collect().await
    }

    /// The address of a path below the base URL.
    pub(super) fn url(&self, path: &str) -> Result<Uri> {
        let text = format!("{}{path}", self.base_url());
        let not_one = |source: BoxError| ConfigError::new(format!("{text:?} is not a URL: {source}"));
        // First as URLs are read, which escapes what has to be.
        let url = Url::parse(&text).map_err(|source| not_one(source.into()))?;
        let url = Uri::try_from(url.as_str()).map_err(|source| not_one(source.into()))?;
        Ok(url)
    }

    /// The client and headers, built now if this is the first call.
    pub(super) fn ready(&self) -> Result<&Ready> {
        self.entry.ready()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.entry.release();
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("provider", &self.provider)
            .field("base_url", &self.base_url())
            .finish_non_exhaustive()
    }
}
