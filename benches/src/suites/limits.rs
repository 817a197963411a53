//! Limits: what letting a request through costs, and how much of what a provider allows is used.
//!
//! `governor` has no places, no refunds and no fair queue; where it is the rival it does what it can of the same. How much of
//! a limit is used is found in a time of its own, in which an hour takes a second.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, Stream as _};
use governor::clock::MonotonicClock;
use governor::{Quota, RateLimiter};
use peregrine_executor::{Timer as _, VirtualTimer};
use peregrine_limits::{Ask, Learning, Limiter, Limits, SharedConfig, Signals, Sleep, Timer, TokioTimer};
use redis::aio::ConnectionManager;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::redis_url;
use crate::bench::{Group, Work, each, each_async, floor, ours, rival, runtime};
use crate::runner::processor_time;
use crate::words::Words;

pub(super) fn groups() -> Vec<Group> {
    let mut groups = vec![uncontended(), one_place(), rate_of_100k()];
    groups.extend(redis_url().map(shared));
    groups.push(allowed());
    groups
}

/// A billion a minute, so that nothing is ever refused.
fn wide() -> Limits {
    Limits::new()
        .with_requests_per_minute(1_000_000_000)
        .with_tokens_per_minute(1_000_000_000)
        .with_concurrency(1_000)
}

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("it is not 0")
}

fn uncontended() -> Group {
    Group::new(
        "limits/acquire/uncontended",
        "a request of ten tokens is let through and settled, within wide limits on requests, tokens and places; governor looks at \
         two limits, and the floor takes a place of a semaphore",
        &[
            ours("peregrine").counted(),
            floor("semaphore").counted(),
            rival("governor"),
        ],
        || {
            let runtime = runtime();
            let limiter = Limiter::new(wide(), TokioTimer::new()).unwrap();
            let status = limiter.clone();
            let places = Arc::new(Semaphore::new(1_000));
            let wide = || RateLimiter::direct_with_clock(Quota::per_second(number(100_000_000)), MonotonicClock);
            let (requests, tokens, ten) = (wide(), wide(), number(10));
            vec![
                each_async(
                    &runtime,
                    move || {
                        let limiter = limiter.clone();
                        async move { limiter.acquire(Ask::tokens(10)).await.unwrap().settle(8) }
                    },
                    move |()| assert_eq!(status.status().in_flight, 0),
                ),
                each_async(
                    &runtime,
                    move || {
                        let places = Arc::clone(&places);
                        async move { places.acquire_owned().await.is_ok() }
                    },
                    |ok| assert!(*ok),
                ),
                each(
                    move || requests.check().is_ok() && matches!(tokens.check_n(ten), Ok(Ok(()))),
                    |ok| assert!(*ok),
                ),
            ]
        },
    )
    .with_counted_operations(1_000)
}

const WAITERS: u64 = 64;
/// What they share, in a sample.
const TURNS: u64 = 6_400;

/// 64 tasks on this thread that ask again as soon as they were served.
fn crowd<F: Future<Output = ()> + Send + 'static>(
    clock: fn() -> Duration,
    call: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> Work {
    let runtime = runtime();
    Box::new(move |meter| {
        for _ in 0..meter.operations().div_ceil(TURNS) {
            let begun = clock();
            let served = runtime.block_on(async {
                let tasks: Vec<_> = (0..WAITERS)
                    .map(|_| {
                        let call = call.clone();
                        tokio::spawn(async move {
                            let mut served = 0;
                            for _ in 0..TURNS / WAITERS {
                                call().await;
                                served += 1;
                            }
                            served
                        })
                    })
                    .collect();
                let mut served = 0;
                for task in tasks {
                    served += task.await.unwrap();
                }
                served
            });
            meter.took(clock().saturating_sub(begun), TURNS);
            assert_eq!(served, TURNS);
        }
    })
}

fn wall() -> Duration {
    thread_local! {
        static ORIGIN: Instant = Instant::now();
    }
    ORIGIN.with(Instant::elapsed)
}

fn one_place() -> Group {
    Group::new(
        "limits/acquire/64_waiters",
        "64 tasks share one place and ask again as soon as they were served, who has it lets the others go on; time of one of them. \
         The floor is a fair semaphore",
        &[ours("peregrine"), floor("semaphore")],
        || {
            let limiter = Limiter::new(Limits::new().with_concurrency(1), TokioTimer::new()).unwrap();
            let place = Arc::new(Semaphore::new(1));
            vec![
                crowd(wall, move || {
                    let limiter = limiter.clone();
                    async move {
                        let permit = limiter.acquire(Ask::tokens(0)).await.unwrap();
                        tokio::task::yield_now().await;
                        permit.settle(0);
                    }
                }),
                crowd(wall, move || {
                    let place = Arc::clone(&place);
                    async move {
                        let _place = place.acquire().await.unwrap();
                        tokio::task::yield_now().await;
                    }
                }),
            ]
        },
    )
}

fn rate_of_100k() -> Group {
    Group::new(
        "limits/acquire/rate_of_100k",
        "64 tasks share a rate of 100,000 a second and wait for it; what the processor takes for one of their requests",
        &[ours("peregrine"), rival("governor")],
        || {
            let limits = Limits::new()
                .with_requests_per_minute(6_000_000)
                .with_margin(1.0)
                .with_burst(Duration::from_millis(10));
            let limiter = Limiter::new(limits, TokioTimer::new()).unwrap();
            let quota = Quota::per_second(number(100_000)).allow_burst(number(1_000));
            let governor = Arc::new(RateLimiter::direct_with_clock(quota, MonotonicClock));
            vec![
                crowd(processor_time, move || {
                    let limiter = limiter.clone();
                    async move { limiter.acquire(Ask::tokens(0)).await.unwrap().settle(0) }
                }),
                crowd(processor_time, move || {
                    let governor = Arc::clone(&governor);
                    async move { governor.until_ready().await }
                }),
            ]
        },
    )
}

fn shared(url: String) -> Group {
    Group::new(
        "limits/acquire/redis",
        "a request of ten tokens is let through and settled, within wide limits that processes share through Redis; the floor asks \
         the server each time, with one INCR",
        &[ours("peregrine"), floor("incr")],
        move || {
            let runtime = runtime();
            let name = format!("peregrine-bench-{}", std::process::id());
            let connecting = SharedConfig::new(&url, &name, wide())
                .with_lease(Duration::from_secs(1))
                .connect(TokioTimer::new());
            let limiter = runtime.block_on(connecting).unwrap();
            let status = limiter.clone();
            vec![
                each_async(
                    &runtime,
                    move || {
                        let limiter = limiter.clone();
                        async move { limiter.acquire(Ask::tokens(10)).await.unwrap().settle(8) }
                    },
                    move |()| assert_eq!(status.status().waiting, 0),
                ),
                incr(&runtime, &url, format!("{name}:count")),
            ]
        },
    )
}

fn incr(runtime: &Rc<Runtime>, url: &str, key: String) -> Work {
    let client = redis::Client::open(url).unwrap();
    let mut connection = runtime.block_on(ConnectionManager::new(client)).unwrap();
    let set = redis::cmd("SET").arg(&key).arg(0).arg("EX").arg(120).to_owned();
    runtime.block_on(set.exec_async(&mut connection)).unwrap();
    let (runtime, mut count) = (Rc::clone(runtime), 0);
    Box::new(move |meter| {
        let (last, elapsed) = runtime.block_on(async {
            let mut last = 0;
            let begun = Instant::now();
            for _ in 0..meter.operations() {
                let incr = redis::cmd("INCR").arg(&key).to_owned();
                last = incr.query_async::<u64>(&mut connection).await.unwrap();
            }
            (last, begun.elapsed())
        });
        count += meter.operations();
        meter.took(elapsed, meter.operations());
        assert_eq!(last, count);
    })
}

/// What the provider of the simulation lets through in any minute.
const ALLOWED: usize = 1_000;
const WORKERS: usize = 52;
const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

fn allowed() -> Group {
    Group::new(
        "limits/rate/hour_of_1000_rpm",
        "52 workers send as much as they may for a simulated hour, of which a provider takes 1,000 requests in any minute; time for the \
         hour. Ours is told that, and to leave 2 % of it; `learning` is told 2,000 and sees answers and 429s only; the rival waits longer \
         after each 429",
        &[ours("peregrine"), ours("learning"), rival("backoff")],
        || {
            let told = |limit: u64| Limits::new().with_requests_per_minute(limit);
            vec![
                hour(Some(told(1_000).with_margin(0.98))),
                hour(Some(told(2_000).with_learning(Learning::new()))),
                hour(None),
            ]
        },
    )
}

/// The executor's virtual time, for a limiter.
#[derive(Clone)]
struct Virtual(VirtualTimer);

impl Timer for Virtual {
    fn now(&self) -> Duration {
        self.0.now()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.0.sleep_until(self.0.now() + duration)
    }
}

/// A provider that lets so many through in any minute and says nothing of it.
#[derive(Default)]
struct Provider {
    taken: VecDeque<Duration>,
    admitted: u64,
    refused: u64,
}

impl Provider {
    fn ask(&mut self, at: Duration) -> bool {
        while self.taken.front().is_some_and(|old| *old + MINUTE <= at) {
            self.taken.pop_front();
        }
        let admits = self.taken.len() < ALLOWED;
        match admits {
            true => {
                self.taken.push_back(at);
                self.admitted += 1;
            }
            false => self.refused += 1,
        }
        admits
    }
}

struct World {
    timer: Virtual,
    provider: RefCell<Provider>,
    random: RefCell<Words>,
}

impl World {
    async fn wait(&self, from_ms: usize, to_ms: usize) {
        let ms = from_ms + self.random.borrow_mut().below(to_ms - from_ms);
        self.timer.sleep(Duration::from_millis(ms as u64)).await;
    }

    /// A call from its sending to its answer: whether it was admitted.
    async fn call(&self) -> bool {
        self.wait(10, 60).await;
        let admitted = self.provider.borrow_mut().ask(self.timer.now());
        match admitted {
            true => self.wait(100, 1_000).await,
            false => self.wait(10, 60).await,
        }
        admitted
    }
}

async fn limited(world: Rc<World>, limiter: Limiter) {
    while world.timer.now() < HOUR {
        let permit = limiter.acquire(Ask::tokens(1)).await.unwrap();
        match world.call().await {
            true => permit.settle(1),
            false => permit.rejected(&Signals::default()),
        }
    }
}

/// As one does without a limiter: twice as long after each refusal, up to a minute, and by chance between half and all of it.
async fn backing_off(world: Rc<World>) {
    let mut wait_ms = 500;
    while world.timer.now() < HOUR {
        match world.call().await {
            true => wait_ms = 500,
            false => {
                world.wait(wait_ms / 2, wait_ms).await;
                wait_ms = (wait_ms * 2).min(60_000);
            }
        }
    }
}

fn hour(limits: Option<Limits>) -> Work {
    Box::new(move |meter| {
        for _ in 0..meter.operations() {
            let timer = Virtual(VirtualTimer::new());
            let limiter = limits
                .clone()
                .map(|limits| Limiter::new(limits, timer.clone()).unwrap());
            let world = Rc::new(World {
                timer: timer.clone(),
                provider: RefCell::default(),
                random: RefCell::new(Words::new()),
            });
            let begun = Instant::now();
            let mut workers: FuturesUnordered<_> = (0..WORKERS)
                .map(|_| {
                    let (world, limiter) = (Rc::clone(&world), limiter.clone());
                    async move {
                        match limiter {
                            Some(limiter) => limited(world, limiter).await,
                            None => backing_off(world).await,
                        }
                    }
                })
                .collect();
            let mut context = Context::from_waker(Waker::noop());
            loop {
                match std::pin::Pin::new(&mut workers).poll_next(&mut context) {
                    Poll::Ready(None) => break,
                    Poll::Ready(Some(())) => {}
                    Poll::Pending => assert!(timer.0.advance_to_next(), "everybody waits for nothing"),
                }
            }
            meter.took(begun.elapsed(), 1);
            let provider = world.provider.borrow();
            let used = provider.admitted as f64 / (ALLOWED * 60) as f64;
            let refused = provider.refused as f64 / (provider.admitted + provider.refused) as f64;
            assert!(used > 0.5, "work was done: {used}");
            meter.figure("used of what is allowed, %:", used * 100.0);
            meter.figure("answered 429, %:", refused * 100.0);
        }
    })
}
