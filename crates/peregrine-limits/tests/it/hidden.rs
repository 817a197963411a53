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

/// How a limit moves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moves {
    /// Down to six tenths, up again, and down and up a little.
    Steps,
    /// Slowly and steadily up and down by a fifth, an hour each way.
    Waves,
    /// Every ten minutes up or down by up to 3 %, at random.
    Drifts(u64),
}

impl Moves {
    /// From which second on which share of the limit.
    fn steps(self, limit: f64) -> Vec<(u64, f64)> {
        let steps: Vec<(u64, f64)> = match self {
            Self::Steps => vec![
                (0, 1.0),
                (3_600, 0.6),
                (7_200, 1.0),
                (10_800, 0.85),
                (12_600, 0.9),
            ],
            Self::Waves => (0..480)
                .map(|step| {
                    let phase = step as f64 * 30.0 / 7_200.0 * std::f64::consts::TAU;
                    (step * 30, 0.9 + 0.1 * phase.cos())
                })
                .collect(),
            Self::Drifts(seed) => {
                let (mut random, mut share) = (Random(seed), 0.9);
                (0..24)
                    .map(|step| {
                        share *= 1.0 + (random.between(0, 601) as f64 - 300.0) / 10_000.0;
                        (step * 600, share)
                    })
                    .collect()
            }
        };
        steps.into_iter().map(|(at, share)| (at, share * limit)).collect()
    }
}

/// One limit of a server.
struct Server {
    shape: Shape,
    /// From which second on which limit a minute.
    steps: Vec<(u64, f64)>,
    headers: bool,
    level: f64,
    at: f64,
    window: u64,
    log: VecDeque<(f64, f64)>,
    /// What could have been used so far.
    allowed: f64,
    admitted: f64,
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
            admitted: 0.0,
        }
    }

    fn limit(&self, at: f64) -> f64 {
        let now = self.steps.iter().rev().find(|(from, _)| *from as f64 <= at);
        now.map_or(1.0, |(_, limit)| *limit)
    }

    /// Whether there is room for `size` more, how much would be left, and when there is more.
    fn look(&mut self, at: f64, size: f64) -> (bool, f64, f64) {
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
                while let Some((_, old)) = self.log.front().copied().filter(|(old, _)| *old <= at - 60.0) {
                    self.log.pop_front();
                    self.level -= old;
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
        let left = if yes { limit - taken - size } else { 0.0 };
        (yes, left.max(0.0), reset)
    }

    fn take(&mut self, size: f64) {
        self.admitted += size;
        match self.shape {
            Shape::Bucket(_) => self.level -= size,
            Shape::Fixed => self.level += size,
            Shape::Sliding => {
                self.level += size;
                self.log.push_back((self.at, size));
            }
        }
    }
}

struct Outcome {
    used: f64,
    rejected: f64,
    jain: f64,
}

#[derive(Clone)]
struct World {
    /// Of requests and of tokens, where there is one.
    servers: Rc<RefCell<[Option<Server>; 2]>>,
    random: Rc<RefCell<Random>>,
    served: Rc<[Cell<f64>; 2]>,
    answers: Rc<[Cell<u64>; 2]>,
    began: Instant,
}

impl World {
    /// One request of so many tokens arrives: whether it is let through, and what the headers say.
    fn ask(&self, tokens: f64) -> (bool, Signals) {
        let at = (Instant::now() - self.began).as_secs_f64();
        let (mut all, mut signals) = (true, Signals::default());
        let mut servers = self.servers.borrow_mut();
        let sizes = [1.0, tokens];
        for (place, (server, size)) in servers.iter_mut().zip(sizes).enumerate() {
            let Some(server) = server else { continue };
            let (yes, left, reset) = server.look(at, size);
            all &= yes;
            let window = Window {
                limit: Some(server.limit(at) as u64),
                remaining: Some(left as u64),
                reset: Some(Duration::from_secs_f64(reset)),
            };
            let told = server.headers.then_some(window);
            match place {
                0 => signals.requests = told,
                _ => signals.tokens = told,
            }
        }
        for (server, size) in servers.iter_mut().zip(sizes) {
            if let Some(server) = server.as_mut().filter(|_| all) {
                server.take(size);
            }
        }
        let count = &self.answers[usize::from(!all)];
        count.set(count.get() + 1);
        (all, signals)
    }
}

/// One user of the limiter: as soon as a request is answered it sends the next.
async fn worker(world: World, limiter: Limiter, tenant: usize) {
    let names = ["many", "few"];
    loop {
        // What is asked for is between four fifths and thirteen tenths of what it turns out to be.
        let (tokens, estimate, there, takes) = {
            let mut random = world.random.borrow_mut();
            let tokens = random.between(100, 901);
            let estimate = tokens * random.between(80, 131) / 100;
            (
                tokens,
                estimate,
                random.between(10, 60),
                random.between(100, 1_000),
            )
        };
        let permit = limiter
            .acquire(Ask::tokens(estimate).for_tenant(names[tenant]))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(there)).await;
        let (yes, signals) = world.ask(tokens as f64);
        if yes {
            let share = if world.servers.borrow()[1].is_some() {
                tokens as f64
            } else {
                1.0
            };
            world.served[tenant].set(world.served[tenant].get() + share);
            tokio::time::sleep(Duration::from_millis(takes)).await;
            permit.settle_with(tokens, &signals);
        } else {
            tokio::time::sleep(Duration::from_millis(there)).await;
            permit.rejected(&signals);
        }
    }
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    Requests,
    Tokens,
    /// Both, of which tokens are what is short.
    Both,
}

/// One run.
#[derive(Debug, Clone, Copy)]
struct Case {
    shape: Shape,
    moves: Moves,
    bound: Bound,
    headers: bool,
    /// How many times of what there is the limiter is set up for.
    configured: f64,
    hours: f64,
    seed: u64,
}

impl Case {
    /// Four hours in which the limit is hidden, goes down, up again, and down and up a little; the limiter is set up for
    /// twice what there is.
    fn hidden(shape: Shape) -> Self {
        Self {
            shape,
            moves: Moves::Steps,
            bound: Bound::Requests,
            headers: false,
            configured: 2.0,
            hours: 4.0,
            seed: 7,
        }
    }

    fn run(self) -> Outcome {
        let Self {
            shape,
            moves,
            bound,
            headers,
            configured,
            hours,
            seed,
        } = self;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let server = |limit: f64| Server::new(shape, &moves.steps(limit), headers);
        let (mut limits, mut servers) = (Limits::new().with_learning(Learning::new()), [None, None]);
        let requests = match bound {
            Bound::Requests => Some(1_000.0),
            Bound::Tokens => None,
            Bound::Both => Some(2_000.0),
        };
        if let Some(requests) = requests {
            limits = limits.with_requests_per_minute((requests * configured) as u64);
            servers[0] = Some(server(requests));
        }
        if bound != Bound::Requests {
            limits = limits.with_tokens_per_minute((500_000.0 * configured) as u64);
            servers[1] = Some(server(500_000.0));
        }
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let limiter = Limiter::new(limits, TokioTimer::new()).unwrap();
            let world = World {
                servers: Rc::new(RefCell::new(servers)),
                random: Rc::new(RefCell::new(Random(seed))),
                served: Rc::default(),
                answers: Rc::default(),
                began: Instant::now(),
            };
            let workers = [(0, 40), (1, 12)];
            let tasks: Vec<_> = workers
                .into_iter()
                .flat_map(|(tenant, count)| std::iter::repeat_n(tenant, count))
                .map(|tenant| tokio::task::spawn_local(worker(world.clone(), limiter.clone(), tenant)))
                .collect();
            tokio::time::sleep(Duration::from_secs_f64(hours * 3_600.0)).await;
            tasks.iter().for_each(tokio::task::JoinHandle::abort);
            let servers = world.servers.borrow();
            let short = servers.iter().rev().flatten().next().unwrap();
            let [one, two] = [world.served[0].get(), world.served[1].get()];
            let [yes, no] = [world.answers[0].get() as f64, world.answers[1].get() as f64];
            Outcome {
                used: short.admitted / short.allowed,
                rejected: no / (yes + no),
                jain: (one + two).powi(2) / (2.0 * (one * one + two * two)),
            }
        })
    }

    fn check(self) {
        let Outcome { used, rejected, jain } = self.run();
        println!("{self:?}: used {used:.4}, rejected {rejected:.5}, Jain {jain:.4}");
        assert!(used >= 0.97, "only {used:.4} of the limit was used: {self:?}");
        assert!(rejected <= 0.001, "{rejected:.5} were answered 429: {self:?}");
        assert!(jain >= 0.99, "Jain's index is {jain:.4}: {self:?}");
    }
}

const SHAPES: [Shape; 4] = [
    Shape::Fixed,
    Shape::Sliding,
    Shape::Bucket(60.0),
    Shape::Bucket(1.0),
];

/// This case; with `PEREGRINE_LIMITS_ALL_CASES` in the environment all that have the same bound, which takes hundreds of
/// simulated hours and a minute or two with `--release`.
fn check_cases(one: Case) {
    one.check();
    if std::env::var_os("PEREGRINE_LIMITS_ALL_CASES").is_none() {
        return;
    }
    for shape in SHAPES {
        for moves in [Moves::Steps, Moves::Waves, Moves::Drifts(1), Moves::Drifts(2)] {
            for (seed, configured) in [(1, 1.0), (1, 2.0), (2, 1.0), (2, 2.0)] {
                let case = Case {
                    moves,
                    configured,
                    seed,
                    bound: one.bound,
                    ..Case::hidden(shape)
                };
                case.check();
            }
        }
    }
}

#[test]
fn a_fixed_window() {
    Case::hidden(Shape::Fixed).check();
}

#[test]
fn a_sliding_window() {
    Case::hidden(Shape::Sliding).check();
}

#[test]
fn a_bucket_of_a_minute() {
    Case::hidden(Shape::Bucket(60.0)).check();
}

#[test]
fn a_bucket_of_a_second() {
    Case::hidden(Shape::Bucket(1.0)).check();
}

/// What is told is followed at once: one step shows it.
#[test]
fn limits_that_headers_tell() {
    for bound in [Bound::Requests, Bound::Tokens] {
        for shape in [Shape::Fixed, Shape::Bucket(60.0)] {
            let case = Case {
                headers: true,
                configured: 1.0,
                hours: 1.5,
                bound,
                ..Case::hidden(shape)
            };
            case.check();
        }
    }
}

#[test]
fn a_limit_that_drifts() {
    let case = Case {
        moves: Moves::Drifts(1),
        configured: 1.0,
        hours: 2.0,
        seed: 2,
        ..Case::hidden(Shape::Fixed)
    };
    check_cases(case);
}

#[test]
fn tokens_of_requests_of_all_sizes() {
    let case = Case {
        bound: Bound::Tokens,
        moves: Moves::Waves,
        hours: 2.0,
        seed: 1,
        ..Case::hidden(Shape::Sliding)
    };
    check_cases(case);
}

/// Nobody says which of the two a 429 is about.
#[test]
fn requests_and_tokens_of_which_one_is_short() {
    let case = Case {
        bound: Bound::Both,
        seed: 1,
        ..Case::hidden(Shape::Bucket(60.0))
    };
    check_cases(case);
}
