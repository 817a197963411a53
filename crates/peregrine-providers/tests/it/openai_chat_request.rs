//! Chat Completions: the exact bytes of everything beside the messages.

use std::time::Duration;

use peregrine_core::{
    ChatRequest, Effort, JsonSchema, Message, PromptCache, ReasoningConfig, ResponseFormat, Sampling, Scope,
    ToolChoice, ToolSpec,
};
use peregrine_providers::wire::Mode;
use peregrine_providers::wire::openai_chat::{ChatCompat, OpenAiChat};
use serde_json::json;

use crate::peer::Peer;

fn peer(provider: &'static str) -> Peer<OpenAiChat> {
    let compat = ChatCompat::of_provider(provider).expect("a preset");
    Peer::new(OpenAiChat::new(compat), provider)
}

fn openai() -> Peer<OpenAiChat> {
    peer("openai")
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
fn streams_ask_for_usage_where_it_must_be_asked_for() {
    let request = ChatRequest::user("a");
    let stream = |provider| peer(provider).encode(&request, Mode::Stream).unwrap().0;
    let messages = r#""messages":[{"role":"user","content":"a"}]}"#;
    assert_eq!(
        stream("openai"),
        format!(r#"{{"model":"m","stream":true,"stream_options":{{"include_usage":true}},{messages}"#)
    );
    assert_eq!(
        stream("groq"),
        format!(r#"{{"model":"m","stream":true,{messages}"#)
    );
}

#[test]
fn tools_and_every_choice() {
    let tools = r#""tools":[{"type":"function","function":{"name":"weather","description":"Says the weather.","parameters":{ "type": "object", "properties": { "city": { "type": "string" } } }}}]"#;
    let messages = r#""messages":[{"role":"user","content":"a"}]}"#;
    let ask = |choice| {
        ChatRequest::user("a")
            .with_tools([weather()])
            .with_tool_choice(choice)
    };
    for (choice, written) in [
        (ToolChoice::Auto, ""),
        (ToolChoice::None, r#""tool_choice":"none","#),
        (ToolChoice::Required, r#""tool_choice":"required","#),
        (
            ToolChoice::Tool("weather".to_owned()),
            r#""tool_choice":{"type":"function","function":{"name":"weather"}},"#,
        ),
    ] {
        assert_eq!(
            openai().body(&ask(choice)),
            format!(r#"{{"model":"m",{tools},{written}{messages}"#)
        );
    }
    let any = peer("mistral").body(&ask(ToolChoice::Required));
    assert_eq!(
        any,
        format!(r#"{{"model":"m",{tools},"tool_choice":"any",{messages}"#)
    );
    let mut parallel = ask(ToolChoice::Auto);
    for flag in [true, false] {
        parallel.parallel_tool_calls = Some(flag);
        let expected = format!(r#"{{"model":"m",{tools},"parallel_tool_calls":{flag},{messages}"#);
        assert_eq!(openai().body(&parallel), expected);
    }
    let refusals = [
        ("ollama", ask(ToolChoice::Required), "tool_choice"),
        ("deepseek", parallel, "parallel_tool_calls"),
        (
            "openai",
            ask(ToolChoice::Tool("other".to_owned())),
            "not among the tools",
        ),
        (
            "openai",
            ChatRequest::user("a").with_tool_choice(ToolChoice::Required),
            "none is offered",
        ),
    ];
    for (provider, request, word) in refusals {
        let refusal = peer(provider).refusal(&request, Mode::Complete);
        assert!(refusal.contains(word), "{refusal}");
    }
    let without = ChatRequest::user("a").with_tool_choice(ToolChoice::None);
    assert_eq!(openai().body(&without), format!(r#"{{"model":"m",{messages}"#));
}

#[test]
fn strict_schemas_are_adapted_and_others_stay_as_written() {
    let strict = ChatRequest::user("a").with_tools([weather().with_strict(true)]);
    let adapted = r#"{"type":"object","properties":{"city":{"type":["string","null"]}},"required":["city"],"additionalProperties":false}"#;
    assert!(
        openai()
            .body(&strict)
            .contains(&format!(r#""parameters":{adapted},"strict":true}}"#))
    );
    let plain = r#""parameters":{ "type": "object", "properties": { "city": { "type": "string" } } }}}]"#;
    assert!(
        peer("ollama").body(&strict).contains(plain),
        "a server that knows no strict gets the author's text"
    );
    let loose = ChatRequest::user("a").with_tools([weather().with_strict(false)]);
    assert!(openai().body(&loose).contains(r#"} },"strict":false}"#));
    let broken = ToolSpec::new("a", "", json!({"type": "object", "not": {}})).with_strict(true);
    let refusal = openai().refusal(&ChatRequest::user("a").with_tools([broken]), Mode::Complete);
    assert!(refusal.contains("`not` at #"), "{refusal}");
}

#[test]
fn structured_output_in_each_form() {
    let schema =
        JsonSchema::parse(r#"{ "type": "object", "properties": { "a": { "type": "integer" } } }"#).unwrap();
    let format = |strict| ResponseFormat::Schema {
        name: "answer".to_owned(),
        schema: schema.clone(),
        strict,
    };
    let ask = |format| ChatRequest::user("a").with_response_format(format);
    let messages = r#""messages":[{"role":"user","content":"a"}]}"#;
    assert_eq!(
        openai().body(&ask(format(true))),
        format!(
            r#"{{"model":"m","response_format":{{"type":"json_schema","json_schema":{{"name":"answer","strict":true,"schema":{{"type":"object","properties":{{"a":{{"type":["integer","null"]}}}},"required":["a"],"additionalProperties":false}}}}}},{messages}"#
        )
    );
    assert_eq!(
        openai().body(&ask(format(false))),
        format!(
            r#"{{"model":"m","response_format":{{"type":"json_schema","json_schema":{{"name":"answer","strict":false,"schema":{}}}}},{messages}"#,
            schema.as_str()
        )
    );
    assert_eq!(
        openai().body(&ask(ResponseFormat::Json)),
        format!(r#"{{"model":"m","response_format":{{"type":"json_object"}},{messages}"#)
    );
    peer("groq").body(&ask(format(true)));
    for (provider, format, mode, word) in [
        ("groq", ResponseFormat::Json, Mode::Stream, "in a stream"),
        ("groq", format(true), Mode::Stream, "in a stream"),
        ("deepseek", format(false), Mode::Complete, "with a schema"),
        (
            "lmstudio",
            ResponseFormat::Json,
            Mode::Complete,
            "without a schema",
        ),
        (
            "openai",
            ResponseFormat::schema("a name", schema.clone()),
            Mode::Complete,
            "A-Za-z0-9_-",
        ),
    ] {
        let refusal = peer(provider).refusal(&ask(format), mode);
        assert!(refusal.contains(word), "{refusal}");
    }
}

#[test]
fn every_sampling_field_and_zero_is_a_value() {
    let all = |top_k| {
        let sampling = Sampling {
            temperature: Some(0.0),
            top_p: Some(0.5),
            top_k,
            max_tokens: Some(0),
            seed: Some(0),
            stop: vec!["\n".to_owned(), String::new()],
            presence_penalty: Some(0.0),
            frequency_penalty: Some(-2.0),
        };
        ChatRequest::user("a").with_sampling(sampling)
    };
    let messages = r#""messages":[{"role":"user","content":"a"}]}"#;
    assert_eq!(
        openai().body(&all(None)),
        format!(
            r#"{{"model":"m","max_completion_tokens":0,"temperature":0.0,"top_p":0.5,"presence_penalty":0.0,"frequency_penalty":-2.0,"seed":0,"stop":["\n",""],{messages}"#
        )
    );
    assert_eq!(
        peer("mistral").body(&all(Some(0))),
        format!(
            r#"{{"model":"m","max_tokens":0,"temperature":0.0,"top_p":0.5,"top_k":0,"presence_penalty":0.0,"frequency_penalty":-2.0,"random_seed":0,"stop":["\n",""],{messages}"#
        )
    );
    for (provider, request, word) in [
        ("openai", all(Some(1)), "top_k"),
        ("deepseek", all(None), "seed"),
        ("gemini", all(None), "presence_penalty"),
        (
            "openai",
            ChatRequest::user("a").with_temperature(f64::NAN),
            "temperature",
        ),
    ] {
        let refusal = peer(provider).refusal(&request, Mode::Complete);
        assert!(refusal.contains(word), "{refusal}");
    }
}

#[test]
fn reasoning_in_each_form() {
    let config = |effort, budget_tokens, visible| {
        let config = ReasoningConfig {
            effort,
            budget_tokens,
            visible,
        };
        ChatRequest::user("a").with_reasoning(config)
    };
    let fields = |provider, request: &ChatRequest| {
        let body = peer(provider).body(request);
        let fields = body.strip_prefix(r#"{"model":"m""#).unwrap();
        fields
            .strip_suffix(r#","messages":[{"role":"user","content":"a"}]}"#)
            .unwrap()
            .to_owned()
    };
    let high = config(Some(Effort::High), None, None);
    assert_eq!(fields("openai", &high), r#","reasoning_effort":"high""#);
    assert_eq!(
        fields("deepseek", &high),
        r#","thinking":{"type":"enabled"},"reasoning_effort":"high""#
    );
    let off = config(Some(Effort::None), None, None);
    assert_eq!(fields("openai", &off), r#","reasoning_effort":"none""#);
    assert_eq!(fields("zai", &off), r#","thinking":{"type":"disabled"}"#);
    assert_eq!(fields("openrouter", &high), r#","reasoning":{"effort":"high"}"#);
    let hidden = config(None, Some(0), Some(false));
    assert_eq!(
        fields("openrouter", &hidden),
        r#","reasoning":{"max_tokens":0,"exclude":true}"#
    );
    assert_eq!(fields("openrouter", &config(None, None, None)), "");
    let shown = config(None, None, Some(true));
    assert_eq!(fields("groq", &shown), r#","include_reasoning":true"#);
    assert_eq!(fields("deepseek", &shown), "", "it always shows");
    assert_eq!(
        fields("openai", &config(None, None, Some(false))),
        "",
        "it never shows"
    );
    for (provider, request, word) in [
        ("openai", shown, "reasoning.visible"),
        ("deepseek", config(None, None, Some(false)), "reasoning.visible"),
        ("openai", config(None, Some(1), None), "budget_tokens"),
        (
            "openrouter",
            config(Some(Effort::Low), Some(1), None),
            "choose one",
        ),
        ("llama.cpp", high, "reasoning.effort"),
    ] {
        let refusal = peer(provider).refusal(&request, Mode::Complete);
        assert!(refusal.contains(word), "{refusal}");
    }
}

#[test]
fn prompt_cache_hints() {
    let hints = |minutes: u64, automatic| {
        let hints = PromptCache {
            key: Some("k".to_owned()),
            ttl: Some(Duration::from_secs(60 * minutes)),
            automatic,
        };
        ChatRequest::new([Message::system("s").with_cache_breakpoint(), Message::user("a")])
            .with_prompt_cache(hints)
    };
    let plain = r#""messages":[{"role":"system","content":"s"},{"role":"user","content":"a"}]}"#;
    let marked = |mark: &str| {
        format!(
            r#""messages":[{{"role":"system","content":[{{"type":"text","text":"s",{mark}}}]}},{{"role":"user","content":"a"}}]}}"#
        )
    };
    assert_eq!(
        openai().body(&hints(60, false)),
        format!(r#"{{"model":"m","prompt_cache_key":"k","prompt_cache_retention":"24h",{plain}"#)
    );
    assert_eq!(
        openai().body(&hints(5, false)),
        format!(r#"{{"model":"m","prompt_cache_key":"k",{plain}"#)
    );
    let newer = openai().with_capabilities(|can| can.prompt_cache_breakpoints = true);
    let breakpoint = marked(r#""prompt_cache_breakpoint":{"mode":"explicit"}"#);
    assert_eq!(
        newer.body(&hints(31, true)),
        format!(
            r#"{{"model":"m","prompt_cache_key":"k","prompt_cache_options":{{"ttl":"12h"}},{breakpoint}"#
        )
    );
    let control = r#""cache_control":{"type":"ephemeral","ttl":"1h"}"#;
    assert_eq!(
        peer("openrouter").body(&hints(6, true)),
        format!(
            r#"{{"model":"m","prompt_cache_key":"k",{control},{}"#,
            marked(control)
        )
    );
    assert_eq!(
        peer("openrouter").body(&hints(5, false)),
        format!(
            r#"{{"model":"m","prompt_cache_key":"k",{}"#,
            marked(r#""cache_control":{"type":"ephemeral"}"#)
        )
    );
    assert_eq!(
        peer("llama.cpp").body(&hints(60, true)),
        format!(r#"{{"model":"m",{plain}"#)
    );
}

#[test]
fn options_replace_what_the_codec_wrote_and_local_fields_stay_here() {
    let mut request = ChatRequest::user("a")
        .with_temperature(1.0)
        .with_provider_option("openai-chat", "temperature", json!(0))
        .with_provider_option("openai-chat", "logit_bias", json!({"50256": -100}))
        .with_provider_option("openai-chat", "tools", json!([{"type": "web_search"}]))
        .with_provider_option("gemini", "ignored", json!(true))
        .with_tool_choice(ToolChoice::Required)
        .with_scope(Scope::new("secret-tenant", "s").unwrap());
    request.metadata.insert("secret-label".to_owned(), "x".to_owned());
    assert_eq!(
        openai().body(&request),
        concat!(
            r#"{"model":"m","tool_choice":"required","temperature":0,"logit_bias":{"50256":-100},"#,
            r#""tools":[{"type":"web_search"}],"messages":[{"role":"user","content":"a"}]}"#
        )
    );
    let replaced = ChatRequest::user("a").with_provider_option("openai-chat", "messages", json!([]));
    assert_eq!(openai().body(&replaced), r#"{"model":"m","messages":[]}"#);
    let stream = ChatRequest::user("a").with_provider_option("openai-chat", "stream", json!(true));
    openai().refusal(&stream, Mode::Complete);
}
