//! Durable runs: a run that is journalled survives its process, and goes on in another one.
//!
//! An agent with a store ([`Agent::with_checkpoints`]) writes a journal of each run: every event that reaches the run, and
//! every call before it is made. A run whose process ended is loaded by its id and goes on where it was:
//!
//! ```
//! use peregrine_agent::{Agent, Input, More};
//! use peregrine_checkpoints::{Checkpoints, Options};
//! use peregrine_core::{RunId, Scope};
//! # use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ModelInfo};
//! # struct Clerk(ModelInfo);
//! # impl ChatModel for Clerk {
//! #     fn info(&self) -> &ModelInfo { &self.0 }
//! #     async fn complete(&self, _: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
//! #         tokio::task::yield_now().await;
//! #         Ok(ChatResponse::text("Paid."))
//! #     }
//! # }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let model = || Clerk(ModelInfo::new("example", "clerk"));
//! # let folder = tempfile::tempdir()?;
//! # let uri = format!("dir:{}", folder.path().display());
//! let runs = Checkpoints::open(&uri, Options::default()).await?;
//! let agent = Agent::new(model()).with_scope(Scope::tenant("acme")?).with_checkpoints(runs);
//!
//! let id = RunId::from_parts(1_700_000_000_000, [7; 10]);
//! let payment = agent.run(Input::from("Pay the bill.").with_run_id(id));
//! # let mut payment = Box::pin(payment);
//! # assert!(futures_util::FutureExt::now_or_never(payment.as_mut()).is_none());
//! drop(payment); // or the process is killed, or the machine stops
//!
//! let stored = agent.load(id).await?;
//! assert!(stored.in_doubt().is_empty());
//! let output = stored.resume(More::default()).await?;
//! assert_eq!(output.text(), "Paid.");
//!
//! // A run that is over gives the outcome that it had, and asks nobody.
//! assert_eq!(agent.load(id).await?.resume(More::default()).await?, output);
//! # Ok(()) }
//! ```
//!
//! # What happens to what was under way
//!
//! | under way | when the run goes on |
//! |---|---|
//! | a call to a model | it is made again, and counts as another step |
//! | a call of a read-only tool | it is made again |
//! | a call of an idempotent tool | it is made again, under the same [key](peregrine_tools::ToolContext::idempotency_key), in a fork too |
//! | a call with side effects | the run stops as [`Error::InDoubt`] until [`StoredRun::resolve`] says what came of it |
//! | a question to a person | it is asked again |
//! | the memory | it is asked, or told, again |
//!
//! A call that was never announced was never made, and is no doubt.
//!
//! # What holds
//!
//! - An event is acknowledged by the store, with what it leads to, before anything that it leads to is begun. What an
//!   acknowledgement promises, [`Durability`](peregrine_checkpoints::Durability) says, for all runs or
//!   [for one](Input::with_durability).
//! - A step costs one append, of what is new. How long the run is does not matter.
//! - A store that fails ends the run with [`Error::Checkpoints`]. What was acknowledged is there, and the run goes on from
//!   it when the store is back. Dropping the future of a run at any await does no more harm than that.
//! - One process at a time works on a run. Another one that resumes it gets a typed error, as does one that begins a run
//!   under an id that is there.
//! - Tokens, money and calls of tools that the run had used count against the agent's own
//!   [budget](crate::Agent::with_budget) when it goes on. Budgets above it (shared ones, that of a request) are those of
//!   the present and are charged with what is done now; so is time, because a run may lie for days.
//! - A journal holds what is said: messages, arguments, results, rules. Credentials and headers are in none of these. Hooks
//!   do not see a run again that they have seen; what they changed is journalled as changed.
//!
//! A run whose [durability](Input::with_durability) is `None` has no journal, and costs what a run without a store costs.

mod compare;
pub(crate) mod digest;
pub(crate) mod fold;
pub(crate) mod fork;
pub(crate) mod open;
pub(crate) mod record;
mod replay;
mod stored;

pub use compare::{Difference, RunDiff};
pub use digest::Digest;
pub use fork::{Change, Fork};
pub use record::{Announced, Entry, Finished, Note, SignatureId, What};
pub use replay::{Divergence, Replayed};
pub use stored::{InDoubt, Resolution, RunRef, RunStatus, StoredRun};

#[allow(unused_imports, reason = "for the links above")]
use crate::{Agent, Error, Input};
