//! All layers in the documented order, around a real HTTP client and a server that fails as it is told:
//! telemetry, cache with single flight, limit, retry, hedge, the limit once more, provider.
//!
//! Each test shows for one layer that it does its work in its place, for whole answers and for streams. What a layer
//! costs is read from the limiter, whose clock stands still or is moved by hand: whatever was taken is missing.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_core::Stream;
use peregrine::core::{Middleware, Timer, Usage};
use peregrine::providers::{Hedge, HedgePolicy, Pool, Retry, RetryPolicy};
use peregrine::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, Connector, ErrorKind, ModelHandle, Result,
    Secret,
};
use peregrine_cache::{CacheLayer, MemoryConfig, MemoryStore, Served, Settings};
use peregrine_limits::{Ask, CoreTimer, Limiter, Limits, RateLimit};
use peregrine_testkit::FakeClock;
use peregrine_testkit::server::{self, At, Fault, LlmServer, Reply};

/// What there is of everything that a test counts. The burst is a minute, so all of it is there at once.
const THERE: u64 = 2_000;
/// After how long a call takes unusually long. In twice that time the limit gives less than one of what it counts.
const UNUSUAL: Duration = Duration::from_millis(5);
const USAGE: Usage = Usage::new(40, 10);

/// What a caller got.
#[derive(Debug, Clone, PartialEq)]
struct Saw {
    served: Option<Served>,
    usage: Option<Usage>,
}

/// Telemetry: looks, and changes nothing.
#[derive(Debug, Clone, Default)]
struct Observe(Arc<Mutex<Vec<Result<Saw, ErrorKind>>>>);

impl Observe {
    fn note(&self, saw: Result<Saw, ErrorKind>) {
        self.0.lock().unwrap().push(saw);
    }

    fn saw(&self) -> Vec<Result<Saw, ErrorKind>> {
        self.0.lock().unwrap().clone()
    }

    /// How many calls were answered so.
    fn served(&self, how: Served) -> usize {
        let is = |saw: &Result<Saw, ErrorKind>| saw.as_ref().is_ok_and(|saw| saw.served == Some(how));
        self.saw().iter().filter(|saw| is(saw)).count()
    }

    /// What all calls used, as a bill would add it up.
    fn used(&self) -> Usage {
        let usages = self.saw().into_iter().flatten().filter_map(|saw| saw.usage);
        usages.fold(Usage::default(), |sum, usage| sum + usage)
    }
}

impl Middleware for Observe {
    async fn complete<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatResponse> {
        let answered = inner.complete(request).await;
        self.note(match &answered {
            Ok(response) => Ok(Saw {
                served: Served::of(response),
                usage: response.usage,
            }),
            Err(error) => Err(error.kind()),
        });
        answered
    }

    async fn stream<M: ChatModel>(&self, inner: &M, request: &ChatRequest) -> Result<ChatStream> {
        match inner.stream(request).await {
            Ok(events) => Ok(ChatStream::new(Observed {
                events,
                observe: self.clone(),
                usage: None,
            })),
            Err(error) => {
                self.note(Err(error.kind()));
                Err(error)
            }
        }
    }
}

struct Observed {
    events: ChatStream,
    observe: Observe,
    usage: Option<Usage>,
}

impl Stream for Observed {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(Pin::new(&mut self.events).poll_next(cx));
        match &next {
            Some(Ok(ChatEvent::Usage { usage })) => self.usage = Some(*usage),
            Some(Ok(ChatEvent::Done(done))) => {
                // The mark of the cache is in the metadata of the end.
                let mut end = ChatResponse::text("");
                end.metadata.clone_from(&done.metadata);
                self.observe.note(Ok(Saw {
                    served: Served::of(&end),
                    usage: self.usage,
                }));
            }
            Some(Ok(_)) | None => {}
            Some(Err(error)) => self.observe.note(Err(error.kind())),
        }
        Poll::Ready(next)
    }
}

/// Which layers there are.
#[derive(Debug, Clone, Copy)]
struct With {
    telemetry: bool,
    cache: bool,
    limit: bool,
    retry: bool,
    hedge: bool,
    limit_inside: bool,
}

const ALL: With = With {
    telemetry: true,
    cache: true,
    limit: true,
    retry: true,
    hedge: true,
    limit_inside: true,
};

/// The whole stack, and what is in it.
struct Stack {
    server: LlmServer,
    model: ModelHandle,
    observe: Observe,
    limiter: Limiter,
    hedge: Hedge,
    /// The time of the limit, the retries and the hedge.
    clock: FakeClock,
}

/// What the limiter counts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Counting {
    Requests,
    Tokens,
}

impl Stack {
    async fn new(counting: Counting, clock: FakeClock) -> Self {
        let server = LlmServer::start().await.unwrap();
        server.set_reply(reply("yes"));
        Self::around(server, counting, clock, ALL)
    }

    fn around(server: LlmServer, counting: Counting, clock: FakeClock, with: With) -> Self {
        let timer: Arc<dyn Timer> = Arc::new(clock.clone());
        let limits = match counting {
            Counting::Requests => Limits::new().with_requests_per_minute(THERE),
            Counting::Tokens => Limits::new().with_tokens_per_minute(THERE),
        };
        let limits = limits.with_margin(1.0).with_burst(Duration::from_secs(60));
        let limiter = Limiter::new(limits, CoreTimer(timer.clone())).unwrap();
        let limit = RateLimit::new(limiter.clone());
        let policy = HedgePolicy::default().with_min_samples(1).with_min_delay(UNUSUAL);
        let hedge = Hedge::new(policy, timer.clone());
        let observe = Observe::default();
        let memory = MemoryStore::new(&MemoryConfig::default());
        let provider = Connector::new()
            .with_base_url(server.url())
            .with_api_key(Secret::new("sk-test"))
            .with_pool(Pool::default())
            .with_retry(None)
            .chat("openai/m")
            .unwrap();
        let retry = Retry::new(RetryPolicy::new(2), timer).with_random(|| 0.0);
        let model = provider
            .layered(with.limit_inside.then(|| limit.clone()))
            .layered(with.hedge.then(|| hedge.clone()))
            .layered(with.retry.then_some(retry))
            .layered(with.limit.then_some(limit));
        // The cache is a layer with a type of its own, so `Option` does not make it one that may be missing.
        let model = match with.cache {
            true => model
                .layered(CacheLayer::new(Settings::new().with_store(memory)))
                .into_handle(),
            false => model.into_handle(),
        };
        let model = model
            .layered(with.telemetry.then(|| observe.clone()))
            .into_handle();
        Self {
            server,
            model,
            observe,
            limiter,
            hedge,
            clock,
        }
    }

    async fn ask(&self, text: &str, streamed: bool) -> Result<ChatResponse> {
        soon(ask(self.model.clone(), text.to_owned(), streamed)).await
    }

    /// How much was taken from the limiter. Takes the rest.
    fn taken(&self) -> u64 {
        assert_eq!(self.limiter.status().in_flight, 0, "nothing is held");
        THERE - self.take_all()
    }

    /// Takes all that is there, and says how much it was.
    fn take_all(&self) -> u64 {
        let mut all = 0;
        loop {
            let mut one = pin!(self.limiter.acquire(Ask::tokens(1)));
            match one.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(permit) => permit.unwrap().settle(1),
                Poll::Pending => return all,
            }
            all += 1;
        }
    }

    fn calls(&self) -> u64 {
        self.server.counters().requests
    }
}

async fn ask(model: ModelHandle, text: String, streamed: bool) -> Result<ChatResponse> {
    // What an answer is expected to have is the same each time.
    let request = ChatRequest::user(text).with_max_tokens(10);
    match streamed {
        true => model.stream(&request).await?.collect().await,
        false => model.complete(&request).await,
    }
}

fn reply(text: &str) -> Reply {
    Reply::text(text).with_usage(server::Usage::new(40, 10))
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .expect("it happens within seconds")
}

/// What is true at some time soon.
async fn until(what: &str, done: impl Fn() -> bool) {
    let waited = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(60), waited)
            .await
            .is_ok(),
        "{what}"
    );
}

#[tokio::test]
async fn a_hit_costs_nothing_below_and_telemetry_sees_it() {
    for streamed in [false, true] {
        for (counting, taken) in [(Counting::Requests, 1), (Counting::Tokens, USAGE.total_tokens())] {
            let stack = Stack::new(counting, FakeClock::new()).await;
            let first = stack.ask("Why?", streamed).await.unwrap();
            let again = stack.ask("Why?", streamed).await.unwrap();
            assert_eq!(first.message, again.message);
            assert_eq!((stack.calls(), stack.taken()), (1, taken));
            assert_eq!(stack.hedge.stats().calls, 1, "a hit is no call to learn from");
            let saw = stack.observe.saw();
            assert_eq!(saw[0].as_ref().unwrap().served, None);
            assert_eq!(saw[1].as_ref().unwrap().served, Some(Served::Hit));
            assert_eq!(stack.observe.used(), USAGE, "paid for once");
        }
    }
}

#[tokio::test]
async fn equal_calls_at_the_same_time_are_one_call_one_turn_and_one_bill() {
    for streamed in [false, true] {
        for (counting, taken) in [(Counting::Requests, 1), (Counting::Tokens, USAGE.total_tokens())] {
            let stack = Stack::new(counting, FakeClock::new()).await;
            stack
                .server
                .set_reply(reply("yes").with_first_byte_latency(Duration::from_millis(200)));
            let callers: Vec<_> = (0..30)
                .map(|_| tokio::spawn(ask(stack.model.clone(), "Why?".to_owned(), streamed)))
                .collect();
            for caller in callers {
                assert_eq!(soon(caller).await.unwrap().unwrap().message.text(), "yes");
            }
            assert_eq!((stack.calls(), stack.taken()), (1, taken));
            assert_eq!(stack.observe.saw().len(), 30);
            // On a machine that is very slow some come when the answer is there already.
            let free = stack.observe.served(Served::Coalesced) + stack.observe.served(Served::Hit);
            assert!(
                free == 29 && stack.observe.served(Served::Coalesced) > 0,
                "{free}"
            );
            assert_eq!(stack.observe.used(), USAGE);
        }
    }
}

#[tokio::test]
async fn each_attempt_takes_a_turn_and_only_what_was_answered_takes_tokens() {
    for streamed in [false, true] {
        for (counting, taken) in [(Counting::Requests, 3), (Counting::Tokens, USAGE.total_tokens())] {
            let stack = Stack::new(counting, FakeClock::new()).await;
            stack.server.push(Reply::error(503, "later"));
            stack.server.push(Reply::error(503, "later"));
            let answer = stack.ask("Why?", streamed).await.unwrap();
            assert_eq!(answer.metadata["attempts"], 3);
            // What took three attempts is one answer to the cache and to telemetry.
            stack.ask("Why?", streamed).await.unwrap();
            assert_eq!((stack.calls(), stack.taken()), (3, taken));
            assert_eq!(stack.observe.saw().len(), 2);
            assert_eq!(stack.observe.used(), USAGE);
        }
    }
}

#[tokio::test]
async fn without_the_limit_inside_of_retries_a_call_is_one_turn() {
    for streamed in [false, true] {
        let server = LlmServer::start().await.unwrap();
        server.set_reply(reply("yes"));
        server.push(Reply::error(503, "later"));
        let with = With {
            limit_inside: false,
            ..ALL
        };
        let stack = Stack::around(server, Counting::Requests, FakeClock::new(), with);
        stack.ask("Why?", streamed).await.unwrap();
        assert_eq!((stack.calls(), stack.taken()), (2, 1));
    }
}

#[tokio::test]
async fn a_429_inside_of_the_retries_of_one_call_stops_the_others() {
    for streamed in [false, true] {
        let stack = Stack::new(Counting::Requests, FakeClock::new()).await;
        stack
            .server
            .push(Reply::error(429, "slow down").with_retry_after("30"));
        let call = |text: &str| tokio::spawn(ask(stack.model.clone(), text.to_owned(), streamed));
        let first = call("first");
        until("the first is refused and waits to be tried again", || {
            stack.calls() == 1 && stack.clock.sleeps().contains(&Duration::from_secs(30))
        })
        .await;
        assert!(!first.is_finished());
        // It is not over, and yet it is known what it has met.
        let second = call("second");
        until("the second waits", || stack.limiter.status().waiting == 1).await;
        assert_eq!(stack.calls(), 1);
        stack.clock.advance(Duration::from_secs(30));
        for call in [first, second] {
            assert_eq!(soon(call).await.unwrap().unwrap().message.text(), "yes");
        }
        assert_eq!(stack.calls(), 3);
        assert_eq!(stack.limiter.status().in_flight, 0);
    }
}

#[tokio::test]
async fn a_hedge_takes_a_turn_of_its_own_and_the_loser_is_gone_and_paid_for_by_its_estimate() {
    for streamed in [false, true] {
        for counting in [Counting::Requests, Counting::Tokens] {
            let stack = Stack::new(counting, FakeClock::new()).await;
            stack.ask("to learn from", streamed).await.unwrap();
            stack
                .server
                .push(reply("never").with_fault(Fault::stall(At::BeforeHead)));
            let call = tokio::spawn(ask(stack.model.clone(), "Why?".to_owned(), streamed));
            until("the first call is there", || stack.calls() == 2).await;
            stack.clock.advance(2 * UNUSUAL);
            let answer = soon(call).await.unwrap().unwrap();
            assert_eq!(answer.message.text(), "yes");
            assert_eq!(answer.metadata["hedged"]["answered"], "second");
            until("the loser is gone", || {
                let counters = stack.server.counters();
                counters.cancelled == 1 && counters.in_flight == 0
            })
            .await;
            let taken = match counting {
                Counting::Requests => 3,
                // Of the loser nobody knows what it used: its prompt and the answer that was allowed.
                Counting::Tokens => {
                    let estimate = peregrine::core::tokens::estimate_request(&ChatRequest::user("Why?"));
                    2 * USAGE.total_tokens() + estimate + 10
                }
            };
            assert_eq!(stack.taken(), taken, "{counting:?}, streamed: {streamed}");
            assert_eq!((stack.calls(), stack.hedge.stats().hedged), (3, 1));
            assert_eq!(stack.observe.used(), USAGE + USAGE, "each answer once");
            // The answer of the second call is the answer: it is in the cache.
            stack.ask("Why?", streamed).await.unwrap();
            assert_eq!(stack.calls(), 3);
        }
    }
}

#[tokio::test]
async fn a_hedge_without_a_turn_sends_nothing() {
    for streamed in [false, true] {
        let stack = Stack::new(Counting::Requests, FakeClock::new()).await;
        stack.ask("to learn from", streamed).await.unwrap();
        let slow = reply("the first").with_first_byte_latency(Duration::from_secs(2));
        stack.server.push(slow);
        let call = tokio::spawn(ask(stack.model.clone(), "Why?".to_owned(), streamed));
        until("the first call is there", || stack.calls() == 2).await;
        stack.take_all();
        stack.clock.advance(2 * UNUSUAL);
        until("it is unusually long", || stack.hedge.stats().hedged == 1).await;
        let answer = soon(call).await.unwrap().unwrap();
        assert_eq!(answer.message.text(), "the first");
        assert_eq!((stack.calls(), stack.server.counters().cancelled), (2, 0));
        assert_eq!(stack.limiter.status().waiting, 0, "it has left the queue");
    }
}

#[tokio::test]
async fn every_layer_is_optional() {
    let server = LlmServer::start().await.unwrap();
    let mut server = Some(server);
    for bits in 0..64_u32 {
        let has = |bit: u32| bits & 1 << bit != 0;
        let with = With {
            telemetry: has(0),
            cache: has(1),
            limit: has(2),
            retry: has(3),
            hedge: has(4),
            limit_inside: has(5),
        };
        let stack = Stack::around(server.take().unwrap(), Counting::Requests, FakeClock::new(), with);
        let before = stack.calls();
        for streamed in [false, true] {
            let text = format!("hello {bits}");
            let answer = stack.ask(&text, streamed).await.unwrap();
            assert_eq!(answer.message.text(), format!("echo: {text}"), "{with:?}");
        }
        let calls = stack.calls() - before;
        assert_eq!(calls, if with.cache { 1 } else { 2 }, "{with:?}");
        let limited = with.limit || with.limit_inside;
        assert_eq!(stack.taken(), if limited { calls } else { 0 }, "{with:?}");
        assert_eq!(stack.observe.saw().len(), if with.telemetry { 2 } else { 0 });
        server = Some(stack.server);
    }
}
