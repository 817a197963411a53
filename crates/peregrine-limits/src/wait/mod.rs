//! Waiting for admission: a fair queue and the wakers of those in it, under one lock that is never held while waiting.
//!
//! [`Gate`] is the machine, [`Policy`] the rules of admission. The time is passed in and nothing here sleeps. Whoever
//! calls, for whatever reason, first lets everybody through whose time has come; they find their outcome when they are
//! polled. A waiter that is next learns when it is to ask again, and keeps that timer; when somebody else becomes next, or
//! its time comes earlier, it is woken to learn so. All others ask again after [`WATCHDOG`]: that costs next to nothing,
//! and the queue moves on even if who is next is a future that nobody polls.
//!
//! Invariants:
//!
//! - Wakers are woken and dropped, and nothing else that is foreign runs, only after the lock has been released.
//! - Who leaves the queue gives back what it was granted but never saw, so dropping a future at any point loses nothing.
//! - The order is the queue's alone: who comes when others wait never passes them.

mod queue;

use std::task::Waker;

use crate::sync::{Mutex, lock};
pub(crate) use queue::{Queue, Ticket};

/// After how many nanoseconds a waiter that is not next looks whether the one that is has been forgotten.
pub(crate) const WATCHDOG: u64 = 5_000_000_000;

/// The rules of admission.
pub(crate) trait Policy {
    /// What is asked for.
    type Ask;
    /// What is granted.
    type Grant;
    /// Why something is never granted.
    type Refusal;

    /// Grants, or says when to ask again. Granting takes it.
    fn decide(&mut self, now: u64, ask: &Self::Ask) -> Decision<Self::Grant, Self::Refusal>;

    /// Takes back what was granted and never used.
    fn take_back(&mut self, now: u64, grant: Self::Grant);
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Decision<G, R> {
    Grant(G),
    Refuse(R),
    /// Not before this time, if nothing happens.
    At(u64),
    /// Not before something happens.
    Later,
}

/// What entering comes to.
#[derive(Debug)]
pub(crate) enum Entered<G, R> {
    Done(Result<G, R>),
    Queued(Ticket),
    /// As many wait as may.
    Full(usize),
}

/// What a poll comes to.
#[derive(Debug)]
pub(crate) enum Polled<G, R> {
    Done(Result<G, R>),
    /// Poll again when woken, or at this time.
    Wait(u64),
}

/// See the module.
pub(crate) struct Gate<P: Policy>(Mutex<Inner<P>>);

struct Inner<P: Policy> {
    policy: P,
    queue: Queue<Waiter<P>>,
    max_waiting: usize,
    /// The latest time that was seen: a clock that goes back stands still here.
    now: u64,
    /// Who was told last that it is next, and until when it sleeps.
    told: Option<(Ticket, u64)>,
}

struct Waiter<P: Policy> {
    ask: P::Ask,
    outcome: Option<Result<P::Grant, P::Refusal>>,
    waker: Option<Waker>,
}

/// Who is to be woken once the lock has been released.
type Wakes = Vec<Waker>;

impl<P: Policy> Gate<P> {
    pub(crate) fn new(policy: P, max_waiting: usize) -> Self {
        Self(Mutex::new(Inner {
            policy,
            queue: Queue::new(),
            max_waiting,
            now: 0,
            told: None,
        }))
    }

    /// Asks. `cost` is the share of the limits that it is about, in any unit.
    pub(crate) fn enter(
        &self,
        now: u64,
        tenant: &str,
        cost: u64,
        ask: P::Ask,
    ) -> Entered<P::Grant, P::Refusal> {
        let mut wakes = Wakes::new();
        let entered = lock(&self.0).enter(now, tenant, cost, ask, &mut wakes);
        wakes.into_iter().for_each(Waker::wake);
        entered
    }

    /// Looks what became of a ticket. After `Done` the ticket is gone.
    pub(crate) fn poll(&self, ticket: Ticket, now: u64, waker: &Waker) -> Polled<P::Grant, P::Refusal> {
        let mut wakes = Wakes::new();
        let waker = waker.clone();
        let (polled, old) = lock(&self.0).poll(ticket, now, waker, &mut wakes);
        drop(old);
        wakes.into_iter().for_each(Waker::wake);
        polled
    }

    /// Leaves the queue.
    pub(crate) fn leave(&self, ticket: Ticket, now: u64) {
        let mut wakes = Wakes::new();
        let left = lock(&self.0).leave(ticket, now, &mut wakes);
        drop(left);
        wakes.into_iter().for_each(Waker::wake);
    }

    /// Changes something about the rules, and lets through whom that lets through.
    pub(crate) fn change<T>(&self, now: u64, change: impl FnOnce(&mut P, u64) -> T) -> T {
        let mut wakes = Wakes::new();
        let mut inner = lock(&self.0);
        let now = inner.advance(now);
        let changed = change(&mut inner.policy, now);
        inner.dispatch(now, &mut wakes);
        drop(inner);
        wakes.into_iter().for_each(Waker::wake);
        changed
    }

    /// Looks at the rules and at how many wait.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&P, usize) -> T) -> T {
        let inner = lock(&self.0);
        look(&inner.policy, inner.queue.waiting())
    }
}

impl<P: Policy> Inner<P> {
    fn advance(&mut self, now: u64) -> u64 {
        self.now = self.now.max(now);
        self.now
    }

    fn enter(
        &mut self,
        now: u64,
        tenant: &str,
        cost: u64,
        ask: P::Ask,
        wakes: &mut Wakes,
    ) -> Entered<P::Grant, P::Refusal> {
        let now = self.advance(now);
        if self.queue.waiting() == 0 {
            match self.policy.decide(now, &ask) {
                Decision::Grant(grant) => return Entered::Done(Ok(grant)),
                Decision::Refuse(refusal) => return Entered::Done(Err(refusal)),
                Decision::At(_) | Decision::Later => {}
            }
        }
        if self.queue.waiting() >= self.max_waiting {
            self.dispatch(now, wakes);
            if self.queue.waiting() >= self.max_waiting {
                return Entered::Full(self.queue.waiting());
            }
        }
        let waiter = Waiter {
            ask,
            outcome: None,
            waker: None,
        };
        let ticket = self.queue.push(tenant, cost, waiter);
        self.dispatch(now, wakes);
        match self
            .queue
            .get_mut(ticket)
            .is_some_and(|waiter| waiter.outcome.is_some())
        {
            false => Entered::Queued(ticket),
            true => match self.queue.remove(ticket).and_then(|waiter| waiter.outcome) {
                Some(outcome) => Entered::Done(outcome),
                None => Entered::Queued(ticket),
            },
        }
    }

    fn poll(
        &mut self,
        ticket: Ticket,
        now: u64,
        waker: Waker,
        wakes: &mut Wakes,
    ) -> (Polled<P::Grant, P::Refusal>, Option<Waker>) {
        let now = self.advance(now);
        // Who polls needs no waking.
        let old = self.queue.get_mut(ticket).and_then(|waiter| waiter.waker.take());
        self.dispatch(now, wakes);
        let done = match self.queue.get_mut(ticket) {
            Some(waiter) if waiter.outcome.is_none() => {
                waiter.waker = Some(waker);
                let until = match self.told {
                    Some((told, until)) if told == ticket => until,
                    _ => now.saturating_add(WATCHDOG),
                };
                return (Polled::Wait(until), old);
            }
            _ => self.queue.remove(ticket).and_then(|waiter| waiter.outcome),
        };
        match done {
            Some(outcome) => (Polled::Done(outcome), old),
            // A ticket that is gone has nothing to wait for; nobody polls again after the end.
            None => (Polled::Wait(u64::MAX), old),
        }
    }

    fn leave(&mut self, ticket: Ticket, now: u64, wakes: &mut Wakes) -> Option<Waker> {
        let now = self.advance(now);
        let left = self.queue.remove(ticket)?;
        if let Some(Ok(grant)) = left.outcome {
            self.policy.take_back(now, grant);
        }
        self.dispatch(now, wakes);
        left.waker
    }

    /// Lets through everybody whose time has come, and tells who is next.
    fn dispatch(&mut self, now: u64, wakes: &mut Wakes) {
        while let Some(ticket) = self.queue.next() {
            let Some(waiter) = self.queue.get_mut(ticket) else {
                return;
            };
            let outcome = match self.policy.decide(now, &waiter.ask) {
                Decision::Grant(grant) => Ok(grant),
                Decision::Refuse(refusal) => Err(refusal),
                Decision::At(at) => return self.tell(ticket, at, wakes),
                Decision::Later => return self.tell(ticket, u64::MAX, wakes),
            };
            waiter.outcome = Some(outcome);
            wakes.extend(waiter.waker.take());
            self.queue.serve(ticket);
        }
        self.told = None;
    }

    fn tell(&mut self, ticket: Ticket, at: u64, wakes: &mut Wakes) {
        let news = self.told.is_none_or(|(told, until)| told != ticket || at < until);
        if news {
            self.told = Some((ticket, at));
            let waker = self.queue.get_mut(ticket).and_then(|waiter| waiter.waker.take());
            wakes.extend(waker);
        } else if let Some((_, until)) = &mut self.told {
            // It sleeps until the earlier time, looks, and learns of the later one.
            *until = at;
        }
    }
}

impl<P: Policy> std::fmt::Debug for Gate<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}
