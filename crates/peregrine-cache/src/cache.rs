//! A cache for anything: give it a key and how to compute the value.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Engine, Found, Rules};
use crate::flight::{Ending, Group, Party};
use crate::{CacheStats, Control, Entry, Key, Result, Selector, Served, Settings, Tag, Value};

/// Values by key, each computed once however many ask at the same time.
///
/// `E` is the error of the computation. It is told to everybody who waited and never stored. Cheap to clone.
///
/// # Examples
///
/// ```
/// use peregrine_cache::{Cache, Control, KeyBuilder, MemoryConfig, MemoryStore, Served, Settings};
///
/// # async fn run() -> Result<(), std::num::ParseIntError> {
/// let store = MemoryStore::new(&MemoryConfig::default());
/// let cache: Cache<String, std::num::ParseIntError> = Cache::new(Settings::new().with_store(store));
///
/// let mut key = KeyBuilder::new("squares", b"everybody");
/// key.text("12");
/// let key = key.finish();
/// let square = || async { "12".parse::<u64>().map(|number| (number * number).to_string()) };
/// let (value, served) = cache.get_or_compute(&key, &Control::new(), square).await?;
/// assert_eq!((value.as_str(), served), ("144", Served::Miss));
/// let (_, served) = cache.get_or_compute(&key, &Control::new(), square).await?;
/// assert_eq!(served, Served::Hit);
/// # Ok(())
/// # }
/// # let mut run = std::pin::pin!(run());
/// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// # assert!(matches!(run.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(()))));
/// ```
pub struct Cache<V, E>(Arc<Inner<V, E>>);

struct Inner<V, E> {
    engine: Engine<V>,
    flights: Arc<Group<FlightKey, (), Outcome<V, E>, Tags>>,
}

/// Calls share one another's end only if they want the same: an answer as old, stored or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlightKey {
    pub(crate) key: Key,
    pub(crate) stores: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) aim: Aim,
}

/// What a call that others may join is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Aim {
    /// An answer, from where it is.
    Find,
    /// An answer in the place of one that is past its time.
    Refresh,
    /// An answer that is not older than the one who asks, who therefore has it alone: each has a number.
    #[cfg(feature = "layer")]
    Anew(u64),
}

/// By what a call under way can be meant when something is removed.
pub(crate) type Tags = Vec<Tag>;

/// Lets nobody join a call whose answer is to be removed.
pub(crate) fn part_with<I, O>(flights: &Group<FlightKey, I, O, Tags>, what: &Selector)
where
    I: Clone + Send + Sync + 'static,
    O: Ending<I>,
{
    flights.part_with(|flight, tags| what.means(&flight.key, tags));
}

impl FlightKey {
    pub(crate) fn new(key: Key, rules: &Rules) -> Self {
        Self {
            key,
            stores: rules.stores(),
            max_age: rules.max_age,
            aim: Aim::Find,
        }
    }

    /// Of those who find an answer past its time, one asks for the next one, however old an answer each of them takes.
    pub(crate) fn refresh(key: Key, rules: &Rules) -> Self {
        Self {
            max_age: None,
            aim: Aim::Refresh,
            ..Self::new(key, rules)
        }
    }
}

enum Outcome<V, E> {
    Stored(Entry<V>, Served),
    Computed(Arc<V>),
    Failed(E),
    Panicked,
}

impl<V, E: Clone> Clone for Outcome<V, E> {
    fn clone(&self) -> Self {
        match self {
            Self::Stored(entry, served) => Self::Stored(entry.clone(), *served),
            Self::Computed(value) => Self::Computed(value.clone()),
            Self::Failed(error) => Self::Failed(error.clone()),
            Self::Panicked => Self::Panicked,
        }
    }
}

impl<V: Value, E: Clone + Send + Sync + 'static> Ending<()> for Outcome<V, E> {
    fn items(&self) -> &[()] {
        &[]
    }

    fn panicked() -> Self {
        Self::Panicked
    }
}

impl<V: Value, E: Clone + Send + Sync + 'static> Cache<V, E> {
    /// A cache.
    pub fn new(settings: Settings<V>) -> Self {
        let (engine, max_bytes) = Engine::new(settings);
        Self(Arc::new(Inner {
            engine,
            flights: Arc::new(Group::new(max_bytes)),
        }))
    }

    /// The value of a key, from where it is, or computed; and how it was come by.
    ///
    /// # Errors
    ///
    /// That of the computation. Stores that fail are counted and reported, and done without.
    ///
    /// # Panics
    ///
    /// If `compute` does, in one of those who wait for it; the others compute again.
    ///
    /// # Cancel safety
    ///
    /// The computation goes on for those who wait for the same; if nobody does, it is dropped.
    pub async fn get_or_compute<F, C>(
        &self,
        key: &Key,
        control: &Control,
        compute: F,
    ) -> Result<(Arc<V>, Served), E>
    where
        F: FnOnce() -> C + Send + 'static,
        C: Future<Output = Result<V, E>> + Send + 'static,
    {
        let engine = &self.0.engine;
        let rules = engine.rules(control);
        if !rules.mode.reads() {
            let removals = engine.tiers.removals();
            let value = Arc::new(compute().await?);
            let served = if rules.stores() {
                engine.store(key, value.clone(), &rules, removals).await;
                Served::Miss
            } else {
                Served::Bypass
            };
            engine.counters.served(served, 0);
            return Ok((value, served));
        }
        let mut compute = Some(compute);
        match engine.find_now(key, rules.max_age) {
            Found::Fresh(entry) => return Ok(self.give(&entry, Served::Hit)),
            Found::Stale(entry) => {
                if let Some(compute) = compute.take() {
                    self.revalidate(key, rules, compute);
                }
                return Ok(self.give(&entry, Served::Stale));
            }
            Found::Nothing | Found::Ask => {}
        }
        let flight = FlightKey::new(*key, &rules);
        loop {
            let inner = self.0.clone();
            let rules = rules.clone();
            let party = self.0.flights.join(&flight, rules.tags.clone(), false, |_| {
                let compute = compute.take();
                async move {
                    match inner.engine.find(&flight.key, rules.max_age).await {
                        Found::Fresh(entry) => return Outcome::Stored(entry, Served::Hit),
                        Found::Stale(entry) => {
                            if let Some(compute) = compute {
                                Self(inner).revalidate(&flight.key, rules, compute);
                            }
                            return Outcome::Stored(entry, Served::Stale);
                        }
                        Found::Nothing | Found::Ask => {}
                    }
                    inner.compute(&flight.key, &rules, compute).await
                }
            });
            match party.end().await {
                Some(Outcome::Stored(entry, served)) => return Ok(self.give(&entry, served)),
                Some(Outcome::Computed(value)) => {
                    let served = paid(party.pays());
                    engine.counters.served(served, value.weight());
                    return Ok((value, served));
                }
                Some(Outcome::Failed(error)) => {
                    engine.counters.served(paid(party.pays()), 0);
                    return Err(error);
                }
                // Somebody else's computation panicked, so this one begins its own.
                Some(Outcome::Panicked) | None => {}
            }
        }
    }

    /// Removes entries from all tiers, and says how many. What of them is being computed meanwhile is not stored, and nobody
    /// joins it; other computations go on. What another process computes meanwhile is stored there.
    ///
    /// # Errors
    ///
    /// That a tier failed: what was to be removed may still be there.
    pub async fn remove(&self, what: &Selector) -> Result<u64> {
        let _while_it_runs = self.0.engine.tiers.removing(what);
        part_with(&self.0.flights, what);
        self.0.engine.remove(what).await
    }

    /// What it did so far.
    pub fn stats(&self) -> CacheStats {
        self.0.engine.stats()
    }

    /// How many computations are under way.
    pub fn in_flight(&self) -> usize {
        self.0.flights.len()
    }

    /// How many wait for computations that others may join.
    pub fn waiting(&self) -> usize {
        self.0.flights.waiting()
    }

    fn give(&self, entry: &Entry<V>, served: Served) -> (Arc<V>, Served) {
        self.0.engine.counters.served(served, entry.value.weight());
        (entry.value.clone(), served)
    }

    fn revalidate<F, C>(&self, key: &Key, rules: Rules, compute: F)
    where
        F: FnOnce() -> C + Send + 'static,
        C: Future<Output = Result<V, E>> + Send + 'static,
    {
        let Some(spawn) = self.0.engine.spawn.as_ref().filter(|_| rules.stores()) else {
            return;
        };
        let flight = FlightKey::refresh(*key, &rules);
        let inner = self.0.clone();
        let party = self
            .0
            .flights
            .join(&flight, rules.tags.clone(), false, |_| async move {
                // Whoever found it past its time may have been overtaken by a whole refresh.
                if let Found::Fresh(entry) = inner.engine.find(&flight.key, None).await {
                    return Outcome::Stored(entry, Served::Hit);
                }
                inner.compute(&flight.key, &rules, Some(compute)).await
            });
        if party.leads() {
            spawn(Box::pin(run_out(party)));
        }
    }
}

/// How a call was come by that others may have shared.
pub(crate) const fn paid(pays: bool) -> Served {
    if pays { Served::Miss } else { Served::Coalesced }
}

async fn run_out<V: Value, E: Clone + Send + Sync + 'static>(
    party: Party<FlightKey, (), Outcome<V, E>, Tags>,
) {
    // Its error was not asked for: who asked has the older value, and the next one asks again.
    let _told_to_nobody = party.end().await;
}

impl<V: Value, E: Clone + Send + Sync + 'static> Inner<V, E> {
    async fn compute<F, C>(&self, key: &Key, rules: &Rules, compute: Option<F>) -> Outcome<V, E>
    where
        F: FnOnce() -> C + Send + 'static,
        C: Future<Output = Result<V, E>> + Send + 'static,
    {
        let Some(compute) = compute else {
            return Outcome::Panicked;
        };
        let removals = self.engine.tiers.removals();
        match compute().await {
            Ok(value) => {
                let value = Arc::new(value);
                if rules.stores() {
                    self.engine.store(key, value.clone(), rules, removals).await;
                }
                Outcome::Computed(value)
            }
            Err(error) => Outcome::Failed(error),
        }
    }
}

impl<V, E> Clone for Cache<V, E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V: Value, E> fmt::Debug for Cache<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("tiers", &self.0.engine.tiers)
            .finish_non_exhaustive()
    }
}
