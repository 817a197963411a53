//! Against servers whose limit is hidden and moves: how much of it is used, how often it is met, how fairly it is shared.
//!
//! Virtual time (tokio's paused clock), so hours take seconds and depend on no machine. The servers know nothing of the
//! limiter and it nothing of them: it sees answers and 429s.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use peregrine_limits::{Ask, Learning, Limiter, Limits, Signals, TokioTimer, Window};
use tokio::time::Instant;

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low).max(1)
    }
}

/// How a server counts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    /// Anew with every minute of the wall clock.
    Fixed,
    /// What was let through in the last 60 s.
    Sliding,
    /// A bucket that holds so many seconds of the rate.
    Bucket(f64),
}

struct Server {
    shape: Shape,
    /// From which second on which limit a minute.
    steps: Vec<(u64, f64)>,
    headers: bool,
    level: f64,
    at: f64,
    window: u64,
    log: VecDeque<f64>,
    /// What could have been used so far.
    allowed: f64,
    admitted: u64,
    rejected: u64,
}

impl Server {
    fn new(shape: Shape, steps: &[(u64, f64)], headers: bool) -> Self {
        let full = match shape {
            Shape::Bucket(seconds) => steps[0].1 / 60.0 * seconds,
            _ => 0.0,
        };
        Self {
            shape,
            steps: steps.to_vec(),
            headers,
            level: full,
            at: 0.0,
            window: 0,
            log: VecDeque::new(),
            allowed: full,
            admitted: 0,
            rejected: 0,
        }
    }

    fn limit(&self, at: f64) -> f64 {
        let now = self.steps.iter().rev().find(|(from, _)| *from as f64 <= at);
        now.map_or(1.0, |(_, limit)| *limit)
    }

    /// One request of `size`. What is left afterwards, if it is let through.
    fn ask(&mut self, at: f64, size: f64) -> (bool, f64, f64) {
        let limit = self.limit(at);
        self.allowed += (at - self.at) * limit / 60.0;
        let (taken, reset) = match self.shape {
            Shape::Fixed => {
                let window = (at / 60.0) as u64;
                if window != self.window {
                    (self.window, self.level) = (window, 0.0);
                }
                (self.level, (window + 1) as f64 * 60.0 - at)
            }
            Shape::Sliding => {
                while self.log.front().is_some_and(|old| *old <= at - 60.0) {
                    self.log.pop_front();
                    self.level -= size;
                }
                (self.level, 60.0)
            }
            Shape::Bucket(seconds) => {
                let full = limit / 60.0 * seconds;
                self.level = (self.level + (at - self.at) * limit / 60.0).min(full);
                (limit - self.level, (full - self.level) * 60.0 / limit)
            }
        };
        self.at = at;
        let yes = taken + size <= limit;
        if yes {
            self.admitted += 1;
            match self.shape {
                Shape::Bucket(_) => self.level -= size,
                Shape::Fixed => self.level += size,
                Shape::Sliding => {
                    self.level += size;
                    self.log.push_back(at);
                }
            }
        } else {
            self.rejected += 1;
        }
        let left = if yes { limit - taken - size } else { 0.0 };
        (yes, left.max(0.0), reset)
    }
}

struct Outcome {
    used: f64,
    rejected: f64,
    jain: f64,
}

#[derive(Clone)]
struct World {
    server: Rc<RefCell<Server>>,
    random: Rc<RefCell<Random>>,
    served: Rc<[Cell<f64>; 2]>,
    began: Instant,
    size: u64,
}

/// One user of the limiter: as soon as a request is answered it sends the next.
async fn worker(world: World, limiter: Limiter, tenant: usize) {
    let names = ["many", "few"];
    loop {
        let permit = limiter
            .acquire(Ask::tokens(world.size).for_tenant(names[tenant]))
            .await
            .unwrap();
        let (there, takes) = {
            let mut random = world.random.borrow_mut();
            (random.between(10, 60), random.between(100, 1_000))
        };
        tokio::time::sleep(Duration::from_millis(there)).await;
        let at = (Instant::now() - world.began).as_secs_f64();
        let (yes, left, reset) = world.server.borrow_mut().ask(at, 1.0);
        let mut signals = Signals::default();
        if world.server.borrow().headers {
            signals.requests = Some(Window {
                limit: Some(world.server.borrow().limit(at) as u64),
                remaining: Some(left as u64),
                reset: Some(Duration::from_secs_f64(reset)),
            });
        }
        if yes {
            world.served[tenant].set(world.served[tenant].get() + 1.0);
            tokio::time::sleep(Duration::from_millis(takes)).await;
            permit.settle_with(world.size, &signals);
        } else {
            tokio::time::sleep(Duration::from_millis(there)).await;
            permit.rejected(&signals);
        }
    }
}

fn run(limits: Limits, shape: Shape, steps: &[(u64, f64)], headers: bool, hours: f64, seed: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let limiter = Limiter::new(limits, TokioTimer::new()).unwrap();
        let world = World {
            server: Rc::new(RefCell::new(Server::new(shape, steps, headers))),
            random: Rc::new(RefCell::new(Random(seed))),
            served: Rc::new([Cell::new(0.0), Cell::new(0.0)]),
            began: Instant::now(),
            size: 1,
        };
        let workers = [(0, 40), (1, 12)];
        let tasks: Vec<_> = workers
            .into_iter()
            .flat_map(|(tenant, count)| std::iter::repeat_n(tenant, count))
            .map(|tenant| tokio::task::spawn_local(worker(world.clone(), limiter.clone(), tenant)))
            .collect();
        tokio::time::sleep(Duration::from_secs_f64(hours * 3_600.0)).await;
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        let server = world.server.borrow();
        let [one, two] = [world.served[0].get(), world.served[1].get()];
        Outcome {
            used: server.admitted as f64 / server.allowed,
            rejected: server.rejected as f64 / (server.admitted + server.rejected) as f64,
            jain: (one + two).powi(2) / (2.0 * (one * one + two * two)),
        }
    })
}

/// The limit goes down to 600, up again, and down and up a little. In the tests without headers the limiter is set up for
/// twice what there is.
const STEPS: [(u64, f64); 5] = [
    (0, 1_000.0),
    (3_600, 600.0),
    (7_200, 1_000.0),
    (10_800, 850.0),
    (12_600, 900.0),
];

fn check(shape: Shape, headers: bool, configured: u64) {
    let limits = Limits::new()
        .with_requests_per_minute(configured)
        .with_learning(Learning::new());
    // What is told is followed at once: one step shows it.
    let hours = if headers { 1.5 } else { 4.0 };
    let Outcome { used, rejected, jain } = run(limits, shape, &STEPS, headers, hours, 7);
    println!("{shape:?}, told {headers}: used {used:.4}, rejected {rejected:.5}, Jain {jain:.4}");
    assert!(used >= 0.97, "only {used:.4} of the limit was used");
    assert!(rejected <= 0.001, "{rejected:.5} were answered 429");
    assert!(jain >= 0.99, "Jain's index is {jain:.4}");
}

#[test]
fn a_fixed_window() {
    check(Shape::Fixed, false, 2_000);
}

#[test]
fn a_sliding_window() {
    check(Shape::Sliding, false, 2_000);
}

#[test]
fn a_bucket_of_a_minute() {
    check(Shape::Bucket(60.0), false, 2_000);
}

#[test]
fn a_bucket_of_a_second() {
    check(Shape::Bucket(1.0), false, 2_000);
}

#[test]
fn limits_that_headers_tell() {
    for shape in [Shape::Fixed, Shape::Bucket(60.0)] {
        check(shape, true, 1_000);
    }
}
