//! One attempt of a step: claim, action, completion, as one future that keeps the time limit and the lease.
//!
//! Written by hand so that an attempt that waits for nothing costs one box, which is the action's own: what is known at
//! once is used at once, and a box for what is waited for is only made when something is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde_json::Value;

use super::record::Cause;
use crate::action::RunContext;
use crate::engine::{Answer, AttemptKey, Claim, EngineError, Lease};
use crate::panics::caught;
use crate::timer::Sleep;
use crate::{ActionResult, BoxFuture, Effect, StepCall};

/// How an attempt ended.
#[derive(Debug, PartialEq)]
pub(crate) enum AttemptEnd {
    Done(Value),
    /// The engine had it already.
    Known(Value),
    Failed(Cause),
    Cancelled,
}

pub(crate) struct Attempt {
    context: Arc<RunContext>,
    /// Taken when the action is called.
    call: Option<StepCall>,
    action: u32,
    effect: Effect,
    timeout: Option<Duration>,
    /// Whether the engine is asked. Checks are not its business: they can be done again.
    through_engine: bool,
    waiting: Option<Box<Waiting>>,
}

/// What is waited for.
enum Waiting {
    Claim(Answer<Claim>),
    Held(Sleep),
    Action(Active),
    Completion(Answer<()>, AttemptEnd),
}

/// How far an attempt came without waiting.
enum Progress {
    End(AttemptEnd),
    /// To be polled.
    Waits(Waiting),
    /// Polled already.
    Pending(Waiting),
}

impl Attempt {
    pub(crate) fn new(
        context: Arc<RunContext>,
        action: u32,
        call: StepCall,
        effect: Effect,
        timeout: Option<Duration>,
        through_engine: bool,
    ) -> Self {
        Self {
            context,
            call: Some(call),
            action,
            effect,
            timeout,
            through_engine,
            waiting: None,
        }
    }

    fn begin(&mut self, context: &mut Context<'_>) -> Progress {
        if !self.through_engine {
            return self.run(None, context);
        }
        let (step, attempt) = self
            .call
            .as_ref()
            .map_or(("", 0), |call| (call.id(), call.attempt()));
        let answer = self.context.engine.claim(&AttemptKey {
            run_id: &self.context.run_id,
            step,
            attempt,
            effect: self.effect,
        });
        match answer.into_now() {
            Ok(claim) => self.claimed(claim, context),
            Err(later) => Progress::Waits(Waiting::Claim(later)),
        }
    }

    fn claimed(&mut self, claim: Result<Claim, EngineError>, context: &mut Context<'_>) -> Progress {
        match claim {
            Ok(Claim::Granted(lease)) => self.run(Some(lease), context),
            Ok(Claim::Held(wait)) => Progress::Waits(Waiting::Held(self.context.sleep(wait))),
            Ok(Claim::Done(value)) => Progress::End(AttemptEnd::Known(value)),
            Err(error) => Progress::End(engine_failed(&error)),
        }
    }

    /// Calls the action and polls it for the first time.
    fn run(&mut self, lease: Option<Lease>, context: &mut Context<'_>) -> Progress {
        let Some(call) = self.call.take() else {
            // Only after the end.
            return Progress::End(AttemptEnd::Cancelled);
        };
        let run = &*self.context;
        let action = run.actions.at(self.action);
        // From before the first poll, which may take its time.
        let limit = self
            .timeout
            .map(|limit| (limit, run.timer.now().saturating_add(limit)));
        let first = caught(|| {
            let mut future = action.call(call);
            match future.as_mut().poll(context) {
                // Its destructor is part of it.
                Poll::Ready(end) => Ok(end),
                Poll::Pending => Err(future),
            }
        });
        let future = match first {
            Ok(Ok(end)) => return self.complete(lease.as_ref(), end.map_err(Cause::from)),
            Err(message) => return self.complete(lease.as_ref(), Err(Cause::Panic { message })),
            Ok(Err(future)) => future,
        };
        let every = lease.as_ref().and_then(|lease| lease.heartbeat_every);
        let mut active = Active {
            future,
            deadline: limit.map(|(limit, at)| (limit, run.timer.sleep_until(at))),
            pulse: every.map(|every| Pulse::Waits(every, run.sleep(every))),
            lease,
        };
        match active.poll_limits(context, run) {
            Poll::Pending => Progress::Pending(Waiting::Action(active)),
            Poll::Ready(Limit::Time(cause)) => self.ended(active, Err(cause)),
            Poll::Ready(Limit::Lease(error)) => Progress::End(engine_failed(&error)),
        }
    }

    /// The action is dropped, whatever its destructor does, before its end is told.
    fn ended(&self, active: Active, end: Result<Value, Cause>) -> Progress {
        let Active { future, lease, .. } = active;
        let end = match (caught(|| drop(future)), end) {
            (Err(message), Ok(_)) => Err(Cause::Panic { message }),
            (_, end) => end,
        };
        self.complete(lease.as_ref(), end)
    }

    fn complete(&self, lease: Option<&Lease>, end: Result<Value, Cause>) -> Progress {
        let answer = lease.map(|lease| self.context.engine.complete(lease, &end).into_now());
        let end = match end {
            Ok(value) => AttemptEnd::Done(value),
            Err(cause) => AttemptEnd::Failed(cause),
        };
        match answer {
            None | Some(Ok(Ok(()))) => Progress::End(end),
            Some(Ok(Err(error))) => Progress::End(engine_failed(&error)),
            Some(Err(later)) => Progress::Waits(Waiting::Completion(later, end)),
        }
    }
}

impl Future for Attempt {
    type Output = AttemptEnd;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<AttemptEnd> {
        let this = &mut *self;
        loop {
            let progress = match this.waiting.as_deref_mut() {
                None => this.begin(context),
                Some(Waiting::Claim(answer)) => {
                    let claim = ready!(Pin::new(answer).poll(context));
                    this.claimed(claim, context)
                }
                Some(Waiting::Held(sleep)) => {
                    ready!(sleep.as_mut().poll(context));
                    this.begin(context)
                }
                Some(Waiting::Action(active)) => {
                    let end = match poll_action(&mut active.future, context) {
                        Poll::Ready(end) => end,
                        Poll::Pending => match ready!(active.poll_limits(context, &this.context)) {
                            Limit::Time(cause) => Err(cause),
                            Limit::Lease(error) => {
                                // The action goes before the word of the loss does.
                                this.waiting = None;
                                return Poll::Ready(engine_failed(&error));
                            }
                        },
                    };
                    match this.waiting.take().map(|waiting| *waiting) {
                        Some(Waiting::Action(active)) => this.ended(active, end),
                        _ => return Poll::Pending,
                    }
                }
                Some(Waiting::Completion(answer, _)) => {
                    let answer = ready!(Pin::new(answer).poll(context));
                    match (answer, this.waiting.take().map(|waiting| *waiting)) {
                        (Ok(()), Some(Waiting::Completion(_, end))) => Progress::End(end),
                        (Err(error), _) => Progress::End(engine_failed(&error)),
                        (Ok(()), _) => return Poll::Pending,
                    }
                }
            };
            match progress {
                Progress::End(end) => return Poll::Ready(end),
                Progress::Waits(waiting) => this.waiting = Some(Box::new(waiting)),
                Progress::Pending(waiting) => {
                    this.waiting = Some(Box::new(waiting));
                    return Poll::Pending;
                }
            }
        }
    }
}

/// An action that runs, and what limits it.
struct Active {
    future: BoxFuture<ActionResult>,
    deadline: Option<(Duration, Sleep)>,
    pulse: Option<Pulse>,
    lease: Option<Lease>,
}

/// What an action came to the end of.
enum Limit {
    Time(Cause),
    Lease(EngineError),
}

/// The heartbeat of a lease: the wait for the next one, or one under way.
enum Pulse {
    Waits(Duration, Sleep),
    Beats(Duration, Answer<()>),
}

fn poll_action(
    future: &mut BoxFuture<ActionResult>,
    context: &mut Context<'_>,
) -> Poll<Result<Value, Cause>> {
    match caught(|| future.as_mut().poll(context)) {
        Ok(poll) => poll.map_err(Cause::from),
        Err(message) => Poll::Ready(Err(Cause::Panic { message })),
    }
}

impl Active {
    fn poll_limits(&mut self, context: &mut Context<'_>, run: &RunContext) -> Poll<Limit> {
        if let Some((limit, sleep)) = &mut self.deadline
            && sleep.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Limit::Time(Cause::Timeout { limit: *limit }));
        }
        let (Some(pulse), Some(lease)) = (&mut self.pulse, &self.lease) else {
            return Poll::Pending;
        };
        pulse.poll(context, run, lease).map(Limit::Lease)
    }
}

impl Pulse {
    /// Beats as often as the lease wants; ends only with its loss.
    fn poll(&mut self, context: &mut Context<'_>, run: &RunContext, lease: &Lease) -> Poll<EngineError> {
        loop {
            *self = match self {
                Self::Waits(every, sleep) => {
                    ready!(sleep.as_mut().poll(context));
                    Self::Beats(*every, run.engine.heartbeat(lease))
                }
                Self::Beats(every, answer) => match ready!(Pin::new(answer).poll(context)) {
                    Ok(()) => Self::Waits(*every, run.sleep(*every)),
                    Err(error) => return Poll::Ready(error),
                },
            }
        }
    }
}

fn engine_failed(error: &EngineError) -> AttemptEnd {
    let message = error.to_string();
    AttemptEnd::Failed(Cause::Engine { message })
}
