//! What somebody would write by hand with reqwest: the floor of everything that goes over HTTP. And the floor below it.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// A client for one server.
#[derive(Debug, Clone)]
pub(crate) struct Hand {
    client: reqwest::Client,
    url: Arc<str>,
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: &'a [HandMessage],
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<&'a Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
}

/// A message as Chat Completions has them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct HandMessage {
    role: String,
    content: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<HandCall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct HandCall {
    id: String,
    r#type: String,
    function: HandFunction,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct HandFunction {
    name: String,
    arguments: String,
}

#[derive(Deserialize)]
struct Response {
    choices: Vec<Choice>,
    usage: Usage,
}

#[derive(Deserialize)]
struct Choice {
    message: HandMessage,
    finish_reason: String,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

#[derive(Deserialize)]
struct Chunk {
    choices: Vec<ChunkChoice>,
}

#[derive(Deserialize)]
struct ChunkChoice {
    delta: Delta,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

/// The arguments of the tool that adds.
#[derive(Deserialize)]
pub(crate) struct Sum {
    pub(crate) a: i64,
    pub(crate) b: i64,
}

impl HandMessage {
    pub(crate) fn new(role: &str, content: &str) -> Self {
        Self {
            role: role.to_owned(),
            content: Some(content.to_owned()),
            ..Self::default()
        }
    }
}

impl Hand {
    pub(crate) fn new(base_url: &str) -> Self {
        Self {
            client: reqwest::Client::new(),
            url: format!("{base_url}/chat/completions").into(),
        }
    }

    fn post(&self, messages: &[HandMessage], tools: Option<&Value>, stream: bool) -> reqwest::RequestBuilder {
        let request = Request {
            model: "test-model",
            messages,
            tools,
            stream,
        };
        self.client.post(&*self.url).bearer_auth("sk-test").json(&request)
    }

    async fn call(&self, messages: &[HandMessage], tools: Option<&Value>) -> HandMessage {
        let response = self.post(messages, tools, false).send().await.unwrap();
        answer(response.error_for_status().unwrap().json().await.unwrap())
    }

    /// One answer.
    pub(crate) async fn ask(&self, system: &str, question: &str) -> String {
        let messages = [
            HandMessage::new("system", system),
            HandMessage::new("user", question),
        ];
        self.call(&messages, None).await.content.unwrap()
    }

    /// One answer in a conversation, which grows by it.
    pub(crate) async fn turn(&self, messages: &mut Vec<HandMessage>, question: &str) -> String {
        messages.push(HandMessage::new("user", question));
        let answer = self.call(messages, None).await;
        messages.push(answer);
        messages.last().and_then(|answer| answer.content.clone()).unwrap()
    }

    /// Calls the tool that adds until there is an answer.
    pub(crate) async fn tool_loop(&self, system: &str, question: &str, tools: &Value) -> String {
        self.kept_tool_loop(system, question, tools, |_| {}).await
    }

    /// The same; what is new in the conversation is given to `keep` before anything follows from it.
    pub(crate) async fn kept_tool_loop(
        &self,
        system: &str,
        question: &str,
        tools: &Value,
        mut keep: impl FnMut(&[HandMessage]),
    ) -> String {
        let mut messages = vec![
            HandMessage::new("system", system),
            HandMessage::new("user", question),
        ];
        let mut kept = 0;
        loop {
            keep(&messages[kept..]);
            kept = messages.len();
            let answer = self.call(&messages, Some(tools)).await;
            if answer.tool_calls.is_empty() {
                keep(std::slice::from_ref(&answer));
                return answer.content.unwrap();
            }
            let calls = answer.tool_calls.clone();
            messages.push(answer);
            for call in calls {
                assert_eq!(call.function.name, "add");
                let Sum { a, b } = serde_json::from_str(&call.function.arguments).unwrap();
                messages.push(HandMessage {
                    tool_call_id: Some(call.id),
                    ..HandMessage::new("tool", &(a + b).to_string())
                });
            }
        }
    }

    /// The text of a streamed answer; `first` is called at its first piece.
    pub(crate) async fn stream(&self, system: &str, question: &str, mut first: impl FnMut()) -> String {
        let messages = [
            HandMessage::new("system", system),
            HandMessage::new("user", question),
        ];
        let response = self.post(&messages, None, true).send().await.unwrap();
        let mut response = response.error_for_status().unwrap();
        let (mut text, mut rest) = (String::new(), Vec::new());
        while let Some(bytes) = response.chunk().await.unwrap() {
            rest.extend_from_slice(&bytes);
            let mut read = 0;
            while let Some(end) = rest[read..].iter().position(|byte| *byte == b'\n') {
                let line = &rest[read..read + end];
                read += end + 1;
                let Some(data) = line.strip_prefix(b"data: ").filter(|data| *data != b"[DONE]") else {
                    continue;
                };
                let chunk: Chunk = serde_json::from_slice(data.trim_ascii_end()).unwrap();
                let piece = chunk
                    .choices
                    .into_iter()
                    .next()
                    .and_then(|choice| choice.delta.content);
                if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
                    if text.is_empty() {
                        first();
                    }
                    text += &piece;
                }
            }
            rest.drain(..read);
        }
        text
    }
}

/// One connection and hyper, nothing else: no pool, no address to read, nobody to connect anew.
#[derive(Debug)]
pub(crate) struct Bare {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Bare {
    pub(crate) async fn connect(base_url: &str) -> Self {
        let host = base_url
            .trim_start_matches("http://")
            .trim_end_matches("/v1")
            .to_owned();
        let stream = TcpStream::connect(&host).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender, host }
    }

    /// One answer.
    pub(crate) async fn ask(&mut self, system: &str, question: &str) -> String {
        let messages = [
            HandMessage::new("system", system),
            HandMessage::new("user", question),
        ];
        let body = Request {
            model: "test-model",
            messages: &messages,
            tools: None,
            stream: false,
        };
        let request = hyper::Request::post("/v1/chat/completions")
            .header("host", &self.host)
            .header("content-type", "application/json")
            .header("authorization", "Bearer sk-test")
            .body(Full::new(Bytes::from(serde_json::to_vec(&body).unwrap())))
            .unwrap();
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request).await.unwrap();
        assert!(response.status().is_success());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        answer(serde_json::from_slice(&body).unwrap()).content.unwrap()
    }
}

/// The message of a response that is whole.
fn answer(mut response: Response) -> HandMessage {
    let choice = response.choices.swap_remove(0);
    assert!(matches!(choice.finish_reason.as_str(), "stop" | "tool_calls"));
    assert!(response.usage.prompt_tokens + response.usage.completion_tokens > 0);
    choice.message
}

/// The tool that adds, as the wire has it.
pub(crate) fn add_spec() -> Value {
    json!([{"type": "function", "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "a": {"type": "integer", "format": "int64"},
                "b": {"type": "integer", "format": "int64"},
            },
            "required": ["a", "b"],
        },
    }}])
}
