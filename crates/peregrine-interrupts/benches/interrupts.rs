//! What a look, a child scope, a wake and a signal cost, beside the rivals in the same run.
//!
//! Looks and children are criterion's. Wakes and signals are timed one by one, because their tail is what counts: from
//! just before the interrupt to the first statement of the task that waited for it, in a multi-threaded runtime, with the
//! interrupting thread outside of it. Each variant has its turn in small rounds, so that what else the machine does meets
//! all of them. `PEREGRINE_WAKES` sets the number of samples.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion};
use peregrine_interrupts::{Kind, Limits, ManualTimer, Mode, Scope, Unit};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    look(&mut criterion);
    children(&mut criterion);
    waits(&mut criterion);
    criterion.final_summary();
    // `cargo test --benches` only asks whether it runs.
    let samples = match std::env::args().any(|word| word == "--bench") {
        true => std::env::var("PEREGRINE_WAKES").map_or(10_000, |samples| samples.parse().unwrap()),
        false => 10,
    };
    wakes(samples);
    #[cfg(all(unix, feature = "signal", feature = "process"))]
    signals::measure(samples / 5);
}

fn run() -> Scope {
    Scope::root("run", ManualTimer::new())
}

fn look(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("interrupts/check");
    let flag = AtomicBool::new(false);
    group.bench_function("atomic_bool", |bench| {
        bench.iter(|| black_box(&flag).load(Ordering::Acquire))
    });
    let token = CancellationToken::new().child_token();
    group.bench_function("cancellation_token", |bench| {
        bench.iter(|| black_box(&token).is_cancelled())
    });
    let scope = run().child(Kind::Tool, "tool");
    group.bench_function("peregrine/is_interrupted", |bench| {
        bench.iter(|| black_box(&scope).is_interrupted())
    });
    group.bench_function("peregrine/check", |bench| {
        bench.iter(|| black_box(&scope).check().is_ok())
    });
    group.finish();
    assert!(!flag.load(Ordering::Acquire) && !token.is_cancelled() && scope.check().is_ok());
}

/// Made and dropped, under a root with some siblings.
fn children(criterion: &mut Criterion) {
    for siblings in [0, 10_000] {
        let mut group = criterion.benchmark_group(format!("interrupts/child/{siblings}"));
        let token = CancellationToken::new();
        let others: Vec<_> = (0..siblings).map(|_| token.child_token()).collect();
        group.bench_function("cancellation_token", |bench| bench.iter(|| token.child_token()));
        token.cancel();
        assert!(others.iter().all(CancellationToken::is_cancelled));

        let run = run();
        let others: Vec<_> = (0..siblings).map(|_| run.child(Kind::Tool, "tool")).collect();
        group.bench_function("peregrine/child", |bench| {
            bench.iter(|| run.child(Kind::Tool, "tool"))
        });
        let limits = Limits::new().with_time(Duration::from_secs(30));
        group.bench_function("peregrine/child_with_time_limit", |bench| {
            bench.iter(|| run.child_with(Kind::Tool, "tool", limits.clone()));
        });
        assert_eq!(run.tree_len(), siblings + 1);
        run.interrupt(Mode::Immediate);
        assert!(others.iter().all(Scope::is_cancelled));
        group.finish();
    }
}

/// A future that is ready at once, and one that is dropped while it waits; a charge; an interrupt of many.
fn waits(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().build().unwrap();
    let (token, scope) = (CancellationToken::new(), run());
    let mut group = criterion.benchmark_group("interrupts/run_until/ready");
    group.bench_function("cancellation_token", |bench| {
        bench.iter(|| runtime.block_on(token.run_until_cancelled(async { black_box(7) })));
    });
    group.bench_function("peregrine", |bench| {
        bench.iter(|| runtime.block_on(scope.run_until_stopped(async { black_box(7) })));
    });
    group.finish();
    assert_eq!(runtime.block_on(scope.run_until_stopped(async { 7 })), Ok(7));

    let mut group = criterion.benchmark_group("interrupts/run_until/one_yield");
    group.bench_function("cancellation_token", |bench| {
        bench.iter(|| runtime.block_on(token.run_until_cancelled(tokio::task::yield_now())));
    });
    group.bench_function("peregrine", |bench| {
        bench.iter(|| runtime.block_on(scope.run_until_stopped(tokio::task::yield_now())));
    });
    group.finish();

    let mut group = criterion.benchmark_group("interrupts/cancel_tree/10000");
    group.sample_size(20);
    group.bench_function("cancellation_token", |bench| {
        let tree = || {
            let root = CancellationToken::new();
            let children: Vec<_> = (0..10_000).map(|_| root.child_token()).collect();
            (root, children)
        };
        bench.iter_batched(
            tree,
            |tree| {
                tree.0.cancel();
                tree
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("peregrine", |bench| {
        let tree = || {
            let root = run();
            let children: Vec<_> = (0..10_000).map(|_| root.child(Kind::Tool, "tool")).collect();
            (root, children)
        };
        bench.iter_batched(
            tree,
            |tree| {
                tree.0.interrupt(Mode::Immediate);
                tree
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();

    let budget = peregrine_interrupts::Budget::new(Unit::TOKENS, u64::MAX);
    let scope = Scope::root_with("run", ManualTimer::new(), Limits::new().with_budget(budget));
    let tool = scope.child(Kind::Tool, "tool");
    criterion.bench_function("interrupts/charge/peregrine", |bench| {
        bench.iter(|| tool.charge(black_box(&Unit::TOKENS), 1));
    });
    assert!(scope.budgets()[0].used > 0);
}

/// Something to wait for, and what ends the wait.
type Pair = (Pin<Box<dyn Future<Output = ()> + Send>>, Box<dyn FnOnce()>);
type MakePair = fn() -> Pair;

fn of_notify() -> Pair {
    let notify = Arc::new(Notify::new());
    let waits = notify.clone();
    (
        Box::pin(async move { waits.notified().await }),
        Box::new(move || notify.notify_one()),
    )
}

fn of_token() -> Pair {
    let token = CancellationToken::new();
    let child = token.child_token();
    (
        Box::pin(async move { child.cancelled().await }),
        Box::new(move || token.cancel()),
    )
}

fn of_scope() -> Pair {
    let run = run();
    let child = run.child(Kind::Tool, "tool");
    let waits = async move {
        child.cancelled().await;
    };
    (
        Box::pin(waits),
        Box::new(move || assert!(run.interrupt(Mode::Immediate))),
    )
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn wakes(samples: usize) {
    let runtime = runtime();
    let rivals: [(&str, MakePair); 3] = [
        ("tokio_notify", of_notify),
        ("cancellation_token", of_token),
        ("peregrine", of_scope),
    ];
    let mut taken = rivals.map(|_| Vec::new());
    for _ in 0..samples.div_ceil(100) {
        for ((_, pair), taken) in rivals.iter().zip(&mut taken) {
            for _ in 0..samples.min(100) {
                let (mut wait, end) = pair();
                let (sender, woken) = mpsc::channel();
                let (ready, waits) = mpsc::channel();
                runtime.spawn(async move {
                    let mut first = true;
                    std::future::poll_fn(|cx| {
                        let polled = wait.as_mut().poll(cx);
                        if std::mem::take(&mut first) {
                            ready.send(()).unwrap();
                        }
                        polled
                    })
                    .await;
                    sender.send(Instant::now()).unwrap();
                });
                waits.recv().unwrap();
                // Until the worker sleeps, as it does when a run waits for a model.
                std::thread::sleep(Duration::from_micros(50));
                let began = Instant::now();
                end();
                taken.push(woken.recv().unwrap().duration_since(began));
            }
        }
    }
    for ((name, _), taken) in rivals.iter().zip(taken) {
        report("interrupts/wake", name, taken);
    }
}

fn report(bench: &str, name: &str, mut taken: Vec<Duration>) {
    taken.sort_unstable();
    let at = |part: f64| {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "an index"
        )]
        let index = ((taken.len() - 1) as f64 * part) as usize;
        taken[index].as_secs_f64() * 1e6
    };
    let (p50, p95, p99) = (at(0.5), at(0.95), at(0.99));
    println!(
        "{bench}/{name:24} p50 {p50:8.2} us   p95 {p95:8.2} us   p99 {p99:8.2} us   of {}",
        taken.len()
    );
}

/// From `kill` to the task that waits, by our thread and by tokio's driver.
#[cfg(all(unix, feature = "signal", feature = "process"))]
mod signals {
    use peregrine_interrupts::signal::Signals;
    use peregrine_interrupts::{Mode, Signal};
    use rustix::process::{Signal as Number, getpid, kill_process};
    use tokio::signal::unix::{SignalKind, signal};

    use super::{Duration, Instant, mpsc, report, run, runtime};

    pub(super) fn measure(samples: usize) {
        let runtime = runtime();
        let (mut of_tokio, mut of_ours) = (Vec::new(), Vec::new());
        for sample in 0..2 * samples {
            let is_tokio = sample % 2 == 0;
            let (ready, waits) = mpsc::channel();
            let (sender, woken) = mpsc::channel();
            let scope = run();
            let listening = Signals::only([Signal::Hangup])
                .without_default_action()
                .subscribe(&scope)
                .unwrap();
            let waiting = scope.clone();
            runtime.spawn(async move {
                if is_tokio {
                    let mut own = signal(SignalKind::hangup()).unwrap();
                    ready.send(()).unwrap();
                    own.recv().await.unwrap();
                } else {
                    ready.send(()).unwrap();
                    assert_eq!(waiting.graceful().await.mode(), Mode::Graceful);
                }
                sender.send(Instant::now()).unwrap();
            });
            waits.recv().unwrap();
            std::thread::sleep(Duration::from_micros(50));
            let began = Instant::now();
            kill_process(getpid(), Number::HUP).unwrap();
            let taken = woken.recv().unwrap().duration_since(began);
            if is_tokio { &mut of_tokio } else { &mut of_ours }.push(taken);
            drop(listening);
        }
        report("interrupts/signal", "tokio_signal", of_tokio);
        report("interrupts/signal", "peregrine", of_ours);
    }
}
