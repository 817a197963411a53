//! The layer under seeded schedules: equal calls and streams that come, are polled and are dropped at any await point.
//!
//! Nothing here runs in parallel and nothing waits for time: a schedule is a row of choices, made from a seed, of which task
//! is polled, which answer from outside arrives, who comes and who goes. A task is only polled when it was woken, so a wake
//! that is lost is a schedule that ends with somebody waiting. `PEREGRINE_FUZZ_CASES` and `PEREGRINE_FUZZ_SEED` work.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use peregrine_cache::{
    CacheLayer, CachedModel, Entry, Key, Lookup, MemoryConfig, MemoryStore, Selector, Settings, Store,
    StoreStatus, StoredAnswer,
};
use peregrine_core::{
    ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, Done, Error, Finish, ModelInfo, Result,
    Usage,
};

const USAGE: Usage = Usage::new(100, 20);

/// Everything that somebody waits for from outside: sockets, servers. The schedule lets it arrive.
#[derive(Clone, Default)]
struct Outside(Arc<Mutex<Vec<Arc<Signal>>>>);

#[derive(Default)]
struct Signal(Mutex<(bool, Option<Waker>)>);

impl Outside {
    async fn wait(&self) {
        let signal = Arc::new(Signal::default());
        self.0.lock().unwrap().push(signal.clone());
        poll_fn(|cx| {
            let mut state = signal.0.lock().unwrap();
            if state.0 {
                return Poll::Ready(());
            }
            state.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Lets one of them arrive. False if there is none.
    fn arrive(&self, random: &mut dyn FnMut(usize) -> usize) -> bool {
        let mut waiting = self.0.lock().unwrap();
        if waiting.is_empty() {
            return false;
        }
        let at = random(waiting.len());
        let signal = waiting.swap_remove(at);
        drop(waiting);
        let mut state = signal.0.lock().unwrap();
        state.0 = true;
        let waker = state.1.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        true
    }
}

/// A model each of whose steps comes from outside.
struct Remote {
    info: ModelInfo,
    outside: Outside,
    calls: Arc<AtomicUsize>,
    fails: bool,
}

fn events() -> Vec<ChatEvent> {
    let text = |text: &str| ChatEvent::TextDelta {
        text: text.to_owned(),
    };
    vec![
        text("forty"),
        text("-two"),
        ChatEvent::Usage { usage: USAGE },
        ChatEvent::Done(Box::new(Done::new(Finish::Stop))),
    ]
}

impl ChatModel for Remote {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn complete(&self, _: &ChatRequest) -> Result<ChatResponse> {
        self.calls.fetch_add(1, SeqCst);
        self.outside.wait().await;
        self.outside.wait().await;
        match self.fails {
            true => Err(Error::truncated("on purpose")),
            false => ChatStream::from_events(events()).collect().await,
        }
    }

    async fn stream(&self, _: &ChatRequest) -> Result<ChatStream> {
        self.calls.fetch_add(1, SeqCst);
        self.outside.wait().await;
        let (outside, fails) = (self.outside.clone(), self.fails);
        Ok(ChatStream::new(stream::iter(events()).then(move |event| {
            let outside = outside.clone();
            async move {
                outside.wait().await;
                match (fails, &event) {
                    (true, ChatEvent::Done(_)) => Err(Error::truncated("on purpose")),
                    _ => Ok(event),
                }
            }
        })))
    }
}

/// A store behind a wire: what is put is there some time later, and looking takes time too.
#[derive(Debug)]
struct Wired(MemoryStore<StoredAnswer>, Outside);

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outside")
    }
}

#[async_trait]
impl Store<StoredAnswer> for Wired {
    fn get_now(&self, _: &Key, _: u64) -> peregrine_cache::Result<Lookup<StoredAnswer>> {
        Ok(Lookup::Ask)
    }

    async fn get(&self, key: &Key, now: u64) -> peregrine_cache::Result<Option<Entry<StoredAnswer>>> {
        self.1.wait().await;
        let found = self.0.get(key, now).await;
        self.1.wait().await;
        found
    }

    async fn put(&self, key: &Key, entry: &Entry<StoredAnswer>, now: u64) -> peregrine_cache::Result<bool> {
        self.1.wait().await;
        let stored = self.0.put(key, entry, now).await;
        self.1.wait().await;
        stored
    }

    async fn remove(&self, what: &Selector) -> peregrine_cache::Result<u64> {
        self.0.remove(what).await
    }

    fn status(&self) -> StoreStatus {
        StoreStatus::new("wired")
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

struct Task {
    future: Pin<Box<dyn Future<Output = Result<ChatResponse>> + Send>>,
    woken: Arc<Woken>,
}

fn come(cached: &CachedModel<Remote>, streams: bool) -> Task {
    let cached = cached.clone();
    let future = async move {
        let request = ChatRequest::user("how much?");
        if !streams {
            return cached.complete(&request).await;
        }
        let mut stream = cached.stream(&request).await?;
        let mut events = Vec::new();
        while let Some(event) = stream.next().await {
            events.push(event?);
        }
        ChatStream::from_events(events).collect().await
    };
    Task {
        future: future.boxed(),
        woken: Arc::new(Woken(AtomicBool::new(true))),
    }
}

/// What a schedule came to.
struct End {
    calls: usize,
    answers: Vec<Result<ChatResponse>>,
    /// Somebody was there from the first call to its end.
    held: bool,
    cached: CachedModel<Remote>,
}

fn run(random: &mut dyn FnMut(usize) -> usize, fails: bool) -> End {
    let (outside, calls) = (Outside::default(), Arc::new(AtomicUsize::new(0)));
    let memory = || MemoryStore::new(&MemoryConfig::default());
    let settings = match random(3) {
        0 => Settings::new().with_store(memory()),
        1 => Settings::new().with_store(Wired(memory(), outside.clone())),
        _ => Settings::new()
            .with_store(memory())
            .with_store(Wired(memory(), outside.clone())),
    };
    let remote = Remote {
        info: ModelInfo::new("test", "remote"),
        outside: outside.clone(),
        calls: calls.clone(),
        fails,
    };
    let cached = remote.layered(CacheLayer::new(settings));
    let crowd = random(3);
    let mut to_come = 2 + random(6);
    let mut leavers = random(to_come);
    let (mut tasks, mut answers, mut held) = (Vec::new(), Vec::new(), true);
    while to_come > 0 || !tasks.is_empty() {
        let woken: Vec<usize> = (0..tasks.len())
            .filter(|at| {
                let task: &Task = &tasks[*at];
                task.woken.0.load(SeqCst)
            })
            .collect();
        match random(8) {
            0 if to_come > 0 => {
                to_come -= 1;
                let streams = crowd == 1 || (crowd == 2 && random(2) == 1);
                tasks.push(come(&cached, streams));
            }
            1 if leavers > 0 && !tasks.is_empty() => {
                leavers -= 1;
                let shared = cached.cache().waiting() > 0;
                drop(tasks.swap_remove(random(tasks.len())));
                // The last one that waits takes the call along, rightly.
                held &= !shared || cached.cache().waiting() > 0;
            }
            2 | 3 => {
                outside.arrive(random);
            }
            _ if !woken.is_empty() => {
                let at = woken[random(woken.len())];
                let task = &mut tasks[at];
                task.woken.0.store(false, SeqCst);
                let waker = Waker::from(task.woken.clone());
                if let Poll::Ready(answer) = task.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    answers.push(answer);
                    drop(tasks.swap_remove(at));
                }
            }
            _ if to_come == 0 && !tasks.is_empty() => {
                assert!(
                    outside.arrive(random) || !woken.is_empty(),
                    "{} wait and nothing is left that could wake them",
                    tasks.len()
                );
            }
            _ => {}
        }
    }
    End {
        calls: calls.load(SeqCst),
        answers,
        held,
        cached,
    }
}

#[test]
fn seeded_fuzz_of_schedules() {
    let held = AtomicUsize::new(0);
    crate::seeded_fuzz(1_500, |random| {
        let End {
            calls,
            answers,
            held: was_held,
            cached,
        } = run(random, false);
        let stats = cached.cache().stats();
        let answers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap()).collect();
        assert!(answers.iter().all(|answer| answer.message.text() == "forty-two"));
        assert_eq!((cached.cache().in_flight(), cached.cache().waiting()), (0, 0));
        let paid = answers
            .iter()
            .filter(|answer| answer.usage == Some(USAGE))
            .count();
        if was_held && !answers.is_empty() {
            held.fetch_add(1, SeqCst);
            assert_eq!(calls, 1, "one call for {} who asked", answers.len());
            assert_eq!(stats.misses, 1, "it was charged");
        }
        // Who was charged may have been dropped with the end in its hand, and a call with all who waited for it.
        assert!(paid <= stats.misses as usize && stats.misses as usize <= calls);
        assert!((stats.hits + stats.coalesced + stats.misses) as usize >= answers.len());
    });
    assert!(held.into_inner() > 0);
}

#[test]
fn seeded_fuzz_of_schedules_that_fail() {
    crate::seeded_fuzz(1_000, |random| {
        let End { answers, cached, .. } = run(random, true);
        assert!(answers.iter().all(Result::is_err), "an error is told to all");
        let stats = cached.cache().stats();
        assert_eq!((stats.stored, stats.hits, cached.cache().in_flight()), (0, 0, 0));
    });
}
