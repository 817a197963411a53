//! A model in this process that answers by a script: JSON lines, one for each time that it is asked.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use peregrine_core::{
    Capabilities, ChatModel, ChatRequest, ChatResponse, ConfigError, Error, Finish, ModelInfo, Part, Result,
    ToolCall, Usage,
};
use serde::Deserialize;
use serde_json::Value;

/// How large a script may be.
const MAX_SCRIPT_BYTES: u64 = 64 << 20;

/// A scripted model.
#[derive(Debug)]
pub(crate) struct ScriptModel {
    info: ModelInfo,
    answers: Mutex<VecDeque<Answer>>,
    count: usize,
}

/// A line of a script. A key that is not known is an error that names it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    text: Option<String>,
    #[serde(default)]
    tool_calls: Vec<Call>,
    usage: Option<Tokens>,
    /// How long the model takes for it.
    #[serde(default)]
    delay_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    id: Option<String>,
    name: String,
    /// A value; or a text, which is taken as it is and need not be JSON.
    #[serde(default)]
    arguments: Value,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    input: u64,
    output: u64,
}

impl ScriptModel {
    /// Reads a script. The model goes by these names, and so by their price.
    ///
    /// # Errors
    ///
    /// That the file cannot be read, or which line of it is no answer.
    pub(crate) fn open(path: &Path, provider: &str, model: &str) -> Result<Self> {
        let refuse = |why: &dyn std::fmt::Display| {
            Error::from(ConfigError::new(format!(
                "{} is no script: {why}",
                path.display()
            )))
        };
        let size = std::fs::metadata(path).map_err(|error| refuse(&error))?.len();
        if size > MAX_SCRIPT_BYTES {
            return Err(refuse(&format_args!(
                "it has {size} bytes, {MAX_SCRIPT_BYTES} at most are read"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(|error| refuse(&error))?;
        let mut answers = VecDeque::new();
        for (at, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let answer: Answer = serde_json::from_str(line)
                .map_err(|error| refuse(&format_args!("line {}: {error}", at + 1)))?;
            if answer.text.is_none() && answer.tool_calls.is_empty() {
                return Err(refuse(&format_args!(
                    "line {} has neither text nor tool_calls",
                    at + 1
                )));
            }
            answers.push_back(answer);
        }
        let mut capabilities = Capabilities::default();
        capabilities.streaming = true;
        capabilities.tools = true;
        capabilities.parallel_tools = true;
        capabilities.tool_choice = true;
        capabilities.json_schema = true;
        Ok(Self {
            info: ModelInfo::new(provider, model).with_capabilities(capabilities),
            count: answers.len(),
            answers: Mutex::new(answers),
        })
    }

    /// A model that answers nothing, for an agent that is to ask nobody.
    pub(crate) fn silent() -> Self {
        Self {
            info: ModelInfo::new("script", "silent"),
            answers: Mutex::default(),
            count: 0,
        }
    }

    /// The same without its first answers, which were given before.
    pub(crate) fn without(self, given: usize) -> Self {
        let mut answers = self.answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        answers.drain(..given.min(answers.len()));
        Self {
            answers: Mutex::new(answers),
            ..self
        }
    }

    fn next(&self) -> Result<Answer> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.pop_front().ok_or_else(|| {
            Error::invalid_request(format!(
                "the script is at its end: it has {} answers, and another was asked for",
                self.count
            ))
        })
    }
}

impl ChatModel for ScriptModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn complete(&self, _: &ChatRequest) -> Result<ChatResponse> {
        let answer = self.next()?;
        if answer.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(answer.delay_ms)).await;
        }
        Ok(answer.into_response())
    }
}

impl Answer {
    fn into_response(self) -> ChatResponse {
        let finish = match self.tool_calls.is_empty() {
            true => Finish::Stop,
            false => Finish::ToolCalls,
        };
        let calls = self.tool_calls.into_iter().enumerate().map(|(at, call)| {
            let arguments = match call.arguments {
                Value::Null => "{}".to_owned(),
                Value::String(text) => text,
                value => value.to_string(),
            };
            let id = call.id.unwrap_or_else(|| format!("call_{at}"));
            Part::ToolCall(ToolCall::new(id, call.name, arguments))
        });
        let parts = self.text.map(Part::text).into_iter().chain(calls).collect();
        let response = ChatResponse::new(parts, finish);
        match self.usage {
            Some(Tokens { input, output }) => response.with_usage(Usage::new(input, output)),
            None => response,
        }
    }
}
