//! `limiter` as its users see it.

use std::fmt::Write as _;

use peregrine_testkit::service;
use serde_json::{Value, json};

use crate::probe::{lines, probe};

fn asks(count: usize, ask: &Value) -> String {
    (0..count).fold(String::new(), |mut text, _| {
        writeln!(text, "{ask}").unwrap();
        text
    })
}

/// When each was let through, on the wall clock, in milliseconds.
fn admitted(lines: &[Value]) -> Vec<f64> {
    let mut times: Vec<f64> = lines
        .iter()
        .filter_map(|line| line["admitted_unix_ms"].as_f64())
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

#[test]
fn asks_wait_their_turn_and_say_so() {
    // Ten a second, one at once.
    let arguments = ["limiter", "--rpm", "600", "--margin", "1", "--burst-ms", "1"];
    let input = asks(6, &json!({"tokens": 5, "tenant": "a"}));
    let output = probe(&arguments, &input);
    assert!(output.status.success(), "{output:?}");
    let lines = lines(&output);
    assert_eq!(lines.len(), 6);
    let indices: Vec<u64> = lines.iter().map(|line| line["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4, 5], "first come, first served");
    assert!(lines[5]["wait_ms"].as_f64().unwrap() > lines[1]["wait_ms"].as_f64().unwrap());
    assert!(
        lines
            .iter()
            .all(|line| line["tenant"] == "a" && line["tokens"] == 5 && line["shared"] == false)
    );
    assert!(lines[5]["admitted_ms"].as_f64().unwrap() >= 490.0, "{lines:?}");
}

#[test]
fn what_is_too_large_is_an_error_at_once_and_the_rest_is_served() {
    let input = format!(
        "{}{}",
        asks(1, &json!({"tokens": 1_001})),
        asks(2, &json!({"tokens": 10}))
    );
    let output = probe(&["limiter", "--tpm", "1000"], &input);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let lines = lines(&output);
    assert_eq!(lines.last().unwrap()["error"]["code"], "request_too_large");
    let refused = lines.iter().find(|line| line["index"] == 0).unwrap();
    assert_eq!(refused["error"]["code"], "request_too_large");
    assert_eq!(admitted(&lines).len(), 2);
}

#[test]
fn what_makes_no_sense_is_told() {
    for (arguments, input, code) in [
        (&["limiter", "--rpm", "0"][..], "", "config"),
        (&["limiter", "--backend", "etcd"], "", "invalid_request"),
        (&["limiter", "--rpm", "60"], "{\"token\": 1}\n", "invalid_request"),
    ] {
        let output = probe(arguments, input);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {output:?}");
        assert_eq!(
            lines(&output).last().unwrap()["error"]["code"],
            code,
            "{arguments:?}"
        );
    }
}

#[test]
fn two_processes_share_a_limit() {
    let Some(url) = service::redis() else { return };
    let name = format!("probe-test-{}", std::process::id());
    let backend = format!("redis:{url}");
    let run = || {
        let arguments = [
            "limiter",
            "--backend",
            &backend,
            "--name",
            &name,
            "--rpm",
            "1200",
            "--margin",
            "1",
        ];
        let output = probe(&arguments, &asks(30, &json!({"tokens": 0})));
        assert!(output.status.success(), "{output:?}");
        lines(&output)
    };
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(run);
        let other = scope.spawn(run);
        (one.join().unwrap(), other.join().unwrap())
    });
    let times = admitted(&[one, other].concat());
    assert_eq!(times.len(), 60);
    // 20 a second, 20 at once.
    let took = times[59] - times[0];
    assert!(took >= 1_900.0, "{took}");
}
