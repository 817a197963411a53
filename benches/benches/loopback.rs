//! One chat call over loopback: ours, a hand-written reqwest call, and hyper alone, interleaved in one run.
//!
//! All three send the same body to the same server, on one keep-alive connection each, and check the answer
//! outside the timed part. Caller and server share one core. Prints p50 and p95 over all samples, and the
//! ratios of the medians, in rounds, so that the spread is seen.
//!
//! `cargo bench -p peregrine-benches --bench loopback [-- --rounds N --calls N]`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking and prints its result"
)]

use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use peregrine_benches::{Samples, pin_to_one_core};
use peregrine_core::{ChatModel as _, ChatRequest, Message, ModelHandle, Secret};
use peregrine_providers::Connector;
use peregrine_testkit::server::{LlmServer, Reply};
use serde::{Deserialize, Serialize};

const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1763700000,"model":"test-model","choices":[{"index":0,"message":{"role":"assistant","content":"The quick brown fox jumps over the lazy dog.","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":24,"completion_tokens":10,"total_tokens":34,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"service_tier":"default","system_fingerprint":"fp_1"}"#;
const SYSTEM: &str = "You are a helpful assistant.";
const QUESTION: &str = "Write the sentence that has every letter of the alphabet.";
const TEXT: &str = "The quick brown fox jumps over the lazy dog.";

/// What somebody would write by hand for this one call.
#[derive(Serialize)]
struct HandRequest<'a> {
    model: &'a str,
    messages: [HandMessage<'a>; 2],
}

#[derive(Serialize)]
struct HandMessage<'a> {
    role: &'a str,
    content: &'a str,
}

#[derive(Deserialize)]
struct HandResponse {
    choices: Vec<HandChoice>,
    usage: HandUsage,
}

#[derive(Deserialize)]
struct HandChoice {
    message: HandAnswer,
    finish_reason: String,
}

#[derive(Deserialize)]
struct HandAnswer {
    content: String,
}

#[derive(Deserialize)]
struct HandUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

fn hand_request() -> HandRequest<'static> {
    let message = |role, content| HandMessage { role, content };
    HandRequest {
        model: "test-model",
        messages: [message("system", SYSTEM), message("user", QUESTION)],
    }
}

fn check(response: &HandResponse) {
    assert_eq!(response.choices[0].message.content, TEXT);
    assert_eq!(response.choices[0].finish_reason, "stop");
    assert_eq!(
        (response.usage.prompt_tokens, response.usage.completion_tokens),
        (24, 10)
    );
}

struct Rivals {
    ours: ModelHandle,
    request: ChatRequest,
    client: reqwest::Client,
    url: String,
    hyper: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    host: String,
}

impl Rivals {
    async fn connect(server: &LlmServer) -> Self {
        let base_url = format!("{}/v1", server.url());
        let connector = Connector::new()
            .with_base_url(&base_url)
            .with_api_key(Secret::new("sk-test"));
        let stream = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (hyper, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self {
            ours: connector.chat("openai/test-model").unwrap(),
            request: ChatRequest::new([Message::system(SYSTEM), Message::user(QUESTION)]),
            client: reqwest::Client::new(),
            url: format!("{base_url}/chat/completions"),
            hyper,
            host: server.addr().to_string(),
        }
    }

    async fn ours(&self) {
        let response = self.ours.complete(&self.request).await.unwrap();
        assert_eq!(response.message.text(), TEXT);
    }

    async fn reqwest(&self) {
        let request = self
            .client
            .post(&self.url)
            .bearer_auth("sk-test")
            .json(&hand_request());
        let response = request.send().await.unwrap().error_for_status().unwrap();
        check(&response.json().await.unwrap());
    }

    async fn hyper(&mut self) {
        let body = Bytes::from(serde_json::to_vec(&hand_request()).unwrap());
        let request = hyper::Request::post("/v1/chat/completions")
            .header("host", &self.host)
            .header("content-type", "application/json")
            .header("authorization", "Bearer sk-test")
            .body(Full::new(body))
            .unwrap();
        self.hyper.ready().await.unwrap();
        let response = self.hyper.send_request(request).await.unwrap();
        assert!(response.status().is_success());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        check(&serde_json::from_slice(&body).unwrap());
    }
}

async fn timed(samples: &mut Samples, call: impl Future<Output = ()>) {
    let start = Instant::now();
    call.await;
    samples.push(start.elapsed());
}

fn argument(name: &str, usual: usize) -> usize {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    arguments
        .next()
        .and_then(|value| value.parse().ok())
        .unwrap_or(usual)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (rounds, calls) = (argument("--rounds", 10), argument("--calls", 2_000));
    let pinned = pin_to_one_core();
    let server = LlmServer::builder()
        .with_recorded_requests(1)
        .start_blocking()
        .unwrap();
    server.set_reply(Reply::raw(200, &[("content-type", "application/json")], ANSWER));
    let mut rivals = Rivals::connect(&server).await;
    for _ in 0..500 {
        rivals.ours().await;
        rivals.reqwest().await;
        rivals.hyper().await;
    }
    println!(
        "one call over loopback, {rounds} rounds of {calls} interleaved calls, pinned to one core: {pinned}"
    );
    println!("round  ours p50/p95 us   reqwest p50/p95 us   hyper p50/p95 us   ours/reqwest  hyper/reqwest");
    let us = |samples: &Samples, share| samples.percentile(share).as_secs_f64() * 1e6;
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let (mut ours, mut reqwest, mut hyper) = (Samples::default(), Samples::default(), Samples::default());
        for call in 0..calls {
            // The order changes, so that nobody always runs behind the same rival.
            for place in 0..3 {
                match (call + place) % 3 {
                    0 => timed(&mut ours, rivals.ours()).await,
                    1 => timed(&mut reqwest, rivals.reqwest()).await,
                    _ => timed(&mut hyper, rivals.hyper()).await,
                }
            }
        }
        let (o, r, h) = (us(&ours, 0.5), us(&reqwest, 0.5), us(&hyper, 0.5));
        println!(
            "{round:>5}  {o:>7.2} /{:>7.2}   {r:>8.2} /{:>8.2}   {h:>6.2} /{:>7.2}   {:>11.3}  {:>12.3}",
            us(&ours, 0.95),
            us(&reqwest, 0.95),
            us(&hyper, 0.95),
            o / r,
            h / r
        );
        ratios.push((o / r, h / r));
    }
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (median, first, last) = (ratios[ratios.len() / 2], ratios[0], ratios[ratios.len() - 1]);
    println!(
        "ours/reqwest: median {:.3} (from {:.3} to {:.3}); hyper/reqwest at that round {:.3}",
        median.0, first.0, last.0, median.1
    );
}
