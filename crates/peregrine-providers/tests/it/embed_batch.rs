//! The embedding batcher: fewer calls, a result for each text, and a bad one that fails alone.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use peregrine_core::{
    EmbedPurpose, EmbedRequest, EmbedResponse, EmbeddingModel, Embeddings, Error, ErrorKind, ModelInfo,
    Result, Usage,
};
use peregrine_providers::{EmbedBatchPolicy, EmbedBatcher, EmbedCache, RetryPolicy};
use peregrine_testkit::FakeClock;
use proptest::prelude::*;
use tokio::sync::Semaphore;

use crate::stage::{failure, now, poll};

/// Embeds a text as its length and first byte. A call with a text that begins with `bad` fails; with a gate, each call
/// waits for a permit.
#[derive(Clone)]
struct Lengths(Arc<Inner>);

struct Inner {
    info: ModelInfo,
    bad: Mutex<Option<Error>>,
    /// Fails this many calls, whatever is in them.
    failing: AtomicUsize,
    gate: Option<Semaphore>,
    calls: Mutex<Vec<Vec<String>>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    cancelled: AtomicUsize,
}

impl Lengths {
    fn new(gated: bool) -> Self {
        Self(Arc::new(Inner {
            info: ModelInfo::new("test", "lengths"),
            bad: Mutex::new(Some(failure(ErrorKind::InvalidRequest))),
            failing: AtomicUsize::new(0),
            gate: gated.then(|| Semaphore::new(0)),
            calls: Mutex::default(),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            cancelled: AtomicUsize::new(0),
        }))
    }

    fn calls(&self) -> Vec<Vec<String>> {
        self.0.calls.lock().unwrap().clone()
    }

    fn sizes(&self) -> Vec<usize> {
        self.calls().iter().map(Vec::len).collect()
    }

    fn permit(&self, calls: usize) {
        self.0.gate.as_ref().unwrap().add_permits(calls);
    }
}

struct UnderWay<'a>(&'a Inner, bool);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, Ordering::SeqCst);
        if !self.1 {
            self.0.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn vector(text: &str) -> [f32; 2] {
    [text.len() as f32, text.bytes().next().map_or(0.0, f32::from)]
}

impl EmbeddingModel for Lengths {
    fn info(&self) -> &ModelInfo {
        &self.0.info
    }

    async fn embed(&self, request: &EmbedRequest) -> Result<EmbedResponse> {
        let inner = &*self.0;
        inner.calls.lock().unwrap().push(request.inputs.clone());
        let at_once = inner.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        inner.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        let mut under_way = UnderWay(inner, false);
        if let Some(gate) = &inner.gate {
            gate.acquire().await.unwrap().forget();
        }
        under_way.1 = true;
        let fails = inner
            .failing
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok();
        if fails {
            return Err(failure(ErrorKind::Overloaded));
        }
        if let Some(error) = &*inner.bad.lock().unwrap()
            && request.inputs.iter().any(|input| input.starts_with("bad"))
        {
            return Err(error.clone());
        }
        let values = request.inputs.iter().flat_map(|input| vector(input)).collect();
        Ok(EmbedResponse {
            embeddings: Embeddings::new(2, values).unwrap(),
            model: "lengths".to_owned(),
            usage: Some(Usage::new(request.inputs.len() as u64, 0)),
            raw: Vec::new(),
        })
    }
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("text {n}")).collect()
}

#[test]
fn a_hundred_texts_a_call_by_default_in_order_and_each_text_once() {
    let model = Lengths::new(false);
    let batcher = EmbedBatcher::new(model.clone());
    let mut inputs = texts(250);
    inputs.extend(texts(250));
    let embedded = now(batcher.embed_each(&EmbedRequest::new(inputs.clone())));
    assert_eq!(model.sizes(), [100, 100, 50]);
    assert_eq!((embedded.calls, embedded.usage), (3, Some(Usage::new(250, 0))));
    assert_eq!(embedded.results.len(), 500);
    for (input, result) in inputs.iter().zip(&embedded.results) {
        assert_eq!(**result.as_ref().unwrap(), vector(input));
    }
    let stats = batcher.stats();
    assert_eq!(
        (stats.items, stats.duplicates, stats.calls, stats.in_flight),
        (500, 250, 3, 0)
    );
    let none = now(batcher.embed_each(&EmbedRequest::default()));
    assert_eq!(
        (none.results.len(), none.calls, none.usage),
        (0, 0, Some(Usage::default()))
    );
}

#[test]
fn tokens_bound_a_call_too() {
    let model = Lengths::new(false);
    let policy = EmbedBatchPolicy::default().with_batch(100, 10);
    let batcher = EmbedBatcher::with_policy(model.clone(), policy).with_tokens(|text| text.len() as u64);
    let inputs = ["aaaa", "bbbb", "cccc", &"d".repeat(50), "e"];
    now(batcher.embed_each(&EmbedRequest::new(inputs)));
    assert_eq!(
        model.sizes(),
        [2, 1, 1, 1],
        "a text that is too large stands alone"
    );
}

#[test]
fn batches_run_side_by_side_within_the_limit_of_the_whole_batcher() {
    let model = Lengths::new(true);
    let policy = EmbedBatchPolicy::default()
        .with_batch(1, 1_000)
        .with_concurrency(3);
    let batcher = EmbedBatcher::with_policy(model.clone(), policy);
    let (one, two) = (EmbedRequest::new(texts(5)), EmbedRequest::new(["x", "y", "z"]));
    let (mut first, mut second) = (pin!(batcher.embed_each(&one)), pin!(batcher.embed_each(&two)));
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    assert_eq!(model.calls().len(), 3);
    model.permit(8);
    let (mut a, mut b) = (None, None);
    for _ in 0..10 {
        if a.is_none() {
            a = ready(poll(&mut first));
        }
        if b.is_none() {
            b = ready(poll(&mut second));
        }
    }
    assert_eq!((a.unwrap().results.len(), b.unwrap().results.len()), (5, 3));
    assert_eq!(model.0.most_at_once.load(Ordering::SeqCst), 3);
}

fn ready<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[test]
fn a_bad_text_fails_alone_and_is_found_by_halving() {
    let kinds = [
        ErrorKind::InvalidRequest,
        ErrorKind::ContextLength,
        ErrorKind::Server,
    ];
    for kind in kinds {
        for place in [0, 37, 99] {
            let model = Lengths::new(false);
            *model.0.bad.lock().unwrap() = Some(failure(kind));
            let batcher = EmbedBatcher::new(model.clone());
            let mut inputs = texts(100);
            inputs[place] = "bad".to_owned();
            let embedded = now(batcher.embed_each(&EmbedRequest::new(inputs.clone())));
            for (at, (input, result)) in inputs.iter().zip(&embedded.results).enumerate() {
                match result {
                    Ok(found) => assert_eq!(**found, vector(input)),
                    Err(error) => assert_eq!((at, error.kind()), (place, kind)),
                }
            }
            assert!(embedded.results[place].is_err());
            assert!(embedded.calls <= 1 + 2 * 7, "{place}: {}", embedded.calls);
        }
    }
}

#[test]
fn a_failure_that_no_half_escapes_from_costs_few_calls() {
    let cases = [
        (ErrorKind::InvalidRequest, 10),
        (ErrorKind::Server, 10),
        (ErrorKind::Overloaded, 1),
        (ErrorKind::Authentication, 1),
        (ErrorKind::RateLimited, 1),
    ];
    for (kind, at_most) in cases {
        let model = Lengths::new(false);
        *model.0.bad.lock().unwrap() = Some(failure(kind));
        let batcher = EmbedBatcher::new(model.clone());
        let inputs = (0..100).map(|n| format!("bad {n}"));
        let embedded = now(batcher.embed_each(&EmbedRequest::new(inputs)));
        assert!(
            embedded
                .results
                .iter()
                .all(|r| r.as_ref().is_err_and(|e| e.kind() == kind))
        );
        assert!(embedded.calls <= at_most, "{kind}: {}", embedded.calls);
    }
    let model = Lengths::new(false);
    let batcher =
        EmbedBatcher::with_policy(model.clone(), EmbedBatchPolicy::default().with_max_extra_calls(3));
    let mut inputs = texts(100);
    inputs[3] = "bad".to_owned();
    let embedded = now(batcher.embed_each(&EmbedRequest::new(inputs)));
    assert_eq!(model.calls().len(), 3, "one, and its halves");
    assert_eq!(
        embedded.results.iter().filter(|r| r.is_err()).count(),
        50,
        "nothing is guessed"
    );
}

#[test]
fn vectors_are_cached_by_all_that_makes_them_and_errors_are_not() {
    let model = Lengths::new(false);
    let cache = EmbedCache::new(1_000, 1 << 20);
    let batcher = EmbedBatcher::new(model.clone()).with_cache(cache.clone());
    let request = EmbedRequest::new(["a", "b", "bad"]);
    assert!(now(batcher.embed_each(&request)).results[2].is_err());
    assert_eq!(cache.len(), 2);
    let calls = model.calls().len();
    *model.0.bad.lock().unwrap() = None;
    let again = now(batcher.embed_each(&request));
    assert!(again.results.iter().all(Result::is_ok));
    assert_eq!(
        (model.calls()[calls..].to_vec(), again.calls),
        (vec![vec!["bad".to_owned()]], 1)
    );
    let cached = now(batcher.embed_each(&request));
    assert_eq!((cached.calls, cached.usage), (0, Some(Usage::default())));
    for other in [
        request.clone().with_dimensions(2),
        request.with_purpose(EmbedPurpose::Query),
    ] {
        assert_eq!(now(batcher.embed_each(&other)).calls, 1, "{other:?}");
    }
    assert_eq!(batcher.stats().cached, 2 + 3);
    assert!(!format!("{batcher:?}").contains("bad"), "texts are not shown");
}

#[test]
fn texts_that_somebody_embeds_already_are_waited_for() {
    let model = Lengths::new(true);
    let batcher = EmbedBatcher::new(model.clone());
    let (one, two) = (EmbedRequest::new(["a", "b"]), EmbedRequest::new(["b", "c", "a"]));
    let (mut first, mut second) = (pin!(batcher.embed_each(&one)), pin!(batcher.embed_each(&two)));
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    assert_eq!(model.calls(), [vec!["a", "b"], vec!["c"]]);
    model.permit(2);
    let first = ready(poll(&mut first)).unwrap();
    let second = ready(poll(&mut second)).unwrap();
    assert_eq!((first.calls, second.calls), (1, 1));
    assert_eq!(**second.results[0].as_ref().unwrap(), vector("b"));
    assert_eq!(batcher.stats().coalesced, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_who_ask_for_the_same_make_one_call_even_if_some_give_up() {
    let model = Lengths::new(true);
    let batcher = Arc::new(EmbedBatcher::new(model.clone()).with_cache(EmbedCache::new(10, 1 << 20)));
    let asked: Vec<_> = (0..1_000)
        .map(|_| {
            let batcher = Arc::clone(&batcher);
            tokio::spawn(async move { batcher.embed_each(&EmbedRequest::new(["same"])).await })
        })
        .collect();
    while batcher.stats().items < 1_000 || model.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    // Whoever leads may be among them: then another one calls again.
    asked.iter().step_by(3).for_each(tokio::task::JoinHandle::abort);
    model.permit(1_000);
    let mut answered = 0;
    for task in asked {
        if let Ok(embedded) = task.await {
            assert_eq!(**embedded.results[0].as_ref().unwrap(), vector("same"));
            answered += 1;
        }
    }
    assert!(answered >= 666, "{answered}");
    // One call that was answered, and one more for each that was given up.
    let cancelled = model.0.cancelled.load(Ordering::SeqCst);
    assert_eq!(model.calls().len(), 1 + cancelled);
    assert_eq!(batcher.stats().in_flight, 0);
}

#[test]
fn if_who_embeds_a_text_goes_away_somebody_else_does_it() {
    let model = Lengths::new(true);
    let batcher = EmbedBatcher::new(model.clone());
    let request = EmbedRequest::new(["a"]);
    let mut second = pin!(batcher.embed_each(&request));
    {
        let mut first = pin!(batcher.embed_each(&request));
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        assert_eq!(model.calls().len(), 1);
    }
    assert_eq!(
        (
            model.0.cancelled.load(Ordering::SeqCst),
            batcher.stats().in_flight
        ),
        (1, 0)
    );
    assert!(poll(&mut second).is_pending());
    assert_eq!(model.calls().len(), 2);
    model.permit(1);
    assert!(ready(poll(&mut second)).unwrap().results[0].is_ok());
}

#[test]
fn calls_that_may_heal_are_tried_again_before_items_are_blamed() {
    let clock = FakeClock::jumping();
    let model = Lengths::new(false);
    model.0.failing.store(2, Ordering::SeqCst);
    let policy = RetryPolicy::new(2).with_delays(Duration::from_secs(1), Duration::from_secs(1));
    let batcher = EmbedBatcher::new(model).with_retry(policy, Arc::new(clock.clone()));
    let embedded = now(batcher.embed_each(&EmbedRequest::new(["a"])));
    assert!(embedded.results[0].is_ok());
    assert_eq!(
        (embedded.calls, batcher.stats().calls, clock.sleeps().len()),
        (3, 3, 2)
    );
}

#[test]
fn as_a_model_it_is_all_or_an_error() {
    let batcher = EmbedBatcher::new(Lengths::new(false));
    let response = now(batcher.embed(&EmbedRequest::new(["aa", "b", "aa"]))).unwrap();
    assert_eq!(
        (response.embeddings.len(), response.embeddings.dimensions()),
        (3, 2)
    );
    assert_eq!(response.embeddings.get(2), Some(&vector("aa")[..]));
    assert_eq!(
        (response.model.as_str(), response.usage),
        ("lengths", Some(Usage::new(2, 0)))
    );
    let error = now(batcher.embed(&EmbedRequest::new(["a", "bad"]))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(
        now(batcher.embed(&EmbedRequest::default()))
            .unwrap()
            .embeddings
            .is_empty()
    );
}

proptest! {
    /// Whatever is asked, with whatever bad texts and limits: each text gets its own vector, a bad one an error, and no
    /// good text fails as long as the bounds of the search are not reached.
    #[test]
    fn every_text_gets_its_own(
        inputs in proptest::collection::vec("(bad)?[a-c]{0,3}", 0..60),
        items in 1..20_usize,
        tokens in 1..60_u64,
        cached in any::<bool>(),
    ) {
        let model = Lengths::new(false);
        let policy = EmbedBatchPolicy::default().with_batch(items, tokens).with_max_extra_calls(u32::MAX);
        let mut batcher = EmbedBatcher::with_policy(model, policy).with_tokens(|text| text.len() as u64);
        if cached {
            batcher = batcher.with_cache(EmbedCache::new(5, 1 << 20));
        }
        for _ in 0..2 {
            let embedded = now(batcher.embed_each(&EmbedRequest::new(inputs.clone())));
            prop_assert_eq!(embedded.results.len(), inputs.len());
            for (input, result) in inputs.iter().zip(&embedded.results) {
                match result {
                    Ok(found) => prop_assert!(!input.starts_with("bad") && **found == vector(input)),
                    // Eight failures in a row end the search, and then good texts fail with bad ones.
                    Err(error) => prop_assert_eq!(error.kind(), ErrorKind::InvalidRequest),
                }
            }
            let bad: BTreeSet<_> = inputs.iter().filter(|input| input.starts_with("bad")).collect();
            if bad.len() <= 2 {
                let good = inputs.iter().zip(&embedded.results).filter(|(input, _)| !input.starts_with("bad"));
                prop_assert!(good.map(|(_, result)| result).all(Result::is_ok));
            }
        }
    }
}
