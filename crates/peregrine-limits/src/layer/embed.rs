//! The same limits for an embedding model.

use std::fmt;

use peregrine_core::{EmbedRequest, EmbedResponse, EmbeddingModel, ModelInfo, Result, Usage};

use super::RateLimit;
use crate::tokens;

/// An embedding model within limits: [`RateLimit::embedder`].
pub struct LimitedEmbedder<M> {
    inner: M,
    limit: RateLimit,
}

impl RateLimit {
    /// Keeps an embedding model within the same limits. Each call takes a turn for the estimated tokens of its texts,
    /// and settles with its usage. Put it around the model and inside of what makes batches, so that each batch takes a turn:
    /// a call of more texts than the provider takes at once is several requests there, and counts as one here.
    pub fn embedder<M: EmbeddingModel>(&self, model: M) -> LimitedEmbedder<M> {
        LimitedEmbedder {
            inner: model,
            limit: self.clone(),
        }
    }
}

impl<M: EmbeddingModel> EmbeddingModel for LimitedEmbedder<M> {
    fn info(&self) -> &ModelInfo {
        self.inner.info()
    }

    async fn embed(&self, request: &EmbedRequest) -> Result<EmbedResponse> {
        let texts = request.inputs.iter().map(|text| tokens::estimate(text));
        let permit = self.limit.ask(texts.fold(0, u64::saturating_add), 0, "").await?;
        let embedded = self.inner.embed(request).await;
        match &embedded {
            Ok(response) => {
                let used = response.usage.as_ref().map(Usage::total_tokens);
                let signals = self.limit.signals(response.raw.last());
                let used = used.unwrap_or(permit.tokens());
                permit.settle_with(used, &signals);
            }
            Err(error) => self.limit.failed(permit, error),
        }
        embedded
    }
}

impl<M: EmbeddingModel> fmt::Debug for LimitedEmbedder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitedEmbedder")
            .field("model", self.inner.info())
            .field("limit", &self.limit)
            .finish()
    }
}
