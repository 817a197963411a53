//! Finding, adding and evicting entries.
//!
//! Invariant: an entry is only evicted under the write lock and only if the pool alone holds it. New holders appear
//! under the read lock only, so none can appear in between.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use peregrine_core::{Clock, ErrorKind, Result, SystemClock, Unavailable};

use super::{Address, PoolConfig};
use crate::http::{Connecting, Endpoint, Entry, HttpConfig};

/// A pool of HTTP clients, one for each [`Address`]. Clones are the same pool.
///
/// Most programs need none of their own: [`connect`](crate::connect) and [`Connector`](crate::Connector) use
/// [`Pool::global`].
///
/// # Examples
///
/// ```
/// use peregrine_providers::{Address, Credential, HttpConfig, Pool, PoolConfig};
///
/// let pool = Pool::new(PoolConfig::default().with_max_entries(100));
/// let address = Address::new("ollama", "http://127.0.0.1:11434", Credential::None)?;
/// let one = pool.endpoint(&address, HttpConfig::default())?;
/// let two = pool.endpoint(&address, HttpConfig::default())?;
/// assert!(one.shares_connections_with(&two));
/// let stats = pool.stats();
/// assert_eq!((stats.entries, stats.hits, stats.builds), (1, 1, 0));
/// # Ok::<(), peregrine_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    config: PoolConfig,
    clock: Arc<dyn Clock>,
    entries: RwLock<Entries>,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
    refused: AtomicU64,
    builds: Arc<AtomicU64>,
}

#[derive(Default)]
struct Entries {
    /// By the hash of their address; there is more than one of a hash if they connect differently.
    by_hash: HashMap<u64, Vec<Arc<Entry>>>,
    count: usize,
}

/// What a pool holds, and what it has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// How many entries there are.
    pub entries: usize,
    /// How many of them nobody holds.
    pub idle: usize,
    /// How many of them have a client.
    pub ready: usize,
    /// How often an entry was found.
    pub hits: u64,
    /// How often one was added.
    pub misses: u64,
    /// How many clients were built.
    pub builds: u64,
    /// How many entries were evicted.
    pub evictions: u64,
    /// How often there was no room.
    pub refused: u64,
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(PoolConfig::default())
    }
}

impl Pool {
    /// An empty pool.
    pub fn new(config: PoolConfig) -> Self {
        Self::with_clock(config, Arc::new(SystemClock))
    }

    /// An empty pool that tells time by `clock`.
    pub fn with_clock(config: PoolConfig, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            config,
            clock,
            entries: RwLock::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            builds: Arc::default(),
        }))
    }

    /// The pool of this process.
    pub fn global() -> &'static Self {
        static GLOBAL: OnceLock<Pool> = OnceLock::new();
        GLOBAL.get_or_init(Self::default)
    }

    /// An endpoint at an address, with these limits for its calls. Its entry is shared with all endpoints at the same
    /// address whose connections are made in the same way (connect timeout, how many unused ones are kept, for how long).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] if the pool is full and all of its entries are in use.
    ///
    /// # Performance
    ///
    /// Finding an entry by an address that is kept takes a fraction of a microsecond. Making an address parses its URL,
    /// which takes several times as long: keep the address, or the model.
    pub fn endpoint(&self, address: &Address, config: HttpConfig) -> Result<Arc<Endpoint>> {
        let connecting = Connecting::of(&config);
        let found = self.read().find(address, connecting);
        let entry = match found {
            Some(entry) => {
                self.0.hits.fetch_add(1, Ordering::Relaxed);
                entry
            }
            None => self.add(address, connecting)?,
        };
        Ok(Arc::new(Endpoint::new(entry, config)))
    }

    /// Evicts the entries that nobody has held for at least this long, and says how many there were.
    pub fn evict_idle(&self, idle_for: Duration) -> usize {
        let mut entries = self.write();
        self.evict(&mut entries, idle_for)
    }

    /// What it holds and has done.
    pub fn stats(&self) -> PoolStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let entries = self.read();
        let all = || entries.by_hash.values().flatten();
        PoolStats {
            entries: entries.count,
            idle: all().filter(|entry| is_idle(entry)).count(),
            ready: all().filter(|entry| entry.is_ready()).count(),
            hits: count(&self.0.hits),
            misses: count(&self.0.misses),
            builds: count(&self.0.builds),
            evictions: count(&self.0.evictions),
            refused: count(&self.0.refused),
        }
    }

    fn add(&self, address: &Address, connecting: Connecting) -> Result<Arc<Entry>> {
        let mut entries = self.write();
        // Somebody may have added it since the look.
        if let Some(found) = entries.find(address, connecting) {
            self.0.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(found);
        }
        self.evict(&mut entries, self.0.config.idle_timeout);
        let max = self.0.config.max_entries.max(1);
        if entries.count >= max && !self.evict_longest_idle(&mut entries) {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            let message = format!(
                "the pool has room for {max} addresses and all of them are in use; let models go that are not needed, \
                 or give the pool more room"
            );
            return Err(Unavailable::new(ErrorKind::Refused, message).into());
        }
        self.0.misses.fetch_add(1, Ordering::Relaxed);
        let shared = &*self.0;
        let (clock, builds) = (Arc::clone(&shared.clock), Arc::clone(&shared.builds));
        let entry = Arc::new(Entry::new(address.clone(), connecting, clock, builds));
        let same_hash = entries.by_hash.entry(address.hash()).or_default();
        same_hash.push(Arc::clone(&entry));
        entries.count += 1;
        Ok(entry)
    }

    fn evict(&self, entries: &mut Entries, idle_for: Duration) -> usize {
        let now = self.0.clock.now();
        self.retain(entries, |entry| now.since(entry.released()) < idle_for)
    }

    fn evict_longest_idle(&self, entries: &mut Entries) -> bool {
        let idle = entries.by_hash.values().flatten().filter(|entry| is_idle(entry));
        let Some(oldest) = idle.min_by_key(|entry| entry.released()).map(Arc::as_ptr) else {
            return false;
        };
        self.retain(entries, |entry| !std::ptr::eq(entry, oldest)) > 0
    }

    /// Evicts the idle entries that are not to be kept.
    fn retain(&self, entries: &mut Entries, keep: impl Fn(&Entry) -> bool) -> usize {
        let before = entries.count;
        let mut count = 0;
        entries.by_hash.retain(|_, same_hash| {
            same_hash.retain(|entry| !is_idle(entry) || keep(entry));
            count += same_hash.len();
            !same_hash.is_empty()
        });
        entries.count = count;
        self.0
            .evictions
            .fetch_add((before - count) as u64, Ordering::Relaxed);
        before - count
    }

    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.0.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.0.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("config", &self.0.config)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Entries {
    fn find(&self, address: &Address, connecting: Connecting) -> Option<Arc<Entry>> {
        let same_hash = self.by_hash.get(&address.hash())?;
        same_hash
            .iter()
            .find(|entry| entry.fits(address, connecting))
            .map(Arc::clone)
    }
}

/// Whether the pool alone holds it.
fn is_idle(entry: &Arc<Entry>) -> bool {
    Arc::strong_count(entry) == 1
}
