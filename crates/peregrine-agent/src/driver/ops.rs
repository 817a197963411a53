//! What is under way: a bounded set of operations, polled where the run is polled.
//!
//! Nothing is spawned. Each operation is a stream of what it tells and ends with what the run is to know; dropping it
//! stops it. A wake-up polls all of them, which is why there are at most [`MAX_OPS`] at a time; the rest waits its turn.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use peregrine_core::{ChatResponse, Cost, Error as ModelError, Usage};
use peregrine_signatures::{EventReader, Violation};

use super::stop::Below;
use crate::budget::Overshoot;
use crate::event::RunEvent;
use crate::output::AbandonedKind;
use crate::run::{CallId, Event, Veto};

/// The most operations that are under way at a time.
pub(super) const MAX_OPS: usize = 64;

/// What an operation tells.
pub(super) enum Told {
    /// Something for whoever watches. More follows.
    Event(RunEvent),
    /// What came of it. The last.
    Done(Box<Done>),
}

/// What came of an operation.
pub(super) struct Done {
    pub(super) outcome: Outcome,
    /// The model's error, whole.
    pub(super) error: Option<ModelError>,
    /// What was read of a streamed answer.
    pub(super) read: Option<Read>,
    /// What of a budget was exceeded.
    pub(super) overshoot: Vec<Overshoot>,
    /// What an answer used that the run does not get to see.
    pub(super) unread: Option<(Option<Usage>, Cost)>,
}

pub(super) enum Outcome {
    /// What the run is to know.
    Event(Event),
    /// What the hooks left of the answer, after the run.
    AfterRun(Result<ChatResponse, Veto>),
}

/// What was read of a streamed answer.
pub(crate) enum Read {
    /// All of it.
    Whole(Box<EventReader>),
    /// The call was ended at this misfit.
    UpTo(Violation),
}

impl Done {
    pub(super) fn of(event: Event) -> Told {
        Self::with(Outcome::Event(event))
    }

    pub(super) fn after_run(outcome: Result<ChatResponse, Veto>) -> Told {
        Self::with(Outcome::AfterRun(outcome))
    }

    fn with(outcome: Outcome) -> Told {
        Told::Done(Box::new(Self {
            outcome,
            error: None,
            read: None,
            overshoot: Vec::new(),
            unread: None,
        }))
    }
}

pub(super) type Operation = Pin<Box<dyn Stream<Item = Told> + Send>>;

struct Op {
    call: Option<CallId>,
    thread: u32,
    operation: Operation,
    /// Dropped before the operation is, so that what that started elsewhere is told first.
    below: Option<Below>,
}

impl Op {
    fn done(&mut self) {
        if let Some(below) = &mut self.below {
            below.done();
        }
    }
}

impl Drop for Op {
    fn drop(&mut self) {
        self.below = None;
    }
}

/// The operations that are under way.
#[derive(Default)]
pub(super) struct Ops {
    ops: Vec<Op>,
    /// Which one is polled first, so that none is always last.
    first: usize,
}

impl Ops {
    pub(super) fn len(&self) -> usize {
        self.ops.len()
    }

    pub(super) fn push(&mut self, call: Option<CallId>, thread: u32, operation: Operation, below: Below) {
        self.ops.push(Op {
            call,
            thread,
            operation,
            below: Some(below),
        });
    }

    /// Drops one, which stops it.
    pub(super) fn cancel(&mut self, call: CallId) {
        self.ops.retain(|op| op.call != Some(call));
        self.first = 0;
    }

    /// Drops all but those that stay, and says what they were.
    pub(super) fn drop_but(
        &mut self,
        stays: impl Fn(&Below) -> bool,
    ) -> Vec<(Option<CallId>, u32, Option<AbandonedKind>)> {
        let mut dropped = Vec::new();
        self.ops.retain(|op| {
            let stays = op.below.as_ref().is_some_and(&stays);
            if !stays {
                let what = op.below.as_ref().and_then(Below::what);
                dropped.push((op.call, op.thread, what));
            }
            stays
        });
        self.first = 0;
        dropped
    }

    /// The others keep their order, so that what was asked for first is begun first.
    fn remove(&mut self, place: usize) {
        self.ops.remove(place);
        self.first = match place < self.ops.len() {
            true => place,
            false => 0,
        };
    }

    pub(super) fn clear(&mut self) {
        self.ops.clear();
    }

    /// What one of them tells next, with its thread. Pending without any.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(u32, Told)> {
        let count = self.ops.len();
        for offset in 0..count {
            let place = (self.first + offset) % count;
            let Some(op) = self.ops.get_mut(place) else {
                continue;
            };
            match op.operation.as_mut().poll_next(cx) {
                Poll::Pending => {}
                Poll::Ready(Some(told)) => {
                    let thread = op.thread;
                    self.first = place + 1;
                    if matches!(told, Told::Done(_)) {
                        op.done();
                        self.remove(place);
                    }
                    return Poll::Ready((thread, told));
                }
                // Every operation ends with `Done`, and is removed then.
                Poll::Ready(None) => {
                    self.remove(place);
                    return self.poll_next(cx);
                }
            }
        }
        Poll::Pending
    }
}
