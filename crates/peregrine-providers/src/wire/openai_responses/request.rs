//! The body of a call.
//!
//! Invariant: each field of the request has its place here (it is destructured exhaustively): it is written, or
//! it is an error, or it is one of the two that are not sent.

use peregrine_core::{
    ChatRequest, Effort, Error, PromptCache, ReasoningConfig, ResponseFormat, Result, Sampling, ToolChoice,
    ToolSpec,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::input::Encoder;
use super::{DIALECT, OpenAiResponses};
use crate::wire::body::{self, Body, finite, schema_name};
use crate::wire::openai_chat::{key_of, openai_cache_ttl};
use crate::wire::{EncodedPrefix, Mode, Target, json};

pub(super) fn encode(
    codec: &OpenAiResponses,
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
    let (compat, capabilities) = (codec.compat(), target.capabilities);
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
    let stored = writer
        .body
        .option("store")
        .map_or(!compat.stateless, |store| *store != Value::Bool(false));
    writer.body.field("model", target.model);
    if mode == Mode::Stream {
        writer.body.field("stream", &true);
    }
    if compat.stateless {
        writer.body.field("store", &false);
        // Models that do not reason refuse to be asked for encrypted reasoning.
        if capabilities.reasoning && !stored {
            writer.body.field("include", &["reasoning.encrypted_content"]);
        }
    }
    writer.sampling(sampling)?;
    if let Some(reasoning) = reasoning {
        writer.reasoning(reasoning)?;
    }
    writer.response_format(response_format)?;
    writer.tools(tools, tool_choice, *parallel_tool_calls)?;
    if let Some(PromptCache {
        key,
        ttl,
        automatic: _,
    }) = prompt_cache.as_ref().filter(|_| compat.prompt_cache)
    {
        writer.body.optional("prompt_cache_key", key.as_ref());
        openai_cache_ttl(&mut writer.body, *ttl, capabilities.prompt_cache_breakpoints);
    }
    let encoder = Encoder {
        provider: target.provider,
        system_role: compat.system_role,
        stored,
        refusals: compat.refusals,
        marks: compat.prompt_cache && capabilities.prompt_cache_breakpoints,
    };
    let key = key_of(&(codec.key, encoder.stored, encoder.marks));
    writer.body.close("input", |out| {
        body::messages(out, messages, key, |out, message| encoder.message(out, message))
    })
}

struct Writer<'a> {
    codec: &'a OpenAiResponses,
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
        let unsaid = [
            ("top_k", top_k.is_some(), "use top_p"),
            ("seed", seed.is_some(), "use the openai-chat dialect"),
            ("stop", !stop.is_empty(), "use the openai-chat dialect"),
            (
                "presence_penalty",
                presence_penalty.is_some(),
                "use the openai-chat dialect",
            ),
            (
                "frequency_penalty",
                frequency_penalty.is_some(),
                "use the openai-chat dialect",
            ),
        ];
        if let Some((name, _, help)) = unsaid.iter().find(|(_, is_set, _)| *is_set) {
            return Err(self.unsupported(name, help));
        }
        self.body.optional("max_output_tokens", *max_tokens);
        self.body
            .optional("temperature", finite("temperature", *temperature)?);
        self.body.optional("top_p", finite("top_p", *top_p)?);
        Ok(())
    }

    fn reasoning(&mut self, config: &ReasoningConfig) -> Result<()> {
        let ReasoningConfig {
            effort,
            budget_tokens,
            visible,
        } = config;
        if budget_tokens.is_some() {
            return Err(self.unsupported("reasoning.budget_tokens", "use reasoning.effort"));
        }
        // Without `summary` nothing of the reasoning is shown.
        let summary = (*visible == Some(true)).then_some("auto");
        if effort.is_some() || summary.is_some() {
            self.body.field(
                "reasoning",
                &Reasoning {
                    effort: effort.map(Effort::as_str),
                    summary,
                },
            );
        }
        Ok(())
    }

    fn response_format(&mut self, format: &ResponseFormat) -> Result<()> {
        let in_text = self.codec.compat().text_format;
        let name = if in_text { "text" } else { "response_format" };
        match format {
            ResponseFormat::Text => {}
            ResponseFormat::Json if in_text => {
                self.body.field(name, &json!({"format": {"type": "json_object"}}));
            }
            ResponseFormat::Json => self.body.field(name, &json!({"type": "json_object"})),
            ResponseFormat::Schema {
                name: title,
                schema,
                strict,
            } => {
                let title = schema_name(title)?;
                let schema = if *strict {
                    self.codec.strict.get(schema)?
                } else {
                    schema.clone()
                };
                if let Some(out) = self.body.place(name) {
                    let open: &[u8] = if in_text {
                        br#"{"format":{"type":"json_schema","name":"#
                    } else {
                        br#"{"type":"json_schema","json_schema":{"name":"#
                    };
                    out.extend_from_slice(open);
                    json::write(out, title);
                    json::field(out, "strict", strict);
                    out.extend_from_slice(br#","schema":"#);
                    out.extend_from_slice(schema.as_str().as_bytes());
                    out.extend_from_slice(b"}}");
                }
            }
            _ => return Err(self.unsupported("this response_format", "use another one")),
        }
        Ok(())
    }

    fn tools(&mut self, tools: &[ToolSpec], choice: &ToolChoice, parallel: Option<bool>) -> Result<()> {
        let own_tools = self.body.option("tools").is_some();
        if tools.is_empty() && !own_tools {
            return match choice {
                ToolChoice::Auto | ToolChoice::None => Ok(()),
                _ => Err(Error::invalid_request(
                    "tool_choice asks for a tool, but none is offered",
                )),
            };
        }
        if !own_tools {
            let mut list = vec![b'['];
            for tool in tools {
                self.tool(&mut list, tool)?;
            }
            *list.last_mut().expect("it begins with a bracket") = b']';
            if let Some(out) = self.body.place("tools") {
                out.append(&mut list);
            }
        }
        match choice {
            ToolChoice::Auto => {}
            ToolChoice::None => self.body.field("tool_choice", "none"),
            ToolChoice::Required => self.body.field("tool_choice", "required"),
            ToolChoice::Tool(name) => {
                if !own_tools && !tools.iter().any(|tool| tool.name == *name) {
                    return Err(Error::invalid_request(format!(
                        "tool_choice asks for {name:?}, which is not among the tools"
                    )));
                }
                self.body
                    .field("tool_choice", &json!({"type": "function", "name": name}));
            }
            _ => return Err(self.unsupported("this tool_choice", "use another one")),
        }
        self.body.optional("parallel_tool_calls", parallel);
        Ok(())
    }

    /// Writes a tool and a comma. `strict` is always written, because its absence means true here.
    fn tool(&self, out: &mut Vec<u8>, tool: &ToolSpec) -> Result<()> {
        let ToolSpec {
            name,
            description,
            parameters,
            strict,
        } = tool;
        let strict = strict.unwrap_or(false);
        out.extend_from_slice(br#"{"type":"function","name":"#);
        json::write(out, name);
        if !description.is_empty() {
            json::field(out, "description", description);
        }
        out.extend_from_slice(br#","parameters":"#);
        if strict {
            out.extend_from_slice(self.codec.strict.get(parameters)?.as_str().as_bytes());
        } else {
            out.extend_from_slice(parameters.as_str().as_bytes());
        }
        json::field(out, "strict", &strict);
        out.extend_from_slice(b"},");
        Ok(())
    }
}

#[derive(Serialize)]
struct Reasoning {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<&'static str>,
}
