//! Layers around real models over real sockets: who is cancelled, who is asked, and that the documented order holds.

use std::sync::Arc;
use std::time::Duration;

use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ErrorKind, ModelHandle, ModelInfo, Secret, SystemClock, Timer,
};
use peregrine_providers::wire::openai_chat::{ChatCompat, OpenAiChat};
use peregrine_providers::{
    Address, Breaker, BreakerPolicy, CircuitState, Coalesce, CoalescePolicy, Connector, Credential,
    EmbedBatcher, Fallback, Hedge, HedgePolicy, HttpConfig, Pool, Record, RemoteModel, Retry, RetryPolicy,
    complete_many,
};
use peregrine_testkit::FakeClock;
use peregrine_testkit::server::{At, Endpoint, Fault, LlmServer, Reply};

fn remote(server: &LlmServer, pool: &Pool) -> RemoteModel {
    let key = Credential::Key(Secret::new("sk-test"));
    let address = Address::new("openai", &format!("{}/v1", server.url()), key).unwrap();
    let endpoint = pool.endpoint(&address, HttpConfig::default()).unwrap();
    RemoteModel::new(
        ModelInfo::new("openai", "m"),
        Arc::new(OpenAiChat::new(ChatCompat::of_provider("openai").unwrap())),
        endpoint,
    )
    .unwrap()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("it happens within seconds")
}

fn ask() -> ChatRequest {
    ChatRequest::user("?").with_temperature(0.0)
}

/// A hedge that knows enough after one call, on a clock that is moved by hand.
fn hedged(server: &LlmServer, clock: &FakeClock) -> (Hedge, ModelHandle) {
    let policy = HedgePolicy::default()
        .with_min_samples(1)
        .with_min_delay(Duration::from_secs(5));
    let hedge = Hedge::new(policy, Arc::new(clock.clone()));
    let model = remote(server, &Pool::default()).layered(hedge.clone());
    (hedge, model.into_handle())
}

#[tokio::test]
async fn the_server_sees_the_loser_of_a_hedged_call_go() {
    for streamed in [false, true] {
        let server = LlmServer::start().await.unwrap();
        let clock = FakeClock::new();
        let (hedge, model) = hedged(&server, &clock);
        let call = async |model: ModelHandle| match streamed {
            true => model.stream(&ask()).await?.collect().await,
            false => model.complete(&ask()).await,
        };
        server.push(Reply::text("warm"));
        call(model.clone()).await.unwrap();

        server.push(Reply::text("slow").with_fault(Fault::stall(At::AfterHead)));
        server.push(Reply::text("fast"));
        let task = {
            let model = model.clone();
            tokio::spawn(async move {
                match streamed {
                    true => model.stream(&ask()).await?.collect().await,
                    false => model.complete(&ask()).await,
                }
            })
        };
        soon(server.wait_until(|counters| counters.requests == 2)).await;
        assert_eq!(hedge.stats().hedged, 0);
        clock.advance(Duration::from_secs(5));
        let response = soon(task).await.unwrap().unwrap();
        assert_eq!(response.message.text(), "fast");
        assert_eq!(response.metadata["hedged"]["answered"], "second");
        let counters = soon(server.wait_until(|counters| counters.cancelled == 1)).await;
        assert_eq!(
            (counters.requests, counters.in_flight),
            (3, 0),
            "streamed: {streamed}"
        );
    }
}

#[tokio::test]
async fn a_stream_is_never_hedged_after_its_first_content() {
    let server = LlmServer::start().await.unwrap();
    let clock = FakeClock::new();
    let (hedge, model) = hedged(&server, &clock);
    server.push(Reply::text("warm"));
    model.stream(&ask()).await.unwrap().collect().await.unwrap();
    let paused = Reply::text_pieces(["first", "second"]).with_fault(Fault::stall(At::AfterPieces(1)));
    server.push(paused);
    let mut stream = model.stream(&ask()).await.unwrap();
    loop {
        if let ChatEvent::TextDelta { text } = soon(stream.next()).await.unwrap().unwrap() {
            assert_eq!(text, "first");
            break;
        }
    }
    clock.advance(Duration::from_secs(3_600));
    let more = tokio::time::timeout(Duration::from_millis(50), stream.next()).await;
    assert!(more.is_err(), "it waits for the one call");
    assert_eq!((hedge.stats().hedged, server.counters().requests), (0, 2));
    drop(stream);
    soon(server.wait_until(|counters| counters.cancelled == 1)).await;
}

#[tokio::test]
async fn an_open_circuit_sends_nothing_and_a_dropped_probe_frees_its_place() {
    let server = LlmServer::start().await.unwrap();
    let clock = FakeClock::new();
    let policy = BreakerPolicy::default()
        .with_failure_rate(0.5, 3)
        .with_jitter(0.0);
    let breaker = Breaker::new(policy, Arc::new(clock.clone()));
    let model = remote(&server, &Pool::default())
        .layered(breaker.clone())
        .into_handle();
    server.set_reply(Reply::error(500, "down"));
    for _ in 0..3 {
        assert_eq!(
            model.complete(&ask()).await.unwrap_err().kind(),
            ErrorKind::Server
        );
    }
    for _ in 0..5 {
        assert_eq!(
            model.complete(&ask()).await.unwrap_err().kind(),
            ErrorKind::Overloaded
        );
    }
    assert_eq!(server.counters().requests, 3);
    clock.advance(Duration::from_secs(5));
    server.set_reply(Reply::text("slow").with_fault(Fault::stall(At::BeforeHead)));
    let probe = {
        let model = model.clone();
        tokio::spawn(async move { model.complete(&ask()).await })
    };
    soon(server.wait_until(|counters| counters.requests == 4)).await;
    assert!(model.complete(&ask()).await.is_err(), "one probe at a time");
    probe.abort();
    soon(server.wait_until(|counters| counters.cancelled == 1)).await;
    assert!(soon(probe).await.is_err());
    server.set_reply(Reply::text("well"));
    for _ in 0..2 {
        model.complete(&ask()).await.unwrap();
    }
    assert_eq!(breaker.stats().state, CircuitState::Closed);
}

/// One model's part of the documented order: retry, breaker, hedge, provider; each of them may be left out.
fn stack(
    model: RemoteModel,
    timer: &Arc<dyn Timer>,
    retry: bool,
    breaker: Option<Breaker>,
    hedge: bool,
) -> ModelHandle {
    let retry = retry.then(|| Retry::new(RetryPolicy::new(2), Arc::clone(timer)).with_random(|| 0.0));
    let hedge = hedge.then(|| Hedge::new(HedgePolicy::default(), Arc::clone(timer)));
    model.layered(hedge).layered(breaker).layered(retry).into_handle()
}

#[tokio::test]
async fn the_layers_compose_in_the_documented_order() {
    let (one, two) = (
        LlmServer::start().await.unwrap(),
        LlmServer::start().await.unwrap(),
    );
    let (clock, pool) = (FakeClock::jumping(), Pool::default());
    let timer: Arc<dyn Timer> = Arc::new(clock.clone());
    let policy = BreakerPolicy::default()
        .with_failure_rate(0.5, 5)
        .with_jitter(0.0);
    let breaker = Breaker::new(policy, Arc::new(FakeClock::new()));
    let first = stack(remote(&one, &pool), &timer, true, Some(breaker.clone()), true);
    let second = stack(remote(&two, &pool), &timer, true, None, true);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("exchanges.jsonl");
    let model = Fallback::new(first)
        .or(second)
        .layered(Coalesce::new(
            CoalescePolicy::default(),
            Arc::new(FakeClock::new()),
        ))
        .layered(Record::append_to(&file).unwrap())
        .into_handle();

    one.set_reply(Reply::error(503, "down"));
    two.set_reply(Reply::text("from the second"));
    let response = model.complete(&ask()).await.unwrap();
    assert_eq!(response.message.text(), "from the second");
    assert_eq!(response.metadata["answered_by"], "openai/m");
    assert_eq!(
        (one.counters().requests, two.counters().requests),
        (3, 1),
        "each attempt is seen by the circuit"
    );
    assert_eq!(breaker.stats().failures, 3);

    let shared = model.complete(&ask()).await.unwrap();
    assert_eq!(shared.metadata["shared"], true);
    assert_eq!(
        (one.counters().requests, two.counters().requests),
        (3, 1),
        "shared above the fallback"
    );

    // The circuit opens in the middle of the retries, which ends them; from then on nothing is sent to the first.
    let streamed = model.stream(&ask()).await.unwrap().collect().await.unwrap();
    assert_eq!(streamed.message.text(), "from the second");
    assert_eq!(streamed.metadata["fallbacks"][0], "openai/m: overloaded");
    assert_eq!(one.counters().requests, 5);
    assert!(matches!(breaker.stats().state, CircuitState::Open(_)));
    let other = ChatRequest::user("another").with_temperature(0.0);
    model.complete(&other).await.unwrap();
    assert_eq!((one.counters().requests, two.counters().requests), (5, 3));
    let recorded = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        recorded.lines().count(),
        4,
        "what callers saw, however many calls it took"
    );
}

#[tokio::test]
async fn every_layer_is_optional() {
    let server = LlmServer::start().await.unwrap();
    let pool = Pool::default();
    let timer: Arc<dyn Timer> = Arc::new(FakeClock::jumping());
    for bits in 0..8 {
        let breaker = Breaker::new(BreakerPolicy::default(), Arc::new(SystemClock));
        let model = stack(
            remote(&server, &pool),
            &timer,
            bits & 1 > 0,
            (bits & 2 > 0).then_some(breaker),
            bits & 4 > 0,
        );
        let whole = model.complete(&ask()).await.unwrap();
        let streamed = model.stream(&ask()).await.unwrap().collect().await.unwrap();
        assert_eq!(whole.message, streamed.message);
        let ours = ["attempts", "hedged", "answered_by", "fallbacks", "shared"];
        assert!(
            ours.iter().all(|fact| !whole.metadata.contains_key(*fact)),
            "nothing happened, nothing is said"
        );
    }
    assert_eq!(server.counters().connections, 1);
}

#[tokio::test]
async fn many_at_once_share_the_connections_of_the_entry() {
    let server = LlmServer::start().await.unwrap();
    let model = remote(&server, &Pool::default());
    let requests = (0..40).map(|n| ChatRequest::user(n.to_string()));
    let results = soon(complete_many(&model, requests, 4)).await;
    for (n, result) in results.into_iter().enumerate() {
        assert_eq!(result.unwrap().message.text(), format!("echo: {n}"));
    }
    let counters = server.counters();
    assert!(
        counters.in_flight_max <= 4 && counters.connections <= 5,
        "{counters:?}"
    );
}

#[tokio::test]
async fn a_text_that_a_real_server_refuses_fails_alone() {
    let server = LlmServer::start().await.unwrap();
    server.set_responder(|request| match request.endpoint {
        Endpoint::OpenAiEmbeddings if String::from_utf8_lossy(&request.body).contains("poison") => {
            Reply::error(400, "this input is not embedded")
        }
        _ => Reply::standard(),
    });
    let connector = Connector::new()
        .with_base_url(server.url())
        .with_api_key(Secret::new("sk-test"))
        .with_pool(Pool::default());
    let batcher = EmbedBatcher::new(connector.embedder("openai/e").unwrap());
    let mut inputs: Vec<_> = (0..150).map(|n| format!("text {n}")).collect();
    inputs[120] = "poison".to_owned();
    let embedded = soon(batcher.embed_each(&peregrine_core::EmbedRequest::new(inputs))).await;
    for (at, result) in embedded.results.iter().enumerate() {
        match result {
            Ok(vector) => assert_eq!(vector.len(), 32),
            Err(error) => assert_eq!((at, error.kind()), (120, ErrorKind::InvalidRequest)),
        }
    }
    assert!(embedded.results[120].is_err());
    assert_eq!(
        (embedded.calls, server.counters().requests),
        (embedded.calls, embedded.calls)
    );
    assert_eq!(
        embedded.raw.len() as u64,
        embedded.calls - failed_calls(&server),
        "one for each success"
    );
}

fn failed_calls(server: &LlmServer) -> u64 {
    let poisoned = |body: &[u8]| String::from_utf8_lossy(body).contains("poison");
    server
        .requests()
        .iter()
        .filter(|request| poisoned(&request.body))
        .count() as u64
}

#[tokio::test]
async fn models_of_one_name_and_address_share_what_they_have_learnt() {
    let server = LlmServer::start().await.unwrap();
    let pool = Pool::default();
    let policy = BreakerPolicy::default()
        .with_failure_rate(0.5, 4)
        .with_open_for(Duration::from_secs(3_600), Duration::from_secs(3_600));
    let connector = Connector::new()
        .with_base_url(server.url())
        .with_api_key(Secret::new("sk-test"))
        .with_pool(pool.clone())
        .with_retry(None)
        .with_hedge(HedgePolicy::default())
        .with_breaker(policy);
    server.set_reply(Reply::error(500, "down"));
    for _ in 0..4 {
        let model = connector.chat("openai/m").unwrap();
        assert_eq!(
            model.complete(&ask()).await.unwrap_err().kind(),
            ErrorKind::Server
        );
    }
    let model = connector.chat("openai/m").unwrap();
    assert_eq!(
        model.complete(&ask()).await.unwrap_err().kind(),
        ErrorKind::Overloaded
    );
    let other = connector.chat("openai/n").unwrap();
    assert_eq!(
        other.complete(&ask()).await.unwrap_err().kind(),
        ErrorKind::Server
    );
    assert_eq!((server.counters().requests, pool.stats().entries), (5, 1));
}
