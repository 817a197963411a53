//! Giving something time to stop by itself, and going on without it.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::{Error, Interrupted, ScopeInfo, Sleep, WaitForInterrupt};

/// What did not stop when it was told to.
///
/// Whatever it does goes unseen from here on; it may have had an effect, or have one yet.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Abandoned {
    /// The scope it ran under, with its name.
    pub scope: ScopeInfo,
    /// How long it was waited for after the immediate interrupt.
    pub waited: Duration,
    /// Why it should have stopped.
    pub interrupted: Interrupted,
}

/// ``tool `search` did not stop within 2s and was abandoned, after: ..``
impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scope,
            waited,
            interrupted,
        } = self;
        write!(
            f,
            "{scope} did not stop within {waited:?} and was abandoned, after: {interrupted}"
        )
    }
}

impl StdError for Abandoned {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.interrupted)
    }
}

pin_project! {
    /// A future that stops by itself, or is abandoned: what [`Scope::guard`](crate::Scope::guard) returns.
    ///
    /// For tools that want to tidy up: the future knows its scope, sees the interrupt and ends. After an immediate
    /// interrupt it has the grace period to do so, and what it comes to in this time is handed out. If the time is over
    /// the future is dropped; what it had handed to a thread or a task runs on, and nobody waits for it.
    ///
    /// A future that never returns from `poll` keeps its whole task: give such work a thread, and guard its answer.
    ///
    /// # Errors
    ///
    /// - [`Error::Interrupted`]: there was an immediate interrupt before it began, and it was not; or the grace period
    ///   is zero, and it was dropped at once.
    /// - [`Error::Abandoned`]: the grace period is over.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the future at once, without grace.
    ///
    /// # Panics
    ///
    /// If it is polled after it has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(not(feature = "tokio"))]
    /// # fn main() {}
    /// # #[cfg(feature = "tokio")]
    /// # fn main() {
    /// use std::time::Duration;
    /// use peregrine_interrupts::{Error, Kind, Mode, Scope, TokioTimer};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
    /// let run = Scope::root("run-1", TokioTimer::new());
    /// let (tidy, stuck) = (run.child(Kind::Tool, "tidy"), run.child(Kind::Tool, "stuck"));
    /// let grace = Duration::from_secs(2);
    /// let tidies = tidy.guard(grace, async { tidy.cancelled().await.reason().scope.name.clone() });
    /// let hangs = stuck.guard(grace, std::future::pending::<()>());
    /// let stops = async { run.interrupt(Mode::Immediate) };
    ///
    /// let (tidied, hung, _) = tokio::join!(tidies, hangs, stops);
    /// assert_eq!(tidied.unwrap(), "run-1");
    /// let Err(Error::Abandoned(report)) = hung else { panic!("it cannot end") };
    /// assert_eq!((report.scope.name.as_str(), report.waited), ("stuck", grace));
    /// # });
    /// # }
    /// ```
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct Guard<F> {
        #[pin]
        future: Option<F>,
        begun: bool,
        grace: Duration,
        wait: WaitForInterrupt,
        stopping: Option<Stopping>,
    }
}

struct Stopping {
    /// When the wait for the end began, as the scope's clock tells.
    since: Duration,
    sleep: Sleep,
}

impl<F> Guard<F> {
    pub(crate) fn new(wait: WaitForInterrupt, grace: Duration, future: F) -> Self {
        Self {
            future: Some(future),
            begun: false,
            grace,
            wait,
            stopping: None,
        }
    }
}

impl<F: Future> Future for Guard<F> {
    type Output = Result<F::Output, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if !*this.begun && this.wait.is_over() {
            this.future.set(None);
            return Poll::Ready(Err(this.wait.reasons().into()));
        }
        *this.begun = true;
        let future = this.future.as_mut().as_pin_mut();
        let future = future.expect("a future is not polled after it has ended");
        if let Poll::Ready(output) = future.poll(cx) {
            this.future.set(None);
            return Poll::Ready(Ok(output));
        }
        let clockwork = this.wait.node().clone();
        let clockwork = clockwork.shared();
        if this.stopping.is_none() {
            if this.wait.poll_over(cx).is_pending() {
                return Poll::Pending;
            }
            if this.grace.is_zero() {
                this.future.set(None);
                return Poll::Ready(Err(this.wait.reasons().into()));
            }
            *this.stopping = Some(Stopping {
                since: clockwork.now(),
                sleep: clockwork.sleep(*this.grace),
            });
        }
        let Some(stopping) = this.stopping else {
            return Poll::Pending;
        };
        while stopping.sleep.as_mut().poll(cx).is_ready() {
            let waited = clockwork.now().saturating_sub(stopping.since);
            if waited >= *this.grace {
                this.future.set(None);
                let abandoned = Abandoned {
                    scope: this.wait.scope().info(),
                    waited,
                    interrupted: this.wait.reasons(),
                };
                return Poll::Ready(Err(abandoned.into()));
            }
            stopping.sleep = clockwork.sleep(*this.grace - waited);
        }
        Poll::Pending
    }
}

impl<F> fmt::Debug for Guard<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("grace", &self.grace)
            .field("scope", &self.wait.scope())
            .field("stopping", &self.stopping.is_some())
            .finish_non_exhaustive()
    }
}
