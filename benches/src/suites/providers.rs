//! Around a model: what layers cost while nothing goes wrong, and how a client is found in the pool.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, ModelHandle, ModelInfo, Result, Secret, SystemClock,
};
use peregrine_providers::{
    Address, Breaker, BreakerPolicy, Credential, Fallback, Hedge, HedgePolicy, HttpConfig, Pool, Retry,
    RetryPolicy, TokioClock,
};

use crate::bench::{Group, each, floor, ours, rival};

pub(super) fn groups() -> Vec<Group> {
    vec![layers(), pool()]
}

/// Answers at once.
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

fn layers() -> Group {
    Group::new(
        "providers/layers/pass",
        "a call of a model that answers at once, through one layer or several, with nothing to do for them; the floor is the model \
         behind its handle",
        &[
            ours("retry").counted(),
            ours("breaker").counted(),
            ours("hedge").counted(),
            ours("fallback").counted(),
            ours("hedge_breaker_retry").counted(),
            floor("model").counted(),
        ],
        || {
            let retry = || Retry::new(RetryPolicy::default(), Arc::new(TokioClock));
            let breaker = || Breaker::new(BreakerPolicy::default(), Arc::new(SystemClock));
            let hedge = || Hedge::new(HedgePolicy::default(), Arc::new(TokioClock));
            let all = Ready::new().layered(hedge()).layered(breaker()).layered(retry());
            let models: [ModelHandle; 6] = [
                Ready::new().layered(retry()).into_handle(),
                Ready::new().layered(breaker()).into_handle(),
                Ready::new().layered(hedge()).into_handle(),
                Fallback::new(Ready::new()).or(Ready::new()).into_handle(),
                all.into_handle(),
                Ready::new().into_handle(),
            ];
            models
                .into_iter()
                .map(|model| {
                    let request = ChatRequest::user("Is it so?").with_temperature(0.0);
                    each(
                        move || {
                            let answer = model.complete(black_box(&request)).now_or_never();
                            answer.expect("it answers at once").unwrap()
                        },
                        |answer| assert_eq!(answer.message.text(), "yes"),
                    )
                })
                .collect()
        },
    )
}

const ADDRESSES: usize = 200;
const WANTED: usize = 117;

fn pool() -> Group {
    Group::new(
        "providers/pool/200_addresses",
        "a client is found by its address, among 200 in the pool; the rival has a map behind a lock, with text as its key and the \
         credential in the clear",
        &[ours("peregrine").counted(), rival("map_of_text").counted()],
        || {
            let pool = Pool::default();
            let address = |n: usize| {
                let key = Credential::Key(Secret::new(format!("sk-{n:040}")));
                Address::new("openai", "https://api.openai.com/v1", key).unwrap()
            };
            // What is in use is not evicted.
            let kept: Vec<_> = (0..ADDRESSES)
                .map(|n| pool.endpoint(&address(n), HttpConfig::default()).unwrap())
                .collect();
            let (wanted, config) = (address(WANTED), HttpConfig::default());
            let text = |n: usize| format!("openai|https://api.openai.com/v1|sk-{n:040}");
            let by_text: HashMap<String, Arc<usize>> =
                (0..ADDRESSES).map(|n| (text(n), Arc::new(n))).collect();
            let (by_text, key) = (Mutex::new(by_text), text(WANTED));
            vec![
                each(
                    move || pool.endpoint(black_box(&wanted), config.clone()).unwrap(),
                    move |found| assert!(found.shares_connections_with(&kept[WANTED])),
                ),
                each(
                    move || Arc::clone(&by_text.lock().unwrap()[black_box(&key)]),
                    |found| assert_eq!(**found, WANTED),
                ),
            ]
        },
    )
}
