//! What a plan needs of whatever keeps its steps: claim, heartbeat, completion, signals, timers.
//!
//! One small trait, with [`LocalEngine`] as what serves one process. A durable engine (a table of leases in PostgreSQL, a
//! journal service) implements the same five methods, and plans run over several machines without knowing it.
//!
//! Invariant: nothing of a step happens before its claim was answered, and nothing depends on it before its completion
//! was.

mod answer;
mod local;

use std::fmt;
use std::time::Duration;

use serde_json::Value;

pub use answer::Answer;
pub use local::LocalEngine;

use crate::{Cause, Effect};

/// What keeps the steps of runs.
///
/// The methods are called on the path of every step; what is known at once is answered with [`Answer::now`], which costs
/// no allocation.
pub trait Engine: Send + Sync + fmt::Debug {
    /// Asks for an attempt of a step. A durable engine records the answer before it gives it, and does not grant a step
    /// with side effects of which an earlier attempt has begun and not ended: whether to repeat it is not for it to say.
    fn claim(&self, attempt: &AttemptKey<'_>) -> Answer<Claim>;

    /// Says that the attempt still runs. An error is the loss of the lease: the attempt is dropped.
    fn heartbeat(&self, lease: &Lease) -> Answer<()>;

    /// Says how the attempt ended. Not called for one that was dropped: its lease runs out. An error fails the step, as
    /// nobody knows what is recorded.
    fn complete(&self, lease: &Lease, end: &Result<Value, Cause>) -> Answer<()>;

    /// Waits for a signal of this name to this run. Each signal is given to one who asks.
    fn signal(&self, run_id: &str, name: &str) -> Answer<Value>;

    /// Ends after `duration`. Asked again under the same name, a durable engine goes on with the timer that it has.
    fn timer(&self, run_id: &str, name: &str, duration: Duration) -> Answer<()>;
}

/// An attempt of a step, as an engine knows it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AttemptKey<'a> {
    /// The run.
    pub run_id: &'a str,
    /// The step, unique in its run.
    pub step: &'a str,
    /// The attempt, from 1.
    pub attempt: u32,
    /// What the step does to the world.
    pub effect: Effect,
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Claim {
    /// The attempt is the caller's.
    Granted(Lease),
    /// Somebody has completed the step, with this result. It is not done again.
    Done(Value),
    /// Somebody else is at it. To be asked again after this time; until then the step keeps its place.
    Held(Duration),
}

/// The right to an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What the engine knows it by.
    pub token: u64,
    /// How often the engine wants to hear that the attempt still runs.
    pub heartbeat_every: Option<Duration>,
}

/// Why an engine could not do what was asked. The message goes into reports: no secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    message: String,
}

impl EngineError {
    /// Says why.
    pub fn new(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { message }
    }
}
