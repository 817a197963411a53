//! The layer around a model.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, Clock as _, EmbedRequest, EmbedResponse,
    EmbeddingModel, Error, ErrorKind, Message, ModelInfo, ProviderError, RawResponse, Result, Scope,
    TransportError, Usage, tokens,
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

/// Fails as often as it is told, then answers. As a retry without waits.
struct Again(usize);

impl peregrine_core::Middleware for Again {
    async fn complete<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatResponse> {
        let mut answered = inner.complete(request).await;
        for _ in 0..self.0 {
            if answered.is_ok() {
                break;
            }
            answered = inner.complete(request).await;
        }
        answered
    }

    async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatStream> {
        let mut began = inner.stream(request).await;
        for _ in 0..self.0 {
            if began.is_ok() {
                break;
            }
            began = inner.stream(request).await;
        }
        began
    }
}

fn overloaded() -> Result<ChatResponse> {
    Err(ProviderError::new("script", 503, ErrorKind::Overloaded, "later").into())
}

#[tokio::test(start_paused = true)]
async fn inside_of_retries_too_each_attempt_has_a_turn_and_the_first_that_of_the_call() {
    for streamed in [false, true] {
        for (inside, turns) in [(false, 1), (true, 3)] {
            // As many at once as there may be, and next to nothing afterwards.
            let limits = Limits::new()
                .with_requests_per_minute(10)
                .with_margin(1.0)
                .with_burst(Duration::from_secs(60));
            let limiter = limiter(limits);
            let limit = RateLimit::new(limiter.clone());
            let model = Script::new([overloaded(), overloaded(), answer(5)])
                .layered(inside.then(|| limit.clone()))
                .layered(Again(2))
                .layered(limit);
            let request = ChatRequest::user("Why?");
            if streamed {
                model.stream(&request).await.unwrap().collect().await.unwrap();
            } else {
                model.complete(&request).await.unwrap();
            }
            assert_eq!(limiter.status().in_flight, 0);
            let mut left = 0;
            while tokio::time::timeout(Duration::ZERO, limiter.acquire(peregrine_limits::Ask::tokens(0)))
                .await
                .is_ok()
            {
                left += 1;
            }
            assert_eq!(10 - left, turns, "streamed: {streamed}, inside: {inside}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_inside_of_retries_stops_everybody_before_the_call_has_ended() {
    let limiter = limiter(limits());
    let limit = RateLimit::new(limiter.clone());
    let mut refusal = ProviderError::new("script", 429, ErrorKind::RateLimited, "slow down");
    refusal.retry_after = Some(Duration::from_secs(7));
    let model = Script::new([Err(refusal.into()), answer(5), answer(5)])
        .layered(limit.clone())
        .layered(Again(1))
        .layered(limit);
    let request = ChatRequest::user("Why?").with_max_tokens(20);
    let began = Instant::now();
    let (first, second) = tokio::join!(model.complete(&request), async {
        tokio::task::yield_now().await;
        model.complete(&request).await
    });
    first.unwrap();
    second.unwrap();
    assert_eq!(began.elapsed().as_secs(), 7);
    assert_eq!(limiter.status().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn limits_in_limits_each_have_their_own_turn() {
    let (whole, of_model) = (limiter(limits()), limiter(limits().with_concurrency(1)));
    let [outer, inner] = [&whole, &of_model].map(|limiter| RateLimit::new(limiter.clone()));
    // Each of them around and inside of the retries.
    let model = Script::new([overloaded(), answer(5)])
        .layered(inner.clone())
        .layered(outer.clone())
        .layered(Again(1))
        .layered(inner)
        .layered(outer);
    model.complete(&ChatRequest::user("Why?")).await.unwrap();
    assert_eq!((whole.status().in_flight, of_model.status().in_flight), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_in_the_middle_counts_for_what_has_come() {
    // 1,000 at once; 100 a second.
    let limiter = limiter(limits());
    let layer = RateLimit::new(limiter.clone()).with_count(|_| 100);
    let model = Script::new([Ok(ChatResponse::text("x".repeat(400)))]).layered(layer);
    let request = ChatRequest::user("Why?").with_max_tokens(900);
    let mut stream = model.stream(&request).await.unwrap();
    while let Some(event) = stream.next().await {
        if matches!(event.unwrap(), ChatEvent::TextDelta { .. }) {
            break;
        }
    }
    drop(stream);
    let began = Instant::now();
    // 100 of the prompt and 100 of the answer; of 612 that were reserved.
    limiter
        .acquire(peregrine_limits::Ask::tokens(800))
        .await
        .unwrap()
        .settle(800);
    assert_eq!(began.elapsed(), Duration::ZERO);
    limiter
        .acquire(peregrine_limits::Ask::tokens(1))
        .await
        .unwrap()
        .settle(1);
    assert!(began.elapsed() > Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_was_held_back_or_declined_takes_no_tokens() {
    let held: Error = peregrine_core::Unavailable::new(ErrorKind::Overloaded, "the circuit is open")
        .with_retry_after(Duration::from_secs(60))
        .into();
    let invalid: Error = ProviderError::new("script", 400, ErrorKind::InvalidRequest, "no such tool").into();
    let failures = (0..20).map(|n| Err(if n % 2 == 0 { held.clone() } else { invalid.clone() }));
    let model = Script::new(failures.chain([answer(5)]))
        .layered(RateLimit::new(limiter(limits())).with_count(|_| 900));
    let request = ChatRequest::user("Why?").with_max_tokens(100);
    let began = Instant::now();
    for _ in 0..20 {
        model.complete(&request).await.unwrap_err();
    }
    model.complete(&request).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_guess_about_the_answer_is_no_reason_to_refuse() {
    let limiter = limiter(Limits::new().with_tokens_per_minute(100));
    let model = Script::new([answer(50)]).layered(RateLimit::new(limiter).with_count(|_| 50));
    model.complete(&ChatRequest::user("Why?")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn embeddings_are_within_the_same_limits() {
    struct Vectors(ModelInfo);
    impl EmbeddingModel for Vectors {
        fn info(&self) -> &ModelInfo {
            &self.0
        }
        async fn embed(&self, request: &EmbedRequest) -> Result<EmbedResponse> {
            Ok(EmbedResponse {
                embeddings: peregrine_core::Embeddings::new(1, vec![0.0; request.inputs.len()]).unwrap(),
                model: "vectors".to_owned(),
                usage: Some(Usage::new(2_000, 0)),
                raw: Vec::new(),
            })
        }
    }
    let limiter = limiter(limits());
    let limit = RateLimit::new(limiter.clone());
    let model = limit.embedder(Vectors(ModelInfo::new("script", "vectors")));
    let request = EmbedRequest::new(["x".repeat(400), "y".repeat(400)]);
    let began = Instant::now();
    model.embed(&request).await.unwrap();
    model.embed(&request).await.unwrap();
    // 1,000 were there, 2,000 were used, 200 are asked for, at 100 a second.
    assert_eq!(began.elapsed().as_secs(), 12);
    assert_eq!(limiter.status().in_flight, 0);
}
