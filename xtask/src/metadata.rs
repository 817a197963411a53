//! What `cargo metadata` says of the workspace, reduced to what the checks read.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::command::cargo;
use crate::report::Problem;

/// A package of the workspace or, from [`whole_graph`], of anybody.
#[derive(Debug, Clone, Default)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Feature name to what it switches on.
    pub(crate) features: BTreeMap<String, Vec<String>>,
    /// What it depends on directly when it is used (normal and build, not development), by package name.
    pub(crate) dependencies: Vec<String>,
    /// SPDX expression, where there is one.
    pub(crate) licence: Option<String>,
    /// `None` for a package on this disk.
    pub(crate) source: Option<String>,
}

/// The members of the workspace, by name.
pub(crate) fn workspace() -> Result<Vec<Package>, Problem> {
    let mut packages = ask("--no-deps")?;
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}

/// Every package that any feature on any platform may pull in.
pub(crate) fn whole_graph() -> Result<Vec<Package>, Problem> {
    ask("--all-features")
}

fn ask(argument: &str) -> Result<Vec<Package>, Problem> {
    let text = cargo(["metadata", "--format-version", "1"])
        .args([argument])
        .hidden()
        .captured()?;
    let metadata: Value = serde_json::from_str(&text)
        .map_err(|error| Problem::Failed(format!("`cargo metadata` printed no JSON: {error}")))?;
    let packages = metadata["packages"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    Ok(packages.iter().map(package).collect())
}

fn package(value: &Value) -> Package {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let texts = |value: &Value| {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(text)
            .collect::<Vec<_>>()
    };
    let features = value["features"].as_object().into_iter().flatten();
    let dependencies = value["dependencies"].as_array().into_iter().flatten();
    Package {
        name: text(&value["name"]).unwrap_or_default(),
        version: text(&value["version"]).unwrap_or_default(),
        features: features
            .map(|(name, enables)| (name.clone(), texts(enables)))
            .collect(),
        dependencies: dependencies
            .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
            .filter_map(|dependency| text(&dependency["name"]))
            .collect(),
        licence: text(&value["license"]),
        source: text(&value["source"]),
    }
}
