//! Chat Completions: the exact bytes of messages.

use peregrine_core::{
    ChatRequest, DocumentPart, JsonSchema, MediaPart, Message, OpaquePart, Part, ProviderData, ReasoningPart,
    Role, TextPart, ToolCall, ToolResult, ToolSpec,
};
use peregrine_providers::wire::Mode;
use peregrine_providers::wire::openai_chat::{ChatCompat, OpenAiChat};
use serde_json::{Value, json};

use crate::peer::Peer;

fn peer(provider: &'static str) -> Peer<OpenAiChat> {
    let compat = ChatCompat::of_provider(provider).expect("a preset");
    Peer::new(OpenAiChat::new(compat), provider)
}

fn openai() -> Peer<OpenAiChat> {
    peer("openai")
}

/// The messages of a request as they are written.
fn messages(peer: &Peer<OpenAiChat>, list: Vec<Message>) -> String {
    let body = peer.body(&ChatRequest::new(list));
    let list = body
        .strip_prefix(r#"{"model":"m","messages":["#)
        .and_then(|rest| rest.strip_suffix("]}"));
    list.expect("the messages come last").to_owned()
}

fn assistant(parts: Vec<Part>) -> Message {
    Message::new(Role::Assistant, parts)
}

fn weather() -> ToolSpec {
    let parameters = r#"{ "type": "object", "properties": { "city": { "type": "string" } } }"#;
    ToolSpec::new(
        "weather",
        "Says the weather.",
        JsonSchema::parse(parameters).expect("JSON"),
    )
}

fn own(value: Value) -> Option<ProviderData> {
    Some(ProviderData::new("openai-chat", value))
}

#[test]
fn texts_roles_and_the_whole_body() {
    let request = ChatRequest::new([
        Message::system("Be \"brief\"."),
        Message::user("é\n"),
        Message::assistant("ok"),
        Message::user("a").with_part(Part::text("b")),
    ]);
    assert_eq!(
        openai().body(&request),
        concat!(
            r#"{"model":"m","messages":[{"role":"system","content":"Be \"brief\"."},{"role":"user","content":"é\n"},"#,
            r#"{"role":"assistant","content":"ok"},"#,
            r#"{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#
        )
    );
    let joined = messages(
        &peer("deepseek"),
        vec![Message::user("a").with_part(Part::text("b"))],
    );
    assert_eq!(joined, r#"{"role":"user","content":"ab"}"#);
    let mut compat = ChatCompat::openai();
    compat.system_role = "developer";
    let peer = Peer::new(OpenAiChat::new(compat), "openai");
    assert_eq!(
        messages(&peer, vec![Message::system("a")]),
        r#"{"role":"developer","content":"a"}"#
    );
}

#[test]
fn media() {
    let png = || MediaPart::bytes("image/png", vec![0xff, 0]);
    let wav = || MediaPart::bytes("audio/x-wav", vec![1]);
    let pdf = || DocumentPart::bytes("application/pdf", vec![2]).with_title("a.pdf");
    let user = |parts: Vec<Part>| vec![Message::new(Role::User, parts)];
    let mut seen = MediaPart::url("https://example.org/a.png");
    seen.detail = Some("low".to_owned());
    let list = user(vec![
        Part::text("look"),
        Part::Image(png()),
        Part::Image(seen),
        Part::Audio(wav()),
        Part::Document(pdf()),
        Part::Document(DocumentPart {
            source: MediaPart::file("file-1").source,
            media_type: None,
            title: None,
        }),
        Part::Document(DocumentPart::text("notes \"x\"", "line")),
    ]);
    assert_eq!(
        messages(&openai(), list),
        concat!(
            r#"{"role":"user","content":[{"type":"text","text":"look"},"#,
            r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,/wA="}},"#,
            r#"{"type":"image_url","image_url":{"url":"https://example.org/a.png","detail":"low"}},"#,
            r#"{"type":"input_audio","input_audio":{"data":"AQ==","format":"wav"}},"#,
            r#"{"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,Ag=="}},"#,
            r#"{"type":"file","file":{"file_id":"file-1"}},"#,
            r#"{"type":"text","text":"<document title=\"notes \\\"x\\\"\">\nline\n</document>"}]}"#
        )
    );
    let list = user(vec![
        Part::Audio(wav()),
        Part::Audio(MediaPart::url("https://example.org/a.mp3")),
        Part::Document(pdf()),
        Part::Document(DocumentPart::url("https://example.org/a.pdf")),
    ]);
    assert_eq!(
        messages(&peer("mistral"), list),
        concat!(
            r#"{"role":"user","content":[{"type":"input_audio","input_audio":"AQ=="},"#,
            r#"{"type":"input_audio","input_audio":"https://example.org/a.mp3"},"#,
            r#"{"type":"document_url","document_url":"data:application/pdf;base64,Ag==","document_name":"a.pdf"},"#,
            r#"{"type":"document_url","document_url":"https://example.org/a.pdf"}]}"#
        )
    );
    let by_address = user(vec![Part::Document(DocumentPart::url(
        "https://example.org/a.pdf",
    ))]);
    assert_eq!(
        messages(&peer("openrouter"), by_address.clone()),
        r#"{"role":"user","content":[{"type":"file","file":{"filename":"document","file_data":"https://example.org/a.pdf"}}]}"#
    );
    let mut nameless = png();
    nameless.media_type = None;
    for (provider, list, word) in [
        ("openai", by_address, "document by address"),
        (
            "openai",
            user(vec![Part::Image(MediaPart::file("file-1"))]),
            "image by file id",
        ),
        ("openai", user(vec![Part::Image(nameless)]), "media type"),
        (
            "groq",
            user(vec![Part::Audio(wav())]),
            "groq (openai-chat) has no way to say `audio`",
        ),
        (
            "groq",
            user(vec![Part::Document(pdf())]),
            "document that is a file",
        ),
        (
            "openai",
            user(vec![Part::ToolCall(ToolCall::new("1", "a", "{}"))]),
            "message of the assistant",
        ),
        (
            "openai",
            vec![assistant(vec![Part::Audio(wav())])],
            "of the assistant",
        ),
        (
            "openai",
            vec![Message::new(Role::Tool, vec![Part::text("x")])],
            "results of tools only",
        ),
    ] {
        let refusal = peer(provider).refusal(&ChatRequest::new(list), Mode::Complete);
        assert!(refusal.contains(word), "{refusal}");
    }
}

#[test]
fn calls_and_results() {
    let call = ToolCall::new("call_1", "weather", r#"{"city":"Oslo"}"#);
    let other = ToolCall::new("call_2", "now", "");
    let list = vec![
        assistant(vec![
            Part::text("Let me see."),
            Part::ToolCall(call.clone()),
            Part::ToolCall(other.clone()),
        ]),
        Message::new(
            Role::Tool,
            vec![
                Part::ToolResult(ToolResult::new(&call, "rain")),
                Part::ToolResult(ToolResult::error(&other, "no clock")),
            ],
        ),
        Message::tool(ToolResult::new(&call, "more rain")),
        assistant(vec![Part::ToolCall(other.clone())]),
    ];
    assert_eq!(
        messages(&openai(), list),
        concat!(
            r#"{"role":"assistant","content":"Let me see.","tool_calls":["#,
            r#"{"id":"call_1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Oslo\"}"}},"#,
            r#"{"id":"call_2","type":"function","function":{"name":"now","arguments":"{}"}}]},"#,
            r#"{"role":"tool","tool_call_id":"call_1","content":"rain"},"#,
            r#"{"role":"tool","tool_call_id":"call_2","content":"no clock"},"#,
            r#"{"role":"tool","tool_call_id":"call_1","content":"more rain"},"#,
            r#"{"role":"assistant","content":null,"tool_calls":["#,
            r#"{"id":"call_2","type":"function","function":{"name":"now","arguments":"{}"}}]}"#
        )
    );
    let pair = vec![
        assistant(vec![Part::ToolCall(other.clone())]),
        Message::tool(ToolResult::new(&other, "x")),
    ];
    let short = messages(&peer("mistral"), pair);
    let id = short
        .split(r#""id":""#)
        .nth(1)
        .and_then(|rest| rest.get(..9))
        .unwrap();
    assert!(id.bytes().all(|c| c.is_ascii_alphanumeric()), "{id}");
    assert!(
        short.contains(&format!(r#""tool_call_id":"{id}""#)),
        "a result names the call as the call names itself"
    );
    let seen = ToolResult {
        content: vec![
            Part::text("a"),
            Part::Image(MediaPart::bytes("image/png", vec![1])),
        ],
        ..ToolResult::new(&call, "")
    };
    let list = vec![Message::tool(seen)];
    assert_eq!(
        messages(&peer("groq"), list.clone()),
        r#"{"role":"tool","tool_call_id":"call_1","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AQ=="}}]}"#
    );
    let refusal = openai().refusal(&ChatRequest::new(list), Mode::Complete);
    assert!(refusal.contains("user message"), "{refusal}");
}

#[test]
fn what_the_model_said_goes_back_to_servers_that_want_it() {
    let details = json!({"reasoning_details": [{"type": "reasoning.encrypted", "data": "xyz", "id": null}]});
    let thought = |data| {
        Part::Reasoning(ReasoningPart {
            text: "Hm.".to_owned(),
            data,
        })
    };
    let call = || Part::ToolCall(ToolCall::new("abcdefghi", "now", "{}"));
    let turn = |thought: Part| vec![assistant(vec![thought, Part::text("ok")])];
    let calling = |thought: Part| vec![assistant(vec![thought, call()])];
    let calls =
        r#""tool_calls":[{"id":"abcdefghi","type":"function","function":{"name":"now","arguments":"{}"}}]}"#;
    let plain = r#"{"role":"assistant","content":"ok"}"#;
    let ours = || thought(own(json!({})));
    assert_eq!(messages(&openai(), turn(ours())), plain);
    assert_eq!(messages(&peer("deepseek"), turn(ours())), plain);
    assert_eq!(
        messages(&peer("deepseek"), calling(ours())),
        format!(r#"{{"role":"assistant","content":null,"reasoning_content":"Hm.",{calls}"#)
    );
    let cerebras = r#"{"role":"assistant","content":"ok","reasoning":"Hm."}"#;
    assert_eq!(messages(&peer("cerebras"), turn(ours())), cerebras);
    assert_eq!(
        messages(&peer("openrouter"), turn(thought(own(details)))),
        r#"{"role":"assistant","content":"ok","reasoning_details":[{"type":"reasoning.encrypted","data":"xyz","id":null}]}"#
    );
    assert_eq!(messages(&peer("openrouter"), turn(ours())), cerebras);
    assert_eq!(
        messages(&peer("mistral"), turn(thought(own(json!({"signature": "s"}))))),
        r#"{"role":"assistant","content":[{"type":"thinking","thinking":[{"type":"text","text":"Hm."}],"signature":"s"},{"type":"text","text":"ok"}]}"#
    );
    let foreign = || thought(Some(ProviderData::new("anthropic", json!({"signature": "s"}))));
    for provider in ["deepseek", "cerebras", "openrouter", "mistral"] {
        assert_eq!(
            messages(&peer(provider), turn(foreign())),
            plain,
            "another dialect's reasoning is dropped"
        );
        assert_eq!(
            messages(&peer(provider), turn(thought(None))),
            plain,
            "and so is anybody's"
        );
    }
}

#[test]
fn refusals_images_and_opaque_parts() {
    let refused = || {
        vec![assistant(vec![Part::Refusal(TextPart {
            text: "No.".to_owned(),
            data: None,
        })])]
    };
    assert_eq!(
        messages(&openai(), refused()),
        r#"{"role":"assistant","content":"","refusal":"No."}"#
    );
    assert_eq!(
        messages(&peer("groq"), refused()),
        r#"{"role":"assistant","content":"No."}"#
    );
    let opaque = |dialect: &str, kind: &str, value| {
        Part::Opaque(OpaquePart {
            dialect: dialect.to_owned(),
            kind: kind.to_owned(),
            value,
        })
    };
    let spoken = || {
        vec![assistant(vec![opaque(
            "openai-chat",
            "audio",
            json!({"id": "a1", "data": "AQ=="}),
        )])]
    };
    assert_eq!(
        messages(&openai(), spoken()),
        r#"{"role":"assistant","content":null,"audio":{"id":"a1"}}"#
    );
    assert_eq!(
        messages(&peer("vllm"), spoken()),
        r#"{"role":"assistant","content":null}"#
    );
    let mut call = ToolCall::new("1", "now", "{}");
    call.data = own(json!({"extra_content": {"google": {"thought_signature": "s"}}}));
    let signed = || {
        let beside = opaque("openai-chat", "extra_content", json!({"google": 1}));
        vec![assistant(vec![Part::ToolCall(call.clone()), beside])]
    };
    assert_eq!(
        messages(&peer("gemini"), signed()),
        concat!(
            r#"{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","#,
            r#""function":{"name":"now","arguments":"{}"},"extra_content":{"google":{"thought_signature":"s"}}}],"#,
            r#""extra_content":{"google":1}}"#
        )
    );
    assert!(
        !messages(&openai(), signed()).contains("google"),
        "only the server that sent it wants it"
    );
    let mut custom = ToolCall::new("1", "sql", "select 1");
    custom.data = own(json!({"type": "custom"}));
    assert!(
        messages(&openai(), vec![assistant(vec![Part::ToolCall(custom)])])
            .contains(r#"{"id":"1","type":"custom","custom":{"name":"sql","input":"select 1"}}"#)
    );
    let drawn = || {
        vec![assistant(vec![Part::Image(MediaPart::bytes(
            "image/png",
            vec![1],
        ))])]
    };
    assert_eq!(
        messages(&peer("openrouter"), drawn()),
        r#"{"role":"assistant","content":"","images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AQ=="}}]}"#
    );
    openai().refusal(&ChatRequest::new(drawn()), Mode::Complete);
    let video = json!({"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}});
    let list = vec![
        Message::new(
            Role::User,
            vec![Part::text("a"), opaque("openai-chat", "video_url", video)],
        ),
        Message::new(
            Role::User,
            vec![Part::text("b"), opaque("gemini", "video", json!({}))],
        ),
        assistant(vec![
            Part::text("c"),
            opaque("openai-chat", "prefix", json!(true)),
            opaque("x", "y", json!(1)),
        ]),
    ];
    assert_eq!(
        messages(&openai(), list),
        concat!(
            r#"{"role":"user","content":[{"type":"text","text":"a"},"#,
            r#"{"type":"video_url","video_url":{"url":"https://example.org/a.mp4"}}]},"#,
            r#"{"role":"user","content":"b"},{"role":"assistant","content":"c","prefix":true}"#
        )
    );
    let forged = vec![assistant(vec![opaque("openai-chat", "content", json!("x"))])];
    openai().refusal(&ChatRequest::new(forged), Mode::Complete);
}

#[test]
fn a_turn_is_a_prefix_of_the_next_and_is_not_written_again() {
    let call = ToolCall::new("call_1", "weather", "{}");
    let mut turns = vec![Message::system("s").with_cache_breakpoint(), Message::user("a")];
    let later = [
        assistant(vec![Part::text("b"), Part::ToolCall(call.clone())]),
        Message::tool(ToolResult::new(&call, "rain")),
        Message::assistant("c"),
        Message::user("d"),
    ];
    let mut request = ChatRequest::new(turns.clone())
        .with_tools([weather()])
        .with_temperature(0.0);
    let mut before = String::new();
    for message in later {
        let (body, prefix) = openai().encode(&request, Mode::Complete).unwrap();
        let open = body.strip_suffix("]}").expect("the messages come last");
        assert!(open.starts_with(&before), "{open} does not begin with {before}");
        before = open.to_owned();
        let prefix = prefix.expect("two messages are worth remembering");
        assert_eq!(prefix.count, turns.len());
        let bytes = body.as_bytes()[prefix.range].to_vec();
        request
            .messages
            .remember_prefix(prefix.key, prefix.count, bytes.into());
        let (again, same) = openai().encode(&request, Mode::Complete).unwrap();
        assert_eq!(again, body, "nothing new");
        // Whoever takes what was remembered remembers it again.
        let same = same.expect("as before");
        assert_eq!(same.count, turns.len());
        let bytes = again.as_bytes()[same.range].to_vec();
        request
            .messages
            .remember_prefix(same.key, same.count, bytes.into());
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
        for peer in [
            peer("mistral"),
            peer("openrouter"),
            openai().with_capabilities(|can| can.prompt_cache_breakpoints = true),
        ] {
            assert_eq!(
                peer.body(&request),
                peer.body(&fresh),
                "nor does another server's"
            );
        }
    }
    assert_eq!(
        openai()
            .encode(&ChatRequest::user("a"), Mode::Complete)
            .unwrap()
            .1,
        None
    );
}
