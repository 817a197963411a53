//! A thousand children that race for one budget, with calls that overshoot their estimates.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use peregrine_agent::{Budget, BudgetLimits, Estimate, Refusal, Spent};
use peregrine_core::{Cost, NanoUsd};

const CHILDREN: usize = 1_000;
const THREADS: usize = 8;

/// What a call of this child really uses: between half and thrice its estimate of 100.
fn actual(child: usize, call: usize) -> u64 {
    50 + (child * 37 + call * 101) as u64 % 251
}

/// A thousand children on eight threads make calls until they are refused.
fn race(limit: u64, estimate: Estimate) {
    let root = Budget::named(
        "root",
        BudgetLimits::default()
            .with_tokens(limit)
            .with_cost(NanoUsd(limit * 2)),
    );
    let children: Vec<Budget> = (0..CHILDREN)
        .map(|_| root.child(BudgetLimits::default()))
        .collect();
    let (paid, reported) = (AtomicU64::new(0), AtomicU64::new(0));
    let refusals = Mutex::new(0_usize);
    std::thread::scope(|scope| {
        for group in children.chunks(CHILDREN / THREADS) {
            let (paid, reported, refusals) = (&paid, &reported, &refusals);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let calls = group.iter().enumerate().map(|(child, budget)| async move {
                    for call in 0.. {
                        let Ok(reservation) = budget.reserve(&estimate).await else {
                            *refusals.lock().unwrap() += 1;
                            return;
                        };
                        // The call itself: others get their turn.
                        tokio::task::yield_now().await;
                        let tokens = actual(child, call);
                        let settlement = reservation
                            .settle(Spent::tokens(tokens).with_cost(Cost::Priced(NanoUsd(tokens))));
                        paid.fetch_add(tokens, Ordering::SeqCst);
                        if let Some(overshoot) = settlement.overshoot().first() {
                            reported.fetch_max(overshoot.by(), Ordering::SeqCst);
                        }
                    }
                });
                runtime.block_on(futures_util::future::join_all(calls));
            });
        }
    });
    let status = root.status();
    assert_eq!(
        status.spent.tokens,
        paid.load(Ordering::SeqCst),
        "nothing is lost or counted twice"
    );
    assert_eq!(*refusals.lock().unwrap(), CHILDREN, "everybody was told");
    assert_eq!(status.in_flight, 0);
    // One call exceeds its own estimate of 100 by 200 at most.
    assert!(
        status.spent.tokens <= limit + 200,
        "{} of {limit}",
        status.spent.tokens
    );
    assert!(
        status.spent.tokens > limit - 100,
        "refused too early: {} of {limit}",
        status.spent.tokens
    );
    assert_eq!(status.overshoot.tokens, status.spent.tokens.saturating_sub(limit));
    assert_eq!(
        reported.load(Ordering::SeqCst),
        status.overshoot.tokens,
        "what was exceeded is reported"
    );
}

#[test]
fn a_thousand_racing_children_overshoot_by_one_call_at_most() {
    let estimate = Estimate::tokens(100).with_cost(Cost::Priced(NanoUsd(100)));
    let bounded = estimate.with_tokens_at_most(300).with_cost_at_most(NanoUsd(300));
    for limit in [150, 5_000, 50_050] {
        race(limit, bounded);
    }
    // Where nobody knows the most, calls follow one another.
    race(20_000, estimate);
}

/// Waiters come and go on several threads; in the end nothing is held and nobody is stuck.
#[test]
fn cancelling_while_waiting_loses_nothing() {
    let root = Budget::new(BudgetLimits::default().with_tokens(1_000_000));
    let estimate = Estimate::tokens(600_000);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let root = root.clone();
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    for turn in 0..500_u64 {
                        let waiting = root.reserve(&estimate);
                        // Gives up after some polls, before or after it was granted.
                        let patience = (thread * 7 + turn) % 5;
                        let gone = async {
                            for _ in 0..patience {
                                tokio::task::yield_now().await;
                            }
                        };
                        tokio::select! {
                            biased;
                            () = gone => {}
                            reservation = waiting => {
                                tokio::task::yield_now().await;
                                drop(reservation.unwrap());
                            }
                        }
                    }
                });
            });
        }
    });
    let status = root.status();
    assert_eq!(
        (status.in_flight, status.reserved.tokens, status.spent.tokens),
        (0, 0, 0)
    );
    assert!(
        !matches!(root.try_reserve(&estimate), Err(Refusal::Busy)),
        "nobody is left in the queue"
    );
}
