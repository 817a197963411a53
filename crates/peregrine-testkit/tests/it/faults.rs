//! Every fault, seen from the client's end of the socket.

use std::io::{ErrorKind, Read as _};
use std::time::{Duration, Instant};

use peregrine_testkit::server::{
    ApiError, At, Blackhole, ConnectionFault, Dialect, Fault, Framing, LlmServer, RefusedAddr, Reply, garbage,
};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::client::{Answer, Client, End, call};
use crate::decode::{self, DIALECTS};
use crate::{server, soon};

/// One reply, to a plain request.
async fn ask(dialect: Dialect, stream: bool, reply: Reply) -> std::io::Result<Answer> {
    let server = server().await;
    server.push(reply);
    let (target, headers, body) = decode::request(dialect, stream);
    soon(call(server.addr(), &target, &headers, &body)).await
}

async fn chat(stream: bool, reply: Reply) -> Answer {
    ask(Dialect::OpenAiChat, stream, reply).await.unwrap()
}

#[tokio::test]
async fn retry_headers_arrive_as_they_were_given() {
    let reply = Reply::error(503, "x")
        .with_retry_after("1.5")
        .with_retry_after_ms("250");
    let answer = chat(false, reply).await;
    assert_eq!(
        (
            answer.status,
            answer.header("retry-after"),
            answer.header("retry-after-ms")
        ),
        (503, Some("1.5"), Some("250"))
    );
    let date = std::time::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let answer = chat(false, Reply::error(429, "x").with_retry_after_date(date)).await;
    assert_eq!(
        answer.header("retry-after"),
        Some("Sun, 06 Nov 1994 08:49:37 GMT")
    );
    for absurd in ["99999999999999999999999", "-1", "NaN", "1e400", "soon", ""] {
        assert_eq!(
            chat(false, Reply::error(429, "x").with_retry_after(absurd))
                .await
                .header("retry-after"),
            Some(absurd)
        );
    }
    for status in [201, 204, 304, 400, 418, 500, 529, 599] {
        assert_eq!(chat(false, Reply::error(status, "x")).await.status, status);
    }
}

#[tokio::test]
async fn connections_can_fail_before_anything_is_read() {
    let server = server().await;
    server.push_connection_fault(ConnectionFault::Reset);
    server.push_connection_fault(ConnectionFault::Close);
    let mut buffer = [0; 8];
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    assert_eq!(
        soon(socket.read(&mut buffer)).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    assert_eq!(soon(socket.read(&mut buffer)).await.unwrap(), 0);

    server.set_connection_fault(Some(ConnectionFault::Ignore));
    let mut deaf = Client::connect(server.addr()).await;
    deaf.send("GET", "/api/version", &[], "").await;
    assert!(
        tokio::time::timeout(Duration::from_millis(50), deaf.more())
            .await
            .is_err()
    );
    server.set_connection_fault(None);
    assert_eq!(
        crate::client::get(server.addr(), "/api/version", &[])
            .await
            .status,
        200
    );
    drop(deaf);
    let counters = soon(server.wait_until(|c| c.open == 0)).await;
    assert_eq!((counters.requests, counters.connections), (1, 4));
}

#[tokio::test]
async fn a_reset_comes_where_it_was_put() {
    let before = ask(
        Dialect::OpenAiChat,
        false,
        Reply::text("x").with_fault(Fault::reset(At::BeforeHead)),
    )
    .await;
    assert_eq!(before.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let after = chat(false, Reply::text("x").with_fault(Fault::reset(At::AfterHead))).await;
    assert_eq!((after.status, after.body.len(), after.end), (200, 0, End::Reset));
    let middle = chat(
        false,
        Reply::text("x").with_fault(Fault::reset(At::AfterBytes(10))),
    )
    .await;
    assert_eq!((middle.body.len(), middle.end), (10, End::Reset));
    let stream = chat(
        true,
        Reply::text("one two three").with_fault(Fault::reset(At::AfterPieces(2))),
    )
    .await;
    assert_eq!(stream.end, End::Reset);
    assert!(stream.text().contains(" two") && !stream.text().contains(" three"));
}

#[tokio::test]
async fn a_close_leaves_the_message_unfinished() {
    let whole = chat(
        false,
        Reply::text("x").with_fault(Fault::close(At::AfterBytes(10))),
    )
    .await;
    assert_eq!((whole.body.len(), whole.end), (10, End::Truncated));
    assert!(whole.header("content-length").unwrap().parse::<usize>().unwrap() > 10);
    let chunked = chat(
        true,
        Reply::text("one two").with_fault(Fault::close(At::AfterPieces(1))),
    )
    .await;
    assert_eq!(chunked.end, End::Truncated);
    assert!(chunked.text().contains("one") && !chunked.text().contains("two"));
    // The last chunk alone is missing.
    let last = chat(
        true,
        Reply::text("x").with_fault(Fault::close(At::AfterBytes(u64::MAX))),
    )
    .await;
    assert_eq!(last.end, End::Truncated);
    assert!(last.text().ends_with("data: [DONE]\n\n"));
    // A clean close is the end of a body without a length: only the marker tells.
    let close = Reply::text("x")
        .with_framing(Framing::UntilClose)
        .with_fault(Fault::close(At::BeforeEndMarker));
    let close = chat(true, close).await;
    assert_eq!(close.end, End::Eof);
    assert!(close.text().contains("finish_reason\":\"stop") && !close.text().contains("[DONE]"));
}

#[tokio::test]
async fn a_chunk_can_be_cut_in_the_middle() {
    let server = server().await;
    server.push(Reply::text("one").with_fault(Fault::close(At::AfterBytes(20))));
    let (target, headers, body) = decode::request(Dialect::OpenAiChat, true);
    let mut client = Client::connect(server.addr()).await;
    client.send("POST", &target, &headers, &body.to_string()).await;
    while soon(client.more()).await.unwrap() > 0 {}
    let arrived = String::from_utf8(client.arrived().to_vec()).unwrap();
    let (_, body) = arrived.split_once("\r\n\r\n").unwrap();
    let (size, data) = body.split_once("\r\n").unwrap();
    assert!(usize::from_str_radix(size, 16).unwrap() > 20, "{size}");
    assert_eq!(data.len(), 20);
}

#[tokio::test]
async fn an_uncut_stream_is_framed_to_the_byte() {
    let server = server().await;
    server.push(Reply::raw_stream(
        "text/event-stream",
        vec!["data: one\n\n".into(), "data: two\n\n".into()],
    ));
    let (target, headers, body) = decode::request(Dialect::OpenAiChat, true);
    let mut client = Client::connect(server.addr()).await;
    client
        .send(
            "POST",
            &target,
            &[&headers[..], &[("connection", "close")]].concat(),
            &body.to_string(),
        )
        .await;
    while client.more().await.unwrap() > 0 {}
    let arrived = String::from_utf8(client.arrived().to_vec()).unwrap();
    let (head, body) = arrived.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "b\r\ndata: one\n\n\r\nb\r\ndata: two\n\n\r\n0\r\n\r\n");
    let lines: Vec<&str> = head.split("\r\n").collect();
    assert_eq!(
        lines,
        [
            "HTTP/1.1 200 OK",
            "content-type: text/event-stream",
            "x-request-id: req_000000000000000000000001",
            "transfer-encoding: chunked",
            "connection: close",
        ]
    );
}

/// A stream whose HTTP message is in good order and that ends too early, in every dialect.
#[tokio::test]
async fn a_stream_can_end_in_good_order_without_its_marker() {
    let markers = [
        (Dialect::OpenAiChat, "[DONE]", "finish_reason\":\"stop"),
        (
            Dialect::OpenAiResponses,
            "response.completed",
            "response.completed",
        ),
        (Dialect::Anthropic, "message_stop", "message_delta"),
        (Dialect::Gemini, "finishReason", "finishReason"),
        (Dialect::Ollama, "\"done\":true", "\"done\":true"),
    ];
    for (dialect, marker, finish) in markers {
        for (at, absent) in [(At::BeforeEndMarker, marker), (At::BeforeFinish, finish)] {
            let server = server().await;
            server.push_all([
                Reply::text("one two").with_fault(Fault::end(at)),
                Reply::text("whole"),
            ]);
            let (target, headers, body) = decode::request(dialect, true);
            let mut client = Client::connect(server.addr()).await;
            client.send("POST", &target, &headers, &body.to_string()).await;
            let answer = soon(client.answer()).await.unwrap();
            assert_eq!(answer.end, End::Whole, "{dialect:?}");
            assert!(
                answer.text().contains("two") && !answer.text().contains(absent),
                "{dialect:?} {at:?}"
            );
            // The connection goes on.
            client.send("POST", &target, &headers, &body.to_string()).await;
            let answer = soon(client.answer()).await.unwrap();
            assert_eq!(decode::stream(dialect, &answer).text, "whole");
            let counters = soon(server.wait_until(|c| c.completed == 1)).await;
            assert_eq!((counters.cut, counters.connections), (1, 1));
        }
    }
    // With a length, it is the length of what is sent.
    let short = chat(false, Reply::text("x").with_fault(Fault::end(At::AfterBytes(7)))).await;
    assert_eq!(
        (short.body.len(), short.header("content-length"), short.end),
        (7, Some("7"), End::Whole)
    );
    let length = Reply::text("one two")
        .with_framing(Framing::ContentLength)
        .with_fault(Fault::end(At::AfterPieces(1)));
    let length = chat(true, length).await;
    assert_eq!(length.end, End::Whole);
    assert!(length.text().contains("one") && !length.text().contains("two"));
}

#[tokio::test]
async fn a_stall_sends_nothing_more_and_ends_with_the_client() {
    let places = [
        (At::BeforeHead, "", "HTTP/1.1"),
        (At::AfterHead, "\r\n\r\n", "assistant"),
        (At::AfterPieces(0), "assistant", "one"),
        (At::AfterPieces(2), "two", "three"),
        (At::BeforeEndMarker, "finish_reason\":\"stop", "[DONE]"),
    ];
    for (at, last, next) in places {
        let server = server().await;
        server.push(Reply::text("one two three").with_fault(Fault::stall(at)));
        let (target, headers, body) = decode::request(Dialect::OpenAiChat, true);
        let mut client = Client::connect(server.addr()).await;
        client.send("POST", &target, &headers, &body.to_string()).await;
        soon(server.wait_until(|c| c.in_flight == 1)).await;
        soon(client.until(last)).await;
        // Nothing decides here but what must not arrive; a slow machine can only make it pass.
        let more = tokio::time::timeout(Duration::from_millis(30), client.until(next)).await;
        assert!(
            more.is_err(),
            "{at:?}: {:?}",
            String::from_utf8_lossy(client.arrived())
        );
        assert_eq!(server.counters().in_flight, 1);
        drop(client);
        let counters = soon(server.wait_until(|c| c.in_flight == 0)).await;
        assert_eq!((counters.cancelled, counters.completed), (1, 0), "{at:?}");
    }
}

#[tokio::test]
async fn garbage_and_other_bytes_are_put_where_they_belong() {
    let answer = chat(false, Reply::garbage(7, 1000)).await;
    assert_eq!(
        (answer.body.as_slice(), answer.header("content-type")),
        (&garbage(7, 1000)[..], Some("application/json"))
    );
    assert_ne!(garbage(7, 16), garbage(8, 16));
    let answer = chat(
        true,
        Reply::text("one two").with_fault(Fault::garbage(At::AfterPieces(1), 3, 50)),
    )
    .await;
    let at = answer
        .body
        .windows(50)
        .position(|w| w == &garbage(3, 50)[..])
        .unwrap();
    assert!(answer.body[..at].ends_with(b"}\n\n"));
    assert!(answer.body[at..].windows(4).any(|w| w == b" two"));
    let answer = chat(
        true,
        Reply::text("a").with_fault(Fault::insert(At::AfterPieces(0), "data: {not json\n\n")),
    )
    .await;
    assert!(answer.events().iter().any(|(_, data)| data == "{not json"));
    // In the middle of a frame.
    let plain = chat(true, Reply::text("a")).await;
    let split = chat(
        true,
        Reply::text("a").with_fault(Fault::insert(At::AfterBytes(9), "#")),
    )
    .await;
    assert_eq!([&split.body[..9], &split.body[10..]].concat(), plain.body);
    let raw = chat(
        false,
        Reply::raw(200, &[], "0123").with_fault(Fault::insert(At::AfterBytes(2), "--")),
    )
    .await;
    assert_eq!(raw.text(), "01--");
}

#[tokio::test]
async fn text_can_be_invalid_utf8_in_every_dialect() {
    for dialect in DIALECTS {
        for stream in [false, true] {
            let answer = ask(dialect, stream, Reply::text("abc").with_fault(Fault::InvalidUtf8))
                .await
                .unwrap();
            assert!(std::str::from_utf8(&answer.body).is_err());
            assert!(
                answer.body.windows(6).any(|w| w == b"\xFF\xFE\xFDabc"),
                "{dialect:?} {stream}"
            );
        }
    }
    let raw =
        Reply::raw_stream("text/event-stream", vec!["data: a\n\n".into()]).with_fault(Fault::InvalidUtf8);
    assert!(std::str::from_utf8(&chat(true, raw).await.body).is_err());
}

#[tokio::test]
async fn an_error_event_ends_the_stream_in_the_form_of_the_dialect() {
    let error = ApiError::new(529, "Overloaded").with_kind("overloaded_error");
    for dialect in DIALECTS {
        let fault = Fault::error_event(At::AfterPieces(1), error.clone());
        let answer = ask(dialect, true, Reply::text("one two").with_fault(fault.clone()))
            .await
            .unwrap();
        assert_eq!((answer.status, answer.end), (200, End::Whole));
        assert!(
            answer.text().contains("one") && !answer.text().contains("two"),
            "{dialect:?}"
        );
        match dialect {
            Dialect::Ollama => assert_eq!(answer.lines().last().unwrap(), &json!({"error": "Overloaded"})),
            Dialect::Anthropic => {
                let (name, data) = answer.events().pop().unwrap();
                let data: Value = serde_json::from_str(&data).unwrap();
                assert_eq!(
                    (name.as_str(), &data["error"]["type"]),
                    ("error", &json!("overloaded_error"))
                );
            }
            Dialect::OpenAiResponses => {
                let last = answer.event_json().pop().unwrap();
                assert_eq!(
                    (&last["type"], &last["message"]),
                    (&json!("error"), &json!("Overloaded"))
                );
            }
            _ => {
                let last = answer.event_json().pop().unwrap();
                assert_eq!(last["error"]["message"], "Overloaded");
            }
        }
        let whole = ask(dialect, false, Reply::text("one two").with_fault(fault))
            .await
            .unwrap();
        assert_eq!((whole.status, whole.json().get("error").is_some()), (200, true));
    }
    // As an element of Gemini's array, at the beginning and later.
    for count in [0, 1] {
        let server = server().await;
        server.push(
            Reply::text("one two").with_fault(Fault::error_event(At::AfterPieces(count), error.clone())),
        );
        let body = json!({"contents": [{"parts": [{"text": "x"}]}]});
        let answer = call(
            server.addr(),
            "/v1beta/models/m:streamGenerateContent",
            &[],
            &body,
        )
        .await
        .unwrap();
        let elements = answer.json();
        assert_eq!(elements.as_array().unwrap().len(), count + 1);
        assert_eq!(elements[count]["error"]["code"], 529);
    }
}

#[tokio::test]
async fn framing_and_headers_can_be_unusual() {
    let old = chat(true, Reply::text("x").with_framing(Framing::Http10)).await;
    assert_eq!(
        (old.version, old.end, old.header("connection")),
        (0, End::Eof, Some("close"))
    );
    assert!(old.text().ends_with("[DONE]\n\n"));
    let close = chat(false, Reply::text("x").with_connection_close()).await;
    assert_eq!(
        (close.header("connection"), close.end),
        (Some("close"), End::Whole)
    );
    let odd = chat(
        false,
        Reply::text("x").with_content_type("text/html").with_status(203),
    )
    .await;
    assert_eq!((odd.status, odd.header("content-type")), (203, Some("text/html")));
    let lie = chat(
        false,
        Reply::raw_body(200, "text/plain", "12345").with_header("content-length", "99"),
    )
    .await;
    assert_eq!((lie.body.len(), lie.end), (5, End::Truncated));
    let chunked = chat(false, Reply::text("x").with_framing(Framing::Chunked)).await;
    assert_eq!(chunked.header("transfer-encoding"), Some("chunked"));
    assert_eq!(chunked.json()["choices"][0]["message"]["content"], "x");
}

#[tokio::test]
async fn redirects_point_where_they_are_told() {
    for status in [301, 302, 303, 307, 308] {
        let answer = chat(false, Reply::redirect(status, "http://127.0.0.1:9/elsewhere")).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (status, Some("http://127.0.0.1:9/elsewhere"))
        );
    }
    let server = server().await;
    server.set_reply(Reply::redirect(307, format!("{}/loop", server.url())));
    for path in ["/v1/chat/completions", "/loop", "/loop"] {
        let answer = call(server.addr(), path, &[], &json!({})).await.unwrap();
        assert_eq!(
            answer.header("location"),
            Some(format!("{}/loop", server.url()).as_str())
        );
    }
}

#[tokio::test]
async fn a_drip_sends_bits() {
    let server = LlmServer::start_blocking().unwrap();
    server.push(
        Reply::raw_body(200, "text/plain", "0123456789")
            .with_fault(Fault::drip(4, Duration::from_millis(20))),
    );
    let start = Instant::now();
    let answer = soon(call(server.addr(), "/v1/chat/completions", &[], &json!({})))
        .await
        .unwrap();
    assert_eq!(answer.text(), "0123456789");
    assert!(
        start.elapsed() >= Duration::from_millis(40),
        "{:?}",
        start.elapsed()
    );
    // Byte by byte, head and all, it is still the same answer.
    server.push(Reply::text("drop by drop").with_fault(Fault::drip_all(1, Duration::ZERO)));
    let (target, headers, body) = decode::request(Dialect::OpenAiChat, true);
    let answer = soon(call(server.addr(), &target, &headers, &body)).await.unwrap();
    assert_eq!(decode::stream(Dialect::OpenAiChat, &answer).text, "drop by drop");
}

#[tokio::test]
async fn an_oversized_answer_is_valid_and_exactly_so_big() {
    const SIZE: u64 = 3_000_001;
    for dialect in DIALECTS {
        let answer = ask(dialect, false, Reply::oversized(SIZE)).await.unwrap();
        assert_eq!((answer.body.len() as u64, answer.end), (SIZE, End::Whole));
        assert_eq!(answer.header("content-length"), Some("3000001"));
        let text = decode::complete(dialect, &answer).text;
        assert!(
            text.len() > 2_990_000 && text.bytes().all(|b| b == b'a'),
            "{dialect:?}"
        );
        let answer = ask(dialect, true, Reply::oversized(SIZE)).await.unwrap();
        assert!(
            answer.body.len() as u64 >= SIZE && answer.end == End::Whole,
            "{dialect:?} {}",
            answer.body.len()
        );
    }
    let error = chat(false, Reply::oversized(SIZE).with_status(500)).await;
    assert_eq!((error.status, error.body.len() as u64), (500, SIZE));
    let models = server().await;
    models.push_any(Reply::oversized(SIZE));
    assert_eq!(
        crate::client::get(models.addr(), "/v1/models", &[])
            .await
            .body
            .len() as u64,
        SIZE
    );
}

#[tokio::test]
async fn what_never_ends_goes_on_until_the_client_leaves() {
    for (reply, is_line) in [(Reply::endless_stream(), false), (Reply::endless_line(), true)] {
        let server = server().await;
        server.push(reply);
        let (target, headers, body) = decode::request(Dialect::Anthropic, true);
        let mut client = Client::connect(server.addr()).await;
        client.send("POST", &target, &headers, &body.to_string()).await;
        while client.arrived().len() < 5_000_000 {
            assert!(soon(client.more()).await.unwrap() > 0);
        }
        let text = String::from_utf8_lossy(client.arrived()).into_owned();
        let longest = text.split("\n\n").map(str::len).max().unwrap();
        // Chunk headers cut the line every 64 KiB on the wire, without ending it.
        assert_eq!(longest > 4_000_000, is_line, "{longest}");
        assert_eq!(text.matches("text_delta").count() > 10_000, !is_line);
        drop(client);
        assert_eq!(soon(server.wait_until(|c| c.in_flight == 0)).await.cancelled, 1);
    }
}

#[tokio::test]
async fn a_bomb_is_small_on_the_wire_and_valid_inside() {
    const SIZE: u64 = 64 * 1024 * 1024;
    for layers in [1_u8, 2] {
        let answer = chat(false, Reply::bomb_layers(SIZE, layers)).await;
        assert_eq!(
            answer.header("content-encoding"),
            Some(if layers == 1 { "gzip" } else { "gzip, gzip" })
        );
        assert!(answer.body.len() < 128 * 1024, "{}", answer.body.len());
        let mut reader: Box<dyn std::io::Read> = Box::new(std::io::Cursor::new(answer.body));
        for _ in 0..layers {
            reader = Box::new(flate2::read::GzDecoder::new(reader));
        }
        let (mut size, mut buffer, mut ends) = (0, vec![0; 1 << 20], (Vec::new(), Vec::new()));
        loop {
            let count = reader.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            if size == 0 {
                ends.0 = buffer[..count].to_vec();
            }
            ends.1 = buffer[..count].to_vec();
            size += count as u64;
        }
        assert_eq!(size, SIZE);
        assert!(ends.0.starts_with(b"{\"id\":\"chatcmpl-"));
        assert!(ends.1.ends_with(b"}"));
    }
    let stream = chat(true, Reply::bomb(1_000_000)).await;
    let mut text = String::new();
    flate2::read::GzDecoder::new(&stream.body[..])
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.len() >= 1_000_000 && text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn nobody_answers_at_the_other_addresses() {
    let refused = RefusedAddr::new().unwrap();
    assert_eq!(
        soon(TcpStream::connect(refused.addr())).await.unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    assert!(refused.url().starts_with("http://127.0.0.1:"));
    let hole = soon(Blackhole::new()).await.unwrap();
    let connect = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(hole.addr())).await;
    assert!(connect.is_err());
}

#[tokio::test]
async fn faults_compose() {
    let reply = Reply::text("one two three")
        .with_fault(Fault::insert(At::AfterPieces(1), ": noise\n\n"))
        .with_fault(Fault::pause(At::AfterPieces(1), Duration::from_millis(5)))
        .with_fault(Fault::drip(7, Duration::ZERO))
        .with_fault(Fault::close(At::AfterPieces(2)));
    let answer = chat(true, reply).await;
    assert_eq!(answer.end, End::Truncated);
    assert!(answer.text().contains(": noise\n\n"));
    assert!(answer.text().contains(" two") && !answer.text().contains(" three"));
}
