//! The layer around a model.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, ChatStream, Clock as _, Error, ErrorKind, Message, ModelInfo,
    ProviderError, RawResponse, Result, Scope, TransportError, Usage, tokens,
};
use peregrine_limits::{CoreTimer, Learning, Limiter, Limits, RateLimit, TokioTimer};
use tokio::time::Instant;

/// Answers what it is told to.
struct Script(ModelInfo, Mutex<VecDeque<Result<ChatResponse>>>);

impl Script {
    fn new(answers: impl IntoIterator<Item = Result<ChatResponse>>) -> Self {
        Self(
            ModelInfo::new("script", "script"),
            Mutex::new(answers.into_iter().collect()),
        )
    }
}

impl ChatModel for Script {
    fn info(&self) -> &ModelInfo {
        &self.0
    }

    async fn complete(&self, _: &ChatRequest) -> Result<ChatResponse> {
        self.1.lock().unwrap().pop_front().unwrap()
    }
}

fn raw(status: u16, headers: &[(&str, &str)]) -> RawResponse {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    RawResponse::new(status, headers, Vec::new())
}

fn answer(tokens: u64) -> Result<ChatResponse> {
    Ok(ChatResponse::text("yes").with_usage(Usage::new(tokens, 0)))
}

fn limits() -> Limits {
    Limits::new()
        .with_tokens_per_minute(6_000)
        .with_margin(1.0)
        .with_burst(Duration::from_secs(10))
}

fn limiter(limits: Limits) -> Limiter {
    Limiter::new(limits, TokioTimer::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_estimate_is_reserved_and_the_usage_settled() {
    let limiter = limiter(limits());
    let model = Script::new([answer(2_000), answer(10)]).layered(RateLimit::new(limiter.clone()));
    let request = ChatRequest::user("Why?").with_max_tokens(100);
    let estimate = tokens::estimate_request(&request) + 100;
    let began = Instant::now();
    model.complete(&request).await.unwrap();
    model.complete(&request).await.unwrap();
    // 1,000 were there; 2,000 were used, so 1,000 are owed, at 100 a second.
    let expected = Duration::from_secs_f64((1_000 + estimate) as f64 / 100.0);
    let took = began.elapsed();
    assert!(
        took >= expected && took < expected + Duration::from_millis(5),
        "{took:?}"
    );
    assert_eq!(limiter.status().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_large_never_reaches_the_model() {
    let model = Script::new([]).layered(RateLimit::new(limiter(limits())).with_count(|_| 6_001));
    let error = model.complete(&ChatRequest::user("long")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestTooLarge);
    assert!(!error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn a_429_makes_everybody_wait_and_lowers_the_rate() {
    let mut refusal = ProviderError::new("script", 429, ErrorKind::RateLimited, "slow down");
    refusal.retry_after = Some(Duration::from_secs(7));
    let limiter = limiter(limits().with_learning(Learning::new()));
    let before = limiter.status().tokens_per_minute.unwrap();
    let model = Script::new([Err(refusal.into()), answer(5)]).layered(RateLimit::new(limiter.clone()));
    let request = ChatRequest::user("Why?").with_max_tokens(20);
    assert_eq!(
        model.complete(&request).await.unwrap_err().kind(),
        ErrorKind::RateLimited
    );
    let began = Instant::now();
    model.complete(&request).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 7);
    assert!(limiter.status().tokens_per_minute.unwrap() < before);
}

#[tokio::test(start_paused = true)]
async fn headers_of_answers_and_of_streams_are_learned_from() {
    for streamed in [false, true] {
        let limiter = limiter(limits().with_learning(Learning::new()));
        let mut told = ChatResponse::text("yes").with_usage(Usage::new(3, 1));
        told.raw = Some(raw(200, &[("x-ratelimit-limit-tokens", "3000")]));
        let model = Script::new([Ok(told)]).layered(RateLimit::new(limiter.clone()));
        let request = ChatRequest::user("Why?");
        if streamed {
            model.stream(&request).await.unwrap().collect().await.unwrap();
        } else {
            model.complete(&request).await.unwrap();
        }
        assert!(
            limiter.status().tokens_per_minute.unwrap() <= 3_000.0,
            "streamed: {streamed}"
        );
        assert_eq!(limiter.status().in_flight, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_holds_its_place_until_its_end_or_until_it_is_dropped() {
    let limiter = limiter(limits().with_concurrency(1));
    let model = Script::new([answer(3), answer(3)]).layered(RateLimit::new(limiter.clone()));
    let mut stream: ChatStream = model
        .stream(&ChatRequest::user("Why?").with_max_tokens(5))
        .await
        .unwrap();
    stream.next().await.unwrap().unwrap();
    assert_eq!(limiter.status().in_flight, 1);
    drop(stream);
    assert_eq!(limiter.status().in_flight, 0);
    let stream = model
        .stream(&ChatRequest::user("Why?").with_max_tokens(5))
        .await
        .unwrap();
    stream.collect().await.unwrap();
    assert_eq!(limiter.status().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn what_never_reached_the_provider_is_refunded() {
    let unreachable: Error = TransportError::new(ErrorKind::Connect, "no route").into();
    let failures = (0..50).map(|_| Err(unreachable.clone()));
    let model = Script::new(failures.chain([answer(5)]))
        .layered(RateLimit::new(limiter(limits())).with_count(|_| 900));
    let request = ChatRequest::new([Message::user("Why?")]).with_max_tokens(100);
    let began = Instant::now();
    for _ in 0..50 {
        model.complete(&request).await.unwrap_err();
    }
    model.complete(&request).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn any_timer_of_core_will_do() {
    let clock = peregrine_testkit::FakeClock::jumping();
    let limiter = Limiter::new(limits(), CoreTimer(Arc::new(clock.clone()))).unwrap();
    let model = Script::new((0..4).map(|_| answer(500))).layered(RateLimit::new(limiter));
    for _ in 0..4 {
        let request = ChatRequest::user("Why?").with_max_tokens(490);
        model.complete(&request).await.unwrap();
    }
    // 1,000 at once, the other 1,000 at 100 a second.
    let now = clock.now().since_origin();
    assert!(
        now >= Duration::from_secs(9) && now <= Duration::from_secs(10),
        "{now:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn tenants_of_the_scope_take_turns() {
    let model = Script::new((0..20).map(|_| answer(500))).layered(RateLimit::new(limiter(limits())));
    let request = |tenant: &str| {
        ChatRequest::user("Why?")
            .with_max_tokens(490)
            .with_scope(Scope::tenant(tenant).unwrap())
    };
    let (many, few) = (request("many"), request("few"));
    let order = Mutex::new(String::new());
    let call = async |request: &ChatRequest, name: char| {
        model.complete(request).await.unwrap();
        order.lock().unwrap().push(name);
    };
    let all = futures_util::future::join_all(
        (0..8).map(|n| if n < 6 { call(&many, 'm') } else { call(&few, 'f') }),
    );
    all.await;
    let order = order.into_inner().unwrap();
    assert!(order[..6].matches('f').count() == 2, "{order}");
}
