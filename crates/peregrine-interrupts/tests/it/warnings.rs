//! Warnings come once, in time, with their fraction and their source.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use peregrine_interrupts::{Budget, Kind, Limits, ManualTimer, Mode, Scope, Source, TimeLimit, Unit};

use crate::Task;

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> Limits {
    Limits::new()
        .with_time(100 * SECOND)
        .with_budget(Budget::new(Unit::TOKENS, 1_000))
}

#[test]
fn a_time_limit_warns_when_most_of_it_is_over() {
    let timer = ManualTimer::new();
    let run = Scope::root_with("run-1", timer.clone(), limits());
    let mut warnings = run.warnings();
    let mut next = Task::new(warnings.next());
    next.pending();
    timer.advance(79 * SECOND);
    next.pending();
    timer.set_wall(SystemTime::UNIX_EPOCH + 5 * SECOND);
    timer.advance(SECOND);
    assert_eq!(next.wakes(), 1);
    let warning = next.ready().unwrap();
    assert_eq!(warning.source, Source::TimeLimit { limit: 100 * SECOND });
    assert_eq!((warning.scope.clone(), warning.after), (run.info(), 80 * SECOND));
    assert_eq!(warning.at, SystemTime::UNIX_EPOCH + 6 * SECOND);
    assert!((warning.fraction - 0.8).abs() < 1e-9);
    assert_eq!(
        warning.to_string(),
        "80 % of the time limit of 100s of run `run-1` used"
    );
    assert!(!run.is_interrupted());
}

#[test]
fn each_limit_warns_once_whoever_waits_and_however_late() {
    let timer = ManualTimer::new();
    let run = Scope::root_with("run-1", timer.clone(), limits());
    let tool = run.child(Kind::Tool, "t");
    let (mut of_run, mut of_tool) = (run.warnings(), tool.warnings());
    // Other waits give the warning, too, and keep it for those who ask.
    let mut wait = Task::new(tool.cancelled());
    wait.pending();
    timer.advance(85 * SECOND);
    wait.pending();
    tool.charge(&Unit::TOKENS, 799);
    assert_eq!(of_run.try_next().unwrap().source.as_str(), "time_limit");
    assert!(of_run.try_next().is_none());
    tool.charge(&Unit::TOKENS, 1);
    tool.charge(&Unit::TOKENS, 100);
    let warning = of_run.try_next().unwrap();
    let Source::Budget { used, limit, .. } = warning.source else {
        panic!("{warning:?}")
    };
    assert_eq!((used, limit), (800, 1_000));
    assert_eq!(Task::new(of_run.next()).ready(), None, "both have warned");
    let late: Vec<_> = std::iter::from_fn(|| tool.child(Kind::ModelCall, "m").warnings().try_next())
        .take(1)
        .collect();
    assert_eq!(late[0].source.as_str(), "time_limit");
    assert_eq!(Task::new(of_tool.by_ref().collect::<Vec<_>>()).ready().len(), 2);
}

#[test]
fn a_step_that_uses_up_everything_warns_and_interrupts() {
    let run = Scope::root_with("run-1", ManualTimer::new(), limits());
    let mut warnings = run.warnings();
    let mut next = Task::new(async { (warnings.next().await, warnings.next().await) });
    next.pending();
    run.charge(&Unit::TOKENS, 5_000);
    assert!(next.wakes() > 0);
    let (warning, end) = next.ready();
    assert!((warning.unwrap().fraction - 5.0).abs() < 1e-9);
    assert_eq!(end, None, "an interrupted run is warned no more");
    assert!(run.is_interrupted());
}

#[test]
fn warnings_come_from_all_scopes_that_bind() {
    let timer = ManualTimer::new();
    let run = Scope::root_with("run-1", timer, limits());
    let budget = Budget::new(Unit::TOKENS, 100).with_warning_at(0.5);
    let agent = run.child_with(Kind::Agent, "a", Limits::new().with_budget(budget));
    let mut warnings = agent.child(Kind::Tool, "t").warnings();
    agent.charge(&Unit::TOKENS, 50);
    assert_eq!(warnings.try_next().unwrap().scope, agent.info());
    run.charge(&Unit::TOKENS, 750);
    assert_eq!(warnings.try_next().unwrap().scope, run.info());
    let mut next = Task::new(warnings.next());
    next.pending();
    run.interrupt(Mode::Graceful);
    assert_eq!(next.wakes(), 1);
    assert_eq!(next.ready(), None);
}

#[test]
fn no_warning_where_none_is_wanted_and_none_twice_after_a_resume() {
    let timer = ManualTimer::new();
    let quiet = Limits::new()
        .with_time(TimeLimit::new(100 * SECOND).with_warning_at(1.0))
        .with_budget(Budget::new(Unit::TOKENS, 10).with_warning_at(0.0));
    let run = Scope::root_with("run-1", timer.clone(), quiet);
    let mut warnings = run.warnings();
    assert_eq!(Task::new(warnings.next()).ready(), None);
    run.charge(&Unit::TOKENS, 9);
    assert!(warnings.try_next().is_none());

    let resumed = Limits::new()
        .with_time(TimeLimit::new(100 * SECOND).with_used(90 * SECOND))
        .with_budget(Budget::new(Unit::TOKENS, 10).with_used(9));
    let run = Scope::root_with("run-1", timer, resumed);
    let mut warnings = run.warnings();
    let mut seen = Vec::new();
    while let Some(warning) = warnings.try_next() {
        seen.push((warning.source.as_str(), (warning.fraction * 100.0).round()));
    }
    assert_eq!(seen, [("budget", 90.0), ("time_limit", 90.0)]);
}

#[test]
fn a_given_up_wait_loses_no_warning_and_leaves_nothing() {
    let run = Scope::root_with("run-1", ManualTimer::new(), limits());
    let mut warnings = run.warnings();
    let mut next = Task::new(warnings.next());
    next.pending();
    let wakes = next.wakes.clone();
    drop(next);
    run.charge(&Unit::TOKENS, 900);
    assert_eq!(
        Task::new(warnings.next()).ready().unwrap().source.as_str(),
        "budget"
    );
    drop(warnings);
    assert_eq!(std::sync::Arc::strong_count(&wakes), 1);
    assert_eq!(run.tree_len(), 1);
}

#[test]
fn threads_that_charge_together_warn_once() {
    let limits = Limits::new().with_budget(Budget::new(Unit::TOKENS, 100_000));
    let run = Scope::root_with("run-1", ManualTimer::new(), limits);
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| (0..11_000).for_each(|_| run.charge(&Unit::TOKENS, 1)));
        }
    });
    let mut warnings = run.warnings();
    let warning = warnings.try_next().unwrap();
    assert!(
        matches!(
            warning.source,
            Source::Budget {
                used: 80_000..=80_008,
                ..
            }
        ),
        "{warning:?}"
    );
    assert!(warnings.try_next().is_none());
    assert!(!run.is_interrupted());
}
