//! Disk: restarts, crashes, damage, two processes, and its bounds.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt as _;
use peregrine_cache::conformance::{self, key};
use peregrine_cache::{DiskConfig, DiskStore, Entry, ErrorKind, Key, Lookup, Selector, Store, Tag};

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
