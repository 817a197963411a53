//! Tools: what an agent can do, declared so that something else can decide whether it may.
//!
//! This crate knows no runtime, no agent and no policy. It holds
//!
//! - how a tool is written: [`macro@tool`] on a plain function, [`FnTool`] around a closure, or the trait [`Tool`];
//! - what a tool says about itself, as data: [`ToolInfo`] with its [`Effect`] and [`Danger`];
//! - which tools there are: [`Registry`];
//! - how a call of a model becomes a call of a tool: checked ([`Registry::validate`]), decided ([`Allowance`]), grouped
//!   ([`batches`]) and run ([`ValidCall::run`]), with a [`ToolError`] of its own for each way in which that can fail.
//!
//! Invariant: a tool never sees arguments that do not fit the schema that the model was shown, and whatever a tool does,
//! a panic included, its caller gets a value.
//!
//! # Examples
//!
//! ```
//! use peregrine_core::ToolCall;
//! use peregrine_tools::{Allowance, Registry, tool};
//!
//! /// Adds two numbers.
//! #[tool(effect = "read_only", danger = "safe")]
//! async fn add(
//!     /// The first number.
//!     a: f64,
//!     /// The second number; 1 if left out.
//!     b: Option<f64>,
//! ) -> f64 {
//!     a + b.unwrap_or(1.0)
//! }
//!
//! let registry = Registry::builder().with(add()).build()?;
//! # futures_util::FutureExt::now_or_never(async {
//! let call = registry.validate(&ToolCall::new("call-1", "add", r#"{"a": 2, "b": 40}"#))?;
//! Allowance::read_only().decide(call.info()).into_result()?;
//! let context = call.context();
//! assert_eq!(call.run(context, None).await?.text(), "42.0");
//!
//! let error = registry.validate(&ToolCall::new("call-2", "add", r#"{"a": "two"}"#)).unwrap_err();
//! assert_eq!(error.to_string(), "cannot call `add`: /a: expected a number, found string of 3 characters");
//! # Ok::<(), peregrine_tools::ToolError>(())
//! # }).expect("it does not wait").unwrap();
//! # Ok::<(), peregrine_tools::RegistryError>(())
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod allowance;
mod arguments;
mod batch;
mod call;
mod cancel;
mod context;
mod error;
mod function;
mod info;
mod output;
#[doc(hidden)]
pub mod private;
mod registry;
pub mod schema;
mod tool;

pub use allowance::{Allowance, Decision, Reason};
pub use batch::batches;
pub use call::ValidCall;
pub use cancel::{Cancellation, Cancelled, Canceller};
pub use context::ToolContext;
pub use error::{InvalidArguments, RegistryError, ToolError, ToolErrorKind};
pub use function::{FnTool, IntoToolResult};
pub use info::{Digest, InvalidDigest, ToolInfo};
pub use output::{OutputPart, ToolOutput};
pub use registry::{Registry, RegistryBuilder};
pub use tool::Tool;

pub use async_trait::async_trait;
pub use peregrine_core::{Danger, Effect};
pub use peregrine_tools_macros::tool;
pub use schemars;
