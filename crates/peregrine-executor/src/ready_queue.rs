//! The ready queue: which of the futures that share one task have been woken, and the waker of that task.
//!
//! Each slot has a waker of its own, made once and used for every future that ever lies in the slot. Waking puts the
//! slot's number into a list, at most once until it is taken out, and wakes the task. One lock guards the list and the
//! task's waker together, so a wake either is seen by the drain that registers the waker, or finds the waker there.
//!
//! A slot's mark is taken off before its future is polled. A wake during the poll therefore queues the slot again, and
//! one that came before it has happened before the poll. A stale waker costs one poll too many, never a lost one.
//!
//! Invariant: uses `super::sync` and nothing else of this crate, so that the model test can compile it with loom's
//! types. It is the only hand-written concurrency here: everything else is owned by the task that polls.

use std::sync::Arc;
use std::task::{Wake, Waker};

use super::sync::{AtomicBool, Mutex, Ordering, lock};

/// Shared by the task and the wakers of its slots.
#[derive(Debug)]
pub(crate) struct ReadyQueue(Mutex<Queue>);

#[derive(Debug)]
struct Queue {
    woken: Vec<usize>,
    task: Option<Waker>,
}

impl ReadyQueue {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Queue {
            woken: Vec::new(),
            task: None,
        }))
    }

    /// Moves the woken slots into `into`, which is empty. Where there are none, `task` is woken by the next one.
    pub(crate) fn drain(&self, into: &mut Vec<usize>, task: &Waker) {
        let _dropped_after_the_lock;
        let mut queue = lock(&self.0);
        std::mem::swap(&mut queue.woken, into);
        if into.is_empty() && !queue.task.as_ref().is_some_and(|known| known.will_wake(task)) {
            _dropped_after_the_lock = queue.task.replace(task.clone());
        }
    }

    fn push(&self, slot: usize) {
        let task = {
            let mut queue = lock(&self.0);
            queue.woken.push(slot);
            queue.task.take()
        };
        // Outside the lock: the task may be polled by this very call.
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// What a future in a slot wakes.
#[derive(Debug)]
pub(crate) struct SlotWaker {
    slot: usize,
    queued: AtomicBool,
    queue: Arc<ReadyQueue>,
}

impl SlotWaker {
    pub(crate) fn new(slot: usize, queue: Arc<ReadyQueue>) -> Self {
        Self {
            slot,
            queued: AtomicBool::new(false),
            queue,
        }
    }

    /// To be called before the slot is polled. Acquires what happened before the wakes that it takes off.
    pub(crate) fn take_mark(&self) {
        self.queued.swap(false, Ordering::AcqRel);
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.queue.push(self.slot);
        }
    }
}
