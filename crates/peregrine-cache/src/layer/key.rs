//! The key of a chat request: everything that can change the answer, and nothing else.
//!
//! The request and all that it is made of are destructured in full, so that a new field does not compile until it has
//! its place here. What is not part of the key is named below, with the reason. Where core may add a variant (a new
//! kind of part), a request that has it gets no key, and is not cached, until this module knows it.
//!
//! Maps of JSON are sorted; the text of a schema is taken as it is, because models write in the order in which its
//! properties stand, and that text is what is sent.
//!
//! # Long conversations
//!
//! Messages are hashed in blocks that end with the message that makes a block longer than 32 KiB: twice what the widest
//! processors hash at once, because what is left over at the end of a block is hashed slowly. Each block's digest covers the
//! one before, and what stands behind the last one has a digest of its own. Where blocks end depends on nothing but the
//! messages, so both digests are remembered beside them ([`Messages::remember_prefix`]): the next turn hashes what is new,
//! and the same request again nothing. A short request, without a whole block, is a single hash.

use bytes::Bytes;
use peregrine_core::{
    ChatRequest, DocumentPart, MediaPart, MediaSource, Message, Messages, ModelInfo, OpaquePart, Part,
    ProviderData, ReasoningConfig, ReasoningPart, ResponseFormat, Role, Sampling, Scope, TextPart, ToolCall,
    ToolChoice, ToolResult, ToolSpec,
};
use serde_json::Value;

use crate::{Key, KeyBuilder};

/// Where a block of messages ends.
const BLOCK_BYTES: usize = 32 << 10;
/// How deep JSON in a request may be.
const MAX_DEPTH: usize = 128;
/// Under which number the digest of a conversation is remembered: the first bytes of "peregrine-cache".
const MEMO: u64 = u64::from_be_bytes(*b"peregrin");

/// There is no key: the request holds something that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unknown;

type Written = Result<(), Unknown>;

/// Whose an answer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Partition {
    /// The request's scope: tenant and session.
    #[default]
    Scope,
    /// The tenant: its sessions share answers.
    Tenant,
}

impl Partition {
    /// The bytes with which the keys of a scope begin; none for a request without a scope.
    pub(super) fn key(self, scope: Option<&Scope>) -> Vec<u8> {
        match (scope, self) {
            (None, _) => Vec::new(),
            (Some(scope), Self::Scope) => scope.key(),
            (Some(scope), Self::Tenant) => Scope {
                tenant: scope.tenant.clone(),
                session: None,
            }
            .key(),
        }
    }
}

/// What of the messages is part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All.
    Whole,
    /// All but the text of the last one: what similar requests must have in common.
    Context,
}

/// The key of a request to a model.
pub(super) fn of(
    namespace: &str,
    scope: &[u8],
    info: &ModelInfo,
    request: &ChatRequest,
    extent: Extent,
) -> Result<Key, Unknown> {
    let ChatRequest {
        messages,
        tools,
        tool_choice,
        parallel_tool_calls,
        response_format,
        sampling,
        reasoning,
        // Hints for the provider's own cache cannot change an answer.
        prompt_cache: _,
        provider_options,
        // In `scope`, as the partition says.
        scope: _,
        // Labels for layers, not sent.
        metadata: _,
    } = request;
    let domain = match extent {
        Extent::Whole => "chat",
        Extent::Context => "chat context",
    };
    let mut key = KeyBuilder::new(domain, scope);
    key.text(namespace).text(info.provider()).text(info.model());
    key.list(tools.len());
    tools.iter().for_each(|tool| write_tool(&mut key, tool));
    write_choice(&mut key, tool_choice)?;
    key.option(*parallel_tool_calls, |key, parallel| {
        key.flag(parallel);
    });
    write_format(&mut key, response_format)?;
    write_sampling(&mut key, sampling);
    key.option(reasoning.as_ref(), write_reasoning);
    if provider_options.is_empty() {
        key.list(0);
    } else {
        // A list of dialects in a fixed order; its fields are sorted below.
        let options = serde_json::to_value(provider_options).map_err(|_| Unknown)?;
        key.list(1);
        write_json(&mut key, &options, 0)?;
    }
    write_messages(&mut key, messages, extent)?;
    Ok(key.finish())
}

/// The digests of messages: of the blocks up to one, and of what stands behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Digests {
    /// How many messages are in blocks.
    done: u64,
    blocks: [u8; 32],
    rest: [u8; 32],
}

impl Digests {
    const BYTES: usize = 8 + 32 + 32;

    fn to_bytes(self) -> Bytes {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.done.to_le_bytes());
        bytes[8..40].copy_from_slice(&self.blocks);
        bytes[40..].copy_from_slice(&self.rest);
        Bytes::copy_from_slice(&bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (done, digests) = bytes.split_first_chunk()?;
        let (blocks, rest) = digests.split_first_chunk()?;
        Some(Self {
            done: u64::from_le_bytes(*done),
            blocks: *blocks,
            rest: rest.try_into().ok()?,
        })
    }
}

fn write_messages(key: &mut KeyBuilder, messages: &Messages, extent: Extent) -> Written {
    let known = match extent {
        Extent::Whole => messages.encoded_prefix(MEMO),
        Extent::Context => None,
    };
    let known = known.and_then(|(count, bytes)| Some((count, Digests::from_bytes(&bytes)?)));
    key.list(messages.len());
    if let Some((count, digests)) = known
        && count == messages.len()
    {
        write_digests(key, &digests);
        return Ok(());
    }
    let mut done = known.map_or(0, |(_, digests)| digests.done);
    let mut state = known.map(|(_, digests)| digests.blocks);
    let mut block = KeyBuilder::bare();
    let last = messages.len().saturating_sub(1);
    for at in usize::try_from(done).unwrap_or(usize::MAX)..messages.len() {
        let Some(message) = messages.get(at) else { break };
        write_message(&mut block, message, extent == Extent::Context && at == last)?;
        if block.written() >= BLOCK_BYTES {
            let covered = block.digest();
            let mut chain = KeyBuilder::bare();
            chain.option(state.as_ref(), |chain, state| {
                chain.bytes(state);
            });
            state = Some(chain.bytes(&covered).digest());
            done = at as u64 + 1;
        }
    }
    let Some(blocks) = state else {
        key.variant(0).absorb(&mut block);
        return Ok(());
    };
    let digests = Digests {
        done,
        blocks,
        rest: block.digest(),
    };
    write_digests(key, &digests);
    if extent == Extent::Whole {
        messages.remember_prefix(MEMO, messages.len(), digests.to_bytes());
    }
    Ok(())
}

fn write_digests(key: &mut KeyBuilder, digests: &Digests) {
    let Digests {
        done: _,
        blocks,
        rest,
    } = digests;
    key.variant(1).bytes(blocks).bytes(rest);
}

fn write_message(key: &mut KeyBuilder, message: &Message, without_text: bool) -> Written {
    let Message {
        role,
        parts,
        // A hint for the provider's own cache.
        cache_breakpoint: _,
    } = message;
    write_role(key, *role);
    if without_text {
        return Ok(());
    }
    write_parts(key, parts, 0)
}

fn write_role(key: &mut KeyBuilder, role: Role) {
    key.text(role.as_str());
}

fn write_parts(key: &mut KeyBuilder, parts: &[Part], depth: usize) -> Written {
    if depth > MAX_DEPTH {
        return Err(Unknown);
    }
    key.list(parts.len());
    parts.iter().try_for_each(|part| write_part(key, part, depth))
}

fn write_part(key: &mut KeyBuilder, part: &Part, depth: usize) -> Written {
    match part {
        Part::Text(TextPart { text, data }) => {
            key.variant(0).text(text);
            write_data(key, data.as_ref())
        }
        Part::Image(media) => write_media(key.variant(1), media),
        Part::Audio(media) => write_media(key.variant(2), media),
        Part::Document(DocumentPart {
            source,
            media_type,
            title,
        }) => {
            key.variant(3);
            write_source(key, source)?;
            write_text(key, media_type.as_deref());
            write_text(key, title.as_deref());
            Ok(())
        }
        Part::ToolCall(ToolCall {
            id,
            name,
            arguments,
            data,
        }) => {
            key.variant(4).text(id).text(name).text(arguments);
            write_data(key, data.as_ref())
        }
        Part::ToolResult(ToolResult {
            call_id,
            name,
            content,
            is_error,
        }) => {
            key.variant(5).text(call_id).text(name).flag(*is_error);
            write_parts(key, content, depth + 1)
        }
        Part::Reasoning(ReasoningPart { text, data }) => {
            key.variant(6).text(text);
            write_data(key, data.as_ref())
        }
        Part::Refusal(TextPart { text, data }) => {
            key.variant(7).text(text);
            write_data(key, data.as_ref())
        }
        Part::Opaque(OpaquePart { dialect, kind, value }) => {
            key.variant(8).text(dialect).text(kind);
            write_json(key, value, 0)
        }
        _ => Err(Unknown),
    }
}

fn write_media(key: &mut KeyBuilder, media: &MediaPart) -> Written {
    let MediaPart {
        source,
        media_type,
        detail,
    } = media;
    write_source(key, source)?;
    write_text(key, media_type.as_deref());
    write_text(key, detail.as_deref());
    Ok(())
}

fn write_source(key: &mut KeyBuilder, source: &MediaSource) -> Written {
    match source {
        MediaSource::Bytes { data } => key.variant(0).bytes(data),
        MediaSource::Url { url } => key.variant(1).text(url),
        MediaSource::File { id } => key.variant(2).text(id),
        MediaSource::Text { text } => key.variant(3).text(text),
        _ => return Err(Unknown),
    };
    Ok(())
}

fn write_data(key: &mut KeyBuilder, data: Option<&ProviderData>) -> Written {
    let mut written = Ok(());
    key.option(data, |key, ProviderData { dialect, value }| {
        key.text(dialect);
        written = write_json(key, value, 0);
    });
    written
}

fn write_text(key: &mut KeyBuilder, text: Option<&str>) {
    key.option(text, |key, text| {
        key.text(text);
    });
}

fn write_tool(key: &mut KeyBuilder, tool: &ToolSpec) {
    let ToolSpec {
        name,
        description,
        parameters,
        strict,
    } = tool;
    key.text(name).text(description).text(parameters.as_str());
    key.option(*strict, |key, strict| {
        key.flag(strict);
    });
}

fn write_choice(key: &mut KeyBuilder, choice: &ToolChoice) -> Written {
    match choice {
        ToolChoice::Auto => key.variant(0),
        ToolChoice::None => key.variant(1),
        ToolChoice::Required => key.variant(2),
        ToolChoice::Tool(name) => key.variant(3).text(name),
        _ => return Err(Unknown),
    };
    Ok(())
}

fn write_format(key: &mut KeyBuilder, format: &ResponseFormat) -> Written {
    match format {
        ResponseFormat::Text => key.variant(0),
        ResponseFormat::Json => key.variant(1),
        ResponseFormat::Schema { name, schema, strict } => {
            key.variant(2).text(name).text(schema.as_str()).flag(*strict)
        }
        _ => return Err(Unknown),
    };
    Ok(())
}

fn write_sampling(key: &mut KeyBuilder, sampling: &Sampling) {
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
    for number in [temperature, top_p, presence_penalty, frequency_penalty] {
        key.option(*number, |key, number| {
            key.float(number);
        });
    }
    for count in [top_k, max_tokens] {
        key.option(*count, |key, count| {
            key.count(u64::from(count));
        });
    }
    key.option(*seed, |key, seed| {
        key.integer(seed);
    });
    key.list(stop.len());
    for text in stop {
        key.text(text);
    }
}

fn write_reasoning(key: &mut KeyBuilder, reasoning: &ReasoningConfig) {
    let ReasoningConfig {
        effort,
        budget_tokens,
        visible,
    } = reasoning;
    write_text(key, effort.map(peregrine_core::Effort::as_str));
    key.option(*budget_tokens, |key, tokens| {
        key.count(u64::from(tokens));
    });
    key.option(*visible, |key, visible| {
        key.flag(visible);
    });
}

fn write_json(key: &mut KeyBuilder, value: &Value, depth: usize) -> Written {
    if depth > MAX_DEPTH {
        return Err(Unknown);
    }
    match value {
        Value::Null => key.variant(0),
        Value::Bool(truth) => key.variant(1).flag(*truth),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), _, _) => key.variant(2).count(number),
            (None, Some(number), _) => key.variant(2).integer(number),
            (None, None, Some(number)) => key.variant(2).float(number),
            (None, None, None) => return Err(Unknown),
        },
        Value::String(text) => key.variant(3).text(text),
        Value::Array(items) => {
            key.variant(4).list(items.len());
            return items.iter().try_for_each(|item| write_json(key, item, depth + 1));
        }
        Value::Object(fields) => {
            key.variant(5).list(fields.len());
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            return sorted.into_iter().try_for_each(|(name, value)| {
                key.text(name);
                write_json(key, value, depth + 1)
            });
        }
    };
    Ok(())
}
