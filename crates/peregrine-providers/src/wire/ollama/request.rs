//! From a request to the body of `/api/chat`.
//!
//! Algorithm: every key is written once, in a fixed order, and a provider option of the same name takes the
//! codec's place; `options` is the exception, where the request's own object is merged into the codec's, key
//! by key. The messages come last.

use peregrine_core::{
    ChatRequest, Effort, Error, ReasoningConfig, ResponseFormat, Result, Sampling, ToolChoice, ToolSpec,
};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{DIALECT, Ollama, messages};
use crate::wire::{EncodedPrefix, Mode, Target, json};

/// The keys of the body that the codec writes itself.
const OWN_KEYS: [&str; 8] = [
    "model",
    "stream",
    "format",
    "think",
    "keep_alive",
    "options",
    "tools",
    "messages",
];

pub(super) fn encode(
    codec: &Ollama,
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
        // The server keeps its own prefix cache and takes no hints about it.
        prompt_cache: _,
        provider_options,
        scope: _,
        metadata: _,
    } = request;
    if let Some(value) = parallel_tool_calls {
        return Err(cannot_say(
            "parallel_tool_calls",
            &format!("(it is {value}); leave it unset"),
        ));
    }
    let given = provider_options.for_dialect(DIALECT);
    if given.is_some_and(|given| given.contains_key("stream")) {
        return Err(Error::invalid_request(
            "the ollama option `stream` cannot be set: it follows from asking for a whole or a streamed answer",
        ));
    }
    let mut body = Body { out, given };
    body.out.extend_from_slice(b"{\"model\":");
    match given.and_then(|given| given.get("model")) {
        Some(model) => json::write(body.out, model),
        None => json::write(body.out, target.model),
    }
    body.field("stream", Some(&(mode == Mode::Stream)));
    body.field("format", format(response_format)?.as_ref());
    body.field("think", think(reasoning.as_ref())?.as_ref());
    body.field("keep_alive", codec.keep_alive.as_ref());
    options(&mut body, sampling)?;
    body.field("tools", offered(tools, tool_choice)?.as_ref());
    let others = given
        .into_iter()
        .flatten()
        .filter(|(key, _)| !OWN_KEYS.contains(&key.as_str()));
    for (key, value) in others {
        json::field(body.out, key, value);
    }
    if let Some(replaced) = given.and_then(|given| given.get("messages")) {
        json::field(body.out, "messages", replaced);
        out.push(b'}');
        return Ok(None);
    }
    out.extend_from_slice(b",\"messages\":[");
    let range = messages::encode(messages, out)?;
    out.extend_from_slice(b"]}");
    Ok((messages.len() >= 2).then_some(EncodedPrefix {
        key: messages::PREFIX_KEY,
        count: messages.len(),
        range,
    }))
}

/// The refusal of what the dialect has no words for.
pub(super) fn cannot_say(field: &str, help: &str) -> Error {
    Error::invalid_request(format!("the ollama dialect cannot say `{field}` {help}"))
}

/// Writes fields, with the provider's options in place of the codec's values.
struct Body<'a> {
    out: &'a mut Vec<u8>,
    given: Option<&'a Map<String, Value>>,
}

impl Body<'_> {
    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: Option<&T>) {
        match self.given.and_then(|given| given.get(name)) {
            Some(given) => json::field(self.out, name, given),
            None => {
                if let Some(value) = value {
                    json::field(self.out, name, value);
                }
            }
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Format<'a> {
    Word(&'static str),
    Schema(&'a RawValue),
}

fn format(format: &ResponseFormat) -> Result<Option<Format<'_>>> {
    match format {
        ResponseFormat::Text => Ok(None),
        ResponseFormat::Json => Ok(Some(Format::Word("json"))),
        // The grammar holds the model to the schema whether or not `strict` asks for it.
        ResponseFormat::Schema {
            name: _,
            schema,
            strict: _,
        } => {
            if !schema.value().is_object() {
                return Err(cannot_say("response_format", "with a schema that is no object"));
            }
            Ok(Some(Format::Schema(raw(schema.as_str()))))
        }
        other => Err(cannot_say("response_format", &format!("{other:?}"))),
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Think {
    Whether(bool),
    Effort(&'static str),
}

fn think(reasoning: Option<&ReasoningConfig>) -> Result<Option<Think>> {
    let Some(ReasoningConfig {
        effort,
        budget_tokens,
        visible,
    }) = reasoning
    else {
        return Ok(None);
    };
    if budget_tokens.is_some() {
        return Err(cannot_say("reasoning.budget_tokens", "; set an effort instead"));
    }
    let think = match effort {
        None => visible.map(|_| Think::Whether(true)),
        Some(Effort::None) => Some(Think::Whether(false)),
        Some(effort @ (Effort::Low | Effort::Medium | Effort::High | Effort::Max)) => {
            Some(Think::Effort(effort.as_str()))
        }
        Some(effort) => {
            let help = format!("{}; it has none, low, medium, high and max", effort.as_str());
            return Err(cannot_say("reasoning.effort", &help));
        }
    };
    if *visible == Some(false) && *effort != Some(Effort::None) {
        return Err(cannot_say(
            "reasoning.visible",
            "false: what the model thinks is always shown; set the effort to none to have it not think",
        ));
    }
    Ok(think)
}

/// Writes `options`: the sampling, in a fixed order, with the request's own `options` merged in.
fn options(body: &mut Body<'_>, sampling: &Sampling) -> Result<()> {
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
    let mut options = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            options.insert(name.to_owned(), value);
        }
    };
    put("num_predict", max_tokens.map(Value::from));
    put("temperature", number("temperature", *temperature)?);
    put("top_p", number("top_p", *top_p)?);
    put("top_k", top_k.map(Value::from));
    put("seed", seed.map(Value::from));
    put("stop", (!stop.is_empty()).then(|| Value::from(stop.as_slice())));
    put("presence_penalty", number("presence_penalty", *presence_penalty)?);
    put(
        "frequency_penalty",
        number("frequency_penalty", *frequency_penalty)?,
    );
    match body.given.and_then(|given| given.get("options")) {
        Some(Value::Object(given)) => {
            for (name, value) in given {
                options.insert(name.clone(), value.clone());
            }
        }
        Some(other) => {
            return Err(Error::invalid_request(format!(
                "the ollama option `options` is an object such as {{\"num_ctx\": 8192}}, not {other}"
            )));
        }
        None if options.is_empty() => return Ok(()),
        None => {}
    }
    json::field(body.out, "options", &options);
    Ok(())
}

/// JSON has no word for infinity or for what is no number.
fn number(name: &str, value: Option<f64>) -> Result<Option<Value>> {
    match value {
        Some(value) if !value.is_finite() => Err(Error::invalid_request(format!(
            "sampling.{name} is {value}; a finite number is expected"
        ))),
        value => Ok(value.map(Value::from)),
    }
}

#[derive(Serialize)]
struct WireTool<'a> {
    r#type: &'static str,
    function: WireFunction<'a>,
}

#[derive(Serialize)]
struct WireFunction<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    parameters: &'a RawValue,
}

/// The tools to offer; none of them where the model must not call any.
fn offered<'a>(tools: &'a [ToolSpec], choice: &ToolChoice) -> Result<Option<Vec<WireTool<'a>>>> {
    match choice {
        ToolChoice::None => return Ok(None),
        ToolChoice::Auto => {}
        ToolChoice::Required => {
            return Err(cannot_say("tool_choice", "required; it has auto and none"));
        }
        ToolChoice::Tool(name) => {
            let help = format!("for the tool {name:?}; offer only that tool, or use auto");
            return Err(cannot_say("tool_choice", &help));
        }
        other => return Err(cannot_say("tool_choice", &format!("{other:?}"))),
    }
    if tools.is_empty() {
        return Ok(None);
    }
    let wire = tools.iter().map(|tool| {
        let ToolSpec {
            name,
            description,
            parameters,
            // A hint for providers that can hold arguments to their schema; this one cannot.
            strict: _,
        } = tool;
        WireTool {
            r#type: "function",
            function: WireFunction {
                name,
                description,
                parameters: raw(parameters.as_str()),
            },
        }
    });
    Ok(Some(wire.collect()))
}

/// JSON text as it stands.
fn raw(schema: &str) -> &RawValue {
    serde_json::from_str(schema).expect("a JsonSchema keeps the text of the JSON it was read from")
}
