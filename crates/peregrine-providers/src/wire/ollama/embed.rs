//! `/api/embed`: texts in, vectors out.
//!
//! Invariant: an answer has exactly one vector for each text, all of one length and finite, or it is an
//! error. The purpose of an embedding has no place in the dialect and changes nothing; models that tell
//! queries from documents want their own prefix in the text.

use peregrine_core::{EmbedRequest, Embeddings, Error, ProtocolError, RawResponse, Result, UnixTime, Usage};
use serde::Deserialize;
use serde_json::Value;

use super::{DIALECT, KeepAlive};
use crate::wire::error::ErrorBody;
use crate::wire::{EmbedBatch, EmbedCodec, json};

/// The server has no limit of its own; this bounds the size of a call.
const MAX_BATCH: usize = 256;

/// The keys of the body that the codec writes itself.
const OWN_KEYS: [&str; 5] = ["model", "dimensions", "keep_alive", "truncate", "input"];

/// The embedding dialect of `/api/embed`.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct OllamaEmbed {
    /// How long the server keeps the model loaded after a call; `None` leaves it to the server.
    pub keep_alive: Option<KeepAlive>,
    /// Whether the server cuts a text that is longer than the model's context (its default) or refuses it.
    pub truncate: Option<bool>,
}

impl OllamaEmbed {
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

    /// Says whether the server cuts texts that are too long (`true`) or refuses them (`false`).
    #[must_use]
    pub fn with_truncate(mut self, truncate: bool) -> Self {
        self.truncate = Some(truncate);
        self
    }
}

impl EmbedCodec for OllamaEmbed {
    fn dialect(&self) -> &'static str {
        DIALECT
    }

    fn path(&self, _: &str) -> String {
        "/api/embed".to_owned()
    }

    fn max_batch(&self) -> usize {
        MAX_BATCH
    }

    fn encode(
        &self,
        model: &str,
        inputs: &[String],
        request: &EmbedRequest,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let EmbedRequest {
            inputs: _,
            dimensions,
            purpose: _,
            provider_options,
        } = request;
        let given = provider_options.for_dialect(DIALECT);
        let option = |name: &str| given.and_then(|given| given.get(name));
        if option("input").is_some() {
            return Err(Error::invalid_request(
                "the ollama option `input` cannot be set: the texts stand in the request",
            ));
        }
        out.extend_from_slice(b"{\"model\":");
        match option("model") {
            Some(model) => json::write(out, model),
            None => json::write(out, model),
        }
        match option("dimensions") {
            Some(given) => json::field(out, "dimensions", given),
            None => json::optional(out, "dimensions", dimensions.as_ref()),
        }
        match option("keep_alive") {
            Some(given) => json::field(out, "keep_alive", given),
            None => json::optional(out, "keep_alive", self.keep_alive.as_ref()),
        }
        match option("truncate") {
            Some(given) => json::field(out, "truncate", given),
            None => json::optional(out, "truncate", self.truncate.as_ref()),
        }
        let others = given
            .into_iter()
            .flatten()
            .filter(|(key, _)| !OWN_KEYS.contains(&key.as_str()));
        for (key, value) in others {
            json::field(out, key, value);
        }
        json::field(out, "input", inputs);
        out.push(b'}');
        Ok(())
    }

    fn decode(&self, provider: &str, raw: &RawResponse, count: usize) -> Result<EmbedBatch> {
        let wrong = |message: String| -> Error { ProtocolError::new(message).with_raw(raw.clone()).into() };
        let Answer {
            model,
            embeddings,
            prompt_eval_count,
            error,
        } = serde_json::from_slice(&raw.body()).map_err(|source| {
            ProtocolError::new("the answer is not an object of Ollama's /api/embed")
                .with_source(source)
                .with_raw(raw.clone())
        })?;
        if let Some(error) = error {
            let body = ErrorBody::from_value(&serde_json::json!({"error": error}));
            let mut error = body.into_error(provider, 200, None, UnixTime(0));
            error.raw = Some(raw.clone());
            return Err(error.into());
        }
        let vectors = embeddings.unwrap_or_default();
        if vectors.len() != count {
            return Err(wrong(format!("{} vectors came for {count} texts", vectors.len())));
        }
        let dimensions = vectors.first().map_or(0, Vec::len);
        if vectors.iter().any(|vector| vector.len() != dimensions) || (count > 0 && dimensions == 0) {
            return Err(wrong("the vectors are not all of one length".to_owned()));
        }
        let values: Vec<f32> = vectors.into_iter().flatten().collect();
        if values.iter().any(|value| !value.is_finite()) {
            return Err(wrong("a vector holds a number too large for 32 bits".to_owned()));
        }
        let embeddings = Embeddings::new(dimensions, values)
            .ok_or_else(|| wrong("the vectors are not all of one length".to_owned()))?;
        Ok(EmbedBatch {
            embeddings,
            model: model.filter(|model| !model.is_empty()),
            usage: prompt_eval_count
                .and_then(|count| count.as_u64())
                .map(|tokens| Usage::new(tokens, 0)),
        })
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    embeddings: Option<Vec<Vec<f32>>>,
    #[serde(default)]
    prompt_eval_count: Option<Value>,
    #[serde(default)]
    error: Option<Value>,
}
