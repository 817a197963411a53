//! Agents: a run as a deterministic state machine, and the driver that performs what it asks for.
//!
//! An [`Agent`] is a model with tools, rules and bounds. It is a cheap handle, and any number of runs start from it:
//!
//! ```
//! use peregrine_agent::{Agent, BudgetLimits, RunEvent};
//! # use peregrine_core::{ChatModel, ChatRequest, ChatResponse, Finish, ModelInfo, Part, Role, ToolCall};
//! use peregrine_tools::tool;
//!
//! /// Tells how warm it is somewhere, in degrees Celsius.
//! #[tool(effect = "read_only", danger = "safe")]
//! async fn temperature(city: String) -> f64 {
//!     if city == "Oslo" { 4.5 } else { 20.0 }
//! }
//!
//! # struct Clerk(ModelInfo);
//! # impl ChatModel for Clerk {
//! #     fn info(&self) -> &ModelInfo { &self.0 }
//! #     async fn complete(&self, request: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
//! #         Ok(match request.messages.iter().any(|message| message.role == Role::Tool) {
//! #             false => ChatResponse::new(
//! #                 vec![Part::ToolCall(ToolCall::new("1", "temperature", r#"{"city": "Oslo"}"#))],
//! #                 Finish::ToolCalls,
//! #             ),
//! #             true => ChatResponse::text("Wear a coat."),
//! #         })
//! #     }
//! # }
//! # futures_util::FutureExt::now_or_never(async {
//! # let model = Clerk(ModelInfo::new("example", "clerk"));
//! let agent = Agent::new(model)
//!     .with_instructions("Say what to wear.")
//!     .with_tool(temperature())
//!     .with_budget(BudgetLimits::default().with_tokens(20_000));
//!
//! let output = agent.run("I am going to Oslo.").await?;
//! assert_eq!(output.text(), "Wear a coat.");
//! assert_eq!(output.report.tool_calls[0].name, "temperature");
//!
//! // The same, told as it happens.
//! let mut events = agent.run_stream("I am going to Oslo.");
//! while let Some(event) = events.next().await {
//!     if let RunEvent::ToolStart { name, arguments, .. } = event? {
//!         assert_eq!((name.as_str(), arguments.as_str()), ("temperature", r#"{"city": "Oslo"}"#));
//!     }
//! }
//! # Ok::<(), peregrine_agent::RunError>(())
//! # }).unwrap().unwrap();
//! ```
//!
//! # What a run is
//!
//! A [`Run`] is data: the conversation, the threads of the strategy, what is waited for, what was used. It is told what
//! happened ([`run::Event`]) and says what is to be done ([`run::Effect`]); it does no I/O and knows no clock and no
//! randomness. The driver behind [`Agent::run`] performs the effects. A run that is stopped, by
//! [`Input::with_interrupts`], [`Input::with_cancellation`] or at a bound with [`OnLimit::Pause`], comes back in its
//! [`RunError`]; stored and restored, it goes on by [`Agent::resume`], under the same id.
//!
//! # Stopping
//!
//! A run under a scope of `peregrine-interrupts` has a scope of its own there, and each call of a model or a tool has one
//! below it. Whatever interrupts a scope above (a handle, a signal, a limit on time or on what is used, a handler) stops
//! the run, and [`Error::Interrupted`] says what it was ([`run::InterruptSource`]).
//!
//! | what is under way | graceful | immediate, at once or later |
//! |---|---|---|
//! | a call of a model | finishes | is dropped, and its connection closed |
//! | a tool that reads, or may be repeated | finishes | is told and dropped |
//! | a tool that listens to its [scope](ToolScope) or its cancellation | finishes | is told, and has the [grace period](Agent::with_grace) |
//! | a tool with side effects | finishes | the same: so that its outcome is known |
//! | child processes under the tool's scope | go on | are killed, with their groups, before anything is polled |
//! | a sub-agent under the tool's scope ([`Input::within`]) | finishes its step | stops, and is waited for as its tool is |
//! | a memory that is told; hooks after the run | finish | have the grace period |
//! | a memory that is asked; hooks before the run | finish | are dropped |
//! | a question to a person | is taken back | is taken back |
//! | anything else | does not begin | does not begin |
//!
//! A step that finishes and is the last one completes the run. What was told and did not end is abandoned, in
//! [`RunReport::abandoned`] and [`RunEvent::Abandoned`]. How long a graceful stop may take is said where the scope is made
//! ([`Limits::with_grace`](peregrine_interrupts::Limits::with_grace)); without that, as long as it takes, until somebody
//! asks again. When a run ends, however it does, everything that is left below its scope is interrupted.
//!
//! # Strategies
//!
//! | [`Strategy`] | threads | what ends it, besides [`Limits`] and [`Budget`]s |
//! |---|---|---|
//! | [`SingleShot`](Strategy::SingleShot) | one, without tools | the answer |
//! | [`ToolLoop`](Strategy::ToolLoop), the default | one | an answer that calls no tools |
//! | [`PlanAndExecute`] | a planner, a worker for each step, one that answers | [`max_plan_steps`](PlanAndExecute::max_plan_steps), [`max_replans`](PlanAndExecute::max_replans) |
//! | [`Reflection`] | one, and a judge for each round | [`max_rounds`](Reflection::max_rounds) |
//! | [`BestOfN`] | `n` beside each other | a majority, or all of them |
//!
//! Each goes with text and with a form ([`Agent::run_as`]), with [fallbacks](Agent::with_fallback), and with a stream. A
//! step is one call to a model, whichever thread makes it; repairs of answers that do not fit their form are steps too.
//!
//! # What holds
//!
//! - **Stopping.** Nothing is spawned. Dropping a future or a stream drops the calls to models, tools, approvers, memories
//!   and hooks below it, and tells tools so ([`ToolContext::cancellation`](peregrine_tools::ToolContext::cancellation)). An
//!   interrupt, a cancellation or a time limit ends every wait, also for hooks, people and memories.
//! - **Spending.** What a call may need is reserved before it and settled after it. A call that was begun is charged, at
//!   least as estimated, also if it is dropped, breaks off or is refused by a guard after its answer. Only errors that say
//!   that nothing was done give it back.
//! - **Side effects.** Only tools run that are declared read-only, allowed by name, or approved; deny beats all of these.
//!   A side effect whose outcome is not known is never repeated: [`Error::InDoubt`]. An idempotent call is repeated under
//!   the same [key](peregrine_tools::ToolContext::idempotency_key).
//! - **Order.** Tools of one turn run beside each other where their declared effects allow it; their results stand in the
//!   order of the calls. The messages of a turn are the beginning of those of the next, unless the [`Window`] cuts.
//! - **Bounds.** Every run is bounded in steps, calls of tools, bytes of their results, and repairs, by default too. At
//!   most 64 operations are under way at a time; the rest waits.
//! - **Restored runs.** Whatever bytes a [`Run`] is read from, it takes events without a panic. It is trusted in what it
//!   says was approved: keep it where only the service can write.
//! - **Payloads.** [`RunError`]s show no conversation; [`Run`], [`Input`] and [`RunOutput`] are data, and their `Debug`
//!   shows what is in them.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod agent;
mod approve;
mod budget;
#[cfg(feature = "tokio")]
mod clock;
mod direct;
mod driver;
mod error;
mod event;
pub mod forms;
mod hooks;
mod input;
mod interrupts;
mod lint;
mod memory;
mod output;
pub mod run;
mod setup;
mod stream;
pub mod tokens;
mod tools;
mod typed;
mod unstreamed;
mod window;

pub use agent::Agent;
pub use approve::{ApprovalRequest, Approver};
pub use budget::{
    Amounts, Budget, BudgetLimits, BudgetStatus, Estimate, LimitReached, Overshoot, Refusal, Reservation,
    Resource, Settlement, Spent,
};
pub use error::{ConfigProblem, Error, RunError};
pub use event::RunEvent;
pub use hooks::{Guard, HOOK_TIMEOUT, HookContext, Observer};
pub use input::{Input, Resumption};
pub use interrupts::ToolScope;
pub use lint::{Cause, LintError, MAX_BREAKS, PromptBreak, PromptLint, lint_bodies, lint_requests};
pub use memory::{Memory, MemoryContext, TurnMemory};
pub use output::{Abandoned, AbandonedKind, CalledTool, RunOutput, RunReport, TypedOutput};
pub use run::{
    Approval, BestOfN, FallbackOn, Limits, More, OnLimit, PlanAndExecute, Reflection, Run, Strategy,
};
pub use stream::{RunStream, TextStream};
pub use tools::Tools;
pub use typed::TypedInput;
pub use unstreamed::Unstreamed;
pub use window::{Cut, View, Window, WindowState, WindowTooSmall};

pub use async_trait::async_trait;

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
