//! Tools as data: what is offered, what the model asks for, what came back.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{JsonSchema, Part, ProviderData};

/// A tool as the model sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// Its name: 1 to 64 characters of `[A-Za-z0-9_-]` works with every provider.
    pub name: String,
    /// What it does and when to use it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The schema of its arguments: an object.
    pub parameters: JsonSchema,
    /// Whether the provider is to guarantee that arguments fit the schema, where it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

impl ToolSpec {
    /// A tool.
    pub fn new(
        name: impl Into<String>,
        description: impl Into<String>,
        parameters: impl Into<JsonSchema>,
    ) -> Self {
        Self {
            name: name.into(),
            description: description.into(),
            parameters: parameters.into(),
            strict: None,
        }
    }

    /// Asks the provider to guarantee (or not) that arguments fit the schema.
    #[must_use]
    pub fn with_strict(mut self, strict: bool) -> Self {
        self.strict = Some(strict);
        self
    }
}

/// Whether the model may, must or must not call tools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No tool is called.
    None,
    /// At least one tool is called.
    Required,
    /// This tool is called.
    Tool(String),
}

/// A model's request to run a tool.
///
/// Invariant: `arguments` is the text the model wrote (compacted where the provider sent an object), even
/// if it is not JSON; [`ToolCall::parse_arguments`] says so then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The id that its result must name. Made up by the codec where the provider gives none.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments as JSON text; `{}` where the model gave none.
    pub arguments: String,
    /// Data that goes back to the provider with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ProviderData>,
}

impl ToolCall {
    /// A call.
    pub fn new(id: impl Into<String>, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            arguments: arguments.into(),
            data: None,
        }
    }

    /// The arguments as a value.
    ///
    /// # Errors
    ///
    /// The JSON error if the model wrote something that is not JSON.
    pub fn parse_arguments(&self) -> Result<Value, serde_json::Error> {
        if self.arguments.trim().is_empty() {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        serde_json::from_str(&self.arguments)
    }
}

/// What a tool returned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    /// The id of the call it answers.
    pub call_id: String,
    /// The tool's name.
    pub name: String,
    /// What came back: mostly one text part; images and documents where the provider takes them.
    pub content: Vec<Part>,
    /// Whether the tool failed. The content says how.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_error: bool,
}

impl ToolResult {
    /// The result of a call as text.
    pub fn new(call: &ToolCall, text: impl Into<String>) -> Self {
        Self {
            call_id: call.id.clone(),
            name: call.name.clone(),
            content: vec![Part::text(text)],
            is_error: false,
        }
    }

    /// A failure that the model is told about.
    pub fn error(call: &ToolCall, text: impl Into<String>) -> Self {
        Self {
            is_error: true,
            ..Self::new(call, text)
        }
    }

    /// The text parts of the content, joined.
    pub fn text(&self) -> String {
        self.content.iter().filter_map(Part::as_text).collect()
    }
}

/// What running a tool does to the world; declared on the tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing: it may run again and beside others.
    ReadOnly,
    /// The same once or many times with the same key.
    Idempotent,
    /// Something that must not happen twice.
    SideEffect,
}

/// How much harm a tool can do; declared on the tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Danger {
    /// None.
    Safe,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// Beyond repair.
    Critical,
}
