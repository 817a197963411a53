//! The client of one (base URL, credential) pair, built at the first call and shared by all its models.
//!
//! A registry of weak references makes equal pairs share one endpoint in the whole process, for as long as
//! somebody uses it.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use peregrine_core::{ConfigError, Error, ErrorKind, Result, Secret, TransportError};
use url::Url;

use super::HttpConfig;

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
    fn read(&self, provider: &str) -> Result<Option<Secret>> {
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

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Key(one), Self::Key(two)) => one.expose() == two.expose(),
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
pub struct Endpoint {
    provider: Arc<str>,
    base_url: Url,
    credential: Credential,
    auth: Auth,
    headers: Vec<(&'static str, String)>,
    config: HttpConfig,
    ready: OnceLock<Ready>,
}

/// What the first call builds.
pub(super) struct Ready {
    pub(super) client: reqwest::Client,
    pub(super) headers: HeaderMap,
    pub(super) secret: Option<Secret>,
}

impl Endpoint {
    /// An endpoint of `provider` at `base_url`, shared with whoever asked for the same.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if `base_url` is not an `http` or `https` URL, or holds a user name, a
    /// password, a query or a fragment.
    pub fn shared(
        provider: &str,
        base_url: &str,
        credential: Credential,
        auth: Auth,
        headers: Vec<(&'static str, String)>,
        config: HttpConfig,
    ) -> Result<Arc<Self>> {
        static REGISTRY: Mutex<Vec<Weak<Endpoint>>> = Mutex::new(Vec::new());
        let base_url = parse_base_url(base_url)?;
        let wanted = Self {
            provider: Arc::from(provider),
            base_url,
            credential,
            auth,
            headers,
            config,
            ready: OnceLock::new(),
        };
        let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
        registry.retain(|endpoint| endpoint.strong_count() > 0);
        if let Some(found) = registry
            .iter()
            .filter_map(Weak::upgrade)
            .find(|endpoint| endpoint.same(&wanted))
        {
            return Ok(found);
        }
        let endpoint = Arc::new(wanted);
        registry.push(Arc::downgrade(&endpoint));
        Ok(endpoint)
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
        self.base_url.as_str().trim_end_matches('/')
    }

    /// The time limits and bounds.
    pub fn config(&self) -> &HttpConfig {
        &self.config
    }

    /// The address of a path below the base URL.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        let text = format!("{}{path}", self.base_url());
        Url::parse(&text)
            .map_err(|source| ConfigError::new(format!("{text:?} is not a URL: {source}")).into())
    }

    /// The client and headers, built now if this is the first call.
    pub(super) fn ready(&self) -> Result<&Ready> {
        if let Some(ready) = self.ready.get() {
            return Ok(ready);
        }
        let built = self.build()?;
        Ok(self.ready.get_or_init(|| built))
    }

    fn build(&self) -> Result<Ready> {
        let secret = self.credential.read(&self.provider)?;
        let headers = self.header_map(secret.as_ref())?;
        let HttpConfig {
            connect_timeout,
            pool_idle_timeout,
            max_idle_connections,
            ..
        } = self.config;
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tcp_nodelay(true)
            .referer(false)
            .connect_timeout(connect_timeout)
            .pool_idle_timeout(pool_idle_timeout)
            .pool_max_idle_per_host(max_idle_connections);
        if self.base_url.scheme() == "http" {
            builder = builder.http1_only();
        }
        if is_loopback(&self.base_url) {
            builder = builder.no_proxy();
            if self.base_url.scheme() == "http" {
                builder = builder.tls_backend_preconfigured(no_roots());
            }
        }
        let client = builder.build().map_err(|source| {
            let message = format!("the HTTP client for {} could not be built", self.provider);
            Error::from(TransportError::new(ErrorKind::Config, message).with_source(source))
        })?;
        Ok(Ready {
            client,
            headers,
            secret,
        })
    }

    fn header_map(&self, secret: Option<&Secret>) -> Result<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(4 + self.headers.len());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("peregrine/", env!("CARGO_PKG_VERSION"))),
        );
        for (name, value) in &self.headers {
            let value = HeaderValue::from_str(value).map_err(|_| {
                ConfigError::new(format!(
                    "the value of the header {name} has characters that no header may have"
                ))
            })?;
            headers.insert(HeaderName::from_static(name), value);
        }
        if let Some(secret) = secret {
            let (name, text) = match self.auth {
                Auth::Bearer => (AUTHORIZATION, format!("Bearer {}", secret.expose())),
                Auth::Header(name) => (HeaderName::from_static(name), secret.expose().to_owned()),
            };
            let mut value = HeaderValue::from_str(&text).map_err(|_| {
                ConfigError::new(format!(
                    "the API key for {} has characters that no header may have",
                    self.provider
                ))
            })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }

    fn same(&self, other: &Self) -> bool {
        let Self {
            provider,
            base_url,
            credential,
            auth,
            headers,
            config,
            ready: _,
        } = self;
        *provider == other.provider
            && *base_url == other.base_url
            && credential.same(&other.credential)
            && *auth == other.auth
            && *headers == other.headers
            && *config == other.config
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

fn parse_base_url(text: &str) -> Result<Url> {
    let refuse = |why: &str| {
        Error::from(ConfigError::new(format!(
            "the base URL is no address to call: {why}"
        )))
    };
    let url = Url::parse(text.trim()).map_err(|source| refuse(&source.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(refuse("it must begin with http:// or https:// and name a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse(
            "it must not hold a user name or password; give the API key by itself",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("it must not hold a query or a fragment"));
    }
    Ok(url)
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// A TLS configuration that trusts nobody: a plain `http` endpoint on this machine never uses it, and loading the system's
/// roots for it would cost milliseconds at start.
fn no_roots() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}
