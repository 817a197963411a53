//! People who decide whether a tool may be called.

use std::sync::Arc;

use async_trait::async_trait;
use peregrine_core::{RunId, Scope, ToolCall};
use peregrine_tools::{Digest, ToolInfo};

use crate::run::Approval;

/// Asks a person, or decides in their place.
///
/// An agent with an approver asks it before each call of a tool that is neither read-only nor allowed by name. Without one,
/// such calls are refused. An approval holds for one call with exactly the arguments that were shown.
#[async_trait]
pub trait Approver: Send + Sync + 'static {
    /// Decides. May take as long as it takes; the run's time limit holds, and stopping the run drops the future.
    async fn decide(&self, request: &ApprovalRequest) -> Approval;
}

/// What a person is asked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ApprovalRequest {
    /// The run.
    pub run: RunId,
    /// Whose it is.
    pub scope: Option<Scope>,
    /// The call, with its arguments as the model wrote them.
    pub call: Arc<ToolCall>,
    /// The tool: what it does, how dangerous it is.
    pub tool: ToolInfo,
    /// Stands for the tool in this version with these arguments, for whoever keeps a record.
    pub digest: Digest,
}
