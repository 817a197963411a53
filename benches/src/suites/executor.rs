//! Plans: what scheduling costs around steps that do nothing, beside a dataflow written by hand.

use std::future::Future;
use std::rc::Rc;

use futures_util::stream::{FuturesUnordered, StreamExt as _, iter};
use peregrine_executor::{
    ActionInfo, Actions, Effect, Executor, Plan, Report, Step, StepState, TokioTimer, parallel,
};
use serde_json::{Value, json};

use crate::bench::{Group, Work, each_async, floor, ours, runtime};

const STEPS: usize = 1_000;
const SLOTS: usize = 5;

pub(super) fn groups() -> Vec<Group> {
    vec![
        run(
            "mesh",
            "a plan of 1,000 steps, each behind three of the row before",
            mesh(),
        ),
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

/// A dataflow as one would write it: counters of what is missing, and a list of what is ready.
async fn by_hand(needs: Rc<[Vec<usize>]>) -> Vec<Value> {
    let mut behind = vec![Vec::new(); needs.len()];
    for (n, needs) in needs.iter().enumerate() {
        needs.iter().for_each(|&needed| behind[needed].push(n));
    }
    let mut missing: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut ready: Vec<usize> = (0..needs.len()).filter(|&n| needs[n].is_empty()).collect();
    let mut results = vec![Value::Null; needs.len()];
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < SLOTS
            && let Some(n) = ready.pop()
        {
            under_way.push(async move { (n, noop().await) });
        }
        let Some((n, result)) = under_way.next().await else {
            return results;
        };
        results[n] = result.unwrap();
        for &next in &behind[n] {
            missing[next] -= 1;
            if missing[next] == 0 {
                ready.push(next);
            }
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
