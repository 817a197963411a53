//! Anthropic Messages: content blocks by index, a ping after the first block opens, cumulative usage in
//! `message_delta`, and `message_stop` as the end marker.
//!
//! On the wire `input_tokens` leaves out the cached part of the prompt.

use serde_json::{Value, json};

use super::frames::{Encoding, Frame, Role};
use super::{
    Choice, Context, ToolView, View, Wire, chars_of, flag, list, missing, model, object, str_at, text_of,
};
use crate::server::answer::{Answer, Finish, Usage};
use crate::server::civil;
use crate::server::fault::ApiError;
use crate::server::seen::{Endpoint, SeenRequest};

#[derive(Debug)]
pub(crate) struct Anthropic;

impl Wire for Anthropic {
    fn read(&self, request: &SeenRequest) -> Result<View, ApiError> {
        if request.header("anthropic-version").is_none() {
            return Err(ApiError::new(400, "anthropic-version: header is required"));
        }
        let body = object(request)?;
        let messages = list(body, "messages")?;
        let counting = request.endpoint == Endpoint::AnthropicCountTokens;
        if !counting && body.get("max_tokens").and_then(Value::as_u64).is_none() {
            return Err(missing("max_tokens"));
        }
        let mut view = View {
            model: model(body)?,
            stream: flag(body, "stream").unwrap_or(false),
            include_usage: true,
            choice: choice(body.get("tool_choice")),
            input_chars: chars_of(body, &["messages", "system", "tools"]),
            ..View::default()
        };
        for message in messages {
            view.tool_result = None;
            if str_at(message, "/role") != Some("user") {
                continue;
            }
            let content = message.get("content").unwrap_or(&Value::Null);
            let result = content
                .as_array()
                .into_iter()
                .flatten()
                .rfind(|b| str_at(b, "/type") == Some("tool_result"));
            match result {
                Some(block) => {
                    view.tool_result =
                        Some(text_of(block.get("content").unwrap_or(&Value::Null)).into_owned());
                }
                None => view.last_text = text_of(content).into_owned(),
            }
        }
        for tool in body.get("tools").and_then(Value::as_array).into_iter().flatten() {
            // Tools that the service runs itself have no schema and are never called by this server.
            let (Some(name), Some(parameters)) = (str_at(tool, "/name"), tool.get("input_schema")) else {
                continue;
            };
            view.tools.push(ToolView {
                name: name.to_owned(),
                parameters: parameters.clone(),
            });
        }
        let format = body
            .get("output_config")
            .and_then(|c| c.get("format"))
            .or_else(|| body.get("output_format"));
        view.schema = format.and_then(|format| format.get("schema")).cloned();
        view.json_mode = view.schema.is_some();
        Ok(view)
    }

    fn complete(&self, answer: &Answer, context: &Context<'_>) -> Value {
        let blocks = blocks(answer, context)
            .into_iter()
            .map(|block| block.done)
            .collect();
        message(answer, context, Some(blocks))
    }

    fn stream(&self, answer: &Answer, context: &Context<'_>) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut push = |role: Role, event: &'static str, data: Value| {
            frames.push(Frame::new(role, data).named(event));
        };
        let message = message(answer, context, None);
        push(
            Role::Structure,
            "message_start",
            json!({"type": "message_start", "message": message}),
        );
        for (index, block) in blocks(answer, context).into_iter().enumerate() {
            let start = json!({"type": "content_block_start", "index": index, "content_block": block.start});
            push(Role::Structure, "content_block_start", start);
            if index == 0 {
                push(Role::Structure, "ping", json!({"type": "ping"}));
            }
            for (role, delta) in block.deltas {
                let delta = json!({"type": "content_block_delta", "index": index, "delta": delta});
                push(role, "content_block_delta", delta);
            }
            let stop = json!({"type": "content_block_stop", "index": index});
            push(Role::Structure, "content_block_stop", stop);
        }
        let (reason, sequence, details) = stop(answer);
        let delta = json!({
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": sequence, "stop_details": details},
            "usage": {
                "input_tokens": uncached(&context.usage),
                "cache_creation_input_tokens": context.usage.cache_write,
                "cache_read_input_tokens": context.usage.cache_read,
                "output_tokens": context.usage.output,
            },
        });
        push(Role::Finish, "message_delta", delta);
        push(Role::End, "message_stop", json!({"type": "message_stop"}));
        frames
    }

    fn encoding(&self, _: &Context<'_>) -> Encoding {
        Encoding::sse()
    }

    fn error_body(&self, error: &ApiError, request_id: &str) -> Value {
        let kind = match error.status {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            504 => "timeout_error",
            529 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        let kind = error.kind.as_deref().unwrap_or(kind);
        json!({"type": "error", "error": {"type": kind, "message": error.message}, "request_id": request_id})
    }

    fn error_frame(&self, error: &ApiError, request_id: &str) -> Frame {
        Frame::end(self.error_body(error, request_id)).named("error")
    }

    fn request_id_header(&self) -> Option<&'static str> {
        Some("request-id")
    }
}

/// A content block: as it opens, what is added to it, and as it is when complete.
struct Block {
    start: Value,
    deltas: Vec<(Role, Value)>,
    done: Value,
}

fn blocks(answer: &Answer, context: &Context<'_>) -> Vec<Block> {
    let mut blocks = Vec::new();
    if let Some((thinking, signature)) = &answer.reasoning {
        let mut deltas: Vec<_> = answer
            .cutting()
            .cut(thinking)
            .into_iter()
            .map(|piece| (Role::Piece, json!({"type": "thinking_delta", "thinking": piece})))
            .collect();
        if let Some(signature) = signature {
            deltas.push((
                Role::Structure,
                json!({"type": "signature_delta", "signature": signature}),
            ));
        }
        blocks.push(Block {
            start: json!({"type": "thinking", "thinking": "", "signature": ""}),
            deltas,
            done: json!({
                "type": "thinking", "thinking": thinking, "signature": signature.as_deref().unwrap_or(""),
            }),
        });
    }
    if let Some(text) = &answer.text {
        let pieces = answer.text_cut().into_iter();
        blocks.push(Block {
            start: json!({"type": "text", "text": ""}),
            deltas: pieces
                .map(|p| (Role::Piece, json!({"type": "text_delta", "text": p})))
                .collect(),
            done: json!({"type": "text", "text": text}),
        });
    }
    for (index, call) in answer.tool_calls.iter().enumerate() {
        let block = |input: Value| {
            json!({
                "type": "tool_use", "id": call.id_or("toolu_", context.seq, index), "name": call.name,
                "input": input, "caller": {"type": "direct"},
            })
        };
        let delta = |json: &str| json!({"type": "input_json_delta", "partial_json": json});
        let text = call.arguments.to_text();
        let mut deltas = vec![(Role::Structure, delta(""))];
        // A call without arguments has no text at all on the wire; the empty total means `{}`.
        if text != "{}" {
            deltas.extend(
                answer
                    .cutting()
                    .cut_arguments(&text)
                    .into_iter()
                    .map(|p| (Role::Piece, delta(p))),
            );
        }
        blocks.push(Block {
            start: block(json!({})),
            deltas,
            done: block(call.arguments.to_value()),
        });
    }
    blocks
}

/// The message object; without content it is the one at the beginning of a stream.
fn message(answer: &Answer, context: &Context<'_>, content: Option<Vec<Value>>) -> Value {
    let begins = content.is_none();
    let (reason, sequence, details) = if begins {
        (Value::Null, Value::Null, Value::Null)
    } else {
        stop(answer)
    };
    json!({
        "model": context.model,
        "id": context.id("msg_"),
        "type": "message",
        "role": "assistant",
        "content": content.unwrap_or_default(),
        "stop_reason": reason,
        "stop_sequence": sequence,
        "stop_details": details,
        "usage": {
            "input_tokens": uncached(&context.usage),
            "cache_creation_input_tokens": context.usage.cache_write,
            "cache_read_input_tokens": context.usage.cache_read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": context.usage.cache_write,
                "ephemeral_1h_input_tokens": 0,
            },
            "output_tokens": if begins { 1 } else { context.usage.output },
            "service_tier": "standard",
            "inference_geo": "not_available",
        },
    })
}

/// Stop reason, stop sequence and details.
fn stop(answer: &Answer) -> (Value, Value, Value) {
    let finish = answer.finish();
    let reason = match &finish {
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::ToolCalls => "tool_use",
        Finish::ContentFilter => "refusal",
        Finish::StopSequence(_) => "stop_sequence",
        Finish::Other(word) => word,
    };
    let sequence = match &finish {
        Finish::StopSequence(sequence) => json!(sequence),
        _ => Value::Null,
    };
    let details = match &answer.refusal {
        Some(text) => json!({"type": "refusal", "category": null, "explanation": text}),
        None => Value::Null,
    };
    (json!(reason), sequence, details)
}

fn uncached(usage: &Usage) -> u64 {
    usage
        .input
        .saturating_sub(usage.cache_read)
        .saturating_sub(usage.cache_write)
}

fn choice(value: Option<&Value>) -> Choice {
    let Some(value) = value else { return Choice::Auto };
    match (str_at(value, "/type"), str_at(value, "/name")) {
        (Some("none"), _) => Choice::None,
        (Some("any"), _) => Choice::Required,
        (Some("tool"), Some(name)) => Choice::Named(name.to_owned()),
        _ => Choice::Auto,
    }
}

/// The answer of `GET /v1/models` and `GET /v1/models/{id}`.
pub(crate) fn models(path: &str, models: &[String]) -> Result<Value, ApiError> {
    let card = |id: &str| {
        json!({
            "type": "model", "id": id, "display_name": id, "created_at": civil::rfc3339(civil::CREATED),
            "lifecycle": "active",
        })
    };
    match super::openai_misc::asked_model(path) {
        None => Ok(json!({
            "data": models.iter().map(|id| card(id)).collect::<Value>(),
            "has_more": false,
            "first_id": models.first(),
            "last_id": models.last(),
        })),
        Some(id) if models.iter().any(|m| m == id) => Ok(card(id)),
        Some(id) => Err(ApiError::new(404, format!("model: {id}"))),
    }
}

/// The answer of `POST /v1/messages/count_tokens`.
pub(crate) fn count_tokens(view: &View) -> Value {
    json!({"input_tokens": crate::server::echo::tokens(view.input_chars)})
}
