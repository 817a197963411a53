//! Which store, and which run of it.
//!
//! Invariants: looking for runs makes no store; a URL is never shown, because it may hold a password.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use peregrine::ErrorKind;
use peregrine::checkpoints::{
    Checkpoints, DirStore, Durability, MemoryStore, Options, RunInfo, RunKey, SqliteStore,
};
use peregrine::core::{RunId, Scope, Secret};

use super::args::{RunName, StoreArgs};
use crate::command;
use crate::failure::Failure;

/// So many runs are asked for at once.
const PAGE: usize = 1_000;

/// The runs of one scope.
#[derive(Debug)]
pub(crate) struct Runs {
    pub(crate) checkpoints: Checkpoints,
    pub(crate) scope: Scope,
    place: Place,
}

/// Where a store is.
#[derive(Debug, Clone)]
enum Place {
    Dir { path: PathBuf, is_default: bool },
    Database(Secret),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir { path, .. } => write!(f, "{}", path.display()),
            Self::Database(url) => match database(url) {
                Some(Database::Sqlite(path)) => write!(f, "{}", path.display()),
                Some(Database::Postgres) => f.write_str("PostgreSQL"),
                None => f.write_str("a database"),
            },
        }
    }
}

enum Database<'u> {
    Sqlite(&'u Path),
    Postgres,
}

/// What a URL names.
fn database(url: &Secret) -> Option<Database<'_>> {
    let (scheme, rest) = url.expose().split_once(':')?;
    match scheme {
        "sqlite" if !rest.is_empty() => Some(Database::Sqlite(Path::new(
            rest.strip_prefix("//").unwrap_or(rest),
        ))),
        "postgres" | "postgresql" => Some(Database::Postgres),
        _ => None,
    }
}

impl Runs {
    /// The runs that are there. A store that is not there is not made: without one in the usual place there are no runs,
    /// elsewhere that is an error.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what the store says.
    pub(crate) async fn find(args: &StoreArgs) -> Result<Self, Failure> {
        let place = place(args, |name| std::env::var_os(name))?;
        let path = match &place {
            Place::Dir { path, .. } => Some(path.as_path()),
            Place::Database(url) => match database(url) {
                Some(Database::Sqlite(path)) => Some(path),
                _ => None,
            },
        };
        let missing = match path.map(Path::try_exists) {
            None | Some(Ok(true)) => false,
            Some(Ok(false)) => true,
            Some(Err(error)) => return Err(could_not_look(&place, &error)),
        };
        match &place {
            Place::Dir { is_default: true, .. } if missing => {
                let empty = Checkpoints::new(Arc::new(MemoryStore::new()), Options::default());
                Ok(Self {
                    checkpoints: empty,
                    scope: args.scope.clone(),
                    place,
                })
            }
            _ if missing => Err(Failure::Local {
                kind: ErrorKind::NotFound,
                message: format!("there is no store of runs at {place}"),
            }),
            _ => Self::at(place, args).await,
        }
    }

    /// The runs, in a store that is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what the store says.
    pub(crate) async fn open(args: &StoreArgs) -> Result<Self, Failure> {
        let place = place(args, |name| std::env::var_os(name))?;
        Self::at(place, args).await
    }

    async fn at(place: Place, args: &StoreArgs) -> Result<Self, Failure> {
        let options = Options::default();
        // Absolute, because the working folder may change before a file is opened again.
        let absolute =
            |path: &Path| std::path::absolute(path).map_err(|error| could_not_look(&place, &error));
        let checkpoints = match &place {
            Place::Dir { path, .. } => {
                let store = DirStore::open(absolute(path)?).await?;
                Checkpoints::new(Arc::new(store), options)
            }
            Place::Database(url) => match database(url) {
                Some(Database::Sqlite(path)) => {
                    let store = SqliteStore::open(absolute(path)?).await?;
                    Checkpoints::new(Arc::new(store), options)
                }
                Some(Database::Postgres) => Checkpoints::open(url.expose(), options).await?,
                None => return Err(no_database()),
            },
        };
        Ok(Self {
            checkpoints,
            scope: args.scope.clone(),
            place,
        })
    }

    /// The same runs, kept so durably.
    pub(crate) fn with_durability(self, durability: Durability) -> Self {
        Self {
            checkpoints: self.checkpoints.with_durability(durability),
            ..self
        }
    }

    /// Where they are, for a person.
    pub(crate) fn place(&self) -> String {
        self.place.to_string()
    }

    /// The file that an error calls `name`, if the store is a directory: there a run has a folder, and errors name what is
    /// in it.
    pub(crate) fn file(&self, run: RunId, name: &str) -> Option<PathBuf> {
        let Place::Dir { path, .. } = &self.place else {
            return None;
        };
        let run = Path::new("runs").join(run.to_string()).join(name);
        let scopes = std::fs::read_dir(path.join("v1")).ok()?;
        scopes
            .flatten()
            .map(|scope| scope.path().join(&run))
            .find(|file| file.is_file())
    }

    /// The run with this id.
    pub(crate) fn key(&self, run: RunId) -> RunKey {
        RunKey::new(self.scope.clone(), run)
    }

    /// The run of this name.
    ///
    /// # Errors
    ///
    /// That there is none, or more than one. A run that is named by its id is not looked for.
    pub(crate) async fn named(&self, name: &RunName) -> Result<RunKey, Failure> {
        if let Some(key) = name.key(&self.scope) {
            return Ok(key);
        }
        let mut found: Vec<RunInfo> = Vec::new();
        self.each(|info| match name {
            RunName::Part(part) => {
                let id = info.run.to_string();
                if found.len() < 2 && (id.starts_with(part.as_str()) || id.ends_with(part.as_str())) {
                    found.push(info);
                }
            }
            _ => {
                if found
                    .first()
                    .is_none_or(|last| (info.updated, info.run) > (last.updated, last.run))
                {
                    found = vec![info];
                }
            }
        })
        .await?;
        let refuse = |kind, message| Err(Failure::Local { kind, message });
        match (found.as_slice(), name) {
            ([info], _) => Ok(self.key(info.run)),
            ([one, other, ..], RunName::Part(part)) => refuse(
                ErrorKind::InvalidRequest,
                format!(
                    "more than one run is named {part}, such as {} and {}",
                    one.run, other.run
                ),
            ),
            (_, RunName::Part(part)) => refuse(
                ErrorKind::NotFound,
                format!("there is no run whose id begins or ends with {part} in this scope"),
            ),
            _ => refuse(ErrorKind::NotFound, "there is no run in this scope".to_owned()),
        }
    }

    /// The runs that were written last, the latest first.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what the store says.
    pub(crate) async fn latest(&self, most: usize) -> Result<Vec<RunKey>, Failure> {
        let mut latest = BinaryHeap::new();
        self.each(|info| {
            latest.push(Reverse((info.updated, info.run)));
            if latest.len() > most {
                latest.pop();
            }
        })
        .await?;
        let latest = latest.into_sorted_vec().into_iter();
        Ok(latest.map(|Reverse((_, run))| self.key(run)).collect())
    }

    /// Looks at every run, the oldest first.
    ///
    /// # Errors
    ///
    /// [`Failure`], with what the store says.
    pub(crate) async fn each(&self, mut look: impl FnMut(RunInfo)) -> Result<(), Failure> {
        let mut after = None;
        loop {
            let page = self.checkpoints.runs(&self.scope, after, PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|info| info.run);
            page.into_iter().for_each(&mut look);
            if is_last {
                return Ok(());
            }
        }
    }
}

fn no_database() -> Failure {
    Failure::Local {
        kind: ErrorKind::Config,
        message: "the database's URL has the form sqlite:PATH or postgres://user:password@host:port/database"
            .to_owned(),
    }
}

fn could_not_look(place: &Place, error: &std::io::Error) -> Failure {
    match Failure::io(error) {
        Failure::Local { kind, message } => Failure::Local {
            kind,
            message: format!("could not look for runs at {place}: {message}"),
        },
        other => other,
    }
}

fn place(args: &StoreArgs, variable: impl Fn(&str) -> Option<OsString>) -> Result<Place, Failure> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let dir = |path: PathBuf| Place::Dir {
        path,
        is_default: false,
    };
    if let Some(path) = &args.dir {
        return Ok(dir(path.clone()));
    }
    if let Some(url) = &args.database_url {
        return Ok(Place::Database(url.clone()));
    }
    if let Some(url) = set("PEREGRINE_DATABASE_URL") {
        return match url.into_string() {
            Ok(url) => Ok(Place::Database(Secret::new(url))),
            Err(_) => Err(Failure::Local {
                kind: ErrorKind::Config,
                message: "PEREGRINE_DATABASE_URL is not UTF-8".to_owned(),
            }),
        };
    }
    if let Some(path) = set("PEREGRINE_RUNS_DIR") {
        return Ok(dir(path.into()));
    }
    match command::data_folder(set) {
        Some(data) => Ok(Place::Dir {
            path: data.join("runs"),
            is_default: true,
        }),
        None => Err(Failure::Local {
            kind: ErrorKind::Config,
            message: "no place for runs is known, because HOME is not set; give --dir or --database-url"
                .to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::args::scope;

    fn chosen(dir: Option<&str>, url: Option<&str>, variables: &[(&str, &str)]) -> Result<String, Failure> {
        let args = StoreArgs {
            dir: dir.map(Into::into),
            database_url: url.map(Secret::new),
            scope: scope("local").unwrap(),
        };
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        place(&args, variable).map(|place| place.to_string())
    }

    #[test]
    fn options_go_before_variables_and_these_before_the_usual_place() {
        let all = [
            ("PEREGRINE_DATABASE_URL", "sqlite:runs.db"),
            ("PEREGRINE_RUNS_DIR", "kept"),
            ("XDG_DATA_HOME", "/data"),
            ("HOME", "/me"),
        ];
        let place = |dir, url, from: usize| chosen(dir, url, &all[from..]).unwrap();
        assert_eq!(place(Some("here"), None, 0), "here");
        assert_eq!(place(None, Some("sqlite://there.db"), 0), "there.db");
        assert_eq!(place(None, None, 0), "runs.db");
        assert_eq!(place(None, None, 1), "kept");
        assert_eq!(place(None, None, 2), "/data/peregrine/runs");
        assert_eq!(place(None, None, 3), "/me/.local/share/peregrine/runs");
        let relative = [("XDG_DATA_HOME", "data"), ("HOME", "/me")];
        assert_eq!(
            chosen(None, None, &relative).unwrap(),
            "/me/.local/share/peregrine/runs"
        );
        assert!(chosen(None, None, &[]).is_err());
    }

    #[test]
    fn a_url_is_never_shown() {
        for url in [
            "postgres://me:hunter2@host/db",
            "mysql://me:hunter2@host/db",
            "hunter2",
        ] {
            let shown = chosen(None, Some(url), &[]).unwrap();
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
