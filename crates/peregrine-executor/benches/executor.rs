//! What the executor adds to each call and each step, beside what one would write by hand.
//!
//! `cargo bench -p peregrine-executor --features tokio` runs everything on one current-thread runtime, so that no time
//! is spent on going to another thread and back; the ids say `suite/operation/shape/implementation`. Each step does
//! nothing and gives a number; each run is checked outside of the timed part. The figures to read are the times divided
//! by the number of steps, and the ratios between implementations in the same run.
//!
//! Rivals: `JoinSet` and `FuturesUnordered` with counters of missing inputs, as one would write a dataflow by hand, and
//! `buffer_unordered` over all calls, or over one level after the other. They know no retries, limits of time,
//! references or reports.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::stream::{FuturesUnordered, StreamExt as _, iter};
use peregrine_executor::{
    ActionInfo, Actions, Effect, Executor, Order, Placement, Plan, Step, StepState, TokioTimer, parallel,
    spawned,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Of `parallel`, and of plans of which one is checked but not run.
const STEPS: usize = 10_000;
const PARALLEL: usize = 5;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

/// What each of so many steps waits for, by shape.
fn shapes(steps: usize) -> [(&'static str, Vec<Vec<usize>>); 3] {
    let wide = vec![Vec::new(); steps];
    let chain = (0..steps)
        .map(|n| n.checked_sub(1).into_iter().collect())
        .collect();
    // Rows of 100, each step behind three of the row before.
    let mesh = (0..steps).map(|n| match n.checked_sub(100) {
        None => Vec::new(),
        Some(above) => {
            let row = above / 100 * 100;
            vec![above, row + (above + 1) % 100, row + (above + 37) % 100]
        }
    });
    [("wide", wide), ("chain", chain), ("mesh", mesh.collect())]
}

fn plan(needs: &[Vec<usize>]) -> Plan {
    let step = |(n, needs): (usize, &Vec<usize>)| {
        needs
            .iter()
            .fold(Step::new(format!("s{n}"), "noop"), |step, needed| {
                step.after(format!("s{needed}"))
            })
    };
    Plan::new(needs.iter().enumerate().map(step)).unwrap()
}

fn executor() -> Executor {
    let actions = Actions::new().with_fn("noop", ActionInfo::new(Effect::ReadOnly), async |_| Ok(json!(1)));
    Executor::new(actions, TokioTimer::new()).with_max_parallel(PARALLEL)
}

async fn noop() -> Result<Value, String> {
    Ok(json!(1))
}

/// Dataflow as one would write it by hand: counters, and a list of what is ready.
struct Counters {
    missing: Vec<usize>,
    behind: Vec<Vec<usize>>,
    ready: Vec<usize>,
    results: Vec<Value>,
}

impl Counters {
    fn new(needs: &[Vec<usize>]) -> Self {
        let mut behind = vec![Vec::new(); needs.len()];
        for (n, needs) in needs.iter().enumerate() {
            needs.iter().for_each(|&needed| behind[needed].push(n));
        }
        Self {
            missing: needs.iter().map(Vec::len).collect(),
            behind,
            ready: (0..needs.len()).filter(|&n| needs[n].is_empty()).collect(),
            results: vec![Value::Null; needs.len()],
        }
    }

    fn ended(&mut self, n: usize, result: Value) {
        self.results[n] = result;
        for &behind in &self.behind[n] {
            self.missing[behind] -= 1;
            if self.missing[behind] == 0 {
                self.ready.push(behind);
            }
        }
    }
}

async fn by_join_set(needs: &[Vec<usize>]) -> Vec<Value> {
    let mut counters = Counters::new(needs);
    let mut set = JoinSet::new();
    loop {
        while set.len() < PARALLEL
            && let Some(n) = counters.ready.pop()
        {
            set.spawn(async move { (n, noop().await) });
        }
        match set.join_next().await {
            Some(end) => {
                let (n, result) = end.unwrap();
                counters.ended(n, result.unwrap());
            }
            None => return counters.results,
        }
    }
}

async fn by_futures_unordered(needs: &[Vec<usize>]) -> Vec<Value> {
    let mut counters = Counters::new(needs);
    let mut set = FuturesUnordered::new();
    loop {
        while set.len() < PARALLEL
            && let Some(n) = counters.ready.pop()
        {
            set.push(async move { (n, noop().await) });
        }
        match set.next().await {
            Some((n, result)) => counters.ended(n, result.unwrap()),
            None => return counters.results,
        }
    }
}

async fn by_levels(needs: &[Vec<usize>]) -> Vec<Value> {
    let mut levels: Vec<Vec<usize>> = Vec::new();
    let mut level_of = vec![0; needs.len()];
    for (n, needs) in needs.iter().enumerate() {
        let level = needs
            .iter()
            .map(|&needed| level_of[needed] + 1)
            .max()
            .unwrap_or(0);
        level_of[n] = level;
        if levels.len() <= level {
            levels.push(Vec::new());
        }
        levels[level].push(n);
    }
    let mut results = vec![Value::Null; needs.len()];
    for level in levels {
        let mut stream = iter(level)
            .map(async |n| (n, noop().await))
            .buffer_unordered(PARALLEL);
        while let Some((n, result)) = stream.next().await {
            results[n] = result.unwrap();
        }
    }
    results
}

fn plans(criterion: &mut Criterion) {
    for steps in [1_000, 10_000] {
        for (shape, needs) in shapes(steps) {
            run(criterion, shape, &needs);
        }
    }
    let [_, _, (shape, needs)] = shapes(100_000);
    run(criterion, shape, &needs);
}

fn run(criterion: &mut Criterion, shape: &str, needs: &[Vec<usize>]) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group(format!("executor/run/{shape}-{}", needs.len()));
    group.throughput(Throughput::Elements(needs.len() as u64));
    let plan = plan(needs);
    let ours = [
        ("in_place", executor()),
        ("spawned", executor().with_placement(Placement::Spawned)),
        ("levels", executor().with_order(Order::Levels)),
    ];
    for (name, executor) in ours {
        let report = runtime.block_on(executor.run(&plan).into_future()).unwrap();
        assert!(report.is_success() && report.count(StepState::Succeeded) == needs.len());
        assert!(report.steps.iter().all(|record| record.result == Some(json!(1))));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_with_large_drop(|| runtime.block_on(executor.run(&plan).into_future()).unwrap());
        });
    }
    let check = |results: Vec<Value>| {
        assert!(results.len() == needs.len() && results.iter().all(|value| *value == 1));
    };
    check(runtime.block_on(by_join_set(needs)));
    check(runtime.block_on(by_futures_unordered(needs)));
    check(runtime.block_on(by_levels(needs)));
    group.bench_function(BenchmarkId::from_parameter("hand_join_set"), |bencher| {
        bencher.iter_with_large_drop(|| runtime.block_on(by_join_set(needs)));
    });
    group.bench_function(BenchmarkId::from_parameter("hand_futures_unordered"), |bencher| {
        bencher.iter_with_large_drop(|| runtime.block_on(by_futures_unordered(needs)));
    });
    group.bench_function(BenchmarkId::from_parameter("hand_levels"), |bencher| {
        bencher.iter_with_large_drop(|| runtime.block_on(by_levels(needs)));
    });
    group.finish();
}

fn checking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("executor/check/mesh");
    group.throughput(Throughput::Elements(STEPS as u64));
    let [_, _, (_, needs)] = shapes(STEPS);
    let steps: Vec<Step> = plan(&needs).steps().cloned().collect();
    let json = serde_json::to_string(&steps).unwrap();
    group.bench_function("plan_new", |bencher| {
        bencher.iter_batched(
            || steps.clone(),
            |steps| Plan::new(steps).unwrap(),
            criterion::BatchSize::LargeInput,
        );
    });
    group.bench_function("plan_from_json", |bencher| {
        bencher.iter_with_large_drop(|| Plan::from_json(black_box(&json)).unwrap());
    });
    group.bench_function("serde_json_value", |bencher| {
        bencher.iter_with_large_drop(|| serde_json::from_str::<Value>(black_box(&json)).unwrap());
    });
    group.finish();
}

fn calls(criterion: &mut Criterion) {
    let runtime = runtime();
    for (kind, yields) in [("ready", false), ("yielding", true)] {
        let mut group = criterion.benchmark_group(format!("executor/parallel/{kind}"));
        group.throughput(Throughput::Elements(STEPS as u64));
        let call = move |n: usize| async move {
            if yields {
                tokio::task::yield_now().await;
            }
            Ok::<usize, String>(black_box(n))
        };
        let expected: Vec<usize> = (0..STEPS).collect();
        let ours = || async {
            parallel((0..STEPS).map(call))
                .with_max_parallel(PARALLEL)
                .await
                .into_values()
                .unwrap()
        };
        let ours_spawned = || async {
            let calls = (0..STEPS).map(|n| spawned(call(n)));
            parallel(calls)
                .with_max_parallel(PARALLEL)
                .await
                .into_values()
                .unwrap()
        };
        let buffered = || async {
            let mut results = vec![None; STEPS];
            let mut stream = iter(0..STEPS)
                .map(|n| async move { (n, call(n).await) })
                .buffer_unordered(PARALLEL);
            while let Some((n, result)) = stream.next().await {
                results[n] = Some(result.unwrap());
            }
            results.into_iter().collect::<Option<Vec<_>>>().unwrap()
        };
        let join_set = || async {
            let mut results = vec![None; STEPS];
            let mut set = JoinSet::new();
            let mut next = 0;
            loop {
                while set.len() < PARALLEL && next < STEPS {
                    let n = next;
                    set.spawn(async move { (n, call(n).await) });
                    next += 1;
                }
                let Some(end) = set.join_next().await else { break };
                let (n, result) = end.unwrap();
                results[n] = Some(result.unwrap());
            }
            results.into_iter().collect::<Option<Vec<_>>>().unwrap()
        };
        assert_eq!(runtime.block_on(ours()), expected);
        assert_eq!(runtime.block_on(ours_spawned()), expected);
        assert_eq!(runtime.block_on(buffered()), expected);
        assert_eq!(runtime.block_on(join_set()), expected);
        group.bench_function("in_place", |bencher| bencher.iter(|| runtime.block_on(ours())));
        group.bench_function("buffer_unordered", |bencher| {
            bencher.iter(|| runtime.block_on(buffered()))
        });
        group.bench_function("spawned", |bencher| {
            bencher.iter(|| runtime.block_on(ours_spawned()))
        });
        group.bench_function("hand_join_set", |bencher| {
            bencher.iter(|| runtime.block_on(join_set()))
        });
        group.finish();
    }
}

fn quick() -> Criterion {
    let second = std::time::Duration::from_secs(1);
    Criterion::default()
        .sample_size(20)
        .warm_up_time(second)
        .measurement_time(2 * second)
}

criterion_group! {
    name = benches;
    config = quick();
    targets = plans, checking, calls
}
criterion_main!(benches);
