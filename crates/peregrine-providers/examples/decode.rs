//! Decodes recorded traffic with the real clients: serves each recorded response from a loopback server, calls
//! it through the provider's own codec over HTTP (streaming where the recording is a stream), and prints a
//! JSON line for each chat interaction.
//!
//! `cargo run --release -p peregrine-providers --example decode -- RECORDINGS.jsonl`
//!
//! A line of the input is `{"name", "interactions": [{"provider", "method", "path", "request", "status",
//! "headers", "body"}]}`; a line of the output is `{"name", "i", "provider", "api", "stream", "status", "ok",
//! "text", "tool_calls", "finish", "usage"}`, with `error` (`kind`, `status`, `message`) where `ok` is false.
//! What a stream gave before it failed is in the line too. An embedding call has a line of `api` "embeddings" with
//! how many `vectors` came.

#![allow(clippy::print_stdout, reason = "a command prints its result")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::sync::Arc;

use peregrine_core::{
    ChatModel as _, ChatRequest, ChatResponse, EmbedRequest, EmbeddingModel as _, Error, Finish, Fold,
    Message, ModelInfo, Result, Secret,
};
use peregrine_providers::wire::anthropic::Anthropic;
use peregrine_providers::wire::gemini::Gemini;
use peregrine_providers::wire::gemini_embed::GeminiEmbed;
use peregrine_providers::wire::ollama::Ollama;
use peregrine_providers::wire::openai_chat::{ChatCompat, OpenAiChat};
use peregrine_providers::wire::openai_embed::OpenAiEmbed;
use peregrine_providers::wire::openai_responses::OpenAiResponses;
use peregrine_providers::wire::{ChatCodec, EmbedCodec, Framing};
use peregrine_providers::{Auth, Credential, Endpoint, HttpConfig, RemoteEmbedder, RemoteModel};
use peregrine_testkit::server::{LlmServer, Reply};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: decode RECORDINGS.jsonl")?;
    let server = LlmServer::builder().with_recorded_requests(1).start().await?;
    let mut out = std::io::stdout().lock();
    for line in BufReader::new(std::fs::File::open(path)?).lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let recording: Value = serde_json::from_str(&line)?;
        for (i, interaction) in recording["interactions"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let decoded = match (Api::of(interaction), embed_codec(interaction)) {
                (Some(api), _) => api.decode(&server, interaction).await?,
                (None, Some(codec)) => embed(&server, interaction, codec).await?,
                (None, None) => continue,
            };
            let mut row = json!({"name": recording["name"], "i": i});
            for (field, value) in decoded.as_object().into_iter().flatten() {
                row[field] = value.clone();
            }
            writeln!(out, "{row}")?;
        }
    }
    Ok(())
}

/// The API that an interaction calls, if it is a chat.
#[derive(Clone, Copy)]
enum Api {
    OpenAiChat,
    OpenAiResponses,
    Anthropic,
    Gemini,
    Ollama,
}

impl Api {
    fn of(interaction: &Value) -> Option<Self> {
        let path = interaction["path"].as_str()?.split('?').next()?;
        if interaction["method"] != "POST" {
            return None;
        }
        match path {
            _ if path.ends_with("/chat/completions") => Some(Self::OpenAiChat),
            _ if path.ends_with("/responses") => Some(Self::OpenAiResponses),
            _ if path.ends_with("/messages") => Some(Self::Anthropic),
            _ if path.ends_with(":generateContent") || path.ends_with(":streamGenerateContent") => {
                Some(Self::Gemini)
            }
            _ if path.ends_with("/api/chat") => Some(Self::Ollama),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai-chat",
            Self::OpenAiResponses => "openai-responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
        }
    }

    fn codec(self, provider: &str) -> Arc<dyn ChatCodec> {
        match self {
            Self::OpenAiChat => Arc::new(OpenAiChat::new(
                ChatCompat::of_provider(provider).unwrap_or_default(),
            )),
            Self::OpenAiResponses => Arc::new(OpenAiResponses::default()),
            Self::Anthropic => Arc::new(Anthropic::new()),
            Self::Gemini => Arc::new(Gemini::new()),
            Self::Ollama => Arc::new(Ollama::new()),
        }
    }

    /// Serves the recorded response and reads it as the provider's client does.
    async fn decode(self, server: &LlmServer, interaction: &Value) -> Result<Value> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let provider = text(&interaction["provider"]);
        let codec = self.codec(&provider);
        let content_type = text(&interaction["headers"]["content-type"]);
        let body = text(&interaction["body"]);
        let status = status(interaction);
        let is_stream = match codec.framing() {
            Framing::Ndjson => interaction["request"]["stream"] != false,
            _ => content_type.starts_with("text/event-stream"),
        };
        // An error comes whole, whatever was asked for.
        server.set_reply(if is_stream && status < 400 {
            let pieces = body
                .as_bytes()
                .chunks(977)
                .map(bytes::Bytes::copy_from_slice)
                .collect();
            Reply::raw_stream(content_type, pieces)
        } else {
            Reply::raw_body(status, content_type, body)
        });

        let model = RemoteModel::new(
            ModelInfo::new(
                &provider,
                interaction["request"]["model"].as_str().unwrap_or("recorded"),
            ),
            codec,
            endpoint(server, &provider)?,
        )?;
        let request = ChatRequest::new([Message::user("what was recorded")]);
        let (partial, error) = call(&model, &request, is_stream).await;
        let mut row = row(self, &partial);
        row["provider"] = json!(provider);
        row["stream"] = json!(is_stream);
        row["status"] = json!(status);
        row["ok"] = json!(error.is_none());
        if let Some(error) = error {
            row["finish"] = Value::Null;
            row["error"] = error_row(&error);
        }
        Ok(row)
    }
}

/// The codec of an embedding call.
fn embed_codec(interaction: &Value) -> Option<Arc<dyn EmbedCodec>> {
    let path = interaction["path"].as_str()?.split('?').next()?;
    match path {
        _ if path.ends_with("/embeddings") => Some(Arc::new(OpenAiEmbed::new())),
        _ if path.ends_with(":batchEmbedContents") => Some(Arc::new(GeminiEmbed::new())),
        _ => None,
    }
}

/// Serves the recorded vectors and reads them as the provider's client does.
async fn embed(server: &LlmServer, interaction: &Value, codec: Arc<dyn EmbedCodec>) -> Result<Value> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (provider, status) = (text(&interaction["provider"]), status(interaction));
    let body = text(&interaction["body"]);
    server.set_reply(Reply::raw_body(
        status,
        text(&interaction["headers"]["content-type"]),
        body,
    ));
    let asked = &interaction["request"];
    let count = [&asked["requests"], &asked["input"]]
        .iter()
        .find_map(|list| list.as_array())
        .map_or(1, Vec::len);
    let info = ModelInfo::new(&provider, asked["model"].as_str().unwrap_or("recorded"));
    let model = RemoteEmbedder::new(info, codec, endpoint(server, &provider)?)?;
    let result = model
        .embed(&EmbedRequest::new(vec!["what was recorded"; count]))
        .await;
    let mut row = json!({"provider": provider, "api": "embeddings", "stream": false, "status": status, "ok": result.is_ok()});
    match result {
        Ok(response) => row["vectors"] = response.embeddings.len().into(),
        Err(error) => row["error"] = error_row(&error),
    }
    Ok(row)
}

fn endpoint(server: &LlmServer, provider: &str) -> Result<Arc<Endpoint>> {
    let (url, key) = (
        format!("{}/v1", server.url()),
        Credential::Key(Secret::new("sk-recorded")),
    );
    Endpoint::shared(
        provider,
        &url,
        key,
        Auth::Bearer,
        Vec::new(),
        HttpConfig::default(),
    )
}

fn status(interaction: &Value) -> u16 {
    interaction["status"]
        .as_u64()
        .and_then(|status| u16::try_from(status).ok())
        .unwrap_or(200)
}

fn error_row(error: &Error) -> Value {
    json!({"kind": error.kind(), "status": error.status(), "message": error.to_string()})
}

/// The answer, or what came of it and why it ended.
async fn call(model: &RemoteModel, request: &ChatRequest, is_stream: bool) -> (ChatResponse, Option<Error>) {
    let nothing = || ChatResponse::new(Vec::new(), Finish::Stop);
    if !is_stream {
        return match model.complete(request).await {
            Ok(response) => (response, None),
            Err(error) => (nothing(), Some(error)),
        };
    }
    let mut stream = match model.stream(request).await {
        Ok(stream) => stream,
        Err(error) => return (nothing(), Some(error)),
    };
    let mut fold = Fold::new();
    while let Some(event) = stream.next().await {
        if let Err(error) = event.and_then(|event| fold.push(event)) {
            return (fold.partial().clone(), Some(error));
        }
    }
    let partial = fold.partial().clone();
    match fold.finish() {
        Ok(response) => (response, None),
        Err(error) => (partial, Some(error)),
    }
}

fn row(api: Api, response: &ChatResponse) -> Value {
    let calls = response.tool_calls().map(|call| {
        let arguments = call
            .parse_arguments()
            .unwrap_or_else(|_| Value::String(call.arguments.clone()));
        json!({"name": call.name, "arguments": arguments})
    });
    let finish = match &response.finish {
        // The rows have no word for an answer that the server still works on in the background.
        Finish::Other(word) if matches!(word.as_str(), "queued" | "in_progress") => "stop",
        Finish::Other(_) => "other",
        known => known.as_str(),
    };
    let usage = response.usage.map(|usage| match api {
        // Anthropic counts what its cache read and wrote beside the input, not in it.
        Api::Anthropic => json!({
            "input": usage.plain_input_tokens(), "output": usage.output_tokens,
            "cache_read": usage.cached_input_tokens, "cache_write": usage.cache_write_tokens,
        }),
        _ => json!({"input": usage.input_tokens, "output": usage.output_tokens}),
    });
    json!({
        "api": api.name(),
        "text": response.message.text(),
        "tool_calls": calls.collect::<Vec<_>>(),
        "finish": finish,
        "usage": usage,
    })
}
