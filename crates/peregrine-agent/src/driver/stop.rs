//! Stopping a run from outside: the scope that it runs under, what is heard from that, and what becomes of what is under
//! way.
//!
//! A run has a scope of its own below the one it was given, and each call of a model or a tool has one below that. A
//! graceful interrupt is one more event for the run: what is under way finishes, nothing new begins, and the run stops
//! where it can go on. An immediate one, also one that comes later than a graceful one, is an event too; here is decided
//! what it does to what is under way:
//!
//! | what | at an immediate interrupt |
//! |---|---|
//! | child processes below the scope | killed by whoever interrupts, before anything here is polled |
//! | calls of models, questions to people, hooks before a run, a memory that is asked | dropped: they can be asked again |
//! | tools that can be called again, and do not listen | told and dropped |
//! | tools that listen (to their scope or their cancellation), and those with side effects | told, and given the grace period |
//! | a memory that is told, hooks after a run | given the grace period |
//!
//! What ends by itself within the grace period is taken in as ever: a side effect that was carried out is known to be, and
//! a sub-agent below a tool has time to come to rest. What does not is abandoned, which is dropped and told in the report.
//!
//! Invariants: no effect of an event that arrives after an interrupt is performed before the run has heard of the
//! interrupt; and nothing that is below the run's scope outlasts the run.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream as _;
use peregrine_core::{Cost, Usage};
use peregrine_interrupts::{
    CancelOnDrop, Hook, Interrupted, Kind, Mode, Name, Scope, Source, Unit, WaitForInterrupt, Warning,
    Warnings,
};
use peregrine_tools::Canceller;

use super::{Driver, Start, Wake};
use crate::error::Error;
use crate::event::RunEvent;
use crate::interrupts::ToolInterrupts;
use crate::output::{Abandoned, AbandonedKind};
use crate::run::{Effect, Event, Interrupt, InterruptSource, More};

/// The scope of a run, and what was heard from it.
pub(super) struct Stop {
    scope: Scope,
    /// What the run begins with, until it is polled: what is interrupted before that begins nothing.
    start: Option<Start>,
    /// What is left below ends with the run.
    _ends: CancelOnDrop,
    /// For the next interrupt; `None` after an immediate one.
    wait: Option<WaitForInterrupt>,
    warnings: Option<Warnings>,
    /// What the run was told.
    heard: Option<Mode>,
    grace: Duration,
    /// The run has stopped, and waits for what may still end by itself.
    last: Option<Last>,
}

struct Last {
    error: Error,
    can_go_on: bool,
    grace: peregrine_interrupts::Sleep,
}

/// What there is to hear.
pub(super) enum News {
    Interrupted,
    Warned(Warning),
    /// Everything has ended by itself.
    Quiet,
    /// The grace period is over.
    TimeUp,
}

impl Stop {
    /// A scope for a run, below the one that it was given.
    pub(super) fn new(above: &Scope, name: String, grace: Duration, is_watched: bool) -> Self {
        let kind = match above.info().kind {
            Kind::Agent | Kind::Tool | Kind::ModelCall => Kind::Agent,
            _ => Kind::Run,
        };
        let scope = above.child(kind, name);
        Self {
            start: None,
            _ends: scope.cancel_on_drop(),
            wait: Some(scope.graceful()),
            warnings: is_watched.then(|| scope.warnings()),
            heard: None,
            grace,
            last: None,
            scope,
        }
    }

    fn poll(&mut self, is_idle: bool, cx: &mut Context<'_>) -> Poll<News> {
        if let Some(warnings) = &mut self.warnings {
            match Pin::new(warnings).poll_next(cx) {
                Poll::Ready(Some(warning)) => return Poll::Ready(News::Warned(warning)),
                Poll::Ready(None) => self.warnings = None,
                Poll::Pending => {}
            }
        }
        if let Some(wait) = &mut self.wait
            && Pin::new(wait).poll(cx).is_ready()
        {
            return Poll::Ready(News::Interrupted);
        }
        match &mut self.last {
            Some(_) if is_idle => Poll::Ready(News::Quiet),
            Some(last) => last.grace.as_mut().poll(cx).map(|()| News::TimeUp),
            None => Poll::Pending,
        }
    }

    fn has_news(&self) -> bool {
        self.scope.mode() > self.heard
    }

    fn is_immediate(&self) -> bool {
        self.heard == Some(Mode::Immediate)
    }
}

impl Driver {
    pub(super) fn start_now_or_late(&mut self, start: Start) {
        match &mut self.stop {
            Some(stop) => stop.start = Some(start),
            None => self.start(start),
        }
    }

    pub(super) fn start_late(&mut self) {
        if let Some(start) = self.stop.as_mut().and_then(|stop| stop.start.take()) {
            self.start(start);
        }
    }

    pub(super) fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        let is_idle = self.ops.len() == 0;
        match &mut self.stop {
            Some(stop) => stop.poll(is_idle, cx).map(Wake::Stop),
            None => Poll::Pending,
        }
    }

    pub(super) fn take_news(&mut self, news: News) {
        match news {
            News::Interrupted => self.hear(),
            News::Warned(warning) => self.tell(|| RunEvent::LimitNear {
                limit: warning.to_string(),
                source: source(&warning.source),
                fraction: warning.fraction,
            }),
            News::Quiet => self.rest(),
            News::TimeUp => {
                self.drop_ops(|_| false);
                self.rest();
            }
        }
    }

    /// Tells the run of an interrupt that it has not heard of. Looks at nothing but one flag if there is none.
    pub(super) fn hear(&mut self) {
        let Some(stop) = self.stop.as_mut().filter(|stop| stop.has_news()) else {
            return;
        };
        let Some(interrupted) = stop.scope.interrupted() else {
            return;
        };
        let mode = interrupted.mode();
        stop.heard = Some(mode);
        stop.wait = (mode == Mode::Graceful).then(|| stop.scope.cancelled());
        let interrupt = Interrupt::from(&interrupted);
        self.tell(|| RunEvent::Interrupted {
            interrupt: interrupt.clone(),
        });
        match mode {
            // An answer that hooks look at is there already.
            Mode::Graceful if self.run.ended().is_some() => {}
            Mode::Graceful => self.feed(Event::Interrupted { interrupt }),
            Mode::Immediate => self.stop_now(interrupt),
        }
    }

    /// Goes on with a run that stands still, unless it may not even begin.
    pub(super) fn resume(&mut self, more: More) {
        match self.stop.as_ref().and_then(|stop| stop.scope.interrupted()) {
            Some(interrupted) => self.end(Err(Error::Interrupted((&interrupted).into())), true),
            None => self.feed(Event::Resumed { more }),
        }
    }

    fn stop_now(&mut self, interrupt: Interrupt) {
        // The grace period is what bounds it from here on.
        (self.deadline, self.cancelled) = (None, None);
        if !self.run.has_begun() && self.hooks.is_some() {
            self.drop_ops(|_| false);
            // What the guards have not let pass is not kept.
            return self.end(Err(Error::Interrupted(interrupt)), false);
        }
        self.drop_ops(Below::may_finish);
        self.todo.retain(|effect| !begins_something(effect));
        if self.run.ended().is_some() {
            return self.stand_still(Error::Interrupted(interrupt), false);
        }
        self.feed(Event::Interrupted { interrupt });
    }

    /// The run has stopped. Ends it, unless something may still end by itself.
    pub(super) fn stand_still(&mut self, error: Error, can_go_on: bool) {
        match &mut self.stop {
            Some(stop) if stop.is_immediate() && self.ops.len() > 0 && !stop.grace.is_zero() => {
                let grace = stop.scope.sleep(stop.grace);
                stop.last = Some(Last {
                    error,
                    can_go_on,
                    grace,
                });
            }
            _ => {
                self.drop_ops(|_| false);
                self.end(Err(error), can_go_on);
            }
        }
    }

    fn rest(&mut self) {
        let last = self.stop.as_mut().and_then(|stop| stop.last.take());
        if let Some(Last { error, can_go_on, .. }) = last {
            self.end(Err(error), can_go_on);
        }
    }

    /// Whether what is still under way was left to end by itself, so that nothing else stops it.
    pub(super) fn is_resting(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.is_immediate())
    }

    /// Drops what is under way but for what `stays`, and notes what did not end although it was told to.
    fn drop_ops(&mut self, stays: impl Fn(&Below) -> bool) {
        let interrupted = self.stop.as_ref().and_then(|stop| stop.scope.interrupted());
        let dropped = self.ops.drop_but(stays);
        let Some((stop, interrupted)) = self.stop.as_ref().zip(interrupted) else {
            return;
        };
        let waited = stop.scope.elapsed().saturating_sub(interrupted.reason().after);
        for (call, thread, what) in dropped {
            let task = call.and_then(|call| self.tools.remove(&call));
            let Some(kind) = what else { continue };
            let abandoned = Abandoned {
                kind,
                name: task.as_ref().map(|task| task.tool_call.name.clone()),
                call_id: task.as_ref().map(|task| task.tool_call.id.clone()),
                waited,
            };
            self.tell(|| RunEvent::Abandoned {
                thread,
                abandoned: abandoned.clone(),
            });
            self.report.abandoned.push(abandoned);
        }
    }

    /// A scope for what is below the run.
    pub(super) fn scope_below(&self, kind: Kind, name: impl FnOnce() -> Name) -> Option<Scope> {
        let stop = self.stop.as_ref()?;
        Some(stop.scope.child(kind, name()))
    }

    /// What was used counts for the budgets of the scopes above, too.
    pub(super) fn charge(&self, unit: &Unit, amount: u64) {
        if let Some(stop) = &self.stop {
            stop.scope.charge(unit, amount);
        }
    }

    pub(super) fn charge_answer(&self, usage: Option<Usage>, cost: Cost) {
        if let Some(usage) = usage {
            self.charge(&Unit::TOKENS, usage.total_tokens());
        }
        if let Cost::Priced(cost) = cost {
            self.charge(&Unit::NANO_USD, cost.0);
        }
    }
}

/// What an operation is, and what it started elsewhere, which ends with it unless it is done.
pub(super) struct Below {
    /// What it is abandoned as; `None`: it can be asked again, and nobody misses it.
    what: Option<AbandonedKind>,
    /// Whether it may have changed something, so that what comes of it matters.
    has_effect: bool,
    canceller: Option<Canceller>,
    tied: Option<Tied>,
}

struct Tied {
    ends: CancelOnDrop,
    /// Hands an interrupt of the scope on to the tool's cancellation.
    _hook: Option<Hook>,
    /// Whether the tool listens.
    heeded: Option<Arc<AtomicBool>>,
}

impl Below {
    /// A call of a model.
    pub(super) fn model(scope: Option<Scope>) -> Self {
        Self {
            what: None,
            has_effect: false,
            canceller: None,
            tied: scope.map(|scope| Tied {
                ends: scope.cancel_on_drop(),
                _hook: None,
                heeded: None,
            }),
        }
    }

    /// Something that is part of no call, or of a question to a person.
    pub(super) fn other(what: AbandonedKind, has_effect: bool) -> Self {
        Self {
            what: Some(what),
            has_effect,
            canceller: None,
            tied: None,
        }
    }

    /// A call of a tool.
    pub(super) fn tool(canceller: Canceller, interrupts: Option<&ToolInterrupts>, has_effect: bool) -> Self {
        let tied = interrupts.map(|interrupts| {
            let (canceller, heeded) = (canceller.clone(), interrupts.heeded());
            let told = Arc::clone(&heeded);
            let hook = interrupts.scope().on(Mode::Immediate, move || {
                if canceller.cancel() {
                    told.store(true, Ordering::Release);
                }
            });
            Tied {
                ends: interrupts.scope().cancel_on_drop(),
                _hook: Some(hook),
                heeded: Some(heeded),
            }
        });
        Self {
            what: Some(AbandonedKind::Tool),
            has_effect,
            canceller: Some(canceller),
            tied,
        }
    }

    pub(super) fn what(&self) -> Option<AbandonedKind> {
        self.what
    }

    fn may_finish(&self) -> bool {
        let heeded = self.tied.as_ref().and_then(|tied| tied.heeded.as_ref());
        self.has_effect || heeded.is_some_and(|heeded| heeded.load(Ordering::Acquire))
    }

    /// The operation is over: what it left running is no longer its own.
    pub(super) fn done(&mut self) {
        self.canceller = None;
        if let Some(Tied { ends, .. }) = self.tied.take() {
            ends.disarm();
        }
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        if let Some(canceller) = &self.canceller {
            canceller.cancel();
        }
    }
}

fn begins_something(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::CallModel(_)
            | Effect::CallTool(_)
            | Effect::AskPerson(_)
            | Effect::LoadMemory
            | Effect::SaveMemory { .. }
    )
}

fn source(source: &Source) -> InterruptSource {
    match source {
        Source::User => InterruptSource::User,
        Source::TimeLimit { .. } => InterruptSource::TimeLimit,
        Source::Budget { .. } => InterruptSource::Budget,
        Source::Signal(_) => InterruptSource::Signal,
        Source::Handler { .. } => InterruptSource::Handler,
        Source::Grace { .. } => InterruptSource::Grace,
        Source::Dropped => InterruptSource::Dropped,
        _ => InterruptSource::Other,
    }
}

impl From<&Interrupted> for Interrupt {
    fn from(interrupted: &Interrupted) -> Self {
        let reason = interrupted.to_string();
        let mut interrupt = match interrupted.mode() {
            Mode::Graceful => Self::graceful(reason),
            Mode::Immediate => Self::immediate(reason),
        };
        interrupt.by = source(&interrupted.reason().source);
        interrupt.escalated_by = interrupted.escalation().map(|reason| source(&reason.source));
        interrupt
    }
}
