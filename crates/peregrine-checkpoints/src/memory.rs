//! A store in memory: for tests, and for runs that need forks and replay but no survival.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use peregrine_core::{RunId, Scope, UnixTime};

use crate::error::{Error, Holder, Result};
use crate::history::Tail;
use crate::record::{Origin, PartId, RunKey};
use crate::store::{Acquire, Batch, Begin, Chunk, Intent, Lease, Range, RunInfo, RunWriter, Store, Stored};

/// Keeps runs in memory, without a bound of its own: remove or prune them. Clones share what they keep.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    runs: BTreeMap<RunKey, Run>,
    parts: HashMap<(Scope, PartId), (Bytes, usize)>,
}

#[derive(Default)]
struct Run {
    origin: Option<Origin>,
    /// By the number of their first record; never empty.
    segments: BTreeMap<u64, Segment>,
    token: u64,
    held_since: Option<UnixTime>,
    updated: u64,
    removed: bool,
    /// The forks, with what they share.
    pins: BTreeMap<RunId, u64>,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let runs = self.lock().runs.len();
        f.debug_struct("MemoryStore")
            .field("runs", &runs)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Segment {
    snapshot: bool,
    frames: Vec<u8>,
    records: u64,
    parts: BTreeSet<PartId>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing in here panics halfway through a change.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    fn first(&self) -> u64 {
        self.segments.keys().next().copied().unwrap_or(0)
    }

    fn next(&self) -> u64 {
        let last = self.segments.last_key_value();
        last.map_or(0, |(first, segment)| first + segment.records)
    }

    fn bytes(&self) -> u64 {
        self.segments
            .values()
            .map(|segment| segment.frames.len() as u64)
            .sum()
    }
}

impl Shared {
    fn found(&self, key: &RunKey, as_ancestor: bool) -> Result<&Run> {
        let run = self.runs.get(key).filter(|run| as_ancestor || !run.removed);
        run.ok_or(Error::NotFound { run: key.run })
    }

    fn put_part(&mut self, scope: &Scope, id: PartId, content: &Bytes) {
        let entry = self.parts.entry((scope.clone(), id));
        entry.or_insert_with(|| (content.clone(), 0)).1 += 1;
    }

    fn drop_parts(&mut self, scope: &Scope, segment: &Segment) {
        for id in &segment.parts {
            let name = (scope.clone(), *id);
            if let Some((_, uses)) = self.parts.get_mut(&name) {
                *uses -= 1;
                if *uses == 0 {
                    self.parts.remove(&name);
                }
            }
        }
    }

    /// Removes a run that nobody needs, then its origin if that was only kept for it, and so on.
    fn collect(&mut self, key: &RunKey) {
        let mut at = Some(key.clone());
        while let Some(key) = at.take() {
            if !self
                .runs
                .get(&key)
                .is_some_and(|run| run.removed && run.pins.is_empty())
            {
                return;
            }
            let Some(run) = self.runs.remove(&key) else { return };
            for segment in run.segments.values() {
                self.drop_parts(&key.scope, segment);
            }
            at = self.unpin(&key, run.origin);
        }
    }

    fn unpin(&mut self, key: &RunKey, origin: Option<Origin>) -> Option<RunKey> {
        let parent = key.sibling(origin?.run);
        self.runs.get_mut(&parent)?.pins.remove(&key.run);
        Some(parent)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn acquire(&self, key: &RunKey, how: Acquire) -> Result<Box<dyn RunWriter>> {
        let Acquire {
            intent,
            persist: _,
            takeover,
            at,
        } = how;
        let mut shared = self.lock();
        if let Intent::Create(origin) = intent {
            if shared.runs.contains_key(key) {
                return Err(Error::AlreadyExists { run: key.run });
            }
            if let Some(origin) = origin {
                let parent = shared.runs.get_mut(&key.sibling(origin.run));
                let parent = parent.ok_or(Error::NotFound { run: origin.run })?;
                parent.pins.insert(key.run, origin.at);
            }
            let first = origin.map_or(0, |origin| origin.at);
            let run = Run {
                origin,
                segments: BTreeMap::from([(first, Segment::default())]),
                updated: at.0,
                ..Run::default()
            };
            shared.runs.insert(key.clone(), run);
        }
        shared.found(key, false)?;
        let run = shared.runs.get_mut(key).ok_or(Error::NotFound { run: key.run })?;
        if run.held_since.is_some() && !takeover {
            return Err(Error::Leased {
                run: key.run,
                holder: run.held_since.map(|since| Box::new(holder(since))),
            });
        }
        run.token += 1;
        run.held_since = Some(at);
        Ok(Box::new(Writer {
            store: self.clone(),
            key: key.clone(),
            token: run.token,
        }))
    }

    async fn read(&self, key: &RunKey, range: &Range) -> Result<Stored> {
        let Range {
            from,
            upto,
            as_ancestor,
            max_bytes,
        } = *range;
        let shared = self.lock();
        let run = shared.found(key, as_ancestor)?;
        let upto = upto.unwrap_or(u64::MAX);
        let wanted = run
            .segments
            .iter()
            .filter(|(first, segment)| **first < upto && segment.records > 0);
        let begin = match from {
            Begin::Start => 0,
            Begin::LastSnapshot => {
                let snapshots = wanted.clone().filter(|(_, segment)| segment.snapshot);
                snapshots.map(|(first, _)| *first).next_back().unwrap_or(0)
            }
            Begin::Record(seq) => {
                let last = wanted.clone().next_back().map_or(0, |(first, _)| *first);
                seq.min(last)
            }
            Begin::Nothing => u64::MAX,
        };
        let wanted = wanted.filter(|(first, segment)| **first + segment.records > begin);
        let bytes: u64 = wanted
            .clone()
            .map(|(_, segment)| segment.frames.len() as u64)
            .sum();
        if bytes > max_bytes {
            return Err(Error::TooLarge {
                what: "a load",
                bytes,
                limit: max_bytes,
            });
        }
        let chunks = wanted.map(|(first, segment)| {
            Chunk::new(*first, segment.frames.clone(), "memory").with_snapshot(segment.snapshot)
        });
        Ok(Stored::new(run.origin, run.first(), chunks.collect()))
    }

    async fn part(&self, key: &RunKey, part: &PartId, max_bytes: u64) -> Result<Bytes> {
        let shared = self.lock();
        let found = shared.parts.get(&(key.scope.clone(), *part));
        let (content, _) = found.ok_or(Error::NotFound { run: key.run })?;
        if content.len() as u64 > max_bytes {
            return Err(Error::TooLarge {
                what: "a part",
                bytes: content.len() as u64,
                limit: max_bytes,
            });
        }
        Ok(content.clone())
    }

    async fn runs(&self, scope: &Scope, after: Option<RunId>, limit: usize) -> Result<Vec<RunInfo>> {
        let shared = self.lock();
        let found = shared.runs.iter().filter(|(key, run)| {
            key.scope == *scope && !run.removed && after.is_none_or(|after| key.run > after)
        });
        let infos = found.take(limit).map(|(key, run)| RunInfo {
            origin: run.origin,
            holder: run.held_since.map(holder),
            ..RunInfo::new(key.run, UnixTime(run.updated), run.bytes())
        });
        Ok(infos.collect())
    }

    async fn remove(&self, key: &RunKey) -> Result<()> {
        let mut shared = self.lock();
        shared.found(key, false)?;
        let run = shared.runs.get_mut(key).ok_or(Error::NotFound { run: key.run })?;
        if let Some(since) = run.held_since {
            return Err(Error::Leased {
                run: key.run,
                holder: Some(Box::new(holder(since))),
            });
        }
        run.removed = true;
        shared.collect(key);
        Ok(())
    }
}

fn holder(since: UnixTime) -> Holder {
    Holder {
        process: std::process::id(),
        host: "this process".to_owned(),
        since,
    }
}

#[derive(Debug)]
struct Writer {
    store: MemoryStore,
    key: RunKey,
    token: u64,
}

impl Writer {
    /// Does something to the run, if this writer still may.
    fn with<T>(&self, change: impl FnOnce(&mut Shared, &RunKey) -> T) -> Result<T> {
        let mut shared = self.store.lock();
        match shared.runs.get(&self.key) {
            Some(run) if run.token == self.token => Ok(change(&mut shared, &self.key)),
            _ => Err(Error::Fenced {
                run: self.key.run,
                token: self.token,
            }),
        }
    }
}

#[async_trait]
impl RunWriter for Writer {
    fn lease(&self) -> Lease {
        Lease { token: self.token }
    }

    async fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        let next = self.settle().await?;
        if batch.first != next {
            return Err(crate::store::out_of_order(batch.first, next));
        }
        self.with(|shared, key| {
            for (id, content) in batch.parts {
                let run = shared.runs.get_mut(key);
                let fresh = run.is_some_and(|run| {
                    if batch.begins_segment {
                        run.segments.entry(batch.first).or_default();
                    }
                    let last = run.segments.last_entry();
                    last.is_some_and(|mut last| last.get_mut().parts.insert(*id))
                });
                if fresh {
                    shared.put_part(&key.scope, *id, content);
                }
            }
            let Some(run) = shared.runs.get_mut(key) else {
                return;
            };
            if batch.begins_segment {
                run.segments.entry(batch.first).or_default().snapshot = true;
            }
            run.updated = batch.at.0;
            if let Some(mut last) = run.segments.last_entry() {
                let segment = last.get_mut();
                segment.frames.extend_from_slice(batch.frames);
                segment.records += batch.ends.len() as u64;
            }
        })
    }

    fn cut(&self) -> Option<Tail> {
        None
    }

    async fn settle(&mut self) -> Result<u64> {
        self.with(|shared, key| shared.runs.get(key).map_or(0, Run::next))
    }

    async fn trim(&mut self, before: u64) -> Result<u64> {
        self.with(|shared, key| {
            let Some(run) = shared.runs.get_mut(key) else {
                return 0;
            };
            let last_snapshot = run.segments.iter().filter(|(_, segment)| segment.snapshot);
            let last_snapshot = last_snapshot.map(|(first, _)| *first).next_back().unwrap_or(0);
            let first = run.first();
            // A fork that shares a record of the oldest segment needs all that comes before it.
            let needed = run.pins.values().any(|at| *at > first);
            let keep = before.min(last_snapshot);
            let mut dropped = Vec::new();
            while !needed && run.segments.keys().nth(1).is_some_and(|second| *second <= keep) {
                dropped.extend(run.segments.pop_first().map(|(_, segment)| segment));
            }
            let (first, origin) = (run.first(), run.origin);
            for segment in &dropped {
                shared.drop_parts(&key.scope, segment);
            }
            // Without its first records, the run no longer needs what it was forked from.
            if !dropped.is_empty()
                && let Some(parent) = shared.unpin(key, origin)
            {
                shared.collect(&parent);
            }
            first
        })
    }

    async fn release(self: Box<Self>) -> Result<()> {
        // Dropping does it.
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _fenced = self.with(|shared, key| {
            if let Some(run) = shared.runs.get_mut(key) {
                run.held_since = None;
            }
        });
    }
}
