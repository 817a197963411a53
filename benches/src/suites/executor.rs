//! Plans: what scheduling costs around steps that do nothing, beside a dataflow written by hand.

use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _, iter};
use peregrine_executor::{
    ActionInfo, Actions, Effect, Executor, Order, Placement, Plan, Report, Simulated, Step, StepState,
    TokioTimer, VirtualTimer, parallel,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::bench::{Group, Work, each_async, floor, ours, rival, runtime};
use crate::words::Words;

const STEPS: usize = 1_000;
const SLOTS: usize = 5;

pub(super) fn groups() -> Vec<Group> {
    vec![
        run(
            "mesh",
            "a plan of 1,000 steps, each behind three of the row before",
            mesh(),
        ),
        spawned(),
        makespan(),
        run(
            "wide",
            "a plan of 1,000 steps that wait for nothing",
            vec![Vec::new(); STEPS],
        ),
        calls(),
    ]
}

/// Rows of 100, each step behind three of the row before.
fn mesh() -> Vec<Vec<usize>> {
    let needs = |n: usize| match n.checked_sub(100) {
        None => Vec::new(),
        Some(above) => {
            let row = above / 100 * 100;
            vec![above, row + (above + 1) % 100, row + (above + 37) % 100]
        }
    };
    (0..STEPS).map(needs).collect()
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

async fn noop() -> Result<Value, String> {
    Ok(json!(1))
}

fn run(shape: &str, workload: &str, needs: Vec<Vec<usize>>) -> Group {
    let needs: Rc<[Vec<usize>]> = needs.into();
    Group::new(
        format!("executor/run/{shape}_1000"),
        format!("{workload}, five at a time; time for all of them"),
        &[ours("peregrine").counted(), floor("futures_unordered").counted()],
        move || {
            let runtime = runtime();
            let plan = Rc::new(plan(&needs));
            let actions =
                Actions::new().with_fn("noop", ActionInfo::new(Effect::ReadOnly), async |_| Ok(json!(1)));
            let executor = Executor::new(actions, TokioTimer::new()).with_max_parallel(SLOTS);
            let needs = Rc::clone(&needs);
            vec![
                each_async(
                    &runtime,
                    move || {
                        let (executor, plan) = (executor.clone(), Rc::clone(&plan));
                        async move { executor.run(&plan).await.unwrap() }
                    },
                    |report: &Report| {
                        assert!(report.is_success() && report.count(StepState::Succeeded) == STEPS);
                    },
                ),
                each_async(
                    &runtime,
                    move || by_hand(Rc::clone(&needs)),
                    |results: &Vec<Value>| {
                        assert!(results.len() == STEPS && results.iter().all(|value| *value == 1))
                    },
                ),
            ]
        },
    )
    .with_counted_operations(3)
}

fn spawned() -> Group {
    let needs: Rc<[Vec<usize>]> = mesh().into();
    Group::new(
        "executor/spawned/mesh_1000",
        "a plan of 1,000 steps, each behind three of the row before and in a task of its own, five at a time; time for all of them",
        &[ours("peregrine"), floor("join_set")],
        move || {
            let runtime = runtime();
            let plan = Rc::new(plan(&needs));
            let actions =
                Actions::new().with_fn("noop", ActionInfo::new(Effect::ReadOnly), async |_| Ok(json!(1)));
            let executor = Executor::new(actions, TokioTimer::new())
                .with_max_parallel(SLOTS)
                .with_placement(Placement::Spawned);
            let needs = Rc::clone(&needs);
            vec![
                each_async(
                    &runtime,
                    move || {
                        let (executor, plan) = (executor.clone(), Rc::clone(&plan));
                        async move { executor.run(&plan).await.unwrap() }
                    },
                    |report: &Report| {
                        assert!(report.is_success() && report.count(StepState::Succeeded) == STEPS);
                    },
                ),
                each_async(
                    &runtime,
                    move || by_join_set(Rc::clone(&needs)),
                    |results: &Vec<Value>| {
                        assert!(results.len() == STEPS && results.iter().all(|value| *value == 1))
                    },
                ),
            ]
        },
    )
}

/// How long each step of a plan takes, by its number: 10 to 200 ms.
fn durations() -> Vec<Duration> {
    let mut words = Words::new();
    let draw = |_| Duration::from_millis(10 + words.below(190) as u64);
    (0..STEPS).map(draw).collect()
}

fn makespan() -> Group {
    const PLACES: usize = 16;
    let needs: Rc<[Vec<usize>]> = mesh().into();
    Group::new(
        "executor/makespan/mesh_1000",
        "a plan of 1,000 steps that take 10 to 200 ms, each behind three of the row before, in a time of its own, 16 at a time: \
         time for the simulation. The rival begins a row when the one before has ended",
        &[ours("peregrine"), rival("levels")],
        move || {
            let plan = Rc::new(plan(&needs));
            [Order::default(), Order::Levels]
                .into_iter()
                .map(|order| {
                    let actions =
                        Actions::new()
                            .with_fn("noop", ActionInfo::new(Effect::ReadOnly), async |_| Ok(json!(1)));
                    let executor = Executor::new(actions, VirtualTimer::new())
                        .with_max_parallel(PLACES)
                        .with_order(order);
                    simulate(executor, Rc::clone(&plan))
                })
                .collect()
        },
    )
}

fn simulate(executor: Executor, plan: Rc<Plan>) -> Work {
    let durations = durations();
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            let begun = Instant::now();
            let report = executor.simulate(&plan, |call| {
                let number: usize = call.id[1..].parse().unwrap_or(0);
                Simulated::ok(durations[number], json!(1))
            });
            meter.took(begun.elapsed(), 1);
            let report = report.unwrap();
            assert!(report.is_success() && report.count(StepState::Succeeded) == STEPS);
            let bound = report.lower_bound().as_secs_f64();
            assert!(bound > 0.0);
            meter.figure("makespan × its bound:", report.makespan.as_secs_f64() / bound);
        }
    })
}

/// What one would write by hand: counters of what is missing, and a list of what is ready.
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
        for &next in &self.behind[n] {
            self.missing[next] -= 1;
            if self.missing[next] == 0 {
                self.ready.push(next);
            }
        }
    }
}

async fn by_hand(needs: Rc<[Vec<usize>]>) -> Vec<Value> {
    let mut counters = Counters::new(&needs);
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < SLOTS
            && let Some(n) = counters.ready.pop()
        {
            under_way.push(async move { (n, noop().await) });
        }
        match under_way.next().await {
            Some((n, result)) => counters.ended(n, result.unwrap()),
            None => return counters.results,
        }
    }
}

async fn by_join_set(needs: Rc<[Vec<usize>]>) -> Vec<Value> {
    let mut counters = Counters::new(&needs);
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < SLOTS
            && let Some(n) = counters.ready.pop()
        {
            under_way.spawn(async move { (n, noop().await) });
        }
        match under_way.join_next().await {
            Some(ended) => {
                let (n, result) = ended.unwrap();
                counters.ended(n, result.unwrap());
            }
            None => return counters.results,
        }
    }
}

fn calls() -> Group {
    fn all<F: Future<Output = Vec<usize>> + 'static>(
        runtime: &Rc<tokio::runtime::Runtime>,
        make: impl FnMut() -> F + 'static,
    ) -> Work {
        each_async(runtime, make, |results| {
            assert!(results.len() == STEPS && results.iter().enumerate().all(|(n, result)| n == *result));
        })
    }
    Group::new(
        "executor/parallel/ready_1000",
        "1,000 calls that are ready at once, five at a time, their results in order; time for all of them",
        &[ours("peregrine").counted(), floor("buffer_unordered").counted()],
        || {
            let runtime = runtime();
            let call = |n: usize| async move { Ok::<usize, String>(n) };
            vec![
                all(&runtime, move || async move {
                    let calls = parallel((0..STEPS).map(call)).with_max_parallel(SLOTS);
                    calls.await.into_values().unwrap()
                }),
                all(&runtime, move || async move {
                    let mut results = vec![0; STEPS];
                    let mut stream = iter(0..STEPS)
                        .map(|n| async move { (n, call(n).await) })
                        .buffer_unordered(SLOTS);
                    while let Some((n, result)) = stream.next().await {
                        results[n] = result.unwrap();
                    }
                    results
                }),
            ]
        },
    )
    .with_counted_operations(10)
}
