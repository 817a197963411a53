//! Embeddings: texts in, vectors out.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{ModelInfo, ProviderOptions, RawResponse, Result, Usage};

/// A request to embed texts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EmbedRequest {
    /// The texts. The answer has one vector for each, in this order.
    pub inputs: Vec<String>,
    /// The length of the vectors, for models that can shorten them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u32>,
    /// What the vectors are for, for models that distinguish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<EmbedPurpose>,
    /// Fields for one dialect's request body that have no name here.
    #[serde(default, skip_serializing_if = "ProviderOptions::is_empty")]
    pub provider_options: ProviderOptions,
}

impl EmbedRequest {
    /// A request for these texts.
    pub fn new<S: Into<String>>(inputs: impl IntoIterator<Item = S>) -> Self {
        Self {
            inputs: inputs.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Asks for vectors of this length.
    #[must_use]
    pub fn with_dimensions(mut self, dimensions: u32) -> Self {
        self.dimensions = Some(dimensions);
        self
    }

    /// Says what the vectors are for.
    #[must_use]
    pub fn with_purpose(mut self, purpose: EmbedPurpose) -> Self {
        self.purpose = Some(purpose);
        self
    }
}

/// What an embedding is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EmbedPurpose {
    /// To search with.
    Query,
    /// To be found.
    Document,
    /// To compare with others of its kind.
    Similarity,
    /// To classify.
    Classification,
    /// To cluster.
    Clustering,
}

/// The vectors for a request.
#[derive(Debug, Clone)]
pub struct EmbedResponse {
    /// One vector for each input, in order.
    pub embeddings: Embeddings,
    /// The model that answered, as the provider names it.
    pub model: String,
    /// What it used; `None` if the provider did not say.
    pub usage: Option<Usage>,
    /// What the provider really sent: one response for each request that was needed.
    pub raw: Vec<RawResponse>,
}

/// Vectors of one length: `[count, dimensions]`, row-major `f32`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Embeddings {
    dimensions: usize,
    values: Vec<f32>,
}

impl Embeddings {
    /// Takes row-major values; `None` if they do not divide into rows of `dimensions` (which is at least 1
    /// unless there are no values).
    pub fn new(dimensions: usize, values: Vec<f32>) -> Option<Self> {
        let whole = if dimensions == 0 {
            values.is_empty()
        } else {
            values.len().is_multiple_of(dimensions)
        };
        whole.then_some(Self { dimensions, values })
    }

    /// The length of each vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.dimensions).unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The vector at a place.
    pub fn get(&self, index: usize) -> Option<&[f32]> {
        self.values.chunks_exact(self.dimensions.max(1)).nth(index)
    }

    /// The vectors, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dimensions.max(1))
    }

    /// All values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

/// A model that embeds texts.
pub trait EmbeddingModel: Send + Sync + 'static {
    /// What this model is.
    fn info(&self) -> &ModelInfo;

    /// Embeds the texts of a request; as many requests to the provider as its batch size needs.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call.
    fn embed(&self, request: &EmbedRequest) -> impl Future<Output = Result<EmbedResponse>> + Send;

    /// Erases the type.
    fn into_handle(self) -> EmbeddingHandle
    where
        Self: Sized,
    {
        EmbeddingHandle(Arc::new(self))
    }
}

/// Any embedding model, behind one cheap handle.
#[derive(Clone)]
pub struct EmbeddingHandle(Arc<dyn ErasedEmbedder>);

impl EmbeddingModel for EmbeddingHandle {
    fn info(&self) -> &ModelInfo {
        self.0.erased_info()
    }

    async fn embed(&self, request: &EmbedRequest) -> Result<EmbedResponse> {
        self.0.erased_embed(request).await
    }

    fn into_handle(self) -> EmbeddingHandle {
        self
    }
}

impl fmt::Debug for EmbeddingHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EmbeddingHandle").field(self.info()).finish()
    }
}

type BoxEmbed<'a> = Pin<Box<dyn Future<Output = Result<EmbedResponse>> + Send + 'a>>;

/// The object-safe twin of [`EmbeddingModel`].
trait ErasedEmbedder: Send + Sync {
    fn erased_info(&self) -> &ModelInfo;
    fn erased_embed<'a>(&'a self, request: &'a EmbedRequest) -> BoxEmbed<'a>;
}

impl<M: EmbeddingModel> ErasedEmbedder for M {
    fn erased_info(&self) -> &ModelInfo {
        EmbeddingModel::info(self)
    }

    fn erased_embed<'a>(&'a self, request: &'a EmbedRequest) -> BoxEmbed<'a> {
        Box::pin(EmbeddingModel::embed(self, request))
    }
}
