//! What became of a plan, and how well its time was used.

mod svg;
mod text;

use std::sync::Arc;
use std::time::Duration;

use crate::PlanError;
use crate::run::{Cause, CheckRecord, PlanState, Role, StepRecord, StepState};

/// What became of a plan as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Every required step succeeded, and no gate of one failed.
    Succeeded,
    /// A required step did not succeed, or a gate of one failed, or the plan could not be read to its end.
    Failed,
    /// The run was cancelled from outside before all had ended.
    Cancelled,
}

impl Outcome {
    /// Its name, in small letters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What became of a plan: each step, and how well the time was used. All times count from the start of the run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// What became of the whole.
    pub outcome: Outcome,
    /// Every step, in the order of the plan.
    pub steps: Vec<StepRecord>,
    /// From the start to the last end.
    pub makespan: Duration,
    /// The longest chain of steps and checks that waited for each other, by the times they took: no number of places
    /// could have made it faster.
    pub critical_path: Duration,
    /// The ids of the steps on it.
    pub critical_steps: Vec<Arc<str>>,
    /// How long all attempts and checks took together: one after the other, without waits, it would have been this.
    pub work: Duration,
    /// How long all steps together waited for a place, once they could have started.
    pub queued: Duration,
    /// The most steps that ran at the same time.
    pub peak_parallel: usize,
    /// How many steps could have run at the same time.
    pub max_parallel: usize,
    /// Why the plan could not be read to its end, where it was given step by step.
    pub source_error: Option<PlanError>,
}

impl Report {
    pub(crate) fn new(
        state: PlanState,
        max_parallel: usize,
        makespan: Duration,
        source_error: Option<PlanError>,
    ) -> Self {
        let (critical_path, critical_steps) = critical_path(&state);
        let outcome = outcome(&state, source_error.is_some());
        let peak_parallel = state.peak_parallel();
        let steps = state.into_records();
        // One pass: the records of a large plan do not fit into the caches.
        let (mut work, mut queued) = (Duration::ZERO, Duration::ZERO);
        for record in &steps {
            work += record.busy;
            queued += record.queued();
            work += record.checks.iter().map(CheckRecord::duration).sum::<Duration>();
        }
        Self {
            outcome,
            makespan,
            critical_path,
            critical_steps,
            work,
            queued,
            peak_parallel,
            max_parallel,
            source_error,
            steps,
        }
    }

    /// Whether every required step succeeded and no gate of one failed.
    pub fn is_success(&self) -> bool {
        self.outcome == Outcome::Succeeded
    }

    /// What became of a step. Looks through the list.
    pub fn step(&self, id: &str) -> Option<&StepRecord> {
        self.steps.iter().find(|record| &*record.id == id)
    }

    /// How many steps are in this state.
    pub fn count(&self, state: StepState) -> usize {
        self.steps.iter().filter(|record| record.state == state).count()
    }

    /// How many times faster it was than one after the other: the work over the makespan. 1 where nothing took time.
    pub fn speed_up(&self) -> f64 {
        ratio(self.work, self.makespan)
    }

    /// How many steps ran at the same time, on average over the makespan. 1 where nothing took time.
    pub fn parallelism(&self) -> f64 {
        ratio(self.steps.iter().map(|record| record.busy).sum(), self.makespan)
    }

    /// The shortest makespan that any schedule could have had: the critical path, or the work of the steps spread over
    /// the places without a gap.
    pub fn lower_bound(&self) -> Duration {
        let steps: Duration = self.steps.iter().map(|record| record.busy).sum();
        let places = u32::try_from(self.max_parallel).unwrap_or(u32::MAX).max(1);
        self.critical_path.max(steps / places)
    }

    /// A Gantt chart of characters, `width` of them a line, for a terminal: one line a step, the first 200 of them.
    /// `#` runs, `.` waits for a place.
    pub fn gantt_text(&self, width: usize) -> String {
        text::render(self, width)
    }

    /// A Gantt chart as an SVG document of its own, one row a step, the first 1,000 of them. Needs nothing from a
    /// network.
    pub fn gantt_svg(&self) -> String {
        svg::render(self)
    }
}

fn ratio(of: Duration, to: Duration) -> f64 {
    if to.is_zero() {
        return 1.0;
    }
    of.as_secs_f64() / to.as_secs_f64()
}

fn outcome(state: &PlanState, unreadable: bool) -> Outcome {
    if state.stopped() == Some(&Cause::Cancelled)
        && (state.is_cut()
            || state.records().iter().any(|record| {
                let checks = record.checks.iter().map(|check| check.state);
                std::iter::once(record.state)
                    .chain(checks)
                    .any(|state| state == StepState::Cancelled)
            }))
    {
        return Outcome::Cancelled;
    }
    let is_good = |(place, record): (usize, &StepRecord)| {
        if !state.graph().compiled()[place].step.on_failure.is_required() {
            return true;
        }
        let gates = record.checks.iter().filter(|check| check.policy.is_gate());
        record.state == StepState::Succeeded && gates.into_iter().all(|check| check.passed())
    };
    if unreadable || !state.records().iter().enumerate().all(is_good) {
        Outcome::Failed
    } else {
        Outcome::Succeeded
    }
}

/// The numbers of the nodes are an order in which each stands behind what it waits for, so one pass is enough.
fn critical_path(state: &PlanState) -> (Duration, Vec<Arc<str>>) {
    const START: u32 = u32::MAX;
    let scheduler = state.graph().scheduler();
    let records = state.records();
    // The longest way to the start of each node, in nanoseconds, and from where it comes.
    let mut until = vec![(0_u64, START); scheduler.len()];
    let mut longest = (0, START);
    for node in (0..).take(scheduler.len()) {
        let (started_at, ended_at) = match state.graph().role(node) {
            Role::Step(place) => {
                let record = &records[place as usize];
                (record.started_at, record.ended_at)
            }
            Role::Check { place, index } => {
                let record = &records[place as usize].checks[index as usize];
                (record.started_at, record.ended_at)
            }
            Role::Join => (Some(Duration::ZERO), Duration::ZERO),
        };
        let Some(started_at) = started_at else {
            continue;
        };
        let own = ended_at.saturating_sub(started_at).as_nanos();
        let own = u64::try_from(own).unwrap_or(u64::MAX);
        let end = until[node as usize].0.saturating_add(own);
        if end >= longest.0 {
            longest = (end, node);
        }
        for behind in scheduler.behind(node) {
            if end >= until[behind as usize].0 {
                until[behind as usize] = (end, node);
            }
        }
    }
    let mut steps = Vec::new();
    let mut next = longest.1;
    while next != START {
        if let Role::Step(place) = state.graph().role(next) {
            steps.push(Arc::clone(&records[place as usize].id));
        }
        next = until[next as usize].1;
    }
    steps.reverse();
    (Duration::from_nanos(longest.0), steps)
}
