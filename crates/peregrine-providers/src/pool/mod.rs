//! The pool: one entry for each address, shared by all models there.
//!
//! | file | what |
//! |---|---|
//! | `address` | what an entry is found by |
//! | `config` | how many entries there may be, and for how long unused |
//! | `entries` | [`Pool`]: finding, adding and evicting entries |
//!
//! An entry holds one HTTP client with its connections. It is added when an endpoint is asked for and built at the first
//! call, once. Endpoints hold their entry; an entry that nobody holds is idle and may be evicted, which closes its
//! connections; one that is held never is.
//!
//! Algorithm: a map from hash to entries behind a read-write lock, which is held for a look or an insertion and never
//! while anything is built or awaited. Whoever adds an entry evicts what has been idle for too long, and the longest idle
//! if there is no room. So nothing has to run in the background.

mod address;
mod config;
mod entries;

pub use address::Address;
pub use config::PoolConfig;
pub use entries::{Pool, PoolStats};
