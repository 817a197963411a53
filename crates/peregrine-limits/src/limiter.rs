//! The limiter and its permits.

use std::fmt;
use std::sync::Arc;

use crate::admission::{Grant, Outcome};
use crate::config::Limits;
use crate::error::{Error, Quantity};
use crate::local::Local;
#[cfg(feature = "redis")]
use crate::redis::{Booking, Shared};
use crate::signals::Signals;
use crate::timer::{Clockwork, Timer};

/// Lets requests through at the rate that a provider takes. Cheap to clone; clones share the limits.
///
/// # Examples
///
/// ```
/// # #[cfg(not(feature = "tokio"))]
/// # fn main() {}
/// # #[cfg(feature = "tokio")]
/// # fn main() {
/// use peregrine_limits::{Ask, Limiter, Limits, TokioTimer};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let limits = Limits::new().with_requests_per_minute(60).with_tokens_per_minute(10_000);
/// let limiter = Limiter::new(limits, TokioTimer::new())?;
///
/// let permit = limiter.acquire(Ask::tokens(1_200).for_tenant("acme")).await?; // an estimate
/// let used = 837; // .. ask the provider, who says what it really was ..
/// permit.settle(used);
///
/// // More than a minute has is an error at once, never a wait without an end.
/// assert!(limiter.acquire(Ask::tokens(10_001)).await.is_err());
/// # Ok::<(), peregrine_limits::Error>(())
/// # }).unwrap();
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Limiter(Backend);

#[derive(Debug, Clone)]
enum Backend {
    Local(Arc<Local>),
    #[cfg(feature = "redis")]
    Shared(Arc<Shared>),
}

/// What a request asks for: one request, its tokens, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ask<'a> {
    /// Tokens of prompt and answer, estimated.
    pub tokens: u64,
    /// Whose request it is. Tenants that wait get equal shares; those who do not say are one tenant.
    pub tenant: &'a str,
}

impl Ask<'static> {
    /// One request of so many tokens.
    pub const fn tokens(tokens: u64) -> Self {
        Self { tokens, tenant: "" }
    }
}

impl Ask<'_> {
    /// Says whose request it is.
    #[must_use]
    pub const fn for_tenant(self, tenant: &str) -> Ask<'_> {
        let Self { tokens, tenant: _ } = self;
        Ask { tokens, tenant }
    }
}

impl Limiter {
    /// A limiter for this process.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] where the limits make no sense.
    pub fn new(limits: Limits, timer: impl Timer) -> Result<Self, Error> {
        let clock = Arc::new(Clockwork::new(timer));
        Ok(Self(Backend::Local(Arc::new(Local::new(
            limits.checked()?,
            clock,
        )))))
    }

    #[cfg(feature = "redis")]
    pub(crate) fn from_shared(shared: Arc<Shared>) -> Self {
        Self(Backend::Shared(shared))
    }

    /// Waits until the request may be sent.
    ///
    /// Tenants take turns by what their requests cost (deficit round robin); requests of one tenant are let through in
    /// the order in which they came.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] at once for more than a minute has; the same later, if the provider announces a lower limit
    /// meanwhile. [`Error::QueueFull`] if as many wait as may.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue, and gives back what it was granted but never handed out.
    ///
    /// # Performance
    ///
    /// O(1). No lock is held while waiting and nothing is spawned.
    pub async fn acquire(&self, ask: Ask<'_>) -> Result<Permit, Error> {
        let Ask { tokens, tenant } = ask;
        match &self.0 {
            Backend::Local(local) => {
                let grant = local.acquire(tenant, tokens).await?;
                Ok(Permit(Some(Held::Local(local.clone(), grant))))
            }
            #[cfg(feature = "redis")]
            Backend::Shared(shared) => Box::pin(shared.acquire(tenant, tokens)).await,
        }
    }

    /// How it stands now.
    pub fn status(&self) -> Status {
        match &self.0 {
            Backend::Local(local) => Status::of(local),
            #[cfg(feature = "redis")]
            Backend::Shared(shared) => shared.status(),
        }
    }

    /// Whether both share their limits.
    #[cfg(feature = "layer")]
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Backend::Local(one), Backend::Local(two)) => Arc::ptr_eq(one, two),
            #[cfg(feature = "redis")]
            (Backend::Shared(one), Backend::Shared(two)) => Arc::ptr_eq(one, two),
            #[cfg(feature = "redis")]
            _ => false,
        }
    }

    /// The wall clock of its timer.
    #[cfg(feature = "layer")]
    pub(crate) fn wall(&self) -> std::time::SystemTime {
        match &self.0 {
            Backend::Local(local) => local.wall(),
            #[cfg(feature = "redis")]
            Backend::Shared(shared) => shared.wall(),
        }
    }
}

/// How a limiter stands.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// Requests a minute at the most, as configured or learned, margin included.
    pub requests_per_minute: Option<f64>,
    /// Tokens a minute at the most.
    pub tokens_per_minute: Option<f64>,
    /// Requests of this process that are let through and not settled.
    pub in_flight: u32,
    /// Requests of this process that wait.
    pub waiting: usize,
    /// Whether the limits are shared with other processes right now. `false` for a limiter of one process, and where
    /// the server that holds them is away.
    pub shared: bool,
    /// The processes that share the limits, as far as is known; 1 without sharing.
    pub processes: u64,
}

impl Status {
    pub(crate) fn of(local: &Local) -> Self {
        let per_minute = |milli: Option<u64>| milli.map(|milli| milli as f64 / 1_000.0);
        local.look(|rules, waiting| Self {
            requests_per_minute: per_minute(rules.rate_milli(Quantity::Requests)),
            tokens_per_minute: per_minute(rules.rate_milli(Quantity::Tokens)),
            in_flight: rules.in_flight(),
            waiting,
            shared: false,
            processes: 1,
        })
    }
}

/// The right to send one request.
///
/// Exactly one of [`settle`](Self::settle), [`rejected`](Self::rejected), [`declined`](Self::declined) and
/// [`refund`](Self::refund) ends it. Dropping it, because the call was cancelled or failed somewhere on its way, counts what was reserved as used: the provider may
/// have counted it too. In each case its place among the requests at the same time is free again.
#[must_use = "dropping a permit counts its estimate as used"]
pub struct Permit(Option<Held>);

pub(crate) enum Held {
    Local(Arc<Local>, Grant),
    #[cfg(feature = "redis")]
    Shared(Booking),
}

impl Permit {
    #[cfg(feature = "redis")]
    pub(crate) fn new(held: Held) -> Self {
        Self(Some(held))
    }

    /// The tokens that were reserved.
    pub fn tokens(&self) -> u64 {
        match &self.0 {
            Some(Held::Local(_, grant)) => grant.tokens,
            #[cfg(feature = "redis")]
            Some(Held::Shared(booking)) => booking.tokens(),
            None => 0,
        }
    }

    /// The provider answered, and `tokens` were used. What was reserved beyond that is given back; what was used beyond
    /// what was reserved is owed, up to what ten minutes have: providers forget, and some report nonsense.
    pub fn settle(self, tokens: u64) {
        self.settle_with(tokens, &Signals::default());
    }

    /// [`settle`](Self::settle), and what the answer's headers say.
    pub fn settle_with(self, tokens: u64, signals: &Signals) {
        self.end(Outcome::Used(tokens), signals);
    }

    /// The provider refused with 429. The tokens are given back, the request is not. Everybody waits as long as the
    /// provider asks for, and the limit is lower from now on if it is [learned](crate::Learning).
    pub fn rejected(self, signals: &Signals) {
        self.end(Outcome::Rejected, signals);
    }

    /// The provider refused the request for a reason that has nothing to do with limits, before any work: it is malformed,
    /// the key is wrong, the service is overloaded. The tokens are given back, the request is not.
    pub fn declined(self, signals: &Signals) {
        self.end(Outcome::Declined, signals);
    }

    /// The request never reached the provider: everything is given back.
    pub fn refund(self) {
        self.end(Outcome::NotSent, &Signals::default());
    }

    /// The call ended in a way that does not tell what was used, but with headers.
    pub fn abandon_with(self, signals: &Signals) {
        self.end(Outcome::Unknown, signals);
    }

    /// Headers have come while the answer is still under way.
    pub fn hear(&self, signals: &Signals) {
        match &self.0 {
            Some(Held::Local(local, grant)) => local.hear(grant.at, signals),
            #[cfg(feature = "redis")]
            Some(Held::Shared(booking)) => booking.hear(signals),
            None => {}
        }
    }

    fn end(mut self, outcome: Outcome, signals: &Signals) {
        self.finish(outcome, signals);
    }

    fn finish(&mut self, outcome: Outcome, signals: &Signals) {
        match self.0.take() {
            Some(Held::Local(local, grant)) => local.finish(grant, outcome, signals),
            #[cfg(feature = "redis")]
            Some(Held::Shared(booking)) => booking.finish(outcome, signals),
            None => {}
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.finish(Outcome::Unknown, &Signals::default());
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("tokens", &self.tokens()).finish()
    }
}
