//! Reserving and settling without contention, at depth 1 and 3, beside the floors: a bare atomic counter and a counter
//! under a lock, each touched twice as a reservation is.
//!
//! `cargo bench -p peregrine-agent --bench budget`

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark fails by panicking; criterion's macros make its main function"
)]

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use peregrine_agent::{Budget, BudgetLimits, Estimate, Spent};
use peregrine_core::{Cost, NanoUsd};

fn limits() -> BudgetLimits {
    BudgetLimits::default()
        .with_tokens(u64::MAX)
        .with_cost(NanoUsd(u64::MAX))
        .with_tool_calls(u64::MAX)
}

fn chain(depth: usize) -> (Budget, Budget) {
    let root = Budget::new(limits());
    let leaf = (1..depth).fold(root.clone(), |budget, _| budget.child(limits()));
    (root, leaf)
}

fn reserve_and_settle(c: &mut Criterion) {
    let estimate = Estimate::tokens(100)
        .with_tokens_at_most(200)
        .with_cost(Cost::Priced(NanoUsd(10)))
        .with_cost_at_most(NanoUsd(20));
    let spent = Spent::tokens(90).with_cost(Cost::Priced(NanoUsd(9)));

    let mut group = c.benchmark_group("budget/reserve_settle");
    for depth in [1, 3] {
        let (root, leaf) = chain(depth);
        let mut calls = 0_u64;
        group.bench_function(format!("depth_{depth}/ours"), |b| {
            b.iter(|| {
                calls += 1;
                let reservation = leaf.try_reserve(black_box(&estimate)).unwrap();
                reservation.settle(black_box(spent))
            });
        });
        assert_eq!(root.status().spent.tokens, calls * 90);
        assert_eq!(root.status().in_flight, 0);

        let (root, leaf) = chain(depth);
        let mut calls = 0_u64;
        group.bench_function(format!("depth_{depth}/ours_async"), |b| {
            b.iter(|| {
                calls += 1;
                let reservation = leaf
                    .reserve(black_box(&estimate))
                    .now_or_never()
                    .unwrap()
                    .unwrap();
                reservation.settle(black_box(spent))
            });
        });
        assert_eq!(root.status().spent.tokens, calls * 90);
    }

    let (counter, mut calls) = (AtomicU64::new(0), 0_u64);
    group.bench_function("depth_1/atomic", |b| {
        b.iter(|| {
            calls += 1;
            counter.fetch_add(black_box(100), Ordering::SeqCst);
            counter.fetch_sub(black_box(10), Ordering::SeqCst)
        });
    });
    assert_eq!(counter.into_inner(), calls * 90);

    let (counter, mut calls) = (Mutex::new(0_u64), 0_u64);
    group.bench_function("depth_1/mutex", |b| {
        b.iter(|| {
            calls += 1;
            *counter.lock().unwrap() += black_box(100);
            *counter.lock().unwrap() -= black_box(10);
        });
    });
    assert_eq!(counter.into_inner().unwrap(), calls * 90);
    group.finish();
}

criterion_group!(benches, reserve_and_settle);
criterion_main!(benches);
