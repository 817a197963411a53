//! A node, and what changes the tree: making one, raising one, dropping one.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::Waker;

use super::flag::Flag;
use super::links::Links;
use super::listeners::{Listener, Place, tell};
use super::{Mode, Reasons};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

use super::links::Id;

/// What the nodes of a tree carry.
pub(crate) trait Family: Sized + 'static {
    type Reason: Clone;
    /// One for the whole tree.
    type Shared;
    /// One for each node.
    type Data;

    /// Whether a node with this binds its descendants, who therefore keep it.
    fn binds(data: &Self::Data) -> bool;
}

pub(crate) struct Node<F: Family> {
    flag: Flag<F::Reason>,
    id: Id,
    tree: Arc<Tree<F>>,
    /// The nearest ancestor that binds this node.
    above: Option<Arc<Self>>,
    data: F::Data,
}

struct Tree<F: Family> {
    links: Mutex<Links<Node<F>>>,
    next_id: AtomicU64,
    shared: F::Shared,
}

impl<F: Family> Node<F> {
    /// The first node of a new tree.
    pub(crate) fn root(shared: F::Shared, data: F::Data) -> Arc<Self> {
        let tree = Arc::new(Tree {
            links: Mutex::new(Links::new()),
            next_id: AtomicU64::new(1),
            shared,
        });
        let root = Self::new(tree, None, data);
        lock(&root.tree.links).insert(root.id, None, Arc::downgrade(&root));
        root
    }

    /// A new node below this one, raised as far as this one is.
    pub(crate) fn child(self: &Arc<Self>, data: F::Data) -> Arc<Self> {
        let above = if F::binds(&self.data) {
            Some(self)
        } else {
            self.above.as_ref()
        };
        let child = Self::new(self.tree.clone(), above.cloned(), data);
        let mut links = lock(&self.tree.links);
        child.flag.inherit(&self.flag);
        links.insert(child.id, Some(self.id), Arc::downgrade(&child));
        drop(links);
        child
    }

    fn new(tree: Arc<Tree<F>>, above: Option<Arc<Self>>, data: F::Data) -> Arc<Self> {
        // 2^64 nodes of one tree are not made in anyone's lifetime.
        let id = tree.next_id.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            flag: Flag::new(),
            id: NonZeroU64::new(id).unwrap_or(NonZeroU64::MIN),
            tree,
            above,
            data,
        })
    }

    /// Raises this node and all below it, and tells those who wait. Returns whether this node was raised.
    pub(crate) fn raise(&self, mode: Mode, reason: &F::Reason) -> bool {
        if self.has_reached(mode) {
            return false;
        }
        let mut due: Vec<Listener> = Vec::new();
        // Dropping the last reference to a node takes the lock, so that has to wait too.
        let mut visited = Vec::new();
        {
            let links = lock(&self.tree.links);
            if !self.flag.raise(mode, reason, &mut due) {
                return false;
            }
            links.walk_below(self.id, |node| {
                let raised = node.flag.raise(mode, reason, &mut due);
                visited.push(node);
                raised
            });
        }
        tell(due);
        drop(visited);
        true
    }

    #[inline]
    pub(crate) fn mode(&self) -> Option<Mode> {
        self.flag.mode()
    }

    #[inline]
    pub(crate) fn has_reached(&self, mode: Mode) -> bool {
        self.flag.has_reached(mode)
    }

    pub(crate) fn reasons(&self) -> Option<Reasons<F::Reason>> {
        self.flag.reasons()
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    pub(crate) fn data(&self) -> &F::Data {
        &self.data
    }

    pub(crate) fn shared(&self) -> &F::Shared {
        &self.tree.shared
    }

    /// This node and its ancestors, as far as they bind it, nearest first.
    pub(crate) fn binding(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        let this = F::binds(&self.data).then_some(self);
        let above = std::iter::successors(self.above.as_ref(), |node| node.above.as_ref());
        this.into_iter().chain(above)
    }

    pub(crate) fn is_bound(&self) -> bool {
        self.above.is_some() || F::binds(&self.data)
    }

    /// How many nodes of the tree are alive.
    pub(crate) fn alive(&self) -> usize {
        lock(&self.tree.links).len()
    }

    pub(super) fn listen(&self, mode: Mode, wake_at: Mode, place: &mut Option<Place>, waker: &Waker) -> bool {
        self.flag.listen(mode, wake_at, place, waker)
    }

    /// Leaves a hook for `mode`; gives it back where that is reached already.
    pub(crate) fn hook(
        &self,
        mode: Mode,
        hook: Box<dyn FnOnce() + Send>,
    ) -> Result<Place, Box<dyn FnOnce() + Send>> {
        self.flag.hook(mode, hook)
    }

    /// Gives a place among the listeners back.
    pub(crate) fn forget(&self, place: Place) {
        self.flag.forget(place);
    }

    #[cfg(test)]
    #[allow(dead_code, reason = "the model tests count with it")]
    pub(crate) fn listeners(&self) -> usize {
        self.flag.listeners()
    }
}

impl<F: Family> Drop for Node<F> {
    fn drop(&mut self) {
        lock(&self.tree.links).remove(self.id);
        // Whoever waits for a node without keeping it learns that there is nothing left to wait for; hooks are dropped.
        let left = self.flag.close();
        let tasks = left.into_iter().filter(|left| matches!(left, Listener::Task(_)));
        tell(tasks.collect());
        // One after the other: a chain of a hundred thousand must not go by recursion.
        let mut above = self.above.take();
        while let Some(node) = above {
            above = Arc::into_inner(node).and_then(|mut node| node.above.take());
        }
    }
}
