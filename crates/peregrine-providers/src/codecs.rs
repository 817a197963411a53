//! Which codec speaks for which profile.

use std::sync::Arc;

use crate::profile::{Dialect, Profile};
use crate::wire::anthropic::Anthropic;
use crate::wire::gemini::Gemini;
use crate::wire::gemini_embed::GeminiEmbed;
use crate::wire::ollama::{Ollama, OllamaEmbed};
use crate::wire::openai_chat::{ChatCompat, OpenAiChat};
use crate::wire::openai_embed::OpenAiEmbed;
use crate::wire::openai_responses::{OpenAiResponses, ResponsesCompat};
use crate::wire::{ChatCodec, EmbedCodec};

/// The chat codec of a profile.
pub(crate) fn chat(profile: &Profile) -> Arc<dyn ChatCodec> {
    match profile.dialect {
        Dialect::OpenAiChat => Arc::new(OpenAiChat::new(
            ChatCompat::of_provider(profile.name).unwrap_or_default(),
        )),
        Dialect::OpenAiResponses => {
            let server = profile.name.trim_end_matches("-responses");
            Arc::new(OpenAiResponses::new(
                ResponsesCompat::of_provider(server).unwrap_or_default(),
            ))
        }
        Dialect::Anthropic => Arc::new(Anthropic::new()),
        Dialect::Gemini => Arc::new(Gemini::new()),
        Dialect::Ollama => Arc::new(Ollama::new()),
    }
}

/// The embedding codec of a profile that has an embedding API.
pub(crate) fn embed(profile: &Profile) -> Option<Arc<dyn EmbedCodec>> {
    profile.default_embedder?;
    match profile.dialect {
        Dialect::OpenAiChat if profile.name == "mistral" => Some(Arc::new(OpenAiEmbed::mistral())),
        Dialect::OpenAiChat => Some(Arc::new(OpenAiEmbed::new())),
        Dialect::Gemini => Some(Arc::new(GeminiEmbed::new())),
        Dialect::Ollama => Some(Arc::new(OllamaEmbed::new())),
        Dialect::OpenAiResponses | Dialect::Anthropic => None,
    }
}
