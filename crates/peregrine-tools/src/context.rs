//! What a tool is told about the call, beside its arguments.

use std::sync::Arc;

use peregrine_core::{RunId, Scope};

use crate::Cancellation;

/// The call that a tool works for. Cheap to clone.
///
/// A function with [`#[tool]`](macro@crate::tool) gets it by naming an argument of this type.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ToolContext {
    /// The id that the model gave the call.
    pub call_id: Arc<str>,
    /// The run that the call belongs to.
    pub run: Option<RunId>,
    /// Whose data it may touch.
    pub scope: Option<Scope>,
    /// The same for every attempt at this call, and for no other call: what the outside needs to do it only once. The
    /// call's id unless the caller knows better, which it does where ids repeat from run to run.
    pub idempotency_key: Arc<str>,
    /// Tells when the call is no longer wanted.
    pub cancellation: Cancellation,
}

impl ToolContext {
    /// The context of a call.
    pub fn new(call_id: impl Into<Arc<str>>) -> Self {
        let call_id = call_id.into();
        Self {
            run: None,
            scope: None,
            idempotency_key: call_id.clone(),
            cancellation: Cancellation::never(),
            call_id,
        }
    }

    /// Says which run the call belongs to.
    #[must_use]
    pub fn with_run(mut self, run: RunId) -> Self {
        self.run = Some(run);
        self
    }

    /// Says whose data it may touch.
    #[must_use]
    pub fn with_scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Sets what is the same for every attempt at this call.
    #[must_use]
    pub fn with_idempotency_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.idempotency_key = key.into();
        self
    }

    /// Lets the call be cancelled.
    #[must_use]
    pub fn with_cancellation(mut self, cancellation: Cancellation) -> Self {
        self.cancellation = cancellation;
        self
    }
}
