//! What every store must do, as one suite that each store of this crate runs, and yours can.
//!
//! Time is passed in, so nothing here waits. Keys and tags are made from a name, which must be one that nobody else uses
//! where the store is shared.

use std::sync::Arc;
use std::time::Duration;

use crate::{Entry, Key, KeyBuilder, Lookup, NEVER, SKEW_MS, Selector, Store, Tag};

/// Some wall time, in milliseconds: what a server that keeps time by itself thinks of it too.
fn now() -> u64 {
    use crate::Clock as _;
    crate::SystemTimeClock.unix_ms()
}

const HOUR: Duration = Duration::from_secs(3600);

/// A key of this run.
pub fn key(name: &str, number: u64) -> Key {
    let mut key = KeyBuilder::new("conformance", name.as_bytes());
    key.count(number);
    key.finish()
}

fn tag(name: &str, label: &str) -> Tag {
    Tag::label(&format!("{name}/{label}"))
}

/// Runs the suite on a store. It should be empty, and must have room for 100 entries of 100 bytes.
///
/// # Panics
///
/// Where the store does not do what [`Store`] says.
pub async fn check(store: &dyn Store<String>, name: &str) {
    gives_back_what_was_put(store, name).await;
    keeps_times(store, name).await;
    removes(store, name).await;
    replaces(store, name).await;
    takes_any_value(store, name).await;
    let left = store.remove(&Selector::All).await;
    assert!(left.is_ok(), "{left:?}");
}

async fn get(store: &dyn Store<String>, key: &Key, now: u64) -> Option<Entry<String>> {
    let found = store.get(key, now).await;
    let found = found.unwrap_or_else(|error| panic!("a look-up failed: {error}"));
    match store.get_now(key, now) {
        Ok(Lookup::Ask) => {}
        Ok(Lookup::Hit(entry)) => assert_eq!(
            found.as_ref().map(|found| &found.value),
            Some(&entry.value),
            "both ways of looking find the same"
        ),
        Ok(Lookup::Miss) => assert!(found.is_none(), "both ways of looking find nothing"),
        Err(error) => panic!("a look-up failed: {error}"),
    }
    found
}

async fn put(store: &dyn Store<String>, key: &Key, entry: &Entry<String>, now: u64) {
    let stored = store.put(key, entry, now).await;
    assert!(matches!(stored, Ok(true)), "an entry was not stored: {stored:?}");
}

async fn gives_back_what_was_put(store: &dyn Store<String>, name: &str) {
    let now = now();
    let (one, two) = (key(name, 1), key(name, 2));
    assert!(get(store, &one, now).await.is_none(), "a store begins empty");
    let tags = [tag(name, "x"), tag(name, "y")];
    let entry = Entry::new("value".to_owned(), now, Some(HOUR), &tags).kept_for(HOUR);
    put(store, &one, &entry, now).await;
    let found = get(store, &one, now).await;
    let found = found.unwrap_or_else(|| panic!("what was put is there"));
    assert_eq!(*found.value, "value");
    assert_eq!(
        (found.created, found.fresh_until, found.keep_until),
        (entry.created, entry.fresh_until, entry.keep_until),
        "times travel with the entry"
    );
    assert_eq!(&*found.tags, &tags, "tags travel with the entry");
    assert!(get(store, &two, now).await.is_none(), "under its key only");
}

async fn keeps_times(store: &dyn Store<String>, name: &str) {
    let now = now();
    let key = key(name, 10);
    put(
        store,
        &key,
        &Entry::new("hour".to_owned(), now, Some(HOUR), &[]),
        now,
    )
    .await;
    let end = now + 3_600_000;
    assert!(get(store, &key, end - 1).await.is_some(), "until its time");
    assert!(get(store, &key, end).await.is_none(), "not from its time on");

    let ever = Entry::new("ever".to_owned(), now, None, &[]);
    put(store, &key, &ever, now).await;
    assert!(
        get(store, &key, NEVER - 1).await.is_some(),
        "without a time for ever"
    );

    let late = Entry::new("late".to_owned(), now - 7_200_000, Some(HOUR), &[]);
    assert!(
        matches!(store.put(&key, &late, now).await, Ok(false)),
        "what is past its time is not stored"
    );
    let future = Entry::new("future".to_owned(), now + 2 * SKEW_MS, None, &[]);
    let _either = store.put(&key, &future, now).await;
    assert!(
        get(store, &key, now).await.is_none(),
        "nothing is given out that is made in the future"
    );
}

async fn removes(store: &dyn Store<String>, name: &str) {
    let now = now();
    let (even, odd, all) = (tag(name, "even"), tag(name, "odd"), tag(name, "all"));
    for number in 20..30 {
        let parity = if number % 2 == 0 { even } else { odd };
        let entry = Entry::new(number.to_string(), now, Some(HOUR), &[parity, all]);
        put(store, &key(name, number), &entry, now).await;
    }
    let removed = store.remove(&Selector::Key(key(name, 20))).await;
    assert!(matches!(removed, Ok(1)), "one by its key: {removed:?}");
    let removed = store.remove(&Selector::Key(key(name, 20))).await;
    assert!(matches!(removed, Ok(0)), "and only once: {removed:?}");
    let removed = store.remove(&Selector::Tag(even)).await;
    assert!(matches!(removed, Ok(4)), "those with a tag: {removed:?}");
    for number in 20..30 {
        let there = get(store, &key(name, number), now).await.is_some();
        assert_eq!(there, number % 2 == 1, "entry {number}");
    }
    let removed = store.remove(&Selector::Tag(tag(name, "nobody"))).await;
    assert!(
        matches!(removed, Ok(0)),
        "none of a tag that none has: {removed:?}"
    );
    // An entry that is stored again without a tag is not removed by it.
    let plain = Entry::new("plain".to_owned(), now, Some(HOUR), &[]);
    put(store, &key(name, 21), &plain, now).await;
    let removed = store.remove(&Selector::Tag(all)).await;
    assert!(
        matches!(removed, Ok(4)),
        "those that still have a tag: {removed:?}"
    );
    assert!(get(store, &key(name, 21), now).await.is_some());
    let removed = store.remove(&Selector::All).await;
    assert!(matches!(removed, Ok(1..)), "everything: {removed:?}");
    assert!(get(store, &key(name, 21), now).await.is_none());
}

async fn replaces(store: &dyn Store<String>, name: &str) {
    let now = now();
    let key = key(name, 40);
    for round in 0..20 {
        let entry = Entry::new(round.to_string(), now, Some(HOUR), &[tag(name, "round")]);
        put(store, &key, &entry, now).await;
        let found = get(store, &key, now).await.map(|entry| entry.value);
        assert_eq!(found, Some(Arc::new(round.to_string())));
    }
    let removed = store.remove(&Selector::Tag(tag(name, "round"))).await;
    assert!(
        matches!(removed, Ok(1)),
        "one entry, however often it was stored: {removed:?}"
    );
}

async fn takes_any_value(store: &dyn Store<String>, name: &str) {
    let now = now();
    let values = ["", "\0\n\u{1f600}", "with \"quotes\" and \\", &"long ".repeat(20)];
    for (number, value) in values.iter().enumerate() {
        let key = key(name, 50 + number as u64);
        put(store, &key, &Entry::new((*value).to_owned(), now, None, &[]), now).await;
        assert_eq!(
            get(store, &key, now)
                .await
                .map(|entry| (*entry.value).clone())
                .as_deref(),
            Some(*value)
        );
    }
}
