//! The pool: who shares an entry, how many there are, what is evicted, and what is warm.

use std::sync::Arc;
use std::time::Duration;

use peregrine_core::{ChatModel as _, ChatRequest, Error, ErrorKind, Secret};
use peregrine_providers::{Address, Auth, Connector, Credential, HttpConfig, Pool, PoolConfig, RetryPolicy};
use peregrine_testkit::FakeClock;
use peregrine_testkit::server::{LlmServer, RefusedAddr};

const KEY: &str = "sk-do-not-show-51c2";

fn address(key: &str) -> Address {
    at("http://127.0.0.1:9/v1", key)
}

fn at(url: &str, key: &str) -> Address {
    Address::new("openai", url, Credential::Key(Secret::new(key))).unwrap()
}

fn connector(url: &str, pool: &Pool) -> Connector {
    Connector::new()
        .with_base_url(url)
        .with_api_key(Secret::new(KEY))
        .with_retry(RetryPolicy::new(0))
        .with_pool(pool.clone())
}

#[test]
fn an_entry_is_shared_by_whatever_connects_in_the_same_way() {
    let pool = Pool::default();
    let config = HttpConfig::default;
    let first = pool.endpoint(&address(KEY), config()).unwrap();
    let same = [
        pool.endpoint(&address(KEY), config()).unwrap(),
        pool.endpoint(&at("http://127.0.0.1:9/v1", KEY), config())
            .unwrap(),
        pool.endpoint(&address(KEY), config().with_total_timeout(Duration::from_secs(1)))
            .unwrap(),
    ];
    assert!(same.iter().all(|other| first.shares_connections_with(other)));
    assert_eq!(
        same[2].config().total_timeout,
        Duration::from_secs(1),
        "each with its own limits"
    );
    let others = [
        (address("sk-other"), config()),
        (at("http://127.0.0.1:9/v2", KEY), config()),
        (at("http://127.0.0.1:10/v1", KEY), config()),
        (
            Address::new("groq", "http://127.0.0.1:9/v1", Credential::None).unwrap(),
            config(),
        ),
        (address(KEY).with_auth(Auth::Header("x-api-key")), config()),
        (
            address(KEY).with_headers(vec![("x-team", "a".to_owned())]),
            config(),
        ),
        (
            address(KEY),
            config().with_connect_timeout(Duration::from_secs(1)),
        ),
    ];
    let count = others.len();
    let others = others.map(|(address, config)| pool.endpoint(&address, config).unwrap());
    for (at, one) in others.iter().enumerate() {
        assert!(!one.shares_connections_with(&first), "{at}");
        assert!(
            others[..at]
                .iter()
                .all(|other| !one.shares_connections_with(other)),
            "{at}"
        );
    }
    let stats = pool.stats();
    assert_eq!(
        (stats.entries, stats.misses, stats.hits),
        (1 + count, 1 + count as u64, 3)
    );
    assert_eq!(
        (stats.idle, stats.ready, stats.builds),
        (0, 0, 0),
        "nothing is built before the first call"
    );
    let shown = format!("{pool:?} {:?} {first:?} {others:?}", address(KEY));
    assert!(!shown.contains(KEY) && !shown.contains("sk-other"), "{shown}");
}

#[test]
fn a_full_pool_evicts_the_longest_idle_and_nobody_in_use() {
    let clock = FakeClock::new();
    let pool = Pool::with_clock(PoolConfig::default().with_max_entries(3), Arc::new(clock.clone()));
    let endpoint = |key: &str| pool.endpoint(&address(key), HttpConfig::default());
    let [a, b, c] = ["a", "b", "c"].map(|key| endpoint(key).unwrap());
    let error = endpoint("d").unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Refused, false));
    assert!(error.to_string().contains("room for 3"), "{error}");

    clock.advance(Duration::from_secs(1));
    let kept = Arc::clone(&b);
    drop(b);
    assert_eq!(pool.stats().idle, 0, "somebody still holds it");
    drop(c);
    clock.advance(Duration::from_secs(1));
    drop(kept);
    assert_eq!(pool.stats().idle, 2);
    let d = endpoint("d").unwrap();
    let stats = pool.stats();
    assert_eq!((stats.entries, stats.evictions, stats.refused), (3, 1, 1));
    let again = endpoint("b").unwrap();
    assert_eq!(pool.stats().misses, 4, "`c` was idle for longer than `b`");
    assert!(endpoint("a").unwrap().shares_connections_with(&a));
    assert!(!d.shares_connections_with(&again));
}

#[test]
fn what_is_idle_for_too_long_goes_when_something_is_added() {
    let clock = FakeClock::new();
    let config = PoolConfig::default().with_idle_timeout(Duration::from_secs(60));
    let pool = Pool::with_clock(config, Arc::new(clock.clone()));
    let endpoint = |key: &str| pool.endpoint(&address(key), HttpConfig::default()).unwrap();
    let held = endpoint("held");
    drop(endpoint("a"));
    clock.advance(Duration::from_secs(59));
    drop(endpoint("b"));
    assert_eq!((pool.stats().entries, pool.stats().idle), (3, 2));
    clock.advance(Duration::from_secs(1));
    drop(endpoint("c"));
    assert_eq!(
        (pool.stats().entries, pool.stats().evictions),
        (3, 1),
        "`a` went, `c` came"
    );
    drop(endpoint("b"));
    assert_eq!(pool.stats().hits, 1);
    assert_eq!(pool.evict_idle(Duration::ZERO), 2);
    assert_eq!((pool.stats().entries, pool.stats().idle), (1, 0));
    assert!(endpoint("held").shares_connections_with(&held));
}

#[test]
fn what_is_held_stays_while_others_come_and_go() {
    let pool = Pool::new(
        PoolConfig::default()
            .with_max_entries(4)
            .with_idle_timeout(Duration::ZERO),
    );
    std::thread::scope(|scope| {
        for thread in 0..3_usize {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..2_000_usize {
                    let address = address(&((thread + 1) * round % 8).to_string());
                    let held = pool.endpoint(&address, HttpConfig::default()).unwrap();
                    let again = pool.endpoint(&address, HttpConfig::default()).unwrap();
                    assert!(held.shares_connections_with(&again), "{thread} {round}");
                }
            });
        }
    });
    let stats = pool.stats();
    assert!(stats.entries <= 4 && stats.evictions > 0, "{stats:?}");
    assert_eq!((stats.hits + stats.misses, stats.refused), (12_000, 0));
    assert_eq!(stats.misses - stats.evictions, stats.entries as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_first_calls_at_once_build_one_client() {
    let refused = RefusedAddr::new().unwrap();
    let pool = Pool::default();
    let calls: Vec<_> = (0..1_000)
        .map(|_| {
            let connector = connector(&refused.url(), &pool);
            tokio::spawn(async move {
                let model = connector.chat("openai/m").unwrap();
                model.complete(&ChatRequest::user("?")).await.unwrap_err().kind()
            })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), ErrorKind::Connect);
    }
    let stats = pool.stats();
    assert_eq!(
        (stats.entries, stats.misses, stats.builds, stats.ready),
        (1, 1, 1, 1)
    );
    assert_eq!((stats.hits, stats.idle), (999, 1));
}

#[tokio::test]
async fn what_is_warm_has_its_connection_and_sends_no_key_for_it() {
    let server = LlmServer::start().await.unwrap();
    let pool = Pool::default();
    let connector = connector(&server.url(), &pool);
    connector.warm("openai/m", 1).await.unwrap();
    let seen = server.last_request().unwrap();
    assert_eq!(seen.method, "HEAD");
    assert!(!format!("{seen:?}").contains(KEY), "{seen:?}");
    assert_eq!((pool.stats().ready, pool.stats().idle), (1, 1));
    let model = connector.chat("openai/m").unwrap();
    model.complete(&ChatRequest::user("?")).await.unwrap();
    let counters = server.counters();
    assert_eq!(
        (counters.requests, counters.connections),
        (2, 1),
        "the call found the connection"
    );

    drop(model);
    assert_eq!(pool.evict_idle(Duration::ZERO), 1);
    let closed = server.wait_until(|counters| counters.open == 0);
    let closed = tokio::time::timeout(Duration::from_secs(10), closed).await;
    assert!(closed.is_ok(), "evicting closes the connections");
}

#[tokio::test]
async fn warming_tells_what_the_first_call_would_fail_with() {
    let refused = RefusedAddr::new().unwrap();
    let pool = Pool::default();
    let error = connector(&refused.url(), &pool)
        .warm("anthropic/m", 3)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    let nobody = Connector::new().with_pool(pool.clone());
    let error = nobody.warm("cerebras/any", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingCredential);
    assert!(matches!(nobody.warm("nobody/x", 1).await, Err(Error::Config(_))));
    #[cfg(feature = "offline")]
    nobody.warm("offline", 1).await.unwrap();
}
