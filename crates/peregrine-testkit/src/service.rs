//! Servers that tests need: the URL of one, or a skip that is written down. No test passes unseen without its server.
//!
//! `cargo xtask test` finds or starts the servers and passes their URLs in the environment. Where one is missing, the
//! test that asks for it gets `None`, returns, and has its name appended to the file that `PEREGRINE_TEST_SKIPPED_LOG`
//! names, from which the names are listed at the end. With `PEREGRINE_REQUIRE_SERVICES=1` a missing server is a panic.
//! This module reads the environment and nothing else: without a URL it never looks for a server.
//!
//! ```no_run
//! # async fn connect(_: &str) {}
//! # async fn test() {
//! let Some(url) = peregrine_testkit::service::redis() else { return };
//! connect(&url).await;
//! # }
//! ```
//!
//! A server may be shared with other tests and other users: a test keeps to keys, schemas or subjects with a name
//! that nobody else has, and removes them.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::panic::Location;
use std::path::Path;

/// The file to which the name of a skipped test is appended, one line of `service TAB test` each.
pub const SKIPPED_LOG_VARIABLE: &str = "PEREGRINE_TEST_SKIPPED_LOG";
/// `1` makes a missing server a failure of the test that asks for it.
pub const REQUIRE_VARIABLE: &str = "PEREGRINE_REQUIRE_SERVICES";

/// The URL of a peer that `tests/peers/run.sh` starts, from `PEREGRINE_TEST_PEER_<NAME>_URL`, or `None` after noting
/// that the calling test was skipped.
///
/// # Panics
///
/// With `PEREGRINE_REQUIRE_PEERS=1` where the URL is missing, and where a skip cannot be written down.
#[must_use]
#[track_caller]
pub fn peer(name: &str) -> Option<String> {
    let url_variable = format!("PEREGRINE_TEST_PEER_{}_URL", name.to_uppercase());
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(url) = set(&url_variable) {
        return Some(url);
    }
    let test = calling_test(Location::caller());
    let required = set("PEREGRINE_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(
        !required,
        "{test} needs the peer {name}, but {url_variable} is not set; run tests/peers/run.sh"
    );
    if let Some(log) = set(SKIPPED_LOG_VARIABLE) {
        let line = format!("peer {name}\t{test}\n");
        let noted = append(Path::new(&log), line.as_bytes());
        assert!(
            noted.is_ok(),
            "noting in {log} that {test} was skipped: {noted:?}"
        );
    }
    None
}

/// A server that a test may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Service {
    /// Redis; the URL looks like `redis://127.0.0.1:6379`.
    Redis,
    /// PostgreSQL; the URL looks like `postgres://postgres@127.0.0.1:5432/postgres`.
    Postgres,
    /// NATS; the URL looks like `nats://127.0.0.1:4222`.
    Nats,
}

/// The URL of a Redis server, or `None` after noting that the calling test was skipped.
///
/// # Panics
///
/// See [`Service::url`].
#[must_use]
#[track_caller]
pub fn redis() -> Option<String> {
    Service::Redis.url()
}

/// The URL of a PostgreSQL server whose user may create schemas, or `None` after noting the skip.
///
/// # Panics
///
/// See [`Service::url`].
#[must_use]
#[track_caller]
pub fn postgres() -> Option<String> {
    Service::Postgres.url()
}

/// The URL of a NATS server, or `None` after noting that the calling test was skipped.
///
/// # Panics
///
/// See [`Service::url`].
#[must_use]
#[track_caller]
pub fn nats() -> Option<String> {
    Service::Nats.url()
}

impl Service {
    /// The variable that holds the server's URL.
    #[must_use]
    pub fn url_variable(self) -> &'static str {
        match self {
            Self::Redis => "PEREGRINE_TEST_REDIS_URL",
            Self::Postgres => "PEREGRINE_TEST_POSTGRES_URL",
            Self::Nats => "PEREGRINE_TEST_NATS_URL",
        }
    }

    /// The server's URL, or `None` after noting that the calling test was skipped.
    ///
    /// # Panics
    ///
    /// Where the server is required and there is none, and where a skip cannot be written down: the test would pass
    /// without having tested anything, and nobody would know.
    #[must_use]
    #[track_caller]
    pub fn url(self) -> Option<String> {
        let test = calling_test(Location::caller());
        match find(self, &test, |name| std::env::var(name).ok()) {
            Ok(url) => url,
            // The caller is a test, and failing is how it speaks.
            Err(problem) => panic!("{problem}"),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Nats => "nats",
        })
    }
}

/// [`Service::url`] on a given environment.
fn find(
    service: Service,
    test: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(url) = set(service.url_variable()) {
        return Ok(Some(url));
    }
    if set(REQUIRE_VARIABLE).is_some_and(|value| value == "1") {
        let url_variable = service.url_variable();
        return Err(format!(
            "{test} needs {service}, but {url_variable} is not set while {REQUIRE_VARIABLE}=1; \
             `cargo xtask test` finds or starts the server"
        ));
    }
    if let Some(log) = set(SKIPPED_LOG_VARIABLE) {
        // One write of one line: test processes that run side by side do not mix theirs.
        let line = format!("{service}\t{test}\n");
        let appended = append(Path::new(&log), line.as_bytes());
        appended.map_err(|error| format!("noting in {log} that {test} was skipped: {error}"))?;
    }
    Ok(None)
}

fn append(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)?
        .write_all(bytes)
}

/// Package and test. The test harness names each thread after its test; with `--test-threads=1` tests run on the main
/// thread, where only the place of the call is known.
fn calling_test(caller: &Location<'_>) -> String {
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "unknown package".to_owned());
    let thread = std::thread::current();
    match thread.name().filter(|name| *name != "main") {
        Some(test) => format!("{package}::{test}"),
        None => format!("{package}::{}:{}", caller.file(), caller.line()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            pairs
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn a_url_is_handed_on_and_nothing_is_noted() {
        let pairs = [
            ("PEREGRINE_TEST_REDIS_URL", "redis://h"),
            (SKIPPED_LOG_VARIABLE, "/no/such/folder/log"),
        ];
        assert_eq!(
            find(Service::Redis, "t", environment(&pairs)),
            Ok(Some("redis://h".to_owned()))
        );
    }

    #[test]
    fn a_missing_service_is_noted_by_name() {
        let log = std::env::temp_dir().join(format!("peregrine-service-test-{}", std::process::id()));
        let pairs = [
            (SKIPPED_LOG_VARIABLE, log.to_str().unwrap()),
            ("PEREGRINE_TEST_NATS_URL", ""),
        ];
        assert_eq!(find(Service::Nats, "a::b", environment(&pairs)), Ok(None));
        assert_eq!(find(Service::Postgres, "c", environment(&pairs)), Ok(None));
        let noted = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        assert_eq!(noted, "nats\ta::b\npostgres\tc\n");
    }

    #[test]
    fn a_required_service_that_is_missing_is_a_failure() {
        let problem = find(Service::Postgres, "t", environment(&[(REQUIRE_VARIABLE, "1")])).unwrap_err();
        assert!(problem.contains("PEREGRINE_TEST_POSTGRES_URL"), "{problem}");
        assert_eq!(
            find(Service::Postgres, "t", environment(&[(REQUIRE_VARIABLE, "0")])),
            Ok(None)
        );
    }

    #[test]
    fn a_skip_that_cannot_be_noted_is_a_failure() {
        let pairs = [(SKIPPED_LOG_VARIABLE, "/no/such/folder/log")];
        assert!(find(Service::Redis, "t", environment(&pairs)).is_err());
    }

    #[test]
    fn the_test_is_known_by_its_thread_or_else_by_the_place() {
        let name = |thread: &str| {
            let thread = std::thread::Builder::new().name(thread.to_owned());
            thread
                .spawn(|| calling_test(Location::caller()))
                .unwrap()
                .join()
                .unwrap()
        };
        assert_eq!(name("a::b"), "peregrine-testkit::a::b");
        assert!(name("main").contains("service.rs:"), "{}", name("main"));
    }
}
