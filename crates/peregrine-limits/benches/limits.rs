//! What letting a request through costs, beside `governor` in the same run.
//!
//! Uncontended: one caller, limits that are never met. With 64 waiters: 64 tasks on one thread that share a rate, or a
//! single place, and ask again as soon as they are served. Where the rate of 100,000 a second holds them back, the figure is
//! the time that the processor spent for one of them, on all threads: the time on the clock is the rate's, whoever keeps
//! it. Governor has no refunds, no permits and no fair queue.

#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use governor::clock::MonotonicClock;
use governor::{Quota, RateLimiter};
use peregrine_limits::{Ask, Learning, Limiter, Limits, TokioTimer};
use tokio::runtime::{Builder, Runtime};

const WAITERS: u64 = 64;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// A million a second and more, so that nothing is ever refused.
fn wide() -> Limits {
    Limits::new()
        .with_requests_per_minute(1_000_000_000)
        .with_tokens_per_minute(1_000_000_000)
        .with_concurrency(1_000)
}

fn uncontended(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("limits/acquire/uncontended");
    let quota = Quota::per_second(NonZeroU32::new(100_000_000).unwrap());
    let governor = RateLimiter::direct_with_clock(quota, MonotonicClock);
    group.bench_function("governor", |bench| {
        bench.iter(|| assert!(black_box(&governor).check().is_ok()))
    });
    let quota = Quota::per_second(NonZeroU32::new(100_000_000).unwrap());
    let tokens = RateLimiter::direct_with_clock(quota, MonotonicClock);
    let tenth = NonZeroU32::new(10).unwrap();
    group.bench_function("governor/two_limits", |bench| {
        bench.iter(|| {
            assert!(black_box(&governor).check().is_ok());
            assert!(black_box(&tokens).check_n(tenth).is_ok());
        })
    });
    for (name, limits) in [
        ("peregrine", wide()),
        ("peregrine/learning", wide().with_learning(Learning::new())),
    ] {
        let limiter = Limiter::new(limits, TokioTimer::new()).unwrap();
        let _inside = runtime.enter();
        group.bench_function(format!("{name}/acquire_and_settle"), |bench| {
            bench.iter(|| now(limiter.acquire(Ask::tokens(10))).unwrap().settle(8))
        });
        group.bench_function(format!("{name}/acquire"), |bench| {
            bench.iter_custom(|times| {
                // Settled outside of the timed part, a hundred at a time.
                let mut took = Duration::ZERO;
                let mut left = times;
                while left > 0 {
                    let round = left.min(100);
                    let mut permits = Vec::with_capacity(100);
                    let began = Instant::now();
                    for _ in 0..round {
                        permits.push(now(limiter.acquire(Ask::tokens(10))).unwrap());
                    }
                    took += began.elapsed();
                    permits.into_iter().for_each(|permit| permit.settle(10));
                    left -= round;
                }
                took
            })
        });
    }
    group.finish();
}

/// The result of a future that has nothing to wait for.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("the limits are wide"),
    }
}

fn waiting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limits/acquire/64_waiters");
    group.sample_size(20);
    let runtime = runtime();
    let quota =
        Quota::per_second(NonZeroU32::new(100_000).unwrap()).allow_burst(NonZeroU32::new(1_000).unwrap());
    let governor = Arc::new(RateLimiter::direct_with_clock(quota, MonotonicClock));
    group.bench_function("governor/rate_of_100k", |bench| {
        bench.iter_custom(|times| {
            let governor = governor.clone();
            work(&runtime, times, move || {
                let governor = governor.clone();
                async move { governor.until_ready().await }
            })
        })
    });
    let limits = Limits::new()
        .with_requests_per_minute(6_000_000)
        .with_margin(1.0)
        .with_burst(Duration::from_millis(10));
    let limiter = Limiter::new(limits, TokioTimer::new()).unwrap();
    group.bench_function("peregrine/rate_of_100k", |bench| {
        bench.iter_custom(|times| {
            let limiter = limiter.clone();
            work(&runtime, times, move || {
                let limiter = limiter.clone();
                async move { limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0) }
            })
        })
    });
    let semaphore = Arc::new(tokio::sync::Semaphore::new(1));
    group.bench_function("tokio_semaphore/one_place", |bench| {
        bench.iter_custom(|times| {
            let semaphore = semaphore.clone();
            all(&runtime, times, move || {
                let semaphore = semaphore.clone();
                async move {
                    let _place = semaphore.acquire().await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
    });
    let limiter = Limiter::new(Limits::new().with_concurrency(1), TokioTimer::new()).unwrap();
    group.bench_function("peregrine/one_place", |bench| {
        bench.iter_custom(|times| {
            let limiter = limiter.clone();
            all(&runtime, times, move || {
                let limiter = limiter.clone();
                async move {
                    let permit = limiter.acquire(Ask::tokens(0)).await.unwrap();
                    tokio::task::yield_now().await;
                    permit.settle(0);
                }
            })
        })
    });
    group.finish();
}

/// What the processor spent on all threads of this process so far; the time on the clock where the system does not tell.
fn spent() -> Duration {
    let of_thread = |entry: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
        let stat = std::fs::read_to_string(entry.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse().ok()
    };
    match std::fs::read_dir("/proc/self/task") {
        Ok(threads) => Duration::from_nanos(threads.filter_map(of_thread).sum()),
        Err(_) => {
            static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
            BEGAN.get_or_init(Instant::now).elapsed()
        }
    }
}

/// What [`all`] takes of the processor.
fn work<F: Future<Output = ()> + Send + 'static>(
    runtime: &Runtime,
    times: u64,
    call: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> Duration {
    let before = spent();
    all(runtime, times, call);
    // What has just run is accounted for when it is put aside.
    std::thread::sleep(Duration::from_millis(1));
    spent().saturating_sub(before).max(Duration::from_nanos(1))
}

/// 64 tasks that share `times` calls.
fn all<F: Future<Output = ()> + Send + 'static>(
    runtime: &Runtime,
    times: u64,
    call: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> Duration {
    runtime.block_on(async {
        let began = Instant::now();
        let tasks: Vec<_> = (0..WAITERS)
            .map(|task| {
                let call = call.clone();
                let share = times / WAITERS + u64::from(task < times % WAITERS);
                tokio::spawn(async move {
                    for _ in 0..share {
                        call().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        began.elapsed()
    })
}

criterion_group!(benches, uncontended, waiting);
criterion_main!(benches);
