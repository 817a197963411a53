//! Every feature of every crate built alone, and every crate without any: a feature that only compiles together
//! with another one fails here. Clippy stands in for `check`, because it can make warnings errors in our crates
//! without changing the flags of all the others, which would build them again.

use crate::command::{cargo, cargo_has};
use crate::metadata::{self, Package};
use crate::report::{Done, Outcome, Problem, say};

pub(crate) fn run() -> Outcome {
    cargo_has("clippy", "rustup component add clippy")?;
    let mut failed = Vec::new();
    let mut built = 0;
    for package in metadata::workspace()? {
        for feature in alone(&package) {
            let mut words = vec![
                "clippy",
                "--quiet",
                "--package",
                &package.name,
                "--no-default-features",
            ];
            words.extend(feature.iter().flat_map(|name| ["--features", name]));
            words.extend(["--", "-D", "warnings"]);
            built += 1;
            match cargo(words).run() {
                Ok(_) => {}
                Err(Problem::Failed(_)) => failed.push(match feature {
                    Some(feature) => format!("{} with only `{feature}`", package.name),
                    None => format!("{} without features", package.name),
                }),
                Err(problem) => return Err(problem),
            }
        }
    }
    say!("{built} builds, {} failed", failed.len());
    if failed.is_empty() {
        Ok(Done::Ok)
    } else {
        Err(Problem::Failed(failed.join("; ")))
    }
}

/// None, then each one; a feature that switches nothing on and is called `default` is the same as none.
fn alone(package: &Package) -> impl Iterator<Item = Option<&str>> {
    let named = package
        .features
        .iter()
        .filter(|(name, enables)| !(*name == "default" && enables.is_empty()))
        .map(|(name, _)| Some(name.as_str()));
    std::iter::once(None).chain(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_default_is_not_built_twice() {
        let mut package = Package::default();
        package.features.insert("default".into(), vec![]);
        package.features.insert("http".into(), vec!["dep:reqwest".into()]);
        assert_eq!(alone(&package).collect::<Vec<_>>(), [None, Some("http")]);
        package.features.insert("default".into(), vec!["http".into()]);
        assert_eq!(
            alone(&package).collect::<Vec<_>>(),
            [None, Some("default"), Some("http")]
        );
    }
}
