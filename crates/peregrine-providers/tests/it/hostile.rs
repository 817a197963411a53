//! Answers that mean harm: bombs of structure, credentials quoted back, noise behind the end.

use bytes::Bytes;
use peregrine_core::{ChatModel as _, ChatRequest, Error, ErrorKind, ModelHandle, Secret};
use peregrine_providers::{Connector, RetryPolicy};
use peregrine_testkit::server::{LlmServer, Reply};
use serde_json::json;

const KEY: &str = "sk-do-not-show-7f3a";

fn model(spec: &str, url: &str) -> ModelHandle {
    Connector::new()
        .with_base_url(url)
        .with_api_key(Secret::new(KEY))
        .with_retry(RetryPolicy::new(0))
        .chat(spec)
        .unwrap()
}

/// What a stream ends with, whether it begins or not.
async fn stream_error(model: &ModelHandle) -> Error {
    match model.stream(&ChatRequest::user("q")).await {
        Ok(stream) => stream.collect().await.unwrap_err(),
        Err(error) => error,
    }
}

#[tokio::test]
async fn small_bytes_that_need_much_memory_are_refused_before_they_are_read() {
    let server = LlmServer::start().await.unwrap();
    let request = ChatRequest::user("q");
    let (objects, numbers) = ("{},".repeat(200_000), "0,".repeat(1_100_000));
    let cases = [
        ("openai/m", format!(r#"{{"choices":[{objects}{{}}]}}"#)),
        (
            "openai/m",
            format!(r#"{{"choices":[{{"message":{{"content":"a","extra_content":[{numbers}0]}}}}]}}"#),
        ),
        (
            "openai-responses/m",
            format!(r#"{{"object":"error","error":[{numbers}0]}}"#),
        ),
        (
            "anthropic/m",
            format!(r#"{{"content":[{objects}{{}}],"stop_reason":"end_turn"}}"#),
        ),
        (
            "gemini/m",
            format!(r#"{{"candidates":[{{"content":{{"parts":[{objects}{{}}]}},"finishReason":"STOP"}}]}}"#),
        ),
        (
            "ollama/m",
            format!(r#"{{"message":{{"tool_calls":[{objects}{{}}]}},"done":true}}"#),
        ),
    ];
    for (spec, body) in cases {
        let model = model(spec, &server.url());
        server.set_reply(Reply::raw_body(200, "application/json", body.clone()));
        let whole = model.complete(&request).await.unwrap_err();
        assert_eq!(whole.kind(), ErrorKind::ResponseTooLarge, "{spec}: {whole}");
        let streamed = stream_error(&model).await;
        assert_eq!(
            streamed.kind(),
            ErrorKind::ResponseTooLarge,
            "{spec}, a body for a stream: {streamed}"
        );
        let frame = if spec == "ollama/m" {
            format!("{body}\n")
        } else {
            format!("data: {body}\n\n")
        };
        server.set_reply(Reply::raw_stream("text/event-stream", vec![frame.into()]));
        let streamed = stream_error(&model).await;
        assert_eq!(
            streamed.kind(),
            ErrorKind::ResponseTooLarge,
            "{spec}, an event: {streamed}"
        );
    }
}

#[tokio::test]
async fn many_small_parts_end_where_one_answer_ends() {
    let server = LlmServer::start().await.unwrap();
    let parts =
        r#"data: {"candidates":[{"content":{"parts":["#.to_owned() + &"{},".repeat(999) + "{}]}}]}\n\n";
    let pieces = vec![Bytes::from(parts); 140];
    server.set_reply(Reply::raw_stream("text/event-stream", pieces));
    let error = stream_error(&model("gemini/m", &server.url())).await;
    assert_eq!(error.kind(), ErrorKind::ResponseTooLarge, "{error}");
}

#[tokio::test]
async fn a_key_that_is_quoted_in_codes_and_headers_or_cut_in_two_is_not_shown() {
    let server = LlmServer::start().await.unwrap();
    let request = ChatRequest::user("q");
    let fields = json!({"error": {"message": "m", "code": KEY, "type": KEY}}).to_string();
    // The message is cut at 500 characters, which is in the middle of the key.
    let long = "x".repeat(490) + KEY;
    for (status, body) in [(401, fields.clone()), (500, long), (200, fields)] {
        let reply = Reply::raw_body(status, "application/json", body).with_header("x-request-id", KEY);
        server.set_reply(reply);
        let error = model("openai/m", &server.url())
            .complete(&request)
            .await
            .unwrap_err();
        let shown = format!("{error} {error:?} {:?}", error.request_id());
        assert!(!shown.contains(&KEY[..8]), "{shown}");
    }
}

#[tokio::test]
async fn noise_behind_the_end_spoils_nothing_however_it_is_cut() {
    let server = LlmServer::start().await.unwrap();
    let answer = concat!(
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n",
        "data: [DONE]\n\n"
    );
    let noise: &[u8] = b"data: \xff\xfe\n\n";
    let joined = Bytes::from([answer.as_bytes(), noise].concat());
    for pieces in [vec![joined], vec![answer.into(), Bytes::from_static(noise)]] {
        server.set_reply(Reply::raw_stream("text/event-stream", pieces));
        let model = model("openai/m", &server.url());
        let mut stream = model.stream(&ChatRequest::user("q")).await.unwrap();
        let mut events = 0;
        while let Some(event) = stream.next().await {
            event.unwrap();
            events += 1;
        }
        assert_eq!(events, 2);
    }
}
