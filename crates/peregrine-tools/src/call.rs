//! A call whose arguments were checked, and how it is run.
//!
//! Invariant: whatever a tool does while it is polled or dropped, its caller gets a `Result`. A future that panicked is
//! never polled again. Needs `panic = "unwind"`; with `abort` there is nobody left to tell.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use peregrine_core::Timer;
use serde_json::Value;

use crate::schema::canonical;
use crate::{Digest, Tool, ToolContext, ToolError, ToolInfo, ToolOutput};

/// How much of what a tool panicked with is kept.
const MAX_PANIC_CHARS: usize = 200;

/// A call of a tool that is there, with arguments that fit its schema. Only a
/// [`Registry`](crate::Registry::validate) makes one.
#[derive(Clone)]
pub struct ValidCall {
    tool: Arc<dyn Tool>,
    id: Arc<str>,
    arguments: Value,
}

impl ValidCall {
    pub(crate) fn new(tool: Arc<dyn Tool>, id: &str, arguments: Value) -> Self {
        Self {
            tool,
            id: Arc::from(id),
            arguments,
        }
    }

    /// The id that the model gave it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The tool.
    pub fn tool(&self) -> &Arc<dyn Tool> {
        &self.tool
    }

    /// What the tool says about itself.
    pub fn info(&self) -> &ToolInfo {
        self.tool.info()
    }

    /// The arguments.
    pub fn arguments(&self) -> &Value {
        &self.arguments
    }

    /// A context with the call's id, to be completed by the caller.
    pub fn context(&self) -> ToolContext {
        ToolContext::new(self.id.clone())
    }

    /// The digest of the tool and the exact arguments; not of the id. Arguments that mean the same, whatever their
    /// order and white space, have the same digest.
    pub fn digest(&self) -> Digest {
        let tool = self.info().digest().to_string();
        Digest::of("peregrine tool call 1", [&tool, &canonical(&self.arguments)])
    }

    /// Runs it. With a timer, the tool's time limit is kept here; without, keeping it is up to the caller. The time
    /// runs from this call on, not from the first poll.
    ///
    /// # Errors
    ///
    /// What the tool returned, [`ToolError::Timeout`], or [`ToolError::Panicked`]. The future does not end by itself
    /// when the context's cancellation is cancelled: the tool may finish what it does, and whoever drives it drops the
    /// future when it does not.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the tool where it is.
    pub fn run(
        self,
        context: ToolContext,
        timer: Option<&dyn Timer>,
    ) -> impl Future<Output = Result<ToolOutput, ToolError>> + Send + 'static + use<> {
        let limit = timer.zip(self.info().timeout());
        let limit = limit.map(|(timer, limit)| (limit, timer.sleep(limit)));
        async move {
            let Self { tool, arguments, .. } = self;
            let mut limit = limit;
            let panicked = |payload| ToolError::Panicked {
                tool: tool.info().name().to_owned(),
                message: panic_message(payload),
            };
            // Not everything of a tool need be in its future. Dereferenced, because an `Arc` of a tool is a tool too,
            // with a future of its own around this one.
            let begun = catch_unwind(AssertUnwindSafe(|| (*tool).call(context, arguments)));
            let mut caught = Caught(Some(begun.map_err(panicked)?));
            std::future::poll_fn(|cx| {
                match caught.poll(cx) {
                    Poll::Ready(Ok(result)) => return Poll::Ready(result),
                    Poll::Ready(Err(payload)) => return Poll::Ready(Err(panicked(payload))),
                    Poll::Pending => {}
                }
                if let Some((limit, sleep)) = &mut limit
                    && sleep.as_mut().poll(cx).is_ready()
                {
                    let tool = tool.info().name().to_owned();
                    return Poll::Ready(Err(ToolError::Timeout { tool, limit: *limit }));
                }
                Poll::Pending
            })
            .await
        }
    }
}

impl fmt::Debug for ValidCall {
    /// Without the arguments, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidCall")
            .field("id", &self.id)
            .field("tool", &self.info().name())
            .finish_non_exhaustive()
    }
}

type CallFuture<'a> = Pin<Box<dyn Future<Output = Result<ToolOutput, ToolError>> + Send + 'a>>;
type Payload = Box<dyn Any + Send>;

/// The future of a tool; `None` once it ended or panicked.
struct Caught<'a>(Option<CallFuture<'a>>);

impl Caught<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Result<ToolOutput, ToolError>, Payload>> {
        let Some(future) = &mut self.0 else {
            return Poll::Pending;
        };
        // Whatever the panic left half done is inside the future, and nobody looks there again.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(result)) => Poll::Ready(self.end().map(|()| result)),
            Err(payload) => {
                let _ = self.end();
                Poll::Ready(Err(payload))
            }
        }
    }

    /// Drops the future.
    fn end(&mut self) -> Result<(), Payload> {
        let future = self.0.take();
        catch_unwind(AssertUnwindSafe(|| drop(future)))
    }
}

impl Drop for Caught<'_> {
    /// Time is up, or the caller no longer wants it. A panic in here has nobody to be told to.
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn panic_message(payload: Payload) -> String {
    let message = match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => match payload.downcast_ref::<&str>() {
            Some(message) => (*message).to_owned(),
            None => "something that is not text".to_owned(),
        },
    };
    message.chars().take(MAX_PANIC_CHARS).collect()
}
