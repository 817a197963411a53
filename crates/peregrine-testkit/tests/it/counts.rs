//! What the server saw: requests as they were sent, counts, and waiting for them; and that it ends when it is
//! dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peregrine_testkit::server::{Dialect, Endpoint, LlmServer, Reply};
use serde_json::json;
use tokio::net::TcpStream;

use crate::client::{Client, call, get};
use crate::decode;
use crate::{server, soon};

#[tokio::test]
async fn a_request_is_kept_as_it_was_sent() {
    let server = server().await;
    let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]});
    let headers = [("X-Odd", "a b"), ("authorization", "Bearer k")];
    call(
        server.addr(),
        "/p/v1/chat/completions?api-version=7&x=",
        &headers,
        &body,
    )
    .await
    .unwrap();
    let seen = server.last_request().unwrap();
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str()),
        ("POST", "/p/v1/chat/completions")
    );
    assert_eq!(
        (seen.query.as_deref(), seen.query_param("api-version")),
        (Some("api-version=7&x="), Some("7"))
    );
    assert_eq!(
        (seen.header("x-odd"), seen.header("Authorization")),
        (Some("a b"), Some("Bearer k"))
    );
    assert_eq!(
        (&seen.body[..], seen.json()),
        (body.to_string().as_bytes(), Some(&body))
    );
    assert_eq!(
        (seen.endpoint, seen.seq, seen.connection),
        (Endpoint::OpenAiChat, 1, 1)
    );
    assert_eq!(
        (seen.model(), seen.is_stream(), seen.last_user_text().as_str()),
        (Some("m"), true, "hi")
    );
    let body = json!({"contents": [{"parts": [{"text": "x"}]}]});
    call(
        server.addr(),
        "/v1beta/models/gem-1:streamGenerateContent?alt=sse",
        &[],
        &body,
    )
    .await
    .unwrap();
    let seen = server.last_request().unwrap();
    assert_eq!(
        (seen.model(), seen.is_stream(), seen.seq),
        (Some("gem-1"), true, 2)
    );
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let server = LlmServer::builder()
        .with_recorded_requests(3)
        .start()
        .await
        .unwrap();
    let mut client = Client::connect(server.addr()).await;
    for _ in 0..10 {
        client.send("GET", "/api/version", &[], "").await;
        soon(client.answer()).await.unwrap();
    }
    let kept: Vec<u64> = server.requests().iter().map(|request| request.seq).collect();
    assert_eq!(kept, [8, 9, 10]);
    assert_eq!(server.counters().requests, 10);
    assert_eq!(server.counters().connections, 1);
}

#[tokio::test]
async fn the_queue_goes_before_the_responder_and_only_to_what_it_is_for() {
    let server = server().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    server.set_responder(move |request| {
        counted.fetch_add(1, Ordering::Relaxed);
        match request.endpoint {
            Endpoint::OpenAiChat => Reply::text(format!("you said {}", request.last_user_text())),
            _ => Reply::standard(),
        }
    });
    server.push(Reply::text("queued"));
    server.push_at(Endpoint::OllamaVersion, Reply::error(500, "broken"));
    let text = async || {
        let (target, headers, body) = decode::request(Dialect::OpenAiChat, false);
        decode::complete(
            Dialect::OpenAiChat,
            &call(server.addr(), &target, &headers, &body).await.unwrap(),
        )
        .text
    };
    assert_eq!(get(server.addr(), "/v1/models", &[]).await.status, 200);
    assert_eq!(server.queued(), 2);
    assert_eq!(text().await, "queued");
    assert_eq!(text().await, "you said hello there");
    assert_eq!(get(server.addr(), "/api/version", &[]).await.status, 500);
    assert_eq!(get(server.addr(), "/api/version", &[]).await.status, 200);
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    server.reset_responder();
    assert_eq!(text().await, "echo: hello there");
    server.push_all([Reply::text("1"), Reply::text("2")]);
    assert_eq!((text().await, text().await), ("1".into(), "2".into()));
}

#[tokio::test]
async fn flights_and_connections_are_counted_while_they_last() {
    let server = server().await;
    server.set_reply(Reply::text("late").with_first_byte_latency(Duration::from_secs(3600)));
    let (target, headers, body) = decode::request(Dialect::OpenAiChat, false);
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(server.addr()).await;
        client.send("POST", &target, &headers, &body.to_string()).await;
        clients.push(client);
    }
    let counters = soon(server.wait_until(|c| c.in_flight == 5)).await;
    assert_eq!((counters.open, counters.requests, counters.completed), (5, 5, 0));
    clients.truncate(2);
    let counters = soon(server.wait_until(|c| c.cancelled == 3)).await;
    assert_eq!(
        (counters.in_flight, counters.in_flight_max, counters.open_max),
        (2, 5, 5)
    );
    drop(clients);
    let counters = soon(server.wait_until(|c| c.open == 0)).await;
    assert_eq!(
        (counters.cancelled, counters.in_flight, counters.connections),
        (5, 0, 5)
    );
}

#[tokio::test]
async fn leaving_in_the_middle_of_a_stream_is_seen() {
    let server = server().await;
    server.push(Reply::text("one two three").with_per_piece_latency(Duration::from_secs(3600)));
    let (target, headers, body) = decode::request(Dialect::Anthropic, true);
    let mut client = Client::connect(server.addr()).await;
    client.send("POST", &target, &headers, &body.to_string()).await;
    soon(client.until("one")).await;
    drop(client);
    let counters = soon(server.wait_until(|c| c.in_flight == 0)).await;
    assert_eq!((counters.cancelled, counters.completed, counters.cut), (1, 0, 0));
}

#[tokio::test]
async fn bytes_are_counted() {
    let server = server().await;
    server.set_reply(Reply::raw(200, &[("x-a", "b")], "12345"));
    let mut client = Client::connect(server.addr()).await;
    client.send("POST", "/x", &[], "{}").await;
    let answer = soon(client.answer()).await.unwrap();
    assert_eq!((answer.text(), answer.header("x-a")), ("12345", Some("b")));
    let counters = soon(server.wait_until(|c| c.completed == 1)).await;
    assert_eq!(
        counters.bytes_sent,
        "HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 5\r\n\r\n12345".len() as u64
    );
    assert!(counters.bytes_received > 40);
}

/// The fast path gives the same answers and counts, and can be left at any time.
#[tokio::test]
async fn the_floor_is_like_any_other_answer() {
    let server = LlmServer::builder()
        .with_recorded_requests(0)
        .start_blocking()
        .unwrap();
    server.set_reply(Reply::raw(
        200,
        &[("content-type", "application/json")],
        r#"{"ok":true}"#,
    ));
    let mut client = Client::connect(server.addr()).await;
    for _ in 0..20 {
        client
            .send("POST", "/v1/chat/completions", &[], r#"{"a":1}"#)
            .await;
        assert_eq!(soon(client.answer()).await.unwrap().json(), json!({"ok": true}));
    }
    let counters = soon(server.wait_until(|c| c.completed == 20)).await;
    assert_eq!(
        (counters.requests, counters.connections, counters.in_flight_max),
        (20, 1, 1)
    );
    assert!(server.requests().is_empty());
    server.push_any(Reply::raw_body(418, "text/plain", "tea"));
    client.send("POST", "/v1/chat/completions", &[], "{}").await;
    assert_eq!(soon(client.answer()).await.unwrap().status, 418);
    client.send("POST", "/", &[("connection", "close")], "").await;
    assert_eq!(soon(client.answer()).await.unwrap().status, 200);
    assert_eq!(soon(client.more()).await.unwrap(), 0);
}

#[tokio::test]
async fn requests_can_be_pipelined() {
    let server = server().await;
    server.push_all([Reply::text("first"), Reply::text("second")]);
    let (target, headers, body) = decode::request(Dialect::OpenAiChat, false);
    let mut client = Client::connect(server.addr()).await;
    client.send("POST", &target, &headers, &body.to_string()).await;
    client.send("POST", &target, &headers, &body.to_string()).await;
    for text in ["first", "second"] {
        let answer = soon(client.answer()).await.unwrap();
        assert_eq!(decode::complete(Dialect::OpenAiChat, &answer).text, text);
    }
}

#[tokio::test]
async fn nothing_is_left_after_shutdown_or_drop() {
    let server = server().await;
    let addr = server.addr();
    server.set_reply(Reply::text("x").with_first_byte_latency(Duration::from_secs(3600)));
    let (target, headers, body) = decode::request(Dialect::OpenAiChat, false);
    let mut client = Client::connect(addr).await;
    client.send("POST", &target, &headers, &body.to_string()).await;
    soon(server.wait_until(|c| c.in_flight == 1)).await;
    soon(server.shutdown()).await;
    assert!(matches!(soon(client.more()).await, Ok(0) | Err(_)));
    assert!(TcpStream::connect(addr).await.is_err());

    let server = LlmServer::start_blocking().unwrap();
    let addr = server.addr();
    let mut client = Client::connect(addr).await;
    client.send("GET", "/api/version", &[], "").await;
    soon(client.answer()).await.unwrap();
    drop(server);
    assert!(TcpStream::connect(addr).await.is_err());
    assert!(matches!(soon(client.more()).await, Ok(0) | Err(_)));

    let server = crate::server().await;
    let addr = server.addr();
    let mut client = Client::connect(addr).await;
    drop(server);
    assert!(matches!(soon(client.more()).await, Ok(0) | Err(_)));
    assert!(TcpStream::connect(addr).await.is_err());
}
