//! The queue of one budget against a naive first-in-first-out model, with waiters that look late or never.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use peregrine_agent::{Budget, BudgetLimits, Estimate, LimitReached, Refusal, Reservation, Spent};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    TryReserve(Ask),
    Reserve(Ask),
    Settle(usize, u64),
    Release(usize),
    Leave(usize),
    Look(usize),
    TopUp(u64),
}

/// Estimate and most, in tokens.
type Ask = (u64, Option<u64>);

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let ask = || {
        (1_u64..30, prop::option::weighted(0.8, 0_u64..30))
            .prop_map(|(least, more)| (least, more.map(|more| least + more)))
    };
    let index = || 0_usize..100;
    let op = prop_oneof![
        2 => ask().prop_map(Op::TryReserve),
        6 => ask().prop_map(Op::Reserve),
        3 => (index(), 0_u64..20).prop_map(|(at, tokens)| Op::Settle(at, tokens)),
        2 => index().prop_map(Op::Release),
        2 => index().prop_map(Op::Leave),
        4 => index().prop_map(Op::Look),
        1 => (0_u64..20).prop_map(Op::TopUp),
    ];
    prop::collection::vec(op, 1..80)
}

#[derive(Debug, Default)]
struct Model {
    limit: u64,
    used: u64,
    in_flight: BTreeMap<usize, Ask>,
    queue: Vec<(usize, Ask)>,
    /// Decided, and not looked at yet.
    decided: BTreeMap<usize, bool>,
}

impl Model {
    /// `None`: it has to wait.
    fn judge(&self, (least, most): Ask) -> Option<bool> {
        if self.used + least > self.limit {
            return Some(false);
        }
        let held: Option<u64> = self.in_flight.values().map(|(_, most)| *most).sum();
        let beside = held
            .zip(most)
            .is_some_and(|(held, most)| self.used + held + most <= self.limit);
        (beside || self.in_flight.is_empty()).then_some(true)
    }

    fn newcomer(&self, ask: Ask) -> Option<bool> {
        match self.judge(ask) {
            Some(true) if !self.queue.is_empty() => None,
            answer => answer,
        }
    }

    fn serve(&mut self) {
        while let Some((id, ask)) = self.queue.first().copied() {
            let Some(answer) = self.judge(ask) else { return };
            self.queue.remove(0);
            self.decided.insert(id, answer);
            if answer {
                self.in_flight.insert(id, ask);
            }
        }
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Reservation, LimitReached>> + 'a>>;

fn estimate((least, most): Ask) -> Estimate {
    let estimate = Estimate::tokens(least);
    most.map_or(estimate, |most| estimate.with_tokens_at_most(most))
}

proptest! {
    #[test]
    fn the_queue_is_first_in_first_out(limit in 0_u64..80, ops in ops()) {
        let budget = Budget::new(BudgetLimits::default().with_tokens(limit));
        let mut model = Model { limit, ..Model::default() };
        let mut held: Vec<(usize, Reservation)> = Vec::new();
        let mut waiting: Vec<(usize, Waiting<'_>, Arc<Flag>)> = Vec::new();
        for (id, op) in ops.into_iter().enumerate() {
            match op {
                Op::TryReserve(ask) => {
                    let answer = budget.try_reserve(&estimate(ask));
                    match (answer, model.newcomer(ask)) {
                        (Ok(reservation), Some(true)) => {
                            model.in_flight.insert(id, ask);
                            held.push((id, reservation));
                        }
                        (Err(Refusal::Busy), None) | (Err(Refusal::Exhausted(_)), Some(false)) => {}
                        (ours, theirs) => prop_assert!(false, "{:?} instead of {:?}", ours, theirs),
                    }
                }
                Op::Reserve(ask) => {
                    let budget = &budget;
                    let mut future: Waiting<'_> = Box::pin(async move { budget.reserve(&estimate(ask)).await });
                    let flag = Arc::<Flag>::default();
                    let answer = future.as_mut().poll(&mut Context::from_waker(&Waker::from(flag.clone())));
                    match (answer, model.newcomer(ask)) {
                        (Poll::Ready(Ok(reservation)), Some(true)) => {
                            model.in_flight.insert(id, ask);
                            held.push((id, reservation));
                        }
                        (Poll::Ready(Err(_)), Some(false)) => {}
                        (Poll::Pending, None) => {
                            model.queue.push((id, ask));
                            waiting.push((id, future, flag));
                        }
                        (ours, theirs) => prop_assert!(false, "{:?} instead of {:?}", ours, theirs),
                    }
                }
                Op::Settle(at, tokens) if !held.is_empty() => {
                    let (id, reservation) = held.remove(at % held.len());
                    let _ = reservation.settle(Spent::tokens(tokens));
                    model.in_flight.remove(&id);
                    model.used += tokens;
                }
                Op::Release(at) if !held.is_empty() => {
                    let (id, _) = held.remove(at % held.len());
                    model.in_flight.remove(&id);
                }
                Op::Leave(at) if !waiting.is_empty() => {
                    let (id, ..) = waiting.remove(at % waiting.len());
                    model.queue.retain(|(other, _)| *other != id);
                    if model.decided.remove(&id) == Some(true) {
                        model.in_flight.remove(&id);
                    }
                }
                Op::Look(at) if !waiting.is_empty() => {
                    let place = at % waiting.len();
                    let (id, future, flag) = &mut waiting[place];
                    let woken = flag.0.swap(false, Ordering::SeqCst);
                    let answer = future.as_mut().poll(&mut Context::from_waker(&Waker::from(flag.clone())));
                    match (answer, model.decided.remove(id)) {
                        (Poll::Pending, None) => prop_assert!(!woken, "woken for nothing"),
                        (Poll::Ready(Ok(reservation)), Some(true)) => {
                            prop_assert!(woken);
                            held.push((*id, reservation));
                            drop(waiting.remove(place));
                        }
                        (Poll::Ready(Err(_)), Some(false)) => {
                            prop_assert!(woken);
                            drop(waiting.remove(place));
                        }
                        (ours, theirs) => prop_assert!(false, "{:?} instead of {:?}", ours, theirs),
                    }
                }
                Op::TopUp(tokens) => {
                    budget.top_up(&BudgetLimits::default().with_tokens(tokens));
                    model.limit += tokens;
                }
                _ => {}
            }
            model.serve();
            let status = budget.status();
            prop_assert_eq!(status.spent.tokens, model.used);
            prop_assert_eq!(status.in_flight, model.in_flight.len() as u64);
        }
    }
}
