//! Disk: restarts, crashes, damage, two processes, and its bounds.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt as _;
use peregrine_cache::conformance::{self, key};
use peregrine_cache::{
    CacheStats, DiskConfig, DiskStore, Entry, ErrorKind, Key, Lookup, Selector, Store, Tag, Totals,
};

const NOW: u64 = 1_000_000;

fn open(dir: &tempfile::TempDir) -> DiskStore {
    DiskStore::open(&DiskConfig::new(dir.path()).with_max_bytes(1 << 20)).unwrap()
}

fn get(store: &DiskStore, key: &Key) -> Option<String> {
    match Store::<String>::get_now(store, key, NOW).unwrap() {
        Lookup::Hit(entry) => Some((*entry.value).clone()),
        Lookup::Miss => None,
        Lookup::Ask => panic!("a disk is looked at in place"),
    }
}

fn put(store: &DiskStore, key: &Key, value: &str) {
    let entry = Entry::new(
        value.to_owned(),
        NOW,
        None,
        &[Tag::label("all"), Tag::label(value)],
    );
    assert!(store.put(key, &entry, NOW).now_or_never().unwrap().unwrap());
}

fn remove(store: &DiskStore, what: &Selector) -> u64 {
    Store::<String>::remove(store, what)
        .now_or_never()
        .unwrap()
        .unwrap()
}

fn status(store: &DiskStore) -> peregrine_cache::StoreStatus {
    Store::<String>::status(store)
}

fn files(store: &DiskStore) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(store.dir())
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn does_what_every_store_does() {
    let dir = tempfile::tempdir().unwrap();
    conformance::check(&open(&dir), "disk").await;
    conformance::check(&open(&dir), "disk, opened again").await;
}

#[test]
fn what_was_stored_is_there_after_a_restart_and_what_was_removed_is_not() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(&dir);
        for number in 0..10 {
            put(&store, &key("restart", number), &format!("value {number}"));
        }
        put(&store, &key("restart", 1), "newer");
        assert_eq!(remove(&store, &Selector::Key(key("restart", 2))), 1);
        assert_eq!(remove(&store, &Selector::Tag(Tag::label("value 3"))), 1);
    }
    let store = open(&dir);
    assert_eq!(get(&store, &key("restart", 0)).as_deref(), Some("value 0"));
    assert_eq!(get(&store, &key("restart", 1)).as_deref(), Some("newer"));
    assert_eq!(get(&store, &key("restart", 2)), None);
    assert_eq!(get(&store, &key("restart", 3)), None);
    assert_eq!(status(&store).entries, Some(8));
    assert_eq!(
        remove(&store, &Selector::Tag(Tag::label("all"))),
        8,
        "tags are there again too"
    );
    assert_eq!(
        files(&store).len(),
        1,
        "a restart goes on with the segment of the one before"
    );
    let mode = fs::metadata(store.dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "answers are for their user alone");
}

#[test]
fn a_crash_in_the_middle_of_a_write_costs_that_entry() {
    let dir = tempfile::tempdir().unwrap();
    let file;
    {
        let store = open(&dir);
        put(&store, &key("crash", 1), "whole");
        put(&store, &key("crash", 2), "cut");
        file = files(&store)[0].clone();
    }
    let whole = fs::metadata(&file).unwrap().len();
    for cut in 1..80 {
        let copy = tempfile::tempdir().unwrap();
        let inner = copy.path().join("v1");
        fs::create_dir(&inner).unwrap();
        let target = inner.join(file.file_name().unwrap());
        fs::copy(&file, &target).unwrap();
        OpenOptions::new()
            .write(true)
            .open(&target)
            .unwrap()
            .set_len(whole - cut)
            .unwrap();
        let store = open(&copy);
        assert_eq!(get(&store, &key("crash", 1)).as_deref(), Some("whole"));
        assert_eq!(get(&store, &key("crash", 2)), None);
        put(&store, &key("crash", 3), "after the crash");
        drop(store);
        let store = open(&copy);
        assert_eq!(get(&store, &key("crash", 1)).as_deref(), Some("whole"));
        assert_eq!(
            get(&store, &key("crash", 3)).as_deref(),
            Some("after the crash"),
            "cut by {cut}"
        );
    }
}

#[test]
fn a_damaged_record_is_one_error_and_then_a_miss_and_can_be_stored_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, &key("damage", 1), "first");
    put(&store, &key("damage", 2), "second");
    let file = files(&store)[0].clone();
    let bytes = fs::read(&file).unwrap();
    let at = bytes.windows(6).rposition(|window| window == b"second").unwrap();
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(b"x", at as u64).unwrap();

    let error = Store::<String>::get_now(&store, &key("damage", 2), NOW).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(get(&store, &key("damage", 2)), None);
    assert_eq!(get(&store, &key("damage", 1)).as_deref(), Some("first"));
    assert_eq!(status(&store).corrupt, 1);
    put(&store, &key("damage", 2), "again");
    drop(store);
    let store = open(&dir);
    assert_eq!(get(&store, &key("damage", 2)).as_deref(), Some("again"));
}

#[test]
fn files_that_are_none_of_ours_are_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("v1");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("0000000000000000.seg"), b"not a segment at all").unwrap();
    fs::write(inner.join("0000000000000001.seg"), b"").unwrap();
    fs::write(inner.join("notes.txt"), b"left alone").unwrap();
    let store = open(&dir);
    put(&store, &key("ours", 1), "works");
    assert_eq!(get(&store, &key("ours", 1)).as_deref(), Some("works"));
    assert_eq!(status(&store).corrupt, 2);
    assert!(inner.join("notes.txt").exists());
}

#[test]
fn two_stores_of_one_directory_share_what_they_hold() {
    // A lock on a file is held by its handle, so two stores are to each other what two processes are.
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (open(&dir), open(&dir));
    put(&one, &key("share", 1), "from one");
    assert_eq!(get(&two, &key("share", 1)).as_deref(), Some("from one"));
    put(&two, &key("share", 2), "from two");
    assert_eq!(get(&one, &key("share", 2)).as_deref(), Some("from two"));
    put(&two, &key("share", 1), "newer, from two");
    assert_eq!(get(&one, &key("share", 1)).as_deref(), Some("newer, from two"));
    assert_eq!(remove(&one, &Selector::Key(key("share", 2))), 1);
    assert_eq!(get(&two, &key("share", 2)), None, "a removal reaches everybody");
    assert_eq!(remove(&two, &Selector::All), 1);
    assert_eq!(get(&one, &key("share", 1)), None);
    put(&one, &key("share", 3), "after everything was removed");
    assert_eq!(
        get(&two, &key("share", 3)).as_deref(),
        Some("after everything was removed")
    );
    assert_eq!(
        get(&one, &key("share", 3)).as_deref(),
        Some("after everything was removed")
    );
}

/// Everything is removed, and what is stored after that must not be taken for what was there.
#[test]
fn who_looks_on_while_all_is_cleared_sees_what_comes_after() {
    let dir = tempfile::tempdir().unwrap();
    let (reads, writes, clears) = (open(&dir), open(&dir), open(&dir));
    for round in 0..5 {
        put(&writes, &key("clear", 1), &format!("value {round}"));
        put(&reads, &key("clear", 2), &format!("value {round}"));
        assert_eq!(get(&reads, &key("clear", 1)), Some(format!("value {round}")));
        assert_eq!(remove(&clears, &Selector::All), 2);
        assert_eq!(get(&reads, &key("clear", 1)), None);
        put(&writes, &key("clear", 3), &format!("value {round}"));
        assert_eq!(get(&reads, &key("clear", 3)), Some(format!("value {round}")));
        assert_eq!(get(&clears, &key("clear", 3)), Some(format!("value {round}")));
        assert_eq!(remove(&reads, &Selector::All), 1);
        assert_eq!(get(&writes, &key("clear", 3)), None);
    }
}

#[test]
fn what_was_removed_past_its_time_does_not_come_back_with_an_earlier_clock() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let tags = [Tag::label("old")];
    let entry = Entry::new("v".to_owned(), NOW, Some(Duration::from_secs(1)), &tags);
    assert!(
        store
            .put(&key("old", 1), &entry, NOW)
            .now_or_never()
            .unwrap()
            .unwrap()
    );
    let late = Store::<String>::get_now(&store, &key("old", 1), NOW + 1_000).unwrap();
    assert!(matches!(late, Lookup::Miss));
    assert_eq!(
        get(&store, &key("old", 1)).as_deref(),
        Some("v"),
        "it was not yet time"
    );
    remove(&store, &Selector::Tag(Tag::label("old")));
    assert_eq!(get(&store, &key("old", 1)), None);
    assert_eq!(get(&open(&dir), &key("old", 1)), None);
}

#[test]
fn the_room_is_bounded_and_what_is_used_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(&DiskConfig::new(dir.path()).with_max_bytes(256 << 10)).unwrap();
    let value = "v".repeat(1000);
    let used: Vec<_> = (0..10).map(|number| key("used", number)).collect();
    for key in &used {
        put(&store, key, &value);
    }
    for number in 0..2_000 {
        put(&store, &key("scan", number), &value);
        if number % 10 == 0 {
            assert!(used.iter().all(|key| get(&store, key).is_some()), "at {number}");
        }
        let on_disk: u64 = files(&store)
            .iter()
            .map(|file| fs::metadata(file).unwrap().len())
            .sum();
        assert!(on_disk <= 256 << 10, "{on_disk} bytes at {number}");
    }
    assert!(status(&store).evictions > 1_500);

    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(&DiskConfig::new(dir.path()).with_max_entries(20)).unwrap();
    for number in 0..200 {
        put(&store, &key("count", number), "v");
        assert!(status(&store).entries.unwrap() <= 20);
    }
    assert!(get(&store, &key("count", 199)).is_some());
}

#[test]
fn a_full_or_missing_directory_is_an_error_and_not_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, &key("gone", 1), "v");
    fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(
        get(&store, &key("gone", 1)).as_deref(),
        Some("v"),
        "what is open can still be read"
    );
    let entry = Entry::new("v".to_owned(), NOW, Some(Duration::from_secs(1)), &[]);
    let error = store
        .put(&key("gone", 2), &entry, NOW)
        .now_or_never()
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.is_retryable());
    let error = DiskStore::open(&DiskConfig::new(dir.path()).with_max_bytes(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

/// Whatever stands in the files, a store opens, gives out only what was put, and works on.
#[test]
fn seeded_fuzz_of_segments() {
    crate::seeded_fuzz(48, |random| {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = open(&dir);
            for number in 0..10 {
                put(&store, &key("fuzz", number), &format!("value {number}"));
            }
            let file = files(&store)[0].clone();
            drop(store);
            let mut bytes = fs::read(&file).unwrap();
            crate::damage(&mut bytes, random);
            fs::write(&file, bytes).unwrap();
        }
        let store = open(&dir);
        for number in 0..10 {
            if let Ok(Lookup::Hit(entry)) = Store::<String>::get_now(&store, &key("fuzz", number), NOW) {
                assert_eq!(*entry.value, format!("value {number}"));
            }
        }
        put(&store, &key("fuzz", 11), "after");
        drop(store);
        assert_eq!(get(&open(&dir), &key("fuzz", 11)).as_deref(), Some("after"));
    });
}

#[test]
fn whoever_looks_from_outside_is_told_what_is_there_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = DiskConfig::new(dir.path().join("cache"));
    assert!(DiskStore::open_existing(&config).unwrap().is_none());
    assert!(!config.dir.exists(), "looking makes no cache");

    let uses = DiskStore::open(&config).unwrap();
    let looks = DiskStore::open_existing(&config).unwrap().unwrap();
    assert_eq!(looks.survey(NOW).unwrap().entries, 0);
    for (number, ttl) in [(1, None), (2, Some(10)), (3, Some(1_000))] {
        let ttl = ttl.map(Duration::from_millis);
        let tags = [
            Tag::label("all"),
            Tag::label(if number == 1 { "one" } else { "others" }),
        ];
        let entry = Entry::new("v".to_owned(), NOW + number, ttl, &tags);
        assert!(
            uses.put(&key("look", number), &entry, NOW)
                .now_or_never()
                .unwrap()
                .unwrap()
        );
    }
    let survey = looks.survey(NOW + 20).unwrap();
    assert_eq!((survey.entries, survey.expired), (2, 1));
    assert_eq!((survey.oldest, survey.newest), (Some(NOW + 1), Some(NOW + 3)));
    let on_disk: u64 = files(&looks)
        .iter()
        .map(|file| fs::metadata(file).unwrap().len())
        .sum();
    assert!((on_disk..on_disk + 16).contains(&survey.bytes.unwrap()));
    let count = |what: &Selector| looks.count(what, NOW + 20).unwrap();
    assert_eq!(count(&Selector::All), 2);
    assert_eq!(count(&Selector::Tag(Tag::label("others"))), 1);
    assert_eq!(count(&Selector::Tag(Tag::label("nobody"))), 0);
    assert_eq!(count(&Selector::Key(key("look", 1))), 1);
    assert_eq!(remove(&looks, &Selector::Tag(Tag::label("one"))), 1);
    assert_eq!(get(&uses, &key("look", 1)), None, "whoever uses it hears of it");
    assert_eq!(get(&uses, &key("look", 3)).as_deref(), Some("v"));
}

#[test]
fn totals_are_added_by_all_and_survive_what_stands_in_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (open(&dir), open(&dir));
    assert_eq!(one.totals().unwrap(), Totals::default());
    let mut stats = CacheStats::default();
    (stats.hits, stats.misses, stats.tokens_saved) = (3, 1, 100);
    let before = Totals::of(&stats);
    one.add_totals(&before).unwrap();
    (stats.hits, stats.nano_usd_saved) = (5, 7);
    two.add_totals(&Totals::of(&stats).since(&before)).unwrap();
    let totals = two.totals().unwrap();
    assert_eq!((totals.hits, totals.misses), (5, 1));
    assert_eq!((totals.tokens_saved, totals.nano_usd_saved), (100, 7));
    assert!(totals.since.is_some() && (totals.hit_rate() - 5.0 / 6.0).abs() < 1e-9);
    remove(&one, &Selector::All);
    assert_eq!(one.totals().unwrap(), totals, "they are no entries");

    // Threads and handles at once lose nothing.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = open(&dir);
                for _ in 0..100 {
                    store.add_totals(&before).unwrap();
                }
            });
        }
    });
    assert_eq!(one.totals().unwrap().hits, 5 + 1_200);

    // A crash in the middle of writing damages the slot that does not count.
    let file = one.dir().join("totals");
    let whole = fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let hits = one.totals().unwrap().hits;
        assert!(hits == 1_205 || hits == 1_202, "{hits} with byte {at} damaged");
        fs::write(&file, &whole[..at]).unwrap();
        let hits = one.totals().unwrap().hits;
        assert!([0, 1_205, 1_202].contains(&hits), "{hits} when cut to {at}");
    }
    fs::write(&file, b"nothing of ours").unwrap();
    assert_eq!(one.totals().unwrap(), Totals::default());
    one.add_totals(&before).unwrap();
    assert_eq!(two.totals().unwrap().hits, 3, "they begin anew");
}
