//! Waiting for a node to be raised.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::node::{Family, Node};
use super::{Mode, Place};

/// A place among a node's listeners, given back on drop.
pub(crate) struct Wait<F: Family> {
    node: Arc<Node<F>>,
    mode: Mode,
    /// Woken at this already: something may have to be done on the way to `mode`.
    wake_at: Mode,
    place: Option<Place>,
}

impl<F: Family> Wait<F> {
    pub(crate) fn new(node: Arc<Node<F>>, mode: Mode, wake_at: Mode) -> Self {
        Self {
            node,
            mode,
            wake_at,
            place: None,
        }
    }

    pub(crate) fn node(&self) -> &Arc<Node<F>> {
        &self.node
    }

    pub(crate) fn is_over(&self) -> bool {
        self.node.has_reached(self.mode)
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Self::listen(&self.node, self.mode, self.wake_at, &mut self.place, cx)
    }

    /// The same for whoever does not keep the node, and gives the place back with [`Node::forget`].
    pub(crate) fn listen(
        node: &Node<F>,
        mode: Mode,
        wake_at: Mode,
        place: &mut Option<Place>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if node.listen(mode, wake_at, place, cx.waker()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl<F: Family> Drop for Wait<F> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.node.forget(place);
        }
    }
}
