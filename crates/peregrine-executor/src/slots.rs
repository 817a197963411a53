//! A bounded set of futures, polled in place, on the task of the caller.
//!
//! Slots are used again: the box of a slot, its waker and its place in the ready queue serve all the futures that ever
//! lie in it, so a future that is put in costs no allocation. Only futures that were put in or woken are polled.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::panics::caught;
use crate::ready_queue::{ReadyQueue, SlotWaker};

/// How many polls one poll of the owner may make, so that a set that is never idle still yields to its runtime.
pub(crate) const POLL_BUDGET: usize = 128;

#[derive(Debug)]
pub(crate) struct Slots<F> {
    queue: Arc<ReadyQueue>,
    slots: Vec<Slot<F>>,
    free: Vec<usize>,
    /// Slots to be polled, in the order in which they were put in or woken.
    ready: VecDeque<usize>,
    /// Empty; what the ready queue is drained into.
    woken: Vec<usize>,
}

#[derive(Debug)]
struct Slot<F> {
    future: Pin<Box<Option<F>>>,
    token: usize,
    waker: Waker,
    mark: Arc<SlotWaker>,
}

/// What a poll of the set came to.
pub(crate) enum Next<T> {
    /// The future of this token ended, or panicked with this message.
    Ended(usize, Result<T, String>),
    /// None can go on. The task is woken when one can.
    Idle,
    /// The budget is used up. The task has to wake itself.
    Exhausted,
}

impl<F> Slots<F> {
    pub(crate) fn new() -> Self {
        Self {
            queue: Arc::new(ReadyQueue::new()),
            slots: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            woken: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a future in; it is polled with the next [`poll_next`](Self::poll_next). `token` names it to the caller.
    pub(crate) fn insert(&mut self, token: usize, future: F) {
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = self.slots.len();
            let mark = Arc::new(SlotWaker::new(slot, Arc::clone(&self.queue)));
            self.slots.push(Slot {
                future: Box::pin(None),
                token,
                waker: Waker::from(Arc::clone(&mark)),
                mark,
            });
            slot
        });
        self.slots[slot].future.set(Some(future));
        self.slots[slot].token = token;
        self.ready.push_back(slot);
    }

    /// Drops the futures for which `which` says so. A panic while one is dropped is swallowed: its work is given up.
    pub(crate) fn remove(&mut self, mut which: impl FnMut(usize, &F) -> bool) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(future) = slot.future.as_ref().get_ref() else {
                continue;
            };
            if which(slot.token, future) {
                let _given_up = caught(|| slot.future.set(None));
                self.free.push(index);
            }
        }
    }
}

impl<F: Future> Slots<F> {
    /// Polls what can go on until one future ends. Uses up `budget`.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>, budget: &mut usize) -> Next<F::Output> {
        loop {
            let Some(index) = self.ready.pop_front() else {
                self.queue.drain(&mut self.woken, context.waker());
                self.ready.extend(self.woken.drain(..));
                if self.ready.is_empty() {
                    return Next::Idle;
                }
                continue;
            };
            if *budget == 0 {
                self.ready.push_front(index);
                return Next::Exhausted;
            }
            let Slot {
                future,
                token,
                waker,
                mark,
            } = &mut self.slots[index];
            mark.take_mark();
            if future.is_none() {
                // A waker that outlived its future.
                continue;
            }
            *budget -= 1;
            let polled = caught(|| {
                let poll = future.as_mut().as_pin_mut().map_or(Poll::Pending, |future| {
                    future.poll(&mut Context::from_waker(waker))
                });
                if poll.is_ready() {
                    future.set(None);
                }
                poll
            });
            let end = match polled {
                Ok(Poll::Pending) => continue,
                Ok(Poll::Ready(output)) => Ok(output),
                Err(panic) => {
                    // A second panic, from its destructor, adds nothing to the first one.
                    let _same = caught(|| future.set(None));
                    Err(panic)
                }
            };
            let token = *token;
            self.free.push(index);
            return Next::Ended(token, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noop() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn a_future_that_wakes_itself_does_not_keep_the_task() {
        let mut slots = Slots::new();
        slots.insert(
            7,
            std::future::poll_fn(|context| -> Poll<()> {
                context.waker().wake_by_ref();
                Poll::Pending
            }),
        );
        let mut budget = 10;
        assert!(matches!(
            slots.poll_next(&mut noop(), &mut budget),
            Next::Exhausted
        ));
        assert_eq!((budget, slots.len()), (0, 1));
    }

    #[test]
    fn a_stale_waker_does_not_end_a_later_future() {
        let mut slots: Slots<Pin<Box<dyn Future<Output = i32>>>> = Slots::new();
        let mut budget = 10;
        slots.insert(1, Box::pin(std::future::ready(1)));
        assert!(matches!(
            slots.poll_next(&mut noop(), &mut budget),
            Next::Ended(1, Ok(1))
        ));
        let waker = slots.slots[0].waker.clone();
        waker.wake_by_ref();
        assert!(matches!(slots.poll_next(&mut noop(), &mut budget), Next::Idle));
        slots.insert(2, Box::pin(std::future::pending()));
        waker.wake();
        assert!(matches!(slots.poll_next(&mut noop(), &mut budget), Next::Idle));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn a_panic_in_a_destructor_is_an_end_like_any_other() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let mut slots: Slots<Pin<Box<dyn Future<Output = ()>>>> = Slots::new();
        let bomb = Bomb;
        slots.insert(
            0,
            Box::pin(async move {
                let _bomb = bomb;
            }),
        );
        let mut budget = 10;
        match slots.poll_next(&mut noop(), &mut budget) {
            Next::Ended(0, Err(message)) => assert_eq!(message, "dropped"),
            _ => panic!("it did not end"),
        }
        let bomb = Bomb;
        slots.insert(
            1,
            Box::pin(async move {
                let _bomb = bomb;
                std::future::pending::<()>().await;
            }),
        );
        slots.remove(|token, _| token == 1);
        assert_eq!(slots.len(), 0);
    }
}
