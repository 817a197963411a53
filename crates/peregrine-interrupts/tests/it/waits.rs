//! Waiting: futures, streams and guards end when they should, and leave nothing behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt, stream};
use peregrine_interrupts::{Error, ErrorKind, Kind, Limits, ManualTimer, Mode, Scope};

use crate::Task;

fn run() -> Scope {
    Scope::root("run-1", ManualTimer::new())
}

/// Tells when it is dropped.
fn marker() -> (Arc<()>, impl Fn() -> bool) {
    let marker = Arc::new(());
    let weak = Arc::downgrade(&marker);
    (marker, move || weak.upgrade().is_none())
}

#[test]
fn a_wait_ends_with_its_mode_or_a_stronger_one() {
    let run = run();
    let tool = run.child(Kind::Tool, "t");
    let (mut graceful, mut cancelled) = (Task::new(tool.graceful()), Task::new(tool.cancelled()));
    graceful.pending();
    cancelled.pending();
    run.interrupt(Mode::Graceful);
    assert_eq!(
        (graceful.wakes(), cancelled.wakes()),
        (1, 0),
        "nobody is woken for nothing"
    );
    assert_eq!(graceful.ready().mode(), Mode::Graceful);
    cancelled.pending();
    run.interrupt(Mode::Immediate);
    assert_eq!((graceful.wakes(), cancelled.wakes()), (0, 1));
    assert_eq!(cancelled.ready().mode(), Mode::Immediate);
    assert_eq!(
        graceful.ready().mode(),
        Mode::Immediate,
        "polled again it tells what holds by then"
    );
    assert_eq!(Task::new(tool.graceful()).ready().mode(), Mode::Immediate);
}

#[test]
fn a_wait_wakes_whoever_polled_it_last() {
    let run = run();
    let mut wait = run.cancelled();
    let wakes: [Arc<crate::Wakes>; 2] = Default::default();
    for wakes in &wakes {
        let waker = wakes.clone().into();
        assert!(wait.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    }
    run.interrupt(Mode::Immediate);
    assert_eq!(wakes.map(|wakes| wakes.0.load(Ordering::SeqCst)), [0, 1]);
}

#[test]
fn waits_that_are_dropped_leave_the_list() {
    let run = run();
    for _ in 0..3 {
        let mut waits: Vec<_> = (0..1_000).map(|_| Task::new(run.cancelled())).collect();
        waits.iter_mut().for_each(Task::pending);
        let kept = waits.split_off(999);
        let wakes = waits[0].wakes.clone();
        drop(waits);
        assert_eq!(Arc::strong_count(&wakes), 1, "the list kept a waker of nobody");
        drop(kept);
    }
}

#[test]
fn a_future_is_dropped_as_soon_as_it_is_interrupted() {
    let run = run();
    let (held, is_dropped) = marker();
    let mut task = Task::new(run.run_until_stopped(async move {
        std::future::pending::<()>().await;
        drop(held);
    }));
    task.pending();
    run.interrupt(Mode::Graceful);
    task.pending();
    assert!(!is_dropped(), "a step is finished after a graceful interrupt");
    run.interrupt(Mode::Immediate);
    assert_eq!(task.wakes(), 1);
    assert_eq!(task.ready().unwrap_err().mode(), Mode::Immediate);
    assert!(is_dropped(), "not only when the wrapper goes");
}

#[test]
fn a_future_that_is_done_is_dropped_with_its_result() {
    let run = run();
    for guarded in [false, true] {
        let (held, is_dropped) = marker();
        let future = std::future::poll_fn(move |_| {
            let _ = &held;
            Poll::Ready(7)
        });
        if guarded {
            let mut task = Task::new(run.guard(Duration::ZERO, future));
            assert_eq!((task.ready().unwrap(), is_dropped()), (7, true));
        } else {
            let mut task = Task::new(run.run_until_stopped(future));
            assert_eq!((task.ready().unwrap(), is_dropped()), (7, true));
        }
    }
}

#[test]
fn nothing_begins_under_an_interrupt() {
    let run = run();
    run.interrupt(Mode::Graceful);
    let begun = AtomicUsize::new(0);
    let work = || async { begun.fetch_add(1, Ordering::SeqCst) };
    assert!(Task::new(run.run_until_graceful(work())).ready().is_err());
    assert_eq!(begun.load(Ordering::SeqCst), 0);
    assert_eq!(Task::new(run.run_until_stopped(work())).ready(), Ok(0));
    run.interrupt(Mode::Immediate);
    assert!(Task::new(run.run_until_stopped(work())).ready().is_err());
    let refused = Task::new(run.guard(Duration::from_secs(1), work())).ready();
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(begun.load(Ordering::SeqCst), 1);
}

#[test]
fn a_result_that_is_there_is_not_thrown_away() {
    let run = run();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let mut task = Task::new(run.run_until_stopped(receiver));
    task.pending();
    sender.send("a side effect happened").unwrap();
    run.interrupt(Mode::Immediate);
    assert_eq!(task.ready(), Ok(Ok("a side effect happened")));
}

/// Interrupts a run of steps at every poll it takes, and looks at what comes of it.
#[test]
fn an_interrupt_at_every_poll_ends_every_run() {
    const STEPS: usize = 10;
    async fn step(scope: &Scope, done: &AtomicUsize) -> Result<(), Error> {
        let model = scope.child(Kind::ModelCall, "m");
        model.run_until_stopped(tokio::task::yield_now()).await?;
        let tool = scope.child(Kind::Tool, "t");
        tool.guard(Duration::ZERO, async {
            tokio::task::yield_now().await;
            done.fetch_add(1, Ordering::SeqCst);
        })
        .await
    }
    for mode in [Mode::Graceful, Mode::Immediate] {
        let mut at_poll = 0_usize;
        loop {
            let run = run();
            let done = AtomicUsize::new(0);
            let mut task = Task::new(async {
                for _ in 0..STEPS {
                    run.check()?;
                    step(&run, &done).await?;
                }
                Ok::<(), Error>(())
            });
            let mut polls = 0;
            let outcome = loop {
                if polls == at_poll {
                    run.interrupt(mode);
                }
                polls += 1;
                match task.poll() {
                    Poll::Ready(outcome) => break outcome,
                    Poll::Pending => assert!(task.wakes() > 0, "nobody would poll this again"),
                }
            };
            drop(task);
            assert_eq!(run.tree_len(), 1);
            let finished = done.load(Ordering::SeqCst);
            if outcome.is_ok() {
                assert_eq!(finished, STEPS);
            } else if mode == Mode::Graceful {
                // Two polls a step: whatever was begun is finished.
                assert_eq!(finished, at_poll.div_ceil(2), "at poll {at_poll}");
            } else {
                assert_eq!(finished, at_poll / 2, "at poll {at_poll}");
            }
            if polls < at_poll {
                assert!(outcome.is_ok());
                break;
            }
            at_poll += 1;
        }
        assert!(at_poll > STEPS);
    }
}

#[test]
fn a_stream_ends_with_the_interrupt_as_its_last_item() {
    let run = run();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<u32>();
    let (held, is_dropped) = marker();
    let items = stream::unfold((receiver, held), |(mut receiver, held)| async {
        receiver.recv().await.map(|item| (item, (receiver, held)))
    });
    let mut items = Box::pin(run.stream_until_stopped(items));
    sender.send(1).unwrap();
    assert_eq!(items.next().now_or_never(), Some(Some(Ok(1))));
    run.interrupt(Mode::Graceful);
    assert_eq!(items.next().now_or_never(), None);
    sender.send(2).unwrap();
    assert_eq!(items.next().now_or_never(), Some(Some(Ok(2))));
    run.interrupt(Mode::Immediate);
    sender.send(3).unwrap();
    let last = items.next().now_or_never().unwrap().unwrap();
    assert_eq!(last.unwrap_err().mode(), Mode::Immediate);
    assert!(is_dropped());
    assert_eq!(items.size_hint(), (0, Some(1)));
    assert_eq!(items.next().now_or_never(), Some(None));
    assert_eq!(items.next().now_or_never(), Some(None));
}

#[test]
fn a_stream_that_waits_is_woken() {
    let run = run();
    let mut items = Box::pin(run.stream_until_graceful(stream::pending::<()>()));
    let mut task = Task::new(std::future::poll_fn(move |cx| items.as_mut().poll_next(cx)));
    task.pending();
    run.interrupt(Mode::Graceful);
    assert_eq!(task.wakes(), 1);
    assert!(task.ready().unwrap().is_err());
}

#[test]
fn a_stream_that_is_always_ready_can_be_stopped_and_one_that_ends_ends() {
    let run = run();
    let mut endless = run.stream_until_graceful(stream::repeat(7));
    assert_eq!(endless.next().now_or_never(), Some(Some(Ok(7))));
    run.interrupt(Mode::Graceful);
    assert!(endless.next().now_or_never().unwrap().unwrap().is_err());
    let three: Vec<_> = run
        .stream_until_stopped(stream::iter(0..3))
        .collect()
        .now_or_never()
        .unwrap();
    assert_eq!(three, [Ok(0), Ok(1), Ok(2)]);
}

#[test]
fn a_guarded_future_has_its_grace_period_and_no_more() {
    let timer = ManualTimer::new();
    let run = Scope::root("run-1", timer.clone());
    let tool = run.child(Kind::Tool, "stuck");
    let (held, is_dropped) = marker();
    let mut stuck = Task::new(tool.guard(Duration::from_secs(5), async move {
        std::future::pending::<()>().await;
        drop(held);
    }));
    stuck.pending();
    assert_eq!(timer.sleepers(), 0, "no timer before it is needed");
    run.interrupt(Mode::Graceful);
    stuck.pending();
    assert_eq!(timer.sleepers(), 0);
    run.interrupt(Mode::Immediate);
    assert_eq!(stuck.wakes(), 1);
    stuck.pending();
    timer.advance(Duration::from_millis(4_999));
    stuck.pending();
    assert!(!is_dropped());
    timer.advance(Duration::from_millis(1));
    assert_eq!(stuck.wakes(), 1);
    let error = stuck.ready().unwrap_err();
    assert!(is_dropped());
    assert_eq!(timer.sleepers(), 1, "of the future that is not dropped yet");
    let text = error.to_string();
    let Error::Abandoned(report) = error else {
        panic!("{text}")
    };
    assert_eq!(
        (report.scope, report.waited),
        (tool.info(), Duration::from_secs(5))
    );
    assert_eq!(report.interrupted.mode(), Mode::Immediate);
    assert_eq!(
        text,
        "tool `stuck` did not stop within 5s and was abandoned, after: graceful interrupt of run `run-1`: asked to \
         stop; then immediate interrupt of run `run-1`: asked to stop"
    );
    drop(stuck);
    assert_eq!(timer.sleepers(), 0);
}

#[test]
fn a_guarded_future_that_stops_in_time_gives_its_result() {
    let timer = ManualTimer::new();
    let run = Scope::root("run-1", timer.clone());
    let inside = run.child(Kind::Tool, "tidy");
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let mut tidy = Task::new(run.guard(Duration::from_secs(5), async {
        inside.cancelled().await;
        receiver.await.unwrap();
        "tidied up"
    }));
    tidy.pending();
    run.interrupt(Mode::Immediate);
    tidy.pending();
    timer.advance(Duration::from_secs(3));
    tidy.pending();
    sender.send(()).unwrap();
    assert_eq!(tidy.ready().unwrap(), "tidied up");
}

#[test]
fn without_grace_a_guarded_future_is_dropped_at_once() {
    let run = run();
    let (held, is_dropped) = marker();
    let mut task = Task::new(run.guard(Duration::ZERO, async move {
        std::future::pending::<()>().await;
        drop(held);
    }));
    task.pending();
    run.interrupt(Mode::Immediate);
    assert_eq!(task.ready().unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(is_dropped());
}

/// A tool that blocks a thread of its own, as tools do: it cannot be stopped, but nobody has to wait for it.
#[tokio::test]
async fn a_tool_that_blocks_a_thread_is_abandoned_and_reported() {
    let run = Scope::root("run-1", peregrine_timer());
    let tool = run.child(Kind::Tool, "blocks");
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let (answer, answered) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let _ = blocked.recv();
        answer.send(())
    });
    let guarded = tool.guard(Duration::from_millis(30), answered);
    let stop = async { run.interrupt(Mode::Immediate) };
    let (outcome, _) = futures_util::future::join(guarded, stop).await;
    let Err(Error::Abandoned(report)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(report.scope.name, "blocks");
    assert!(report.waited >= Duration::from_millis(30));
    release.send(()).unwrap();
    assert!(
        thread.join().unwrap().is_err(),
        "nobody waits for its answer any more"
    );
}

#[cfg(feature = "tokio")]
fn peregrine_timer() -> peregrine_interrupts::TokioTimer {
    peregrine_interrupts::TokioTimer::new()
}

/// The same by hand, as a user of another clock would write it.
#[cfg(not(feature = "tokio"))]
fn peregrine_timer() -> impl peregrine_interrupts::Timer {
    struct Own(std::time::Instant);
    impl peregrine_interrupts::Timer for Own {
        fn now(&self) -> Duration {
            self.0.elapsed()
        }
        fn sleep(&self, duration: Duration) -> peregrine_interrupts::Sleep {
            Box::pin(tokio::time::sleep(duration))
        }
    }
    Own(std::time::Instant::now())
}

#[test]
fn waits_keep_their_scope() {
    let run = run();
    let tool = run.child_with(Kind::Tool, "t", Limits::new());
    let wait = tool.cancelled();
    assert_eq!(wait.scope().info(), tool.info());
    drop(tool);
    assert_eq!(run.tree_len(), 2);
    run.interrupt(Mode::Immediate);
    assert_eq!(Task::new(wait).ready().mode(), Mode::Immediate);
    assert_eq!(run.tree_len(), 1);
}
