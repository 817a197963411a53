//! Sans-IO codecs: requests to bytes, bytes to answers.
//!
//! A codec speaks one dialect. It writes exactly what it was given (what the dialect cannot say is an error,
//! not an omission; only prompt-cache hints, which change no answer, are passed over), reads leniently (unknown fields and events are passed over), and never guesses success:
//! an answer without its end is an error. The wire structs are private to each codec.
//!
//! | module | dialect |
//! |---|---|
//! | [`sse`], [`ndjson`] | framing of streams |
//! | [`anthropic`] | Anthropic Messages |
//! | [`gemini`], [`gemini_embed`] | Google Gemini: chat, embeddings |
//! | [`error`] | from status, headers and code to an error kind |
//! | [`openai_chat`], [`openai_responses`], [`openai_embed`] | OpenAI, and the servers that speak its dialects |
//! | [`schema`] | schemas as strict structured output takes them |
//! | [`ollama`] | Ollama's native API: chat, embeddings, the models of a server |

use std::collections::VecDeque;
use std::ops::Range;

use peregrine_core::{
    Capabilities, ChatEvent, ChatRequest, ChatResponse, EmbedRequest, Embeddings, RawResponse, Result, Usage,
};

pub(crate) mod adapted;
pub mod anthropic;
pub(crate) mod body;
pub mod error;
pub(crate) mod fields;
pub mod gemini;
pub mod gemini_embed;
pub(crate) mod json;
pub mod ndjson;
pub mod ollama;
pub mod openai_chat;
pub mod openai_embed;
pub mod openai_responses;
pub mod schema;
pub mod sse;
#[cfg(feature = "http")]
pub(crate) mod structure;
mod tool_ids;
pub(crate) mod turns;

pub use tool_ids::ToolIds;

/// The model that a codec writes to or reads from.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Who serves it, for errors: `openai`, `groq`.
    pub provider: &'a str,
    /// Its name there.
    pub model: &'a str,
    /// What it can do.
    pub capabilities: &'a Capabilities,
}

/// Whether the answer is to come whole or in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Whole.
    Complete,
    /// In pieces.
    Stream,
}

/// How a dialect frames its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Framing {
    /// Server-sent events (WHATWG HTML, section 9.2).
    Sse,
    /// A JSON value on each line.
    Ndjson,
}

/// One frame of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The event's name, in SSE, if it has one.
    pub event: Option<&'a str>,
    /// Its data.
    pub data: &'a str,
}

/// The events that a decoder has made and nobody has taken yet.
pub type Events = VecDeque<ChatEvent>;

/// A chat dialect.
pub trait ChatCodec: Send + Sync + 'static {
    /// The dialect's name, as in [`ProviderData`](peregrine_core::ProviderData) and
    /// [`ProviderOptions`](peregrine_core::ProviderOptions).
    fn dialect(&self) -> &'static str;

    /// The address of a call, relative to the base URL, with a leading slash.
    fn path(&self, target: &Target<'_>, mode: Mode) -> String;

    /// How the dialect frames its streams.
    fn framing(&self) -> Framing {
        Framing::Sse
    }

    /// Appends the body of a call to `out`.
    ///
    /// The messages come last in the body, so that the body of a turn, without its closing brackets, is a
    /// byte prefix of the next turn's.
    ///
    /// # Errors
    ///
    /// [`InvalidRequest`](peregrine_core::ErrorKind::InvalidRequest) for what the dialect cannot say.
    fn encode(
        &self,
        target: &Target<'_>,
        request: &ChatRequest,
        mode: Mode,
        out: &mut Vec<u8>,
    ) -> Result<Option<EncodedPrefix>>;

    /// Reads a whole answer. The response keeps `raw`.
    ///
    /// # Errors
    ///
    /// The provider's error if the body holds one, else a protocol error that carries `raw`.
    fn decode(&self, target: &Target<'_>, raw: RawResponse) -> Result<ChatResponse>;

    /// A decoder for one streamed answer.
    fn decoder(&self, target: &Target<'_>) -> Box<dyn EventDecoder>;

    /// Reads the body of an error.
    fn error_body(&self, body: &[u8]) -> error::ErrorBody {
        error::ErrorBody::parse(body)
    }
}

/// Where the encoded messages stand in a body, so that they can be remembered for the next turn
/// ([`Messages::remember_body`](peregrine_core::Messages::remember_body)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPrefix {
    /// Stands for everything beside the messages that their bytes depend on.
    pub key: u64,
    /// How many messages the bytes encode.
    pub count: usize,
    /// Where they stand in `out`.
    pub range: Range<usize>,
}

/// Turns the frames of one streamed answer into events.
///
/// The last event it makes is [`ChatEvent::Done`]; its `raw` is left to the caller.
pub trait EventDecoder: Send {
    /// Reads a frame and appends what it means.
    ///
    /// # Errors
    ///
    /// The provider's error if the frame holds one, or a protocol error. The stream is over then.
    fn frame(&mut self, frame: Frame<'_>, events: &mut Events) -> Result<()>;

    /// The bytes have ended.
    ///
    /// # Errors
    ///
    /// [`Truncated`](peregrine_core::ErrorKind::Truncated) if the dialect's end marker has not come.
    fn end(&mut self, events: &mut Events) -> Result<()>;
}

/// An embedding dialect.
pub trait EmbedCodec: Send + Sync + 'static {
    /// The dialect's name.
    fn dialect(&self) -> &'static str;

    /// The address of a call, relative to the base URL, with a leading slash.
    fn path(&self, model: &str) -> String;

    /// How many inputs one call takes.
    fn max_batch(&self) -> usize;

    /// Appends the body of a call for `inputs`, a slice of `request.inputs`, to `out`.
    ///
    /// # Errors
    ///
    /// [`InvalidRequest`](peregrine_core::ErrorKind::InvalidRequest) for what the dialect cannot say.
    fn encode(&self, model: &str, inputs: &[String], request: &EmbedRequest, out: &mut Vec<u8>)
    -> Result<()>;

    /// Reads the answer to a call for `count` inputs.
    ///
    /// # Errors
    ///
    /// The provider's error if the body holds one, or a protocol error if there are not `count` vectors of
    /// one length.
    fn decode(&self, provider: &str, raw: &RawResponse, count: usize) -> Result<EmbedBatch>;

    /// Reads the body of an error.
    fn error_body(&self, body: &[u8]) -> error::ErrorBody {
        error::ErrorBody::parse(body)
    }
}

/// The vectors of one embedding call.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedBatch {
    /// One vector for each input of the call, in order.
    pub embeddings: Embeddings,
    /// The model that answered, if the provider says it.
    pub model: Option<String>,
    /// What it used, if the provider says it.
    pub usage: Option<Usage>,
}
