//! The machine: what begins follows from what has ended, and one that is made anew goes on in the same way.

use std::collections::BTreeMap;
use std::time::Duration;

use peregrine_executor::{
    ActionInfo, Actions, Begun, Cause, Effect, Executor, Known, Outcome, Plan, PlanMachine, Simulated, Step,
    StepState, VirtualTimer, builtin,
};
use serde_json::{Value, json};

const NOW: Duration = Duration::ZERO;

fn executor() -> Executor {
    let actions = Actions::new()
        .with_fn("do", ActionInfo::new(Effect::ReadOnly), async |_| Ok(Value::Null))
        .with_fn(
            "ask",
            ActionInfo::new(Effect::ReadOnly).with_model_call(),
            async |_| Ok(Value::Null),
        );
    Executor::new(actions, VirtualTimer::new())
        .with_max_parallel(3)
        .with_max_model_calls(2)
}

/// Steps that refer to steps before them in an order that is not that of the plan; some write a resource.
fn random_plan(random: &mut fastrand::Rng) -> Plan {
    let count = random.usize(1..30);
    let mut order: Vec<usize> = (0..count).collect();
    random.shuffle(&mut order);
    let mut steps: Vec<Option<Step>> = vec![None; count];
    for (position, &place) in order.iter().enumerate() {
        let mut step = Step::new(format!("n{place}"), if random.bool() { "do" } else { "ask" });
        let before: Vec<String> = (0..random.usize(0..3).min(position))
            .map(|_| format!("$n{}.value", order[random.usize(0..position)]))
            .collect();
        step = step.with_parameters(json!({"of": before}));
        if random.u8(0..5) == 0 {
            step = step.writing("world");
        }
        if random.u8(0..5) == 0 {
            step.on_failure = peregrine_executor::OnFailure::Fallback(json!({"value": null}));
        }
        steps[place] = Some(step);
    }
    Plan::new(steps.into_iter().flatten()).unwrap()
}

/// How the step at this place ends: with a value, with one that lacks the field that others ask for, or not well.
fn end_of(place: usize, salt: u64) -> Result<Value, Cause> {
    match (place as u64 * 7 + salt) % 9 {
        0 => Err(serde_json::from_value(json!({"kind": "error", "message": "no"})).unwrap()),
        1 => Ok(json!({"other": 1})),
        _ => Ok(json!({"value": place})),
    }
}

fn begin_all(machine: &mut PlanMachine) -> Vec<Begun> {
    std::iter::from_fn(|| machine.next(NOW)).collect()
}

fn states(machine: &PlanMachine) -> Vec<(StepState, Option<Cause>)> {
    machine
        .records()
        .iter()
        .map(|record| (record.state, record.cause.clone()))
        .collect()
}

#[test]
fn a_machine_that_is_made_anew_at_any_moment_goes_on_in_the_same_way() {
    let executor = executor();
    let mut failed = 0;
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let plan = random_plan(&mut random);
        let mut machine = executor.machine(&plan, []).unwrap();
        let (mut known, mut running): (BTreeMap<usize, Known>, Vec<usize>) = Default::default();
        let mut anew = executor.machine(&plan, []).unwrap();
        loop {
            let begun = begin_all(&mut machine);
            assert_eq!(begin_all(&mut anew), begun, "seed {seed}");
            running.extend(begun.iter().map(|begun| begun.place));
            known.extend(begun.iter().map(|begun| (begun.place, Known::Running)));
            for (place, record) in machine.records().iter().enumerate() {
                let cause = || record.cause.clone().unwrap();
                match record.state {
                    StepState::Failed => known.insert(place, Known::Failed(cause())),
                    StepState::Skipped => known.insert(place, Known::Skipped(cause())),
                    _ => None,
                };
            }
            assert!(running.len() <= 3);
            if running.is_empty() {
                break;
            }
            for _ in 0..random.usize(1..3).min(running.len()) {
                let place = running.swap_remove(random.usize(0..running.len()));
                let end = end_of(place, seed);
                known.insert(
                    place,
                    match end.clone() {
                        Ok(value) => Known::Succeeded(value),
                        Err(cause) => Known::Failed(cause),
                    },
                );
                assert!(machine.ended(place, None, end, NOW));
            }
            anew = executor.machine(&plan, known.clone()).unwrap();
        }
        assert!(machine.is_done() && anew.is_done(), "seed {seed}");
        assert_eq!(states(&machine), states(&anew), "seed {seed}");

        // And it is what a run makes of the same ends.
        let simulated = executor.simulate(&plan, |call| {
            let place: usize = call.id[1..].parse().unwrap();
            let duration = Duration::from_millis(1 + (place as u64 * 31 + seed) % 17);
            match end_of(place, seed) {
                Ok(value) => Simulated::ok(duration, value),
                Err(_) => Simulated::failed(duration, "no".into()),
            }
        });
        let simulated = simulated.unwrap();
        let of_run: Vec<_> = simulated.steps.iter().map(|record| record.state).collect();
        let of_machine: Vec<_> = machine.records().iter().map(|record| record.state).collect();
        assert_eq!(of_machine, of_run, "seed {seed}");
        let report = machine.into_report(NOW);
        assert_eq!(report.outcome, simulated.outcome, "seed {seed}");
        failed += usize::from(report.outcome == Outcome::Failed);
    }
    assert!((50..390).contains(&failed), "{failed} of 400 fail");
}

#[test]
fn retries_wait_and_checks_are_begun_too() {
    let plan = Plan::from_json(
        r#"[{"id": "a", "action": "echo", "retries": {"max": 1, "wait": "2s"},
             "checks": [{"action": "check", "parameters": {"value": "$a"}, "policy": "gate"}]},
            {"id": "b", "action": "echo", "parameters": "$a"}]"#,
    )
    .unwrap();
    let executor = Executor::new(builtin::actions(), VirtualTimer::new());
    let mut machine = executor.machine(&plan, []).unwrap();
    assert_eq!(machine.next(NOW).unwrap().attempt, 1);
    let busy: Cause = serde_json::from_value(json!({"kind": "error", "message": "busy"})).unwrap();
    assert!(machine.ended(0, None, Err(busy), NOW));
    assert!(
        !machine.ended(0, None, Ok(json!(1)), NOW),
        "it does not run: it waits"
    );
    assert!(machine.next(NOW).is_none());
    let at = machine.wakes_at().unwrap();
    assert!(at > Duration::ZERO && at <= Duration::from_secs(2));
    assert_eq!(machine.next(at).unwrap().attempt, 2);
    assert!(machine.ended(0, None, Ok(json!(7)), at));
    let check = machine.next(at).unwrap();
    assert_eq!(
        (check.place, check.check, &check.parameters),
        (0, Some(0), &json!({"value": 7}))
    );
    assert!(machine.next(at).is_none(), "the gate holds the other one");
    assert!(!machine.ended(0, Some(1), Ok(json!(true)), at) && !machine.ended(9, None, Ok(json!(1)), at));
    assert!(machine.ended(0, Some(0), Ok(json!(true)), at));
    assert_eq!(machine.next(at).unwrap().parameters, json!(7));
    assert!(machine.ended(1, None, Ok(json!(7)), at) && machine.is_done());
    assert!(machine.into_report(at).is_success());
}

#[test]
fn what_is_known_of_places_that_are_not_there_or_not_ready_is_passed_over() {
    let plan = Plan::from_json(
        r#"[{"id": "a", "action": "echo"}, {"id": "b", "action": "echo", "parameters": "$a"}]"#,
    );
    let executor = Executor::new(builtin::actions(), VirtualTimer::new());
    let known = [
        (1, Known::Running),
        (9, Known::Running),
        (7, Known::Succeeded(json!(1))),
    ];
    let mut machine = executor.machine(&plan.unwrap(), known).unwrap();
    assert!(!machine.is_running(1) && !machine.is_running(9));
    assert_eq!(
        begin_all(&mut machine)
            .iter()
            .map(|begun| begun.place)
            .collect::<Vec<_>>(),
        [0]
    );
}
