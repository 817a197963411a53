//! How a limit is shared, and what its users are told.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use redis::{Client, Script};
use tokio::sync::Notify;

use super::{Link, Shared, keep, scripts};
use crate::admission::Admission;
use crate::config::Limits;
use crate::error::Error;
use crate::limiter::Limiter;
use crate::local::Local;
use crate::sync::lock;
use crate::timer::{Clockwork, Timer};

/// How a limit is shared between processes through Redis.
///
/// # Examples
///
/// ```no_run
/// # async fn run() -> Result<(), peregrine_limits::Error> {
/// use peregrine_limits::{Ask, Limits, SharedConfig, TokioTimer};
///
/// let limits = Limits::new().with_requests_per_minute(500).with_concurrency(64);
/// let limiter = SharedConfig::new("redis://127.0.0.1:6379", "openai/gpt-4o", limits)
///     .on_event(|event| { /* log it */ })
///     .connect(TokioTimer::new())
///     .await?;
/// let permit = limiter.acquire(Ask::tokens(1_200)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SharedConfig {
    url: String,
    name: String,
    limits: Limits,
    lease: Duration,
    timeout: Duration,
    on_event: Arc<dyn Fn(&SharedEvent) + Send + Sync>,
}

/// What happens to a shared limiter. Told once for each change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SharedEvent {
    /// The server does not answer: this process goes on with its part of the limits.
    Away {
        /// By how many the limits are divided.
        processes: u64,
        /// Why, as the client says.
        reason: String,
    },
    /// The server answers again.
    Back,
}

impl SharedConfig {
    /// Shares `limits` with all who use the same `name` at this server. The URL looks like `redis://host:6379/0`. All of them
    /// should have the same limits; while they differ, as in a deployment, each keeps within its own by what all have used,
    /// and nothing is learned.
    pub fn new(url: impl Into<String>, name: impl Into<String>, limits: Limits) -> Self {
        Self {
            url: url.into(),
            name: name.into(),
            limits,
            lease: Duration::from_secs(30),
            timeout: Duration::from_millis(500),
            on_event: Arc::new(|_| {}),
        }
    }

    /// Sets after how long a process that is not heard of counts as gone. 30 s, and at least a second.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_secs(1));
        self
    }

    /// Sets after how long without an answer the server counts as away. 500 ms.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Calls `listener` when the server goes away and when it is back. It must not block.
    #[must_use]
    pub fn on_event(mut self, listener: impl Fn(&SharedEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Arc::new(listener);
        self
    }

    /// A limiter on this server. If it does not answer now, the limiter begins with all of the limits, and looks for it.
    ///
    /// Must be called in a tokio runtime, which has one task for the limiter until its last clone and permit are gone.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the URL is none, or the limits make no sense.
    pub async fn connect(self, timer: impl Timer) -> Result<Limiter, Error> {
        let Self {
            url,
            name,
            limits,
            lease,
            timeout,
            on_event,
        } = self;
        let limits = limits.checked()?;
        // The URL may hold a password: it is not in the message.
        let client = Client::open(url).map_err(|error| Error::Config {
            message: format!("the URL of the Redis server: {error}"),
        })?;
        let clock = Arc::new(Clockwork::new(timer));
        let turns = Limits {
            concurrency: Some(1),
            requests_per_minute: None,
            tokens_per_minute: None,
            learning: None,
            ..limits.clone()
        };
        let turns = Admission::new(turns, clock.now());
        let random = || RandomState::new().hash_one(SystemTime::now());
        let shared = Arc::new(Shared {
            turns: Arc::new(Local::with_rules(turns, limits.clone(), clock.clone())),
            keys: ["state", "alive", "counts"].map(|key| format!("peregrine:limits:{{{name}}}:{key}")),
            process: format!("{}-{:016x}{:016x}", std::process::id(), random(), random()),
            signature: signature(&limits),
            lease,
            timeout,
            on_event,
            clock,
            limits,
            in_flight: AtomicU32::new(0),
            processes: AtomicU64::new(1),
            seen: AtomicBool::new(false),
            offset: AtomicU64::new(0),
            link: Mutex::new(Link::Away(None)),
            rates: Mutex::default(),
            notes: Mutex::default(),
            pause_until: AtomicU64::new(0),
            paused_until: AtomicU64::new(0),
            told_left: Mutex::default(),
            messages: Mutex::default(),
            unsent: Mutex::default(),
            send: Notify::new(),
            back: Notify::new(),
            last_standin: Mutex::default(),
            freed: Notify::new(),
            tell_now: Notify::new(),
            book: Script::new(&scripts::book()),
            give: Script::new(&scripts::give()),
            learn: Script::new(scripts::LEARN),
        });
        match shared.open(&client, 0).await {
            Ok(connection) => *lock(&shared.link) = Link::Here(connection),
            Err(error) => shared.go_away(0, &error),
        }
        tokio::spawn(keep(Arc::downgrade(&shared), client));
        Ok(Limiter::from_shared(shared))
    }
}

impl fmt::Debug for SharedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedConfig")
            .field("name", &self.name)
            .field("limits", &self.limits)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

/// Where it changes, what was learned is forgotten.
fn signature(limits: &Limits) -> String {
    format!(
        "{:?} {:?} {} {} {:?}",
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.margin,
        limits.burst_ns(),
        limits.learning
    )
}
