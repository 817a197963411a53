//! Calls of tools, and questions to people about them: guards, checks, the call itself.
//!
//! Invariant: no tool runs that is neither read-only nor allowed by name nor approved by a person, whatever a model, a guard
//! or a run says.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::{FutureExt as _, stream};
use peregrine_core::{RunId, Scope, Timer, ToolCall, ToolResult};
use peregrine_interrupts::{Interrupt, Mode, Source};
use peregrine_tools::{Canceller, Registry, ToolError, ToolOutput};

use crate::approve::{ApprovalRequest, Approver};
use crate::budget::{Budget, Estimate, LimitReached, Spent};
use crate::driver::ops::{Done, Operation};
use crate::hooks::BoundHooks;
use crate::interrupts::ToolInterrupts;
use crate::run::{Approval, Event, ToolOutcome, ToolTask};

/// A call of a tool, with all that it needs.
pub(super) struct ToolOp {
    pub(super) task: ToolTask,
    /// Under which it is called, each time.
    pub(super) key: String,
    pub(super) registry: Registry,
    /// Whether the agent's caller allows the tool, or why not.
    pub(super) allowed: Result<(), ToolError>,
    /// Whether it is denied by name, which no approval changes.
    pub(super) is_denied: bool,
    pub(super) hooks: Option<BoundHooks>,
    pub(super) budget: Option<Budget>,
    pub(super) timer: Option<Arc<dyn Timer>>,
    pub(super) run: RunId,
    pub(super) scope: Option<Scope>,
    pub(super) interrupts: Option<ToolInterrupts>,
    pub(super) canceller: Canceller,
}

/// Why a tool gave no result for the model.
enum Failed {
    Tool(ToolError),
    Limit(LimitReached),
}

impl From<ToolError> for Failed {
    fn from(error: ToolError) -> Self {
        Self::Tool(error)
    }
}

impl ToolOp {
    pub(super) fn call(self) -> Operation {
        Box::pin(stream::once(async move {
            let call = self.task.call;
            let tool_call = Arc::clone(&self.task.tool_call);
            let outcome = match self.called().await {
                Ok(result) => ToolOutcome::Returned(result),
                Err(Failed::Limit(limit)) => {
                    return Done::of(Event::LimitReached {
                        call: Some(call),
                        limit,
                    });
                }
                Err(Failed::Tool(ToolError::Cancelled)) => ToolOutcome::Cancelled,
                Err(Failed::Tool(error)) => match error.to_result(&tool_call) {
                    Some(result) => ToolOutcome::Returned(result),
                    None => ToolOutcome::Fatal {
                        message: error.to_string(),
                    },
                },
            };
            Done::of(Event::ToolReturned { call, outcome })
        }))
    }

    async fn called(&self) -> Result<ToolResult, Failed> {
        let asked = &self.task.tool_call;
        match &self.allowed {
            Err(refused) if self.is_denied || !self.task.approved => return Err(refused.clone().into()),
            _ => {}
        }
        match &self.hooks {
            None => Ok(self.execute(asked).await?.into_result(asked)),
            // Boxed: with hooks it is several times as large as without.
            Some(hooks) => Box::pin(self.called_between(hooks)).await,
        }
    }

    async fn called_between(&self, hooks: &BoundHooks) -> Result<ToolResult, Failed> {
        let asked = &self.task.tool_call;
        let mut changed = (**asked).clone();
        hooks
            .before_tool(&mut changed)
            .await
            .map_err(|veto| self.refused(&veto.to_string()))?;
        if changed.name != asked.name {
            return Err(self.refused("a guard made it a call of another tool"));
        }
        if self.task.approved && changed != **asked {
            return Err(self.refused("a guard changed the call after it had been approved"));
        }
        let mut result = match self.execute(&changed).await {
            Ok(output) => output.into_result(asked),
            Err(Failed::Tool(error)) => match error.to_result(asked) {
                Some(result) => result,
                None => return Err(error.into()),
            },
            Err(limit) => return Err(limit),
        };
        let looked_at = hooks.after_tool(&changed, &mut result).await;
        looked_at.map_err(|veto| self.refused(&veto.to_string()))?;
        Ok(result)
    }

    async fn execute(&self, call: &ToolCall) -> Result<ToolOutput, Failed> {
        let call = self.registry.validate(call)?;
        if let Some(budget) = &self.budget {
            let estimate = Estimate::tool_calls(1);
            let reserved = Box::pin(budget.reserve(&estimate)).await;
            // One call is one call, whatever becomes of it: there is nothing to wait for, and nothing to exceed.
            let _ = reserved.map_err(Failed::Limit)?.settle(Spent::tool_calls(1));
        }
        let mut context = call
            .context()
            .with_run(self.run)
            .with_idempotency_key(self.key.as_str())
            .with_cancellation(self.canceller.cancellation());
        context.scope.clone_from(&self.scope);
        if let Some(interrupts) = &self.interrupts {
            context = context.with_extension(interrupts.clone());
        }
        let result = call.run(context, self.timer.as_deref()).await;
        match &result {
            Err(ToolError::Timeout { limit, .. }) => self.end_below(Source::TimeLimit { limit: *limit }),
            Err(ToolError::Panicked { .. }) => self.end_below(Source::Dropped),
            _ => {}
        }
        Ok(result?)
    }

    /// The tool did not end by itself, so what it started elsewhere is told.
    fn end_below(&self, source: Source) {
        self.canceller.cancel();
        if let Some(interrupts) = &self.interrupts {
            let interrupt = Interrupt::new(Mode::Immediate).with_source(source);
            interrupts.scope().interrupt(interrupt);
        }
    }

    fn refused(&self, reason: &str) -> Failed {
        Failed::Tool(ToolError::Refused {
            tool: self.task.tool_call.name.clone(),
            reason: reason.to_owned(),
        })
    }
}

/// A question to a person.
pub(super) struct AskOp {
    pub(super) task: ToolTask,
    pub(super) registry: Registry,
    pub(super) approver: Option<Arc<dyn Approver>>,
    pub(super) run: RunId,
    pub(super) scope: Option<Scope>,
}

impl AskOp {
    pub(super) fn ask(self) -> Operation {
        Box::pin(stream::once(async move {
            let call = self.task.call;
            // Nobody is bothered with arguments that cannot be used. The tool is called all the same: that is how the
            // model comes to hear what is wrong with them.
            let approval = match (self.registry.validate(&self.task.tool_call), &self.approver) {
                (Ok(valid), Some(approver)) => {
                    let request = ApprovalRequest {
                        run: self.run,
                        scope: self.scope,
                        digest: valid.digest(),
                        tool: valid.info().clone(),
                        call: self.task.tool_call,
                    };
                    let decided = AssertUnwindSafe(approver.decide(&request)).catch_unwind();
                    decided.await.unwrap_or_else(|_| Approval::Denied {
                        reason: "whoever decides about it failed".to_owned(),
                    })
                }
                (Ok(_), None) => Approval::Denied {
                    reason: "there is nobody to ask".to_owned(),
                },
                (Err(_), _) => Approval::Approved,
            };
            Done::of(Event::ApprovalDecided { call, approval })
        }))
    }
}
