//! Stored forms: what is written can be read again, and defaults stay out of it.

use peregrine_core::{
    ChatRequest, DocumentPart, Effort, MediaPart, Message, Part, PromptCache, ReasoningConfig,
    ResponseFormat, Sampling, Scope, ToolCall, ToolChoice, ToolResult, ToolSpec,
};
use serde_json::json;

#[test]
fn a_full_request_survives_json() {
    let call = ToolCall::new("c1", "add", r#"{"a":1}"#);
    let request = ChatRequest::new([
        Message::system("s").with_cache_breakpoint(),
        Message::user("u")
            .with_part(Part::Image(MediaPart::bytes("image/png", vec![0, 255, 7])))
            .with_part(Part::Audio(MediaPart::file("f1")))
            .with_part(Part::Document(DocumentPart::text("t", "body"))),
        Message::assistant("").with_part(Part::ToolCall(call.clone())),
        Message::tool(ToolResult::error(&call, "no")),
    ])
    .with_tools([ToolSpec::new("add", "adds", json!({"type": "object"})).with_strict(true)])
    .with_tool_choice(ToolChoice::Tool("add".into()))
    .with_response_format(ResponseFormat::schema("out", json!({"type": "object"})))
    .with_sampling(Sampling {
        temperature: Some(0.0),
        seed: Some(0),
        stop: vec!["x".into()],
        ..Sampling::default()
    })
    .with_reasoning(ReasoningConfig {
        effort: Some(Effort::Low),
        ..ReasoningConfig::default()
    })
    .with_prompt_cache(PromptCache {
        key: Some("k".into()),
        ..PromptCache::default()
    })
    .with_provider_option("ollama", "keep_alive", 0)
    .with_scope(Scope::new("t", "s").unwrap());
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<ChatRequest>(&text).unwrap(), request);
    assert!(text.contains(r#""temperature":0.0"#), "zero is a value: {text}");
}

#[test]
fn a_small_request_has_a_small_form() {
    let text = serde_json::to_string(&ChatRequest::user("hi")).unwrap();
    assert_eq!(
        text,
        r#"{"messages":[{"role":"user","parts":[{"type":"text","text":"hi"}]}],"tool_choice":"auto","response_format":{"type":"text"},"sampling":{}}"#
    );
}

#[test]
fn unknown_sampling_fields_are_named() {
    let error = serde_json::from_value::<Sampling>(json!({"temprature": 1}))
        .unwrap_err()
        .to_string();
    assert!(error.contains("temprature"), "{error}");
}

#[test]
fn unreadable_arguments_are_kept_and_reported() {
    let call = ToolCall::new("c", "n", "{oops");
    assert!(call.parse_arguments().is_err());
    assert_eq!(ToolCall::new("c", "n", " ").parse_arguments().unwrap(), json!({}));
}
