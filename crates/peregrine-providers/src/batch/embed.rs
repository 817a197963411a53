//! The embedding batcher.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use peregrine_core::{
    EmbedRequest, EmbedResponse, EmbeddingModel, Embeddings, Error, ModelInfo, ProtocolError, RawResponse,
    Result, Timer, Usage,
};
use serde_json::json;
use tokio::sync::Semaphore;

use super::EmbedCache;
use super::bisect::{Caller, Item, Spent, embed_batch};
use super::flight::{Claim, Flights, Lead};
use super::pack::pack;
use crate::retry::RetryPolicy;

/// A vector of `f32`, cheap to clone.
pub type Vector = Arc<[f32]>;

/// How texts are put into calls.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbedBatchPolicy {
    /// How many texts one call has at the most; at least 1. 100.
    pub max_items: usize,
    /// How many tokens the texts of one call have together at the most, by the estimate. 100,000. A text that has more by
    /// itself is sent by itself.
    pub max_tokens: u64,
    /// How many calls are under way at once, for all who use the batcher; at least 1. 4.
    pub concurrency: usize,
    /// How many calls a failed batch may cost beyond its first, to find the bad items. 32.
    pub max_extra_calls: u32,
}

impl Default for EmbedBatchPolicy {
    fn default() -> Self {
        Self {
            max_items: 100,
            max_tokens: 100_000,
            concurrency: 4,
            max_extra_calls: 32,
        }
    }
}

impl EmbedBatchPolicy {
    /// Sets how many texts one call has, and how many tokens together.
    #[must_use]
    pub fn with_batch(mut self, max_items: usize, max_tokens: u64) -> Self {
        (self.max_items, self.max_tokens) = (max_items, max_tokens);
        self
    }

    /// Sets how many calls are under way at once.
    #[must_use]
    pub fn with_concurrency(mut self, calls: usize) -> Self {
        self.concurrency = calls;
        self
    }

    /// Sets how many extra calls a failed batch may cost.
    #[must_use]
    pub fn with_max_extra_calls(mut self, calls: u32) -> Self {
        self.max_extra_calls = calls;
        self
    }
}

/// Embeds many texts with few calls, and gives each text a result of its own.
///
/// Equal texts are embedded once, whether they come in one request, are being embedded for somebody else right now, or
/// are in the [cache](EmbedBatcher::with_cache). The others are packed by number and tokens, and the batches are called
/// side by side. A batch that fails in a way that one text may be to blame for is halved until that text fails alone;
/// errors are never cached.
///
/// It is an embedding model itself, which fails if any text fails. [`embed_each`](EmbedBatcher::embed_each) tells the
/// results apart.
///
/// # Examples
///
/// ```
/// use peregrine_core::{EmbedRequest, EmbeddingHandle};
/// use peregrine_providers::{EmbedBatcher, EmbedCache};
///
/// async fn index(model: EmbeddingHandle, lines: Vec<String>) {
///     let batcher = EmbedBatcher::new(model).with_cache(EmbedCache::new(100_000, 256 << 20));
///     let embedded = batcher.embed_each(&EmbedRequest::new(lines)).await;
///     for (line, result) in embedded.results.iter().enumerate() {
///         if let Err(error) = result {
///             eprintln!("line {line} has no vector: {error}");
///         }
///     }
/// }
/// ```
pub struct EmbedBatcher<M> {
    model: M,
    policy: EmbedBatchPolicy,
    tokens: fn(&str) -> u64,
    retry: Option<(RetryPolicy, Arc<dyn Timer>)>,
    cache: Option<EmbedCache>,
    flights: Flights<Arc<str>, Result<Vector>>,
    gate: Semaphore,
    counts: Counts,
}

/// The results of one request.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Embedded {
    /// One result for each text, in order.
    pub results: Vec<Result<Vector>>,
    /// What the calls made for this request used; zero if none was needed, `None` if the provider did not say.
    pub usage: Option<Usage>,
    /// How many calls were made for this request.
    pub calls: u64,
    /// The model that answered, as the provider names it; `None` if none was asked.
    pub model: Option<String>,
    /// What the provider really sent, one for each call that succeeded.
    pub raw: Vec<RawResponse>,
}

/// What a batcher has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbedStats {
    /// Texts that came in.
    pub items: u64,
    /// Texts that stood in the same request before.
    pub duplicates: u64,
    /// Texts whose vector was in the cache.
    pub cached: u64,
    /// Texts that somebody else was embedding already.
    pub coalesced: u64,
    /// Calls that were made.
    pub calls: u64,
    /// Texts that are being embedded now.
    pub in_flight: usize,
}

#[derive(Default)]
struct Counts {
    items: AtomicU64,
    duplicates: AtomicU64,
    cached: AtomicU64,
    coalesced: AtomicU64,
    calls: AtomicU64,
}

impl<M: EmbeddingModel> EmbedBatcher<M> {
    /// A batcher of the usual size, without a cache and without retries.
    pub fn new(model: M) -> Self {
        Self::with_policy(model, EmbedBatchPolicy::default())
    }

    /// A batcher of this size.
    pub fn with_policy(model: M, policy: EmbedBatchPolicy) -> Self {
        Self {
            gate: Semaphore::new(policy.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            model,
            policy,
            tokens: estimate,
            retry: None,
            cache: None,
            flights: Flights::default(),
            counts: Counts::default(),
        }
    }

    /// Keeps vectors.
    #[must_use]
    pub fn with_cache(mut self, cache: EmbedCache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Tries calls again whose failure may heal, before items are blamed for it.
    #[must_use]
    pub fn with_retry(mut self, policy: RetryPolicy, timer: Arc<dyn Timer>) -> Self {
        self.retry = Some((policy, timer));
        self
    }

    /// Counts tokens so. By default a token is four bytes.
    #[must_use]
    pub fn with_tokens(mut self, count: fn(&str) -> u64) -> Self {
        self.tokens = count;
        self
    }

    /// What it has done so far.
    pub fn stats(&self) -> EmbedStats {
        let Counts {
            items,
            duplicates,
            cached,
            coalesced,
            calls,
        } = &self.counts;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EmbedStats {
            items: count(items),
            duplicates: count(duplicates),
            cached: count(cached),
            coalesced: count(coalesced),
            calls: count(calls),
            in_flight: self.flights.len(),
        }
    }

    /// Embeds the texts of a request, each with a result of its own.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the calls that were made for it. Somebody else who waits for one of the texts makes
    /// the call then.
    pub async fn embed_each(&self, request: &EmbedRequest) -> Embedded {
        let texts = Texts::of(request, self.model.info());
        let count = |counter: &AtomicU64, by: usize| counter.fetch_add(by as u64, Ordering::Relaxed);
        count(&self.counts.items, request.inputs.len());
        count(&self.counts.duplicates, request.inputs.len() - texts.keys.len());
        let template = EmbedRequest {
            inputs: Vec::new(),
            dimensions: request.dimensions,
            purpose: request.purpose,
            provider_options: request.provider_options.clone(),
        };
        let mut work = Work {
            batcher: self,
            template: &template,
            results: vec![None; texts.keys.len()],
            spent: Spent::default(),
        };
        let mut open: Vec<usize> = (0..texts.keys.len()).collect();
        while !open.is_empty() {
            open = work.round(&texts, open).await;
        }
        let Work { results, spent, .. } = work;
        let results = texts.places.iter().map(|place| {
            let result = results.get(*place).cloned().flatten();
            result.unwrap_or(Err(Error::Cancelled))
        });
        Embedded {
            results: results.collect(),
            usage: match spent.calls {
                0 => Some(Usage::default()),
                _ => spent.usage,
            },
            calls: spent.calls,
            model: spent.model,
            raw: spent.raw,
        }
    }

    /// Embeds one batch, when there is room for it.
    async fn batch(&self, template: &EmbedRequest, items: Vec<Promised<'_>>) -> Spent {
        // It is never closed.
        let _room = self.gate.acquire().await;
        let caller = Retrying {
            model: &self.model,
            retry: self.retry.as_ref(),
            calls: &self.counts.calls,
        };
        embed_batch(caller, template, items, self.policy.max_extra_calls).await
    }
}

/// A text's bytes by four, rounded up, and one for its frame.
fn estimate(text: &str) -> u64 {
    text.len().div_ceil(4) as u64 + 1
}

/// The different texts of a request.
struct Texts {
    /// What each different text is known by, and where in it the text begins.
    keys: Vec<Arc<str>>,
    prefix: usize,
    /// For each input the place of its text.
    places: Vec<usize>,
}

impl Texts {
    fn of(request: &EmbedRequest, info: &ModelInfo) -> Self {
        let EmbedRequest {
            inputs,
            dimensions,
            purpose,
            provider_options,
        } = request;
        // As JSON it is prefix-free, whatever characters the names hold.
        let prefix = json!([
            info.provider(),
            info.model(),
            dimensions,
            purpose,
            provider_options
        ])
        .to_string();
        let mut keys = Vec::new();
        let mut known: HashMap<&str, usize> = HashMap::with_capacity(inputs.len());
        let places = inputs.iter().map(|input| {
            *known.entry(input).or_insert_with(|| {
                keys.push(Arc::from([prefix.as_str(), input].concat()));
                keys.len() - 1
            })
        });
        let places = places.collect();
        Self {
            keys,
            prefix: prefix.len(),
            places,
        }
    }
}

/// One request at work.
struct Work<'a, M> {
    batcher: &'a EmbedBatcher<M>,
    template: &'a EmbedRequest,
    results: Vec<Option<Result<Vector>>>,
    spent: Spent,
}

/// What one of the futures of a round brings.
enum Brought {
    Spent(Spent),
    /// What somebody else made of a text; `None` if it was dropped.
    Followed(usize, Option<Result<Vector>>),
}

type Bringing<'a> = Pin<Box<dyn Future<Output = Brought> + Send + 'a>>;

impl<M: EmbeddingModel> Work<'_, M> {
    /// Looks up, leads or follows each open text; gives those whose leader went away.
    async fn round(&mut self, texts: &Texts, open: Vec<usize>) -> Vec<usize> {
        let batcher = self.batcher;
        let counts = &batcher.counts;
        let (mut leads, mut follows) = (Vec::new(), Vec::new());
        for place in open {
            let key = &texts.keys[place];
            let known = || batcher.cache.as_ref()?.get(key).map(Ok);
            match batcher.flights.claim(key, known) {
                Err(known) => {
                    counts.cached.fetch_add(1, Ordering::Relaxed);
                    self.results[place] = Some(known);
                }
                Ok(Claim::Lead(lead)) => leads.push((place, lead)),
                Ok(Claim::Follow(follow)) => {
                    counts.coalesced.fetch_add(1, Ordering::Relaxed);
                    follows.push((place, follow));
                }
            }
        }
        // The results of what is led here come back by the same way as those of others.
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut bringing: FuturesUnordered<Bringing<'_>> = FuturesUnordered::new();
        let tokens = leads
            .iter()
            .map(|(place, _)| (batcher.tokens)(&texts.keys[*place][texts.prefix..]));
        let runs = pack(tokens, batcher.policy.max_items, batcher.policy.max_tokens);
        let mut leads = leads.into_iter();
        for run in runs {
            let items = leads.by_ref().take(run).map(|(place, lead)| Promised {
                place,
                prefix: texts.prefix,
                lead,
                cache: batcher.cache.as_ref(),
                sender: sender.clone(),
            });
            let items: Vec<_> = items.collect();
            let template = self.template;
            bringing.push(Box::pin(async move {
                Brought::Spent(batcher.batch(template, items).await)
            }));
        }
        for (place, follow) in follows {
            bringing.push(Box::pin(async move {
                Brought::Followed(place, follow.result().await)
            }));
        }
        let mut again = Vec::new();
        while let Some(brought) = bringing.next().await {
            match brought {
                Brought::Spent(spent) => self.spent.add(spent),
                Brought::Followed(place, None) => again.push(place),
                Brought::Followed(place, result) => self.results[place] = result,
            }
        }
        for (place, result) in receiver.try_iter() {
            self.results[place] = Some(result);
        }
        again
    }
}

impl Spent {
    fn add(&mut self, other: Self) {
        let Self {
            calls,
            usage,
            model,
            raw,
        } = other;
        self.calls += calls;
        if let Some(usage) = usage {
            self.usage = Some(self.usage.unwrap_or_default() + usage);
        }
        self.model = self.model.take().or(model);
        self.raw.extend(raw);
    }
}

/// A text that is led here, and where its result goes.
struct Promised<'a> {
    place: usize,
    prefix: usize,
    lead: Lead<Arc<str>, Result<Vector>>,
    cache: Option<&'a EmbedCache>,
    sender: std::sync::mpsc::Sender<(usize, Result<Vector>)>,
}

impl Item for Promised<'_> {
    fn text(&self) -> &str {
        self.lead.key().get(self.prefix..).unwrap_or_default()
    }

    fn finish(self, result: Result<Vector>) {
        // Kept before the flight ends, so that nobody finds neither.
        if let (Some(cache), Ok(vector)) = (self.cache, &result) {
            cache.put(self.lead.key(), Arc::clone(vector));
        }
        // The receiver lives as long as the round.
        let _ = self.sender.send((self.place, result.clone()));
        self.lead.finish(result);
    }
}

/// Calls, counted, and made again where that may help.
struct Retrying<'a, M> {
    model: &'a M,
    retry: Option<&'a (RetryPolicy, Arc<dyn Timer>)>,
    calls: &'a AtomicU64,
}

impl<M: EmbeddingModel> Caller for Retrying<'_, M> {
    async fn call(&self, request: &EmbedRequest, calls: &mut u64) -> Result<EmbedResponse> {
        let mut retries = 0;
        loop {
            *calls += 1;
            self.calls.fetch_add(1, Ordering::Relaxed);
            let error = match self.model.embed(request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let wait = self.retry.and_then(|(policy, timer)| {
                let delay = policy.delay(&error, retries, fastrand::f64())?;
                Some(timer.sleep(delay))
            });
            match wait {
                Some(wait) => wait.await,
                None => return Err(error),
            }
            retries += 1;
        }
    }
}

impl<M: EmbeddingModel> EmbeddingModel for EmbedBatcher<M> {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    /// All vectors, or the error of the first text that has none.
    async fn embed(&self, request: &EmbedRequest) -> Result<EmbedResponse> {
        let Embedded {
            results,
            usage,
            model,
            raw,
            ..
        } = self.embed_each(request).await;
        let vectors = results.into_iter().collect::<Result<Vec<_>>>()?;
        let dimensions = vectors.first().map_or(0, |vector| vector.len());
        if vectors.iter().any(|vector| vector.len() != dimensions) {
            return Err(ProtocolError::new("the vectors have different lengths").into());
        }
        let embeddings = Embeddings::new(dimensions, vectors.concat());
        Ok(EmbedResponse {
            embeddings: embeddings.ok_or_else(|| Error::from(ProtocolError::new("the vectors are empty")))?,
            model: model.unwrap_or_else(|| self.info().model().to_owned()),
            usage,
            raw,
        })
    }
}

impl<M: EmbeddingModel> fmt::Debug for EmbedBatcher<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbedBatcher")
            .field("model", self.model.info())
            .field("policy", &self.policy)
            .field("cache", &self.cache)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
