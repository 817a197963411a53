//! The model of the benchmarks: the testkit's server in a process of its own, so that what it uses is not taken for ours.
//!
//! Each script answers by what it was sent, so that a client that does not send its history gets another answer, which its
//! check finds.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use peregrine_testkit::server::{LlmServer, Reply, SeenRequest};
use serde_json::{Value, json};

pub(crate) const SYSTEM: &str = "You are a helpful assistant.";
pub(crate) const QUESTION: &str = "Write the sentence that has every letter of the alphabet.";
pub(crate) const TEXT: &str = "The quick brown fox jumps over the lazy dog.";
/// How many turns a long run has; the last one answers.
pub(crate) const LONG: usize = 20;
/// How many pieces a stream has.
pub(crate) const PIECES: usize = 64;

/// The answer of [`Script::Text`], as a provider writes it.
pub(crate) const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1763700000,"model":"test-model","choices":[{"index":0,"message":{"role":"assistant","content":"The quick brown fox jumps over the lazy dog.","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":24,"completion_tokens":10,"total_tokens":34,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"service_tier":"default","system_fingerprint":"fp_1"}"#;

/// What the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// The same text, always.
    Text,
    /// How many messages of the user and how many in all it was sent.
    Turns,
    /// A call of a tool until it was sent the results of all but the last turn.
    Tools,
    /// A call of a tool, then the answer.
    OneTool,
    /// A text in many pieces.
    Stream,
}

impl Script {
    const ALL: [(&'static str, Self); 5] = [
        ("text", Self::Text),
        ("turns", Self::Turns),
        ("tools", Self::Tools),
        ("one-tool", Self::OneTool),
        ("stream", Self::Stream),
    ];

    /// How many turns a run has.
    fn turns(self) -> usize {
        match self {
            Self::OneTool => 2,
            _ => LONG,
        }
    }

    fn reply(self, request: &SeenRequest) -> Reply {
        let messages = request.json().and_then(|body| body["messages"].as_array());
        let messages = messages.map(Vec::as_slice).unwrap_or_default();
        let of = |role: &str| messages.iter().filter(|message| message["role"] == role).count();
        match self {
            Self::Text => Reply::raw(200, &[("content-type", "application/json")], ANSWER),
            Self::Turns => Reply::text(turn_text(of("user"), messages.len())),
            Self::Tools | Self::OneTool => match of("tool") {
                done if done + 1 < self.turns() => {
                    Reply::tool_call(format!("call_{done}"), "add", json!({"a": done, "b": 1}))
                }
                _ => {
                    let sum: i64 = messages.iter().filter_map(tool_result).sum();
                    Reply::text(format!("sum {sum} of {} messages", messages.len()))
                }
            },
            Self::Stream => Reply::text_pieces((0..PIECES).map(piece)),
        }
    }
}

/// What [`Script::Turns`] answers.
pub(crate) fn turn_text(users: usize, messages: usize) -> String {
    format!("{users} questions, {messages} messages")
}

/// What is answered in the end, after so many calls of a tool, of a conversation that begins with so many messages.
pub(crate) fn sum_text(first_messages: usize, calls: usize) -> String {
    format!(
        "sum {} of {} messages",
        calls * (calls + 1) / 2,
        first_messages + 2 * calls
    )
}

/// A piece of [`Script::Stream`].
pub(crate) fn piece(number: usize) -> String {
    format!("piece {number} ")
}

fn tool_result(message: &Value) -> Option<i64> {
    (message["role"] == "tool").then(|| message["content"].as_str()?.parse().ok())?
}

/// Serves until nobody holds the other end of the standard input.
pub(crate) fn main(script: &str, latency_ms: u64) {
    let known = Script::ALL.iter().find(|(name, _)| *name == script);
    let (_, script) = *known.unwrap_or_else(|| panic!("there is no script {script}"));
    let server = LlmServer::builder()
        .with_recorded_requests(0)
        .with_first_byte_latency(Duration::from_millis(latency_ms))
        .start_blocking()
        .unwrap();
    match script {
        Script::Text => server.set_reply(Reply::raw(200, &[("content-type", "application/json")], ANSWER)),
        script => server.set_responder(move |request| script.reply(request)),
    }
    println!("{}", server.url());
    std::io::stdout().flush().unwrap();
    let mut rest = [0; 64];
    while matches!(std::io::stdin().read(&mut rest), Ok(1..)) {}
}

/// A server in a process of its own, which ends with this value.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    url: String,
}

impl Server {
    pub(crate) fn start(script: Script, latency_ms: u64) -> Self {
        let (name, _) = Script::ALL.iter().find(|(_, known)| *known == script).unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["serve", "--script", name, "--latency-ms", &latency_ms.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        let stdout = process.stdout.take().expect("it was piped");
        BufReader::new(stdout).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://"), "the server did not start");
        Self {
            process,
            url: url.trim_end().to_owned(),
        }
    }

    /// The base URL of its Chat Completions.
    pub(crate) fn url(&self) -> String {
        format!("{}/v1", self.url)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends by itself when its standard input does, so it may be gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
