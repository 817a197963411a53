//! A request as `generateContent` takes it.
//!
//! Order of the body: system instruction, tools and configuration first, `contents` last, so that what grows
//! from turn to turn stands at the end.

use peregrine_core::{
    ChatRequest, Effort, Error, JsonSchema, Messages, ReasoningConfig, ResponseFormat, Result, Role,
    Sampling, ToolChoice, ToolSpec,
};
use serde::Serialize;

use super::content::Content;
use super::{DIALECT, Gemini};
use crate::wire::body::{Body, cannot_say, finite};
use crate::wire::turns::{self, TurnDialect, Written};
use crate::wire::{EncodedPrefix, Target, json};

pub(super) fn encode(
    codec: &Gemini,
    target: &Target<'_>,
    request: &ChatRequest,
    out: &mut Vec<u8>,
) -> Result<Option<EncodedPrefix>> {
    let ChatRequest {
        messages,
        tools,
        tool_choice,
        parallel_tool_calls,
        response_format,
        sampling,
        reasoning,
        // The provider caches by itself, and takes no hints.
        prompt_cache: _,
        provider_options,
        scope: _,
        metadata: _,
    } = request;
    if *parallel_tool_calls == Some(false) {
        return Err(cannot_say(
            DIALECT,
            "parallel_tool_calls: false",
            "leave it unset and run the calls one after the other",
        ));
    }
    let dialect = Content::for_model(target.model);
    let mut body = Body::open(out, provider_options.for_dialect(DIALECT));
    write_system(&mut body, messages, &dialect)?;
    write_tools(codec, &mut body, tools)?;
    write_tool_config(&mut body, tools, tool_choice)?;
    write_generation_config(codec, &mut body, sampling, response_format, reasoning.as_ref())?;
    body.close("contents", |out| {
        out.push(b'[');
        let key = turns::prefix_key((DIALECT, &dialect));
        let prefix = turns::write(&dialect, messages, 0, key, out)?;
        out.push(b']');
        Ok(prefix)
    })
}

fn write_system(body: &mut Body<'_>, messages: &Messages, dialect: &Content) -> Result<()> {
    let mut system = messages
        .iter()
        .filter(|message| message.role == Role::System)
        .peekable();
    if system.peek().is_none() {
        return Ok(());
    }
    let Some(out) = body.place("systemInstruction") else {
        return Ok(());
    };
    out.extend_from_slice(br#"{"parts":["#);
    for message in system {
        for index in 0..message.parts.len() {
            let before = out.len();
            if out.last() == Some(&b'}') {
                out.push(b',');
            }
            if dialect.item(message, index, out)? == Written::Nothing {
                out.truncate(before);
            }
        }
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

fn write_tools(codec: &Gemini, body: &mut Body<'_>, tools: &[ToolSpec]) -> Result<()> {
    if tools.is_empty() {
        return Ok(());
    }
    let Some(out) = body.place("tools") else {
        return Ok(());
    };
    out.extend_from_slice(br#"[{"functionDeclarations":["#);
    for (place, tool) in tools.iter().enumerate() {
        let ToolSpec {
            name,
            description,
            parameters,
            strict: _,
        } = tool;
        out.extend_from_slice(if place == 0 {
            br#"{"name":"#
        } else {
            br#",{"name":"#
        });
        json::write(out, name);
        if !description.is_empty() {
            json::field(out, "description", description);
        }
        out.push(b',');
        write_schema(codec, ["parametersJsonSchema", "parameters"], parameters, out)?;
        out.push(b'}');
    }
    out.extend_from_slice(b"]}]");
    Ok(())
}

/// Writes a schema under the first name as JSON Schema, or under the second in OpenAPI's form.
fn write_schema(codec: &Gemini, names: [&str; 2], schema: &JsonSchema, out: &mut Vec<u8>) -> Result<()> {
    let [json_schema, open_api] = names;
    match &codec.open_api {
        None => {
            json::write(out, json_schema);
            out.push(b':');
            out.extend_from_slice(schema.as_str().as_bytes());
        }
        Some(schemas) => {
            json::write(out, open_api);
            out.push(b':');
            out.extend_from_slice(schemas.get(schema)?.as_str().as_bytes());
        }
    }
    Ok(())
}

fn write_tool_config(body: &mut Body<'_>, tools: &[ToolSpec], choice: &ToolChoice) -> Result<()> {
    let offers_none = tools.is_empty() && body.option("tools").is_none();
    let (mode, name) = match choice {
        ToolChoice::Required | ToolChoice::Tool(_) if offers_none => {
            return Err(Error::invalid_request(
                "tool_choice demands a tool call, but the request offers no tools",
            ));
        }
        _ if offers_none => return Ok(()),
        ToolChoice::Auto if tools.iter().any(|tool| tool.strict == Some(true)) => ("VALIDATED", None),
        ToolChoice::Auto => return Ok(()),
        ToolChoice::None => ("NONE", None),
        ToolChoice::Required => ("ANY", None),
        ToolChoice::Tool(name) => ("ANY", Some(name)),
        other => {
            return Err(cannot_say(
                DIALECT,
                &format!("tool_choice {other:?}"),
                "choose another",
            ));
        }
    };
    if let Some(out) = body.place("toolConfig") {
        out.extend_from_slice(br#"{"functionCallingConfig":{"mode":"#);
        json::write(out, mode);
        json::optional(out, "allowedFunctionNames", name.map(|name| [name]).as_ref());
        out.extend_from_slice(b"}}");
    }
    Ok(())
}

fn write_generation_config(
    codec: &Gemini,
    body: &mut Body<'_>,
    sampling: &Sampling,
    format: &ResponseFormat,
    reasoning: Option<&ReasoningConfig>,
) -> Result<()> {
    let Sampling {
        temperature,
        top_p,
        top_k,
        max_tokens,
        seed,
        stop,
        presence_penalty,
        frequency_penalty,
    } = sampling;
    for (name, value) in [
        ("sampling.temperature", temperature),
        ("sampling.top_p", top_p),
        ("sampling.presence_penalty", presence_penalty),
        ("sampling.frequency_penalty", frequency_penalty),
    ] {
        finite(name, *value)?;
    }
    let mut config = Vec::new();
    json::optional(&mut config, "temperature", temperature.as_ref());
    json::optional(&mut config, "topP", top_p.as_ref());
    json::optional(&mut config, "topK", top_k.as_ref());
    json::optional(&mut config, "maxOutputTokens", max_tokens.as_ref());
    json::optional(&mut config, "seed", seed.as_ref());
    json::optional(&mut config, "presencePenalty", presence_penalty.as_ref());
    json::optional(&mut config, "frequencyPenalty", frequency_penalty.as_ref());
    if !stop.is_empty() {
        json::field(&mut config, "stopSequences", stop);
    }
    match format {
        ResponseFormat::Text => {}
        ResponseFormat::Json => json::field(&mut config, "responseMimeType", "application/json"),
        // The dialect has no place for a schema's name, and always holds the model to the schema.
        ResponseFormat::Schema {
            name: _,
            schema,
            strict: _,
        } => {
            json::field(&mut config, "responseMimeType", "application/json");
            config.push(b',');
            write_schema(
                codec,
                ["responseJsonSchema", "responseSchema"],
                schema,
                &mut config,
            )?;
        }
        other => {
            return Err(cannot_say(
                DIALECT,
                &format!("response_format {other:?}"),
                "choose another",
            ));
        }
    }
    if let Some(thinking) = thinking_config(reasoning)? {
        json::field(&mut config, "thinkingConfig", &thinking);
    }
    let Some((_, fields)) = config.split_first() else {
        return Ok(());
    };
    if let Some(out) = body.place("generationConfig") {
        out.push(b'{');
        out.extend_from_slice(fields);
        out.push(b'}');
    }
    Ok(())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ThinkingConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_budget: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    include_thoughts: Option<bool>,
}

fn thinking_config(reasoning: Option<&ReasoningConfig>) -> Result<Option<ThinkingConfig>> {
    let Some(reasoning) = reasoning else {
        return Ok(None);
    };
    let ReasoningConfig {
        effort,
        budget_tokens,
        visible,
    } = reasoning;
    let level = match effort {
        None | Some(Effort::None) => None,
        Some(Effort::Minimal) => Some("MINIMAL"),
        Some(Effort::Low) => Some("LOW"),
        Some(Effort::Medium) => Some("MEDIUM"),
        Some(Effort::High) => Some("HIGH"),
        Some(Effort::XHigh) => Some("XHIGH"),
        Some(other) => {
            let what = format!("reasoning.effort {}", other.as_str());
            return Err(cannot_say(DIALECT, &what, "the most is xhigh"));
        }
    };
    let budget = match (effort, budget_tokens) {
        (Some(Effort::None), Some(1..)) => {
            return Err(Error::invalid_request(
                "reasoning.effort none and a reasoning.budget_tokens above 0 contradict each other",
            ));
        }
        (Some(Effort::None), _) => Some(0),
        (_, budget) => *budget,
    };
    let config = ThinkingConfig {
        thinking_budget: budget,
        thinking_level: level,
        include_thoughts: *visible,
    };
    let says_nothing = budget.is_none() && level.is_none() && visible.is_none();
    Ok((!says_nothing).then_some(config))
}
