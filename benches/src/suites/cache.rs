//! The cache for answers: a hit from each store with its key made anew, what a miss adds, equal calls at the same time, and
//! what an agent gains.
//!
//! Requests are made outside the timed part, and each is looked up once, so that nothing of its key is remembered. Rivals have
//! the same keys, and give the answer out as ours does: owned. A hit of ours is also marked as one, which theirs are not.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use peregrine_agent::Agent;
use peregrine_cache::{
    CacheLayer, CachedModel, DiskConfig, DiskStore, Key, MemoryConfig, MemoryStore, RedisConfig, RedisStore,
    Selector, Served, Settings, Store, StoredAnswer, Ttl, Value as _,
};
use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, Message, ModelInfo, NanoUsd, Price, PriceTable, Result, Scope,
    Usage,
};
use redis::aio::ConnectionManager;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use super::{connect, redis_url};
use crate::bench::{Group, Work, floor, ours, rival, runtime};
use crate::serve::{SYSTEM, Script, Server, TEXT};
use crate::words::Words;

const ANSWER: &str = "The sky is blue because air scatters short waves more than long ones. ";

pub(super) fn groups() -> Vec<Group> {
    let mut groups = vec![
        memory_hit("1.3kb", 1_300, 3),
        memory_hit("100kb", 100_000, 50),
        disk_hit(),
    ];
    groups.extend(redis_url().map(redis_hit));
    groups.extend([miss(), flight(), agents(0), agents(50)]);
    groups
}

/// Answers at once, with some 560 bytes.
struct Ready {
    info: ModelInfo,
    /// Whether it lets others go on first.
    yields: bool,
    calls: Arc<AtomicU64>,
}

impl Ready {
    fn new() -> Self {
        Self {
            info: info(),
            yields: false,
            calls: Arc::default(),
        }
    }
}

impl ChatModel for Ready {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn complete(&self, _: &ChatRequest) -> Result<ChatResponse> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.yields {
            tokio::task::yield_now().await;
        }
        Ok(answer())
    }
}

fn info() -> ModelInfo {
    ModelInfo::new("bench", "ready")
}

fn answer() -> ChatResponse {
    ChatResponse::text(ANSWER.repeat(8))
        .with_model("ready-1")
        .with_usage(Usage::new(300, 120))
}

/// A conversation of about so many bytes; `number` tells those apart that are to differ.
fn request(bytes: usize, messages: usize, number: u64) -> ChatRequest {
    let text = |at: usize| format!("{number} {at} {}", "w".repeat(bytes / messages));
    ChatRequest::new((0..messages).map(|at| Message::user(text(at))))
        .with_scope(Scope::new("bench", "cache").unwrap())
        .with_temperature(0.0)
        .with_max_tokens(400)
}

fn cached(store: impl Store<StoredAnswer>) -> CachedModel<Ready> {
    Ready::new().layered(CacheLayer::new(Settings::new().with_store(store)))
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing here has to wait")
}

/// Work on requests that are made before, one for each operation.
fn each_request(
    mut make: impl FnMut() -> ChatRequest + 'static,
    mut operation: impl FnMut(&ChatRequest) -> ChatResponse + 'static,
) -> Work {
    Box::new(move |meter| {
        let requests: Vec<_> = (0..meter.operations()).map(|_| make()).collect();
        let mut last = None;
        let begun = Instant::now();
        for request in &requests {
            last = Some(black_box(operation(request)));
        }
        meter.took(begun.elapsed(), meter.operations());
        let last = last.expect("at least one operation is wanted");
        assert!(last.message.text().starts_with("The sky is blue"));
    })
}

/// What a key is made of, in one piece: the texts of the messages.
fn bytes_of(request: &ChatRequest) -> Vec<u8> {
    let texts = request.messages.iter().map(Message::text);
    texts.collect::<String>().into_bytes()
}

fn memory_hit(size: &str, bytes: usize, messages: usize) -> Group {
    Group::new(
        format!("cache/hit/memory_{size}"),
        format!(
            "an answer of 560 bytes is found in memory, from a request of {bytes} bytes to the response, its key included; \
                 the floor hashes the bytes of the texts, looks into a map and clones; rivals have the same key"
        ),
        &[
            ours("peregrine"),
            floor("hash_map"),
            rival("moka"),
            rival("quick_cache"),
            rival("lru_mutex"),
        ],
        move || {
            let make = move || request(bytes, messages, 0);
            let key_of = || {
                let (layer, info) = (CacheLayer::new(Settings::new()), info());
                move |request: &ChatRequest| layer.key(&info, request).unwrap()
            };
            let (asked, answer) = (make(), Arc::new(answer()));
            let key = key_of()(&asked);

            let model = cached(MemoryStore::new(&MemoryConfig::default()));
            assert_eq!(now(model.ask(&asked)).unwrap().1, Served::Miss);
            assert_eq!(now(model.ask(&make())).unwrap().1, Served::Hit);
            let moka = moka::sync::Cache::new(10_000);
            moka.insert(key, Arc::clone(&answer));
            let quick = quick_cache::sync::Cache::new(10_000);
            quick.insert(key, Arc::clone(&answer));
            let lru = Mutex::new(lru::LruCache::new(10_000.try_into().unwrap()));
            lru.lock().unwrap().put(key, Arc::clone(&answer));
            let (keys, of_quick, of_lru) = (key_of(), key_of(), key_of());
            vec![
                each_request(make, move |request| now(model.complete(request)).unwrap()),
                by_hash_map(make, answer),
                each_request(make, move |request| {
                    ChatResponse::clone(&moka.get(&keys(request)).unwrap())
                }),
                each_request(make, move |request| {
                    ChatResponse::clone(&quick.get(&of_quick(request)).unwrap())
                }),
                each_request(make, move |request| {
                    let key = of_lru(request);
                    let found = lru.lock().unwrap().get(&key).cloned();
                    ChatResponse::clone(&found.unwrap())
                }),
            ]
        },
    )
}

fn by_hash_map(make: impl Fn() -> ChatRequest + 'static, answer: Arc<ChatResponse>) -> Work {
    let bytes = bytes_of(&make());
    let map = HashMap::from([(*blake3::hash(&bytes).as_bytes(), answer)]);
    each_request(make, move |_| {
        let digest = blake3::hash(black_box(&bytes));
        ChatResponse::clone(&map[digest.as_bytes()])
    })
}

fn disk_hit() -> Group {
    Group::new(
        "cache/hit/disk_1.3kb",
        "an answer of 560 bytes is found on disk, from a request of 1.3 kB to the response, its key included; the floor hashes the \
         bytes of the texts, reads the same bytes with one pread and decodes them",
        &[ours("peregrine"), floor("pread_decode")],
        || {
            let make = || request(1_300, 3, 0);
            let folder = Rc::new(TempDir::new().unwrap());
            let disk = DiskStore::open(&DiskConfig::new(folder.path().join("cache"))).unwrap();
            let model = cached(disk.clone());
            let asked = make();
            assert_eq!(now(model.ask(&asked)).unwrap().1, Served::Miss);
            assert_eq!(now(model.ask(&make())).unwrap().1, Served::Hit);
            let key = model.cache().key(&info(), &asked).unwrap();
            let bytes = stored(&disk, &key);
            let path = folder.path().join("bare");
            std::fs::write(&path, &bytes).unwrap();
            let (file, texts) = (File::open(path).unwrap(), bytes_of(&asked));
            vec![
                each_request(make, move |request| now(model.complete(request)).unwrap()),
                Box::new(move |meter| {
                    let mut last = None;
                    let begun = Instant::now();
                    for _ in 0..meter.operations() {
                        black_box(blake3::hash(black_box(&texts)));
                        let mut buffer = vec![0; bytes.len()];
                        file.read_exact_at(&mut buffer, 0).unwrap();
                        last = Some(black_box(StoredAnswer::decode(&buffer).unwrap()));
                    }
                    meter.took(begun.elapsed(), meter.operations());
                    let last = last.expect("at least one operation is wanted");
                    assert_eq!(last.encode().unwrap(), bytes);
                    assert!(folder.path().exists());
                }),
            ]
        },
    )
}

fn stored(store: &impl Store<StoredAnswer>, key: &Key) -> Vec<u8> {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let ms = u64::try_from(time.as_millis()).unwrap();
    let entry = now(store.get(key, ms)).unwrap().expect("it was stored");
    entry.value.encode().unwrap()
}

/// What was put into a server that others use too: it goes with this value.
struct Shared {
    runtime: Rc<Runtime>,
    model: CachedModel<Ready>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // What cannot be removed now ends by itself.
        let _ = self.runtime.block_on(self.model.cache().remove(&Selector::All));
    }
}

fn redis_hit(url: String) -> Group {
    Group::new(
        "cache/hit/redis_1.3kb",
        "an answer of 560 bytes is found in Redis, from a request of 1.3 kB to the response, its key included; the floor is a bare \
         GET of the same bytes over the same kind of connection",
        &[ours("peregrine"), floor("get")],
        move || {
            let runtime = runtime();
            let prefix = format!("peregrine-bench:{}:", std::process::id());
            let config = RedisConfig::new(&url).with_prefix(&prefix);
            let ttl = Ttl::After(Duration::from_secs(120));
            let store = {
                let _inside = runtime.enter();
                RedisStore::new(&config).unwrap()
            };
            let settings = Settings::new().with_store(store).with_ttl(ttl);
            let model = Ready::new().layered(CacheLayer::new(settings));
            let shared = Shared {
                runtime: Rc::clone(&runtime),
                model,
            };
            let make = || request(1_300, 3, 0);
            let served = |shared: &Shared| runtime.block_on(shared.model.ask(&make())).unwrap().1;
            assert_eq!(served(&shared), Served::Miss);
            assert_eq!(served(&shared), Served::Hit);
            vec![
                from_redis(shared),
                bare_get(&runtime, &url, format!("{prefix}bare")),
            ]
        },
    )
}

fn from_redis(shared: Shared) -> Work {
    Box::new(move |meter| {
        let requests: Vec<_> = (0..meter.operations()).map(|_| request(1_300, 3, 0)).collect();
        let (last, elapsed) = shared.runtime.block_on(async {
            let mut last = None;
            let begun = Instant::now();
            for request in &requests {
                last = Some(shared.model.complete(request).await.unwrap());
            }
            (last, begun.elapsed())
        });
        meter.took(elapsed, meter.operations());
        let last = last.expect("at least one operation is wanted");
        assert_eq!(Served::of(&last), Some(Served::Hit));
    })
}

fn bare_get(runtime: &Rc<Runtime>, url: &str, key: String) -> Work {
    let runtime = Rc::clone(runtime);
    let folder = TempDir::new().unwrap();
    let disk = DiskStore::open(&DiskConfig::new(folder.path())).unwrap();
    let (model, asked) = (cached(disk.clone()), request(1_300, 3, 0));
    now(model.ask(&asked)).unwrap();
    let bytes = stored(&disk, &model.cache().key(&info(), &asked).unwrap());
    let client = redis::Client::open(url).unwrap();
    let mut connection = runtime.block_on(ConnectionManager::new(client)).unwrap();
    let set = redis::cmd("SET")
        .arg(&key)
        .arg(&bytes)
        .arg("EX")
        .arg(120)
        .to_owned();
    runtime.block_on(set.exec_async(&mut connection)).unwrap();
    Box::new(move |meter| {
        let (last, elapsed) = runtime.block_on(async {
            let mut last: Vec<u8> = Vec::new();
            let begun = Instant::now();
            for _ in 0..meter.operations() {
                let get = redis::cmd("GET").arg(&key).to_owned();
                last = get.query_async(&mut connection).await.unwrap();
            }
            (last, begun.elapsed())
        });
        meter.took(elapsed, meter.operations());
        assert_eq!(last, bytes);
    })
}

fn miss() -> Group {
    Group::new(
        "cache/miss/memory_1.3kb",
        "a request of 1.3 kB that was never seen, to a model that answers at once: looked for in memory, asked, stored; the floor \
         is the model alone",
        &[ours("peregrine"), floor("model")],
        || {
            let numbers = Cell::new(0);
            let make = move || {
                numbers.set(numbers.get() + 1);
                request(1_300, 3, numbers.get())
            };
            let model = cached(MemoryStore::new(&MemoryConfig::default()));
            let calls = Arc::clone(&model.inner().calls);
            let bare = Ready::new();
            let mut asked = 0;
            vec![
                each_request(make, move |request| {
                    asked += 1;
                    let response = now(model.complete(request)).unwrap();
                    assert_eq!(calls.load(Ordering::Relaxed), asked, "each is a miss");
                    response
                }),
                each_request(
                    || request(1_300, 3, 0),
                    move |request| now(bare.complete(request)).unwrap(),
                ),
            ]
        },
    )
}

const EQUAL: usize = 1_000;

fn flight() -> Group {
    Group::new(
        "cache/flight/1000_equal",
        "a thousand equal requests of 1.3 kB at the same time, none of which was seen before: one call, a thousand answers; time for \
         all of them. The floor has a map of cells that are filled once, with the same keys",
        &[ours("peregrine"), floor("once_cell")],
        || {
            let runtime = runtime();
            let waiting = || Ready {
                yields: true,
                ..Ready::new()
            };
            let model = waiting();
            let calls = Arc::clone(&model.calls);
            let settings = Settings::new().with_store(MemoryStore::new(&MemoryConfig::default()));
            let model = Rc::new(model.layered(CacheLayer::new(settings)));
            let bare = Rc::new(waiting());
            let bare_calls = Arc::clone(&bare.calls);
            let cells = Rc::new(Mutex::new(HashMap::<Key, Arc<OnceCell<ChatResponse>>>::new()));
            let layer = Rc::new(CacheLayer::new(Settings::new()));
            vec![
                together(&runtime, calls, move |request| {
                    let model = Rc::clone(&model);
                    async move { model.complete(&request).await.unwrap() }
                }),
                together(&runtime, bare_calls, move |request| {
                    let (bare, cells, layer) = (Rc::clone(&bare), Rc::clone(&cells), Rc::clone(&layer));
                    async move {
                        let key = layer.key(&bare.info, &request).unwrap();
                        let cell = Arc::clone(cells.lock().unwrap().entry(key).or_default());
                        let filled = cell.get_or_init(async || bare.complete(&request).await.unwrap());
                        filled.await.clone()
                    }
                }),
            ]
        },
    )
}

fn together<F: Future<Output = ChatResponse>>(
    runtime: &Rc<Runtime>,
    calls: Arc<AtomicU64>,
    mut ask: impl FnMut(ChatRequest) -> F + 'static,
) -> Work {
    let runtime = Rc::clone(runtime);
    let mut number = 0;
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            number += 1;
            let requests: Vec<_> = (0..EQUAL).map(|_| request(1_300, 3, number)).collect();
            let before = calls.load(Ordering::Relaxed);
            let begun = Instant::now();
            let answers = runtime.block_on(join_all(requests.into_iter().map(&mut ask)));
            meter.took(begun.elapsed(), 1);
            let made = calls.load(Ordering::Relaxed) - before;
            assert_eq!(made, 1, "a thousand equal requests are one call");
            assert!(answers.len() == EQUAL && answers.iter().all(|one| one.message == answer().message));
            meter.figure("calls made:", made as f64);
        }
    })
}

/// How many calls a sequence has.
const CALLS: usize = 10;

fn agents(latency_ms: u64) -> Group {
    Group::new(
        format!("cache/agent/{latency_ms}ms"),
        format!(
            "ten calls of an agent one after the other over loopback, of which 50, 70 or 90 % ask what was asked before in them; the \
             model takes {latency_ms} ms; time of a call on average over the ten"
        ),
        &[
            ours("hits_90"),
            ours("hits_70"),
            ours("hits_50"),
            rival("uncached"),
        ],
        move || {
            let (runtime, server) = (runtime(), Rc::new(Server::start(Script::Text, latency_ms)));
            [Some(9), Some(7), Some(5), None]
                .into_iter()
                .map(|hits| sequence(&runtime, &server, hits))
                .collect()
        },
    )
}

/// Which questions are asked, by number: so many of them again. Drawn with a fixed seed.
fn questions(hits: usize) -> Vec<u64> {
    let mut words = Words::new();
    let mut again: Vec<bool> = (0..CALLS).map(|at| at >= CALLS - hits).collect();
    for at in (2..CALLS).rev() {
        // What is asked first was not asked before.
        again.swap(at, 1 + words.below(at));
    }
    let mut asked = 0;
    let draw = again.into_iter().map(|again| match again {
        true => words.below(asked) as u64,
        false => {
            asked += 1;
            asked as u64 - 1
        }
    });
    draw.collect()
}

fn sequence(runtime: &Rc<Runtime>, server: &Rc<Server>, hits: Option<usize>) -> Work {
    let (runtime, server) = (Rc::clone(runtime), Rc::clone(server));
    let model = connect(&server.url());
    // What a middling model costs a million tokens.
    let price = Price::per_million(NanoUsd::from_cents(250), NanoUsd::from_cents(1_000));
    let settings = Settings::new().with_store(MemoryStore::new(&MemoryConfig::default()));
    let layer = CacheLayer::new(settings).with_prices(PriceTable::new().with(
        model.info().provider(),
        model.info().model(),
        price,
    ));
    let agent = match hits {
        Some(_) => Agent::new(model.layered(layer.clone())),
        None => Agent::new(model),
    };
    let agent = agent.with_instructions(SYSTEM);
    let questions = questions(hits.unwrap_or(0));
    let mut sequences = 0;
    Box::new(move |meter| {
        for _ in 0..meter.operations().div_ceil(CALLS as u64) {
            sequences += 1;
            let texts: Vec<String> = questions
                .iter()
                .map(|question| {
                    format!("Question {question} of {sequences}: which sentence has every letter?")
                })
                .collect();
            let (texts, before) = (texts, layer.stats());
            let begun = Instant::now();
            let answers = runtime.block_on(async {
                let mut answers = Vec::with_capacity(CALLS);
                for text in &texts {
                    answers.push(agent.run(text.as_str()).await.unwrap());
                }
                answers
            });
            let elapsed = begun.elapsed();
            meter.took(elapsed, CALLS as u64);
            assert!(answers.iter().all(|answer| answer.text() == TEXT));
            let after = layer.stats();
            assert_eq!(after.hits - before.hits, hits.unwrap_or(0) as u64);
            if hits.is_some() {
                let saved = after.nano_usd_saved - before.nano_usd_saved;
                assert!(saved > 0 && after.unpriced == 0);
                meter.figure(
                    "saved by 1,000 calls, $:",
                    saved as f64 / 1e9 * 1_000.0 / CALLS as f64,
                );
                meter.figure("calls that reached the model, %:", {
                    (after.misses - before.misses) as f64 / CALLS as f64 * 100.0
                });
            }
        }
        assert!(!server.url().is_empty());
    })
}
