//! Handlers: polled side by side, not at all when they cannot fire, and the scope's limits are kept meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use peregrine_interrupts::{
    Handler, Interrupt, Kind, Limits, ManualTimer, Mode, Name, Scope, Source, TimeLimit, handler,
};
use tokio::sync::{mpsc, oneshot};

use crate::Task;

fn run() -> Scope {
    Scope::root("run-1", ManualTimer::new())
}

/// Fires with each message; counts its polls.
struct Probe {
    name: &'static str,
    /// Has nothing to say at this mode, or a stronger one.
    silent_at: Mode,
    messages: mpsc::UnboundedReceiver<Mode>,
    polls: Arc<AtomicUsize>,
}

impl Handler for Probe {
    fn name(&self) -> Name {
        self.name.into()
    }
    fn can_fire(&self, now: Option<Mode>) -> bool {
        now < Some(self.silent_at)
    }
    fn poll_fire(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        match self.messages.poll_recv(cx) {
            Poll::Ready(Some(mode)) => Poll::Ready(Interrupt::new(mode)),
            _ => Poll::Pending,
        }
    }
}

fn probe(name: &'static str, silent_at: Mode) -> (Probe, mpsc::UnboundedSender<Mode>, Arc<AtomicUsize>) {
    let (sender, messages) = mpsc::unbounded_channel();
    let polls = Arc::default();
    let probe = Probe {
        name,
        silent_at,
        messages,
        polls: Arc::clone(&polls),
    };
    (probe, sender, polls)
}

fn taken(polls: &AtomicUsize) -> usize {
    polls.swap(0, Ordering::SeqCst)
}

#[test]
fn handlers_are_polled_side_by_side_and_skipped_when_they_cannot_fire() {
    let run = run();
    let (soft, _soft_sender, soft_polls) = probe("soft", Mode::Graceful);
    let (hard, sender, hard_polls) = probe("hard", Mode::Immediate);
    let mut watch = Task::new(run.watch().with(soft).with(hard));
    watch.pending();
    assert_eq!((taken(&soft_polls), taken(&hard_polls)), (1, 1));

    sender.send(Mode::Graceful).unwrap();
    assert_eq!(watch.wakes(), 1);
    watch.pending();
    let interrupted = run.check().unwrap_err();
    assert_eq!(
        interrupted.reason().source,
        Source::Handler { name: "hard".into() }
    );
    assert_eq!(taken(&soft_polls), 1, "before the other one fired");
    assert_eq!(taken(&hard_polls), 2, "again after it fired, for its next");

    watch.pending();
    assert_eq!((taken(&soft_polls), taken(&hard_polls)), (0, 1));
    sender.send(Mode::Immediate).unwrap();
    watch.ready();
    assert!(run.is_cancelled());
    assert_eq!(
        (taken(&soft_polls), taken(&hard_polls)),
        (0, 1),
        "not again: there is nothing left to say"
    );
}

#[test]
fn an_interrupt_from_elsewhere_silences_handlers() {
    let run = run();
    let (soft, _sender, polls) = probe("soft", Mode::Graceful);
    let mut watch = Task::new(run.watch().with(soft));
    watch.pending();
    taken(&polls);
    run.interrupt(Mode::Graceful);
    assert_eq!(watch.wakes(), 1);
    watch.pending();
    assert_eq!(taken(&polls), 0);
    run.interrupt(Mode::Immediate);
    watch.ready();
}

#[test]
fn a_future_fires_once_and_is_dropped_then() {
    let run = run();
    let (sender, receiver) = oneshot::channel::<&'static str>();
    let kept = Arc::new(());
    let weak = Arc::downgrade(&kept);
    let peer = handler("peer", async move {
        let detail = receiver.await.unwrap();
        drop(kept);
        Interrupt::new(Mode::Graceful).with_detail(detail)
    });
    let mut watch = Task::new(run.watch().with(peer));
    watch.pending();
    sender.send("connection lost").unwrap();
    watch.pending();
    assert!(weak.upgrade().is_none());
    assert_eq!(
        run.check().unwrap_err().to_string(),
        "graceful interrupt of run `run-1`: handler `peer` fired: connection lost"
    );
    watch.pending();
}

#[test]
fn a_handler_can_name_another_source() {
    let run = run();
    let limit = handler("quota", async {
        Interrupt::new(Mode::Immediate).with_source(Source::TimeLimit {
            limit: Duration::from_secs(1),
        })
    });
    Task::new(run.watch().with(limit)).ready();
    assert_eq!(run.check().unwrap_err().reason().source.as_str(), "time_limit");
}

#[test]
fn a_handler_that_fires_without_end_hangs_nobody() {
    struct Endless;
    impl Handler for Endless {
        fn name(&self) -> Name {
            "endless".into()
        }
        fn poll_fire(&mut self, _: &mut Context<'_>) -> Poll<Interrupt> {
            Poll::Ready(Mode::Graceful.into())
        }
    }
    let run = run();
    let mut watch = Task::new(run.watch().with(Endless));
    watch.pending();
    assert!(watch.wakes() > 0);
}

#[test]
fn work_runs_to_its_end_while_it_is_watched() {
    let run = run();
    let (sender, receiver) = oneshot::channel::<()>();
    let inside = run.child(Kind::Tool, "t");
    let stop = handler("stop", async { Mode::Immediate.into() });
    let mut work = Task::new(run.watch().with(stop).run(async move {
        receiver.await.unwrap();
        inside.mode()
    }));
    work.pending();
    assert!(run.is_cancelled());
    work.pending();
    sender.send(()).unwrap();
    assert_eq!(
        work.ready(),
        Some(Mode::Immediate),
        "an interrupt does not end it"
    );
}

#[test]
fn a_watch_does_not_keep_its_scope_and_ends_with_it() {
    let run = run();
    let tool = run.child(Kind::Tool, "t");
    let (soft, _sender, _) = probe("soft", Mode::Graceful);
    let mut watch = Task::new(tool.watch().with(soft));
    watch.pending();
    drop(tool);
    assert_eq!(run.tree_len(), 1);
    assert_eq!(watch.wakes(), 1);
    watch.ready();
    let mut watch = Task::new(run.watch());
    watch.pending();
    let wakes = watch.wakes.clone();
    drop(watch);
    assert_eq!(Arc::strong_count(&wakes), 1, "it left the list");
}

#[test]
fn a_watch_keeps_the_limits_for_code_that_only_looks() {
    let timer = ManualTimer::new();
    let limits = Limits::new()
        .with_grace(Duration::from_secs(2))
        .with_time(Duration::from_secs(10));
    let run = Scope::root_with("run-1", timer.clone(), limits);
    let inner = Limits::new().with_time(TimeLimit::new(Duration::from_secs(5)).with_mode(Mode::Immediate));
    let tool = run.child_with(Kind::Tool, "t", inner);
    let mut watch = Task::new(tool.watch());
    watch.pending();
    timer.advance(Duration::from_secs(5));
    assert!(tool.check().is_ok(), "looking fires nothing");
    watch.ready();
    assert!(tool.is_cancelled() && !run.is_interrupted());
    let mut watch = Task::new(run.watch());
    for (seconds, mode) in [(5, Mode::Graceful), (2, Mode::Immediate)] {
        watch.pending();
        timer.advance(Duration::from_secs(seconds));
        assert!(watch.wakes() > 0);
        let _ = watch.poll();
        assert_eq!(run.mode(), Some(mode));
    }
}
