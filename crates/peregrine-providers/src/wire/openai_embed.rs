//! OpenAI's embeddings, and the servers that speak them.
//!
//! Vectors are asked for in base64 (little-endian `f32`), which is a third of the size of numbers and exact;
//! numbers are read as well, because some servers send nothing else. Invariant: an answer has exactly one vector
//! of one length for each input, in the order of the inputs, or it is an error.
//!
//! What the vectors are for ([`EmbedPurpose`](peregrine_core::EmbedPurpose)) makes no difference to these models
//! and is not sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use peregrine_core::{EmbedRequest, Embeddings, Error, ProtocolError, RawResponse, Result, UnixTime, Usage};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::Body;
use super::error::ErrorBody;
use super::json::{self, Count, Text};
use super::openai_chat::keep_raw;
use super::{EmbedBatch, EmbedCodec};

/// The dialect's name.
const DIALECT: &str = "openai-embeddings";

/// The codec of embeddings.
///
/// # Examples
///
/// ```
/// use peregrine_core::EmbedRequest;
/// use peregrine_providers::wire::EmbedCodec;
/// use peregrine_providers::wire::openai_embed::OpenAiEmbed;
///
/// let codec = OpenAiEmbed::new();
/// let request = EmbedRequest::new(["hello"]).with_dimensions(256);
/// let mut body = Vec::new();
/// codec.encode("text-embedding-3-small", &request.inputs, &request, &mut body)?;
/// assert_eq!(
///     String::from_utf8_lossy(&body),
///     r#"{"model":"text-embedding-3-small","encoding_format":"base64","dimensions":256,"input":["hello"]}"#,
/// );
/// # Ok::<(), peregrine_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAiEmbed {
    max_batch: usize,
    dimensions_field: Option<&'static str>,
    base64: bool,
}

impl Default for OpenAiEmbed {
    fn default() -> Self {
        Self {
            max_batch: 2048,
            dimensions_field: Some("dimensions"),
            base64: true,
        }
    }
}

impl OpenAiEmbed {
    /// OpenAI: 2,048 inputs a call, vectors in base64.
    pub fn new() -> Self {
        Self::default()
    }

    /// Mistral, which names the length of the vectors otherwise and takes fewer inputs a call.
    pub fn mistral() -> Self {
        Self {
            max_batch: 512,
            dimensions_field: Some("output_dimension"),
            base64: false,
        }
    }

    /// Sets how many inputs one call takes; at least 1.
    #[must_use]
    pub fn with_max_batch(mut self, inputs: usize) -> Self {
        self.max_batch = inputs.max(1);
        self
    }

    /// Sets the field for the length of the vectors; `None` for servers that have none.
    #[must_use]
    pub fn with_dimensions_field(mut self, name: Option<&'static str>) -> Self {
        self.dimensions_field = name;
        self
    }

    /// Sets whether base64 is asked for. Where it is not, `encoding_format` is not sent.
    #[must_use]
    pub fn with_base64(mut self, base64: bool) -> Self {
        self.base64 = base64;
        self
    }
}

impl EmbedCodec for OpenAiEmbed {
    fn dialect(&self) -> &'static str {
        DIALECT
    }

    fn path(&self, _: &str) -> String {
        "/embeddings".to_owned()
    }

    fn max_batch(&self) -> usize {
        self.max_batch
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
        if dimensions.is_some() && self.dimensions_field.is_none() {
            return Err(Error::invalid_request(format!(
                "this server ({DIALECT}) has no way to say `dimensions`; leave it out"
            )));
        }
        let mut body = Body::open(out, provider_options.for_dialect(DIALECT));
        body.field("model", model);
        if self.base64 {
            body.field("encoding_format", "base64");
        }
        body.optional(self.dimensions_field.unwrap_or_default(), *dimensions);
        body.close("input", |out| {
            json::write(out, inputs);
            Ok(None::<()>)
        })?;
        Ok(())
    }

    fn decode(&self, provider: &str, raw: &RawResponse, count: usize) -> Result<EmbedBatch> {
        read(provider, &raw.body(), count).map_err(|error| keep_raw(error, raw.clone()))
    }
}

fn read(provider: &str, body: &[u8], count: usize) -> Result<EmbedBatch> {
    let reply: Reply<'_> =
        serde_json::from_slice(body).map_err(|error| json::protocol_error("the embeddings", &error))?;
    let Reply {
        object,
        data,
        model,
        usage,
        error,
    } = reply;
    if error.is_some() || object.get() == Some("error") {
        return Err(ErrorBody::parse(body)
            .into_error(provider, 200, None, UnixTime(0))
            .into());
    }
    let data = data.ok_or_else(|| ProtocolError::new("the answer holds no `data`"))?;
    if data.len() != count {
        return Err(wrong(&format!("{} vectors came for {count} inputs", data.len())));
    }
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; count];
    for (place, Datum { index, embedding }) in data.into_iter().enumerate() {
        let index = index.0.map_or(Some(place), |index| usize::try_from(index).ok());
        let slot = index
            .and_then(|index| vectors.get_mut(index))
            .filter(|slot| slot.is_none());
        let slot =
            slot.ok_or_else(|| wrong(&format!("vector {place} has an index that is taken or too high")))?;
        *slot = Some(vector(embedding, place)?);
    }
    let dimensions = vectors.first().and_then(Option::as_ref).map_or(0, Vec::len);
    let mut values = Vec::with_capacity(dimensions * count);
    for (index, vector) in vectors.into_iter().enumerate() {
        let vector = vector.unwrap_or_default();
        if vector.is_empty() || vector.len() != dimensions {
            let message = format!(
                "vector {index} has {} numbers, the first has {dimensions}",
                vector.len()
            );
            return Err(wrong(&message));
        }
        values.extend(vector);
    }
    let embeddings =
        Embeddings::new(dimensions, values).ok_or_else(|| wrong("the vectors differ in length"))?;
    let usage = usage.and_then(|usage| Some(Usage::new(usage.prompt_tokens.0.or(usage.total_tokens.0)?, 0)));
    Ok(EmbedBatch {
        embeddings,
        model: model.into_string(),
        usage,
    })
}

/// Reads a vector: base64 of little-endian `f32`, or numbers.
fn vector(raw: Option<&RawValue>, place: usize) -> Result<Vec<f32>> {
    let text = raw.map(RawValue::get).unwrap_or_default();
    let numbers = if text.starts_with('"') {
        serde_json::from_str::<String>(text)
            .ok()
            .and_then(|text| STANDARD.decode(text).ok())
            .filter(|bytes| bytes.len().is_multiple_of(4))
            .map(|bytes| {
                let numbers = bytes.chunks_exact(4);
                numbers
                    .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
                    .collect()
            })
    } else {
        serde_json::from_str::<Vec<f32>>(text).ok()
    };
    let finite = numbers.filter(|numbers: &Vec<f32>| numbers.iter().all(|number| number.is_finite()));
    finite.ok_or_else(|| wrong(&format!("vector {place} is neither numbers nor their base64")))
}

fn wrong(what: &str) -> Error {
    ProtocolError::new(format!("the embeddings are not as asked: {what}")).into()
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow, default)]
    object: Text<'a>,
    #[serde(borrow)]
    data: Option<Vec<Datum<'a>>>,
    #[serde(borrow, default)]
    model: Text<'a>,
    usage: Option<WireUsage>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Datum<'a> {
    #[serde(default)]
    index: Count,
    #[serde(borrow)]
    embedding: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WireUsage {
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    total_tokens: Count,
}
