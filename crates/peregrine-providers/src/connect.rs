//! From a name such as `openai/gpt-4o` to a model that can be called.
//!
//! Nothing here connects or validates a key; that happens at the first call. Equal base URLs and credentials
//! share connections, in the whole process unless a connector has a pool of its own.

use std::fmt;
use std::sync::Arc;

use peregrine_core::{
    ChatModel, ConfigError, EmbeddingHandle, EmbeddingModel as _, ModelHandle, ModelInfo, Result, Secret,
};

use crate::breaker::{Breaker, BreakerPolicy};
use crate::capabilities::CapabilityTable;
use crate::codecs;
use crate::hedge::{Hedge, HedgePolicy};
use crate::http::{Credential, Endpoint, HttpConfig, RemoteEmbedder, RemoteModel, TokioClock};
use crate::pool::{Address, Pool};
use crate::profile::{Dialect, Profile};
use crate::retry::{Retry, RetryBudget, RetryPolicy};
use crate::wire::ollama;

/// A chat model by its name: `provider/model`, or `provider` for its usual model, or `offline`.
///
/// Base URLs come from the usual variables (`OPENAI_BASE_URL`, `ANTHROPIC_BASE_URL`, `OLLAMA_HOST`), keys from
/// theirs (`OPENAI_API_KEY`, ..) at the first call. Failed calls are retried by the default [`RetryPolicy`].
///
/// # Errors
///
/// [`Config`](peregrine_core::ErrorKind::Config) if the provider is unknown, has no usual model and none was
/// named, or a base URL is none.
///
/// # Examples
///
/// ```
/// use peregrine_core::ChatModel;
///
/// let model = peregrine_providers::connect("openai/gpt-4o-mini")?;
/// assert_eq!(model.info().to_string(), "openai/gpt-4o-mini");
/// # Ok::<(), peregrine_core::Error>(())
/// ```
pub fn connect(spec: &str) -> Result<ModelHandle> {
    Connector::new().chat(spec)
}

/// What [`connect`] does, with everything adjustable. A connector can make any number of models.
///
/// # Examples
///
/// A model behind any OpenAI-compatible server:
///
/// ```
/// use peregrine_core::ChatModel;
/// use peregrine_providers::Connector;
///
/// let model = Connector::new().with_base_url("http://127.0.0.1:8080/v1").chat("openai/any-name")?;
/// # Ok::<(), peregrine_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Connector {
    base_url: Option<String>,
    key: Option<Secret>,
    http: HttpConfig,
    retry: Option<RetryPolicy>,
    budget: RetryBudget,
    breaker: Option<BreakerPolicy>,
    hedge: Option<HedgePolicy>,
    capabilities: Arc<CapabilityTable>,
    pool: Pool,
    inner: Option<Inner>,
}

/// What stands around the provider itself.
#[derive(Clone)]
struct Inner(Arc<dyn Fn(ModelHandle) -> ModelHandle + Send + Sync>);

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inner")
    }
}

impl Default for Connector {
    fn default() -> Self {
        Self::new()
    }
}

impl Connector {
    /// The usual settings.
    pub fn new() -> Self {
        Self {
            base_url: None,
            key: None,
            http: HttpConfig::default(),
            retry: Some(RetryPolicy::default()),
            budget: RetryBudget::default(),
            breaker: None,
            hedge: None,
            capabilities: Arc::new(CapabilityTable::builtin()),
            pool: Pool::global().clone(),
            inner: None,
        }
    }

    /// Calls this address instead of the provider's. An address without a path gets the dialect's usual one
    /// (`/v1` for OpenAI, `/v1beta` for Gemini).
    #[must_use]
    pub fn with_base_url(mut self, base_url: impl Into<String>) -> Self {
        self.base_url = Some(base_url.into());
        self
    }

    /// Sends this key instead of the one in the environment.
    #[must_use]
    pub fn with_api_key(mut self, key: Secret) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets time limits and bounds.
    #[must_use]
    pub fn with_http(mut self, config: HttpConfig) -> Self {
        self.http = config;
        self
    }

    /// Retries by this policy; `None` never retries.
    #[must_use]
    pub fn with_retry(mut self, policy: impl Into<Option<RetryPolicy>>) -> Self {
        self.retry = policy.into();
        self
    }

    /// Leaves a model alone that fails too often; `None`, the default, does not. All models of this name at the same
    /// address that are made with an equal policy share one circuit.
    #[must_use]
    pub fn with_breaker(mut self, policy: impl Into<Option<BreakerPolicy>>) -> Self {
        self.breaker = policy.into();
        self
    }

    /// Asks a second time where a call takes unusually long; `None`, the default, does not. All models of this name at
    /// the same address that are made with an equal policy share latencies and budget.
    #[must_use]
    pub fn with_hedge(mut self, policy: impl Into<Option<HedgePolicy>>) -> Self {
        self.hedge = policy.into();
        self
    }

    /// Puts layers around the provider itself, inside of hedge, breaker and retries: they see each attempt.
    ///
    /// # Examples
    ///
    /// ```
    /// use peregrine_core::{ChatModel, Middleware, ModelHandle, Result};
    /// use peregrine_providers::Connector;
    ///
    /// /// `limit` is a `RateLimit` of `peregrine-limits`, here and around the retries.
    /// fn limited(limit: impl Middleware + Clone) -> Result<ModelHandle> {
    ///     let inner = limit.clone();
    ///     let connector = Connector::new().with_inner(move |model| model.layered(inner.clone()).into_handle());
    ///     Ok(connector.chat("openai/gpt-4o-mini")?.layered(limit).into_handle())
    /// }
    /// ```
    #[must_use]
    pub fn with_inner(mut self, wrap: impl Fn(ModelHandle) -> ModelHandle + Send + Sync + 'static) -> Self {
        self.inner = Some(Inner(Arc::new(wrap)));
        self
    }

    /// Takes what models can do from this table.
    #[must_use]
    pub fn with_capabilities(mut self, table: CapabilityTable) -> Self {
        self.capabilities = Arc::new(table);
        self
    }

    /// Takes connections from this pool instead of that of the process.
    #[must_use]
    pub fn with_pool(mut self, pool: Pool) -> Self {
        self.pool = pool;
        self
    }

    /// Makes ready for the first call to a model what can be without being billed: reads the key and opens so many
    /// connections. See [`Endpoint::warm`]. The offline model needs nothing.
    ///
    /// # Errors
    ///
    /// As for [`connect`], and what the first call would fail with: a missing key, or a provider that cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the connections that are open.
    pub async fn warm(&self, spec: &str, connections: usize) -> Result<()> {
        if offline_chat(spec)?.is_some() {
            return Ok(());
        }
        let (profile, _) = parse(spec, |profile| profile.default_model.or(Some("")))?;
        self.endpoint(profile)?.warm(connections).await
    }

    /// A chat model by its name.
    ///
    /// # Errors
    ///
    /// As for [`connect`].
    pub fn chat(&self, spec: &str) -> Result<ModelHandle> {
        if let Some(offline) = offline_chat(spec)? {
            return Ok(offline);
        }
        let (profile, model) = parse(spec, |profile| profile.default_model)?;
        let info = ModelInfo::new(profile.name, model)
            .with_capabilities(self.capabilities.find(profile.name, model));
        let endpoint = self.endpoint(profile)?;
        let hedge = self.hedge.as_ref().map(|policy| endpoint.hedge(model, policy));
        let breaker = self
            .breaker
            .as_ref()
            .map(|policy| endpoint.breaker(model, policy));
        let retry = self
            .retry
            .as_ref()
            .map(|policy| Retry::new(policy.clone(), Arc::new(TokioClock)).with_budget(self.budget.clone()));
        let remote = RemoteModel::new(info, codecs::chat(profile), endpoint)?;
        let layers = Layers {
            hedge,
            breaker,
            retry,
        };
        Ok(match &self.inner {
            None => layers.around(remote),
            Some(Inner(wrap)) => layers.around(wrap(remote.into_handle())),
        })
    }

    /// An embedding model by its name, such as `openai/text-embedding-3-small`.
    ///
    /// # Errors
    ///
    /// As for [`connect`]; and if the provider has no embedding API.
    pub fn embedder(&self, spec: &str) -> Result<EmbeddingHandle> {
        if let Some(offline) = offline_embedder(spec)? {
            return Ok(offline);
        }
        let (profile, model) = parse(spec, |profile| profile.default_embedder)?;
        let codec = codecs::embed(profile).ok_or_else(|| {
            ConfigError::new(format!(
                "{} has no embedding API; use openai, gemini, mistral or ollama",
                profile.name
            ))
        })?;
        let info = ModelInfo::new(profile.name, model);
        Ok(RemoteEmbedder::new(info, codec, self.endpoint(profile)?)?.into_handle())
    }

    /// The endpoint of a profile with these settings.
    pub(crate) fn endpoint(&self, profile: &Profile) -> Result<Arc<Endpoint>> {
        let given = match &self.base_url {
            Some(url) => Some(url.clone()),
            None => profile
                .base_url_variable
                .and_then(|name| std::env::var(name).ok())
                .filter(|url| !url.trim().is_empty()),
        };
        let base_url = match &given {
            Some(host) if profile.dialect == Dialect::Ollama => {
                ollama::base_url(host).map_err(|source| ConfigError::new(source.to_string()))?
            }
            Some(url) => complete_base_url(url, profile.dialect),
            None => profile.base_url.to_owned(),
        };
        let credential = match &self.key {
            Some(key) => Credential::Key(key.clone()),
            None if profile.key_variables.is_empty() => Credential::None,
            None => Credential::Env {
                variables: profile.key_variables,
                required: given.is_none() && !profile.is_local(),
            },
        };
        let headers = profile
            .headers
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        let address = Address::new(profile.name, &base_url, credential)?
            .with_auth(profile.auth)
            .with_headers(headers);
        self.pool.endpoint(&address, self.http.clone())
    }
}

/// What a model of a connector has around it.
struct Layers {
    hedge: Option<Hedge>,
    breaker: Option<Breaker>,
    retry: Option<Retry>,
}

impl Layers {
    /// Without the layers their places are left out too: each makes the future of a call larger.
    fn around(self, model: impl ChatModel) -> ModelHandle {
        let Self {
            hedge,
            breaker,
            retry,
        } = self;
        match (retry, hedge.is_some() || breaker.is_some()) {
            (None, false) => model.into_handle(),
            (Some(retry), false) => model.layered(retry).into_handle(),
            (retry, true) => model.layered(hedge).layered(breaker).layered(retry).into_handle(),
        }
    }
}

/// Splits `provider/model`; the model may hold slashes itself.
fn parse(spec: &str, usual: impl Fn(&Profile) -> Option<&'static str>) -> Result<(&'static Profile, &str)> {
    let (name, model) = spec.trim().split_once('/').unwrap_or((spec.trim(), ""));
    let profile = Profile::find(name).ok_or_else(|| {
        let known: Vec<_> = Profile::all().iter().map(|profile| profile.name).collect();
        ConfigError::new(format!(
            "unknown provider {name:?}: use provider/model with one of offline, {}; a compatible server is \
             openai/model with a base URL",
            known.join(", ")
        ))
    })?;
    match (model, usual(profile)) {
        ("", Some(usual)) => Ok((profile, usual)),
        ("", None) => Err(ConfigError::new(format!("name a model: {name}/model")).into()),
        (model, _) => Ok((profile, model)),
    }
}

/// An address without a path is a server's root: its API stands at the usual place. Anthropic's path holds
/// the version already, so that a base URL that ends in it loses it.
fn complete_base_url(url: &str, dialect: Dialect) -> String {
    let url = url.trim().trim_end_matches('/');
    let is_root = url.split_once("://").is_some_and(|(_, rest)| !rest.contains('/'));
    match dialect {
        Dialect::OpenAiChat | Dialect::OpenAiResponses if is_root => format!("{url}/v1"),
        Dialect::Gemini if is_root => format!("{url}/v1beta"),
        Dialect::Anthropic => url.strip_suffix("/v1").unwrap_or(url).to_owned(),
        _ => url.to_owned(),
    }
}

#[cfg(feature = "offline")]
fn offline_chat(spec: &str) -> Result<Option<ModelHandle>> {
    Ok((spec.trim() == "offline").then(|| crate::offline::OfflineModel::new().into_handle()))
}

#[cfg(feature = "offline")]
fn offline_embedder(spec: &str) -> Result<Option<EmbeddingHandle>> {
    Ok((spec.trim() == "offline").then(|| crate::offline::OfflineEmbedder::new().into_handle()))
}

#[cfg(not(feature = "offline"))]
fn offline_chat(spec: &str) -> Result<Option<ModelHandle>> {
    no_offline(spec).map(|()| None)
}

#[cfg(not(feature = "offline"))]
fn offline_embedder(spec: &str) -> Result<Option<EmbeddingHandle>> {
    no_offline(spec).map(|()| None)
}

#[cfg(not(feature = "offline"))]
fn no_offline(spec: &str) -> Result<()> {
    match spec.trim() {
        "offline" => Err(ConfigError::new(
            "the offline model is not part of this build: turn on the feature `offline`",
        )
        .into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_core::ErrorKind;

    #[test]
    fn names_are_split_at_the_first_slash_and_unknown_ones_are_listed() {
        let model = connect("openrouter/meta-llama/llama-3.3-70b").unwrap();
        assert_eq!(model.info().model(), "meta-llama/llama-3.3-70b");
        let error = connect("opnai/gpt-4o").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            error.to_string().contains("opnai") && error.to_string().contains("anthropic"),
            "{error}"
        );
        assert!(
            connect("ollama")
                .unwrap_err()
                .to_string()
                .contains("ollama/model")
        );
    }

    #[test]
    fn a_root_address_gets_the_usual_path_and_others_stay() {
        let cases = [
            ("http://h:1", Dialect::OpenAiChat, "http://h:1/v1"),
            ("http://h:1/", Dialect::OpenAiResponses, "http://h:1/v1"),
            ("http://h:1/api", Dialect::OpenAiChat, "http://h:1/api"),
            ("http://h", Dialect::Gemini, "http://h/v1beta"),
            ("http://h/v1/", Dialect::Anthropic, "http://h"),
            ("http://h", Dialect::Anthropic, "http://h"),
        ];
        for (given, dialect, expected) in cases {
            assert_eq!(complete_base_url(given, dialect), expected);
        }
    }

    #[test]
    fn base_urls_that_are_none_or_hold_secrets_are_refused() {
        for bad in [
            "nonsense",
            "ftp://h/v1",
            "http://u:p@h/v1",
            "http://h/v1?key=x",
            "http://",
        ] {
            let error = Connector::new().with_base_url(bad).chat("openai/x").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
        }
    }

    #[test]
    fn equal_pairs_share_one_endpoint_and_others_do_not() {
        let endpoint = |key: &str| {
            let profile = Profile::find("groq").unwrap();
            Connector::new()
                .with_base_url("http://127.0.0.1:9/v1")
                .with_api_key(Secret::new(key))
                .endpoint(profile)
                .unwrap()
        };
        let (one, two, other) = (endpoint("a"), endpoint("a"), endpoint("b"));
        assert!(one.shares_connections_with(&two) && !one.shares_connections_with(&other));
        assert!(!format!("{one:?}").contains("\"a\""));
    }
}
