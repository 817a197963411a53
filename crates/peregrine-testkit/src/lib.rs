//! Test tools of the Peregrine workspace: what stands in for the outside world, with faults on demand.
//!
//! - [`server`]: an LLM server on the loopback interface that speaks the wire formats of OpenAI (Chat
//!   Completions and Responses), Anthropic, Gemini and Ollama, answers by script, and can break in every
//!   way a network peer can break.
//! - [`FakeClock`]: time that moves when told to.
//! - [`service`]: the real servers that some tests need.
//!
//! The server knows nothing of the rest of the workspace: it renders the wire formats from its own
//! description of an answer, so that a mistake in a codec cannot hide behind the same mistake here.

pub mod clock;
pub mod server;
pub mod service;

pub use clock::FakeClock;
