//! Integration tests: what the tools promise to agents and to authors of tools.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod arguments;
mod attribute;
mod calls;
mod output;
mod registry;
mod schema;
mod schema_oracle;

use std::future::Future;

use peregrine_core::ToolCall;
use peregrine_tools::{Registry, Tool, ToolError, ToolOutput};

/// What a future that never waits comes to.
#[track_caller]
fn now<T>(future: impl Future<Output = T>) -> T {
    futures_util::FutureExt::now_or_never(future).expect("the future does not wait")
}

/// A registry of one tool.
fn only(tool: impl Tool) -> Registry {
    Registry::builder().with(tool).build().unwrap()
}

/// Calls the first tool of a registry.
#[track_caller]
fn call(registry: &Registry, arguments: &str) -> Result<ToolOutput, ToolError> {
    let name = registry.names().next().unwrap();
    let call = registry.validate(&ToolCall::new("call-1", name, arguments))?;
    let context = call.context();
    now(call.run(context, None))
}
