//! PostgreSQL.

use std::str::FromStr as _;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Column as _, Postgres, Row as _, TypeInfo as _, ValueRef as _};

use super::SqlStore;
use super::driver::{Access, Dialect, Driver, Row, Transaction, Value, error};
use crate::error::{Error, Result};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
const CONNECTIONS: u32 = 10;

static DIALECT: Dialect = Dialect {
    schema: &[
        // Two that make the tables at the same time would get in each other's way.
        "SELECT pg_advisory_xact_lock(7232016021601)",
        "CREATE TABLE IF NOT EXISTS peregrine_format (version BIGINT NOT NULL)",
        "INSERT INTO peregrine_format SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM peregrine_format)",
        r#"CREATE TABLE IF NOT EXISTS peregrine_runs (
            id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            scope BYTEA NOT NULL, run TEXT COLLATE "C" NOT NULL,
            origin_run TEXT, origin_at BIGINT,
            first BIGINT NOT NULL, next BIGINT NOT NULL,
            bytes BIGINT NOT NULL, updated BIGINT NOT NULL, removed BIGINT NOT NULL,
            token BIGINT NOT NULL, owner TEXT, expires BIGINT NOT NULL,
            UNIQUE (scope, run))"#,
        "CREATE INDEX IF NOT EXISTS peregrine_forks ON peregrine_runs (scope, origin_run)",
        "CREATE TABLE IF NOT EXISTS peregrine_records (
            run_id BIGINT NOT NULL REFERENCES peregrine_runs (id), seq BIGINT NOT NULL,
            snapshot BIGINT NOT NULL, frame BYTEA NOT NULL,
            PRIMARY KEY (run_id, seq))",
        "CREATE INDEX IF NOT EXISTS peregrine_snapshots ON peregrine_records (run_id, seq) WHERE snapshot = 1",
        "CREATE TABLE IF NOT EXISTS peregrine_parts (
            scope BYTEA NOT NULL, id BYTEA NOT NULL, content BYTEA NOT NULL,
            PRIMARY KEY (scope, id))",
        "CREATE TABLE IF NOT EXISTS peregrine_part_uses (
            scope BYTEA NOT NULL, id BYTEA NOT NULL,
            run_id BIGINT NOT NULL REFERENCES peregrine_runs (id), segment BIGINT NOT NULL,
            PRIMARY KEY (scope, id, run_id, segment),
            FOREIGN KEY (scope, id) REFERENCES peregrine_parts (scope, id))",
        "CREATE INDEX IF NOT EXISTS peregrine_uses_of ON peregrine_part_uses (run_id, segment)",
    ],
    now: "(extract(epoch FROM clock_timestamp()) * 1000)::bigint",
    for_share: " FOR SHARE",
    for_update: " FOR UPDATE",
    lock_parts: Some("SELECT pg_advisory_xact_lock(hashtextextended(encode($1, 'hex'), 7232016021602))"),
    append: |rows| {
        let values: Vec<_> = (0..rows)
            .map(|row| {
                format!(
                    "(${}::bigint, ${}::bigint, ${}::bytea)",
                    4 + 3 * row,
                    5 + 3 * row,
                    6 + 3 * row
                )
            })
            .collect();
        // One statement is its own transaction: a call that is cancelled leaves none open.
        format!(
            "WITH v (seq, snapshot, frame) AS (VALUES {}),
             run AS (UPDATE peregrine_runs SET next = next + (SELECT count(*) FROM v),
                bytes = bytes + (SELECT sum(length(frame)) FROM v),
                updated = (extract(epoch FROM clock_timestamp()) * 1000)::bigint
                WHERE id = $1 AND token = $2 AND next = $3 RETURNING id)
             INSERT INTO peregrine_records (run_id, seq, snapshot, frame)
             SELECT run.id, v.seq, v.snapshot, v.frame FROM run, v
             RETURNING seq",
            values.join(", ")
        )
    },
};

/// Keeps runs in PostgreSQL, for many processes on many machines. Clones share a pool of connections.
///
/// Records are committed synchronously, whatever a run asks for.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pub(crate) store: SqlStore,
}

impl PostgresStore {
    /// Connects to `url` and makes the tables (`peregrine_..`) in its default schema if they are not there. Needs a
    /// tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a URL that is none; [`Error::Unavailable`]; [`Error::Unsupported`] if a later version made
    /// the tables.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(url, super::LEASE).await
    }

    /// As [`PostgresStore::connect`], with leases that end after `lease` where their holder cannot renew them.
    ///
    /// # Errors
    ///
    /// As for [`PostgresStore::connect`].
    pub async fn connect_with(url: &str, lease: Duration) -> Result<Self> {
        // What is wrong with it is not said, because it may hold a password.
        let options = PgConnectOptions::from_str(url).map_err(|_| {
            Error::config("the URL of PostgreSQL has the form postgres://user:password@host:port/database")
        })?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT)
            .test_before_acquire(true)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // What is acknowledged must survive a crash of the server too, however it is set up.
                    let statement = sqlx::query("SET synchronous_commit = on");
                    statement.execute(connection).await.map(drop)
                })
            })
            .connect_lazy_with(options);
        let store = SqlStore::open(Box::new(PostgresDriver { pool }), lease).await?;
        Ok(Self { store })
    }
}

#[derive(Debug)]
struct PostgresDriver {
    pool: PgPool,
}

fn bind(sql: &str, values: Vec<Value>) -> sqlx::query::Query<'_, Postgres, sqlx::postgres::PgArguments> {
    let query = sqlx::query(AssertSqlSafe(sql));
    values.into_iter().fold(query, |query, value| match value {
        Value::Null | Value::NoText => query.bind(None::<String>),
        Value::NoNumber => query.bind(None::<i64>),
        Value::Number(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
        Value::Blob(bytes) => query.bind(Vec::from(bytes)),
    })
}

fn rows(rows: &[PgRow]) -> Result<Vec<Row>, sqlx::Error> {
    rows.iter().map(row).collect()
}

fn row(row: &PgRow) -> Result<Row, sqlx::Error> {
    let columns = row.columns().iter().map(|column| {
        let at = column.ordinal();
        let value = row.try_get_raw(at)?;
        if value.is_null() {
            return Ok(Value::Null);
        }
        let kind = value.type_info();
        match kind.name() {
            "INT8" => row.try_get(at).map(Value::Number),
            "INT4" => row
                .try_get::<i32, _>(at)
                .map(|number| Value::Number(number.into())),
            "TEXT" => row.try_get(at).map(Value::Text),
            "BYTEA" => row
                .try_get::<Vec<u8>, _>(at)
                .map(|bytes| Value::Blob(bytes.into())),
            _ => Ok(Value::Null),
        }
    });
    columns.collect()
}

#[async_trait]
impl Driver for PostgresDriver {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn query(&self, _: Access, sql: String, values: Vec<Value>) -> Result<Vec<Row>> {
        let found = bind(&sql, values).fetch_all(&self.pool).await;
        found
            .and_then(|found| rows(&found))
            .map_err(|source| error("use PostgreSQL", &source))
    }

    async fn begin(&self, _: Access) -> Result<Box<dyn Transaction>> {
        let begun = self.pool.begin().await;
        let begun = begun.map_err(|source| error("begin a transaction", &source))?;
        Ok(Box::new(PostgresTransaction(begun)))
    }
}

struct PostgresTransaction(sqlx::Transaction<'static, Postgres>);

#[async_trait]
impl Transaction for PostgresTransaction {
    async fn query(&mut self, sql: &str, values: Vec<Value>) -> Result<Vec<Row>> {
        let found = bind(sql, values).fetch_all(&mut *self.0).await;
        found
            .and_then(|found| rows(&found))
            .map_err(|source| error("use PostgreSQL", &source))
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        self.0.commit().await.map_err(|source| error("commit", &source))
    }
}

super::is_a_store!(PostgresStore);
