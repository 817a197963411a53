//! Google Gemini: every frame of a stream is a whole `GenerateContentResponse` with usage so far; the last
//! one has `finishReason`. With `alt=sse` the frames are events with CRLF line ends, without it they are the
//! elements of one JSON array. There is no other end marker.
//!
//! On the wire `candidatesTokenCount` leaves out thoughts.

use serde_json::{Map, Value, json};

use super::frames::{Encoding, Frame, Role};
use super::{Choice, Context, ToolView, View, Wire, chars_of, list, missing, object, str_at, text_of};
use crate::server::answer::{Answer, Finish};
use crate::server::fault::{ApiError, LineEnding};
use crate::server::seen::{Endpoint, SeenRequest};

#[derive(Debug)]
pub(crate) struct Gemini;

impl Wire for Gemini {
    fn read(&self, request: &SeenRequest) -> Result<View, ApiError> {
        let body = object(request)?;
        let model = request
            .model()
            .filter(|model| !model.is_empty())
            .ok_or_else(|| missing("model"))?;
        let mut view = View {
            model: model.to_owned(),
            stream: request.endpoint == Endpoint::GeminiStream,
            include_usage: true,
            input_chars: chars_of(
                body,
                &["contents", "systemInstruction", "system_instruction", "tools"],
            ),
            ..View::default()
        };
        for content in list(body, "contents")? {
            view.tool_result = None;
            if str_at(content, "/role") == Some("model") {
                continue;
            }
            let parts = content.get("parts").unwrap_or(&Value::Null);
            let result = parts
                .as_array()
                .into_iter()
                .flatten()
                .rev()
                .find_map(|part| either(part, "functionResponse"));
            match result {
                Some(result) => {
                    view.tool_result = Some(result_text(result.get("response").unwrap_or(&Value::Null)))
                }
                None => view.last_text = text_of(parts).into_owned(),
            }
        }
        for tool in body.get("tools").and_then(Value::as_array).into_iter().flatten() {
            for function in either(tool, "functionDeclarations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let Some(name) = str_at(function, "/name") else {
                    continue;
                };
                let parameters =
                    either(function, "parametersJsonSchema").or_else(|| function.get("parameters"));
                let parameters = parameters.cloned().unwrap_or(Value::Null);
                view.tools.push(ToolView {
                    name: name.to_owned(),
                    parameters,
                });
            }
        }
        let config = either_of(body, "toolConfig").and_then(|config| either(config, "functionCallingConfig"));
        view.choice = config.map_or(Choice::Auto, choice);
        if let Some(config) = either_of(body, "generationConfig") {
            view.json_mode =
                either(config, "responseMimeType").and_then(Value::as_str) == Some("application/json");
            let schema = either(config, "responseJsonSchema").or_else(|| either(config, "responseSchema"));
            view.schema = schema.cloned();
        }
        Ok(view)
    }

    fn complete(&self, answer: &Answer, context: &Context<'_>) -> Value {
        let mut parts = Vec::new();
        if answer.reasoning.is_some() {
            parts.push(json!({"text": answer.reasoning_text(), "thought": true}));
        }
        if let Some(text) = &answer.text {
            parts.push(signed(json!({"text": text}), text_signature(answer)));
        }
        parts.extend(calls(answer));
        response(answer, context, &parts, true)
    }

    fn stream(&self, answer: &Answer, context: &Context<'_>) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut piece = |part: Value| {
            frames.push(Frame::piece(response(answer, context, &[part], false)));
        };
        for text in answer.cutting().cut(answer.reasoning_text()) {
            piece(json!({"text": text, "thought": true}));
        }
        // The service puts the signature of a text on its last piece.
        let texts = answer.text_cut();
        let last = texts.len().saturating_sub(1);
        for (index, text) in texts.into_iter().enumerate() {
            let signature = text_signature(answer).filter(|_| index == last);
            piece(signed(json!({"text": text}), signature));
        }
        for call in calls(answer) {
            piece(call);
        }
        frames.push(Frame::new(
            Role::End,
            response(answer, context, &[json!({"text": ""})], true),
        ));
        frames
    }

    fn encoding(&self, context: &Context<'_>) -> Encoding {
        match context.query_alt {
            Some("sse") => Encoding::Sse {
                line_ending: LineEnding::CrLf,
                content_type: "text/event-stream",
            },
            _ => Encoding::JsonArray,
        }
    }

    fn error_body(&self, error: &ApiError, _: &str) -> Value {
        let status = match error.status {
            400 | 413 | 422 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            409 => "ABORTED",
            429 => "RESOURCE_EXHAUSTED",
            499 => "CANCELLED",
            501 => "UNIMPLEMENTED",
            503 => "UNAVAILABLE",
            504 => "DEADLINE_EXCEEDED",
            500.. => "INTERNAL",
            _ => "UNKNOWN",
        };
        let status = error.kind.as_deref().unwrap_or(status);
        let mut body = json!({"error": {"code": error.status, "message": error.message, "status": status}});
        if let Some(delay) = error.retry_delay {
            body["error"]["details"] = json!([{
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": format!("{}s", delay.as_secs_f64()),
            }]);
        }
        body
    }

    fn json_type(&self) -> &'static str {
        "application/json; charset=UTF-8"
    }

    fn request_id_header(&self) -> Option<&'static str> {
        None
    }
}

/// One response. An unfinished one has no reason and no count of what was written.
fn response(answer: &Answer, context: &Context<'_>, parts: &[Value], finished: bool) -> Value {
    let mut candidate = Map::new();
    let blocked = finished && answer.refusal.is_some() && answer.text.is_none();
    let content = if blocked {
        json!({})
    } else {
        json!({"parts": parts, "role": "model"})
    };
    candidate.insert("content".into(), content);
    if finished {
        let finish = answer.finish();
        let reason = match &finish {
            Finish::Stop | Finish::ToolCalls | Finish::StopSequence(_) => "STOP",
            Finish::Length => "MAX_TOKENS",
            Finish::ContentFilter => "SAFETY",
            Finish::Other(word) => word,
        };
        candidate.insert("finishReason".into(), json!(reason));
        if let Some(refusal) = &answer.refusal {
            candidate.insert("finishMessage".into(), json!(refusal));
        }
    }
    candidate.insert("index".into(), json!(0));
    let usage = &context.usage;
    let written = usage.output.saturating_sub(usage.reasoning);
    let mut counts = Map::new();
    counts.insert("promptTokenCount".into(), json!(usage.input));
    if finished {
        counts.insert("candidatesTokenCount".into(), json!(written));
    }
    let total = usage
        .input
        .saturating_add(if finished { usage.output } else { usage.reasoning });
    counts.insert("totalTokenCount".into(), json!(total));
    if usage.cache_read > 0 {
        counts.insert("cachedContentTokenCount".into(), json!(usage.cache_read));
    }
    counts.insert(
        "promptTokensDetails".into(),
        json!([{"modality": "TEXT", "tokenCount": usage.input}]),
    );
    if usage.reasoning > 0 {
        counts.insert("thoughtsTokenCount".into(), json!(usage.reasoning));
    }
    json!({
        "candidates": [candidate],
        "usageMetadata": counts,
        "modelVersion": context.model,
        "responseId": context.id("resp"),
    })
}

/// The signature belongs to the first call if there are calls, else to the text.
fn text_signature(answer: &Answer) -> Option<&str> {
    answer.signature().filter(|_| answer.tool_calls.is_empty())
}

fn calls(answer: &Answer) -> Vec<Value> {
    let call = |(index, call): (usize, &crate::server::answer::ToolCall)| {
        let mut function = json!({"name": call.name, "args": call.arguments.to_value()});
        if !call.id.is_empty() {
            function["id"] = json!(call.id);
        }
        signed(
            json!({"functionCall": function}),
            answer.signature().filter(|_| index == 0),
        )
    };
    answer.tool_calls.iter().enumerate().map(call).collect()
}

fn signed(mut part: Value, signature: Option<&str>) -> Value {
    if let Some(signature) = signature {
        part["thoughtSignature"] = json!(signature);
    }
    part
}

fn choice(config: &Value) -> Choice {
    let allowed = either(config, "allowedFunctionNames").and_then(Value::as_array);
    let first = allowed.and_then(|names| names.first()).and_then(Value::as_str);
    match (str_at(config, "/mode"), first) {
        (Some("NONE"), _) => Choice::None,
        (Some("ANY"), Some(name)) => Choice::Named(name.to_owned()),
        (Some("ANY"), None) => Choice::Required,
        _ => Choice::Auto,
    }
}

/// A function result is an object; the text of its usual fields, else the whole.
fn result_text(response: &Value) -> String {
    let text = ["result", "output", "content", "return_value", "error"]
        .iter()
        .find_map(|field| response.get(field).and_then(Value::as_str));
    text.map_or_else(|| response.to_string(), str::to_owned)
}

/// A field by its camelCase name, or by the snake_case that the service accepts too.
fn either<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    either_of(value.as_object()?, name)
}

fn either_of<'v>(fields: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    fields.get(name).or_else(|| {
        let mut snake = String::with_capacity(name.len() + 4);
        for c in name.chars() {
            if c.is_ascii_uppercase() {
                snake.push('_');
            }
            snake.push(c.to_ascii_lowercase());
        }
        fields.get(&snake)
    })
}

/// The inputs of `:embedContent` and `:batchEmbedContents`, and the dimensions if they are asked for.
pub(crate) fn read_embeddings(request: &SeenRequest) -> Result<(Vec<String>, Option<usize>), ApiError> {
    let body = object(request)?;
    let one = |fields: &Map<String, Value>| -> Result<(String, Option<usize>), ApiError> {
        let content = fields.get("content").ok_or_else(|| missing("content"))?;
        let text = text_of(content.get("parts").unwrap_or(content)).into_owned();
        let dimensions = super::openai_misc::dimensions(either_of(fields, "outputDimensionality"))?;
        Ok((text, dimensions))
    };
    if request.endpoint == Endpoint::GeminiEmbed {
        let (text, dimensions) = one(body)?;
        return Ok((vec![text], dimensions));
    }
    let mut texts = Vec::new();
    let mut dimensions = None;
    for entry in list(body, "requests")? {
        let (text, wanted) = one(entry.as_object().ok_or_else(|| missing("content"))?)?;
        texts.push(text);
        dimensions = dimensions.or(wanted);
    }
    Ok((texts, dimensions))
}

/// The answer of the embedding endpoints.
pub(crate) fn embeddings(endpoint: Endpoint, vectors: &[Vec<f32>]) -> Value {
    if endpoint == Endpoint::GeminiEmbed {
        return json!({"embedding": {"values": vectors.first()}});
    }
    json!({"embeddings": vectors.iter().map(|values| json!({"values": values})).collect::<Value>()})
}

/// The answer of `:countTokens`.
pub(crate) fn count_tokens(view: &View) -> Value {
    let tokens = crate::server::echo::tokens(view.input_chars);
    json!({"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]})
}

/// The answer of `GET /v1beta/models` and `GET /v1beta/models/{id}`.
pub(crate) fn models(path: &str, models: &[String]) -> Result<Value, ApiError> {
    let card = |id: &str| {
        json!({
            "name": format!("models/{id}"),
            "version": "001",
            "displayName": id,
            "description": "a model of the test server",
            "inputTokenLimit": 1_048_576,
            "outputTokenLimit": 65_536,
            "supportedGenerationMethods": ["generateContent", "countTokens", "embedContent"],
        })
    };
    match super::openai_misc::asked_model(path) {
        None => Ok(json!({"models": models.iter().map(|id| card(id)).collect::<Value>()})),
        Some(id) if models.iter().any(|m| m == id) => Ok(card(id)),
        Some(id) => Err(ApiError::new(
            404,
            format!("models/{id} is not found for API version v1beta"),
        )),
    }
}
