//! rig: its agent over its OpenAI client, on the Chat Completions route.

use std::convert::Infallible;
use std::process::ExitCode;

use futures_util::StreamExt as _;
use peregrine_rivals::work::{API_KEY, MODEL, SYSTEM, TOOL, TOOL_DESCRIPTION, add};
use peregrine_rivals::{Framework, Role};
use rig_agent::prelude::MultiTurnStreamItem;
use rig_agent::tool::{Tool, ToolContext};
use rig_agent::{Agent, AgentBuilder};
use rig_core::providers::openai::{OpenAI, OpenAIConfig};
use rig_core::streaming::{Item, StreamEvent};
use serde::Deserialize;

fn main() -> ExitCode {
    peregrine_rivals::run::main::<Rig>()
}

struct Rig {
    client: OpenAI,
}

#[derive(Deserialize)]
struct Sum {
    a: i64,
    b: i64,
}

#[derive(Clone)]
struct Add;

impl Tool for Add {
    const NAME: &'static str = TOOL;
    type Args = Sum;
    type Output = i64;
    type Error = Infallible;

    fn description(&self) -> String {
        TOOL_DESCRIPTION.to_owned()
    }

    fn parameters(&self) -> serde_json::Value {
        serde_json::json!({
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": false,
        })
    }

    async fn call(&self, _: &mut ToolContext, sum: Sum) -> Result<i64, Infallible> {
        Ok(add(sum.a, sum.b))
    }
}

impl Framework for Rig {
    const NAME: &'static str = "rig";
    const ROLE: Role = Role::Rival;
    const NOTES: &'static [&'static str] = &[
        "rig-core and rig-agent, which the crate `rig` exports again",
        "the conversation is `Agent::chat` with the history in its caller's hands",
    ];
    type Agent = Agent;
    type ToolAgent = Agent;

    fn connect(base_url: &str) -> Self {
        Self {
            client: OpenAIConfig::new(API_KEY).with_base_url(base_url).client(),
        }
    }

    async fn agent(&self) -> Agent {
        AgentBuilder::new(self.client.chat(MODEL))
            .preamble(SYSTEM)
            .build()
    }

    async fn agent_with_tool(&self) -> Agent {
        AgentBuilder::new(self.client.chat(MODEL))
            .preamble(SYSTEM)
            .tool(Add)
            .build()
    }

    async fn ask(&self, agent: &Agent, question: &str) -> String {
        agent.prompt(question).await.expect("it answers").output()
    }

    async fn use_tool(&self, agent: &Agent, question: &str) -> String {
        agent
            .prompt(question)
            .max_turns(3)
            .await
            .expect("it answers")
            .output()
    }

    async fn converse(&self, agent: &Agent, questions: &[&str]) -> String {
        let (mut history, mut text) = (Vec::new(), String::new());
        for question in questions {
            text = agent
                .chat(*question, &mut history)
                .await
                .expect("it answers")
                .output();
        }
        text
    }

    async fn stream(&self, agent: &Agent, question: &str, first: &mut dyn FnMut()) -> String {
        let (mut stream, mut all) = (agent.prompt(question).stream(), String::new());
        while let Some(item) = stream.next().await {
            let item = item.expect("the stream goes on");
            if let MultiTurnStreamItem::StreamAssistantItem(Item::Event(StreamEvent::Text { text, .. })) =
                item
            {
                first();
                all += &text;
            }
        }
        all
    }
}
