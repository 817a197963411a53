//! What servers send: one shape for whole answers and for pieces of streams, because they differ in the name of
//! one field only (`message`, `delta`).
//!
//! Invariant: a field that is missing, null or of a type that nobody sends reads as absent; only what is not
//! JSON at all, or a container of the wrong kind, is an error. Text is borrowed until it is needed; what most
//! chunks of a stream do not have is boxed, so that little is moved for each.

use std::borrow::Cow;
use std::fmt;

use peregrine_core::Usage;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::wire::json::{self, Count, Text};

#[derive(serde::Deserialize)]
pub(super) struct Reply<'a> {
    #[serde(borrow, default)]
    pub(super) id: Text<'a>,
    #[serde(borrow, default)]
    pub(super) model: Text<'a>,
    #[serde(borrow, default)]
    pub(super) object: Text<'a>,
    #[serde(borrow)]
    pub(super) choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow)]
    pub(super) usage: Option<Box<WireUsage<'a>>>,
    #[serde(borrow)]
    pub(super) x_groq: Option<Groq<'a>>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
    pub(super) time_info: Option<Box<Seconds>>,
    pub(super) timings: Option<Box<Milliseconds>>,
    #[serde(borrow)]
    pub(super) system_fingerprint: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) service_tier: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) provider: Option<&'a RawValue>,
}

#[derive(serde::Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(default)]
    pub(super) index: Count,
    #[serde(borrow)]
    pub(super) message: Option<Box<Piece<'a>>>,
    #[serde(borrow)]
    pub(super) delta: Option<Piece<'a>>,
    #[serde(borrow, default)]
    pub(super) finish_reason: Text<'a>,
    #[serde(borrow)]
    pub(super) native_finish_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

/// A message, or a piece of one.
#[derive(Default, serde::Deserialize)]
pub(super) struct Piece<'a> {
    #[serde(borrow, default)]
    pub(super) content: Content<'a>,
    #[serde(borrow, default)]
    pub(super) refusal: Text<'a>,
    #[serde(borrow, default)]
    pub(super) reasoning_content: Text<'a>,
    #[serde(borrow, default)]
    pub(super) reasoning: Text<'a>,
    #[serde(borrow)]
    pub(super) reasoning_details: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    pub(super) tool_calls: Option<Vec<Call<'a>>>,
    /// How tools were called before `tool_calls`.
    #[serde(borrow)]
    pub(super) function_call: Option<Function<'a>>,
    #[serde(borrow)]
    pub(super) images: Option<Vec<Image<'a>>>,
    #[serde(borrow)]
    pub(super) audio: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) extra_content: Option<&'a RawValue>,
}

#[derive(Default, serde::Deserialize)]
pub(super) struct Call<'a> {
    #[serde(default)]
    pub(super) index: Count,
    #[serde(borrow, default)]
    pub(super) id: Text<'a>,
    #[serde(borrow)]
    pub(super) function: Option<Function<'a>>,
    #[serde(borrow)]
    pub(super) custom: Option<Custom<'a>>,
    #[serde(borrow)]
    pub(super) extra_content: Option<&'a RawValue>,
}

#[derive(Default, serde::Deserialize)]
pub(super) struct Function<'a> {
    #[serde(borrow, default)]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) arguments: Option<&'a RawValue>,
}

#[derive(serde::Deserialize)]
pub(super) struct Custom<'a> {
    #[serde(borrow, default)]
    pub(super) name: Text<'a>,
    #[serde(borrow, default)]
    pub(super) input: Text<'a>,
}

#[derive(serde::Deserialize)]
pub(super) struct Image<'a> {
    #[serde(borrow)]
    pub(super) image_url: Option<ImageUrl<'a>>,
}

#[derive(serde::Deserialize)]
pub(super) struct ImageUrl<'a> {
    #[serde(borrow, default)]
    pub(super) url: Text<'a>,
}

/// Groq's own corner of a reply; older streams have the usage there only.
#[derive(serde::Deserialize)]
pub(super) struct Groq<'a> {
    #[serde(borrow)]
    pub(super) usage: Option<Box<WireUsage<'a>>>,
}

#[derive(serde::Deserialize)]
pub(super) struct WireUsage<'a> {
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    completion_tokens: Count,
    #[serde(default)]
    pub(super) total_tokens: Count,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<OutputDetails>,
    /// DeepSeek.
    #[serde(default)]
    prompt_cache_hit_tokens: Count,
    /// Mistral.
    #[serde(default)]
    num_cached_tokens: Count,
    /// Together.
    #[serde(default)]
    cached_tokens: Count,
    /// OpenRouter.
    #[serde(borrow)]
    pub(super) cost: Option<&'a RawValue>,
    /// Groq.
    #[serde(default)]
    pub(super) total_time: Option<f64>,
    #[serde(default)]
    pub(super) prompt_time: Option<f64>,
    #[serde(default)]
    pub(super) completion_time: Option<f64>,
}

#[derive(Default, serde::Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Count,
    #[serde(default)]
    cache_write_tokens: Count,
}

#[derive(Default, serde::Deserialize)]
struct OutputDetails {
    #[serde(default)]
    reasoning_tokens: Count,
}

impl WireUsage<'_> {
    /// The usage; `None` if no count is there.
    pub(super) fn usage(&self) -> Option<Usage> {
        let prompt = self.prompt_tokens_details.as_ref();
        let cached = [
            prompt.and_then(|details| details.cached_tokens.0),
            self.prompt_cache_hit_tokens.0,
            self.num_cached_tokens.0,
            self.cached_tokens.0,
        ];
        let reasoning = self
            .completion_tokens_details
            .as_ref()
            .and_then(|details| details.reasoning_tokens.0);
        let (input, output) = (self.prompt_tokens.0, self.completion_tokens.0);
        if input.is_none() && output.is_none() {
            return None;
        }
        let mut usage = Usage::new(input.unwrap_or(0), output.unwrap_or(0));
        usage.cached_input_tokens = cached.into_iter().flatten().max().unwrap_or(0);
        usage.cache_write_tokens = prompt
            .and_then(|details| details.cache_write_tokens.0)
            .unwrap_or(0);
        usage.reasoning_tokens = reasoning.unwrap_or(0);
        // xAI counts reasoning beside the completion, which shows in the total.
        let with_reasoning = usage.total_tokens().saturating_add(usage.reasoning_tokens);
        if usage.reasoning_tokens > 0 && self.total_tokens.0 == Some(with_reasoning) {
            usage.output_tokens = usage.output_tokens.saturating_add(usage.reasoning_tokens);
        }
        Some(usage)
    }
}

/// Cerebras: `time_info`.
#[derive(serde::Deserialize)]
pub(super) struct Seconds {
    pub(super) total_time: Option<f64>,
    pub(super) prompt_time: Option<f64>,
    pub(super) completion_time: Option<f64>,
}

/// llama.cpp: `timings`.
#[derive(serde::Deserialize)]
pub(super) struct Milliseconds {
    pub(super) prompt_ms: Option<f64>,
    pub(super) predicted_ms: Option<f64>,
}

/// Content: a text, or a list of pieces (Mistral).
#[derive(Default)]
pub(crate) enum Content<'a> {
    #[default]
    None,
    Text(Cow<'a, str>),
    Pieces(Vec<&'a RawValue>),
}

/// A piece of a content that is a list.
#[derive(serde::Deserialize)]
pub(super) struct ContentPiece<'a> {
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(super) text: Text<'a>,
    #[serde(borrow)]
    pub(super) thinking: Option<Vec<ContentPiece<'a>>>,
    #[serde(borrow)]
    pub(super) signature: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of pieces")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Content::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Content::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Content::None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut pieces = Vec::new();
        while let Some(piece) = seq.next_element()? {
            pieces.push(piece);
        }
        Ok(Content::Pieces(pieces))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Content::None)
    }
}

/// Arguments of a call as text: what the model wrote, or the compact form of an object.
pub(crate) fn arguments(raw: &RawValue) -> Cow<'_, str> {
    let text = raw.get();
    if text.starts_with('"') {
        // A `RawValue` is valid JSON, and JSON that begins with a quote is a string.
        serde_json::from_str::<String>(text).map_or(Cow::Borrowed(text), Cow::Owned)
    } else {
        Cow::Owned(json::compact(text))
    }
}
