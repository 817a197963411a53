//! Removing runs from a database, and what is left of them when the last fork is gone.

use peregrine_core::Scope;

use super::driver::{Access, Columns, Transaction, Value};
use super::owner::Owner;
use super::{Inner, key_values, origin};
use crate::error::{Error, Result};
use crate::record::RunKey;
use crate::store::Persist;

impl Inner {
    pub(super) async fn remove(&self, key: &RunKey) -> Result<()> {
        let mut transaction = self.driver.begin(Access::Write(Persist::Process)).await?;
        let sql = self.timed(&format!(
            "SELECT id, owner, CASE WHEN expires > NOW THEN 1 ELSE 0 END, removed
             FROM peregrine_runs WHERE scope = $1 AND run = $2{}",
            self.driver.dialect().for_update
        ));
        let rows = transaction.query(&sql, key_values(key)).await?;
        let mut row = rows
            .into_iter()
            .next()
            .map(Columns::of)
            .ok_or(Error::NotFound { run: key.run })?;
        let id = row.number()?;
        let owner = row.optional_text()?.and_then(|owner| Owner::parse(&owner));
        let (lasts, removed) = (row.number()? == 1, row.number()? == 1);
        if removed {
            return Err(Error::NotFound { run: key.run });
        }
        if let Some(owner) = owner.filter(|owner| lasts && !owner.is_gone()) {
            return Err(Error::Leased {
                run: key.run,
                holder: Some(Box::new(owner.holder())),
            });
        }
        // The token too: a holder whose lease had ended must not go on.
        let sql = "UPDATE peregrine_runs SET removed = 1, token = token + 1, owner = NULL WHERE id = $1";
        transaction.query(sql, vec![Value::number(id)]).await?;
        self.collect(&mut *transaction, key).await?;
        transaction.commit().await
    }

    /// Deletes a run that is marked as removed, if no fork needs it; then the one it was forked from, and so on.
    pub(super) async fn collect(&self, transaction: &mut dyn Transaction, key: &RunKey) -> Result<()> {
        self.lock_parts(transaction, &key.scope).await?;
        let mut next = Some(key.clone());
        while let Some(key) = next.take() {
            let sql = format!(
                "SELECT id, origin_run, origin_at, removed FROM peregrine_runs WHERE scope = $1 AND run = $2{}",
                self.driver.dialect().for_update
            );
            let Some(row) = transaction
                .query(&sql, key_values(&key))
                .await?
                .into_iter()
                .next()
            else {
                return Ok(());
            };
            let mut row = Columns::of(row);
            let id = row.number()?;
            let origin = origin(row.optional_text()?, row.optional_number()?);
            if row.number()? == 0 || !forks(transaction, &key).await?.is_empty() {
                return Ok(());
            }
            drop_records(transaction, &key.scope, id, u64::MAX).await?;
            let sql = "DELETE FROM peregrine_runs WHERE id = $1";
            transaction.query(sql, vec![Value::number(id)]).await?;
            next = origin.map(|origin| key.sibling(origin.run));
        }
        Ok(())
    }

    pub(super) async fn lock_parts(&self, transaction: &mut dyn Transaction, scope: &Scope) -> Result<()> {
        if let Some(sql) = self.driver.dialect().lock_parts {
            transaction
                .query(sql, vec![Value::Blob(scope.key().into())])
                .await?;
        }
        Ok(())
    }
}

/// How many records each fork shares that still needs what it shares: one that was trimmed does not.
pub(super) async fn forks(transaction: &mut dyn Transaction, key: &RunKey) -> Result<Vec<u64>> {
    let sql =
        "SELECT origin_at FROM peregrine_runs WHERE scope = $1 AND origin_run = $2 AND first = origin_at";
    let rows = transaction.query(sql, key_values(key)).await?;
    rows.into_iter().map(|row| Columns::of(row).number()).collect()
}

/// Deletes the records before `before`, and the parts that nobody names any more.
pub(super) async fn drop_records(
    transaction: &mut dyn Transaction,
    scope: &Scope,
    id: u64,
    before: u64,
) -> Result<()> {
    let span = || vec![Value::number(id), Value::number(before)];
    transaction
        .query(
            "DELETE FROM peregrine_records WHERE run_id = $1 AND seq < $2",
            span(),
        )
        .await?;
    let sql = "DELETE FROM peregrine_part_uses WHERE run_id = $1 AND segment < $2 RETURNING id";
    for row in transaction.query(sql, span()).await? {
        let name = vec![
            Value::Blob(scope.key().into()),
            Value::Blob(Columns::of(row).blob()?),
        ];
        let sql = "DELETE FROM peregrine_parts WHERE scope = $1 AND id = $2 AND NOT EXISTS
            (SELECT 1 FROM peregrine_part_uses WHERE scope = $1 AND id = $2)";
        transaction.query(sql, name).await?;
    }
    Ok(())
}
