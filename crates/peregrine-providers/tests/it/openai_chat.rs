//! Chat Completions: reading answers, whole and streamed, of sound and of odd servers.

use peregrine_core::{
    ChatResponse, ErrorKind, Finish, MediaPart, OpaquePart, Part, ProviderData, ReasoningPart, TextPart,
    ToolCall, Usage,
};
use peregrine_providers::wire::openai_chat::{ChatCompat, OpenAiChat};
use serde_json::{Value, json};

use crate::peer::{Peer, error_of};
use crate::recordings;

fn peer() -> Peer<OpenAiChat> {
    Peer::new(OpenAiChat::default(), "openai")
}

fn own(value: Value) -> Option<ProviderData> {
    Some(ProviderData::new("openai-chat", value))
}

fn thought(text: &str, data: Value) -> Part {
    Part::Reasoning(ReasoningPart {
        text: text.to_owned(),
        data: own(data),
    })
}

/// A whole body of one message.
fn body(message: &Value, finish: &str) -> String {
    json!({"id": "c1", "model": "m-1", "created": 7, "object": "chat.completion", "service_tier": "default",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 1}}})
    .to_string()
}

/// The frames of the same answer: these deltas, the end, the usage.
fn frames(deltas: &[Value], finish: &str) -> Vec<String> {
    let chunk = |choices: Value, usage: Value| {
        json!({"id": "c1", "model": "m-1", "created": 7, "object": "chat.completion.chunk",
            "service_tier": "default", "choices": choices, "usage": usage, "obfuscation": "x"})
        .to_string()
    };
    let mut frames = vec![chunk(
        json!([{"index": 0, "delta": {"role": "assistant", "content": null}}]),
        Value::Null,
    )];
    for delta in deltas {
        let choices = json!([{"index": 0, "delta": delta, "finish_reason": null}]);
        frames.push(chunk(choices, Value::Null));
    }
    frames.push(chunk(
        json!([{"index": 0, "delta": {}, "finish_reason": finish}]),
        Value::Null,
    ));
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 1}});
    frames.push(chunk(json!([]), usage));
    frames.push("[DONE]".to_owned());
    frames
}

/// Reads an answer in both modes and checks that they agree.
fn both(message: &Value, deltas: &[Value], finish: &str) -> ChatResponse {
    let whole = peer().whole(&body(message, finish)).expect("a sound answer");
    let frames = frames(deltas, finish);
    let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
    let streamed = peer().streamed(&frames).expect("a sound stream");
    assert_eq!(whole, streamed);
    let Usage {
        input_tokens,
        cached_input_tokens,
        output_tokens,
        reasoning_tokens,
        ..
    } = whole.usage.expect("usage was sent");
    assert_eq!(
        (input_tokens, cached_input_tokens, output_tokens, reasoning_tokens),
        (5, 2, 3, 1)
    );
    assert_eq!((whole.id.as_deref(), whole.model.as_str()), (Some("c1"), "m-1"));
    assert_eq!(json!(whole.metadata), json!({"service_tier": "default"}));
    whole
}

#[test]
fn every_recorded_exchange_reads_as_an_independent_decoder_read_it() {
    recordings::check("openai-chat", |exchange| {
        let compat =
            ChatCompat::of_provider(&exchange.provider).expect("a preset for every recorded provider");
        Box::new(OpenAiChat::new(compat))
    });
}

#[test]
fn broken_bytes_never_panic() {
    let sound = body(
        &json!({"content": "a", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}),
        "stop",
    );
    peer().survive(&sound, false, 1);
    for (seed, exchange) in recordings::exchanges("openai-chat")
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
    let text = both(
        &json!({"content": "Hello"}),
        &[json!({"content": "Hel"}), json!({"content": "lo"})],
        "stop",
    );
    assert_eq!(
        (text.message.parts, text.finish),
        (vec![Part::text("Hello")], Finish::Stop)
    );

    let message = json!({"content": "4", "reasoning_content": "2+2"});
    let deltas = [
        json!({"reasoning_content": "2+"}),
        json!({"reasoning_content": "2"}),
        json!({"content": "4"}),
    ];
    let reasoned = both(&message, &deltas, "stop");
    assert_eq!(
        reasoned.message.parts,
        [thought("2+2", json!({})), Part::text("4")]
    );

    let message = json!({"content": null, "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}]});
    let deltas = [
        json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}),
        json!({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": ""}}]}),
        json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"x\""}}]}),
        json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
    ];
    let calls = both(&message, &deltas, "tool_calls");
    let expected = [
        ToolCall::new("a", "f", r#"{"x":1}"#),
        ToolCall::new("b", "g", "{}"),
    ];
    assert_eq!(
        (calls.tool_calls().cloned().collect::<Vec<_>>(), calls.finish),
        (expected.to_vec(), Finish::ToolCalls)
    );

    let deltas = [json!({"refusal": "I "}), json!({"refusal": "can't"})];
    let refused = both(&json!({"content": null, "refusal": "I can't"}), &deltas, "stop");
    let refusal = TextPart {
        text: "I can't".to_owned(),
        data: None,
    };
    assert_eq!(refused.message.parts, [Part::Refusal(refusal)]);

    let cut = both(
        &json!({"content": "Once"}),
        &[json!({"content": "Once"})],
        "length",
    );
    assert_eq!(cut.finish, Finish::Length);
    let deltas = [json!({"content": "{\"a\":"}), json!({"content": "1}"})];
    let structured = both(&json!({"content": "{\"a\":1}"}), &deltas, "stop");
    assert_eq!(structured.message.text(), r#"{"a":1}"#);
}

#[test]
fn pieces_with_a_form_of_their_own() {
    // OpenRouter: details in pieces, merged by type and index.
    let details = json!([{"type": "reasoning.text", "text": "ab", "signature": "s", "index": 0},
        {"type": "reasoning.encrypted", "data": "xyz", "index": 0},
        {"type": "reasoning.encrypted", "data": "uvw", "index": 0}]);
    let message = json!({"content": "4", "reasoning": "ab", "reasoning_details": details});
    let deltas = [
        json!({"reasoning": "a", "reasoning_details": [{"type": "reasoning.text", "text": "a", "signature": null, "index": 0}]}),
        json!({"reasoning": "b", "reasoning_details": [{"type": "reasoning.text", "text": "b", "index": 0}]}),
        json!({"reasoning": null, "reasoning_details": [{"type": "reasoning.text", "signature": "s", "index": 0}]}),
        json!({"reasoning_details": [{"type": "reasoning.text", "signature": null, "text": "", "index": 0}]}),
        json!({"reasoning_details": [{"type": "reasoning.encrypted", "data": "xyz", "index": 0},
            {"type": "reasoning.encrypted", "data": "uvw", "index": 0}]}),
        json!({"content": "4", "reasoning_details": []}),
    ];
    let answer = both(&message, &deltas, "stop");
    assert_eq!(
        answer.message.parts,
        [
            thought("ab", json!({"reasoning_details": details})),
            Part::text("4")
        ]
    );

    // Mistral: thinking among the content, and a kind of piece that nobody knows.
    let thinking = |text: &str| json!({"type": "thinking", "thinking": [{"type": "text", "text": text}]});
    let reference = json!({"type": "reference", "reference_ids": [1]});
    let message = json!({"content": [thinking("ab"), {"type": "text", "text": "4"}, reference]});
    let deltas = [
        json!({"content": [thinking("a")]}),
        json!({"content": [thinking("b")]}),
        json!({"content": "4"}),
        json!({"content": [reference]}),
    ];
    let answer = both(&message, &deltas, "stop");
    let opaque = |kind: &str, value: &Value| {
        Part::Opaque(OpaquePart {
            dialect: "openai-chat".to_owned(),
            kind: kind.to_owned(),
            value: value.clone(),
        })
    };
    let parts = [
        thought("ab", json!({})),
        Part::text("4"),
        opaque("reference", &reference),
    ];
    assert_eq!(answer.message.parts, parts);

    // Gemini: thought signatures, an empty id; OpenRouter: images; OpenAI: audio in pieces, custom tools.
    let signed = json!({"google": {"thought_signature": "s"}});
    let message = json!({"extra_content": signed, "tool_calls": [
        {"id": "", "function": {"name": "f", "arguments": "{}"}, "extra_content": signed}]});
    let answer = both(&message, std::slice::from_ref(&message), "stop");
    let mut call = ToolCall::new("call_c1_0", "f", "{}");
    call.data = own(json!({"extra_content": signed}));
    assert_eq!(
        answer.message.parts,
        [Part::ToolCall(call), opaque("extra_content", &signed)]
    );
    assert_eq!(
        answer.finish,
        Finish::ToolCalls,
        "a call decides, whatever the word"
    );

    let message = json!({"content": "", "images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AQ=="}}],
        "audio": {"id": "a1", "data": "AQID", "transcript": "ab", "expires_at": 9}});
    let deltas = [
        json!({"images": message["images"], "audio": {"id": "a1", "data": "AQ=="}}),
        json!({"audio": {"data": "AgM=", "transcript": "a"}}),
        json!({"audio": {"transcript": "b", "expires_at": 9}}),
    ];
    let answer = both(&message, &deltas, "stop");
    let image = Part::Image(MediaPart::bytes("image/png", vec![1]));
    let mut audio = opaque("audio", &message["audio"]);
    if let (Part::Opaque(found), Part::Opaque(expected)) = (&answer.message.parts[1], &mut audio) {
        assert_eq!(found.value, expected.value);
    }
    assert_eq!(answer.message.parts, [image, audio]);

    let message = json!({"tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}]});
    let answer = both(&message, std::slice::from_ref(&message), "tool_calls");
    let mut call = ToolCall::new("a", "sql", "select 1");
    call.data = own(json!({"type": "custom"}));
    assert_eq!(answer.message.parts, [Part::ToolCall(call)]);
}

#[test]
fn calls_without_index_or_id_or_with_the_same_index() {
    let names = |deltas: &[Value]| {
        let frames = frames(deltas, "stop");
        let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
        let answer = peer().streamed(&frames).expect("a sound stream");
        assert_eq!(answer.finish, Finish::ToolCalls);
        let calls = answer
            .tool_calls()
            .map(|call| format!("{} {} {}", call.id, call.name, call.arguments));
        calls.collect::<Vec<_>>()
    };
    let piece = |call: Value| json!({"tool_calls": [call]});
    let same_index = [
        piece(json!({"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}})),
        piece(json!({"index": 0, "id": "b", "function": {"name": "f", "arguments": "{\"x\":"}})),
        piece(json!({"index": 0, "function": {"arguments": "1}"}})),
    ];
    assert_eq!(names(&same_index), ["a f {}", "b f {\"x\":1}"]);
    let no_index = [
        piece(json!({"id": "a", "function": {"name": "f", "arguments": {"x": [1, 2]}}})),
        piece(json!({"id": "b", "function": {"name": "g", "arguments": "{"}})),
        piece(json!({"id": "b", "function": {"arguments": "}"}})),
    ];
    assert_eq!(names(&no_index), ["a f {\"x\":[1,2]}", "b g {}"]);
    let nothing = [
        piece(json!({"function": {"name": "f", "arguments": "{"}})),
        piece(json!({"function": {"arguments": "}"}})),
        piece(json!({"index": null, "id": null, "function": {"name": "f"}})),
    ];
    assert_eq!(names(&nothing), ["call_c1_0 f {}", "call_c1_1 f {}"]);
    let old = [
        json!({"function_call": {"name": "f", "arguments": "{"}}),
        json!({"function_call": {"arguments": "}"}}),
    ];
    assert_eq!(names(&old), ["call_c1_0 f {}"]);
    let late_name = [
        piece(json!({"index": 0, "id": "a"})),
        piece(json!({"index": 0, "function": {"name": "f", "arguments": "{}"}})),
    ];
    assert_eq!(names(&late_name), ["a f {}"]);
}

#[test]
fn odd_answers_are_read_and_others_choices_left_alone() {
    let read = |body: &str| peer().whole(body).expect("readable");
    let empty = read(r#"{"choices": [], "usage": null, "news": {"x": [1]}}"#);
    assert_eq!((empty.message.parts, empty.usage), (Vec::new(), None));
    assert_eq!(
        empty.finish,
        Finish::Other("unspecified".to_owned()),
        "no reason is no success"
    );
    let two = read(
        r#"{"choices": [{"index": 1, "message": {"content": "b"}}, {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}"#,
    );
    assert_eq!(two.message.text(), "a");
    assert!(
        two.raw
            .is_some_and(|raw| raw.body().windows(3).any(|bytes| bytes == b"\"b\"")),
        "the rest is not lost"
    );
    let odd = read(
        r#"{"id": 7, "model": null, "choices": [{"message": {"content": {"no": "text"}, "tool_calls": null, "refusal": false}, "finish_reason": "eos"}], "usage": {"prompt_tokens": "5", "completion_tokens": null}}"#,
    );
    assert_eq!(
        (odd.id.as_deref(), odd.usage, odd.finish),
        (Some("7"), Some(Usage::new(5, 0)), Finish::Stop)
    );
    let finish = |word: &str| read(&body(&json!({"content": "a"}), word)).finish;
    assert_eq!(finish("content_filter"), Finish::ContentFilter);
    assert_eq!(finish("model_length"), Finish::Length);
    assert_eq!(finish("tool_calls"), Finish::Stop, "there is no call to answer");
    assert_eq!(
        finish("insufficient_system_resource"),
        Finish::Other("insufficient_system_resource".to_owned())
    );
}

#[test]
fn usage_and_times_of_every_kind() {
    let read = |more: Value| {
        let mut body = json!({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        peer().whole(&body.to_string()).expect("readable")
    };
    let deepseek =
        read(json!({"usage": {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 8}}));
    assert_eq!(deepseek.usage.map(|usage| usage.cached_input_tokens), Some(8));
    let xai = read(
        json!({"usage": {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135,
        "completion_tokens_details": {"reasoning_tokens": 94}}}),
    );
    assert_eq!(
        xai.usage
            .map(|usage| (usage.output_tokens, usage.reasoning_tokens)),
        Some((103, 94))
    );
    assert!(xai.metadata.is_empty());
    let gemini = read(json!({"usage": {"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109}}));
    assert_eq!(
        json!(gemini.metadata),
        json!({"total_tokens": 109}),
        "what is hidden shows"
    );
    let openrouter = read(
        json!({"provider": "Google", "usage": {"prompt_tokens": 1, "cost": 0.5,
        "prompt_tokens_details": {"cache_write_tokens": 4}}}),
    );
    assert_eq!(openrouter.usage.map(|usage| usage.cache_write_tokens), Some(4));
    assert_eq!(
        json!(openrouter.metadata),
        json!({"cost": 0.5, "provider": "Google"})
    );
    let millis = |timings: Option<peregrine_core::Timings>| {
        let timings = timings.expect("times");
        [timings.total, timings.prompt, timings.generation].map(|time| time.map(|time| time.as_millis()))
    };
    let groq = json!({"total_time": 0.5, "prompt_time": 0.25, "completion_time": 0.125});
    assert_eq!(
        millis(read(json!({"usage": groq})).timings),
        [Some(500), Some(250), Some(125)]
    );
    assert_eq!(
        millis(read(json!({"time_info": groq})).timings),
        [Some(500), Some(250), Some(125)]
    );
    let llama = read(json!({"timings": {"prompt_ms": 3.0, "predicted_ms": -1.0}}));
    assert_eq!(
        millis(llama.timings),
        [None, Some(3), None],
        "a time that is none is left out"
    );
}

#[test]
fn errors_with_status_200_and_in_mid_stream() {
    for (body, kind, message) in [
        (
            r#"{"error":{"message":"m","code":429}}"#,
            ErrorKind::RateLimited,
            "m",
        ),
        (
            r#"{"object":"error","message":"m","type":"BadRequestError","code":400}"#,
            ErrorKind::InvalidRequest,
            "m",
        ),
        (
            r#"{"choices":[{"finish_reason":"error","message":{"content":"a"},"error":{"code":502,"message":"m"}}]}"#,
            ErrorKind::Server,
            "m",
        ),
    ] {
        let error = error_of(peer().whole(body));
        assert_eq!((error.kind(), error.status()), (kind, Some(200)), "{error}");
        assert!(
            error.to_string().ends_with(message) && error.raw().is_some(),
            "{error}"
        );
    }
    for body in [
        "",
        "<html>",
        "[]",
        "{}",
        r#"{"choices":null}"#,
        r#"{"choices":7}"#,
        "\u{0}",
    ] {
        let error = error_of(peer().whole(body));
        assert_eq!(error.kind(), ErrorKind::Protocol, "{body}: {error}");
        assert!(error.raw().is_some());
    }
    let told = error_of(peer().whole(r#"{"choices":[{"message":{"tool_calls":"my secret"}}]}"#));
    assert!(!told.to_string().contains("secret"), "{told}");

    let delta = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
    let stopped = r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#;
    let failed = r#"{"error":{"message":"m","code":"rate_limit_exceeded"}}"#;
    let beside =
        r#"{"choices":[{"delta":{"content":""},"finish_reason":null}],"error":{"code":400,"message":"m"}}"#;
    let kind = |frames: &[&str]| error_of(peer().streamed(frames)).kind();
    assert_eq!(kind(&[delta, failed, "[DONE]"]), ErrorKind::RateLimited);
    assert_eq!(kind(&[delta, beside, "[DONE]"]), ErrorKind::InvalidRequest);
    assert_eq!(kind(&[delta, "nonsense", "[DONE]"]), ErrorKind::Protocol);
    assert_eq!(kind(&["[DONE]"]), ErrorKind::Protocol, "an end is no answer");
    assert_eq!(kind(&[delta]), ErrorKind::Truncated);
    assert_eq!(kind(&[delta, stopped]), ErrorKind::Truncated);
    let mut events = peregrine_providers::wire::Events::new();
    let named = peer().read_stream(b"event: error\ndata: overloaded\n\n", &mut events);
    assert_eq!(error_of(named).kind(), ErrorKind::Server);
    let answered = peer()
        .streamed(&[delta, stopped, beside, "[DONE]", "nonsense"])
        .expect("it had its finish");
    assert_eq!(answered.finish, Finish::Length);
    assert_eq!(answered.metadata["error"]["message"], "m");
}

#[test]
fn an_answer_goes_back_as_it_came() {
    let message = json!({"content": "4", "reasoning": "Hm.", "tool_calls": [
        {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]});
    let answer = peer().whole(&body(&message, "tool_calls")).unwrap();
    let stored: peregrine_core::Message = serde_json::from_value(json!(answer.message)).unwrap();
    let again = Peer::new(OpenAiChat::new(ChatCompat::vllm()), "vllm")
        .body(&peregrine_core::ChatRequest::new([stored]));
    let again: Value = serde_json::from_str(&again).unwrap();
    let mut expected = message;
    expected["role"] = "assistant".into();
    assert_eq!(again["messages"][0], expected);
}

#[test]
fn a_stream_that_is_ended_in_good_order_without_a_reason_is_cut_off() {
    let cut = concat!(
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half an ans\"},\"finish_reason\":null}]}\n\n",
        "data: [DONE]\n\n"
    );
    let error = crate::support::stream(&OpenAiChat::default(), cut.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
}
