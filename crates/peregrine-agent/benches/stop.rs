//! A hundred nested agents, each with an open stream and child processes: how long after an immediate interrupt they are
//! gone. It asserts that nothing is left; `tests/it/hundred.rs` is the scenario.
//!
//! `cargo bench -p peregrine-agent --bench stop`

#![allow(clippy::unwrap_used, reason = "a benchmark that goes wrong ends")]

#[cfg(target_os = "linux")]
#[path = "../tests/it/hundred.rs"]
mod hundred;

use criterion::{Criterion, criterion_group, criterion_main};

#[cfg(target_os = "linux")]
fn stop(criterion: &mut Criterion) {
    use std::time::Duration;

    use hundred::{Gone, stop_all};
    use peregrine_interrupts::Mode;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let stopped = || -> Gone {
        runtime.block_on(stop_all(4, 25, |scope| {
            scope.interrupt(Mode::Immediate);
            Mode::Immediate
        }))
    };
    // What is made once for the process is there from then on.
    stopped();
    let mut group = criterion.benchmark_group("agent/stop_100");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_secs(1));
    for name in ["told", "runs", "streams", "processes"] {
        let took = |gone: Gone| match name {
            "told" => gone.told,
            "runs" => gone.runs,
            "streams" => gone.streams,
            _ => gone.processes,
        };
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| took(stopped())).sum());
        });
    }
    group.finish();
}

#[cfg(not(target_os = "linux"))]
fn stop(_: &mut Criterion) {}

criterion_group!(benches, stop);
criterion_main!(benches);
