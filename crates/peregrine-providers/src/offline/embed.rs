//! An embedding model without weights: letters and words, hashed.
//!
//! Algorithm: each word gives itself (by its stem) and its runs of three to five letters; each feature is
//! hashed to a place and a sign (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning",
//! 2009), stop words count little, and the sum is scaled to length 1. Texts that share words or spellings are
//! near each other. Meaning is not seen: `car` and `automobile` are strangers.

use peregrine_core::{
    EmbedRequest, EmbedResponse, EmbeddingModel, Embeddings, Error, ModelInfo, Result, Usage,
};

use super::text::{self, Form, Weight, for_each_token};
use super::{PROVIDER, tokens};

/// The length of the vectors, unless the request says otherwise.
const DIMENSIONS: u32 = 256;
/// Longer vectors would be mostly zeros.
const MAX_DIMENSIONS: u32 = 4096;

/// A deterministic lexical embedding model: texts with the same words and spellings are near each other.
///
/// The vectors have 256 dimensions unless [`EmbedRequest::dimensions`] asks for another number up to 4096, and
/// length 1, an empty text's too. The same text gives the same vector on every machine.
///
/// # Examples
///
/// ```
/// use peregrine_core::{EmbedRequest, EmbeddingModel};
/// use peregrine_providers::offline::OfflineEmbedder;
///
/// # futures_util::FutureExt::now_or_never(async {
/// let texts = ["retries are bounded", "the retry budget is bounded", "cats sleep all day"];
/// let vectors = OfflineEmbedder::new().embed(&EmbedRequest::new(texts)).await?.embeddings;
/// let near = |a: usize, b: usize| -> f32 {
///     vectors.get(a).into_iter().flatten().zip(vectors.get(b).into_iter().flatten()).map(|(x, y)| x * y).sum()
/// };
/// assert!(near(0, 1) > near(0, 2));
/// # Ok::<(), peregrine_core::Error>(())
/// # }).expect("it never waits")?;
/// # Ok::<(), peregrine_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct OfflineEmbedder {
    info: ModelInfo,
}

impl Default for OfflineEmbedder {
    fn default() -> Self {
        Self::new()
    }
}

impl OfflineEmbedder {
    /// The model.
    pub fn new() -> Self {
        Self {
            info: ModelInfo::new(PROVIDER, "offline-lexical"),
        }
    }
}

impl EmbeddingModel for OfflineEmbedder {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// # Errors
    ///
    /// [`InvalidRequest`](peregrine_core::ErrorKind::InvalidRequest) for dimensions other than 1 to 4096 and for
    /// provider options.
    async fn embed(&self, request: &EmbedRequest) -> Result<EmbedResponse> {
        let EmbedRequest {
            inputs,
            dimensions,
            // Letters are letters, whatever they are for.
            purpose: _,
            provider_options,
        } = request;
        if provider_options.for_dialect(PROVIDER).is_some() {
            return Err(Error::invalid_request(
                "the offline embedding model has no provider options; remove them",
            ));
        }
        let dimensions = dimensions.unwrap_or(DIMENSIONS);
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(Error::invalid_request(format!(
                "the offline embedding model has 1 to {MAX_DIMENSIONS} dimensions, not {dimensions}"
            )));
        }
        let dimensions = dimensions as usize;
        let mut values = vec![0.0; inputs.len() * dimensions];
        for (text, vector) in inputs.iter().zip(values.chunks_exact_mut(dimensions)) {
            embed(text, vector);
        }
        let embeddings = Embeddings::new(dimensions, values).unwrap_or_default();
        let used: usize = inputs.iter().map(|text| tokens(text)).sum();
        Ok(EmbedResponse {
            embeddings,
            model: self.info.model().to_owned(),
            usage: Some(Usage::new(used as u64, 0)),
            raw: Vec::new(),
        })
    }
}

/// Fills a vector of zeros.
fn embed(text: &str, vector: &mut [f32]) {
    let mut any = false;
    for_each_token(text, &mut |token| {
        let weight = match (token.form, text::weight(token.raw)) {
            (Form::Piece, _) => 0.5,
            (_, Weight::Stop) => 0.1,
            (_, Weight::Soft) => 0.5,
            (_, Weight::Content) => 1.0,
        };
        any = true;
        add(vector, b'w', token.stem.as_bytes(), weight);
        if token.form == Form::Word && weight > 0.1 {
            runs(token.stem, &mut |run| add(vector, b'c', run, weight * 0.25));
        }
    });
    if !any {
        // No words at all: what there is counts as one.
        add(vector, b'e', text.trim().as_bytes(), 1.0);
    }
    normalise(vector);
    if vector.iter().all(|value| *value == 0.0) {
        // Features that cancel each other out, in few dimensions.
        vector[0] = 1.0;
    }
}

/// The runs of three to five letters of `<word>`.
fn runs(word: &str, visit: &mut dyn FnMut(&[u8])) {
    let bounded: String = ['<'].into_iter().chain(word.chars()).chain(['>']).collect();
    let mut starts: Vec<usize> = bounded.char_indices().map(|(at, _)| at).collect();
    starts.push(bounded.len());
    for len in 3..=5 {
        for window in starts.windows(len + 1) {
            visit(&bounded.as_bytes()[window[0]..window[len]]);
        }
    }
}

/// Adds a feature at the place, and with the sign, that its hash says.
fn add(vector: &mut [f32], class: u8, feature: &[u8], weight: f32) {
    let mut bytes = [0_u8; 64];
    let len = feature.len().min(63);
    bytes[0] = class;
    bytes[1..=len].copy_from_slice(&feature[..len]);
    let hash = mix(text::hash(&bytes[..=len]));
    let place = (hash >> 1) as usize % vector.len();
    vector[place] += if hash & 1 == 0 { weight } else { -weight };
}

/// Spreads the bits: FNV's low bits alone are poor (the finaliser of MurmurHash3).
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

fn normalise(vector: &mut [f32]) {
    let square: f64 = vector
        .iter()
        .map(|value| f64::from(*value) * f64::from(*value))
        .sum();
    if square > 0.0 {
        let length = square.sqrt();
        vector
            .iter_mut()
            .for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}
