//! AutoAgents: its direct agents over its OpenAI backend, in the Chat Completions mode.

use std::process::ExitCode;
use std::sync::{Arc, LazyLock};

use autoagents::async_trait;
use autoagents::core::agent::memory::SlidingWindowMemory;
use autoagents::core::agent::prebuilt::executor::{BasicAgent, ReActAgent};
use autoagents::core::agent::task::Task;
use autoagents::core::agent::{AgentBuilder, AgentDeriveT, AgentHooks, BaseAgent, DirectAgent};
use autoagents::core::tool::{ToolCallError, ToolRuntime, ToolT};
use autoagents::llm::LLMProvider;
use autoagents::llm::backends::openai::{OpenAI, OpenAIApiMode};
use autoagents::llm::builder::LLMBuilder;
use futures_util::StreamExt as _;
use peregrine_rivals::work::{API_KEY, MODEL, SYSTEM, TOOL, TOOL_DESCRIPTION, add};
use peregrine_rivals::{Framework, Role};
use serde::Deserialize;
use serde_json::{Value, json};

fn main() -> ExitCode {
    peregrine_rivals::run::main::<AutoAgents>()
}

struct AutoAgents {
    llm: Arc<dyn LLMProvider>,
}

/// An agent, written out as its macro would write it, because the macro takes the instructions as a literal only.
#[derive(Debug, Clone, Copy)]
struct Helper {
    has_tool: bool,
}

#[derive(Debug)]
struct Add;

#[derive(Deserialize)]
struct Sum {
    a: i64,
    b: i64,
}

#[async_trait]
impl ToolRuntime for Add {
    async fn execute(&self, arguments: Value) -> Result<Value, ToolCallError> {
        let sum: Sum = serde_json::from_value(arguments)?;
        Ok(add(sum.a, sum.b).into())
    }
}

impl ToolT for Add {
    fn name(&self) -> &str {
        TOOL
    }

    fn description(&self) -> &str {
        TOOL_DESCRIPTION
    }

    fn args_schema(&self) -> Value {
        // Made once and cloned, as by its macro.
        static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
            json!({
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
                "additionalProperties": false,
            })
        });
        SCHEMA.clone()
    }
}

#[async_trait]
impl AgentDeriveT for Helper {
    type Output = String;

    fn description(&self) -> &str {
        SYSTEM
    }

    fn output_schema(&self) -> Option<Value> {
        None
    }

    fn name(&self) -> &str {
        "helper"
    }

    fn tools(&self) -> Vec<Box<dyn ToolT>> {
        match self.has_tool {
            true => vec![Box::new(Add)],
            false => Vec::new(),
        }
    }
}

impl AgentHooks for Helper {}

type Basic = BaseAgent<BasicAgent<Helper>, DirectAgent>;
type ReAct = BaseAgent<ReActAgent<Helper>, DirectAgent>;

impl AutoAgents {
    fn builder(&self) -> AgentBuilder<BasicAgent<Helper>, DirectAgent> {
        let helper = BasicAgent::new(Helper { has_tool: false });
        AgentBuilder::<_, DirectAgent>::new(helper).llm(Arc::clone(&self.llm))
    }
}

impl Framework for AutoAgents {
    const NAME: &'static str = "autoagents";
    const ROLE: Role = Role::Rival;
    const NOTES: &'static [&'static str] = &[
        "direct agents, without actors; nobody listens to their events, which would stop a run once 1,000 wait unread",
        "results of tools reach the model through the memory, so the tool loop makes its agent, with an empty memory, each time",
        "the agent and the tool are written out, as its macros write them, so that instructions and schema are those of all",
    ];
    type Agent = Basic;
    type ToolAgent = ReAct;

    fn connect(base_url: &str) -> Self {
        let llm = LLMBuilder::<OpenAI>::new()
            .api_key(API_KEY)
            .base_url(base_url)
            .model(MODEL)
            .api_mode(OpenAIApiMode::ChatCompletions)
            .build();
        Self {
            llm: llm.expect("the key is there"),
        }
    }

    async fn agent(&self) -> Basic {
        self.builder().build().await.expect("the model is there").agent
    }

    async fn agent_with_tool(&self) -> ReAct {
        let helper = ReActAgent::new(Helper { has_tool: true });
        let builder = AgentBuilder::<_, DirectAgent>::new(helper).llm(Arc::clone(&self.llm));
        let builder = builder.memory(Box::new(SlidingWindowMemory::new(16)));
        builder.build().await.expect("the model is there").agent
    }

    async fn ask(&self, agent: &Basic, question: &str) -> String {
        agent.run(Task::new(question)).await.expect("it answers")
    }

    async fn use_tool(&self, _: &ReAct, question: &str) -> String {
        let agent = self.agent_with_tool().await;
        agent.run(Task::new(question)).await.expect("it answers")
    }

    async fn converse(&self, _: &Basic, questions: &[&str]) -> String {
        let builder = self.builder().memory(Box::new(SlidingWindowMemory::new(16)));
        let agent = builder.build().await.expect("the model is there").agent;
        let mut text = String::new();
        for question in questions {
            text = agent.run(Task::new(*question)).await.expect("it answers");
        }
        text
    }

    async fn stream(&self, agent: &Basic, question: &str, first: &mut dyn FnMut()) -> String {
        let stream = agent.run_stream(Task::new(question)).await;
        let (mut stream, mut pieces) = (stream.expect("it answers"), Vec::new());
        while let Some(piece) = stream.next().await {
            first();
            pieces.push(piece.expect("the stream goes on"));
        }
        // The last of them is the whole text again.
        let whole = pieces.pop().unwrap_or_default();
        assert_eq!(pieces.concat(), whole, "the pieces are the text");
        whole
    }
}
