//! The real clients over real sockets, against a server that can do anything wrong.

use std::time::{Duration, Instant};

use peregrine_core::{
    ChatEvent, ChatModel as _, ChatRequest, ChatResponse, Error, ErrorKind, Message, ModelHandle, Secret,
    TimeoutStage, ToolSpec,
};
use peregrine_providers::{Connector, HttpConfig, RetryPolicy};
use peregrine_testkit::server::{
    ApiError, At, Blackhole, ConnectionFault, Fault, LineEnding, LlmServer, RefusedAddr, Reply, StreamStyle,
};
use serde_json::{Value, json};

const KEY: &str = "sk-do-not-show-7f3a";
const DIALECTS: [&str; 5] = [
    "openai/m",
    "openai-responses/m",
    "anthropic/m",
    "gemini/m",
    "ollama/m",
];

fn connector(url: &str) -> Connector {
    Connector::new()
        .with_base_url(url)
        .with_api_key(Secret::new(KEY))
        .with_retry(RetryPolicy::new(0))
}

pub(crate) fn model(spec: &str, url: &str) -> ModelHandle {
    connector(url).chat(spec).unwrap()
}

/// Limits that a test can wait for.
fn impatient(spec: &str, url: &str) -> ModelHandle {
    let limits = HttpConfig::default()
        .with_connect_timeout(Duration::from_millis(300))
        .with_first_byte_timeout(Duration::from_millis(400))
        .with_idle_timeout(Duration::from_millis(250))
        .with_total_timeout(Duration::from_millis(1_500));
    connector(url).with_http(limits).chat(spec).unwrap()
}

pub(crate) fn request() -> ChatRequest {
    ChatRequest::new([Message::system("be brief"), Message::user("say something")]).with_max_tokens(100)
}

pub(crate) async fn streamed(model: &ModelHandle, request: &ChatRequest) -> Result<ChatResponse, Error> {
    model.stream(request).await?.collect().await
}

/// What differs from call to call by nature.
fn without_ids(mut response: ChatResponse) -> ChatResponse {
    response.id = None;
    response.metadata.clear();
    response.timings = None;
    // Ids within data for the provider are numbered by call as well.
    let text = serde_json::to_string(&response.message).unwrap();
    let mut message: Value = serde_json::from_str(&text).unwrap();
    for part in message["parts"].as_array_mut().unwrap() {
        if let Some(fields) = part.pointer_mut("/data/value").and_then(Value::as_object_mut) {
            fields.remove("id");
        }
    }
    response.message = serde_json::from_value(message).unwrap();
    response
}

#[tokio::test]
async fn a_streamed_answer_folds_to_the_whole_one_in_every_dialect() {
    let server = LlmServer::start().await.unwrap();
    let request = request().with_tools([ToolSpec::new(
        "look",
        "looks",
        json!({"type": "object", "properties": {}}),
    )]);
    let replies = [
        Reply::text("plain text, é and \u{1f980}"),
        Reply::text("with thought").with_reasoning("hmm, let me see", Some("signature-1")),
        Reply::text("two calls")
            .with_tool_call("call_aaaaaaa1", "look", json!({"at": "a", "n": 1.5}))
            .with_tool_call("call_aaaaaaa2", "look", json!({})),
        Reply::tool_call(
            "call_aaaaaaa3",
            "look",
            json!({"deep": {"list": [1, null, "x y"]}}),
        ),
    ];
    for spec in DIALECTS {
        let model = model(spec, &server.url());
        for reply in &replies {
            let reply = reply.clone();
            server.set_reply(reply.clone().with_chars_per_piece(3));
            let whole = without_ids(model.complete(&request).await.unwrap());
            let folded = without_ids(streamed(&model, &request).await.unwrap());
            assert_eq!(whole, folded, "{spec}");
            assert!(
                whole.usage.is_some() && !whole.message.parts.is_empty(),
                "{spec}: {whole:?}"
            );
        }
    }
}

#[tokio::test]
async fn every_legal_style_of_a_stream_reads_the_same() {
    let server = LlmServer::start().await.unwrap();
    let style = StreamStyle::new;
    let styles = [
        style(),
        style().with_line_ending(LineEnding::CrLf),
        style().with_comments(),
        style().with_pings(),
        style().with_bom(),
        style().without_final_blank_line(),
        style().without_space(),
    ];
    for spec in DIALECTS {
        let model = model(spec, &server.url());
        for style in &styles {
            if spec == "ollama/m" && (style.pings || style.bom) {
                continue; // not legal in lines of JSON
            }
            server.set_reply(
                Reply::text("the same é text")
                    .with_pieces(4)
                    .with_style(style.clone()),
            );
            let response = streamed(&model, &request())
                .await
                .unwrap_or_else(|e| panic!("{spec} {style:?}: {e}"));
            assert_eq!(response.message.text(), "the same é text", "{spec} {style:?}");
        }
        let drip = Fault::drip(1, Duration::ZERO);
        server.set_reply(Reply::text("é byte by byte").with_fault(drip));
        assert_eq!(
            streamed(&model, &request()).await.unwrap().message.text(),
            "é byte by byte",
            "{spec}"
        );
    }
}

#[tokio::test]
async fn a_stream_without_its_end_is_an_error_and_never_an_answer() {
    let server = LlmServer::start().await.unwrap();
    let places = [
        At::AfterHead,
        At::AfterBytes(7),
        At::AfterPieces(1),
        At::AfterPieces(3),
        At::BeforeFinish,
        At::BeforeEndMarker,
    ];
    for spec in DIALECTS {
        let model = model(spec, &server.url());
        for at in places {
            for fault in [Fault::end(at), Fault::close(at), Fault::reset(at)] {
                server.set_reply(
                    Reply::text("cut off somewhere")
                        .with_pieces(5)
                        .with_fault(fault.clone()),
                );
                let error = streamed(&model, &request())
                    .await
                    .expect_err(&format!("{spec} {fault:?}"));
                assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::Truncated | ErrorKind::Connection | ErrorKind::Protocol
                    ),
                    "{spec} {fault:?}: {error:?}"
                );
            }
        }
        for fault in [
            Fault::close(At::AfterBytes(20)),
            Fault::end(At::AfterBytes(20)),
            Fault::reset(At::BeforeHead),
        ] {
            server.set_reply(Reply::text("cut off").with_fault(fault.clone()));
            let error = model
                .complete(&request())
                .await
                .expect_err(&format!("{spec} {fault:?}"));
            assert!(
                matches!(
                    error.kind(),
                    ErrorKind::Connection | ErrorKind::Protocol | ErrorKind::Truncated
                ),
                "{spec} {fault:?}: {error:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_comes_after_what_stood_before_it() {
    let server = LlmServer::start().await.unwrap();
    for spec in DIALECTS {
        let error = ApiError::new(529, "too much at once");
        let fault = Fault::error_event(At::AfterPieces(2), error);
        server.set_reply(Reply::text("one two three").with_pieces(4).with_fault(fault));
        let mut stream = model(spec, &server.url()).stream(&request()).await.unwrap();
        let (mut text, mut failure) = (String::new(), None);
        while let Some(event) = stream.next().await {
            match event {
                Ok(ChatEvent::TextDelta { text: piece }) => text.push_str(&piece),
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        let failure = failure.unwrap_or_else(|| panic!("{spec}: no error"));
        assert!(
            !text.is_empty() && "one two three".starts_with(&text),
            "{spec}: {text:?}"
        );
        assert!(matches!(failure, Error::Provider(_)), "{spec}: {failure:?}");
        assert!(
            failure.to_string().contains("too much at once"),
            "{spec}: {failure}"
        );
    }
}

#[tokio::test]
async fn every_stall_has_its_own_timeout() {
    let server = LlmServer::start().await.unwrap();
    let stage = |error: Error| match error {
        Error::Transport(transport) if transport.kind == ErrorKind::Timeout => transport.stage,
        other => panic!("no timeout: {other:?}"),
    };
    let model = impatient("openai/m", &server.url());
    for (at, expected) in [
        (At::BeforeHead, TimeoutStage::FirstByte),
        (At::AfterHead, TimeoutStage::Idle),
        (At::AfterPieces(2), TimeoutStage::Idle),
    ] {
        server.set_reply(
            Reply::text("some text to stall in")
                .with_pieces(5)
                .with_fault(Fault::stall(at)),
        );
        assert_eq!(
            stage(streamed(&model, &request()).await.unwrap_err()),
            Some(expected),
            "stream, {at:?}"
        );
        assert_eq!(
            stage(model.complete(&request()).await.unwrap_err()),
            Some(expected),
            "whole, {at:?}"
        );
    }
    server
        .set_reply(Reply::text(&*"drip ".repeat(200)).with_fault(Fault::drip(1, Duration::from_millis(20))));
    assert_eq!(
        stage(streamed(&model, &request()).await.unwrap_err()),
        Some(TimeoutStage::Total)
    );

    let hole = Blackhole::new().await.unwrap();
    let start = Instant::now();
    let error = impatient("openai/m", &hole.url())
        .complete(&request())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
    server.set_connection_fault(Some(ConnectionFault::Ignore));
    let error = impatient("openai/fresh", &server.url())
        .complete(&request())
        .await
        .unwrap_err();
    assert_eq!(stage(error), Some(TimeoutStage::FirstByte));
}

#[tokio::test]
async fn a_redirect_leaks_neither_key_nor_body() {
    let server = LlmServer::start().await.unwrap();
    let other = LlmServer::start().await.unwrap();
    let same_origin = format!("{}/elsewhere", server.url());
    for spec in DIALECTS {
        for target in [
            other.url(),
            same_origin.clone(),
            "/relative".to_owned(),
            "::nonsense".to_owned(),
        ] {
            for status in [301, 302, 303, 307, 308] {
                server.set_reply(Reply::redirect(status, &*target));
                let before = server.counters().requests;
                let model = model(spec, &server.url());
                let error = model.complete(&request()).await.unwrap_err();
                assert_eq!(
                    error.kind(),
                    ErrorKind::Redirect,
                    "{spec} {status} {target}: {error:?}"
                );
                assert_eq!(
                    streamed(&model, &request()).await.unwrap_err().kind(),
                    ErrorKind::Redirect
                );
                assert_eq!(server.counters().requests, before + 2, "nothing was followed");
            }
        }
    }
    assert_eq!((other.counters().connections, other.counters().requests), (0, 0));
}

#[tokio::test]
async fn the_key_is_sent_and_shown_nowhere() {
    let server = LlmServer::start().await.unwrap();
    for spec in DIALECTS {
        let model = model(spec, &server.url());
        server.set_reply(Reply::text("hi"));
        model.complete(&request()).await.unwrap();
        let seen = server.last_request().unwrap();
        let headers = ["authorization", "x-api-key", "x-goog-api-key"].map(|name| seen.header(name));
        if spec != "ollama/m" {
            assert_eq!(
                headers
                    .iter()
                    .flatten()
                    .filter(|value| value.contains(KEY))
                    .count(),
                1,
                "{spec}"
            );
        }
        for reply in [
            Reply::error(401, format!("the key {KEY} is wrong")),
            Reply::raw_body(500, "text/plain", format!("panic: {KEY}")),
            Reply::raw_body(
                200,
                "application/json",
                format!(r#"{{"error":{{"message":"{KEY}","code":"x"}}}}"#),
            ),
            Reply::raw_body(200, "text/html", format!("<p>{KEY}")),
            Reply::text("x").with_fault(Fault::error_event(
                At::AfterPieces(1),
                ApiError::new(500, format!("oh {KEY}")),
            )),
        ] {
            server.set_reply(reply);
            for error in [
                model.complete(&request()).await.err(),
                streamed(&model, &request()).await.err(),
            ]
            .into_iter()
            .flatten()
            {
                let mut shown = format!("{error} {error:?} {error:#?}");
                let mut source = std::error::Error::source(&error);
                while let Some(cause) = source {
                    shown.push_str(&format!("{cause} {cause:?}"));
                    source = cause.source();
                }
                assert!(!shown.contains(KEY), "{spec}: {shown}");
            }
        }
        assert!(!format!("{model:?}").contains(KEY));
    }
}

#[tokio::test]
async fn a_missing_key_names_its_variable_and_connects_to_nobody() {
    let model = peregrine_providers::connect("cerebras/any").unwrap();
    let error = model.complete(&request()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingCredential);
    assert!(error.to_string().contains("CEREBRAS_API_KEY"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_a_connect_error_that_names_the_address() {
    let refused = RefusedAddr::new().unwrap();
    let error = model("openai/m", &refused.url())
        .complete(&request())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(
        error.is_retryable() && error.to_string().contains(&refused.addr().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn garbage_is_a_protocol_error() {
    let server = LlmServer::start().await.unwrap();
    for spec in DIALECTS {
        let model = model(spec, &server.url());
        let replies = [
            Reply::garbage(42, 5_000),
            Reply::raw_body(200, "application/json", ""),
            Reply::raw_body(200, "application/json", "[]"),
            Reply::raw_body(200, "application/json", "{}"),
            Reply::raw_body(200, "text/html", "<html>gateway</html>"),
            Reply::text("bad bytes").with_fault(Fault::InvalidUtf8),
        ];
        for reply in replies {
            server.set_reply(reply.clone());
            for result in [
                model.complete(&request()).await,
                streamed(&model, &request()).await,
            ] {
                let error = result.expect_err(&format!("{spec}: {reply:?}"));
                assert!(
                    matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Truncated),
                    "{spec}: {error:?} for {reply:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn retry_headers_are_kept_and_absurd_ones_neither_panic_nor_storm() {
    let server = LlmServer::start().await.unwrap();
    let patient = connector(&server.url())
        .with_retry(RetryPolicy::new(3))
        .chat("openai/m")
        .unwrap();
    server.push(Reply::error(429, "slow down").with_retry_after_ms("20"));
    server.push(Reply::error(503, "busy").with_retry_after("0.01"));
    server.push(Reply::text("now"));
    let response = patient.complete(&request()).await.unwrap();
    assert_eq!(
        (response.message.text().as_str(), &response.metadata["attempts"]),
        ("now", &3.into())
    );

    for absurd in [
        "1e300",
        "99999999999999999999",
        "86400",
        "-5",
        "NaN",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ] {
        server.set_reply(Reply::error(429, "never").with_retry_after(absurd));
        let before = server.counters().requests;
        let quick = RetryPolicy::new(3).with_delays(Duration::from_millis(1), Duration::from_millis(2));
        let model = connector(&server.url())
            .with_retry(quick)
            .chat("openai/m")
            .unwrap();
        let error = tokio::time::timeout(Duration::from_secs(5), model.complete(&request()))
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimited, "{absurd}");
        assert!(server.counters().requests - before <= 4, "{absurd}");
    }
}

#[tokio::test]
async fn a_dropped_stream_cancels_the_call() {
    let server = LlmServer::start().await.unwrap();
    for spec in DIALECTS {
        let before = server.counters().cancelled;
        server.set_reply(Reply::endless_stream());
        let mut stream = model(spec, &server.url()).stream(&request()).await.unwrap();
        stream.next().await.unwrap().unwrap();
        drop(stream);
        let wait = server.wait_until(|counters| counters.cancelled > before);
        tokio::time::timeout(Duration::from_secs(5), wait)
            .await
            .unwrap_or_else(|_| panic!("{spec} was not cancelled"));
    }
}

#[tokio::test]
async fn calls_whole_and_streamed_share_one_connection() {
    let server = LlmServer::start().await.unwrap();
    let one = model("openai/m", &server.url());
    let two = model("openai/n", &server.url());
    for _ in 0..10 {
        one.complete(&request()).await.unwrap();
        streamed(&two, &request()).await.unwrap();
    }
    assert_eq!(
        (server.counters().requests, server.counters().connections),
        (20, 1)
    );
}

#[tokio::test]
async fn the_next_turns_body_begins_with_this_turns() {
    let server = LlmServer::start().await.unwrap();
    for spec in DIALECTS {
        let model = model(spec, &server.url());
        let mut request = request();
        let mut bodies: Vec<Vec<u8>> = Vec::new();
        for turn in 0..4 {
            let response = model.complete(&request).await.unwrap();
            bodies.push(server.last_request().unwrap().body.to_vec());
            request.messages.push(response.message);
            request.messages.push(Message::user(format!("and {turn}?")));
        }
        for pair in bodies.windows(2) {
            let end = pair[0].iter().rposition(|byte| !b"]}".contains(byte)).unwrap() + 1;
            // The last message's own closing brackets may be among those left out.
            let stable = &pair[0][..end];
            assert!(
                pair[1].starts_with(stable),
                "{spec}\n{}\n{}",
                String::from_utf8_lossy(&pair[0]),
                String::from_utf8_lossy(&pair[1])
            );
        }
        let fresh: ChatRequest = serde_json::from_value(serde_json::to_value(&request).unwrap()).unwrap();
        model.complete(&request).await.unwrap();
        let remembered = server.last_request().unwrap().body.to_vec();
        model.complete(&fresh).await.unwrap();
        assert_eq!(
            remembered,
            server.last_request().unwrap().body.to_vec(),
            "{spec}: memo or not, the same bytes"
        );
    }
}
