//! SQLite.

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Column as _, Row as _, Sqlite, TypeInfo as _, ValueRef as _};

use super::SqlStore;
use super::driver::{Access, Dialect, Driver, Row, Transaction, Value, error};
use crate::error::{Error, Result};
use crate::store::Persist;

/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(10);
const READERS: u32 = 4;

static DIALECT: Dialect = Dialect {
    schema: &[
        "CREATE TABLE IF NOT EXISTS peregrine_format (version BIGINT NOT NULL)",
        "INSERT INTO peregrine_format SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM peregrine_format)",
        "CREATE TABLE IF NOT EXISTS peregrine_runs (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            scope BLOB NOT NULL, run TEXT NOT NULL,
            origin_run TEXT, origin_at BIGINT,
            first BIGINT NOT NULL, next BIGINT NOT NULL,
            bytes BIGINT NOT NULL, updated BIGINT NOT NULL, removed BIGINT NOT NULL,
            token BIGINT NOT NULL, owner TEXT, expires BIGINT NOT NULL,
            UNIQUE (scope, run))",
        "CREATE INDEX IF NOT EXISTS peregrine_forks ON peregrine_runs (scope, origin_run)",
        "CREATE TABLE IF NOT EXISTS peregrine_records (
            run_id INTEGER NOT NULL REFERENCES peregrine_runs (id), seq BIGINT NOT NULL,
            snapshot BIGINT NOT NULL, frame BLOB NOT NULL,
            UNIQUE (run_id, seq))",
        "CREATE INDEX IF NOT EXISTS peregrine_snapshots ON peregrine_records (run_id, seq) WHERE snapshot = 1",
        "CREATE TABLE IF NOT EXISTS peregrine_parts (
            scope BLOB NOT NULL, id BLOB NOT NULL, content BLOB NOT NULL,
            PRIMARY KEY (scope, id))",
        "CREATE TABLE IF NOT EXISTS peregrine_part_uses (
            scope BLOB NOT NULL, id BLOB NOT NULL,
            run_id INTEGER NOT NULL REFERENCES peregrine_runs (id), segment BIGINT NOT NULL,
            PRIMARY KEY (scope, id, run_id, segment),
            FOREIGN KEY (scope, id) REFERENCES peregrine_parts (scope, id)) WITHOUT ROWID",
        "CREATE INDEX IF NOT EXISTS peregrine_uses_of ON peregrine_part_uses (run_id, segment)",
        // One statement appends and charges the run, so that it is one hop to the database's thread.
        "CREATE TRIGGER IF NOT EXISTS peregrine_appended AFTER INSERT ON peregrine_records BEGIN
            UPDATE peregrine_runs SET next = new.seq + 1, bytes = bytes + length(new.frame),
                updated = CAST(unixepoch('subsec') * 1000 AS INTEGER) WHERE id = new.run_id;
        END",
    ],
    now: "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
    for_share: "",
    for_update: "",
    // There is one writer at a time.
    lock_parts: None,
    append: |rows| {
        let values: Vec<_> = (0..rows)
            .map(|row| format!("(${}, ${}, ${})", 4 + 3 * row, 5 + 3 * row, 6 + 3 * row))
            .collect();
        format!(
            "INSERT INTO peregrine_records (run_id, seq, snapshot, frame)
             SELECT $1, v.column1, v.column2, v.column3 FROM (VALUES {}) AS v
             WHERE (SELECT 1 FROM peregrine_runs WHERE id = $1 AND token = $2 AND next = $3)
             RETURNING seq",
            values.join(", ")
        )
    },
};

/// Keeps runs in an SQLite file, which several processes of one machine may use at the same time. Clones share it.
///
/// The file is in WAL mode. Power-safe runs are written with `synchronous = FULL`, others with `NORMAL`. Every
/// statement is a hop to the thread of its connection, which costs tens of microseconds; a directory has none.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pub(crate) store: SqlStore,
}

impl SqliteStore {
    /// Opens the store in the file `path`, and makes it if it is not there. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io), [`Error::Full`](crate::Error::Full);
    /// [`Error::Unsupported`](crate::Error::Unsupported) if a later version made it.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, super::LEASE).await
    }

    /// As [`SqliteStore::open`], with leases that end after `lease` where their holder cannot renew them.
    ///
    /// # Errors
    ///
    /// As for [`SqliteStore::open`].
    pub async fn open_with(path: impl AsRef<Path>, lease: Duration) -> Result<Self> {
        let path = path.as_ref();
        make_private(path).map_err(|source| Error::io("open", path.display(), source))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let pool = |most: u32, synchronous| {
            let options = options.clone().synchronous(synchronous);
            SqlitePoolOptions::new()
                .max_connections(most)
                .acquire_timeout(BUSY * 2)
                .connect_lazy_with(options)
        };
        let driver = SqliteDriver {
            readers: pool(READERS, SqliteSynchronous::Normal),
            process: pool(1, SqliteSynchronous::Normal),
            power: pool(1, SqliteSynchronous::Full),
        };
        let store = SqlStore::open(Box::new(driver), lease).await?;
        Ok(Self { store })
    }

    /// The version of SQLite that is compiled in.
    ///
    /// # Errors
    ///
    /// Those of opening a database in memory.
    pub async fn version() -> Result<String> {
        let failed = |source| error("ask SQLite for its version", &source);
        let options = SqliteConnectOptions::from_str("sqlite::memory:").map_err(failed)?;
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(failed)?;
        let row = sqlx::query("SELECT sqlite_version()")
            .fetch_one(&pool)
            .await
            .map_err(failed)?;
        row.try_get(0).map_err(failed)
    }
}

/// Makes the file, if it is not there, so that only this user can read it: journals hold what people said. SQLite gives
/// the files that it makes beside it the same rights.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

#[derive(Debug)]
struct SqliteDriver {
    readers: SqlitePool,
    /// One writer each, because there can be only one at a time anyway.
    process: SqlitePool,
    power: SqlitePool,
}

impl SqliteDriver {
    fn pool(&self, access: Access) -> &SqlitePool {
        match access {
            Access::Read => &self.readers,
            Access::Write(Persist::Process) => &self.process,
            Access::Write(Persist::Power) => &self.power,
        }
    }
}

fn bind(sql: &str, values: Vec<Value>) -> sqlx::query::Query<'_, Sqlite, sqlx::sqlite::SqliteArguments> {
    let query = sqlx::query(AssertSqlSafe(sql));
    values.into_iter().fold(query, |query, value| match value {
        Value::Null | Value::NoText => query.bind(None::<String>),
        Value::NoNumber => query.bind(None::<i64>),
        Value::Number(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
        Value::Blob(bytes) => query.bind(Vec::from(bytes)),
    })
}

fn rows(rows: &[SqliteRow]) -> Result<Vec<Row>, sqlx::Error> {
    rows.iter().map(row).collect()
}

fn row(row: &SqliteRow) -> Result<Row, sqlx::Error> {
    let columns = row.columns().iter().map(|column| {
        let at = column.ordinal();
        let value = row.try_get_raw(at)?;
        if value.is_null() {
            return Ok(Value::Null);
        }
        let kind = value.type_info();
        match kind.name() {
            // Any column may hold anything; what it should be is decided by who takes it.
            "TEXT" | "BLOB" => {
                let bytes: Vec<u8> = row.try_get_unchecked(at)?;
                match String::from_utf8(bytes) {
                    Ok(text) if kind.name() == "TEXT" => Ok(Value::Text(text)),
                    Ok(text) => Ok(Value::Blob(text.into())),
                    Err(bytes) => Ok(Value::Blob(bytes.into_bytes().into())),
                }
            }
            _ => row.try_get_unchecked(at).map(Value::Number),
        }
    });
    columns.collect()
}

#[async_trait]
impl Driver for SqliteDriver {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn query(&self, access: Access, sql: String, values: Vec<Value>) -> Result<Vec<Row>> {
        let found = bind(&sql, values).fetch_all(self.pool(access)).await;
        found
            .and_then(|found| rows(&found))
            .map_err(|source| error("use SQLite", &source))
    }

    async fn begin(&self, access: Access) -> Result<Box<dyn Transaction>> {
        let pool = self.pool(access);
        // A transaction that reads first and writes later could find that somebody else wrote in between.
        let begun = match access {
            Access::Read => pool.begin().await,
            Access::Write(_) => pool.begin_with("BEGIN IMMEDIATE").await,
        };
        let begun = begun.map_err(|source| error("begin a transaction", &source))?;
        Ok(Box::new(SqliteTransaction(begun)))
    }
}

struct SqliteTransaction(sqlx::Transaction<'static, Sqlite>);

#[async_trait]
impl Transaction for SqliteTransaction {
    async fn query(&mut self, sql: &str, values: Vec<Value>) -> Result<Vec<Row>> {
        let found = bind(sql, values).fetch_all(&mut *self.0).await;
        found
            .and_then(|found| rows(&found))
            .map_err(|source| error("use SQLite", &source))
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        self.0.commit().await.map_err(|source| error("commit", &source))
    }
}

super::is_a_store!(SqliteStore);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn power_safe_is_written_with_full_synchronisation() {
        let folder = tempfile::TempDir::new().unwrap();
        let opened = SqliteStore::open(folder.path().join("runs.db")).await.unwrap();
        for (access, level) in [
            (Access::Write(Persist::Process), 1),
            (Access::Write(Persist::Power), 2),
        ] {
            let ask = async |pragma: &str| {
                let rows = opened
                    .store
                    .inner
                    .driver
                    .query(access, format!("PRAGMA {pragma}"), vec![])
                    .await;
                rows.unwrap().remove(0).remove(0)
            };
            assert_eq!(ask("synchronous").await, Value::Number(level));
            assert_eq!(ask("journal_mode").await, Value::Text("wal".to_owned()));
            assert_eq!(ask("foreign_keys").await, Value::Number(1));
        }
    }
}
