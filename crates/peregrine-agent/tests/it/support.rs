//! A model that answers by a script, and the tools that the tests call.

use std::sync::{Arc, Mutex};

use peregrine_core::{
    Capabilities, ChatModel, ChatRequest, ChatResponse, Error, Finish, ModelInfo, Part, Result, ToolCall,
    Usage,
};

type Answer = dyn Fn(&ChatRequest, usize) -> Result<ChatResponse> + Send + Sync;

/// Answers by a function of the request and of how often it was asked before; keeps what it was asked.
#[derive(Clone)]
pub(crate) struct Script {
    info: ModelInfo,
    answer: Arc<Answer>,
    pub(crate) asked: Arc<Mutex<Vec<ChatRequest>>>,
}

impl Script {
    pub(crate) fn new(
        answer: impl Fn(&ChatRequest, usize) -> Result<ChatResponse> + Send + Sync + 'static,
    ) -> Self {
        let mut capabilities = Capabilities::default();
        (
            capabilities.streaming,
            capabilities.tools,
            capabilities.parallel_tools,
        ) = (true, true, true);
        Self {
            info: ModelInfo::new("test", "script").with_capabilities(capabilities),
            answer: Arc::new(answer),
            asked: Arc::default(),
        }
    }

    /// Gives these answers, one after the other, and then fails.
    pub(crate) fn of(answers: impl IntoIterator<Item = ChatResponse>) -> Self {
        let answers: Vec<ChatResponse> = answers.into_iter().collect();
        Self::new(move |_, place| {
            let answer = answers.get(place).cloned();
            answer.ok_or_else(|| Error::invalid_request("the script is at its end"))
        })
    }

    /// Can be held to a schema, and to calls of tools.
    pub(crate) fn able(mut self, change: impl FnOnce(&mut Capabilities)) -> Self {
        let mut capabilities = self.info.capabilities().clone();
        change(&mut capabilities);
        self.info = ModelInfo::new("test", "script").with_capabilities(capabilities);
        self
    }

    pub(crate) fn called(mut self, name: &str) -> Self {
        self.info = ModelInfo::new("test", name).with_capabilities(self.info.capabilities().clone());
        self
    }

    pub(crate) fn requests(&self) -> Vec<ChatRequest> {
        self.asked.lock().unwrap().clone()
    }
}

impl ChatModel for Script {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
        let place = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(request.clone());
            asked.len() - 1
        };
        (self.answer)(request, place)
    }
}

/// An answer of text that used 10 tokens for the prompt and 5 for itself.
pub(crate) fn text(text: &str) -> ChatResponse {
    ChatResponse::text(text).with_usage(Usage::new(10, 5))
}

/// An answer that calls tools, each given as name and arguments.
pub(crate) fn calls(calls: &[(&str, &str)]) -> ChatResponse {
    let parts = calls.iter().enumerate().map(|(place, (name, arguments))| {
        Part::ToolCall(ToolCall::new(format!("call-{place}"), *name, *arguments))
    });
    ChatResponse::new(parts.collect(), Finish::ToolCalls).with_usage(Usage::new(10, 5))
}

/// The texts of the results of tools in a request, in order.
pub(crate) fn results(request: &ChatRequest) -> Vec<String> {
    let parts = request.messages.iter().flat_map(|message| &message.parts);
    parts
        .filter_map(|part| match part {
            Part::ToolResult(result) => Some(result.text()),
            _ => None,
        })
        .collect()
}
