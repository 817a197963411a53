//! Many things at once, without losing track of any: bounded parallel calls, and plans of steps that depend on each other.
//!
//! - [`parallel`](parallel()) runs calls side by side, a few at a time: results in order or as they come, panics as errors,
//!   and a policy for failures.
//! - A [`Plan`] is steps with parameters that refer to the results of others (`"$search.hits[0].url"`). It is read from
//!   JSON or built, and everything that can be known to be wrong with it is an error before the first step.
//! - An [`Executor`] runs it: a step starts as soon as what it needs is there, whatever the others do; retries, time limits,
//!   checks beside the plan, resources, resumption; and a [`Report`] that says what became of each step and how well the
//!   time was used.
//! - A [`PlanMachine`] is the same without anything that runs, for those who perform the steps themselves.
//! - An [`Engine`] is what keeps the steps: this process, or, behind the same five methods, a durable engine and several
//!   machines.
//!
//! The crate knows no model, no tool and no agent. Without the feature `tokio` it knows no runtime either: futures are
//! polled on the caller's task, and time is passed in as a [`Timer`].
//!
//! Invariant: every step of every run ends in a terminal state, with its cause. What starts is decided by data alone
//! (`scheduler`); futures, clocks and tasks are in one place (`run::driver`).
//!
//! # Examples
//!
//! ```
//! use peregrine_executor::{ActionError, ActionInfo, Actions, Effect, Executor, Plan, VirtualTimer};
//! use serde_json::json;
//!
//! let actions = Actions::new()
//!     .with_fn("search", ActionInfo::new(Effect::ReadOnly), async |call| {
//!         let query = call.parameters()["query"].as_str().ok_or("`query` is not a text")?;
//!         Ok(json!({"hits": [{"title": format!("All about {query}")}]}))
//!     })
//!     .with_fn("write", ActionInfo::new(Effect::ReadOnly), async |call| Ok(call.parameters()["text"].clone()));
//! let plan = Plan::from_json(r#"[
//!     {"id": "search", "action": "search", "parameters": {"query": "falcons"}, "retries": 2, "timeout": "5s"},
//!     {"id": "answer", "action": "write", "parameters": {"text": "See: $search.hits[0].title."}}
//! ]"#)?;
//!
//! # futures_util::FutureExt::now_or_never(async {
//! let report = Executor::new(actions, VirtualTimer::new()).run(&plan).await?;
//! assert_eq!(report.step("answer").unwrap().result, Some(json!("See: All about falcons.")));
//! # Ok::<(), peregrine_executor::PlanError>(())
//! # }).unwrap()?;
//! # Ok::<(), peregrine_executor::PlanError>(())
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod action;
pub mod builtin;
mod engine;
mod executor;
mod machine;
mod panics;
mod parallel;
mod plan;
mod ready_queue;
mod reference;
mod report;
mod run;
mod scheduler;
mod simulate;
mod slots;
#[cfg(feature = "tokio")]
mod spawned;
mod step;
mod sync;
mod timer;

pub use action::{
    Action, ActionError, ActionInfo, ActionResult, Actions, BoxFuture, Effect, Output, StepCall,
};
pub use engine::{Answer, AttemptKey, Claim, Engine, EngineError, Lease, LocalEngine};
pub use executor::{Executor, Order, Placement, Run};
pub use machine::{Begun, Known, PlanMachine};
pub use parallel::{
    AllResults, CallError, Completions, DEFAULT_MAX_PARALLEL, Parallel, Policy, Results, parallel,
};
pub use plan::{MAX_DEPTH, MAX_STEPS, Plan, PlanDecoder, PlanError, Problem};
pub use reference::{MAX_ID_BYTES, MalformedReference, Reference, Segment, Unresolved, escape};
pub use report::{Outcome, Report};
pub use run::{Cause, CheckRecord, Event, Observer, Snapshot, StepRecord, StepState};
pub use simulate::{Simulated, SimulatedCall};
#[cfg(feature = "tokio")]
pub use spawned::{Spawned, spawned};
pub use step::{Check, CheckPolicy, OnFailure, Resources, Retries, Step};
#[cfg(feature = "tokio")]
pub use timer::TokioTimer;
pub use timer::{Sleep, Timer, VirtualTimer};
