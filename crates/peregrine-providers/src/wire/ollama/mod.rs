//! Ollama's native API: `/api/chat` and `/api/embed`, and the calls that list what a server has.
//!
//! Invariant: `stream` is always said (the server streams by default), every other field only where the
//! request or the codec gives it; an answer is an answer only with `done: true`.
//!
//! What differs from the other dialects:
//!
//! - Streams are lines of JSON. An error may be a line after HTTP 200, or the body of a 200.
//! - Arguments of tool calls are objects, in both directions. Calls often have no id: one is made up
//!   (`call_<digits of created_at>_<n>`, so that it is unique within a conversation too).
//! - Tool calls come whole, and the decoder hands them on at the end of the answer, behind all text: the
//!   dialect does not say how text and calls were interleaved, so this is the order in both modes.
//! - The server cuts prompts that are longer than its `num_ctx` without a word. Raise it with
//!   `with_provider_option("ollama", "options", json!({"num_ctx": 32768}))`, or make it an error with
//!   `("ollama", "truncate", false)`.
//!
//! What the dialect cannot say, and so is refused: a tool choice other than `auto` and `none` (sending no
//! tools is how it says `none`), `parallel_tool_calls`, a reasoning budget, the efforts `minimal` and
//! `xhigh`, hidden reasoning, audio, files, and images by address. Hints have no place here and change
//! nothing: prompt-cache hints, a tool's `strict`, an image's `detail`, the name of a schema.

mod admin;
mod chunk;
mod embed;
mod host;
mod keep_alive;
mod messages;
mod request;
mod response;
mod stream;

use peregrine_core::{ChatRequest, ChatResponse, RawResponse, Result};

pub use admin::{AdminRequest, InstalledModel, ModelDescription, ModelDetails, RunningModel};
pub use embed::OllamaEmbed;
pub use host::{HostError, base_url};
pub use keep_alive::KeepAlive;

use super::{ChatCodec, EncodedPrefix, EventDecoder, Framing, Mode, Target};

/// The name of the dialect.
pub(crate) const DIALECT: &str = "ollama";

/// The chat dialect of `/api/chat`.
///
/// # Examples
///
/// ```
/// use peregrine_core::{Capabilities, ChatRequest};
/// use peregrine_providers::wire::ollama::{KeepAlive, Ollama};
/// use peregrine_providers::wire::{ChatCodec, Mode, Target};
///
/// let codec = Ollama::new().with_keep_alive(KeepAlive::FOREVER);
/// let capabilities = Capabilities::default();
/// let target = Target { provider: "ollama", model: "llama3.2:1b", capabilities: &capabilities };
/// let mut body = Vec::new();
/// codec.encode(&target, &ChatRequest::user("hi").with_max_tokens(9), Mode::Stream, &mut body)?;
/// assert_eq!(
///     String::from_utf8_lossy(&body),
///     r#"{"model":"llama3.2:1b","stream":true,"keep_alive":-1,"options":{"num_predict":9},"#.to_owned()
///         + r#""messages":[{"role":"user","content":"hi"}]}"#,
/// );
/// # Ok::<(), peregrine_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Ollama {
    /// How long the server keeps the model loaded after a call; `None` leaves it to the server. The
    /// provider option `keep_alive` of a request replaces it.
    pub keep_alive: Option<KeepAlive>,
}

impl Ollama {
    /// The dialect as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says how long the server keeps the model loaded after a call.
    #[must_use]
    pub fn with_keep_alive(mut self, keep_alive: KeepAlive) -> Self {
        self.keep_alive = Some(keep_alive);
        self
    }
}

impl ChatCodec for Ollama {
    fn dialect(&self) -> &'static str {
        DIALECT
    }

    fn path(&self, _: &Target<'_>, _: Mode) -> String {
        "/api/chat".to_owned()
    }

    fn framing(&self) -> Framing {
        Framing::Ndjson
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
}
