//! Gemini's embeddings (`batchEmbedContents`).
//!
//! Invariant: the answer is read only if it has a vector for each input, all of one length.

use peregrine_core::{
    EmbedPurpose, EmbedRequest, Embeddings, ProtocolError, RawResponse, Result, UnixTime, Usage,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::body::{Body, cannot_say};
use super::error::{ErrorBody, provider_error};
use super::gemini::{error_body, has_collection, model_path};
use super::{EmbedBatch, EmbedCodec, json};

/// The dialect's name.
const DIALECT: &str = "gemini";
/// How many texts the provider takes at once.
const MAX_BATCH: usize = 100;

/// The embedding half of the Gemini dialect.
///
/// The path is `/models/{model}:batchEmbedContents`, relative to the same base URL as
/// [`Gemini`](super::gemini::Gemini)'s. The purpose is sent as `taskType` with every text, the length as
/// `outputDimensionality`; provider options stand beside `requests`.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct GeminiEmbed;

impl GeminiEmbed {
    /// The codec.
    pub fn new() -> Self {
        Self
    }
}

impl EmbedCodec for GeminiEmbed {
    fn dialect(&self) -> &'static str {
        DIALECT
    }

    fn path(&self, model: &str) -> String {
        model_path(model, "batchEmbedContents")
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
            purpose,
            provider_options,
        } = request;
        let name = match has_collection(model) {
            true => model.to_owned(),
            false => format!("models/{model}"),
        };
        let task_type = purpose.map(task_type).transpose()?;
        let body = Body::open(out, provider_options.for_dialect(DIALECT));
        let written = body.close("requests", |out| {
            let requests = inputs.iter().map(|text| EmbedOne {
                model: &name,
                content: Content {
                    parts: [TextOf { text }],
                },
                task_type,
                output_dimensionality: *dimensions,
            });
            json::write(out, &requests.collect::<Vec<_>>());
            Ok(Some(()))
        });
        written.map(|_| ())
    }

    fn decode(&self, provider: &str, raw: &RawResponse, count: usize) -> Result<EmbedBatch> {
        let body = raw.body();
        let wrong = |message: String| ProtocolError::new(message).with_raw(raw.clone());
        let answer: Answer = serde_json::from_slice(&body).map_err(|source| {
            wrong(format!("{provider} did not answer with embeddings")).with_source(source)
        })?;
        if answer.error.is_some() {
            return Err(provider_error(provider, raw.clone(), error_body(&body), UnixTime(0)).into());
        }
        let vectors = answer.embeddings.unwrap_or_default();
        if vectors.len() != count {
            let message = format!(
                "{provider} answered with {} vectors for {count} texts",
                vectors.len()
            );
            return Err(wrong(message).into());
        }
        let dimensions = vectors.first().map_or(0, |vector| vector.values.len());
        let is_even = vectors.iter().all(|vector| vector.values.len() == dimensions);
        let mut values = Vec::with_capacity(dimensions * count);
        for vector in vectors {
            values.extend(vector.values);
        }
        let is_whole =
            is_even && (dimensions > 0 || count == 0) && values.iter().all(|value| value.is_finite());
        let embeddings = Embeddings::new(dimensions, values)
            .filter(|_| is_whole)
            .ok_or_else(|| {
                wrong(format!(
                    "{provider} answered with vectors that are empty, uneven or not finite"
                ))
            })?;
        Ok(EmbedBatch {
            embeddings,
            model: None,
            usage: answer
                .usage_metadata
                .and_then(|counts| counts.prompt_token_count)
                .map(|tokens| Usage::new(tokens, 0)),
        })
    }

    fn error_body(&self, body: &[u8]) -> ErrorBody {
        error_body(body)
    }
}

fn task_type(purpose: EmbedPurpose) -> Result<&'static str> {
    Ok(match purpose {
        EmbedPurpose::Query => "RETRIEVAL_QUERY",
        EmbedPurpose::Document => "RETRIEVAL_DOCUMENT",
        EmbedPurpose::Similarity => "SEMANTIC_SIMILARITY",
        EmbedPurpose::Classification => "CLASSIFICATION",
        EmbedPurpose::Clustering => "CLUSTERING",
        other => {
            return Err(cannot_say(
                DIALECT,
                &format!("the purpose {other:?}"),
                "leave it unset",
            ));
        }
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EmbedOne<'a> {
    model: &'a str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimensionality: Option<u32>,
}

#[derive(Serialize)]
struct Content<'a> {
    parts: [TextOf<'a>; 1],
}

#[derive(Serialize)]
struct TextOf<'a> {
    text: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    embeddings: Option<Vec<Vector>>,
    #[serde(default, deserialize_with = "json::or_none")]
    usage_metadata: Option<Counts>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Vector {
    #[serde(default)]
    values: Vec<f32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    #[serde(default, deserialize_with = "json::or_none")]
    prompt_token_count: Option<u64>,
}
