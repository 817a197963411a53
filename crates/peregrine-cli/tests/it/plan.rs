//! `plan check` and `plan run`: what is wrong with a plan and where, what became of it, charts, Ctrl-C.

use serde_json::{Value, json};

use crate::run::World;

const GOOD: &str = r#"[
    {"id": "one", "action": "sleep", "parameters": {"ms": 300, "name": "falcon"}},
    {"id": "two", "action": "sleep", "parameters": {"ms": 200}},
    {"id": "both", "action": "echo", "parameters": ["$one.name", "after ${two.ms} ms", "$two.ms"]},
    {"id": "last", "action": "echo", "depends_on": ["both"]}
]"#;

fn with_plan(text: &str) -> World {
    let world = World::new();
    world.write("plan.json", text);
    world
}

fn step<'r>(report: &'r Value, id: &str) -> &'r Value {
    let steps = report["steps"].as_array().unwrap();
    steps.iter().find(|step| step["id"] == id).unwrap()
}

#[test]
fn a_good_plan_is_shown_with_its_references() {
    let world = with_plan(GOOD);
    let ran = world.run(&["plan", "check", "plan.json"]).ok();
    assert_eq!(
        ran.out,
        "one: sleep\ntwo: sleep\nboth: echo of $one.name, $two.ms, $two.ms\nlast: echo after both\n\
         the plan can run: 4 steps, 3 references, the longest chain has 3 steps\n"
    );
    let checked = world
        .run_with_input(&["plan", "check", "-", "--json"], GOOD)
        .ok()
        .json();
    assert_eq!(
        (&checked["ok"], &checked["longest_chain"]),
        (&json!(true), &json!(3))
    );
    assert_eq!(checked["order"], json!(["one", "two", "both", "last"]));
    assert_eq!(
        checked["steps"][2],
        json!({"id": "both", "action": "echo", "waits_for": ["one", "two"],
               "references": ["$one.name", "$two.ms", "$two.ms"]})
    );
}

#[test]
fn everything_wrong_is_told_at_once_with_its_place() {
    let world = with_plan(
        r#"{"goal": "wrong in every way", "steps": [
    {"id": "a", "action": "echo", "depends_on": ["c"]},
    {"id": "b", "action": "echo", "parameters": {"x": ["$nobody.y"]}},
    {"id": "c", "action": "echo", "parameters": "$a"},
    {"id": "no way", "action": "echo"},
    {"id": "b", "action": "echo", "parameters": "$ 5"}
]}"#,
    );
    let ran = world.run(&["plan", "check", "plan.json", "--json"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let told = ran.json();
    assert_eq!(told["ok"], false);
    let problems = told["problems"].as_array().unwrap();
    let found: Vec<(&str, Option<u64>)> = problems
        .iter()
        .map(|problem| (problem["kind"].as_str().unwrap(), problem["line"].as_u64()))
        .collect();
    assert_eq!(
        found,
        [
            ("invalid_id", Some(5)),
            ("duplicate_id", Some(6)),
            ("unknown_step", Some(3)),
            ("malformed_reference", Some(3)),
            ("cycle", Some(2)),
        ],
        "{told}"
    );
    assert!(
        problems[2]["message"].as_str().unwrap().contains("`/x/0`"),
        "{told}"
    );
    assert_eq!(problems[4]["cycle"], json!(["a", "c"]));
    let ran = world.run(&["plan", "check", "plan.json"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(
        ran.out
            .contains("line 2: these steps wait for each other: a -> c -> a"),
        "{ran:?}"
    );
    assert!(ran.err.is_empty(), "{ran:?}");
    // It is not run either, and says as much.
    let ran = world.run(&["plan", "run", "plan.json", "--json"]);
    assert_eq!(
        (ran.code, &ran.json()["error"]["code"]),
        (Some(1), &json!("invalid_request"))
    );
    assert!(ran.err.contains("a -> c -> a"), "{ran:?}");
}

#[test]
fn actions_and_fields_that_there_are_not_are_found() {
    let plan = r#"[{"id": "a", "action": "fly"},
                   {"id": "b", "action": "echo", "parameters": {"x": 1}},
                   {"id": "c", "action": "echo", "parameters": "$b.y"}]"#;
    let world = with_plan(plan);
    let told = world.run(&["plan", "check", "plan.json", "--json"]).json();
    let problems = told["problems"].as_array().unwrap();
    assert_eq!(
        (&problems[0]["kind"], &problems[1]["kind"]),
        (&json!("unknown_action"), &json!("dangling_field")),
        "{told}"
    );
    assert_eq!(
        (&problems[1]["step"], &problems[1]["line"]),
        (&json!("c"), &json!(3))
    );
    world.run(&["plan", "check", "plan.json", "--any-action"]).ok();
}

#[test]
fn texts_that_are_no_plans_are_told_with_their_line() {
    let world = World::new();
    for (plan, line, words) in [
        ("", None, "EOF"),
        ("[{]", None, "line 1"),
        ("{\"steps\": 7}", None, "expected a sequence"),
        ("[\n{\"id\": \"a\",\n\"action\": 7}]", Some(3), "step `a`"),
        (
            "[\n{\"id\": \"a\", \"action\": \"echo\", \"retires\": 1}]",
            Some(2),
            "retires",
        ),
        ("[{}]", Some(1), "step 0"),
    ] {
        let ran = world.run_with_input(&["plan", "check", "-", "--json"], plan);
        assert_eq!(ran.code, Some(3), "{plan}: {ran:?}");
        let problem = &ran.json()["problems"][0];
        assert_eq!(
            (problem["kind"].as_str(), problem["line"].as_u64()),
            (Some("syntax"), line),
            "{ran:?}"
        );
        assert!(problem["message"].as_str().unwrap().contains(words), "{ran:?}");
    }
    let deep = format!(
        "[{{\"id\":\"a\",\"action\":\"echo\",\"parameters\":{}1{}}}]",
        "[".repeat(120),
        "]".repeat(120)
    );
    assert_eq!(world.run_with_input(&["plan", "check", "-"], &deep).code, Some(3));
    let deeper = format!(
        "[{{\"id\":\"a\",\"action\":\"echo\",\"parameters\":{}",
        "[".repeat(1 << 20)
    );
    assert_eq!(
        world.run_with_input(&["plan", "check", "-"], &deeper).code,
        Some(3)
    );
    // What cannot be read is a failure of the command.
    for (file, code) in [("nowhere.json", "not_found"), ("docs", "invalid_request")] {
        for verb in ["check", "run"] {
            let ran = world.run(&["plan", verb, file, "--json"]);
            assert_eq!(
                (ran.code, &ran.json()["error"]["code"]),
                (Some(1), &json!(code)),
                "{ran:?}"
            );
        }
    }
    let ran = world.run_with_input(&["plan", "check", "-"], b"[\"\xff\"]");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("standard input is no text"), "{ran:?}");
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let world = World::new();
    let file = std::fs::File::create(world.path().join("large.json")).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    let ran = world.run(&["plan", "check", "large.json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("larger than 64 MiB"), "{ran:?}");
}

#[test]
fn a_plan_is_run_in_virtual_time_and_charted() {
    let world = with_plan(GOOD);
    let ran = world
        .run(&["plan", "run", "plan.json", "--simulate", "--gantt", "chart.svg"])
        .ok();
    assert!(ran.out.contains("one  |####"), "{ran:?}");
    assert!(
        ran.out.contains("succeeded in 300ms, critical path 300ms"),
        "{ran:?}"
    );
    let ended: Vec<&str> = ran.err.lines().collect();
    assert_eq!(
        ended,
        [
            "two: succeeded in 200ms",
            "one: succeeded in 300ms",
            "both: succeeded in 0ns",
            "last: succeeded in 0ns"
        ]
    );
    let chart = std::fs::read_to_string(world.path().join("chart.svg")).unwrap();
    assert!(
        chart.starts_with("<svg") && chart.trim_end().ends_with("</svg>") && chart.contains("both"),
        "{chart}"
    );

    let report = world
        .run(&["plan", "run", "plan.json", "--simulate", "--json", "-q"])
        .ok();
    assert_eq!(report.err, "");
    let report = report.json();
    assert_eq!(
        (&report["outcome"], &report["makespan_ms"]),
        (&json!("succeeded"), &json!(300))
    );
    assert_eq!(
        step(&report, "both")["result"],
        json!(["falcon", "after 200 ms", 200])
    );
    assert_eq!(
        (&report["peak_parallel"], &report["max_parallel"]),
        (&json!(2), &json!(5))
    );
    let one_by_one = [
        "plan",
        "run",
        "plan.json",
        "--simulate",
        "--json",
        "--max-parallel",
        "1",
    ];
    let report = world.run(&one_by_one).ok().json();
    assert_eq!(
        (&report["makespan_ms"], &report["peak_parallel"]),
        (&json!(500), &json!(1))
    );
}

#[test]
fn a_plan_is_run_in_real_time_from_standard_input() {
    let plan = r#"[{"id": "a", "action": "sleep", "parameters": {"ms": 30}},
                   {"id": "b", "action": "echo", "parameters": "$a.ms"}]"#;
    let report = World::new()
        .run_with_input(&["plan", "run", "-", "--json"], plan)
        .ok()
        .json();
    assert!(report["makespan_ms"].as_f64().unwrap() >= 30.0, "{report}");
    assert_eq!(step(&report, "b")["result"], 30);
}

#[test]
fn a_plan_whose_steps_fail_has_failed() {
    let world = with_plan(
        r#"[{"id": "maybe", "action": "fail", "parameters": {"message": "never mind"}, "on_failure": "optional"},
            {"id": "bad", "action": "fail", "parameters": {"message": "out of wind\u001b[2J"}},
            {"id": "after", "action": "echo", "parameters": "$bad"},
            {"id": "good", "action": "echo", "checks": [{"action": "check", "parameters": {"passed": true}}]}]"#,
    );
    let ran = world.run(&["plan", "run", "plan.json", "--simulate"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("failed in"), "{ran:?}");
    assert!(
        ran.err
            .contains("error: the plan failed; bad: failed: out of wind"),
        "{ran:?}"
    );
    assert!(ran.err.contains("good, check `check`: succeeded"), "{ran:?}");
    assert!(!ran.err.contains('\u{1b}'), "{ran:?}");
    let ran = world.run(&["plan", "run", "plan.json", "--simulate", "--json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let report = ran.json();
    assert_eq!(report["outcome"], "failed");
    assert_eq!(
        report["counts"],
        json!({"succeeded": 1, "failed": 2, "skipped": 1, "cancelled": 0})
    );
    assert_eq!(
        (
            &step(&report, "after")["cause_kind"],
            &step(&report, "after")["caused_by"]
        ),
        (&json!("dependency"), &json!("bad"))
    );
}

#[test]
fn a_chart_that_cannot_be_written_is_found_out_before_anything_runs() {
    let world = with_plan(GOOD);
    let ran = world.run(&[
        "plan",
        "run",
        "plan.json",
        "--gantt",
        "nowhere/chart.svg",
        "--json",
    ]);
    assert_eq!(
        (ran.code, &ran.json()["error"]["code"]),
        (Some(1), &json!("not_found")),
        "{ran:?}"
    );
    assert!(
        ran.err.contains("could not write nowhere/chart.svg") && !ran.err.contains("succeeded"),
        "{ran:?}"
    );
}

#[test]
fn wrong_usage_is_two() {
    let world = with_plan(GOOD);
    for wrong in [
        &["plan"][..],
        &["plan", "run"],
        &["plan", "fly", "plan.json"],
        &["plan", "run", "plan.json", "--max-parallel", "0"],
        &["plan", "check", "plan.json", "--simulate"],
    ] {
        assert_eq!(world.run(wrong).code, Some(2), "{wrong:?}");
    }
}

#[cfg(unix)]
mod interrupted {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::Stdio;

    use serde_json::json;

    use super::{step, with_plan};
    use crate::run::{World, wait};
    use crate::signals::interrupt;

    const SLOW: &str = r#"[{"id": "quick", "action": "echo", "parameters": 7},
                           {"id": "slow", "action": "sleep", "parameters": {"ms": 600000}, "depends_on": ["quick"]},
                           {"id": "later", "action": "echo", "parameters": "$slow"}]"#;

    #[test]
    fn what_was_done_is_reported() {
        for more in [&[][..], &["--json"]] {
            let world = with_plan(SLOW);
            let arguments = [&["plan", "run", "plan.json", "--gantt", "chart.svg"], more].concat();
            let mut child = world.command(&arguments).spawn().unwrap();
            // Its first line says that a step has ended, so it listens for signals by then.
            let mut notes = BufReader::new(child.stderr.take().unwrap());
            let mut line = String::new();
            notes.read_line(&mut line).unwrap();
            assert!(line.starts_with("quick: succeeded"), "{line}");
            interrupt(&child);
            let ran = wait(child);
            assert_eq!(ran.code, Some(130), "{ran:?}");
            if more.is_empty() {
                assert!(ran.out.contains("cancelled in"), "{ran:?}");
            } else {
                let report = ran.json();
                assert_eq!(report["outcome"], "cancelled");
                assert_eq!(step(&report, "quick")["result"], 7);
                assert_eq!(step(&report, "slow")["state"], "cancelled");
                assert_eq!(
                    report["counts"],
                    json!({"succeeded": 1, "failed": 0, "skipped": 0, "cancelled": 2})
                );
            }
            assert!(world.path().join("chart.svg").metadata().unwrap().len() > 100);
        }
    }

    #[test]
    fn a_read_of_standard_input_is_interrupted() {
        for verb in ["check", "run"] {
            let world = World::new();
            let mut child = world
                .command(&["plan", verb, "-"])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = child.stdin.take().unwrap();
            // It listens before it reads, and more than a pipe holds is only taken by a reader.
            input.write_all(&vec![b' '; 256 << 10]).unwrap();
            interrupt(&child);
            let ran = wait(child);
            assert_eq!((ran.code, ran.out.as_str()), (Some(130), ""), "{ran:?}");
            drop(input);
        }
    }
}
