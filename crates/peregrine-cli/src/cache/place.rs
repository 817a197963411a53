//! Which store of answers.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use peregrine::ErrorKind;
use peregrine::cache::{
    Clock as _, Error as CacheError, RedisConfig, RedisStore, Selector, Store, StoredAnswer, Survey,
    SystemTimeClock, Totals,
};
#[cfg(unix)]
use peregrine::cache::{DiskConfig, DiskStore};
use peregrine::core::Secret;

use super::args::PlaceArgs;
use crate::command;
use crate::failure::Failure;

/// Where answers are kept.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Dir { path: PathBuf, is_default: bool },
    Redis { url: Secret, prefix: String },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir { path, .. } => write!(f, "{}", path.display()),
            Self::Redis { .. } => f.write_str("Redis"),
        }
    }
}

impl Place {
    /// What the options and the variables say.
    ///
    /// # Errors
    ///
    /// That nothing says where, or in no words that can be read.
    pub(crate) fn of(args: &PlaceArgs) -> Result<Self, Failure> {
        of(args, |name| std::env::var_os(name))
    }

    /// The store, which is made if it is not there. Redis is not asked yet.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what the store says.
    pub(crate) fn open(&self) -> Result<Answers, Failure> {
        match self {
            #[cfg(unix)]
            Self::Dir { path, .. } => Ok(Answers::Disk(DiskStore::open(&disk(path)?)?)),
            #[cfg(not(unix))]
            Self::Dir { .. } => Err(no_directories()),
            Self::Redis { url, prefix } => {
                let config = RedisConfig::new(url.expose()).with_prefix(prefix);
                Ok(Answers::Redis(Arc::new(RedisStore::new(&config)?)))
            }
        }
    }

    /// The store, if there is one. In the usual place there may be none, elsewhere that is an error.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what the store says.
    pub(crate) fn find(&self) -> Result<Option<Answers>, Failure> {
        match self {
            #[cfg(unix)]
            Self::Dir { path, is_default } => match DiskStore::open_existing(&disk(path)?)? {
                Some(store) => Ok(Some(Answers::Disk(store))),
                None if *is_default => Ok(None),
                None => Err(Failure::Local {
                    kind: ErrorKind::NotFound,
                    message: format!("there is no cache at {self}"),
                }),
            },
            #[cfg(not(unix))]
            Self::Dir { .. } => Err(no_directories()),
            Self::Redis { .. } => self.open().map(Some),
        }
    }
}

#[cfg(unix)]
fn disk(path: &std::path::Path) -> Result<DiskConfig, Failure> {
    // Absolute, because the working folder may change before a file is opened again.
    let path = std::path::absolute(path).map_err(|error| Failure::io(&error))?;
    Ok(DiskConfig::new(path))
}

#[cfg(not(unix))]
fn no_directories() -> Failure {
    config("answers are kept in directories on Unix only; give --cache-url")
}

/// A store of answers.
#[derive(Debug, Clone)]
pub(crate) enum Answers {
    #[cfg(unix)]
    Disk(DiskStore),
    Redis(Arc<RedisStore>),
}

impl Answers {
    /// As a tier of a cache.
    pub(crate) fn tier(&self) -> Arc<dyn Store<StoredAnswer>> {
        match self {
            #[cfg(unix)]
            Self::Disk(store) => Arc::new(store.clone()),
            Self::Redis(store) => store.clone(),
        }
    }

    /// What it holds.
    pub(crate) async fn survey(&self) -> Result<Survey, CacheError> {
        match self {
            #[cfg(unix)]
            Self::Disk(store) => store.survey(now()),
            Self::Redis(store) => store.survey(now()).await,
        }
    }

    /// What all commands and programs with this store did that told.
    pub(crate) async fn totals(&self) -> Result<Totals, CacheError> {
        match self {
            #[cfg(unix)]
            Self::Disk(store) => store.totals(),
            Self::Redis(store) => store.totals().await,
        }
    }

    /// Tells what this command did.
    pub(crate) async fn add_totals(&self, more: &Totals) -> Result<(), CacheError> {
        match self {
            #[cfg(unix)]
            Self::Disk(store) => store.add_totals(more),
            Self::Redis(store) => store.add_totals(more).await,
        }
    }

    /// How many answers a removal would take away.
    pub(crate) async fn count(&self, what: &Selector) -> Result<u64, CacheError> {
        match self {
            #[cfg(unix)]
            Self::Disk(store) => store.count(what, now()),
            Self::Redis(store) => store.count(what, now()).await,
        }
    }
}

fn now() -> u64 {
    SystemTimeClock.unix_ms()
}

fn of(args: &PlaceArgs, variable: impl Fn(&str) -> Option<OsString>) -> Result<Place, Failure> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let dir = |path: PathBuf| Place::Dir {
        path,
        is_default: false,
    };
    let redis = |url| Place::Redis {
        url,
        prefix: args.cache_prefix.clone(),
    };
    if let Some(path) = &args.cache_dir {
        return Ok(dir(path.clone()));
    }
    if let Some(url) = &args.cache_url {
        return Ok(redis(url.clone()));
    }
    if let Some(url) = set("PEREGRINE_CACHE_URL") {
        return match url.into_string() {
            Ok(url) => Ok(redis(Secret::new(url))),
            Err(_) => Err(config("PEREGRINE_CACHE_URL is not UTF-8")),
        };
    }
    if let Some(path) = set("PEREGRINE_CACHE_DIR") {
        return Ok(dir(path.into()));
    }
    match command::user_folder(set, "XDG_CACHE_HOME", ".cache") {
        Some(data) => Ok(Place::Dir {
            path: data.join("answers"),
            is_default: true,
        }),
        None => Err(config(
            "no place for answers is known, because HOME is not set; give --cache-dir or --cache-url",
        )),
    }
}

fn config(message: &str) -> Failure {
    Failure::Local {
        kind: ErrorKind::Config,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::DEFAULT_PREFIX;
    use super::*;

    #[test]
    fn options_go_before_variables_and_these_before_the_usual_place() {
        let all = [
            ("PEREGRINE_CACHE_URL", "redis://me:hunter2@host"),
            ("PEREGRINE_CACHE_DIR", "kept"),
            ("XDG_CACHE_HOME", "/cache"),
            ("HOME", "/me"),
        ];
        let chosen = |dir: Option<&str>, url: Option<&str>, from: usize| {
            let args = PlaceArgs {
                cache_dir: dir.map(Into::into),
                cache_url: url.map(Secret::new),
                cache_prefix: DEFAULT_PREFIX.to_owned(),
            };
            let variable = |name: &str| {
                let found = all[from..].iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            of(&args, variable).map(|place| place.to_string())
        };
        assert_eq!(chosen(Some("here"), None, 0).unwrap(), "here");
        assert_eq!(chosen(None, Some("redis://there"), 1).unwrap(), "Redis");
        assert_eq!(chosen(None, None, 0).unwrap(), "Redis");
        assert_eq!(chosen(None, None, 1).unwrap(), "kept");
        assert_eq!(chosen(None, None, 2).unwrap(), "/cache/peregrine/answers");
        assert_eq!(chosen(None, None, 3).unwrap(), "/me/.cache/peregrine/answers");
        assert!(chosen(None, None, 4).is_err());
    }
}
