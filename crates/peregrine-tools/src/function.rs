//! A tool from a closure.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use peregrine_core::{Danger, Effect};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Tool, ToolContext, ToolError, ToolInfo, ToolOutput, arguments};

type CallFuture = Pin<Box<dyn Future<Output = Result<ToolOutput, ToolError>> + Send>>;
type Function = Box<dyn Fn(ToolContext, Value) -> CallFuture + Send + Sync>;

/// A tool that is a closure: for tools with state, and for tools made at run time.
///
/// # Examples
///
/// The schema comes from the type of the arguments.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::{Arc, Mutex};
/// use peregrine_tools::{Effect, FnTool, ToolError, schemars};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Note {
///     /// What the note is called.
///     title: String,
///     text: String,
/// }
///
/// let notes = Arc::new(Mutex::new(BTreeMap::new()));
/// let take_note = FnTool::new("take_note", "Keeps a note under a title.", {
///     let notes = notes.clone();
///     move |_context, note: Note| {
///         let notes = notes.clone();
///         async move {
///             notes.lock().map_err(ToolError::fatal)?.insert(note.title, note.text);
///             Ok::<_, ToolError>("kept")
///         }
///     }
/// })
/// .with_effect(Effect::Idempotent);
/// ```
pub struct FnTool {
    info: ToolInfo,
    function: Function,
}

impl FnTool {
    /// A tool whose arguments are a Rust type.
    pub fn new<A, F, R>(name: impl Into<String>, description: impl Into<String>, function: F) -> Self
    where
        A: DeserializeOwned + schemars::JsonSchema,
        F: Fn(ToolContext, A) -> R + Send + Sync + 'static,
        R: Future<Output: IntoToolResult> + Send + 'static,
    {
        let info = ToolInfo::of::<A>(name, description);
        let name = info.name().to_owned();
        Self {
            info,
            function: Box::new(
                move |context, arguments| match arguments::typed(&name, arguments) {
                    Ok(arguments) => finish(function(context, arguments)),
                    Err(error) => Box::pin(std::future::ready(Err(error))),
                },
            ),
        }
    }

    /// A tool whose arguments are JSON that fits the schema of `info`.
    pub fn raw<F, R>(info: ToolInfo, function: F) -> Self
    where
        F: Fn(ToolContext, Value) -> R + Send + Sync + 'static,
        R: Future<Output: IntoToolResult> + Send + 'static,
    {
        Self {
            info,
            function: Box::new(move |context, arguments| finish(function(context, arguments))),
        }
    }

    fn change(mut self, change: impl FnOnce(ToolInfo) -> ToolInfo) -> Self {
        self.info = change(self.info);
        self
    }

    /// Declares what running it does to the world. [`Effect::SideEffect`] unless declared.
    #[must_use]
    pub fn with_effect(self, effect: Effect) -> Self {
        self.change(|info| info.with_effect(effect))
    }

    /// Declares how much harm it can do. [`Danger::Medium`] unless declared.
    #[must_use]
    pub fn with_danger(self, danger: Danger) -> Self {
        self.change(|info| info.with_danger(danger))
    }

    /// Bounds how long one call may take.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        self.change(|info| info.with_timeout(timeout))
    }

    /// States its version.
    #[must_use]
    pub fn with_version(self, version: impl Into<String>) -> Self {
        self.change(|info| info.with_version(version))
    }
}

fn finish<R>(returned: R) -> CallFuture
where
    R: Future<Output: IntoToolResult> + Send + 'static,
{
    Box::pin(async move { returned.await.into_tool_result() })
}

impl Tool for FnTool {
    fn info(&self) -> &ToolInfo {
        &self.info
    }

    // What `async_trait` writes, without a second box around the closure's.
    fn call<'life0, 'async_trait>(
        &'life0 self,
        context: ToolContext,
        arguments: Value,
    ) -> Pin<Box<dyn Future<Output = Result<ToolOutput, ToolError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        (self.function)(context, arguments)
    }
}

impl fmt::Debug for FnTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FnTool").field(&self.info).finish()
    }
}

/// What a closure of a [`FnTool`] may return: an output, or anything that becomes one; or a `Result` of that.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not what a tool can return",
    note = "return text, a `serde_json::Value`, a `ToolOutput` (see `ToolOutput::json`), or a `Result` of these and a `ToolError`"
)]
pub trait IntoToolResult {
    /// The output or the error.
    ///
    /// # Errors
    ///
    /// The error that the closure returned.
    fn into_tool_result(self) -> Result<ToolOutput, ToolError>;
}

impl<O: Into<ToolOutput>, E: Into<ToolError>> IntoToolResult for Result<O, E> {
    fn into_tool_result(self) -> Result<ToolOutput, ToolError> {
        self.map(Into::into).map_err(Into::into)
    }
}

macro_rules! into_tool_result {
    ($($type:ty),*) => {$(
        impl IntoToolResult for $type {
            fn into_tool_result(self) -> Result<ToolOutput, ToolError> {
                Ok(self.into())
            }
        }
    )*};
}

into_tool_result!(ToolOutput, String, &'static str, Value, ());
