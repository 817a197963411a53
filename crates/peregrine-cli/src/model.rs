//! Which model answers, and why: never a secret, never a silent fallback.

use std::path::Path;

use peregrine::core::{ChatModel as _, ConfigError, ModelHandle, PriceTable};
use peregrine::providers::{Profile, from_env_with, survey};
use peregrine::{Connector, HttpConfig, Record, Replay, Result};

use crate::args::RunArgs;

/// A model, and why it was chosen.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// The model, with recording or replay around it.
    pub(crate) model: ModelHandle,
    /// Why, for a person.
    pub(crate) why: String,
    /// Whether the user named it.
    pub(crate) asked_for: bool,
    /// The name by which it is chosen again.
    pub(crate) spec: String,
    /// Its address, where that is not its provider's own. It may hold a password.
    pub(crate) address: Option<String>,
}

impl Chosen {
    /// Its name as people know it.
    pub(crate) fn name(&self) -> String {
        let info = self.model.info();
        if self.is_offline() {
            info.model().to_owned()
        } else {
            info.to_string()
        }
    }

    /// Whether it is the offline model.
    pub(crate) fn is_offline(&self) -> bool {
        self.model.info().provider() == "offline"
    }

    /// What its answers cost, if that is known.
    pub(crate) fn prices(&self) -> Option<PriceTable> {
        // The provider's prices hold at its own address.
        self.address.is_none().then(PriceTable::list_prices_2025)
    }
}

/// Chooses a model: `--model`, else what answers at `--base-url`, else what the environment says.
pub(crate) async fn choose(args: &RunArgs) -> Result<Chosen> {
    let connector = connector(args);
    let (model, spec, why, asked_for) = match (&args.model, &args.base_url) {
        (Some(name), base_url) => {
            let spec = if base_url.is_some() {
                spec_at_base_url(name)
            } else {
                name.clone()
            };
            let model = connector.chat(&spec)?;
            (model, spec, "asked for by name".to_owned(), true)
        }
        (None, Some(base_url)) => {
            let spec = format!("openai/{}", only_model_at(&connector, base_url).await?);
            (
                connector.chat(&spec)?,
                spec,
                format!("the only model at {base_url}"),
                true,
            )
        }
        (None, None) => {
            let choice = from_env_with(&connector).await?;
            (choice.model, choice.spec, choice.why, false)
        }
    };
    let address = args
        .base_url
        .clone()
        .or_else(|| other_base_url(model.info().provider()));
    let model = match (&args.record, &args.replay) {
        (Some(file), _) => model.layered(Record::append_to(file)?).into_handle(),
        (None, Some(file)) => model.layered(Replay::open(file)?).into_handle(),
        (None, None) => model,
    };
    let why = match &args.replay {
        Some(file) => format!("{why}; answers come from {}", file_name(file)),
        None => why,
    };
    Ok(Chosen {
        model,
        why,
        asked_for,
        spec,
        address,
    })
}

fn connector(args: &RunArgs) -> Connector {
    let mut connector = Connector::new();
    if let Some(url) = &args.base_url {
        connector = connector.with_base_url(url);
    }
    if let Some(limit) = args.timeout {
        // Whoever waits longer for the whole answer also waits longer for its first byte.
        let usual = HttpConfig::default();
        let first_byte = usual.first_byte_timeout.max(limit);
        connector = connector.with_http(
            usual
                .with_total_timeout(limit)
                .with_first_byte_timeout(first_byte),
        );
    }
    connector
}

/// At an address of the user's own, a name without a provider is a model of an OpenAI-compatible server.
fn spec_at_base_url(name: &str) -> String {
    let provider = name.split('/').next().unwrap_or(name);
    if provider == "offline" || Profile::find(provider).is_some() {
        name.to_owned()
    } else {
        format!("openai/{name}")
    }
}

async fn only_model_at(connector: &Connector, base_url: &str) -> Result<String> {
    let advice = "name one with --model";
    let profile = Profile::find("openai").ok_or_else(|| ConfigError::new(advice))?;
    let mut models = match survey(connector, profile).await?.models {
        Some(Ok(models)) => models,
        Some(Err(error)) => return Err(error),
        None => Vec::new(),
    };
    match models.len() {
        0 => Err(ConfigError::new(format!("{base_url} lists no model; {advice}")).into()),
        1 => Ok(models.remove(0)),
        count => {
            models.truncate(10);
            Err(ConfigError::new(format!(
                "{base_url} lists {count} models; {advice}: {}",
                models.join(", ")
            ))
            .into())
        }
    }
}

fn other_base_url(provider: &str) -> Option<String> {
    let variable = Profile::find(provider)?.base_url_variable?;
    let value = std::env::var_os(variable).filter(|value| !value.is_empty())?;
    Some(value.to_string_lossy().into_owned())
}

fn file_name(path: &Path) -> String {
    path.display().to_string()
}
