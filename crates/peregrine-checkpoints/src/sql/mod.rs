//! Stores in databases: one logic, two databases.
//!
//! Every operation runs in a task of its own, to which its caller only listens: when a call is cancelled, no
//! transaction is left open in a connection that somebody else gets next. A lease is a row with an end, which a task of
//! the store renews as long as the store is there.
//!
//! Invariant: whatever changes a run says the token it believes in, in the same statement or transaction.

/// A public store that is an [`SqlStore`] inside.
macro_rules! is_a_store {
    ($name:ident) => {
        #[async_trait::async_trait]
        impl crate::store::Store for $name {
            async fn acquire(
                &self,
                key: &crate::RunKey,
                how: crate::store::Acquire,
            ) -> crate::Result<Box<dyn crate::store::RunWriter>> {
                self.store.acquire(key, how).await
            }

            async fn read(
                &self,
                key: &crate::RunKey,
                range: &crate::store::Range,
            ) -> crate::Result<crate::store::Stored> {
                self.store.read(key, range).await
            }

            async fn part(
                &self,
                key: &crate::RunKey,
                part: &crate::PartId,
                max_bytes: u64,
            ) -> crate::Result<bytes::Bytes> {
                self.store.part(key, part, max_bytes).await
            }

            async fn runs(
                &self,
                scope: &peregrine_core::Scope,
                after: Option<peregrine_core::RunId>,
                limit: usize,
            ) -> crate::Result<Vec<crate::RunInfo>> {
                self.store.runs(scope, after, limit).await
            }

            async fn remove(&self, key: &crate::RunKey) -> crate::Result<()> {
                self.store.remove(key).await
            }
        }
    };
}
use is_a_store;

mod driver;
mod owner;
#[cfg(feature = "postgres")]
mod postgres;
mod removal;
#[cfg(feature = "sqlite")]
mod sqlite;
mod writer;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use peregrine_core::{RunId, Scope, UnixTime};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use self::driver::{Access, Columns, Driver, Transaction, Value};
use self::owner::Owner;
#[cfg(feature = "postgres")]
pub use self::postgres::PostgresStore;
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteStore;
use self::writer::Writer;
use crate::error::{Error, Result};
use crate::record::{Origin, PartId, RunKey};
use crate::store::{Acquire, Begin, Chunk, Intent, Persist, Range, RunInfo, RunWriter, Store, Stored};

/// How long a lease lasts that its holder cannot renew.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
const FORMAT: u64 = 1;
/// A read that finds the run changed meanwhile looks again so often.
const LOOKS: usize = 4;

/// A store in a database.
#[derive(Debug, Clone)]
pub(crate) struct SqlStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    driver: Box<dyn Driver>,
    runtime: Handle,
    lease: Duration,
    /// The leases that this store holds: run to token.
    held: Mutex<HashMap<u64, u64>>,
    heartbeat: OnceLock<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(heartbeat) = self.heartbeat.get() {
            heartbeat.abort();
        }
    }
}

/// Runs an operation where its caller's end does not reach it.
async fn apart<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    runtime.spawn(work).await.unwrap_or_else(|_| Err(ended()))
}

fn ended() -> Error {
    Error::unavailable(
        "finish: the runtime was shut down",
        std::io::Error::other("the task was aborted"),
    )
}

impl SqlStore {
    async fn open(driver: Box<dyn Driver>, lease: Duration) -> Result<Self> {
        let runtime = Handle::try_current()
            .map_err(|_| Error::config("a store in a database is opened within a tokio runtime"))?;
        let inner = Arc::new(Inner {
            driver,
            runtime,
            lease,
            held: Mutex::default(),
            heartbeat: OnceLock::new(),
        });
        let of_task = Arc::clone(&inner);
        apart(&inner.runtime, async move { of_task.make_tables().await }).await?;
        Ok(Self { inner })
    }

    /// Does something with the database in a task.
    async fn run<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        apart(&self.inner.runtime, work(Arc::clone(&self.inner))).await
    }
}

impl Inner {
    async fn make_tables(&self) -> Result<()> {
        let mut transaction = self.driver.begin(Access::Write(Persist::Process)).await?;
        for statement in self.driver.dialect().schema {
            transaction.query(statement, vec![]).await?;
        }
        let rows = transaction
            .query("SELECT max(version) FROM peregrine_format", vec![])
            .await?;
        let found = first(rows)?.number()?;
        if found != FORMAT {
            return Err(Error::Unsupported {
                what: "format version",
                found: u32::try_from(found).unwrap_or(u32::MAX),
                known: 1,
            });
        }
        transaction.commit().await
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<u64, u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a lease from ending.
    fn hold(self: &Arc<Self>, id: u64, token: u64) {
        self.held().insert(id, token);
        self.heartbeat.get_or_init(|| {
            let (store, every) = (Arc::downgrade(self), self.lease / 3);
            self.runtime.spawn(renew(store, every))
        });
    }

    /// Stops keeping a lease.
    fn let_go(&self, id: u64, token: u64) {
        let mut held = self.held();
        if held.get(&id) == Some(&token) {
            held.remove(&id);
        }
    }

    fn lease_ms(&self) -> Value {
        Value::Number(i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX))
    }

    /// A statement with the time of the database in place of `NOW`.
    fn timed(&self, sql: &str) -> String {
        sql.replace("NOW", self.driver.dialect().now)
    }

    async fn acquire(self: Arc<Self>, key: RunKey, how: Acquire) -> Result<Writer> {
        let access = Access::Write(how.persist);
        let mut transaction = self.driver.begin(access).await?;
        if let Intent::Create(origin) = how.intent {
            self.create(&mut *transaction, &key, origin).await?;
        }
        let sql = self.timed(&format!(
            "SELECT id, token, owner, CASE WHEN expires > NOW THEN 1 ELSE 0 END, next, removed
             FROM peregrine_runs WHERE scope = $1 AND run = $2{}",
            self.driver.dialect().for_update
        ));
        let rows = transaction.query(&sql, key_values(&key)).await?;
        let mut row = rows
            .into_iter()
            .next()
            .map(Columns::of)
            .ok_or(Error::NotFound { run: key.run })?;
        let (id, token) = (row.number()?, row.number()?);
        let owner = row.optional_text()?.and_then(|owner| Owner::parse(&owner));
        let (lasts, next, removed) = (row.number()? == 1, row.number()?, row.number()? == 1);
        if removed {
            return Err(Error::NotFound { run: key.run });
        }
        if lasts && !how.takeover && owner.as_ref().is_some_and(|owner| !owner.is_gone()) {
            return Err(Error::Leased {
                run: key.run,
                holder: owner.map(|owner| Box::new(owner.holder())),
            });
        }
        let token = token + 1;
        let sql =
            self.timed("UPDATE peregrine_runs SET token = $2, owner = $3, expires = NOW + $4 WHERE id = $1");
        let values = vec![
            Value::number(id),
            Value::number(token),
            Value::Text(Owner::here(how.at).to_text()),
            self.lease_ms(),
        ];
        transaction.query(&sql, values).await?;
        // If the caller is gone, this is dropped unused, which gives the lease back.
        let writer = Writer::new(Arc::clone(&self), key, id, token, next, access);
        transaction.commit().await?;
        self.hold(id, token);
        Ok(writer)
    }

    async fn create(
        &self,
        transaction: &mut dyn Transaction,
        key: &RunKey,
        origin: Option<Origin>,
    ) -> Result<()> {
        if let Some(origin) = origin {
            // What is forked is not removed or trimmed before the fork shows.
            let sql = format!(
                "SELECT id FROM peregrine_runs WHERE scope = $1 AND run = $2{}",
                self.driver.dialect().for_share
            );
            let parent = transaction
                .query(&sql, key_values(&key.sibling(origin.run)))
                .await?;
            if parent.is_empty() {
                return Err(Error::NotFound { run: origin.run });
            }
        }
        let first = origin.map_or(0, |origin| origin.at);
        let mut values = key_values(key);
        values.extend([
            origin.map_or(Value::NoText, |origin| Value::Text(origin.run.to_string())),
            origin.map_or(Value::NoNumber, |origin| Value::number(origin.at)),
            Value::number(first),
        ]);
        let sql = self.timed(
            "INSERT INTO peregrine_runs
                (scope, run, origin_run, origin_at, first, next, bytes, updated, removed, token, expires)
             VALUES ($1, $2, $3, $4, $5, $5, 0, NOW, 0, 0, 0)
             ON CONFLICT (scope, run) DO NOTHING RETURNING id",
        );
        if transaction.query(&sql, values).await?.is_empty() {
            return Err(Error::AlreadyExists { run: key.run });
        }
        Ok(())
    }

    async fn read(&self, key: &RunKey, range: &Range) -> Result<Option<Stored>> {
        let sql = "SELECT id, origin_run, origin_at, first, next, removed
            FROM peregrine_runs WHERE scope = $1 AND run = $2";
        let rows = self
            .driver
            .query(Access::Read, sql.to_owned(), key_values(key))
            .await?;
        let mut row = rows
            .into_iter()
            .next()
            .map(Columns::of)
            .ok_or(Error::NotFound { run: key.run })?;
        let id = row.number()?;
        let origin = origin(row.optional_text()?, row.optional_number()?);
        let (first, next, removed) = (row.number()?, row.number()?, row.number()? == 1);
        if removed && !range.as_ancestor {
            return Err(Error::NotFound { run: key.run });
        }
        let upto = range.upto.unwrap_or(u64::MAX);
        let begin = match range.from {
            Begin::Start => first,
            Begin::Record(seq) => seq.min(next.saturating_sub(1)).max(first),
            Begin::Nothing => return Ok(Some(Stored::new(origin, first, vec![]))),
            Begin::LastSnapshot => {
                let sql =
                    "SELECT max(seq) FROM peregrine_records WHERE run_id = $1 AND snapshot = 1 AND seq < $2";
                let values = vec![Value::number(id), Value::number(upto)];
                let rows = self.driver.query(Access::Read, sql.to_owned(), values).await?;
                Columns::of(rows.into_iter().next().unwrap_or_default())
                    .optional_number()?
                    .unwrap_or(first)
            }
        };
        let span = vec![Value::number(id), Value::number(begin), Value::number(upto)];
        let sql = "SELECT CAST(coalesce(sum(length(frame)), 0) AS BIGINT) FROM peregrine_records
            WHERE run_id = $1 AND seq >= $2 AND seq < $3";
        // Bounded before it is brought here; what is appended meanwhile is little.
        let bytes = first_number(
            self.driver
                .query(Access::Read, sql.to_owned(), span.clone())
                .await?,
        )?;
        if bytes > range.max_bytes {
            return Err(Error::TooLarge {
                what: "a load",
                bytes,
                limit: range.max_bytes,
            });
        }
        let sql = "SELECT seq, snapshot, frame FROM peregrine_records
            WHERE run_id = $1 AND seq >= $2 AND seq < $3 ORDER BY seq";
        let rows = self.driver.query(Access::Read, sql.to_owned(), span).await?;
        if rows.is_empty() && begin < next.min(upto) {
            return Ok(None);
        }
        let mut frames = BytesMut::with_capacity(usize::try_from(bytes).unwrap_or(0));
        let mut head = None;
        let mut expected = None;
        for row in rows {
            let mut row = Columns::of(row);
            let (seq, snapshot) = (row.number()?, row.number()? == 1);
            head.get_or_insert((seq, snapshot));
            if expected.is_some_and(|expected| expected != seq) {
                let missing = expected.unwrap_or(seq);
                let why = "the row of a record is missing";
                return Err(Error::damaged(
                    key.run,
                    "peregrine_records",
                    frames.len() as u64,
                    missing,
                    why,
                ));
            }
            expected = Some(seq + 1);
            frames.extend_from_slice(&row.blob()?);
        }
        let chunks = head.map(|(first, snapshot)| {
            let place = format!("the rows of run {} from record {first}", key.run);
            Chunk::new(first, frames, place).with_snapshot(snapshot)
        });
        // The oldest may have been trimmed away between two looks.
        let first = match (range.from, head) {
            (Begin::Start, Some((found, _))) => found,
            _ => first,
        };
        Ok(Some(Stored::new(origin, first, chunks.into_iter().collect())))
    }

    async fn part(&self, key: &RunKey, part: &PartId, max_bytes: u64) -> Result<Bytes> {
        let name = vec![
            Value::Blob(key.scope.key().into()),
            Value::Blob(Bytes::copy_from_slice(&part.0)),
        ];
        let sql = "SELECT CAST(length(content) AS BIGINT) FROM peregrine_parts WHERE scope = $1 AND id = $2";
        let rows = self
            .driver
            .query(Access::Read, sql.to_owned(), name.clone())
            .await?;
        let missing = Error::NotFound { run: key.run };
        let mut row = rows
            .into_iter()
            .next()
            .map(Columns::of)
            .ok_or_else(|| missing.clone())?;
        let bytes = row.number()?;
        if bytes > max_bytes {
            return Err(Error::TooLarge {
                what: "a part",
                bytes,
                limit: max_bytes,
            });
        }
        let sql = "SELECT content FROM peregrine_parts WHERE scope = $1 AND id = $2";
        let rows = self.driver.query(Access::Read, sql.to_owned(), name).await?;
        rows.into_iter().next().map(Columns::of).ok_or(missing)?.blob()
    }

    async fn runs(&self, scope: &Scope, after: Option<RunId>, limit: usize) -> Result<Vec<RunInfo>> {
        let sql = self.timed(
            "SELECT run, origin_run, origin_at, updated, bytes, owner, CASE WHEN expires > NOW THEN 1 ELSE 0 END
             FROM peregrine_runs WHERE scope = $1 AND run > $2 AND removed = 0
             ORDER BY run LIMIT $3",
        );
        let values = vec![
            Value::Blob(scope.key().into()),
            Value::Text(after.map_or_else(String::new, |run| run.to_string())),
            Value::number(limit as u64),
        ];
        let mut runs = Vec::new();
        for row in self.driver.query(Access::Read, sql, values).await? {
            let mut row = Columns::of(row);
            let Ok(run) = row.text()?.parse() else { continue };
            let origin = origin(row.optional_text()?, row.optional_number()?);
            let (updated, bytes) = (UnixTime(row.number()?), row.number()?);
            let owner = row.optional_text()?.and_then(|owner| Owner::parse(&owner));
            let lasts = row.number()? == 1;
            runs.push(RunInfo {
                origin,
                holder: owner
                    .filter(|owner| lasts && !owner.is_gone())
                    .map(|owner| owner.holder()),
                ..RunInfo::new(run, updated, bytes)
            });
        }
        Ok(runs)
    }
}

fn key_values(key: &RunKey) -> Vec<Value> {
    vec![
        Value::Blob(key.scope.key().into()),
        Value::Text(key.run.to_string()),
    ]
}

fn origin(run: Option<String>, at: Option<u64>) -> Option<Origin> {
    Some(Origin {
        run: run?.parse().ok()?,
        at: at?,
    })
}

fn first(rows: Vec<driver::Row>) -> Result<Columns> {
    Ok(Columns::of(rows.into_iter().next().unwrap_or_default()))
}

fn first_number(rows: Vec<driver::Row>) -> Result<u64> {
    first(rows)?.number()
}

/// Renews the leases of a store until it is gone.
async fn renew(store: Weak<Inner>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(store) = store.upgrade() else { return };
        let held: Vec<(u64, u64)> = store.held().iter().map(|(id, token)| (*id, *token)).collect();
        for (id, token) in held {
            let sql = store.timed(
                "UPDATE peregrine_runs SET expires = NOW + $3 WHERE id = $1 AND token = $2 RETURNING id",
            );
            let values = vec![Value::number(id), Value::number(token), store.lease_ms()];
            let renewed = store
                .driver
                .query(Access::Write(Persist::Process), sql, values)
                .await;
            // A lease that was taken over is not renewed again. One that could not be reached is tried next time; if it
            // ends meanwhile, the token still protects the run.
            if renewed.is_ok_and(|rows| rows.is_empty()) {
                store.held().remove(&id);
            }
        }
    }
}

#[async_trait]
impl Store for SqlStore {
    async fn acquire(&self, key: &RunKey, how: Acquire) -> Result<Box<dyn RunWriter>> {
        let key = key.clone();
        let writer = self.run(|inner| inner.acquire(key, how)).await?;
        Ok(Box::new(writer))
    }

    async fn read(&self, key: &RunKey, range: &Range) -> Result<Stored> {
        let (key, range) = (key.clone(), *range);
        self.run(|inner| async move {
            for _ in 0..LOOKS {
                if let Some(stored) = inner.read(&key, &range).await? {
                    return Ok(stored);
                }
            }
            let why = "the rows of its records are missing";
            Err(Error::damaged(key.run, "peregrine_records", 0, 0, why))
        })
        .await
    }

    async fn part(&self, key: &RunKey, part: &PartId, max_bytes: u64) -> Result<Bytes> {
        let (key, part) = (key.clone(), *part);
        self.run(|inner| async move { inner.part(&key, &part, max_bytes).await })
            .await
    }

    async fn runs(&self, scope: &Scope, after: Option<RunId>, limit: usize) -> Result<Vec<RunInfo>> {
        let scope = scope.clone();
        self.run(|inner| async move { inner.runs(&scope, after, limit).await })
            .await
    }

    async fn remove(&self, key: &RunKey) -> Result<()> {
        let key = key.clone();
        self.run(|inner| async move { inner.remove(&key).await }).await
    }
}
