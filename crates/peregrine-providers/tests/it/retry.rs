//! Retries: what is tried again, how long it waits, and what stops it.

use std::sync::Arc;
use std::time::Duration;

use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, Clock as _, Error, ErrorKind, ProviderError,
};
use peregrine_providers::{Retry, RetryBudget, RetryPolicy};
use peregrine_testkit::FakeClock;

use crate::scripted::{Scripted, Turn};

fn error(kind: ErrorKind, retry_after: Option<Duration>) -> Error {
    let mut error = ProviderError::new("test", 429, kind, "no");
    error.retry_after = retry_after;
    error.into()
}

fn overloaded() -> Turn {
    Turn::Fail(error(ErrorKind::Overloaded, None))
}

fn answer() -> Turn {
    Turn::Answer(ChatResponse::text("yes"))
}

fn retry(clock: &FakeClock, policy: RetryPolicy) -> Retry {
    Retry::new(policy, Arc::new(clock.clone())).with_random(|| 0.5)
}

#[tokio::test]
async fn failures_that_can_heal_are_tried_again_with_growing_jittered_waits() {
    let clock = FakeClock::jumping();
    let policy = RetryPolicy::new(5).with_delays(Duration::from_secs(1), Duration::from_secs(6));
    let script = Scripted::new([overloaded(), overloaded(), overloaded(), overloaded(), answer()]);
    let model = script.clone().layered(retry(&clock, policy));
    let response = model.complete(&ChatRequest::user("?")).await.unwrap();
    assert_eq!(response.metadata["attempts"], 5);
    let waits: Vec<_> = clock.sleeps().iter().map(Duration::as_millis).collect();
    assert_eq!(
        waits,
        [500, 1000, 2000, 3000],
        "half of 1, 2, 4 and the cap of 6 seconds"
    );
}

#[tokio::test]
async fn what_cannot_heal_is_not_tried_again() {
    let clock = FakeClock::jumping();
    for kind in [
        ErrorKind::Authentication,
        ErrorKind::QuotaExceeded,
        ErrorKind::InvalidRequest,
        ErrorKind::Protocol,
    ] {
        let model =
            Scripted::new([Turn::Fail(error(kind, None))]).layered(retry(&clock, RetryPolicy::default()));
        assert_eq!(
            model.complete(&ChatRequest::user("?")).await.unwrap_err().kind(),
            kind
        );
    }
    assert!(clock.sleeps().is_empty());
}

#[tokio::test]
async fn the_providers_wait_is_kept_unless_it_is_absurd() {
    let clock = FakeClock::jumping();
    let limited = |wait| Turn::Fail(error(ErrorKind::RateLimited, Some(wait)));
    let model = Scripted::new([limited(Duration::from_secs(7)), answer()])
        .layered(retry(&clock, RetryPolicy::default()));
    assert!(model.complete(&ChatRequest::user("?")).await.is_ok());
    assert_eq!(
        (clock.sleeps(), clock.now().since_origin().as_secs()),
        (vec![Duration::from_secs(7)], 7)
    );

    let absurd = [
        Duration::from_secs(61),
        Duration::from_secs(u64::MAX),
        Duration::MAX,
    ];
    for wait in absurd {
        let model = Scripted::new([limited(wait)]).layered(retry(&clock, RetryPolicy::default()));
        let error = model.complete(&ChatRequest::user("?")).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.retry_after()),
            (ErrorKind::RateLimited, Some(wait))
        );
    }
    assert_eq!(clock.sleeps().len(), 1, "no absurd wait was begun");
}

#[tokio::test]
async fn the_budget_stops_a_storm_and_successes_fill_it_again() {
    let clock = FakeClock::jumping();
    let budget = RetryBudget::new(2);
    let calls = || Scripted::new((0..100).map(|_| overloaded()));
    let script = calls();
    let model = script
        .clone()
        .layered(retry(&clock, RetryPolicy::new(3)).with_budget(budget.clone()));
    for _ in 0..10 {
        assert!(model.complete(&ChatRequest::user("?")).await.is_err());
    }
    assert_eq!(
        100 - script.left(),
        10 + 2,
        "ten calls, and two retries for all of them together"
    );
    assert_eq!(budget.remaining(), 0);
    let healthy = Scripted::new((0..20).map(|_| answer()))
        .layered(Retry::new(RetryPolicy::new(3), Arc::new(clock)).with_budget(budget.clone()));
    for _ in 0..20 {
        healthy.complete(&ChatRequest::user("?")).await.unwrap();
    }
    assert_eq!(budget.remaining(), 2, "and no more than its reserve");
}

#[tokio::test]
async fn a_stream_is_tried_again_only_before_its_first_content() {
    let clock = FakeClock::jumping();
    let start = ChatEvent::Start {
        id: None,
        model: Some("m".into()),
    };
    let text = ChatEvent::TextDelta { text: "half".into() };
    let broken = |events: Vec<ChatEvent>| Turn::Break(events, error(ErrorKind::Overloaded, None));

    let script = Scripted::new([overloaded(), broken(vec![]), answer()]);
    let model = script.clone().layered(retry(&clock, RetryPolicy::default()));
    let response = model
        .stream(&ChatRequest::user("?"))
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    assert_eq!(
        (response.message.text().as_str(), &response.metadata["attempts"]),
        ("yes", &3.into())
    );

    let script = Scripted::new([broken(vec![start.clone()]), answer()]);
    let model = script.clone().layered(retry(&clock, RetryPolicy::default()));
    assert!(
        model
            .stream(&ChatRequest::user("?"))
            .await
            .unwrap()
            .collect()
            .await
            .is_ok(),
        "an announcement is no content"
    );

    let script = Scripted::new([broken(vec![start.clone(), text.clone()]), answer()]);
    let model = script.clone().layered(retry(&clock, RetryPolicy::default()));
    let mut stream = model.stream(&ChatRequest::user("?")).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), start);
    assert_eq!(stream.next().await.unwrap().unwrap(), text);
    assert_eq!(
        stream.next().await.unwrap().unwrap_err().kind(),
        ErrorKind::Overloaded
    );
    assert!(stream.next().await.is_none());
    assert_eq!(script.left(), 1, "content was handed on: no second attempt");
}

#[test]
fn delays_are_within_their_bounds_for_every_attempt() {
    let policy = RetryPolicy::new(u32::MAX);
    let healable = error(ErrorKind::Server, None);
    for retry in [0, 1, 5, 31, 32, 64, u32::MAX - 1] {
        for random in [0.0, 0.999, 1.0, 7.0, -1.0, f64::NAN] {
            let wait = policy.delay(&healable, retry, random).unwrap();
            assert!(wait <= policy.max_delay, "{retry} {random}: {wait:?}");
        }
    }
    assert_eq!(RetryPolicy::new(0).delay(&healable, 0, 0.5), None);
}
