//! Which record of which segment holds which key, and which keys have which tag.
//!
//! Invariant: a key stands under a tag exactly if its place says so. No file is touched here.

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;

use super::record::Head;
use crate::entry::is_kept;
use crate::key::{DigestHasher, DigestMap};
use crate::{Key, Selector, Survey, Tag};

/// Where a record stands.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) len: usize,
}

#[derive(Debug)]
struct Slot {
    place: Place,
    created: u64,
    keep_until: u64,
    tags: Box<[Tag]>,
    /// It was asked for since it was written: it outlives its segment.
    wanted: bool,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    slots: DigestMap<Key, Slot>,
    tags: DigestMap<Tag, HashSet<Key, DigestHasher>>,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The record of a key, which is then wanted. One past its time stays until its segment goes, or a removal means it: a
    /// record that is not known here could come back with a clock that is set back.
    pub(super) fn find(&mut self, key: &Key, now: u64) -> Option<Place> {
        let slot = self.slots.get_mut(key)?;
        if !is_kept(slot.created, slot.keep_until, now) {
            return None;
        }
        slot.wanted = true;
        Some(slot.place.clone())
    }

    /// Notes a record that was found, unless a newer one of the same key is known.
    pub(super) fn found(&mut self, head: &Head, place: Place) {
        let newer = self
            .slots
            .get(&head.key)
            .is_some_and(|slot| slot.created > head.created);
        if !newer {
            self.insert(head, place);
        }
    }

    /// Notes a record that was written. Gives back the one that it replaces.
    pub(super) fn insert(&mut self, head: &Head, place: Place) -> Option<Place> {
        let key = head.key;
        let old = self.remove(&key);
        for tag in &head.tags {
            self.tags.entry(*tag).or_default().insert(key);
        }
        let slot = Slot {
            place,
            created: head.created,
            keep_until: head.keep_until,
            tags: head.tags.clone().into_boxed_slice(),
            wanted: false,
        };
        self.slots.insert(key, slot);
        old
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Place> {
        let slot = self.slots.remove(key)?;
        for tag in &slot.tags {
            if let Some(keys) = self.tags.get_mut(tag) {
                keys.remove(key);
                if keys.is_empty() {
                    self.tags.remove(tag);
                }
            }
        }
        Some(slot.place)
    }

    /// Forgets a record, if the key still stands for it.
    pub(super) fn forget(&mut self, key: &Key, place: &Place) {
        if self.is_at(key, place.segment, place.offset) {
            self.remove(key);
        }
    }

    pub(super) fn is_at(&self, key: &Key, segment: u64, offset: u64) -> bool {
        self.slots
            .get(key)
            .is_some_and(|slot| (slot.place.segment, slot.place.offset) == (segment, offset))
    }

    /// Whether a record outlives its segment.
    pub(super) fn is_wanted(&self, key: &Key, now: u64) -> bool {
        self.slots
            .get(key)
            .is_some_and(|slot| slot.wanted && is_kept(slot.created, slot.keep_until, now))
    }

    /// The keys that a selector means.
    pub(super) fn keys(&self, what: &Selector) -> Vec<Key> {
        match what {
            Selector::Key(key) => self.slots.contains_key(key).then_some(*key).into_iter().collect(),
            Selector::Tag(tag) => self.tags.get(tag).into_iter().flatten().copied().collect(),
            Selector::All => self.slots.keys().copied().collect(),
        }
    }

    /// Whether an entry may be given out.
    pub(super) fn is_kept(&self, key: &Key, now: u64) -> bool {
        self.slots
            .get(key)
            .is_some_and(|slot| is_kept(slot.created, slot.keep_until, now))
    }

    pub(super) fn survey(&self, now: u64) -> Survey {
        let mut survey = Survey::default();
        for slot in self.slots.values() {
            if !is_kept(slot.created, slot.keep_until, now) {
                survey.expired += 1;
                continue;
            }
            survey.entries += 1;
            let created = Some(slot.created);
            survey.oldest = survey.oldest.map_or(created, |oldest| created.min(Some(oldest)));
            survey.newest = survey.newest.max(created);
        }
        survey
    }

    pub(super) fn place(&self, key: &Key) -> Option<&Place> {
        self.slots.get(key).map(|slot| &slot.place)
    }
}
