//! What an entry of the pool is found by: who answers, where, with which credential.
//!
//! Invariant: a credential is never a key by itself and never shown. Addresses are found by a hash that depends on a
//! secret of the process, and told apart by comparing all of them, keys in constant time.

use std::fmt;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::sync::{Arc, OnceLock};

use peregrine_core::{ConfigError, Error, Result};
use url::Url;

use crate::http::{Auth, Credential};

/// Who answers, where, and with which credential. Cheap to clone.
///
/// `Debug` shows the provider and the base URL only.
///
/// # Examples
///
/// ```
/// use peregrine_core::Secret;
/// use peregrine_providers::{Address, Auth, Credential};
///
/// let key = Credential::Key(Secret::new("sk-hidden"));
/// let address = Address::new("openai", "https://api.openai.com/v1", key)?.with_auth(Auth::Bearer);
/// assert!(!format!("{address:?}").contains("hidden"));
/// # Ok::<(), peregrine_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Address(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    provider: Arc<str>,
    url: Url,
    credential: Credential,
    auth: Auth,
    headers: Vec<(&'static str, String)>,
    hash: u64,
}

impl Address {
    /// `provider` at `base_url`. The credential is sent as a bearer token unless told otherwise.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](peregrine_core::ErrorKind::Config) if `base_url` is not an `http` or `https` URL, or holds a
    /// user name, a password, a query or a fragment.
    pub fn new(provider: &str, base_url: &str, credential: Credential) -> Result<Self> {
        let inner = Inner {
            provider: Arc::from(provider),
            url: parse_base_url(base_url)?,
            credential,
            auth: Auth::Bearer,
            headers: Vec::new(),
            hash: 0,
        };
        Ok(Self(Arc::new(inner.hashed())))
    }

    /// Sends the credential so.
    #[must_use]
    pub fn with_auth(self, auth: Auth) -> Self {
        self.with(|inner| inner.auth = auth)
    }

    /// Sends these headers with each call. Names are in lower case.
    #[must_use]
    pub fn with_headers(self, headers: Vec<(&'static str, String)>) -> Self {
        self.with(|inner| inner.headers = headers)
    }

    fn with(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner);
        Self(Arc::new(inner.hashed()))
    }

    /// Who answers.
    pub fn provider(&self) -> &str {
        &self.0.provider
    }

    /// The base URL, without a trailing slash.
    pub fn base_url(&self) -> &str {
        self.0.url.as_str().trim_end_matches('/')
    }

    pub(crate) fn shared_provider(&self) -> Arc<str> {
        Arc::clone(&self.0.provider)
    }

    pub(crate) fn url(&self) -> &Url {
        &self.0.url
    }

    pub(crate) fn credential(&self) -> &Credential {
        &self.0.credential
    }

    pub(crate) fn auth(&self) -> Auth {
        self.0.auth
    }

    pub(crate) fn headers(&self) -> &[(&'static str, String)] {
        &self.0.headers
    }

    pub(super) fn hash(&self) -> u64 {
        self.0.hash
    }

    /// Whether both are the same in everything.
    pub(crate) fn same(&self, other: &Self) -> bool {
        if Arc::ptr_eq(&self.0, &other.0) {
            return true;
        }
        let Inner {
            provider,
            url,
            credential,
            auth,
            headers,
            hash,
        } = &*self.0;
        *hash == other.0.hash
            && *provider == other.0.provider
            && *url == other.0.url
            && *auth == other.0.auth
            && *headers == other.0.headers
            && credential.same(&other.0.credential)
    }
}

impl Inner {
    fn hashed(mut self) -> Self {
        static STATE: OnceLock<RandomState> = OnceLock::new();
        let Self {
            provider,
            url,
            credential,
            auth,
            headers,
            hash: _,
        } = &self;
        let mut hasher = STATE.get_or_init(RandomState::new).build_hasher();
        provider.hash(&mut hasher);
        url.as_str().hash(&mut hasher);
        match credential {
            Credential::None => 0_u8.hash(&mut hasher),
            Credential::Key(key) => (1_u8, key.expose()).hash(&mut hasher),
            Credential::Env { variables, required } => (2_u8, variables, required).hash(&mut hasher),
        }
        auth.hash(&mut hasher);
        headers.hash(&mut hasher);
        self.hash = hasher.finish();
        self
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("provider", &self.provider())
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
