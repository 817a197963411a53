//! A node of the graph and the edges behind it.

use std::time::Duration;

/// No node.
pub(crate) const NONE: u32 = u32::MAX;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Step,
    /// Runs beside the steps, with places of its own.
    Check,
    /// Ends as soon as everything before it has; passes if all of that did.
    Join,
}

/// Why a node waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    /// It needs the other to pass.
    Requires,
    /// It needs the other to have ended, however.
    After,
}

/// A node, as it is added.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeSpec {
    pub(crate) kind: Kind,
    pub(crate) is_model_call: bool,
    /// How long it is thought to take, in microseconds; at least 1 for what takes any time.
    pub(crate) estimate: u64,
    /// The place in the plan; of two that are otherwise alike, the smaller one starts first and is blamed first.
    pub(crate) rank: u32,
}

/// An edge in the list of its source, to the next one there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) to: u32,
    pub(crate) edge: Edge,
    pub(crate) next: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Something before it has not ended.
    Pending,
    /// It may start when there is a place, and when its level has come.
    Ready,
    Running,
    /// For its next attempt.
    Waiting,
    Settled,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) priority: u64,
    pub(super) estimate: u64,
    pub(super) ready_at: Duration,
    /// How many nodes before it have not ended.
    pub(super) pending: u32,
    /// The first in the plan of those that it requires and that did not pass.
    pub(super) culprit: u32,
    /// The first of its links, the last that was added.
    pub(super) links: u32,
    pub(super) level: u32,
    pub(super) rank: u32,
    pub(super) kind: Kind,
    pub(super) state: State,
    pub(super) is_model_call: bool,
    pub(super) passed: bool,
}

impl Node {
    pub(super) fn new(spec: NodeSpec) -> Self {
        let NodeSpec {
            kind,
            is_model_call,
            estimate,
            rank,
        } = spec;
        Self {
            // Until the whole plan is known.
            priority: estimate,
            estimate,
            ready_at: Duration::ZERO,
            pending: 0,
            culprit: NONE,
            links: NONE,
            level: 0,
            rank,
            kind,
            state: State::Pending,
            is_model_call,
            passed: false,
        }
    }

    /// Whom to blame where this node, of this number, did not pass: a join only hands on what came before it.
    pub(super) fn blamed(&self, number: u32) -> u32 {
        match self.kind {
            Kind::Join => self.culprit,
            Kind::Step | Kind::Check => number,
        }
    }

    /// Which queue it waits in: steps or checks, and of those the ones that ask no model or do.
    pub(super) fn lane(&self) -> usize {
        let checks = if self.kind == Kind::Check { 2 } else { 0 };
        checks + usize::from(self.is_model_call)
    }

    pub(super) fn ready(&self, node: u32) -> Ready {
        Ready {
            priority: self.priority,
            earlier: (!self.rank, !node),
        }
    }
}

/// A node in a queue: the greatest starts first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ready {
    priority: u64,
    /// The place and the number, each turned round: the greater is the earlier one.
    earlier: (u32, u32),
}

impl Ready {
    pub(super) fn node(self) -> u32 {
        !self.earlier.1
    }
}
