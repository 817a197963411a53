//! Google's Gemini API (`generateContent`, `v1beta`).
//!
//! Invariant: a thought signature goes back on the part on which it came, and parts that only the provider
//! understands (code it ran, calls of its own tools) go back word for word, and only to this dialect.

mod assembler;
mod content;
mod request;
mod response;
mod schema;
mod stream;

pub(super) use response::error_body;

use peregrine_core::{ChatRequest, ChatResponse, RawResponse, Result};

use super::adapted::AdaptedSchemas;
use super::error::ErrorBody;
use super::{ChatCodec, EncodedPrefix, EventDecoder, Mode, Target};

/// The dialect's name.
const DIALECT: &str = "gemini";

/// The Gemini dialect, as Google and gateways such as LiteLLM speak it.
///
/// Paths are `/models/{model}:generateContent` and `/models/{model}:streamGenerateContent?alt=sse`, relative
/// to a base URL that ends in the API's version, such as `https://generativelanguage.googleapis.com/v1beta`.
/// A model may be given with its collection (`models/..`, `tunedModels/..`).
///
/// # How things are said
///
/// - All system messages become the one `systemInstruction`: the dialect has no other place for them.
/// - Consecutive messages of one side form one turn, results of functions first.
/// - A result that is a JSON object is sent as it is, other text as `{"result": ..}`, a failure as
///   `{"error": ..}`. Images and documents of a result are parts of the response from Gemini 3 on, and stand
///   behind it for older models.
/// - The title of a document is sent as a text part `Document: <title>` before it.
/// - Calls of other models are replayed to Gemini 3 with the signature that Google gives for that purpose.
/// - A reasoning budget is `thinkingBudget`, an effort `thinkingLevel`, no effort a budget of 0.
/// - A strict tool asks for validated calls (`VALIDATED`), which is a mode of the whole request.
/// - Provider options stand at the top level: an option `generationConfig` replaces all of it, sampling
///   included.
/// - `parallel_tool_calls: false` and effort `max` cannot be said: they are errors. Prompt-cache hints are passed
///   over: Gemini caches by itself.
///
/// # What comes back
///
/// `metadata` holds `finish_message`, `safety_ratings`, `grounding_metadata`, `citation_metadata`,
/// `url_context_metadata`, `continuation_token`, `service_tier` and `tool_use_prompt_tokens` (tokens of the
/// provider's own tools, which it counts beside the prompt) where the provider sends them, and
/// `finish_reason` where [`Finish`](peregrine_core::Finish) does not tell it.
///
/// # Examples
///
/// ```
/// use peregrine_core::{Capabilities, ChatRequest};
/// use peregrine_providers::wire::gemini::Gemini;
/// use peregrine_providers::wire::{ChatCodec, Mode, Target};
///
/// let capabilities = Capabilities::default();
/// let target = Target { provider: "gemini", model: "gemini-3-pro", capabilities: &capabilities };
/// let codec = Gemini::new();
/// assert_eq!(codec.path(&target, Mode::Complete), "/models/gemini-3-pro:generateContent");
/// let mut body = Vec::new();
/// codec.encode(&target, &ChatRequest::user("Hi").with_max_tokens(9), Mode::Complete, &mut body)?;
/// assert_eq!(
///     String::from_utf8_lossy(&body),
///     r#"{"generationConfig":{"maxOutputTokens":9},"contents":[{"role":"user","parts":[{"text":"Hi"}]}]}"#
/// );
/// # Ok::<(), peregrine_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Gemini {
    /// How schemas are said: as JSON Schema, or rewritten to OpenAPI's.
    open_api: Option<AdaptedSchemas>,
}

impl Gemini {
    /// The codec.
    pub fn new() -> Self {
        Self { open_api: None }
    }

    /// Says schemas in the OpenAPI subset (`parameters`, `responseSchema`) that servers and models before
    /// Gemini 2 know, instead of as JSON Schema (`parametersJsonSchema`, `responseJsonSchema`).
    #[must_use]
    pub fn with_openapi_schemas(mut self) -> Self {
        self.open_api = Some(AdaptedSchemas::new(schema::adapt));
        self
    }
}

impl Default for Gemini {
    fn default() -> Self {
        Self::new()
    }
}

impl ChatCodec for Gemini {
    fn dialect(&self) -> &'static str {
        DIALECT
    }

    fn path(&self, target: &Target<'_>, mode: Mode) -> String {
        let method = match mode {
            Mode::Complete => "generateContent",
            Mode::Stream => "streamGenerateContent?alt=sse",
        };
        model_path(target.model, method)
    }

    fn encode(
        &self,
        target: &Target<'_>,
        request: &ChatRequest,
        mode: Mode,
        out: &mut Vec<u8>,
    ) -> Result<Option<EncodedPrefix>> {
        // Whether the answer is streamed is said in the path.
        let (Mode::Complete | Mode::Stream) = mode;
        request::encode(self, target, request, out)
    }

    fn decode(&self, target: &Target<'_>, raw: RawResponse) -> Result<ChatResponse> {
        response::decode(target, raw)
    }

    fn decoder(&self, target: &Target<'_>) -> Box<dyn EventDecoder> {
        Box::new(stream::Decoder::new(target.provider))
    }

    fn error_body(&self, body: &[u8]) -> ErrorBody {
        error_body(body)
    }
}

/// `/models/{model}:{method}`, with what is no part of a name escaped.
pub(super) fn model_path(model: &str, method: &str) -> String {
    let mut path = String::with_capacity(model.len() + method.len() + 10);
    path.push_str(if has_collection(model) { "/" } else { "/models/" });
    for byte in model.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b'@' => {
                path.push(char::from(byte));
            }
            other => path.push_str(&format!("%{other:02X}")),
        }
    }
    path.push(':');
    path.push_str(method);
    path
}

/// Whether a model's name says in which collection it is.
pub(super) fn has_collection(model: &str) -> bool {
    model.starts_with("models/") || model.starts_with("tunedModels/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_hold_the_model_and_nothing_else_of_it() {
        let path = |model| model_path(model, "m");
        assert_eq!(path("gemini-2.5-flash"), "/models/gemini-2.5-flash:m");
        assert_eq!(path("tunedModels/my-1"), "/tunedModels/my-1:m");
        assert_eq!(path("models/x"), "/models/x:m");
        assert_eq!(path("a?key=b#c:d é"), "/models/a%3Fkey%3Db%23c%3Ad%20%C3%A9:m");
    }
}
