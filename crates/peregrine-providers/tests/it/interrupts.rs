//! Every wait of a provider ends with an interrupt of the scope that it runs under: its connection is closed, and nothing
//! more is sent.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::{
    ChatModel as _, ChatRequest, EmbedRequest, EmbeddingModel as _, ErrorKind, ProviderError, Secret,
};
use peregrine_interrupts::{Mode, Scope, TokioTimer};
use peregrine_providers::{Connector, Retry, RetryPolicy};
use peregrine_testkit::FakeClock;
use peregrine_testkit::server::{At, Blackhole, ConnectionFault, Counters, Fault, LlmServer, Reply};

use crate::http::{model, request};
use crate::scripted::{Scripted, Turn};

const DIALECTS: [&str; 5] = [
    "openai/m",
    "openai-responses/m",
    "anthropic/m",
    "gemini/m",
    "ollama/m",
];
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs it below a scope, interrupts once it waits, and has to be told so.
async fn interrupted<T>(work: impl Future<Output = T>, waits: impl Future) {
    let scope = Scope::root("call", TokioTimer::new());
    let work = scope.run_until_stopped(work);
    let stop = async {
        waits.await;
        scope.interrupt(Mode::Immediate);
    };
    let both = async { tokio::join!(work, stop).0 };
    let ended = tokio::time::timeout(PATIENCE, both)
        .await
        .expect("it does not end");
    assert!(ended.is_err(), "it ended before it was interrupted");
}

async fn until(server: &LlmServer, wanted: impl FnMut(&Counters) -> bool) {
    let wait = server.wait_until(wanted);
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("{:?}", server.counters()));
}

/// The client has left, and the server notices.
async fn until_left(server: &LlmServer) {
    until(server, |seen| seen.in_flight == 0 && seen.open == 0).await;
}

#[tokio::test]
async fn a_call_ends_wherever_its_answer_stops() {
    for spec in DIALECTS {
        for at in [
            At::BeforeHead,
            At::AfterHead,
            At::AfterBytes(9),
            At::BeforeEndMarker,
        ] {
            for streamed in [false, true] {
                let server = LlmServer::start().await.unwrap();
                server.set_reply(Reply::text_pieces(["one ", "two"]).with_fault(Fault::stall(at)));
                let model = model(spec, &server.url());
                let request = request();
                let call = async {
                    match streamed {
                        false => model.complete(&request).await,
                        true => model.stream(&request).await?.collect().await,
                    }
                };
                interrupted(call, until(&server, |seen| seen.in_flight == 1)).await;
                until(&server, |seen| seen.cancelled == 1).await;
                until_left(&server).await;
                assert_eq!(
                    server.requests().len(),
                    1,
                    "{spec}, {at:?}: nothing is tried again"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_body_of_an_error_is_not_waited_for() {
    for spec in DIALECTS {
        let server = LlmServer::start().await.unwrap();
        server.set_reply(Reply::error(500, "no").with_fault(Fault::stall(At::AfterBytes(3))));
        let model = model(spec, &server.url());
        let request = request();
        interrupted(
            model.complete(&request),
            until(&server, |seen| seen.in_flight == 1),
        )
        .await;
        until_left(&server).await;
    }
}

#[tokio::test]
async fn a_connection_that_does_not_come_is_not_waited_for() {
    let blackhole = Blackhole::new().await.unwrap();
    let model = model("openai/m", &blackhole.url());
    let request = request();
    interrupted(
        model.complete(&request),
        tokio::time::sleep(Duration::from_millis(50)),
    )
    .await;

    let server = LlmServer::start().await.unwrap();
    server.set_connection_fault(Some(ConnectionFault::Ignore));
    let model = crate::http::model("openai/m", &server.url());
    interrupted(
        model.complete(&request),
        until(&server, |seen| seen.connections == 1),
    )
    .await;
    until_left(&server).await;
}

#[tokio::test]
async fn the_end_of_a_stream_that_is_read_on_is_not_waited_for() {
    // After the last event the rest of the body is read for a moment, so that the connection can be used again.
    let server = LlmServer::start().await.unwrap();
    let body = concat!(
        r#"data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"#,
        r#""delta":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}"#,
        "\n\ndata: [DONE]\n\n"
    );
    let reply = Reply::raw_stream("text/event-stream", vec![body.into(), ": more\n\n".into()]);
    server.set_reply(reply.with_fault(Fault::stall(At::AfterBytes(body.len() as u64))));
    let model = model("openai/m", &server.url());
    let mut stream = model.stream(&request()).await.unwrap();
    let mut ended = false;
    while !ended {
        let event = stream.next().await.unwrap().unwrap();
        ended = matches!(event, peregrine_core::ChatEvent::Done(_));
    }
    // Whether it waits at this moment or has waited long enough: whoever drops it is rid of it.
    let scope = Scope::root("call", TokioTimer::new());
    let stop = async { scope.interrupt(Mode::Immediate) };
    let both = async { tokio::join!(scope.run_until_stopped(stream.next()), stop).0 };
    let ended = tokio::time::timeout(PATIENCE, both)
        .await
        .expect("it does not end");
    assert!(!matches!(ended, Ok(Some(_))), "nothing follows the last event");
    drop(stream);
    until_left(&server).await;
}

#[tokio::test]
async fn embeddings_end_too() {
    for spec in ["openai/m", "gemini/m", "ollama/m"] {
        let server = LlmServer::start().await.unwrap();
        server.set_reply(Reply::embeddings([vec![1.0, 2.0]]).with_fault(Fault::stall(At::AfterHead)));
        let connector = Connector::new()
            .with_base_url(server.url())
            .with_api_key(Secret::new("sk-interrupts"));
        let embedder = connector.embedder(spec).unwrap();
        let request = EmbedRequest::new(["a"]);
        interrupted(
            embedder.embed(&request),
            until(&server, |seen| seen.in_flight == 1),
        )
        .await;
        until_left(&server).await;
    }
}

#[tokio::test]
async fn a_wait_for_the_next_attempt_ends_and_nothing_is_tried_again() {
    let clock = FakeClock::new();
    let mut error = ProviderError::new("test", 429, ErrorKind::RateLimited, "later");
    error.retry_after = Some(Duration::from_secs(30));
    let script = Scripted::new([Turn::Fail(error.clone().into()), Turn::Fail(error.into())]);
    let policy = RetryPolicy::new(5);
    let retry = || Retry::new(policy.clone(), Arc::new(clock.clone())).with_random(|| 0.5);
    for streamed in [false, true] {
        let model = script.clone().layered(retry());
        let request = ChatRequest::user("?");
        let call = async {
            match streamed {
                false => model.complete(&request).await,
                true => model.stream(&request).await?.collect().await,
            }
        };
        let (sleeps, left) = (clock.sleeps().len(), script.left());
        let asleep = async {
            while clock.sleeps().len() == sleeps {
                tokio::task::yield_now().await;
            }
        };
        interrupted(call, asleep).await;
        clock.advance(Duration::from_secs(3_600));
        tokio::task::yield_now().await;
        assert_eq!(script.left(), left - 1, "one attempt, and no second one");
    }
}
