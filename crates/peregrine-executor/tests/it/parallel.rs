//! `parallel`: order, bounds, policies, panics, cancellation.

use std::future::{Future, pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{FutureExt as _, StreamExt as _};
use peregrine_executor::{CallError, Policy, Timer as _, VirtualTimer, parallel, spawned};

use crate::support::ms;

/// Counts how many exist, and the most that ever did.
#[derive(Clone, Default)]
struct Gauge(Arc<[AtomicUsize; 3]>);

struct Held(Gauge);

impl Gauge {
    fn hold(&self) -> Held {
        let now = self.0[0].fetch_add(1, Ordering::SeqCst) + 1;
        self.0[1].fetch_max(now, Ordering::SeqCst);
        self.0[2].fetch_add(1, Ordering::SeqCst);
        Held(self.clone())
    }
    fn now(&self) -> usize {
        self.0[0].load(Ordering::SeqCst)
    }
    fn most(&self) -> usize {
        self.0[1].load(Ordering::SeqCst)
    }
    fn begun(&self) -> usize {
        self.0[2].load(Ordering::SeqCst)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0[0].fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn results_come_in_order_whatever_the_calls_take() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        for max_parallel in [0, 1, 3, 100] {
            let gauge = Gauge::default();
            let calls = (0..50_u64).map(|n| {
                let gauge = gauge.clone();
                async move {
                    let _held = gauge.hold();
                    tokio::time::sleep(ms(1 + n * 37 % 11)).await;
                    if n % 7 == 3 { Err(n) } else { Ok(n) }
                }
            });
            let results = parallel(calls).with_max_parallel(max_parallel).await;
            assert_eq!(results.len(), 50);
            assert!(!results.is_success());
            for (n, result) in (0..).zip(&*results) {
                let expected = if n % 7 == 3 {
                    Err(CallError::Failed(n))
                } else {
                    Ok(n)
                };
                assert_eq!(*result, expected);
            }
            assert_eq!(gauge.most(), max_parallel.clamp(1, 50));
            assert_eq!(results.into_values(), Err(CallError::Failed(3)));
        }
    });
}

#[test]
fn a_stream_gives_what_ends_first() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let calls = [30_u64, 10, 20].map(|wait| async move {
            tokio::time::sleep(ms(wait)).await;
            Ok::<_, ()>(wait)
        });
        let all: Vec<_> = parallel(calls).stream().collect().await;
        assert_eq!(all, [(1, Ok(10)), (2, Ok(20)), (0, Ok(30))]);
    });
}

#[test]
fn calls_may_borrow_and_are_made_when_there_is_room() {
    let text = String::from("borrowed");
    let made = AtomicUsize::new(0);
    let calls = (0..1_000).map(|_| {
        made.fetch_add(1, Ordering::SeqCst);
        ready(Ok::<_, ()>(text.len()))
    });
    let mut stream = parallel(calls).with_max_parallel(2).stream();
    assert_eq!(stream.next().now_or_never(), Some(Some((0, Ok(8)))));
    assert_eq!(made.load(Ordering::SeqCst), 2);
}

#[test]
fn a_panic_is_an_error_of_its_call_alone() {
    let calls = (0..5).map(|n| async move {
        assert!(n != 2, "call {n} panics");
        Ok::<_, ()>(n)
    });
    let results = parallel(calls).into_future().now_or_never().unwrap();
    assert_eq!(results[2], Err(CallError::Panicked("call 2 panics".to_owned())));
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 4);
}

#[test]
fn fail_fast_drops_what_runs_and_begins_nothing_more() {
    let gauge = Gauge::default();
    let calls = (0..100).map(|n| {
        let gauge = gauge.clone();
        async move {
            let _held = gauge.hold();
            if n == 3 {
                return Err("down");
            }
            pending::<()>().await;
            Ok(n)
        }
    });
    let results = parallel(calls).with_max_parallel(4).with_policy(Policy::FailFast);
    let results = results.into_future().now_or_never().unwrap();
    assert_eq!((gauge.now(), gauge.begun()), (0, 4));
    assert_eq!(results.len(), 100);
    for (n, result) in results.iter().enumerate() {
        let expected = if n == 3 {
            CallError::Failed("down")
        } else {
            CallError::Cancelled
        };
        assert_eq!(*result, Err(expected));
    }
    assert_eq!(results.into_values(), Err(CallError::Failed("down")));
}

#[test]
fn a_quorum_ends_with_enough_or_when_enough_is_out_of_reach() {
    let run = |quorum: usize, ends: [Option<bool>; 5]| {
        let calls = ends.map(|end| async move {
            match end {
                Some(true) => Ok(()),
                Some(false) => Err(()),
                None => pending().await,
            }
        });
        let policy = Policy::Quorum(quorum);
        let results = parallel(calls).with_policy(policy).into_future().now_or_never()?;
        let cancelled = results
            .iter()
            .filter(|result| **result == Err(CallError::Cancelled))
            .count();
        Some((results.is_success(), cancelled, results.len()))
    };
    let (yes, no, never) = (Some(true), Some(false), None);
    assert_eq!(run(2, [never, yes, never, yes, never]), Some((true, 3, 5)));
    assert_eq!(run(4, [no, no, never, never, never]), Some((false, 3, 5)));
    assert_eq!(run(5, [yes, yes, yes, yes, yes]), Some((true, 0, 5)));
    assert_eq!(
        run(3, [yes, yes, never, never, never]),
        None,
        "it is still possible"
    );
    assert_eq!(run(0, [never; 5]), Some((true, 5, 5)));
    assert_eq!(
        run(6, [never; 5]),
        Some((false, 5, 5)),
        "nothing is begun for nothing"
    );

    // The number of calls is not known before they have been made.
    let mut left = 3;
    let unknown = std::iter::from_fn(move || {
        left -= 1;
        (left >= 0).then(pending::<Result<(), ()>>)
    });
    let results = parallel(unknown)
        .with_policy(Policy::Quorum(4))
        .into_future()
        .now_or_never()
        .unwrap();
    assert_eq!((results.is_success(), results.len()), (false, 3));
}

#[test]
fn dropping_cancels_what_runs() {
    let gauge = Gauge::default();
    let calls = (0..9).map(|_| {
        let held = gauge.hold();
        async move {
            let _held = held;
            pending::<Result<(), ()>>().await
        }
    });
    let mut all = Box::pin(parallel(calls).with_max_parallel(3).into_future());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(all.as_mut().poll(&mut context).is_pending());
    assert_eq!(gauge.now(), 3);
    drop(all);
    assert_eq!(gauge.now(), 0);
}

#[test]
fn only_what_was_woken_is_polled_and_the_thread_is_shared() {
    // A hundred calls that wait for virtual time: each is polled twice, whatever the others do.
    let timer = VirtualTimer::new();
    let polls = AtomicUsize::new(0);
    let calls = (0..100).map(|n| {
        let mut sleep = timer.sleep_until(ms(n));
        let polls = &polls;
        std::future::poll_fn(move |context| {
            polls.fetch_add(1, Ordering::SeqCst);
            sleep.as_mut().poll(context).map(Ok::<_, ()>)
        })
    });
    let mut all = Box::pin(parallel(calls).with_max_parallel(100).into_future());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    while all.as_mut().poll(&mut context).is_pending() {
        timer.advance_to_next();
    }
    assert_eq!(
        polls.load(Ordering::SeqCst),
        199,
        "one of them ends in its first poll"
    );

    // Calls that are always ready give way after a while.
    let mut ready_calls = Box::pin(parallel((0..100_000).map(|_| ready(Ok::<_, ()>(())))).into_future());
    assert!(ready_calls.as_mut().poll(&mut context).is_pending());
}

#[test]
fn spawned_calls_run_on_other_threads_and_end_when_dropped() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let here = std::thread::current().id();
        let results = parallel((0..20).map(|n| {
            spawned(async move {
                assert!(n != 7, "seven");
                Ok::<_, ()>(std::thread::current().id())
            })
        }))
        .await;
        assert_eq!(results[7], Err(CallError::Panicked("seven".to_owned())));
        assert!(results.iter().flatten().all(|thread| *thread != here));

        let gauge = Gauge::default();
        let held = gauge.hold();
        let task = spawned(async move {
            let _held = held;
            pending::<Result<(), ()>>().await
        });
        drop(task);
        while gauge.now() > 0 {
            tokio::task::yield_now().await;
        }
    });
}
