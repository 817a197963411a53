//! Latency: never early, counted from where it is said to be counted, and absent when it is zero.
//!
//! Lower bounds are exact; no upper bound decides, because a busy machine may be late.

use std::time::{Duration, Instant};

use peregrine_testkit::server::{At, Dialect, Fault, LlmServer, Reply};

use crate::client::{Client, call};
use crate::decode;
use crate::{PATIENCE, soon};

const STEP: Duration = Duration::from_millis(20);

#[tokio::test]
async fn the_first_byte_is_not_early() {
    let server = LlmServer::builder()
        .with_first_byte_latency(STEP)
        .start_blocking()
        .unwrap();
    for (reply, least) in [
        (Reply::text("x"), STEP),
        (Reply::text("x").with_first_byte_latency(2 * STEP), 2 * STEP),
        (
            Reply::raw(200, &[], "x").with_first_byte_latency(3 * STEP),
            3 * STEP,
        ),
    ] {
        server.push(reply);
        let (target, headers, body) = decode::request(Dialect::OpenAiChat, false);
        let mut client = Client::connect(server.addr()).await;
        let start = Instant::now();
        client.send("POST", &target, &headers, &body.to_string()).await;
        soon(client.until("HTTP/1.1")).await;
        assert!(start.elapsed() >= least, "{:?} < {least:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_prepared_answer_is_not_early_either() {
    let server = LlmServer::builder()
        .with_recorded_requests(0)
        .with_first_byte_latency(STEP)
        .start_blocking()
        .unwrap();
    server.set_reply(Reply::raw(200, &[], "x"));
    let (target, headers, body) = decode::request(Dialect::OpenAiChat, false);
    let mut client = Client::connect(server.addr()).await;
    let start = Instant::now();
    client.send("POST", &target, &headers, &body.to_string()).await;
    soon(client.until("HTTP/1.1")).await;
    assert!(start.elapsed() >= STEP, "{:?} < {STEP:?}", start.elapsed());
}

#[tokio::test]
async fn pieces_keep_their_distance_from_the_first_one() {
    let server = LlmServer::start_blocking().unwrap();
    server.push(
        Reply::text("zero one two three")
            .with_first_byte_latency(STEP)
            .with_per_piece_latency(STEP),
    );
    let (target, headers, body) = decode::request(Dialect::OpenAiChat, true);
    let mut client = Client::connect(server.addr()).await;
    let start = Instant::now();
    client.send("POST", &target, &headers, &body.to_string()).await;
    for (index, word) in ["zero", " one", " two", " three"].iter().enumerate() {
        soon(client.until(word)).await;
        let least = STEP * (index as u32 + 1);
        assert!(start.elapsed() >= least, "{word} after {:?}", start.elapsed());
    }
    // Without latency nothing is waited for: a thousand pieces would take 20 s otherwise.
    server.push(Reply::text("y".repeat(1000)).with_chars_per_piece(1));
    let answer = tokio::time::timeout(PATIENCE, call(server.addr(), &target, &headers, &body))
        .await
        .unwrap();
    assert_eq!(answer.unwrap().text().matches("\"y\"").count(), 1000);
}

#[tokio::test]
async fn a_pause_is_a_pause() {
    let server = LlmServer::start_blocking().unwrap();
    let (target, headers, body) = decode::request(Dialect::OpenAiChat, true);
    for at in [
        At::BeforeHead,
        At::AfterHead,
        At::AfterPieces(1),
        At::BeforeEndMarker,
        At::AfterBytes(u64::MAX),
    ] {
        server.push(Reply::text("one two").with_fault(Fault::pause(at, 2 * STEP)));
        let start = Instant::now();
        let answer = soon(call(server.addr(), &target, &headers, &body)).await.unwrap();
        assert!(start.elapsed() >= 2 * STEP, "{at:?} {:?}", start.elapsed());
        assert_eq!(decode::stream(Dialect::OpenAiChat, &answer).text, "one two");
    }
}

#[tokio::test]
async fn each_piece_is_a_write_of_its_own_and_one_write_is_one() {
    let server = LlmServer::start_blocking().unwrap();
    let (target, headers, body) = decode::request(Dialect::OpenAiChat, true);
    // With a long wait between pieces, the first one is there alone.
    server.push(Reply::text("one two").with_per_piece_latency(PATIENCE));
    let mut client = Client::connect(server.addr()).await;
    client.send("POST", &target, &headers, &body.to_string()).await;
    soon(client.until("one")).await;
    assert!(!String::from_utf8_lossy(client.arrived()).contains("two"));
    drop(client);
    assert_eq!(soon(server.wait_until(|c| c.in_flight == 0)).await.cancelled, 1);
    server.push(Reply::text("one two").with_one_write());
    let answer = soon(call(server.addr(), &target, &headers, &body)).await.unwrap();
    assert_eq!(decode::stream(Dialect::OpenAiChat, &answer).text, "one two");
}
