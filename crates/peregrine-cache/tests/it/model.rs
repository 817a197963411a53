//! Single flight under every interleaving of its locks (loom, after Norris and Demsky: CDSChecker, OOPSLA 2013).
//!
//! `src/flight` is compiled once more, with loom's types in the place of the standard library's (`sync.rs` here).
//! `LOOM_MAX_PREEMPTIONS` and loom's other variables work as always.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::sync::Mutex;
use loom::thread;

use crate::flight::{Ending, Group, Read};

#[derive(Debug, Clone, PartialEq, Eq)]
struct End(u32);

impl Ending<u32> for End {
    fn items(&self) -> &[u32] {
        &[]
    }

    fn panicked() -> Self {
        Self(u32::MAX)
    }
}

type Calls = Arc<Group<u8, u32, End>>;

fn calls() -> Calls {
    Arc::new(Group::new(1 << 20))
}

/// Explores, and says how much there was to explore: a model of one interleaving would prove nothing.
fn model(name: &str, body: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = executions.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.check(move || {
        counted.fetch_add(1, SeqCst);
        body();
    });
    assert!(executions.load(SeqCst) > 1, "{name} has nothing to explore");
}

/// A reply from another thread: what a socket is to a real call.
#[derive(Default)]
struct Reply(Mutex<(bool, Option<Waker>)>);

impl Reply {
    fn arrive(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        let waker = state.1.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        if state.0 {
            return Poll::Ready(());
        }
        state.1 = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Waits for the end of the one call; counts how often one began, and how often one was dropped.
async fn ask(calls: &Calls, reply: &Arc<Reply>, begun: &Arc<AtomicUsize>) -> Option<End> {
    let (reply, begun) = (reply.clone(), begun.clone());
    let party = calls.join(&1, (), false, |_| {
        begun.fetch_add(1, SeqCst);
        async move {
            poll_fn(|cx| reply.poll(cx)).await;
            End(7)
        }
    });
    party.end().await
}

#[test]
fn two_ask_and_a_reply_from_a_third_thread_reaches_both() {
    model("two ask", || {
        let (calls, reply, begun) = (calls(), Arc::new(Reply::default()), Arc::default());
        let other = {
            let (calls, reply, begun) = (calls.clone(), reply.clone(), Arc::clone(&begun));
            thread::spawn(move || block_on(ask(&calls, &reply, &begun)))
        };
        let arrives = {
            let reply = reply.clone();
            thread::spawn(move || reply.arrive())
        };
        assert_eq!(block_on(ask(&calls, &reply, &begun)), Some(End(7)));
        assert_eq!(other.join().unwrap(), Some(End(7)));
        arrives.join().unwrap();
        // Whoever came after the end began anew, which is right; nobody else did.
        assert!((1..=2).contains(&begun.load(SeqCst)));
        assert_eq!(calls.len(), 0);
    });
}

#[test]
fn a_leader_that_is_dropped_hands_over_without_a_new_call() {
    model("hand over", || {
        let (calls, reply) = (calls(), Arc::new(Reply::default()));
        let begun = Arc::new(AtomicUsize::new(0));
        let begin = |reply: &Arc<Reply>, begun: &Arc<AtomicUsize>| {
            let (reply, begun) = (reply.clone(), begun.clone());
            move |_| {
                begun.fetch_add(1, SeqCst);
                async move {
                    poll_fn(|cx| reply.poll(cx)).await;
                    End(7)
                }
            }
        };
        let leader = calls.join(&1, (), false, begin(&reply, &begun));
        let follower = calls.join(&1, (), false, begin(&reply, &begun));
        assert!(leader.leads() && !follower.leads());
        let waits = thread::spawn(move || {
            let end = block_on(follower.end());
            (follower, end)
        });
        let arrives = thread::spawn(move || reply.arrive());
        // Polled once, as somebody who is cancelled then.
        {
            let mut end = std::pin::pin!(leader.end());
            let mut noop = Context::from_waker(Waker::noop());
            let _either = Future::poll(end.as_mut(), &mut noop);
        }
        drop(leader);
        let (follower, end) = waits.join().unwrap();
        assert_eq!(end, Some(End(7)));
        assert!(follower.pays(), "who is left pays");
        drop(follower);
        arrives.join().unwrap();
        assert_eq!((begun.load(SeqCst), calls.len()), (1, 0));
    });
}

/// Somebody leaves at any moment, one who has the end or not, and somebody else comes and may get its seat.
#[test]
fn of_those_who_have_the_end_exactly_one_pays() {
    model("one pays", || {
        let (calls, reply) = (calls(), Arc::new(Reply::default()));
        let begun = Arc::new(AtomicUsize::new(0));
        let begin = || {
            let (reply, begun) = (reply.clone(), begun.clone());
            calls.join(&1, (), false, move |_| {
                begun.fetch_add(1, SeqCst);
                async move {
                    poll_fn(|cx| reply.poll(cx)).await;
                    End(7)
                }
            })
        };
        let (leader, follower) = (begin(), begin());
        let paid = Arc::new(AtomicUsize::new(0));
        let told = paid.clone();
        let arrives = {
            let reply = reply.clone();
            thread::spawn(move || reply.arrive())
        };
        let leaves = thread::spawn(move || {
            {
                let mut end = std::pin::pin!(leader.end());
                let mut noop = Context::from_waker(Waker::noop());
                if Future::poll(end.as_mut(), &mut noop).is_ready() && leader.pays() {
                    told.fetch_add(1, SeqCst);
                }
            }
            drop(leader);
        });
        // It takes the place of the leader if that has left, and joins beside it if not.
        let late = begin();
        for party in [follower, late] {
            assert_eq!(block_on(party.end()), Some(End(7)));
            paid.fetch_add(usize::from(party.pays()), SeqCst);
            assert_eq!(party.pays(), party.pays());
        }
        leaves.join().unwrap();
        arrives.join().unwrap();
        // The late one may have come after the end, and then began a call of its own.
        assert_eq!(paid.load(SeqCst), begun.load(SeqCst));
        assert_eq!(calls.len(), 0);
    });
}

/// The leader need not ever be polled: what is spawned may be dropped by a runtime that ends.
#[test]
fn a_leader_that_is_never_polled_leaves_the_call_to_whoever_waits() {
    model("never polled", || {
        let calls = calls();
        let other = {
            let calls = calls.clone();
            thread::spawn(move || block_on(calls.join(&1, (), false, |_| async { End(2) }).end()))
        };
        drop(calls.join(&1, (), false, |_| async { End(1) }));
        assert!(matches!(other.join().unwrap(), Some(End(1 | 2))));
        assert_eq!(calls.len(), 0);
    });
}

#[test]
fn when_nobody_is_left_the_call_is_dropped() {
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    model("all leave", || {
        let (calls, dropped) = (calls(), Arc::new(AtomicUsize::new(0)));
        let begin = || {
            let token = Dropped(dropped.clone());
            calls.join(&1, (), false, move |_| async move {
                let _held = token;
                std::future::pending::<End>().await
            })
        };
        let (one, two) = (begin(), begin());
        dropped.store(0, SeqCst);
        let leaves = thread::spawn(move || {
            let mut noop = Context::from_waker(Waker::noop());
            assert!(one.poll_item(&mut noop).is_pending());
            drop(one);
        });
        {
            let mut noop = Context::from_waker(Waker::noop());
            assert!(two.poll_item(&mut noop).is_pending());
        }
        drop(two);
        leaves.join().unwrap();
        assert_eq!((dropped.load(SeqCst), calls.len()), (1, 0));
    });
}

#[test]
fn a_late_reader_gets_the_beginning_and_then_the_rest() {
    model("late reader", || {
        let (calls, reply) = (calls(), Arc::new(Reply::default()));
        let waits = reply.clone();
        let early = calls.join(&1, (), true, |emitter| async move {
            emitter.item(1, 1).await;
            poll_fn(|cx| waits.poll(cx)).await;
            emitter.item(2, 1).await;
            End(3)
        });
        let late = calls.join(&1, (), true, |_| async { End(0) });
        let reads = |party: &_| block_on(read_all(party));
        let other = thread::spawn(move || block_on(read_all(&late)));
        let arrives = thread::spawn(move || reply.arrive());
        assert_eq!(reads(&early), (vec![1, 2], End(3)));
        assert_eq!(other.join().unwrap(), (vec![1, 2], End(3)));
        arrives.join().unwrap();
        drop(early);
        assert_eq!(calls.len(), 0);
    });
}

async fn read_all(party: &crate::flight::Party<u8, u32, End>) -> (Vec<u32>, End) {
    let mut items = Vec::new();
    loop {
        match poll_fn(|cx| party.poll_item(cx)).await {
            Read::Item(item) => items.push(item),
            Read::End(end) => return (items, end),
            other => panic!("{other:?}"),
        }
    }
}
