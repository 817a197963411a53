//! What programs read: one object, lines of a stream, errors.

use peregrine_testkit::server::{LlmServer, Reply, Usage};
use serde_json::{Value, json};

use crate::run::World;

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn one_object_says_what_was_answered_and_how() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    server.push(
        Reply::tool_call("a", "search_files", json!({"query": "pigeons"}))
            .with_tool_call("b", "read_file", json!({"path": "README.md"}))
            .with_usage(Usage::new(100, 10)),
    );
    server.push(Reply::text("Pigeons.").with_usage(Usage::new(200, 5)));
    let ran = world
        .run_against(&server, &["ask", "--json", "What do they hunt?", "docs"])
        .ok();
    assert_eq!(ran.out.lines().count(), 1);
    let answer = ran.json();
    assert_eq!(
        keys(&answer),
        [
            "answer",
            "model",
            "why",
            "usage",
            "cost",
            "steps",
            "tool_calls",
            "finish",
            "elapsed_ms"
        ]
    );
    assert_eq!(answer["answer"], "Pigeons.");
    assert_eq!(answer["model"], "openai/test-model");
    assert_eq!(answer["usage"]["input_tokens"], 300);
    assert_eq!(answer["usage"]["output_tokens"], 15);
    assert_eq!(answer["cost"], json!({"status": "unpriced"}));
    assert_eq!((&answer["steps"], &answer["finish"]), (&json!(2), &json!("stop")));
    assert_eq!(
        answer["tool_calls"],
        json!([
            {"name": "search_files", "arguments": {"query": "pigeons"}, "ok": true},
            {"name": "read_file", "arguments": {"path": "README.md"}, "ok": false},
        ])
    );
    assert!(answer["elapsed_ms"].is_u64());
}

#[test]
fn a_known_price_is_told_only_for_the_providers_own_address() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    server.set_reply(Reply::text("hello").with_usage(Usage::new(1_000_000, 0)));
    let ran = world
        .run(&[
            "ask",
            "--json",
            "Hi?",
            "--base-url",
            &server.url(),
            "--model",
            "openai/gpt-4o-mini",
        ])
        .ok();
    assert_eq!(
        ran.json()["cost"],
        json!({"status": "unpriced"}),
        "another server's price is not known"
    );
    let moved = World::new().with_variable("OPENAI_BASE_URL", &server.url());
    let ran = moved
        .run(&["ask", "--json", "Hi?", "--model", "openai/gpt-4o-mini"])
        .ok();
    assert_eq!(ran.json()["cost"], json!({"status": "unpriced"}));
    // Replayed, the same exchange counts as the provider's.
    let tape = [
        "ask",
        "--json",
        "Hi?",
        "--model",
        "openai/gpt-4o-mini",
        "--record",
        "tape.jsonl",
    ];
    moved.run(&tape).ok();
    world.write(
        "tape.jsonl",
        std::fs::read(moved.path().join("tape.jsonl")).unwrap(),
    );
    let replay = [
        "ask",
        "--json",
        "Hi?",
        "--model",
        "openai/gpt-4o-mini",
        "--replay",
        "tape.jsonl",
    ];
    assert_eq!(
        world.run(&replay).ok().json()["cost"],
        json!({"status": "priced", "nano_usd": 150_000_000})
    );
}

#[test]
fn a_stream_is_lines_of_events_and_then_the_object() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    server.push(Reply::tool_call("a", "list_files", json!({})));
    server.push(Reply::text_pieces(["Pi", "ge", "ons."]));
    let ran = world
        .run_against(
            &server,
            &["ask", "--json", "--stream", "What do they hunt?", "docs"],
        )
        .ok();
    let lines: Vec<Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let types: Vec<_> = lines.iter().filter_map(|line| line["type"].as_str()).collect();
    assert_eq!(types[..2], ["model", "step"]);
    for expected in ["tool_call_end", "tool_run", "tool_result", "text_delta", "done"] {
        assert!(types.contains(&expected), "{expected} in {types:?}");
    }
    // What belongs together stands together: the model's own events between its step and what they lead to.
    let own = |kind: &&str| !["model", "step", "tool_run", "tool_result"].contains(kind);
    let mut order: Vec<&str> = types
        .iter()
        .map(|kind| if own(kind) { "own" } else { kind })
        .collect();
    order.dedup();
    let expected = ["model", "step", "own", "tool_run", "tool_result", "step", "own"];
    assert_eq!(order, expected, "{types:?}");
    assert_eq!(
        types.iter().filter(|kind| **kind == "done").count(),
        2,
        "{types:?}"
    );
    let deltas = lines.iter().filter(|line| line["type"] == "text_delta");
    let text: String = deltas.map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(text, "Pigeons.");
    assert_eq!(ran.json()["answer"], "Pigeons.");
}

#[test]
fn tools_are_listed_in_the_order_in_which_the_model_asked() {
    let world = World::new();
    // The slow one first: there is much to search. One that does not exist needs no time at all.
    world.write("docs/long.md", "Peregrines nest on cliffs.\n\n".repeat(20_000));
    let server = LlmServer::start_blocking().unwrap();
    server.push(
        Reply::tool_call("a", "search_files", json!({"query": "where do peregrines nest"}))
            .with_tool_call("b", "made_up", json!({}))
            .with_tool_call("c", "read_file", json!({"path": "docs/food.md"}))
            .with_tool_call_text("d", "read_file", "{\"path\": "),
    );
    server.push(Reply::text("On cliffs."));
    let ran = world
        .run_against(&server, &["ask", "--json", "Where do they nest?", "docs"])
        .ok();
    let expected = json!([
        {"name": "search_files", "arguments": {"query": "where do peregrines nest"}, "ok": true},
        {"name": "made_up", "arguments": {}, "ok": false},
        {"name": "read_file", "arguments": {"path": "docs/food.md"}, "ok": true},
        {"name": "read_file", "arguments": "{\"path\": ", "ok": false},
    ]);
    assert_eq!(ran.json()["tool_calls"], expected);
}

#[test]
fn an_error_is_an_object_too() {
    let world = World::new();
    let server = LlmServer::start_blocking().unwrap();
    server.push(Reply::tool_call("a", "list_files", json!({})));
    server.push(Reply::error(400, "no such thing"));
    let ran = world.run_against(&server, &["ask", "--json", "What?", "docs"]);
    assert_eq!(ran.code, Some(1));
    let failed = ran.json();
    assert_eq!(failed["error"]["code"], "invalid_request");
    assert_eq!(failed["error"]["retryable"], false);
    assert!(
        failed["error"]["request_id"].as_str().unwrap().starts_with("req"),
        "{failed}"
    );
    assert!(
        failed["error"]["message"]
            .as_str()
            .unwrap()
            .contains("no such thing")
    );
    assert_eq!(failed["tool_calls"][0]["name"], "list_files");
    assert!(
        ran.err.contains("error: ") && ran.err.contains("no such thing"),
        "{ran:?}"
    );

    server.set_reply(Reply::tool_call("a", "list_files", json!({})));
    let limit = world
        .run_against(&server, &["ask", "--json", "What?", "docs", "--max-steps", "2"])
        .json();
    assert_eq!(limit["error"]["code"], "refused");

    let missing = world.run(&["ask", "--json", "What?", "nowhere.md"]).json();
    assert_eq!(missing["error"]["code"], "not_found");
    let nobody = world
        .run(&[
            "ask",
            "--json",
            "What?",
            "--model",
            "openai/x",
            "--base-url",
            "http://127.0.0.1:1",
        ])
        .json();
    assert_eq!(nobody["error"]["code"], "connect");
    assert_eq!(nobody["error"]["retryable"], true);
    let keyless = world
        .run(&["ask", "--json", "What?", "--model", "openai/gpt-4o"])
        .json();
    assert_eq!(keyless["error"]["code"], "missing_credential");
    assert!(
        keyless["error"]["message"]
            .as_str()
            .unwrap()
            .contains("OPENAI_API_KEY")
    );
    let unknown = world
        .run(&["ask", "--json", "What?", "--model", "opnai/gpt-4o"])
        .json();
    assert_eq!(unknown["error"]["code"], "config");
}
