//! What differs between databases, as small as it can be: values, transactions, errors, a few words of SQL.

use std::fmt;
use std::io;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, Result};
use crate::store::Persist;

/// A value that goes to or comes from a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// No value, in a row.
    Null,
    /// No text, and no number: what goes to a database has a type.
    NoText,
    NoNumber,
    Number(i64),
    Text(String),
    Blob(Bytes),
}

/// A row, by the order of its columns.
pub(crate) type Row = Vec<Value>;

/// What statements are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write(Persist),
}

/// A database.
#[async_trait]
pub(crate) trait Driver: fmt::Debug + Send + Sync + 'static {
    fn dialect(&self) -> &'static Dialect;

    /// One statement, which is its own transaction.
    async fn query(&self, access: Access, sql: String, values: Vec<Value>) -> Result<Vec<Row>>;

    /// Several statements. What is not committed is rolled back.
    async fn begin(&self, access: Access) -> Result<Box<dyn Transaction>>;
}

/// Several statements that happen together.
#[async_trait]
pub(crate) trait Transaction: Send {
    async fn query(&mut self, sql: &str, values: Vec<Value>) -> Result<Vec<Row>>;

    async fn commit(self: Box<Self>) -> Result<()>;
}

/// The words that differ.
#[derive(Debug)]
pub(crate) struct Dialect {
    /// Makes the tables, one statement after the other. Each can be run again.
    pub(crate) schema: &'static [&'static str],
    /// The time of the database in Unix milliseconds. Leases are reckoned by it alone, so that the clocks of its
    /// clients do not matter.
    pub(crate) now: &'static str,
    /// Behind a `SELECT` whose rows are to stay as they are until the transaction ends.
    pub(crate) for_share: &'static str,
    pub(crate) for_update: &'static str,
    /// Keeps two transactions that change the parts of a scope (`$1`) from overtaking each other.
    pub(crate) lock_parts: Option<&'static str>,
    /// The statement that appends so many records: to the run `$1`, if its token is `$2` and its next number `$3`; then
    /// number, whether it is a snapshot, and frame of each. Returns a row for each that was appended.
    pub(crate) append: fn(rows: usize) -> String,
}

impl Value {
    pub(crate) fn number(value: u64) -> Self {
        // Numbers of records and bytes stay far below; if one did not, it would not be found.
        Self::Number(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

/// Takes the columns of a row one after the other, as what they should be.
pub(crate) struct Columns(std::vec::IntoIter<Value>);

impl Columns {
    pub(crate) fn of(row: Row) -> Self {
        Self(row.into_iter())
    }

    pub(crate) fn number(&mut self) -> Result<u64> {
        self.optional_number()?.ok_or_else(wrong_row)
    }

    pub(crate) fn optional_number(&mut self) -> Result<Option<u64>> {
        match self.0.next() {
            Some(Value::Number(number)) => u64::try_from(number).map(Some).map_err(|_| wrong_row()),
            Some(Value::Null) => Ok(None),
            _ => Err(wrong_row()),
        }
    }

    pub(crate) fn optional_text(&mut self) -> Result<Option<String>> {
        match self.0.next() {
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Null) => Ok(None),
            _ => Err(wrong_row()),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        self.optional_text()?.ok_or_else(wrong_row)
    }

    pub(crate) fn blob(&mut self) -> Result<Bytes> {
        match self.0.next() {
            Some(Value::Blob(bytes)) => Ok(bytes),
            Some(Value::Text(text)) => Ok(text.into()),
            _ => Err(wrong_row()),
        }
    }
}

fn wrong_row() -> Error {
    Error::io(
        "read a row of",
        "the database",
        io::Error::new(io::ErrorKind::InvalidData, "a column is not what it should be"),
    )
}

/// What a database said, without the types of its client and without the data in it.
#[derive(Debug)]
struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}

/// From the client's error to ours.
pub(crate) fn error(action: &'static str, error: &sqlx::Error) -> Error {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    let code = code.as_deref().unwrap_or_default();
    let said = match error.as_database_error() {
        Some(database) => Said(format!("{} ({code})", database.message())),
        None => Said(error.to_string()),
    };
    // SQLite says numbers (extended codes have the primary one in their low byte), PostgreSQL five letters.
    let sqlite = (code.len() < 5)
        .then(|| code.parse::<u32>().ok())
        .flatten()
        .map(|code| code & 0xff);
    let is_full = sqlite == Some(13) || code.starts_with("53100");
    let may_pass = matches!(sqlite, Some(5 | 6))
        || ["08", "40", "53", "55P03", "57P"]
            .iter()
            .any(|class| code.starts_with(class) && sqlite.is_none())
        || matches!(
            error,
            sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
        );
    if is_full {
        Error::Full {
            action,
            source: std::sync::Arc::new(said),
        }
    } else if may_pass {
        Error::unavailable(action, said)
    } else {
        Error::Io {
            action,
            place: "the database".to_owned(),
            source: std::sync::Arc::new(said),
        }
    }
}
