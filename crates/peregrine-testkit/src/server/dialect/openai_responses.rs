//! OpenAI Responses: output items (reasoning, message, function calls), and a stream in which every event is
//! named by its type and numbered, ending with `response.completed` or `response.incomplete`.
//!
//! The stream is made from the same items as the complete body, so the last event repeats that body.

use serde_json::{Map, Value, json};

use super::frames::{Encoding, Frame, Role};
use super::openai_chat::{error_body, openai_finish, tool_choice};
use super::{Context, ToolView, View, Wire, chars_of, flag, missing, model, object, str_at, text_of};
use crate::server::answer::{Answer, Finish};
use crate::server::civil::CREATED;
use crate::server::fault::ApiError;
use crate::server::seen::SeenRequest;

#[derive(Debug)]
pub(crate) struct OpenAiResponses;

impl Wire for OpenAiResponses {
    fn read(&self, request: &SeenRequest) -> Result<View, ApiError> {
        let body = object(request)?;
        let mut view = View {
            model: model(body)?,
            stream: flag(body, "stream").unwrap_or(false),
            include_usage: true,
            choice: tool_choice(body.get("tool_choice")),
            input_chars: chars_of(body, &["input", "instructions", "tools"]),
            ..View::default()
        };
        match body.get("input") {
            Some(Value::String(text)) => view.last_text.clone_from(text),
            Some(Value::Array(items)) if !items.is_empty() => read_items(items, &mut view),
            _ => return Err(missing("input")),
        }
        for tool in body.get("tools").and_then(Value::as_array).into_iter().flatten() {
            if str_at(tool, "/type") != Some("function") {
                continue;
            }
            let Some(name) = str_at(tool, "/name") else {
                continue;
            };
            let parameters = tool.get("parameters").cloned().unwrap_or(Value::Null);
            view.tools.push(ToolView {
                name: name.to_owned(),
                parameters,
            });
        }
        if let Some(format) = body.get("text").and_then(|text| text.get("format")) {
            view.schema = format.get("schema").cloned();
            view.json_mode = matches!(str_at(format, "/type"), Some("json_schema" | "json_object"));
        }
        Ok(view)
    }

    fn complete(&self, answer: &Answer, context: &Context<'_>) -> Value {
        let items = items(answer, context).into_iter().map(|item| item.done).collect();
        response(answer, context, Some(items))
    }

    fn stream(&self, answer: &Answer, context: &Context<'_>) -> Vec<Frame> {
        let mut events = Events { frames: Vec::new() };
        for kind in ["response.created", "response.in_progress"] {
            events.push(
                Role::Structure,
                kind,
                json!({"response": response(answer, context, None)}),
            );
        }
        let items = items(answer, context);
        for (output_index, item) in items.iter().enumerate() {
            events.item(answer, output_index, item);
        }
        let done: Vec<Value> = items.into_iter().map(|item| item.done).collect();
        let response = response(answer, context, Some(done));
        let kind = if response["status"] == "incomplete" {
            "response.incomplete"
        } else {
            "response.completed"
        };
        events.push(Role::End, kind, json!({"response": response}));
        events.frames
    }

    fn encoding(&self, _: &Context<'_>) -> Encoding {
        Encoding::sse()
    }

    fn error_body(&self, error: &ApiError, _: &str) -> Value {
        error_body(error)
    }

    fn error_frame(&self, error: &ApiError, _: &str) -> Frame {
        let body = error_body(error);
        let fields = &body["error"];
        Frame::end(json!({
            "type": "error",
            "code": fields["code"],
            "message": fields["message"],
            "param": fields["param"],
            "sequence_number": 0,
        }))
        .named("error")
    }

    fn request_id_header(&self) -> Option<&'static str> {
        Some("x-request-id")
    }
}

fn read_items(items: &[Value], view: &mut View) {
    for item in items {
        match (str_at(item, "/type"), str_at(item, "/role")) {
            (Some("function_call_output"), _) => {
                view.tool_result = Some(text_of(item.get("output").unwrap_or(&Value::Null)).into_owned());
            }
            (None | Some("message"), Some("user")) => {
                view.last_text = text_of(item.get("content").unwrap_or(&Value::Null)).into_owned();
                view.tool_result = None;
            }
            _ => view.tool_result = None,
        }
    }
}

/// An output item at its beginning and when it is done.
struct Item {
    kind: Kind,
    added: Value,
    done: Value,
}

enum Kind {
    Reasoning,
    Text,
    Refusal,
    Call,
}

fn items(answer: &Answer, context: &Context<'_>) -> Vec<Item> {
    let mut items = Vec::new();
    if let Some((text, encrypted)) = &answer.reasoning {
        let item = |summary: Value| {
            let mut item = json!({"id": context.id("rs_"), "type": "reasoning", "content": []});
            if let Some(encrypted) = encrypted {
                item["encrypted_content"] = json!(encrypted);
            }
            item["summary"] = summary;
            item
        };
        let (added, done) = (
            item(json!([])),
            item(json!([{"type": "summary_text", "text": text}])),
        );
        items.push(Item {
            kind: Kind::Reasoning,
            added,
            done,
        });
    }
    let message = |id: &str, status: &str, content: Value| {
        json!({
            "id": context.id(id), "type": "message", "status": status,
            "content": content, "role": "assistant",
        })
    };
    if let Some(text) = &answer.text {
        let part = json!({"type": "output_text", "annotations": [], "logprobs": [], "text": text});
        let id = "msg_";
        let (added, done) = (
            message(id, "in_progress", json!([])),
            message(id, "completed", json!([part])),
        );
        items.push(Item {
            kind: Kind::Text,
            added,
            done,
        });
    }
    if let Some(refusal) = &answer.refusal {
        let part = json!({"type": "refusal", "refusal": refusal});
        let id = "msg_r";
        let (added, done) = (
            message(id, "in_progress", json!([])),
            message(id, "completed", json!([part])),
        );
        items.push(Item {
            kind: Kind::Refusal,
            added,
            done,
        });
    }
    for (index, call) in answer.tool_calls.iter().enumerate() {
        let item = |status: &str, arguments: String| {
            json!({
                "id": format!("fc_{:020}{index:04}", context.seq), "type": "function_call", "status": status,
                "arguments": arguments, "call_id": call.id_or("call_", context.seq, index), "name": call.name,
            })
        };
        let (added, done) = (
            item("in_progress", String::new()),
            item("completed", call.arguments.to_text()),
        );
        items.push(Item {
            kind: Kind::Call,
            added,
            done,
        });
    }
    items
}

/// The response object; without items it is the one at the beginning of a stream.
fn response(answer: &Answer, context: &Context<'_>, items: Option<Vec<Value>>) -> Value {
    let finish = openai_finish(answer);
    let reason = match &finish {
        Finish::Length => Some("max_output_tokens"),
        Finish::ContentFilter => Some("content_filter"),
        Finish::Other(word) => Some(word.as_str()),
        _ => None,
    };
    let (status, done) = match (&items, reason) {
        (None, _) => ("in_progress", false),
        (Some(_), None) => ("completed", true),
        (Some(_), Some(_)) => ("incomplete", true),
    };
    let usage = context.usage;
    let usage = json!({
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cache_read},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input.saturating_add(usage.output),
    });
    let text = context.body.get("text");
    let effort = context
        .body
        .pointer("/reasoning/effort")
        .cloned()
        .unwrap_or(Value::Null);
    json!({
        "id": context.id("resp_"),
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "background": false,
        "completed_at": if done { json!(CREATED) } else { Value::Null },
        "error": null,
        "frequency_penalty": 0.0,
        "incomplete_details": match (done, reason) {
            (true, Some(reason)) => json!({"reason": reason}),
            _ => Value::Null,
        },
        "instructions": context.asked("instructions"),
        "max_output_tokens": context.asked("max_output_tokens"),
        "max_tool_calls": context.asked("max_tool_calls"),
        "model": context.model,
        "output": items.unwrap_or_default(),
        "parallel_tool_calls": context.asked_or("parallel_tool_calls", true),
        "presence_penalty": 0.0,
        "previous_response_id": context.asked("previous_response_id"),
        "prompt_cache_key": context.asked("prompt_cache_key"),
        "prompt_cache_retention": null,
        "reasoning": {"effort": effort, "summary": context.body.pointer("/reasoning/summary")},
        "safety_identifier": context.asked("safety_identifier"),
        "service_tier": if done { "default" } else { "auto" },
        "store": context.asked_or("store", true),
        "temperature": context.asked_or("temperature", 1.0),
        "text": {
            "format": text.and_then(|t| t.get("format")).cloned().unwrap_or_else(|| json!({"type": "text"})),
            "verbosity": text.and_then(|t| t.get("verbosity")).cloned().unwrap_or_else(|| json!("medium")),
        },
        "tool_choice": context.asked_or("tool_choice", "auto"),
        "tools": context.asked_or("tools", json!([])),
        "top_logprobs": 0,
        "top_p": context.asked_or("top_p", 1.0),
        "truncation": context.asked_or("truncation", "disabled"),
        "usage": if done { usage } else { Value::Null },
        "user": context.asked("user"),
        "metadata": context.asked_or("metadata", json!({})),
    })
}

struct Events {
    frames: Vec<Frame>,
}

impl Events {
    fn push(&mut self, role: Role, kind: &'static str, fields: Value) {
        let mut event = Map::new();
        event.insert("type".into(), json!(kind));
        if let Value::Object(fields) = fields {
            event.extend(fields);
        }
        event.insert("sequence_number".into(), json!(self.frames.len()));
        self.frames
            .push(Frame::new(role, Value::Object(event)).named(kind));
    }

    fn item(&mut self, answer: &Answer, output_index: usize, item: &Item) {
        let (id, done) = (&item.done["id"], &item.done);
        self.push(
            Role::Structure,
            "response.output_item.added",
            json!({"item": item.added, "output_index": output_index}),
        );
        let at = |fields: Value| {
            let mut all = json!({"item_id": id, "output_index": output_index});
            if let (Some(all), Value::Object(fields)) = (all.as_object_mut(), fields) {
                all.extend(fields);
            }
            all
        };
        match item.kind {
            Kind::Reasoning => {
                let text = &done["summary"][0]["text"];
                let part = |text: &Value| {
                    at(json!({"summary_index": 0, "part": {"type": "summary_text", "text": text}}))
                };
                self.push(
                    Role::Structure,
                    "response.reasoning_summary_part.added",
                    part(&json!("")),
                );
                for piece in answer.cutting().cut(answer.reasoning_text()) {
                    let delta = at(json!({"summary_index": 0, "delta": piece}));
                    self.push(Role::Piece, "response.reasoning_summary_text.delta", delta);
                }
                let end = at(json!({"summary_index": 0, "text": text}));
                self.push(Role::Structure, "response.reasoning_summary_text.done", end);
                self.push(
                    Role::Structure,
                    "response.reasoning_summary_part.done",
                    part(text),
                );
            }
            Kind::Text => {
                let part = &done["content"][0];
                let open = json!({"type": "output_text", "annotations": [], "logprobs": [], "text": ""});
                let opened = at(json!({"content_index": 0, "part": open}));
                self.push(Role::Structure, "response.content_part.added", opened);
                for piece in answer.text_cut() {
                    let delta = at(json!({"content_index": 0, "delta": piece, "logprobs": []}));
                    self.push(Role::Piece, "response.output_text.delta", delta);
                }
                let end = at(json!({"content_index": 0, "text": part["text"], "logprobs": []}));
                self.push(Role::Structure, "response.output_text.done", end);
                let closed = at(json!({"content_index": 0, "part": part}));
                self.push(Role::Structure, "response.content_part.done", closed);
            }
            Kind::Refusal => {
                let part = &done["content"][0];
                let opened = at(json!({"content_index": 0, "part": {"type": "refusal", "refusal": ""}}));
                self.push(Role::Structure, "response.content_part.added", opened);
                for piece in answer.cutting().cut(answer.refusal.as_deref().unwrap_or("")) {
                    let delta = at(json!({"content_index": 0, "delta": piece}));
                    self.push(Role::Piece, "response.refusal.delta", delta);
                }
                let end = at(json!({"content_index": 0, "refusal": part["refusal"]}));
                self.push(Role::Structure, "response.refusal.done", end);
                let closed = at(json!({"content_index": 0, "part": part}));
                self.push(Role::Structure, "response.content_part.done", closed);
            }
            Kind::Call => {
                let arguments = done["arguments"].as_str().unwrap_or("");
                for piece in answer.cutting().cut_arguments(arguments) {
                    self.push(
                        Role::Piece,
                        "response.function_call_arguments.delta",
                        at(json!({"delta": piece})),
                    );
                }
                let end = at(json!({"arguments": arguments}));
                self.push(Role::Structure, "response.function_call_arguments.done", end);
            }
        }
        self.push(
            Role::Structure,
            "response.output_item.done",
            json!({"item": done, "output_index": output_index}),
        );
    }
}
