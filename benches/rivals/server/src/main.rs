//! The model that all frameworks are measured against: the test server in a process of its own.
//!
//! `--script text|tool|turns|stream --latency-ms N` prints its URL and answers until its standard input ends. With
//! `--pinned` it shares the core of whoever asks. With `--record` it prints, at its end, a line of JSON for each request: how
//! many bytes its head and its body had, a digest of the body, and the body.

#![allow(
    clippy::print_stdout,
    reason = "what it has to say it says on its standard output"
)]

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use peregrine_rivals::work::{PIECES, TEXT, TOOL, TOOL_ARGUMENTS, piece, tool_text, turn_text};
use peregrine_testkit::server::{LlmServer, Reply, SeenRequest};
use serde_json::{Value, json};

/// An answer as a provider writes it.
const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1763700000,"model":"test-model","choices":[{"index":0,"message":{"role":"assistant","content":"The quick brown fox jumps over the lazy dog.","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":24,"completion_tokens":10,"total_tokens":34,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"service_tier":"default","system_fingerprint":"fp_1"}"#;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).cloned()
    };
    let has = |name: &str| words.iter().any(|word| word == name);
    let latency_ms = value("--latency-ms").map_or(Some(0), |text| text.parse().ok());
    let script = value("--script").and_then(|name| script(&name));
    let (Some(latency_ms), Some(script)) = (latency_ms, script) else {
        let usage = "--script text|tool|turns|stream [--latency-ms N] [--pinned] [--record]\n";
        let _ = std::io::stderr().write_all(usage.as_bytes());
        return ExitCode::from(2);
    };
    if has("--pinned") {
        let mut one = rustix::thread::CpuSet::new();
        one.set(0);
        // Where this is not possible times are more restless, and still times.
        let _ = rustix::thread::sched_setaffinity(None, &one);
    }
    let latency = Duration::from_millis(latency_ms);
    let server = LlmServer::builder()
        .with_recorded_requests(if has("--record") { 64 } else { 0 })
        .with_max_connections(4_096)
        .with_first_byte_latency(latency)
        .start_blocking();
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "starting the server: {error}");
            return ExitCode::from(1);
        }
    };
    assert!(ANSWER.contains(TEXT));
    match script {
        // A reply that is ready in bytes takes its latency from nobody else.
        Script::Text => server.set_reply(text_reply().with_first_byte_latency(latency)),
        script => server.set_responder(move |request| script.reply(request)),
    }
    println!("{}/v1", server.url());
    let mut rest = [0; 64];
    while matches!(std::io::stdin().read(&mut rest), Ok(1..)) {}
    for request in server.requests() {
        println!("{}", seen(&request));
    }
    ExitCode::SUCCESS
}

fn text_reply() -> Reply {
    Reply::raw(200, &[("content-type", "application/json")], ANSWER)
}

/// What the server answers.
#[derive(Clone, Copy)]
enum Script {
    Text,
    Tool,
    Turns,
    Stream,
}

fn script(name: &str) -> Option<Script> {
    Some(match name {
        "text" => Script::Text,
        "tool" => Script::Tool,
        "turns" => Script::Turns,
        "stream" => Script::Stream,
        _ => return None,
    })
}

impl Script {
    /// By what it was sent, so that a client that does not send its history gets another answer, which its check finds.
    fn reply(self, request: &SeenRequest) -> Reply {
        let messages = request.json().and_then(|body| body["messages"].as_array());
        let messages = messages.map(Vec::as_slice).unwrap_or_default();
        let of = |role: &'static str| messages.iter().filter(move |message| message["role"] == role);
        match self {
            Self::Text => text_reply(),
            Self::Turns => Reply::text(turn_text(of("user").count(), messages.len())),
            Self::Tool => match of("tool").next() {
                Some(result) => Reply::text(tool_text(&text(&result["content"]), messages.len())),
                None => {
                    let (a, b) = TOOL_ARGUMENTS;
                    Reply::tool_call("call_1", TOOL, json!({"a": a, "b": b}))
                }
            },
            Self::Stream => Reply::text_pieces((0..PIECES).map(piece)),
        }
    }
}

/// The text of a message, which may come in parts.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        other => other.to_string(),
    }
}

fn seen(request: &SeenRequest) -> Value {
    let head: usize = request
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + 4)
        .sum();
    json!({
        "path": request.path,
        "head_bytes": head,
        "body_bytes": request.body.len(),
        "digest": format!("{:016x}", fnv(&request.body)),
        "body": String::from_utf8_lossy(&request.body),
    })
}

/// FNV-1a (Fowler, Noll and Vo), of 64 bits: tells bodies apart, no more.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
