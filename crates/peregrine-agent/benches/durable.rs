//! What a journal costs a run: allocations, a whole run of one call and of a tool loop of 16 turns, and a turn by itself,
//! early and late in a long run. Beside the run without a store stands the floor: the same records, appended to the same
//! store by nobody's agent.
//!
//! `cargo bench -p peregrine-agent --features checkpoints --bench durable`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark fails by panicking; criterion's macros make its main function"
)]

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use peregrine_agent::{Agent, Input, Limits};
use peregrine_checkpoints::{Checkpoints, Draft, MemoryStore, Options, RunKey, Span};
use peregrine_core::{
    ChatModel, ChatRequest, ChatResponse, Finish, ModelInfo, Part, Result, RunId, Scope, ToolCall, Usage,
};
use peregrine_tools::tool;
use tempfile::TempDir;

/// Calls a tool in each turn but the last.
struct Fake {
    info: ModelInfo,
    turns: usize,
    /// When it was asked.
    at: Arc<Mutex<Vec<Instant>>>,
}

impl Fake {
    fn new(turns: usize) -> Self {
        Self {
            info: ModelInfo::new("bench", "fake"),
            turns,
            at: Arc::default(),
        }
    }
}

impl ChatModel for Fake {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatResponse> {
        self.at.lock().unwrap().push(Instant::now());
        let part = match request.messages.len() / 2 + 1 < self.turns {
            true => Part::ToolCall(ToolCall::new("call", "add", r#"{"a": 40, "b": 2}"#)),
            false => Part::text("forty-two"),
        };
        Ok(ChatResponse::new(vec![part], Finish::Stop).with_usage(Usage::new(10, 5)))
    }
}

/// Adds two numbers.
#[tool(effect = "read_only", danger = "safe")]
async fn add(a: i64, b: i64) -> i64 {
    a + b
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs on this thread; what waits is the store of a directory, when it opens or closes something.
fn now<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
    }
    let mut future = pin!(future);
    WAKER.with(|waker| {
        let mut cx = Context::from_waker(waker);
        loop {
            match future.as_mut().poll(&mut cx) {
                Poll::Ready(output) => return output,
                Poll::Pending => thread::park(),
            }
        }
    })
}

fn scope() -> Scope {
    Scope::new("bench", "durable").unwrap()
}

fn agent(model: Fake) -> Agent {
    let limits = Limits {
        max_steps: 2_000,
        max_tool_calls: 2_000,
        ..Limits::default()
    };
    let agent = Agent::new(model).with_scope(scope()).with_limits(limits);
    agent.with_tool(add()).with_direct_path(false)
}

/// A store for a benchmark, which goes with its folder.
struct Store {
    checkpoints: Checkpoints,
    next: u64,
    _folder: Option<TempDir>,
}

impl Store {
    fn memory() -> Self {
        Self {
            checkpoints: Checkpoints::new(Arc::new(MemoryStore::new()), Options::default()),
            next: 0,
            _folder: None,
        }
    }

    fn dir() -> Self {
        let folder = TempDir::new().unwrap();
        let uri = format!("dir:{}", folder.path().display());
        Self {
            checkpoints: now(Checkpoints::open(&uri, Options::default())).unwrap(),
            next: 0,
            _folder: Some(folder),
        }
    }

    fn id(&mut self) -> RunId {
        self.next += 1;
        RunId::from_parts(self.next, [1; 10])
    }

    fn forget(&self, run: RunId) {
        now(self.checkpoints.remove(&RunKey::new(scope(), run))).unwrap();
    }
}

fn stores() -> [(&'static str, Store); 2] {
    [("memory", Store::memory()), ("dir", Store::dir())]
}

fn allocations(_: &mut Criterion) {
    for turns in [1, 16] {
        let bare = agent(Fake::new(turns));
        now(bare.run("How much is 40 + 2?")).unwrap();
        let counted = allocation_counter::measure(|| drop(now(bare.run("How much is 40 + 2?")).unwrap()));
        println!("allocations/run_{turns}/none: {}", counted.count_total);
        for (name, mut store) in stores() {
            let durable = bare.clone().with_checkpoints(store.checkpoints.clone());
            let mut run = || {
                let input = Input::from("How much is 40 + 2?").with_run_id(store.id());
                drop(now(durable.run(input)).unwrap());
            };
            run();
            let counted = allocation_counter::measure(run);
            println!("allocations/run_{turns}/{name}: {}", counted.count_total);
        }
    }
}

fn whole_runs(c: &mut Criterion) {
    for turns in [1, 16] {
        let mut group = c.benchmark_group(format!("durable/run_{turns}"));
        let bare = agent(Fake::new(turns));
        group.bench_function("none", |b| {
            b.iter(|| now(bare.run("How much is 40 + 2?")).unwrap())
        });
        for (name, mut store) in stores() {
            let durable = bare.clone().with_checkpoints(store.checkpoints.clone());
            group.bench_function(name, |b| {
                b.iter_custom(|times| {
                    let mut took = Duration::ZERO;
                    for _ in 0..times {
                        let id = store.id();
                        let input = Input::from("How much is 40 + 2?").with_run_id(id);
                        let begun = Instant::now();
                        let output = now(durable.run(input)).unwrap();
                        took += begun.elapsed();
                        assert_eq!(output.report.steps as usize, turns);
                        store.forget(id);
                    }
                    took
                });
            });
        }
        group.finish();
    }
}

/// The time between two calls to the model, which is a turn: early and late in one run of 1,010 turns.
fn turns(_: &mut Criterion) {
    let rounds = 30;
    for name in ["none", "memory", "dir"] {
        let (mut early, mut late) = (Vec::new(), Vec::new());
        let mut store = match name {
            "dir" => Store::dir(),
            _ => Store::memory(),
        };
        for _ in 0..rounds {
            let model = Fake::new(1_010);
            let at = Arc::clone(&model.at);
            let mut agent = agent(model);
            if name != "none" {
                agent = agent.with_checkpoints(store.checkpoints.clone());
            }
            let id = store.id();
            let output = now(agent.run(Input::from("How much is 40 + 2?").with_run_id(id))).unwrap();
            assert_eq!(output.report.steps, 1_010);
            if name != "none" {
                store.forget(id);
            }
            let steps: Vec<Duration> = at
                .lock()
                .unwrap()
                .windows(2)
                .map(|pair| pair[1] - pair[0])
                .collect();
            early.extend_from_slice(&steps[5..15]);
            late.extend_from_slice(&steps[995..1_005]);
        }
        let (early, late) = (spread(&mut early), spread(&mut late));
        println!(
            "durable/turn/{name}: turn 10 {early:?}, turn 1,000 {late:?} (p50, p95 of {} turns each), ratio {:.2}",
            rounds * 10,
            late.0.as_secs_f64() / early.0.as_secs_f64()
        );
    }
    floor();
}

fn spread(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 19 / 20])
}

/// The records of a turn, encoded before, appended as a turn appends them: each event with what it leads to.
fn floor() {
    for (name, mut store) in stores() {
        let model = Fake::new(16);
        let agent = agent(model).with_checkpoints(store.checkpoints.clone());
        let id = store.id();
        now(agent.run(Input::from("How much is 40 + 2?").with_run_id(id))).unwrap();
        let key = RunKey::new(scope(), id);
        let history = now(store.checkpoints.load(&key, Span::ALL)).unwrap();
        // Two events and two announcements, from the middle.
        let drafts: Vec<Draft> = history.records[9..13]
            .iter()
            .map(|record| Draft::raw(record.kind, record.schema, record.payload.clone()))
            .collect();
        let bytes: usize = drafts.iter().map(|draft| draft.payload.len()).sum();
        let key = key.sibling(store.id());
        let mut journal = now(store.checkpoints.create(&key)).unwrap();
        let mut times: Vec<Duration> = (0..2_000)
            .map(|_| {
                let begun = Instant::now();
                now(journal.append_all(&drafts[..2])).unwrap();
                now(journal.append_all(&drafts[2..])).unwrap();
                begun.elapsed()
            })
            .collect();
        let (half, most) = spread(&mut times);
        println!("durable/floor/{name}: {bytes} bytes of payload, p50 {half:?}, p95 {most:?}");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50).measurement_time(Duration::from_secs(4));
    targets = allocations, whole_runs, turns
}
criterion_main!(benches);
