//! Interrupts: a tree of cancellation scopes, with limits, warnings, signals, handlers and process groups.
//!
//! Whatever can be stopped runs under a [`Scope`]: a run, a sub-agent, a tool, a call of a model. Scopes form a tree; an
//! interrupt of one is an interrupt of all below it. There are two of them: [`Mode::Graceful`] means finish the step, write
//! the checkpoint, stop; [`Mode::Immediate`] means drop the model's stream and kill the tools now. The first can become
//! the second, never the other way round. Everything that was interrupted says by what, where and when: [`Interrupted`].
//!
//! ```
//! # #[cfg(not(all(unix, feature = "signal", feature = "tokio")))]
//! # fn main() {}
//! # #[cfg(all(unix, feature = "signal", feature = "tokio"))]
//! # fn main() {
//! use std::time::Duration;
//! use peregrine_interrupts::{Budget, Error, Kind, Limits, Scope, TokioTimer, Unit};
//!
//! # async fn ask_the_model() -> (&'static str, u64) { ("use `search`", 1_200) }
//! # async fn call_the_tool() -> &'static str { "found" }
//! async fn agent(run: &Scope) -> Result<&'static str, Error> {
//!     loop {
//!         run.check()?; // before each step
//!         let (answer, tokens) = run.run_until_stopped(ask_the_model()).await?;
//!         run.charge(&Unit::TOKENS, tokens);
//!
//!         let limits = Limits::new().with_time(Duration::from_secs(30));
//!         let tool = run.child_with(Kind::Tool, "search", limits);
//!         let found = tool.guard(Duration::from_secs(2), call_the_tool()).await?;
//!         // .. the checkpoint ..
//! #       let _ = answer;
//! #       if found == "found" { return Ok(found) }
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let limits = Limits::new()
//!     .with_time(Duration::from_secs(600))
//!     .with_budget(Budget::new(Unit::TOKENS, 200_000))
//!     .with_grace(Duration::from_secs(25));
//! let run = Scope::root_with("run-1", TokioTimer::new(), limits);
//! let _ctrl_c = peregrine_interrupts::signal::subscribe(&run)?;
//! let outcome = agent(&run).await;
//! # assert_eq!(outcome?, "found");
//! # Ok::<(), Error>(())
//! # }).unwrap();
//! # }
//! ```
//!
//! # Which method where
//!
//! | where | what | ends at |
//! |---|---|---|
//! | before each step, in loops | [`check`](Scope::check)`()?` or [`is_interrupted`](Scope::is_interrupted) | either |
//! | inside of a step that finishes: a call of a model | [`run_until_stopped`](Scope::run_until_stopped), [`stream_until_stopped`](Scope::stream_until_stopped) | immediate |
//! | where nothing is under way: approval, rate limit, backoff | [`run_until_graceful`](Scope::run_until_graceful), [`stream_until_graceful`](Scope::stream_until_graceful) | either |
//! | around a tool that may tidy up, or hang | [`guard`](Scope::guard) | immediate, plus a grace period |
//! | in `select!` | [`graceful`](Scope::graceful), [`cancelled`](Scope::cancelled) | either, immediate |
//! | for child processes | [`process::ProcessGroup`](process/struct.ProcessGroup.html) | immediate |
//! | for what has a handle but no future | [`on`](Scope::on) | as chosen |
//! | where a future's drop must stop other tasks | [`cancel_on_drop`](Scope::cancel_on_drop) | - |
//! | around code that only looks, or with handlers | [`watch`](Scope::watch) | - |
//!
//! # Sources
//!
//! | what interrupts | how it is set up | mode |
//! |---|---|---|
//! | a person, a parent, a server | [`Scope::interrupt`], [`Scope::handle`] | as asked; [`Handle::stop`] escalates |
//! | time | [`Limits::with_time`] | graceful unless set |
//! | a budget: tokens, money, calls | [`Limits::with_budget`] and [`Scope::charge`] | graceful unless set |
//! | Ctrl-C, SIGTERM | [`signal::subscribe`](signal/fn.subscribe.html) | graceful, then immediate |
//! | a step that does not finish | [`Limits::with_grace`] | immediate |
//! | anything else | [`Scope::watch`] with a [`Handler`] | as it says |
//! | nobody wants the result any more | [`Scope::cancel_on_drop`] | immediate |
//!
//! Limits give a [`Warning`] when most of them is used, 80 % by default: [`Scope::warnings`].
//!
//! # What holds
//!
//! - Looking is one atomic load. It reads no clock, so it fires no limit.
//! - No task, no thread (but the one for [signals](signal/index.html)), nothing that polls in intervals: **a time limit is kept by
//!   whoever waits** for its scope or for one below, with one timer until the next moment at which something is due. For code
//!   that never waits, [`watch`](Scope::watch) in a task of its own waits instead. Budgets fire where they are charged.
//! - Time is passed in ([`Timer`]) and monotonic. A wall clock that jumps changes nothing.
//! - When `interrupt` returns, all scopes below are interrupted, all who wait are woken, all process groups are killed.
//! - Dropping a future is its cancellation and leaves nothing behind, whichever future it is. A result that is there is
//!   handed out, interrupted or not: what had an effect is not forgotten.
//! - A dropped scope leaves the tree: memory is bounded by the scopes that somebody holds, and those whose limits bind them.
//! - Names and details are bounded and printed without control characters.
//!
//! # Features
//!
//! None is on by default; without them this crate knows no runtime and three small packages.
//!
//! | feature | adds |
//! |---|---|
//! | `tokio` | [`TokioTimer`](struct.TokioTimer.html) |
//! | `signal` | [`signal`](signal/index.html): Ctrl-C and others, on Unix, without a runtime |
//! | `process` | [`process`](process/index.html): groups of child processes, on Unix, with tokio |
//!
//! Prior art: the cancel scopes of N. J. Smith, "Timeouts and cancellation for humans" (2018).

#![cfg_attr(docsrs, feature(doc_cfg))]

mod alarm;
mod bounds;
mod error;
mod guard;
mod handle;
mod handler;
mod hook;
mod limits;
mod manual;
mod name;
#[cfg(all(unix, feature = "process"))]
#[cfg_attr(docsrs, doc(cfg(feature = "process")))]
pub mod process;
mod reason;
mod scope;
#[cfg(all(unix, feature = "signal"))]
#[cfg_attr(docsrs, doc(cfg(feature = "signal")))]
pub mod signal;
mod sync;
mod timer;
mod tree;
mod wait;
mod warning;

pub use error::{Error, ErrorKind};
pub use guard::{Abandoned, Guard};
pub use handle::Handle;
pub use handler::{Handler, Watch, handler};
pub use hook::{CancelOnDrop, Hook};
pub use limits::{Budget, BudgetUse, DEFAULT_WARNING_AT, Limits, TimeLimit, Unit};
pub use manual::ManualTimer;
pub use name::Name;
pub use reason::{Interrupt, Interrupted, Kind, Reason, ScopeInfo, Signal, Source};
pub use scope::Scope;
#[cfg(feature = "tokio")]
pub use timer::TokioTimer;
pub use timer::{Sleep, Timer};
pub use tree::Mode;
pub use wait::{RunUntil, StreamUntil, WaitForInterrupt};
pub use warning::{Warning, Warnings};
