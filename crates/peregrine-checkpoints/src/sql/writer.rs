//! Appending to a run in a database.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinHandle;

use super::driver::{Access, Columns, Transaction, Value};
use super::removal::{drop_records, forks};
use super::{Inner, ended, first, first_number, origin};
use crate::error::{Error, Result};
use crate::history::Tail;
use crate::record::{PartId, RunKey};
use crate::store::{Batch, Lease, RunWriter, out_of_order};

/// So many records go into one statement.
const ROWS: usize = 64;

/// The writer of a run.
#[derive(Debug)]
pub(crate) struct Writer {
    store: Arc<Inner>,
    key: RunKey,
    id: u64,
    token: u64,
    access: Access,
    next: u64,
    /// The first record of the current segment, once it is needed.
    segment: Option<u64>,
    /// An append whose caller did not wait for its end.
    under_way: Option<JoinHandle<Result<u64>>>,
    released: bool,
}

impl Writer {
    pub(crate) fn new(
        store: Arc<Inner>,
        key: RunKey,
        id: u64,
        token: u64,
        next: u64,
        access: Access,
    ) -> Self {
        Self {
            store,
            key,
            id,
            token,
            access,
            next,
            segment: None,
            under_way: None,
            released: false,
        }
    }

    fn claim(&self) -> Claim {
        Claim {
            store: Arc::clone(&self.store),
            key: self.key.clone(),
            id: self.id,
            token: self.token,
            access: self.access,
        }
    }

    /// Does something in a task.
    async fn apart<T, F>(&self, work: impl FnOnce(Claim) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        super::apart(&self.store.runtime, work(self.claim())).await
    }

    async fn finish_under_way(&mut self) {
        if let Some(task) = &mut self.under_way {
            // What it came to, the database says.
            let _told = task.await;
            self.under_way = None;
        }
    }
}

/// What a statement must say to change a run.
struct Claim {
    store: Arc<Inner>,
    key: RunKey,
    id: u64,
    token: u64,
    access: Access,
}

/// A batch that owns its bytes.
struct Owned {
    first: u64,
    frames: Vec<Bytes>,
    begins_segment: bool,
    parts: Vec<(PartId, Bytes)>,
    segment: Option<u64>,
}

impl Claim {
    fn fenced(&self) -> Error {
        Error::Fenced {
            run: self.key.run,
            token: self.token,
        }
    }

    fn values(&self) -> Vec<Value> {
        vec![Value::number(self.id), Value::number(self.token)]
    }

    /// The number of the next record, if the claim still holds.
    async fn next(&self) -> Result<u64> {
        let sql = "SELECT next FROM peregrine_runs WHERE id = $1 AND token = $2";
        let rows = self
            .store
            .driver
            .query(self.access, sql.to_owned(), self.values())
            .await?;
        let row = rows.into_iter().next().ok_or_else(|| self.fenced())?;
        Columns::of(row).number()
    }

    fn statement(&self, batch: &Owned, from: usize, to: usize) -> (String, Vec<Value>) {
        let mut values = self.values();
        values.push(Value::number(batch.first + from as u64));
        for (place, frame) in batch.frames.iter().enumerate().take(to).skip(from) {
            values.extend([
                Value::number(batch.first + place as u64),
                Value::Number((batch.begins_segment && place == 0).into()),
                Value::Blob(frame.clone()),
            ]);
        }
        ((self.store.driver.dialect().append)(to - from), values)
    }

    /// Appends, and returns the first record of the segment that is current then.
    async fn append(self, batch: Owned) -> Result<u64> {
        let count = batch.frames.len();
        let mut segment = match (batch.begins_segment, batch.segment) {
            (true, _) => Some(batch.first),
            (false, known) => known,
        };
        let appended = if batch.parts.is_empty() && count <= ROWS {
            let (sql, values) = self.statement(&batch, 0, count);
            self.store.driver.query(self.access, sql, values).await?.len()
        } else {
            let mut transaction = self.store.driver.begin(self.access).await?;
            let mut appended = 0;
            for from in (0..count).step_by(ROWS) {
                let (sql, values) = self.statement(&batch, from, (from + ROWS).min(count));
                appended += transaction.query(&sql, values).await?.len();
            }
            if appended == count && !batch.parts.is_empty() {
                let current = match segment {
                    Some(current) => current,
                    None => self.segment(&mut *transaction).await?,
                };
                segment = Some(current);
                self.put_parts(&mut *transaction, current, &batch.parts).await?;
            }
            if appended == count {
                transaction.commit().await?;
            }
            appended
        };
        if appended == count {
            return Ok(segment.unwrap_or(u64::MAX));
        }
        let next = self.next().await?;
        Err(out_of_order(batch.first, next))
    }

    async fn segment(&self, transaction: &mut dyn Transaction) -> Result<u64> {
        let sql = "SELECT coalesce(
                (SELECT max(seq) FROM peregrine_records WHERE run_id = $1 AND snapshot = 1),
                (SELECT first FROM peregrine_runs WHERE id = $1))";
        first_number(transaction.query(sql, vec![Value::number(self.id)]).await?)
    }

    async fn put_parts(
        &self,
        transaction: &mut dyn Transaction,
        segment: u64,
        parts: &[(PartId, Bytes)],
    ) -> Result<()> {
        self.store.lock_parts(transaction, &self.key.scope).await?;
        for (id, content) in parts {
            let name = || {
                vec![
                    Value::Blob(self.key.scope.key().into()),
                    Value::Blob(Bytes::copy_from_slice(&id.0)),
                ]
            };
            let mut values = name();
            values.push(Value::Blob(content.clone()));
            let sql = "INSERT INTO peregrine_parts (scope, id, content) VALUES ($1, $2, $3)
                ON CONFLICT (scope, id) DO NOTHING";
            transaction.query(sql, values).await?;
            let mut values = name();
            values.extend([Value::number(self.id), Value::number(segment)]);
            let sql = "INSERT INTO peregrine_part_uses (scope, id, run_id, segment) VALUES ($1, $2, $3, $4)
                ON CONFLICT (scope, id, run_id, segment) DO NOTHING";
            transaction.query(sql, values).await?;
        }
        Ok(())
    }

    async fn trim(self, before: u64) -> Result<u64> {
        let store = &self.store;
        let mut transaction = store.driver.begin(self.access).await?;
        let sql = format!(
            "SELECT first, origin_run, origin_at FROM peregrine_runs WHERE id = $1 AND token = $2{}",
            store.driver.dialect().for_update
        );
        let rows = transaction.query(&sql, self.values()).await?;
        let mut row = rows
            .into_iter()
            .next()
            .map(Columns::of)
            .ok_or_else(|| self.fenced())?;
        let begin = row.number()?;
        let origin = origin(row.optional_text()?, row.optional_number()?);
        let span = |to: u64| vec![Value::number(self.id), Value::number(to)];
        let sql = "SELECT max(seq) FROM peregrine_records WHERE run_id = $1 AND snapshot = 1 AND seq <= $2";
        let snapshot = first(transaction.query(sql, span(before)).await?)?.optional_number()?;
        let Some(snapshot) = snapshot.filter(|snapshot| *snapshot > begin) else {
            return Ok(begin);
        };
        if forks(&mut *transaction, &self.key)
            .await?
            .iter()
            .any(|at| *at > begin)
        {
            return Ok(begin);
        }
        let sql =
            "UPDATE peregrine_runs SET first = $2, bytes = bytes - (SELECT coalesce(sum(length(frame)), 0)
            FROM peregrine_records WHERE run_id = $1 AND seq < $2) WHERE id = $1";
        transaction.query(sql, span(snapshot)).await?;
        store.lock_parts(&mut *transaction, &self.key.scope).await?;
        drop_records(&mut *transaction, &self.key.scope, self.id, snapshot).await?;
        // Without its first records, the run no longer needs what it was forked from.
        if let Some(origin) = origin {
            store
                .collect(&mut *transaction, &self.key.sibling(origin.run))
                .await?;
        }
        transaction.commit().await?;
        Ok(snapshot)
    }

    async fn release(self) -> Result<()> {
        let sql = "UPDATE peregrine_runs SET owner = NULL, expires = 0 WHERE id = $1 AND token = $2";
        self.store
            .driver
            .query(self.access, sql.to_owned(), self.values())
            .await
            .map(drop)
    }
}

#[async_trait]
impl RunWriter for Writer {
    fn lease(&self) -> Lease {
        Lease { token: self.token }
    }

    async fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        self.finish_under_way().await;
        if batch.first != self.next {
            return Err(out_of_order(batch.first, self.next));
        }
        if batch.ends.is_empty() {
            return Ok(());
        }
        let frames = Bytes::copy_from_slice(batch.frames);
        let mut start = 0;
        let slices = batch
            .ends
            .iter()
            .map(|end| frames.slice(std::mem::replace(&mut start, *end)..*end));
        let owned = Owned {
            first: batch.first,
            frames: slices.collect(),
            begins_segment: batch.begins_segment,
            parts: batch.parts.to_vec(),
            segment: self.segment,
        };
        let task = self.store.runtime.spawn(self.claim().append(owned));
        let task = self.under_way.insert(task);
        let outcome = task.await.unwrap_or_else(|_| Err(ended()));
        self.under_way = None;
        let segment = outcome?;
        self.segment = Some(segment).filter(|segment| *segment != u64::MAX);
        self.next = batch.next();
        Ok(())
    }

    fn cut(&self) -> Option<Tail> {
        // A transaction is there or not.
        None
    }

    async fn settle(&mut self) -> Result<u64> {
        self.finish_under_way().await;
        // A segment may have begun without our knowing.
        self.segment = None;
        self.next = self.apart(|claim| async move { claim.next().await }).await?;
        Ok(self.next)
    }

    async fn trim(&mut self, before: u64) -> Result<u64> {
        self.finish_under_way().await;
        self.apart(|claim| claim.trim(before)).await
    }

    async fn release(mut self: Box<Self>) -> Result<()> {
        self.finish_under_way().await;
        self.store.let_go(self.id, self.token);
        self.apart(Claim::release).await?;
        self.released = true;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.released {
            self.store.let_go(self.id, self.token);
            // An append that is under way finishes first, because the lease is what keeps others from the run.
            let (claim, under_way) = (self.claim(), self.under_way.take());
            self.store.runtime.spawn(async move {
                if let Some(under_way) = under_way {
                    let _told = under_way.await;
                }
                // If it cannot be given back, it ends.
                let _ends = claim.release().await;
            });
        }
    }
}
