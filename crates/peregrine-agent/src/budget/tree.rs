//! The nodes of one tree and those who wait in it: everything that happens under the lock.
//!
//! Nodes live in a slab. A node goes when its last handle and its last child are gone; reservations and waiters hold a
//! handle. Freeing walks up in a loop, so that a deep tree needs no deep stack.
//!
//! Waiting: whoever is refused as busy waits in the queue of the first meter (from the leaf up) that refused. A queue is
//! looked at when something changes there: a call in flight settles or goes, a limit is raised, a waiter leaves. Its
//! first waiter is judged again; if it still has to wait for the same meter, all behind it have to as well. So an event
//! costs one judgement for each meter up the tree, and one for each waiter that moves on. A meter with a queue has
//! something in flight (else its first waiter would have been let in or refused), so there will be such an event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::{Cost, Monotonic, NanoUsd};
use tokio::sync::Notify;

use super::meter::{Ask, Asks, Meter, Room};
use super::{
    Amounts, BudgetLimits, BudgetStatus, Estimate, LimitReached, Overshoot, Refusal, Resource, Settlement,
    Spent, known,
};

pub(super) type NodeId = usize;

/// Whom to wake once the lock is released.
type Wake = Vec<Arc<Notify>>;

#[derive(Default)]
pub(super) struct State {
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    waiters: BTreeMap<u64, Waiter>,
    next_ticket: u64,
}

#[derive(Default)]
struct Node {
    name: Option<Arc<str>>,
    parent: Option<NodeId>,
    tokens: Meter,
    cost: Meter,
    tool_calls: Meter,
    wall_time: Option<Duration>,
    started: Option<Monotonic>,
    in_flight: u64,
    unpriced_calls: u64,
    children: usize,
    has_handle: bool,
}

struct Waiter {
    leaf: NodeId,
    estimate: Estimate,
    notify: Arc<Notify>,
    stage: Stage,
}

enum Stage {
    WaitsAt(Place),
    Granted,
    Refused(LimitReached),
}

/// The queue of one meter.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(NodeId, Queue);

/// Tool calls have none: nobody waits for them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queue {
    Tokens,
    Cost,
}

enum Verdict {
    Admit,
    Wait(Place),
    Refuse(LimitReached),
}

impl State {
    pub(super) fn add(&mut self, name: Arc<str>, parent: Option<NodeId>, limits: BudgetLimits) -> NodeId {
        let BudgetLimits {
            tokens,
            cost,
            tool_calls,
            wall_time,
        } = limits;
        if let Some(parent) = parent {
            self.nodes[parent].children += 1;
        }
        let node = Node {
            name: Some(name),
            parent,
            tokens: Meter::new(tokens),
            cost: Meter::new(cost.map(|cost| cost.0)),
            tool_calls: Meter::new(tool_calls),
            wall_time,
            has_handle: true,
            ..Node::default()
        };
        if let Some(id) = self.free.pop() {
            self.nodes[id] = node;
            id
        } else {
            self.nodes.push(node);
            self.nodes.len() - 1
        }
    }

    pub(super) fn remove_handle(&mut self, node: NodeId) {
        self.nodes[node].has_handle = false;
        let mut next = Some(node);
        while let Some(id) = next {
            let node = &mut self.nodes[id];
            if node.has_handle || node.children > 0 {
                return;
            }
            next = node.parent;
            *node = Node::default();
            self.free.push(id);
            if let Some(parent) = next {
                self.nodes[parent].children -= 1;
            }
        }
    }

    pub(super) fn is_within(&self, node: NodeId, other: NodeId) -> bool {
        std::iter::successors(Some(node), |id| self.nodes[*id].parent).any(|id| id == other)
    }

    pub(super) fn try_admit(&mut self, leaf: NodeId, estimate: &Estimate) -> Result<(), Refusal> {
        let asks = Asks::from(estimate);
        match self.judge(leaf, &asks, None) {
            Verdict::Admit => {
                self.hold(leaf, &asks);
                Ok(())
            }
            Verdict::Wait(_) => Err(Refusal::Busy),
            Verdict::Refuse(limit) => Err(Refusal::Exhausted(limit)),
        }
    }

    /// Lets a call in that asks for nothing, without a look at limits.
    pub(super) fn admit(&mut self, leaf: NodeId, estimate: &Estimate) {
        self.hold(leaf, &Asks::from(estimate));
    }

    /// Lets a call in, or puts its caller into a queue.
    pub(super) fn admit_or_enqueue(
        &mut self,
        leaf: NodeId,
        estimate: &Estimate,
    ) -> Result<Option<(u64, Arc<Notify>)>, LimitReached> {
        let asks = Asks::from(estimate);
        let place = match self.judge(leaf, &asks, None) {
            Verdict::Admit => {
                self.hold(leaf, &asks);
                return Ok(None);
            }
            Verdict::Refuse(limit) => return Err(limit),
            Verdict::Wait(place) => place,
        };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.queue_mut(place).insert(ticket);
        let notify = Arc::new(Notify::new());
        let waiter = Waiter {
            leaf,
            estimate: *estimate,
            notify: notify.clone(),
            stage: Stage::WaitsAt(place),
        };
        self.waiters.insert(ticket, waiter);
        Ok(Some((ticket, notify)))
    }

    /// What became of a waiter, if it is decided. It is forgotten then.
    pub(super) fn answer(&mut self, ticket: u64) -> Option<Result<(), LimitReached>> {
        if let Stage::WaitsAt(_) = self.waiters.get(&ticket)?.stage {
            return None;
        }
        match self.waiters.remove(&ticket)?.stage {
            Stage::Refused(limit) => Some(Err(limit)),
            Stage::Granted | Stage::WaitsAt(_) => Some(Ok(())),
        }
    }

    /// A waiter gives up: its place, or what it was granted.
    pub(super) fn leave(&mut self, ticket: u64) -> Wake {
        let Some(Waiter {
            leaf,
            estimate,
            stage,
            ..
        }) = self.waiters.remove(&ticket)
        else {
            return Wake::new();
        };
        let mut wake = Wake::new();
        match stage {
            Stage::WaitsAt(place) => {
                self.queue_mut(place).remove(&ticket);
                self.serve(place, &mut wake);
            }
            Stage::Granted => wake = self.release(leaf, &estimate),
            Stage::Refused(_) => {}
        }
        wake
    }

    pub(super) fn release(&mut self, leaf: NodeId, estimate: &Estimate) -> Wake {
        let asks = Asks::from(estimate);
        let mut next = Some(leaf);
        while let Some(id) = next {
            let node = &mut self.nodes[id];
            node.in_flight -= 1;
            node.tokens.release(asks.tokens);
            node.tool_calls.release(asks.tool_calls);
            if let Some(cost) = asks.cost {
                node.cost.release(cost);
            }
            next = node.parent;
        }
        self.serve_chain(leaf)
    }

    #[cfg(feature = "checkpoints")]
    pub(super) fn carry(&mut self, node: NodeId, spent: Spent) {
        let node = &mut self.nodes[node];
        node.tokens.spend(spent.tokens);
        node.cost.spend(known(spent.cost));
        node.tool_calls.spend(spent.tool_calls);
    }

    pub(super) fn settle(&mut self, leaf: NodeId, estimate: &Estimate, spent: Spent) -> (Settlement, Wake) {
        let asks = Asks::from(estimate);
        let Spent {
            tokens,
            cost,
            tool_calls,
        } = spent;
        let unpriced = cost == Cost::Unpriced;
        let money = match (cost, asks.cost) {
            (Cost::Unpriced, Some(ask)) => ask.worst(),
            _ => known(cost),
        };
        let mut settlement = Settlement {
            overshoot: Vec::new(),
            charged_unpriced: unpriced.then_some(NanoUsd(money)),
        };
        let mut next = Some(leaf);
        while let Some(id) = next {
            let node = &mut self.nodes[id];
            node.in_flight -= 1;
            node.unpriced_calls = node.unpriced_calls.saturating_add(u64::from(unpriced));
            let lines = [
                (&mut node.tokens, Resource::Tokens, Some(asks.tokens), tokens),
                (&mut node.cost, Resource::Cost, asks.cost, money),
                (
                    &mut node.tool_calls,
                    Resource::ToolCalls,
                    Some(asks.tool_calls),
                    tool_calls,
                ),
            ];
            for (meter, resource, ask, amount) in lines {
                if let Some(ask) = ask {
                    meter.release(ask);
                }
                meter.spend(amount);
                if let (Some(limit), true, true) = (meter.limit, amount > 0, meter.overshoot() > 0) {
                    settlement.overshoot.push(Overshoot {
                        resource,
                        limit,
                        used: meter.used,
                        budget: name_of(node.name.as_ref()),
                    });
                }
            }
            next = node.parent;
        }
        (settlement, self.serve_chain(leaf))
    }

    pub(super) fn top_up(&mut self, id: NodeId, extra: &BudgetLimits) -> Wake {
        let BudgetLimits {
            tokens,
            cost,
            tool_calls,
            wall_time,
        } = *extra;
        let node = &mut self.nodes[id];
        node.tokens.raise(tokens);
        node.cost.raise(cost.map(|cost| cost.0));
        node.tool_calls.raise(tool_calls);
        if let (Some(limit), Some(extra)) = (&mut node.wall_time, wall_time) {
            *limit = limit.saturating_add(extra);
        }
        let mut wake = Wake::new();
        self.serve(Place(id, Queue::Tokens), &mut wake);
        self.serve(Place(id, Queue::Cost), &mut wake);
        wake
    }

    pub(super) fn start(&mut self, leaf: NodeId, now: Monotonic) {
        let mut next = Some(leaf);
        while let Some(id) = next {
            self.nodes[id].started.get_or_insert(now);
            next = self.nodes[id].parent;
        }
    }

    pub(super) fn remaining_time(&self, leaf: NodeId, now: Monotonic) -> Option<(Duration, LimitReached)> {
        let (_, limit, taken, node) = self
            .chain(leaf)
            .filter_map(|node| {
                let (limit, started) = (node.wall_time?, node.started?);
                Some((started + limit, limit, now.since(started), node))
            })
            .min_by_key(|(deadline, ..)| *deadline)?;
        let reached = LimitReached {
            resource: Resource::WallTime,
            limit: millis(limit),
            used: millis(taken.max(limit)),
            asked: 0,
            budget: name_of(node.name.as_ref()),
        };
        Some((limit.saturating_sub(taken), reached))
    }

    pub(super) fn name(&self, id: NodeId) -> Arc<str> {
        self.nodes[id].name.clone().unwrap_or_default()
    }

    pub(super) fn status(&self, id: NodeId) -> BudgetStatus {
        let node = &self.nodes[id];
        let amounts = |of: fn(&Meter) -> u64| Amounts {
            tokens: of(&node.tokens),
            cost: NanoUsd(of(&node.cost)),
            tool_calls: of(&node.tool_calls),
        };
        BudgetStatus {
            name: self.name(id),
            limits: BudgetLimits {
                tokens: node.tokens.limit,
                cost: node.cost.limit.map(NanoUsd),
                tool_calls: node.tool_calls.limit,
                wall_time: node.wall_time,
            },
            spent: amounts(|meter| meter.used),
            reserved: amounts(Meter::reserved),
            overshoot: amounts(Meter::overshoot),
            in_flight: node.in_flight,
            unpriced_calls: node.unpriced_calls,
        }
    }

    fn chain(&self, leaf: NodeId) -> impl Iterator<Item = &Node> {
        std::iter::successors(Some(&self.nodes[leaf]), |node| {
            node.parent.map(|id| &self.nodes[id])
        })
    }

    fn hold(&mut self, leaf: NodeId, asks: &Asks) {
        let mut next = Some(leaf);
        while let Some(id) = next {
            let node = &mut self.nodes[id];
            node.in_flight += 1;
            node.tokens.hold(asks.tokens);
            node.tool_calls.hold(asks.tool_calls);
            if let Some(cost) = asks.cost {
                node.cost.hold(cost);
            }
            next = node.parent;
        }
    }

    /// Asks all nodes from the leaf to the root, and changes none. A limit that waiting does not help with goes before
    /// one that it may help with.
    fn judge(&self, leaf: NodeId, asks: &Asks, ticket: Option<u64>) -> Verdict {
        let mut waits_at = None;
        let mut next = Some(leaf);
        while let Some(id) = next {
            let node = &self.nodes[id];
            next = node.parent;
            if node.tool_calls.exact_room(asks.tool_calls) == Room::Exhausted {
                let used = node.tool_calls.committed();
                return node.refuse(Resource::ToolCalls, &node.tool_calls, used, asks.tool_calls);
            }
            match node.tokens.room(asks.tokens, ticket) {
                Room::Fits => {}
                Room::Busy => waits_at = waits_at.or(Some(Place(id, Queue::Tokens))),
                Room::Exhausted => {
                    return node.refuse(Resource::Tokens, &node.tokens, node.tokens.used, asks.tokens);
                }
            }
            let Some(cost) = asks.cost else {
                if let Some(limit) = node.cost.limit {
                    let name = name_of(node.name.as_ref());
                    return Verdict::Refuse(LimitReached::new(
                        Resource::UnknownPrice,
                        limit,
                        node.cost.used,
                        0,
                        name,
                    ));
                }
                continue;
            };
            match node.cost.room(cost, ticket) {
                Room::Fits => {}
                Room::Busy => waits_at = waits_at.or(Some(Place(id, Queue::Cost))),
                Room::Exhausted => return node.refuse(Resource::Cost, &node.cost, node.cost.used, cost),
            }
        }
        waits_at.map_or(Verdict::Admit, Verdict::Wait)
    }

    fn serve_chain(&mut self, leaf: NodeId) -> Wake {
        let mut wake = Wake::new();
        if self.waiters.is_empty() {
            return wake;
        }
        let mut next = Some(leaf);
        while let Some(id) = next {
            self.serve(Place(id, Queue::Tokens), &mut wake);
            self.serve(Place(id, Queue::Cost), &mut wake);
            next = self.nodes[id].parent;
        }
        wake
    }

    /// Judges the first waiters of a queue again, until one has to stay.
    fn serve(&mut self, place: Place, wake: &mut Wake) {
        while let Some(ticket) = self.queue_mut(place).first().copied() {
            let Some(waiter) = self.waiters.get(&ticket) else {
                self.queue_mut(place).remove(&ticket);
                continue;
            };
            let (leaf, asks) = (waiter.leaf, Asks::from(&waiter.estimate));
            let stage = match self.judge(leaf, &asks, Some(ticket)) {
                Verdict::Wait(other) if other == place => return,
                Verdict::Wait(other) => {
                    self.queue_mut(other).insert(ticket);
                    Stage::WaitsAt(other)
                }
                Verdict::Admit => {
                    self.hold(leaf, &asks);
                    Stage::Granted
                }
                Verdict::Refuse(limit) => Stage::Refused(limit),
            };
            self.queue_mut(place).remove(&ticket);
            if let Some(waiter) = self.waiters.get_mut(&ticket) {
                if !matches!(stage, Stage::WaitsAt(_)) {
                    wake.push(waiter.notify.clone());
                }
                waiter.stage = stage;
            }
        }
    }

    fn queue_mut(&mut self, Place(id, queue): Place) -> &mut BTreeSet<u64> {
        let node = &mut self.nodes[id];
        match queue {
            Queue::Tokens => &mut node.tokens.queue,
            Queue::Cost => &mut node.cost.queue,
        }
    }
}

impl Node {
    fn refuse(&self, resource: Resource, meter: &Meter, used: u64, ask: Ask) -> Verdict {
        Verdict::Refuse(LimitReached {
            resource,
            limit: meter.limit.unwrap_or(u64::MAX),
            used,
            asked: ask.estimate,
            budget: name_of(self.name.as_ref()),
        })
    }
}

fn name_of(name: Option<&Arc<str>>) -> String {
    name.map(ToString::to_string).unwrap_or_default()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
