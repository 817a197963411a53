//! `chat`: one request to a provider, whole or streamed.

use std::path::PathBuf;

use clap::Args;
use peregrine_core::{ChatEvent, ChatModel as _, ChatResponse, ConfigError, Fold, Result, ToolSpec};
use serde_json::{Value, json};

use crate::output::{Output, arguments_of, usage};
use crate::provider::Provider;
use crate::request::{self, parse_scope};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The provider: openai, openai-responses, anthropic, gemini, ollama, groq, .., or offline.
    #[arg(long)]
    provider: String,
    /// The model; the request's `model` if it is not given.
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    place: Provider,
    /// Ask for a stream and print each event.
    #[arg(long)]
    stream: bool,
    /// A file with a JSON list of tools, beside those of the request.
    #[arg(long)]
    tools: Option<PathBuf>,
    /// The tenant, or tenant/session, whose request it is.
    #[arg(long)]
    scope: Option<String>,
}

pub(crate) async fn run(arguments: Arguments, output: &mut Output) -> Result<()> {
    let (asked_model, mut request) = request::read(request::parse).await?;
    if let Some(path) = &arguments.tools {
        let mut tools = request.tools.to_vec();
        tools.extend(read_tools(path)?);
        request.tools = tools.into();
    }
    if let Some(scope) = &arguments.scope {
        request.scope = Some(parse_scope(scope)?);
    }
    let model = arguments.model.or(asked_model);
    let model = arguments.place.model(&arguments.provider, model.as_deref())?;
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

fn read_tools(path: &PathBuf) -> Result<Vec<ToolSpec>> {
    let refuse = |why: String| ConfigError::new(format!("{} is no list of tools: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|source| refuse(source.to_string()))?;
    Ok(serde_json::from_str(&text).map_err(|source| refuse(source.to_string()))?)
}

fn done(response: &ChatResponse) -> Value {
    let calls = response
        .tool_calls()
        .map(|call| json!({"id": call.id, "name": call.name, "arguments": arguments_of(&call.arguments)}));
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
