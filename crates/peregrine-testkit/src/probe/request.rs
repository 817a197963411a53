//! The request object on standard input.

use std::io::Read as _;

use peregrine_core::{
    ChatRequest, Error, ErrorKind, Message, Part, ReasoningConfig, ResponseFormat, Result, Role, Sampling,
    Scope, ToolCall, ToolChoice, ToolResult, ToolSpec,
};
use serde::Deserialize;
use serde_json::Value;

/// How much of standard input is read.
const MAX_INPUT_BYTES: u64 = 64 << 20;

/// The request on standard input. A key that is not known is an error that names it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    model: Option<String>,
    messages: Vec<GivenMessage>,
    #[serde(default)]
    tools: Vec<ToolSpec>,
    #[serde(default)]
    tool_choice: ToolChoice,
    parallel_tool_calls: Option<bool>,
    response_schema: Option<Value>,
    #[serde(default)]
    sampling: Sampling,
    reasoning: Option<ReasoningConfig>,
    #[serde(default)]
    provider_options: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenMessage {
    role: Role,
    #[serde(default)]
    content: Content,
    #[serde(default)]
    tool_calls: Vec<GivenCall>,
    tool_call_id: Option<String>,
    name: Option<String>,
}

/// Text, or parts in their stored form.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Nothing(()),
    Text(String),
    Parts(Vec<Part>),
}

impl Default for Content {
    fn default() -> Self {
        Self::Nothing(())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenCall {
    id: String,
    name: String,
    arguments: Value,
}

/// The model that a request names, and the request.
pub(crate) type Asked = (Option<String>, ChatRequest);

/// Reads standard input, which is one request.
///
/// # Errors
///
/// That it cannot be read or is none.
pub(crate) async fn read(parse: fn(Value) -> Result<Asked>) -> Result<Asked> {
    let text = read_text().await?;
    parse(serde_json::from_str(&text).map_err(|source| no_request(&source))?)
}

/// Reads standard input, which is the requests of `chat`, one after the other.
///
/// # Errors
///
/// That it cannot be read, or which of them is none.
pub(crate) async fn read_lines() -> Result<Vec<Asked>> {
    let text = read_text().await?;
    let values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    values
        .map(|value| parse(value.map_err(|source| no_request(&source))?))
        .collect()
}

async fn read_text() -> Result<String> {
    // Beside the runtime, so that the time limit holds even where nobody writes or closes standard input.
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        let read = std::io::stdin()
            .lock()
            .take(MAX_INPUT_BYTES)
            .read_to_string(&mut text);
        match read {
            Ok(_) => Ok(text),
            Err(source) => Err(Error::invalid_request(format!(
                "standard input could not be read: {source}"
            ))),
        }
    });
    read.await
        .map_err(|source| Error::layer(ErrorKind::Internal, source))?
}

fn no_request(source: &serde_json::Error) -> Error {
    Error::invalid_request(format!("standard input is no request: {source}"))
}

/// The request of `chat`.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn parse(given: Value) -> Result<Asked> {
    let given: Request = serde_json::from_value(given).map_err(|source| no_request(&source))?;
    let Request {
        model,
        messages,
        tools,
        tool_choice,
        parallel_tool_calls,
        response_schema,
        sampling,
        reasoning,
        provider_options,
    } = given;
    let messages = messages.into_iter().map(message).collect::<Result<Vec<_>>>()?;
    let mut request = ChatRequest::new(messages)
        .with_tools(tools)
        .with_tool_choice(tool_choice)
        .with_sampling(sampling);
    request.parallel_tool_calls = parallel_tool_calls;
    request.reasoning = reasoning;
    if !provider_options.is_null() {
        request.provider_options = serde_json::from_value(provider_options)
            .map_err(|source| Error::invalid_request(format!("provider_options: {source}")))?;
    }
    if let Some(schema) = response_schema {
        request.response_format = ResponseFormat::schema("response", schema);
    }
    Ok((model, request))
}

fn message(given: GivenMessage) -> Result<Message> {
    let GivenMessage {
        role,
        content,
        tool_calls,
        tool_call_id,
        name,
    } = given;
    let mut parts = match content {
        Content::Nothing(()) => Vec::new(),
        Content::Text(text) => vec![Part::text(text)],
        Content::Parts(parts) => parts,
    };
    if role == Role::Tool {
        let call_id = tool_call_id.ok_or_else(|| {
            Error::invalid_request("a message of role tool needs the tool_call_id that it answers")
        })?;
        let result = ToolResult {
            call_id,
            name: name.unwrap_or_default(),
            content: parts,
            is_error: false,
        };
        return Ok(Message::tool(result));
    }
    parts.extend(tool_calls.into_iter().map(|GivenCall { id, name, arguments }| {
        let arguments = match arguments {
            Value::String(text) => text,
            value => value.to_string(),
        };
        Part::ToolCall(ToolCall::new(id, name, arguments))
    }));
    Ok(Message::new(role, parts))
}

/// `tenant` or `tenant/session`.
///
/// # Errors
///
/// That it is neither.
pub(crate) fn parse_scope(text: &str) -> Result<Scope> {
    let scope = match text.split_once('/') {
        Some((tenant, session)) => Scope::new(tenant, session),
        None => Scope::tenant(text),
    };
    scope.map_err(|source| Error::invalid_request(format!("--scope: {source}")))
}
