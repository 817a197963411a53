//! Runs: a plan, its state, and the driver that polls what runs.

mod attempt;
mod checks;
mod driver;
mod event;
mod graph;
mod record;
mod resume;
mod state;

pub(crate) use attempt::{Attempt, AttemptEnd};
pub(crate) use driver::{Driver, Intake, Parts};
pub(crate) use event::Observers;
pub use event::{Event, Observer, Snapshot};
pub(crate) use graph::{Graph, Role};
pub use record::{Cause, CheckRecord, StepRecord, StepState};
pub(crate) use state::{Bounds, PlanState, Start};
