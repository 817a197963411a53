//! Many requests: order, bounds, cancellation, panics.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::StreamExt as _;
use peregrine_core::{ChatModel, ChatRequest, ChatResponse, ErrorKind, ModelInfo, Result};
use peregrine_providers::{complete_many, stream_many};

use crate::stage::{Stage, failure, now, poll};

fn requests(count: usize) -> Vec<ChatRequest> {
    (0..count).map(|n| ChatRequest::user(n.to_string())).collect()
}

#[test]
fn results_come_in_the_order_of_the_requests_and_each_stands_for_itself() {
    let stage = Stage::new("m");
    let mut all = pin!(complete_many(&stage, requests(5), 2));
    assert!(poll(&mut all).is_pending());
    assert_eq!(stage.calls(), 2, "two at a time");
    stage.answer(1, "one");
    assert!(poll(&mut all).is_pending());
    assert_eq!(stage.calls(), 3);
    stage.end(2, Err(failure(ErrorKind::Server)));
    stage.answer(0, "zero");
    assert!(poll(&mut all).is_pending());
    stage.answer(4, "four");
    stage.answer(3, "three");
    let Poll::Ready(results) = poll(&mut all) else {
        panic!("all have ended");
    };
    let texts: Vec<_> = results
        .iter()
        .map(|r| r.as_ref().map(|r| r.message.text()).map_err(|e| e.kind()))
        .collect();
    let expected = [
        Ok("zero"),
        Ok("one"),
        Err(ErrorKind::Server),
        Ok("three"),
        Ok("four"),
    ];
    assert_eq!(texts, expected.map(|r| r.map(str::to_owned)));
    assert!(now(complete_many(&stage, [], 3)).is_empty());
}

#[test]
fn a_stream_gives_them_as_they_come_and_takes_requests_when_there_is_room() {
    let stage = Stage::new("m");
    let taken = AtomicUsize::new(0);
    let requests = requests(100).into_iter().inspect(|_| {
        taken.fetch_add(1, Ordering::SeqCst);
    });
    let mut many = stream_many(&stage, requests, 3);
    assert!(poll(&mut pin!(many.next())).is_pending());
    stage.answer(2, "fast");
    let (index, result) = now(many.next()).unwrap();
    assert_eq!((index, result.unwrap().message.text().as_str()), (2, "fast"));
    assert!(poll(&mut pin!(many.next())).is_pending());
    assert_eq!(
        (taken.load(Ordering::SeqCst), stage.calls(), many.in_flight()),
        (4, 4, 3)
    );
    drop(many);
    assert_eq!(
        (stage.calls(), stage.cancelled()),
        (4, 3),
        "dropped with the stream, and none begun"
    );
}

struct Panics(ModelInfo);

impl ChatModel for Panics {
    fn info(&self) -> &ModelInfo {
        &self.0
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
        let text = request.messages.last().map(|m| m.text()).unwrap_or_default();
        assert_ne!(text, "1", "an assertion of the model");
        Ok(ChatResponse::text(text))
    }
}

#[test]
fn a_panic_is_the_failure_of_one_call() {
    let model = Panics(ModelInfo::new("test", "panics"));
    let results = now(complete_many(&model, requests(3), 0));
    assert_eq!(results[0].as_ref().unwrap().message.text(), "0");
    assert_eq!(results[2].as_ref().unwrap().message.text(), "2");
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("an assertion of the model"), "{error}");
}
