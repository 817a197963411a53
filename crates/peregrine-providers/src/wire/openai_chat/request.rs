//! The body of a call.
//!
//! Invariant: each field of the request has its place here (it is destructured exhaustively): it is written, or
//! it is an error, or it is one of the two that are not sent.

use std::time::Duration;

use peregrine_core::{
    ChatRequest, Effort, Error, PromptCache, ReasoningConfig, ResponseFormat, Result, Sampling, ToolChoice,
    ToolSpec,
};
use serde::Serialize;
use serde_json::json;

use super::compat::{PromptCacheForm, ReasoningForm, ReasoningShown};
use super::message::{Encoder, Mark};
use super::{DIALECT, OpenAiChat, key_of};
use crate::wire::body::{self, Body, finite, schema_name};
use crate::wire::{EncodedPrefix, Mode, Target, json};

pub(super) fn encode(
    codec: &OpenAiChat,
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
    let compat = codec.compat();
    let mut writer = Writer {
        codec,
        provider: target.provider,
        body: Body::open(out, provider_options.for_dialect(DIALECT)),
    };
    if writer.body.option("stream").is_some() {
        return Err(Error::invalid_request(
            "the provider option `stream` is not taken; call `stream` or `complete` on the model instead",
        ));
    }
    writer.body.field("model", target.model);
    if mode == Mode::Stream {
        writer.body.field("stream", &true);
        if compat.stream_usage_option
            && let Some(out) = writer.body.place("stream_options")
        {
            out.extend_from_slice(br#"{"include_usage":true}"#);
        }
    }
    writer.sampling(sampling)?;
    if let Some(reasoning) = reasoning {
        writer.reasoning(reasoning)?;
    }
    writer.response_format(response_format, mode)?;
    writer.tools(tools, tool_choice, *parallel_tool_calls)?;
    let breakpoints = target.capabilities.prompt_cache_breakpoints;
    if let Some(hints) = prompt_cache {
        writer.prompt_cache(hints, breakpoints);
    }
    let mark = match compat.prompt_cache {
        PromptCacheForm::OpenAi if breakpoints => Mark::Breakpoint,
        PromptCacheForm::CacheControl => Mark::CacheControl {
            an_hour: wants_an_hour(prompt_cache.as_ref()),
        },
        _ => Mark::None,
    };
    let encoder = Encoder {
        compat,
        provider: target.provider,
        mark,
    };
    let key = key_of(&(codec.key, mark));
    writer.body.close("messages", |out| {
        body::messages(out, messages, key, |out, message| encoder.message(out, message))
    })
}

struct Writer<'a> {
    codec: &'a OpenAiChat,
    provider: &'a str,
    body: Body<'a>,
}

impl Writer<'_> {
    fn unsupported(&self, field: &str, help: &str) -> Error {
        body::unsupported(self.provider, DIALECT, field, help)
    }

    fn sampling(&mut self, sampling: &Sampling) -> Result<()> {
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
        let compat = self.codec.compat();
        self.body.optional(compat.max_tokens_field, *max_tokens);
        self.body
            .optional("temperature", finite("temperature", *temperature)?);
        self.body.optional("top_p", finite("top_p", *top_p)?);
        if top_k.is_some() && !compat.top_k {
            return Err(self.unsupported("top_k", "use top_p"));
        }
        self.body.optional("top_k", *top_k);
        let penalties = [
            ("presence_penalty", *presence_penalty),
            ("frequency_penalty", *frequency_penalty),
        ];
        for (name, penalty) in penalties {
            if penalty.is_some() && !compat.penalties {
                return Err(self.unsupported(name, "leave it out"));
            }
            self.body.optional(name, finite(name, penalty)?);
        }
        match (compat.seed_field, seed) {
            (Some(name), seed) => self.body.optional(name, *seed),
            (None, Some(_)) => return Err(self.unsupported("seed", "leave it out")),
            (None, None) => {}
        }
        if !stop.is_empty() {
            self.body.field("stop", stop);
        }
        Ok(())
    }

    fn reasoning(&mut self, config: &ReasoningConfig) -> Result<()> {
        let ReasoningConfig {
            effort,
            budget_tokens,
            visible,
        } = config;
        let (form, shown) = (self.codec.compat().reasoning, self.codec.compat().reasoning_shown);
        let word = effort.map(Effort::as_str);
        if form == ReasoningForm::Object {
            if effort.is_some() && budget_tokens.is_some() {
                return Err(self.unsupported("reasoning.effort and budget_tokens", "choose one of them"));
            }
            if *config != ReasoningConfig::default() {
                let exclude = visible.map(|visible| !visible);
                let object = ReasoningObject {
                    effort: word,
                    max_tokens: *budget_tokens,
                    exclude,
                };
                self.body.field("reasoning", &object);
            }
            return Ok(());
        }
        if budget_tokens.is_some() {
            return Err(self.unsupported("reasoning.budget_tokens", "use reasoning.effort"));
        }
        match (form, effort) {
            (_, None) => {}
            (ReasoningForm::Effort, _) => self.body.optional("reasoning_effort", word),
            (ReasoningForm::Thinking, Some(Effort::None)) => {
                self.body.field("thinking", &json!({"type": "disabled"}));
            }
            (ReasoningForm::Thinking, _) => {
                self.body.field("thinking", &json!({"type": "enabled"}));
                self.body.optional("reasoning_effort", word);
            }
            _ => return Err(self.unsupported("reasoning.effort", "set the server's own provider option")),
        }
        match (shown, visible) {
            (ReasoningShown::IncludeReasoning, visible) => self.body.optional("include_reasoning", *visible),
            (ReasoningShown::Never, Some(true)) | (ReasoningShown::Always, Some(false)) => {
                return Err(self.unsupported("reasoning.visible", "leave it to the server"));
            }
            _ => {}
        }
        Ok(())
    }

    fn response_format(&mut self, format: &ResponseFormat, mode: Mode) -> Result<()> {
        let compat = self.codec.compat();
        if *format == ResponseFormat::Text {
            return Ok(());
        }
        if mode == Mode::Stream && !compat.streamed_format {
            return Err(self.unsupported("response_format in a stream", "ask for the answer whole"));
        }
        match format {
            ResponseFormat::Json if compat.json_object => {
                self.body
                    .field("response_format", &json!({"type": "json_object"}));
            }
            ResponseFormat::Schema { name, schema, strict } if compat.json_schema => {
                let name = schema_name(name)?;
                let schema = if *strict {
                    self.codec.strict.get(schema)?
                } else {
                    schema.clone()
                };
                if let Some(out) = self.body.place("response_format") {
                    out.extend_from_slice(br#"{"type":"json_schema","json_schema":{"name":"#);
                    json::write(out, name);
                    json::field(out, "strict", strict);
                    out.extend_from_slice(br#","schema":"#);
                    out.extend_from_slice(schema.as_str().as_bytes());
                    out.extend_from_slice(b"}}");
                }
            }
            ResponseFormat::Json => {
                return Err(self.unsupported("response_format of JSON without a schema", "give a schema"));
            }
            _ => {
                let help = "ask for JSON and describe it in the prompt, or offer a tool with the schema";
                return Err(self.unsupported("response_format with a schema", help));
            }
        }
        Ok(())
    }

    fn tools(&mut self, tools: &[ToolSpec], choice: &ToolChoice, parallel: Option<bool>) -> Result<()> {
        let compat = self.codec.compat();
        let own_tools = self.body.option("tools").is_some();
        if !tools.is_empty() && !own_tools {
            let mut list = vec![b'['];
            for tool in tools {
                self.tool(&mut list, tool)?;
            }
            *list.last_mut().expect("it begins with a bracket") = b']';
            if let Some(out) = self.body.place("tools") {
                out.append(&mut list);
            }
        }
        if tools.is_empty() && !own_tools {
            return match choice {
                ToolChoice::Auto | ToolChoice::None => Ok(()),
                _ => Err(Error::invalid_request(
                    "tool_choice asks for a tool, but none is offered",
                )),
            };
        }
        match choice {
            ToolChoice::Auto => {}
            _ if !compat.tool_choice => {
                return Err(self.unsupported("tool_choice", "leave it at auto, or offer fewer tools"));
            }
            ToolChoice::None => self.body.field("tool_choice", "none"),
            ToolChoice::Required => self.body.field("tool_choice", compat.required_word),
            ToolChoice::Tool(name) => {
                if !own_tools && !tools.iter().any(|tool| tool.name == *name) {
                    return Err(Error::invalid_request(format!(
                        "tool_choice asks for {name:?}, which is not among the tools"
                    )));
                }
                let function = json!({"type": "function", "function": {"name": name}});
                self.body.field("tool_choice", &function);
            }
            _ => return Err(self.unsupported("this tool_choice", "use another one")),
        }
        if parallel.is_some() && !compat.parallel_tool_calls {
            return Err(self.unsupported("parallel_tool_calls", "leave it to the server"));
        }
        self.body.optional("parallel_tool_calls", parallel);
        Ok(())
    }

    /// Writes a tool and a comma.
    fn tool(&self, out: &mut Vec<u8>, tool: &ToolSpec) -> Result<()> {
        let ToolSpec {
            name,
            description,
            parameters,
            strict,
        } = tool;
        let strict = strict.filter(|_| self.codec.compat().strict_tools);
        out.extend_from_slice(br#"{"type":"function","function":{"name":"#);
        json::write(out, name);
        if !description.is_empty() {
            json::field(out, "description", description);
        }
        out.extend_from_slice(br#","parameters":"#);
        if strict == Some(true) {
            out.extend_from_slice(self.codec.strict.get(parameters)?.as_str().as_bytes());
        } else {
            out.extend_from_slice(parameters.as_str().as_bytes());
        }
        json::optional(out, "strict", strict.as_ref());
        out.extend_from_slice(b"}},");
        Ok(())
    }

    fn prompt_cache(&mut self, hints: &PromptCache, breakpoints: bool) {
        let PromptCache { key, ttl, automatic } = hints;
        let compat = self.codec.compat();
        if compat.prompt_cache_key {
            self.body.optional("prompt_cache_key", key.as_ref());
        }
        match compat.prompt_cache {
            PromptCacheForm::OpenAi => openai_cache_ttl(&mut self.body, *ttl, breakpoints),
            PromptCacheForm::CacheControl if *automatic => {
                let control = CacheControl::new(wants_an_hour(Some(hints)));
                self.body.field("cache_control", &control);
            }
            // OpenAI and the others that cache do so by themselves.
            _ => {}
        }
    }
}

/// How long OpenAI is to keep a prefix: models that take breakpoints offer 30 minutes and 12 hours, older ones
/// some minutes (unasked) and 24 hours.
pub(crate) fn openai_cache_ttl(body: &mut Body<'_>, ttl: Option<Duration>, breakpoints: bool) {
    const MINUTE: Duration = Duration::from_secs(60);
    let Some(ttl) = ttl else { return };
    if breakpoints {
        let word = if ttl <= 30 * MINUTE { "30m" } else { "12h" };
        body.field("prompt_cache_options", &json!({"ttl": word}));
    } else if ttl > 5 * MINUTE {
        body.field("prompt_cache_retention", "24h");
    }
}

/// Of the two lifetimes of `cache_control`, five minutes and an hour, whether the longer is asked for.
fn wants_an_hour(hints: Option<&PromptCache>) -> bool {
    hints
        .and_then(|hints| hints.ttl)
        .is_some_and(|ttl| ttl > Duration::from_secs(300))
}

#[derive(Serialize)]
struct ReasoningObject {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude: Option<bool>,
}

/// A breakpoint in the form that Anthropic coined.
#[derive(Serialize)]
pub(super) struct CacheControl {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'static str>,
}

impl CacheControl {
    pub(super) fn new(an_hour: bool) -> Self {
        Self {
            r#type: "ephemeral",
            ttl: an_hour.then_some("1h"),
        }
    }
}
