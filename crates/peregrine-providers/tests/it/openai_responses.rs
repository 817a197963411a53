//! Responses: reading answers, whole and streamed.

use peregrine_core::{
    ChatRequest, ChatResponse, ErrorKind, Finish, Fold, Message, OpaquePart, Part, ProviderData,
    ReasoningPart, TextPart, ToolCall, Usage,
};
use peregrine_providers::wire::openai_responses::{OpenAiResponses, ResponsesCompat};
use serde_json::{Value, json};

use crate::peer::{Peer, error_of};
use crate::recordings;

fn peer() -> Peer<OpenAiResponses> {
    Peer::new(OpenAiResponses::default(), "openai")
}

fn own(value: Value) -> Option<ProviderData> {
    Some(ProviderData::new("openai-responses", value))
}

/// A whole body of these items.
fn body(output: &Value, status: &str, reason: &Value) -> Value {
    json!({"id": "resp_1", "object": "response", "model": "m-1", "created_at": 7, "status": status, "error": null,
        "incomplete_details": reason, "output": output, "service_tier": "default", "usage": {
            "input_tokens": 5, "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
            "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 8}})
}

/// The frames of the same answer: the start, these events, the end.
fn frames(events: &[Value], whole: &Value) -> Vec<String> {
    let start =
        json!({"type": "response.created", "response": {"id": "resp_1", "model": "m-1", "output": []}});
    let end = json!({"type": format!("response.{}", whole["status"].as_str().unwrap_or_default()), "response": whole});
    let all = std::iter::once(start).chain(events.iter().cloned()).chain([end]);
    all.map(|event| event.to_string()).collect()
}

/// The events of an item that comes in pieces.
fn pieces(index: u64, item: &Value, deltas: Vec<Value>) -> Vec<Value> {
    let mut begun = item.clone();
    for (name, empty) in [
        ("content", json!([])),
        ("summary", json!([])),
        ("arguments", json!("")),
    ] {
        if let Some(value) = begun.get_mut(name) {
            *value = empty;
        }
    }
    let mut events =
        vec![json!({"type": "response.output_item.added", "output_index": index, "item": begun})];
    for mut delta in deltas {
        delta["output_index"] = index.into();
        delta["obfuscation"] = "x".into();
        events.push(delta);
    }
    events.push(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
    events
}

/// Reads an answer in both modes and checks that they agree.
fn both(items: &[Value], events: &[Value], status: &str, reason: &Value) -> ChatResponse {
    let whole_body = body(&json!(items), status, reason);
    let whole = peer().whole(&whole_body.to_string()).expect("a sound answer");
    let frames = frames(events, &whole_body);
    let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
    let streamed = peer().streamed(&frames).expect("a sound stream");
    assert_eq!(whole, streamed);
    let expected = Usage {
        cached_input_tokens: 2,
        cache_write_tokens: 1,
        reasoning_tokens: 1,
        ..Usage::new(5, 3)
    };
    assert_eq!(whole.usage, Some(expected));
    assert_eq!(
        (whole.id.as_deref(), whole.model.as_str()),
        (Some("resp_1"), "m-1")
    );
    whole
}

#[test]
fn every_recorded_exchange_reads_as_an_independent_decoder_read_it() {
    recordings::check("openai-responses", |_| Box::new(OpenAiResponses::default()));
}

#[test]
fn recorded_streams_fold_to_the_response_in_their_last_event() {
    for exchange in recordings::exchanges("openai-responses")
        .into_iter()
        .flatten()
        .filter(|it| it.is_stream())
    {
        let streamed =
            recordings::decode(&OpenAiResponses::default(), exchange, &[]).expect("a sound stream");
        let mut lines = exchange.body.lines().rev();
        let end = lines.find_map(|line| line.strip_prefix("data: ").filter(|data| data.starts_with('{')));
        let event: Value = serde_json::from_str(end.expect("a last event")).unwrap();
        let mut whole = peer()
            .whole(&event["response"].to_string())
            .expect("a sound response");
        if exchange.provider == "openrouter" {
            // It makes up the ids of items anew for the last event.
            let texts = |message: &Message| (message.text(), message.reasoning());
            assert_eq!(
                texts(&streamed.message),
                texts(&whole.message),
                "{}",
                exchange.name
            );
            whole.message = streamed.message.clone();
        }
        // Items that never came in the stream are taken from its end, and stand at the end; what is encrypted
        // is encrypted anew each time it is sent.
        let sorted = |message: &Message| {
            let plain = |part: &Part| {
                let mut part = json!(part);
                if let Some(encrypted) = part.pointer_mut("/data/value/encrypted_content") {
                    encrypted.take();
                }
                part.to_string()
            };
            let mut parts: Vec<String> = message.parts.iter().map(plain).collect();
            parts.sort();
            parts
        };
        assert_eq!(
            sorted(&streamed.message),
            sorted(&whole.message),
            "{}",
            exchange.name
        );
        whole.message = streamed.message.clone();
        assert_eq!(streamed, whole, "{}", exchange.name);
    }
}

#[test]
fn broken_bytes_never_panic() {
    let sound = body(
        &json!([{"type": "message", "content": [{"type": "output_text", "text": "a"}]}]),
        "completed",
        &Value::Null,
    );
    peer().survive(&sound.to_string(), false, 1);
    for (seed, exchange) in recordings::exchanges("openai-responses")
        .into_iter()
        .flatten()
        .enumerate()
        .step_by(5)
    {
        peer().survive(&exchange.body, exchange.is_stream(), seed as u64);
    }
}

#[test]
fn whole_and_streamed_answers_are_the_same() {
    let text_delta =
        |text: &str| json!({"type": "response.output_text.delta", "content_index": 0, "delta": text});
    let message = json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
        "phase": "final_answer", "content": [{"type": "output_text", "text": "Hello", "annotations": []}]});
    let events = pieces(0, &message, vec![text_delta("Hel"), text_delta("lo")]);
    let text = both(std::slice::from_ref(&message), &events, "completed", &Value::Null);
    let data = own(json!({"id": "msg_1", "phase": "final_answer"}));
    assert_eq!(
        text.message.parts,
        [Part::Text(TextPart {
            text: "Hello".to_owned(),
            data
        })]
    );
    assert_eq!(
        (text.finish, json!(text.metadata)),
        (Finish::Stop, json!({"created_at": 7, "service_tier": "default"}))
    );

    let summary = |index: u64, text: &str| json!({"type": "response.reasoning_summary_text.delta", "summary_index": index, "delta": text});
    let reasoning = json!({"type": "reasoning", "id": "rs_1", "encrypted_content": "x",
        "summary": [{"type": "summary_text", "text": "ab"}, {"type": "summary_text", "text": "c"}]});
    let mut events = pieces(
        0,
        &reasoning,
        vec![summary(0, "a"), summary(0, "b"), summary(1, "c")],
    );
    events.extend(pieces(1, &message, vec![text_delta("Hello")]));
    let reasoned = both(
        &[reasoning.clone(), message.clone()],
        &events,
        "completed",
        &Value::Null,
    );
    let expected = ReasoningPart {
        text: "ab\n\nc".to_owned(),
        data: own(reasoning),
    };
    assert_eq!(reasoned.message.parts[0], Part::Reasoning(expected));

    let call = |n: u64, arguments: &str| {
        json!({"type": "function_call", "id": format!("fc_{n}"), "call_id": format!("call_{n}"),
        "name": "f", "arguments": arguments, "status": "completed", "namespace": null})
    };
    let argument = |text: &str| json!({"type": "response.function_call_arguments.delta", "delta": text});
    let mut events = pieces(
        0,
        &call(0, "{\"x\":1}"),
        vec![argument("{\"x\""), argument(":1}")],
    );
    events.extend(pieces(1, &call(1, ""), vec![]));
    let calls = both(
        &[call(0, "{\"x\":1}"), call(1, "")],
        &events,
        "completed",
        &Value::Null,
    );
    let mut expected = [
        ToolCall::new("call_0", "f", r#"{"x":1}"#),
        ToolCall::new("call_1", "f", "{}"),
    ];
    expected[0].data = own(json!({"id": "fc_0"}));
    expected[1].data = own(json!({"id": "fc_1"}));
    assert_eq!(
        (calls.tool_calls().cloned().collect::<Vec<_>>(), calls.finish),
        (expected.to_vec(), Finish::ToolCalls)
    );

    let refused =
        json!({"type": "message", "id": "msg_1", "content": [{"type": "refusal", "refusal": "I can't"}]});
    let refusal = |text: &str| json!({"type": "response.refusal.delta", "content_index": 0, "delta": text});
    let events = pieces(0, &refused, vec![refusal("I "), refusal("can't")]);
    let refused = both(&[refused], &events, "completed", &Value::Null);
    assert_eq!(
        refused.message.parts,
        [Part::Refusal(TextPart {
            text: "I can't".to_owned(),
            data: None
        })]
    );

    for (reason, finish) in [
        ("max_output_tokens", Finish::Length),
        ("content_filter", Finish::ContentFilter),
        ("steered", Finish::Other("steered".to_owned())),
    ] {
        let cut = both(
            std::slice::from_ref(&message),
            &events_of(&message),
            "incomplete",
            &json!({"reason": reason}),
        );
        assert_eq!(
            (cut.finish, cut.metadata["incomplete_reason"].as_str()),
            (finish, Some(reason))
        );
    }
    let structured = json!({"type": "message", "content": [{"type": "output_text", "text": "{\"a\":1}"}]});
    let answer = both(
        std::slice::from_ref(&structured),
        &events_of(&structured),
        "completed",
        &Value::Null,
    );
    assert_eq!(answer.message.parts, [Part::text("{\"a\":1}")]);
}

/// An item that comes whole.
fn events_of(item: &Value) -> Vec<Value> {
    pieces(0, item, Vec::new())
}

#[test]
fn several_texts_other_items_and_shown_reasoning() {
    let text = |index: u64, text: &str| json!({"type": "response.output_text.delta", "content_index": index, "delta": text});
    let output = |text: &str| json!({"type": "output_text", "text": text});
    let message = json!({"type": "message", "id": "msg_1", "content": [output("a"), output("b")]});
    let search = json!({"type": "web_search_call", "id": "ws_1", "action": {"query": "q"}});
    let reasoning = json!({"type": "reasoning", "id": "rs_1", "summary": [{"text": "short"}],
        "content": [{"type": "reasoning_text", "text": "long"}]});
    let delta = json!({"type": "response.reasoning_text.delta", "content_index": 0, "delta": "long"});
    let late_summary =
        json!({"type": "response.reasoning_summary_text.delta", "summary_index": 0, "delta": "short"});
    let mut events = pieces(0, &reasoning, vec![delta, late_summary]);
    events.extend(events_of(&search).into_iter().map(|mut event| {
        event["output_index"] = 1.into();
        event
    }));
    events.extend(pieces(2, &message, vec![text(0, "a"), text(1, "b")]));
    let answer = both(
        &[reasoning.clone(), search.clone(), message],
        &events,
        "completed",
        &Value::Null,
    );
    let said = |text: &str| {
        Part::Text(TextPart {
            text: text.to_owned(),
            data: own(json!({"id": "msg_1"})),
        })
    };
    let opaque = OpaquePart {
        dialect: "openai-responses".to_owned(),
        kind: "web_search_call".to_owned(),
        value: search,
    };
    let thought = ReasoningPart {
        text: "long".to_owned(),
        data: own(reasoning),
    };
    assert_eq!(
        answer.message.parts,
        [
            Part::Reasoning(thought),
            Part::Opaque(opaque),
            said("a"),
            said("b")
        ]
    );
}

#[test]
fn streams_without_indices_ids_pieces_or_ends() {
    let call = |n: u64| json!({"type": "function_call", "call_id": format!("call_{n}"), "name": "f", "arguments": "{}"});
    let added = |item: &Value| json!({"type": "response.output_item.added", "item": item}).to_string();
    let delta =
        |text: &str| json!({"type": "response.function_call_arguments.delta", "delta": text}).to_string();
    let done = |item: &Value| json!({"type": "response.output_item.done", "item": item}).to_string();
    let end =
        |output: Value| json!({"type": "response.completed", "response": {"output": output}}).to_string();
    let begun = |n: u64| json!({"type": "function_call", "call_id": format!("call_{n}"), "name": "f"});
    let read = |frames: &[String]| {
        let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
        let answer = peer().streamed(&frames).expect("a sound stream");
        let calls = answer
            .tool_calls()
            .map(|call| format!("{} {}", call.id, call.arguments))
            .collect::<Vec<_>>();
        (calls, answer.message.text())
    };
    let two = ["call_0 {}".to_owned(), "call_1 {}".to_owned()];
    let output = json!([call(0), call(1)]);
    let in_turn = [
        added(&begun(0)),
        delta("{}"),
        done(&call(0)),
        added(&begun(1)),
        delta("{}"),
        done(&call(1)),
        end(output.clone()),
    ];
    assert_eq!(read(&in_turn).0, two);
    let never_done = [
        added(&begun(0)),
        delta("{}"),
        added(&begun(1)),
        delta("{}"),
        end(json!([])),
    ];
    assert_eq!(read(&never_done).0, two);
    assert_eq!(
        read(&[done(&call(0)), end(output.clone())]).0,
        two,
        "the end tells of the other"
    );
    assert_eq!(read(&[end(output)]).0, two);
    let renamed =
        |id: &str| json!({"type": "message", "id": id, "content": [{"type": "output_text", "text": "a"}]});
    assert_eq!(
        read(&[done(&renamed("x")), end(json!([renamed("y")]))]).1,
        "a",
        "not twice"
    );
    let spoken = json!({"type": "response.output_text.delta", "delta": "a"}).to_string();
    assert_eq!(read(&[spoken, end(json!([renamed("y")]))]).1, "a");
}

#[test]
fn errors_and_states() {
    let whole = |body: Value| peer().whole(&body.to_string());
    for body in [
        json!({}),
        json!({"output": null}),
        json!([]),
        json!({"output": 7}),
        json!("x"),
    ] {
        let error = error_of(whole(body));
        assert!(
            error.kind() == ErrorKind::Protocol && error.raw().is_some(),
            "{error}"
        );
    }
    let quota = json!({"error": {"code": "insufficient_quota", "message": "m"}});
    assert_eq!(error_of(whole(quota.clone())).kind(), ErrorKind::QuotaExceeded);
    let failed = json!({"status": "failed", "output": [], "error": {"code": "server_error", "message": "m"}});
    let error = error_of(whole(failed.clone()));
    assert_eq!(
        (error.kind(), error.is_retryable(), error.status()),
        (ErrorKind::Server, true, Some(200))
    );
    let silent = error_of(whole(
        json!({"status": "failed", "instructions": "my secret", "error": null}),
    ));
    assert!(
        silent.kind() == ErrorKind::Server && !silent.to_string().contains("secret"),
        "{silent}"
    );
    let queued = whole(json!({"id": "resp_1", "status": "queued", "output": [], "usage": null}))
        .expect("an answer to come");
    assert_eq!(
        (queued.finish, queued.usage),
        (Finish::Other("queued".to_owned()), None)
    );
    let odd = whole(
        json!({"output": [7, null, {"type": "message", "content": "text"}, {"type": "message", "content": null},
        {"type": "function_call", "name": "f", "arguments": {"x": 1}}]}),
    );
    let odd = odd.expect("readable");
    assert_eq!(
        (odd.message.text().as_str(), odd.finish),
        ("text", Finish::ToolCalls)
    );
    assert_eq!(
        odd.message
            .tool_calls()
            .map(|call| (call.id.as_str(), call.arguments.as_str()))
            .collect::<Vec<_>>(),
        [("call_0", "{\"x\":1}")]
    );

    let stream = |frames: &[Value]| {
        let frames: Vec<String> = frames.iter().map(Value::to_string).collect();
        peer().streamed(&frames.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let delta = json!({"type": "response.output_text.delta", "delta": "a"});
    let kind = |frames: &[Value]| error_of(stream(frames)).kind();
    assert_eq!(
        kind(&[
            delta.clone(),
            json!({"type": "response.failed", "response": failed})
        ]),
        ErrorKind::Server
    );
    let flat = json!({"type": "error", "code": "rate_limit_exceeded", "message": "m", "sequence_number": 3});
    assert_eq!(kind(&[delta.clone(), flat]), ErrorKind::RateLimited);
    assert_eq!(kind(&[delta.clone(), quota]), ErrorKind::QuotaExceeded);
    assert_eq!(kind(std::slice::from_ref(&delta)), ErrorKind::Truncated);
    assert_eq!(
        kind(&[delta.clone(), json!({"type": "response.completed"})]),
        ErrorKind::Truncated
    );
    assert_eq!(kind(&[json!("x")]), ErrorKind::Protocol);
    let text = peer().streamed(&["[DONE]"]);
    assert_eq!(
        error_of(text).kind(),
        ErrorKind::Truncated,
        "this dialect's end is another"
    );
    let news = json!({"type": "response.news", "item": 7, "delta": {"x": 1}});
    let end = json!({"type": "response.completed", "response": {"output": []}});
    assert_eq!(
        stream(&[news, delta, end, json!("ignored")])
            .expect("a sound stream")
            .message
            .text(),
        "a"
    );
}

#[test]
fn an_answer_goes_back_as_it_came() {
    let output = json!([
        {"type": "reasoning", "id": "rs_1", "encrypted_content": "x", "summary": []},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "phase": "commentary",
            "content": [{"type": "output_text", "text": "a", "annotations": []}]},
        {"type": "tool_search_call", "id": "t", "execution": "server", "arguments": {"b": 1, "a": 2}},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "id": "fc_1", "namespace": "n"}]);
    let answer = peer()
        .whole(&body(&output, "completed", &Value::Null).to_string())
        .unwrap();
    let stored: Message = serde_json::from_value(json!(answer.message)).unwrap();
    let plain = Peer::new(OpenAiResponses::new(ResponsesCompat::plain()), "openai");
    assert_eq!(
        plain.body(&ChatRequest::new([stored])),
        format!(r#"{{"model":"m","input":{output}}}"#)
    );
    let mut fold = Fold::new();
    for event in answer.clone().into_events() {
        fold.push(event).unwrap();
    }
    assert_eq!(fold.finish().unwrap(), answer);
}
