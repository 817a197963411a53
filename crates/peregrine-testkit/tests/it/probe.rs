//! The probe as its users see it: lines in, lines out, an exit status.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use peregrine_testkit::server::{At, Fault, LlmServer, Reply};
use serde_json::{Value, json};

const HELLO: &str = r#"{"model": "m", "messages": [{"role": "user", "content": "hello"}]}"#;

fn probe(arguments: &[&str], input: &str) -> Output {
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

fn lines(output: &Output) -> Vec<Value> {
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
