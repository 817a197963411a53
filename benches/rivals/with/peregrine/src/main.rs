//! Peregrine: its agent over its providers.

use std::process::ExitCode;

use peregrine_agent::{Agent, Input, RunEvent, TurnMemory};
use peregrine_core::{ModelHandle, Scope, Secret};
use peregrine_providers::{Connector, HttpConfig};
use peregrine_rivals::work::{API_KEY, CONCURRENT, MODEL, SYSTEM};
use peregrine_rivals::{Framework, Role};
use peregrine_tools::tool;

fn main() -> ExitCode {
    peregrine_rivals::run::main::<Peregrine>()
}

struct Peregrine {
    model: ModelHandle,
}

/// Adds two numbers.
#[tool(effect = "read_only", danger = "safe")]
async fn add(a: i64, b: i64) -> i64 {
    peregrine_rivals::work::add(a, b)
}

impl Framework for Peregrine {
    const NAME: &'static str = "peregrine";
    const ROLE: Role = Role::Ours;
    const NOTES: &'static [&'static str] = &[
        "the tool is a function with `#[tool]`, which makes its schema",
        "keeps as many unused connections as run at the same time, as the others do, which have no bound; its own is 1,024",
    ];
    type Agent = Agent;
    type ToolAgent = Agent;

    fn connect(base_url: &str) -> Self {
        let model = Connector::new()
            .with_base_url(base_url)
            .with_http(HttpConfig::default().with_max_idle_connections(CONCURRENT))
            .with_api_key(Secret::new(API_KEY))
            .chat(&format!("openai/{MODEL}"))
            .expect("the address is one");
        Self { model }
    }

    async fn agent(&self) -> Agent {
        Agent::new(self.model.clone()).with_instructions(SYSTEM)
    }

    async fn agent_with_tool(&self) -> Agent {
        Agent::new(self.model.clone())
            .with_instructions(SYSTEM)
            .with_tool(add())
    }

    async fn ask(&self, agent: &Agent, question: &str) -> String {
        agent.run(question).await.expect("it answers").text()
    }

    async fn use_tool(&self, agent: &Agent, question: &str) -> String {
        self.ask(agent, question).await
    }

    async fn converse(&self, agent: &Agent, questions: &[&str]) -> String {
        let agent = agent.clone().with_memory(TurnMemory::new(8));
        let scope = Scope::tenant("bench").expect("it is a name");
        let mut text = String::new();
        for question in questions {
            let input = Input::from(*question).with_scope(scope.clone());
            text = agent.run(input).await.expect("it answers").text();
        }
        text
    }

    async fn stream(&self, agent: &Agent, question: &str, first: &mut dyn FnMut()) -> String {
        let mut all = String::new();
        let mut events = agent.run_stream(question);
        while let Some(event) = events.next().await {
            if let RunEvent::Text { text, .. } = event.expect("the stream goes on") {
                first();
                all += &text;
            }
        }
        all
    }
}
