//! `chat`: one request to a provider, whole or streamed.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use peregrine_core::{
    ChatEvent, ChatModel as _, ChatRequest, ChatResponse, ConfigError, Error, ErrorKind, Fold, Message, Part,
    ReasoningConfig, ResponseFormat, Result, Role, Sampling, Scope, ToolCall, ToolChoice, ToolResult,
    ToolSpec, Usage,
};
use peregrine_providers::{Connector, HttpConfig, RetryPolicy};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::output::Output;

/// How much of standard input is read.
const MAX_INPUT_BYTES: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The provider: openai, openai-responses, anthropic, gemini, ollama, groq, .., or offline.
    #[arg(long)]
    provider: String,
    /// Its base URL; the provider's own if it is not given.
    #[arg(long)]
    base_url: Option<String>,
    /// The model; the request's `model` if it is not given.
    #[arg(long)]
    model: Option<String>,
    /// Ask for a stream and print each event.
    #[arg(long)]
    stream: bool,
    /// How many times a failed call is tried again.
    #[arg(long, default_value_t = 2)]
    retries: u32,
    /// The limit for a connection, in milliseconds.
    #[arg(long)]
    connect_timeout_ms: Option<u64>,
    /// The limit for the first byte of the answer, in milliseconds.
    #[arg(long)]
    first_byte_timeout_ms: Option<u64>,
    /// The limit between two pieces of the answer, in milliseconds.
    #[arg(long)]
    idle_timeout_ms: Option<u64>,
    /// How large the answer may be, in bytes.
    #[arg(long)]
    max_body_bytes: Option<usize>,
    /// A file with a JSON list of tools, beside those of the request.
    #[arg(long)]
    tools: Option<PathBuf>,
    /// The tenant, or tenant/session, whose request it is.
    #[arg(long)]
    scope: Option<String>,
}

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

pub(crate) async fn run(arguments: Arguments, output: &mut Output) -> Result<()> {
    // Beside the runtime, so that the time limit holds even where nobody writes or closes standard input.
    let read = tokio::task::spawn_blocking(read_request).await;
    let (asked_model, mut request) = read.map_err(|source| Error::layer(ErrorKind::Internal, source))??;
    if let Some(path) = &arguments.tools {
        let mut tools = request.tools.to_vec();
        tools.extend(read_tools(path)?);
        request.tools = tools.into();
    }
    if let Some(scope) = &arguments.scope {
        request.scope = Some(parse_scope(scope)?);
    }
    let model = arguments.model.clone().or(asked_model);
    let spec = match (&*arguments.provider, &model) {
        (provider, Some(model)) if provider != "offline" => format!("{provider}/{model}"),
        (provider, _) => provider.to_owned(),
    };
    let model = connector(&arguments).chat(&spec)?;
    let response = if arguments.stream {
        let mut stream = model.stream(&request).await?;
        let mut fold = Fold::new();
        while let Some(event) = stream.next().await {
            let event: ChatEvent = event?;
            output.line(&event)?;
            fold.push(event)?;
        }
        fold.finish()?
    } else {
        model.complete(&request).await?
    };
    output.line(&done(&response))
}

fn connector(arguments: &Arguments) -> Connector {
    let milliseconds = |given: Option<u64>, usual: Duration| given.map_or(usual, Duration::from_millis);
    let usual = HttpConfig::default();
    let http = HttpConfig::default()
        .with_connect_timeout(milliseconds(arguments.connect_timeout_ms, usual.connect_timeout))
        .with_first_byte_timeout(milliseconds(
            arguments.first_byte_timeout_ms,
            usual.first_byte_timeout,
        ))
        .with_idle_timeout(milliseconds(arguments.idle_timeout_ms, usual.idle_timeout))
        .with_max_body_bytes(arguments.max_body_bytes.unwrap_or(usual.max_body_bytes));
    let connector = Connector::new()
        .with_http(http)
        .with_retry(RetryPolicy::new(arguments.retries));
    match &arguments.base_url {
        Some(url) => connector.with_base_url(url),
        None => connector,
    }
}

fn read_request() -> Result<(Option<String>, ChatRequest)> {
    let mut text = String::new();
    let read = std::io::stdin()
        .lock()
        .take(MAX_INPUT_BYTES)
        .read_to_string(&mut text);
    read.map_err(|source| Error::invalid_request(format!("standard input could not be read: {source}")))?;
    let given: Request = serde_json::from_str(&text)
        .map_err(|source| Error::invalid_request(format!("standard input is no request: {source}")))?;
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

fn read_tools(path: &PathBuf) -> Result<Vec<ToolSpec>> {
    let refuse = |why: String| ConfigError::new(format!("{} is no list of tools: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|source| refuse(source.to_string()))?;
    Ok(serde_json::from_str(&text).map_err(|source| refuse(source.to_string()))?)
}

fn parse_scope(text: &str) -> Result<Scope> {
    let scope = match text.split_once('/') {
        Some((tenant, session)) => Scope::new(tenant, session),
        None => Scope::tenant(text),
    };
    scope.map_err(|source| Error::invalid_request(format!("--scope: {source}")))
}

fn done(response: &ChatResponse) -> Value {
    let calls = response.tool_calls().map(|call| {
        let arguments = call
            .parse_arguments()
            .unwrap_or_else(|_| Value::String(call.arguments.clone()));
        json!({"id": call.id, "name": call.name, "arguments": arguments})
    });
    json!({"done": {
        "text": response.message.text(),
        "reasoning": response.message.reasoning(),
        "tool_calls": calls.collect::<Vec<_>>(),
        "finish": response.finish,
        "usage": response.usage.as_ref().map(usage),
        "attempts": response.metadata.get("attempts").cloned().unwrap_or(json!(1)),
        "request_id": response.request_id(),
        "id": response.id,
        "model": response.model,
        "metadata": response.metadata,
    }})
}

/// The usage in its stored form, and `input` and `output` as short names of the two main counts.
fn usage(usage: &Usage) -> Value {
    let mut fields = json!(usage);
    fields["input"] = usage.input_tokens.into();
    fields["output"] = usage.output_tokens.into();
    fields
}
