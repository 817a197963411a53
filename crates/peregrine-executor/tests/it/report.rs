//! Reports: times, ratios, charts.

use peregrine_executor::{Report, builtin};
use serde_json::json;

use crate::support::{executor, finish, ms, plan, run};

fn some() -> Report {
    let steps = json!([
        {"id": "a", "action": "sleep", "parameters": {"ms": 40}},
        {"id": "b", "action": "sleep", "parameters": {"ms": 20}},
        {"id": "c", "action": "sleep", "parameters": {"ms": 20}, "checks": [{"action": "check", "parameters": {"ms": 25, "passed": true}}]},
        {"id": "d", "action": "fail", "parameters": {"ms": 10, "message": "<&\"> \u{1b}[31m"}, "depends_on": ["a"]},
        {"id": "e", "action": "echo", "parameters": "$d"},
    ]);
    finish(executor().with_max_parallel(2).run(&plan(&steps)).into_future()).unwrap()
}

#[test]
fn times_add_up() {
    let report = some();
    // a from 0 to 40; c (its check makes it the longer way) from 0 to 20; b from 20 to 40; d from 40 to 50; the check
    // from 20 to 45.
    let step = |id: &str| report.step(id).unwrap();
    assert_eq!(step("b").queued(), ms(20));
    assert_eq!(step("b").duration(), ms(20));
    assert_eq!(
        (report.makespan, report.work, report.queued),
        (ms(50), ms(40 + 20 + 20 + 10 + 25), ms(20))
    );
    assert_eq!((report.critical_path, report.lower_bound()), (ms(50), ms(50)));
    assert_eq!(
        report.critical_steps.iter().map(|id| &**id).collect::<Vec<_>>(),
        ["a", "d"]
    );
    assert!((report.speed_up() - 2.3).abs() < 1e-9 && (report.parallelism() - 1.8).abs() < 1e-9);
    assert_eq!((report.peak_parallel, report.max_parallel), (2, 2));
    assert_eq!(
        (step("d").ready_at, step("e").ready_at, step("e").started_at),
        (ms(40), ms(50), None)
    );
    assert_eq!(step("c").checks[0].duration(), ms(25));
    let empty = run(&json!([]));
    assert!((empty.speed_up() - 1.0).abs() < 1e-9);
}

#[test]
fn a_chart_of_characters() {
    let chart = some().gantt_text(40);
    let lines: Vec<&str> = chart.lines().collect();
    assert_eq!(
        lines,
        [
            "a |####################      | succeeded",
            "b |..........##########      | succeeded",
            "c |##########                | succeeded",
            "d |                    xxxxxx| failed",
            "e |                          | skipped",
            "failed in 50ms, critical path 50ms, 2.30 x faster than one by one, at most 2 at a time",
        ]
    );
    // However narrow the terminal and however long the plan.
    let many: Vec<_> = (0..1500)
        .map(|n| json!({"id": format!("step-{n}"), "action": "echo"}))
        .collect();
    let report = run(&json!(many));
    assert!(report.gantt_text(0).contains("and 1300 more steps"));
    assert!(report.gantt_text(usize::MAX).lines().all(|line| line.len() < 500));
    assert!(report.gantt_svg().contains("and 500 more steps"));
}

#[test]
fn a_chart_as_svg_is_well_formed_and_self_contained() {
    let svg = some().gantt_svg();
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("d: failed, 10ms: &lt;&amp;&quot;&gt; [31m"), "{svg}");
    assert!(!svg.contains('\u{1b}') && !svg.contains("<script") && svg.matches("http").count() == 1);
    // As many ends as beginnings, and quotes in pairs within each tag.
    let mut open = 0_i32;
    for tag in svg.split('<').skip(1) {
        let (inside, _) = tag.split_once('>').unwrap();
        assert_eq!(inside.matches('"').count() % 2, 0, "{inside}");
        open += match inside.as_bytes() {
            [b'/', ..] => -1,
            [.., b'/'] => 0,
            _ => 1,
        };
        assert!(open >= 0);
    }
    assert_eq!(open, 0);
    assert_eq!(svg.matches("<g>").count(), 5);
}

#[test]
fn the_builtin_actions_do_what_they_say() {
    let report = run(&json!([
        {"id": "s", "action": "sleep", "parameters": {"ms": 7, "x": 1}},
        {"id": "n", "action": "sleep", "parameters": {"x": 1}, "retries": 3},
        {"id": "m", "action": "echo", "parameters": {"ms": -1}},
        {"id": "e", "action": "echo", "parameters": [1]},
        {"id": "f", "action": "fail", "parameters": {"times": 2, "v": 0}, "retries": {"max": 2, "wait": 0}},
        {"id": "g", "action": "fail", "parameters": {"retryable": false, "message": "never"}, "retries": 5},
        {"id": "c", "action": "check", "parameters": {"value": "$e", "message": "fine"}},
        {"id": "d", "action": "check", "parameters": {"value": false}},
    ]));
    let told: Vec<_> = report
        .steps
        .iter()
        .map(|record| match (&record.result, &record.cause) {
            (Some(result), None) => format!("{} {result}", record.attempts),
            (None, Some(cause)) => format!("{} {cause}", record.attempts),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        [
            r#"1 {"ms":7,"x":1}"#,
            "1 sleep needs `ms`, a whole number of milliseconds",
            "1 `ms` is not a whole number of milliseconds, 0 or more",
            "1 [1]",
            r#"3 {"times":2,"v":0}"#,
            "1 never",
            r#"1 {"passed":true,"reason":"fine"}"#,
            r#"1 {"passed":false,"reason":null}"#,
        ]
    );
    assert!(
        builtin::actions()
            .names()
            .all(|name| builtin::actions().info(name).is_some())
    );
}
