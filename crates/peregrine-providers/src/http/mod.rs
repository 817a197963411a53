//! Moving a codec's bytes over HTTP, with the client of one entry of the pool.
//!
//! Invariants: nothing is built, validated or connected before the first call; the credential is read then
//! and stays in a header marked sensitive; redirects are never followed, so neither key nor body can leave
//! the origin that was configured; every wait has a limit and every buffer a bound.
//!
//! | file | what |
//! |---|---|
//! | `client` | the client of one entry: connections, TLS, proxies |
//! | `config` | time limits and bounds |
//! | `endpoint` | one place that answers, with limits for its calls |
//! | `entry` | an entry of the pool: its client, built at the first call |
//! | `per_model` | what the models of an entry have learnt about it |
//! | `exchange` | sending one request and reading the answer, with limits |
//! | `chat`, `embed` | the models |
//! | `streaming` | a streamed answer |

mod chat;
mod client;
mod clock;
mod config;
mod embed;
mod endpoint;
mod entry;
mod exchange;
mod per_model;
mod streaming;

pub use chat::RemoteModel;
pub use clock::TokioClock;
pub use config::HttpConfig;
pub(crate) use entry::{Connecting, Entry};
pub(crate) use exchange::get;

pub use embed::RemoteEmbedder;
pub use endpoint::{Auth, Credential, Endpoint};
