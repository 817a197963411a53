//! Sources of one's own, and what keeps a scope's limits while nobody waits for it.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use crate::alarm::Alarm;
use crate::scope::{ScopeNode, info, raise};
use crate::tree::{Place, Wait};
use crate::{Interrupt, Mode, Name, Source};

/// How often one handler can fire in one poll, before it lets others have their turn.
const ROUNDS: usize = 4;

/// Something that may interrupt a scope: a disk that fills up, a peer that goes away, a file that appears.
///
/// [`handler`] makes one of a future, which is enough for whatever happens once.
pub trait Handler: Send {
    /// What to call it in [`Source::Handler`].
    fn name(&self) -> Name;

    /// Whether it has anything to say while the scope is interrupted like this. If not it is not polled; it is asked
    /// again whenever its [`Watch`] is. By default: until there is an immediate interrupt.
    fn can_fire(&self, now: Option<Mode>) -> bool {
        now != Some(Mode::Immediate)
    }

    /// Ready to interrupt, or the waker is left where it will be woken. Must not block.
    ///
    /// After it has fired it is polled again, as long as it can fire.
    fn poll_fire(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt>;
}

/// A [`Handler`] that fires once, when `future` ends, with what it ends with.
///
/// # Examples
///
/// ```
/// use peregrine_interrupts::{Interrupt, ManualTimer, Mode, Scope, handler};
///
/// # futures_util::FutureExt::now_or_never(async {
/// # async fn free_bytes() -> u64 { 7 }
/// let run = Scope::root("run-1", ManualTimer::new());
/// let disk = handler("disk", async {
///     let free = free_bytes().await;
///     Interrupt::new(Mode::Graceful).with_detail(format!("{free} bytes left"))
/// });
/// let work = async { run.check().unwrap_err().to_string() };
/// assert_eq!(
///     run.watch().with(disk).run(work).await,
///     "graceful interrupt of run `run-1`: handler `disk` fired: 7 bytes left"
/// );
/// # }).unwrap();
/// ```
pub fn handler(
    name: impl Into<Name>,
    future: impl Future<Output = Interrupt> + Send + 'static,
) -> impl Handler + 'static {
    Once {
        name: name.into(),
        future: Some(Box::pin(future)),
    }
}

struct Once {
    name: Name,
    /// `None`: it fired.
    future: Option<Pin<Box<dyn Future<Output = Interrupt> + Send>>>,
}

impl Handler for Once {
    fn name(&self) -> Name {
        self.name.clone()
    }

    fn can_fire(&self, now: Option<Mode>) -> bool {
        self.future.is_some() && now != Some(Mode::Immediate)
    }

    fn poll_fire(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        let Some(future) = &mut self.future else {
            return Poll::Pending;
        };
        let fired = future.as_mut().poll(cx);
        if fired.is_ready() {
            self.future = None;
        }
        fired
    }
}

/// Polls handlers side by side and has the scope interrupted when one fires; keeps the limits that bind the scope, as every
/// wait does. What [`Scope::watch`](crate::Scope::watch) returns.
///
/// Either around the work, in the same task: [`run`](Self::run); or by itself, in a task of its own: it is a future, which
/// ends with an immediate interrupt or when the scope is gone, and does not keep the scope. A task of its own is what
/// code needs that only looks and never waits, or else nobody sees that its time is up:
///
/// ```
/// # #[cfg(not(feature = "tokio"))]
/// # fn main() {}
/// # #[cfg(feature = "tokio")]
/// # fn main() {
/// use std::time::Duration;
/// use peregrine_interrupts::{Limits, Scope, TokioTimer};
///
/// # tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap().block_on(async {
/// let limits = Limits::new().with_time(Duration::from_millis(20));
/// let run = Scope::root_with("run-1", TokioTimer::new(), limits);
/// let watching = tokio::spawn(run.watch());
/// let mut rounds = 0_u64;
/// while run.check().is_ok() {
///     rounds += 1; // no await in here
/// }
/// # assert!(rounds > 0);
/// drop(run);
/// watching.await.unwrap();
/// # });
/// # }
/// ```
#[must_use = "nothing is watched until this is polled"]
pub struct Watch {
    scope: Weak<ScopeNode>,
    handlers: Vec<Box<dyn Handler>>,
    alarm: Alarm,
    place: Option<Place>,
}

impl Watch {
    pub(crate) fn new(node: &Arc<ScopeNode>) -> Self {
        Self {
            scope: Arc::downgrade(node),
            handlers: Vec::new(),
            alarm: Alarm::default(),
            place: None,
        }
    }

    /// Adds a handler.
    pub fn with(mut self, handler: impl Handler + 'static) -> Self {
        self.handlers.push(Box::new(handler));
        self
    }

    /// Runs `future` to its end and watches meanwhile. An interrupt does not end the future; it is for the future to see
    /// it, or for a [`run_until_stopped`](crate::Scope::run_until_stopped) inside or around.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the future and the handlers.
    pub async fn run<F: Future>(self, future: F) -> F::Output {
        let mut watch = Some(self);
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            // First, so that the future sees an interrupt that is there.
            if watch.as_mut().is_some_and(|watch| watch.poll_all(cx).is_ready()) {
                watch = None;
            }
            future.as_mut().poll(cx)
        })
        .await
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(node) = self.scope.upgrade() else {
            return Poll::Ready(());
        };
        // First the list, then the rest: what changes in between wakes us. A graceful interrupt matters as well, because
        // it decides who can fire, and begins the grace period.
        if Wait::listen(&node, Mode::Immediate, Mode::Graceful, &mut self.place, cx).is_ready() {
            return Poll::Ready(());
        }
        for handler in &mut self.handlers {
            for round in 1.. {
                if !handler.can_fire(node.mode()) {
                    break;
                }
                let Poll::Ready(interrupt) = handler.poll_fire(cx) else {
                    break;
                };
                let source = interrupt.source.clone();
                let source = source.unwrap_or_else(|| Source::Handler { name: handler.name() });
                raise(&node, interrupt.with_source(source));
                if round == ROUNDS {
                    cx.waker().wake_by_ref();
                    break;
                }
            }
        }
        self.alarm.poll(&node, cx);
        if node.has_reached(Mode::Immediate) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Future for Watch {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.get_mut().poll_all(cx)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(place) = self.place.take()
            && let Some(node) = self.scope.upgrade()
        {
            node.forget(place);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<Name> = self.handlers.iter().map(|handler| handler.name()).collect();
        f.debug_struct("Watch")
            .field("scope", &self.scope.upgrade().map(|node| info(&node)))
            .field("handlers", &names)
            .finish_non_exhaustive()
    }
}
