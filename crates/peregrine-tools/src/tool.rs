//! The trait of everything that an agent can call.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::{ToolContext, ToolError, ToolInfo, ToolOutput};

/// Something that an agent can do.
///
/// Most tools are functions with [`#[tool]`](macro@crate::tool) or closures in a [`FnTool`](crate::FnTool); implement
/// this where a tool has state of its own.
///
/// # Examples
///
/// ```
/// use peregrine_core::{Effect, JsonSchema, ToolSpec};
/// use peregrine_tools::{Tool, ToolContext, ToolError, ToolInfo, ToolOutput, async_trait};
/// use serde_json::{Value, json};
///
/// struct Lookup {
///     info: ToolInfo,
///     capitals: Vec<(&'static str, &'static str)>,
/// }
///
/// impl Lookup {
///     fn new() -> Self {
///         let parameters = json!({
///             "type": "object",
///             "properties": {"country": {"type": "string"}},
///             "required": ["country"],
///         });
///         let spec = ToolSpec::new("capital", "Names the capital of a country.", parameters);
///         Self {
///             info: ToolInfo::new(spec).with_effect(Effect::ReadOnly),
///             capitals: vec![("Norway", "Oslo")],
///         }
///     }
/// }
///
/// #[async_trait]
/// impl Tool for Lookup {
///     fn info(&self) -> &ToolInfo {
///         &self.info
///     }
///
///     async fn call(&self, _: ToolContext, arguments: Value) -> Result<ToolOutput, ToolError> {
///         let known = self.capitals.iter().find(|(country, _)| arguments["country"] == *country);
///         let (_, capital) = known.ok_or_else(|| ToolError::model("this country is not known"))?;
///         Ok(ToolOutput::from(*capital))
///     }
/// }
/// ```
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a tool",
    note = "put `#[tool]` on a function and pass what `name()` gives, or implement `Tool`"
)]
pub trait Tool: Send + Sync + 'static {
    /// What this tool is: its name and schema, what it does to the world, how long it may take. Always the same.
    fn info(&self) -> &ToolInfo;

    /// Does it. The arguments fit the schema in [`info`](Self::info).
    ///
    /// # Errors
    ///
    /// [`ToolError::model`] for what the model is to see and may repair, [`ToolError::fatal`] for what must end the run.
    ///
    /// # Cancel safety
    ///
    /// Whoever calls may drop the future at any time; that is how time limits and urgent cancellation work. A tool
    /// with something to clean up waits for [`ToolContext::cancellation`], which is told first, beside its work, and ends
    /// with [`ToolError::Cancelled`]; agents give it a moment for that.
    async fn call(&self, context: ToolContext, arguments: Value) -> Result<ToolOutput, ToolError>;
}

#[async_trait]
impl<T: Tool + ?Sized> Tool for Arc<T> {
    fn info(&self) -> &ToolInfo {
        (**self).info()
    }

    async fn call(&self, context: ToolContext, arguments: Value) -> Result<ToolOutput, ToolError> {
        (**self).call(context, arguments).await
    }
}
