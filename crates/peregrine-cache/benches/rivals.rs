//! The cache beside what one would put together by hand from moka, quick_cache or `lru`, in one interleaved run.
//!
//! `cargo bench -p peregrine-cache --features layer --bench rivals`. All of a group take turns in each round, in an order that
//! moves on, so whatever else the machine does falls on all of them; told are the lower quartile of the rounds, and its ratio
//! to the first of the group. Requests are made and dropped outside of what is measured; answers are asserted there too.
//!
//! A cache by hand takes the request's JSON, hashes it with BLAKE3, looks up, and clones the answer. It tells no tenants
//! apart, does not share calls, and marks nothing. `floor` is the hash of the JSON alone, without making the JSON.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark is a program"
)]

use std::cell::Cell;
use std::hint::black_box;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use peregrine_cache::{
    CacheLayer, CachedModel, DiskConfig, DiskStore, Entry, Key, KeyBuilder, Lookup, MemoryConfig,
    MemoryStore, Served, Settings, Store, StoredAnswer,
};
use peregrine_core::{ChatModel, ChatRequest, ChatResponse, Message, ModelInfo, Result, Scope, Usage};

/// One of a group: does as many operations as it is given inputs.
struct Variant<'a, I> {
    name: &'a str,
    operation: Box<dyn FnMut(&I) + 'a>,
}

fn variant<'a, I>(name: &'a str, operation: impl FnMut(&I) + 'a) -> Variant<'a, I> {
    Variant {
        name,
        operation: Box::new(operation),
    }
}

/// Lets all take turns, and tells how long each took.
fn compare<I>(group: &str, make: impl Fn() -> Vec<I>, mut variants: Vec<Variant<'_, I>>) {
    const ROUNDS: usize = 300;
    let mut times = vec![Vec::new(); variants.len()];
    for round in 0..ROUNDS {
        for turn in 0..variants.len() {
            let at = (round + turn) % variants.len();
            let inputs = make();
            let operation = &mut variants[at].operation;
            // What the one before left in the processor's caches is not for this one's account.
            operation(&inputs[0]);
            let start = std::time::Instant::now();
            for input in &inputs[1..] {
                operation(black_box(input));
            }
            let took = start.elapsed().as_nanos() as f64;
            let count = (inputs.len() - 1) as f64;
            times[at].push(took / count);
        }
    }
    let quartiles: Vec<f64> = times
        .iter_mut()
        .map(|times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 4]
        })
        .collect();
    for (variant, time) in variants.iter().zip(&quartiles) {
        let name = format!("{group}/{}", variant.name);
        println!("{name:<44} {time:>9.0} ns {:>7.2} x", time / quartiles[0]);
    }
}

struct Instant(ModelInfo);

impl ChatModel for Instant {
    fn info(&self) -> &ModelInfo {
        &self.0
    }

    async fn complete(&self, _: &ChatRequest) -> Result<ChatResponse> {
        Ok(ChatResponse::text(
            "The sky is blue because air scatters short waves more than long ones. ".repeat(8),
        )
        .with_model("m-2026")
        .with_usage(Usage::new(300, 120)))
    }
}

/// A request of about so many bytes.
fn request(bytes: usize, messages: usize, number: u64) -> ChatRequest {
    let text = |at: usize| format!("{at} {number:08} {}", "w".repeat(bytes / messages - 12));
    ChatRequest::new((0..messages).map(|at| Message::user(text(at))))
        .with_scope(Scope::new("acme", "s1").unwrap())
        .with_temperature(0.0)
        .with_max_tokens(400)
}

fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing here has to wait"),
    }
}

fn model(store: impl Store<StoredAnswer>) -> CachedModel<Instant> {
    Instant(ModelInfo::new("test", "m")).layered(CacheLayer::new(Settings::new().with_store(store)))
}

fn memory() -> MemoryStore<StoredAnswer> {
    MemoryStore::new(&MemoryConfig::default())
}

fn json_key(request: &ChatRequest) -> [u8; 32] {
    blake3::hash(&serde_json::to_vec(request).unwrap()).into()
}

fn hits() {
    let dir = tempfile::tempdir().unwrap();
    let bare = Instant(ModelInfo::new("test", "m"));
    for (bytes, name, messages, batch) in [(1_300, "1.3KB", 3, 64), (100_000, "100KB", 50, 8)] {
        let asked = request(bytes, messages, 0);
        let ours = model(memory());
        let disk = model(DiskStore::open(&DiskConfig::new(dir.path().join(name))).unwrap());
        for model in [&ours, &disk] {
            assert_eq!(now(model.ask(&asked)).unwrap().1, Served::Miss);
            let (response, served) = now(model.ask(&asked)).unwrap();
            assert!(served == Served::Hit && response.message.text().contains("blue"));
        }
        let answer = Arc::new(now(bare.complete(&asked)).unwrap());
        let moka = moka::sync::Cache::new(10_000);
        let quick = quick_cache::sync::Cache::new(10_000);
        let lru = Mutex::new(lru::LruCache::new(10_000.try_into().unwrap()));
        moka.insert(json_key(&asked), answer.clone());
        quick.insert(json_key(&asked), answer.clone());
        lru.lock().unwrap().put(json_key(&asked), answer.clone());
        let json = serde_json::to_vec(&asked).unwrap();
        let layer = CacheLayer::new(Settings::new());
        let info = ModelInfo::new("test", "m");
        let with = |name, again: &ChatRequest| {
            let again = again.clone();
            compare(
                name,
                move || (0..=batch).map(|_| again.clone()).collect(),
                vec![variant("ours-memory", |asked| {
                    black_box(now(ours.complete(asked)).unwrap());
                })],
            );
        };
        compare(
            &format!("hit-of-new-equal/{name}"),
            || (0..=batch).map(|_| request(bytes, messages, 0)).collect(),
            vec![
                variant("ours-memory", |asked| {
                    black_box(now(ours.complete(asked)).unwrap());
                }),
                variant("ours-disk", |asked| {
                    black_box(now(disk.complete(asked)).unwrap());
                }),
                variant("ours-key-alone", |asked| {
                    black_box(layer.key(&info, asked).unwrap());
                }),
                variant("by-hand-moka", |asked| {
                    black_box(ChatResponse::clone(&moka.get(&json_key(asked)).unwrap()));
                }),
                variant("by-hand-quick_cache", |asked| {
                    black_box(ChatResponse::clone(&quick.get(&json_key(asked)).unwrap()));
                }),
                variant("by-hand-lru-mutex", |asked| {
                    let found = lru.lock().unwrap().get(&json_key(asked)).cloned();
                    black_box(ChatResponse::clone(&found.unwrap()));
                }),
                variant("floor-blake3", |_| {
                    black_box(blake3::hash(black_box(&json)));
                }),
            ],
        );
        with(&format!("hit-of-the-same/{name}"), &asked);
    }
}

fn misses() {
    let bare = Instant(ModelInfo::new("test", "m"));
    let stored = model(memory());
    let shared = Instant(ModelInfo::new("test", "m")).layered(CacheLayer::new(Settings::new()));
    let number = Cell::new(0);
    compare(
        "miss/1.3KB",
        || {
            (0..=64)
                .map(|_| {
                    number.set(number.get() + 1);
                    request(1_300, 3, number.get())
                })
                .collect()
        },
        vec![
            variant("bare-model", |asked| {
                black_box(now(bare.complete(asked)).unwrap());
            }),
            variant("ours-shared", |asked| {
                black_box(now(shared.complete(asked)).unwrap());
            }),
            variant("ours-shared-and-stored", |asked| {
                black_box(now(stored.complete(asked)).unwrap());
            }),
        ],
    );
    let stats = stored.cache().stats();
    assert_eq!((stats.hits, stats.stored), (0, stats.misses));
}

fn stores() {
    const ENTRIES: u64 = 2_000;
    let key = |number: u64| {
        let mut key = KeyBuilder::new("bench", b"");
        key.count(number);
        key.finish()
    };
    let keys: Vec<Key> = (0..ENTRIES).map(key).collect();
    let value = Arc::new("v".repeat(1_000));
    let entry = Entry::new((*value).clone(), 0, None, &[]);
    let ours = MemoryStore::new(&MemoryConfig::default());
    let moka = moka::sync::Cache::new(10_000);
    let quick = quick_cache::sync::Cache::new(10_000);
    let lru = Mutex::new(lru::LruCache::new(10_000.try_into().unwrap()));
    for key in &keys {
        assert!(now(ours.put(key, &entry, 0)).unwrap());
        moka.insert(*key, value.clone());
        quick.insert(*key, value.clone());
        lru.lock().unwrap().put(*key, value.clone());
    }
    let at = Cell::new(0);
    compare(
        "store-get/1KB",
        || {
            at.set((at.get() + 7) % 31);
            keys.iter().skip(at.get()).step_by(2).copied().collect()
        },
        vec![
            variant("ours", |key| {
                assert!(matches!(black_box(ours.get_now(key, 0)), Ok(Lookup::Hit(_))));
            }),
            variant("moka", |key| assert!(black_box(moka.get(key)).is_some())),
            variant("quick_cache", |key| assert!(black_box(quick.get(key)).is_some())),
            variant("lru-mutex", |key| {
                assert!(black_box(lru.lock().unwrap().get(key).cloned()).is_some());
            }),
        ],
    );
}

fn main() {
    stores();
    hits();
    misses();
}
