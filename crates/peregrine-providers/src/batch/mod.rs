//! Fewer calls for the same work.
//!
//! | file | what |
//! |---|---|
//! | `embed` | [`EmbedBatcher`]: texts deduplicated, packed and embedded side by side, each with a result of its own |
//! | `bisect` | one batch: what fails is halved until the bad item stands alone |
//! | `pack` | which texts go into one call |
//! | `cache` | vectors by what was embedded |
//! | `flight` | results that one makes and others wait for |
//! | `requests` | [`Coalesce`]: equal small requests within a window share one call |
//!
//! Nothing is spawned. Whoever makes a result that others wait for makes it on its own task; if it is dropped, one of
//! those who wait takes over. So a future that is held but not polled keeps others waiting.

mod bisect;
mod cache;
mod embed;
mod flight;
mod pack;
mod requests;

pub use cache::EmbedCache;
pub use embed::{EmbedBatchPolicy, EmbedBatcher, EmbedStats, Embedded, Vector};
pub use requests::{Coalesce, CoalescePolicy, CoalesceStats};
