//! The exact bytes of requests to Ollama's `/api/chat`.

use peregrine_core::{
    Capabilities, ChatRequest, DocumentPart, Effort, ErrorKind, JsonSchema, MediaPart, MediaSource, Message,
    OpaquePart, Part, PromptCache, ProviderData, ReasoningConfig, ReasoningPart, ResponseFormat, Result,
    Role, Sampling, Scope, TextPart, ToolCall, ToolChoice, ToolResult, ToolSpec,
};
use peregrine_providers::wire::ollama::{KeepAlive, Ollama};
use peregrine_providers::wire::{ChatCodec, EncodedPrefix, Framing, Mode, Target};
use serde_json::json;

fn encode_with(codec: &Ollama, request: &ChatRequest, mode: Mode) -> Result<(String, Option<EncodedPrefix>)> {
    let capabilities = Capabilities::default();
    let target = Target {
        provider: "ollama",
        model: "m",
        capabilities: &capabilities,
    };
    let mut out = Vec::new();
    let prefix = codec.encode(&target, request, mode, &mut out)?;
    let text = String::from_utf8(out).expect("the body is UTF-8");
    assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
    Ok((text, prefix))
}

fn body(request: &ChatRequest) -> String {
    encode_with(&Ollama::new(), request, Mode::Complete)
        .expect("it can be said")
        .0
}

/// The messages of a body, without their brackets.
fn messages(request: &ChatRequest) -> String {
    let body = body(request);
    let (_, messages) = body.split_once("\"messages\":[").expect("messages");
    messages.strip_suffix("]}").expect("the end").to_owned()
}

fn refused(request: &ChatRequest) -> String {
    let error = encode_with(&Ollama::new(), request, Mode::Complete).expect_err("it cannot be said");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    let text = error.to_string();
    assert!(text.contains("ollama"), "{text}");
    text
}

fn weather() -> ToolSpec {
    ToolSpec::new(
        "get_weather",
        "The weather of a city",
        json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}),
    )
}

#[test]
fn the_dialect_and_the_least_body() {
    let codec = Ollama::new();
    let capabilities = Capabilities::default();
    let target = Target {
        provider: "ollama",
        model: "m",
        capabilities: &capabilities,
    };
    assert_eq!(codec.dialect(), "ollama");
    assert_eq!(codec.framing(), Framing::Ndjson);
    assert_eq!(codec.path(&target, Mode::Complete), "/api/chat");
    assert_eq!(codec.path(&target, Mode::Stream), "/api/chat");
    let request = ChatRequest::user("hi");
    assert_eq!(
        body(&request),
        r#"{"model":"m","stream":false,"messages":[{"role":"user","content":"hi"}]}"#
    );
    let (streamed, _) = encode_with(&codec, &request, Mode::Stream).unwrap();
    assert_eq!(
        streamed,
        r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#
    );
    assert_eq!(
        body(&ChatRequest::default()),
        r#"{"model":"m","stream":false,"messages":[]}"#,
        "no messages load the model"
    );
}

#[test]
fn every_field_in_its_place() {
    let sampling = Sampling {
        temperature: Some(0.5),
        top_p: Some(0.9),
        top_k: Some(40),
        max_tokens: Some(100),
        seed: Some(-7),
        stop: vec!["END".to_owned(), "\n".to_owned()],
        presence_penalty: Some(0.1),
        frequency_penalty: Some(-0.1),
    };
    let mut request = ChatRequest::new([Message::system("Be brief."), Message::user("Weather?")])
        .with_tools([weather(), ToolSpec::new("now", "", JsonSchema::empty_object())])
        .with_sampling(sampling)
        .with_reasoning(ReasoningConfig {
            effort: Some(Effort::High),
            visible: Some(true),
            ..ReasoningConfig::default()
        })
        .with_response_format(ResponseFormat::Json)
        .with_provider_option("ollama", "truncate", false)
        .with_provider_option("openai", "user", "not ours")
        .with_prompt_cache(PromptCache {
            key: Some("k".to_owned()),
            ..PromptCache::default()
        })
        .with_scope(Scope::new("t", "s").unwrap());
    request.metadata.insert("trace".to_owned(), "1".to_owned());
    let (text, _) = encode_with(
        &Ollama::new().with_keep_alive("10m".parse().unwrap()),
        &request,
        Mode::Stream,
    )
    .unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"model":"m","stream":true,"format":"json","think":"high","keep_alive":"10m","#,
            r#""options":{"num_predict":100,"temperature":0.5,"top_p":0.9,"top_k":40,"seed":-7,"stop":["END","\n"],"#,
            r#""presence_penalty":0.1,"frequency_penalty":-0.1},"#,
            r#""tools":[{"type":"function","function":{"name":"get_weather","description":"The weather of a city","#,
            r#""parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}},"#,
            r#"{"type":"function","function":{"name":"now","parameters":{"type":"object","properties":{}}}}],"#,
            r#""truncate":false,"#,
            r#""messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Weather?"}]}"#,
        )
    );
}

#[test]
fn zero_is_a_value() {
    let sampling = Sampling {
        temperature: Some(0.0),
        top_p: Some(0.0),
        top_k: Some(0),
        max_tokens: Some(0),
        seed: Some(0),
        stop: vec![String::new()],
        presence_penalty: Some(0.0),
        frequency_penalty: Some(0.0),
    };
    let request = ChatRequest::user("x").with_sampling(sampling);
    let (text, _) = encode_with(
        &Ollama::new().with_keep_alive(KeepAlive::UNLOAD),
        &request,
        Mode::Complete,
    )
    .unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"model":"m","stream":false,"keep_alive":0,"options":{"num_predict":0,"temperature":0.0,"top_p":0.0,"#,
            r#""top_k":0,"seed":0,"stop":[""],"presence_penalty":0.0,"frequency_penalty":0.0},"#,
            r#""messages":[{"role":"user","content":"x"}]}"#,
        )
    );
    let endless = ChatRequest::user("x").with_temperature(f64::INFINITY);
    let error = encode_with(&Ollama::new(), &endless, Mode::Complete).unwrap_err();
    assert_eq!(
        error.to_string(),
        "sampling.temperature is inf; a finite number is expected"
    );
}

#[test]
fn provider_options_take_the_codecs_place_and_options_are_merged() {
    let request = ChatRequest::user("x")
        .with_temperature(0.2)
        .with_max_tokens(5)
        .with_provider_option("ollama", "options", json!({"num_ctx": 8192, "temperature": 1}))
        .with_provider_option("ollama", "keep_alive", -1)
        .with_provider_option("ollama", "think", false)
        .with_provider_option("ollama", "format", "json")
        .with_provider_option("ollama", "shift", false);
    let codec = Ollama::new().with_keep_alive(KeepAlive::seconds(60));
    let (text, _) = encode_with(&codec, &request, Mode::Complete).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"model":"m","stream":false,"format":"json","think":false,"keep_alive":-1,"#,
            r#""options":{"num_predict":5,"temperature":1,"num_ctx":8192},"shift":false,"#,
            r#""messages":[{"role":"user","content":"x"}]}"#,
        )
    );
    let only = ChatRequest::user("x").with_provider_option("ollama", "options", json!({"num_ctx": 1}));
    assert!(body(&only).contains(r#""options":{"num_ctx":1},"#));
    let replaced = ChatRequest::user("x").with_provider_option("ollama", "messages", json!([]));
    let (text, prefix) = encode_with(&Ollama::new(), &replaced, Mode::Complete).unwrap();
    assert_eq!(
        (text.as_str(), prefix),
        (r#"{"model":"m","stream":false,"messages":[]}"#, None)
    );
    let other_model = ChatRequest::user("x").with_provider_option("ollama", "model", "n");
    assert!(body(&other_model).starts_with(r#"{"model":"n","stream":false,"#));
    refused(&ChatRequest::user("x").with_provider_option("ollama", "stream", true));
    refused(&ChatRequest::user("x").with_provider_option("ollama", "options", 3));
}

#[test]
fn structured_output_is_the_authors_text() {
    let schema = JsonSchema::parse("{ \"type\": \"object\", \"properties\": {\"z\":{}, \"a\":{}} }").unwrap();
    let request = ChatRequest::user("x").with_response_format(ResponseFormat::schema("answer", schema));
    assert_eq!(
        body(&request),
        concat!(
            r#"{"model":"m","stream":false,"format":{ "type": "object", "properties": {"z":{}, "a":{}} },"#,
            r#""messages":[{"role":"user","content":"x"}]}"#,
        )
    );
    let all = ChatRequest::user("x").with_response_format(ResponseFormat::schema("any", json!(true)));
    assert!(refused(&all).contains("response_format"));
}

#[test]
fn reasoning_is_a_word_or_a_bool() {
    let think = |effort, visible| {
        ChatRequest::user("x").with_reasoning(ReasoningConfig {
            effort,
            visible,
            budget_tokens: None,
        })
    };
    let said = |effort, visible| {
        let body = body(&think(effort, visible));
        let start = body.find("\"think\"").map(|at| &body[at + 8..]);
        start.map(|rest| rest.split(',').next().unwrap_or_default().to_owned())
    };
    assert_eq!(said(None, None), None);
    assert_eq!(said(None, Some(true)).as_deref(), Some("true"));
    assert_eq!(said(Some(Effort::None), None).as_deref(), Some("false"));
    assert_eq!(said(Some(Effort::None), Some(false)).as_deref(), Some("false"));
    for (effort, word) in [
        (Effort::Low, "\"low\""),
        (Effort::Medium, "\"medium\""),
        (Effort::High, "\"high\""),
        (Effort::Max, "\"max\""),
    ] {
        assert_eq!(said(Some(effort), None).as_deref(), Some(word));
    }
    for effort in [Effort::Minimal, Effort::XHigh] {
        assert!(refused(&think(Some(effort), None)).contains("reasoning.effort"));
    }
    assert!(refused(&think(None, Some(false))).contains("reasoning.visible"));
    assert!(refused(&think(Some(Effort::Low), Some(false))).contains("reasoning.visible"));
    let budget = ReasoningConfig {
        budget_tokens: Some(0),
        ..ReasoningConfig::default()
    };
    assert!(refused(&ChatRequest::user("x").with_reasoning(budget)).contains("budget_tokens"));
}

#[test]
fn tool_choice_is_auto_or_none() {
    let request = ChatRequest::user("x").with_tools([weather()]);
    assert!(body(&request).contains("\"tools\":[{"));
    assert!(!body(&request.clone().with_tool_choice(ToolChoice::None)).contains("tools"));
    assert!(refused(&request.clone().with_tool_choice(ToolChoice::Required)).contains("tool_choice"));
    let named = request
        .clone()
        .with_tool_choice(ToolChoice::Tool("get_weather".to_owned()));
    assert!(refused(&named).contains("get_weather"));
    for parallel in [true, false] {
        let mut request = request.clone();
        request.parallel_tool_calls = Some(parallel);
        assert!(refused(&request).contains("parallel_tool_calls"));
    }
    let strict = ChatRequest::user("x").with_tools([weather().with_strict(true)]);
    assert_eq!(body(&strict), body(&request), "a hint");
}

#[test]
fn a_tool_loop_goes_back_with_objects_names_and_ids() {
    let first = ToolCall::new("call_1_0", "get_weather", "{\"city\": \"Tokyo\",\"n\":1.50}");
    let second = ToolCall::new("call_1_1", "now", "");
    let request = ChatRequest::new([
        Message::user("Weather?"),
        Message::new(
            Role::Assistant,
            vec![
                Part::Reasoning(ReasoningPart {
                    text: "I must ask.".to_owned(),
                    data: None,
                }),
                Part::text("One moment."),
                Part::ToolCall(first.clone()),
                Part::ToolCall(second.clone()),
            ],
        ),
        Message::new(
            Role::Tool,
            vec![
                Part::ToolResult(ToolResult::new(&first, "11 degrees")),
                Part::ToolResult(ToolResult::error(&second, "no clock")),
            ],
        ),
        Message::tool(ToolResult {
            call_id: String::new(),
            name: "camera".to_owned(),
            content: vec![
                Part::text("look: "),
                Part::Image(MediaPart::bytes("image/png", &b"\x89PNG"[..])),
            ],
            is_error: false,
        }),
    ]);
    assert_eq!(
        messages(&request),
        concat!(
            r#"{"role":"user","content":"Weather?"},"#,
            r#"{"role":"assistant","content":"One moment.","thinking":"I must ask.","tool_calls":["#,
            r#"{"id":"call_1_0","function":{"name":"get_weather","arguments":{"city": "Tokyo","n":1.50}}},"#,
            r#"{"id":"call_1_1","function":{"name":"now","arguments":{}}}]},"#,
            r#"{"role":"tool","content":"11 degrees","tool_name":"get_weather","tool_call_id":"call_1_0"},"#,
            r#"{"role":"tool","content":"no clock","tool_name":"now","tool_call_id":"call_1_1"},"#,
            r#"{"role":"tool","content":"look: ","images":["iVBORw=="],"tool_name":"camera"}"#,
        )
    );
    for arguments in ["[1]", "\"text\"", "{\"a\":", "{} {}"] {
        let call = ToolCall::new("id", "f", arguments);
        let request = ChatRequest::new([Message::new(Role::Assistant, vec![Part::ToolCall(call)])]);
        assert!(refused(&request).contains("tool_call.arguments"), "{arguments}");
    }
    refused(&ChatRequest::new([Message::new(
        Role::Tool,
        vec![Part::text("x")],
    )]));
    refused(&ChatRequest::new([
        Message::user("x").with_part(Part::ToolCall(first))
    ]));
    let empty = ChatRequest::new([Message::new(Role::Tool, Vec::new())]);
    assert!(encode_with(&Ollama::new(), &empty, Mode::Complete).is_err());
}

#[test]
fn media_and_documents() {
    let request = ChatRequest::new([Message::user("What is this? ")
        .with_part(Part::Image(MediaPart::bytes("image/png", &b"abc"[..])))
        .with_part(Part::Image(MediaPart::url("data:image/png;base64,YWJj")))
        .with_part(Part::text("And this? "))
        .with_part(Part::Document(DocumentPart::text("a \"b\".md", "# A\n")))
        .with_part(Part::Document(DocumentPart::bytes("text/csv", &b"1,2"[..])))]);
    assert_eq!(
        messages(&request),
        concat!(
            r##"{"role":"user","content":"What is this? And this? <document title=\"a 'b'.md\">\n# A\n\n</document>\n"##,
            r##"<document title=\"\">\n1,2\n</document>\n","images":["YWJj","YWJj"]}"##,
        )
    );
    let part = |part| ChatRequest::new([Message::new(Role::User, vec![part])]);
    assert!(refused(&part(Part::Image(MediaPart::url("https://x/y.png")))).contains("image.url"));
    assert!(refused(&part(Part::Image(MediaPart::file("f-1")))).contains("image.file"));
    assert!(refused(&part(Part::Audio(MediaPart::bytes("audio/wav", &b"x"[..])))).contains("audio"));
    let pdf = DocumentPart::bytes("application/pdf", &b"%PDF"[..]);
    assert!(refused(&part(Part::Document(pdf))).contains("document"));
    refused(&part(Part::Document(DocumentPart::url("https://x/y.txt"))));
    refused(&part(Part::Document(DocumentPart::bytes(
        "text/plain",
        &b"\xff"[..],
    ))));
    let text_as_image = MediaPart {
        source: MediaSource::Text { text: "x".to_owned() },
        media_type: None,
        detail: None,
    };
    refused(&part(Part::Image(text_as_image)));
}

#[test]
fn pieces_of_other_dialects_stay_at_home() {
    let foreign = |dialect: &str| Some(ProviderData::new(dialect, json!({"signature": "s"})));
    let request = ChatRequest::new([Message::new(
        Role::Assistant,
        vec![
            Part::Reasoning(ReasoningPart {
                text: "signed thought".to_owned(),
                data: foreign("anthropic"),
            }),
            Part::Reasoning(ReasoningPart {
                text: "ours".to_owned(),
                data: foreign("ollama"),
            }),
            Part::Opaque(OpaquePart {
                dialect: "openai".to_owned(),
                kind: "web_search_call".to_owned(),
                value: json!({}),
            }),
            Part::Text(TextPart {
                text: "said".to_owned(),
                data: foreign("gemini"),
            }),
            Part::Refusal(TextPart {
                text: " but no".to_owned(),
                data: None,
            }),
        ],
    )]);
    assert_eq!(
        messages(&request),
        r#"{"role":"assistant","content":"said but no","thinking":"ours"}"#
    );
    let ours = OpaquePart {
        dialect: "ollama".to_owned(),
        kind: "unknown".to_owned(),
        value: json!({}),
    };
    refused(&ChatRequest::new([Message::new(
        Role::Assistant,
        vec![Part::Opaque(ours)],
    )]));
}

#[test]
fn a_turn_is_a_byte_prefix_of_the_next_and_remembered_bytes_are_the_same() {
    let call = ToolCall::new("call_0", "get_weather", "{\"city\":\"Oslo\"}");
    let turns = [
        Message::system("Be brief."),
        Message::user("Weather in \"Oslo\"?"),
        Message::new(Role::Assistant, vec![Part::ToolCall(call.clone())]),
        Message::tool(ToolResult::new(&call, "3 degrees")),
        Message::assistant("3 degrees."),
        Message::user("Thanks"),
    ];
    let mut remembering = ChatRequest::new([]).with_tools([weather()]);
    let mut earlier = String::new();
    for turn in turns {
        remembering.messages.push(turn);
        let fresh = ChatRequest {
            messages: remembering.messages.iter().cloned().collect(),
            ..remembering.clone()
        };
        let (text, prefix) = encode_with(&Ollama::new(), &remembering, Mode::Complete).unwrap();
        assert_eq!(text, body(&fresh), "with and without a remembered prefix");
        assert!(text.starts_with(&earlier), "{earlier}\n{text}");
        earlier = text.strip_suffix("]}").unwrap().to_owned();
        let count = remembering.messages.len();
        assert_eq!(prefix.is_some(), count >= 2);
        if let Some(prefix) = prefix {
            assert_eq!(prefix.count, count);
            let bytes = text.as_bytes()[prefix.range].to_vec();
            remembering
                .messages
                .remember_prefix(prefix.key, prefix.count, bytes.into());
        }
    }
    let (known, _) = remembering
        .messages
        .encoded_prefix(u64::from_be_bytes(*b"ollama/1"))
        .unwrap();
    assert_eq!(known, 6, "the prefix is really used");
}
