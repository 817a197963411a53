//! genai: a client for many providers. It has no agents: loops and conversations are its user's, over its chat requests.

use std::process::ExitCode;

use futures_util::StreamExt as _;
use genai::adapter::AdapterKind;
use genai::chat::{ChatMessage, ChatRequest, ChatStreamEvent, Tool, ToolResponse};
use genai::resolver::{AuthData, Endpoint};
use genai::{Client, ModelIden, ServiceTarget};
use peregrine_rivals::work::{API_KEY, MODEL, SYSTEM, TOOL, TOOL_DESCRIPTION, add};
use peregrine_rivals::{Framework, Role};
use serde::Deserialize;

fn main() -> ExitCode {
    peregrine_rivals::run::main::<Genai>()
}

struct Genai {
    client: Client,
    target: ServiceTarget,
}

#[derive(Deserialize)]
struct Sum {
    a: i64,
    b: i64,
}

impl Framework for Genai {
    const NAME: &'static str = "genai";
    const ROLE: Role = Role::Rival;
    const NOTES: &'static [&'static str] = &[
        "it has no agents: the tool loop and the conversation are written by hand over its client",
        "making agents is left out, for the same reason",
    ];
    const HAS_AGENTS: bool = false;
    /// What is the same in each request.
    type Agent = ChatRequest;
    type ToolAgent = ChatRequest;

    fn connect(base_url: &str) -> Self {
        Self {
            client: Client::new().expect("a client"),
            target: ServiceTarget {
                endpoint: Endpoint::from_owned(format!("{base_url}/")),
                auth: AuthData::from_single(API_KEY),
                model: ModelIden::new(AdapterKind::OpenAI, MODEL),
            },
        }
    }

    async fn agent(&self) -> ChatRequest {
        ChatRequest::new(vec![ChatMessage::system(SYSTEM)])
    }

    async fn agent_with_tool(&self) -> ChatRequest {
        let schema = serde_json::json!({
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": false,
        });
        let tool = Tool::new(TOOL)
            .with_description(TOOL_DESCRIPTION)
            .with_schema(schema);
        self.agent().await.with_tools([tool])
    }

    async fn ask(&self, agent: &ChatRequest, question: &str) -> String {
        let request = agent.clone().append_message(ChatMessage::user(question));
        let response = self.client.exec_chat(self.target.clone(), request, None).await;
        response
            .expect("it answers")
            .into_first_text()
            .unwrap_or_default()
    }

    async fn use_tool(&self, agent: &ChatRequest, question: &str) -> String {
        let mut request = agent.clone().append_message(ChatMessage::user(question));
        loop {
            let response = self
                .client
                .exec_chat(self.target.clone(), request.clone(), None)
                .await;
            let response = response.expect("it answers");
            if response.tool_calls().is_empty() {
                return response.into_first_text().unwrap_or_default();
            }
            let calls = response.into_tool_calls();
            request = request.append_message(calls.clone());
            for call in calls {
                assert_eq!(call.fn_name, TOOL);
                let sum: Sum = serde_json::from_value(call.fn_arguments.clone()).expect("it has a and b");
                let result = add(sum.a, sum.b).to_string();
                request = request.append_message(ToolResponse::new(call.call_id, result));
            }
        }
    }

    async fn converse(&self, agent: &ChatRequest, questions: &[&str]) -> String {
        let (mut request, mut text) = (agent.clone(), String::new());
        for question in questions {
            request = request.append_message(ChatMessage::user(*question));
            let response = self
                .client
                .exec_chat(self.target.clone(), request.clone(), None)
                .await;
            text = response
                .expect("it answers")
                .into_first_text()
                .unwrap_or_default();
            request = request.append_message(ChatMessage::assistant(text.clone()));
        }
        text
    }

    async fn stream(&self, agent: &ChatRequest, question: &str, first: &mut dyn FnMut()) -> String {
        let request = agent.clone().append_message(ChatMessage::user(question));
        let response = self
            .client
            .exec_chat_stream(self.target.clone(), request, None)
            .await;
        let (mut stream, mut text) = (response.expect("it answers").stream, String::new());
        while let Some(event) = stream.next().await {
            if let ChatStreamEvent::Chunk(chunk) = event.expect("the stream goes on") {
                first();
                text += &chunk.content;
            }
        }
        text
    }
}
