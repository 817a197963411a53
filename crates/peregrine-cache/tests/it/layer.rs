//! The layer: what a hit looks like, calls and streams that share one, and what is left alone.
//!
//! Long because every way of asking meets every mode, and they share one model that can be held up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use peregrine_cache::{
    CacheControl as _, CacheLayer, CachedModel, Control, DiskConfig, DiskStore, MemoryConfig, MemoryStore,
    Mode, Partition, Selector, Served, Settings, StoredAnswer, Tag, Ttl, Value as _,
};
use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, Done, Effect, Error, ErrorKind, Finish,
    JsonSchema, ModelInfo, NanoUsd, Price, PriceTable, RawResponse, Result, Scope, ToolCall, ToolSpec, Usage,
};
use tokio::sync::Semaphore;

/// A model that waits at a gate before each event and before each whole answer, and counts calls and cancellations.
#[derive(Clone)]
struct Gated(Arc<GatedInner>);

struct GatedInner {
    info: ModelInfo,
    gate: Arc<Semaphore>,
    calls: AtomicUsize,
    dropped: Arc<AtomicUsize>,
    fail_after: Option<usize>,
}

const PIECES: [&str; 4] = ["for", "ty", "-", "two"];
const USAGE: Usage = Usage::new(100, 20);

fn raw() -> RawResponse {
    RawResponse::new(
        200,
        vec![("x-request-id".to_owned(), "req-1".to_owned())],
        Vec::new(),
    )
}

fn events() -> Vec<ChatEvent> {
    let mut events = vec![ChatEvent::Start {
        id: Some("a-1".to_owned()),
        model: Some("m-2026".to_owned()),
    }];
    events.extend(PIECES.iter().map(|text| ChatEvent::TextDelta {
        text: (*text).to_owned(),
    }));
    let call = ToolCall::new("c1", "look", r#"{"at":1}"#);
    events.push(ChatEvent::ToolCallStart {
        index: 0,
        id: "c1".to_owned(),
        name: "look".to_owned(),
    });
    events.push(ChatEvent::ToolCallEnd { index: 0, call });
    events.push(ChatEvent::Usage { usage: USAGE });
    let mut done = Done::new(Finish::ToolCalls);
    done.raw = Some(raw());
    events.push(ChatEvent::Done(Box::new(done)));
    events
}

fn answer() -> ChatResponse {
    let mut fold = peregrine_core::Fold::new();
    events().into_iter().for_each(|event| fold.push(event).unwrap());
    fold.finish().unwrap()
}

struct Alive(Arc<AtomicUsize>);
impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Gated {
    fn new(permits: usize) -> Self {
        Self::failing(permits, None)
    }

    fn failing(permits: usize, fail_after: Option<usize>) -> Self {
        Self(Arc::new(GatedInner {
            info: ModelInfo::new("test", "m"),
            gate: Arc::new(Semaphore::new(permits)),
            calls: AtomicUsize::new(0),
            dropped: Arc::default(),
            fail_after,
        }))
    }

    fn open(&self, permits: usize) {
        self.0.gate.add_permits(permits);
    }

    fn calls(&self) -> usize {
        self.0.calls.load(SeqCst)
    }

    fn dropped(&self) -> usize {
        self.0.dropped.load(SeqCst)
    }
}

async fn pass(gate: &Semaphore) {
    gate.acquire().await.unwrap().forget();
}

impl ChatModel for Gated {
    fn info(&self) -> &ModelInfo {
        &self.0.info
    }

    async fn complete(&self, _: &ChatRequest) -> Result<ChatResponse> {
        self.0.calls.fetch_add(1, SeqCst);
        let _alive = Alive(self.0.dropped.clone());
        pass(&self.0.gate).await;
        if self.0.fail_after.is_some() {
            return Err(Error::truncated("on purpose"));
        }
        Ok(answer())
    }

    async fn stream(&self, _: &ChatRequest) -> Result<ChatStream> {
        self.0.calls.fetch_add(1, SeqCst);
        let alive = Alive(self.0.dropped.clone());
        let (gate, fail_after) = (self.0.gate.clone(), self.0.fail_after);
        if fail_after == Some(0) {
            return Err(Error::truncated("refused"));
        }
        let events = stream::iter(events().into_iter().enumerate()).then(move |(at, event)| {
            let _alive = &alive;
            let gate = gate.clone();
            async move {
                pass(&gate).await;
                match fail_after {
                    Some(limit) if at >= limit => Err(Error::truncated("on purpose")),
                    _ => Ok(event),
                }
            }
        });
        Ok(ChatStream::new(events))
    }
}

fn settings() -> Settings<StoredAnswer> {
    Settings::new().with_store(MemoryStore::new(&MemoryConfig::default()))
}

fn cached(model: &Gated) -> CachedModel<Gated> {
    model.clone().layered(CacheLayer::new(settings()))
}

fn request() -> ChatRequest {
    ChatRequest::user("how much?").with_scope(Scope::new("acme", "s1").unwrap())
}

async fn all(mut stream: ChatStream) -> Vec<ChatEvent> {
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event.unwrap());
    }
    events
}

/// Without what a cache adds.
fn plain(mut response: ChatResponse) -> ChatResponse {
    response.metadata.remove("cache");
    response.usage = None;
    response
}

/// Without how old the answer was, which the real clock says.
fn ageless(mut response: ChatResponse) -> ChatResponse {
    let facts = response
        .metadata
        .get_mut("cache")
        .and_then(|facts| facts.as_object_mut());
    assert!(facts.is_some_and(|facts| facts.remove("age_ms").is_some()));
    response
}

#[tokio::test]
async fn a_hit_is_the_same_answer_marked_and_used_nothing() {
    let model = Gated::new(1);
    let prices = PriceTable::new().with(
        "test",
        "m",
        Price::per_million(NanoUsd::from_cents(100), NanoUsd::from_cents(100)),
    );
    let cached = model
        .clone()
        .layered(CacheLayer::new(settings()).with_prices(prices));
    let (first, served) = cached.ask(&request()).await.unwrap();
    assert_eq!((served, Served::of(&first)), (Served::Miss, None));
    assert_eq!(first, answer());
    assert_eq!(
        first.request_id(),
        Some("req-1"),
        "what the provider sent reaches who asked"
    );
    let (again, served) = cached.ask(&request()).await.unwrap();
    assert_eq!((served, Served::of(&again)), (Served::Hit, Some(Served::Hit)));
    assert_eq!(again.usage, Some(Usage::default()));
    assert_eq!(Served::original_usage(&again), Some(USAGE));
    assert_eq!(plain(again.clone()), plain(first));
    assert_eq!(again.request_id(), None);
    let streamed = cached.stream(&request()).await.unwrap().collect().await.unwrap();
    assert_eq!(
        ageless(streamed),
        ageless(again),
        "streamed and whole are one answer"
    );
    assert_eq!(model.calls(), 1);
    let stats = cached.cache().stats();
    assert_eq!((stats.hits, stats.misses, stats.stored), (2, 1, 1));
    assert_eq!(
        (stats.tokens_saved, stats.nano_usd_saved, stats.unpriced),
        (240, 240_000, 0)
    );
    assert!(stats.bytes_served > 0 && (stats.hit_rate() - 2.0 / 3.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_stream_is_replayed_event_by_event() {
    let model = Gated::new(100);
    let cached = cached(&model);
    let live = all(cached.stream(&request()).await.unwrap()).await;
    assert_eq!(live, events());
    let Some(ChatEvent::Done(done)) = live.last() else {
        panic!()
    };
    assert!(done.raw.is_some(), "what the provider sent reaches who asked");
    let replayed = all(cached.stream(&request()).await.unwrap()).await;
    assert_eq!(replayed.len(), live.len());
    for (replayed, live) in replayed.iter().zip(&live) {
        match (replayed, live) {
            (ChatEvent::Usage { usage }, ChatEvent::Usage { .. }) => assert_eq!(*usage, Usage::default()),
            (ChatEvent::Done(replayed), ChatEvent::Done(live)) => assert_eq!(replayed.finish, live.finish),
            _ => assert_eq!(replayed, live),
        }
    }
    let whole = cached.complete(&request()).await.unwrap();
    assert_eq!(Served::of(&whole), Some(Served::Hit));
    assert_eq!(plain(whole), plain(answer()));
    assert_eq!(model.calls(), 1);
}

#[tokio::test]
async fn only_whole_streams_are_stored_and_errors_never() {
    let model = Gated::failing(100, Some(3));
    let cached = cached(&model);
    for call in 1..3 {
        let mut stream = cached.stream(&request()).await.unwrap();
        for event in &events()[..3] {
            assert_eq!(stream.next().await.unwrap().unwrap(), *event);
        }
        let error = stream.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Truncated);
        assert!(stream.next().await.is_none());
        assert_eq!(model.calls(), call);
    }
    assert!(cached.complete(&request()).await.is_err());
    let refuses = Gated::failing(100, Some(0));
    let refused = refuses
        .clone()
        .layered(cached.cache().clone())
        .stream(&request())
        .await;
    assert!(refused.is_err(), "an error before the stream is one of the call");
    assert_eq!(cached.cache().stats().stored, 0);

    let model = Gated::new(3);
    let cached = self::cached(&model);
    let mut stream = cached.stream(&request()).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    assert_eq!(
        (model.dropped(), cached.cache().in_flight()),
        (1, 0),
        "dropping the stream cancels the call"
    );
    assert_eq!(cached.cache().stats().stored, 0);
}

/// How the equal requests of a crowd are made.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Crowd {
    Calls,
    Streams,
    Both,
}

async fn one_of(crowd: Crowd, number: usize, cached: CachedModel<Gated>) -> ChatResponse {
    let streams = match crowd {
        Crowd::Calls => false,
        Crowd::Streams => true,
        Crowd::Both => number % 2 == 1,
    };
    if !streams {
        return cached.complete(&request()).await.unwrap();
    }
    let events = all(cached.stream(&request()).await.unwrap()).await;
    assert_eq!(
        events.len(),
        self::events().len(),
        "from the beginning: {events:?}"
    );
    ChatStream::from_events(events).collect().await.unwrap()
}

async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain until {what}");
}

/// All of them, one of whom begins, leads, and may leave: before there is an answer, or while it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_equal_calls_and_streams_are_one_whoever_leaves() {
    #[derive(Debug, PartialEq)]
    enum Leader {
        Stays,
        LeavesBefore,
        LeavesMeanwhile,
    }
    for crowd in [Crowd::Calls, Crowd::Streams, Crowd::Both] {
        for leader_does in [Leader::Stays, Leader::LeavesBefore, Leader::LeavesMeanwhile] {
            let model = Gated::new(0);
            let cached = cached(&model);
            let leader = tokio::spawn(one_of(crowd, 1, cached.clone()));
            until("the leader has begun", || model.calls() == 1).await;
            let asks: Vec<_> = (0..999)
                .map(|number| tokio::spawn(one_of(crowd, number, cached.clone())))
                .collect();
            until("all are there", || cached.cache().waiting() == 1_000).await;
            if leader_does == Leader::LeavesBefore {
                leader.abort();
                until("the leader has left", || cached.cache().waiting() == 999).await;
            }
            model.open(3);
            if leader_does == Leader::LeavesMeanwhile {
                leader.abort();
            }
            model.open(100);
            // Aborted meanwhile, it may have its answer all the same, or have been charged with it and gone.
            let mut answers: Vec<_> = leader.await.ok().into_iter().collect();
            for ask in asks {
                answers.push(ask.await.unwrap());
            }
            let paid = answers.iter().filter(|answer| answer.usage == Some(USAGE));
            let gone = usize::from(answers.len() == 999 && leader_does == Leader::LeavesMeanwhile);
            let paid = paid.count();
            assert!(
                paid <= 1 && paid + gone >= 1,
                "{paid} of {crowd:?} are charged, the leader {leader_does:?}"
            );
            let stats = cached.cache().stats();
            assert_eq!(
                (model.calls(), stats.misses),
                (1, 1),
                "{crowd:?}, {leader_does:?}"
            );
            let answered = stats.misses + stats.coalesced + stats.hits;
            assert!((answers.len()..=1_000).contains(&(answered as usize)));
            assert_eq!(cached.cache().in_flight(), 0);
            assert!(
                answers
                    .into_iter()
                    .all(|response| plain(response) == plain(answer()))
            );
        }
    }
}

/// The one who began it is there, but does not read; then it goes. Nobody may have been kept in mind for the charge but who
/// had the end.
#[tokio::test]
async fn a_leader_that_leaves_late_takes_no_charge_along() {
    for reads in 0..events().len() {
        let model = Gated::new(0);
        let cached = cached(&model);
        let mut leader = cached.stream(&request()).await.unwrap();
        model.open(events().len() - 1);
        for _ in 0..reads.min(events().len() - 2) {
            leader.next().await.unwrap().unwrap();
        }
        // A usage is there, and the end is not: neither of them may be told yet who is charged.
        let mut late = cached.stream(&request()).await.unwrap();
        let mut next = std::task::Context::from_waker(std::task::Waker::noop());
        while let std::task::Poll::Ready(event) = leader.poll_next_unpin(&mut next) {
            assert!(!matches!(event, Some(Ok(ChatEvent::Usage { .. }))));
        }
        let waits = tokio::spawn(one_of(Crowd::Calls, 0, cached.clone()));
        until("it waits", || cached.cache().waiting() == 3).await;
        drop(leader);
        model.open(1);
        late.next().await.unwrap().unwrap();
        let answers = [late.collect().await.unwrap(), waits.await.unwrap()];
        let paid = answers.iter().filter(|answer| answer.usage == Some(USAGE));
        assert_eq!(paid.count(), 1, "the leader had read {reads}");
        let stats = cached.cache().stats();
        assert_eq!((model.calls(), stats.misses, stats.coalesced), (1, 1, 1));
    }
}

/// An answer past its time is given to all who come, and one call replaces it, however they ask and how old they take it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_who_find_an_old_answer_refresh_it_once() {
    let clock = crate::Time::new();
    let settings = settings()
        .with_clock(clock.clone())
        .with_ttl(Ttl::After(Duration::from_secs(10)))
        .with_stale_while_revalidate(Duration::from_secs(1_000), |task| {
            tokio::spawn(task);
        });
    let model = Gated::new(1);
    let cached = model.clone().layered(CacheLayer::new(settings));
    assert_eq!(cached.ask(&request()).await.unwrap().1, Served::Miss);
    for round in 1..4 {
        clock.advance(Duration::from_secs(15));
        let asks: Vec<_> = (0..1_000)
            .map(|number| {
                let cached = cached.clone();
                tokio::spawn(async move {
                    let age = Control::new().with_max_age(Duration::from_secs(100 + number % 3));
                    let request = match number % 3 {
                        0 => request(),
                        _ => request().with_cache(&age),
                    };
                    match number % 2 {
                        0 => cached.complete(&request).await.unwrap(),
                        _ => cached.stream(&request).await.unwrap().collect().await.unwrap(),
                    }
                })
            })
            .collect();
        // The refresh ends while they still come; those who come after it find what it brought.
        model.open(1);
        for ask in asks {
            let served = Served::of(&ask.await.unwrap());
            assert!(matches!(served, Some(Served::Stale | Served::Hit)), "{served:?}");
        }
        until("it is refreshed", || cached.cache().in_flight() == 0).await;
        assert_eq!(model.calls(), round + 1, "one refresh");
        assert_eq!(cached.ask(&request()).await.unwrap().1, Served::Hit);
    }
    assert_eq!(cached.cache().stats().misses, 1);
}

#[tokio::test]
async fn who_asks_anew_shares_with_nobody() {
    let model = Gated::new(100);
    let cached = cached(&model);
    let anew = request().with_cache(&Control::new().with_mode(Mode::Write));
    let (one, two, three, four) = (
        cached.stream(&anew).await.unwrap(),
        cached.stream(&anew).await.unwrap(),
        cached.ask(&anew).await.unwrap(),
        cached.ask(&anew).await.unwrap(),
    );
    assert_eq!((three.1, four.1), (Served::Miss, Served::Miss));
    for stream in [one, two] {
        assert_eq!(stream.collect().await.unwrap().usage, Some(USAGE));
    }
    assert_eq!((model.calls(), cached.cache().stats().misses), (4, 4));
    assert_eq!(cached.ask(&request()).await.unwrap().1, Served::Hit);
}

#[tokio::test]
async fn a_late_follower_gets_the_prefix_at_once_and_then_the_live_rest() {
    let model = Gated::new(0);
    let cached = cached(&model);
    let mut leader = cached.stream(&request()).await.unwrap();
    model.open(3);
    for event in &events()[..3] {
        assert_eq!(leader.next().await.unwrap().unwrap(), *event);
    }
    let mut late = cached.stream(&request()).await.unwrap();
    for event in &events()[..3] {
        assert_eq!(late.next().await.unwrap().unwrap(), *event);
    }
    let mut next = Box::pin(late.next());
    let mut noop = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(next.as_mut().poll(&mut noop).is_pending());
    model.open(1);
    assert_eq!(
        next.await.unwrap().unwrap(),
        events()[3],
        "the follower drives the call, the leader does nothing"
    );
    drop(leader);
    model.open(100);
    let rest = all(late).await;
    assert_eq!(rest.len(), events().len() - 4);
    assert_eq!(
        rest[rest.len() - 2],
        ChatEvent::Usage { usage: USAGE },
        "who is left is charged"
    );
    assert_eq!(model.calls(), 1);
    assert_eq!(cached.ask(&request()).await.unwrap().1, Served::Hit);
}

#[tokio::test]
async fn a_stream_too_large_to_keep_goes_through_and_is_not_stored() {
    let model = Gated::new(100);
    let cached = model
        .clone()
        .layered(CacheLayer::new(settings().with_max_shared_bytes(200)));
    assert_eq!(all(cached.stream(&request()).await.unwrap()).await, events());
    assert_eq!(all(cached.stream(&request()).await.unwrap()).await, events());
    assert_eq!(model.calls(), 2);

    let model = Gated::new(0);
    let cached = model
        .clone()
        .layered(CacheLayer::new(settings().with_max_shared_bytes(200)));
    let (fast, mut slow) = (
        cached.stream(&request()).await.unwrap(),
        cached.stream(&request()).await.unwrap(),
    );
    model.open(100);
    assert_eq!(all(fast).await.len(), events().len());
    let error = slow.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResponseTooLarge, "{error}");
    assert!(slow.next().await.is_none());
}

#[tokio::test]
async fn what_is_not_for_the_cache_is_left_alone() {
    let model = Gated::new(100);
    let layer = CacheLayer::new(settings()).with_tool_effects([
        ("read", Effect::ReadOnly),
        ("pay", Effect::SideEffect),
        ("set", Effect::Idempotent),
    ]);
    let cached = model.clone().layered(layer);
    let tool = |name: &str| ToolSpec::new(name, "", JsonSchema::empty_object());
    let cases = [
        (request(), true),
        (request().with_temperature(1.0), true),
        (request().with_temperature(1.1), false),
        (request().with_temperature(f64::NAN), false),
        (request().with_tools([tool("read"), tool("set")]), true),
        (request().with_tools([tool("read"), tool("pay")]), false),
        (request().with_tools([tool("unknown")]), false),
        (request().with_cache(&Control::new().with_mode(Mode::Off)), false),
    ];
    for (request, admitted) in cases {
        let served = cached.ask(&request).await.unwrap().1;
        let expected = if admitted {
            [Served::Miss, Served::Hit]
        } else {
            [Served::Bypass; 2]
        };
        assert_eq!(
            [served, cached.ask(&request).await.unwrap().1],
            expected,
            "{request:?}"
        );
    }
    let anyway = request()
        .with_temperature(1.9)
        .with_cache(&Control::new().anyway());
    assert_eq!(cached.ask(&anyway).await.unwrap().1, Served::Miss);
    assert_eq!(cached.ask(&anyway).await.unwrap().1, Served::Hit);
    let mut wrong = request();
    wrong
        .metadata
        .insert("peregrine.cache".to_owned(), "mode=maybe".to_owned());
    assert_eq!(
        cached.ask(&wrong).await.unwrap_err().kind(),
        ErrorKind::InvalidRequest
    );
    assert_eq!(
        cached.stream(&wrong).await.unwrap_err().kind(),
        ErrorKind::InvalidRequest
    );
}

#[tokio::test]
async fn tenants_and_sessions_share_nothing_unless_told() {
    let model = Gated::new(100);
    let cached = cached(&model);
    let scopes = [
        Some(Scope::new("a", "bc").unwrap()),
        Some(Scope::new("ab", "c").unwrap()),
        Some(Scope::tenant("a").unwrap()),
        None,
    ];
    for scope in &scopes {
        let mut request = ChatRequest::user("hi");
        request.scope = scope.clone();
        assert_eq!(cached.ask(&request).await.unwrap().1, Served::Miss, "{scope:?}");
    }
    let tenants = model
        .clone()
        .layered(CacheLayer::new(settings()).with_partition(Partition::Tenant));
    let ask = |session: &str| ChatRequest::user("hi").with_scope(Scope::new("a", session).unwrap());
    assert_eq!(tenants.ask(&ask("1")).await.unwrap().1, Served::Miss);
    assert_eq!(tenants.ask(&ask("2")).await.unwrap().1, Served::Hit);

    let removed = cached
        .cache()
        .remove(&Selector::Tag(Tag::scope(&Scope::tenant("a").unwrap().key())))
        .await;
    assert_eq!(removed.unwrap(), 2, "a tenant's sessions go with it");
    let removed = cached
        .cache()
        .remove(&Selector::Tag(Tag::model("test", "m")))
        .await;
    assert_eq!(removed.unwrap(), 2);
    let labelled = request().with_cache(&Control::new().with_tag(Tag::label("docs")).with_ttl(Ttl::Never));
    assert_eq!(cached.ask(&labelled).await.unwrap().1, Served::Miss);
    assert_eq!(
        cached.ask(&request()).await.unwrap().1,
        Served::Hit,
        "what it says of the cache is not what it asks"
    );
    assert_eq!(
        cached
            .cache()
            .remove(&Selector::Tag(Tag::label("docs")))
            .await
            .unwrap(),
        1
    );
    let key = cached.cache().key(cached.info(), &request()).unwrap();
    assert_eq!(cached.ask(&request()).await.unwrap().1, Served::Miss);
    assert_eq!(cached.cache().remove(&Selector::Key(key)).await.unwrap(), 1);
}

#[tokio::test]
async fn answers_survive_on_disk_whole_and_streamed() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Settings::new().with_store(DiskStore::open(&DiskConfig::new(dir.path())).unwrap());
    let model = Gated::new(100);
    let other = ChatRequest::user("something else");
    {
        let cached = model.clone().layered(CacheLayer::new(open()));
        all(cached.stream(&request()).await.unwrap()).await;
        cached.complete(&other).await.unwrap();
    }
    let cached = model.clone().layered(CacheLayer::new(open()));
    for request in [&request(), &other] {
        let (whole, served) = cached.ask(request).await.unwrap();
        assert_eq!(served, Served::Hit);
        assert_eq!(plain(whole), plain(answer()));
    }
    let replayed = all(cached.stream(&request()).await.unwrap()).await;
    assert_eq!(replayed[..7], events()[..7], "with the events it had");
    assert_eq!(model.calls(), 2);
}

#[tokio::test]
async fn a_stream_whose_provider_says_no_usage_is_known_to_cost_nothing_when_replayed() {
    struct Silent(ModelInfo);
    impl ChatModel for Silent {
        fn info(&self) -> &ModelInfo {
            &self.0
        }
        async fn complete(&self, _: &ChatRequest) -> Result<ChatResponse> {
            Ok(ChatResponse::text("hi"))
        }
    }
    let cached = Silent(ModelInfo::new("test", "silent")).layered(CacheLayer::new(settings()));
    let live = cached.stream(&request()).await.unwrap().collect().await.unwrap();
    assert_eq!(live.usage, None);
    let replayed = cached.stream(&request()).await.unwrap().collect().await.unwrap();
    assert_eq!(replayed.usage, Some(Usage::default()));
    assert_eq!(
        ageless(replayed),
        ageless(cached.complete(&request()).await.unwrap())
    );
    assert_eq!(cached.cache().stats().unpriced, 2);
}

/// Keeps the stored forms of what is put.
#[derive(Debug, Default)]
struct Capture(std::sync::Mutex<Vec<Vec<u8>>>);

#[async_trait::async_trait]
impl peregrine_cache::Store<StoredAnswer> for Capture {
    fn get_now(
        &self,
        _: &peregrine_cache::Key,
        _: u64,
    ) -> peregrine_cache::Result<peregrine_cache::Lookup<StoredAnswer>> {
        Ok(peregrine_cache::Lookup::Miss)
    }

    async fn get(
        &self,
        _: &peregrine_cache::Key,
        _: u64,
    ) -> peregrine_cache::Result<Option<peregrine_cache::Entry<StoredAnswer>>> {
        Ok(None)
    }

    async fn put(
        &self,
        _: &peregrine_cache::Key,
        entry: &peregrine_cache::Entry<StoredAnswer>,
        _: u64,
    ) -> peregrine_cache::Result<bool> {
        self.0.lock().unwrap().push(entry.value.encode()?);
        Ok(true)
    }

    async fn remove(&self, _: &Selector) -> peregrine_cache::Result<u64> {
        Ok(0)
    }

    fn status(&self) -> peregrine_cache::StoreStatus {
        peregrine_cache::StoreStatus::new("capture")
    }
}

#[tokio::test]
async fn seeded_fuzz_of_stored_answers() {
    let store = Arc::new(Capture::default());
    let cached = Gated::new(100).layered(CacheLayer::new(Settings::new().with_store(store.clone())));
    cached.complete(&request()).await.unwrap();
    all(cached.stream(&request()).await.unwrap()).await;
    let forms = store.0.lock().unwrap().clone();
    assert_eq!(forms.len(), 2);
    for form in &forms {
        let decoded = StoredAnswer::decode(form).unwrap();
        assert_eq!(decoded.encode().unwrap(), *form, "the same bytes again");
    }
    crate::seeded_fuzz(2_000, |random| {
        let mut bytes = forms[random(2)].clone();
        crate::damage(&mut bytes, random);
        if let Err(error) = StoredAnswer::decode(&bytes) {
            assert_eq!(error.kind(), peregrine_cache::ErrorKind::Corrupt);
        }
    });
}
