//! A limiter in one process: the gate, its rules and its clock, and the future that waits at it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::admission::{Admission, Ask, Grant, Outcome};
use crate::config::Limits;
use crate::error::Error;
use crate::signals::Signals;
use crate::timer::{Clockwork, Sleep};
use crate::wait::{Entered, Gate, Polled, Ticket};

/// A limiter in one process.
#[derive(Debug)]
pub(crate) struct Local {
    gate: Gate<Admission>,
    limits: Limits,
    clock: Arc<Clockwork>,
}

impl Local {
    pub(crate) fn new(limits: Limits, clock: Arc<Clockwork>) -> Self {
        let rules = Admission::new(limits.clone(), clock.now());
        Self::with_rules(rules, limits, clock)
    }

    pub(crate) fn with_rules(rules: Admission, limits: Limits, clock: Arc<Clockwork>) -> Self {
        Self {
            gate: Gate::new(rules, limits.max_waiting),
            limits,
            clock,
        }
    }

    pub(crate) fn acquire<'a>(self: &'a Arc<Self>, tenant: &'a str, tokens: u64) -> Waiting<'a> {
        Waiting {
            local: self,
            tenant,
            tokens,
            ticket: None,
            sleep: None,
        }
    }

    pub(crate) fn finish(&self, grant: Grant, outcome: Outcome, signals: &Signals) {
        self.gate.change(self.clock.now(), |rules, now| {
            rules.finish(now, grant, outcome, signals);
        });
    }

    pub(crate) fn hear(&self, at: u64, signals: &Signals) {
        self.gate
            .change(self.clock.now(), |rules, now| rules.hear(now, at, signals));
    }

    #[cfg(feature = "layer")]
    pub(crate) fn wall(&self) -> std::time::SystemTime {
        self.clock.wall()
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&Admission, usize) -> T) -> T {
        self.gate.look(look)
    }
}

/// Waits at the gate. Dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    local: &'a Arc<Local>,
    tenant: &'a str,
    tokens: u64,
    ticket: Option<Ticket>,
    /// Until when it sleeps.
    sleep: Option<(u64, Napping)>,
}

/// A sleep that can be printed.
struct Napping(Sleep);

impl std::fmt::Debug for Napping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sleep")
    }
}

impl Future for Waiting<'_> {
    type Output = Result<Grant, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Local { gate, limits, clock } = &**this.local;
        let mut now = clock.now();
        let ticket = match this.ticket {
            Some(ticket) => ticket,
            None => {
                let ask = Ask { tokens: this.tokens };
                match gate.enter(now, this.tenant, limits.cost(this.tokens), ask) {
                    Entered::Done(outcome) => return Poll::Ready(outcome),
                    Entered::Full(waiting) => return Poll::Ready(Err(Error::QueueFull { waiting })),
                    Entered::Queued(ticket) => *this.ticket.insert(ticket),
                }
            }
        };
        loop {
            let until = match gate.poll(ticket, now, cx.waker()) {
                Polled::Done(outcome) => {
                    this.ticket = None;
                    return Poll::Ready(outcome);
                }
                Polled::Wait(until) => until,
            };
            if until == u64::MAX {
                this.sleep = None;
                return Poll::Pending;
            }
            // A sleep that ends earlier is kept: making one costs more than looking once more.
            let asleep = this
                .sleep
                .as_ref()
                .is_some_and(|(end, _)| *end <= until && *end > now);
            if !asleep {
                let nap = Napping(clock.sleep(until.saturating_sub(now)));
                this.sleep = Some((until, nap));
            }
            if let Some((_, nap)) = &mut this.sleep
                && nap.0.as_mut().poll(cx).is_pending()
            {
                return Poll::Pending;
            }
            this.sleep = None;
            let later = clock.now();
            if later < until && later <= now {
                // A timer that is over while its clock stands still is asked once more with the next poll, not in a loop.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            now = later;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.local.gate.leave(ticket, self.local.clock.now());
        }
    }
}
