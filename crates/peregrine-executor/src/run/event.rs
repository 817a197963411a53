//! What can be seen of a run while it goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{Cause, CheckRecord, StepRecord, StepState};

/// Something that happened in a run. Borrowed, so that nobody who looks costs nothing.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An attempt of a step begins: it is said before anything of it happens. `record` says which attempt.
    Started {
        /// How far the step is.
        record: &'a StepRecord,
    },
    /// An attempt failed, and another follows.
    Retrying {
        /// How far the step is.
        record: &'a StepRecord,
        /// Why the attempt failed.
        cause: &'a Cause,
        /// How long the step waits.
        wait: Duration,
    },
    /// A step came to its end: it is said before anything that depends on it happens.
    Ended {
        /// What became of it.
        record: &'a StepRecord,
        /// How many steps have ended, with this one.
        ended: usize,
        /// How many there are, as far as is known.
        known: usize,
    },
    /// A check came to its end.
    Checked {
        /// The id of the step that was checked.
        step: &'a str,
        /// Which of its checks, from 0.
        index: usize,
        /// What became of it.
        record: &'a CheckRecord,
    },
}

/// Looks at a run. It can neither change nor stop it; what must be able to refuse is an [`Engine`](crate::Engine).
///
/// Closures of `&Event` are observers. An observer is called on the task of the run, so it should be quick; where it
/// panics, the run ends with that panic.
pub trait Observer: Send {
    /// Something happened.
    fn observe(&mut self, event: &Event<'_>);
}

impl<F: FnMut(&Event<'_>) + Send> Observer for F {
    fn observe(&mut self, event: &Event<'_>) {
        self(event);
    }
}

/// What is known of a run, such that another can go on from there: an observer that keeps the record of each step.
/// Serialisable.
///
/// # Examples
///
/// ```
/// use peregrine_executor::{Executor, Plan, Snapshot, VirtualTimer, builtin};
///
/// # futures_util::FutureExt::now_or_never(async {
/// let plan = Plan::from_json(r#"[{"id": "a", "action": "echo"}, {"id": "b", "action": "fail", "depends_on": ["a"]}]"#)?;
/// let executor = Executor::new(builtin::actions(), VirtualTimer::new());
/// let mut snapshot = Snapshot::default();
/// executor.run(&plan).observed_by(&mut snapshot).await?;
///
/// // Later, elsewhere: `a` is not done again, `b` is.
/// snapshot.forget_failures();
/// let report = executor.run(&plan).resumed_from(&snapshot).await?;
/// assert!(report.step("a").unwrap().reused);
/// assert!(!report.step("b").unwrap().reused);
/// # Ok::<(), peregrine_executor::PlanError>(())
/// # }).unwrap()?;
/// # Ok::<(), peregrine_executor::PlanError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Snapshot {
    /// By the ids of the steps. To have a step done again, remove it.
    pub steps: BTreeMap<String, StepRecord>,
}

impl Snapshot {
    /// Takes in a record, such as one that was read from a journal. A later one of the same step replaces it.
    pub fn insert(&mut self, record: StepRecord) {
        self.steps.insert(record.id.to_string(), record);
    }

    /// Forgets the steps that failed, so that they are done again. Steps in doubt stay: whether what they did was done
    /// has to be found out elsewhere.
    pub fn forget_failures(&mut self) {
        self.steps
            .retain(|_, record| record.state != StepState::Failed || record.cause == Some(Cause::InDoubt));
    }
}

impl Observer for Snapshot {
    fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { record } | Event::Retrying { record, .. } | Event::Ended { record, .. } => {
                self.insert((*record).clone());
            }
            Event::Checked { step, index, record } => {
                // A step ends before its checks do, and its record has a place for each of them.
                let known = self.steps.get_mut(*step);
                if let Some(known) = known.and_then(|known| known.checks.get_mut(*index)) {
                    known.clone_from(record);
                }
            }
        }
    }
}

/// Those who look at one run.
#[derive(Default)]
pub(crate) struct Observers<'a>(Vec<&'a mut dyn Observer>);

impl<'a> Observers<'a> {
    pub(crate) fn add(&mut self, observer: &'a mut dyn Observer) {
        self.0.push(observer);
    }

    pub(crate) fn tell(&mut self, event: Event<'_>) {
        for observer in &mut self.0 {
            observer.observe(&event);
        }
    }
}
