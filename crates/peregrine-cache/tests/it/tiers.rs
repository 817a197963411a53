//! Tiers: entries keep their times on the way up, and a tier that fails breaks nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use peregrine_cache::conformance::{self, key};
use peregrine_cache::{
    Clock as _, Entry, Error, Key, Lookup, MemoryConfig, MemoryStore, Operation, Result, Selector, Store,
    StoreStatus, TierEvent, Tiers,
};

use crate::Time;

fn memory() -> MemoryStore<String> {
    MemoryStore::new(&MemoryConfig::default())
}

/// A store behind a wire that can be cut.
#[derive(Debug)]
struct Wired {
    store: MemoryStore<String>,
    cut: AtomicBool,
    asked: AtomicU64,
}

impl Wired {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            store: memory(),
            cut: AtomicBool::new(false),
            asked: AtomicU64::new(0),
        })
    }

    fn wire(&self) -> Result<()> {
        self.asked.fetch_add(1, SeqCst);
        match self.cut.load(SeqCst) {
            true => Err(Error::Unavailable {
                store: "wired",
                message: "the wire is cut".to_owned(),
            }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Store<String> for Wired {
    fn get_now(&self, _: &Key, _: u64) -> Result<Lookup<String>> {
        Ok(Lookup::Ask)
    }

    async fn get(&self, key: &Key, now: u64) -> Result<Option<Entry<String>>> {
        self.wire()?;
        self.store.get(key, now).await
    }

    async fn put(&self, key: &Key, entry: &Entry<String>, now: u64) -> Result<bool> {
        self.wire()?;
        self.store.put(key, entry, now).await
    }

    async fn remove(&self, what: &Selector) -> Result<u64> {
        self.wire()?;
        self.store.remove(what).await
    }

    fn status(&self) -> StoreStatus {
        StoreStatus::new("wired")
    }
}

#[tokio::test]
async fn does_what_every_store_does() {
    let tiers = Tiers::new().with(memory()).with(Wired::new()).with(memory());
    conformance::check(&tiers, "tiers").await;
    conformance::check(&Tiers::new().with(memory()), "one tier").await;
}

#[tokio::test]
async fn what_is_found_below_is_copied_up_with_its_times() {
    let clock = Time::new();
    let (upper, lower) = (Arc::new(memory()), Wired::new());
    let tiers = Tiers::new()
        .with(upper.clone())
        .with(lower.clone())
        .with_clock(Arc::new(clock.clone()));
    let entry = Entry::new(
        "v".to_owned(),
        clock.unix_ms(),
        Some(Duration::from_secs(60)),
        &[],
    );
    lower
        .store
        .put(&key("up", 1), &entry, clock.unix_ms())
        .await
        .unwrap();
    clock.advance(Duration::from_secs(50));
    assert!(matches!(
        tiers.get_now(&key("up", 1), clock.unix_ms()),
        Ok(Lookup::Ask)
    ));
    assert!(tiers.get(&key("up", 1), clock.unix_ms()).await.unwrap().is_some());
    let copy = upper.get(&key("up", 1), clock.unix_ms()).await.unwrap().unwrap();
    assert_eq!((copy.created, copy.keep_until), (entry.created, entry.keep_until));
    assert!(matches!(
        tiers.get_now(&key("up", 1), clock.unix_ms()),
        Ok(Lookup::Hit(_))
    ));
    clock.advance(Duration::from_secs(10));
    assert!(
        tiers.get(&key("up", 1), clock.unix_ms()).await.unwrap().is_none(),
        "the copy did not live longer"
    );
    let stats = tiers.stats();
    assert_eq!((stats[0].hits, stats[1].hits), (1, 1));
    assert_eq!(stats[1].hit_latency.count(), 1);
}

#[tokio::test]
async fn a_tier_that_fails_is_reported_once_and_left_out_until_it_answers() {
    let clock = Time::new();
    let lower = Wired::new();
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = events.clone();
    let tiers = Tiers::new()
        .with(memory())
        .with(lower.clone())
        .with_clock(Arc::new(clock.clone()))
        .with_report(move |event| told.lock().unwrap().push(event.clone()));
    let now = clock.unix_ms();
    lower.cut.store(true, SeqCst);
    for number in 0..100 {
        assert!(tiers.get(&key("down", number), now).await.unwrap().is_none());
        let entry = Entry::new("v".to_owned(), now, None, &[]);
        assert!(
            tiers.put(&key("down", number), &entry, now).await.unwrap(),
            "memory took it"
        );
    }
    assert_eq!(
        lower.asked.load(SeqCst),
        1,
        "one look-up failed, the rest was left out"
    );
    {
        let events = events.lock().unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
        assert!(matches!(
            &events[0],
            TierEvent::Down {
                tier: "wired",
                operation: Operation::Read,
                ..
            }
        ));
    }
    let stats = tiers.stats();
    assert!(stats[1].down && stats[1].failures == 1 && stats[1].skipped > 50);

    // It is tried after 1, 2, 4, .. seconds, and then every minute.
    for _ in 0..600 {
        clock.advance(Duration::from_secs(1));
        for number in 200..210 {
            assert!(tiers.get(&key("down", number), now).await.unwrap().is_none());
        }
    }
    let tries = lower.asked.load(SeqCst) - 1;
    assert!(
        (10..=16).contains(&tries),
        "{tries} tries in ten minutes of 6,000 look-ups"
    );
    assert_eq!(events.lock().unwrap().len(), 1);
    let error = tiers.remove(&Selector::All).await.unwrap_err();
    assert!(error.is_retryable(), "who removes is told: {error}");

    lower.cut.store(false, SeqCst);
    clock.advance(Duration::from_secs(60));
    assert!(tiers.get(&key("down", 300), now).await.unwrap().is_none());
    let entry = Entry::new("v".to_owned(), clock.unix_ms(), None, &[]);
    assert!(
        tiers
            .put(&key("down", 300), &entry, clock.unix_ms())
            .await
            .unwrap()
    );
    assert!(
        lower
            .store
            .get(&key("down", 300), clock.unix_ms())
            .await
            .unwrap()
            .is_some()
    );
    let events = events.lock().unwrap();
    let ups = events.iter().filter(|event| {
        matches!(
            event,
            TierEvent::Up {
                operation: Operation::Read,
                ..
            }
        )
    });
    assert_eq!(ups.count(), 1, "{events:?}");
    assert!(!tiers.stats()[1].down);
}
