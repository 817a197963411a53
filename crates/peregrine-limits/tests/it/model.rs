//! The waiting core under every interleaving of its lock (loom, after Norris and Demsky: CDSChecker, OOPSLA 2013).
//!
//! `src/wait` is compiled once more, with loom's lock in the place of the standard library's (`sync.rs` here), so that these
//! run with all other tests and need no flag of the compiler. Rules of admission: a number of places, no time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::thread;

use crate::wait::{Decision, Entered, Gate, Policy, Polled, Ticket};

struct Places {
    free: usize,
}

impl Policy for Places {
    type Ask = ();
    type Grant = ();
    type Refusal = ();

    fn decide(&mut self, _: u64, (): &()) -> Decision<(), ()> {
        match self.free.checked_sub(1) {
            Some(free) => {
                self.free = free;
                Decision::Grant(())
            }
            None => Decision::Later,
        }
    }

    fn take_back(&mut self, _: u64, (): ()) {
        self.free += 1;
    }
}

type Shared = Arc<Gate<Places>>;

fn gate(free: usize) -> Shared {
    Arc::new(Gate::new(Places { free }, 8))
}

fn release(gate: &Shared) {
    gate.change(0, |places, _| places.free += 1);
}

/// As `src/local.rs` waits, without timers.
struct Waiting {
    gate: Shared,
    ticket: Option<Ticket>,
}

impl Waiting {
    fn new(gate: &Shared) -> Self {
        Self {
            gate: gate.clone(),
            ticket: None,
        }
    }
}

impl Future for Waiting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let ticket = match self.ticket {
            Some(ticket) => ticket,
            None => match self.gate.enter(0, "t", 1, ()) {
                Entered::Done(_) => return Poll::Ready(()),
                Entered::Queued(ticket) => ticket,
                Entered::Full(_) => panic!("nobody waits here"),
            },
        };
        self.ticket = Some(ticket);
        match self.gate.poll(ticket, 0, cx.waker()) {
            Polled::Done(_) => {
                self.ticket = None;
                Poll::Ready(())
            }
            Polled::Wait(_) => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.gate.leave(ticket, 0);
        }
    }
}

/// Explores, and says how much there was to explore: a model of one interleaving would prove nothing.
fn model(name: &str, body: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = executions.clone();
    loom::model::Builder::new().check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        body();
    });
    let executions = executions.load(Ordering::Relaxed);
    assert!(executions > 1, "{name} has nothing to explore");
}

#[test]
fn a_release_is_never_missed() {
    model("wait, release", || {
        let gate = gate(0);
        let other = gate.clone();
        let releaser = thread::spawn(move || release(&other));
        block_on(Waiting::new(&gate));
        releaser.join().unwrap();
        gate.look(|places, waiting| assert_eq!((places.free, waiting), (0, 0)));
    });
}

#[test]
fn two_who_wait_for_one_place_have_it_one_after_the_other() {
    model("wait, wait, release", || {
        let gate = gate(1);
        let other = gate.clone();
        let second = thread::spawn(move || {
            block_on(Waiting::new(&other));
            release(&other);
        });
        block_on(Waiting::new(&gate));
        release(&gate);
        second.join().unwrap();
        gate.look(|places, waiting| assert_eq!((places.free, waiting), (1, 0)));
    });
}

#[test]
fn who_gives_up_while_being_let_through_loses_nothing() {
    model("give up, release, wait", || {
        let gate = gate(0);
        let other = gate.clone();
        let releaser = thread::spawn(move || release(&other));
        let mut given_up = Waiting::new(&gate);
        let mut cx = Context::from_waker(Waker::noop());
        let seen = Pin::new(&mut given_up).poll(&mut cx).is_ready();
        drop(given_up);
        if seen {
            release(&gate);
        }
        // Whatever happened in between, the place is there for the next one.
        block_on(Waiting::new(&gate));
        releaser.join().unwrap();
        gate.look(|places, waiting| assert_eq!((places.free, waiting), (0, 0)));
    });
}

#[test]
fn who_is_behind_one_that_gives_up_is_woken() {
    model("wait, give up, release", || {
        let gate = gate(0);
        let mut first = Waiting::new(&gate);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut first).poll(&mut cx).is_pending());
        let other = gate.clone();
        let second = thread::spawn(move || block_on(Waiting::new(&other)));
        release(&gate);
        drop(first);
        second.join().unwrap();
        gate.look(|places, waiting| assert_eq!((places.free, waiting), (0, 0)));
    });
}
