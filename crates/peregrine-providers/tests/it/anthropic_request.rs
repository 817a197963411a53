//! Requests to the Messages API, byte for byte.

use std::time::Duration;

use bytes::Bytes;
use peregrine_core::{
    Capabilities, ChatRequest, DocumentPart, JsonSchema, MediaPart, MediaSource, Message, OpaquePart, Part,
    PromptCache, ProviderData, ReasoningPart, Role, TextPart, ToolCall, ToolResult, ToolSpec,
};
use peregrine_providers::wire::anthropic::Anthropic;
use peregrine_providers::wire::{ChatCodec as _, Mode};
use serde_json::json;

use crate::support::{check_prefixes, encode, encode_for, target};

pub(crate) fn body(request: &ChatRequest) -> String {
    encode(&Anthropic::new(), "m", request).expect("it can be said")
}

pub(crate) fn refused(request: &ChatRequest) -> String {
    encode(&Anthropic::new(), "m", request).expect_err("it cannot be said")
}

/// The `content` of the one turn of a request of these messages.
pub(crate) fn content(messages: impl IntoIterator<Item = Message>) -> String {
    let body = body(&ChatRequest::new(messages));
    let (_, turn) = body.split_once(r#""content":"#).expect("a turn");
    turn.strip_suffix("}]}").expect("one turn").to_owned()
}

pub(crate) fn ask() -> ChatRequest {
    ChatRequest::user("q")
}

fn tools() -> [ToolSpec; 2] {
    let schema = JsonSchema::parse(r#"{ "type":"object", "properties":{"b":{"type":"string"},"a":{}} }"#);
    [
        ToolSpec::new("f", "Does.", schema.expect("a schema")),
        ToolSpec::new("g", "", JsonSchema::empty_object()),
    ]
}

#[test]
fn a_conversation_with_a_tool_loop() {
    let request = ChatRequest::new([
        Message::system("Be brief."),
        Message::system("Be kind."),
        Message::user("Weather?"),
        Message::assistant("I look.")
            .with_part(Part::ToolCall(ToolCall::new("t1", "f", r#"{"b":"x", "n":1.50}"#)))
            .with_part(Part::ToolCall(ToolCall::new("t2", "g", ""))),
        Message::user("Hurry."),
        Message::tool(ToolResult::new(&ToolCall::new("t1", "f", ""), "sunny")),
        Message::tool(ToolResult::error(&ToolCall::new("t2", "g", ""), "no")),
        Message::assistant("Sunny."),
        Message::system("Now be long."),
        Message::user("And?"),
    ])
    .with_tools(tools());
    let capabilities = Capabilities::default();
    let (body, _) = encode_for(
        &Anthropic::new(),
        &target("claude", &capabilities),
        &request,
        Mode::Stream,
    )
    .unwrap();
    assert_eq!(
        body,
        concat!(
            r#"{"model":"claude","max_tokens":4096,"stream":true,"#,
            r#""tools":[{"name":"f","description":"Does.","input_schema":{ "type":"object", "properties":{"b":{"type":"string"},"a":{}} }},"#,
            r#"{"name":"g","input_schema":{"type":"object","properties":{}}}],"#,
            r#""system":[{"type":"text","text":"Be brief."},{"type":"text","text":"Be kind."}],"messages":["#,
            r#"{"role":"user","content":[{"type":"text","text":"Weather?"}]},"#,
            r#"{"role":"assistant","content":[{"type":"text","text":"I look."},"#,
            r#"{"type":"tool_use","id":"t1","name":"f","input":{"b":"x", "n":1.50}},"#,
            r#"{"type":"tool_use","id":"t2","name":"g","input":{}}]},"#,
            r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"sunny"}]},"#,
            r#"{"type":"tool_result","tool_use_id":"t2","content":[{"type":"text","text":"no"}],"is_error":true},"#,
            r#"{"type":"text","text":"Hurry."}]},"#,
            r#"{"role":"assistant","content":[{"type":"text","text":"Sunny."}]},"#,
            r#"{"role":"system","content":[{"type":"text","text":"Now be long."}]},"#,
            r#"{"role":"user","content":[{"type":"text","text":"And?"}]}]}"#
        )
    );
}

#[test]
fn images_and_documents() {
    let bytes = || Bytes::from_static(b"\x00\xffPNG");
    let file = MediaSource::File { id: "file_1".into() };
    let document = DocumentPart::url("https://d");
    let parts = vec![
        Part::Image(MediaPart::bytes("image/png", bytes())),
        Part::Image(MediaPart::url("https://i")),
        Part::Image(MediaPart::file("file_1")),
        Part::Document(DocumentPart::bytes("application/pdf", bytes()).with_title("T")),
        Part::Document(DocumentPart {
            source: file,
            ..document.clone()
        }),
        Part::Document(document),
        Part::Document(DocumentPart::text("Notes", "é")),
        Part::Document(DocumentPart::bytes("text/markdown", "# é".as_bytes())),
    ];
    assert_eq!(
        content([Message::new(Role::User, parts)]),
        concat!(
            r#"[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AP9QTkc="}},"#,
            r#"{"type":"image","source":{"type":"url","url":"https://i"}},"#,
            r#"{"type":"image","source":{"type":"file","file_id":"file_1"}},"#,
            r#"{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"AP9QTkc="},"title":"T"},"#,
            r#"{"type":"document","source":{"type":"file","file_id":"file_1"}},"#,
            r#"{"type":"document","source":{"type":"url","url":"https://d"}},"#,
            r#"{"type":"document","source":{"type":"text","media_type":"text/plain","data":"é"},"title":"Notes"},"#,
            r##"{"type":"document","source":{"type":"text","media_type":"text/plain","data":"# é"}}]"##
        )
    );
    let alone = |part: Part| refused(&ChatRequest::new([Message::new(Role::User, vec![part])]));
    assert!(alone(Part::Audio(MediaPart::bytes("audio/wav", bytes()))).contains("audio"));
    let mut untyped = MediaPart::bytes("", bytes());
    untyped.media_type = None;
    assert!(alone(Part::Image(untyped)).contains("media type"));
    assert!(alone(Part::Document(DocumentPart::bytes("text/plain", bytes()))).contains("UTF-8"));
    let image = Message::new(Role::Assistant, vec![Part::Image(MediaPart::url("u"))]);
    assert!(refused(&ChatRequest::new([image])).contains("an image in a message of the role assistant"));
}

#[test]
fn results_with_images_and_odd_ids_and_arguments() {
    let mut result = ToolResult::new(&ToolCall::new("call.1|é", "f", ""), "seen");
    result.content.push(Part::Image(MediaPart::url("https://i")));
    let reference = json!({"type": "tool_reference", "tool_name": "x"});
    result.content.push(opaque("other", reference.clone()));
    result.content.push(opaque("anthropic", reference));
    let request = ChatRequest::new([
        Message::new(
            Role::Assistant,
            vec![
                Part::ToolCall(ToolCall::new("call.1|é", "f", "{\"cut\":")),
                Part::ToolCall(ToolCall::new("b", "f", "[1]")),
            ],
        ),
        Message::tool(result),
    ]);
    assert!(body(&request).ends_with(concat!(
        r#"[{"role":"assistant","content":[{"type":"tool_use","id":"call_1__","name":"f","input":{"invalid_arguments":"{\"cut\":"}},"#,
        r#"{"type":"tool_use","id":"b","name":"f","input":{"invalid_arguments":"[1]"}}]},"#,
        r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"call_1__","content":[{"type":"text","text":"seen"},"#,
        r#"{"type":"image","source":{"type":"url","url":"https://i"}},{"type":"tool_reference","tool_name":"x"}]}]}]}"#
    )));
}

pub(crate) fn opaque(dialect: &str, value: serde_json::Value) -> Part {
    Part::Opaque(OpaquePart {
        dialect: dialect.into(),
        kind: value["type"].as_str().unwrap_or_default().into(),
        value,
    })
}

#[test]
fn what_the_provider_said_goes_back_to_it_alone() {
    let from = |dialect: &str| {
        let data = |value| Some(ProviderData::new(dialect, value));
        let mut call = ToolCall::new("t", "f", "{}");
        call.data = data(json!({"caller": {"type": "direct"}, "id": "not again"}));
        Message::new(
            Role::Assistant,
            vec![
                Part::Reasoning(ReasoningPart {
                    text: "hm".into(),
                    data: data(json!({"signature": "sig"})),
                }),
                Part::Reasoning(ReasoningPart {
                    text: "unsigned".into(),
                    data: None,
                }),
                opaque(dialect, json!({"type": "redacted_thinking", "data": "z"})),
                Part::Text(TextPart {
                    text: "a".into(),
                    data: data(json!({"citations": [{"type": "page_location"}]})),
                }),
                Part::text(""),
                opaque(
                    dialect,
                    json!({"type": "server_tool_use", "id": "s", "input": {"q": 1}}),
                ),
                Part::Refusal(TextPart {
                    text: "No.".into(),
                    data: None,
                }),
                Part::ToolCall(call),
            ],
        )
    };
    assert_eq!(
        content([from("anthropic")]),
        concat!(
            r#"[{"type":"thinking","thinking":"hm","signature":"sig"},{"type":"redacted_thinking","data":"z"},"#,
            r#"{"type":"text","text":"a","citations":[{"type":"page_location"}]},"#,
            r#"{"type":"server_tool_use","id":"s","input":{"q":1}},{"type":"text","text":"No."},"#,
            r#"{"type":"tool_use","id":"t","name":"f","input":{},"caller":{"type":"direct"}}]"#
        )
    );
    assert_eq!(
        content([from("gemini")]),
        r#"[{"type":"text","text":"a"},{"type":"text","text":"No."},{"type":"tool_use","id":"t","name":"f","input":{}}]"#
    );
}

#[test]
fn misplaced_parts_are_refused_by_name() {
    for (role, part, name) in [
        (
            Role::User,
            Part::ToolCall(ToolCall::new("i", "n", "{}")),
            "a tool call",
        ),
        (Role::User, Part::Reasoning(ReasoningPart::default()), "reasoning"),
        (Role::System, Part::Image(MediaPart::url("u")), "an image"),
        (
            Role::Assistant,
            Part::Document(DocumentPart::url("u")),
            "a document",
        ),
        (
            Role::Assistant,
            Part::ToolResult(ToolResult::new(&ToolCall::new("i", "n", "{}"), "r")),
            "a tool result",
        ),
    ] {
        let error = refused(&ChatRequest::new([Message::new(role, vec![part])]));
        assert!(error.contains(name) && error.contains(role.as_str()), "{error}");
    }
    let nameless = Message::new(
        Role::Assistant,
        vec![Part::ToolCall(ToolCall::new("", "n", "{}"))],
    );
    assert!(refused(&ChatRequest::new([nameless])).contains("no id"));
}

#[test]
fn each_turn_begins_with_the_bytes_of_the_one_before() {
    let call = |id: &str| Message::assistant("c").with_part(Part::ToolCall(ToolCall::new(id, "f", "{}")));
    let result = |id: &str| Message::tool(ToolResult::new(&ToolCall::new(id, "f", ""), "r"));
    let signed = Message::new(
        Role::Assistant,
        vec![Part::Reasoning(ReasoningPart {
            text: "hm".into(),
            data: Some(ProviderData::new("anthropic", json!({"signature": "s"}))),
        })],
    );
    let script = [
        Message::system("s"),
        Message::user("a").with_cache_breakpoint(),
        call("1"),
        result("1"),
        signed,
        call("2"),
        result("2"),
        Message::assistant("t"),
        Message::user("b"),
        Message::assistant("u"),
        Message::user("c"),
    ];
    let base = ChatRequest::default().with_tools(tools());
    let used = check_prefixes(&Anthropic::new(), "m", &base, &script, |index| index > 0);
    assert!(used >= 8, "{used}");
}

#[test]
fn a_prefix_of_other_cache_hints_is_not_used() {
    let mut request = ChatRequest::new([
        Message::user("a").with_cache_breakpoint(),
        Message::assistant("b"),
        Message::user("c"),
    ]);
    let capabilities = Capabilities::default();
    let target = target("m", &capabilities);
    let (body, prefix) = encode_for(&Anthropic::new(), &target, &request, Mode::Complete).unwrap();
    let prefix = prefix.unwrap();
    assert_eq!(prefix.count, 2);
    let bytes = Bytes::copy_from_slice(&body.as_bytes()[prefix.range]);
    request.messages.remember_prefix(prefix.key, prefix.count, bytes);
    request.prompt_cache = Some(PromptCache {
        ttl: Some(Duration::from_secs(1)),
        ..PromptCache::default()
    });
    let (body, _) = encode_for(&Anthropic::new(), &target, &request, Mode::Complete).unwrap();
    assert!(body.contains(r#""ttl":"5m""#), "{body}");
}

#[test]
fn one_message_gives_no_prefix() {
    let capabilities = Capabilities::default();
    let (_, prefix) = encode_for(
        &Anthropic::new(),
        &target("m", &capabilities),
        &ask(),
        Mode::Complete,
    )
    .unwrap();
    assert_eq!(prefix, None);
    assert_eq!(
        Anthropic::new().path(&target("m", &capabilities), Mode::Stream),
        "/v1/messages"
    );
}
