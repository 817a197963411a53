//! Every test of the workspace, with the services that tests need, and the list of those that could not run.
//!
//! A test that needs a service asks `peregrine_testkit::service` for its URL. Where there is none it passes, having
//! noted its name in the file that `PEREGRINE_TEST_SKIPPED_LOG` names; this verb reads that file and prints the names.

use std::collections::{BTreeMap, BTreeSet};

use crate::args::Args;
use crate::command::cargo;
use crate::report::{Done, Outcome, Problem, say};
use crate::services::{self, Service};

const REQUIRE_VARIABLE: &str = "PEREGRINE_REQUIRE_SERVICES";
/// How the name of a peer begins, which `cargo xtask peers` starts and this verb does not.
const PEER: &str = "peer ";
const SKIPPED_VARIABLE: &str = "PEREGRINE_TEST_SKIPPED_LOG";

pub(crate) fn run(args: Args) -> Outcome {
    let required = required(std::env::var(REQUIRE_VARIABLE).ok().as_deref())?;
    // Started servers stop when this is dropped, on every way out of here.
    let found = services::find_all()?;
    let missing: Vec<String> = found
        .iter()
        .filter_map(|(service, found)| Some(format!("{service} ({})", found.missing_because()?)))
        .collect();
    if required && !missing.is_empty() {
        let missing = missing.join("; ");
        return Err(Problem::Failed(format!(
            "{REQUIRE_VARIABLE} is set, but missing: {missing}"
        )));
    }

    let log = std::env::temp_dir().join(format!("peregrine-skipped-{}.tsv", std::process::id()));
    std::fs::write(&log, "")
        .map_err(|error| Problem::CouldNotRun(format!("writing {}: {error}", log.display())))?;
    let mut tests = cargo(words(args.rest())).env(SKIPPED_VARIABLE, &log);
    for (service, found) in &found {
        tests = match found.url() {
            Some(url) => tests.env(service.url_variable(), url),
            None => tests.env_remove(service.url_variable()),
        };
    }
    let outcome = tests.run();
    let skipped = std::fs::read_to_string(&log)
        .map_err(|error| Problem::Failed(format!("reading {}: {error}", log.display())));
    let _ = std::fs::remove_file(&log);
    let skipped = skipped?;
    let names = by_service(&skipped)?;
    let mut note = Vec::new();
    for (service, _) in found.iter().filter(|(_, found)| found.url().is_none()) {
        let names = names.get(service.name());
        say!("not run (no {service}): {}", list(names));
        note.extend(names.map(|names| format!("{} for want of {service}", names.len())));
    }
    let peers = names.iter().filter(|(service, _)| service.starts_with(PEER));
    for (peer, names) in peers {
        say!(
            "not run (no {peer}; `cargo xtask peers` runs them): {}",
            list(Some(names))
        );
    }
    match outcome? {
        Done::Ok if !note.is_empty() => Ok(Done::Noted(format!("tests not run: {}", note.join(", ")))),
        done => Ok(done),
    }
}

/// The words after `cargo`. With a package named, only its tests run; else everything does.
fn words(given: Vec<String>) -> Vec<String> {
    let mut of_cargo = given.iter().take_while(|word| *word != "--");
    let one_package = of_cargo.any(|word| word.starts_with("-p") || word.starts_with("--package"));
    let everything = if one_package { None } else { Some("--workspace") };
    let words = ["test", "--all-features", "--no-fail-fast"]
        .into_iter()
        .chain(everything);
    words.map(str::to_owned).chain(given).collect()
}

fn required(value: Option<&str>) -> Result<bool, Problem> {
    match value {
        None | Some("" | "0") => Ok(false),
        Some("1") => Ok(true),
        Some(other) => Err(Problem::CouldNotRun(format!(
            "{REQUIRE_VARIABLE} is 1 or 0, `{other}` is neither"
        ))),
    }
}

/// Service to the tests that noted it, from lines of `service TAB test`.
fn by_service(log: &str) -> Result<BTreeMap<&str, BTreeSet<&str>>, Problem> {
    let mut names: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in log.lines() {
        match line.split_once('\t') {
            Some((service, test))
                if service.starts_with(PEER) || Service::ALL.iter().any(|known| known.name() == service) =>
            {
                names.entry(service).or_default().insert(test);
            }
            _ => {
                return Err(Problem::Failed(format!(
                    "the list of skipped tests has the line `{line}`"
                )));
            }
        }
    }
    Ok(names)
}

fn list(names: Option<&BTreeSet<&str>>) -> String {
    match names {
        None => "no test asked for it".to_owned(),
        Some(names) => names.iter().copied().collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(line: &str) -> String {
        words(line.split_whitespace().map(str::to_owned).collect()).join(" ")
    }

    #[test]
    fn everything_runs_unless_a_package_is_named() {
        assert_eq!(words_of(""), "test --all-features --no-fail-fast --workspace");
        assert_eq!(
            words_of("-p a -- x"),
            "test --all-features --no-fail-fast -p a -- x"
        );
        assert_eq!(
            words_of("-- -p"),
            "test --all-features --no-fail-fast --workspace -- -p"
        );
    }

    #[test]
    fn skipped_tests_are_listed_once_by_service() {
        let log = "redis\tb\nnats\tc\nredis\ta\nredis\tb\n";
        let names = by_service(log).unwrap();
        assert_eq!(list(names.get("redis")), "a, b");
        assert_eq!(list(names.get("nats")), "c");
        assert_eq!(list(names.get("postgres")), "no test asked for it");
    }

    #[test]
    fn a_line_nobody_understands_is_not_dropped() {
        assert!(by_service("redis b\n").is_err());
        assert!(by_service("mysql\tb\n").is_err());
    }

    #[test]
    fn the_switch_is_one_or_nothing() {
        assert_eq!(required(None), Ok(false));
        assert_eq!(required(Some("0")), Ok(false));
        assert_eq!(required(Some("1")), Ok(true));
        assert!(matches!(required(Some("yes")), Err(Problem::CouldNotRun(_))));
    }
}
