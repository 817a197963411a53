//! What the layers cost when nothing goes wrong, over a model that answers at once; and what finding an entry of the
//! pool costs, beside a map under a lock with text as its key.
//!
//! `cargo bench -p peregrine-providers --features http --bench layers`

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "made by criterion's macros")]

use std::collections::HashMap;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use criterion::{Criterion, criterion_group, criterion_main};
use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, EmbedRequest, EmbedResponse, EmbeddingModel, Embeddings, ModelInfo,
    Result, Secret, SystemClock,
};
use peregrine_providers::{
    Address, Breaker, BreakerPolicy, Coalesce, CoalescePolicy, Connector, Credential, EmbedBatcher,
    EmbedCache, Fallback, Hedge, HedgePolicy, HttpConfig, Pool, Retry, RetryPolicy, TokioClock,
    complete_many,
};

/// Answers at once with the same text.
#[derive(Clone)]
struct Ready(ModelInfo, ChatResponse);

impl Ready {
    fn new() -> Self {
        Self(ModelInfo::new("bench", "ready"), ChatResponse::text("yes"))
    }
}

impl ChatModel for Ready {
    fn info(&self) -> &ModelInfo {
        &self.0
    }

    async fn complete(&self, _: &ChatRequest) -> Result<ChatResponse> {
        Ok(self.1.clone())
    }
}

/// Embeds at once.
struct ReadyVectors(ModelInfo);

impl ReadyVectors {
    fn new() -> Self {
        Self(ModelInfo::new("bench", "vectors"))
    }
}

impl EmbeddingModel for ReadyVectors {
    fn info(&self) -> &ModelInfo {
        &self.0
    }

    async fn embed(&self, request: &EmbedRequest) -> Result<EmbedResponse> {
        Ok(EmbedResponse {
            embeddings: Embeddings::new(256, vec![0.5; 256 * request.inputs.len()]).unwrap(),
            model: "ready".to_owned(),
            usage: None,
            raw: Vec::new(),
        })
    }
}

fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it answers at once"),
    }
}

fn layers(c: &mut Criterion) {
    let request = ChatRequest::user("Is it so?").with_temperature(0.0);
    let breaker = || Breaker::new(BreakerPolicy::default(), Arc::new(SystemClock));
    let hedge = || Hedge::new(HedgePolicy::default(), Arc::new(TokioClock));
    let retry = || Retry::new(RetryPolicy::default(), Arc::new(TokioClock));
    let coalesce = || Coalesce::new(CoalescePolicy::default(), Arc::new(SystemClock));
    let mut group = c.benchmark_group("layers/complete/pass");
    macro_rules! bench {
        ($name:literal, $model:expr) => {{
            let model = $model;
            assert_eq!(now(model.complete(&request)).unwrap().message.text(), "yes");
            group.bench_function($name, |b| {
                b.iter(|| now(model.complete(black_box(&request))).unwrap())
            });
        }};
    }
    bench!("bare", Ready::new());
    bench!("handle", Ready::new().into_handle());
    bench!("none", Ready::new().layered(None::<Breaker>));
    bench!("retry", Ready::new().layered(retry()));
    bench!("breaker", Ready::new().layered(breaker()));
    bench!("hedge", Ready::new().layered(hedge()));
    bench!("fallback", Fallback::new(Ready::new()).or(Ready::new()));
    bench!(
        "hedge_breaker_retry",
        Ready::new().layered(hedge()).layered(breaker()).layered(retry())
    );
    bench!("coalesce", Ready::new().layered(coalesce()));
    group.finish();

    let mut group = c.benchmark_group("layers/stream/pass");
    let handle = Ready::new().into_handle();
    let hedged = Ready::new()
        .layered(hedge())
        .layered(breaker())
        .layered(retry())
        .into_handle();
    for (name, model) in [("handle", handle), ("hedge_breaker_retry", hedged)] {
        group.bench_function(name, |b| {
            b.iter(|| now(async { model.stream(black_box(&request)).await?.collect().await }).unwrap())
        });
    }
    group.finish();
}

fn pool(c: &mut Criterion) {
    let pool = Pool::default();
    let address = |n: usize| {
        let key = Credential::Key(Secret::new(format!("sk-{n:040}")));
        Address::new("openai", "https://api.openai.com/v1", key).unwrap()
    };
    let addresses: Vec<_> = (0..200).map(address).collect();
    let kept: Vec<_> = addresses
        .iter()
        .map(|address| pool.endpoint(address, HttpConfig::default()).unwrap())
        .collect();
    let fresh = address(117);
    let found = pool.endpoint(&fresh, HttpConfig::default()).unwrap();
    assert!(found.shares_connections_with(&kept[117]));
    let config = HttpConfig::default();
    let mut group = c.benchmark_group("pool/lookup/200");
    group.bench_function("kept_address", |b| {
        b.iter(|| pool.endpoint(black_box(&addresses[117]), config.clone()).unwrap())
    });
    group.bench_function("equal_address", |b| {
        b.iter(|| pool.endpoint(black_box(&fresh), config.clone()).unwrap())
    });
    group.bench_function("new_address", |b| {
        b.iter(|| pool.endpoint(&address(black_box(117)), config.clone()).unwrap())
    });
    let connector = Connector::new()
        .with_base_url("https://api.openai.com/v1")
        .with_api_key(Secret::new("sk-1"))
        .with_pool(pool.clone());
    let model = connector.chat("openai/gpt-4o").unwrap();
    group.bench_function("connector_chat", |b| {
        b.iter(|| connector.chat(black_box("openai/gpt-4o")).unwrap())
    });
    drop(model);
    // What one would write first: the key in the clear, as text.
    let text = |n: usize| format!("openai|https://api.openai.com/v1|sk-{n:040}");
    let naive: HashMap<String, Arc<usize>> = (0..200).map(|n| (text(n), Arc::new(n))).collect();
    let naive = Mutex::new(naive);
    let key = text(117);
    group.bench_function("naive_map_of_text", |b| {
        b.iter(|| Arc::clone(&naive.lock().unwrap()[black_box(&key)]))
    });
    group.finish();
}

fn batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch");
    let requests: Vec<_> = (0..100).map(|n| ChatRequest::user(n.to_string())).collect();
    let model = Ready::new();
    group.bench_function("complete_many/100x8/ours", |b| {
        b.iter(|| now(complete_many(&model, requests.iter().cloned(), 8)).len())
    });
    group.bench_function("complete_many/100/loop", |b| {
        b.iter(|| {
            let answers = requests.iter().map(|request| now(model.complete(request)));
            answers.collect::<Vec<_>>().len()
        })
    });
    let texts = EmbedRequest::new((0..100).map(|n| format!("some text of a usual length, number {n}")));
    let vectors = ReadyVectors::new();
    let plain = EmbedBatcher::new(ReadyVectors::new());
    let cached = EmbedBatcher::new(ReadyVectors::new()).with_cache(EmbedCache::new(1_000, 16 << 20));
    assert_eq!(now(cached.embed_each(&texts)).calls, 1);
    assert_eq!(now(cached.embed_each(&texts)).calls, 0);
    group.bench_function("embed/100/model", |b| {
        b.iter(|| now(vectors.embed(black_box(&texts))).unwrap())
    });
    group.bench_function("embed/100/batcher", |b| {
        b.iter(|| now(plain.embed_each(black_box(&texts))))
    });
    group.bench_function("embed/100/cached", |b| {
        b.iter(|| now(cached.embed_each(black_box(&texts))))
    });
    group.finish();
}

criterion_group!(benches, layers, pool, batches);
criterion_main!(benches);
