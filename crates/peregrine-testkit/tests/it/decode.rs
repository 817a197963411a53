//! An independent reading of each dialect, complete and streamed, written for these tests alone: what a
//! correct client gets out of an answer.

use peregrine_testkit::server::Dialect;
use serde_json::{Value, json};

use crate::client::Answer;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Decoded {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) signature: String,
    pub(crate) refusal: String,
    /// Id, name and arguments as text or value.
    pub(crate) calls: Vec<(String, String, Value)>,
    pub(crate) finish: String,
    pub(crate) usage: Value,
    pub(crate) model: String,
    pub(crate) id: String,
}

pub(crate) const DIALECTS: [Dialect; 5] = [
    Dialect::OpenAiChat,
    Dialect::OpenAiResponses,
    Dialect::Anthropic,
    Dialect::Gemini,
    Dialect::Ollama,
];

/// Target, headers and body of a plain request.
pub(crate) fn request(dialect: Dialect, stream: bool) -> (String, Vec<(&'static str, &'static str)>, Value) {
    let messages = json!([{"role": "user", "content": "hello there"}]);
    match dialect {
        Dialect::OpenAiChat => (
            "/v1/chat/completions".into(),
            vec![("authorization", "Bearer k")],
            json!({"model": "m", "messages": messages, "stream": stream, "stream_options": {"include_usage": true}}),
        ),
        Dialect::OpenAiResponses => (
            "/v1/responses".into(),
            vec![],
            json!({"model": "m", "input": "hello there", "stream": stream}),
        ),
        Dialect::Anthropic => (
            "/v1/messages".into(),
            vec![("x-api-key", "k"), ("anthropic-version", "2023-06-01")],
            json!({"model": "m", "max_tokens": 64, "messages": messages, "stream": stream}),
        ),
        Dialect::Gemini => (
            format!(
                "/v1beta/models/m:{}",
                if stream {
                    "streamGenerateContent?alt=sse"
                } else {
                    "generateContent"
                }
            ),
            vec![("x-goog-api-key", "k")],
            json!({"contents": [{"role": "user", "parts": [{"text": "hello there"}]}]}),
        ),
        _ => (
            "/api/chat".into(),
            vec![],
            json!({"model": "m", "messages": messages, "stream": stream}),
        ),
    }
}

pub(crate) fn complete(dialect: Dialect, answer: &Answer) -> Decoded {
    let body = answer.json();
    let mut d = Decoded::default();
    match dialect {
        Dialect::OpenAiChat => {
            let choice = &body["choices"][0];
            openai_message(&mut d, &choice["message"]);
            d.finish = string(&choice["finish_reason"]);
            (d.usage, d.model, d.id) = (body["usage"].clone(), string(&body["model"]), string(&body["id"]));
        }
        Dialect::OpenAiResponses => responses_body(&mut d, &body),
        Dialect::Anthropic => {
            for block in list(&body["content"]) {
                anthropic_block(&mut d, block);
            }
            anthropic_end(&mut d, &body);
            d.usage = anthropic_usage(&body["usage"]);
            (d.model, d.id) = (string(&body["model"]), string(&body["id"]));
        }
        Dialect::Gemini => gemini_body(&mut d, &body),
        _ => {
            d.id = string(&body["created_at"]);
            ollama_line(&mut d, &body);
        }
    }
    d
}

pub(crate) fn stream(dialect: Dialect, answer: &Answer) -> Decoded {
    let mut d = Decoded::default();
    match dialect {
        Dialect::OpenAiChat => {
            let events = answer.events();
            assert_eq!(events.last().unwrap().1, "[DONE]");
            let mut calls: Vec<(String, String, String)> = Vec::new();
            for chunk in answer.event_json() {
                (d.model, d.id) = (string(&chunk["model"]), string(&chunk["id"]));
                if !chunk["usage"].is_null() {
                    d.usage = chunk["usage"].clone();
                }
                let Some(choice) = chunk["choices"].get(0) else {
                    continue;
                };
                let delta = &choice["delta"];
                d.text.push_str(delta["content"].as_str().unwrap_or(""));
                d.reasoning
                    .push_str(delta["reasoning_content"].as_str().unwrap_or(""));
                d.refusal.push_str(delta["refusal"].as_str().unwrap_or(""));
                d.finish.push_str(choice["finish_reason"].as_str().unwrap_or(""));
                for call in delta["tool_calls"].as_array().into_iter().flatten() {
                    let index = call["index"].as_u64().unwrap() as usize;
                    calls.resize(calls.len().max(index + 1), Default::default());
                    calls[index].0.push_str(call["id"].as_str().unwrap_or(""));
                    calls[index]
                        .1
                        .push_str(call["function"]["name"].as_str().unwrap_or(""));
                    calls[index]
                        .2
                        .push_str(call["function"]["arguments"].as_str().unwrap_or(""));
                }
            }
            d.calls = calls
                .into_iter()
                .map(|(id, name, args)| (id, name, json!(args)))
                .collect();
        }
        Dialect::OpenAiResponses => {
            let (mut text, mut reasoning, mut refusal) = (String::new(), String::new(), String::new());
            let mut arguments: Vec<String> = Vec::new();
            for (index, (name, data)) in answer.events().into_iter().enumerate() {
                let event: Value = serde_json::from_str(&data).unwrap();
                assert_eq!(event["type"], json!(name));
                assert_eq!(event["sequence_number"], json!(index));
                let delta = event["delta"].as_str().unwrap_or("");
                match name.as_str() {
                    "response.output_text.delta" => text.push_str(delta),
                    "response.reasoning_summary_text.delta" => reasoning.push_str(delta),
                    "response.refusal.delta" => refusal.push_str(delta),
                    "response.output_item.added" if event["item"]["type"] == "function_call" => {
                        arguments.push(String::new());
                    }
                    "response.function_call_arguments.delta" => arguments.last_mut().unwrap().push_str(delta),
                    "response.completed" | "response.incomplete" => {
                        responses_body(&mut d, &event["response"])
                    }
                    _ => {}
                }
            }
            assert_eq!((&text, &reasoning, &refusal), (&d.text, &d.reasoning, &d.refusal));
            assert_eq!(
                arguments,
                d.calls.iter().map(|(_, _, a)| string(a)).collect::<Vec<_>>()
            );
        }
        Dialect::Anthropic => {
            let mut blocks: Vec<Value> = Vec::new();
            let mut inputs: Vec<String> = Vec::new();
            let mut names = Vec::new();
            for (name, data) in answer.events() {
                let event: Value = serde_json::from_str(&data).unwrap();
                assert_eq!(event["type"], json!(name));
                let index = event["index"].as_u64().unwrap_or(0) as usize;
                let delta = &event["delta"];
                match name.as_str() {
                    "message_start" => {
                        let message = &event["message"];
                        (d.model, d.id) = (string(&message["model"]), string(&message["id"]));
                    }
                    "content_block_start" => {
                        assert_eq!(index, blocks.len());
                        blocks.push(event["content_block"].clone());
                        inputs.push(String::new());
                    }
                    "content_block_delta" => {
                        for field in ["text", "thinking", "signature"] {
                            if let Some(piece) = delta[field].as_str() {
                                blocks[index][field] = json!(string(&blocks[index][field]) + piece);
                            }
                        }
                        inputs[index].push_str(delta["partial_json"].as_str().unwrap_or(""));
                    }
                    "message_delta" => {
                        anthropic_end(&mut d, delta);
                        d.usage = anthropic_usage(&event["usage"]);
                    }
                    _ => {}
                }
                names.push(name);
            }
            assert_eq!(names.last().unwrap(), "message_stop");
            for (block, input) in blocks.iter_mut().zip(inputs) {
                if block["type"] == "tool_use" && !input.is_empty() {
                    block["input"] = serde_json::from_str(&input).unwrap();
                }
                anthropic_block(&mut d, block);
            }
        }
        Dialect::Gemini => {
            let frames = if answer
                .header("content-type")
                .unwrap()
                .starts_with("text/event-stream")
            {
                answer.event_json()
            } else {
                list(&answer.json()).to_vec()
            };
            for frame in &frames {
                assert!(d.finish.is_empty(), "a frame after the last one");
                gemini_body(&mut d, frame);
            }
        }
        _ => {
            for line in answer.lines() {
                assert!(d.finish.is_empty(), "a line after the last one");
                d.id = string(&line["created_at"]);
                ollama_line(&mut d, &line);
            }
        }
    }
    assert!(!d.finish.is_empty(), "no reason to stop in {:?}", answer.text());
    d
}

fn openai_message(d: &mut Decoded, message: &Value) {
    d.text = string(&message["content"]);
    d.reasoning = string(&message["reasoning_content"]);
    d.refusal = string(&message["refusal"]);
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let function = &call["function"];
        d.calls.push((
            string(&call["id"]),
            string(&function["name"]),
            function["arguments"].clone(),
        ));
    }
}

fn responses_body(d: &mut Decoded, body: &Value) {
    for item in list(&body["output"]) {
        match item["type"].as_str().unwrap() {
            "reasoning" => {
                d.reasoning = string(&item["summary"][0]["text"]);
                d.signature = string(&item["encrypted_content"]);
            }
            "message" => {
                d.text.push_str(item["content"][0]["text"].as_str().unwrap_or(""));
                d.refusal
                    .push_str(item["content"][0]["refusal"].as_str().unwrap_or(""));
            }
            "function_call" => {
                d.calls.push((
                    string(&item["call_id"]),
                    string(&item["name"]),
                    item["arguments"].clone(),
                ));
            }
            other => panic!("{other}"),
        }
    }
    d.finish = format!(
        "{} {}",
        string(&body["status"]),
        string(&body["incomplete_details"]["reason"])
    );
    (d.usage, d.model, d.id) = (body["usage"].clone(), string(&body["model"]), string(&body["id"]));
}

fn anthropic_block(d: &mut Decoded, block: &Value) {
    match block["type"].as_str().unwrap() {
        "text" => d.text.push_str(block["text"].as_str().unwrap()),
        "thinking" => (d.reasoning, d.signature) = (string(&block["thinking"]), string(&block["signature"])),
        "tool_use" => d.calls.push((
            string(&block["id"]),
            string(&block["name"]),
            block["input"].clone(),
        )),
        other => panic!("{other}"),
    }
}

fn anthropic_end(d: &mut Decoded, fields: &Value) {
    d.finish = format!(
        "{}:{}",
        string(&fields["stop_reason"]),
        string(&fields["stop_sequence"])
    );
    d.refusal = string(&fields["stop_details"]["explanation"]);
}

/// The figures that both `message_delta` and the complete body have.
fn anthropic_usage(usage: &Value) -> Value {
    let fields = [
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
    ];
    fields.iter().map(|f| usage[*f].clone()).collect()
}

fn gemini_body(d: &mut Decoded, body: &Value) {
    let candidate = &body["candidates"][0];
    for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
        let text = part["text"].as_str().unwrap_or("");
        if part["thought"] == true {
            d.reasoning.push_str(text)
        } else {
            d.text.push_str(text)
        }
        d.signature
            .push_str(part["thoughtSignature"].as_str().unwrap_or(""));
        if let Some(call) = part.get("functionCall") {
            d.calls
                .push((string(&call["id"]), string(&call["name"]), call["args"].clone()));
        }
    }
    d.finish = string(&candidate["finishReason"]);
    d.refusal = string(&candidate["finishMessage"]);
    (d.usage, d.model, d.id) = (
        body["usageMetadata"].clone(),
        string(&body["modelVersion"]),
        string(&body["responseId"]),
    );
}

fn ollama_line(d: &mut Decoded, line: &Value) {
    let message = &line["message"];
    d.text
        .push_str(message["content"].as_str().or(line["response"].as_str()).unwrap());
    d.reasoning.push_str(
        message["thinking"]
            .as_str()
            .or(line["thinking"].as_str())
            .unwrap_or(""),
    );
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        assert_eq!(call["function"]["index"], json!(d.calls.len()));
        d.calls.push((
            string(&call["id"]),
            string(&call["function"]["name"]),
            call["function"]["arguments"].clone(),
        ));
    }
    d.model = string(&line["model"]);
    if line["done"] == true {
        d.finish = string(&line["done_reason"]);
        d.usage = ["prompt_eval_count", "eval_count", "total_duration"]
            .iter()
            .map(|f| line[*f].clone())
            .collect();
    }
}

pub(crate) fn string(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}
