//! Answers of the Messages API: recorded ones, the same answer whole and streamed, and broken ones.

use peregrine_core::{
    ChatRequest, ChatResponse, Finish, Message, OpaquePart, Part, ProviderData, ReasoningPart, TextPart,
    ToolCall, Usage,
};
use peregrine_providers::wire::anthropic::Anthropic;
use serde_json::{Value, json};

use crate::support::{decode, encode, sse, stream};
use crate::{mangle, recordings};

#[test]
fn recorded_answers_are_read() {
    recordings::check("anthropic", |_| Box::new(Anthropic::new()));
}

/// The recorded whole answers that are successes.
fn recorded() -> Vec<(&'static str, Value)> {
    let exchanges = recordings::exchanges("anthropic").unwrap_or_default();
    exchanges
        .into_iter()
        .filter(|exchange| !exchange.is_stream() && exchange.status < 400)
        .map(|exchange| {
            let body = serde_json::from_str(&exchange.body).expect("a recorded answer is JSON");
            (exchange.name.as_str(), body)
        })
        .collect()
}

#[test]
fn every_recorded_answer_is_the_same_when_streamed() {
    for (name, body) in recorded() {
        let whole = decode(&Anthropic::new(), body.to_string()).expect(name);
        let streamed = stream(&Anthropic::new(), as_stream(&body).as_bytes()).expect(name);
        assert_eq!(streamed, whole, "{name}");
    }
}

#[test]
fn every_recorded_answer_goes_back_word_for_word() {
    for (name, body) in recorded() {
        let whole = decode(&Anthropic::new(), body.to_string()).expect(name);
        let request = ChatRequest::new([Message::user("q"), whole.message]);
        let sent = encode(&Anthropic::new(), "m", &request).expect(name);
        let sent: Value = serde_json::from_str(&sent).expect("a body is JSON");
        let expected: Vec<Value> = body["content"]
            .as_array()
            .expect("a content")
            .iter()
            .filter(|block| !(block["type"] == "text" && block["text"] == ""))
            .map(|block| {
                let mut block = block.clone();
                let is_text = block["type"] == "text";
                let fields = block.as_object_mut().expect("a block");
                fields.retain(|name, value| {
                    !(is_text && name == "citations" && (value.is_null() || *value == json!([])))
                });
                block
            })
            .collect();
        match sent["messages"].get(1) {
            Some(turn) => assert_eq!(turn["content"], Value::Array(expected), "{name}"),
            None => assert!(expected.is_empty(), "{name}"),
        }
    }
}

/// A whole answer as the provider would stream it, texts cut into small pieces.
fn as_stream(body: &Value) -> String {
    let mut frames = Vec::new();
    let usage = &body["usage"];
    let mut early = usage.clone();
    if let Some(early) = early.as_object_mut() {
        early.insert("output_tokens".into(), json!(1));
        early.retain(|name, _| !matches!(name.as_str(), "server_tool_use" | "output_tokens_details"));
    }
    frames.push(
        json!({"type": "message_start", "message": {"id": body["id"], "model": body["model"],
        "type": "message", "role": "assistant", "content": [], "stop_reason": null, "usage": early}}),
    );
    for (index, block) in body["content"].as_array().into_iter().flatten().enumerate() {
        let mut start = block.clone();
        let mut deltas = Vec::new();
        let mut grow = |field: &str, kind: &str, name: &str, empty: Value| {
            let Some(value) = start.get_mut(field) else { return };
            let text = match value.as_str() {
                Some(text) => text.to_owned(),
                None => value.to_string(),
            };
            *value = empty;
            deltas.push(json!({"type": kind, name: ""}));
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let end = rest.char_indices().nth(7).map_or(rest.len(), |(end, _)| end);
                deltas.push(json!({"type": kind, name: &rest[..end]}));
                rest = &rest[end..];
            }
        };
        match block["type"].as_str() {
            Some("text") => grow("text", "text_delta", "text", json!("")),
            Some("thinking") => {
                grow("thinking", "thinking_delta", "thinking", json!(""));
                start["signature"] = json!("");
                deltas.push(json!({"type": "signature_delta", "signature": block["signature"]}));
            }
            Some("tool_use" | "server_tool_use" | "mcp_tool_use") => {
                grow("input", "input_json_delta", "partial_json", json!({}));
            }
            _ => {}
        }
        if let Some(citations) = block["citations"].as_array() {
            start["citations"] = json!([]);
            deltas.extend(
                citations
                    .iter()
                    .map(|citation| json!({"type": "citations_delta", "citation": citation})),
            );
        }
        frames.push(json!({"type": "content_block_start", "index": index, "content_block": start}));
        frames.push(json!({"type": "ping"}));
        frames.extend(
            deltas
                .into_iter()
                .map(|delta| json!({"type": "content_block_delta", "index": index, "delta": delta})),
        );
        frames.push(json!({"type": "content_block_stop", "index": index}));
    }
    let mut late = usage.clone();
    if let Some(late) = late.as_object_mut() {
        late.retain(|name, _| !matches!(name.as_str(), "service_tier" | "inference_geo" | "cache_creation"));
    }
    frames.push(
        json!({"type": "message_delta", "context_management": body["context_management"],
        "delta": {"stop_reason": body["stop_reason"], "stop_sequence": body["stop_sequence"],
                  "stop_details": body["stop_details"], "container": body["container"]},
        "usage": late}),
    );
    frames.push(json!({"type": "message_stop"}));
    sse(frames.iter().map(Value::to_string))
}

fn message(content: &Value, stop_reason: &str) -> Value {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": content,
        "stop_reason": stop_reason, "stop_sequence": null,
        "usage": {"input_tokens": 10, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 5,
                  "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 2},
                  "service_tier": "standard"}})
}

fn answer(parts: Vec<Part>, finish: Finish) -> ChatResponse {
    let mut answer = ChatResponse::new(parts, finish)
        .with_model("claude-x")
        .with_metadata("service_tier", "standard");
    answer.id = Some("msg_1".to_owned());
    answer.usage = Some(Usage {
        input_tokens: 18,
        cached_input_tokens: 5,
        cache_write_tokens: 3,
        output_tokens: 7,
        reasoning_tokens: 2,
    });
    answer
}

fn own(value: Value) -> Option<ProviderData> {
    Some(ProviderData::new("anthropic", value))
}

pub(crate) fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
    ToolCall::new(id, name, arguments)
}

pub(crate) fn opaque(value: Value) -> Part {
    Part::Opaque(OpaquePart {
        dialect: "anthropic".into(),
        kind: value["type"].as_str().unwrap_or_default().into(),
        value,
    })
}

/// Checks both forms of an answer.
fn check_pair(body: &Value, expected: &ChatResponse) {
    assert_eq!(
        decode(&Anthropic::new(), body.to_string()).expect("an answer"),
        *expected,
        "whole"
    );
    assert_eq!(
        stream(&Anthropic::new(), as_stream(body).as_bytes()).expect("an answer"),
        *expected,
        "streamed"
    );
}

#[test]
fn text_reasoning_calls_and_opaque_blocks_whole_and_streamed() {
    check_pair(
        &message(
            &json!([{"type": "text", "text": "Hé\n"}, {"type": "text", "text": ""}]),
            "end_turn",
        ),
        &answer(vec![Part::text("Hé\n")], Finish::Stop),
    );
    let citation = json!({"type": "char_location", "cited_text": "c"});
    check_pair(
        &message(
            &json!([{"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "redacted_thinking", "data": "xyz"},
                {"type": "thinking", "thinking": "", "signature": "only"},
                {"type": "text", "text": "a", "citations": [citation]},
                {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q", "n": 1.5}},
                {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"encrypted_content": "e"}]},
                {"type": "text", "text": "b"}]),
            "pause_turn",
        ),
        &answer(
            vec![
                Part::Reasoning(ReasoningPart {
                    text: "hm".into(),
                    data: own(json!({"signature": "sig"})),
                }),
                opaque(json!({"type": "redacted_thinking", "data": "xyz"})),
                Part::Reasoning(ReasoningPart {
                    text: String::new(),
                    data: own(json!({"signature": "only"})),
                }),
                Part::Text(TextPart {
                    text: "a".into(),
                    data: own(json!({"citations": [citation]})),
                }),
                opaque(
                    json!({"type": "server_tool_use", "id": "s1", "name": "web_search",
                              "input": {"query": "q", "n": 1.5}}),
                ),
                opaque(json!({"type": "web_search_tool_result", "tool_use_id": "s1",
                              "content": [{"encrypted_content": "e"}]})),
                Part::text("b"),
            ],
            Finish::Other("pause_turn".into()),
        ),
    );
    let mut with_caller = call("t2", "g", r#"{"a":[1,{"b":"x y"}]}"#);
    with_caller.data = own(json!({"caller": {"type": "direct"}}));
    check_pair(
        &message(
            &json!([{"type": "text", "text": "I call."},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
                {"type": "tool_use", "id": "t2", "name": "g", "input": {"a": [1, {"b": "x y"}]},
                 "caller": {"type": "direct"}}]),
            "tool_use",
        ),
        &answer(
            vec![
                Part::text("I call."),
                Part::ToolCall(call("t1", "f", "{}")),
                Part::ToolCall(with_caller),
            ],
            Finish::ToolCalls,
        ),
    );
}

#[test]
fn every_stop_reason_whole_and_streamed() {
    let text = || json!([{"type": "text", "text": "{\"a\":1}"}]);
    let tool = || json!([{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]);
    let says = || vec![Part::text("{\"a\":1}")];
    let calls = || vec![Part::ToolCall(call("t", "f", r#"{"a":1}"#))];
    for (word, content, parts, finish) in [
        ("end_turn", text(), says(), Finish::Stop),
        ("end_turn", tool(), calls(), Finish::ToolCalls),
        ("tool_use", tool(), calls(), Finish::ToolCalls),
        ("max_tokens", text(), says(), Finish::Length),
        ("max_tokens", tool(), calls(), Finish::Length),
        ("pause_turn", text(), says(), Finish::Other("pause_turn".into())),
        ("compaction", text(), says(), Finish::Other("compaction".into())),
    ] {
        check_pair(&message(&content, word), &answer(parts, finish));
    }
    let mut stopped = message(&text(), "stop_sequence");
    stopped["stop_sequence"] = json!("END");
    check_pair(
        &stopped,
        &answer(says(), Finish::Stop).with_metadata("stop_sequence", "END"),
    );
    let mut refused = message(&json!([]), "refusal");
    refused["stop_details"] = json!({"category": "bio"});
    check_pair(
        &refused,
        &answer(vec![], Finish::ContentFilter).with_metadata("stop_details", json!({"category": "bio"})),
    );
    let mut full = message(&text(), "model_context_window_exceeded");
    full["container"] = json!({"id": "c"});
    full["context_management"] = json!({"applied_edits": []});
    full["usage"]["server_tool_use"] = json!({"web_search_requests": 2});
    check_pair(
        &full,
        &answer(says(), Finish::Length)
            .with_metadata("stop_reason", "model_context_window_exceeded")
            .with_metadata("container", json!({"id": "c"}))
            .with_metadata("context_management", json!({"applied_edits": []}))
            .with_metadata("server_tool_use", json!({"web_search_requests": 2})),
    );
}

#[test]
fn broken_bytes_never_panic() {
    let made = message(
        &json!([{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "é"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1]}},
            {"type": "server_tool_use", "id": "s", "name": "w", "input": {"q": 1}}]),
        "tool_use",
    );
    mangle::survive(&Anthropic::new(), &made.to_string(), false, 1, 3000);
    mangle::survive(&Anthropic::new(), &as_stream(&made), true, 2, 3000);
    for (seed, exchange) in (3..).zip(recordings::exchanges("anthropic").unwrap_or_default()) {
        let rounds = 400_000 / exchange.body.len().clamp(2_000, 40_000);
        mangle::survive(
            &Anthropic::new(),
            &exchange.body,
            exchange.is_stream(),
            seed,
            rounds,
        );
    }
}
