//! What was removed lately: an answer that was begun before a removal that means it may not be stored after it.
//!
//! Removals are numbered. Whoever begins something notes the number of the next one, or of the oldest that still runs,
//! and asks before and after it stores whether one with that number or a later one means its entry. Only so many are kept; for
//! whoever began before those, every removal counts as one of everything, which costs an entry and never brings one back.

use std::collections::{BTreeSet, VecDeque};

use crate::sync::{Mutex, lock};
use crate::{Key, Selector, Tag};

/// How many removals are kept.
const KEPT: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct Removals(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// The latest ones, the last of which has the number before `next`.
    recent: VecDeque<Selector>,
    running: BTreeSet<u64>,
}

/// A removal that runs, until this is dropped.
#[derive(Debug)]
pub(crate) struct Removing<'a> {
    removals: &'a Removals,
    number: u64,
}

impl Removals {
    /// From when on removals concern what begins now.
    pub(crate) fn now(&self) -> u64 {
        let state = lock(&self.0);
        state.running.first().copied().unwrap_or(state.next)
    }

    pub(crate) fn begin(&self, what: &Selector) -> Removing<'_> {
        let mut state = lock(&self.0);
        let number = state.next;
        state.next += 1;
        state.running.insert(number);
        state.recent.push_back(*what);
        if state.recent.len() > KEPT {
            state.recent.pop_front();
        }
        Removing {
            removals: self,
            number,
        }
    }

    /// Whether an entry may have been meant by a removal since then.
    pub(crate) fn meant(&self, since: u64, key: &Key, tags: &[Tag]) -> bool {
        let state = lock(&self.0);
        let count = usize::try_from(state.next - since).unwrap_or(usize::MAX);
        let mut latest = state.recent.iter().rev().take(count);
        count > state.recent.len() || latest.any(|what| what.means(key, tags))
    }
}

impl Drop for Removing<'_> {
    fn drop(&mut self) {
        lock(&self.removals.0).running.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_and_began_before_or_meanwhile_is_kept_out() {
        let removals = Removals::default();
        let key = |byte| Key::from_digest([byte; 32]);
        let (docs, other) = (Tag::label("docs"), Tag::label("other"));
        let before = removals.now();
        assert!(!removals.meant(before, &key(1), &[docs]));
        let running = removals.begin(&Selector::Tag(docs));
        assert!(removals.meant(before, &key(1), &[other, docs]));
        assert!(!removals.meant(before, &key(1), &[other]));
        let meanwhile = removals.now();
        assert!(removals.meant(meanwhile, &key(1), &[docs]), "it still runs");
        drop(running);
        assert!(removals.meant(meanwhile, &key(1), &[docs]), "it ran then");
        assert!(!removals.meant(removals.now(), &key(1), &[docs]));
        for _ in 0..KEPT {
            drop(removals.begin(&Selector::Key(key(2))));
        }
        assert!(
            removals.meant(before, &key(1), &[]),
            "what is not known any more counts as everything"
        );
        let late = removals.now();
        drop(removals.begin(&Selector::Key(key(2))));
        assert!(removals.meant(late, &key(2), &[]) && !removals.meant(late, &key(1), &[]));
    }
}
