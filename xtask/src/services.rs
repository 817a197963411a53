//! The servers some tests need: where each is found, in the order URL given, default local port, binary on the PATH.
//!
//! A URL that was given and does not answer is an error, never a reason to look further: whoever gave it wants that
//! server. Found means spoken to, in the server's own protocol. Started servers end with this process, however it
//! ends (see [`private`]).

mod private;
mod probe;

use std::fmt;

use private::PrivateServer;

use crate::report::{Problem, say};

/// A server that tests may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Redis,
    Postgres,
    Nats,
}

/// What became of the search for one.
#[derive(Debug)]
pub(crate) enum Found {
    /// Its URL was in the environment.
    Given(String),
    /// It answers on its default port.
    Local(String),
    /// Started by us, stopped when this is dropped.
    Private(PrivateServer),
    /// Nowhere, and why not.
    Missing(String),
}

impl Service {
    pub(crate) const ALL: [Self; 3] = [Self::Redis, Self::Postgres, Self::Nats];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Nats => "nats",
        }
    }

    /// The variable that gives the URL, to us and by us to the tests.
    pub(crate) fn url_variable(self) -> &'static str {
        match self {
            Self::Redis => "PEREGRINE_TEST_REDIS_URL",
            Self::Postgres => "PEREGRINE_TEST_POSTGRES_URL",
            Self::Nats => "PEREGRINE_TEST_NATS_URL",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Redis => 6379,
            Self::Postgres => 5432,
            Self::Nats => 4222,
        }
    }

    /// The URL of a server on this machine that lets everybody in.
    fn local_url(self, port: u16) -> String {
        match self {
            Self::Redis => format!("redis://127.0.0.1:{port}"),
            Self::Postgres => format!("postgres://postgres@127.0.0.1:{port}/postgres"),
            Self::Nats => format!("nats://127.0.0.1:{port}"),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Found {
    pub(crate) fn url(&self) -> Option<&str> {
        match self {
            Self::Given(url) | Self::Local(url) => Some(url),
            Self::Private(server) => Some(server.url()),
            Self::Missing(_) => None,
        }
    }

    pub(crate) fn missing_because(&self) -> Option<&str> {
        match self {
            Self::Missing(reason) => Some(reason),
            Self::Given(_) | Self::Local(_) | Self::Private(_) => None,
        }
    }
}

/// Looks for every service and says where each was found.
pub(crate) fn find_all() -> Result<Vec<(Service, Found)>, Problem> {
    let mut all = Vec::new();
    for service in Service::ALL {
        let found = find(service)?;
        match &found {
            Found::Given(url) => say!("{service}: {} (given)", without_password(url)),
            Found::Local(url) => say!("{service}: {url} (answers on its default port)"),
            Found::Private(server) => say!("{service}: {} (started for this run)", server.url()),
            Found::Missing(reason) => say!("{service}: not available: {reason}"),
        }
        all.push((service, found));
    }
    Ok(all)
}

fn find(service: Service) -> Result<Found, Problem> {
    let variable = service.url_variable();
    if let Some(url) = std::env::var(variable).ok().filter(|url| !url.is_empty()) {
        return match probe::answers_at_url(service, &url) {
            Ok(()) => Ok(Found::Given(url)),
            Err(error) => {
                let url = without_password(&url);
                Err(Problem::Failed(format!(
                    "{service}: {variable} is {url}, but {error}"
                )))
            }
        };
    }
    let port = service.default_port();
    let on_port = match probe::lets_us_in(service, port) {
        Ok(()) => return Ok(Found::Local(service.local_url(port))),
        Err(error) => error,
    };
    Ok(match private::start(service) {
        Ok(server) => Found::Private(server),
        Err(reason) => Found::Missing(format!("{variable} is not set; port {port}: {on_port}; {reason}")),
    })
}

/// The URL as it may be shown: what stands between the user's name and the `@` is left out.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority_ends = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_ends);
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:..@{host}{path}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(without_password("redis://:hunter2@h:1/0"), "redis://:..@h:1/0");
        assert_eq!(
            without_password("postgres://me:p@ss@h/db"),
            "postgres://me:..@h/db"
        );
        assert_eq!(without_password("nats://token@h:4222"), "nats://token:..@h:4222");
        assert_eq!(without_password("redis://h:1/a@b"), "redis://h:1/a@b");
    }
}
