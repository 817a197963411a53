//! One limit for many processes, kept in Redis.
//!
//! **Booking.** A request takes its turn in the fair queue of its process, and books: one script takes what it asks for,
//! if need be into debt, and says how long to wait until it is there. So there is one round trip for each request, nobody
//! asks again and again, and processes are served in the order in which they book, whatever the size. The time is that of
//! the server.
//!
//! **Concurrency.** Each process tells how many requests it has in flight, as an absolute count under a lease that it
//! renews; the counts of a process that is gone end with its lease. Who finds all places taken tries again after a while
//! that doubles up to a quarter of a second, or as soon as one of its own requests ends.
//!
//! **Away.** When the server does not answer, each process goes on with a part of the limits: all, divided by the processes
//! that were known last, beginning with nothing to use at once. That is told once. One task tries to get back, less and
//! less often up to every five seconds. When the server is back, what it does not remember counts as used.
//!
//! What a crash or a lost connection leaves behind is only ever too careful: tokens that were booked and not used count
//! until the rate has made up for them.

mod booking;
mod config;
mod learned;
mod scripts;

pub(crate) use booking::Booking;
pub use config::{SharedConfig, SharedEvent};

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script, ScriptInvocation};
use tokio::sync::Notify;

use self::learned::{Learned, Note, Notes};
use crate::admission::Admission;
use crate::config::{Limits, nanos};
use crate::error::{Error, Quantity};
use crate::limiter::{Held, Permit, Status};
use crate::local::Local;
use crate::signals::Signals;
use crate::sync::lock;
use crate::timer::Clockwork;

/// How long to wait for a place that another process has, at first and at most.
const BUSY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// How long between attempts to get back to the server, at first and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often what was learned is told to the others.
const TELL: Duration = Duration::from_millis(500);

/// A connection, and the how manieth it is: one that broke says nothing about the one after it.
#[derive(Clone)]
struct Connection {
    redis: MultiplexedConnection,
    number: u64,
}

enum Link {
    Here(Connection),
    /// With the limiter that stands in meanwhile.
    Away(Option<Arc<Local>>),
}

pub(crate) struct Shared {
    /// Whose turn it is to book: the fair queue of this process.
    turns: Arc<Local>,
    keys: [String; 3],
    process: String,
    signature: String,
    lease: Duration,
    timeout: Duration,
    on_event: Arc<dyn Fn(&SharedEvent) + Send + Sync>,
    clock: Arc<Clockwork>,
    limits: Limits,
    in_flight: AtomicU32,
    processes: AtomicU64,
    /// Whether this process ever saw the state: if it is gone then, it counts as used up.
    seen: AtomicBool,
    /// What to add to our time for the server's, in nanoseconds.
    offset: AtomicU64,
    link: Mutex<Link>,
    /// The rates that were learned last, in thousandths.
    rates: Mutex<[Option<u64>; 2]>,
    notes: Mutex<Notes>,
    /// Until when the provider asks to wait; 0 where everybody knows.
    pause_until: AtomicU64,
    /// The same, kept: who has booked already waits too.
    paused_until: AtomicU64,
    /// What is left by the provider's own account, and when it was let through that the account came with.
    told_left: Mutex<[Option<(u64, u64)>; 2]>,
    /// How many messages were made.
    messages: Mutex<u64>,
    /// What is to be given back with the next message.
    unsent: Mutex<[i64; 2]>,
    send: Notify,
    /// The server is back.
    back: Notify,
    /// Who stood in for the server last: its permits may still be in flight.
    last_standin: Mutex<Weak<Local>>,
    freed: Notify,
    tell_now: Notify,
    book: Script,
    give: Script,
    learn: Script,
}

type Booked = (u8, u64, u64, u64, u8, u8);

impl Shared {
    pub(crate) async fn acquire(self: &Arc<Self>, tenant: &str, tokens: u64) -> Result<Permit, Error> {
        for (quantity, asked) in [(Quantity::Requests, 1), (Quantity::Tokens, tokens)] {
            let most = self.limits.most(quantity);
            if asked > most {
                let limit = most;
                return Err(Error::TooLarge {
                    quantity,
                    asked,
                    limit,
                });
            }
        }
        let mut turn: Option<Permit> = None;
        let mut busy = BUSY.0;
        loop {
            let mut back = pin!(self.back.notified());
            back.as_mut().enable();
            let connection = match &*lock(&self.link) {
                Link::Here(connection) => Ok(connection.clone()),
                Link::Away(standin) => Err(standin.clone()),
            };
            let connection = match connection {
                Ok(connection) => connection,
                Err(standin) => {
                    // The stand-in has a queue of its own; who is in it when the server comes back asks the server.
                    let standin = standin.unwrap_or_else(|| self.standin());
                    if let Some(turn) = turn.take() {
                        turn.refund();
                    }
                    tokio::select! {
                        biased;
                        grant = standin.acquire(tenant, tokens) => {
                            return Ok(Permit::new(Held::Local(standin.clone(), grant?)));
                        }
                        () = back => continue,
                    }
                }
            };
            if turn.is_none() {
                let grant = self.turns.acquire(tenant, tokens).await?;
                turn = Some(Permit::new(Held::Local(self.turns.clone(), grant)));
                continue;
            }
            // Counted before it is asked for, so that what happens meanwhile counts it too.
            let mut booking = Booking::new(self, tokens);
            match self.book(&connection, tokens).await {
                Ok((0, ..)) => {
                    booking.withdraw();
                    let freed = self.freed.notified();
                    tokio::select! {
                        () = freed => {}
                        () = self.clock.sleep(nanos(busy)) => {}
                    }
                    busy = (busy * 2).min(BUSY.1);
                }
                Ok((_, wait_us, processes, now_us, used, used_tokens)) => {
                    self.processes.store(processes.max(1), Ordering::Relaxed);
                    self.seen.store(true, Ordering::Relaxed);
                    let server = now_us.saturating_mul(1_000);
                    self.offset
                        .store(server.saturating_sub(self.clock.now()), Ordering::Relaxed);
                    booking.booked(
                        server.saturating_add(wait_us.saturating_mul(1_000)),
                        [used == 1, used_tokens == 1],
                    );
                    // The turn is kept meanwhile: who comes later, of another tenant, is not behind all who wait here.
                    self.wait(wait_us.saturating_mul(1_000)).await;
                    // The provider may have asked to wait since.
                    let pause = self.paused_until.load(Ordering::Relaxed);
                    self.wait(pause.saturating_sub(self.clock.now())).await;
                    if let Some(turn) = turn {
                        turn.refund();
                    }
                    return Ok(Permit::new(Held::Shared(booking)));
                }
                Err(error) => {
                    booking.withdraw();
                    self.go_away(connection.number, &error);
                }
            }
        }
    }

    async fn wait(&self, nanos: u64) {
        let until = self.clock.now().saturating_add(nanos);
        loop {
            let now = self.clock.now();
            if now >= until {
                return;
            }
            self.clock.sleep(until - now).await;
        }
    }

    /// The server's time, as far as we know.
    fn server_now(&self) -> u64 {
        self.clock
            .now()
            .saturating_add(self.offset.load(Ordering::Relaxed))
    }

    async fn within<T>(&self, asked: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    async fn open(&self, client: &Client, number: u64) -> Result<Connection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        let redis = self.within(client.get_multiplexed_async_connection_with_config(&config));
        Ok(Connection {
            redis: redis.await?,
            number,
        })
    }

    async fn book(&self, connection: &Connection, tokens: u64) -> Result<Booked, RedisError> {
        let mut invocation = self.book.prepare_invoke();
        self.arguments(&mut invocation, [1, signed(tokens)]);
        self.within(invocation.invoke_async(&mut connection.redis.clone()))
            .await
    }

    /// Gives back, and renews the lease.
    async fn give(&self, connection: &Connection) -> Result<(), RedisError> {
        let mut invocation = self.give.prepare_invoke();
        self.arguments(&mut invocation, [0, 0]);
        let processes: u64 = self
            .within(invocation.invoke_async(&mut connection.redis.clone()))
            .await?;
        self.processes.store(processes.max(1), Ordering::Relaxed);
        Ok(())
    }

    fn arguments(&self, invocation: &mut ScriptInvocation<'_>, amounts: [i64; 2]) {
        for key in &self.keys {
            invocation.key(key.as_str());
        }
        let (number, in_flight) = {
            let mut messages = lock(&self.messages);
            *messages += 1;
            (*messages, self.in_flight())
        };
        invocation
            .arg(self.process.as_str())
            .arg(in_flight)
            .arg(u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX))
            .arg(u8::from(!self.seen.load(Ordering::Relaxed)))
            .arg(self.limits.concurrency.unwrap_or(0))
            .arg(self.signature.as_str());
        // What is lost with this message counts as used.
        let gives = std::mem::take(&mut *lock(&self.unsent));
        for ((quantity, amount), give) in Quantity::ALL.into_iter().zip(amounts).zip(gives) {
            let (rate, capacity) = self.limits.first_rate(quantity).unwrap_or((0, 0));
            invocation.arg(amount).arg(rate).arg(capacity).arg(give);
        }
        invocation.arg(number);
        for quantity in Quantity::ALL {
            invocation.arg(self.limits.most_owed(quantity).unwrap_or(0));
        }
    }

    /// Requests that were let through, by the server or by who stood in for it.
    fn in_flight(&self) -> u32 {
        let standin = lock(&self.last_standin).upgrade();
        let of_standin = standin.map_or(0, |standin| standin.look(|rules, _| rules.in_flight()));
        self.in_flight.load(Ordering::SeqCst).saturating_add(of_standin)
    }

    /// Gives back with the next message.
    fn give_back(&self, gives: [i64; 2]) {
        {
            let mut unsent = lock(&self.unsent);
            for (sum, give) in unsent.iter_mut().zip(gives) {
                *sum = sum.saturating_add(give);
            }
        }
        self.send.notify_one();
        self.freed.notify_one();
    }

    /// The part of the limits that is ours while the server is away. Begins with nothing to use at once.
    fn standin(&self) -> Arc<Local> {
        let mut link = lock(&self.link);
        if let Link::Away(Some(standin)) = &*link {
            return standin.clone();
        }
        let limits = self.limits.divided(self.processes.load(Ordering::Relaxed));
        let rules = Admission::new(limits.clone(), self.clock.now()).standing_in_for(&self.limits);
        let standin = Arc::new(Local::with_rules(rules, limits, self.clock.clone()));
        if let Link::Away(none) = &mut *link {
            *none = Some(standin.clone());
            *lock(&self.last_standin) = Arc::downgrade(&standin);
        }
        standin
    }

    /// The first who notices tells.
    fn go_away(&self, number: u64, error: &RedisError) {
        let first = {
            let mut link = lock(&self.link);
            if matches!(&*link, Link::Here(newer) if newer.number != number) {
                return;
            }
            let before = std::mem::replace(&mut *link, Link::Away(None));
            match before {
                Link::Here(_) | Link::Away(None) => true,
                Link::Away(Some(standin)) => {
                    *link = Link::Away(Some(standin));
                    false
                }
            }
        };
        if first {
            drop(self.standin());
            (self.on_event)(&SharedEvent::Away {
                processes: self.processes.load(Ordering::Relaxed),
                reason: error.to_string(),
            });
        }
    }

    /// Our part of what a full bucket holds, below zero: what may have been used without the server.
    fn spent(&self) -> [i64; 2] {
        let processes = self.processes.load(Ordering::Relaxed).max(1);
        Quantity::ALL.map(|quantity| {
            let capacity = self
                .limits
                .first_rate(quantity)
                .map_or(0, |(_, capacity)| capacity);
            -signed(capacity / 1_000 / processes)
        })
    }

    fn connection(&self) -> Option<Connection> {
        match &*lock(&self.link) {
            Link::Here(connection) => Some(connection.clone()),
            Link::Away(_) => None,
        }
    }

    /// Tells the others what was learned here.
    async fn tell(&self, connection: &Connection, mean_tokens: &mut f64) -> Result<(), RedisError> {
        let notes = lock(&self.notes).take();
        let notes = if self.limits.learning.is_some() {
            notes
        } else {
            Vec::new()
        };
        let asked = self.pause_until.swap(0, Ordering::Relaxed);
        let left = std::mem::take(&mut *lock(&self.told_left));
        if notes.is_empty() && asked == 0 && left == [None; 2] {
            return Ok(());
        }
        let told = self.tell_all(connection, mean_tokens, &notes, asked, left).await;
        if !matches!(told, Ok(true)) {
            // The wish to wait is told again.
            self.pause_until.fetch_max(asked, Ordering::Relaxed);
        }
        told.map(drop)
    }

    /// Whether it is stored.
    async fn tell_all(
        &self,
        connection: &Connection,
        mean_tokens: &mut f64,
        notes: &[Note],
        asked: u64,
        left: [Option<(u64, u64)>; 2],
    ) -> Result<bool, RedisError> {
        let mut connection = connection.redis.clone();
        let state = self.keys[0].as_str();
        // A few rounds; if others are faster each time, what was learned here is what they learn too.
        for _ in 0..5 {
            let mut read = redis::cmd("HMGET");
            read.arg(state).arg("version").arg("learned1").arg("learned2");
            let (version, one, two): (Option<u64>, Option<String>, Option<String>) =
                self.within(read.query_async(&mut connection)).await?;
            let mut learned = Learned::read(&self.limits, [one, two], self.server_now());
            let mut mean = *mean_tokens;
            let told = learned.tell(notes, &mut mean);
            let asked = asked.saturating_sub(self.clock.now());
            let in_a_row = |in_a_row| Admission::pause_after(in_a_row, &self.limits);
            let pause = told.in_a_row.filter(|_| asked == 0).map_or(asked, in_a_row);
            let mut invocation = self.learn.prepare_invoke();
            invocation.key(state);
            invocation.arg(version.map_or_else(String::new, |version| version.to_string()));
            invocation.arg(version.unwrap_or(0).wrapping_add(1) % (1 << 50));
            for learner in &learned.learners {
                invocation.arg(
                    learner
                        .as_ref()
                        .map_or_else(String::new, |learner| learner.store()),
                );
            }
            let rates = learned
                .learners
                .each_ref()
                .map(|learner| learner.as_ref().map(|learner| learner.rate_milli()));
            for learner in &learned.learners {
                match learner {
                    Some(learner) => {
                        let rate = learner.rate_milli();
                        invocation
                            .arg(rate)
                            .arg(self.limits.capacity(rate) >> learner.halvings());
                    }
                    None => {
                        invocation.arg("").arg("");
                    }
                }
            }
            invocation.arg(pause / 1_000);
            for quantity in Quantity::ALL {
                let place = quantity as usize;
                let rate = rates[place].or_else(|| Some(self.limits.first_rate(quantity)?.0));
                let left = left[place].map(|left| self.left_by_now(left, rate.unwrap_or(0)));
                let most = if told.empty[place] { Some(0.0) } else { left };
                invocation.arg(most.map_or_else(String::new, |most| most.to_string()));
            }
            invocation.arg(self.signature.as_str());
            let stored: u8 = self.within(invocation.invoke_async(&mut connection)).await?;
            if stored == 1 {
                *mean_tokens = mean;
                *lock(&self.rates) = rates;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What was left when a request came there; there is more by now.
    fn left_by_now(&self, (left, at): (u64, u64), rate_milli: u64) -> f64 {
        let age = self.server_now().saturating_sub(at);
        left as f64 + age as f64 * rate_milli as f64 / 60e12
    }

    pub(crate) fn status(&self) -> Status {
        if let Link::Away(Some(standin)) = &*lock(&self.link) {
            return Status::of(standin);
        }
        let rates = *lock(&self.rates);
        let per_minute = |quantity: Quantity| {
            let first = || self.limits.first_rate(quantity).map(|(rate, _)| rate);
            rates[quantity as usize]
                .or_else(first)
                .map(|milli| milli as f64 / 1_000.0)
        };
        Status {
            requests_per_minute: per_minute(Quantity::Requests),
            tokens_per_minute: per_minute(Quantity::Tokens),
            in_flight: self.in_flight.load(Ordering::SeqCst),
            waiting: self.turns.look(|_, waiting| waiting),
            shared: true,
            processes: self.processes.load(Ordering::Relaxed),
        }
    }

    #[cfg(feature = "layer")]
    pub(crate) fn wall(&self) -> std::time::SystemTime {
        self.clock.wall()
    }
}

impl Shared {
    fn ask_to_wait(&self, nanos: u64) {
        let until = self.clock.now().saturating_add(nanos);
        self.pause_until.fetch_max(until, Ordering::Relaxed);
        self.paused_until.fetch_max(until, Ordering::Relaxed);
        self.tell_now.notify_one();
    }

    /// Which limit a 429 is about, by the provider's own account.
    fn culprit(&self, signals: &Signals) -> Option<Quantity> {
        let nothing_left = |quantity: &Quantity| {
            signals
                .window(*quantity)
                .is_some_and(|window| window.remaining == Some(0))
        };
        let limited = |quantity: &Quantity| self.limits.per_minute(*quantity).is_some();
        let told = Quantity::ALL.into_iter().find(nothing_left);
        told.filter(limited)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// What goes on beside the requests: settlements, leases, what was learned, and the way back to the server.
async fn keep(shared: Weak<Shared>, client: Client) {
    let mut mean_tokens = 0.0;
    let mut back_off = RECONNECT.0;
    let mut number = 0;
    loop {
        let Some(alive) = shared.upgrade() else { return };
        let Some(connection) = alive.connection() else {
            number += 1;
            if let Ok(connection) = alive.open(&client, number).await {
                // What the server knew has gone on filling up meanwhile, while others were let through: it counts as used.
                // And a server answers this only when it has loaded what it had, and takes writes.
                let spent = alive.spent();
                *lock(&alive.unsent) = spent;
                if alive.give(&connection).await.is_ok() {
                    *lock(&alive.link) = Link::Here(connection);
                    alive.back.notify_waiters();
                    (alive.on_event)(&SharedEvent::Back);
                    back_off = RECONNECT.0;
                    continue;
                }
            }
            drop(alive);
            tokio::time::sleep(back_off).await;
            back_off = (back_off * 2).min(RECONNECT.1);
            continue;
        };
        let renew = (alive.lease / 3).min(TELL);
        let done = tokio::select! {
            () = alive.send.notified() => alive.give(&connection).await,
            () = alive.tell_now.notified() => alive.tell(&connection, &mut mean_tokens).await,
            () = tokio::time::sleep(renew) => match alive.tell(&connection, &mut mean_tokens).await {
                Ok(()) => alive.give(&connection).await,
                failed => failed,
            },
        };
        if let Err(error) = done {
            alive.go_away(connection.number, &error);
        }
    }
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
