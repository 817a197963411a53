//! Choosing a model by what is there: an explicit setting, a key, a reachable Ollama, else offline.

use std::time::Duration;

use peregrine_core::{ConfigError, ModelHandle, Result};
use serde_json::Value;

use crate::connect::Connector;
use crate::http::{HttpConfig, get};
use crate::profile::{Dialect, Profile};

/// How long a local server has to answer to count as there.
const LOCAL_PROBE: Duration = Duration::from_millis(400);
/// How long a remote provider has to list its models.
const REMOTE_PROBE: Duration = Duration::from_secs(4);

/// A model, and why it was chosen.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Choice {
    /// The model.
    pub model: ModelHandle,
    /// Its name, as [`connect`](crate::connect) takes it.
    pub spec: String,
    /// Why it was chosen, for a person: "OPENAI_API_KEY is set".
    pub why: String,
}

/// Chooses a model: `PEREGRINE_MODEL`, else the usual model of the first provider whose key is set, else a
/// model of a reachable Ollama, else the offline model.
///
/// The choice is never silent: show [`Choice::why`] to whoever asked.
///
/// # Errors
///
/// [`Config`](peregrine_core::ErrorKind::Config) if `PEREGRINE_MODEL` names no model, or nothing was found and
/// this build has no offline model.
///
/// # Cancel safety
///
/// Dropping the future ends the probe.
pub async fn from_env() -> Result<Choice> {
    from_env_with(&Connector::new()).await
}

/// As [`from_env`], with this connector's settings.
///
/// # Errors
///
/// As for [`from_env`].
pub async fn from_env_with(connector: &Connector) -> Result<Choice> {
    let choose = |spec: String, why: String| {
        let model = connector.chat(&spec)?;
        Ok(Choice { model, spec, why })
    };
    if let Some(spec) = variable("PEREGRINE_MODEL") {
        return choose(spec, "PEREGRINE_MODEL is set".to_owned());
    }
    for profile in Profile::all() {
        let Some(model) = profile.default_model else {
            continue;
        };
        if let Some(name) = profile.key_variables.iter().find(|name| variable(name).is_some()) {
            return choose(format!("{}/{model}", profile.name), format!("{name} is set"));
        }
    }
    let why_not = match ollama_model(connector).await {
        Ok(Some(model)) => {
            return choose(
                format!("ollama/{model}"),
                "no key is set, and Ollama answers on this machine".to_owned(),
            );
        }
        Ok(None) => "no key is set, and Ollama has no chat model",
        Err(_) => "no key is set, and no Ollama answers",
    };
    if cfg!(feature = "offline") {
        return choose("offline".to_owned(), why_not.to_owned());
    }
    Err(ConfigError::new(format!(
        "{why_not}: set OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY or PEREGRINE_MODEL"
    ))
    .into())
}

/// What is known of a provider's availability.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProviderStatus {
    /// The provider.
    pub profile: &'static Profile,
    /// Where it would be called.
    pub base_url: String,
    /// The variable that holds its key, if one does.
    pub key_variable: Option<&'static str>,
    /// The models that it lists, or why it does not; `None` if it was not asked because it needs a key that
    /// is not set.
    pub models: Option<Result<Vec<String>>>,
}

/// Looks whether a provider is configured, and asks it for its models if it can be asked.
///
/// # Errors
///
/// [`Config`](peregrine_core::ErrorKind::Config) if its base URL is none. That it does not answer is no error
/// but part of the status.
pub async fn survey(connector: &Connector, profile: &'static Profile) -> Result<ProviderStatus> {
    let limit = if profile.is_local() {
        LOCAL_PROBE
    } else {
        REMOTE_PROBE
    };
    let connector = connector.clone().with_http(probe_limits(limit));
    let endpoint = connector.endpoint(profile)?;
    let key_variable = profile
        .key_variables
        .iter()
        .copied()
        .find(|name| variable(name).is_some());
    let base_url = endpoint.base_url().to_owned();
    let askable = key_variable.is_some() || base_url != profile.base_url || profile.is_local();
    let models = if askable {
        Some(list_models(&connector, profile).await)
    } else {
        None
    };
    Ok(ProviderStatus {
        profile,
        base_url,
        key_variable,
        models,
    })
}

/// The names of the models that a provider lists, sorted.
async fn list_models(connector: &Connector, profile: &Profile) -> Result<Vec<String>> {
    let path = match profile.dialect {
        Dialect::Ollama => "/api/tags",
        Dialect::Anthropic => "/v1/models",
        _ => "/models",
    };
    let body = get(&*connector.endpoint(profile)?, path).await?.body();
    let listing: Value = serde_json::from_slice(&body).map_err(|source| {
        peregrine_core::ProtocolError::new(format!(
            "the list of models of {} could not be read",
            profile.name
        ))
        .with_source(source)
    })?;
    let listed = ["data", "models"]
        .iter()
        .find_map(|field| listing.get(field)?.as_array());
    let name_of = |model: &Value| {
        let name = ["id", "name", "model"]
            .iter()
            .find_map(|field| model.get(field)?.as_str())?;
        Some(name.strip_prefix("models/").unwrap_or(name).to_owned())
    };
    let mut names: Vec<_> = listed.into_iter().flatten().filter_map(name_of).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// The first chat model of a reachable Ollama.
async fn ollama_model(connector: &Connector) -> Result<Option<String>> {
    let profile = Profile::find("ollama").ok_or_else(|| ConfigError::new("ollama has no profile"))?;
    let connector = connector.clone().with_http(probe_limits(LOCAL_PROBE));
    let names = list_models(&connector, profile).await?;
    Ok(names.into_iter().find(|name| !name.contains("embed")))
}

fn probe_limits(limit: Duration) -> HttpConfig {
    HttpConfig::default()
        .with_connect_timeout(limit)
        .with_first_byte_timeout(limit)
        .with_idle_timeout(limit)
        .with_total_timeout(limit)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}
