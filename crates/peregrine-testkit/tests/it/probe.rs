//! The probe as its users see it: lines in, lines out, an exit status.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use peregrine_testkit::server::{At, Fault, LlmServer, Reply};
use serde_json::{Value, json};

const HELLO: &str = r#"{"model": "m", "messages": [{"role": "user", "content": "hello"}]}"#;

pub(crate) fn probe(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_peregrine-probe"))
        .args(arguments)
        .env("OPENAI_API_KEY", "sk-probe-secret")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A usage error ends before anything is read.
    let _closed = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

pub(crate) fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn chat(server: &LlmServer, more: &[&str], input: &str) -> Output {
    let url = server.url();
    let mut arguments = vec!["chat", "--provider", "openai", "--base-url", &url];
    arguments.extend(more);
    probe(&arguments, input)
}

#[test]
fn a_chat_ends_with_done_and_a_stream_shows_its_events() {
    let server = LlmServer::start_blocking().unwrap();
    server.set_reply(Reply::text("hi there").with_tool_call("c1", "look", json!({"at": 1})));
    for stream in [&[][..], &["--stream"][..]] {
        let output = chat(&server, stream, HELLO);
        assert!(output.status.success(), "{output:?}");
        let lines = lines(&output);
        let done = &lines.last().unwrap()["done"];
        assert_eq!(done["text"], "hi there");
        assert_eq!(
            done["tool_calls"],
            json!([{"id": "c1", "name": "look", "arguments": {"at": 1}}])
        );
        assert_eq!(
            (&done["finish"], &done["attempts"]),
            (&json!("tool_calls"), &json!(1))
        );
        assert!(
            done["usage"]["input"].is_u64() && done["request_id"].is_string(),
            "{done}"
        );
        assert_eq!(lines.len() > 1, !stream.is_empty());
        if !stream.is_empty() {
            assert!(lines.iter().any(|line| line["type"] == "text_delta"), "{lines:?}");
            assert_eq!(lines[lines.len() - 2]["type"], "done");
        }
    }
    let seen = server.last_request().unwrap();
    assert_eq!(seen.header("authorization"), Some("Bearer sk-probe-secret"));
}

#[test]
fn everything_in_the_request_reaches_the_wire() {
    let server = LlmServer::start_blocking().unwrap();
    server.set_reply(Reply::text("{}"));
    let request = json!({
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "tool_calls": [{"id": "call_1", "name": "look", "arguments": {"a": 1}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "seen"},
        ],
        "tools": [{"name": "look", "description": "d", "parameters": {"type": "object", "properties": {}}}],
        "response_schema": {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]},
        "sampling": {"temperature": 0, "top_p": 0.5, "max_tokens": 7, "seed": 0, "stop": ["END"]},
    });
    let output = chat(&server, &["--model", "gpt-x"], &request.to_string());
    assert!(output.status.success(), "{output:?}");
    let body = server.last_request().unwrap().json().unwrap().clone();
    assert_eq!(
        (&body["model"], &body["seed"], &body["stop"]),
        (&json!("gpt-x"), &json!(0), &json!(["END"]))
    );
    assert_eq!(
        (body["temperature"].as_f64(), body["top_p"].as_f64()),
        (Some(0.0), Some(0.5))
    );
    assert_eq!(body["messages"].as_array().unwrap().len(), 4);
    assert_eq!(body["messages"][3]["tool_call_id"], "call_1");
    assert_eq!(body["tools"][0]["function"]["name"], "look");
    assert_eq!(body["response_format"]["type"], "json_schema");
}

#[test]
fn failures_are_typed_and_exit_with_three() {
    let server = LlmServer::start_blocking().unwrap();
    let code = |output: &Output| {
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let error = lines(output).pop().unwrap()["error"].take();
        assert!(
            !error["message"].as_str().unwrap().contains("sk-probe-secret"),
            "{error}"
        );
        error
    };
    server.set_reply(Reply::error(429, "slow down").with_retry_after("7200"));
    let error = code(&chat(&server, &[], HELLO));
    assert_eq!(
        (&error["code"], &error["retryable"], &error["retry_after_ms"]),
        (&json!("rate_limited"), &json!(true), &json!(7_200_000))
    );
    server.set_reply(
        Reply::text("cut off")
            .with_pieces(3)
            .with_fault(Fault::end(At::BeforeEndMarker)),
    );
    assert_eq!(
        code(&chat(&server, &["--stream", "--retries", "0"], HELLO))["code"],
        "truncated"
    );
    server.set_reply(Reply::text("slow").with_fault(Fault::stall(At::BeforeHead)));
    let error = code(&chat(
        &server,
        &["--retries", "0", "--first-byte-timeout-ms", "200"],
        HELLO,
    ));
    assert_eq!(
        (&error["code"], &error["stage"]),
        (&json!("timeout"), &json!("first_byte"))
    );
    let error = code(&chat(&server, &["--timeout-ms", "200"], HELLO));
    assert_eq!(
        (&error["code"], &error["stage"]),
        (&json!("timeout"), &json!("total"))
    );
    for bad in [
        "",
        "[]",
        r#"{"messages": [], "temprature": 1}"#,
        r#"{"messages": [{"role": "wizard", "content": "x"}]}"#,
    ] {
        assert_eq!(
            code(&chat(&server, &["--model", "m"], bad))["code"],
            "invalid_request",
            "{bad}"
        );
    }
    let unknown = probe(&["chat", "--provider", "nobody", "--model", "m"], HELLO);
    assert_eq!(code(&unknown)["code"], "config");
}

#[test]
fn usage_errors_exit_with_two_and_versions_are_told() {
    for arguments in [
        &["nonsense"][..],
        &["chat"][..],
        &["chat", "--provider"][..],
        &[][..],
    ] {
        assert_eq!(probe(arguments, "").status.code(), Some(2), "{arguments:?}");
    }
    let output = probe(&["version", "--bundled"], "");
    let line = lines(&output).pop().unwrap();
    assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        line["tls"]["version"].is_string() && line["sandbox"]["seccomp"].is_boolean(),
        "{line}"
    );
}

#[test]
fn the_offline_model_answers_without_a_server() {
    let request = json!({"messages": [
        {"role": "system", "content": "The bridge is 412 metres long. It was built in 1931."},
        {"role": "user", "content": "How long is the bridge?"},
    ]});
    let output = probe(&["chat", "--provider", "offline"], &request.to_string());
    assert!(output.status.success(), "{output:?}");
    let done = lines(&output).pop().unwrap()["done"].take();
    assert!(done["text"].as_str().unwrap().contains("412 metres"), "{done}");
    assert_eq!(done["metadata"]["offline"], true);
}

#[test]
fn the_time_limit_holds_while_nobody_writes_the_request() {
    let mut probe = Command::new(env!("CARGO_BIN_EXE_peregrine-probe"))
        .args(["--timeout-ms", "200", "chat", "--provider", "offline"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Held open until the command has ended.
    let input = probe.stdin.take();
    let output = probe.wait_with_output().unwrap();
    drop(input);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains(r#""code":"timeout""#), "{text}");
}

fn plan_file(name: &str, text: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("peregrine-probe-{}-{name}.json", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_plan_prints_its_steps_and_a_summary() {
    let steps = json!([
        {"id": "a", "action": "sleep", "parameters": {"ms": 60_000, "name": "falcon"}},
        {"id": "b", "action": "sleep", "parameters": {"ms": 30_000}, "checks": [{"action": "check", "policy": "gate", "parameters": {"passed": false, "message": "no"}}]},
        {"id": "c", "action": "echo", "parameters": ["$a.name", "after ${a.ms} ms, for $$5"]},
        {"id": "d", "action": "echo", "parameters": "$b"},
        {"id": "e", "action": "panic", "parameters": {"message": "boom"}},
        {"id": "f", "action": "fail", "parameters": {"times": 1}, "retries": {"max": 1, "wait": 0}},
        {"id": "g", "action": "sleep", "parameters": {"ms": 1_000}, "timeout": "0.5s", "on_failure": "optional"},
    ]);
    let path = plan_file("run", &steps.to_string());
    let path = path.to_str().unwrap();
    let output = probe(&["plan", "run", path, "--simulate", "--max-parallel", "2"], "");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines = lines(&output);
    let step = |id: &str| lines.iter().find(|line| line["id"] == id).unwrap();
    assert_eq!(lines.len(), 7 + 1 + 1);
    assert_eq!(
        *step("c"),
        json!({"id": "c", "start_ms": 60_000, "end_ms": 60_000, "state": "succeeded", "attempts": 1, "queued_ms": 0,
            "result": ["falcon", "after 60000 ms, for $5"]})
    );
    assert_eq!(
        (
            &step("d")["state"],
            &step("d")["cause_kind"],
            &step("d")["caused_by"]
        ),
        (&json!("skipped"), &json!("check_failed"), &json!("b"))
    );
    assert_eq!(
        (&step("e")["state"], &step("e")["cause"]),
        (&json!("failed"), &json!("the action panicked: boom"))
    );
    assert_eq!(
        (&step("f")["state"], &step("f")["attempts"]),
        (&json!("succeeded"), &json!(2))
    );
    assert_eq!(step("g")["cause_kind"], "timeout");
    let check = lines.iter().find_map(|line| line.get("check")).unwrap();
    assert_eq!((&check["step"], &check["cause"]), (&json!("b"), &json!("no")));
    let summary = lines.last().unwrap();
    assert_eq!(
        (
            &summary["makespan_ms"],
            &summary["critical_path_ms"],
            &summary["critical_path"]
        ),
        (&json!(60_000), &json!(60_000), &json!(["a", "c"]))
    );
    assert_eq!(
        (&summary["outcome"], &summary["max_parallel"]),
        (&json!("failed"), &json!(2))
    );
    assert_eq!(
        summary["steps"],
        json!({"succeeded": 4, "failed": 2, "skipped": 1, "cancelled": 0})
    );

    // In real time it really waits.
    let real = plan_file(
        "real",
        r#"{"steps": [{"id": "a", "action": "sleep", "parameters": {"ms": 30}}]}"#,
    );
    let begun = std::time::Instant::now();
    let output = probe(&["plan", "run", real.to_str().unwrap()], "");
    assert!(output.status.success() && begun.elapsed().as_millis() >= 30);
    // And is ended by the limit of every command.
    let output = probe(&["plan", "run", path, "--timeout-ms", "50"], "");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(self::lines(&output).pop().unwrap()["error"]["code"], "timeout");
    for file in [path, real.to_str().unwrap()] {
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_plan_that_cannot_run_is_an_invalid_request() {
    for (name, text, expected) in [
        ("syntax", "[{", "the text: EOF"),
        (
            "cycle",
            r#"[{"id": "a", "action": "echo", "parameters": "$a"}]"#,
            "a -> a",
        ),
        (
            "action",
            r#"[{"id": "a", "action": "launch"}]"#,
            "sleep, echo, fail, panic, check",
        ),
        (
            "field",
            r#"[{"id": "a", "action": "echo", "parameters": {"x": 1}}, {"id": "b", "action": "echo", "parameters": "$a.y"}]"#,
            "there is no field `y`",
        ),
    ] {
        let path = plan_file(name, text);
        let output = probe(&["plan", "run", path.to_str().unwrap()], "");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let lines = lines(&output);
        assert_eq!(lines.len(), 1, "nothing has run");
        let error = &lines[0]["error"];
        assert_eq!(error["code"], "invalid_request");
        assert!(error["message"].as_str().unwrap().contains(expected), "{error}");
    }
    let output = probe(&["plan", "run", "nowhere.json"], "");
    assert_eq!(lines(&output)[0]["error"]["code"], "invalid_request");
    let output = probe(&["plan", "run", "nowhere.json", "--max-parallel", "0"], "");
    assert_eq!(output.status.code(), Some(2));
}
