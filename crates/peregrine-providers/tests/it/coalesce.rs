//! Equal small requests: which share a call, for how long, and what they are told.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ErrorKind, Message, Scope, Usage};
use peregrine_providers::{Coalesce, CoalescePolicy};
use peregrine_testkit::FakeClock;

use crate::stage::{Stage, failure, now, poll};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn setup(policy: CoalescePolicy) -> (FakeClock, Stage, Coalesce, impl ChatModel) {
    let (clock, stage) = (FakeClock::new(), Stage::new("m"));
    let layer = Coalesce::new(policy, Arc::new(clock.clone()));
    let model = stage.clone().layered(layer.clone());
    (clock, stage, layer, model)
}

fn exact(text: &str) -> ChatRequest {
    ChatRequest::user(text).with_temperature(0.0)
}

#[test]
fn equal_requests_in_the_window_share_one_call_and_one_bill() {
    let (clock, stage, layer, model) = setup(CoalescePolicy::default());
    let mut labelled = exact("2 + 2?");
    labelled.metadata.insert("trace".into(), "17".into());
    let plain = exact("2 + 2?");
    let (mut first, mut second) = (pin!(model.complete(&plain)), pin!(model.complete(&labelled)));
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    assert_eq!(stage.calls(), 1, "a label is no part of what is asked");
    let answer = ChatResponse::text("4").with_usage(Usage::new(9, 1));
    stage.end(0, Ok(answer.clone()));
    assert!(
        poll(&mut second).is_pending(),
        "who makes the call has not been polled yet"
    );
    let Poll::Ready(Ok(own)) = poll(&mut first) else {
        panic!("it is answered")
    };
    assert_eq!(own, answer, "untouched");
    let Poll::Ready(Ok(shared)) = poll(&mut second) else {
        panic!("so is this one")
    };
    assert_eq!(
        (shared.message.text(), shared.usage),
        ("4".into(), Some(Usage::default()))
    );
    assert_eq!(shared.metadata["shared"], true);

    clock.advance(MS(49));
    assert_eq!(
        now(model.complete(&plain)).unwrap().metadata["shared"],
        true,
        "the window is still open"
    );
    clock.advance(MS(1));
    let mut later = pin!(model.complete(&plain));
    assert!(poll(&mut later).is_pending());
    assert_eq!(stage.calls(), 2, "a new window, a new call");
    let stats = layer.stats();
    assert_eq!(
        (stats.calls, stats.shared, stats.passed, stats.windows),
        (2, 2, 0, 1)
    );
}

#[test]
fn what_is_not_the_same_or_not_exact_is_not_shared() {
    let (_, stage, layer, model) = setup(CoalescePolicy::default());
    let scoped = |session| exact("?").with_scope(Scope::new("acme", session).unwrap());
    let requests = [
        exact("?"),
        exact("!"),
        exact("?").with_max_tokens(5),
        scoped("a"),
        scoped("b"),
        ChatRequest::new([Message::system("?"), Message::user("?")]).with_temperature(0.0),
    ];
    let mut calls: Vec<_> = requests
        .iter()
        .map(|request| Box::pin(model.complete(request)))
        .collect();
    calls
        .iter_mut()
        .for_each(|call| assert!(poll(&mut call.as_mut()).is_pending()));
    assert_eq!((stage.calls(), layer.stats().passed), (6, 0));

    let passed = [
        ChatRequest::user("?"),
        ChatRequest::user("?").with_temperature(0.7),
        exact(&"x".repeat(9_000)),
    ];
    for request in &passed {
        let before = stage.calls();
        let (mut one, mut two) = (pin!(model.complete(request)), pin!(model.complete(request)));
        assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending());
        assert_eq!(stage.calls() - before, 2);
    }
    let request = exact("?");
    let mut stream = pin!(model.stream(&request));
    assert!(poll(&mut stream).is_pending());
    assert_eq!(layer.stats().passed, 7);

    let (_, stage, _, model) = setup(CoalescePolicy::default().with_any_temperature());
    let request = ChatRequest::user("?");
    let (mut one, mut two) = (pin!(model.complete(&request)), pin!(model.complete(&request)));
    assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending());
    assert_eq!(stage.calls(), 1, "asked for");
}

#[test]
fn a_failure_is_told_to_who_waits_and_forgotten() {
    let (_, stage, layer, model) = setup(CoalescePolicy::default());
    let request = exact("?");
    let (mut one, mut two) = (pin!(model.complete(&request)), pin!(model.complete(&request)));
    assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending());
    stage.end(0, Err(failure(ErrorKind::Overloaded)));
    for call in [&mut one, &mut two] {
        let Poll::Ready(Err(error)) = poll(call) else {
            panic!("it failed")
        };
        assert_eq!(error.kind(), ErrorKind::Overloaded);
    }
    assert_eq!(layer.stats().windows, 0);
    let mut again = pin!(model.complete(&request));
    assert!(poll(&mut again).is_pending());
    assert_eq!(stage.calls(), 2);
}

#[test]
fn if_who_makes_the_call_goes_away_somebody_else_makes_it() {
    let (_, stage, _, model) = setup(CoalescePolicy::default());
    let request = exact("?");
    let mut others: Vec<_> = (0..3).map(|_| Box::pin(model.complete(&request))).collect();
    {
        let mut first = pin!(model.complete(&request));
        assert!(poll(&mut first).is_pending());
        others
            .iter_mut()
            .for_each(|call| assert!(poll(&mut call.as_mut()).is_pending()));
        assert_eq!(stage.calls(), 1);
    }
    others
        .iter_mut()
        .for_each(|call| assert!(poll(&mut call.as_mut()).is_pending()));
    assert_eq!((stage.calls(), stage.cancelled()), (2, 1));
    stage.answer(1, "yes");
    for call in &mut others {
        assert!(matches!(poll(&mut call.as_mut()), Poll::Ready(Ok(_))));
    }
}

#[test]
fn windows_are_bounded_and_large_answers_are_not_kept() {
    let (clock, stage, layer, model) = setup(CoalescePolicy::default().with_bounds(8 << 10, 2));
    let requests: Vec<_> = (0..4).map(|n| exact(&n.to_string())).collect();
    let mut calls: Vec<_> = requests
        .iter()
        .map(|request| Box::pin(model.complete(request)))
        .collect();
    calls
        .iter_mut()
        .for_each(|call| assert!(poll(&mut call.as_mut()).is_pending()));
    assert_eq!(
        (layer.stats().windows, layer.stats().passed, stage.calls()),
        (2, 2, 4)
    );
    stage.answer(0, &"long ".repeat(20_000));
    assert!(poll(&mut calls[0].as_mut()).is_ready());
    let mut again = pin!(model.complete(&requests[0]));
    assert!(poll(&mut again).is_pending(), "it was not kept");
    clock.advance(MS(60));
    let mut later = pin!(model.complete(&requests[3]));
    assert!(poll(&mut later).is_pending());
    assert_eq!(layer.stats().windows, 1, "closed windows make room");
}

#[test]
fn one_layer_around_several_models_never_mixes_their_answers() {
    let layer = Coalesce::new(CoalescePolicy::default(), Arc::new(FakeClock::new()));
    let (one, other) = (Stage::new("one"), Stage::new("other"));
    let [first, second] = [&one, &other].map(|stage| stage.clone().layered(layer.clone()));
    let request = exact("who are you?");
    let (mut of_one, mut of_other) = (pin!(first.complete(&request)), pin!(second.complete(&request)));
    assert!(poll(&mut of_one).is_pending() && poll(&mut of_other).is_pending());
    assert_eq!((one.calls(), other.calls()), (1, 1));
    one.answer(0, "one");
    other.answer(0, "other");
    let Poll::Ready(Ok(answer)) = poll(&mut of_one) else {
        panic!("it is answered")
    };
    assert_eq!(answer.message.text(), "one");
    let Poll::Ready(Ok(answer)) = poll(&mut of_other) else {
        panic!("so is this one")
    };
    assert_eq!(answer.message.text(), "other");
}
