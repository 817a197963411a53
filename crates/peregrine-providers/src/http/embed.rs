//! An embedding model over HTTP, in batches of the provider's size.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::Uri;
use peregrine_core::{
    EmbedRequest, EmbedResponse, EmbeddingModel, Embeddings, Error, ModelInfo, ProtocolError, Result,
};

use super::chat::redact_error;
use super::endpoint::Endpoint;
use super::exchange::send;
use crate::wire::EmbedCodec;

/// An embedding model that a codec speaks to over HTTP.
///
/// A request of more inputs than one call takes becomes several calls, one after another; the answer has one
/// vector for each input, in order, or there is none.
pub struct RemoteEmbedder {
    info: ModelInfo,
    codec: Arc<dyn EmbedCodec>,
    endpoint: Arc<Endpoint>,
    url: Uri,
}

impl RemoteEmbedder {
    /// A model of `endpoint`, in the words of `codec`.
    ///
    /// # Errors
    ///
    /// [`Config`](peregrine_core::ErrorKind::Config) if the model's name makes no URL.
    pub fn new(info: ModelInfo, codec: Arc<dyn EmbedCodec>, endpoint: Arc<Endpoint>) -> Result<Self> {
        let url = endpoint.url(&codec.path(info.model()))?;
        Ok(Self {
            info,
            codec,
            endpoint,
            url,
        })
    }
}

impl EmbeddingModel for RemoteEmbedder {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn embed(&self, request: &EmbedRequest) -> Result<EmbedResponse> {
        let ready = self.endpoint.ready()?;
        let mut values = Vec::new();
        let mut dimensions = 0;
        let mut response = EmbedResponse {
            embeddings: Embeddings::default(),
            model: self.info.model().to_owned(),
            usage: None,
            raw: Vec::new(),
        };
        for inputs in request.inputs.chunks(self.codec.max_batch().max(1)) {
            let mut body = Vec::with_capacity(64 + inputs.iter().map(|input| input.len() + 8).sum::<usize>());
            self.codec.encode(self.info.model(), inputs, request, &mut body)?;
            let error_body = |body: &[u8]| self.codec.error_body(body);
            let answer = send(
                &self.endpoint,
                ready,
                self.url.clone(),
                Some(Bytes::from(body)),
                error_body,
            )
            .await?;
            let raw = answer.collect(usize::MAX).await?;
            let batch = self
                .codec
                .decode(self.info.provider(), &raw, inputs.len())
                .map_err(|error| redact_error(error, ready.secret.as_ref()))?;
            if values.is_empty() {
                dimensions = batch.embeddings.dimensions();
            }
            if batch.embeddings.dimensions() != dimensions || batch.embeddings.len() != inputs.len() {
                return Err(uneven(inputs.len(), &batch.embeddings, dimensions).into());
            }
            values.extend_from_slice(batch.embeddings.values());
            if let Some(model) = batch.model {
                response.model = model;
            }
            if let Some(usage) = batch.usage {
                response.usage = Some(response.usage.unwrap_or_default() + usage);
            }
            response.raw.push(raw);
        }
        response.embeddings = Embeddings::new(dimensions, values)
            .ok_or_else(|| Error::from(ProtocolError::new("the vectors have different lengths")))?;
        Ok(response)
    }
}

fn uneven(inputs: usize, found: &Embeddings, dimensions: usize) -> ProtocolError {
    ProtocolError::new(format!(
        "asked for {inputs} vectors of {dimensions} numbers, but {} of {} came",
        found.len(),
        found.dimensions()
    ))
}

impl fmt::Debug for RemoteEmbedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteEmbedder")
            .field("info", &self.info)
            .field("dialect", &self.codec.dialect())
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
