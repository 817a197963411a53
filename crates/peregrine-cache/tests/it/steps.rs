//! Rows of random steps on stores, beside a model that never loses anything.
//!
//! With room enough a store has to agree with the model exactly: what is there, until when, what a removal takes. With
//! little it may have lost entries, and nothing else. A disk is used through two handles, which are closed and opened again.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use peregrine_cache::conformance::key;
use peregrine_cache::{
    DiskConfig, DiskStore, Entry, Lookup, MemoryConfig, MemoryStore, Selector, Store, Tag, Tiers,
};
use proptest::prelude::*;

const START: u64 = 1_000_000;

#[derive(Debug, Clone)]
enum Step {
    Put {
        key: u64,
        size: usize,
        tags: (u8, u8),
        ttl: Option<u64>,
    },
    Get(u64),
    RemoveKey(u64),
    RemoveTag(u8),
    RemoveAll,
    Advance(u64),
    /// The other handle, or a new one in its place.
    Turn {
        anew: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u64..30, 0_usize..3_000, (0_u8..4, 0_u8..4), proptest::option::of(1_u64..80))
            .prop_map(|(key, size, tags, ttl)| Step::Put { key, size, tags, ttl }),
        6 => (0_u64..30).prop_map(Step::Get),
        1 => (0_u64..30).prop_map(Step::RemoveKey),
        1 => (0_u8..4).prop_map(Step::RemoveTag),
        1 => (0_u8..1).prop_map(|_| Step::RemoveAll),
        2 => (0_u64..30).prop_map(Step::Advance),
        2 => any::<bool>().prop_map(|anew| Step::Turn { anew }),
    ]
}

fn label(number: u8) -> Tag {
    Tag::label(&format!("tag {number}"))
}

/// Does the steps. `exact` says that there is room enough.
fn check(
    exact: bool,
    open: impl Fn() -> Box<dyn Store<String>>,
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let mut handles = [open(), open()];
    let mut model: BTreeMap<u64, (String, [u8; 2], u64)> = BTreeMap::new();
    let mut now = START;
    for (round, step) in steps.into_iter().enumerate() {
        match step {
            Step::Put {
                key: number,
                size,
                tags,
                ttl,
            } => {
                // Later ones are newer, also for who only sees what is stored.
                now += 1;
                let value = format!("{round}{}", "x".repeat(size));
                let (one, two) = tags;
                let entry = Entry::new(
                    value.clone(),
                    now,
                    ttl.map(Duration::from_millis),
                    &[label(one), label(two)],
                );
                let stored = handles[0].put(&key("steps", number), &entry, now).now_or_never();
                prop_assert!(stored.unwrap().unwrap());
                model.insert(number, (value, [one, two], ttl.map_or(u64::MAX, |ttl| now + ttl)));
            }
            Step::Get(number) => {
                let Ok(found) = handles[0].get_now(&key("steps", number), now) else {
                    return Err(TestCaseError::fail("a look-up failed"));
                };
                let known = model.get(&number).filter(|(_, _, until)| now < *until);
                match (found, known) {
                    (Lookup::Hit(entry), Some((value, ..))) => prop_assert_eq!(&*entry.value, value),
                    (Lookup::Hit(_), None) => prop_assert!(false, "{} is not to be there", number),
                    (_, known) => prop_assert!(!exact || known.is_none(), "{} is gone", number),
                }
            }
            Step::RemoveKey(number) => {
                let live = model.remove(&number).is_some_and(|(_, _, until)| now < until);
                remove(
                    &*handles[0],
                    &Selector::Key(key("steps", number)),
                    exact,
                    usize::from(live),
                    1,
                )?;
            }
            Step::RemoveTag(tag) => {
                let (mut live, before) = (0, model.len());
                model.retain(|_, (_, tags, until)| {
                    live += usize::from(tags.contains(&tag) && now < *until);
                    !tags.contains(&tag)
                });
                let most = before - model.len();
                remove(&*handles[0], &Selector::Tag(label(tag)), exact, live, most)?;
            }
            Step::RemoveAll => {
                let live = model.values().filter(|(_, _, until)| now < *until).count();
                remove(&*handles[0], &Selector::All, exact, live, model.len())?;
                model.clear();
            }
            Step::Advance(by) => now += by,
            Step::Turn { anew } => {
                handles.swap(0, 1);
                if anew {
                    handles[0] = open();
                }
            }
        }
    }
    Ok(())
}

/// Removes, and looks that it took all that was there; what is past its time may count or not.
fn remove(
    store: &dyn Store<String>,
    what: &Selector,
    exact: bool,
    live: usize,
    most: usize,
) -> Result<(), TestCaseError> {
    let removed = store.remove(what).now_or_never().unwrap().unwrap() as usize;
    prop_assert!(removed <= most.max(live), "{} of {} were removed", removed, most);
    prop_assert!(!exact || removed >= live, "{} of {} were removed", removed, live);
    Ok(())
}

fn config(entries: usize, bytes: usize) -> MemoryConfig {
    MemoryConfig::default()
        .with_max_entries(entries)
        .with_max_bytes(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn memory_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..100)) {
        for (exact, config) in [(true, config(1_000, 16 << 20)), (false, config(8, 10_000))] {
            let store = std::sync::Arc::new(MemoryStore::new(&config));
            check(exact, || Box::new(store.clone()), steps.clone())?;
        }
    }

    #[test]
    fn a_disk_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..100)) {
        for (exact, bytes) in [(true, 64 << 20), (false, 128 << 10)] {
            let dir = tempfile::tempdir().unwrap();
            let config = DiskConfig::new(dir.path()).with_max_bytes(bytes);
            check(exact, || Box::new(DiskStore::open(&config).unwrap()), steps.clone())?;
        }
    }

    #[test]
    fn tiers_do_what_the_model_does(steps in proptest::collection::vec(step(), 1..100)) {
        let dir = tempfile::tempdir().unwrap();
        let disk = DiskStore::open(&DiskConfig::new(dir.path())).unwrap();
        let tiers = Tiers::new().with(MemoryStore::new(&config(8, 10_000))).with(disk);
        let tiers = std::sync::Arc::new(tiers);
        check(true, || Box::new(tiers.clone()), steps)?;
    }
}
