//! The way from a tool to the scope of its call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use peregrine_interrupts::Scope;
use peregrine_tools::{ToolContext, ToolError};

use crate::error::{Error, RunError};

/// The scope that a call of a tool runs under, for what the tool ties to it: child processes, sub-agents, waits.
///
/// # Examples
///
/// A tool that is an agent. What stops the outer run stops the inner one, in the same mode and with the same reason; and
/// an inner run that was stopped is no result, so that the call is made again when the outer run goes on.
///
/// ```
/// use peregrine_agent::{Agent, Input};
/// # use peregrine_core::{ChatModel, ChatRequest, ChatResponse, Finish, ModelInfo, Part, Role, ToolCall};
/// use peregrine_core::{Effect, JsonSchema, ToolSpec};
/// use peregrine_tools::{FnTool, ToolContext, ToolError, ToolInfo};
///
/// # struct Clerk(ModelInfo);
/// # impl ChatModel for Clerk {
/// #     fn info(&self) -> &ModelInfo { &self.0 }
/// #     async fn complete(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
/// #         Ok(match (request.tools.is_empty(), request.messages.iter().any(|message| message.role == Role::Tool)) {
/// #             (false, false) => ChatResponse::new(
/// #                 vec![Part::ToolCall(ToolCall::new("1", "research", "{}"))],
/// #                 Finish::ToolCalls,
/// #             ),
/// #             _ => ChatResponse::text("A falcon dives at 320 km/h."),
/// #         })
/// #     }
/// # }
/// # let model = || Clerk(ModelInfo::new("example", "clerk"));
/// let researcher = Agent::new(model()).with_instructions("Look things up.");
/// let spec = ToolSpec::new("research", "Looks something up.", JsonSchema::empty_object());
/// let research = FnTool::raw(
///     ToolInfo::new(spec).with_effect(Effect::ReadOnly),
///     move |context: ToolContext, arguments| {
///         let researcher = researcher.clone();
///         async move {
///             let question = Input::from(arguments.to_string()).within(&context);
///             let output = researcher.run(question).await?;
///             Ok::<_, ToolError>(output.text())
///         }
///     },
/// );
///
/// # futures_util::FutureExt::now_or_never(async {
/// use peregrine_interrupts::{ManualTimer, Scope};
///
/// let scope = Scope::root("request-7", ManualTimer::new());
/// let editor = Agent::new(model()).with_tool(research);
/// let output = editor.run(Input::from("How fast?").with_interrupts(&scope)).await?;
/// assert_eq!(output.text(), "A falcon dives at 320 km/h.");
/// # Ok::<(), peregrine_agent::RunError>(())
/// # }).unwrap().unwrap();
/// ```
pub trait ToolScope {
    /// The scope of this call. `None` if the run is under no scope ([`Input::with_interrupts`](crate::Input::with_interrupts));
    /// what stops the call then drops its future.
    ///
    /// A tool that has asked for its scope is given the [grace period](crate::Agent::with_grace) to end by itself when the
    /// run is stopped immediately. It ends with [`ToolError::Cancelled`] then, unless it has a result.
    fn interrupts(&self) -> Option<&Scope>;
}

impl ToolScope for ToolContext {
    fn interrupts(&self) -> Option<&Scope> {
        let interrupts: &ToolInterrupts = self.extension()?;
        interrupts.heeded.store(true, Ordering::Release);
        Some(&interrupts.scope)
    }
}

/// What is put into the context of a call.
#[derive(Debug, Clone)]
pub(crate) struct ToolInterrupts {
    scope: Scope,
    /// Whether the tool listens.
    heeded: Arc<AtomicBool>,
}

impl ToolInterrupts {
    pub(crate) fn new(scope: Scope) -> Self {
        let heeded = Arc::default();
        Self { scope, heeded }
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(crate) fn heeded(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.heeded)
    }
}

/// For agents below tools: a run that was stopped is a call that was cancelled, whose outcome is not known; a failure is
/// told to the model of the outer run.
impl From<RunError> for ToolError {
    fn from(error: RunError) -> Self {
        match error.error() {
            Error::Interrupted(_) => Self::Cancelled,
            Error::Config(_) => Self::fatal(&error),
            _ if error.is_retryable() => Self::temporary(&error),
            _ => Self::model(&error),
        }
    }
}
