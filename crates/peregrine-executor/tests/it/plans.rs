//! Plans: what is wrong with them, in which forms they come, how large they may be.

use std::time::Instant;

use peregrine_executor::{MAX_DEPTH, Plan, PlanError, Problem, Step};
use serde_json::{Value, json};

use crate::support::{executor, finish, plan};

fn wrong(steps: &Value) -> Vec<Problem> {
    Plan::from_json(&steps.to_string())
        .unwrap_err()
        .problems()
        .to_vec()
}

#[test]
fn ids_are_names_and_given_once() {
    let long = "x".repeat(129);
    for bad in ["", "a b", "a.b", "$a", "-a", "a-", "ä", "a/b", &long] {
        let problems = wrong(&json!([{"id": bad, "action": "x"}]));
        assert!(
            matches!(&problems[..], [Problem::InvalidId { place: 0, .. }]),
            "{bad}: {problems:?}"
        );
    }
    for good in ["a", "1", "_", "a-b", "A_9-x--y", &long[..128]] {
        plan(&json!([{"id": good, "action": "x"}]));
    }
    let twice = json!([{"id": "a", "action": "x"}, {"id": "b", "action": "x"}, {"id": "a", "action": "x"}]);
    let expected = Problem::DuplicateId {
        id: "a".to_owned(),
        first: 0,
        second: 2,
    };
    assert_eq!(wrong(&twice), [expected]);
}

#[test]
fn cycles_are_named() {
    let step = |id: &str, needs: &[&str]| json!({"id": id, "action": "x", "depends_on": needs});
    for (steps, expected) in [
        (json!([step("a", &["a"])]), "a -> a"),
        (json!([step("a", &["b"]), step("b", &["a"])]), "a -> b -> a"),
        (
            json!([
                step("x", &[]),
                step("in", &["x", "b"]),
                step("a", &["c"]),
                step("b", &["a"]),
                step("c", &["b"])
            ]),
            "b -> a -> c -> b",
        ),
    ] {
        let message = Plan::from_json(&steps.to_string()).unwrap_err().to_string();
        assert_eq!(
            message,
            format!("the plan cannot run: these steps wait for each other: {expected}")
        );
    }
    // By reference, and through a gate: `b` waits for the check of `a`, which refers to `b`.
    let by_reference = json!([{"id": "a", "action": "x", "parameters": "$b.x"}, {"id": "b", "action": "x", "parameters": ["$a"]}]);
    assert_eq!(
        wrong(&by_reference),
        [Problem::Cycle(vec!["a".to_owned(), "b".to_owned()])]
    );
    let gated = |policy: &str| {
        json!([
            {"id": "a", "action": "x", "checks": [{"action": "x", "parameters": "$b", "policy": policy}]},
            {"id": "b", "action": "x", "depends_on": ["a"]},
        ])
    };
    assert_eq!(wrong(&gated("gate")), [Problem::Cycle(vec!["b".to_owned()])]);
    plan(&gated("advisory"));
    // A long one is told by its beginning.
    let long: Vec<Step> = (0..1000)
        .map(|n| Step::new(format!("s{n}"), "x").after(format!("s{}", (n + 1) % 1000)))
        .collect();
    let message = Plan::new(long).unwrap_err().to_string();
    assert!(
        message.contains("s0 -> s1 -> ") && message.contains("(and 968 more) -> s0"),
        "{message}"
    );
}

#[test]
fn everything_wrong_is_told_at_once_up_to_a_bound() {
    let steps: Vec<Value> = (0..1000)
        .map(|n| json!({"id": format!("s{n}"), "action": "x", "parameters": "$nobody"}))
        .collect();
    let error = Plan::from_json(&json!(steps).to_string()).unwrap_err();
    assert_eq!(error.problems().len(), 64);
    assert!(error.to_string().ends_with("; and 936 more"), "{error}");
    let unknown = plan(&json!([{"id": "a", "action": "nope", "checks": [{"action": "neither"}]}]));
    let error = executor().check(&unknown).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the plan cannot run: step `a` asks for the action `nope`, which there is not; there are sleep, echo, fail, panic, \
         check; step `a` asks for the action `neither`, which there is not; there are sleep, echo, fail, panic, check"
    );
    let run = finish(executor().run(&unknown).into_future());
    assert_eq!(run.unwrap_err(), error);
}

#[test]
fn a_text_that_is_no_plan_says_which_step_is_wrong() {
    let told = |text: &str| Plan::from_json(text).unwrap_err().to_string();
    assert!(told("").contains("the text: EOF"), "{}", told(""));
    assert!(
        told("[1]").contains("step 0: invalid type: integer"),
        "{}",
        told("[1]")
    );
    let unknown = r#"[{"id": "a", "action": "x"}, {"id": "b", "action": "x", "dependson": []}, {"id": "c"}]"#;
    assert!(
        told(unknown).contains("step `b`: unknown field `dependson`"),
        "{}",
        told(unknown)
    );
    assert!(told(unknown).contains("step `c`: missing field `action`"));
    let twice = r#"[{"id": "a", "action": "x", "action": "y"}]"#;
    assert!(
        told(twice).contains("step `a`: duplicate field `action`"),
        "{}",
        told(twice)
    );
    let unit = r#"[{"id": "a", "action": "x", "timeout": "5 parsecs"}]"#;
    assert!(told(unit).contains("step `a`: invalid value"), "{}", told(unit));
    assert!(told(r#"{"plan": []}"#).contains("`plan` is not known"));
    assert!(told(r#"{"goal": "x"}"#).contains("missing field `steps`"));
    assert!(told(r#"{"steps": [], "steps": []}"#).contains("duplicate field"));
    assert!(told(r#"{"steps": [], "max_parallel": 3}"#).contains("`max_parallel` is not known"));
    let noted =
        Plan::from_json(r#" {"goal": "x", "steps": [{"id": "a", "action": "x"}], "why": "y"}"#).unwrap();
    assert_eq!(noted.len(), 1);
    assert!(Plan::from_json("[]").unwrap().is_empty());
}

#[test]
fn parameters_may_not_nest_too_deep() {
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    let of = |depth| Plan::new([Step::new("a", "x").with_parameters(nested(depth))]);
    assert!(of(MAX_DEPTH).is_ok());
    let expected = Problem::TooDeep {
        step: "a".to_owned(),
        max_depth: MAX_DEPTH,
    };
    assert_eq!(of(MAX_DEPTH + 1).unwrap_err().problems(), [expected]);
    // The deepest plan can be read and written.
    let deepest = of(MAX_DEPTH).unwrap();
    let steps: Vec<&Step> = deepest.steps().collect();
    let text = serde_json::to_string(&steps).unwrap();
    assert_eq!(Plan::from_json(&text).unwrap().steps().next(), Some(steps[0]));
}

#[test]
fn a_plan_without_steps_succeeds_at_once() {
    let report = finish(executor().run(&Plan::new([]).unwrap()).into_future()).unwrap();
    assert!(report.is_success() && report.steps.is_empty() && report.makespan.is_zero());
}

/// A chain, a fan out and in, and a grid: 100,000 steps each, with references, checked and run. Nothing is recursive.
#[test]
fn plans_of_100_000_steps_are_fine() {
    const N: usize = 100_000;
    let chain = (0..N).map(|n| match n {
        0 => Step::new("s0", "echo").with_parameters(json!({"v": 7})),
        _ => Step::new(format!("s{n}"), "echo").with_parameters(json!({"v": format!("$s{}.v", n - 1)})),
    });
    let mut fan: Vec<Step> = (0..N - 1)
        .map(|n| Step::new(format!("s{n}"), "echo").after("s0"))
        .collect();
    fan[0].depends_on.clear();
    let all = (1..N - 1).map(|n| format!("s{n}"));
    let mut last = Step::new("last", "echo");
    last.depends_on = all.collect();
    fan.push(last);
    let grid = (0..N).map(|n| {
        let step = Step::new(format!("s{n}"), "echo");
        let (row, column) = (n / 100, n % 100);
        let step = if row > 0 {
            step.after(format!("s{}", n - 100))
        } else {
            step
        };
        let step = if row > 0 && column > 0 {
            step.after(format!("s{}", n - 101))
        } else {
            step
        };
        step.writing(format!("row {row}"))
    });
    for steps in [chain.collect::<Vec<_>>(), fan, grid.collect()] {
        let json = serde_json::to_string(&steps).unwrap();
        let begun = Instant::now();
        let plan = Plan::from_json(&json).unwrap();
        let report = finish(executor().run(&plan).into_future()).unwrap();
        assert!(report.is_success());
        assert_eq!(report.steps.len(), N);
        // In a debug build on a busy machine; what it guards against is a square.
        assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    }
    // The end of the chain got its value through all of it.
    let mut cycle: Vec<Step> = (0..N)
        .map(|n| Step::new(format!("s{n}"), "echo").after(format!("s{}", (n + 1) % N)))
        .collect();
    assert!(
        matches!(Plan::new(cycle.clone()).unwrap_err().problems(), [Problem::Cycle(names)] if names.len() == N)
    );
    cycle[N - 1].depends_on.clear();
    let backwards = Plan::new(cycle).unwrap();
    assert_eq!(backwards.order().next(), Some("s99999"));
    let failing = backwards.steps().cloned().map(|mut step| {
        if step.id == "s99999" {
            step.action = "fail".to_owned();
        }
        step
    });
    let report = finish(executor().run(&Plan::new(failing).unwrap()).into_future()).unwrap();
    let cause = report.steps[0].cause.as_ref().unwrap();
    assert_eq!(cause.root(), Some("s99999"));
}

#[test]
fn errors_of_sources_are_plan_errors() {
    let error = PlanError::unreadable("the model stopped");
    assert_eq!(
        error.to_string(),
        "the plan cannot run: the steps could not be read on: the model stopped"
    );
}

#[test]
fn references_are_listed_and_problems_say_what_they_are_about() {
    let plan = Plan::from_json(
        r#"[{"id": "a", "action": "x"}, {"id": "b", "action": "x", "parameters": {"one": "$a.x[0]", "two": ["${a} and $a", "$$a"]}}]"#,
    )
    .unwrap();
    let listed: Vec<String> = plan.references("b").map(ToString::to_string).collect();
    assert_eq!(listed, ["$a.x[0]", "$a", "$a"]);
    assert_eq!(plan.references("a").count() + plan.references("c").count(), 0);

    let wrong = |text: &str| {
        let error = Plan::from_json(text).unwrap_err();
        let told = error.problems().iter();
        told.map(|problem| (problem.kind(), problem.step().map(str::to_owned), problem.place()))
            .collect::<Vec<_>>()
    };
    let a = || Some("a".to_owned());
    assert_eq!(
        wrong(r#"[{"id": "a", "action": 1}, {"id": "- -", "action": 1}]"#),
        [("syntax", a(), None), ("syntax", None, Some(1))]
    );
    assert_eq!(
        wrong(
            r#"[{"id": "a", "action": "x", "depends_on": ["a", "z"]}, {"id": "", "action": "x"}, {"id": "a", "action": "x"}]"#
        ),
        [
            ("invalid_id", None, Some(1)),
            ("duplicate_id", a(), Some(2)),
            ("unknown_step", a(), None),
            ("cycle", a(), None)
        ]
    );
    let many = format!("[{}]", vec![r#"{"id": "", "action": "x"}"#; 70].join(","));
    assert_eq!(Plan::from_json(&many).unwrap_err().more(), 6);
}
