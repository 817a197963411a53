//! Time limits, grace periods and budgets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use peregrine_interrupts::{
    Budget, Kind, Limits, ManualTimer, Mode, Scope, Sleep, Source, TimeLimit, Timer, Unit,
};

use crate::Task;

const SECOND: Duration = Duration::from_secs(1);

fn timed(limit: impl Into<TimeLimit>) -> (ManualTimer, Scope) {
    let timer = ManualTimer::new();
    timer.advance(Duration::from_secs(12_345));
    let run = Scope::root_with("run-1", timer.clone(), Limits::new().with_time(limit));
    (timer, run)
}

#[test]
fn a_time_limit_fires_where_somebody_waits() {
    let (timer, run) = timed(60 * SECOND);
    let mut work = Task::new(run.run_until_graceful(std::future::pending::<()>()));
    work.pending();
    assert_eq!(timer.sleepers(), 1);
    timer.advance(59 * SECOND);
    work.pending();
    assert_eq!(run.time_left(), Some(SECOND));
    timer.advance(SECOND - Duration::from_nanos(1));
    work.pending();
    assert!(!run.is_interrupted());
    work.wakes();
    timer.advance(Duration::from_nanos(1));
    assert_eq!(work.wakes(), 1);
    let interrupted = work.ready().unwrap_err();
    let reason = interrupted.reason();
    assert_eq!(reason.source, Source::TimeLimit { limit: 60 * SECOND });
    assert_eq!((reason.mode, reason.after), (Mode::Graceful, 60 * SECOND));
    assert_eq!(run.time_left(), Some(Duration::ZERO));
}

/// Nobody waits for the run itself, only for something far below it.
#[test]
fn a_limit_from_above_fires_below() {
    let (timer, run) = timed(10 * SECOND);
    let below = run.child(Kind::Agent, "a").child(Kind::Tool, "t");
    let other = run.child(Kind::Tool, "other");
    let mut work = Task::new(below.run_until_graceful(std::future::pending::<()>()));
    work.pending();
    timer.advance(10 * SECOND);
    assert_eq!(work.ready().unwrap_err().reason().scope, run.info());
    assert!(run.is_interrupted() && other.is_interrupted());
}

#[test]
fn the_nearest_of_several_limits_fires_first() {
    let (timer, run) = timed(10 * SECOND);
    let limits = Limits::new().with_time(TimeLimit::new(3 * SECOND).with_mode(Mode::Immediate));
    let tool = run.child_with(Kind::Tool, "t", limits);
    let late = run.child_with(Kind::Tool, "late", Limits::new().with_time(60 * SECOND));
    assert_eq!(
        (tool.time_left(), late.time_left()),
        (Some(3 * SECOND), Some(10 * SECOND))
    );
    let mut work = Task::new(tool.run_until_stopped(std::future::pending::<()>()));
    let mut other = Task::new(late.graceful());
    work.pending();
    other.pending();
    timer.advance(3 * SECOND);
    assert_eq!(work.ready().unwrap_err().reason().scope, tool.info());
    assert!(!run.is_interrupted());
    other.pending();
    timer.advance(7 * SECOND);
    assert_eq!(other.ready().reason().scope, run.info());
}

#[test]
fn nothing_polls_in_intervals() {
    let (timer, run) = timed(1_000_000 * SECOND);
    let mut waits: Vec<_> = (0..10).map(|_| Task::new(run.cancelled())).collect();
    waits.iter_mut().for_each(Task::pending);
    for _ in 0..1_000 {
        timer.advance(SECOND);
    }
    assert!(waits.iter().all(|wait| wait.wakes() == 0));
    assert_eq!(
        timer.next_wake(),
        Some((12_345 + 800_000) * SECOND),
        "the warning, and nothing before"
    );
    drop(waits);
    assert_eq!(timer.sleepers(), 0);
}

#[test]
fn without_a_limit_there_is_no_timer() {
    let timer = ManualTimer::new();
    let run = Scope::root("run-1", timer.clone());
    let mut wait = Task::new(run.cancelled());
    wait.pending();
    assert_eq!((timer.sleepers(), run.time_left()), (0, None));
}

#[test]
fn a_wall_clock_that_jumps_changes_nothing() {
    let (timer, run) = timed(60 * SECOND);
    let mut wait = Task::new(run.graceful());
    wait.pending();
    for jump in [
        Duration::from_secs(4_000_000_000),
        Duration::ZERO,
        365 * 86_400 * SECOND,
    ] {
        timer.set_wall(SystemTime::UNIX_EPOCH + jump);
        wait.pending();
    }
    timer.advance(60 * SECOND);
    timer.set_wall(SystemTime::UNIX_EPOCH);
    let reason = wait.ready();
    assert_eq!(
        (reason.reason().after, reason.reason().at),
        (60 * SECOND, SystemTime::UNIX_EPOCH)
    );
}

/// A timer as a user might write one: its sleeps end early, as those of some systems do.
struct Hasty(ManualTimer);

impl Timer for Hasty {
    fn now(&self) -> Duration {
        self.0.now()
    }
    fn sleep(&self, duration: Duration) -> Sleep {
        self.0.sleep((duration / 2).max(SECOND).min(duration))
    }
}

#[test]
fn a_sleep_that_ends_early_ends_no_limit_early() {
    let timer = ManualTimer::new();
    let run = Scope::root_with(
        "run-1",
        Hasty(timer.clone()),
        Limits::new().with_time(64 * SECOND),
    );
    let mut wait = Task::new(run.graceful());
    for nap in 0.. {
        wait.pending();
        assert!(!run.is_interrupted() && timer.now() < 64 * SECOND);
        timer.advance(timer.next_wake().unwrap() - timer.now());
        if timer.now() == 64 * SECOND {
            assert!(nap > 5, "it was early that often");
            break;
        }
    }
    wait.ready();
}

/// One that lies: every sleep is over at once, and time stands still.
struct Stuck(AtomicU64);

impl Timer for Stuck {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&self, _: Duration) -> Sleep {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(()))
    }
}

#[test]
fn a_timer_that_lies_hangs_nobody() {
    let timer = Arc::new(Stuck(AtomicU64::new(0)));
    let run = Scope::root_with("run-1", timer.clone(), Limits::new().with_time(SECOND));
    let mut wait = Task::new(run.graceful());
    wait.pending();
    assert!(timer.0.load(Ordering::SeqCst) < 100);
    assert!(wait.wakes() > 0, "it lets others have their turn and looks again");
    run.interrupt(Mode::Graceful);
    wait.ready();
}

#[test]
fn time_used_before_counts_and_no_time_at_all_interrupts_at_once() {
    let (timer, run) = timed(TimeLimit::new(60 * SECOND).with_used(50 * SECOND));
    let mut wait = Task::new(run.graceful());
    wait.pending();
    assert_eq!(run.time_left(), Some(10 * SECOND));
    timer.advance(10 * SECOND);
    wait.ready();
    for limit in [
        TimeLimit::new(Duration::ZERO),
        TimeLimit::new(SECOND).with_used(2 * SECOND),
    ] {
        let (_, run) = timed(limit);
        assert!(matches!(
            run.check().unwrap_err().reason().source,
            Source::TimeLimit { .. }
        ));
    }
    let (timer, run) = timed(Duration::MAX);
    let mut wait = Task::new(run.graceful());
    wait.pending();
    timer.advance(Duration::from_secs(u64::MAX / 2));
    wait.pending();
}

#[test]
fn a_graceful_interrupt_of_any_source_becomes_immediate_after_the_grace_period() {
    let timer = ManualTimer::new();
    let run = Scope::root_with("run-1", timer.clone(), Limits::new().with_grace(25 * SECOND));
    let tool = run.child(Kind::Tool, "t");
    let mut work = Task::new(tool.run_until_stopped(std::future::pending::<()>()));
    work.pending();
    timer.advance(100 * SECOND);
    work.pending();
    assert_eq!(timer.sleepers(), 0);
    run.handle().stop(Some("please"));
    assert_eq!(work.wakes(), 1, "to set its timer");
    work.pending();
    // A second one, somewhere below, neither begins the period anew nor ends it.
    tool.interrupt(Mode::Graceful);
    timer.advance(24 * SECOND);
    work.pending();
    let late = tool.child(Kind::ModelCall, "late");
    let mut late = Task::new(late.cancelled());
    late.pending();
    timer.advance(SECOND);
    let interrupted = late.ready();
    assert_eq!(work.ready().unwrap_err(), interrupted);
    assert_eq!(interrupted.reason().source, Source::User);
    let escalation = interrupted.escalation().unwrap();
    assert_eq!(escalation.source, Source::Grace { period: 25 * SECOND });
    assert_eq!(
        (escalation.scope.clone(), escalation.after),
        (run.info(), 125 * SECOND)
    );
}

#[test]
fn what_is_begun_under_a_graceful_interrupt_has_its_whole_grace_period() {
    let timer = ManualTimer::new();
    let run = Scope::root("run-1", timer.clone());
    run.interrupt(Mode::Graceful);
    timer.advance(100 * SECOND);
    let tool = run.child_with(Kind::Tool, "t", Limits::new().with_grace(5 * SECOND));
    let mut work = Task::new(tool.run_until_stopped(std::future::pending::<()>()));
    work.pending();
    timer.advance(4 * SECOND);
    work.pending();
    timer.advance(SECOND);
    assert_eq!(work.ready().unwrap_err().escalation().unwrap().scope, tool.info());
    assert_eq!(run.mode(), Some(Mode::Graceful));
}

#[test]
fn a_time_limit_and_its_grace_period_follow_each_other() {
    let limits = Limits::new().with_time(60 * SECOND).with_grace(5 * SECOND);
    let timer = ManualTimer::new();
    let run = Scope::root_with("run-1", timer.clone(), limits);
    let mut work = Task::new(run.run_until_stopped(std::future::pending::<()>()));
    work.pending();
    timer.advance(60 * SECOND);
    work.pending();
    assert_eq!(run.mode(), Some(Mode::Graceful));
    timer.advance(5 * SECOND);
    assert!(work.ready().is_err());
    // The same when nobody looked for a long time: both are due at once.
    let limits = Limits::new().with_time(60 * SECOND).with_grace(5 * SECOND);
    let run = Scope::root_with("run-2", timer.clone(), limits);
    let mut work = Task::new(run.run_until_stopped(std::future::pending::<()>()));
    timer.advance(1_000 * SECOND);
    work.pending();
    assert_eq!(
        run.mode(),
        Some(Mode::Graceful),
        "the period begins with the interrupt, not with the limit"
    );
    timer.advance(5 * SECOND);
    assert!(work.ready().is_err());
}

#[test]
fn a_budget_interrupts_when_it_is_used_up() {
    let limits = Limits::new().with_budget(Budget::new(Unit::MODEL_CALLS, 3));
    let run = Scope::root_with("run-1", ManualTimer::new(), limits);
    for left in [2, 1] {
        run.charge(&Unit::MODEL_CALLS, 1);
        assert_eq!(run.remaining(&Unit::MODEL_CALLS), Some(left));
        assert!(run.check().is_ok());
    }
    run.charge(&Unit::TOKENS, 1_000_000);
    assert!(
        run.check().is_ok() && run.remaining(&Unit::TOKENS).is_none(),
        "nobody limits tokens"
    );
    let mut wait = Task::new(run.graceful());
    wait.pending();
    run.charge(&Unit::MODEL_CALLS, 1);
    assert_eq!(wait.wakes(), 1);
    let source = Source::Budget {
        unit: Unit::MODEL_CALLS,
        used: 3,
        limit: 3,
    };
    assert_eq!(wait.ready().reason().source, source);
    run.charge(&Unit::MODEL_CALLS, 5);
    assert_eq!(
        run.check().unwrap_err().reason().source,
        source,
        "the first reason stays"
    );
    let [used] = &run.budgets()[..] else { panic!() };
    assert_eq!((used.used, used.limit, used.remaining()), (8, 3, 0));
}

#[test]
fn what_is_used_below_counts_above_and_not_beside() {
    let tokens = |limit| Limits::new().with_budget(Budget::new(Unit::TOKENS, limit));
    let run = Scope::root_with("run-1", ManualTimer::new(), tokens(100));
    let one = run.child_with(Kind::Agent, "one", tokens(60));
    let other = run.child_with(Kind::Agent, "other", tokens(60));
    let call = one.child(Kind::ModelCall, "m");
    call.charge(&Unit::TOKENS, 50);
    assert_eq!(
        (one.remaining(&Unit::TOKENS), other.remaining(&Unit::TOKENS)),
        (Some(10), Some(50))
    );
    let uses: Vec<_> = call
        .budgets()
        .iter()
        .map(|used| (used.scope.name.to_string(), used.used))
        .collect();
    assert_eq!(uses, [("one".to_owned(), 50), ("run-1".to_owned(), 50)]);
    other.charge(&Unit::TOKENS, 50);
    assert_eq!(
        other.check().unwrap_err().reason().scope,
        run.info(),
        "its own has 10 left"
    );
    assert!(run.is_interrupted() && call.is_interrupted());
}

#[test]
fn budgets_saturate_start_used_and_can_be_immediate() {
    let budget = Budget::new(Unit::from("pages"), u64::MAX).with_used(u64::MAX - 1);
    let pages = Unit::from_static("pages");
    let run = Scope::root_with("run-1", ManualTimer::new(), Limits::new().with_budget(budget));
    assert!(run.check().is_ok());
    run.charge(&pages, u64::MAX);
    assert_eq!(run.budgets()[0].used, u64::MAX);
    assert!(run.is_interrupted());
    for budget in [
        Budget::new(Unit::NANO_USD, 0),
        Budget::new(Unit::NANO_USD, 5).with_used(5),
        Budget::new(Unit::NANO_USD, 5).with_used(9),
    ] {
        let limits = Limits::new().with_budget(budget.with_mode(Mode::Immediate));
        let run = Scope::root_with("run-1", ManualTimer::new(), limits);
        assert_eq!(run.mode(), Some(Mode::Immediate));
    }
}

#[test]
fn threads_that_charge_together_lose_nothing_and_interrupt_once() {
    let limits = Limits::new().with_budget(Budget::new(Unit::TOKENS, 80_000));
    let run = Scope::root_with("run-1", ManualTimer::new(), limits);
    let fired = Arc::new(AtomicU64::new(0));
    let counted = fired.clone();
    let _hook = run.on(Mode::Graceful, move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    std::thread::scope(|threads| {
        for _ in 0..8 {
            let agent = run.child(Kind::Agent, "a");
            threads.spawn(move || (0..10_000).for_each(|_| agent.charge(&Unit::TOKENS, 1)));
        }
    });
    assert_eq!(run.budgets()[0].used, 80_000);
    assert_eq!(fired.load(Ordering::SeqCst), 1);
    let Source::Budget { used, .. } = run.check().unwrap_err().reason().source else {
        panic!("it was the budget")
    };
    assert_eq!(used, 80_000, "not before the last of them");
}

#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn limits_follow_tokios_paused_clock() {
    use peregrine_interrupts::TokioTimer;
    let limits = Limits::new().with_time(3_600 * SECOND).with_grace(30 * SECOND);
    let run = Scope::root_with("run-1", TokioTimer::new(), limits);
    let before = std::time::Instant::now();
    let work = run.run_until_graceful(std::future::pending::<()>()).await;
    assert_eq!(work.unwrap_err().reason().after, 3_600 * SECOND);
    let stopped = run.cancelled().await;
    assert_eq!(stopped.escalation().unwrap().after, 3_630 * SECOND);
    assert!(before.elapsed() < 60 * SECOND, "nobody slept for real");
}

/// The real clock, and a wait in another task: the limit is kept wherever it is waited for.
#[cfg(feature = "tokio")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_follow_the_real_clock_across_tasks() {
    use peregrine_interrupts::TokioTimer;
    let limit = Duration::from_millis(30);
    let before = std::time::Instant::now();
    let run = Scope::root_with("run-1", TokioTimer::new(), Limits::new().with_time(limit));
    let tool = run.child(Kind::Tool, "t");
    let work = tokio::spawn(async move { tool.run_until_graceful(std::future::pending::<()>()).await });
    assert!(work.await.unwrap().is_err());
    assert!(before.elapsed() >= limit);
    assert!(run.check().unwrap_err().reason().after >= limit);
}
