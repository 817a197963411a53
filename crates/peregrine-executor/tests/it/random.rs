//! A thousand random plans with failures, panics, time-outs, retries, checks, resources, aborts and cancels: each step
//! ends with a cause, nothing hangs, and what comes out is what a plain interpreter makes of the same plan, one step
//! after the other.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::Either;
use peregrine_executor::{
    ActionError, ActionInfo, Actions, Cause, Effect, Executor, Order, Outcome, Placement, Plan, PlanError,
    Report, Snapshot, Step, StepState, Timer, TokioTimer, VirtualTimer,
};
use serde_json::{Value, json};

use crate::support::{finish, ms};

/// What a step of a random plan does.
#[derive(Debug, Clone)]
struct Node {
    id: String,
    effect: bool,
    behaviour: Behaviour,
    /// In milliseconds.
    takes: u64,
    value: u64,
    retries: u32,
    on_failure: &'static str,
    by_reference: Vec<usize>,
    by_name: Vec<usize>,
    /// Policy, and what the check does.
    checks: Vec<(&'static str, &'static str)>,
    resource: Option<(usize, bool)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Behaviour {
    Succeeds,
    Fails,
    Panics,
    TimesOut,
    /// This many attempts fail.
    Flaky(u32),
    /// Asks for a field that is not there.
    Dangles,
}

#[derive(Debug, Clone)]
struct Dag {
    /// In the order of the plan, which is not that of the dependencies.
    nodes: Vec<Node>,
    /// Places in an order of the dependencies.
    order: Vec<usize>,
    aborts: bool,
    cancel_at: Option<u64>,
}

fn random(seed: u64) -> Dag {
    let mut random = fastrand::Rng::with_seed(seed);
    let count = random.usize(1..40);
    let trouble = random.f64() * 0.5;
    let mut order: Vec<usize> = (0..count).collect();
    random.shuffle(&mut order);
    let aborts = random.u8(0..8) == 0;
    let mut nodes: Vec<Option<Node>> = vec![None; count];
    for (position, &place) in order.iter().enumerate() {
        let mut some_before = |most: usize| -> Vec<usize> {
            let wanted = random.usize(0..=most).min(position);
            (0..wanted).map(|_| order[random.usize(0..position)]).collect()
        };
        let (mut by_reference, by_name) = (some_before(3), some_before(2));
        by_reference.sort_unstable();
        by_reference.dedup();
        let behaviour = if random.f64() >= trouble {
            Behaviour::Succeeds
        } else {
            match random.u8(0..6) {
                0 => Behaviour::Fails,
                1 => Behaviour::Panics,
                2 => Behaviour::TimesOut,
                3 if !by_reference.is_empty() => Behaviour::Dangles,
                _ => Behaviour::Flaky(random.u32(1..4)),
            }
        };
        let checks = (0..random.usize(0..6).saturating_sub(3))
            .map(|_| {
                let policy = ["advisory", "gate", "gate_effects"][random.usize(0..3)];
                let verdict = if random.f64() < trouble {
                    ["no", "fails", "panics", "hangs"][random.usize(0..4)]
                } else {
                    "yes"
                };
                (policy, verdict)
            })
            .collect();
        nodes[place] = Some(Node {
            id: format!("n{place}"),
            effect: random.bool(),
            behaviour,
            takes: random.u64(0..30),
            value: random.u64(0..1000),
            retries: random.u32(0..3),
            on_failure: match random.u8(0..10) {
                0 => "optional",
                1 => "continue",
                2 => "fallback",
                3 if aborts => "abort",
                _ => "fail",
            },
            by_reference,
            by_name,
            checks,
            resource: (random.u8(0..4) == 0).then(|| (random.usize(0..2), random.bool())),
        });
    }
    Dag {
        nodes: nodes.into_iter().flatten().collect(),
        order,
        aborts,
        cancel_at: (random.u8(0..5) == 0).then(|| random.u64(0..120)),
    }
}

const TIMEOUT_MS: u64 = 40;

impl Dag {
    fn step(&self, place: usize) -> Step {
        let node = &self.nodes[place];
        let mut inputs = serde_json::Map::new();
        for &needed in &node.by_reference {
            let id = &self.nodes[needed].id;
            inputs.insert(id.clone(), json!(format!("${id}")));
        }
        let mut parameters = json!({
            "behaviour": format!("{:?}", node.behaviour), "takes": node.takes, "value": node.value, "inputs": inputs,
        });
        if node.behaviour == Behaviour::Dangles {
            parameters["dangling"] = json!(format!(
                "a ${}.there.is.none",
                self.nodes[node.by_reference[0]].id
            ));
        }
        let checks = node.checks.iter().map(|(policy, verdict)| {
            json!({"action": "verify", "policy": policy, "timeout": 20, "parameters": {"verdict": verdict, "of": format!("${}", node.id)}})
        });
        let on_failure = match node.on_failure {
            "fallback" => json!({"fallback": {"sum": 5}}),
            other => json!(other),
        };
        let resources = node.resource.map(|(which, writes)| {
            let key = if writes { "write" } else { "read" };
            json!({key: [format!("r{which}")]})
        });
        let step = json!({
            "id": node.id, "action": if node.effect { "put" } else { "get" }, "parameters": parameters,
            "depends_on": node.by_name.iter().map(|&needed| self.nodes[needed].id.clone()).collect::<Vec<_>>(),
            "timeout": TIMEOUT_MS, "retries": {"max": node.retries, "wait": 3}, "on_failure": on_failure,
            "checks": checks.collect::<Vec<_>>(), "resources": resources,
        });
        serde_json::from_value(step).unwrap()
    }

    fn plan(&self) -> Plan {
        Plan::new((0..self.nodes.len()).map(|place| self.step(place))).unwrap()
    }
}

fn actions() -> Actions {
    let call = async |call: peregrine_executor::StepCall| {
        let parameters = call.parameters().clone();
        let behaviour = parameters["behaviour"].as_str().unwrap();
        call.sleep(ms(parameters["takes"].as_u64().unwrap())).await;
        match behaviour {
            "Fails" => return Err(ActionError::new("it fails")),
            "Panics" => panic!("it panics"),
            "TimesOut" => call.sleep(Duration::from_secs(3600)).await,
            flaky if flaky.starts_with("Flaky") => {
                let failures: u32 = flaky[6..flaky.len() - 1].parse().unwrap();
                if call.attempt() <= failures {
                    return Err(ActionError::new("it is flaky"));
                }
            }
            _ => {}
        }
        let inputs = parameters["inputs"].as_object().unwrap().values();
        let sum: u64 = inputs.map(|input| input["sum"].as_u64().unwrap_or(1)).sum();
        Ok(json!({"sum": (sum * 31 + parameters["value"].as_u64().unwrap()) % 1_000_003}))
    };
    let verify = async |call: peregrine_executor::StepCall| {
        call.sleep(ms(5)).await;
        match call.parameters()["verdict"].as_str().unwrap() {
            "yes" => Ok(json!(true)),
            "no" => Ok(json!({"passed": false, "reason": "no"})),
            "fails" => Err(ActionError::new("the checker fails")),
            "panics" => panic!("the checker panics"),
            _ => {
                call.sleep(Duration::from_secs(3600)).await;
                Ok(json!(true))
            }
        }
    };
    Actions::new()
        .with_fn("get", ActionInfo::new(Effect::ReadOnly), call)
        .with_fn("put", ActionInfo::new(Effect::Idempotent), call)
        .with_fn(
            "verify",
            ActionInfo::new(Effect::ReadOnly).with_model_call(),
            verify,
        )
}

/// What is to come out: state, result, and the kind and root of the cause.
type Expected = (StepState, Option<Value>, Option<(&'static str, Option<String>)>);

/// Interprets the plan, one step after the other. Shares nothing with the executor.
fn interpret(dag: &Dag) -> (BTreeMap<String, Expected>, bool) {
    let mut ends: BTreeMap<usize, Expected> = BTreeMap::new();
    // By place: the gates of effects that dependants with effects need, as (place, check).
    let mut handed: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    let mut success = true;
    let value_of =
        |ends: &BTreeMap<usize, Expected>, place: usize| match (&ends[&place].1, dag.nodes[place].on_failure)
        {
            (Some(value), _) => Some(value.clone()),
            (None, "continue") => Some(json!(null)),
            (None, "fallback") => Some(json!({"sum": 5})),
            (None, _) => None,
        };
    for &place in &dag.order {
        let node = &dag.nodes[place];
        let needed: Vec<usize> = node.by_reference.iter().chain(&node.by_name).copied().collect();
        let failed_check = |&(of, which): &(usize, usize)| {
            ends[&of].0 == StepState::Succeeded && dag.nodes[of].checks[which].1 != "yes"
        };
        // The first in the plan is to blame, a step before its checks.
        let mut blame: Option<(usize, usize)> = None;
        let mut blames = |who: (usize, usize)| blame = Some(blame.map_or(who, |known| known.min(who)));
        let mut effects = Vec::new();
        for &of in &needed {
            if value_of(&ends, of).is_none() {
                blames((of, 0));
            }
            let own = |wanted: &'static str| {
                let checks = dag.nodes[of].checks.iter().enumerate();
                checks
                    .filter(move |(_, (policy, _))| *policy == wanted)
                    .map(move |(which, _)| (of, which))
            };
            own("gate")
                .filter(failed_check)
                .for_each(|(of, which)| blames((of, which + 1)));
            effects.extend(own("gate_effects"));
            if !dag.nodes[of].effect {
                effects.extend(handed[&of].iter().copied());
            }
        }
        if node.effect {
            effects
                .iter()
                .filter(|gate| failed_check(gate))
                .for_each(|&(of, which)| blames((of, which + 1)));
        }
        handed.insert(place, if node.effect { Vec::new() } else { effects });
        let end = match blame {
            Some((of, 0)) => {
                let root = match &ends[&of].2 {
                    Some(("dependency" | "check_failed", Some(root))) => root.clone(),
                    _ => dag.nodes[of].id.clone(),
                };
                (StepState::Skipped, None, Some(("dependency", Some(root))))
            }
            Some((of, _)) => (
                StepState::Skipped,
                None,
                Some(("check_failed", Some(dag.nodes[of].id.clone()))),
            ),
            None => {
                let failed = |kind| (StepState::Failed, None, Some((kind, None)));
                match node.behaviour {
                    Behaviour::Dangles => failed("reference"),
                    Behaviour::Fails => failed("error"),
                    Behaviour::Panics => failed("panic"),
                    Behaviour::TimesOut => failed("timeout"),
                    Behaviour::Flaky(failures) if failures > node.retries => failed("error"),
                    Behaviour::Succeeds | Behaviour::Flaky(_) => {
                        let inputs = node
                            .by_reference
                            .iter()
                            .map(|&of| value_of(&ends, of).unwrap()["sum"].as_u64().unwrap_or(1));
                        let sum = inputs.sum::<u64>() * 31 + node.value;
                        (StepState::Succeeded, Some(json!({"sum": sum % 1_000_003})), None)
                    }
                }
            }
        };
        let gates_hold = node
            .checks
            .iter()
            .all(|(policy, verdict)| *policy == "advisory" || *verdict == "yes");
        let required = matches!(node.on_failure, "fail" | "abort");
        success &= !required || (end.0 == StepState::Succeeded && gates_hold);
        ends.insert(place, end);
    }
    let named = ends
        .into_iter()
        .map(|(place, end)| (dag.nodes[place].id.clone(), end));
    (named.collect(), success)
}

/// Compares; what was cut short may be cancelled, and is otherwise as if it had not been.
fn compare(dag: &Dag, report: &Report, context: &str) -> usize {
    let (expected, success) = interpret(dag);
    assert_eq!(report.steps.len(), dag.nodes.len(), "{context}");
    let may_be_cut = dag.aborts || dag.cancel_at.is_some();
    let mut cut = 0;
    for record in &report.steps {
        assert!(record.state.is_terminal(), "{context}: {record:?}");
        assert_eq!(
            record.cause.is_none(),
            record.state == StepState::Succeeded,
            "{context}: {record:?}"
        );
        for check in &record.checks {
            assert!(check.state.is_terminal(), "{context}: {record:?}");
            assert_eq!(
                check.cause.is_some(),
                matches!(check.state, StepState::Failed | StepState::Cancelled)
            );
        }
        if record.state == StepState::Cancelled {
            assert!(
                may_be_cut && matches!(record.cause, Some(Cause::Cancelled | Cause::Aborted { .. })),
                "{context}"
            );
            cut += 1;
            continue;
        }
        let cause = record
            .cause
            .as_ref()
            .map(|cause| (cause.kind(), cause.root().map(str::to_owned)));
        let found = (record.state, record.result.clone(), cause);
        assert_eq!(found, expected[&*record.id], "{context}: {}", record.id);
    }
    let cut_checks = report
        .steps
        .iter()
        .flat_map(|record| &record.checks)
        .any(|check| check.state == StepState::Cancelled);
    if cut == 0 && !cut_checks {
        let outcome = if success {
            Outcome::Succeeded
        } else {
            Outcome::Failed
        };
        assert_eq!(report.outcome, outcome, "{context}");
    } else {
        assert_ne!(report.outcome, Outcome::Succeeded, "{context}");
    }
    cut
}

fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload_as_str().unwrap_or_default();
            if text != "it panics" && text != "the checker panics" {
                usual(panic);
            }
        }));
    });
}

#[test]
fn a_thousand_random_plans_end_as_a_plain_interpreter_says() {
    quiet_panics();
    let mut seen = BTreeMap::<String, usize>::new();
    for seed in 0..1000 {
        let dag = random(seed);
        let timer = VirtualTimer::new();
        let order = [Order::Dataflow, Order::Dataflow, Order::Levels, Order::Sequential]
            [usize::try_from(seed % 4).unwrap()];
        let executor = Executor::new(actions(), timer.clone())
            .with_max_parallel(1 + usize::try_from(seed % 16).unwrap())
            .with_order(order);
        let plan = dag.plan();
        let run = match dag.cancel_at {
            Some(at) => executor.run(&plan).until(timer.sleep_until(ms(at))),
            None => executor.run(&plan),
        };
        let report = finish(run.into_future()).unwrap();
        compare(&dag, &report, &format!("seed {seed}"));
        for record in &report.steps {
            *seen
                .entry(record.cause.as_ref().map_or("none", Cause::kind).to_owned())
                .or_default() += 1;
        }
        // A plan that comes step by step ends in the same way.
        let steps: Vec<_> = dag
            .order
            .iter()
            .map(|&place| Ok::<_, PlanError>(dag.step(place)))
            .collect();
        if dag.cancel_at.is_none() && !dag.aborts {
            let streamed = finish(
                executor
                    .run_stream(futures_util::stream::iter(steps))
                    .into_future(),
            )
            .unwrap();
            // The order of the plan is another one, and with it who is to blame of several.
            let (expected, _) = interpret(&dag);
            for record in &streamed.steps {
                let (state, result, _) = &expected[&*record.id];
                assert_eq!(
                    (record.state, &record.result),
                    (*state, result),
                    "seed {seed}, streamed: {}",
                    record.id
                );
            }
            assert_eq!(streamed.outcome, report.outcome);
        }
    }
    // All of it has really occurred.
    for kind in [
        "none",
        "error",
        "panic",
        "timeout",
        "reference",
        "dependency",
        "check_failed",
        "cancelled",
        "aborted",
    ] {
        assert!(
            seen.get(kind).is_some_and(|count| *count > 30),
            "{kind}: {seen:?}"
        );
    }
}

/// Interrupted at any time, told or not, and resumed as often as it takes: in the end it is as if nothing had been.
#[test]
fn random_plans_that_are_resumed_end_as_if_they_had_not_been_interrupted() {
    quiet_panics();
    let mut interruptions = 0;
    for seed in 2000..2300 {
        let mut dag = random(seed);
        if dag.aborts {
            continue;
        }
        dag.cancel_at = None;
        for node in &mut dag.nodes {
            // A new run has its retries anew: what fails for good has to do so however often it is tried.
            if matches!(node.behaviour, Behaviour::Flaky(failures) if failures > node.retries) {
                node.behaviour = Behaviour::Fails;
            }
        }
        let plan = dag.plan();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut snapshot = Snapshot::default();
        let report = loop {
            let timer = VirtualTimer::new();
            let executor = Executor::new(actions(), timer.clone()).with_max_parallel(random.usize(1..8));
            let known = snapshot.clone();
            let run = executor
                .run(&plan)
                .resumed_from(&known)
                .observed_by(&mut snapshot);
            let end = timer.sleep_until(ms(random.u64(1..150)));
            if random.bool() {
                let report = finish(run.until(end).into_future()).unwrap();
                if report.outcome != Outcome::Cancelled {
                    break report;
                }
            } else {
                // As a crash does it.
                let either = futures_util::future::select(run.into_future(), end);
                if let Either::Left((report, _)) = finish(either) {
                    break report.unwrap();
                }
            }
            interruptions += 1;
            let text = serde_json::to_string(&snapshot).unwrap();
            snapshot = serde_json::from_str(&text).unwrap();
        };
        assert_eq!(compare(&dag, &report, &format!("seed {seed}")), 0);
    }
    assert!(interruptions > 200, "{interruptions}");
}

#[test]
fn random_plans_on_real_threads_in_real_time() {
    quiet_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    for seed in 5000..5040 {
        let dag = random(seed);
        let timer = TokioTimer::new();
        let executor = Executor::new(actions(), timer)
            .with_max_parallel(1 + usize::try_from(seed % 16).unwrap())
            .with_placement(if seed % 4 == 0 {
                Placement::InPlace
            } else {
                Placement::Spawned
            });
        let plan = dag.plan();
        let report = runtime.block_on(async {
            match dag.cancel_at {
                Some(at) => {
                    executor
                        .run(&plan)
                        .until(timer.sleep_until(timer.now() + ms(at)))
                        .await
                }
                None => executor.run(&plan).await,
            }
        });
        compare(&dag, &report.unwrap(), &format!("seed {seed}"));
    }
}
