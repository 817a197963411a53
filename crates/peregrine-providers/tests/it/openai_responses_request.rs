//! Responses: the exact bytes of requests.

use std::time::Duration;

use peregrine_core::{
    ChatRequest, DocumentPart, Effort, JsonSchema, MediaPart, Message, OpaquePart, Part, PromptCache,
    ProviderData, ReasoningConfig, ReasoningPart, ResponseFormat, Role, Sampling, TextPart, ToolCall,
    ToolChoice, ToolResult, ToolSpec,
};
use peregrine_providers::wire::Mode;
use peregrine_providers::wire::openai_responses::{OpenAiResponses, ResponsesCompat};
use serde_json::{Value, json};

use crate::peer::Peer;

fn openai() -> Peer<OpenAiResponses> {
    Peer::new(OpenAiResponses::default(), "openai")
}

fn plain() -> Peer<OpenAiResponses> {
    Peer::new(OpenAiResponses::new(ResponsesCompat::plain()), "deepseek")
}

/// The items of a request as they are written, without the brackets.
fn items(list: Vec<Message>) -> String {
    let body = openai().body(&ChatRequest::new(list));
    let list = body
        .strip_prefix(r#"{"model":"m","store":false,"input":["#)
        .and_then(|rest| rest.strip_suffix("]}"));
    list.expect("the input comes last").to_owned()
}

/// What stands between the model and the input.
fn fields(peer: &Peer<OpenAiResponses>, request: &ChatRequest) -> String {
    let body = peer.body(request);
    let fields = body
        .strip_prefix(r#"{"model":"m""#)
        .and_then(|rest| rest.split(r#","input":"#).next());
    fields.expect("the input comes last").to_owned()
}

fn own(value: Value) -> Option<ProviderData> {
    Some(ProviderData::new("openai-responses", value))
}

fn assistant(parts: Vec<Part>) -> Message {
    Message::new(Role::Assistant, parts)
}

fn opaque(dialect: &str, value: Value) -> Part {
    let kind = value["type"].as_str().unwrap_or_default().to_owned();
    Part::Opaque(OpaquePart {
        dialect: dialect.to_owned(),
        kind,
        value,
    })
}

fn weather() -> ToolSpec {
    let parameters = r#"{ "type": "object", "properties": { "city": { "type": "string" } } }"#;
    ToolSpec::new(
        "weather",
        "Says the weather.",
        JsonSchema::parse(parameters).expect("JSON"),
    )
}

#[test]
fn messages_are_items_and_instructions_keep_their_places() {
    let list = vec![
        Message::system("Be brief."),
        Message::user("a").with_part(Part::text("b")),
        Message::assistant("ok"),
        Message::system("Now be long."),
        Message::user("c"),
    ];
    assert_eq!(
        items(list),
        concat!(
            r#"{"role":"developer","content":"Be brief."},"#,
            r#"{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]},"#,
            r#"{"type":"message","role":"assistant","content":[{"type":"output_text","text":"ok","annotations":[]}]},"#,
            r#"{"role":"developer","content":"Now be long."},"#,
            r#"{"role":"user","content":"c"}"#
        )
    );
    assert_eq!(
        plain().body(&ChatRequest::new([Message::system("a")])),
        r#"{"model":"m","input":[{"role":"system","content":"a"}]}"#
    );
}

#[test]
fn the_default_is_stateless() {
    let request = ChatRequest::user("a");
    let reasoning = openai().with_capabilities(|can| can.reasoning = true);
    let asked = r#","store":false,"include":["reasoning.encrypted_content"]"#;
    assert_eq!(fields(&reasoning, &request), asked);
    assert_eq!(
        fields(&openai(), &request),
        r#","store":false"#,
        "a model that does not reason is not asked"
    );
    assert!(
        reasoning
            .encode(&request, Mode::Stream)
            .unwrap()
            .0
            .starts_with(r#"{"model":"m","stream":true,"store":false"#)
    );
    let stored = request
        .with_provider_option("openai-responses", "store", json!(true))
        .with_provider_option("openai-responses", "previous_response_id", "resp_1");
    assert_eq!(
        fields(&reasoning, &stored),
        r#","store":true,"previous_response_id":"resp_1""#
    );
    let stream = ChatRequest::user("a").with_provider_option("openai-responses", "stream", json!(false));
    openai().refusal(&stream, Mode::Stream);
}

#[test]
fn media() {
    let mut close = MediaPart::url("https://example.org/a.png");
    close.detail = Some("high".to_owned());
    let parts = vec![
        Part::Image(MediaPart::bytes("image/png", vec![0xff, 0])),
        Part::Image(close),
        Part::Image(MediaPart::file("file-1")),
        Part::Audio(MediaPart::bytes("audio/mpeg", vec![1])),
        Part::Document(DocumentPart::bytes("application/pdf", vec![2]).with_title("a.pdf")),
        Part::Document(DocumentPart::url("https://example.org/a.pdf")),
        Part::Document(DocumentPart::text("t", "x")),
        opaque("openai-responses", json!({"type": "input_video", "x": 1})),
        opaque("gemini", json!({"type": "video"})),
    ];
    assert_eq!(
        items(vec![Message::new(Role::User, parts)]),
        concat!(
            r#"{"role":"user","content":[{"type":"input_image","detail":"auto","image_url":"data:image/png;base64,/wA="},"#,
            r#"{"type":"input_image","detail":"high","image_url":"https://example.org/a.png"},"#,
            r#"{"type":"input_image","detail":"auto","file_id":"file-1"},"#,
            r#"{"type":"input_audio","input_audio":{"data":"AQ==","format":"mp3"}},"#,
            r#"{"type":"input_file","filename":"a.pdf","file_data":"data:application/pdf;base64,Ag=="},"#,
            r#"{"type":"input_file","file_url":"https://example.org/a.pdf"},"#,
            r#"{"type":"input_text","text":"<document title=\"t\">\nx\n</document>"},"#,
            r#"{"type":"input_video","x":1}]}"#
        )
    );
    for (message, word) in [
        (
            Message::new(Role::User, vec![Part::Audio(MediaPart::url("x"))]),
            "audio by address",
        ),
        (
            assistant(vec![Part::Image(MediaPart::url("x"))]),
            "of the assistant",
        ),
        (
            Message::new(Role::Tool, vec![Part::text("x")]),
            "results of tools only",
        ),
        (
            Message::new(Role::User, vec![Part::ToolCall(ToolCall::new("1", "a", ""))]),
            "of the assistant",
        ),
    ] {
        let refusal = openai().refusal(&ChatRequest::new([message]), Mode::Complete);
        assert!(refusal.contains(word), "{refusal}");
    }
}

#[test]
fn tools_and_every_choice() {
    let tool = r#"{"type":"function","name":"weather","description":"Says the weather.","parameters":{ "type": "object", "properties": { "city": { "type": "string" } } },"strict":false}"#;
    let ask = |choice| {
        ChatRequest::user("a")
            .with_tools([weather()])
            .with_tool_choice(choice)
    };
    for (choice, written) in [
        (ToolChoice::Auto, ""),
        (ToolChoice::None, r#","tool_choice":"none""#),
        (ToolChoice::Required, r#","tool_choice":"required""#),
        (
            ToolChoice::Tool("weather".to_owned()),
            r#","tool_choice":{"type":"function","name":"weather"}"#,
        ),
    ] {
        assert_eq!(
            fields(&plain(), &ask(choice)),
            format!(r#","tools":[{tool}]{written}"#)
        );
    }
    let mut serial = ask(ToolChoice::Auto);
    serial.parallel_tool_calls = Some(false);
    assert_eq!(
        fields(&plain(), &serial),
        format!(r#","tools":[{tool}],"parallel_tool_calls":false"#)
    );
    let strict = ChatRequest::user("a").with_tools([weather().with_strict(true)]);
    assert!(fields(&plain(), &strict).ends_with(
        r#""parameters":{"type":"object","properties":{"city":{"type":["string","null"]}},"required":["city"],"additionalProperties":false},"strict":true}]"#
    ));
    let unknown = ask(ToolChoice::Tool("other".to_owned()));
    assert!(
        openai()
            .refusal(&unknown, Mode::Complete)
            .contains("not among the tools")
    );
    openai().refusal(
        &ChatRequest::user("a").with_tool_choice(ToolChoice::Required),
        Mode::Complete,
    );
    let own = ChatRequest::user("a").with_provider_option(
        "openai-responses",
        "tools",
        json!([{"type": "web_search"}]),
    );
    assert_eq!(fields(&plain(), &own), r#","tools":[{"type":"web_search"}]"#);
}

#[test]
fn sampling_reasoning_and_formats() {
    let sampling = Sampling {
        temperature: Some(0.0),
        top_p: Some(1.0),
        max_tokens: Some(0),
        ..Sampling::default()
    };
    let request = ChatRequest::user("a").with_sampling(sampling);
    assert_eq!(
        fields(&plain(), &request),
        r#","max_output_tokens":0,"temperature":0.0,"top_p":1.0"#
    );
    let stop = Sampling {
        stop: vec!["x".to_owned()],
        ..Sampling::default()
    };
    for (sampling, word) in [
        (
            Sampling {
                seed: Some(0),
                ..Sampling::default()
            },
            "`seed`",
        ),
        (
            Sampling {
                top_k: Some(0),
                ..Sampling::default()
            },
            "`top_k`",
        ),
        (
            Sampling {
                presence_penalty: Some(0.0),
                ..Sampling::default()
            },
            "`presence_penalty`",
        ),
        (
            Sampling {
                frequency_penalty: Some(0.0),
                ..Sampling::default()
            },
            "`frequency_penalty`",
        ),
        (stop, "`stop`"),
        (
            Sampling {
                top_p: Some(f64::INFINITY),
                ..Sampling::default()
            },
            "`top_p`",
        ),
    ] {
        let refusal = openai().refusal(&ChatRequest::user("a").with_sampling(sampling), Mode::Complete);
        assert!(refusal.contains(word), "{refusal}");
    }
    let think = |effort, budget_tokens, visible| {
        ChatRequest::user("a").with_reasoning(ReasoningConfig {
            effort,
            budget_tokens,
            visible,
        })
    };
    let shown = think(Some(Effort::XHigh), None, Some(true));
    assert_eq!(
        fields(&plain(), &shown),
        r#","reasoning":{"effort":"xhigh","summary":"auto"}"#
    );
    assert_eq!(fields(&plain(), &think(None, None, Some(false))), "");
    openai().refusal(&think(None, Some(1), None), Mode::Complete);

    let format = |format| fields(&plain(), &ChatRequest::user("a").with_response_format(format));
    let schema = JsonSchema::parse(r#"{ "type": "object", "properties": {} }"#).unwrap();
    assert_eq!(
        format(ResponseFormat::Json),
        r#","text":{"format":{"type":"json_object"}}"#
    );
    assert_eq!(
        format(ResponseFormat::schema("x", schema.clone())),
        r#","text":{"format":{"type":"json_schema","name":"x","strict":true,"schema":{"type":"object","properties":{},"required":[],"additionalProperties":false}}}"#
    );
    let llama = Peer::new(OpenAiResponses::new(ResponsesCompat::llama_cpp()), "llama.cpp");
    let read_elsewhere = |format| fields(&llama, &ChatRequest::user("a").with_response_format(format));
    assert_eq!(
        read_elsewhere(ResponseFormat::Json),
        r#","response_format":{"type":"json_object"}"#
    );
    assert_eq!(
        read_elsewhere(ResponseFormat::schema("x", schema.clone())),
        r#","response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":{"type":"object","properties":{},"required":[],"additionalProperties":false}}}"#
    );
    let loose = ResponseFormat::Schema {
        name: "x".to_owned(),
        schema,
        strict: false,
    };
    assert_eq!(
        format(loose),
        r#","text":{"format":{"type":"json_schema","name":"x","strict":false,"schema":{ "type": "object", "properties": {} }}}"#
    );
}

#[test]
fn prompt_cache_hints() {
    let hints = PromptCache {
        key: Some("k".to_owned()),
        ttl: Some(Duration::from_secs(3600)),
        automatic: true,
    };
    let request = ChatRequest::new([Message::user("a").with_cache_breakpoint()]).with_prompt_cache(hints);
    assert_eq!(
        openai().body(&request),
        r#"{"model":"m","store":false,"prompt_cache_key":"k","prompt_cache_retention":"24h","input":[{"role":"user","content":"a"}]}"#
    );
    let newer = openai().with_capabilities(|can| can.prompt_cache_breakpoints = true);
    assert_eq!(
        newer.body(&request),
        r#"{"model":"m","store":false,"prompt_cache_key":"k","prompt_cache_options":{"ttl":"12h"},"input":[{"role":"user","content":[{"type":"input_text","text":"a","prompt_cache_breakpoint":{"mode":"explicit"}}]}]}"#
    );
    assert_eq!(
        plain().body(&request),
        r#"{"model":"m","input":[{"role":"user","content":"a"}]}"#
    );
}

#[test]
fn items_go_back_word_for_word() {
    let item =
        json!({"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "x", "status": null});
    let thought = |data| {
        Part::Reasoning(ReasoningPart {
            text: "Hm.".to_owned(),
            data,
        })
    };
    let said = |text: &str, id: &str| {
        let data = own(json!({"id": id, "phase": "commentary"}));
        Part::Text(TextPart {
            text: text.to_owned(),
            data,
        })
    };
    let mut call = ToolCall::new("call_1", "f", r#"{"x": 1}"#);
    call.data = own(json!({"id": "fc_1", "namespace": "n"}));
    let search =
        json!({"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"z": 1, "a": 2}});
    let message = assistant(vec![
        thought(own(item.clone())),
        said("a", "msg_1"),
        said("b", "msg_1"),
        said("c", "msg_2"),
        opaque("openai-responses", search.clone()),
        opaque("anthropic", json!({"type": "server_tool_use"})),
        thought(Some(ProviderData::new("anthropic", json!({"signature": "s"})))),
        thought(None),
        Part::Refusal(TextPart {
            text: "No.".to_owned(),
            data: None,
        }),
        Part::ToolCall(call),
    ]);
    let output = |text: &str| format!(r#"{{"type":"output_text","text":"{text}","annotations":[]}}"#);
    let head = |id: &str| {
        format!(
            r#"{{"type":"message","role":"assistant","id":"{id}","status":"completed","phase":"commentary","content":["#
        )
    };
    assert_eq!(
        items(vec![message]),
        format!(
            r#"{item},{}{},{}]}},{}{}]}},{search},{{"type":"message","role":"assistant","content":[{{"type":"refusal","refusal":"No."}}]}},{{"type":"function_call","call_id":"call_1","name":"f","arguments":"{{\"x\": 1}}","id":"fc_1","namespace":"n"}}"#,
            head("msg_1"),
            output("a"),
            output("b"),
            head("msg_2"),
            output("c"),
        )
    );
    let refused = || {
        let text = "No.".to_owned();
        ChatRequest::new([assistant(vec![Part::Refusal(TextPart { text, data: None })])])
    };
    assert_eq!(
        plain().body(&refused()),
        r#"{"model":"m","input":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"No.","annotations":[]}]}]}"#
    );
    let only_id = json!({"id": "rs_1", "type": "reasoning", "summary": []});
    let list = || {
        vec![
            Message::user("a"),
            assistant(vec![thought(own(only_id.clone()))]),
            Message::user("b"),
        ]
    };
    assert_eq!(
        items(list()),
        r#"{"role":"user","content":"a"},{"role":"user","content":"b"}"#,
        "nobody has kept the item that this id names"
    );
    let stored = ChatRequest::new(list()).with_provider_option("openai-responses", "store", json!(true));
    assert!(openai().body(&stored).contains(&only_id.to_string()));
}

#[test]
fn results_of_tools() {
    let call = ToolCall::new("call_1", "f", "{}");
    let long = ToolCall::new("x".repeat(65), "f", "");
    let seen = ToolResult {
        content: vec![
            Part::text("a"),
            Part::Image(MediaPart::url("https://example.org/a.png")),
        ],
        ..ToolResult::error(&call, "")
    };
    let approval = json!({"type": "mcp_approval_response", "approve": true});
    let parts = vec![
        Part::ToolResult(ToolResult::new(&call, "rain")),
        Part::ToolResult(seen),
        opaque("gemini", json!({})),
        opaque("openai-responses", approval.clone()),
    ];
    assert_eq!(
        items(vec![Message::new(Role::Tool, parts)]),
        format!(
            r#"{{"type":"function_call_output","call_id":"call_1","output":"rain"}},{{"type":"function_call_output","call_id":"call_1","output":[{{"type":"input_text","text":"a"}},{{"type":"input_image","detail":"auto","image_url":"https://example.org/a.png"}}]}},{approval}"#
        )
    );
    let pair = items(vec![
        assistant(vec![Part::ToolCall(long.clone())]),
        Message::tool(ToolResult::new(&long, "x")),
    ]);
    let ids: Vec<&str> = pair
        .split(r#""call_id":""#)
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(ids.len() == 2 && ids[0] == ids[1] && ids[0].len() <= 64, "{pair}");
}

#[test]
fn a_turn_is_a_prefix_of_the_next_and_is_not_written_again() {
    let call = ToolCall::new("call_1", "weather", "{}");
    let mut turns = vec![Message::system("s").with_cache_breakpoint(), Message::user("a")];
    let later = [
        assistant(vec![Part::text("b"), Part::ToolCall(call.clone())]),
        Message::tool(ToolResult::new(&call, "rain")),
        assistant(vec![Part::Reasoning(ReasoningPart::default())]),
        Message::system("d"),
    ];
    let mut request = ChatRequest::new(turns.clone()).with_tools([weather()]);
    let mut before = String::new();
    for message in later {
        let (body, prefix) = openai().encode(&request, Mode::Complete).unwrap();
        let open = body.strip_suffix("]}").expect("the input comes last");
        assert!(open.starts_with(&before), "{open} does not begin with {before}");
        before = open.to_owned();
        let prefix = prefix.expect("two messages are worth remembering");
        assert_eq!(prefix.count, turns.len());
        let bytes = body.as_bytes()[prefix.range].to_vec();
        request
            .messages
            .remember_prefix(prefix.key, prefix.count, bytes.into());
        turns.push(message.clone());
        request.messages.push(message);
        let fresh = ChatRequest {
            messages: turns.clone().into(),
            ..request.clone()
        };
        assert_eq!(
            openai().body(&request),
            openai().body(&fresh),
            "a remembered beginning changes nothing"
        );
        let mut other = ResponsesCompat::openai();
        other.system_role = "system";
        for peer in [
            plain(),
            Peer::new(OpenAiResponses::new(other), "openai"),
            openai().with_capabilities(|can| can.prompt_cache_breakpoints = true),
        ] {
            assert_eq!(
                peer.body(&request),
                peer.body(&fresh),
                "nor does another server's"
            );
        }
    }
}
