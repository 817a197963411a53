//! What a model is asked.
//!
//! `ChatRequest` is deliberately exhaustive: code that must account for every field (a cache key, a codec)
//! destructures it, and a new field does not compile until it has found its place there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{JsonSchema, Message, Messages, ReasoningConfig, Sampling, Scope, ToolChoice, ToolSpec};

/// One request for a chat completion. Cheap to clone: messages and tools are shared.
///
/// # Examples
///
/// ```
/// use peregrine_core::{ChatRequest, Message};
///
/// let request = ChatRequest::new([Message::system("Be brief."), Message::user("Why is the sky blue?")])
///     .with_temperature(0.0)
///     .with_max_tokens(200);
/// assert_eq!(request.sampling.temperature, Some(0.0));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The conversation, oldest first.
    pub messages: Messages,
    /// The tools on offer.
    #[serde(default = "no_tools", skip_serializing_if = "is_empty")]
    pub tools: Arc<[ToolSpec]>,
    /// Whether the model may, must or must not call tools.
    #[serde(default)]
    pub tool_choice: ToolChoice,
    /// Whether several tools may be called in one turn; `None` leaves it to the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer.
    #[serde(default)]
    pub response_format: ResponseFormat,
    /// Sampling parameters.
    #[serde(default)]
    pub sampling: Sampling,
    /// How the model is to reason; `None` leaves it to the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<ReasoningConfig>,
    /// Hints for the provider's prompt cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_cache: Option<PromptCache>,
    /// Fields for one dialect's request body that have no name here.
    #[serde(default, skip_serializing_if = "ProviderOptions::is_empty")]
    pub provider_options: ProviderOptions,
    /// Whose request it is. Caches and limits partition by it; it is not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Labels for layers (traces, tags). Not sent, and no part of what is asked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl ChatRequest {
    /// A request of these messages.
    pub fn new(messages: impl IntoIterator<Item = Message>) -> Self {
        Self {
            messages: messages.into_iter().collect(),
            ..Self::default()
        }
    }

    /// A request of one user message.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new([Message::user(text)])
    }

    /// Offers these tools.
    #[must_use]
    pub fn with_tools(mut self, tools: impl IntoIterator<Item = ToolSpec>) -> Self {
        self.tools = tools.into_iter().collect();
        self
    }

    /// Says whether tools may, must or must not be called.
    #[must_use]
    pub fn with_tool_choice(mut self, choice: ToolChoice) -> Self {
        self.tool_choice = choice;
        self
    }

    /// Sets the form of the answer.
    #[must_use]
    pub fn with_response_format(mut self, format: ResponseFormat) -> Self {
        self.response_format = format;
        self
    }

    /// Sets all sampling parameters.
    #[must_use]
    pub fn with_sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = sampling;
        self
    }

    /// Sets the temperature.
    #[must_use]
    pub fn with_temperature(mut self, temperature: f64) -> Self {
        self.sampling.temperature = Some(temperature);
        self
    }

    /// Bounds the output.
    #[must_use]
    pub fn with_max_tokens(mut self, max_tokens: u32) -> Self {
        self.sampling.max_tokens = Some(max_tokens);
        self
    }

    /// Sets how the model is to reason.
    #[must_use]
    pub fn with_reasoning(mut self, reasoning: ReasoningConfig) -> Self {
        self.reasoning = Some(reasoning);
        self
    }

    /// Gives hints for the provider's prompt cache.
    #[must_use]
    pub fn with_prompt_cache(mut self, hints: PromptCache) -> Self {
        self.prompt_cache = Some(hints);
        self
    }

    /// Adds a field to one dialect's request body, such as `("ollama", "keep_alive", "5m")`.
    #[must_use]
    pub fn with_provider_option(
        mut self,
        dialect: impl Into<String>,
        field: impl Into<String>,
        value: impl Into<Value>,
    ) -> Self {
        self.provider_options.insert(dialect, field, value);
        self
    }

    /// Says whose request it is.
    #[must_use]
    pub fn with_scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }
}

/// The form of an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ResponseFormat {
    /// Free text.
    #[default]
    Text,
    /// Some JSON object.
    Json,
    /// JSON that fits a schema, in the provider's native form.
    Schema {
        /// A name for the schema: 1 to 64 characters of `[A-Za-z0-9_-]`.
        name: String,
        /// The schema.
        schema: JsonSchema,
        /// Whether the provider is to guarantee the fit (the schema is adapted to what it supports).
        strict: bool,
    },
}

impl ResponseFormat {
    /// A strictly kept schema.
    pub fn schema(name: impl Into<String>, schema: impl Into<JsonSchema>) -> Self {
        Self::Schema {
            name: name.into(),
            schema: schema.into(),
            strict: true,
        }
    }
}

/// Hints for a provider's prompt cache. Breakpoints stand on messages
/// ([`Message::cache_breakpoint`]).
///
/// Hints cannot change an answer, and one request may go to several providers: a hint that a dialect has no
/// word for is passed over, unlike everything else in a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PromptCache {
    /// A routing key: requests with the same key share a prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How long the provider is to keep the prefix; rounded up to what it offers, or the longest it offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// Lets the provider place a breakpoint behind the last cacheable block by itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub automatic: bool,
}

/// Fields for one dialect's request body, merged into it at the top level, and over what the codec wrote:
/// dialect name to field to value, in a fixed order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProviderOptions(BTreeMap<String, Map<String, Value>>);

impl ProviderOptions {
    /// Sets a field of a dialect.
    pub fn insert(
        &mut self,
        dialect: impl Into<String>,
        field: impl Into<String>,
        value: impl Into<Value>,
    ) -> Option<Value> {
        self.0
            .entry(dialect.into())
            .or_default()
            .insert(field.into(), value.into())
    }

    /// The fields for a dialect.
    pub fn for_dialect(&self, dialect: &str) -> Option<&Map<String, Value>> {
        self.0.get(dialect).filter(|fields| !fields.is_empty())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Map::is_empty)
    }
}

fn no_tools() -> Arc<[ToolSpec]> {
    Arc::from([])
}

fn is_empty(tools: &Arc<[ToolSpec]>) -> bool {
    tools.is_empty()
}
