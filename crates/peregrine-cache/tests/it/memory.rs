//! Memory: its bounds hold at any time, and a scan does not wash out what is used.

use std::collections::BTreeMap;
use std::time::Duration;

use peregrine_cache::conformance::{self, key};
use peregrine_cache::{Entry, Key, Lookup, MemoryConfig, MemoryStore, Selector, Store, Tag};
use proptest::prelude::*;

const NOW: u64 = 1_000_000;

fn store(entries: usize, bytes: usize) -> MemoryStore<String> {
    MemoryStore::new(
        &MemoryConfig::default()
            .with_max_entries(entries)
            .with_max_bytes(bytes),
    )
}

fn has(store: &MemoryStore<String>, key: &Key) -> bool {
    matches!(store.get_now(key, NOW), Ok(Lookup::Hit(_)))
}

fn put(store: &MemoryStore<String>, key: &Key, entry: &Entry<String>) -> bool {
    futures_util::FutureExt::now_or_never(store.put(key, entry, NOW))
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn does_what_every_store_does() {
    conformance::check(&store(10_000, 64 << 20), "memory").await;
    // One shard, and many.
    conformance::check(&store(100, 1 << 20), "memory").await;
}

#[test]
fn a_scan_does_not_wash_out_what_is_used() {
    let store = store(100, 1 << 20);
    let entry = Entry::new("x".to_owned(), NOW, None, &[]);
    let used: Vec<_> = (0..50).map(|number| key("used", number)).collect();
    for key in &used {
        put(&store, key, &entry);
    }
    for _ in 0..2 {
        assert!(used.iter().all(|key| has(&store, key)));
    }
    for number in 0..10_000 {
        put(&store, &key("scan", number), &entry);
    }
    let left = used.iter().filter(|key| has(&store, key)).count();
    assert_eq!(left, 50, "a scan went through the small queue");
    assert_eq!(store.status().evictions, 10_050 - store.status().entries.unwrap());
}

#[test]
fn what_is_larger_than_the_room_is_not_stored_and_takes_the_older_one_along() {
    let store = store(10, 4096);
    let small = Entry::new("x".to_owned(), NOW, None, &[]);
    let large = Entry::new("x".repeat(5000), NOW, None, &[]);
    assert!(put(&store, &key("large", 1), &small));
    assert!(!put(&store, &key("large", 1), &large));
    assert!(
        !has(&store, &key("large", 1)),
        "what was to be replaced is not given out"
    );
}

#[derive(Debug, Clone)]
enum Step {
    Put {
        key: u64,
        size: usize,
        tag: u8,
        ttl: Option<u64>,
    },
    Get {
        key: u64,
    },
    RemoveKey {
        key: u64,
    },
    RemoveTag {
        tag: u8,
    },
    Advance {
        by: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0_u64..40, 0_usize..3000, 0_u8..4, proptest::option::of(1_u64..50))
            .prop_map(|(key, size, tag, ttl)| Step::Put { key, size, tag, ttl }),
        5 => (0_u64..40).prop_map(|key| Step::Get { key }),
        1 => (0_u64..40).prop_map(|key| Step::RemoveKey { key }),
        1 => (0_u8..4).prop_map(|tag| Step::RemoveTag { tag }),
        1 => (0_u64..30).prop_map(|by| Step::Advance { by }),
    ]
}

proptest! {
    /// A model that never evicts: the store gives out what the model has, or nothing.
    #[test]
    fn bounds_hold_and_nothing_is_given_out_that_should_not_be(steps in proptest::collection::vec(step(), 1..200)) {
        let store = store(16, 20_000);
        let mut model: BTreeMap<u64, (String, u8, u64)> = BTreeMap::new();
        let mut time = NOW;
        for (round, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put { key: number, size, tag, ttl } => {
                    let value = format!("{round}{}", "x".repeat(size));
                    let entry = Entry::new(
                        value.clone(),
                        time,
                        ttl.map(Duration::from_millis),
                        &[Tag::label(&tag.to_string())],
                    );
                    let stored = now(store.put(&key("model", number), &entry, time)).unwrap().unwrap();
                    prop_assert!(stored);
                    model.insert(number, (value, tag, ttl.map_or(u64::MAX, |ttl| time + ttl)));
                }
                Step::Get { key: number } => {
                    if let Lookup::Hit(entry) = store.get_now(&key("model", number), time).unwrap() {
                        let (value, _, until) = model.get(&number).unwrap();
                        prop_assert_eq!(&*entry.value, value);
                        prop_assert!(time < *until);
                    }
                }
                Step::RemoveKey { key: number } => {
                    let removed = now(store.remove(&Selector::Key(key("model", number)))).unwrap().unwrap();
                    prop_assert!(removed <= u64::from(model.remove(&number).is_some()));
                }
                Step::RemoveTag { tag } => {
                    let removed = now(store.remove(&Selector::Tag(Tag::label(&tag.to_string())))).unwrap().unwrap();
                    let before = model.len();
                    model.retain(|_, (_, other, _)| *other != tag);
                    prop_assert!(removed as usize <= before - model.len());
                }
                Step::Advance { by } => time += by,
            }
            let status = store.status();
            prop_assert!(status.entries.unwrap() <= 16);
            prop_assert!(status.bytes.unwrap() <= 20_000);
        }
    }
}

fn now<F: Future>(future: F) -> Option<F::Output> {
    futures_util::FutureExt::now_or_never(future)
}
