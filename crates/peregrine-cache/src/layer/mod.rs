//! The cache as a layer: it wraps a chat model and is a chat model.
//!
//! # What is cached
//!
//! An answer is found again by everything that can change it: scope, provider, model, messages, tools, schema, sampling,
//! seed. Not used, unless a call says [`anyway`](crate::Control::anyway):
//! - where a tool is offered that has side effects, or whose effect is not known: say which tools are harmless with
//!   [`CacheLayer::with_tool_effects`]. A replayed answer would call them again.
//! - where the temperature is above a limit ([`CacheLayer::with_max_temperature`], 1.0): who asks for variety is not given
//!   the same answer twice. A request without a temperature is within any limit.
//! - where the request holds a kind of part that this version does not know.
//!
//! A request without a scope shares answers with others without a scope, and with nobody else. What is known of a model
//! is its provider and name; if two servers answer differently under the same ones, give each layer a
//! [namespace](CacheLayer::with_namespace).
//!
//! # What an answer from the cache looks like
//!
//! It is the response, or the events, of the call it came from, with two differences. Its metadata has `cache`:
//! `{"served": "hit" | "stale" | "coalesced" | "similar", "age_ms", "usage"?}`, which [`Served::of`](crate::Served::of)
//! reads. And its usage is nothing, because nothing was used: budgets, cost accounting and limits need to know nothing of
//! caches. What the original call used stands in the mark. Of calls that shared one, exactly one has its usage: the first
//! that has the end of the answer, whoever began it and may be gone by then.
//!
//! Only whole answers are stored: of a stream, one that came to its [`ChatEvent::Done`]. It is stored before that event
//! is given out, so who has seen the end finds it in the cache. Errors are told to everybody who waited, and never stored.
//!
//! # Performance
//!
//! A hit in memory takes one and a half times as long as hashing the request's bytes. Of a long conversation that was seen
//! before, only what is new is hashed. A miss adds some microseconds to the call, and the time of the stores that are asked.

mod answer;
mod control;
mod key;
mod model;
mod similar;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, Effect, EmbeddingHandle, Error, ErrorKind, Layer,
    PriceTable, RawResponse,
};

pub use self::answer::StoredAnswer;
pub use self::control::{CONTROL_LABEL, CacheControl};
pub use self::key::Partition;
pub use self::model::CachedModel;

use self::similar::Similar;
use crate::cache::{FlightKey, Tags, part_with};
use crate::engine::Engine;
use crate::flight::{Ending, Group};
use crate::semantic::{Semantic, SemanticConfig};
use crate::{CacheStats, Entry, Key, Result, Selector, Served, Settings};

/// A cache for chat models. Cheap to clone; clones, and all models it wraps, share what it holds.
///
/// # Examples
///
/// ```
/// use peregrine_cache::{CacheLayer, MemoryConfig, MemoryStore, Served, Settings};
/// use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ModelInfo, Result, Usage};
///
/// struct Parrot(ModelInfo);
///
/// impl ChatModel for Parrot {
///     fn info(&self) -> &ModelInfo {
///         &self.0
///     }
///
///     async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
///         let heard = request.messages.last().map(|m| m.text()).unwrap_or_default();
///         Ok(ChatResponse::text(heard).with_usage(Usage::new(3, 3)))
///     }
/// }
///
/// # async fn run() -> Result<()> {
/// let memory = MemoryStore::new(&MemoryConfig::default());
/// let model = Parrot(ModelInfo::new("example", "parrot"))
///     .layered(CacheLayer::new(Settings::new().with_store(memory)));
///
/// let first = model.complete(&ChatRequest::user("hello")).await?;
/// let again = model.complete(&ChatRequest::user("hello")).await?;
/// assert_eq!(first.message, again.message);
/// assert_eq!(Served::of(&first), None);
/// assert_eq!(Served::of(&again), Some(Served::Hit));
/// assert_eq!(again.usage, Some(Usage::new(0, 0)));
/// # Ok(())
/// # }
/// # let mut run = std::pin::pin!(run());
/// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// # assert!(matches!(run.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(()))));
/// ```
#[derive(Clone)]
pub struct CacheLayer {
    shared: Arc<Shared>,
    options: Arc<Options>,
}

pub(crate) struct Shared {
    engine: Engine<StoredAnswer>,
    flights: Arc<Group<FlightKey, ChatEvent, Outcome, Tags>>,
    /// Numbers those who want an answer of their own.
    anew: AtomicU64,
}

#[derive(Clone)]
struct Options {
    namespace: String,
    partition: Partition,
    max_temperature: f64,
    effects: BTreeMap<String, Effect>,
    prices: PriceTable,
    similar: Option<Arc<Similar>>,
}

/// How a shared call ended.
#[derive(Clone)]
pub(crate) enum Outcome {
    /// It was not needed.
    Stored(Entry<StoredAnswer>, Served),
    /// With an answer, and what the provider sent.
    Answered(Arc<StoredAnswer>, Option<RawResponse>),
    /// With events that could not be kept; who reads them as they come has them all.
    Passed,
    Failed(Error),
    Panicked,
}

impl Ending<ChatEvent> for Outcome {
    fn items(&self) -> &[ChatEvent] {
        match self {
            Self::Answered(answer, _) => answer.items(),
            _ => &[],
        }
    }

    fn panicked() -> Self {
        Self::Panicked
    }
}

impl CacheLayer {
    /// A cache. What it holds, and for how long, is in the settings.
    pub fn new(settings: Settings<StoredAnswer>) -> Self {
        let (engine, max_bytes) = Engine::new(settings);
        let options = Options {
            namespace: String::new(),
            partition: Partition::default(),
            max_temperature: 1.0,
            effects: BTreeMap::new(),
            prices: PriceTable::new(),
            similar: None,
        };
        Self {
            shared: Arc::new(Shared {
                engine,
                flights: Arc::new(Group::new(max_bytes)),
                anew: AtomicU64::new(0),
            }),
            options: Arc::new(options),
        }
    }

    /// Tells apart what provider and model do not: another server, a version of a prompt.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.options).namespace = namespace.into();
        self
    }

    /// Who shares answers: sessions have their own, unless this says that a tenant's share them.
    #[must_use]
    pub fn with_partition(mut self, partition: Partition) -> Self {
        Arc::make_mut(&mut self.options).partition = partition;
        self
    }

    /// Up to which temperature calls use the cache (1.0).
    #[must_use]
    pub fn with_max_temperature(mut self, limit: f64) -> Self {
        Arc::make_mut(&mut self.options).max_temperature = limit;
        self
    }

    /// Says what tools do. Where a tool is offered that is not known to be read-only or idempotent, the cache is not used.
    #[must_use]
    pub fn with_tool_effects<N: Into<String>>(
        mut self,
        effects: impl IntoIterator<Item = (N, Effect)>,
    ) -> Self {
        let known = &mut Arc::make_mut(&mut self.options).effects;
        known.extend(effects.into_iter().map(|(name, effect)| (name.into(), effect)));
        self
    }

    /// By which prices the money that is saved is counted.
    #[must_use]
    pub fn with_prices(mut self, prices: PriceTable) -> Self {
        Arc::make_mut(&mut self.options).prices = prices;
        self
    }

    /// Lets similar requests have one answer, within a context and as far as it is learned that they may; see
    /// [`semantic`](crate::semantic). Texts are embedded with `embedder`, one for each exact miss.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) if the settings cannot be.
    pub fn with_semantic(mut self, config: SemanticConfig, embedder: EmbeddingHandle) -> Result<Self> {
        let similar = Similar::new(Semantic::new(config)?, embedder);
        Arc::make_mut(&mut self.options).similar = Some(Arc::new(similar));
        Ok(self)
    }

    /// Says when two answers are as good as one: what the semantic tier learns from. Unless it is said, their texts have
    /// to be equal but for case and white space, and their tool calls equal. Without a semantic tier this does nothing.
    #[must_use]
    pub fn with_judge(
        mut self,
        judge: impl Fn(&ChatResponse, &ChatResponse) -> bool + Send + Sync + 'static,
    ) -> Self {
        let options = Arc::make_mut(&mut self.options);
        if let Some(similar) = &options.similar {
            options.similar = Some(Arc::new(similar.with_judge(Arc::new(judge))));
        }
        self
    }

    /// The semantic tier, for its feedback and statistics.
    pub fn semantic(&self) -> Option<&Semantic> {
        self.options.similar.as_deref().map(Similar::semantic)
    }

    /// The key of a request to a model here. `None` if the request holds something that this version does not know.
    pub fn key(&self, info: &peregrine_core::ModelInfo, request: &ChatRequest) -> Option<Key> {
        let scope = self.options.partition.key(request.scope.as_ref());
        key::of(&self.options.namespace, &scope, info, request, key::Extent::Whole).ok()
    }

    /// Removes answers from all tiers, and says how many. What of them is under way meanwhile is not stored, and nobody joins
    /// it; other calls go on. What another process asks for meanwhile is stored there.
    ///
    /// By key ([`CacheLayer::key`]), by label, by model ([`Tag::model`](crate::Tag::model)), by scope
    /// ([`Tag::scope`](crate::Tag::scope) of [`Scope::key`](peregrine_core::Scope::key); that of a tenant without a
    /// session means all of the tenant's), or all.
    ///
    /// # Errors
    ///
    /// That a tier failed: what was to be removed may still be there.
    pub async fn remove(&self, what: &Selector) -> Result<u64> {
        let _while_it_runs = self.shared.engine.tiers.removing(what);
        part_with(&self.shared.flights, what);
        if let Some(semantic) = self.semantic() {
            semantic.remove(what);
        }
        self.shared.engine.remove(what).await
    }

    /// What it did so far.
    pub fn stats(&self) -> CacheStats {
        self.shared.engine.stats()
    }

    /// How many calls are under way that others may join.
    pub fn in_flight(&self) -> usize {
        self.shared.flights.len()
    }

    /// How many callers wait for them.
    pub fn waiting(&self) -> usize {
        self.shared.flights.waiting()
    }
}

impl Options {
    /// Whether a request is for the cache at all.
    fn admits(&self, request: &ChatRequest) -> bool {
        let harmless = |name: &str| {
            matches!(
                self.effects.get(name),
                Some(Effect::ReadOnly | Effect::Idempotent)
            )
        };
        let too_hot = request
            .sampling
            .temperature
            .is_some_and(|temperature| temperature.is_nan() || temperature > self.max_temperature);
        !too_hot && request.tools.iter().all(|tool| harmless(&tool.name))
    }
}

impl<M: ChatModel> Layer<M> for CacheLayer {
    type Model = CachedModel<M>;

    fn layer(self, inner: M) -> CachedModel<M> {
        CachedModel::new(self, inner)
    }
}

impl fmt::Debug for CacheLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer")
            .field("tiers", &self.shared.engine.tiers)
            .finish_non_exhaustive()
    }
}

/// The call that was shared ended in a panic; whoever polled it has that.
#[derive(Debug, thiserror::Error)]
#[error("the call that this one shared panicked")]
struct SharedPanic;

/// Too far behind a stream that was too large to keep.
#[derive(Debug, thiserror::Error)]
#[error(
    "this reader of a shared stream fell behind by more than the cache keeps; read faster or raise max_shared_bytes"
)]
struct FellBehind;

fn shared_panic() -> Error {
    Error::layer(ErrorKind::Internal, SharedPanic)
}

fn fell_behind() -> Error {
    Error::layer(ErrorKind::ResponseTooLarge, FellBehind)
}
