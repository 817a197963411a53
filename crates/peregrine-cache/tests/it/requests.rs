//! Keys of chat requests: everything that can change an answer counts, nothing else does.

use std::collections::BTreeSet;
use std::time::Duration;

use peregrine_cache::{CacheLayer, Key, Settings};
use peregrine_core::{
    ChatRequest, DocumentPart, Effort, JsonSchema, MediaPart, Message, Messages, ModelInfo, OpaquePart, Part,
    PromptCache, ProviderData, ReasoningConfig, ReasoningPart, ResponseFormat, Role, Scope, TextPart,
    ToolCall, ToolChoice, ToolResult, ToolSpec,
};
use proptest::prelude::*;
use serde_json::json;

fn key(request: &ChatRequest) -> Key {
    CacheLayer::new(Settings::new())
        .key(&ModelInfo::new("p", "m"), request)
        .unwrap()
}

fn base() -> ChatRequest {
    ChatRequest::new([Message::system("s"), Message::user("u")])
}

fn with(change: impl FnOnce(&mut ChatRequest)) -> ChatRequest {
    let mut request = base();
    change(&mut request);
    request
}

fn part(part: Part) -> ChatRequest {
    ChatRequest::new([Message::new(Role::User, vec![part])])
}

#[test]
fn every_field_that_can_change_an_answer_changes_the_key() {
    let tool =
        |name: &str, description: &str, schema| ToolSpec::new(name, description, JsonSchema::new(schema));
    let text = |text: &str, data| TextPart {
        text: text.to_owned(),
        data,
    };
    let data = |value| Some(ProviderData::new("d", value));
    let call = ToolCall::new("id", "n", "{}");
    let requests = vec![
        base(),
        ChatRequest::new([Message::system("su")]),
        ChatRequest::new([Message::user("s"), Message::user("u")]),
        ChatRequest::new([Message::user("u"), Message::system("s")]),
        ChatRequest::new([Message::system("s").with_part(Part::text("u"))]),
        base().with_tools([tool("a", "b", json!({}))]),
        base().with_tools([tool("ab", "", json!({}))]),
        base().with_tools([tool("a", "b", json!({"type": "object"}))]),
        base().with_tools([tool("a", "b", json!({})).with_strict(true)]),
        base().with_tools([tool("a", "b", json!({})).with_strict(false)]),
        base().with_tools([tool("a", "b", json!({})), tool("c", "d", json!({}))]),
        base().with_tools([tool("c", "d", json!({})), tool("a", "b", json!({}))]),
        base().with_tool_choice(ToolChoice::None),
        base().with_tool_choice(ToolChoice::Required),
        base().with_tool_choice(ToolChoice::Tool("a".to_owned())),
        with(|request| request.parallel_tool_calls = Some(true)),
        with(|request| request.parallel_tool_calls = Some(false)),
        base().with_response_format(ResponseFormat::Json),
        base().with_response_format(ResponseFormat::schema("n", json!({}))),
        base().with_response_format(ResponseFormat::schema("m", json!({}))),
        base().with_response_format(ResponseFormat::Schema {
            name: "n".to_owned(),
            schema: JsonSchema::new(json!({})),
            strict: false,
        }),
        base().with_temperature(0.0),
        base().with_temperature(0.5),
        base().with_max_tokens(0),
        base().with_max_tokens(1),
        with(|request| request.sampling.top_p = Some(0.5)),
        with(|request| request.sampling.top_k = Some(1)),
        with(|request| request.sampling.seed = Some(1)),
        with(|request| request.sampling.seed = Some(-1)),
        with(|request| request.sampling.stop = vec!["a".to_owned()]),
        with(|request| request.sampling.stop = vec!["a".to_owned(), String::new()]),
        with(|request| request.sampling.presence_penalty = Some(0.5)),
        with(|request| request.sampling.frequency_penalty = Some(0.5)),
        base().with_reasoning(ReasoningConfig::default()),
        base().with_reasoning(ReasoningConfig {
            effort: Some(Effort::Low),
            ..ReasoningConfig::default()
        }),
        base().with_reasoning(ReasoningConfig {
            budget_tokens: Some(1),
            ..ReasoningConfig::default()
        }),
        base().with_reasoning(ReasoningConfig {
            visible: Some(true),
            ..ReasoningConfig::default()
        }),
        base().with_provider_option("d", "f", 1),
        base().with_provider_option("d", "f", 1.0),
        base().with_provider_option("d", "f", "1"),
        base().with_provider_option("d", "f", json!([1])),
        base().with_provider_option("d", "f", json!({"1": null})),
        base().with_provider_option("d", "g", 1),
        base().with_provider_option("e", "f", 1),
        base().with_scope(Scope::tenant("t").unwrap()),
        base().with_scope(Scope::new("t", "s").unwrap()),
        part(Part::text("x")),
        part(Part::Text(text("x", data(json!(1))))),
        part(Part::Text(text("x", data(json!(2))))),
        part(Part::Refusal(text("x", None))),
        part(Part::Reasoning(ReasoningPart {
            text: "x".to_owned(),
            data: None,
        })),
        part(Part::Image(MediaPart::url("x"))),
        part(Part::Audio(MediaPart::url("x"))),
        part(Part::Image(MediaPart::file("x"))),
        part(Part::Image(MediaPart::bytes("x", "y"))),
        part(Part::Image(MediaPart::url("x").with_media_type("y"))),
        part(Part::Image(MediaPart {
            detail: Some("y".to_owned()),
            ..MediaPart::url("x")
        })),
        part(Part::Document(DocumentPart::url("x"))),
        part(Part::Document(DocumentPart::url("x").with_title("y"))),
        part(Part::Document(DocumentPart::text("x", "y"))),
        part(Part::ToolCall(call.clone())),
        part(Part::ToolCall(ToolCall::new("i", "dn", "{}"))),
        part(Part::ToolResult(ToolResult::new(&call, "x"))),
        part(Part::ToolResult(ToolResult::error(&call, "x"))),
        part(Part::ToolResult(ToolResult {
            content: vec![],
            ..ToolResult::new(&call, "")
        })),
        part(Part::Opaque(OpaquePart {
            dialect: "d".to_owned(),
            kind: "k".to_owned(),
            value: json!(0),
        })),
        part(Part::Opaque(OpaquePart {
            dialect: "d".to_owned(),
            kind: "k".to_owned(),
            value: json!(null),
        })),
    ];
    let keys: BTreeSet<Key> = requests.iter().map(key).collect();
    assert_eq!(
        keys.len(),
        requests.len(),
        "two different requests have the same key"
    );

    let layer = CacheLayer::new(Settings::new());
    let mut others = BTreeSet::from([key(&base())]);
    for (provider, model) in [("p", "m2"), ("p2", "m"), ("pm", ""), ("", "pm")] {
        assert!(others.insert(layer.key(&ModelInfo::new(provider, model), &base()).unwrap()));
    }
    let named = CacheLayer::new(Settings::new()).with_namespace("n");
    assert!(others.insert(named.key(&ModelInfo::new("p", "m"), &base()).unwrap()));
}

#[test]
fn what_cannot_change_an_answer_does_not_change_the_key() {
    let same = [
        base().with_prompt_cache(PromptCache {
            key: Some("k".to_owned()),
            ttl: Some(Duration::from_secs(1)),
            automatic: true,
        }),
        with(|request| {
            request.metadata.insert("trace".to_owned(), "1".to_owned());
        }),
        ChatRequest::new([Message::system("s").with_cache_breakpoint(), Message::user("u")]),
        serde_json::from_value(serde_json::to_value(base()).unwrap()).unwrap(),
    ];
    for request in &same {
        assert_eq!(key(request), key(&base()), "{request:?}");
    }
    assert_eq!(
        key(&base().with_temperature(0.0)),
        key(&base().with_temperature(-0.0))
    );
}

#[test]
fn requests_built_in_different_orders_have_one_key() {
    let forth = base()
        .with_provider_option("a", "x", json!({"1": [1, {"q": 1, "p": 2}], "2": 2}))
        .with_provider_option("a", "y", 1)
        .with_provider_option("b", "z", 1)
        .with_max_tokens(5)
        .with_temperature(0.5);
    let back = base()
        .with_temperature(0.5)
        .with_max_tokens(5)
        .with_provider_option("b", "z", 1)
        .with_provider_option("a", "y", 1)
        .with_provider_option("a", "x", json!({"2": 2, "1": [1, {"p": 2, "q": 1}]}));
    assert_eq!(forth, back);
    assert_eq!(key(&forth), key(&back));
}

#[test]
fn json_that_is_too_deep_has_no_key_and_is_no_overflow() {
    let deep = (0..100_000).fold(json!(1), |inner, _| serde_json::Value::Array(vec![inner]));
    let request = part(Part::Opaque(OpaquePart {
        dialect: String::new(),
        kind: String::new(),
        value: deep,
    }));
    assert_eq!(
        CacheLayer::new(Settings::new()).key(&ModelInfo::new("p", "m"), &request),
        None
    );
    // Dropping it recursively is serde_json's affair.
    std::mem::forget(request);
}

proptest! {
    /// Long conversations are hashed in blocks and remembered: that is never seen in a key.
    #[test]
    fn a_remembered_conversation_has_the_key_of_a_new_one(
        sizes in proptest::collection::vec(0_usize..20_000, 1..12),
        cut in 0_usize..20,
    ) {
        let message = |(at, size): (usize, &usize)| Message::user(format!("{at}{}", "x".repeat(*size)));
        let mut grown = ChatRequest::default();
        for item in sizes.iter().enumerate() {
            grown.messages.push(message(item));
            let fresh = ChatRequest::new(sizes.iter().enumerate().take(item.0 + 1).map(message));
            prop_assert_eq!(key(&grown), key(&fresh));
            prop_assert_eq!(key(&grown), key(&fresh), "and again, remembered");
        }
        let before = key(&grown);
        let cut = cut.min(sizes.len());
        grown.messages.truncate(cut);
        let fresh = ChatRequest::new(sizes.iter().enumerate().take(cut).map(message));
        prop_assert_eq!(key(&grown), key(&fresh));
        prop_assert_eq!(key(&grown) == before, cut == sizes.len());

        // Clones that go on differently share what is remembered, and nothing else.
        let mut other = grown.clone();
        for (request, text) in [(&mut grown, "one"), (&mut other, "two")] {
            request.messages.push(Message::user(text));
            let turns = sizes.iter().enumerate().take(cut).map(message).chain([Message::user(text)]);
            prop_assert_eq!(key(request), key(&ChatRequest::new(turns)));
        }
        prop_assert_ne!(key(&grown), key(&other));
    }

    /// However messages are split, different conversations have different keys.
    #[test]
    fn different_conversations_never_collide(
        one in proptest::collection::vec(("[us]", "[ab]{0,3}", 0_usize..30_000), 0..5),
        two in proptest::collection::vec(("[us]", "[ab]{0,3}", 0_usize..30_000), 0..5),
    ) {
        let request = |turns: &[(String, String, usize)]| {
            let messages: Vec<_> = turns
                .iter()
                .map(|(role, text, size)| {
                    let text = text.repeat(size / 3 + 1);
                    if role == "u" { Message::user(text) } else { Message::system(text) }
                })
                .collect();
            ChatRequest { messages: Messages::from(messages), ..ChatRequest::default() }
        };
        let (one, two) = (request(&one), request(&two));
        prop_assert_eq!(key(&one) == key(&two), one == two);
    }
}
