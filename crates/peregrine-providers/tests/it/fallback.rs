//! Fallback: who is asked next, after what, and what the caller is told.

use std::time::Duration;

use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, Error, ErrorKind, FallbackOn, ProviderError,
};
use peregrine_providers::Fallback;

use crate::scripted::{Scripted, Turn};
use crate::stage::{failure, now};

fn fail(kind: ErrorKind) -> Scripted {
    Scripted::new([Turn::Fail(failure(kind))])
}

fn good(text: &str) -> Scripted {
    Scripted::new([Turn::Answer(ChatResponse::text(text))])
}

fn ask() -> ChatRequest {
    ChatRequest::user("?")
}

#[test]
fn the_first_answer_is_passed_on_untouched() {
    let second = good("second");
    let model = Fallback::new(good("first")).or(second.clone());
    let response = now(model.complete(&ask())).unwrap();
    assert_eq!(response, ChatResponse::text("first"));
    assert_eq!(second.left(), 1);
    assert_eq!(model.models().count(), 2);
}

#[test]
fn failures_of_a_provider_go_on_to_the_next_and_the_answer_says_so() {
    for streamed in [false, true] {
        let model = Fallback::new(fail(ErrorKind::Overloaded))
            .or(fail(ErrorKind::Authentication))
            .or(good("third"));
        let response = match streamed {
            true => now(now(model.stream(&ask())).unwrap().collect()),
            false => now(model.complete(&ask())),
        }
        .unwrap();
        assert_eq!(response.message.text(), "third");
        assert_eq!(response.metadata["answered_by"], "test/scripted");
        let before = ["test/scripted: overloaded", "test/scripted: authentication"];
        assert_eq!(response.metadata["fallbacks"], serde_json::json!(before));
    }
}

#[test]
fn a_request_that_is_wrong_in_itself_and_a_veto_stop_at_once() {
    for kind in [
        ErrorKind::InvalidRequest,
        ErrorKind::Config,
        ErrorKind::Refused,
        ErrorKind::Cancelled,
    ] {
        let second = good("never");
        let model = Fallback::new(fail(kind)).or(second.clone());
        assert_eq!(now(model.complete(&ask())).unwrap_err().kind(), kind);
        let model = Fallback::new(fail(kind)).or(second.clone());
        assert_eq!(now(model.stream(&ask())).unwrap_err().kind(), kind);
        assert_eq!(second.left(), 1, "{kind}");
    }
    let only = FallbackOn::Kinds(vec![ErrorKind::InvalidRequest]);
    let model = Fallback::new(fail(ErrorKind::InvalidRequest))
        .or(good("yes"))
        .with_fallback_on(only.clone());
    assert!(now(model.complete(&ask())).is_ok());
    let model = Fallback::new(fail(ErrorKind::Overloaded))
        .or(good("yes"))
        .with_fallback_on(only);
    assert!(
        matches!(now(model.complete(&ask())).unwrap_err(), Error::Provider(_)),
        "as it was"
    );
}

#[test]
fn when_all_fail_the_error_says_whether_and_when_it_may_heal() {
    let mut busy = ProviderError::new("test", 429, ErrorKind::RateLimited, "slow down");
    busy.retry_after = Some(Duration::from_secs(9));
    let mut sooner = busy.clone();
    sooner.retry_after = Some(Duration::from_secs(3));
    let model = Fallback::new(Scripted::new([Turn::Fail(busy.into())]))
        .or(Scripted::new([Turn::Fail(sooner.into())]))
        .or(fail(ErrorKind::InvalidRequest));
    let error = now(model.complete(&ask())).unwrap_err();
    assert_eq!(
        (error.kind(), error.retry_after(), error.is_retryable()),
        (ErrorKind::RateLimited, Some(Duration::from_secs(3)), true),
        "a substitute that cannot say it does not hide that the others may heal"
    );
    assert!(error.to_string().contains("none of 3 models") && error.to_string().contains("slow down"));
    assert!(std::error::Error::source(&error).is_some());

    let model = Fallback::new(fail(ErrorKind::Authentication)).or(fail(ErrorKind::QuotaExceeded));
    let error = now(model.complete(&ask())).unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (ErrorKind::QuotaExceeded, false)
    );
}

#[test]
fn a_stream_falls_back_only_before_its_first_content() {
    let start = ChatEvent::Start {
        id: None,
        model: Some("m".into()),
    };
    let text = ChatEvent::TextDelta { text: "half".into() };
    let broken =
        |events: Vec<ChatEvent>| Scripted::new([Turn::Break(events, failure(ErrorKind::Connection))]);

    let model = Fallback::new(broken(vec![start.clone()])).or(good("whole"));
    let response = now(now(model.stream(&ask())).unwrap().collect()).unwrap();
    assert_eq!(response.message.text(), "whole");

    let second = good("never");
    let model = Fallback::new(broken(vec![start, text])).or(second.clone());
    let error = now(now(model.stream(&ask())).unwrap().collect()).unwrap_err();
    assert_eq!((error.kind(), second.left()), (ErrorKind::Connection, 1));
}
