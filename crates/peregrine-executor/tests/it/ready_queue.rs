//! The ready queue, explored by loom: every interleaving of wakers on other threads with the task that polls.
//!
//! The same source as in the crate, compiled with loom's lock and atomics in place of the standard ones.

mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering};
    pub(super) use loom::sync::{Mutex, MutexGuard};

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }
}
#[path = "../../src/ready_queue.rs"]
mod source;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use source::{ReadyQueue, SlotWaker};

/// Polls slots as the crate's `Slots` does, until `done` says so: drain, take the mark, look.
async fn poll_slots(queue: &ReadyQueue, slots: &[Arc<SlotWaker>], mut done: impl FnMut(usize) -> bool) {
    let mut woken = Vec::new();
    poll_fn(move |context| {
        loop {
            queue.drain(&mut woken, context.waker());
            if woken.is_empty() {
                return Poll::Pending;
            }
            for slot in woken.drain(..) {
                slots[slot].take_mark();
                if done(slot) {
                    return Poll::Ready(());
                }
            }
        }
    })
    .await;
}

#[test]
fn no_wake_is_lost_between_two_threads_and_the_task() {
    loom::model(|| {
        let queue = Arc::new(ReadyQueue::new());
        let slots: Vec<_> = (0..2)
            .map(|slot| Arc::new(SlotWaker::new(slot, Arc::clone(&queue))))
            .collect();
        let flags: Vec<_> = (0..2).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        for (slot, flag) in slots.iter().zip(&flags) {
            let (waker, flag) = (Waker::from(Arc::clone(slot)), Arc::clone(flag));
            thread::spawn(move || {
                // Relaxed: what the waker promises is that this is seen by the poll it causes.
                flag.store(1, Ordering::Relaxed);
                waker.wake();
            });
        }
        let mut seen = [false; 2];
        loom::future::block_on(poll_slots(&queue, &slots, |slot| {
            seen[slot] |= flags[slot].load(Ordering::Relaxed) == 1;
            seen == [true; 2]
        }));
    });
}

#[test]
fn a_wake_during_the_poll_or_before_it_is_seen() {
    loom::model(|| {
        let queue = Arc::new(ReadyQueue::new());
        let slots = [Arc::new(SlotWaker::new(0, Arc::clone(&queue)))];
        let count = Arc::new(AtomicUsize::new(0));
        let (waker, counted) = (Arc::clone(&slots[0]), Arc::clone(&count));
        thread::spawn(move || {
            for _ in 0..2 {
                counted.fetch_add(1, Ordering::Relaxed);
                waker.wake_by_ref();
            }
        });
        // Ends only if the poll behind the last wake sees the last count: a mark that is taken off after the poll, or
        // without acquiring, loses it.
        loom::future::block_on(poll_slots(&queue, &slots, |_| count.load(Ordering::Relaxed) == 2));
    });
}

#[test]
fn a_slot_is_queued_once_however_often_it_is_woken() {
    loom::model(|| {
        let queue = Arc::new(ReadyQueue::new());
        let slot = Arc::new(SlotWaker::new(0, Arc::clone(&queue)));
        let other = Arc::clone(&slot);
        let thread = thread::spawn(move || other.wake_by_ref());
        slot.wake_by_ref();
        thread.join().unwrap();
        let mut woken = Vec::new();
        queue.drain(&mut woken, Waker::noop());
        assert_eq!(woken, [0]);
    });
}
