//! The settings of requests to the Messages API, byte for byte.

use std::time::Duration;

use peregrine_core::{
    Capabilities, ChatRequest, Effort, JsonSchema, Message, Part, PromptCache, ReasoningConfig,
    ResponseFormat, Role, Sampling, ToolChoice, ToolSpec,
};
use peregrine_providers::wire::Mode;
use peregrine_providers::wire::anthropic::Anthropic;
use serde_json::json;

use crate::anthropic_request::{ask, body, content, opaque, refused};
use crate::support::{encode, encode_for, target};

/// What stands between `max_tokens` and the messages.
fn settings(request: &ChatRequest) -> String {
    settings_of(&body(request))
}

fn settings_of(body: &str) -> String {
    let rest = body
        .strip_prefix(r#"{"model":"m","max_tokens":4096"#)
        .expect("the head");
    let rest = rest
        .strip_suffix(r#","messages":[{"role":"user","content":[{"type":"text","text":"q"}]}]}"#)
        .expect("the tail");
    rest.to_owned()
}

#[test]
fn tool_choices() {
    let offer = |choice, parallel| {
        let mut request = ask().with_tools([ToolSpec::new("f", "", JsonSchema::empty_object())]);
        request.tool_choice = choice;
        request.parallel_tool_calls = parallel;
        settings(&request).replace(
            r#","tools":[{"name":"f","input_schema":{"type":"object","properties":{}}}]"#,
            "",
        )
    };
    assert_eq!(offer(ToolChoice::Auto, None), "");
    assert_eq!(
        offer(ToolChoice::Auto, Some(false)),
        r#","tool_choice":{"type":"auto","disable_parallel_tool_use":true}"#
    );
    assert_eq!(
        offer(ToolChoice::Required, Some(true)),
        r#","tool_choice":{"type":"any","disable_parallel_tool_use":false}"#
    );
    assert_eq!(
        offer(ToolChoice::Tool("f".into()), None),
        r#","tool_choice":{"type":"tool","name":"f"}"#
    );
    assert_eq!(
        offer(ToolChoice::None, Some(true)),
        r#","tool_choice":{"type":"none"}"#
    );
    assert_eq!(settings(&ask().with_tool_choice(ToolChoice::None)), "");
    assert!(refused(&ask().with_tool_choice(ToolChoice::Required)).contains("tool_choice"));
    let server_tools = ask().with_tool_choice(ToolChoice::Required).with_provider_option(
        "anthropic",
        "tools",
        json!([{"type": "web_search_20250305"}]),
    );
    assert_eq!(
        settings(&server_tools),
        r#","tool_choice":{"type":"any"},"tools":[{"type":"web_search_20250305"}]"#
    );
}

#[test]
fn schemas_are_adapted_where_the_fit_is_guaranteed() {
    let schema =
        JsonSchema::parse(r#"{ "type":"object","properties":{"n":{"type":"integer","minimum":1}} }"#)
            .unwrap();
    assert_eq!(
        settings(&ask().with_response_format(ResponseFormat::schema("answer", schema.clone()))),
        concat!(
            r#","output_config":{"format":{"type":"json_schema","schema":{"type":"object","#,
            r#""properties":{"n":{"type":"integer","description":"(minimum: 1)"}},"additionalProperties":false}}}"#
        )
    );
    let loose = ResponseFormat::Schema {
        name: "answer".into(),
        schema: schema.clone(),
        strict: false,
    };
    assert_eq!(
        settings(&ask().with_response_format(loose)),
        r#","output_config":{"format":{"type":"json_schema","schema":{ "type":"object","properties":{"n":{"type":"integer","minimum":1}} }}}"#
    );
    let strict =
        |strict| settings(&ask().with_tools([ToolSpec::new("f", "", schema.clone()).with_strict(strict)]));
    assert_eq!(
        strict(true),
        concat!(
            r#","tools":[{"name":"f","input_schema":{"type":"object","properties":{"n":{"type":"integer","#,
            r#""description":"(minimum: 1)"}},"additionalProperties":false},"strict":true}]"#
        )
    );
    assert!(strict(false).ends_with(r#""minimum":1}} },"strict":false}]"#));
    assert!(refused(&ask().with_response_format(ResponseFormat::Json)).contains("give a schema"));
}

#[test]
fn sampling_and_what_of_it_cannot_be_said() {
    let sampling = Sampling {
        temperature: Some(0.0),
        top_p: Some(0.5),
        top_k: Some(0),
        max_tokens: Some(0),
        stop: vec!["END".into(), String::new()],
        ..Sampling::default()
    };
    assert_eq!(
        body(&ask().with_sampling(sampling)),
        concat!(
            r#"{"model":"m","max_tokens":0,"temperature":0.0,"top_p":0.5,"top_k":0,"stop_sequences":["END",""],"#,
            r#""messages":[{"role":"user","content":[{"type":"text","text":"q"}]}]}"#
        )
    );
    for (sampling, name) in [
        (
            Sampling {
                seed: Some(0),
                ..Sampling::default()
            },
            "seed",
        ),
        (
            Sampling {
                presence_penalty: Some(0.0),
                ..Sampling::default()
            },
            "presence_penalty",
        ),
        (
            Sampling {
                frequency_penalty: Some(0.0),
                ..Sampling::default()
            },
            "frequency_penalty",
        ),
        (
            Sampling {
                temperature: Some(f64::NAN),
                ..Sampling::default()
            },
            "temperature",
        ),
        (
            Sampling {
                top_p: Some(f64::INFINITY),
                ..Sampling::default()
            },
            "top_p",
        ),
    ] {
        assert!(refused(&ask().with_sampling(sampling)).contains(name), "{name}");
    }
    assert!(
        refused(&ask().with_sampling(Sampling {
            seed: Some(1),
            ..Sampling::default()
        }))
        .contains("anthropic")
    );
}

#[test]
fn max_tokens_comes_from_the_request_the_model_or_the_codec() {
    let mut capabilities = Capabilities::default();
    let head = |codec: &Anthropic, capabilities: &Capabilities, request: &ChatRequest| {
        let (body, _) = encode_for(codec, &target("m", capabilities), request, Mode::Complete).unwrap();
        body.split_once(r#""max_tokens":"#)
            .unwrap()
            .1
            .split(',')
            .next()
            .unwrap()
            .to_owned()
    };
    let codec = Anthropic::new().with_max_tokens(100);
    assert_eq!(head(&Anthropic::new(), &capabilities, &ask()), "4096");
    assert_eq!(head(&codec, &capabilities, &ask()), "100");
    let thinks = ReasoningConfig {
        budget_tokens: Some(2048),
        ..ReasoningConfig::default()
    };
    assert_eq!(head(&codec, &capabilities, &ask().with_reasoning(thinks)), "2148");
    capabilities.max_output_tokens = Some(64_000);
    assert_eq!(head(&codec, &capabilities, &ask()), "64000");
    assert_eq!(head(&codec, &capabilities, &ask().with_max_tokens(7)), "7");
}

#[test]
fn reasoning() {
    let thinks = |effort, budget_tokens, visible| {
        let config = ReasoningConfig {
            effort,
            budget_tokens,
            visible,
        };
        encode(
            &Anthropic::new(),
            "m",
            &ask().with_reasoning(config).with_max_tokens(4096),
        )
        .map(|body| settings_of(&body))
    };
    let said = |text: &str| Ok(text.to_owned());
    assert_eq!(thinks(None, None, None), said(""));
    assert_eq!(
        thinks(Some(Effort::None), None, None),
        said(r#","thinking":{"type":"disabled"}"#)
    );
    assert_eq!(
        thinks(None, Some(0), None),
        said(r#","thinking":{"type":"disabled"}"#)
    );
    assert_eq!(
        thinks(Some(Effort::XHigh), None, None),
        said(r#","thinking":{"type":"adaptive"},"output_config":{"effort":"xhigh"}"#)
    );
    assert_eq!(
        thinks(Some(Effort::Max), Some(1024), Some(false)),
        said(
            r#","thinking":{"type":"enabled","budget_tokens":1024,"display":"omitted"},"output_config":{"effort":"max"}"#
        )
    );
    assert_eq!(
        thinks(None, None, Some(true)),
        said(r#","thinking":{"type":"adaptive","display":"summarized"}"#)
    );
    for (refused, name) in [
        (thinks(None, Some(1023), None), "1024"),
        (thinks(None, Some(4096), None), "max_tokens"),
        (thinks(Some(Effort::Minimal), None, None), "minimal"),
        (thinks(Some(Effort::None), Some(2000), None), "contradict"),
        (thinks(Some(Effort::Low), Some(0), None), "contradict"),
    ] {
        assert!(refused.clone().unwrap_err().contains(name), "{refused:?}");
    }
    let both = ask()
        .with_reasoning(ReasoningConfig {
            effort: Some(Effort::Low),
            ..ReasoningConfig::default()
        })
        .with_response_format(ResponseFormat::schema("s", json!({"type": "null"})));
    assert!(settings(&both).ends_with(
        r#""output_config":{"effort":"low","format":{"type":"json_schema","schema":{"type":"null"}}}"#
    ));
}

#[test]
fn prompt_cache() {
    let cache = |ttl: Option<u64>, automatic| PromptCache {
        key: None,
        ttl: ttl.map(Duration::from_secs),
        automatic,
    };
    let marked = ChatRequest::new([
        Message::system("s").with_cache_breakpoint(),
        Message::user("u").with_cache_breakpoint(),
        Message::new(
            Role::Assistant,
            vec![
                Part::text("a"),
                opaque("anthropic", json!({"type": "redacted_thinking"})),
            ],
        )
        .with_cache_breakpoint(),
    ])
    .with_prompt_cache(cache(Some(301), true));
    assert_eq!(
        body(&marked),
        concat!(
            r#"{"model":"m","max_tokens":4096,"cache_control":{"type":"ephemeral","ttl":"1h"},"#,
            r#""system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral","ttl":"1h"}}],"messages":["#,
            r#"{"role":"user","content":[{"type":"text","text":"u","cache_control":{"type":"ephemeral","ttl":"1h"}}]},"#,
            r#"{"role":"assistant","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral","ttl":"1h"}},{"type":"redacted_thinking"}]}]}"#
        )
    );
    assert_eq!(
        content([Message::user("u").with_cache_breakpoint()]),
        r#"[{"type":"text","text":"u","cache_control":{"type":"ephemeral"}}]"#
    );
    assert_eq!(
        settings(&ask().with_prompt_cache(cache(Some(1), true))),
        r#","cache_control":{"type":"ephemeral","ttl":"5m"}"#
    );
    assert_eq!(settings(&ask().with_prompt_cache(cache(Some(1), false))), "");
    let many = |count| ChatRequest::new((0..count).map(|_| Message::user("u").with_cache_breakpoint()));
    assert!(encode(&Anthropic::new(), "m", &many(4)).is_ok());
    assert!(refused(&many(5)).contains("5 cache breakpoints"));
    assert!(refused(&many(4).with_prompt_cache(cache(None, true))).contains("5 cache breakpoints"));
    assert_eq!(
        settings(&ask().with_prompt_cache(cache(Some(3601), true))),
        r#","cache_control":{"type":"ephemeral","ttl":"1h"}"#,
        "the longest there is"
    );
    let keyed = PromptCache {
        key: Some("k".into()),
        ..PromptCache::default()
    };
    assert_eq!(
        settings(&ask().with_prompt_cache(keyed)),
        "",
        "a hint without a word is passed over"
    );
}

#[test]
fn provider_options_replace_fields_and_stand_before_the_messages() {
    let request = ask()
        .with_temperature(1.0)
        .with_provider_option("anthropic", "temperature", 0)
        .with_provider_option("anthropic", "metadata", json!({"user_id": "7"}))
        .with_provider_option("gemini", "safetySettings", json!([]));
    assert_eq!(
        settings(&request),
        r#","temperature":0,"metadata":{"user_id":"7"}"#
    );
    let messages = ask().with_provider_option("anthropic", "messages", json!([1]));
    assert_eq!(
        body(&messages),
        r#"{"model":"m","max_tokens":4096,"messages":[1]}"#
    );
}
