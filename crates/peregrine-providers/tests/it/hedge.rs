//! Hedged calls: when a second one begins, who wins, what it costs, and that the loser is gone.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use peregrine_core::{ChatModel, ChatRequest, ChatResponse, Error, ErrorKind, Result, Usage};
use peregrine_providers::{Hedge, HedgePolicy};
use peregrine_testkit::FakeClock;

use crate::stage::{Stage, failure, poll};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn policy() -> HedgePolicy {
    HedgePolicy::default().with_min_samples(10).with_min_delay(MS(20))
}

/// A model behind a hedge that has seen calls of 1 to 100 ms, of which 95 took no longer than 95 ms.
struct Warm {
    clock: FakeClock,
    stage: Stage,
    hedge: Hedge,
    model: Box<dyn Fn(ChatRequest, bool) -> Call>,
    calls: usize,
}

type Call = Pin<Box<dyn Future<Output = Result<ChatResponse>> + Send>>;

impl Warm {
    fn new(policy: HedgePolicy) -> Self {
        let clock = FakeClock::new();
        let stage = Stage::new("m");
        let hedge = Hedge::new(policy, Arc::new(clock.clone()));
        let model = stage.clone().layered(hedge.clone()).into_handle();
        let ask = move |request: ChatRequest, streamed: bool| -> Call {
            let model = model.clone();
            Box::pin(async move {
                match streamed {
                    true => model.stream(&request).await?.collect().await,
                    false => model.complete(&request).await,
                }
            })
        };
        let mut warm = Self {
            clock,
            stage,
            hedge,
            model: Box::new(ask),
            calls: 0,
        };
        for n in 1..=100_u64 {
            for streamed in [false, true] {
                let mut call = warm.begin(streamed);
                assert!(poll(&mut call.as_mut()).is_pending());
                // Falling times, so that none is beyond the quantile of those before.
                warm.clock.advance(MS(101 - n));
                warm.stage.answer(warm.calls, "warm");
                assert!(poll(&mut call.as_mut()).is_ready(), "{n}");
                warm.calls += 1;
            }
        }
        assert_eq!((warm.hedge.stats().calls, warm.hedge.stats().hedged), (200, 0));
        warm
    }

    fn begin(&self, streamed: bool) -> Call {
        (self.model)(ChatRequest::user("?"), streamed)
    }
}

#[test]
fn a_call_that_takes_unusually_long_is_made_again_and_the_first_answer_wins() {
    for streamed in [false, true] {
        for second_wins in [true, false] {
            let mut warm = Warm::new(policy());
            let stats = warm.hedge.stats();
            let delay = [stats.whole_delay, stats.first_content_delay][usize::from(streamed)].unwrap();
            assert!(
                (MS(94)..MS(98)).contains(&delay),
                "{delay:?}: the quantile is found anew now and then"
            );
            let mut call = warm.begin(streamed);
            assert!(poll(&mut call.as_mut()).is_pending());
            warm.clock.advance(delay - MS(1));
            assert!(poll(&mut call.as_mut()).is_pending());
            assert_eq!(warm.stage.calls(), warm.calls + 1, "not yet");
            warm.clock.advance(MS(1));
            assert!(poll(&mut call.as_mut()).is_pending());
            assert_eq!(warm.stage.calls(), warm.calls + 2);
            warm.stage.answer(warm.calls + usize::from(second_wins), "fast");
            let Poll::Ready(Ok(response)) = poll(&mut call.as_mut()) else {
                panic!("one has answered");
            };
            assert_eq!(warm.stage.cancelled(), 1, "the other one was dropped");
            assert_eq!(response.message.text(), "fast");
            let who = if second_wins { "second" } else { "first" };
            assert_eq!(response.metadata["hedged"]["answered"], who);
            let stats = warm.hedge.stats();
            assert_eq!(
                (stats.hedged, stats.won, stats.denied),
                (1, u64::from(second_wins), 0)
            );
            warm.calls += 2;
        }
    }
}

#[test]
fn nothing_is_hedged_before_enough_is_known() {
    let clock = FakeClock::new();
    let stage = Stage::new("m");
    let model = stage
        .clone()
        .layered(Hedge::new(policy(), Arc::new(clock.clone())));
    for n in 0..9 {
        let request = ChatRequest::user("?");
        let mut call = pin!(model.complete(&request));
        assert!(poll(&mut call).is_pending());
        clock.advance(MS(60_000));
        assert!(poll(&mut call).is_pending());
        stage.answer(n, "slow");
        assert!(poll(&mut call).is_ready());
    }
    assert_eq!((stage.calls(), model.middleware().stats().whole_delay), (9, None));
    assert!(clock.sleeps().is_empty(), "not even a timer");
}

#[test]
fn extra_calls_stay_within_their_budget() {
    let warm = Warm::new(policy().with_budget(0.1, 3));
    let mut extra = Vec::new();
    for _ in 0..50 {
        let before = warm.stage.calls();
        let mut call = warm.begin(false);
        assert!(poll(&mut call.as_mut()).is_pending());
        // Slow, and slower than all before: the provider as a whole has become slow.
        warm.clock.advance(MS(600_000));
        assert!(poll(&mut call.as_mut()).is_pending());
        extra.push(warm.stage.calls() - before == 2);
        warm.stage.answer(before, "at last");
        assert!(poll(&mut call.as_mut()).is_ready());
    }
    let made = extra.iter().filter(|made| **made).count();
    assert_eq!(extra[..4], [true, true, true, false], "what was saved up");
    assert_eq!(made, 3 + 4, "and a tenth of the calls since");
    assert_eq!(warm.hedge.stats().denied, 43);
}

#[test]
fn a_failure_that_may_heal_waits_for_the_other_call_and_one_that_cannot_does_not() {
    let hedged = || {
        let warm = Warm::new(policy());
        let mut call = warm.begin(false);
        assert!(poll(&mut call.as_mut()).is_pending());
        warm.clock.advance(MS(200));
        assert!(poll(&mut call.as_mut()).is_pending());
        (warm, call)
    };
    let (warm, mut call) = hedged();
    warm.stage.end(warm.calls, Err(failure(ErrorKind::Overloaded)));
    assert!(poll(&mut call.as_mut()).is_pending(), "the second one may answer");
    warm.stage.answer(warm.calls + 1, "yes");
    assert!(matches!(poll(&mut call.as_mut()), Poll::Ready(Ok(_))));

    let (warm, mut call) = hedged();
    warm.stage
        .end(warm.calls + 1, Err(failure(ErrorKind::Overloaded)));
    assert!(poll(&mut call.as_mut()).is_pending());
    warm.stage.end(warm.calls, Err(failure(ErrorKind::Server)));
    let Poll::Ready(Err(error)) = poll(&mut call.as_mut()) else {
        panic!("both have failed");
    };
    assert_eq!(error.kind(), ErrorKind::Server, "the first call's");

    let (warm, mut call) = hedged();
    warm.stage
        .end(warm.calls + 1, Err(failure(ErrorKind::InvalidRequest)));
    let Poll::Ready(Err(error)) = poll(&mut call.as_mut()) else {
        panic!("asking again cannot help");
    };
    assert_eq!(
        (error.kind(), warm.stage.cancelled()),
        (ErrorKind::InvalidRequest, 1)
    );
}

#[test]
fn a_second_call_that_this_side_refuses_to_make_does_not_end_the_first() {
    let warm = Warm::new(policy());
    let mut call = warm.begin(false);
    assert!(poll(&mut call.as_mut()).is_pending());
    warm.clock.advance(MS(200));
    assert!(poll(&mut call.as_mut()).is_pending());
    // As a limit inside of the hedge whose queue is full.
    let full = Error::layer(ErrorKind::Refused, std::io::Error::other("the queue is full"));
    warm.stage.end(warm.calls + 1, Err(full));
    assert!(poll(&mut call.as_mut()).is_pending());
    warm.stage.answer(warm.calls, "the first");
    let Poll::Ready(Ok(response)) = poll(&mut call.as_mut()) else {
        panic!("it is answered");
    };
    assert_eq!(response.message.text(), "the first");
}

#[test]
fn a_failure_before_the_delay_is_handed_on_and_not_timed() {
    let warm = Warm::new(policy());
    let mut call = warm.begin(false);
    assert!(poll(&mut call.as_mut()).is_pending());
    warm.stage.end(warm.calls, Err(failure(ErrorKind::Overloaded)));
    let Poll::Ready(Err(Error::Provider(_))) = poll(&mut call.as_mut()) else {
        panic!("it failed");
    };
    assert_eq!(
        (warm.stage.calls(), warm.hedge.stats().hedged),
        (warm.calls + 1, 0)
    );
}

#[test]
fn the_usage_of_both_calls_counts_where_it_is_known() {
    let warm = Warm::new(policy());
    let mut call = warm.begin(false);
    assert!(poll(&mut call.as_mut()).is_pending());
    warm.clock.advance(MS(200));
    assert!(poll(&mut call.as_mut()).is_pending());
    for call in [0, 1] {
        let answer = ChatResponse::text("both at once").with_usage(Usage::new(100, 7));
        warm.stage.end(warm.calls + call, Ok(answer));
    }
    let Poll::Ready(Ok(response)) = poll(&mut call.as_mut()) else {
        panic!("both have answered");
    };
    assert_eq!(response.usage, Some(Usage::new(200, 14)));
    assert_eq!(response.metadata["hedged"]["other_usage_known"], true);
}

#[test]
fn dropping_a_hedged_call_drops_both() {
    let warm = Warm::new(policy());
    let mut call = warm.begin(true);
    assert!(poll(&mut call.as_mut()).is_pending());
    warm.clock.advance(MS(200));
    assert!(poll(&mut call.as_mut()).is_pending());
    drop(call);
    assert_eq!(warm.stage.cancelled(), 2);
}

#[test]
fn a_call_that_lost_counts_as_slow_as_it_was_waited_for() {
    let clock = FakeClock::new();
    let stage = Stage::new("m");
    let policy = policy().with_min_samples(1).with_min_delay(MS(1));
    let model = stage.clone().layered(Hedge::new(policy, Arc::new(clock.clone())));
    let request = ChatRequest::user("?");
    let mut call = pin!(model.complete(&request));
    assert!(poll(&mut call).is_pending());
    clock.advance(MS(10));
    stage.answer(0, "warm");
    assert!(poll(&mut call).is_ready());

    let mut call = pin!(model.complete(&request));
    assert!(poll(&mut call).is_pending());
    clock.advance(MS(10));
    assert!(poll(&mut call).is_pending());
    clock.advance(MS(30));
    stage.answer(2, "the second");
    assert!(poll(&mut call).is_ready());
    let delay = model.middleware().stats().whole_delay;
    assert_eq!(
        delay,
        Some(MS(40)),
        "10, at least 40, and 30: leaving the loser out would be 30"
    );
}
