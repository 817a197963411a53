//! What somebody would write by hand with reqwest: the floor.

use std::process::ExitCode;
use std::sync::Arc;

use peregrine_rivals::work::{API_KEY, MODEL, SYSTEM, TOOL, TOOL_DESCRIPTION, add};
use peregrine_rivals::{Framework, Role};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

fn main() -> ExitCode {
    peregrine_rivals::run::main::<Bare>()
}

struct Bare {
    client: reqwest::Client,
    url: Arc<str>,
}

/// The least that is an agent: its parts, shared, and its instructions.
struct Agent {
    client: reqwest::Client,
    url: Arc<str>,
    system: Message,
    tools: Option<Value>,
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: &'a [Message],
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<&'a Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Message {
    role: String,
    content: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Call {
    id: String,
    r#type: String,
    function: Function,
}

#[derive(Clone, Serialize, Deserialize)]
struct Function {
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
    message: Message,
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

#[derive(Deserialize)]
struct Sum {
    a: i64,
    b: i64,
}

impl Message {
    fn new(role: &str, content: &str) -> Self {
        Self {
            role: role.to_owned(),
            content: Some(content.to_owned()),
            ..Self::default()
        }
    }
}

impl Agent {
    fn begin(&self, question: &str) -> Vec<Message> {
        vec![self.system.clone(), Message::new("user", question)]
    }

    fn post(&self, messages: &[Message], stream: bool) -> reqwest::RequestBuilder {
        let request = Request {
            model: MODEL,
            messages,
            tools: self.tools.as_ref(),
            stream,
        };
        self.client.post(&*self.url).bearer_auth(API_KEY).json(&request)
    }

    async fn call(&self, messages: &[Message]) -> Message {
        let response = self
            .post(messages, false)
            .send()
            .await
            .expect("the server answers");
        let response = response.error_for_status().expect("the server agrees");
        let mut response: Response = response.json().await.expect("the server speaks JSON");
        let choice = response.choices.swap_remove(0);
        assert!(matches!(choice.finish_reason.as_str(), "stop" | "tool_calls"));
        assert!(response.usage.prompt_tokens + response.usage.completion_tokens > 0);
        choice.message
    }
}

impl Framework for Bare {
    const NAME: &'static str = "reqwest";
    const ROLE: Role = Role::Floor;
    const NOTES: &'static [&'static str] =
        &["no framework: typed messages with serde, a loop, lines of the stream cut by hand"];
    type Agent = Agent;
    type ToolAgent = Agent;

    fn connect(base_url: &str) -> Self {
        Self {
            client: reqwest::Client::new(),
            url: format!("{base_url}/chat/completions").into(),
        }
    }

    async fn agent(&self) -> Agent {
        Agent {
            client: self.client.clone(),
            url: Arc::clone(&self.url),
            system: Message::new("system", SYSTEM),
            tools: None,
        }
    }

    async fn agent_with_tool(&self) -> Agent {
        let schema = json!({
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": false,
        });
        let function = json!({"name": TOOL, "description": TOOL_DESCRIPTION, "parameters": schema});
        Agent {
            tools: Some(json!([{"type": "function", "function": function}])),
            ..self.agent().await
        }
    }

    async fn ask(&self, agent: &Agent, question: &str) -> String {
        let answer = agent.call(&agent.begin(question)).await;
        answer.content.unwrap_or_default()
    }

    async fn use_tool(&self, agent: &Agent, question: &str) -> String {
        let mut messages = agent.begin(question);
        loop {
            let answer = agent.call(&messages).await;
            if answer.tool_calls.is_empty() {
                return answer.content.unwrap_or_default();
            }
            let calls = answer.tool_calls.clone();
            messages.push(answer);
            for call in calls {
                assert_eq!(call.function.name, TOOL);
                let sum: Sum = serde_json::from_str(&call.function.arguments).expect("it has a and b");
                messages.push(Message {
                    tool_call_id: Some(call.id),
                    ..Message::new("tool", &add(sum.a, sum.b).to_string())
                });
            }
        }
    }

    async fn converse(&self, agent: &Agent, questions: &[&str]) -> String {
        let mut messages = vec![agent.system.clone()];
        for question in questions {
            messages.push(Message::new("user", question));
            let answer = agent.call(&messages).await;
            messages.push(answer);
        }
        messages
            .pop()
            .and_then(|answer| answer.content)
            .unwrap_or_default()
    }

    async fn stream(&self, agent: &Agent, question: &str, first: &mut dyn FnMut()) -> String {
        let messages = agent.begin(question);
        let response = agent
            .post(&messages, true)
            .send()
            .await
            .expect("the server answers");
        let mut response = response.error_for_status().expect("the server agrees");
        let (mut text, mut rest) = (String::new(), Vec::new());
        while let Some(bytes) = response.chunk().await.expect("the stream goes on") {
            rest.extend_from_slice(&bytes);
            let mut read = 0;
            while let Some(end) = rest[read..].iter().position(|byte| *byte == b'\n') {
                let line = &rest[read..read + end];
                read += end + 1;
                let Some(data) = line.strip_prefix(b"data: ").filter(|data| *data != b"[DONE]") else {
                    continue;
                };
                let chunk: Chunk = serde_json::from_slice(data.trim_ascii_end()).expect("it is a chunk");
                let piece = chunk
                    .choices
                    .into_iter()
                    .next()
                    .and_then(|choice| choice.delta.content);
                if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
                    first();
                    text += &piece;
                }
            }
            rest.drain(..read);
        }
        text
    }
}
