//! The client of one entry of the pool: built at the first call, by one caller, for all.
//!
//! Invariant: a client is built once however many ask for it at the same time. Building blocks (it loads the system's
//! certificates, which takes a millisecond or two) and never waits for anything, so a plain lock is enough.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::Uri;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use hyper_util::client::proxy::matcher::Matcher;
use peregrine_core::{Clock, ConfigError, Error, ErrorKind, Monotonic, Result, Secret, TransportError};
use url::Url;

use super::client::Client;
use super::per_model::PerModel;
use super::{Auth, HttpConfig};
use crate::breaker::{Breaker, BreakerPolicy};
use crate::hedge::{Hedge, HedgePolicy};
use crate::pool::Address;

/// What connections are made with; part of what an entry is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connecting {
    pub(super) connect_timeout: Duration,
    pub(super) pool_idle_timeout: Duration,
    pub(super) max_idle_connections: usize,
}

impl Connecting {
    pub(crate) fn of(config: &HttpConfig) -> Self {
        Self {
            connect_timeout: config.connect_timeout,
            pool_idle_timeout: config.pool_idle_timeout,
            max_idle_connections: config.max_idle_connections,
        }
    }
}

/// An entry of the pool. Who holds an [`Endpoint`](super::Endpoint) uses it.
pub(crate) struct Entry {
    address: Address,
    connecting: Connecting,
    ready: OnceLock<Ready>,
    building: Mutex<()>,
    clock: Arc<dyn Clock>,
    /// When the last endpoint was let go, in nanoseconds of the clock.
    released: AtomicU64,
    /// How many clients the pool has built.
    builds: Arc<AtomicU64>,
    pub(super) circuits: PerModel<BreakerPolicy, Breaker>,
    pub(super) hedges: PerModel<HedgePolicy, Hedge>,
}

/// What the first call builds.
pub(super) struct Ready {
    pub(super) client: Client,
    pub(super) headers: HeaderMap,
    pub(super) secret: Option<Secret>,
}

impl Entry {
    pub(crate) fn new(
        address: Address,
        connecting: Connecting,
        clock: Arc<dyn Clock>,
        builds: Arc<AtomicU64>,
    ) -> Self {
        let entry = Self {
            address,
            connecting,
            ready: OnceLock::new(),
            building: Mutex::new(()),
            clock,
            released: AtomicU64::new(0),
            builds,
            circuits: PerModel::default(),
            hedges: PerModel::default(),
        };
        entry.release();
        entry
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Whether it is what such an endpoint needs.
    pub(crate) fn fits(&self, address: &Address, connecting: Connecting) -> bool {
        self.connecting == connecting && self.address.same(address)
    }

    /// Whether its client is built.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.get().is_some()
    }

    /// When the last endpoint was let go.
    pub(crate) fn released(&self) -> Monotonic {
        Monotonic::new(Duration::from_nanos(self.released.load(Ordering::Relaxed)))
    }

    /// An endpoint is let go now.
    pub(super) fn release(&self) {
        let now = u64::try_from(self.clock.now().since_origin().as_nanos()).unwrap_or(u64::MAX);
        self.released.fetch_max(now, Ordering::Relaxed);
    }

    /// The client and headers, built now if this is the first call.
    pub(super) fn ready(&self) -> Result<&Ready> {
        if let Some(ready) = self.ready.get() {
            return Ok(ready);
        }
        let _building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = self.ready.get() {
            return Ok(ready);
        }
        let built = self.build()?;
        self.builds.fetch_add(1, Ordering::Relaxed);
        Ok(self.ready.get_or_init(|| built))
    }

    fn build(&self) -> Result<Ready> {
        let address = &self.address;
        let secret = address.credential().read(address.provider())?;
        let headers = self.header_map(secret.as_ref())?;
        // Nothing on this machine is asked through a proxy.
        let proxies = (!is_loopback(address.url())).then(Matcher::from_env);
        let client = Uri::try_from(address.url().as_str())
            .map_err(io::Error::other)
            .and_then(|origin| Client::new(&origin, &self.connecting, proxies.as_ref()))
            .map_err(|source| {
                let message = format!("the HTTP client for {} could not be built", address.provider());
                Error::from(TransportError::new(ErrorKind::Config, message).with_source(source))
            })?;
        Ok(Ready {
            client,
            headers,
            secret,
        })
    }

    fn header_map(&self, secret: Option<&Secret>) -> Result<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(5 + self.address.headers().len());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("peregrine/", env!("CARGO_PKG_VERSION"))),
        );
        let url = self.address.url();
        // Written once, not for each request. Over TLS it may be HTTP/2, which has another word for it.
        if let ("http", Some(host)) = (url.scheme(), url.host_str()) {
            let host = match url.port() {
                Some(port) => HeaderValue::try_from(format!("{host}:{port}")),
                None => HeaderValue::try_from(host),
            };
            headers.extend(host.ok().map(|host| (HOST, host)));
        }
        for (name, value) in self.address.headers() {
            let value = HeaderValue::from_str(value).map_err(|_| {
                ConfigError::new(format!(
                    "the value of the header {name} has characters that no header may have"
                ))
            })?;
            headers.insert(HeaderName::from_static(name), value);
        }
        if let Some(secret) = secret {
            let (name, text) = match self.address.auth() {
                Auth::Bearer => (AUTHORIZATION, format!("Bearer {}", secret.expose())),
                Auth::Header(name) => (HeaderName::from_static(name), secret.expose().to_owned()),
            };
            let mut value = HeaderValue::from_str(&text).map_err(|_| {
                ConfigError::new(format!(
                    "the API key for {} has characters that no header may have",
                    self.address.provider()
                ))
            })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
