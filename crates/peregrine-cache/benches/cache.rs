//! What a hit costs, from the request to its answer, in each store; and what a miss adds.
//!
//! `cargo bench -p peregrine-cache --all-features`. Ids are `suite/op/param/impl`. The floor of a hit is one hash of the
//! request's bytes (`floor`). Answers are asserted, and requests made and dropped, outside of what is measured. How often the
//! store hits beside moka, quick_cache and `lru` is told here; how fast it is beside them, in `rivals`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a benchmark is a program"
)]

use std::hint::black_box;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use peregrine_cache::{Cache, CacheControl as _};
use peregrine_cache::{
    CacheLayer, CachedModel, Control, DiskConfig, DiskStore, Entry, Key, KeyBuilder, Lookup, MemoryConfig,
    MemoryStore, Mode, Served, Settings, Store, StoredAnswer,
};
use peregrine_core::{ChatModel, ChatRequest, ChatResponse, Message, ModelInfo, Result, Scope, Usage};

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

/// A request of about so many bytes, in messages of 400 characters, or one of all.
fn request(bytes: usize, messages: usize) -> ChatRequest {
    let text = |at: usize| format!("{at} {}", "w".repeat(bytes / messages));
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

fn hits(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    for (size, name, messages) in [(1_300, "1.3KB", 3), (100_000, "100KB", 50)] {
        let asked = request(size, messages);
        let mut group = c.benchmark_group(format!("cache/hit/{name}"));
        let bytes = serde_json::to_vec(&asked).unwrap();
        group.bench_function("floor-blake3", |b| b.iter(|| blake3::hash(black_box(&bytes))));
        let disk = DiskStore::open(&DiskConfig::new(dir.path().join(name))).unwrap();
        let models = [("memory", model(memory())), ("disk", model(disk))];
        for (store, model) in &models {
            assert_eq!(now(model.ask(&asked)).unwrap().1, Served::Miss);
            let (response, served) = now(model.ask(&asked)).unwrap();
            assert!(served == Served::Hit && response.message.text().contains("blue"));
            // The same conversation again: its digest is remembered.
            group.bench_function(format!("{store}-again"), |b| {
                b.iter(|| now(model.complete(black_box(&asked))).unwrap())
            });
            // An equal one that was not seen before.
            group.bench_function(format!("{store}-new-equal"), |b| {
                b.iter_batched_ref(
                    || request(size, messages),
                    |asked| now(model.complete(asked)).unwrap(),
                    BatchSize::SmallInput,
                );
            });
            group.bench_function(format!("{store}-stream-first"), |b| {
                b.iter(|| {
                    let mut stream = now(model.stream(black_box(&asked))).unwrap();
                    now(stream.next())
                });
            });
        }
        let layer = CacheLayer::new(Settings::new());
        let info = ModelInfo::new("test", "m");
        group.bench_function("key-alone", |b| {
            b.iter_batched_ref(
                || request(size, messages),
                |asked| layer.key(&info, asked).unwrap(),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

fn calls(c: &mut Criterion) {
    let asked = request(1_300, 3);
    let mut group = c.benchmark_group("cache/call/1.3KB");
    let bare = Instant(ModelInfo::new("test", "m"));
    group.bench_function("uncached", |b| {
        b.iter(|| now(bare.complete(black_box(&asked))).unwrap())
    });
    let cached = model(memory());
    let renew = asked.clone().with_cache(&Control::new().with_mode(Mode::Write));
    group.bench_function("write", |b| {
        b.iter(|| now(cached.complete(black_box(&renew))).unwrap())
    });
    let off = asked.clone().with_cache(&Control::new().with_mode(Mode::Off));
    group.bench_function("off", |b| {
        b.iter(|| now(cached.complete(black_box(&off))).unwrap())
    });
    let nothing = Instant(ModelInfo::new("test", "m")).layered(CacheLayer::new(Settings::new()));
    assert_eq!(now(nothing.ask(&asked)).unwrap().1, Served::Miss);
    group.bench_function("miss-shared-call", |b| {
        b.iter(|| now(nothing.complete(black_box(&asked))).unwrap())
    });
    group.finish();
}

fn key(number: u64) -> Key {
    let mut key = KeyBuilder::new("bench", b"");
    key.count(number);
    key.finish()
}

/// Not a time: the part of look-ups that hit, for a tenth of the keys in room, by Zipf, with scans in between.
fn hit_rates(_: &mut Criterion) {
    const KEYS: u64 = 20_000;
    const ROOM: usize = 2_000;
    let keys: Vec<Key> = (0..KEYS * 2).map(key).collect();
    let weights: Vec<f64> = (1..=KEYS)
        .scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        })
        .collect();
    let mut state = 1_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let trace: Vec<usize> = (0..300_000)
        .map(|at| {
            if at % 20_000 >= 15_000 {
                // A scan: each key once.
                return KEYS as usize + at % KEYS as usize;
            }
            let point = random() * weights[weights.len() - 1];
            weights.partition_point(|sum| *sum < point)
        })
        .collect();
    let ours = MemoryStore::new(&MemoryConfig::default().with_max_entries(ROOM));
    let moka = moka::sync::Cache::new(ROOM as u64);
    let quick = quick_cache::sync::Cache::new(ROOM);
    let lru = Mutex::new(lru::LruCache::new(ROOM.try_into().unwrap()));
    let entry = Entry::new(String::new(), 0, None, &[]);
    let mut hits = [0_u32; 4];
    for at in &trace {
        let key = keys[*at];
        if matches!(ours.get_now(&key, 0), Ok(Lookup::Hit(_))) {
            hits[0] += 1
        } else {
            now(ours.put(&key, &entry, 0)).unwrap();
        }
        if moka.get(&key).is_some() {
            hits[1] += 1
        } else {
            moka.insert(key, ())
        }
        if quick.get(&key).is_some() {
            hits[2] += 1
        } else {
            quick.insert(key, ())
        }
        let mut lru = lru.lock().unwrap();
        if lru.get(&key).is_some() {
            hits[3] += 1
        } else {
            lru.put(key, ());
        }
    }
    for (name, hits) in ["ours", "moka", "quick_cache", "lru"].iter().zip(hits) {
        eprintln!(
            "cache/hit-rate/zipf-with-scans/{name}: {:.3}",
            f64::from(hits) / trace.len() as f64
        );
    }
}

fn redis(c: &mut Criterion) {
    let url =
        std::env::var("PEREGRINE_TEST_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
    #[cfg(feature = "redis")]
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let config = peregrine_cache::RedisConfig::new(&url)
            .with_prefix(format!("peregrine-bench:{}:", std::process::id()));
        let asked = request(1_300, 3);
        let cached = model(peregrine_cache::RedisStore::new(&config).unwrap());
        runtime.block_on(cached.ask(&asked)).unwrap();
        if runtime.block_on(cached.ask(&asked)).unwrap().1 != Served::Hit {
            eprintln!("no Redis at the given address: not measured");
            return;
        }
        let mut group = c.benchmark_group("cache/hit/1.3KB");
        group.bench_function("redis", |b| {
            b.iter(|| runtime.block_on(cached.complete(&asked)).unwrap())
        });
        let client = ::redis::Client::open(url.as_str()).unwrap();
        let mut connection = runtime
            .block_on(client.get_multiplexed_async_connection())
            .unwrap();
        group.bench_function("floor-redis-ping", |b| {
            b.iter(|| {
                runtime
                    .block_on(::redis::cmd("PING").exec_async(&mut connection))
                    .unwrap()
            });
        });
        group.finish();
        runtime
            .block_on(cached.cache().remove(&peregrine_cache::Selector::All))
            .unwrap();
    }
    #[cfg(not(feature = "redis"))]
    let _ = (c, url);
}

/// The generic cache, so that it stays measured.
fn generic(c: &mut Criterion) {
    let cache: Cache<String, String> =
        Cache::new(Settings::new().with_store(MemoryStore::new(&MemoryConfig::default())));
    let key = key(1);
    let compute = || async { Ok("v".to_owned()) };
    assert_eq!(
        now(cache.get_or_compute(&key, &Control::new(), compute))
            .unwrap()
            .1,
        Served::Miss
    );
    c.bench_function("cache/get-or-compute/hit/ours", |b| {
        b.iter(|| now(cache.get_or_compute(black_box(&key), &Control::new(), compute)).unwrap());
    });
}

criterion_group!(benches, hits, calls, hit_rates, generic, redis);
criterion_main!(benches);
