//! From a URI to a store.

use std::sync::Arc;

use crate::dir::DirStore;
use crate::error::{Error, Result};
use crate::memory::MemoryStore;
use crate::store::Store;

/// Opens the store that `uri` names. See [`Checkpoints::open`](crate::Checkpoints::open).
pub(crate) async fn open(uri: &str) -> Result<Arc<dyn Store>> {
    let (scheme, rest) = uri.split_once(':').unwrap_or((uri, ""));
    match scheme {
        "memory" if rest.is_empty() => Ok(Arc::new(MemoryStore::new())),
        "dir" if !rest.is_empty() => Ok(Arc::new(DirStore::open(rest).await?)),
        #[cfg(feature = "sqlite")]
        "sqlite" if !rest.is_empty() => {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            Ok(Arc::new(crate::SqliteStore::open(path).await?))
        }
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => Ok(Arc::new(crate::PostgresStore::connect(uri).await?)),
        // What stands behind the scheme may hold a password.
        _ => Err(Error::config(format!(
            "`{scheme}:` names no store that is built in; there are {}",
            known()
        ))),
    }
}

fn known() -> String {
    let mut known = vec!["memory:", "dir:PATH"];
    if cfg!(feature = "sqlite") {
        known.push("sqlite:PATH");
    }
    if cfg!(feature = "postgres") {
        known.push("postgres://..");
    }
    known.join(", ")
}
