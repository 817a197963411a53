//! Redis: a real server, stopped and started again under load, and two processes' worth of caches that share it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peregrine_cache::conformance::{self, key};
use peregrine_cache::{
    Cache, Clock as _, Control, Entry, ErrorKind, MemoryConfig, MemoryStore, Operation, RedisConfig,
    RedisStore, Selector, Served, Settings, Store, SystemTimeClock, Tag, TierEvent, Tiers, Ttl,
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
    let store = store(&url, &prefix);
    let client = ::redis::Client::open(url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let junk: [&[u8]; 5] = [
        b"",
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
    assert_eq!(Store::<String>::status(&store).corrupt, 5);
    let error = RedisStore::new(&RedisConfig::new("nonsense://user:secret@host")).unwrap_err();
    assert!(error.kind() == ErrorKind::Config && !error.to_string().contains("secret"));
    assert!(!format!("{:?}", RedisConfig::new("redis://user:secret@host")).contains("secret"));
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
