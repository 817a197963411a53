//! Budgets, case by case: what is let in, what is refused and in which words, who waits and who is woken.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use peregrine_agent::{Budget, BudgetLimits, Estimate, LimitReached, Refusal, Resource, Spent};
use peregrine_core::{Cost, Monotonic, NanoUsd};

fn limits() -> BudgetLimits {
    BudgetLimits::default()
}

fn exhausted<T: std::fmt::Debug>(result: Result<T, Refusal>) -> LimitReached {
    match result {
        Err(Refusal::Exhausted(limit)) => limit,
        other => panic!("not exhausted: {other:?}"),
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_limit_may_be_used_up_exactly_and_nothing_more() {
    let budget = Budget::new(limits().with_tokens(100));
    let all = Estimate::tokens(100).with_tokens_at_most(100);
    assert!(
        budget
            .try_reserve(&all)
            .unwrap()
            .settle(Spent::tokens(100))
            .overshoot()
            .is_empty()
    );
    for estimate in [Estimate::tokens(1), Estimate::tokens(0)] {
        let limit = exhausted(budget.try_reserve(&estimate));
        assert_eq!(
            (limit.resource, limit.limit, limit.used, limit.asked),
            (Resource::Tokens, 100, 100, 1)
        );
    }
    // What asks for no tokens is no matter of this limit.
    assert!(budget.try_reserve(&Estimate::tool_calls(3)).is_ok());
}

#[test]
fn zero_means_nothing_may_be_spent() {
    let budget = Budget::new(
        limits()
            .with_tokens(0)
            .with_cost(NanoUsd::ZERO)
            .with_tool_calls(0),
    );
    let priced = Estimate::nothing().with_cost(Cost::Priced(NanoUsd::ZERO));
    for (estimate, resource) in [
        (Estimate::tokens(0), Resource::Tokens),
        (Estimate::tokens(5), Resource::Tokens),
        (priced, Resource::Cost),
        (Estimate::tool_calls(1), Resource::ToolCalls),
    ] {
        assert_eq!(exhausted(budget.try_reserve(&estimate)).resource, resource);
    }
    assert!(budget.try_reserve(&Estimate::nothing()).is_ok());
}

#[test]
fn calls_run_side_by_side_as_long_as_the_most_they_can_use_fits() {
    let budget = Budget::new(limits().with_tokens(100));
    let call = Estimate::tokens(10).with_tokens_at_most(40);
    let one = budget.try_reserve(&call).unwrap();
    let two = budget.try_reserve(&call).unwrap();
    assert_eq!(budget.try_reserve(&call).unwrap_err(), Refusal::Busy);
    assert_eq!(budget.status().reserved.tokens, 20);
    assert!(one.settle(Spent::tokens(20)).overshoot().is_empty());
    let three = budget.try_reserve(&call).unwrap();
    drop((two, three));
    assert_eq!(
        (budget.status().reserved.tokens, budget.status().in_flight),
        (0, 0)
    );
}

#[test]
fn a_call_that_may_exceed_the_limit_runs_alone_and_its_overshoot_is_reported() {
    let budget = Budget::named("team", limits().with_tokens(100));
    let agent = budget.child_named("agent", limits().with_tokens(1_000));
    let loose = agent.try_reserve(&Estimate::tokens(60)).unwrap();
    let small = Estimate::tokens(1).with_tokens_at_most(1);
    assert_eq!(
        agent.try_reserve(&small).unwrap_err(),
        Refusal::Busy,
        "nobody knows whether it fits"
    );
    let settlement = loose.settle(Spent::tokens(130));
    let [overshoot] = settlement.overshoot() else {
        panic!("one limit of two was exceeded: {settlement:?}")
    };
    assert_eq!(
        (
            overshoot.budget.as_str(),
            overshoot.limit,
            overshoot.used,
            overshoot.by()
        ),
        ("team", 100, 130, 30)
    );
    assert_eq!(budget.status().overshoot.tokens, 30);
    assert_eq!(exhausted(agent.try_reserve(&small)).budget, "team");
}

#[test]
fn an_alone_call_with_a_known_most_keeps_others_out_too() {
    let budget = Budget::new(limits().with_tokens(100));
    let large = budget
        .try_reserve(&Estimate::tokens(50).with_tokens_at_most(500))
        .unwrap();
    assert_eq!(
        budget
            .try_reserve(&Estimate::tokens(1).with_tokens_at_most(1))
            .unwrap_err(),
        Refusal::Busy
    );
    drop(large);
    assert!(
        budget
            .try_reserve(&Estimate::tokens(1).with_tokens_at_most(1))
            .is_ok()
    );
}

#[test]
fn tool_calls_are_exact_so_nobody_waits_for_them() {
    let budget = Budget::new(limits().with_tool_calls(2));
    let outer = budget.try_reserve(&Estimate::tool_calls(1)).unwrap();
    // A tool that runs an agent below the same budget: its tools are counted while it is in flight.
    let inner = budget.child(limits());
    let _second = inner.try_reserve(&Estimate::tool_calls(1)).unwrap();
    let limit = exhausted(inner.try_reserve(&Estimate::tool_calls(1)));
    assert_eq!((limit.limit, limit.used, limit.asked), (2, 2, 1));
    drop(outer);
    assert!(inner.try_reserve(&Estimate::tool_calls(1)).is_ok());
}

#[test]
fn refusing_changes_nothing_at_any_level() {
    let root = Budget::named("root", limits().with_tokens(10));
    let middle = root.child_named("middle", limits());
    let leaf = middle.child_named("leaf", limits().with_tokens(1_000));
    let before = [root.status(), middle.status(), leaf.status()];
    assert_eq!(exhausted(leaf.try_reserve(&Estimate::tokens(11))).budget, "root");
    assert_eq!([root.status(), middle.status(), leaf.status()], before);
}

#[test]
fn an_unknown_price_is_refused_below_a_limit_on_cost_and_counted_elsewhere() {
    let budget = Budget::named("team", limits().with_cost(NanoUsd::from_cents(10)));
    let agent = budget.child(limits());
    let unpriced = Estimate::tokens(10).with_cost(Cost::Unpriced);
    let limit = exhausted(agent.try_reserve(&unpriced));
    assert_eq!(
        (limit.resource, limit.budget.as_str()),
        (Resource::UnknownPrice, "team")
    );
    assert!(
        limit.to_string().contains("add the model to the price table"),
        "{limit}"
    );

    let free = Budget::default();
    let settlement = free
        .try_reserve(&unpriced)
        .unwrap()
        .settle(Spent::tokens(9).with_cost(Cost::Unpriced));
    assert_eq!(settlement.charged_unpriced(), Some(NanoUsd::ZERO));
    assert_eq!(
        (free.status().cost(), free.status().unpriced_calls),
        (Cost::Unpriced, 1)
    );
}

#[test]
fn a_cost_that_turns_out_unknown_is_charged_as_reserved_and_said() {
    let cents = NanoUsd::from_cents;
    let priced = Estimate::tokens(10).with_cost(Cost::Priced(cents(2)));
    let cases = [(priced, cents(2)), (priced.with_cost_at_most(cents(7)), cents(7))];
    for (estimate, charged) in cases {
        let budget = Budget::new(limits().with_cost(cents(10)));
        let settlement = budget
            .try_reserve(&estimate)
            .unwrap()
            .settle(Spent::tokens(9).with_cost(Cost::Unpriced));
        assert_eq!(settlement.charged_unpriced(), Some(charged));
        assert_eq!(budget.status().spent.cost, charged);
        assert_eq!(budget.status().cost(), Cost::Unpriced);
    }
}

#[test]
fn restored_runs_charge_what_they_spent() {
    let budget = Budget::new(limits().with_tokens(100));
    assert!(
        budget
            .child(limits())
            .charge(Spent::tokens(90))
            .overshoot()
            .is_empty()
    );
    assert_eq!(budget.charge(Spent::tokens(15)).overshoot()[0].by(), 5);
    assert_eq!(budget.status().in_flight, 0);
}

#[test]
fn a_top_up_lets_a_paused_run_go_on() {
    let budget = Budget::new(limits().with_tokens(10).with_tool_calls(1));
    let call = Estimate::tokens(20).with_tokens_at_most(20);
    exhausted(budget.try_reserve(&call));
    budget.top_up(&limits().with_tokens(10).with_cost(NanoUsd(5)));
    assert!(budget.try_reserve(&call).is_ok());
    assert_eq!(
        budget.status().limits,
        limits().with_tokens(20).with_tool_calls(1),
        "no new limit appears"
    );
}

#[test]
fn the_nearest_deadline_of_the_chain_counts() {
    let at = |seconds| Monotonic::new(Duration::from_secs(seconds));
    let root = Budget::named("root", limits().with_wall_time(Duration::from_secs(10)));
    let leaf = root.child_named("leaf", limits().with_wall_time(Duration::from_secs(8)));
    assert_eq!(leaf.remaining_time(at(0)), None, "nothing has started");
    root.start(at(0));
    leaf.start(at(5));
    leaf.start(at(50));
    let (left, limit) = leaf.remaining_time(at(6)).unwrap();
    assert_eq!(
        (left, limit.budget.as_str(), limit.used),
        (Duration::from_secs(4), "root", 10_000)
    );
    let (left, limit) = leaf.remaining_time(at(20)).unwrap();
    assert_eq!(
        (left, limit.resource, limit.limit),
        (Duration::ZERO, Resource::WallTime, 10_000)
    );
    assert_eq!(limit.used, 20_000);
    // A clock that jumps back gives no more than the limit.
    assert_eq!(root.remaining_time(at(0)).unwrap().0, Duration::from_secs(10));
    root.top_up(&limits().with_wall_time(Duration::from_secs(30)));
    assert_eq!(leaf.remaining_time(at(12)).unwrap().1.budget, "leaf");
    assert_eq!(Budget::default().remaining_time(at(0)), None);
}

#[test]
fn arithmetic_saturates() {
    let budget = Budget::new(limits().with_tokens(u64::MAX).with_cost(NanoUsd(u64::MAX)));
    let huge = Estimate::tokens(u64::MAX).with_tokens_at_most(u64::MAX);
    let one = budget.try_reserve(&huge).unwrap();
    assert_eq!(budget.try_reserve(&huge).unwrap_err(), Refusal::Busy);
    let _ = one.settle(Spent::tokens(u64::MAX));
    let _ = budget.charge(Spent::tokens(u64::MAX));
    budget.top_up(&limits().with_tokens(u64::MAX).with_wall_time(Duration::MAX));
    assert_eq!(budget.status().spent.tokens, u64::MAX);
    // Without a limit in the way, holds of more than 2^64 in sum come and go exactly.
    let open = Budget::default();
    let held: Vec<_> = (0..3).map(|_| open.try_reserve(&huge).unwrap()).collect();
    assert_eq!(open.status().reserved.tokens, u64::MAX);
    drop(held);
    assert_eq!(open.status().reserved.tokens, 0);
}

#[test]
fn waiters_are_served_in_order_and_nobody_overtakes() {
    let budget = Budget::new(limits().with_tokens(100));
    let held = budget
        .try_reserve(&Estimate::tokens(50).with_tokens_at_most(90))
        .unwrap();
    let (large, small) = (
        Estimate::tokens(20).with_tokens_at_most(50),
        Estimate::tokens(5).with_tokens_at_most(5),
    );
    let mut first = pin!(budget.reserve(&large));
    assert!(poll(first.as_mut()).is_pending());
    let mut second = pin!(budget.reserve(&small));
    assert!(
        poll(second.as_mut()).is_pending(),
        "it would fit, but the first was there before"
    );
    assert_eq!(
        budget.try_reserve(&small).unwrap_err(),
        Refusal::Busy,
        "this is no way around the queue"
    );
    // Other resources are not held up.
    assert!(budget.try_reserve(&Estimate::tool_calls(1)).is_ok());
    let _ = held.settle(Spent::tokens(48));
    let Poll::Ready(Ok(one)) = poll(first.as_mut()) else {
        panic!("first")
    };
    // 48 spent, 50 held: 5 more do not fit until the first settles.
    assert!(poll(second.as_mut()).is_pending());
    let _ = one.settle(Spent::tokens(2));
    assert!(matches!(poll(second.as_mut()), Poll::Ready(Ok(_))));
}

#[test]
fn one_childs_queue_does_not_hold_up_its_siblings() {
    let root = Budget::new(limits().with_tokens(1_000));
    let (narrow, wide) = (root.child(limits().with_tokens(10)), root.child(limits()));
    let call = Estimate::tokens(8).with_tokens_at_most(8);
    let held = narrow.try_reserve(&call).unwrap();
    let next = Estimate::tokens(2).with_tokens_at_most(4);
    let mut waiting = pin!(narrow.reserve(&next));
    assert!(poll(waiting.as_mut()).is_pending());
    assert!(wide.try_reserve(&call).is_ok());
    drop(held);
    assert!(matches!(poll(waiting.as_mut()), Poll::Ready(Ok(_))));
}

#[test]
fn a_waiter_is_woken_when_it_is_let_in_and_when_it_is_refused() {
    for (spent, granted) in [(10, true), (95, false)] {
        let budget = Budget::new(limits().with_tokens(100));
        let held = budget.try_reserve(&Estimate::tokens(50)).unwrap();
        let next = Estimate::tokens(20);
        let mut waiting = pin!(budget.reserve(&next));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        assert!(
            waiting
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        let _ = held.settle(Spent::tokens(spent));
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        match poll(waiting.as_mut()) {
            Poll::Ready(Ok(_)) => assert!(granted),
            Poll::Ready(Err(limit)) => {
                assert!(!granted);
                assert_eq!((limit.used, limit.asked), (95, 20));
            }
            Poll::Pending => panic!("woken for nothing"),
        }
    }
}

#[test]
fn who_stops_waiting_lets_the_next_one_in() {
    let budget = Budget::new(limits().with_tokens(100));
    let held = budget
        .try_reserve(&Estimate::tokens(50).with_tokens_at_most(60))
        .unwrap();
    let large = Estimate::tokens(50).with_tokens_at_most(100);
    let small = Estimate::tokens(5).with_tokens_at_most(5);
    let mut first = Box::pin(budget.reserve(&large));
    let mut second = pin!(budget.reserve(&small));
    assert!(poll(first.as_mut()).is_pending());
    assert!(poll(second.as_mut()).is_pending());
    drop(first);
    assert!(matches!(poll(second.as_mut()), Poll::Ready(Ok(_))));
    drop(held);
}

#[test]
fn what_was_granted_to_somebody_who_left_is_given_back() {
    let budget = Budget::new(limits().with_tokens(100));
    let call = Estimate::tokens(60).with_tokens_at_most(100);
    let held = budget.try_reserve(&call).unwrap();
    let mut first = Box::pin(budget.reserve(&call));
    let mut second = pin!(budget.reserve(&call));
    assert!(poll(first.as_mut()).is_pending());
    assert!(poll(second.as_mut()).is_pending());
    drop(held);
    assert_eq!(
        budget.status().in_flight,
        1,
        "granted to the first, which has not looked yet"
    );
    drop(first);
    let Poll::Ready(Ok(second)) = poll(second.as_mut()) else {
        panic!("second")
    };
    drop(second);
    assert_eq!(budget.status().in_flight, 0);
    assert!(budget.try_reserve(&call).is_ok());
}

#[test]
fn a_top_up_wakes_those_who_wait() {
    let budget = Budget::new(limits().with_cost(NanoUsd(100)));
    let call = Estimate::nothing()
        .with_cost(Cost::Priced(NanoUsd(60)))
        .with_cost_at_most(NanoUsd(60));
    let _held = budget.try_reserve(&call).unwrap();
    let mut waiting = pin!(budget.reserve(&call));
    assert!(poll(waiting.as_mut()).is_pending());
    budget.top_up(&limits().with_cost(NanoUsd(20)));
    assert!(matches!(poll(waiting.as_mut()), Poll::Ready(Ok(_))));
}

#[test]
fn nodes_go_with_their_last_handle_and_deep_trees_need_no_stack() {
    let root = Budget::new(limits().with_tokens(1_000_000));
    let mut leaf = root.clone();
    for _ in 0..100_000 {
        leaf = leaf.child(limits());
    }
    let _ = leaf
        .try_reserve(&Estimate::tokens(1))
        .unwrap()
        .settle(Spent::tokens(1));
    drop(leaf);
    assert_eq!(root.status().spent.tokens, 1);
    // A reservation keeps its node, and the node its parents.
    let reservation = root
        .child(limits())
        .child(limits())
        .try_reserve(&Estimate::tokens(2))
        .unwrap();
    let _other = root.child_named("other", limits());
    let _ = reservation.settle(Spent::tokens(2));
    assert_eq!(root.status().spent.tokens, 3);
}

#[test]
fn limits_and_errors_are_data() {
    let text = r#"{"tokens":5,"cost":7,"tool_calls":0,"wall_time":{"secs":1,"nanos":0}}"#;
    let parsed: BudgetLimits = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&parsed).unwrap(), text);
    assert_eq!(serde_json::from_str::<BudgetLimits>("{}").unwrap(), limits());
    let unknown = serde_json::from_str::<BudgetLimits>(r#"{"token":5}"#).unwrap_err();
    assert!(unknown.to_string().contains("`token`"), "{unknown}");

    let limit = LimitReached::new(Resource::Cost, 1_000_000_000, 990_000_000, 50_000_000, "team");
    assert_eq!(
        limit.to_string(),
        "`team` may cost $1.00; $0.99 is spent and the call needs about $0.05: raise the limit, or use a cheaper model"
    );
    let json = serde_json::to_string(&limit).unwrap();
    assert!(
        json.starts_with(r#"{"resource":"cost","limit":1000000000"#),
        "{json}"
    );
    assert_eq!(serde_json::from_str::<LimitReached>(&json).unwrap(), limit);
}

#[test]
fn budgets_and_waiting_for_them_can_move_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    fn sent<T: Send>(_: &T) {}
    shared::<Budget>();
    shared::<peregrine_agent::Reservation>();
    shared::<Refusal>();
    let (budget, estimate) = (Budget::default(), Estimate::nothing());
    sent(&budget.reserve(&estimate));
}
