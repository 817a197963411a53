//! OpenAI Chat Completions, as the service sent it in 2026: a role chunk first, one chunk a delta, a chunk
//! with `finish_reason`, the usage chunk with no choices if it was asked for, then `[DONE]`.
//!
//! One choice always; `n` is ignored.

use serde_json::{Map, Value, json};

use super::frames::{Data, Encoding, Frame, Role};
use super::{Choice, Context, ToolView, View, Wire, chars_of, flag, list, model, object, str_at, text_of};
use crate::server::answer::{Answer, Finish, ToolCall, Usage};
use crate::server::civil::CREATED;
use crate::server::fault::ApiError;
use crate::server::seen::SeenRequest;

#[derive(Debug)]
pub(crate) struct OpenAiChat;

impl Wire for OpenAiChat {
    fn read(&self, request: &SeenRequest) -> Result<View, ApiError> {
        let body = object(request)?;
        let messages = list(body, "messages")?;
        let mut view = View {
            model: model(body)?,
            stream: flag(body, "stream").unwrap_or(false),
            include_usage: body
                .get("stream_options")
                .and_then(|options| options.get("include_usage"))
                .and_then(Value::as_bool)
                .unwrap_or(false),
            choice: choice(body.get("tool_choice")),
            input_chars: chars_of(body, &["messages", "tools"]),
            ..View::default()
        };
        for message in messages {
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
        match body.get("response_format") {
            Some(format) if str_at(format, "/type") == Some("json_schema") => {
                view.schema = format.pointer("/json_schema/schema").cloned();
                view.json_mode = true;
            }
            Some(format) => view.json_mode = str_at(format, "/type") == Some("json_object"),
            None => {}
        }
        Ok(view)
    }

    fn complete(&self, answer: &Answer, context: &Context<'_>) -> Value {
        let mut message = Map::new();
        message.insert("role".into(), json!("assistant"));
        message.insert("content".into(), json!(answer.text));
        if let Some((reasoning, _)) = &answer.reasoning {
            message.insert(context.reasoning_field.into(), json!(reasoning));
        }
        if !answer.tool_calls.is_empty() {
            let calls = answer.tool_calls.iter().enumerate().map(|(index, call)| {
                json!({
                    "id": call.id_or("call_", context.seq, index),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments.to_text()},
                })
            });
            message.insert("tool_calls".into(), calls.collect());
        }
        message.insert("refusal".into(), json!(answer.refusal));
        message.insert("annotations".into(), json!([]));
        json!({
            "id": context.id("chatcmpl-"),
            "object": "chat.completion",
            "created": CREATED,
            "model": context.model,
            "choices": [{
                "index": 0,
                "message": message,
                "logprobs": null,
                "finish_reason": finish(&openai_finish(answer)),
            }],
            "usage": usage(&context.usage),
            "service_tier": "default",
            "system_fingerprint": "fp_testkit",
        })
    }

    fn stream(&self, answer: &Answer, context: &Context<'_>) -> Vec<Frame> {
        let mut chunks = Chunks {
            context,
            frames: Vec::new(),
        };
        let content = if answer.text.is_some() || answer.reasoning.is_some() {
            json!("")
        } else {
            Value::Null
        };
        chunks.delta(
            Role::Structure,
            &json!({"role": "assistant", "content": content, "refusal": null}),
        );
        for piece in answer.cutting().cut(answer.reasoning_text()) {
            chunks.delta(Role::Piece, &json!({ context.reasoning_field: piece }));
        }
        for piece in answer.text_cut() {
            chunks.delta(Role::Piece, &json!({"content": piece}));
        }
        for piece in answer.cutting().cut(answer.refusal.as_deref().unwrap_or("")) {
            chunks.delta(Role::Piece, &json!({"refusal": piece}));
        }
        for (index, call) in answer.tool_calls.iter().enumerate() {
            chunks.tool_call(answer, index, call);
        }
        let finish = json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": finish(&openai_finish(answer))}]);
        chunks.push(Role::Finish, finish, Value::Null);
        if context.include_usage {
            chunks.push(Role::Structure, json!([]), usage(&context.usage));
        }
        chunks.frames.push(Frame {
            role: Role::End,
            event: None,
            data: Data::Text("[DONE]"),
        });
        chunks.frames
    }

    fn encoding(&self, _: &Context<'_>) -> Encoding {
        Encoding::sse()
    }

    fn error_body(&self, error: &ApiError, _: &str) -> Value {
        error_body(error)
    }

    fn request_id_header(&self) -> Option<&'static str> {
        Some("x-request-id")
    }
}

struct Chunks<'c, 'r> {
    context: &'c Context<'r>,
    frames: Vec<Frame>,
}

impl Chunks<'_, '_> {
    fn delta(&mut self, role: Role, delta: &Value) {
        let choices = json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]);
        self.push(role, choices, Value::Null);
    }

    fn tool_call(&mut self, answer: &Answer, index: usize, call: &ToolCall) {
        let id = call.id_or("call_", self.context.seq, index);
        let open = json!({
            "index": index, "id": id, "type": "function", "function": {"name": call.name, "arguments": ""},
        });
        self.delta(Role::Structure, &json!({"tool_calls": [open]}));
        for piece in answer.cutting().cut_arguments(&call.arguments.to_text()) {
            self.delta(
                Role::Piece,
                &json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}),
            );
        }
    }

    fn push(&mut self, role: Role, choices: Value, usage: Value) {
        let mut chunk = Map::new();
        chunk.insert("id".into(), json!(self.context.id("chatcmpl-")));
        chunk.insert("object".into(), json!("chat.completion.chunk"));
        chunk.insert("created".into(), json!(CREATED));
        chunk.insert("model".into(), json!(self.context.model));
        chunk.insert("service_tier".into(), json!("default"));
        chunk.insert("system_fingerprint".into(), json!("fp_testkit"));
        chunk.insert("choices".into(), choices);
        if self.context.include_usage {
            chunk.insert("usage".into(), usage);
        }
        let obfuscate = self
            .context
            .body
            .pointer("/stream_options/include_obfuscation")
            .and_then(Value::as_bool);
        if obfuscate.unwrap_or(true) {
            // The service pads chunks to hide their length; here the padding only proves that it is ignored.
            let length = self.frames.len() % 13;
            chunk.insert("obfuscation".into(), json!(&"aQ3xZ7mK0wT5bL"[..length]));
        }
        self.frames.push(Frame::new(role, Value::Object(chunk)));
    }
}

fn choice(value: Option<&Value>) -> Choice {
    match value {
        Some(Value::String(word)) if word == "none" => Choice::None,
        Some(Value::String(word)) if word == "required" || word == "any" => Choice::Required,
        Some(object @ Value::Object(_)) => str_at(object, "/function/name")
            .or_else(|| str_at(object, "/name"))
            .map_or(Choice::Auto, |name| Choice::Named(name.to_owned())),
        _ => Choice::Auto,
    }
}

/// `tool_choice` of Responses has the same words, and the name one level higher.
pub(super) fn tool_choice(value: Option<&Value>) -> Choice {
    choice(value)
}

/// A refusal is an ordinary end for OpenAI, unless the script says otherwise.
pub(super) fn openai_finish(answer: &Answer) -> Finish {
    match answer.finish() {
        Finish::ContentFilter if answer.finish.is_none() => Finish::Stop,
        finish => finish,
    }
}

fn finish(finish: &Finish) -> &str {
    match finish {
        Finish::Stop | Finish::StopSequence(_) => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
        Finish::ContentFilter => "content_filter",
        Finish::Other(word) => word,
    }
}

fn usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input.saturating_add(usage.output),
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

/// The error shape of both OpenAI dialects.
pub(super) fn error_body(error: &ApiError) -> Value {
    let (kind, code) = match error.status {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        404 => ("invalid_request_error", Some("model_not_found")),
        429 => ("requests", Some("rate_limit_exceeded")),
        500.. => ("server_error", None),
        _ => ("invalid_request_error", None),
    };
    let kind = error.kind.as_deref().unwrap_or(kind);
    let code = error.code.as_deref().or(code);
    json!({"error": {"message": error.message, "type": kind, "param": error.param, "code": code}})
}
