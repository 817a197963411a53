//! Order of events, cutting, stream options and stream styles.

use peregrine_testkit::server::{Dialect, LineEnding, Reply, StreamStyle};
use serde_json::{Value, json};

use crate::client::{Answer, End, call};
use crate::decode::{self, DIALECTS};
use crate::server;

async fn stream(dialect: Dialect, reply: Reply) -> Answer {
    let server = server().await;
    server.push(reply);
    let (target, headers, body) = decode::request(dialect, true);
    call(server.addr(), &target, &headers, &body).await.unwrap()
}

#[tokio::test]
async fn chat_chunks_come_in_the_order_of_the_service() {
    let answer = stream(
        Dialect::OpenAiChat,
        Reply::text("a b").with_tool_call("c1", "t", json!({"x": 1})),
    )
    .await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    assert!(answer.header("x-request-id").is_some());
    let chunks = answer.event_json();
    assert_eq!(
        chunks[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": "", "refusal": null})
    );
    assert_eq!(chunks[1]["choices"][0]["delta"], json!({"content": "a"}));
    assert_eq!(chunks[2]["choices"][0]["delta"], json!({"content": " b"}));
    let opened =
        json!({"index": 0, "id": "c1", "type": "function", "function": {"name": "t", "arguments": ""}});
    assert_eq!(chunks[3]["choices"][0]["delta"]["tool_calls"], json!([opened]));
    assert_eq!(
        chunks[4]["choices"][0]["delta"]["tool_calls"][0]["function"],
        json!({"arguments": "{\"x\":1}"})
    );
    assert_eq!(chunks[5]["choices"][0]["delta"], json!({}));
    assert_eq!(chunks[5]["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(chunks[6]["choices"], json!([]));
    assert!(chunks[6]["usage"]["total_tokens"].is_u64());
    assert!(chunks[..6].iter().all(|chunk| chunk["usage"].is_null()));
    assert_eq!(chunks.len(), 7);
}

#[tokio::test]
async fn the_usage_chunk_is_sent_only_if_it_was_asked_for() {
    let server = server().await;
    for (options, has_usage) in [
        (Value::Null, false),
        (json!({"include_usage": false}), false),
        (json!({"include_usage": true}), true),
    ] {
        let body = json!({"model": "m", "stream": true, "stream_options": options, "messages": [{"role": "user", "content": "x"}]});
        let answer = call(server.addr(), "/v1/chat/completions", &[], &body)
            .await
            .unwrap();
        let chunks = answer.event_json();
        assert_eq!(
            chunks.iter().any(|chunk| chunk["choices"] == json!([])),
            has_usage,
            "{options}"
        );
        assert!(
            chunks
                .iter()
                .all(|chunk| chunk.get("usage").is_some() == has_usage),
            "{options}"
        );
    }
}

#[tokio::test]
async fn responses_and_messages_events_come_in_the_order_of_the_service() {
    let reply = Reply::text("a b")
        .with_reasoning("r", Some("s"))
        .with_tool_call("c", "t", json!({}))
        .with_pieces(1);
    let names = |answer: &Answer| {
        answer
            .events()
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    let answer = stream(Dialect::OpenAiResponses, reply.clone()).await;
    assert_eq!(
        names(&answer),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let answer = stream(Dialect::Anthropic, reply).await;
    assert_eq!(
        names(&answer),
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    let events = answer.event_json();
    assert_eq!(
        events[4]["delta"],
        json!({"type": "signature_delta", "signature": "s"})
    );
    // A call without arguments has one empty piece and nothing else.
    assert_eq!(
        events[10]["delta"],
        json!({"type": "input_json_delta", "partial_json": ""})
    );
    assert_eq!(events[0]["message"]["usage"]["output_tokens"], 1);
}

#[tokio::test]
async fn gemini_streams_an_array_without_alt_sse() {
    let server = server().await;
    server.push_all([Reply::text("one two three"), Reply::text("one two three")]);
    let body = json!({"contents": [{"parts": [{"text": "x"}]}]});
    let path = "/v1beta/models/gemini-x:streamGenerateContent";
    let array = call(server.addr(), path, &[], &body).await.unwrap();
    assert_eq!(
        array.header("content-type"),
        Some("application/json; charset=UTF-8")
    );
    assert_eq!(array.json().as_array().unwrap().len(), 4);
    let sse = call(server.addr(), &format!("{path}?key=k&alt=sse"), &[], &body)
        .await
        .unwrap();
    assert!(sse.text().ends_with("\r\n\r\n") && !sse.text().replace("\r\n", "").contains('\n'));
    let (array, sse) = (
        decode::stream(Dialect::Gemini, &array),
        decode::stream(Dialect::Gemini, &sse),
    );
    assert_eq!(
        (array.text.as_str(), array.model.as_str()),
        ("one two three", "gemini-x")
    );
    assert_eq!(array.text, sse.text);
}

#[tokio::test]
async fn ollama_streams_unless_told_not_to() {
    let server = server().await;
    server.push_all([Reply::text("a b c"), Reply::text("a b c"), Reply::text("a b c")]);
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    let lines = call(server.addr(), "/api/chat", &[], &body).await.unwrap();
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(lines.lines().len(), 4);
    let body = json!({"model": "m", "stream": false, "messages": [{"role": "user", "content": "x"}]});
    let whole = call(server.addr(), "/api/chat", &[], &body).await.unwrap();
    assert_eq!(whole.json()["message"]["content"], "a b c");
    assert_eq!(
        whole.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    let generate = call(
        server.addr(),
        "/api/generate",
        &[],
        &json!({"model": "m", "prompt": "x"}),
    )
    .await
    .unwrap();
    assert_eq!(decode::stream(Dialect::Ollama, &generate).text, "a b c");
}

#[tokio::test]
async fn pieces_are_as_prescribed() {
    for dialect in DIALECTS {
        let server = server().await;
        server.push_all([
            Reply::text("x".repeat(640)).with_pieces(64),
            Reply::text_pieces(["ab", "c", "def"]),
        ]);
        let (target, headers, body) = decode::request(dialect, true);
        let many = call(server.addr(), &target, &headers, &body).await.unwrap();
        let few = call(server.addr(), &target, &headers, &body).await.unwrap();
        assert_eq!(many.text().matches("\"xxxxxxxxxx\"").count(), 64, "{dialect:?}");
        for piece in ["\"ab\"", "\"c\"", "\"def\""] {
            assert_eq!(few.text().matches(piece).count(), 1, "{dialect:?} {piece}");
        }
    }
}

#[tokio::test]
async fn every_style_reads_the_same() {
    let styles = [
        StreamStyle::new().with_line_ending(LineEnding::CrLf),
        StreamStyle::new().with_line_ending(LineEnding::Cr),
        StreamStyle::new().with_comments().with_pings(),
        StreamStyle::new().with_bom().without_space(),
        StreamStyle::new().with_multi_line_data(),
        StreamStyle::new().without_final_blank_line(),
    ];
    for dialect in [Dialect::OpenAiChat, Dialect::OpenAiResponses, Dialect::Gemini] {
        let plain = stream(dialect, Reply::text("one two")).await.event_json();
        for style in &styles {
            let answer = stream(dialect, Reply::text("one two").with_style(style.clone())).await;
            let mut events = answer.events();
            events.retain(|(name, _)| name != "ping");
            let events: Vec<Value> = events
                .iter()
                .filter(|(_, data)| data != "[DONE]")
                .map(|(_, data)| serde_json::from_str(data).unwrap())
                .collect();
            assert_eq!(events, plain, "{dialect:?} {style:?}");
        }
    }
    let answer = stream(
        Dialect::OpenAiChat,
        Reply::text("x").with_style(StreamStyle::new().without_final_blank_line()),
    )
    .await;
    assert!(answer.text().ends_with("data: [DONE]"));
    assert_eq!(answer.end, End::Whole);
    let answer = stream(
        Dialect::Ollama,
        Reply::text("x").with_style(StreamStyle::new().with_comments()),
    )
    .await;
    assert!(answer.text().starts_with('\n') && answer.lines().len() == 2);
}
