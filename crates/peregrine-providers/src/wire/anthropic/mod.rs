//! Anthropic's Messages API (`anthropic-version: 2023-06-01`).
//!
//! Invariant: whatever the provider wants to see again (signed thinking, redacted thinking, calls and results
//! of its own tools, citations) is kept in a form that is sent back word for word, and only to this dialect.

mod content;
mod request;
mod response;
mod schema;
mod stream;

use peregrine_core::{ChatRequest, ChatResponse, RawResponse, Result};

use super::adapted::AdaptedSchemas;
use super::error::ErrorBody;
use super::{ChatCodec, EncodedPrefix, EventDecoder, Mode, Target};

/// The dialect's name.
const DIALECT: &str = "anthropic";

/// The output bound of a request that has none, to a model whose bound is not known.
const DEFAULT_MAX_TOKENS: u32 = 4096;

/// The Messages dialect, as Anthropic, llama.cpp, Ollama and gateways speak it.
///
/// The path is `/v1/messages`, relative to a base URL such as `https://api.anthropic.com`, which is the form
/// of `ANTHROPIC_BASE_URL`. Where a user's base URL ends in `/v1`, cut that off.
///
/// # How things are said
///
/// - Leading system messages become the top-level `system`; later ones stay in place with the role `system`,
///   which models since Claude Opus 4.8 take and older ones refuse.
/// - Consecutive messages of one side form one turn, tool results first. Empty text parts of the assistant
///   are left out, because the provider refuses them.
/// - `max_tokens` is required: the request's, else the model's bound, else [`Anthropic::with_max_tokens`].
/// - A schema for the answer (or of a strict tool) is rewritten to what the provider enforces: see
///   [`ResponseFormat`](peregrine_core::ResponseFormat). The schema's name has no place and is not sent.
/// - A reasoning budget is `thinking: enabled`, 0 is `disabled`; an effort is `output_config.effort` with
///   `thinking: adaptive`.
/// - Arguments of a tool call that are not a JSON object are sent back as `{"invalid_arguments": "<text>"}`,
///   so that the model sees what it wrote.
/// - Ids of tool calls made by other providers are rewritten to the characters that Anthropic takes.
/// - Seed, penalties, JSON mode without a schema and audio cannot be said: they are errors.
/// - A prompt-cache key, for which there is no word, is passed over; a lifetime over an hour is an hour.
///
/// # What comes back
///
/// `metadata` holds `stop_sequence`, `stop_details`, `container`, `context_management`, `service_tier`,
/// `server_tool_use` where the provider sends them, and `stop_reason` where [`Finish`](peregrine_core::Finish)
/// does not tell it.
///
/// # Examples
///
/// ```
/// use peregrine_core::{Capabilities, ChatRequest};
/// use peregrine_providers::wire::anthropic::Anthropic;
/// use peregrine_providers::wire::{ChatCodec, Mode, Target};
///
/// let capabilities = Capabilities::default();
/// let target = Target { provider: "anthropic", model: "claude-sonnet-4-6", capabilities: &capabilities };
/// let mut body = Vec::new();
/// Anthropic::new().encode(&target, &ChatRequest::user("Hi"), Mode::Complete, &mut body)?;
/// assert_eq!(
///     String::from_utf8_lossy(&body),
///     r#"{"model":"claude-sonnet-4-6","max_tokens":4096,"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}]}"#
/// );
/// # Ok::<(), peregrine_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Anthropic {
    max_tokens: u32,
    schemas: AdaptedSchemas,
}

impl Anthropic {
    /// The codec.
    pub fn new() -> Self {
        Self {
            max_tokens: DEFAULT_MAX_TOKENS,
            schemas: AdaptedSchemas::new(schema::adapt),
        }
    }

    /// Sets the output bound (4096 at first) of requests that have none, to models whose bound is not known.
    #[must_use]
    pub fn with_max_tokens(mut self, max_tokens: u32) -> Self {
        self.max_tokens = max_tokens;
        self
    }
}

impl Default for Anthropic {
    fn default() -> Self {
        Self::new()
    }
}

impl ChatCodec for Anthropic {
    fn dialect(&self) -> &'static str {
        DIALECT
    }

    fn path(&self, _: &Target<'_>, _: Mode) -> String {
        "/v1/messages".to_owned()
    }

    fn encode(
        &self,
        target: &Target<'_>,
        request: &ChatRequest,
        mode: Mode,
        out: &mut Vec<u8>,
    ) -> Result<Option<EncodedPrefix>> {
        request::encode(self, target, request, mode, out)
    }

    fn decode(&self, target: &Target<'_>, raw: RawResponse) -> Result<ChatResponse> {
        response::decode(target, raw)
    }

    fn decoder(&self, target: &Target<'_>) -> Box<dyn EventDecoder> {
        Box::new(stream::Decoder::new(target.provider))
    }

    fn error_body(&self, body: &[u8]) -> ErrorBody {
        response::error_body(body)
    }
}
