//! OpenAI Responses, and the servers that speak it.
//!
//! # Stateless by default
//!
//! Nothing is stored at the provider: `store` is false, the encrypted form of the reasoning is asked for, and
//! every item that came goes back word for word, so a tool loop keeps its reasoning without state elsewhere.
//! `store`, `previous_response_id`, `conversation`, `background` and all else are provider options of the
//! dialect `openai-responses`; an option replaces what the codec would have written for the same name.
//!
//! # Instructions
//!
//! System messages are items of `input`, in their places, not the field `instructions`: several of them can
//! stand anywhere, a new one at the end leaves all bytes before it as they were (so the provider's prompt cache
//! still fits), and they are part of a stored conversation, which `instructions` are not.
//!
//! # Items and parts
//!
//! | item | part |
//! |---|---|
//! | `message`: `output_text` | text; its data hold the item's `id` and `phase` |
//! | `message`: `refusal` | refusal |
//! | `reasoning` | reasoning; the text is the reasoning if it is shown, else its summary; the data are the item |
//! | `function_call` | tool call; its data hold what else stands in the item, such as `id` and `namespace` |
//! | any other | opaque, the item word for word |
//!
//! Opaque parts of this dialect in a user message are pieces of its content, elsewhere items. Whether a tool
//! failed is told by the content of its result. Prompt-cache hints that a server has no word for are left out.
//!
//! Metadata: `created_at`, `service_tier`, `incomplete_reason`.

use std::sync::Arc;

use peregrine_core::{ChatRequest, ChatResponse, RawResponse, Result};

use super::openai_chat::{keep_raw, key_of};
use super::schema::StrictCache;
use super::{ChatCodec, EncodedPrefix, EventDecoder, Mode, Target};

mod assembly;
mod input;
mod reply;
mod request;
mod stream;

/// The dialect's name.
pub(crate) const DIALECT: &str = "openai-responses";

/// How one server speaks Responses. The default is OpenAI itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ResponsesCompat {
    /// The role of instructions: `developer` or `system`.
    pub system_role: &'static str,
    /// Whether `store: false` is written, and the encrypted reasoning of models that reason asked for.
    pub stateless: bool,
    /// Whether `prompt_cache_key` and the lifetimes and breakpoints of the prompt cache are taken.
    pub prompt_cache: bool,
    /// Whether a refusal of the model goes back as a `refusal`; else it goes back as text.
    pub refusals: bool,
    /// Whether the form of the answer is said in `text`; else it is said in the `response_format` of Chat
    /// Completions.
    pub text_format: bool,
}

impl Default for ResponsesCompat {
    fn default() -> Self {
        Self::openai()
    }
}

impl ResponsesCompat {
    /// OpenAI.
    pub const fn openai() -> Self {
        Self {
            system_role: "developer",
            stateless: true,
            prompt_cache: true,
            refusals: true,
            text_format: true,
        }
    }

    /// Servers that store nothing anyway and know the core of the dialect only.
    pub const fn plain() -> Self {
        Self {
            system_role: "system",
            stateless: false,
            prompt_cache: false,
            refusals: false,
            text_format: true,
        }
    }

    /// The server of llama.cpp. It takes no notice of `text`, and calls an answer that reached its bound
    /// completed.
    pub const fn llama_cpp() -> Self {
        Self {
            text_format: false,
            ..Self::plain()
        }
    }

    /// The preset for a provider by its usual name, such as `deepseek` or `llama.cpp`.
    pub fn of_provider(name: &str) -> Option<Self> {
        Some(match name {
            "openai" => Self::openai(),
            "llama.cpp" | "llama_cpp" | "llama-cpp" | "llamacpp" => Self::llama_cpp(),
            "deepseek" | "openrouter" | "groq" | "xai" | "vllm" | "ollama" | "lmstudio" | "huggingface" => {
                Self::plain()
            }
            _ => return None,
        })
    }
}

/// The codec of Responses. Cheap to clone.
///
/// # Examples
///
/// ```
/// use peregrine_core::{Capabilities, ChatRequest};
/// use peregrine_providers::wire::openai_responses::OpenAiResponses;
/// use peregrine_providers::wire::{ChatCodec, Mode, Target};
///
/// let codec = OpenAiResponses::default();
/// let capabilities = Capabilities::default();
/// let target = Target { provider: "openai", model: "gpt-5", capabilities: &capabilities };
/// let mut body = Vec::new();
/// codec.encode(&target, &ChatRequest::user("hi"), Mode::Complete, &mut body)?;
/// assert_eq!(
///     String::from_utf8_lossy(&body),
///     r#"{"model":"gpt-5","store":false,"input":[{"role":"user","content":"hi"}]}"#,
/// );
/// # Ok::<(), peregrine_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct OpenAiResponses {
    compat: Arc<ResponsesCompat>,
    /// Stands for the dialect and the kind of server in keys of encoded messages.
    key: u64,
    strict: Arc<StrictCache>,
}

impl OpenAiResponses {
    /// A codec for servers of this kind.
    pub fn new(compat: ResponsesCompat) -> Self {
        Self {
            key: key_of(&(DIALECT, &compat)),
            compat: Arc::new(compat),
            strict: Arc::default(),
        }
    }

    /// What kind of server this codec speaks to.
    pub fn compat(&self) -> &ResponsesCompat {
        &self.compat
    }
}

impl Default for OpenAiResponses {
    fn default() -> Self {
        Self::new(ResponsesCompat::default())
    }
}

impl ChatCodec for OpenAiResponses {
    fn dialect(&self) -> &'static str {
        DIALECT
    }

    fn path(&self, _: &Target<'_>, _: Mode) -> String {
        "/responses".to_owned()
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
        match assembly::whole(target.provider, &raw) {
            Ok(mut response) => {
                response.raw = Some(raw);
                Ok(response)
            }
            Err(error) => Err(keep_raw(error, raw)),
        }
    }

    fn decoder(&self, target: &Target<'_>) -> Box<dyn EventDecoder> {
        Box::new(stream::ResponsesDecoder::new(target.provider))
    }
}
