//! OpenAI Chat Completions, and every server that speaks it.
//!
//! One codec; what sets servers apart is data ([`ChatCompat`]), not code.
//!
//! # What goes over the wire, and what does not
//!
//! - Instructions stay where they stand in the conversation, as messages of the role `system`.
//! - Provider options of the dialect `openai-chat` are fields of the body; an option replaces what the codec
//!   would have written for the same name. `stream` is not an option: it is chosen by how the model is called.
//! - [`OpaquePart`](peregrine_core::OpaquePart)s of this dialect are pieces of the content (their value is an
//!   object whose `type` is their kind) or fields of the message (any other value, under their kind as name).
//!   So a piece that has no part of its own, such as `video_url`, can be sent.
//! - A plain text document becomes a text piece between `<document>` tags, since the dialect only has files.
//! - Whether a tool failed is told by the content of its result: the dialect has no flag for it.
//! - Prompt-cache hints cannot change an answer, so a server that has no word for them does not get them.
//!   Everything else that a server has no word for is an error.
//! - Reasoning goes back only to servers that want it ([`ReasoningEcho`]), and only if it came in this dialect.
//!
//! # What is read
//!
//! The first choice; others (`n` > 1) stay in the raw body. Reasoning is read from `reasoning_content`,
//! `reasoning` or `reasoning_details`. Metadata: `created`, `system_fingerprint`, `service_tier`, `provider`,
//! `native_finish_reason`, `cost`, and `total_tokens` where it is not the sum of its parts. An answer that a
//! server calls finished and then calls an error keeps its finish, and the error as metadata `error`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use peregrine_core::{ChatRequest, ChatResponse, RawResponse, Result};

use super::schema::StrictCache;
use super::{ChatCodec, EncodedPrefix, EventDecoder, Mode, Target};

mod assembly;
mod calls;
mod compat;
mod message;
mod piece;
mod reply;
mod request;
mod response;
mod stream;

pub use compat::{
    AudioForm, ChatCompat, DocumentForm, PromptCacheForm, ReasoningEcho, ReasoningForm, ReasoningShown,
};

pub(crate) use piece::{audio_format, required_type};
pub(crate) use reply::{Content, arguments};
pub(crate) use request::openai_cache_ttl;
pub(crate) use response::{fold, keep_raw};

/// The dialect's name.
pub(crate) const DIALECT: &str = "openai-chat";

/// The codec of Chat Completions. Cheap to clone.
///
/// # Examples
///
/// ```
/// use peregrine_core::{Capabilities, ChatRequest};
/// use peregrine_providers::wire::openai_chat::{ChatCompat, OpenAiChat};
/// use peregrine_providers::wire::{ChatCodec, Mode, Target};
///
/// let codec = OpenAiChat::new(ChatCompat::mistral());
/// let capabilities = Capabilities::default();
/// let target = Target { provider: "mistral", model: "mistral-small-latest", capabilities: &capabilities };
/// let mut body = Vec::new();
/// codec.encode(&target, &ChatRequest::user("hi").with_temperature(0.0), Mode::Complete, &mut body)?;
/// assert_eq!(
///     String::from_utf8_lossy(&body),
///     r#"{"model":"mistral-small-latest","temperature":0.0,"messages":[{"role":"user","content":"hi"}]}"#,
/// );
/// # Ok::<(), peregrine_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct OpenAiChat {
    compat: Arc<ChatCompat>,
    /// Stands for the dialect and the kind of server in keys of encoded messages.
    key: u64,
    strict: Arc<StrictCache>,
}

impl OpenAiChat {
    /// A codec for servers of this kind.
    pub fn new(compat: ChatCompat) -> Self {
        Self {
            key: key_of(&(DIALECT, &compat)),
            compat: Arc::new(compat),
            strict: Arc::default(),
        }
    }

    /// What kind of server this codec speaks to.
    pub fn compat(&self) -> &ChatCompat {
        &self.compat
    }
}

impl Default for OpenAiChat {
    fn default() -> Self {
        Self::new(ChatCompat::default())
    }
}

impl ChatCodec for OpenAiChat {
    fn dialect(&self) -> &'static str {
        DIALECT
    }

    fn path(&self, _: &Target<'_>, _: Mode) -> String {
        "/chat/completions".to_owned()
    }

    fn encode(
        &self,
        target: &Target<'_>,
        request: &ChatRequest,
        mode: Mode,
        out: &mut Vec<u8>,
    ) -> Result<Option<EncodedPrefix>> {
        let start = out.len();
        let encoded = request::encode(self, target, request, mode, out);
        if encoded.is_err() {
            out.truncate(start);
        }
        encoded
    }

    fn decode(&self, target: &Target<'_>, raw: RawResponse) -> Result<ChatResponse> {
        response::decode(target.provider, raw)
    }

    fn decoder(&self, target: &Target<'_>) -> Box<dyn EventDecoder> {
        Box::new(stream::ChatDecoder::new(target.provider))
    }
}

/// A key for bytes that depend on `value`.
pub(crate) fn key_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
