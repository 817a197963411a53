//! Ollama's native API: one JSON object a line, streaming unless told otherwise; the line with `done: true`
//! carries the counts and durations. Tool arguments are objects, and an error after the head is a line.
//!
//! There is no obtainable Ollama server to compare with here; the shapes follow its published API types
//! and are checked with the official Python client.

use serde_json::{Map, Value, json};

use super::frames::{Encoding, Frame, Role};
use super::{Context, ToolView, View, Wire, chars_of, flag, missing, model, object, str_at, text_of};
use crate::server::answer::{Answer, Finish};
use crate::server::civil;
use crate::server::fault::ApiError;
use crate::server::seen::{Endpoint, SeenRequest};

/// Nanoseconds that a token takes in the durations of the last line.
const NS_PER_TOKEN: u64 = 1_000_000;
/// Nanoseconds that loading the model takes there.
const NS_LOAD: u64 = 5_000_000;

#[derive(Debug)]
pub(crate) struct Ollama;

impl Wire for Ollama {
    fn read(&self, request: &SeenRequest) -> Result<View, ApiError> {
        let body = object(request)?;
        let mut view = View {
            model: model(body)?,
            stream: flag(body, "stream").unwrap_or(true),
            include_usage: true,
            input_chars: chars_of(body, &["messages", "tools", "prompt", "system"]),
            ..View::default()
        };
        if request.endpoint == Endpoint::OllamaGenerate {
            view.last_text = body
                .get("prompt")
                .and_then(Value::as_str)
                .unwrap_or("")
                .to_owned();
        }
        for message in body
            .get("messages")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let text = || text_of(message.get("content").unwrap_or(&Value::Null)).into_owned();
            match str_at(message, "/role") {
                Some("user") => (view.last_text, view.tool_result) = (text(), None),
                Some("tool") => view.tool_result = Some(text()),
                _ => view.tool_result = None,
            }
        }
        for tool in body.get("tools").and_then(Value::as_array).into_iter().flatten() {
            let Some(name) = str_at(tool, "/function/name") else {
                continue;
            };
            let parameters = tool
                .pointer("/function/parameters")
                .cloned()
                .unwrap_or(Value::Null);
            view.tools.push(ToolView {
                name: name.to_owned(),
                parameters,
            });
        }
        match body.get("format") {
            Some(Value::String(word)) => view.json_mode = word == "json",
            Some(schema @ Value::Object(_)) => (view.json_mode, view.schema) = (true, Some(schema.clone())),
            _ => {}
        }
        Ok(view)
    }

    fn complete(&self, answer: &Answer, context: &Context<'_>) -> Value {
        if is_empty_prompt(context) {
            return loaded(context);
        }
        let text = format!(
            "{}{}",
            answer.text.as_deref().unwrap_or(""),
            answer.refusal.as_deref().unwrap_or("")
        );
        let thinking = answer.reasoning.as_ref().map(|(text, _)| text.as_str());
        line(context, &text, thinking, &answer.tool_calls, Some(answer))
    }

    fn stream(&self, answer: &Answer, context: &Context<'_>) -> Vec<Frame> {
        if is_empty_prompt(context) {
            return vec![Frame::end(loaded(context))];
        }
        let mut frames = Vec::new();
        for piece in answer.cutting().cut(answer.reasoning_text()) {
            frames.push(Frame::piece(line(context, "", Some(piece), &[], None)));
        }
        let refusal = answer.cutting().cut(answer.refusal.as_deref().unwrap_or(""));
        for piece in answer.text_cut().into_iter().chain(refusal) {
            frames.push(Frame::piece(line(context, piece, None, &[], None)));
        }
        for index in 0..answer.tool_calls.len() {
            let call = answer.tool_calls.get(index..=index).unwrap_or_default();
            frames.push(Frame::piece(numbered(line(context, "", None, call, None), index)));
        }
        frames.push(Frame::new(Role::End, line(context, "", None, &[], Some(answer))));
        frames
    }

    fn encoding(&self, _: &Context<'_>) -> Encoding {
        Encoding::Ndjson
    }

    fn error_body(&self, error: &ApiError, _: &str) -> Value {
        json!({"error": error.message})
    }

    fn json_type(&self) -> &'static str {
        "application/json; charset=utf-8"
    }

    fn request_id_header(&self) -> Option<&'static str> {
        None
    }
}

/// One line; with `last` it is the one that ends the answer.
fn line(
    context: &Context<'_>,
    text: &str,
    thinking: Option<&str>,
    calls: &[crate::server::answer::ToolCall],
    last: Option<&Answer>,
) -> Value {
    let mut fields = Map::new();
    fields.insert("model".into(), json!(context.model));
    fields.insert("created_at".into(), json!(civil::rfc3339(civil::CREATED)));
    if context.endpoint == Endpoint::OllamaGenerate {
        fields.insert("response".into(), json!(text));
        if let Some(thinking) = thinking {
            fields.insert("thinking".into(), json!(thinking));
        }
    } else {
        let mut message = Map::new();
        message.insert("role".into(), json!("assistant"));
        message.insert("content".into(), json!(text));
        if let Some(thinking) = thinking {
            message.insert("thinking".into(), json!(thinking));
        }
        if !calls.is_empty() {
            message.insert(
                "tool_calls".into(),
                calls.iter().enumerate().map(tool_call).collect(),
            );
        }
        fields.insert("message".into(), Value::Object(message));
    }
    if let Some(answer) = last {
        let finish = answer.finish();
        let reason = match &finish {
            Finish::Length => "length",
            Finish::Other(word) => word,
            _ => "stop",
        };
        fields.insert("done_reason".into(), json!(reason));
        fields.insert("done".into(), json!(true));
        if context.endpoint == Endpoint::OllamaGenerate {
            fields.insert("context".into(), json!([1, 2, 3]));
        }
        let (input, output) = (context.usage.input, context.usage.output);
        let (prompt_ns, eval_ns) = (
            input.saturating_mul(NS_PER_TOKEN),
            output.saturating_mul(NS_PER_TOKEN),
        );
        let total = NS_LOAD.saturating_add(prompt_ns).saturating_add(eval_ns);
        fields.insert("total_duration".into(), json!(total));
        fields.insert("load_duration".into(), json!(NS_LOAD));
        // The service leaves counts of zero out.
        for (name, value) in [
            ("prompt_eval_count", input),
            ("prompt_eval_duration", prompt_ns),
            ("eval_count", output),
            ("eval_duration", eval_ns),
        ] {
            if value > 0 {
                fields.insert(name.into(), json!(value));
            }
        }
    } else {
        fields.insert("done".into(), json!(false));
    }
    Value::Object(fields)
}

fn tool_call((index, call): (usize, &crate::server::answer::ToolCall)) -> Value {
    let function = json!({"index": index, "name": call.name, "arguments": call.arguments.to_value()});
    if call.id.is_empty() {
        json!({"function": function})
    } else {
        json!({"id": call.id, "function": function})
    }
}

/// Sets the index of the only call in a line of a stream.
fn numbered(mut line: Value, index: usize) -> Value {
    if let Some(slot) = line.pointer_mut("/message/tool_calls/0/function/index") {
        *slot = json!(index);
    }
    line
}

/// A request without messages (or prompt) only loads the model, or unloads it with `keep_alive: 0`.
fn is_empty_prompt(context: &Context<'_>) -> bool {
    let field = if context.endpoint == Endpoint::OllamaGenerate {
        "prompt"
    } else {
        "messages"
    };
    match context.body.get(field) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

fn loaded(context: &Context<'_>) -> Value {
    let unload = context
        .body
        .get("keep_alive")
        .is_some_and(|k| k.as_f64() == Some(0.0) || k.as_str() == Some("0"));
    let reason = if unload { "unload" } else { "load" };
    let created = civil::rfc3339(civil::CREATED);
    if context.endpoint == Endpoint::OllamaGenerate {
        json!({"model": context.model, "created_at": created, "response": "", "done": true, "done_reason": reason})
    } else {
        let message = json!({"role": "assistant", "content": ""});
        json!({
            "model": context.model, "created_at": created, "message": message, "done_reason": reason, "done": true,
        })
    }
}

/// The inputs of `/api/embed` and `/api/embeddings`, and the dimensions if they are asked for.
pub(crate) fn read_embeddings(
    request: &SeenRequest,
) -> Result<(String, Vec<String>, Option<usize>), ApiError> {
    let body = object(request)?;
    let field = if request.endpoint == Endpoint::OllamaEmbed {
        "input"
    } else {
        "prompt"
    };
    let inputs = match body.get(field) {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(texts)) => texts
            .iter()
            .map(|t| t.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| missing(field))?,
        _ => return Err(missing(field)),
    };
    Ok((
        model(body)?,
        inputs,
        super::openai_misc::dimensions(body.get("dimensions"))?,
    ))
}

/// The answer of the embedding endpoints.
pub(crate) fn embeddings(endpoint: Endpoint, model: &str, vectors: &[Vec<f32>], tokens: u64) -> Value {
    if endpoint == Endpoint::OllamaEmbeddings {
        return json!({"embedding": vectors.first()});
    }
    json!({
        "model": model,
        "embeddings": vectors,
        "total_duration": NS_LOAD + tokens * NS_PER_TOKEN,
        "load_duration": NS_LOAD,
        "prompt_eval_count": tokens,
    })
}

/// The answers of the endpoints that only tell about the server and its models.
pub(crate) fn about(request: &SeenRequest, models: &[String]) -> Result<Value, ApiError> {
    let details = || {
        json!({
            "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
            "parameter_size": "1.2B", "quantization_level": "Q8_0",
        })
    };
    let digest = |name: &str| format!("{:064x}", super::super::embed::hash(name.as_bytes(), 0));
    match request.endpoint {
        Endpoint::OllamaVersion => Ok(json!({"version": "0.12.6"})),
        Endpoint::OllamaTags => {
            let card = |name: &String| {
                json!({
                    "name": name, "model": name, "modified_at": civil::rfc3339(civil::CREATED),
                    "size": 1_321_098_329_u64, "digest": digest(name), "details": details(),
                })
            };
            Ok(json!({"models": models.iter().map(card).collect::<Value>()}))
        }
        Endpoint::OllamaPs => {
            let card = |name: &String| {
                json!({
                    "name": name, "model": name, "size": 1_900_000_000_u64, "digest": digest(name),
                    "details": details(), "expires_at": civil::rfc3339(civil::CREATED + 300),
                    "size_vram": 1_900_000_000_u64, "context_length": 4096,
                })
            };
            Ok(json!({"models": models.iter().map(card).collect::<Value>()}))
        }
        _ => {
            let body = object(request)?;
            let name = body
                .get("model")
                .or_else(|| body.get("name"))
                .and_then(Value::as_str);
            let name = name.ok_or_else(|| missing("model"))?;
            if !models.iter().any(|m| m == name) {
                return Err(ApiError::new(404, format!("model '{name}' not found")));
            }
            Ok(json!({
                "license": "none",
                "modelfile": format!("FROM {name}"),
                "parameters": "stop \"<|eot_id|>\"",
                "template": "{{ .Prompt }}",
                "details": details(),
                "model_info": {
                    "general.architecture": "llama",
                    "general.parameter_count": 1_235_814_432_u64,
                    "llama.context_length": 131_072,
                    "llama.embedding_length": 2048,
                },
                "capabilities": ["completion", "tools"],
                "modified_at": civil::rfc3339(civil::CREATED),
            }))
        }
    }
}
