//! The tree by itself: nodes, their flags, who listens. It knows neither time nor reasons nor limits.
//!
//! Algorithm. A node's flag is one atomic level (nothing, graceful, immediate) that only ever rises. Raising a node
//! takes the tree's lock, raises the node and all that hang below it, lets go, and only then tells the listeners. A new
//! child takes its parent's level under the same lock. So a child's level is never below its parent's, a look at one
//! node is one load, and walks stop at nodes that are high enough already.
//!
//! A listener joins under the lock of its node's flag, after looking at the level again; the level is stored under that
//! lock too, so nobody misses it. Locks are taken in the order tree, then flag, and nothing foreign (wakers, hooks,
//! destructors) runs under either.
//!
//! What is alive is what somebody holds: the tree itself only has weak references. A node that goes leaves its children
//! to its parent. A node that carries limits is held by its descendants as well, since its limits bind them.
//!
//! Invariant: uses `crate::sync` and nothing else of this crate, so that the model tests can compile it with loom's
//! locks and atomics.

mod flag;
mod links;
mod listeners;
mod mode;
mod node;
mod wait;

pub(crate) use flag::Reasons;
pub(crate) use listeners::{Listened, Listener, Listeners, Place, tell};
pub use mode::Mode;
pub(crate) use node::{Family, Node};
pub(crate) use wait::Wait;
