//! What every cache does, whatever it caches: settings, look-ups with ages, stores with times.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::clock::Clock;
use crate::entry::after;
use crate::stats::Counters;
use crate::{
    CacheStats, Control, Entry, Key, Lookup, Mode, Result, Selector, Store, SystemTimeClock, Tag, TierEvent,
    Tiers, Ttl, Value,
};

/// Runs a future to its end beside everything else, such as `|task| { tokio::spawn(task); }`.
pub type Spawn = Arc<dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;

/// How a cache is set up.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use peregrine_cache::{MemoryConfig, MemoryStore, Settings, Ttl};
///
/// let settings = Settings::<String>::new()
///     .with_store(MemoryStore::new(&MemoryConfig::default().with_max_entries(1_000)))
///     .with_ttl(Ttl::After(Duration::from_secs(600)));
/// # let _ = settings;
/// ```
pub struct Settings<V> {
    tiers: Tiers<V>,
    ttl: Ttl,
    mode: Mode,
    stale: Option<(Duration, Spawn)>,
    clock: Arc<dyn Clock>,
    max_shared_bytes: usize,
}

impl<V: Value> Default for Settings<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Value> Settings<V> {
    /// Without a store, which still lets equal calls share one; answers stay fresh for an hour.
    pub fn new() -> Self {
        Self {
            tiers: Tiers::new(),
            ttl: Ttl::default(),
            mode: Mode::default(),
            stale: None,
            clock: Arc::new(SystemTimeClock),
            max_shared_bytes: 16 << 20,
        }
    }

    /// Adds a store below those that are there: first memory, then disk or Redis.
    #[must_use]
    pub fn with_store(mut self, store: impl Store<V>) -> Self {
        self.tiers = self.tiers.with(store);
        self
    }

    /// How long answers stay fresh, where a call does not say (an hour).
    #[must_use]
    pub fn with_ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = ttl;
        self
    }

    /// What calls do with the cache, where they do not say (read and write).
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Lets an answer be given out for this long after its time, while `spawn` runs the call that replaces it. Nothing
    /// else in a cache is spawned.
    #[must_use]
    pub fn with_stale_while_revalidate(
        mut self,
        window: Duration,
        spawn: impl Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync + 'static,
    ) -> Self {
        self.stale = Some((window, Arc::new(spawn)));
        self
    }

    /// Takes the time from this clock.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Tells this function when a tier fails, answers again, or held something damaged: each once.
    #[must_use]
    pub fn with_report(mut self, report: impl Fn(&TierEvent) + Send + Sync + 'static) -> Self {
        self.tiers = self.tiers.with_report(report);
        self
    }

    /// How many bytes of a streamed answer are kept for equal calls that come late (16 MiB). A longer one is not stored,
    /// and a reader that falls behind by more fails.
    #[must_use]
    pub fn with_max_shared_bytes(mut self, bytes: usize) -> Self {
        self.max_shared_bytes = bytes;
        self
    }
}

impl<V> fmt::Debug for Settings<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("tiers", &self.tiers)
            .field("ttl", &self.ttl)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// What a look-up found, after ages were looked at.
pub(crate) enum Found<V> {
    Fresh(Entry<V>),
    Stale(Entry<V>),
    Nothing,
    /// Whether there is something takes waiting to know.
    Ask,
}

/// What calls do with the stores.
pub(crate) struct Engine<V> {
    pub(crate) tiers: Tiers<V>,
    pub(crate) counters: Counters,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) spawn: Option<Spawn>,
    stale_for: Duration,
    ttl: Ttl,
    mode: Mode,
}

/// What one call does, settled.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) mode: Mode,
    pub(crate) ttl: Ttl,
    pub(crate) max_age: Option<Duration>,
    pub(crate) tags: Vec<Tag>,
}

impl Rules {
    pub(crate) fn stores(&self) -> bool {
        self.mode.writes() && self.ttl != Ttl::NoStore
    }
}

impl<V: Value> Engine<V> {
    /// The engine, and how many bytes of a stream calls share.
    pub(crate) fn new(settings: Settings<V>) -> (Self, usize) {
        let Settings {
            tiers,
            ttl,
            mode,
            stale,
            clock,
            max_shared_bytes,
        } = settings;
        let (stale_for, spawn) = match stale {
            Some((window, spawn)) => (window, Some(spawn)),
            None => (Duration::ZERO, None),
        };
        let engine = Self {
            tiers: tiers.with_clock(clock.clone()),
            counters: Counters::default(),
            clock,
            spawn,
            stale_for,
            ttl,
            mode,
        };
        (engine, max_shared_bytes)
    }

    pub(crate) fn rules(&self, control: &Control) -> Rules {
        let Control {
            mode,
            ttl,
            max_age,
            tags,
            anyway: _,
        } = control;
        Rules {
            mode: mode.unwrap_or(self.mode),
            ttl: ttl.unwrap_or(self.ttl),
            max_age: *max_age,
            tags: tags.clone(),
        }
    }

    pub(crate) fn find_now(&self, key: &Key, max_age: Option<Duration>) -> Found<V> {
        let now = self.clock.unix_ms();
        match self.tiers.find_now(key, now) {
            Lookup::Hit(entry) => self.judge(entry, max_age, now),
            Lookup::Miss => Found::Nothing,
            Lookup::Ask => Found::Ask,
        }
    }

    pub(crate) async fn find(&self, key: &Key, max_age: Option<Duration>) -> Found<V> {
        let now = self.clock.unix_ms();
        match self.tiers.find(key, now).await {
            Some(entry) => self.judge(entry, max_age, now),
            None => Found::Nothing,
        }
    }

    fn judge(&self, entry: Entry<V>, max_age: Option<Duration>, now: u64) -> Found<V> {
        if max_age.is_some_and(|most| entry.age(now) > most) {
            Found::Nothing
        } else if entry.is_fresh(now) {
            Found::Fresh(entry)
        } else if self.spawn.is_some() && entry.is_kept(now) {
            Found::Stale(entry)
        } else {
            Found::Nothing
        }
    }

    /// Stores a value, unless something was removed since `removals` was read.
    pub(crate) async fn store(&self, key: &Key, value: Arc<V>, rules: &Rules, removals: u64) {
        let now = self.clock.unix_ms();
        let ttl = match rules.ttl {
            Ttl::Never => None,
            Ttl::After(ttl) => Some(ttl),
            Ttl::NoStore => return,
        };
        let until = ttl.map_or(crate::NEVER, |ttl| after(now, ttl));
        let entry = Entry {
            value,
            created: now,
            fresh_until: until,
            keep_until: after(until, self.stale_for),
            tags: Arc::from(rules.tags.as_slice()),
        };
        let stored = self.tiers.store(key, &entry, now, removals).await;
        let counter = if stored {
            &self.counters.stored
        } else {
            &self.counters.not_stored
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) async fn remove(&self, what: &Selector) -> Result<u64> {
        let removed = self.tiers.remove(what).await;
        if let Ok(count) = &removed {
            self.counters.removed.fetch_add(*count, Relaxed);
        }
        removed
    }

    pub(crate) fn stats(&self) -> CacheStats {
        self.counters.snapshot(self.tiers.stats())
    }
}
