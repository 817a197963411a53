//! The fields that real answers always have are in the rendered ones too. Skipped where there are no
//! recordings to compare with.
//!
//! For each kind of body or event, the paths of fields that every recording has are collected (`.a.b`,
//! `.list[].c`); a rendered one must have all of them.

use std::collections::{BTreeMap, BTreeSet};

use peregrine_testkit::server::{Dialect, Reply, Usage};
use serde_json::{Value, json};

use crate::client::{call, events};
use crate::decode;
use crate::recordings::recordings;
use crate::server;

type Paths = BTreeSet<String>;
/// Paths that all values of a kind have.
type Kinds = BTreeMap<String, Paths>;

fn paths(value: &Value, at: &str, out: &mut Paths) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let at = format!("{at}.{name}");
                paths(value, &at, out);
                out.insert(at);
            }
        }
        Value::Array(items) => {
            for item in items {
                paths(item, &format!("{at}[]"), out);
            }
        }
        _ => {}
    }
}

fn add(kinds: &mut Kinds, kind: String, value: &Value) {
    let mut found = Paths::new();
    paths(value, "", &mut found);
    match kinds.get_mut(&kind) {
        Some(common) => *common = common.intersection(&found).cloned().collect(),
        None => {
            kinds.insert(kind, found);
        }
    }
}

/// Adds a complete body, or each event of a stream by its type and by what it holds.
fn add_body(kinds: &mut Kinds, dialect: Dialect, text: &str, is_stream: bool) {
    if !is_stream {
        add(
            kinds,
            format!("{dialect:?} complete"),
            &serde_json::from_str(text).unwrap(),
        );
        return;
    }
    for (_, data) in events(text) {
        let Ok(event) = serde_json::from_str::<Value>(&data) else {
            continue;
        };
        let mut kind = format!("{dialect:?} {}", event["type"].as_str().unwrap_or("chunk"));
        for field in ["delta", "item", "part", "content_block"] {
            kind.push_str(
                event[field]["type"]
                    .as_str()
                    .map(|t| format!(" {t}"))
                    .as_deref()
                    .unwrap_or(""),
            );
        }
        add(kinds, kind, &event);
    }
}

fn dialect(provider: &str, path: &str) -> Option<Dialect> {
    match provider {
        "openai" if path.contains("/chat/completions") => Some(Dialect::OpenAiChat),
        "openai" if path.split('?').next()?.ends_with("/responses") => Some(Dialect::OpenAiResponses),
        "anthropic" => Some(Dialect::Anthropic),
        "gemini" if path.contains("enerateContent") => Some(Dialect::Gemini),
        _ => None,
    }
}

#[tokio::test]
async fn rendered_answers_have_every_field_that_real_ones_always_have() {
    let Some(recordings) = recordings() else { return };
    let mut real = Kinds::new();
    for interaction in recordings.iter().flat_map(|recording| &recording.interactions) {
        let Some(dialect) = dialect(&interaction.provider, &interaction.path) else {
            continue;
        };
        if interaction.status == 200 {
            add_body(
                &mut real,
                dialect,
                std::str::from_utf8(&interaction.body).unwrap(),
                interaction.is_stream(),
            );
        }
    }
    assert!(real.len() > 25, "{:?}", real.keys());

    let usage = Usage::new(100, 40).with_reasoning(15);
    let replies = [
        Reply::text("Hello there.").with_usage(usage),
        Reply::tool_call("c", "t", json!({"a": 1})),
        Reply::text("x")
            .with_reasoning("r", Some("s"))
            .with_tool_call("c", "t", json!({"a": 1})),
    ];
    let mut compared = BTreeSet::new();
    for dialect in [
        Dialect::OpenAiChat,
        Dialect::OpenAiResponses,
        Dialect::Anthropic,
        Dialect::Gemini,
    ] {
        for is_stream in [false, true] {
            for reply in &replies {
                let server = server().await;
                server.push(reply.clone());
                let (target, headers, mut body) = decode::request(dialect, is_stream);
                // Every recording of Responses echoes the tools and the reasoning it was asked with.
                body["reasoning"] = json!({"effort": "low", "summary": "auto"});
                let answer = call(server.addr(), &target, &headers, &body).await.unwrap();
                let mut rendered = Kinds::new();
                add_body(&mut rendered, dialect, answer.text(), is_stream);
                for (kind, have) in rendered {
                    let Some(want) = real.get(&kind) else { continue };
                    let lacking: Vec<_> = want
                        .difference(&have)
                        .filter(|path| !path.contains(".tools[]"))
                        .collect();
                    assert!(lacking.is_empty(), "{kind} lacks {lacking:?}; it has {have:?}");
                    compared.insert(kind);
                }
            }
        }
    }
    for kind in [
        "OpenAiChat complete",
        "OpenAiChat chunk",
        "OpenAiResponses complete",
        "OpenAiResponses response.completed",
        "OpenAiResponses response.output_text.delta",
        "OpenAiResponses response.function_call_arguments.delta",
        "OpenAiResponses response.output_item.added function_call",
        "Anthropic complete",
        "Anthropic message_start",
        "Anthropic message_delta",
        "Anthropic content_block_delta thinking_delta",
        "Anthropic content_block_delta signature_delta",
        "Anthropic content_block_delta input_json_delta",
        "Anthropic content_block_start tool_use",
        "Gemini complete",
        "Gemini chunk",
    ] {
        assert!(compared.contains(kind), "{kind} was not compared; {compared:?}");
    }
}
