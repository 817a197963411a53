//! The tree: who is interrupted with whom, what is told, what is left when scopes go.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, SystemTime};

use peregrine_interrupts::{
    Budget, CancelOnDrop, Error, Guard, Handle, Hook, Interrupt, Interrupted, Kind, Limits, ManualTimer,
    Mode, Name, Reason, RunUntil, Scope, Signal, Source, StreamUntil, Unit, WaitForInterrupt, Warning,
    Warnings, Watch,
};
use proptest::prelude::*;

fn run() -> Scope {
    Scope::root("run-1", ManualTimer::new())
}

#[test]
fn what_is_below_is_interrupted_and_nothing_else() {
    let run = run();
    let agents = [run.child(Kind::Agent, "a"), run.child(Kind::Agent, "b")];
    let tools = agents.each_ref().map(|agent| agent.child(Kind::Tool, "t"));
    let call = tools[0].child(Kind::ModelCall, "m");

    assert!(agents[0].interrupt(Mode::Graceful));
    for below in [&agents[0], &tools[0], &call] {
        assert_eq!(below.mode(), Some(Mode::Graceful));
        assert!(below.is_interrupted() && !below.is_cancelled());
        assert_eq!(below.check().unwrap_err().reason().scope, agents[0].info());
    }
    for other in [&run, &agents[1], &tools[1]] {
        assert_eq!(other.mode(), None);
        assert!(other.check().is_ok() && other.interrupted().is_none());
    }
    let late = call.child(Kind::Other, "late");
    assert_eq!(late.mode(), Some(Mode::Graceful));
    assert_eq!(late.interrupted(), call.interrupted());
}

#[test]
fn a_reason_says_what_where_when_and_why() {
    let timer = ManualTimer::new();
    timer.advance(Duration::from_secs(1_000));
    let run = Scope::root("run-1", timer.clone());
    timer.advance(Duration::from_secs(5));
    let tool = run.child(Kind::Tool, "search".to_owned());
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    timer.set_wall(wall);
    tool.interrupt(Interrupt::new(Mode::Immediate).with_detail("no \u{1b}[1mway"));

    let interrupted = tool.check().unwrap_err();
    let reason = interrupted.reason();
    assert_eq!((reason.mode, &reason.source), (Mode::Immediate, &Source::User));
    assert_eq!(reason.scope, tool.info());
    assert_eq!(
        (reason.scope.id, reason.scope.kind, reason.scope.name.as_str()),
        (2, Kind::Tool, "search")
    );
    assert_eq!((reason.after, reason.at), (Duration::from_secs(5), wall));
    assert_eq!(reason.detail.as_deref(), Some("no \u{1b}[1mway"));
    assert_eq!(
        interrupted.to_string(),
        "immediate interrupt of tool `search`: asked to stop: no \u{fffd}[1mway"
    );
}

#[test]
fn the_first_reason_stays_and_an_escalation_stands_beside_it() {
    let run = run();
    let tool = run.child(Kind::Tool, "search");
    assert!(tool.interrupt(Interrupt::new(Mode::Graceful).with_detail("first")));
    assert!(!tool.interrupt(Interrupt::new(Mode::Graceful).with_detail("second")));
    assert!(run.interrupt(Interrupt::new(Mode::Graceful).with_detail("of the run")));
    let so_far = tool.check().unwrap_err();
    assert_eq!(so_far.reason().detail.as_deref(), Some("first"));
    assert!(so_far.escalation().is_none());

    assert!(run.interrupt(Interrupt::new(Mode::Immediate).with_source(Source::Signal(Signal::Terminate))));
    assert!(!tool.interrupt(Mode::Immediate));
    let then = tool.check().unwrap_err();
    assert_eq!(then.mode(), Mode::Immediate);
    assert_eq!(then.reason(), so_far.reason());
    assert_eq!(then.latest(), then.escalation().unwrap());
    assert_eq!(
        then.to_string(),
        "graceful interrupt of tool `search`: asked to stop: first; then immediate interrupt of run `run-1`: SIGTERM received"
    );
    assert_eq!(so_far.mode(), Mode::Graceful, "what was told stays as it was");
    let late = tool.child(Kind::ModelCall, "late");
    assert_eq!(late.check().unwrap_err(), then);
}

#[test]
fn details_and_names_are_bounded() {
    let run = Scope::root("x".repeat(10_000), ManualTimer::new());
    assert_eq!(run.info().name.as_str().len(), Name::MAX_BYTES);
    run.interrupt(Interrupt::new(Mode::Graceful).with_detail("ä".repeat(10_000)));
    let detail = run.check().unwrap_err().reason().detail.clone().unwrap();
    assert_eq!(detail.len(), Interrupt::MAX_DETAIL_BYTES);
}

#[test]
fn dropping_a_scope_leaves_what_is_below_to_its_parent() {
    let run = run();
    let agent = run.child(Kind::Agent, "a");
    let tool = agent.child(Kind::Tool, "t");
    assert_eq!(run.tree_len(), 3);
    let again = agent.clone();
    drop(agent);
    assert_eq!(run.tree_len(), 3, "a clone is the same scope");
    drop(again);
    assert_eq!(run.tree_len(), 2);
    assert!(!tool.is_interrupted());
    run.interrupt(Mode::Immediate);
    assert!(tool.is_cancelled());
}

#[test]
fn what_outlives_the_root_is_on_its_own() {
    let run = run();
    let one = run.child(Kind::Agent, "a");
    let other = run.child(Kind::Agent, "b");
    let below = one.child(Kind::Tool, "t");
    drop(run);
    assert_eq!(one.tree_len(), 3);
    one.interrupt(Mode::Graceful);
    assert!(below.is_interrupted() && !other.is_interrupted());
}

#[test]
fn a_scope_in_the_middle_can_go_while_its_limits_stay() {
    let run = run();
    let limits = Limits::new().with_budget(Budget::new(Unit::TOKENS, 100));
    let tool = run.child_with(Kind::Agent, "a", limits).child(Kind::Tool, "t");
    assert_eq!(run.tree_len(), 3, "the limit binds the tool");
    tool.charge(&Unit::TOKENS, 100);
    assert_eq!(tool.check().unwrap_err().reason().scope.name, "a");
    assert!(!run.is_interrupted());
    drop(tool);
    assert_eq!(run.tree_len(), 1);
}

#[test]
fn a_hundred_thousand_children_come_and_go() {
    let run = run();
    let children: Vec<Scope> = (0..100_000).map(|_| run.child(Kind::Tool, "t")).collect();
    assert_eq!(run.tree_len(), 100_001);
    run.interrupt(Mode::Graceful);
    assert!(children.iter().all(|child| child.mode() == Some(Mode::Graceful)));
    drop(children);
    assert_eq!(run.tree_len(), 1);
}

#[test]
fn a_hundred_thousand_generations_come_and_go() {
    for limits in [
        Limits::new(),
        Limits::new().with_budget(Budget::new(Unit::TOKENS, 1_000_000)),
    ] {
        let run = run();
        let mut line = vec![run.clone()];
        for _ in 0..100_000 {
            let child = line.last().unwrap().child_with(Kind::Agent, "a", limits.clone());
            line.push(child);
        }
        run.interrupt(Mode::Immediate);
        assert!(line.iter().all(Scope::is_cancelled));
        let youngest = line.pop().unwrap();
        // Oldest first: those with limits are all kept by the youngest, and go with it at once.
        drop(line);
        assert_eq!(run.tree_len(), if limits == Limits::new() { 2 } else { 100_001 });
        drop(youngest);
        assert_eq!(run.tree_len(), 1);
    }
}

#[test]
fn a_scope_that_is_replaced_by_its_child_again_and_again_stays_small() {
    let run = run();
    let mut current = run.clone();
    for _ in 0..10_000 {
        current = current.child(Kind::Agent, "next");
        assert!(run.tree_len() <= 2);
    }
    run.interrupt(Mode::Graceful);
    assert!(current.is_interrupted());
}

#[test]
fn a_handle_stops_and_keeps_nothing() {
    let run = run();
    let tool = run.child(Kind::Tool, "t");
    let handle = tool.handle();
    assert!(handle.is_alive() && handle.mode().is_none());
    assert!(handle.stop(Some("enough")));
    assert_eq!(handle.mode(), Some(Mode::Graceful));
    assert!(!handle.interrupt(Mode::Graceful));
    assert!(handle.stop(None));
    let interrupted = tool.check().unwrap_err();
    assert_eq!(interrupted.reason().detail.as_deref(), Some("enough"));
    assert_eq!(interrupted.mode(), Mode::Immediate);
    drop(tool);
    assert_eq!(run.tree_len(), 1);
    assert!(!handle.is_alive() && !handle.stop(None) && !handle.interrupt(Mode::Immediate));
    assert_eq!(handle.mode(), None);
}

#[test]
fn a_guard_on_drop_fires_unless_it_is_disarmed() {
    let run = run();
    let agent = run.child(Kind::Agent, "a");
    agent.cancel_on_drop().disarm();
    assert!(!agent.is_interrupted());
    let task_of_the_owner = async {
        let _guard = agent.cancel_on_drop();
        std::future::pending::<()>().await;
    };
    let mut task = crate::Task::new(task_of_the_owner);
    task.pending();
    drop(task);
    assert_eq!(agent.check().unwrap_err().reason().source, Source::Dropped);
    assert!(!run.is_interrupted());
}

#[test]
fn hooks_run_once_in_order_and_only_if_they_are_still_there() {
    let run = run();
    let tool = run.child(Kind::Tool, "t");
    let (sender, ran) = mpsc::channel();
    let hook = |mode, name: &'static str| {
        let sender = sender.clone();
        tool.on(mode, move || sender.send(name).unwrap())
    };
    let _one = hook(Mode::Graceful, "graceful 1");
    let gone = hook(Mode::Graceful, "taken back");
    let _two = hook(Mode::Immediate, "immediate");
    drop(gone);
    let _three = hook(Mode::Graceful, "graceful 2");
    run.interrupt(Mode::Graceful);
    let mut so_far: Vec<_> = ran.try_iter().collect();
    so_far.sort_unstable();
    assert_eq!(so_far, ["graceful 1", "graceful 2"]);
    let _late = hook(Mode::Graceful, "late");
    assert_eq!(ran.try_iter().collect::<Vec<_>>(), ["late"], "at once");
    run.interrupt(Mode::Immediate);
    run.interrupt(Mode::Immediate);
    assert_eq!(ran.try_iter().collect::<Vec<_>>(), ["immediate"]);

    let over = run.child_with(Kind::Tool, "t", Limits::new());
    let other = Scope::root("run-2", ManualTimer::new());
    let kept = Arc::new(());
    let weak = Arc::downgrade(&kept);
    let hook = other.on(Mode::Graceful, move || drop(kept));
    drop(other);
    assert!(
        weak.upgrade().is_none(),
        "a scope that is gone drops its hooks, and does not run them"
    );
    drop((hook, over));
}

#[test]
fn a_hook_can_use_the_tree() {
    let run = run();
    let tool = run.child(Kind::Tool, "t");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (of_hook, inside, parent) = (seen.clone(), tool.clone(), run);
    let _hook = tool.on(Mode::Graceful, move || {
        // None of these may find a lock taken.
        let child = inside.child(Kind::Other, "made in a hook");
        of_hook.lock().unwrap().push(child.mode());
        parent.interrupt(Mode::Immediate);
        of_hook.lock().unwrap().push(child.mode());
        drop(inside);
    });
    tool.interrupt(Mode::Graceful);
    assert_eq!(
        *seen.lock().unwrap(),
        [Some(Mode::Graceful), Some(Mode::Immediate)]
    );
}

#[test]
fn a_panicking_hook_keeps_nobody_from_being_told() {
    let run = run();
    let children: Vec<Scope> = (0..10).map(|_| run.child(Kind::Tool, "t")).collect();
    let ran = Arc::new(AtomicUsize::new(0));
    let hooks: Vec<Hook> = children
        .iter()
        .map(|child| {
            let ran = ran.clone();
            child.on(Mode::Graceful, move || {
                assert_ne!(ran.fetch_add(1, Ordering::SeqCst), 3, "the fourth hook panics");
            })
        })
        .collect();
    let raiser = run.clone();
    let panic = std::thread::spawn(move || raiser.interrupt(Mode::Graceful)).join();
    assert!(panic.is_err());
    assert_eq!(ran.load(Ordering::SeqCst), 10);
    assert!(children.iter().all(Scope::is_interrupted));
    drop(hooks);
    assert!(run.interrupt(Mode::Immediate), "the tree works on");
}

#[test]
fn many_threads_make_drop_and_interrupt() {
    let run = run();
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let run = run.clone();
            std::thread::spawn(move || {
                let mut kept = HashMap::new();
                for round in 0..2_000_usize {
                    let parent = kept.get(&(round % 17)).unwrap_or(&run).child(Kind::Agent, "a");
                    assert!(parent.mode() >= run.mode() || run.mode().is_some());
                    kept.insert(round % 31, parent);
                    if number == 0 && round == 1_500 {
                        run.interrupt(Mode::Graceful);
                    }
                    if round % 100 == 99 {
                        kept.remove(&(round % 31));
                    }
                }
                kept
            })
        })
        .collect();
    let kept: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let alive: usize = kept.iter().map(HashMap::len).sum();
    assert_eq!(run.tree_len(), alive + 1);
    for scope in kept.iter().flat_map(HashMap::values) {
        assert_eq!(scope.mode(), Some(Mode::Graceful));
    }
    drop(kept);
    assert_eq!(run.tree_len(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    Child(usize),
    Drop(usize),
    Interrupt(usize, Mode),
}

proptest! {
    #[test]
    fn the_tree_does_what_a_naive_one_does(steps in prop::collection::vec(
        prop_oneof![
            4 => (0_usize..50).prop_map(Step::Child),
            2 => (0_usize..50).prop_map(Step::Drop),
            1 => ((0_usize..50), any::<bool>()).prop_map(|(nth, soft)| {
                Step::Interrupt(nth, if soft { Mode::Graceful } else { Mode::Immediate })
            }),
        ],
        0..120,
    )) {
        // A list of (parent, mode), the parent by its index; what is dropped keeps its entry, without a scope.
        let mut naive: Vec<(Option<usize>, Option<Mode>)> = vec![(None, None)];
        let mut scopes: Vec<Option<Scope>> = vec![Some(run())];
        let pick = |scopes: &[Option<Scope>], nth: usize| {
            let alive: Vec<usize> = (0..scopes.len()).filter(|index| scopes[*index].is_some()).collect();
            alive.get(nth % alive.len().max(1)).copied()
        };
        for step in steps {
            match step {
                Step::Child(nth) => {
                    let Some(parent) = pick(&scopes, nth) else { continue };
                    let child = scopes[parent].as_ref().unwrap().child(Kind::Agent, "a");
                    scopes.push(Some(child));
                    naive.push((Some(parent), naive[parent].1));
                }
                Step::Drop(nth) => {
                    let Some(gone) = pick(&scopes, nth) else { continue };
                    scopes[gone] = None;
                }
                Step::Interrupt(nth, mode) => {
                    let Some(target) = pick(&scopes, nth) else { continue };
                    let changed = scopes[target].as_ref().unwrap().interrupt(mode);
                    prop_assert_eq!(changed, naive[target].1 < Some(mode));
                    for index in target..naive.len() {
                        let mut up = Some(index);
                        while let Some(at) = up {
                            if at == target {
                                naive[index].1 = naive[index].1.max(Some(mode));
                                break;
                            }
                            up = naive[at].0;
                        }
                    }
                }
            }
        }
        for (scope, (_, mode)) in scopes.iter().zip(&naive) {
            if let Some(scope) = scope {
                prop_assert_eq!(scope.mode(), *mode);
                prop_assert_eq!(scope.interrupted().map(|why| why.mode()), *mode);
                prop_assert_eq!(scope.tree_len(), scopes.iter().flatten().count());
            }
        }
    }
}

#[test]
fn what_crosses_threads_can() {
    fn is<T: Send + Sync>() {}
    fn is_sent<T: Send>() {}
    is::<Scope>();
    is::<Handle>();
    is::<Hook>();
    is::<CancelOnDrop>();
    is::<Interrupt>();
    is::<Interrupted>();
    is::<Reason>();
    is::<Warning>();
    is::<Error>();
    is_sent::<WaitForInterrupt>();
    is_sent::<Warnings>();
    is_sent::<Watch>();
    is_sent::<RunUntil<std::future::Ready<()>>>();
    is_sent::<Guard<std::future::Ready<()>>>();
    is_sent::<StreamUntil<futures_util::stream::Empty<()>>>();
    fn is_unpin<T: Unpin>() {}
    is_unpin::<WaitForInterrupt>();
    is_unpin::<Warnings>();
}
