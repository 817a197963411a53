//! `peregrine models`: what is configured, what is reachable, what would answer.

use comfy_table::Table;
use futures_util::future::{join, join_all};
use peregrine::core::ChatModel as _;
use peregrine::providers::{Profile, ProviderStatus, survey};
use peregrine::{Choice, Connector, Result, from_env};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::Console;

/// How many models the table names for each provider.
const SHOWN: usize = 3;

/// Shows every provider, asked at the same time, and the model that would be chosen.
///
/// # Errors
///
/// [`Failure`] if standard output cannot be written. That a provider does not answer is what this command is
/// there to show.
pub(crate) async fn models(json: bool, console: &mut Console) -> Result<(), Failure> {
    console.working("asking the providers");
    let connector = Connector::new();
    let surveys = join_all(
        Profile::all()
            .iter()
            .map(|profile| async { Row::of(profile, survey(&connector, profile).await) }),
    );
    let (rows, choice) = join(surveys, from_env()).await;
    if json {
        console.line(&to_json(&rows, &choice))?;
    } else {
        console.answer(&to_table(&rows))?;
        console.answer(&match &choice {
            Ok(choice) => format!("\nwould answer: {} ({})\n", choice.spec, choice.why),
            Err(error) => format!("\nnone would answer: {error}\n"),
        })?;
    }
    Ok(())
}

/// A provider, as shown.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    /// Whether it can be called as things are: its key is set, or it needs none.
    configured: bool,
    /// The variable that holds its key; never the key.
    key_variable: Option<&'static str>,
    /// The variables that may hold its key.
    key_variables: &'static [&'static str],
    base_url: String,
    /// Whether it listed its models; null if it was not asked, because its key is missing.
    reachable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    models: Vec<String>,
}

impl Row {
    fn of(profile: &'static Profile, status: Result<ProviderStatus>) -> Self {
        let mut row = Self {
            name: profile.name,
            configured: false,
            key_variable: None,
            key_variables: profile.key_variables,
            base_url: profile.base_url.to_owned(),
            reachable: None,
            error: None,
            models: Vec::new(),
        };
        match status {
            Ok(status) => {
                row.configured =
                    status.key_variable.is_some() || profile.key_variables.is_empty() || profile.is_local();
                row.key_variable = status.key_variable;
                row.base_url = status.base_url;
                row.reachable = status.models.as_ref().map(Result::is_ok);
                match status.models {
                    Some(Ok(models)) => row.models = models,
                    Some(Err(error)) => row.error = Some(error.to_string()),
                    None => {}
                }
            }
            Err(error) => row.error = Some(error.to_string()),
        }
        row
    }

    fn key(&self) -> String {
        match (self.key_variable, self.key_variables) {
            (Some(name), _) => format!("{name} is set"),
            (None, []) => "none needed".to_owned(),
            (None, names) if self.configured => format!("optional ({})", names.join(", ")),
            (None, names) => format!("{} is not set", names.join(" or ")),
        }
    }

    fn models(&self) -> String {
        match (&self.error, self.models.as_slice()) {
            (Some(error), _) => brief(error),
            (None, []) if self.reachable.is_none() => "-".to_owned(),
            (None, []) => "reachable, no models".to_owned(),
            (None, models) => {
                let more = if models.len() > SHOWN { ", .." } else { "" };
                let first: Vec<_> = models.iter().take(SHOWN).map(String::as_str).collect();
                format!("{}: {}{more}", models.len(), first.join(", "))
            }
        }
    }
}

fn to_table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["PROVIDER", "KEY", "ADDRESS", "MODELS"]);
    for row in rows {
        table.add_row([row.name.to_owned(), row.key(), row.base_url.clone(), row.models()]);
    }
    let lines = table.lines().map(|line| line.trim().to_owned() + "\n");
    lines.collect()
}

fn to_json(rows: &[Row], choice: &Result<Choice>) -> String {
    let chosen = match choice {
        Ok(choice) => {
            let info = choice.model.info();
            serde_json::json!({"spec": choice.spec, "model": info.model(), "provider": info.provider(), "why": choice.why})
        }
        Err(error) => {
            serde_json::json!({"error": {"code": error.kind().code(), "message": error.to_string()}})
        }
    };
    serde_json::json!({"providers": rows, "chosen": chosen}).to_string()
}

fn brief(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(90)
        .collect();
    if line.len() < text.len() {
        line + ".."
    } else {
        line
    }
}
