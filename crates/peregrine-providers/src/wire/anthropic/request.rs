//! A request as the Messages API takes it.
//!
//! Order of the body: what stays the same between turns first (model, tools, system), the messages last, so
//! that the provider's prompt cache, and ours of encoded bytes, find the longest common beginning.

use std::time::Duration;

use peregrine_core::{
    ChatRequest, Effort, Error, Messages, PromptCache, ReasoningConfig, ResponseFormat, Result, Role,
    Sampling, ToolChoice, ToolSpec,
};

use super::content::Content;
use super::{Anthropic, DIALECT};
use crate::wire::body::{Body, cannot_say, finite};
use crate::wire::turns::{self, TurnDialect, Written};
use crate::wire::{EncodedPrefix, Mode, Target, json};

/// How many cache breakpoints a request may have, the automatic one included.
const MAX_BREAKPOINTS: usize = 4;
/// The smallest budget for thinking that the provider takes.
const MIN_THINKING_TOKENS: u32 = 1024;

pub(super) fn encode(
    codec: &Anthropic,
    target: &Target<'_>,
    request: &ChatRequest,
    mode: Mode,
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
        prompt_cache,
        provider_options,
        scope: _,
        metadata: _,
    } = request;
    let cache = cache_control(messages, prompt_cache.as_ref())?;
    let thinking = Thinking::of(reasoning.as_ref())?;
    let max_tokens = max_tokens(codec, target, sampling, &thinking)?;
    let leading = messages
        .iter()
        .take_while(|message| message.role == Role::System)
        .count();

    let mut body = Body::open(out, provider_options.for_dialect(DIALECT));
    body.field("model", target.model);
    body.field("max_tokens", &max_tokens);
    if mode == Mode::Stream {
        body.field("stream", &true);
    }
    write_tools(codec, &mut body, tools)?;
    write_tool_choice(&mut body, tools, tool_choice, *parallel_tool_calls)?;
    thinking.write(&mut body);
    write_output_config(codec, &mut body, response_format, &thinking)?;
    write_sampling(&mut body, sampling)?;
    if cache.automatic
        && let Some(out) = body.place("cache_control")
    {
        out.extend_from_slice(cache.control.as_bytes());
    }
    let dialect = Content::new(cache.control);
    write_system(&mut body, messages, leading, &dialect)?;
    body.close("messages", |out| {
        out.push(b'[');
        let key = turns::prefix_key((DIALECT, cache.control));
        let prefix = turns::write(&dialect, messages, leading, key, out)?;
        out.push(b']');
        Ok(prefix)
    })
}

struct CacheControl {
    automatic: bool,
    /// The value of `cache_control`, as JSON text.
    control: &'static str,
}

fn cache_control(messages: &Messages, hints: Option<&PromptCache>) -> Result<CacheControl> {
    let none = PromptCache::default();
    // There is no word for a routing key, and none is needed: the prefix itself is the key.
    let PromptCache {
        key: _,
        ttl,
        automatic,
    } = hints.unwrap_or(&none);
    let asked = turns::count_breakpoints(messages) + usize::from(*automatic);
    if asked > MAX_BREAKPOINTS {
        return Err(Error::invalid_request(format!(
            "the request has {asked} cache breakpoints (prompt_cache.automatic is one), and anthropic takes at most {MAX_BREAKPOINTS}; clear the oldest"
        )));
    }
    const MINUTES_5: Duration = Duration::from_secs(300);
    let control = match ttl {
        None => r#"{"type":"ephemeral"}"#,
        Some(ttl) if *ttl <= MINUTES_5 => r#"{"type":"ephemeral","ttl":"5m"}"#,
        // The longest there is.
        Some(_) => r#"{"type":"ephemeral","ttl":"1h"}"#,
    };
    Ok(CacheControl {
        automatic: *automatic,
        control,
    })
}

/// What `thinking` and `output_config.effort` say.
struct Thinking {
    form: Option<Form>,
    effort: Option<&'static str>,
    display: Option<&'static str>,
}

#[derive(Clone, Copy)]
enum Form {
    Disabled,
    Enabled(u32),
    Adaptive,
}

impl Thinking {
    fn of(config: Option<&ReasoningConfig>) -> Result<Self> {
        let none = ReasoningConfig::default();
        let ReasoningConfig {
            effort,
            budget_tokens,
            visible,
        } = config.unwrap_or(&none);
        let word = match effort {
            Some(Effort::Minimal) => {
                return Err(cannot_say(
                    DIALECT,
                    "reasoning.effort minimal",
                    "the least is low, or none",
                ));
            }
            Some(Effort::None) | None => None,
            Some(effort) => Some(effort.as_str()),
        };
        let form = match (effort, budget_tokens) {
            (Some(Effort::None), None) | (None | Some(Effort::None), Some(0)) => Some(Form::Disabled),
            (Some(Effort::None), Some(_)) | (Some(_), Some(0)) => {
                return Err(Error::invalid_request(
                    "reasoning.effort and reasoning.budget_tokens contradict each other: one of them turns reasoning off",
                ));
            }
            (_, Some(budget)) if *budget < MIN_THINKING_TOKENS => {
                return Err(Error::invalid_request(format!(
                    "reasoning.budget_tokens is {budget}, and anthropic takes at least {MIN_THINKING_TOKENS}, or 0 for none"
                )));
            }
            (_, Some(budget)) => Some(Form::Enabled(*budget)),
            (Some(_), None) => Some(Form::Adaptive),
            (None, None) => visible.map(|_| Form::Adaptive),
        };
        Ok(Self {
            form,
            effort: word,
            display: visible.map(|visible| if visible { "summarized" } else { "omitted" }),
        })
    }

    fn write(&self, body: &mut Body<'_>) {
        let Some(form) = self.form else { return };
        let Some(out) = body.place("thinking") else { return };
        match form {
            Form::Disabled => {
                out.extend_from_slice(br#"{"type":"disabled"}"#);
                return;
            }
            Form::Adaptive => out.extend_from_slice(br#"{"type":"adaptive""#),
            Form::Enabled(budget) => {
                out.extend_from_slice(br#"{"type":"enabled""#);
                json::field(out, "budget_tokens", &budget);
            }
        }
        json::optional(out, "display", self.display.as_ref());
        out.push(b'}');
    }
}

fn max_tokens(
    codec: &Anthropic,
    target: &Target<'_>,
    sampling: &Sampling,
    thinking: &Thinking,
) -> Result<u32> {
    let bound = sampling.max_tokens.or(target.capabilities.max_output_tokens);
    match (thinking.form, bound) {
        (Some(Form::Enabled(budget)), Some(bound)) if budget >= bound => {
            Err(Error::invalid_request(format!(
                "reasoning.budget_tokens is {budget}, and anthropic takes it only below max_tokens, which is {bound}; raise sampling.max_tokens or lower the budget"
            )))
        }
        // The default bounds the answer; the thinking comes on top of it.
        (Some(Form::Enabled(budget)), None) => Ok(codec.max_tokens.saturating_add(budget)),
        (_, bound) => Ok(bound.unwrap_or(codec.max_tokens)),
    }
}

fn write_tools(codec: &Anthropic, body: &mut Body<'_>, tools: &[ToolSpec]) -> Result<()> {
    if tools.is_empty() {
        return Ok(());
    }
    let Some(out) = body.place("tools") else {
        return Ok(());
    };
    for (place, tool) in tools.iter().enumerate() {
        let ToolSpec {
            name,
            description,
            parameters,
            strict,
        } = tool;
        out.extend_from_slice(if place == 0 {
            br#"[{"name":"#
        } else {
            br#",{"name":"#
        });
        json::write(out, name);
        if !description.is_empty() {
            json::field(out, "description", description);
        }
        out.extend_from_slice(br#","input_schema":"#);
        match strict {
            Some(true) => out.extend_from_slice(codec.schemas.get(parameters)?.as_str().as_bytes()),
            _ => out.extend_from_slice(parameters.as_str().as_bytes()),
        }
        json::optional(out, "strict", strict.as_ref());
        out.push(b'}');
    }
    out.push(b']');
    Ok(())
}

fn write_tool_choice(
    body: &mut Body<'_>,
    tools: &[ToolSpec],
    choice: &ToolChoice,
    parallel: Option<bool>,
) -> Result<()> {
    let forced = matches!(choice, ToolChoice::Required | ToolChoice::Tool(_));
    if tools.is_empty() && body.option("tools").is_none() {
        // Without tools none is called, whether in parallel or not; only a demand cannot be met.
        return match forced {
            true => Err(Error::invalid_request(
                "tool_choice demands a tool call, but the request offers no tools",
            )),
            false => Ok(()),
        };
    }
    let (kind, name) = match choice {
        ToolChoice::Auto if parallel.is_none() => return Ok(()),
        ToolChoice::Auto => ("auto", None),
        ToolChoice::None => ("none", None),
        ToolChoice::Required => ("any", None),
        ToolChoice::Tool(name) => ("tool", Some(name)),
        other => {
            return Err(cannot_say(
                DIALECT,
                &format!("tool_choice {other:?}"),
                "choose another",
            ));
        }
    };
    if let Some(out) = body.place("tool_choice") {
        out.extend_from_slice(br#"{"type":"#);
        json::write(out, kind);
        json::optional(out, "name", name.as_ref());
        if let Some(parallel) = parallel.filter(|_| kind != "none") {
            json::field(out, "disable_parallel_tool_use", &!parallel);
        }
        out.push(b'}');
    }
    Ok(())
}

fn write_output_config(
    codec: &Anthropic,
    body: &mut Body<'_>,
    format: &ResponseFormat,
    thinking: &Thinking,
) -> Result<()> {
    let schema = match format {
        ResponseFormat::Text => None,
        ResponseFormat::Json => {
            return Err(cannot_say(
                DIALECT,
                "response_format json",
                "give a schema, or a tool whose arguments are the answer",
            ));
        }
        ResponseFormat::Schema {
            name: _,
            schema,
            strict,
        } => Some((schema, *strict)),
        other => {
            return Err(cannot_say(
                DIALECT,
                &format!("response_format {other:?}"),
                "choose another",
            ));
        }
    };
    if schema.is_none() && thinking.effort.is_none() {
        return Ok(());
    }
    let Some(out) = body.place("output_config") else {
        return Ok(());
    };
    out.push(b'{');
    if let Some(effort) = thinking.effort {
        out.extend_from_slice(br#""effort":"#);
        json::write(out, effort);
    }
    if let Some((schema, strict)) = schema {
        if thinking.effort.is_some() {
            out.push(b',');
        }
        out.extend_from_slice(br#""format":{"type":"json_schema","schema":"#);
        if strict {
            out.extend_from_slice(codec.schemas.get(schema)?.as_str().as_bytes());
        } else {
            out.extend_from_slice(schema.as_str().as_bytes());
        }
        out.push(b'}');
    }
    out.push(b'}');
    Ok(())
}

fn write_sampling(body: &mut Body<'_>, sampling: &Sampling) -> Result<()> {
    let Sampling {
        temperature,
        top_p,
        top_k,
        max_tokens: _,
        seed,
        stop,
        presence_penalty,
        frequency_penalty,
    } = sampling;
    let unsaid = [
        ("sampling.seed", seed.is_some()),
        ("sampling.presence_penalty", presence_penalty.is_some()),
        ("sampling.frequency_penalty", frequency_penalty.is_some()),
    ];
    if let Some((name, _)) = unsaid.iter().find(|(_, set)| *set) {
        return Err(cannot_say(DIALECT, name, "leave it unset"));
    }
    finite("sampling.temperature", *temperature)?;
    finite("sampling.top_p", *top_p)?;
    body.optional("temperature", temperature.as_ref());
    body.optional("top_p", top_p.as_ref());
    body.optional("top_k", top_k.as_ref());
    if !stop.is_empty() {
        body.field("stop_sequences", stop);
    }
    Ok(())
}

fn write_system(body: &mut Body<'_>, messages: &Messages, leading: usize, dialect: &Content) -> Result<()> {
    if leading == 0 {
        return Ok(());
    }
    let Some(out) = body.place("system") else {
        return Ok(());
    };
    out.push(b'[');
    for message in messages.iter().take(leading) {
        for index in 0..message.parts.len() {
            let before = out.len();
            if out.last() == Some(&b'}') {
                out.push(b',');
            }
            if dialect.item(message, index, out)? == Written::Nothing {
                out.truncate(before);
            }
        }
        if message.cache_breakpoint {
            dialect.mark_last(out)?;
        }
    }
    out.push(b']');
    Ok(())
}
