//! Runs that were kept, in every store, for the tests of `runs`.

use std::future::Future;
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use peregrine::checkpoints::{Checkpoints, Draft, Journal, Kind, Options, RunKey};
use peregrine::core::{RunId, Scope, UnixTime};
use peregrine_testkit::server::LlmServer;
use peregrine_testkit::service;
use serde_json::Value;

use crate::run::{Ran, World, against};

/// A store, and a folder to run the binary in.
pub(crate) struct Kept {
    pub(crate) world: World,
    uri: String,
    flags: [String; 2],
    _schema: Option<Schema>,
}

impl Kept {
    /// In a directory.
    pub(crate) fn in_dir() -> Self {
        let world = at_home();
        let path = world.path().join("kept").display().to_string();
        Self {
            uri: format!("dir:{path}"),
            flags: ["--dir".to_owned(), path],
            world,
            _schema: None,
        }
    }

    /// In an SQLite file.
    pub(crate) fn in_sqlite() -> Self {
        let world = at_home();
        let uri = format!("sqlite:{}", world.path().join("runs.db").display());
        Self {
            flags: ["--database-url".to_owned(), uri.clone()],
            uri,
            world,
            _schema: None,
        }
    }

    /// In PostgreSQL.
    pub(crate) fn in_postgres(server: &str) -> Self {
        let schema = Schema::new(server);
        let uri = schema.url();
        Self {
            world: at_home(),
            flags: ["--database-url".to_owned(), uri.clone()],
            uri,
            _schema: Some(schema),
        }
    }

    /// The segments of the directory's runs.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        fn walk(folder: PathBuf, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(path, found);
                } else if path.extension().is_some_and(|end| end == "seg") {
                    found.push(path);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.world.path().join("kept"), &mut found);
        found.sort();
        found
    }

    /// The arguments, with where the store is.
    pub(crate) fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let given = arguments.iter().map(|argument| (*argument).to_owned());
        given.chain(self.flags.iter().cloned()).collect()
    }

    /// The same store, for a user with another folder of data, somewhere else.
    pub(crate) fn for_somebody_else(&self) -> (World, [String; 2]) {
        (at_home(), self.flags.clone())
    }

    /// Starts a command against a server.
    pub(crate) fn start(&self, server: &LlmServer, arguments: &[&str]) -> Child {
        let arguments = against(server, arguments);
        let arguments = arguments.into_iter().chain(self.flags.iter().cloned());
        self.world
            .command(&arguments.collect::<Vec<_>>())
            .spawn()
            .unwrap()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.world.run(&self.arguments(arguments))
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Ran {
        self.world.run_with_input(&self.arguments(arguments), input)
    }

    /// Does something with the store.
    pub(crate) fn with<T, F: Future<Output = T>>(&self, work: impl FnOnce(Checkpoints) -> F) -> T {
        block_on(async {
            let checkpoints = Checkpoints::open(&self.uri, Options::default()).await.unwrap();
            work(checkpoints).await
        })
    }

    /// Writes a run of events.
    pub(crate) fn write(&self, number: u8, events: &[Value]) -> RunId {
        let key = key(number);
        self.with(async |checkpoints| {
            let journal = checkpoints.create(&key).await.unwrap();
            append(journal, events).await;
            until_free(&checkpoints, &key).await;
        });
        key.run
    }

    /// Forks a run, and writes events behind what it shares.
    pub(crate) fn fork(&self, number: u8, from: RunId, at: u64, events: &[Value]) -> RunId {
        let key = key(number);
        self.with(async |checkpoints| {
            let parent = key.sibling(from);
            let (journal, _) = checkpoints.fork(&parent, at, key.run).await.unwrap();
            append(journal, events).await;
            until_free(&checkpoints, &key).await;
        });
        key.run
    }
}

/// A world whose user has a folder of data.
fn at_home() -> World {
    let world = World::new();
    let home = world.path().join("home").display().to_string();
    world.with_variable("HOME", &home)
}

/// The lines of an output as JSON.
pub(crate) fn lines(ran: &Ran) -> Vec<Value> {
    ran.out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A test in every store that there is.
pub(crate) fn in_every_store(test: impl Fn(&Kept)) {
    test(&Kept::in_dir());
    test(&Kept::in_sqlite());
    let Some(server) = service::postgres() else { return };
    test(&Kept::in_postgres(&server));
}

/// The run with this number; greater ones are newer.
pub(crate) fn key(number: u8) -> RunKey {
    let run = RunId::from_parts(1_700_000_000_000 + u64::from(number), [number; 10]);
    RunKey::new(Scope::tenant("local").unwrap(), run)
}

async fn append(mut journal: Journal, events: &[Value]) {
    for (at, event) in events.iter().enumerate() {
        let time = UnixTime(1_700_000_000_000 + at as u64);
        let draft = Draft::new(Kind::Event, 1, event).unwrap().with_time(time);
        journal.append_draft(&draft).await.unwrap();
    }
    journal.finish().await.unwrap();
}

/// Waits until nobody has a run. A process that another test is just starting has a copy of every open file until it is
/// another program, and so of a lock too.
pub(crate) async fn until_free(checkpoints: &Checkpoints, key: &RunKey) {
    loop {
        let runs = checkpoints.runs(&key.scope, None, 100).await.unwrap();
        let info = runs.into_iter().find(|info| info.run == key.run).unwrap();
        if info.holder.is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(work)
}

/// A schema of its own on the server, which goes when this does.
struct Schema {
    server: String,
    name: String,
}

impl Schema {
    fn new(server: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let schema = Self {
            server: server.to_owned(),
            name: format!("peregrine_cli_{}_{count}", std::process::id()),
        };
        schema.execute(&format!("CREATE SCHEMA {}", schema.name));
        schema
    }

    fn url(&self) -> String {
        let sign = if self.server.contains('?') { '&' } else { '?' };
        format!("{}{sign}options[search_path]={}", self.server, self.name)
    }

    fn execute(&self, statement: &str) {
        use sqlx::Connection as _;
        block_on(async {
            let mut connection = sqlx::PgConnection::connect(&self.server).await.unwrap();
            let query = sqlx::query(sqlx::AssertSqlSafe(statement));
            query.execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        });
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        // Every command that used it has ended.
        self.execute(&format!("DROP SCHEMA {} CASCADE", self.name));
    }
}
