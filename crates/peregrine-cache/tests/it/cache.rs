//! The cache for anything: single flight, cancellation, errors, modes, ages, stale answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use peregrine_cache::conformance::key;
use peregrine_cache::{
    Cache, Control, Entry, Key, Lookup, MemoryConfig, MemoryStore, Mode, Selector, Served, Settings, Store,
    StoreStatus, Tag, Ttl,
};
use tokio::sync::Semaphore;

use crate::Time;

type Texts = Cache<String, String>;

fn settings() -> Settings<String> {
    Settings::new().with_store(MemoryStore::new(&MemoryConfig::default()))
}

/// Something slow that counts, and ends when it is let.
#[derive(Clone)]
struct Slow {
    calls: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Slow {
    fn new(open: bool) -> Self {
        Self {
            calls: Arc::default(),
            gate: Arc::new(Semaphore::new(if open { 1_000 } else { 0 })),
        }
    }

    fn compute(
        &self,
    ) -> impl FnOnce() -> futures_util::future::BoxFuture<'static, Result<String, String>> + Send + 'static
    {
        let slow = self.clone();
        move || {
            let call = slow.calls.fetch_add(1, SeqCst);
            Box::pin(async move {
                let _pass = slow.gate.acquire().await.map_err(|error| error.to_string())?;
                Ok(format!("value {call}"))
            })
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

async fn ask(cache: &Texts, number: u64, control: &Control, slow: &Slow) -> (String, Served) {
    let (value, served) = cache
        .get_or_compute(&key("cache", number), control, slow.compute())
        .await
        .unwrap();
    ((*value).clone(), served)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_ask_at_once_and_one_computes() {
    let (cache, slow) = (Texts::new(settings()), Slow::new(false));
    let asks: Vec<_> = (0..1_000)
        .map(|_| {
            let (cache, slow) = (cache.clone(), slow.clone());
            tokio::spawn(async move { ask(&cache, 1, &Control::new(), &slow).await })
        })
        .collect();
    while cache.in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    slow.gate.add_permits(1);
    let mut served = Vec::new();
    for ask in asks {
        let (value, how) = ask.await.unwrap();
        assert_eq!(value, "value 0");
        served.push(how);
    }
    assert_eq!(slow.calls(), 1);
    assert_eq!(
        served.iter().filter(|how| **how == Served::Miss).count(),
        1,
        "one pays"
    );
    assert!(
        served
            .iter()
            .all(|how| matches!(how, Served::Miss | Served::Coalesced | Served::Hit))
    );
    assert_eq!(cache.in_flight(), 0);
}

#[tokio::test]
async fn a_leader_that_is_cancelled_hands_over_and_the_last_one_cancels() {
    let (cache, slow) = (Texts::new(settings()), Slow::new(false));
    let begin = || {
        let (cache, slow) = (cache.clone(), slow.clone());
        tokio::spawn(async move { ask(&cache, 1, &Control::new(), &slow).await })
    };
    let leader = begin();
    tokio::task::yield_now().await;
    let followers: Vec<_> = (0..10).map(|_| begin()).collect();
    tokio::task::yield_now().await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    slow.gate.add_permits(1);
    let mut paid = 0;
    for follower in followers {
        let (value, served) = follower.await.unwrap();
        assert_eq!(value, "value 0");
        paid += usize::from(served == Served::Miss);
    }
    assert_eq!((slow.calls(), paid), (1, 1));

    let closed = Slow::new(false);
    let only = {
        let (cache, closed) = (cache.clone(), closed.clone());
        tokio::spawn(async move { ask(&cache, 2, &Control::new(), &closed).await })
    };
    tokio::task::yield_now().await;
    assert_eq!((closed.calls(), cache.in_flight()), (1, 1));
    only.abort();
    let _cancelled = only.await;
    assert_eq!(cache.in_flight(), 0);
    assert_eq!(Arc::strong_count(&closed.gate), 1, "the computation was dropped");
}

#[tokio::test]
async fn an_error_is_told_to_all_and_not_stored() {
    let cache = Texts::new(settings());
    let calls = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let fail = || {
        let (cache, calls, gate) = (cache.clone(), calls.clone(), gate.clone());
        tokio::spawn(async move {
            let compute = move || async move {
                calls.fetch_add(1, SeqCst);
                let _pass = gate.acquire().await;
                Err::<String, _>("no".to_owned())
            };
            cache
                .get_or_compute(&key("error", 1), &Control::new(), compute)
                .await
        })
    };
    let asks: Vec<_> = (0..10).map(|_| fail()).collect();
    tokio::task::yield_now().await;
    gate.add_permits(1);
    for ask in asks {
        assert_eq!(ask.await.unwrap().unwrap_err(), "no");
    }
    assert_eq!(calls.load(SeqCst), 1);
    let slow = Slow::new(true);
    let asked = cache
        .get_or_compute(&key("error", 1), &Control::new(), slow.compute())
        .await;
    assert_eq!(asked.unwrap().1, Served::Miss, "the error was not stored");
}

#[tokio::test]
async fn a_panic_is_its_own_and_the_others_go_on() {
    let cache = Texts::new(settings());
    let gate = Arc::new(Semaphore::new(0));
    let first = {
        let (cache, gate) = (cache.clone(), gate.clone());
        tokio::spawn(async move {
            let compute = move || async move {
                let _pass = gate.acquire().await;
                panic!("on purpose");
            };
            cache
                .get_or_compute(&key("panic", 1), &Control::new(), compute)
                .await
        })
    };
    tokio::task::yield_now().await;
    let slow = Slow::new(true);
    let others: Vec<_> = (0..5)
        .map(|_| {
            let (cache, slow) = (cache.clone(), slow.clone());
            tokio::spawn(async move {
                cache
                    .get_or_compute(&key("panic", 1), &Control::new(), slow.compute())
                    .await
            })
        })
        .collect();
    tokio::task::yield_now().await;
    gate.add_permits(1);
    let mut panicked = usize::from(first.await.is_err());
    for other in others {
        match other.await {
            Ok(value) => assert_eq!(*value.unwrap().0, "value 0"),
            Err(error) => {
                assert!(error.is_panic());
                panicked += 1;
            }
        }
    }
    assert_eq!((panicked, slow.calls(), cache.in_flight()), (1, 1, 0));
}

#[tokio::test]
async fn modes_times_and_ages_mean_what_they_say() {
    let clock = Time::new();
    let cache = Texts::new(
        settings()
            .with_clock(clock.clone())
            .with_ttl(Ttl::After(Duration::from_secs(100))),
    );
    let slow = Slow::new(true);
    let control = Control::new;
    assert_eq!(
        ask(&cache, 1, &control().with_mode(Mode::Off), &slow).await.1,
        Served::Bypass
    );
    assert_eq!(
        ask(&cache, 1, &control().with_mode(Mode::Read), &slow).await.1,
        Served::Miss
    );
    assert_eq!(
        ask(&cache, 1, &control().with_ttl(Ttl::NoStore), &slow).await.1,
        Served::Miss
    );
    assert_eq!(
        ask(&cache, 1, &control(), &slow).await,
        ("value 3".to_owned(), Served::Miss),
        "nothing was stored"
    );
    assert_eq!(
        ask(&cache, 1, &control(), &slow).await,
        ("value 3".to_owned(), Served::Hit)
    );
    let write = control().with_mode(Mode::Write);
    assert_eq!(
        ask(&cache, 1, &write, &slow).await,
        ("value 4".to_owned(), Served::Miss)
    );
    assert_eq!(
        ask(&cache, 1, &control(), &slow).await,
        ("value 4".to_owned(), Served::Hit),
        "it was replaced"
    );

    clock.advance(Duration::from_secs(50));
    let young = control().with_max_age(Duration::from_secs(49));
    assert_eq!(
        ask(&cache, 1, &young.clone().with_mode(Mode::Read), &slow)
            .await
            .1,
        Served::Miss
    );
    assert_eq!(
        ask(&cache, 1, &young.with_max_age(Duration::from_secs(50)), &slow)
            .await
            .1,
        Served::Hit
    );
    clock.advance(Duration::from_secs(50));
    assert_eq!(
        ask(&cache, 1, &control(), &slow).await.1,
        Served::Miss,
        "its time was over"
    );

    assert_eq!(
        ask(&cache, 2, &control().with_ttl(Ttl::Never), &slow).await.1,
        Served::Miss
    );
    clock.advance(Duration::from_secs(1_000_000_000));
    assert_eq!(ask(&cache, 2, &control(), &slow).await.1, Served::Hit);
    let stats = cache.stats();
    assert_eq!((stats.bypassed, stats.hits), (1, 4));
    assert_eq!(stats.tiers[0].store.entries, Some(2));
}

#[tokio::test]
async fn an_answer_past_its_time_is_given_while_a_new_one_is_fetched() {
    let clock = Time::new();
    let settings = settings()
        .with_clock(clock.clone())
        .with_ttl(Ttl::After(Duration::from_secs(10)))
        .with_stale_while_revalidate(Duration::from_secs(20), |task| {
            tokio::spawn(task);
        });
    let (cache, slow) = (Texts::new(settings), Slow::new(true));
    assert_eq!(
        ask(&cache, 1, &Control::new(), &slow).await,
        ("value 0".to_owned(), Served::Miss)
    );
    clock.advance(Duration::from_secs(15));
    for _ in 0..5 {
        assert_eq!(
            ask(&cache, 1, &Control::new(), &slow).await,
            ("value 0".to_owned(), Served::Stale)
        );
    }
    while cache.in_flight() > 0 || slow.calls() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        ask(&cache, 1, &Control::new(), &slow).await,
        ("value 1".to_owned(), Served::Hit)
    );
    assert_eq!(slow.calls(), 2, "one of the five fetched");
    clock.advance(Duration::from_secs(30));
    assert_eq!(
        ask(&cache, 1, &Control::new(), &slow).await.1,
        Served::Miss,
        "too old even for that"
    );
}

#[tokio::test]
async fn what_is_removed_while_it_is_computed_is_not_stored() {
    let (cache, slow) = (Texts::new(settings()), Slow::new(false));
    let tagged = Control::new().with_tag(Tag::label("docs"));
    let asks = {
        let (cache, slow, tagged) = (cache.clone(), slow.clone(), tagged.clone());
        tokio::spawn(async move { ask(&cache, 1, &tagged, &slow).await })
    };
    tokio::task::yield_now().await;
    assert_eq!(cache.remove(&Selector::Tag(Tag::label("docs"))).await.unwrap(), 0);
    let later = {
        let (cache, slow, tagged) = (cache.clone(), slow.clone(), tagged.clone());
        tokio::spawn(async move { ask(&cache, 1, &tagged, &slow).await })
    };
    tokio::task::yield_now().await;
    assert_eq!(
        slow.calls(),
        2,
        "who asks after the removal does not get what was begun before"
    );
    slow.gate.add_permits(2);
    assert_eq!(asks.await.unwrap().1, Served::Miss);
    assert_eq!(later.await.unwrap(), ("value 1".to_owned(), Served::Miss));
    assert_eq!(
        ask(&cache, 1, &tagged, &slow).await,
        ("value 1".to_owned(), Served::Hit)
    );
    assert_eq!(cache.remove(&Selector::Tag(Tag::label("docs"))).await.unwrap(), 1);
    assert_eq!(cache.stats().removed, 1);
}

#[tokio::test]
async fn a_removal_of_something_else_disturbs_nothing() {
    let (cache, slow) = (Texts::new(settings()), Slow::new(false));
    let tagged = Control::new().with_tag(Tag::label("docs"));
    let begin = || {
        let (cache, slow, tagged) = (cache.clone(), slow.clone(), tagged.clone());
        tokio::spawn(async move { ask(&cache, 1, &tagged, &slow).await })
    };
    let first = begin();
    tokio::task::yield_now().await;
    for other in [
        Selector::Key(key("cache", 2)),
        Selector::Tag(Tag::label("others")),
    ] {
        cache.remove(&other).await.unwrap();
    }
    let second = begin();
    tokio::task::yield_now().await;
    assert_eq!((slow.calls(), cache.waiting()), (1, 2), "it is joined");
    slow.gate.add_permits(1);
    assert_eq!(first.await.unwrap().0, "value 0");
    assert_eq!(second.await.unwrap().0, "value 0");
    assert_eq!(ask(&cache, 1, &tagged, &slow).await.1, Served::Hit, "and stored");

    for meant in [Selector::Key(key("cache", 3)), Selector::All] {
        let (cache, slow) = (Texts::new(settings()), Slow::new(false));
        let asks = {
            let (cache, slow) = (cache.clone(), slow.clone());
            tokio::spawn(async move { ask(&cache, 3, &Control::new(), &slow).await })
        };
        tokio::task::yield_now().await;
        cache.remove(&meant).await.unwrap();
        assert_eq!(cache.in_flight(), 0, "nobody joins it");
        slow.gate.add_permits(1);
        assert_eq!(asks.await.unwrap().1, Served::Miss, "who waited goes on");
        let stats = cache.stats();
        assert_eq!((stats.stored, stats.not_stored), (0, 1), "{meant:?}");
    }
}

/// Holds back what a look-up found, while it is told to.
#[derive(Debug)]
struct Held {
    store: MemoryStore<String>,
    holds: AtomicBool,
    gate: Semaphore,
}

impl Held {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            store: MemoryStore::new(&MemoryConfig::default()),
            holds: AtomicBool::new(false),
            gate: Semaphore::new(0),
        })
    }
}

#[async_trait::async_trait]
impl Store<String> for Held {
    fn get_now(&self, _: &Key, _: u64) -> peregrine_cache::Result<Lookup<String>> {
        Ok(Lookup::Ask)
    }

    async fn get(&self, key: &Key, now: u64) -> peregrine_cache::Result<Option<Entry<String>>> {
        let found = self.store.get(key, now).await;
        if self.holds.load(SeqCst) {
            self.gate.acquire().await.unwrap().forget();
        }
        found
    }

    async fn put(&self, key: &Key, entry: &Entry<String>, now: u64) -> peregrine_cache::Result<bool> {
        self.store.put(key, entry, now).await
    }

    async fn remove(&self, what: &Selector) -> peregrine_cache::Result<u64> {
        self.store.remove(what).await
    }

    fn status(&self) -> StoreStatus {
        StoreStatus::new("held")
    }
}

#[tokio::test]
async fn who_finds_an_old_answer_late_does_not_refresh_it_again() {
    let (clock, held) = (Time::new(), Held::new());
    let settings = Settings::new()
        .with_store(held.clone())
        .with_clock(clock.clone())
        .with_ttl(Ttl::After(Duration::from_secs(10)))
        .with_stale_while_revalidate(Duration::from_secs(20), |task| {
            tokio::spawn(task);
        });
    let (cache, slow) = (Texts::new(settings), Slow::new(true));
    assert_eq!(ask(&cache, 1, &Control::new(), &slow).await.1, Served::Miss);
    clock.advance(Duration::from_secs(15));
    held.holds.store(true, SeqCst);
    let late = {
        let (cache, slow) = (cache.clone(), slow.clone());
        tokio::spawn(async move { ask(&cache, 1, &Control::new(), &slow).await })
    };
    tokio::task::yield_now().await;
    held.holds.store(false, SeqCst);
    // Its age is told apart, so it does not wait for the other one; the refresh is one for both.
    let aged = Control::new().with_max_age(Duration::from_secs(60));
    assert_eq!(ask(&cache, 1, &aged, &slow).await.1, Served::Stale);
    while slow.calls() < 2 || cache.in_flight() > 1 {
        tokio::task::yield_now().await;
    }
    held.gate.add_permits(1);
    assert_eq!(late.await.unwrap(), ("value 0".to_owned(), Served::Stale));
    while cache.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(slow.calls(), 2, "one refresh");
    assert_eq!(
        ask(&cache, 1, &Control::new(), &slow).await,
        ("value 1".to_owned(), Served::Hit)
    );
}

#[tokio::test]
async fn what_is_removed_while_it_is_copied_up_does_not_come_back() {
    for what in [Selector::Key(key("cache", 1)), Selector::Tag(Tag::label("docs"))] {
        let (upper, held) = (Arc::new(MemoryStore::new(&MemoryConfig::default())), Held::new());
        let settings = Settings::new().with_store(upper.clone()).with_store(held.clone());
        let (cache, slow) = (Texts::new(settings), Slow::new(true));
        let tagged = Control::new().with_tag(Tag::label("docs"));
        ask(&cache, 1, &tagged, &slow).await;
        upper.remove(&Selector::All).await.unwrap();
        held.holds.store(true, SeqCst);
        let finds = {
            let (cache, slow, tagged) = (cache.clone(), slow.clone(), tagged.clone());
            tokio::spawn(async move { ask(&cache, 1, &tagged, &slow).await })
        };
        tokio::task::yield_now().await;
        assert_eq!(cache.remove(&what).await.unwrap(), 1);
        held.gate.add_permits(100);
        assert_eq!(finds.await.unwrap().1, Served::Hit, "it was there when it asked");
        assert_eq!(upper.status().entries, Some(0), "{what:?}");
        assert_eq!(ask(&cache, 1, &tagged, &slow).await.1, Served::Miss);
    }
}

#[tokio::test]
async fn without_a_store_equal_calls_still_share_one() {
    let (cache, slow) = (Texts::new(Settings::new()), Slow::new(true));
    assert_eq!(ask(&cache, 1, &Control::new(), &slow).await.1, Served::Miss);
    assert_eq!(ask(&cache, 1, &Control::new(), &slow).await.1, Served::Miss);
}
