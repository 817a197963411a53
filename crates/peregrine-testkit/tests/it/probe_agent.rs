//! The probe's `agent` as its users see it: against the loopback server, and with scripts.

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use peregrine_testkit::server::{At, Fault, LlmServer, Reply, Usage};
use serde_json::{Value, json};

use crate::probe::{lines, probe};

const QUESTION: &str = r#"{"input": "How much is 40 + 2?"}"#;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "probe-agent-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).into_os_string().into_string().unwrap()
    }

    fn script(&self, answers: &[Value]) -> String {
        let path = self.path("script.jsonl");
        let lines: String = answers.iter().map(|answer| format!("{answer}\n")).collect();
        fs::write(&path, lines).unwrap();
        path
    }

    /// Runs an agent whose model gives these answers.
    fn run(&self, answers: &[Value], more: &[&str]) -> Output {
        let script = self.script(answers);
        probe(&[&["agent", "--script", &script], more].concat(), QUESTION)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn agent(server: &LlmServer, more: &[&str], input: &str) -> Output {
    let url = server.url();
    let place = [
        "agent",
        "--provider",
        "openai",
        "--base-url",
        &url,
        "--model",
        "m",
    ];
    probe(&[&place, more].concat(), input)
}

fn done(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    lines(output).pop().unwrap()["done"].take()
}

fn error(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    lines(output).pop().unwrap()["error"].take()
}

/// The events, each as its type and what tells it from others.
fn events(output: &Output) -> Vec<String> {
    let tell = |line: &Value| {
        let text = |key: &str| {
            line[key]
                .as_str()
                .map(|text| format!(" {text}"))
                .unwrap_or_default()
        };
        let kind = line["type"].as_str().unwrap_or("done");
        format!("{kind}{}{}", text("name"), text("text"))
    };
    lines(output).iter().map(tell).collect()
}

#[test]
fn a_script_drives_an_agent_and_every_event_is_a_line() {
    let folder = Folder::new();
    let effects = folder.path("effects.jsonl");
    let answers = [
        json!({
            "text": "Let me see.",
            "tool_calls": [
                {"id": "a", "name": "add", "arguments": {"a": 40, "b": 2}},
                {"id": "b", "name": "made_up"},
            ],
            "usage": {"input": 100, "output": 10},
        }),
        json!({
            "tool_calls": [{"id": "c", "name": "write_line", "arguments": {"text": "42"}}],
            "usage": {"input": 120, "output": 10},
        }),
        json!({"text": "It is 42.", "usage": {"input": 140, "output": 5}}),
    ];
    let allowed = ["--effects", &effects, "--allow", "write_line"];
    let output = folder.run(&answers, &allowed);
    let result = done(&output);
    assert_eq!(result["text"], "It is 42.");
    assert_eq!((&result["steps"], &result["finish"]), (&json!(3), &json!("stop")));
    assert_eq!(
        result["tool_calls"],
        json!([
            {"id": "a", "name": "add", "arguments": {"a": 40, "b": 2}, "ok": true},
            {"id": "b", "name": "made_up", "arguments": {}, "ok": false},
            {"id": "c", "name": "write_line", "arguments": {"text": "42"}, "ok": true},
        ])
    );
    assert_eq!(
        (&result["usage"]["input"], &result["usage"]["output"]),
        (&json!(360), &json!(25))
    );
    assert_eq!(result["cost"], json!({"status": "unpriced"}));
    assert_eq!(
        events(&output),
        [
            "turn",
            "text Let me see.",
            "tool_start made_up",
            "tool_end",
            "tool_start add",
            "tool_end",
            "turn",
            "tool_start write_line",
            "tool_end",
            "turn",
            "text It is 42.",
            "done",
        ]
    );
    let written = fs::read_to_string(&effects).unwrap();
    let effect: Value = serde_json::from_str(written.trim_end()).unwrap();
    assert_eq!(
        (&effect["tool"], &effect["text"]),
        (&json!("write_line"), &json!("42"))
    );
    let key = effect["idempotency_key"].as_str().unwrap();
    assert!(key.starts_with(result["run_id"].as_str().unwrap()), "{key}");

    // The same without permission: the model is told, nothing is written, the answer comes all the same.
    let refused = done(&folder.run(&answers, &["--effects", &effects]));
    assert_eq!(refused["tool_calls"][2]["ok"], false);
    assert_eq!(fs::read_to_string(&effects).unwrap(), written);
}

#[test]
fn a_known_price_is_told_and_bounds() {
    let folder = Folder::new();
    let answers = [json!({"text": "42", "usage": {"input": 1_000_000, "output": 0}})];
    let named = ["--provider", "openai", "--model", "gpt-4o-mini"];
    let priced = done(&folder.run(&answers, &named));
    assert_eq!(
        priced["cost"],
        json!({"status": "priced", "nano_usd": 150_000_000})
    );
    let budget = ["--budget", r#"{"cost_nano_usd": 10}"#];
    let failed = error(&folder.run(&answers, &[&named[..], &budget].concat()));
    assert_eq!(
        (
            &failed["code"],
            &failed["limit"]["resource"],
            &failed["run"]["steps"]
        ),
        (&json!("limit"), &json!("cost"), &json!(0))
    );
    let unpriced = error(&folder.run(&answers, &budget));
    assert_eq!(unpriced["code"], "config");
}

#[test]
fn a_providers_model_calls_tools_over_the_wire() {
    let server = LlmServer::start_blocking().unwrap();
    let request = json!({
        "messages": [{"role": "system", "content": "Count."}, {"role": "user", "content": "40 + 2?"}],
        "sampling": {"temperature": 0, "max_tokens": 9},
    });
    for (more, streamed) in [(&[][..], false), (&["--stream"], true)] {
        server.push(Reply::tool_call("a", "add", json!({"a": 40, "b": 2})));
        server.push(Reply::text_pieces(["It ", "is ", "42."]).with_usage(Usage::new(7, 3)));
        let output = agent(&server, more, &request.to_string());
        let result = done(&output);
        assert_eq!(
            (&result["text"], &result["steps"]),
            (&json!("It is 42."), &json!(2))
        );
        let texts = events(&output)
            .into_iter()
            .filter(|event| event.starts_with("text"));
        let texts: Vec<String> = texts.collect();
        match streamed {
            true => assert_eq!(texts, ["text It ", "text is ", "text 42."]),
            false => assert_eq!(texts, ["text It is 42."]),
        }
        let seen = server.last_request().unwrap();
        assert_eq!(seen.is_stream(), streamed);
        let body = seen.json().unwrap();
        assert_eq!(
            (
                body["temperature"].as_f64(),
                body["max_completion_tokens"].as_u64()
            ),
            (Some(0.0), Some(9))
        );
        assert_eq!(body["messages"][0]["content"], "Count.");
        assert_eq!(
            (
                &body["messages"][3]["tool_call_id"],
                &body["messages"][3]["content"]
            ),
            (&json!("a"), &json!("42"))
        );
        let tools = body["tools"].as_array().unwrap().iter();
        let names: Vec<&Value> = tools.map(|tool| &tool["function"]["name"]).collect();
        assert_eq!(
            names,
            ["add", "echo", "sleep"],
            "no effects without a file for them"
        );
    }
}

#[test]
fn failures_are_typed_and_tell_what_was_done() {
    let folder = Folder::new();
    let endless = [0, 1, 2].map(|at| {
        json!({
            "tool_calls": [{"name": "echo", "arguments": {"text": at.to_string()}}],
            "usage": {"input": 10, "output": 5},
        })
    });
    let limit = |more: &[&str]| {
        let failed = error(&folder.run(&endless, more));
        assert_eq!(failed["code"], "limit", "{more:?}: {failed}");
        let numbers = (
            failed["run"]["steps"].as_u64(),
            failed["run"]["tool_calls"].as_array().unwrap().len(),
        );
        (failed["limit"]["resource"].clone(), numbers)
    };
    assert_eq!(limit(&["--max-steps", "2"]), (json!("steps"), (Some(2), 1)));
    assert_eq!(
        limit(&["--budget", r#"{"tool_calls": 1}"#]),
        (json!("tool_calls"), (Some(2), 1))
    );
    assert_eq!(
        limit(&["--budget", r#"{"tokens": 10}"#]),
        (json!("tokens"), (Some(0), 0))
    );
    let ended = error(&folder.run(&endless, &[]));
    assert_eq!(
        (&ended["code"], &ended["run"]["steps"]),
        (&json!("invalid_request"), &json!(4))
    );
    assert!(
        ended["message"].as_str().unwrap().contains("it has 3 answers"),
        "{ended}"
    );
    assert_eq!(ended["run"]["usage"]["input"], 30);

    let started = Instant::now();
    let asleep = [json!({"tool_calls": [{"name": "sleep", "arguments": {"ms": 600_000}}]})];
    let late = error(&folder.run(&asleep, &["--budget", r#"{"wall_time_ms": 150}"#]));
    assert_eq!(
        (&late["code"], &late["limit"]["resource"]),
        (&json!("limit"), &json!("wall_time"))
    );
    let late = error(&folder.run(&asleep, &["--timeout-ms", "150"]));
    assert_eq!(
        (&late["code"], &late["stage"]),
        (&json!("timeout"), &json!("total"))
    );
    let slow = [json!({"text": "late", "delay_ms": 600_000})];
    let late = error(&folder.run(&slow, &["--budget", r#"{"wall_time_ms": 150}"#]));
    assert_eq!(
        (&late["code"], &late["run"]["steps"]),
        (&json!("limit"), &json!(1))
    );
    assert!(started.elapsed() < Duration::from_secs(60));

    let server = LlmServer::start_blocking().unwrap();
    server.push(Reply::tool_call("a", "echo", json!({"text": "x"})));
    server.push(
        Reply::text("cut off")
            .with_pieces(3)
            .with_fault(Fault::end(At::BeforeEndMarker)),
    );
    let output = agent(&server, &["--stream", "--retries", "0"], QUESTION);
    let cut = error(&output);
    assert_eq!(
        (&cut["code"], &cut["run"]["steps"]),
        (&json!("truncated"), &json!(2))
    );
    assert!(
        !lines(&output).iter().any(|line| line.get("done").is_some()),
        "{output:?}"
    );
    server.set_reply(Reply::error(401, "no"));
    let refused = error(&agent(&server, &[], QUESTION));
    assert_eq!(
        (&refused["code"], &refused["status"]),
        (&json!("authentication"), &json!(401))
    );
}

#[test]
fn what_is_asked_for_wrongly_is_named() {
    let folder = Folder::new();
    let answers = [json!({"text": "x"})];
    assert_eq!(error(&folder.run(&answers, &["--allow", "rm"]))["code"], "config");
    assert_eq!(
        error(&folder.run(&answers, &["--max-steps", "0"]))["code"],
        "config"
    );
    let nowhere = folder.path("no/such/folder");
    assert_eq!(
        error(&folder.run(&answers, &["--effects", &nowhere]))["code"],
        "config"
    );
    for (bad, named) in [
        (json!({"txt": "x"}), "`txt`"),
        (json!({}), "line 1 has neither text nor tool_calls"),
    ] {
        let failed = error(&folder.run(&[bad], &[]));
        assert_eq!(failed["code"], "config");
        assert!(failed["message"].as_str().unwrap().contains(named), "{failed}");
    }
    let script = folder.script(&answers);
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"input": 7}"#,
        r#"{"input": "x", "messages": []}"#,
        r#"{"messages": []}"#,
        r#"{"input": "x", "tools": [{"name": "t", "description": "", "parameters": {}}]}"#,
    ] {
        let failed = error(&probe(&["agent", "--script", &script], bad));
        assert_eq!(failed["code"], "invalid_request", "{bad}");
    }
    for arguments in [
        &["agent"][..],
        &["agent", "--script", &script, "--strategy", "luck"],
        &["agent", "--script", &script, "--strategy", "best_of_n"],
        &["agent", "--script", &script, "--budget", r#"{"toknes": 1}"#],
        &["agent", "--script", &script, "--base-url", "http://127.0.0.1:1"],
    ] {
        assert_eq!(probe(arguments, "").status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn every_strategy_can_be_asked_for() {
    let folder = Folder::new();
    let votes = ["41", "42", "42"].map(|text| json!({"text": text}));
    let result = done(&folder.run(&votes, &["--strategy", "best_of_n:3"]));
    assert_eq!((&result["text"], &result["steps"]), (&json!("42"), &json!(3)));

    let plan = [
        json!({"text": r#"{"steps": ["add 40 and 2"]}"#}),
        json!({"tool_calls": [{"name": "add", "arguments": {"a": 40, "b": 2}}]}),
        json!({"text": "42"}),
        json!({"text": "It is 42."}),
    ];
    let output = folder.run(&plan, &["--strategy", "plan_and_execute:3"]);
    assert_eq!(done(&output)["text"], "It is 42.");
    assert!(
        lines(&output).iter().any(|line| line["thread"] == 1),
        "{output:?}"
    );

    let judged = [
        json!({"text": "41"}),
        json!({"text": r#"{"problems": ["off by one"], "accept": false}"#}),
        json!({"text": "42"}),
        json!({"text": r#"{"problems": [], "accept": true}"#}),
    ];
    let result = done(&folder.run(&judged, &["--strategy", "reflection:2"]));
    assert_eq!((&result["text"], &result["steps"]), (&json!("42"), &json!(4)));

    let server = LlmServer::start_blocking().unwrap();
    server.set_reply(Reply::text("42"));
    done(&agent(&server, &["--strategy", "single_shot"], QUESTION));
    let body = server.last_request().unwrap().json().unwrap().clone();
    assert!(body.get("tools").is_none(), "{body}");
}
