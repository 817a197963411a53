//! The baselines: level by level, and one by one. Both are a number for each node, and a barrier between numbers.
//!
//! A node starts only when all nodes of smaller levels have ended. Level by level, a step's level is the length of the
//! longest way to it; one by one, each step has a level of its own. Dataflow has no levels.

use super::Kind;
use crate::Order;

#[derive(Debug)]
pub(super) struct Levels {
    order: Order,
    /// The smallest level in which something has not ended.
    current: usize,
    /// How many nodes of each level have not ended.
    open: Vec<u32>,
    /// Nodes that wait for nothing but their level.
    held: Vec<Vec<u32>>,
}

impl Levels {
    pub(super) fn new(order: Order) -> Self {
        Self {
            order,
            current: 0,
            open: Vec::new(),
            held: Vec::new(),
        }
    }

    /// The level of a new node, behind nodes of at most level `before`.
    pub(super) fn add(&mut self, kind: Kind, before: Option<u32>) -> u32 {
        let level = match (self.order, kind) {
            (Order::Dataflow, _) => return 0,
            (_, Kind::Check | Kind::Join) => before.unwrap_or(0),
            (Order::Levels, Kind::Step) => before.map_or(0, |level| level + 1),
            (Order::Sequential, Kind::Step) => {
                u32::try_from(self.open.len()).expect("plans have at most a million steps")
            }
        };
        let slot = level as usize;
        if self.open.len() <= slot {
            self.open.resize(slot + 1, 0);
            self.held.resize(slot + 1, Vec::new());
        }
        if self.counts(kind) {
            self.open[slot] += 1;
            // A step that comes late may belong to a level that was over.
            self.current = self.current.min(slot);
        }
        level
    }

    /// Level by level, checks run beside; one by one, they are part of their step.
    fn counts(&self, kind: Kind) -> bool {
        match self.order {
            Order::Dataflow => false,
            Order::Levels => kind == Kind::Step,
            Order::Sequential => kind != Kind::Join,
        }
    }

    /// Whether a node that could start has to wait for its level. It is kept then.
    pub(super) fn holds(&mut self, node: u32, level: u32) -> bool {
        let level = level as usize;
        if self.order == Order::Dataflow || level <= self.first_open() {
            return false;
        }
        self.held[level].push(node);
        true
    }

    /// Says that a node has ended; whether a level may have come.
    pub(super) fn settled(&mut self, kind: Kind, level: u32) -> bool {
        if !self.counts(kind) {
            return false;
        }
        self.open[level as usize] -= 1;
        self.open[level as usize] == 0
    }

    /// The next node whose level has come.
    pub(super) fn next_held(&mut self) -> Option<u32> {
        let first_open = self.first_open();
        loop {
            if let Some(node) = self.held.get_mut(self.current)?.pop() {
                return Some(node);
            }
            if self.current >= first_open {
                return None;
            }
            self.current += 1;
        }
    }

    /// The smallest level in which something has not ended, found from the one that was it.
    fn first_open(&self) -> usize {
        let above = self.open.get(self.current..).unwrap_or_default();
        self.current + above.iter().take_while(|open| **open == 0).count()
    }
}
