//! Licences, sources and banned packages of the whole graph, by the rules of `deny.toml`.
//!
//! `cargo deny` reads the same file and does more; this needs no tool and no network. A licence is an SPDX
//! expression: `AND` needs both sides allowed, `OR` one of them, `X WITH Y` is a licence of its own, and the `/` of
//! old manifests is an `OR`. Only the parts of `deny.toml` that are read here may be there; an unknown key in them
//! is an error, so that no rule is written that only one of the two tools follows.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::command::root;
use crate::metadata::Package;
use crate::report::Problem;

const FILE: &str = "deny.toml";

/// The rules.
#[derive(Debug, Default)]
pub(super) struct Policy {
    allowed: BTreeSet<String>,
    /// Licences allowed for one package only.
    exceptions: BTreeMap<String, BTreeSet<String>>,
    /// Packages nobody may pull in, with the reason.
    banned: BTreeMap<String, String>,
    registries: BTreeSet<String>,
}

impl Policy {
    pub(super) fn read() -> Result<Self, Problem> {
        let text = std::fs::read_to_string(root().join(FILE))
            .map_err(|error| Problem::Failed(format!("reading {FILE}: {error}")))?;
        Self::parse(&text).map_err(|error| Problem::Failed(format!("{FILE}: {error}")))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        let section = |name: &str| {
            file.get(name)
                .and_then(Value::as_table)
                .ok_or(format!("[{name}] is missing"))
        };
        let mut policy = Self::default();
        for (key, value) in section("licenses")? {
            match key.as_str() {
                "allow" => policy.allowed = words(value)?,
                "exceptions" => {
                    for entry in tables(value)? {
                        let allow = words(entry.get("allow").ok_or("an exception allows nothing")?)?;
                        policy
                            .exceptions
                            .entry(word(entry, "crate")?)
                            .or_default()
                            .extend(allow);
                    }
                }
                // Only wording and strictness of the other tool's report.
                "confidence-threshold" | "unused-allowed-license" | "unused-license-exception" => {}
                other => return Err(format!("[licenses] {other} is not known here")),
            }
        }
        for (key, value) in section("bans")? {
            match key.as_str() {
                "deny" => {
                    for entry in tables(value)? {
                        policy
                            .banned
                            .insert(word(entry, "crate")?, word(entry, "reason")?);
                    }
                }
                "multiple-versions" | "wildcards" | "allow-wildcard-paths" | "highlight" => {}
                other => return Err(format!("[bans] {other} is not known here")),
            }
        }
        for (key, value) in section("sources")? {
            match key.as_str() {
                "allow-registry" => policy.registries = words(value)?,
                // Here everything unknown is refused; the file must not say less.
                "unknown-registry" | "unknown-git" if value.as_str() == Some("deny") => {}
                other => return Err(format!("[sources] {other} is not known here")),
            }
        }
        Ok(policy)
    }

    /// What is wrong with these packages.
    pub(super) fn check(&self, packages: &[Package]) -> Vec<String> {
        let mut wrong = Vec::new();
        for package in packages {
            let name = format!("{} {}", package.name, package.version);
            if let Err(why) = self.licence(package) {
                wrong.push(format!("{name}: {why}"));
            }
            if let Some(reason) = self.banned.get(&package.name) {
                wrong.push(format!("{name} is banned: {reason}"));
            }
            if let Some(source) = package.source.as_deref().filter(|source| !self.knows(source)) {
                wrong.push(format!("{name} comes from {source}, which is not allowed"));
            }
        }
        wrong
    }

    fn licence(&self, package: &Package) -> Result<(), String> {
        let expression = package.licence.as_deref().ok_or("it states no licence")?;
        let exception = self.exceptions.get(&package.name);
        let allowed = |licence: &str| {
            self.allowed.contains(licence) || exception.is_some_and(|more| more.contains(licence))
        };
        match Expression::holds(expression, &allowed) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("its licence `{expression}` is not allowed")),
            Err(why) => Err(format!("its licence `{expression}` is not understood: {why}")),
        }
    }

    /// Sources look like `registry+URL`, `sparse+URL` or `git+URL`.
    fn knows(&self, source: &str) -> bool {
        let url = source
            .strip_prefix("registry+")
            .or_else(|| source.strip_prefix("sparse+"));
        url.is_some_and(|url| self.registries.contains(url))
    }
}

/// A recursive descent over the words of an expression: `or := and (OR and)*`, `and := one (AND one)*`.
struct Expression<'a, F> {
    words: std::iter::Peekable<std::vec::IntoIter<String>>,
    allowed: &'a F,
}

impl<F: Fn(&str) -> bool> Expression<'_, F> {
    fn holds(text: &str, allowed: &F) -> Result<bool, String> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
        let mut expression = Expression {
            words: words.into_iter().peekable(),
            allowed,
        };
        let holds = expression.or()?;
        match expression.words.next() {
            None => Ok(holds),
            Some(word) => Err(format!("`{word}` after its end")),
        }
    }

    fn or(&mut self) -> Result<bool, String> {
        let mut holds = self.and()?;
        while self.words.next_if(|word| word == "OR").is_some() {
            // Both sides are read, whatever the first was.
            holds |= self.and()?;
        }
        Ok(holds)
    }

    fn and(&mut self) -> Result<bool, String> {
        let mut holds = self.one()?;
        while self.words.next_if(|word| word == "AND").is_some() {
            holds &= self.one()?;
        }
        Ok(holds)
    }

    fn one(&mut self) -> Result<bool, String> {
        match self.words.next().as_deref() {
            None => Err("it ends too early".to_owned()),
            Some("(") => {
                let holds = self.or()?;
                self.words
                    .next_if(|word| word == ")")
                    .map(|_| holds)
                    .ok_or("a `)` is missing".to_owned())
            }
            Some(word @ (")" | "OR" | "AND" | "WITH")) => Err(format!("`{word}` where a licence should be")),
            Some(licence) => {
                if self.words.next_if(|word| word == "WITH").is_none() {
                    return Ok((self.allowed)(licence));
                }
                let exception = self.words.next().ok_or("it ends after `WITH`")?;
                Ok((self.allowed)(&format!("{licence} WITH {exception}")))
            }
        }
    }
}

fn words(value: &Value) -> Result<BTreeSet<String>, String> {
    let list = value.as_array().ok_or("a list was expected")?;
    list.iter()
        .map(|word| {
            word.as_str()
                .map(str::to_owned)
                .ok_or("a text was expected".to_owned())
        })
        .collect()
}

fn tables(value: &Value) -> Result<Vec<&Table>, String> {
    let list = value.as_array().ok_or("a list was expected")?;
    list.iter()
        .map(|entry| entry.as_table().ok_or("a table was expected".to_owned()))
        .collect()
}

fn word(table: &Table, key: &str) -> Result<String, String> {
    table
        .get(key)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or(format!("`{key}` is missing in an entry"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRATES_IO: &str = "https://github.com/rust-lang/crates.io-index";
    const DENY: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0", "ISC", "Apache-2.0 WITH LLVM-exception"]
        exceptions = [{ crate = "roots", allow = ["CDLA-Permissive-2.0"] }]
        [bans]
        deny = [{ crate = "openssl", reason = "rustls is used" }]
        [sources]
        unknown-git = "deny"
        allow-registry = ["https://github.com/rust-lang/crates.io-index"]
    "#;

    fn wrong(name: &str, licence: Option<&str>, source: Option<&str>) -> Vec<String> {
        let (licence, source) = (licence.map(str::to_owned), source.map(str::to_owned));
        let package = Package {
            name: name.into(),
            version: "1.0.0".into(),
            licence,
            source,
            ..Package::default()
        };
        Policy::parse(DENY).unwrap().check(&[package])
    }

    #[test]
    fn expressions_are_understood() {
        let ok = |licence| wrong("a", Some(licence), None).is_empty();
        for allowed in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0 OR MIT",
            "MIT/Apache-2.0",
            "MIT AND ISC",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
            "ISC AND (GPL-3.0 OR MIT)",
            "(MIT)",
        ] {
            assert!(ok(allowed), "{allowed}");
        }
        for refused in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "MIT AND GPL-3.0 OR GPL-2.0",
            "MIT WITH Other-exception",
            "ISC AND (GPL-3.0 OR AGPL-3.0)",
            "",
            "MIT OR",
            "(MIT",
            "MIT)",
            "MIT ISC",
            "OR MIT",
            "MIT WITH",
        ] {
            assert!(!ok(refused), "{refused}");
        }
    }

    #[test]
    fn a_package_without_a_licence_is_refused_and_an_exception_is_for_one_package() {
        assert_eq!(wrong("a", None, None), ["a 1.0.0: it states no licence"]);
        assert!(wrong("roots", Some("CDLA-Permissive-2.0"), None).is_empty());
        assert_eq!(wrong("a", Some("CDLA-Permissive-2.0"), None).len(), 1);
    }

    #[test]
    fn banned_packages_and_other_sources_are_refused() {
        assert_eq!(
            wrong("openssl", Some("MIT"), None),
            ["openssl 1.0.0 is banned: rustls is used"]
        );
        let crates_io = format!("registry+{CRATES_IO}");
        assert!(wrong("a", Some("MIT"), Some(&crates_io)).is_empty());
        assert_eq!(
            wrong("a", Some("MIT"), Some("registry+https://example.com/index")).len(),
            1
        );
        assert_eq!(
            wrong("a", Some("MIT"), Some(&format!("git+{CRATES_IO}"))).len(),
            1
        );
    }

    #[test]
    fn a_rule_that_would_not_be_followed_is_an_error() {
        for (from, to) in [
            ("[licenses]", "[licenses]\n clarify = []"),
            ("[bans]", "[bans]\n skip = []"),
            ("unknown-git = \"deny\"", "unknown-git = \"warn\""),
            ("[sources]", "[other]"),
            (", reason = \"rustls is used\"", ""),
        ] {
            let text = DENY.replace(from, to);
            assert_ne!(text, DENY);
            assert!(Policy::parse(&text).is_err(), "{to}");
        }
    }
}
