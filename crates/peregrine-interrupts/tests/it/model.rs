//! The tree under every interleaving of its locks and atomics (loom, after Norris and Demsky: CDSChecker, OOPSLA 2013).
//!
//! `src/tree` is compiled once more, with loom's types in the place of the standard library's (`sync.rs` here), so that
//! these run with all other tests and need no flag of the compiler.
//! `LOOM_MAX_PREEMPTIONS` and loom's other variables work as always.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use loom::future::block_on;
use loom::thread;

use crate::tree::{Family, Mode, Node, Wait};

struct Names;

impl Family for Names {
    type Reason = &'static str;
    type Shared = ();
    /// Whether it binds.
    type Data = bool;

    fn binds(data: &bool) -> bool {
        *data
    }
}

fn root() -> Arc<Node<Names>> {
    Node::root((), false)
}

/// Explores, and says how much there was to explore: a model of one interleaving would prove nothing.
fn model(name: &str, body: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = executions.clone();
    let builder = loom::model::Builder::new();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        body();
    });
    let executions = executions.load(Ordering::Relaxed);
    assert!(executions > 1, "{name} has nothing to explore");
}

/// A wait as a future of its own.
async fn wait(node: Arc<Node<Names>>, mode: Mode, wake_at: Mode) {
    let mut wait = Wait::new(node, mode, wake_at);
    std::future::poll_fn(|cx| wait.poll(cx)).await;
}

#[test]
fn who_waits_is_woken_and_finds_the_reason() {
    model("wait, raise", || {
        let node = root();
        let raised = node.clone();
        let raiser = thread::spawn(move || assert!(raised.raise(Mode::Immediate, &"stop")));
        block_on(wait(node.clone(), Mode::Immediate, Mode::Immediate));
        assert_eq!(node.reasons().map(|reasons| reasons.first), Some("stop"));
        raiser.join().unwrap();
        assert_eq!(node.listeners(), 0);
    });
}

#[test]
fn who_waits_for_more_outlasts_less() {
    model("wait, raise twice", || {
        let node = root();
        let raised = node.clone();
        let raiser = thread::spawn(move || {
            raised.raise(Mode::Graceful, &"soon");
            raised.raise(Mode::Immediate, &"now");
        });
        block_on(wait(node.clone(), Mode::Immediate, Mode::Graceful));
        let reasons = node.reasons().unwrap();
        assert_eq!((reasons.first, reasons.escalation), ("soon", Some("now")));
        raiser.join().unwrap();
    });
}

#[test]
fn a_look_that_sees_the_flag_sees_the_reason() {
    model("look, raise", || {
        let node = root();
        let raised = node.clone();
        let raiser = thread::spawn(move || raised.raise(Mode::Graceful, &"stop"));
        // loom remembers one access of an atomic, and the raiser looks at the level itself before it stores it: only
        // after this lock does loom find the ways in which our look comes between the two.
        node.listeners();
        if node.mode().is_some() {
            assert!(node.reasons().is_some());
        }
        raiser.join().unwrap();
    });
}

#[test]
fn a_child_that_is_made_meanwhile_is_not_missed() {
    model("child, raise", || {
        let node = root();
        let raised = node.clone();
        let raiser = thread::spawn(move || raised.raise(Mode::Immediate, &"stop"));
        let child = node.child(false);
        let grandchild = child.child(false);
        raiser.join().unwrap();
        for below in [child, grandchild] {
            assert_eq!(below.mode(), Some(Mode::Immediate));
            assert_eq!(below.reasons().unwrap().first, "stop");
        }
    });
}

#[test]
fn a_node_that_goes_meanwhile_cuts_nothing_off() {
    model("drop, raise", || {
        let node = root();
        let middle = node.child(false);
        let below = middle.child(false);
        let dropper = thread::spawn(move || drop(middle));
        node.raise(Mode::Graceful, &"stop");
        assert_eq!(below.mode(), Some(Mode::Graceful));
        dropper.join().unwrap();
        assert_eq!(node.alive(), 2);
        node.raise(Mode::Immediate, &"now");
        assert_eq!(below.mode(), Some(Mode::Immediate));
    });
}

#[test]
fn of_two_reasons_one_is_first_everywhere() {
    model("raise, raise", || {
        let node = root();
        let child = node.child(false);
        let (one, other) = (node.clone(), child.clone());
        let graceful = thread::spawn(move || one.raise(Mode::Graceful, &"soon"));
        let immediate = thread::spawn(move || other.raise(Mode::Immediate, &"now"));
        let (graceful, immediate) = (graceful.join().unwrap(), immediate.join().unwrap());
        assert!(graceful && immediate, "each of them raised its own node");
        let of_child = child.reasons().unwrap();
        assert_eq!(child.mode(), Some(Mode::Immediate));
        match of_child.first {
            "soon" => assert_eq!(of_child.escalation, Some("now")),
            _ => assert_eq!(of_child.escalation, None, "nothing follows what is immediate"),
        }
        assert_eq!(node.reasons().unwrap().first, "soon");
    });
}

#[test]
fn two_who_raise_the_same_do_it_once() {
    model("raise, raise the same", || {
        let node = root();
        let other = node.clone();
        let raiser = thread::spawn(move || other.raise(Mode::Graceful, &"one"));
        let here = node.raise(Mode::Graceful, &"two");
        let there = raiser.join().unwrap();
        assert!(here != there);
        assert_eq!(node.reasons().unwrap().first, if here { "two" } else { "one" });
    });
}

#[test]
fn a_wait_that_is_given_up_leaves_nothing() {
    model("give up, raise", || {
        let node = root();
        let raised = node.clone();
        let raiser = thread::spawn(move || raised.raise(Mode::Immediate, &"stop"));
        block_on(async {
            let mut given_up = Wait::new(node.clone(), Mode::Immediate, Mode::Immediate);
            let mut kept = Wait::new(node.clone(), Mode::Immediate, Mode::Immediate);
            std::future::poll_fn(|cx| {
                let _ = given_up.poll(cx);
                let _ = kept.poll(cx);
                Poll::Ready(())
            })
            .await;
            drop(given_up);
            std::future::poll_fn(|cx| kept.poll(cx)).await;
        });
        raiser.join().unwrap();
        assert_eq!(node.listeners(), 0);
    });
}

#[test]
fn a_hook_runs_once_whenever_it_comes() {
    model("hook, raise", || {
        let node = root();
        let raised = node.clone();
        let raiser = thread::spawn(move || raised.raise(Mode::Immediate, &"stop"));
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let hook = Box::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let place = node.hook(Mode::Immediate, hook);
        raiser.join().unwrap();
        match place {
            Ok(place) => node.forget(place),
            Err(hook) => hook(),
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn who_does_not_keep_a_node_learns_of_its_end() {
    model("listen, drop", || {
        let node = root();
        let weak = Arc::downgrade(&node);
        let dropper = thread::spawn(move || drop(node));
        let mut place = None;
        block_on(std::future::poll_fn(|cx: &mut Context<'_>| {
            match weak.upgrade() {
                None => Poll::Ready(()),
                Some(node) => Wait::listen(&node, Mode::Immediate, Mode::Immediate, &mut place, cx),
            }
        }));
        dropper.join().unwrap();
    });
}

#[test]
fn limits_are_kept_by_those_they_bind_and_go_with_them() {
    model("bind, drop, raise", || {
        let node = root();
        let binding = node.child(true);
        let below = binding.child(false);
        let weak = Arc::downgrade(&binding);
        drop(binding);
        let binding = weak.upgrade();
        assert!(binding.is_some(), "what is below keeps it");
        let dropper = thread::spawn(move || {
            let mode = below.mode();
            drop(below);
            mode
        });
        drop(binding);
        let raised = weak
            .upgrade()
            .is_some_and(|node| node.raise(Mode::Graceful, &"limit"));
        let seen = dropper.join().unwrap();
        assert!(raised || seen.is_none());
        assert_eq!(node.alive(), 1);
        assert!(weak.upgrade().is_none());
    });
}
