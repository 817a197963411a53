//! Rate limits for calls of language models: requests and tokens per minute, concurrency, and what a provider never tells.
//!
//! A [`Limiter`] lets requests through at the rate that a provider takes. A request asks with an estimate, is let through,
//! and settles with what it really used; what was too much is given back, what was too little is owed.
//!
//! ```
//! # #[cfg(not(feature = "tokio"))]
//! # fn main() {}
//! # #[cfg(feature = "tokio")]
//! # fn main() {
//! use peregrine_limits::{Ask, Learning, Limiter, Limits, TokioTimer, tokens};
//!
//! # async fn call(prompt: &str) -> (String, u64) { (prompt.to_owned(), 17) }
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let limits = Limits::new()
//!     .with_requests_per_minute(500)
//!     .with_tokens_per_minute(200_000)
//!     .with_concurrency(64)
//!     .with_learning(Learning::new());
//! let limiter = Limiter::new(limits, TokioTimer::new())?;
//!
//! let prompt = "Why is the sky blue?";
//! let permit = limiter.acquire(Ask::tokens(tokens::estimate(prompt) + 200).for_tenant("acme")).await?;
//! let (answer, used) = call(prompt).await;
//! permit.settle(used);
//! # assert_eq!(answer, prompt);
//! # Ok::<(), peregrine_limits::Error>(())
//! # }).unwrap();
//! # }
//! ```
//!
//! # What holds
//!
//! - **In any span of time** no more is let through than the burst (or one request that is larger than it) and what the
//!   rate gives, in exact integers. A clock that goes back changes nothing. With the default burst no minute has more than
//!   the limit, wherever it begins, as long as no single request is larger than the burst.
//! - **Fair.** Tenants that wait take turns by what their requests cost, whatever their number and size; within a tenant
//!   first come, first served. Nobody passes somebody who waits.
//! - **No wait without an end.** More than a minute has is [`Error::TooLarge`] at once. The queue is bounded.
//! - **Nothing is lost.** Dropping a future or a permit at any point leaves nothing behind.
//! - **O(1)**, nothing is spawned, no lock is held while waiting; whoever is next keeps the one timer that matters.
//!
//! # Learning
//!
//! With [`Learning`] the limits follow the provider, between a floor and a ceiling: what it announces
//! ([`Signals`]: `x-ratelimit-*`, `anthropic-ratelimit-*`) is believed; what it hides is found by additive increase and
//! multiplicative decrease on its 429s, of which about one in a thousand requests is spent. `retry-after` is kept by
//! everybody, learning or not.
//!
//! # Features
//!
//! None is on by default; without them this crate knows no runtime and nothing else of Peregrine.
//!
//! | feature | adds |
//! |---|---|
//! | `tokio` | [`TokioTimer`](struct.TokioTimer.html) |
//! | `layer` | [`RateLimit`](struct.RateLimit.html), a layer around a model of `peregrine-core`; [`LimitedEmbedder`](struct.LimitedEmbedder.html) |
//! | `redis` | [`SharedConfig`](struct.SharedConfig.html): one limit for many processes |
//! | `tiktoken` | [`tokens::Tokenizer`](tokens/struct.Tokenizer.html): exact counting for OpenAI's models |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod admission;
mod bucket;
mod config;
mod error;
#[cfg(feature = "layer")]
mod layer;
mod learn;
mod limiter;
mod local;
#[cfg(feature = "redis")]
mod redis;
mod signals;
mod sync;
mod timer;
pub mod tokens;
mod trail;
mod wait;

pub use config::{Learning, Limits};
pub use error::{Error, ErrorKind, Quantity};
#[cfg(feature = "layer")]
#[cfg_attr(docsrs, doc(cfg(feature = "layer")))]
pub use layer::{LimitedEmbedder, RateLimit};
pub use limiter::{Ask, Limiter, Permit, Status};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use redis::{SharedConfig, SharedEvent};
pub use signals::{Signals, Window};
#[cfg(feature = "layer")]
pub use timer::CoreTimer;
#[cfg(feature = "tokio")]
pub use timer::TokioTimer;
pub use timer::{Sleep, Timer};
