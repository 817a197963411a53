//! Budgets against a naive model, on random trees and operations.
//!
//! The model keeps a list of what is in flight and adds it up anew for every question; it walks all ancestors for each
//! of them. Waiting is part of it: a list of waiters in the order of their coming, served from the front until nothing
//! moves, in which one may not pass another that waits at a node and for a resource that both need.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use peregrine_agent::{Budget, BudgetLimits, Estimate, LimitReached, Refusal, Reservation, Resource, Spent};
use peregrine_core::{Cost, NanoUsd};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    Child(usize, [Option<u64>; 3]),
    TryReserve(usize, Estimate),
    Reserve(usize, Estimate),
    Settle(usize, Spent),
    DropReservation(usize),
    DropWaiter(usize),
    TopUp(usize, [Option<u64>; 3]),
}

fn small_limits() -> impl Strategy<Value = [Option<u64>; 3]> {
    let limit = || prop_oneof![2 => Just(None), 3 => (0_u64..60).prop_map(Some)];
    [limit(), limit(), limit()]
}

fn cost() -> impl Strategy<Value = Cost> {
    prop_oneof![6 => (0_u64..30).prop_map(|n| Cost::Priced(NanoUsd(n))), 1 => Just(Cost::Unpriced)]
}

fn estimates() -> impl Strategy<Value = Estimate> {
    let at_most = || prop_oneof![1 => Just(None), 4 => (0_u64..40).prop_map(Some)];
    (0_u64..25, at_most(), cost(), at_most(), 0_u64..3).prop_map(
        |(tokens, tokens_at_most, cost, cost_at_most, tool_calls)| Estimate {
            tokens,
            tokens_at_most,
            cost,
            cost_at_most: cost_at_most.map(NanoUsd),
            tool_calls,
        },
    )
}

fn spents() -> impl Strategy<Value = Spent> {
    (0_u64..45, cost(), 0_u64..3).prop_map(|(tokens, cost, tool_calls)| Spent {
        tokens,
        cost,
        tool_calls,
    })
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let index = || 0_usize..100;
    let op = prop_oneof![
        2 => (index(), small_limits()).prop_map(|(at, limits)| Op::Child(at, limits)),
        4 => (index(), estimates()).prop_map(|(at, estimate)| Op::TryReserve(at, estimate)),
        4 => (index(), estimates()).prop_map(|(at, estimate)| Op::Reserve(at, estimate)),
        5 => (index(), spents()).prop_map(|(at, spent)| Op::Settle(at, spent)),
        2 => index().prop_map(Op::DropReservation),
        1 => index().prop_map(Op::DropWaiter),
        1 => (index(), small_limits()).prop_map(|(at, extra)| Op::TopUp(at, extra)),
    ];
    prop::collection::vec(op, 1..60)
}

fn limits([tokens, cost, tool_calls]: [Option<u64>; 3]) -> BudgetLimits {
    let mut limits = BudgetLimits::default();
    limits.tokens = tokens;
    limits.cost = cost.map(NanoUsd);
    limits.tool_calls = tool_calls;
    limits
}

#[derive(Debug, Clone)]
struct ModelNode {
    parent: Option<usize>,
    limit: [Option<u64>; 3],
    used: [u64; 3],
}

#[derive(Debug, PartialEq)]
enum Answer {
    Yes,
    Busy(Vec<(usize, usize)>),
    No(Resource, usize),
}

/// Tokens, cost, tool calls.
const RESOURCES: [Resource; 3] = [Resource::Tokens, Resource::Cost, Resource::ToolCalls];

#[derive(Debug, Default)]
struct Model {
    nodes: Vec<ModelNode>,
    in_flight: Vec<(u64, usize, Estimate)>,
    waiting: Vec<(u64, usize, Estimate)>,
}

/// Estimate and most of one resource; `None` is an unknown price.
fn ask(estimate: &Estimate, resource: usize) -> Option<(u64, Option<u64>)> {
    let (expected, most) = match resource {
        0 => (estimate.tokens, estimate.tokens_at_most),
        1 => (
            estimate.cost.amount()?.0,
            estimate.cost_at_most.map(|most| most.0),
        ),
        _ => (estimate.tool_calls, Some(estimate.tool_calls)),
    };
    let expected = if expected == 0 && most != Some(0) {
        1
    } else {
        expected
    };
    Some((expected, most.map(|most| most.max(expected))))
}

fn asks_for(estimate: &Estimate, resource: usize) -> bool {
    ask(estimate, resource).is_some_and(|(_, most)| most != Some(0))
}

impl Model {
    fn chain(&self, leaf: usize) -> Vec<usize> {
        std::iter::successors(Some(leaf), |node| self.nodes[*node].parent).collect()
    }

    fn judge(&self, leaf: usize, estimate: &Estimate, ahead: &[(u64, usize, Estimate)]) -> Answer {
        let mut busy = Vec::new();
        for node in self.chain(leaf) {
            // The order in which one node's limits are named is part of the contract only in that it is fixed.
            for resource in [2, 0, 1] {
                let Some(limit) = self.nodes[node].limit[resource] else {
                    continue;
                };
                let Some((expected, most)) = ask(estimate, resource) else {
                    return Answer::No(Resource::UnknownPrice, node);
                };
                if most == Some(0) {
                    continue;
                }
                let beside: Vec<_> = self
                    .in_flight
                    .iter()
                    .filter(|(_, at, other)| self.chain(*at).contains(&node) && asks_for(other, resource))
                    .map(|(_, _, other)| ask(other, resource).unwrap().1)
                    .collect();
                let used = self.nodes[node].used[resource];
                let held: Option<u64> = beside.iter().copied().sum();
                if used + expected > limit {
                    return Answer::No(RESOURCES[resource], node);
                }
                if resource == 2 && used + held.unwrap() + expected > limit {
                    return Answer::No(RESOURCES[resource], node);
                }
                let queued = ahead.iter().any(|(_, at, other)| {
                    resource != 2
                        && asks_for(other, resource)
                        && self.chain(*at).contains(&node)
                        && self.waits_first_at(*at, other) == Some((node, resource))
                });
                let fits = held
                    .zip(most)
                    .is_some_and(|(held, most)| used + held + most <= limit);
                if resource != 2 && (queued || !(fits || beside.is_empty())) {
                    busy.push((node, resource));
                }
            }
        }
        if busy.is_empty() {
            Answer::Yes
        } else {
            Answer::Busy(busy)
        }
    }

    /// Where a waiter stands, if it has nobody in front.
    fn waits_first_at(&self, leaf: usize, estimate: &Estimate) -> Option<(usize, usize)> {
        match self.judge(leaf, estimate, &[]) {
            Answer::Busy(places) => places.first().copied(),
            _ => None,
        }
    }

    fn worst(estimate: &Estimate) -> u64 {
        ask(estimate, 1).map_or(0, |(expected, most)| most.unwrap_or(expected))
    }

    fn spend(&mut self, leaf: usize, estimate: &Estimate, spent: Spent) {
        let money = spent
            .cost
            .amount()
            .map_or_else(|| Self::worst(estimate), |money| money.0);
        for node in self.chain(leaf) {
            for (used, amount) in
                self.nodes[node]
                    .used
                    .iter_mut()
                    .zip([spent.tokens, money, spent.tool_calls])
            {
                *used += amount;
            }
        }
    }
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Reservation, LimitReached>> + 'a>>;

struct Real<'a> {
    budgets: Vec<&'a Budget>,
    held: Vec<(u64, Reservation)>,
    waiting: Vec<(u64, Waiting<'a>)>,
}

fn check(model: &Model, real: &Real<'_>) {
    for (index, node) in model.nodes.iter().enumerate() {
        let status = real.budgets[index].status();
        assert_eq!(
            [status.spent.tokens, status.spent.cost.0, status.spent.tool_calls],
            node.used
        );
        let below = |at: usize| model.chain(at).contains(&index);
        let count = model.in_flight.iter().filter(|(_, at, _)| below(*at)).count();
        assert_eq!(status.in_flight, count as u64);
    }
}

/// Polls every waiter; those that are done move over in the model too. Whatever is let in must be admissible in the
/// model; whoever has nobody in front and would be let in by the model must not be left waiting.
fn settle_waiters(model: &mut Model, real: &mut Real<'_>) {
    let mut still = Vec::new();
    for (id, mut future) in std::mem::take(&mut real.waiting) {
        let place = model.waiting.iter().position(|(other, ..)| *other == id).unwrap();
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => still.push((id, future)),
            Poll::Ready(answer) => {
                let (_, leaf, estimate) = model.waiting.remove(place);
                match answer {
                    Ok(reservation) => {
                        assert_eq!(
                            model.judge(leaf, &estimate, &[]),
                            Answer::Yes,
                            "let in against the rules"
                        );
                        model.in_flight.push((id, leaf, estimate));
                        real.held.push((id, reservation));
                    }
                    Err(limit) => {
                        assert!(
                            matches!(model.judge(leaf, &estimate, &[]), Answer::No(resource, _) if resource == limit.resource),
                            "refused against the rules: {limit}"
                        );
                    }
                }
            }
        }
    }
    real.waiting = still;
    for (at, (_, leaf, estimate)) in model.waiting.iter().enumerate() {
        // Nobody is in front of it anywhere near: then it may only wait because of what is in flight.
        let alone = model.waiting[..at].iter().all(|(_, other, _)| {
            let theirs = model.chain(*other);
            !model.chain(*leaf).iter().any(|node| theirs.contains(node))
        });
        if alone {
            let answer = model.judge(*leaf, estimate, &[]);
            assert!(
                !matches!(answer, Answer::Yes),
                "forgotten in the queue: {estimate:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn budgets_agree_with_the_model(root in small_limits(), ops in ops()) {
        // The budgets must live longer than the futures that borrow them.
        let arena = arena_of(&root, &ops);
        let mut model = Model::default();
        model.nodes.push(ModelNode { parent: None, limit: root, used: [0; 3] });
        let mut real = Real { budgets: vec![&arena[0]], held: Vec::new(), waiting: Vec::new() };
        for (next_id, op) in (0_u64..).zip(&ops) {
            match op {
                Op::Child(at, limit) => {
                    let parent = at % model.nodes.len();
                    model.nodes.push(ModelNode { parent: Some(parent), limit: *limit, used: [0; 3] });
                    real.budgets.push(&arena[model.nodes.len() - 1]);
                }
                Op::TryReserve(at, estimate) => {
                    let leaf = at % model.nodes.len();
                    let waiting = !model.waiting.is_empty();
                    match (real.budgets[leaf].try_reserve(estimate), model.judge(leaf, estimate, &[])) {
                        (Ok(reservation), Answer::Yes) => {
                            model.in_flight.push((next_id, leaf, *estimate));
                            real.held.push((next_id, reservation));
                        }
                        (Err(Refusal::Busy), Answer::Busy(_)) => {}
                        (Err(Refusal::Busy), Answer::Yes) => prop_assert!(waiting, "nobody is in front of it"),
                        (Err(Refusal::Exhausted(limit)), Answer::No(resource, _)) => {
                            prop_assert_eq!(limit.resource, resource);
                        }
                        (ours, theirs) => prop_assert!(false, "{:?} instead of {:?}", ours, theirs),
                    }
                }
                Op::Reserve(at, estimate) => {
                    let leaf = at % model.nodes.len();
                    let budget = real.budgets[leaf];
                    let estimate = *estimate;
                    real.waiting.push((next_id, Box::pin(async move { budget.reserve(&estimate).await })));
                    model.waiting.push((next_id, leaf, estimate));
                }
                Op::Settle(at, spent) if !real.held.is_empty() => {
                    let (id, reservation) = real.held.remove(at % real.held.len());
                    let settlement = reservation.settle(*spent);
                    let place = model.in_flight.iter().position(|(other, ..)| *other == id).unwrap();
                    let (_, leaf, estimate) = model.in_flight.remove(place);
                    model.spend(leaf, &estimate, *spent);
                    let money = spent.cost.amount().map_or_else(|| Model::worst(&estimate), |money| money.0);
                    let amounts = [spent.tokens, money, spent.tool_calls];
                    let over: Vec<_> = model.chain(leaf).into_iter().flat_map(|node| {
                        let node = &model.nodes[node];
                        (0..3).filter(|r| amounts[*r] > 0 && node.limit[*r].is_some_and(|limit| node.used[*r] > limit))
                            .map(|r| (RESOURCES[r], node.used[r])).collect::<Vec<_>>()
                    }).collect();
                    let said: Vec<_> = settlement.overshoot().iter().map(|o| (o.resource, o.used)).collect();
                    prop_assert_eq!(said, over);
                    prop_assert_eq!(settlement.charged_unpriced().is_some(), spent.cost == Cost::Unpriced);
                }
                Op::DropReservation(at) if !real.held.is_empty() => {
                    let (id, reservation) = real.held.remove(at % real.held.len());
                    drop(reservation);
                    model.in_flight.retain(|(other, ..)| *other != id);
                }
                Op::DropWaiter(at) if !real.waiting.is_empty() => {
                    let (id, future) = real.waiting.remove(at % real.waiting.len());
                    drop(future);
                    model.waiting.retain(|(other, ..)| *other != id);
                }
                Op::TopUp(at, extra) => {
                    let node = at % model.nodes.len();
                    real.budgets[node].top_up(&limits(*extra));
                    for (limit, extra) in model.nodes[node].limit.iter_mut().zip(extra) {
                        if let (Some(limit), Some(extra)) = (limit, extra) {
                            *limit += extra;
                        }
                    }
                }
                _ => {}
            }
            settle_waiters(&mut model, &mut real);
            check(&model, &real);
        }
        // At the end everybody gets an answer: no wake-up is lost.
        while let Some((id, reservation)) = real.held.pop() {
            drop(reservation);
            model.in_flight.retain(|(other, ..)| *other != id);
            settle_waiters(&mut model, &mut real);
            check(&model, &real);
        }
        prop_assert!(real.waiting.is_empty(), "nothing is in flight, and {} wait", real.waiting.len());
    }
}

/// All budgets that the operations will make, made beforehand.
fn arena_of(root: &[Option<u64>; 3], ops: &[Op]) -> Vec<Budget> {
    let mut budgets = vec![Budget::new(limits(*root))];
    for op in ops {
        if let Op::Child(at, limit) = op {
            let child = budgets[at % budgets.len()].child(limits(*limit));
            budgets.push(child);
        }
    }
    budgets
}
