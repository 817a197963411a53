//! Which node hangs below which, as data: a table of ids with sibling links.
//!
//! Ids are never used again, and the table shrinks, so it is bounded by what is alive. Every step but the adoption of
//! orphans takes constant time.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU64;
use std::sync::{Arc, Weak};

/// A table above this many places gives memory back when it is mostly empty.
const KEPT_PLACES: usize = 1024;

/// A node of one tree; counted from 1.
pub(crate) type Id = NonZeroU64;

pub(super) struct Links<N> {
    nodes: HashMap<Id, Link<N>, BuildHasherDefault<IdHasher>>,
}

struct Link<N> {
    node: Weak<N>,
    parent: Option<Id>,
    first: Option<Id>,
    before: Option<Id>,
    after: Option<Id>,
}

impl<N> Links<N> {
    pub(super) fn new() -> Self {
        Self {
            nodes: HashMap::default(),
        }
    }

    /// Hangs a new node below `parent`, or beside everything.
    pub(super) fn insert(&mut self, id: Id, parent: Option<Id>, node: Weak<N>) {
        let mut after = None;
        if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            after = parent.first.replace(id);
        }
        if let Some(after) = self.get(after) {
            after.before = Some(id);
        }
        let link = Link {
            node,
            parent,
            first: None,
            before: None,
            after,
        };
        self.nodes.insert(id, link);
    }

    /// Takes a node out; its children are its parent's from now on.
    pub(super) fn remove(&mut self, id: Id) {
        let Some(gone) = self.nodes.remove(&id) else {
            return;
        };
        let mut last = None;
        let mut child = gone.first;
        while let Some(link) = self.get(child) {
            link.parent = gone.parent;
            last = child;
            child = link.after;
        }
        match gone.parent {
            // Its children take its place among its siblings.
            Some(_) => {
                let first = gone.first.or(gone.after);
                match gone.before {
                    Some(_) => self.get(gone.before).map(|link| link.after = first),
                    None => self.get(gone.parent).map(|link| link.first = first),
                };
                if let Some(link) = self.get(gone.first) {
                    link.before = gone.before;
                }
                if let Some(link) = self.get(last) {
                    link.after = gone.after;
                }
                if let Some(link) = self.get(gone.after) {
                    link.before = last.or(gone.before);
                }
            }
            // They are siblings of nobody.
            None => {
                let mut child = gone.first;
                while let Some(link) = self.get(child) {
                    link.before = None;
                    child = link.after.take();
                }
            }
        }
        if self.nodes.capacity() > KEPT_PLACES && self.nodes.len() < self.nodes.capacity() / 8 {
            self.nodes.shrink_to(self.nodes.len() * 2);
        }
    }

    /// Calls `visit` with everything below `root`, parents first; what is below a node for which it returns false is
    /// left out. A node that is about to go is passed over, but what is below it is not.
    pub(super) fn walk_below(&self, root: Id, mut visit: impl FnMut(Arc<N>) -> bool) {
        let Some(link) = self.nodes.get(&root) else {
            return;
        };
        // The next sibling of a node on the way down is remembered instead of a whole path: as deep as the tree is wide.
        let mut left: Vec<Id> = link.first.into_iter().collect();
        while let Some(id) = left.pop() {
            let Some(link) = self.nodes.get(&id) else {
                continue;
            };
            left.extend(link.after);
            if link.node.upgrade().is_none_or(&mut visit) {
                left.extend(link.first);
            }
        }
    }

    fn get(&mut self, id: Option<Id>) -> Option<&mut Link<N>> {
        self.nodes.get_mut(&id?)
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}

/// Ids are small numbers in a row that we gave out ourselves, so one multiplication spreads them well enough
/// (Knuth, The Art of Computer Programming, volume 3, section 6.4: Fibonacci hashing).
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = (self.0 ^ id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn id(number: u64) -> Id {
        Id::new(number + 1).unwrap()
    }

    fn below(links: &Links<u64>, root: Id) -> Vec<u64> {
        let mut seen = Vec::new();
        links.walk_below(root, |node| {
            seen.push(*node);
            true
        });
        seen.sort_unstable();
        seen
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add { below: Option<usize> },
        Remove { nth: usize },
    }

    proptest! {
        #[test]
        fn walks_see_what_a_plain_map_of_parents_says(steps in prop::collection::vec(
            prop_oneof![
                3 => prop::option::weighted(0.9, 0_usize..100).prop_map(|below| Step::Add { below }),
                2 => (0_usize..100).prop_map(|nth| Step::Remove { nth }),
            ],
            0..80,
        )) {
            let mut links = Links::new();
            let mut nodes: BTreeMap<u64, Arc<u64>> = BTreeMap::new();
            let mut parents: BTreeMap<u64, Option<u64>> = BTreeMap::new();
            for (number, step) in (0_u64..).zip(steps) {
                let alive: Vec<u64> = parents.keys().copied().collect();
                let nth = |nth: usize| (!alive.is_empty()).then(|| alive[nth % alive.len()]);
                match step {
                    Step::Add { below } => {
                        let parent = below.and_then(nth);
                        let node = Arc::new(number);
                        links.insert(id(number), parent.map(id), Arc::downgrade(&node));
                        nodes.insert(number, node);
                        parents.insert(number, parent);
                    }
                    Step::Remove { nth: which } => {
                        let Some(gone) = nth(which) else { continue };
                        links.remove(id(gone));
                        nodes.remove(&gone);
                        let heir = parents.remove(&gone).flatten();
                        for parent in parents.values_mut().filter(|parent| **parent == Some(gone)) {
                            *parent = heir;
                        }
                    }
                }
                prop_assert_eq!(links.len(), parents.len());
                for root in parents.keys() {
                    let is_below = |mut node: u64| {
                        while let Some(parent) = parents[&node] {
                            if parent == *root {
                                return true;
                            }
                            node = parent;
                        }
                        false
                    };
                    let expected: Vec<u64> = parents.keys().copied().filter(|node| is_below(*node)).collect();
                    prop_assert_eq!(below(&links, id(*root)), expected);
                }
            }
        }
    }

    #[test]
    fn the_table_is_bounded_by_what_is_in_it() {
        let mut links = Links::new();
        let node = Arc::new(0);
        links.insert(id(0), None, Arc::downgrade(&node));
        for number in 1..100_000 {
            links.insert(id(number), Some(id(0)), Arc::downgrade(&node));
        }
        for number in 1..100_000 {
            links.remove(id(number));
        }
        assert_eq!(links.len(), 1);
        assert!(
            links.nodes.capacity() <= 2 * KEPT_PLACES,
            "{}",
            links.nodes.capacity()
        );
    }

    #[test]
    fn a_walk_passes_over_what_is_about_to_go_and_stops_where_it_is_told() {
        let mut links = Links::new();
        let nodes: Vec<Arc<u64>> = (0..4).map(Arc::new).collect();
        links.insert(id(0), None, Arc::downgrade(&nodes[0]));
        links.insert(id(1), Some(id(0)), Weak::new());
        links.insert(id(2), Some(id(1)), Arc::downgrade(&nodes[2]));
        links.insert(id(3), Some(id(2)), Arc::downgrade(&nodes[3]));
        assert_eq!(below(&links, id(0)), [2, 3]);
        let mut seen = Vec::new();
        links.walk_below(id(0), |node| {
            seen.push(*node);
            false
        });
        assert_eq!(seen, [2]);
    }
}
