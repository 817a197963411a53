//! Typed contracts for language models: what goes in, what comes out, and what is to be done in between.
//!
//! A signature is a struct. Its doc comment is the instruction; its fields are inputs and outputs, and their doc
//! comments say what they hold. The derive makes a type for the inputs and one for the outputs:
//!
//! ```
//! use peregrine_signatures::{Signature, predict};
//! # use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ModelInfo};
//!
//! /// Sort a support ticket.
//! #[derive(Signature)]
//! struct Triage {
//!     /// what the customer wrote
//!     #[input]
//!     ticket: String,
//!     /// how urgent it is
//!     #[output(range = 1..=5)]
//!     urgency: u8,
//!     /// who takes it
//!     #[output(one_of = ["billing", "technical", "other"])]
//!     queue: String,
//!     /// a date that the customer mentions
//!     #[output(pattern = r"^\d{4}-\d{2}-\d{2}$")]
//!     due: Option<String>,
//! }
//!
//! # struct Clerk(ModelInfo);
//! # impl ChatModel for Clerk {
//! #     fn info(&self) -> &ModelInfo { &self.0 }
//! #     async fn complete(&self, _: &ChatRequest) -> peregrine_core::Result<ChatResponse> {
//! #         Ok(ChatResponse::text(r#"{"urgency": 4, "queue": "billing", "due": null}"#))
//! #     }
//! # }
//! # futures_util::FutureExt::now_or_never(async {
//! # let model = Clerk(ModelInfo::new("example", "clerk"));
//! let triage = predict::<Triage>(&model, &TriageInput::new("I was charged twice!")).await?;
//! assert!(triage.output.urgency >= 4 && triage.output.queue == "billing");
//! # Ok::<(), peregrine_signatures::Error>(())
//! # }).unwrap().unwrap();
//! ```
//!
//! # What it does with it
//!
//! - **Compiles once.** Schema, instruction, field order and a stable hash are made at the first use and kept
//!   ([`Compiled`]); signatures known only at run time have a text form ([`parse()`]) and a builder ([`SignatureSpec`]).
//! - **Plans.** The strongest means that the model has holds it to the form ([`Plan`]); the one that was used is
//!   recorded in the response.
//! - **Reads.** Exact JSON first, then tolerantly; an answer that does not fit goes back to the model with what is
//!   wrong with it, at most so many times; then it is an error with path, expectation and text ([`OutputError`]).
//!   Nothing is ever filled in. A [`Contract`] has the pieces for whoever calls models in a loop of his own, with tools
//!   and a history; [`Extraction`] makes the decisions of one answer; [`predict`] and [`Predict`] call a model.
//! - **Streams.** [`Predict::stream`] tells fields as they complete and texts as they grow, and ends a call at the
//!   first misfit; [`EventReader`] does so for any stream of events, and [`FieldParser`] is the parser alone.
//! - **Composes.** A [`Composition`], in sequence or in parallel, wires outputs to inputs and checks names and types
//!   before anything runs.
//!
//! # Types of fields
//!
//! Outputs are any types that implement serde's `Deserialize` and [`JsonSchema`]; inputs implement `Serialize`
//! instead. Nested structs, enums, newtypes, `Vec`, sets, maps and tuples work. `Option` is a value or `null`; only a
//! field with `#[serde(default)]` in a type of your own may be absent. Integers are those of 64 bits, all other numbers
//! floats of 64 bits. What a type refuses itself (a `try_from`, say) is repaired like any misfit, also where the answer is
//! read as [`Fields`]. Derive `JsonSchema` with this crate's [`schemars`]:
//!
//! ```
//! use peregrine_signatures::{JsonSchema, Signature, schemars};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
//! #[schemars(crate = "schemars")]
//! struct Person {
//!     /// as written in the text
//!     name: String,
//!     age: Option<u8>,
//! }
//!
//! /// Find the people.
//! #[derive(Signature)]
//! struct People {
//!     #[input]
//!     text: String,
//!     #[output(length = ..=20)]
//!     people: Vec<Person>,
//! }
//! # assert!(People::compiled().unwrap().schema().as_str().contains("as written in the text"));
//! ```
//!
//! Inputs can be images, audio and documents: `#[input(image)]` on a [`MediaPart`](peregrine_core::MediaPart), an
//! `Option` or a `Vec` of it, `#[input(audio)]` likewise, `#[input(document)]` on a
//! [`DocumentPart`](peregrine_core::DocumentPart).

#![cfg_attr(docsrs, feature(doc_cfg))]

mod compiled;
mod compose;
mod contract;
mod error;
mod events;
mod extract;
mod inputs;
mod media;
mod parse;
mod plan;
mod predict;
mod predict_stream;
mod registry;
mod shape;
mod signature;
mod spec;
mod text;

pub use compiled::{Compiled, Digest, FieldInfo};
pub use compose::{Composed, Composition, Stage};
pub use contract::{Contract, Reply};
pub use error::{
    DefinitionError, Error, InputError, OutputError, Result, TextError, Violation, ViolationKind, WiringError,
};
pub use events::EventReader;
pub use extract::{Extraction, Prediction, Step};
pub use inputs::{Fields, InputWriter, Inputs};
pub use media::{Media, MediaKind};
pub use parse::{Exactness, FieldEvent, FieldParser, FieldPath, Reading, UnknownFields};
pub use peregrine_signatures_macros::Signature;
pub use plan::{ANSWER_TOOL, Plan};
pub use predict::{Predict, predict};
pub use predict_stream::PredictStream;
pub use registry::{Registry, parse};
pub use schemars::{self, JsonSchema};
pub use shape::Number;
pub use signature::{OutputReader, Outputs, Signature};
pub use spec::{Field, RustType, SignatureSpec, Type};

/// What derived code names. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    pub use peregrine_signatures_macros::FacadeSignature;

    pub use crate::signature::Slot;
    pub use crate::{
        Compiled, Error, Field, InputError, InputWriter, Inputs, MediaKind, OutputReader, Outputs, Signature,
        SignatureSpec, Type, Violation,
    };
    pub use serde_json::Value;
    pub use std::sync::Arc;

    /// The text of doc comments that only the compiler knows.
    pub fn docs(pieces: &[&str]) -> String {
        pieces.join("\n").trim().to_owned()
    }
}
