//! How good the schedules are: against what no schedule can beat, and against level by level.

use std::time::Duration;

use peregrine_executor::{Executor, Order, Plan, Simulated, Step, VirtualTimer, builtin};
use serde_json::json;

struct Dag {
    plan: Plan,
    durations: Vec<Duration>,
}

/// 50 to 300 steps with durations of 1 to 100 ms, each behind up to four of those shortly before it: from a chain to a
/// wide mesh.
fn random(seed: u64) -> Dag {
    let mut random = fastrand::Rng::with_seed(seed);
    let count = random.usize(50..=300);
    let reach = random.usize(1..=count);
    let likely = random.f64();
    let mut durations = Vec::new();
    let steps: Vec<Step> = (0..count)
        .map(|n| {
            let duration = Duration::from_millis(random.u64(1..=100));
            durations.push(duration);
            let mut step = Step::new(format!("s{n}"), "echo").with_estimate(duration);
            for _ in 0..4 {
                if n > 0 && random.f64() < likely {
                    step = step.after(format!("s{}", random.usize(n.saturating_sub(reach)..n)));
                }
            }
            step
        })
        .collect();
    Dag {
        plan: Plan::new(steps).unwrap(),
        durations,
    }
}

fn simulate(dag: &Dag, order: Order, places: usize) -> peregrine_executor::Report {
    let executor = Executor::new(builtin::actions(), VirtualTimer::new());
    let executor = executor.with_order(order).with_max_parallel(places);
    let of = |id: &str| dag.durations[id[1..].parse::<usize>().unwrap()];
    let report = executor
        .simulate(&dag.plan, |call| Simulated::ok(of(call.id), json!(null)))
        .unwrap();
    assert!(report.is_success());
    report
}

#[test]
fn schedules_are_close_to_what_is_possible_and_beat_levels() {
    let (mut ratios, mut strict) = (Vec::new(), Vec::new());
    let mut against_levels = Vec::new();
    for seed in 0..1000 {
        let dag = random(seed);
        let places = 1 + usize::try_from(seed % 16).unwrap();
        let dataflow = simulate(&dag, Order::Dataflow, places);
        let levels = simulate(&dag, Order::Levels, places);
        let work: Duration = dag.durations.iter().sum();
        assert_eq!((dataflow.work, levels.work), (work, work));
        assert!(dataflow.peak_parallel <= places);
        // Independently of what the report says about itself.
        let longest = longest_chain(&dag);
        assert_eq!(dataflow.critical_path, longest);
        let bound = longest.max(work / u32::try_from(places).unwrap());
        assert_eq!(dataflow.lower_bound(), bound);
        assert!(dataflow.makespan >= bound);
        // Graham's bound, which holds for whatever leaves no place free that something could use.
        assert!(dataflow.makespan <= work / u32::try_from(places).unwrap() + longest);
        let ratio = dataflow.makespan.as_secs_f64() / bound.as_secs_f64();
        ratios.push(ratio);
        // Where no schedule reaches that bound, one that is harder to compute says how near this one is.
        strict.push(if ratio > 1.05 {
            dataflow.makespan.as_secs_f64() / fernandez(&dag, places)
        } else {
            ratio
        });
        against_levels.push(levels.makespan.as_secs_f64() / dataflow.makespan.as_secs_f64());
        if places == 1 {
            assert_eq!(dataflow.makespan, work);
        }
    }
    for list in [&mut ratios, &mut strict, &mut against_levels] {
        list.sort_by(f64::total_cmp);
    }
    let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
    for (bound, list) in [
        ("critical path or work over places", &ratios),
        ("Fernandez where that is out of reach", &strict),
    ] {
        println!(
            "makespan over the bound ({bound}): mean {:.4}, median {:.4}, p95 {:.4}, p99 {:.4}, worst {:.4}; {} of 1000 within 1.05",
            mean(list),
            list[500],
            list[950],
            list[990],
            list[999],
            list.iter().filter(|ratio| **ratio <= 1.05).count(),
        );
    }
    println!(
        "level by level over dataflow: mean {:.3}, median {:.3}, p95 {:.3}, worst {:.3}",
        mean(&against_levels),
        against_levels[500],
        against_levels[950],
        against_levels[999],
    );
    assert!(mean(&ratios) <= 1.05 && ratios[500] <= 1.01, "{}", mean(&ratios));
    let near = strict.iter().filter(|ratio| **ratio <= 1.05).count();
    assert!(
        mean(&strict) <= 1.01 && near >= 990 && strict[999] <= 1.15,
        "{near}, {}",
        strict[999]
    );
    assert!(mean(&against_levels) > 1.2);
}

fn longest_chain(dag: &Dag) -> Duration {
    let place = |id: &str| id[1..].parse::<usize>().unwrap();
    let mut until = vec![Duration::ZERO; dag.durations.len()];
    for id in dag.plan.order() {
        let before = dag.plan.dependencies(id).map(|needed| until[place(needed)]).max();
        until[place(id)] = before.unwrap_or_default() + dag.durations[place(id)];
    }
    until.into_iter().max().unwrap()
}

/// The lower bound of Fernandez and Bussell (Bounds on the number of processors and time for multiprocessor optimal
/// schedules, 1973), in seconds: within a span of time, what of the steps must lie in it if the critical path is not to
/// become longer, and how much longer it becomes because that does not fit into the places. Any choice of spans gives a
/// bound; here those between 64 points.
fn fernandez(dag: &Dag, places: usize) -> f64 {
    let place = |id: &str| id[1..].parse::<usize>().unwrap();
    let takes: Vec<f64> = dag.durations.iter().map(Duration::as_secs_f64).collect();
    let order: Vec<usize> = dag.plan.order().map(place).collect();
    let needs = |step: usize| {
        dag.plan
            .dependencies(&format!("s{step}"))
            .map(place)
            .collect::<Vec<_>>()
    };
    let (mut head, mut tail) = (vec![0.0_f64; takes.len()], vec![0.0_f64; takes.len()]);
    for &step in &order {
        for needed in needs(step) {
            head[step] = head[step].max(head[needed] + takes[needed]);
        }
    }
    for &step in order.iter().rev() {
        for needed in needs(step) {
            tail[needed] = tail[needed].max(tail[step] + takes[step]);
        }
    }
    let critical = (0..takes.len())
        .map(|step| head[step] + takes[step] + tail[step])
        .fold(0.0, f64::max);
    let ends = |step: usize| [head[step], critical - tail[step]];
    let mut points: Vec<f64> = (0..takes.len()).flat_map(ends).collect();
    points.sort_by(f64::total_cmp);
    let points: Vec<f64> = (0..64).map(|n| points[n * (points.len() - 1) / 63]).collect();
    let mut more = 0.0_f64;
    for (index, &from) in points.iter().enumerate() {
        for &to in &points[index + 1..] {
            let within = |start: f64, step: usize| (to.min(start + takes[step]) - from.max(start)).max(0.0);
            let least =
                |step| within(head[step], step).min(within(critical - tail[step] - takes[step], step));
            let work: f64 = (0..takes.len()).map(least).sum();
            more = more.max(work / places as f64 - (to - from));
        }
    }
    critical + more
}
