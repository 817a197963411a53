//! Entries in memory: bounded in entries and in bytes, and not washed out by a scan.
//!
//! Algorithm: S3-FIFO (Yang, Zhang, Qiu, Yue, Vigfusson: FIFO queues are all you need for cache eviction, SOSP 2023). What
//! is new enters a small queue, a tenth of the room; what is asked for twice there moves to the main queue, and what is
//! not leaves early, remembered only by its digest. So a scan of things that are wanted once passes through the small
//! queue and never touches the main one. A hit only raises a counter of two bits.
//!
//! The store is split into shards by key, each with its lock, its part of both bounds, and its own table of tags; all
//! of a shard changes under one lock, so its bounds and its tags are exact at any time. Nothing is dropped under a lock.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use crate::key::{DigestHasher, DigestMap};
use crate::sync::{Mutex, lock};
use crate::{Entry, Key, Lookup, Result, Selector, Store, StoreStatus, Tag, Value};

/// What an entry takes beside its value: its place in the queues and tables.
const OVERHEAD_BYTES: usize = 256;
/// What each of its tags takes.
const TAG_BYTES: usize = 64;
const MAX_SHARDS: usize = 16;
/// Below this a shard is too small to be a cache of its own.
const MIN_SHARD_ENTRIES: usize = 256;
const MIN_SHARD_BYTES: usize = 4 << 20;

/// How much a [`MemoryStore`] holds at most.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// How many entries (10,000).
    pub max_entries: usize,
    /// How many bytes, overhead included (64 MiB).
    pub max_bytes: usize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            max_entries: 10_000,
            max_bytes: 64 << 20,
        }
    }
}

impl MemoryConfig {
    /// Bounds the number of entries.
    #[must_use]
    pub fn with_max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }

    /// Bounds the bytes.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }
}

/// Entries in memory. See the [module](self) for how it chooses what to keep.
pub struct MemoryStore<V> {
    shards: Vec<Mutex<Shard<V>>>,
    evictions: AtomicU64,
}

impl<V: Value> MemoryStore<V> {
    /// An empty store.
    pub fn new(config: &MemoryConfig) -> Self {
        let MemoryConfig {
            max_entries,
            max_bytes,
        } = *config;
        let most = (max_entries / MIN_SHARD_ENTRIES).min(max_bytes / MIN_SHARD_BYTES);
        let shards = prev_power_of_two(most.clamp(1, MAX_SHARDS));
        let shard = || Mutex::new(Shard::new(max_entries / shards, max_bytes / shards));
        Self {
            shards: std::iter::repeat_with(shard).take(shards).collect(),
            evictions: AtomicU64::new(0),
        }
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard<V>> {
        // The tables within take the low bits of the same digest.
        let at = (key.head() >> 48) as usize % self.shards.len();
        &self.shards[at]
    }
}

#[async_trait]
impl<V: Value> Store<V> for MemoryStore<V> {
    fn get_now(&self, key: &Key, now: u64) -> Result<Lookup<V>> {
        let mut shard = lock(self.shard(key));
        let expired;
        match shard.slots.get(key).copied() {
            None => return Ok(Lookup::Miss),
            Some(slot) => {
                let node = &mut shard.nodes[slot];
                if node.entry.is_kept(now) {
                    node.hits = (node.hits + 1).min(3);
                    return Ok(Lookup::Hit(node.entry.clone()));
                }
                expired = shard.remove(slot);
            }
        }
        drop(shard);
        drop(expired);
        Ok(Lookup::Miss)
    }

    async fn get(&self, key: &Key, now: u64) -> Result<Option<Entry<V>>> {
        Ok(match self.get_now(key, now)? {
            Lookup::Hit(entry) => Some(entry),
            Lookup::Miss | Lookup::Ask => None,
        })
    }

    async fn put(&self, key: &Key, entry: &Entry<V>, now: u64) -> Result<bool> {
        let cost = entry
            .value
            .weight()
            .saturating_add(OVERHEAD_BYTES + entry.tags.len() * TAG_BYTES);
        let mut gone = Vec::new();
        let mut shard = lock(self.shard(key));
        if let Some(slot) = shard.slots.get(key).copied() {
            gone.extend(shard.remove(slot));
        }
        if !entry.is_kept(now) || cost > shard.max_bytes || shard.max_entries == 0 {
            return Ok(false);
        }
        let replaced = gone.len();
        shard.make_room(cost, &mut gone);
        shard.insert(key, entry.clone(), cost);
        drop(shard);
        self.evictions
            .fetch_add((gone.len() - replaced) as u64, Ordering::Relaxed);
        Ok(true)
    }

    async fn remove(&self, what: &Selector) -> Result<u64> {
        let mut gone = Vec::new();
        match what {
            Selector::Key(key) => {
                let mut shard = lock(self.shard(key));
                if let Some(slot) = shard.slots.get(key).copied() {
                    gone.extend(shard.remove(slot));
                }
            }
            Selector::Tag(tag) => {
                for shard in &self.shards {
                    let mut shard = lock(shard);
                    let slots = shard.tags.remove(tag).unwrap_or_default();
                    gone.extend(slots.into_iter().filter_map(|slot| shard.remove(slot)));
                }
            }
            Selector::All => {
                for shard in &self.shards {
                    let mut shard = lock(shard);
                    let empty = Shard::new(shard.max_entries, shard.max_bytes);
                    let full = std::mem::replace(&mut *shard, empty);
                    drop(shard);
                    gone.extend(
                        full.slots
                            .into_values()
                            .map(|slot| full.nodes[slot].entry.clone()),
                    );
                }
            }
        }
        Ok(gone.len() as u64)
    }

    fn status(&self) -> StoreStatus {
        let (mut entries, mut bytes) = (0, 0);
        for shard in &self.shards {
            let shard = lock(shard);
            entries += shard.slots.len() as u64;
            bytes += (shard.small.bytes + shard.main.bytes) as u64;
        }
        StoreStatus {
            entries: Some(entries),
            bytes: Some(bytes),
            evictions: self.evictions.load(Ordering::Relaxed),
            ..StoreStatus::new("memory")
        }
    }
}

impl<V> fmt::Debug for MemoryStore<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

/// No slot: the end of a queue.
const NONE: usize = usize::MAX;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Small,
    Main,
}

struct Node<V> {
    key: Key,
    entry: Entry<V>,
    cost: usize,
    hits: u8,
    place: Place,
    newer: usize,
    older: usize,
}

/// A queue through the nodes.
struct Queue {
    newest: usize,
    oldest: usize,
    len: usize,
    bytes: usize,
}

impl Queue {
    const EMPTY: Self = Self {
        newest: NONE,
        oldest: NONE,
        len: 0,
        bytes: 0,
    };
}

struct Shard<V> {
    max_entries: usize,
    max_bytes: usize,
    slots: DigestMap<Key, usize>,
    nodes: Slots<Node<V>>,
    small: Queue,
    main: Queue,
    /// The keys that left the small queue lately; in both or in neither.
    ghosts: HashSet<u64, DigestHasher>,
    ghost_order: VecDeque<u64>,
    tags: DigestMap<Tag, HashSet<usize>>,
}

impl<V> Shard<V> {
    fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            max_entries,
            max_bytes,
            slots: DigestMap::default(),
            nodes: Slots::default(),
            small: Queue::EMPTY,
            main: Queue::EMPTY,
            ghosts: HashSet::default(),
            ghost_order: VecDeque::new(),
            tags: DigestMap::default(),
        }
    }

    fn insert(&mut self, key: &Key, entry: Entry<V>, cost: usize) {
        let place = if self.ghosts.contains(&key.head()) {
            Place::Main
        } else {
            Place::Small
        };
        let tags = entry.tags.clone();
        let slot = self.nodes.insert(Node {
            key: *key,
            entry,
            cost,
            hits: 0,
            place,
            newer: NONE,
            older: NONE,
        });
        self.slots.insert(*key, slot);
        for tag in tags.iter() {
            self.tags.entry(*tag).or_default().insert(slot);
        }
        self.push(slot, place);
    }

    /// Evicts until an entry of this cost fits.
    fn make_room(&mut self, cost: usize, gone: &mut Vec<Entry<V>>) {
        while self.slots.len() >= self.max_entries
            || self.small.bytes + self.main.bytes + cost > self.max_bytes
        {
            let small_is_full = self.small.len * 10 >= self.max_entries.max(10)
                || self.small.bytes.saturating_mul(10) >= self.max_bytes;
            let from_small = self.small.len > 0 && (small_is_full || self.main.len == 0);
            let slot = if from_small {
                self.small.oldest
            } else {
                self.main.oldest
            };
            if slot == NONE {
                return;
            }
            let hits = self.nodes[slot].hits;
            match (from_small, hits) {
                // Asked for twice in its short time: to stay. Its count begins anew.
                (true, 2..) => {
                    self.unlink(slot);
                    self.nodes[slot].hits = 0;
                    self.push(slot, Place::Main);
                }
                (false, 1..) => {
                    self.unlink(slot);
                    self.nodes[slot].hits = hits - 1;
                    self.push(slot, Place::Main);
                }
                (true, _) => {
                    self.remember_ghost(self.nodes[slot].key.head());
                    gone.extend(self.remove(slot));
                }
                (false, _) => gone.extend(self.remove(slot)),
            }
        }
    }

    fn remember_ghost(&mut self, key: u64) {
        if !self.ghosts.insert(key) {
            return;
        }
        self.ghost_order.push_back(key);
        while self.ghost_order.len() > self.max_entries {
            if let Some(oldest) = self.ghost_order.pop_front() {
                self.ghosts.remove(&oldest);
            }
        }
    }

    fn remove(&mut self, slot: usize) -> Option<Entry<V>> {
        if !self.nodes.contains(slot) {
            return None;
        }
        self.unlink(slot);
        let node = self.nodes.remove(slot)?;
        self.slots.remove(&node.key);
        for tag in node.entry.tags.iter() {
            if let Some(slots) = self.tags.get_mut(tag) {
                slots.remove(&slot);
                if slots.is_empty() {
                    self.tags.remove(tag);
                }
            }
        }
        Some(node.entry)
    }

    fn queue(&mut self, place: Place) -> &mut Queue {
        match place {
            Place::Small => &mut self.small,
            Place::Main => &mut self.main,
        }
    }

    fn push(&mut self, slot: usize, place: Place) {
        let cost = self.nodes[slot].cost;
        let queue = self.queue(place);
        let second = queue.newest;
        queue.newest = slot;
        if queue.oldest == NONE {
            queue.oldest = slot;
        }
        queue.len += 1;
        queue.bytes += cost;
        let node = &mut self.nodes[slot];
        node.place = place;
        node.newer = NONE;
        node.older = second;
        if second != NONE {
            self.nodes[second].newer = slot;
        }
    }

    fn unlink(&mut self, slot: usize) {
        let Node {
            cost,
            place,
            newer,
            older,
            ..
        } = self.nodes[slot];
        if newer != NONE {
            self.nodes[newer].older = older;
        }
        if older != NONE {
            self.nodes[older].newer = newer;
        }
        let queue = self.queue(place);
        if queue.newest == slot {
            queue.newest = older;
        }
        if queue.oldest == slot {
            queue.oldest = newer;
        }
        queue.len -= 1;
        queue.bytes -= cost;
    }
}

/// Nodes in a vector, with the free places used again.
struct Slots<T> {
    items: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    fn insert(&mut self, item: T) -> usize {
        match self.free.pop() {
            Some(slot) => {
                self.items[slot] = Some(item);
                slot
            }
            None => {
                self.items.push(Some(item));
                self.items.len() - 1
            }
        }
    }

    fn remove(&mut self, slot: usize) -> Option<T> {
        let item = self.items.get_mut(slot)?.take();
        if item.is_some() {
            self.free.push(slot);
        }
        item
    }

    fn contains(&self, slot: usize) -> bool {
        matches!(self.items.get(slot), Some(Some(_)))
    }
}

impl<T> std::ops::Index<usize> for Slots<T> {
    type Output = T;
    fn index(&self, slot: usize) -> &T {
        self.items[slot].as_ref().expect("a linked slot holds a node")
    }
}

impl<T> std::ops::IndexMut<usize> for Slots<T> {
    fn index_mut(&mut self, slot: usize) -> &mut T {
        self.items[slot].as_mut().expect("a linked slot holds a node")
    }
}

const fn prev_power_of_two(number: usize) -> usize {
    1 << (usize::BITS - 1 - number.leading_zeros())
}
