//! The driver of a run: the only place where futures, time and the state of a plan meet. One task owns it all.
//!
//! Each poll lets go what may start, polls what can go on, and feeds what ended back, until nothing can go on; then it
//! waits for the next retry, or moves virtual time on. A poll does a bounded amount of work, then lets others have the
//! thread.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use super::{Attempt, AttemptEnd, Cause, Observers, PlanState, Snapshot, Start};
use crate::action::RunContext;
use crate::plan::{Compiler, PlanError, Problems};
use crate::slots::{Next, POLL_BUDGET, Slots};
use crate::timer::Sleep;
use crate::{Placement, Report, Step, StepCall};

/// Something that runs.
pub(crate) enum Running {
    Here(Attempt),
    #[cfg(feature = "tokio")]
    Task(crate::Spawned<AttemptEnd>),
}

impl Future for Running {
    type Output = AttemptEnd;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<AttemptEnd> {
        match &mut *self {
            Self::Here(attempt) => Pin::new(attempt).poll(context),
            #[cfg(feature = "tokio")]
            Self::Task(task) => task.poll_join(context).map(|end| match end {
                Ok(end) => end,
                Err(error) if error.is_cancelled() => AttemptEnd::Cancelled,
                Err(error) => AttemptEnd::Failed(Cause::Panic {
                    message: error.to_string(),
                }),
            }),
        }
    }
}

/// Steps that come while the plan runs.
pub(crate) struct Intake<'a> {
    pub(crate) source: Pin<Box<dyn Stream<Item = Result<Step, PlanError>> + Send + 'a>>,
    pub(crate) compiler: Compiler,
}

pub(crate) struct Driver<'a> {
    state: PlanState,
    context: Arc<RunContext>,
    placement: Placement,
    max_parallel: usize,
    observers: Observers<'a>,
    cancel: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    wind_down: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    intake: Option<Intake<'a>>,
    known: Option<&'a Snapshot>,
    source_error: Option<PlanError>,
    slots: Slots<Running>,
    origin: Duration,
    /// The wait for the next retry, and until when it is.
    retry: Option<(Duration, Sleep)>,
    /// When nothing could go on the last time, in virtual time.
    idle_at: Option<Duration>,
    /// Whether what ran when the run was stopped has been told to end.
    is_reaped: bool,
}

/// What a driver is made of.
pub(crate) struct Parts<'a> {
    pub(crate) state: PlanState,
    pub(crate) context: RunContext,
    pub(crate) placement: Placement,
    pub(crate) max_parallel: usize,
    pub(crate) observers: Observers<'a>,
    pub(crate) cancel: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    pub(crate) wind_down: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    pub(crate) intake: Option<Intake<'a>>,
    pub(crate) known: Option<&'a Snapshot>,
}

impl<'a> Driver<'a> {
    /// A driver whose time begins now.
    ///
    /// # Errors
    ///
    /// What is known from before is about another plan.
    pub(crate) fn new(parts: Parts<'a>) -> Result<Self, PlanError> {
        let Parts {
            mut state,
            context,
            placement,
            max_parallel,
            mut observers,
            cancel,
            wind_down,
            intake,
            known,
        } = parts;
        let origin = context.timer.now();
        state.take_in(known, &mut observers, Duration::ZERO)?;
        state.release(true, Duration::ZERO);
        Ok(Self {
            state,
            context: Arc::new(context),
            placement,
            max_parallel,
            observers,
            cancel,
            wind_down,
            intake,
            known,
            source_error: None,
            slots: Slots::new(),
            origin,
            retry: None,
            idle_at: None,
            is_reaped: false,
        })
    }
}

impl Driver<'_> {
    /// Runs to the end.
    pub(crate) async fn drive(mut self) -> Report {
        let makespan = poll_fn(|context| self.poll(context)).await;
        Report::new(self.state, self.max_parallel, makespan, self.source_error)
    }

    /// Ready with the time of the last end.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Duration> {
        let mut budget = POLL_BUDGET;
        let mut now = self.now();
        // Whatever comes from outside wakes the task, so it is looked at once a poll.
        self.poll_cancel(context, now);
        if self.poll_intake(context, now) {
            // There is more at once: others first.
            context.waker().wake_by_ref();
        }
        loop {
            self.state.tick(now);
            while let Some(start) = self.state.next(&mut self.observers, now, &mut budget) {
                let token = start.node as usize;
                let running = self.begin(start);
                self.slots.insert(token, running);
            }
            self.reap(now);
            match self.slots.poll_next(context, &mut budget) {
                Next::Ended(token, end) => {
                    now = self.now();
                    let node = u32::try_from(token).expect("tokens are nodes");
                    let end = end.unwrap_or_else(|message| {
                        let message = format!("it panicked: {message}");
                        AttemptEnd::Failed(Cause::Engine { message })
                    });
                    self.state.finished(node, end, &mut self.observers, now);
                    continue;
                }
                Next::Exhausted => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Next::Idle => {}
            }
            if budget == 0 {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.state.is_done() && self.intake.is_none() {
                return Poll::Ready(now);
            }
            let before = now;
            now = self.now();
            if self.poll_retry(context) || now > before && self.state.wakes_at().is_some_and(|at| at <= now) {
                continue;
            }
            if let Some(timer) = self.context.timer.as_virtual() {
                // Whoever else waits for this timer has had a poll at this time before it moves, and has one after.
                let was_idle = self.idle_at.replace(now) == Some(now);
                if !was_idle || timer.advance_to_next() {
                    context.waker().wake_by_ref();
                }
            }
            return Poll::Pending;
        }
    }

    fn now(&self) -> Duration {
        self.context.timer.now().saturating_sub(self.origin)
    }

    fn begin(&self, start: Start) -> Running {
        let Start {
            node: _,
            place,
            check,
            action,
            effect,
            attempt,
            parameters,
            timeout,
        } = start;
        let id = Arc::clone(&self.state.records()[place as usize].id);
        let call = StepCall::new(Arc::clone(&self.context), id, check, attempt, parameters);
        let attempt = Attempt::new(
            Arc::clone(&self.context),
            action,
            call,
            effect,
            timeout,
            check.is_none(),
        );
        match self.placement {
            #[cfg(feature = "tokio")]
            Placement::Spawned if self.context.timer.as_virtual().is_none() => {
                Running::Task(crate::spawned(attempt))
            }
            _ => Running::Here(attempt),
        }
    }

    fn poll_cancel(&mut self, context: &mut Context<'_>, now: Duration) {
        if let Some(cancel) = &mut self.cancel
            && cancel.as_mut().poll(context).is_ready()
        {
            self.cancel = None;
            self.cut_intake();
            self.is_reaped = false;
            self.state.stop(&Cause::Cancelled, &mut self.observers, now);
        }
        if let Some(wind_down) = &mut self.wind_down
            && wind_down.as_mut().poll(context).is_ready()
        {
            self.wind_down = None;
            self.cut_intake();
            if self.state.stopped().is_none() {
                // What runs may go on.
                self.is_reaped = true;
                self.state.stop(&Cause::Cancelled, &mut self.observers, now);
            }
        }
    }

    fn cut_intake(&mut self) {
        if self.intake.take().is_some() {
            self.state.cut();
        }
    }

    /// Takes in what has come of the plan; whether there may be more at once.
    fn poll_intake(&mut self, context: &mut Context<'_>, now: Duration) -> bool {
        for _ in 0..POLL_BUDGET {
            if self.state.stopped().is_some() {
                self.intake = None;
            }
            let Some(intake) = &mut self.intake else {
                return false;
            };
            let error = match intake.source.as_mut().poll_next(context) {
                Poll::Pending => return false,
                Poll::Ready(None) => {
                    self.intake = None;
                    self.state.release(true, now);
                    return false;
                }
                Poll::Ready(Some(Err(error))) => error,
                Poll::Ready(Some(Ok(step))) => match self.add(step, now) {
                    Ok(()) => continue,
                    Err(error) => error,
                },
            };
            // What follows is unknown, so nothing more starts; what runs is not to blame, and ends.
            self.intake = None;
            self.source_error = Some(error);
            self.state.stop(&Cause::Unreadable, &mut self.observers, now);
            self.is_reaped = true;
            return false;
        }
        true
    }

    fn add(&mut self, step: Step, now: Duration) -> Result<(), PlanError> {
        let Some(intake) = &mut self.intake else {
            return Ok(());
        };
        let mut problems = Problems::default();
        intake.compiler.add_id(&step.id, &mut problems);
        let place = self.state.graph().len();
        let compiled = intake.compiler.compile(place, step, true, &mut problems);
        problems.into_result()?;
        self.state.graph_mut().add_step(compiled)?;
        self.state.take_in(self.known, &mut self.observers, now)?;
        self.state.release(false, now);
        Ok(())
    }

    /// Once the run is stopped, ends what runs: at once where it runs here, at its next `await` where it is a task.
    fn reap(&mut self, now: Duration) {
        if self.state.stopped().is_none() || std::mem::replace(&mut self.is_reaped, true) {
            return;
        }
        let mut dropped = Vec::new();
        self.slots.remove(|token, running| match running {
            Running::Here(_) => {
                dropped.push(token);
                true
            }
            #[cfg(feature = "tokio")]
            Running::Task(task) => {
                task.abort();
                false
            }
        });
        dropped.sort_unstable();
        for token in dropped {
            let node = u32::try_from(token).expect("tokens are nodes");
            self.state
                .finished(node, AttemptEnd::Cancelled, &mut self.observers, now);
        }
    }

    /// Whether a retry has become due.
    fn poll_retry(&mut self, context: &mut Context<'_>) -> bool {
        let Some(at) = self.state.wakes_at() else {
            self.retry = None;
            return false;
        };
        let (_, sleep) = match &mut self.retry {
            Some(known) if known.0 == at => known,
            other => other.insert((at, self.context.timer.sleep_until(self.origin.saturating_add(at)))),
        };
        let is_due = sleep.as_mut().poll(context).is_ready();
        if is_due {
            self.retry = None;
        }
        is_due
    }
}
