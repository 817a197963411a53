//! Several stores as one: the fastest first, and none of them able to break a call.
//!
//! A look-up goes down the tiers until one has the entry, and copies it into those above with the times it has. A tier
//! that fails is counted, reported once, and then left out for a while that doubles with each further failure (from one
//! second to a minute), after which a single operation tries it again; so a dead server costs one timeout a minute, not
//! one a call. When it answers again, that is reported once too. Reading and writing are judged apart: a full disk still
//! reads. Where reading is down, writing is not even tried.
//!
//! A removal that finds a tier unusable is an error, since what was to go may come back with the tier: whoever removes
//! must know. What is copied up or stored while a removal runs is removed again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;

use self::Operation::{Read, Write};
use crate::clock::Clock;
use crate::removals::{Removals, Removing};
use crate::stats::{Histogram, TierStats};
use crate::sync::{Mutex, lock};
use crate::{
    Entry, Error, ErrorKind, Key, Lookup, Result, Selector, Store, StoreStatus, SystemTimeClock, Value,
};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is reported of a tier.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TierEvent {
    /// It failed, and is left out until it answers again. Reported once, however many calls pass meanwhile.
    Down {
        /// Which.
        tier: &'static str,
        /// At what.
        operation: Operation,
        /// Why.
        error: Error,
    },
    /// It answers again.
    Up {
        /// Which.
        tier: &'static str,
        /// To what.
        operation: Operation,
        /// For how long it was down.
        after: Duration,
    },
    /// It held a damaged entry, which is gone now.
    Damaged {
        /// Which.
        tier: &'static str,
        /// What was wrong with it.
        error: Error,
    },
}

/// What a tier is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Look-ups.
    Read,
    /// Everything that changes it.
    Write,
}

type Report = Arc<dyn Fn(&TierEvent) + Send + Sync>;

/// Stores in a row, fastest first. A [`Store`] itself, whose look-ups and writes never fail.
pub struct Tiers<V> {
    tiers: Vec<Tier<V>>,
    clock: Arc<dyn Clock>,
    report: Option<Report>,
    removals: Removals,
}

struct Tier<V> {
    name: &'static str,
    store: Arc<dyn Store<V>>,
    reads: Mutex<Health>,
    writes: Mutex<Health>,
    hits: AtomicU64,
    misses: AtomicU64,
    failures: AtomicU64,
    skipped: AtomicU64,
    hit_latency: Histogram,
}

#[derive(Debug, Clone, Copy)]
enum Health {
    /// What began before that tells nothing any more.
    Up { since: Duration },
    /// Left out until then; then one operation at a time tries.
    Down {
        since: Duration,
        pause: Duration,
        retry_at: Duration,
        /// Somebody is trying.
        trying: bool,
    },
}

/// What to do with a tier.
enum Turn {
    /// Ask it; this is when that began.
    Now(Duration),
    /// It is time to try whether it is back.
    Try,
    /// Leave it out.
    Skip,
}

impl<V> Tier<V> {
    fn health(&self, operation: Operation) -> &Mutex<Health> {
        match operation {
            Read => &self.reads,
            Write => &self.writes,
        }
    }

    fn is_down(&self, operation: Operation) -> bool {
        matches!(*lock(self.health(operation)), Health::Down { .. })
    }
}

impl<V: Value> Tiers<V> {
    /// Without a store: nothing is ever found.
    pub fn new() -> Self {
        Self {
            tiers: Vec::new(),
            clock: Arc::new(SystemTimeClock),
            report: None,
            removals: Removals::default(),
        }
    }

    /// Adds a store below the others.
    #[must_use]
    pub fn with(mut self, store: impl Store<V>) -> Self {
        self.tiers.push(Tier {
            name: store.status().name,
            store: Arc::new(store),
            reads: Mutex::new(Health::Up {
                since: Duration::ZERO,
            }),
            writes: Mutex::new(Health::Up {
                since: Duration::ZERO,
            }),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            hit_latency: Histogram::default(),
        });
        self
    }

    /// Takes the time (of pauses and latencies) from this clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Tells this function when a tier fails, answers again, or held something damaged.
    #[must_use]
    pub fn with_report(mut self, report: impl Fn(&TierEvent) + Send + Sync + 'static) -> Self {
        self.report = Some(Arc::new(report));
        self
    }

    /// What each tier did.
    pub fn stats(&self) -> Vec<TierStats> {
        let stats = |tier: &Tier<V>| TierStats {
            store: tier.store.status(),
            hits: tier.hits.load(Relaxed),
            misses: tier.misses.load(Relaxed),
            failures: tier.failures.load(Relaxed),
            skipped: tier.skipped.load(Relaxed),
            down: tier.is_down(Read) || tier.is_down(Write),
            hit_latency: tier.hit_latency.snapshot(),
        };
        self.tiers.iter().map(stats).collect()
    }

    /// When something begins: what is removed from then on may not be stored by it.
    pub(crate) fn removals(&self) -> u64 {
        self.removals.now()
    }

    /// Notes a removal, which lasts until what this gives is dropped.
    pub(crate) fn removing(&self, what: &Selector) -> Removing<'_> {
        self.removals.begin(what)
    }

    /// Looks up what needs no waiting. `Ask` if a tier that has to be waited for may have it.
    pub(crate) fn find_now(&self, key: &Key, now: u64) -> Lookup<V> {
        for (place, tier) in self.tiers.iter().enumerate() {
            let began = match self.turn(tier, Read) {
                Turn::Now(began) => began,
                // Whether it is back is for a look-up that can wait.
                Turn::Try => return Lookup::Ask,
                Turn::Skip => continue,
            };
            let found = tier.store.get_now(key, now);
            if matches!(found, Ok(Lookup::Ask)) {
                // Which says nothing of how it is.
                return Lookup::Ask;
            }
            match self.settle(tier, Read, began, found) {
                Some(Lookup::Hit(entry)) => {
                    self.found(tier, began);
                    let removals = self.removals();
                    for above in self.tiers.iter().take(place) {
                        // Stores that look up at once also store at once; one that does not is left out.
                        let _copied = at_once(self.write(above, key, &entry, now, removals));
                    }
                    return Lookup::Hit(entry);
                }
                Some(_) => {
                    tier.misses.fetch_add(1, Relaxed);
                }
                None => {}
            }
        }
        Lookup::Miss
    }

    /// Looks up, and copies what is found into the tiers above.
    pub(crate) async fn find(&self, key: &Key, now: u64) -> Option<Entry<V>> {
        let removals = self.removals();
        for (place, tier) in self.tiers.iter().enumerate() {
            let Some(began) = self.may_use(tier, Read) else {
                continue;
            };
            let found = tier.store.get(key, now).await;
            let Some(found) = self.settle(tier, Read, began, found) else {
                continue;
            };
            let Some(entry) = found else {
                tier.misses.fetch_add(1, Relaxed);
                continue;
            };
            self.found(tier, began);
            for above in self.tiers.iter().take(place) {
                self.write(above, key, &entry, now, removals).await;
            }
            return Some(entry);
        }
        None
    }

    /// Stores in every tier that can be used, unless something was removed since `removals` was read.
    pub(crate) async fn store(&self, key: &Key, entry: &Entry<V>, now: u64, removals: u64) -> bool {
        let mut stored = false;
        for tier in &self.tiers {
            stored |= self.write(tier, key, entry, now, removals).await;
        }
        stored
    }

    async fn write(&self, tier: &Tier<V>, key: &Key, entry: &Entry<V>, now: u64, removals: u64) -> bool {
        if self.removals.meant(removals, key, &entry.tags) || tier.is_down(Read) {
            return false;
        }
        let Some(began) = self.may_use(tier, Write) else {
            return false;
        };
        let stored = tier.store.put(key, entry, now).await;
        let stored = self.settle(tier, Write, began, stored) == Some(true);
        if stored && self.removals.meant(removals, key, &entry.tags) {
            let removed = tier.store.remove(&Selector::Key(*key)).await;
            self.settle(tier, Write, began, removed);
            return false;
        }
        stored
    }

    fn found(&self, tier: &Tier<V>, began: Duration) {
        tier.hits.fetch_add(1, Relaxed);
        tier.hit_latency.add(self.clock.monotonic().saturating_sub(began));
    }

    fn turn(&self, tier: &Tier<V>, operation: Operation) -> Turn {
        let now = self.clock.monotonic();
        match *lock(tier.health(operation)) {
            Health::Up { .. } => Turn::Now(now),
            Health::Down { retry_at, .. } if now >= retry_at => Turn::Try,
            Health::Down { .. } => {
                tier.skipped.fetch_add(1, Relaxed);
                Turn::Skip
            }
        }
    }

    /// When an operation on a tier begins: now, or not at all. Of those who ask when a pause is over, the first one tries.
    fn may_use(&self, tier: &Tier<V>, operation: Operation) -> Option<Duration> {
        let now = self.clock.monotonic();
        let mut health = lock(tier.health(operation));
        let Health::Down {
            retry_at,
            pause,
            trying,
            ..
        } = &mut *health
        else {
            return Some(now);
        };
        if now < *retry_at {
            tier.skipped.fetch_add(1, Relaxed);
            return None;
        }
        // Should the one who tries be cancelled, the next one tries after a pause.
        *retry_at = now.saturating_add(*pause);
        *trying = true;
        Some(now)
    }

    /// Counts and reports how an operation went.
    fn settle<T>(
        &self,
        tier: &Tier<V>,
        operation: Operation,
        began: Duration,
        result: Result<T>,
    ) -> Option<T> {
        let error = match result {
            Ok(value) => {
                self.succeeded(tier, operation, began);
                return Some(value);
            }
            Err(error) => error,
        };
        tier.failures.fetch_add(1, Relaxed);
        let tell = match error.kind() {
            // One entry is bad, not the tier.
            ErrorKind::Corrupt => Some(TierEvent::Damaged {
                tier: tier.name,
                error,
            }),
            ErrorKind::Encode => None,
            _ => self.failed(tier, operation, began).then_some(TierEvent::Down {
                tier: tier.name,
                operation,
                error,
            }),
        };
        if let (Some(event), Some(report)) = (tell, &self.report) {
            report(&event);
        }
        None
    }

    fn succeeded(&self, tier: &Tier<V>, operation: Operation, began: Duration) {
        let mut health = lock(tier.health(operation));
        let Health::Down { since, .. } = *health else {
            return;
        };
        if began < since {
            return;
        }
        let now = self.clock.monotonic();
        *health = Health::Up { since: now };
        drop(health);
        if let Some(report) = &self.report {
            report(&TierEvent::Up {
                tier: tier.name,
                operation,
                after: now.saturating_sub(since),
            });
        }
    }

    /// True if it was up until now.
    fn failed(&self, tier: &Tier<V>, operation: Operation, began: Duration) -> bool {
        let now = self.clock.monotonic();
        let mut health = lock(tier.health(operation));
        match &mut *health {
            Health::Up { since } if began < *since => false,
            Health::Up { .. } => {
                *health = Health::Down {
                    since: now,
                    pause: FIRST_PAUSE,
                    retry_at: now.saturating_add(FIRST_PAUSE),
                    trying: false,
                };
                true
            }
            Health::Down {
                pause,
                retry_at,
                trying,
                ..
            } => {
                // Those that began before the first failure fail with it: only one that tried again counts.
                if std::mem::take(trying) {
                    *pause = (*pause * 2).min(LONGEST_PAUSE);
                    *retry_at = now.saturating_add(*pause);
                }
                false
            }
        }
    }
}

impl<V: Value> Default for Tiers<V> {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl<V: Value> Store<V> for Tiers<V> {
    fn get_now(&self, key: &Key, now: u64) -> Result<Lookup<V>> {
        Ok(self.find_now(key, now))
    }

    async fn get(&self, key: &Key, now: u64) -> Result<Option<Entry<V>>> {
        Ok(self.find(key, now).await)
    }

    async fn put(&self, key: &Key, entry: &Entry<V>, now: u64) -> Result<bool> {
        Ok(self.store(key, entry, now, self.removals()).await)
    }

    async fn remove(&self, what: &Selector) -> Result<u64> {
        let _while_it_runs = self.removing(what);
        let mut most = 0;
        let mut failure = None;
        // From the bottom, so that nothing is copied up again from what is still to be removed.
        for tier in self.tiers.iter().rev() {
            let began = self.clock.monotonic();
            let removed = tier.store.remove(what).await;
            if let Err(error) = &removed {
                failure.get_or_insert_with(|| error.clone());
            }
            most = most.max(self.settle(tier, Write, began, removed).unwrap_or_default());
        }
        failure.map_or(Ok(most), Err)
    }

    fn status(&self) -> StoreStatus {
        let all: Vec<_> = self.tiers.iter().map(|tier| tier.store.status()).collect();
        StoreStatus {
            entries: all.iter().filter_map(|status| status.entries).max(),
            bytes: all.iter().filter_map(|status| status.bytes).max(),
            evictions: all.iter().map(|status| status.evictions).sum(),
            corrupt: all.iter().map(|status| status.corrupt).sum(),
            ..StoreStatus::new("tiers")
        }
    }
}

impl<V> fmt::Debug for Tiers<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.tiers.iter().map(|tier| tier.name))
            .finish()
    }
}

/// What a future gives if it does not have to wait; else it is dropped.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
