//! What a hostile client may send: the server refuses it, or bears it, and goes on.

use peregrine_testkit::server::{LlmServer, Reply, garbage};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, call, get};
use crate::{server, soon};

/// Sends bytes, and reads to the end.
async fn throw(server: &LlmServer, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    // The server may have refused before everything was sent.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = soon(socket.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn malformed_and_oversized_requests_are_refused() {
    let server = LlmServer::builder()
        .with_max_body_bytes(1000)
        .start()
        .await
        .unwrap();
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500));
    let big_chunk = format!(
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n{}\r\n0\r\n\r\n",
        "z".repeat(2000)
    );
    let cases: [(&[u8], &str); 8] = [
        (b"hello\r\n\r\n", "400"),
        (&garbage(1, 5000), "400"),
        (long.as_bytes(), "431"),
        (many.as_bytes(), "431"),
        (b"POST / HTTP/1.1\r\ncontent-length: 1001\r\n\r\n", "413"),
        (big_chunk.as_bytes(), "413"),
        (
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "400",
        ),
        (
            b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "400",
        ),
    ];
    for (index, (bytes, status)) in cases.into_iter().enumerate() {
        let answer = throw(&server, bytes).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "case {index}: {answer:?}"
        );
        assert!(answer.contains("connection: close") && answer.contains("\"error\""));
    }
    let counters = server.counters();
    assert_eq!((counters.rejected, counters.requests), (8, 0));
    assert_eq!(get(server.addr(), "/api/version", &[]).await.status, 200);
}

#[tokio::test]
async fn a_large_refused_body_does_not_hide_the_refusal() {
    let server = LlmServer::builder()
        .with_max_body_bytes(1000)
        .start()
        .await
        .unwrap();
    let mut bytes = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n".to_vec();
    bytes.resize(bytes.len() + 1_000_000, b' ');
    assert!(throw(&server, &bytes).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn bodies_that_are_deep_or_odd_do_no_harm() {
    let server = server().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies: [&[u8]; 7] = [
        deep.as_bytes(),
        b"",
        b"null",
        b"{\"model\": \"m\", \"messages\": [1, null, [], {\"role\": 7, \"content\": {\"text\": []}}]}",
        b"{\"model\": \"m\", \"messages\": {}, \"tools\": 7, \"stream\": \"yes\"}",
        b"\xff\xfe",
        b"{\"model\": \"m\", \"max_tokens\": 1, \"contents\": [[]], \"input\": [0], \"messages\": [0], \"tools\": [[], {}], \"format\": [], \"text\": [], \"tool_choice\": 4}",
    ];
    let paths = [
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1beta/models/m:generateContent",
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        "/v1beta/models/:generateContent",
        "/v1beta/models/m:batchEmbedContents",
        "/x:generateContent",
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/show",
        "/v1/embeddings",
    ];
    for path in paths {
        for body in bodies {
            let head = format!(
                "POST {path} HTTP/1.1\r\nanthropic-version: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let answer = throw(&server, &[head.as_bytes(), body].concat()).await;
            assert!(
                answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.1 40"),
                "{path}: {answer:.300}"
            );
        }
    }
    let counters = soon(server.wait_until(|c| c.in_flight == 0)).await;
    assert_eq!(counters.requests, (paths.len() * bodies.len()) as u64);
}

#[tokio::test]
async fn a_request_may_come_in_any_pieces() {
    let server = server().await;
    server.set_reply(Reply::raw_body(200, "text/plain", "ok"));
    let request = "POST /v1/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n";
    let mut client = Client::connect(server.addr()).await;
    client.socket.set_nodelay(true).unwrap();
    for byte in request.as_bytes() {
        client.socket.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(soon(client.answer()).await.unwrap().text(), "ok");
    assert_eq!(&server.last_request().unwrap().body[..], b"Wikipedia");
    // Leaving in the middle of a request is no request.
    client
        .socket
        .write_all(b"POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\nhalf")
        .await
        .unwrap();
    drop(client);
    let counters = soon(server.wait_until(|c| c.open == 0)).await;
    assert_eq!((counters.requests, counters.rejected), (1, 0));
}

#[tokio::test]
async fn a_client_that_waits_for_leave_to_go_on_gets_it() {
    let server = server().await;
    let mut client = Client::connect(server.addr()).await;
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.socket.write_all(head.as_bytes()).await.unwrap();
    soon(client.until("HTTP/1.1 100 Continue\r\n\r\n")).await;
    client.socket.write_all(body.as_bytes()).await.unwrap();
    soon(client.until("echo: x")).await;
}

#[tokio::test]
async fn a_responder_that_panics_costs_its_connection_alone() {
    let server = server().await;
    server.set_responder(|request| {
        assert!(request.path != "/panic", "as the test wants it");
        Reply::standard()
    });
    assert!(call(server.addr(), "/panic", &[], &json!({})).await.is_err());
    assert_eq!(get(server.addr(), "/api/version", &[]).await.status, 200);
    assert_eq!(
        soon(server.wait_until(|c| c.in_flight == 0 && c.open == 0))
            .await
            .connections,
        2
    );
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let server = LlmServer::builder()
        .with_max_connections(1)
        .start()
        .await
        .unwrap();
    let mut first = Client::connect(server.addr()).await;
    first.send("GET", "/api/version", &[], "").await;
    soon(first.answer()).await.unwrap();
    let mut second = Client::connect(server.addr()).await;
    second.send("GET", "/api/version", &[], "").await;
    drop(first);
    soon(second.answer()).await.unwrap();
    let counters = server.counters();
    assert_eq!((counters.open_max, counters.connections), (1, 2));
}

#[tokio::test]
async fn head_has_no_body() {
    let server = server().await;
    let mut client = Client::connect(server.addr()).await;
    client.send("HEAD", "/", &[("connection", "close")], "").await;
    while soon(client.more()).await.unwrap() > 0 {}
    let text = String::from_utf8(client.arrived().to_vec()).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 200 OK")
            && text.contains("content-length: 17")
            && text.ends_with("\r\n\r\n")
    );
}
