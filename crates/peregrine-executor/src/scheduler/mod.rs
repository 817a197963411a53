//! Which node may start now: the heart of every plan, as data in and data out.
//!
//! A node waits until everything before it has ended, then for a place among those that run; of those that may start, the
//! one with the longest way to the end of the plan does (list scheduling by critical path: Graham, Bounds on
//! multiprocessing timing anomalies, 1969). Whoever runs the nodes says what ended and how; this says what starts or is
//! skipped by that. No clock, no tasks, no values.
//!
//! Invariants: nodes are added behind all that they wait for, so the order of their numbers is an order in which they
//! could run one by one. Nothing here is recursive, and every operation but [`release`](Scheduler::release) of a whole
//! plan takes O(log n) a node and an edge. What is decided depends on the order of the calls alone: a node with several
//! failures before it blames the first one in the order of the plan, whichever came first in time.

mod levels;
mod node;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use levels::Levels;
pub(crate) use node::{Edge, Kind, Link, NONE, NodeSpec};
use node::{Node, Ready, State};

use crate::Order;

/// How many may run at the same time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) steps: usize,
    pub(crate) model_calls: usize,
    pub(crate) checks: usize,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The node starts. To be told: [`settle`](Scheduler::settle) or [`retry`](Scheduler::retry).
    Start(u32),
    /// The node cannot start, because this one did not pass. To be told: [`settle`](Scheduler::settle).
    Skip { node: u32, culprit: u32 },
}

#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: Limits,
    nodes: Vec<Node>,
    links: Vec<Link>,
    /// By [`Node::lane`].
    ready: [BinaryHeap<Ready>; 4],
    doomed: VecDeque<u32>,
    waiting: BinaryHeap<Reverse<(Duration, u32)>>,
    levels: Levels,
    /// By [`Kind`]: steps and checks.
    running: [usize; 2],
    running_model_calls: usize,
    open: usize,
    released: usize,
    /// For settling without recursion; empty between calls.
    settling: Vec<(u32, bool)>,
}

impl Scheduler {
    pub(crate) fn new(limits: Limits, order: Order) -> Self {
        Self {
            limits,
            nodes: Vec::new(),
            links: Vec::new(),
            ready: Default::default(),
            doomed: VecDeque::new(),
            waiting: BinaryHeap::new(),
            levels: Levels::new(order),
            running: [0; 2],
            running_model_calls: 0,
            open: 0,
            released: 0,
            settling: Vec::new(),
        }
    }

    pub(crate) fn reserve(&mut self, nodes: usize, links: usize) {
        self.nodes.reserve(nodes);
        self.links.reserve(links);
    }

    /// Adds a node behind others. It cannot start before it is [released](Self::release).
    pub(crate) fn add(&mut self, spec: NodeSpec, before: impl IntoIterator<Item = (u32, Edge)>) -> u32 {
        let number = u32::try_from(self.nodes.len()).expect("plans have at most a million steps");
        self.nodes.push(Node::new(spec));
        let mut level = None;
        for (source, edge) in before {
            let link = u32::try_from(self.links.len()).expect("the edges of a plan are fewer than its bytes");
            let from = &mut self.nodes[source as usize];
            level = level.max(Some(from.level));
            let next = std::mem::replace(&mut from.links, link);
            self.links.push(Link {
                to: number,
                edge,
                next,
            });
            if from.state != State::Settled {
                self.nodes[number as usize].pending += 1;
            } else if edge == Edge::Requires && !from.passed {
                let culprit = from.blamed(source);
                self.blame(number, culprit);
            }
        }
        self.nodes[number as usize].level = self.levels.add(spec.kind, level);
        self.open += 1;
        number
    }

    /// Lets the nodes that were added since the last time start, once what they wait for has ended. With `whole`, all
    /// nodes are known: priorities are computed from the end of the plan.
    pub(crate) fn release(&mut self, whole: bool, now: Duration) {
        if whole {
            self.prioritise();
        }
        let first = std::mem::replace(&mut self.released, self.nodes.len());
        self.settle_collected(now);
        for number in (0..).take(self.nodes.len()).skip(first) {
            let node = &self.nodes[number as usize];
            if node.pending == 0 && node.state == State::Pending {
                self.inputs_ended(number, now);
            }
        }
        self.settle_collected(now);
    }

    /// What is to be done now, until there is nothing.
    pub(crate) fn next(&mut self) -> Option<Next> {
        while let Some(node) = self.doomed.pop_front() {
            let Node { state, culprit, .. } = self.nodes[node as usize];
            if state != State::Settled {
                return Some(Next::Skip { node, culprit });
            }
        }
        let mut best: Option<(usize, Ready)> = None;
        for lane in 0..self.ready.len() {
            if self.ready[lane].is_empty() || !self.has_place(lane) {
                continue;
            }
            let Some(top) = self.top_of(lane) else { continue };
            if best.is_none_or(|(_, known)| top > known) {
                best = Some((lane, top));
            }
        }
        let (lane, top) = best?;
        let node = top.node();
        self.ready[lane].pop();
        self.nodes[node as usize].state = State::Running;
        self.count(node, true);
        Some(Next::Start(node))
    }

    /// Says that a node has ended, whether it ran or not, and whether what requires it may start.
    pub(crate) fn settle(&mut self, node: u32, passed: bool, now: Duration) {
        self.settling.push((node, passed));
        self.settle_collected(now);
    }

    /// Says that a node that may start has been running since before; `false` if it may not.
    pub(crate) fn take_up(&mut self, node: u32) -> bool {
        let taken = &mut self.nodes[node as usize];
        if taken.state != State::Ready {
            return false;
        }
        taken.state = State::Running;
        self.count(node, true);
        true
    }

    /// Whether a node runs.
    pub(crate) fn is_running(&self, node: u32) -> bool {
        self.nodes[node as usize].state == State::Running
    }

    /// Says that a running node is to start again at a later time.
    pub(crate) fn retry(&mut self, node: u32, at: Duration) {
        self.count(node, false);
        self.nodes[node as usize].state = State::Waiting;
        self.waiting.push(Reverse((at, node)));
    }

    /// Lets those start again whose time has come.
    pub(crate) fn tick(&mut self, now: Duration) {
        while let Some(&Reverse((at, node))) = self.waiting.peek() {
            let is_waiting = self.nodes[node as usize].state == State::Waiting;
            if is_waiting && at > now {
                break;
            }
            self.waiting.pop();
            if is_waiting {
                self.make_ready(node);
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn wakes_at(&self) -> Option<Duration> {
        self.waiting.peek().map(|Reverse((at, _))| *at)
    }

    /// Settles everything that does not run, without consequences; the numbers of what was settled, in order.
    pub(crate) fn close(&mut self) -> Vec<u32> {
        let mut closed = Vec::new();
        for (number, node) in (0..).zip(&mut self.nodes) {
            if !matches!(node.state, State::Running | State::Settled) {
                node.state = State::Settled;
                closed.push(number);
            }
        }
        self.open -= closed.len();
        self.waiting.clear();
        closed
    }

    /// Whether every node has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.open == 0
    }

    pub(crate) fn running_steps(&self) -> usize {
        self.running[0]
    }

    /// When everything before the node had ended.
    pub(crate) fn ready_at(&self, node: u32) -> Duration {
        self.nodes[node as usize].ready_at
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The nodes that wait for this one.
    pub(crate) fn behind(&self, node: u32) -> impl Iterator<Item = u32> {
        let mut next = self.nodes[node as usize].links;
        std::iter::from_fn(move || {
            let link = self.links.get(next as usize)?;
            next = link.next;
            Some(link.to)
        })
    }

    fn settle_collected(&mut self, now: Duration) {
        while let Some((number, passed)) = self.settling.pop() {
            let node = &mut self.nodes[number as usize];
            match node.state {
                State::Settled => continue,
                State::Running => self.count(number, false),
                State::Pending | State::Ready | State::Waiting => {}
            }
            let node = &mut self.nodes[number as usize];
            node.state = State::Settled;
            node.passed = passed;
            self.open -= 1;
            let culprit = node.blamed(number);
            let Node {
                kind,
                level,
                links: mut next,
                ..
            } = *node;
            while let Some(&Link {
                to,
                edge,
                next: further,
            }) = self.links.get(next as usize)
            {
                next = further;
                if edge == Edge::Requires && !passed {
                    self.blame(to, culprit);
                }
                let target = &mut self.nodes[to as usize];
                target.pending -= 1;
                if target.pending == 0 && target.state == State::Pending && (to as usize) < self.released {
                    self.inputs_ended(to, now);
                }
            }
            if self.levels.settled(kind, level) {
                self.open_levels();
            }
        }
    }

    fn blame(&mut self, node: u32, culprit: u32) {
        let known = self.nodes[node as usize].culprit;
        let place = |number: u32| self.nodes[number as usize].rank;
        if known == NONE || (place(culprit), culprit) < (place(known), known) {
            self.nodes[node as usize].culprit = culprit;
        }
    }

    /// Everything before the node has ended.
    fn inputs_ended(&mut self, number: u32, now: Duration) {
        let node = &mut self.nodes[number as usize];
        node.ready_at = now;
        let passes = node.culprit == NONE;
        match node.kind {
            Kind::Join => self.settling.push((number, passes)),
            Kind::Step | Kind::Check if !passes => self.doomed.push_back(number),
            Kind::Step | Kind::Check => {
                node.state = State::Ready;
                if !self.levels.holds(number, self.nodes[number as usize].level) {
                    self.make_ready(number);
                }
            }
        }
    }

    fn open_levels(&mut self) {
        while let Some(number) = self.levels.next_held() {
            if self.nodes[number as usize].state == State::Ready {
                self.make_ready(number);
            }
        }
    }

    fn make_ready(&mut self, number: u32) {
        let node = &mut self.nodes[number as usize];
        node.state = State::Ready;
        self.ready[node.lane()].push(node.ready(number));
    }

    fn prioritise(&mut self) {
        for number in (0..self.nodes.len()).rev() {
            let mut longest = 0;
            let mut next = self.nodes[number].links;
            while let Some(link) = self.links.get(next as usize) {
                longest = longest.max(self.nodes[link.to as usize].priority);
                next = link.next;
            }
            let node = &mut self.nodes[number];
            node.priority = node.estimate.saturating_add(longest);
        }
        // What was ready before all was known has its place by what is known now.
        for lane in &mut self.ready {
            let entries = std::mem::take(lane).into_vec().into_iter();
            *lane = entries
                .map(|entry| self.nodes[entry.node() as usize].ready(entry.node()))
                .collect();
        }
    }

    /// The best of a lane. Entries of nodes that were settled meanwhile are dropped.
    fn top_of(&mut self, lane: usize) -> Option<Ready> {
        loop {
            let top = *self.ready[lane].peek()?;
            if self.nodes[top.node() as usize].state == State::Ready {
                return Some(top);
            }
            self.ready[lane].pop();
        }
    }

    fn has_place(&self, lane: usize) -> bool {
        let Limits {
            steps,
            model_calls,
            checks,
        } = self.limits;
        let (is_check, is_model_call) = (lane >= 2, lane % 2 == 1);
        let own = if is_check {
            self.running[1] < checks
        } else {
            self.running[0] < steps
        };
        own && (!is_model_call || self.running_model_calls < model_calls)
    }

    fn count(&mut self, number: u32, starts: bool) {
        let Node {
            kind, is_model_call, ..
        } = self.nodes[number as usize];
        let change = |count: &mut usize| {
            if starts {
                *count += 1;
            } else {
                *count -= 1;
            }
        };
        change(&mut self.running[usize::from(kind == Kind::Check)]);
        if is_model_call {
            change(&mut self.running_model_calls);
        }
    }
}
