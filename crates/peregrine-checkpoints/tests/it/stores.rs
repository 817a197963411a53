//! The conformance suite on every store.

use std::sync::Arc;

use peregrine_checkpoints::{DirStore, MemoryStore, Store, async_trait, conformance};
use tempfile::TempDir;

struct Memory(MemoryStore);

#[async_trait]
impl conformance::Subject for Memory {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }
}

struct Directory(TempDir);

#[async_trait]
impl conformance::Subject for Directory {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(DirStore::open(self.0.path()).await.unwrap())
    }
}

#[tokio::test]
async fn memory_conforms() {
    conformance::run(&Memory(MemoryStore::new())).await;
}

#[tokio::test]
async fn a_directory_conforms() {
    conformance::run(&Directory(TempDir::new().unwrap())).await;
}

#[cfg(feature = "sqlite")]
struct Sqlite(TempDir);

#[cfg(feature = "sqlite")]
#[async_trait]
impl conformance::Subject for Sqlite {
    async fn open(&self) -> Arc<dyn Store> {
        let store = peregrine_checkpoints::SqliteStore::open(self.0.path().join("runs.db")).await;
        Arc::new(store.unwrap())
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_conforms() {
    conformance::run(&Sqlite(TempDir::new().unwrap())).await;
}

/// A schema of its own on the server, which goes when this does.
#[cfg(feature = "postgres")]
pub(crate) struct Schema {
    server: String,
    name: String,
}

#[cfg(feature = "postgres")]
impl Schema {
    pub(crate) async fn new(server: String) -> Self {
        let name = format!(
            "peregrine_checkpoints_{}_{}",
            std::process::id(),
            crate::child::unique()
        );
        let schema = Self { server, name };
        schema.execute(&format!("CREATE SCHEMA {}", schema.name)).await;
        schema
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The store in this schema.
    pub(crate) fn url(&self) -> String {
        let sign = if self.server.contains('?') { '&' } else { '?' };
        format!(
            "{}{sign}options[search_path]={}&application_name={}",
            self.server, self.name, self.name
        )
    }

    /// `host:port` of the server.
    #[cfg(feature = "sqlite")]
    pub(crate) fn address(&self) -> String {
        let rest = self.server.split_once("://").unwrap().1;
        let authority = rest.split(['/', '?']).next().unwrap();
        let address = authority
            .rsplit_once('@')
            .map_or(authority, |(_, address)| address);
        match address.rsplit_once(':') {
            Some(_) => address.to_owned(),
            None => format!("{address}:5432"),
        }
    }

    /// The store in this schema, with a relay on the way.
    #[cfg(feature = "sqlite")]
    pub(crate) fn url_through(&self, relay: &crate::cut::Relay) -> String {
        self.url().replacen(&self.address(), &relay.address(), 1)
    }

    pub(crate) async fn execute(&self, statement: &str) -> Vec<sqlx::postgres::PgRow> {
        use sqlx::Connection as _;
        let mut connection = sqlx::PgConnection::connect(&self.server).await.unwrap();
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        rows
    }

    pub(crate) async fn drop(self) {
        let disconnected = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}'",
            self.name
        );
        self.execute(&disconnected).await;
        self.execute(&format!("DROP SCHEMA {} CASCADE", self.name)).await;
    }
}

#[cfg(feature = "postgres")]
#[async_trait]
impl conformance::Subject for Schema {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(
            peregrine_checkpoints::PostgresStore::connect(&self.url())
                .await
                .unwrap(),
        )
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_conforms() {
    let Some(server) = peregrine_testkit::service::postgres() else {
        return;
    };
    let schema = Schema::new(server).await;
    conformance::run(&schema).await;
    schema.drop().await;
}
