//! What a tool is told about the call, beside its arguments.

use std::any::Any;
use std::fmt;
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
    extensions: Extensions,
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
            extensions: Extensions::default(),
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

    /// Adds something that this crate knows nothing of, for tools that do: at most one of each type, the latest.
    ///
    /// # Examples
    ///
    /// ```
    /// use peregrine_tools::ToolContext;
    ///
    /// #[derive(Debug, PartialEq)]
    /// struct Tenancy(u32);
    ///
    /// let context = ToolContext::new("call-1").with_extension(Tenancy(1)).with_extension(Tenancy(7));
    /// assert_eq!(context.extension(), Some(&Tenancy(7)));
    /// assert_eq!(context.extension::<String>(), None);
    /// ```
    #[must_use]
    pub fn with_extension<T: Any + Send + Sync>(mut self, extension: T) -> Self {
        self.extensions.0.retain(|known| !known.is::<T>());
        self.extensions.0.push(Arc::new(extension));
        self
    }

    /// What was added of this type.
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.extensions.0.iter().find_map(|known| known.downcast_ref())
    }
}

/// A few values of different types; none of them costs nothing.
#[derive(Clone, Default)]
struct Extensions(Vec<Arc<dyn Any + Send + Sync>>);

impl fmt::Debug for Extensions {
    /// Without what they are, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Extensions").field(&self.0.len()).finish()
    }
}
