//! Redis: a real server, stopped and started again under load, and two processes' worth of caches that share it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peregrine_cache::conformance::{self, key};
use peregrine_cache::{
    Cache, CacheStats, Clock as _, Control, Entry, ErrorKind, MemoryConfig, MemoryStore, Operation,
    RedisConfig, RedisStore, Selector, Served, Settings, Store, Survey, SystemTimeClock, Tag, TierEvent,
    Tiers, Totals, Ttl,
};
use peregrine_testkit::service;

/// A prefix that nobody else has.
fn prefix(name: &str) -> String {
    format!(
        "peregrine-test:{}:{}:{name}:",
        std::process::id(),
        SystemTimeClock.unix_ms()
    )
}

fn store(url: &str, prefix: &str) -> RedisStore {
    // A loaded machine may be slow; these tests are not about that.
    let slow = Duration::from_secs(10);
    RedisStore::new(
        &RedisConfig::new(url)
            .with_prefix(prefix)
            .with_timeouts(slow, slow),
    )
    .unwrap()
}

/// What is there, but for sets of tags that end by themselves: they may outlive their entries, at most by a minute more than
/// these were to be kept.
async fn names(url: &str, prefix: &str) -> Vec<String> {
    let client = ::redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let all: Vec<String> = ::redis::cmd("KEYS")
        .arg(format!("{prefix}*"))
        .query_async(&mut connection)
        .await
        .unwrap();
    let mut staying = Vec::new();
    for name in all {
        let kind: String = ::redis::cmd("TYPE")
            .arg(&name)
            .query_async(&mut connection)
            .await
            .unwrap();
        let left: i64 = ::redis::cmd("TTL")
            .arg(&name)
            .query_async(&mut connection)
            .await
            .unwrap();
        // -1 is for ever, -2 is gone by now.
        if left == -1 || (kind != "zset" && left != -2) {
            staying.push(name);
        }
    }
    staying
}

#[tokio::test]
async fn does_what_every_store_does_and_leaves_nothing() {
    let Some(url) = service::redis() else { return };
    let prefix = prefix("suite");
    conformance::check(&store(&url, &prefix), "redis").await;
    assert_eq!(
        names(&url, &prefix).await,
        Vec::<String>::new(),
        "no entry is left, and no set for ever"
    );
    let tiers = Tiers::new()
        .with(MemoryStore::new(&MemoryConfig::default()))
        .with(store(&url, &prefix));
    conformance::check(&tiers, "memory over redis").await;
    assert_eq!(names(&url, &prefix).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_server_counts_the_time_and_sets_shrink_with_it() {
    let Some(url) = service::redis() else { return };
    let prefix = prefix("time");
    let store = store(&url, &prefix);
    let now = SystemTimeClock.unix_ms();
    let tag = Tag::label("t");
    let put = |number, ttl| {
        let entry = Entry::new("v".to_owned(), now, ttl, &[tag]);
        let store = &store;
        async move { assert!(store.put(&key("time", number), &entry, now).await.unwrap()) }
    };
    put(1, Some(Duration::from_secs(100))).await;
    put(2, Some(Duration::from_secs(50))).await;
    let client = ::redis::Client::open(url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for name in names(&url, &prefix).await {
        let left: i64 = ::redis::cmd("PTTL")
            .arg(&name)
            .query_async(&mut connection)
            .await
            .unwrap();
        assert!((1..=165_000).contains(&left), "{name} ends in {left} ms");
    }
    // A minute later, as its writer tells the time, the one that has ended is out of the sets.
    let later = now + 60_000;
    let entry = Entry::new("v".to_owned(), later, None, &[tag]);
    assert!(store.put(&key("time", 3), &entry, later).await.unwrap());
    let set = format!("{prefix}t:{tag}");
    let members: u64 = ::redis::cmd("ZCARD")
        .arg(&set)
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(members, 2);
    let left: i64 = ::redis::cmd("PTTL")
        .arg(&set)
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(left, -1, "a set with an entry without a time has none");
    Store::<String>::remove(&store, &Selector::All).await.unwrap();
}

#[tokio::test]
async fn what_is_none_of_ours_is_a_counted_error_once() {
    let Some(url) = service::redis() else { return };
    let prefix = prefix("damage");
    let slow = Duration::from_secs(10);
    let config = RedisConfig::new(&url)
        .with_prefix(&prefix)
        .with_timeouts(slow, slow)
        .with_max_entry_bytes(8 << 10);
    let store = RedisStore::new(&config).unwrap();
    let client = ::redis::Client::open(url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let large = [b'x'; 9 << 10];
    let junk: [&[u8]; 5] = [
        &large,
        b"junk",
        &[0x95, 9, 0, 0, 0],
        &[0xdd, 255, 255, 255, 255],
        &[0x95, 1, 1, 1, 1, 0xc4, 3, 1, 2, 3],
    ];
    for (number, value) in junk.iter().enumerate() {
        let key = key("damage", number as u64);
        let name = format!("{prefix}e:{key}");
        ::redis::cmd("SET")
            .arg(&name)
            .arg(*value)
            .exec_async(&mut connection)
            .await
            .unwrap();
        let error = Store::<String>::get(&store, &key, 0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(Store::<String>::get(&store, &key, 0).await.unwrap().is_none());
    }
    let another = key("damage", 9);
    ::redis::cmd("RPUSH")
        .arg(format!("{prefix}e:{another}"))
        .arg("a list")
        .exec_async(&mut connection)
        .await
        .unwrap();
    let error = Store::<String>::get(&store, &another, 0).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Corrupt,
        "which is no reason to leave the server out"
    );
    assert!(Store::<String>::get(&store, &another, 0).await.unwrap().is_none());
    assert_eq!(Store::<String>::status(&store).corrupt, 6);
    let error = RedisStore::new(&RedisConfig::new("nonsense://user:secret@host")).unwrap_err();
    assert!(error.kind() == ErrorKind::Config && !error.to_string().contains("secret"));
    assert!(!format!("{:?}", RedisConfig::new("redis://user:secret@host")).contains("secret"));
}

#[tokio::test]
async fn whoever_looks_from_outside_is_told_what_is_there() {
    let Some(url) = service::redis() else { return };
    let prefix = prefix("look");
    let (uses, looks) = (store(&url, &prefix), store(&url, &prefix));
    let now = SystemTimeClock.unix_ms();
    assert_eq!(looks.survey(now).await.unwrap(), Survey::default());
    assert_eq!(looks.totals().await.unwrap(), Totals::default());
    for (number, ttl) in [(1, None), (2, Some(50)), (3, Some(100))] {
        let tags = [Tag::label(if number == 1 { "one" } else { "others" })];
        let entry = Entry::new("v".to_owned(), now, ttl.map(Duration::from_secs), &tags);
        assert!(uses.put(&key("look", number), &entry, now).await.unwrap());
    }
    let later = now + 60_000;
    let survey = looks.survey(later).await.unwrap();
    assert_eq!((survey.entries, survey.expired), (2, 1));
    let tag = Tag::label("others");
    assert_eq!(looks.count(&Selector::Tag(tag), later).await.unwrap(), 1);
    assert_eq!(looks.count(&Selector::All, later).await.unwrap(), 2);
    assert_eq!(
        looks.count(&Selector::Key(key("look", 1)), later).await.unwrap(),
        1
    );

    // What was removed by its key stands in no set any more, nor is it removed once more by its tag.
    let removed = Store::<String>::remove(&looks, &Selector::Key(key("look", 3))).await;
    assert_eq!(removed.unwrap(), 1);
    assert_eq!(looks.count(&Selector::Tag(tag), now).await.unwrap(), 1);
    assert_eq!(looks.survey(now).await.unwrap().entries, 2);
    let removed = Store::<String>::remove(&looks, &Selector::Tag(tag)).await;
    assert_eq!(removed.unwrap(), 1);

    let mut stats = CacheStats::default();
    (stats.hits, stats.misses, stats.nano_usd_saved) = (3, 1, 9);
    let more = Totals::of(&stats);
    let adds = [&uses, &looks].map(|store| store.add_totals(&more));
    for add in futures_util::future::join_all(adds).await {
        add.unwrap();
    }
    let totals = looks.totals().await.unwrap();
    assert_eq!((totals.hits, totals.misses, totals.nano_usd_saved), (6, 2, 18));
    assert!(totals.since.is_some());
    Store::<String>::remove(&looks, &Selector::All).await.unwrap();
    assert_eq!(looks.totals().await.unwrap(), totals, "they are no entries");
    let client = ::redis::Client::open(url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let totals = format!("{prefix}totals");
    assert_eq!(names(&url, &prefix).await, std::slice::from_ref(&totals));
    ::redis::cmd("DEL")
        .arg(totals)
        .exec_async(&mut connection)
        .await
        .unwrap();
}

type Texts = Cache<String, String>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_caches_share_what_one_of_them_fetched() {
    let Some(url) = service::redis() else { return };
    let prefix = prefix("share");
    let cache = || {
        Texts::new(
            Settings::new()
                .with_store(MemoryStore::new(&MemoryConfig::default()))
                .with_store(store(&url, &prefix)),
        )
    };
    let (one, two) = (cache(), cache());
    let compute = || async { Ok("v".to_owned()) };
    let control = Control::new().with_tag(Tag::label("shared"));
    assert_eq!(
        one.get_or_compute(&key("share", 1), &control, compute)
            .await
            .unwrap()
            .1,
        Served::Miss
    );
    let never = || async { Err("asked again".to_owned()) };
    assert_eq!(
        two.get_or_compute(&key("share", 1), &control, never)
            .await
            .unwrap()
            .1,
        Served::Hit
    );
    assert_eq!(two.stats().tiers[1].hits, 1);
    assert_eq!(
        two.get_or_compute(&key("share", 1), &control, never)
            .await
            .unwrap()
            .1,
        Served::Hit
    );
    assert_eq!(
        two.stats().tiers[0].hits,
        1,
        "the second time from its own memory"
    );
    assert_eq!(two.remove(&Selector::Tag(Tag::label("shared"))).await.unwrap(), 1);
    assert_eq!(names(&url, &prefix).await, Vec::<String>::new());
}

/// A server of this test's own.
struct Server {
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// `None` where there is no binary.
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut server = Self { port, child: None };
        server.resume().then_some(server)
    }

    fn resume(&mut self) -> bool {
        let child = Command::new("redis-server")
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = child.ok();
        self.child.is_some()
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_and_starts_under_load_fails_no_call() {
    let Some(mut server) = Server::start() else {
        assert!(
            service::redis().is_none() || std::env::var("PEREGRINE_REQUIRE_SERVICES").is_err(),
            "no redis-server"
        );
        return;
    };
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = events.clone();
    let second = Duration::from_secs(1);
    let config = RedisConfig::new(server.url()).with_timeouts(second, second);
    let settings = Settings::new()
        .with_store(RedisStore::new(&config).unwrap())
        .with_report(move |event| told.lock().unwrap().push(event.clone()));
    let cache = Texts::new(settings);
    let (stop, computed, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let load: Vec<_> = (0..8)
        .map(|task| {
            let (cache, stop, computed, asked) =
                (cache.clone(), stop.clone(), computed.clone(), asked.clone());
            tokio::spawn(async move {
                let mut round = 0;
                while !stop.load(SeqCst) {
                    round += 1;
                    let number = task * 1_000_000 + round % 50;
                    let computed = computed.clone();
                    let compute = move || async move {
                        computed.fetch_add(1, SeqCst);
                        Ok(number.to_string())
                    };
                    let control = Control::new().with_ttl(Ttl::After(Duration::from_secs(60)));
                    let (value, _) = cache
                        .get_or_compute(&key("load", number), &control, compute)
                        .await
                        .unwrap();
                    assert_eq!(*value, number.to_string(), "never somebody else's answer");
                    asked.fetch_add(1, SeqCst);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();
    let until = |what: &'static str, done: Box<dyn Fn() -> bool + Send + Sync>| async move {
        let patience = tokio::time::Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(
                tokio::time::Instant::now() < patience,
                "waited in vain until {what}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    for round in 0..2 {
        let (c, before) = (cache.clone(), cache.stats().hits);
        until(
            "redis answers hits",
            Box::new(move || c.stats().hits > before + 50),
        )
        .await;
        server.stop();
        let c = cache.clone();
        until("the tier is down", Box::new(move || c.stats().tiers[0].down)).await;
        let (a, before) = (asked.clone(), asked.load(SeqCst));
        until(
            "calls go on without it",
            Box::new(move || a.load(SeqCst) > before + 200),
        )
        .await;
        assert!(server.resume());
        let c = cache.clone();
        until("the tier is up again", Box::new(move || !c.stats().tiers[0].down)).await;
        let events = events.lock().unwrap();
        let count = |down: bool| {
            events
                .iter()
                .filter(|event| match event {
                    TierEvent::Down {
                        operation: Operation::Read,
                        ..
                    } => down,
                    TierEvent::Up {
                        operation: Operation::Read,
                        ..
                    } => !down,
                    _ => false,
                })
                .count()
        };
        // The server's own start (it may take a moment to listen) may be one more outage.
        assert!(
            count(true) >= count(false) && count(true) <= round + 3,
            "told once each: {events:?}"
        );
    }
    stop.store(true, SeqCst);
    for task in load {
        task.await.unwrap();
    }
    let stats = cache.stats();
    let tier = &stats.tiers[0];
    assert!(
        tier.skipped > tier.failures,
        "left out, not stormed: {} failures, {} skipped",
        tier.failures,
        tier.skipped
    );
    assert!(computed.load(SeqCst) > 400);
}

/// Waits until something is so.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    while !done().await {
        assert!(
            tokio::time::Instant::now() < patience,
            "waited in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn put(cache: &Texts, number: u64) -> Served {
    let compute = move || async move { Ok(number.to_string()) };
    let (key, control) = (key("private", number), Control::new());
    let asked = cache.get_or_compute(&key, &control, compute).await;
    asked.unwrap().1
}

#[tokio::test]
async fn a_server_that_hangs_costs_a_timeout_and_not_one_a_call() {
    let Some(server) = Server::start() else { return };
    let config = RedisConfig::new(server.url());
    let patient = store(&server.url(), "patient:");
    until("it answers", async || patient.survey(0).await.is_ok()).await;
    let cache = Texts::new(Settings::new().with_store(RedisStore::new(&config).unwrap()));
    until("it takes entries", async || {
        put(&cache, 1).await;
        put(&cache, 1).await == Served::Hit
    })
    .await;
    let signal = |name: &str| {
        let pid = server.child.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
    };
    signal("-STOP");
    until("it is left out", async || {
        put(&cache, 2).await;
        cache.stats().tiers[0].down
    })
    .await;
    let before = cache.stats();
    for number in 1_000..1_200 {
        assert_eq!(put(&cache, number).await, Served::Miss, "calls go on");
    }
    let after = cache.stats();
    let failures = after.tiers[0].failures - before.tiers[0].failures;
    let skipped = after.tiers[0].skipped - before.tiers[0].skipped;
    assert!(
        failures <= 10 && skipped >= 100,
        "{failures} failures, {skipped} skipped"
    );
    signal("-CONT");
    until("it is asked again", async || put(&cache, 1).await == Served::Hit).await;
}

#[tokio::test]
async fn a_server_that_takes_nothing_more_is_still_read() {
    let Some(server) = Server::start() else { return };
    let patient = store(&server.url(), "patient:");
    until("it answers", async || patient.survey(0).await.is_ok()).await;
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = events.clone();
    let settings = Settings::new()
        .with_store(store(&server.url(), "full:"))
        .with_report(move |event| told.lock().unwrap().push(event.clone()));
    let cache = Texts::new(settings);
    assert_eq!(put(&cache, 1).await, Served::Miss);
    let client = ::redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let memory = |size: &'static str| {
        let mut command = ::redis::cmd("CONFIG");
        command.arg("SET").arg("maxmemory").arg(size);
        command
    };
    memory("1").exec_async(&mut connection).await.unwrap();
    for _ in 0..20 {
        assert_eq!(put(&cache, 2).await, Served::Miss, "it cannot be stored");
        assert_eq!(put(&cache, 1).await, Served::Hit, "what is there is found");
    }
    {
        let events = events.lock().unwrap();
        let writes = events.iter().filter(|event| {
            matches!(
                event,
                TierEvent::Down {
                    operation: Operation::Write,
                    ..
                }
            )
        });
        assert!(writes.count() == 1 && events.len() == 1, "{events:?}");
    }
    memory("0").exec_async(&mut connection).await.unwrap();
    until("it takes entries again", async || {
        put(&cache, 2).await == Served::Hit
    })
    .await;
}
