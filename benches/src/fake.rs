//! A model in this process that costs next to nothing, and the tool that it calls.

use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, Finish, ModelInfo, Part, Result, ToolCall, Usage,
};
use peregrine_tools::tool;

pub(crate) const FAKE_TEXT: &str = "forty-two";

/// Calls a tool in each turn but the last.
#[derive(Debug, Clone)]
pub(crate) struct Fake {
    info: ModelInfo,
    turns: usize,
    tool: &'static str,
}

impl Fake {
    /// A model that answers in the turn of this number; of a conversation that begins with one message.
    pub(crate) fn new(turns: usize) -> Self {
        Self {
            info: ModelInfo::new("bench", "fake"),
            turns,
            tool: "add",
        }
    }

    pub(crate) fn calling(mut self, tool: &'static str) -> Self {
        self.tool = tool;
        self
    }
}

impl ChatModel for Fake {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
        // The question, and two messages for each turn.
        let (part, finish) = match request.messages.len() / 2 + 1 < self.turns {
            true => {
                let call = ToolCall::new("call", self.tool, r#"{"a": 40, "b": 2}"#);
                (Part::ToolCall(call), Finish::ToolCalls)
            }
            false => (Part::text(FAKE_TEXT), Finish::Stop),
        };
        Ok(ChatResponse::new(vec![part], finish).with_usage(Usage::new(10, 5)))
    }
}

/// Adds two numbers.
#[tool(effect = "read_only", danger = "safe")]
pub(crate) async fn add(a: i64, b: i64) -> i64 {
    a + b
}

/// Adds two numbers, and might do more.
#[tool(effect = "side_effect", danger = "medium")]
pub(crate) async fn change(a: i64, b: i64) -> i64 {
    a + b
}
