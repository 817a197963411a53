//! Peregrine: an agent runtime for Rust services. This crate holds no logic: it re-exports the crates of the
//! workspace, the everyday names at the top, and all of them in [`prelude`].
//!
//! | module | crate | what is in it |
//! |---|---|---|
//! | [`core`] | `peregrine-core` | messages, requests, events, usage, money, errors, the model traits |
//! | [`providers`] | `peregrine-providers` | models over the wire, retry, record and replay, the offline model |
//! | [`signatures`] | `peregrine-signatures` | typed contracts: structs in, structs out |
//! | [`tools`] | `peregrine-tools` | what agents can do, and which of it they may |
//! | [`interrupts`] | `peregrine-interrupts` | scopes that stop what runs below them: limits, signals, process groups |
//! | [`agent`] | `peregrine-agent` | agents, runs, strategies, budgets, hooks, windows, prompt lint |
//! | [`executor`] | `peregrine-executor` | bounded parallel calls, plans of steps, reports |
//! | `checkpoints` | `peregrine-checkpoints` | journals of runs and their stores: resume, fork, diff, export |
//! | `cache` | `peregrine-cache` | answers kept in memory, on disk, in Redis; equal calls share one |
//! | `limits` | `peregrine-limits` | requests and tokens per minute, concurrency, fair and learning |
//!
//! # Features
//!
//! - `http` (default): models over HTTP: `connect`, `from_env`, every provider.
//! - `offline` (default): a deterministic model without weights or network.
//! - `tokio` (default): agents keep time with tokio unless they are given a timer; `executor::TokioTimer`.
//! - `checkpoints`: runs that survive their process (`agent::durable`), in memory or in a directory; `sqlite` and
//!   `postgres` keep them in a database.
//! - `cache`: answers that were given before, as a layer around a model; in memory and on disk.
//! - `limits`: rate limits as a layer around a model; `tiktoken` counts tokens exactly, and is not part of `full`.
//! - `redis`: the cache and the limits of many processes, shared.
//! - `signal`, `process`: what listens to Ctrl-C and SIGTERM, and what ends child processes, in [`interrupts`] (Unix).
//! - `full`: everything else.
//!
//! # Examples
//!
//! The same lines work with any model: put `"openai/gpt-5-mini"` or `"ollama/llama3.2:1b"` where `"offline"` stands,
//! or let [`from_env`] choose.
//!
//! ```
//! use peregrine::prelude::*;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> peregrine::Result<()> {
//! let model = peregrine::connect("offline")?;
//! let report = DocumentPart::text("report.md", "Sales rose by 4 %. The office in Kyoto opened in May.");
//! let question = Message::user("When did the office in Kyoto open?").with_part(Part::Document(report));
//! let answer = model.complete(&ChatRequest::new([question])).await?;
//! assert!(answer.message.text().contains("May"));
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

pub use peregrine_agent as agent;
#[cfg(feature = "cache")]
#[cfg_attr(docsrs, doc(cfg(feature = "cache")))]
pub use peregrine_cache as cache;
#[cfg(feature = "checkpoints")]
#[cfg_attr(docsrs, doc(cfg(feature = "checkpoints")))]
pub use peregrine_checkpoints as checkpoints;
pub use peregrine_core as core;
pub use peregrine_executor as executor;
pub use peregrine_interrupts as interrupts;
#[cfg(feature = "limits")]
#[cfg_attr(docsrs, doc(cfg(feature = "limits")))]
pub use peregrine_limits as limits;
pub use peregrine_providers as providers;

pub mod signatures {
    //! Typed contracts, as in the crate `peregrine-signatures`, with `#[derive(Signature)]` in the form that programs need
    //! that name only this crate.

    pub use peregrine_signatures::__private::FacadeSignature as Signature;
    pub use peregrine_signatures::*;
}

pub mod tools {
    //! Tools, as in the crate `peregrine-tools`, with `#[tool]` in the form that programs need that name only this crate.

    pub use peregrine_tools::private::facade_tool as tool;
    pub use peregrine_tools::*;
}

pub use peregrine_agent::{
    Agent, BestOfN, Budget, BudgetLimits, Dataflow, Input, Limits, OnLimit, PlanAndExecute, Reflection,
    RunError, RunEvent, RunOutput, RunStream, Strategy, Triage, TypedOutput, Window,
};
#[cfg(feature = "cache")]
#[cfg_attr(docsrs, doc(cfg(feature = "cache")))]
pub use peregrine_cache::{CacheControl, CacheLayer, Served};
#[cfg(feature = "checkpoints")]
#[cfg_attr(docsrs, doc(cfg(feature = "checkpoints")))]
pub use peregrine_checkpoints::{Checkpoints, Durability};
pub use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, Cost, DocumentPart, EmbedRequest,
    EmbedResponse, EmbeddingHandle, EmbeddingModel, Error, ErrorKind, Finish, JsonSchema, Layer, MediaPart,
    Message, Messages, Middleware, ModelHandle, ModelInfo, NanoUsd, Part, PriceTable, ResponseFormat, Result,
    Role, Sampling, Scope, Secret, ToolCall, ToolChoice, ToolResult, ToolSpec, Usage,
};
#[cfg(feature = "limits")]
#[cfg_attr(docsrs, doc(cfg(feature = "limits")))]
pub use peregrine_limits::{Limiter, RateLimit};
#[cfg(feature = "offline")]
#[cfg_attr(docsrs, doc(cfg(feature = "offline")))]
pub use peregrine_providers::offline::OfflineModel;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use peregrine_providers::{Choice, Connector, HttpConfig, connect, from_env};
pub use peregrine_providers::{Record, Replay, RetryPolicy};
pub use signatures::Signature;
pub use tools::tool;

pub mod prelude {
    //! The names that most programs need: `use peregrine::prelude::*;`.
    //!
    //! `Result` and `Error` are left out, so that a program's own keep their meaning.

    #[cfg(feature = "offline")]
    #[cfg_attr(docsrs, doc(cfg(feature = "offline")))]
    pub use crate::OfflineModel;
    pub use crate::{
        Agent, BestOfN, Budget, BudgetLimits, ChatEvent, ChatModel, ChatRequest, ChatResponse, DocumentPart,
        EmbedRequest, EmbeddingModel, ErrorKind, Finish, JsonSchema, MediaPart, Message, Messages,
        ModelHandle, Part, ResponseFormat, Role, RunEvent, Scope, Secret, Signature, Strategy, ToolCall,
        ToolChoice, ToolResult, ToolSpec, Usage, tool,
    };
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub use crate::{Connector, connect, from_env};
}

/// The README's program is a documentation test.
#[cfg(all(doctest, feature = "http", feature = "offline"))]
#[doc = include_str!("../README.md")]
pub struct Readme;
