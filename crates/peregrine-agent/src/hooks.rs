//! Hooks around models, tools, turns and runs.
//!
//! There are two kinds, and a hook says by its kind what it may do. A [`Guard`] may change what passes it, or refuse it; it
//! fails closed: a guard that panics or takes too long has refused. An [`Observer`] may only look; one that panics or takes
//! too long is passed over, and counted in the run's report.
//!
//! Guards are asked in the order in which they were given, then observers see what the guards left.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use peregrine_core::{ChatRequest, ChatResponse, Message, RunId, Scope, Timer, ToolCall, ToolResult};

use crate::run::Veto;

/// How long a hook may take unless it says otherwise.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Where in a run a hook is called.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HookContext {
    /// The run.
    pub run: RunId,
    /// Whose run it is.
    pub scope: Option<Scope>,
    /// The thread of conversation; 0 is the main one.
    pub thread: u32,
    /// The turn of that thread, from 1; 0 before the first one.
    pub turn: u32,
}

/// A hook that may change what passes, or refuse it. Every method lets everything pass unless it is written otherwise.
///
/// What is refused: a run, a turn or a call to a model ends the run; a call of a tool, or its result, is told to the model
/// as an error.
///
/// # Examples
///
/// ```
/// use peregrine_agent::{Guard, HookContext, async_trait};
/// use peregrine_core::ToolCall;
///
/// /// Keeps tools away from the production database.
/// struct NoProduction;
///
/// #[async_trait]
/// impl Guard for NoProduction {
///     fn name(&self) -> &str {
///         "no-production"
///     }
///
///     async fn before_tool(&self, _: &HookContext, call: &mut ToolCall) -> Result<(), String> {
///         match call.arguments.contains("production") {
///             true => Err("the production database is off limits".to_owned()),
///             false => Ok(()),
///         }
///     }
/// }
/// ```
#[async_trait]
#[allow(unused_variables, reason = "the names are for whoever writes the methods")]
pub trait Guard: Send + Sync + 'static {
    /// What it is called in refusals.
    fn name(&self) -> &str;

    /// How long each of its methods may take.
    fn timeout(&self) -> Duration {
        HOOK_TIMEOUT
    }

    /// Before a run, with its input.
    async fn before_run(&self, context: &HookContext, input: &mut Vec<Message>) -> Result<(), String> {
        Ok(())
    }

    /// After a run that has an answer, which the memory has been told already: what is changed here changes the output
    /// alone, and a refusal withholds it.
    async fn after_run(&self, context: &HookContext, response: &mut ChatResponse) -> Result<(), String> {
        Ok(())
    }

    /// Before a turn: a call to a model and the tools it asks for.
    async fn before_turn(&self, context: &HookContext) -> Result<(), String> {
        Ok(())
    }

    /// After a turn: after an answer that calls no tools, or when its tools have returned, before the next turn of its
    /// thread. Once for each turn, but not for one that the end of the run cuts short; again if a budget refuses the next
    /// turn and the run then goes on.
    async fn after_turn(&self, context: &HookContext) -> Result<(), String> {
        Ok(())
    }

    /// Before a call to a model.
    async fn before_model(&self, context: &HookContext, request: &mut ChatRequest) -> Result<(), String> {
        Ok(())
    }

    /// After a model answered.
    async fn after_model(&self, context: &HookContext, response: &mut ChatResponse) -> Result<(), String> {
        Ok(())
    }

    /// Before a call of a tool. Changed arguments are checked against the tool's schema like those of a model; the call
    /// that a person approved cannot be changed any more.
    async fn before_tool(&self, context: &HookContext, call: &mut ToolCall) -> Result<(), String> {
        Ok(())
    }

    /// After a tool returned.
    async fn after_tool(
        &self,
        context: &HookContext,
        call: &ToolCall,
        result: &mut ToolResult,
    ) -> Result<(), String> {
        Ok(())
    }
}

/// A hook that may only look. Every method does nothing unless it is written otherwise.
#[async_trait]
#[allow(unused_variables, reason = "the names are for whoever writes the methods")]
pub trait Observer: Send + Sync + 'static {
    /// How long each of its methods may take.
    fn timeout(&self) -> Duration {
        HOOK_TIMEOUT
    }

    /// Before a run, with its input.
    async fn before_run(&self, context: &HookContext, input: &[Message]) {}

    /// After a run that has an answer.
    async fn after_run(&self, context: &HookContext, response: &ChatResponse) {}

    /// Before a turn: a call to a model and the tools it asks for.
    async fn before_turn(&self, context: &HookContext) {}

    /// After a turn, when its tools have returned.
    async fn after_turn(&self, context: &HookContext) {}

    /// Before a call to a model.
    async fn before_model(&self, context: &HookContext, request: &ChatRequest) {}

    /// After a model answered.
    async fn after_model(&self, context: &HookContext, response: &ChatResponse) {}

    /// Before a call of a tool.
    async fn before_tool(&self, context: &HookContext, call: &ToolCall) {}

    /// After a tool returned.
    async fn after_tool(&self, context: &HookContext, call: &ToolCall, result: &ToolResult) {}
}

/// The hooks of an agent, in order.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) guards: Vec<Arc<dyn Guard>>,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
}

impl Hooks {
    pub(crate) fn is_empty(&self) -> bool {
        self.guards.is_empty() && self.observers.is_empty()
    }
}

/// The hooks of one run, with what they need.
#[derive(Clone)]
pub(crate) struct BoundHooks {
    pub(crate) hooks: Hooks,
    pub(crate) context: HookContext,
    pub(crate) timer: Arc<dyn Timer>,
    /// How often an observer failed.
    pub(crate) failures: Arc<AtomicU32>,
}

/// One method of all hooks: guards may refuse, observers are told.
macro_rules! moment {
    ($name:ident ( $($arg:ident : $kind:ty = $look:expr),* )) => {
        pub(crate) async fn $name(&self, $($arg: $kind),*) -> Result<(), Veto> {
            for guard in &self.hooks.guards {
                let decision = guard.$name(&self.context, $($arg),*);
                self.guarded(guard.as_ref(), decision).await?;
            }
            for observer in &self.hooks.observers {
                self.observed(observer.timeout(), observer.$name(&self.context, $($look),*)).await;
            }
            Ok(())
        }
    };
}

impl BoundHooks {
    pub(crate) fn at(&self, thread: u32, turn: u32) -> Self {
        let mut bound = self.clone();
        bound.context.thread = thread;
        bound.context.turn = turn;
        bound
    }

    /// How often an observer failed.
    pub(crate) fn failed(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Whether any of them may change what passes.
    pub(crate) fn may_change(&self) -> bool {
        !self.hooks.guards.is_empty()
    }

    moment!(before_run(input: &mut Vec<Message> = input));
    moment!(after_run(response: &mut ChatResponse = response));
    moment!(before_turn());
    moment!(after_turn());
    moment!(before_model(request: &mut ChatRequest = request));
    moment!(after_model(response: &mut ChatResponse = response));
    moment!(before_tool(call: &mut ToolCall = call));
    moment!(after_tool(call: &ToolCall = call, result: &mut ToolResult = result));

    async fn guarded(
        &self,
        guard: &dyn Guard,
        decision: impl Future<Output = Result<(), String>> + Send,
    ) -> Result<(), Veto> {
        let refuse = |reason: String| Err(Veto::new(guard.name(), reason));
        match self.bounded(guard.timeout(), decision).await {
            Bounded::Ended(Ok(())) => Ok(()),
            Bounded::Ended(Err(reason)) => refuse(reason),
            Bounded::Panicked => refuse("it panicked".to_owned()),
            Bounded::TimedOut => refuse(format!("it did not decide within {:?}", guard.timeout())),
        }
    }

    async fn observed(&self, timeout: Duration, look: impl Future<Output = ()> + Send) {
        if !matches!(self.bounded(timeout, look).await, Bounded::Ended(())) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn bounded<T>(&self, timeout: Duration, hook: impl Future<Output = T> + Send) -> Bounded<T> {
        // Whatever a panic leaves half done is dropped or refused.
        let hook = std::pin::pin!(AssertUnwindSafe(hook).catch_unwind());
        match select(hook, self.timer.sleep(timeout)).await {
            Either::Left((Ok(ended), _)) => Bounded::Ended(ended),
            Either::Left((Err(_), _)) => Bounded::Panicked,
            Either::Right(_) => Bounded::TimedOut,
        }
    }
}

enum Bounded<T> {
    Ended(T),
    Panicked,
    TimedOut,
}
