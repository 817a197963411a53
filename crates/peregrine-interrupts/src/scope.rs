//! The scope: what is run under it can be stopped through it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;

use crate::bounds::{self, Bounds};
use crate::hook::{CancelOnDrop, Hook};
use crate::timer::Clockwork;
use crate::tree::{Family, Node};
use crate::{
    BudgetUse, Guard, Handle, Interrupt, Interrupted, Kind, Limits, Mode, Name, Reason, RunUntil, ScopeInfo,
    Sleep, Source, StreamUntil, Timer, Unit, WaitForInterrupt, Warnings, Watch,
};

/// A node in the tree of what can be stopped: a run, a sub-agent, a tool, a call of a model.
///
/// An interrupt of a scope is one of everything below it, never of what is above or beside it. Clones are the same
/// scope. When the last clone is dropped, the scope is over: nothing is interrupted, it leaves the tree, and whatever is
/// still running below belongs to its parent from then on. Its limits, if it has any, go on binding that.
///
/// Looking costs one atomic load; see the [crate's page](crate) for which method to use where.
///
/// # Performance
///
/// Making and dropping a scope takes one allocation and the tree's lock, twice. An interrupt takes time in proportion to
/// the scopes below and those who wait for them.
///
/// # Examples
///
/// ```
/// use peregrine_interrupts::{Kind, ManualTimer, Mode, Scope};
///
/// let run = Scope::root("run-1", ManualTimer::new());
/// let agent = run.child(Kind::Agent, "researcher");
/// let tool = agent.child(Kind::Tool, "search");
/// agent.interrupt(Mode::Graceful);
///
/// assert!(tool.is_interrupted() && !run.is_interrupted());
/// assert_eq!(tool.check().unwrap_err().reason().scope.name, "researcher");
/// ```
#[derive(Clone)]
pub struct Scope(pub(crate) Arc<ScopeNode>);

pub(crate) type ScopeNode = Node<Scopes>;

pub(crate) struct Scopes;

impl Family for Scopes {
    type Reason = Arc<Reason>;
    type Shared = Clockwork;
    type Data = ScopeData;

    fn binds(data: &ScopeData) -> bool {
        data.bounds.is_some()
    }
}

pub(crate) struct ScopeData {
    kind: Kind,
    name: Name,
    pub(crate) bounds: Option<Box<Bounds>>,
}

/// Making scopes.
impl Scope {
    /// The root of a new tree, without limits. All scopes of the tree have their time from `timer`.
    pub fn root(name: impl Into<Name>, timer: impl Timer) -> Self {
        Self::root_with(name, timer, Limits::new())
    }

    /// The root of a new tree.
    pub fn root_with(name: impl Into<Name>, timer: impl Timer, limits: Limits) -> Self {
        let clockwork = Clockwork::new(timer);
        let data = ScopeData {
            kind: Kind::Run,
            name: name.into(),
            bounds: Bounds::new(limits, Duration::ZERO),
        };
        let node = Node::root(clockwork, data);
        bounds::begin(&node);
        Self(node)
    }

    /// A scope below this one, without limits of its own. Below a scope that is interrupted, it is so from the start.
    pub fn child(&self, kind: Kind, name: impl Into<Name>) -> Self {
        let name = name.into();
        let bounds = None;
        Self(self.0.child(ScopeData { kind, name, bounds }))
    }

    /// A scope below this one, whose time begins now.
    pub fn child_with(&self, kind: Kind, name: impl Into<Name>, limits: Limits) -> Self {
        if limits.is_empty() {
            return self.child(kind, name);
        }
        let name = name.into();
        let bounds = Bounds::new(limits, self.0.shared().now());
        let node = self.0.child(ScopeData { kind, name, bounds });
        bounds::begin(&node);
        Self(node)
    }
}

/// Looking. None of these waits or takes a lock, unless there is a reason to tell.
impl Scope {
    /// Whether there is an interrupt of either mode. One atomic load.
    ///
    /// A look fires no limit: time limits fire where somebody waits, here or below ([`WaitForInterrupt`], [`Watch`]).
    #[inline]
    pub fn is_interrupted(&self) -> bool {
        self.0.has_reached(Mode::Graceful)
    }

    /// Whether there is an immediate interrupt. One atomic load.
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        self.0.has_reached(Mode::Immediate)
    }

    /// Which interrupt there is. One atomic load.
    #[inline]
    pub fn mode(&self) -> Option<Mode> {
        self.0.mode()
    }

    /// Goes on, or says why not; to stand before each step, with `?`.
    ///
    /// # Errors
    ///
    /// If there is an interrupt of either mode.
    #[inline]
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.is_interrupted() {
            return Err(self.reasons());
        }
        Ok(())
    }

    /// Why it was interrupted, if it was.
    pub fn interrupted(&self) -> Option<Interrupted> {
        self.0.reasons().map(Interrupted::of)
    }

    /// For whoever has seen that it is interrupted.
    #[cold]
    pub(crate) fn reasons(&self) -> Interrupted {
        self.interrupted()
            .expect("a flag is raised with its reason in place")
    }

    /// Which scope this is.
    pub fn info(&self) -> ScopeInfo {
        info(&self.0)
    }

    /// How long its tree has been there, on the clock of the tree: what [`Reason::after`] is measured by.
    pub fn elapsed(&self) -> Duration {
        self.0.shared().now()
    }

    /// How many scopes its tree has, those counted that only live on because their limits bind others.
    pub fn tree_len(&self) -> usize {
        self.0.alive()
    }

    /// How long the nearest time limit, its own or one from above, leaves. `None`: there is none.
    pub fn time_left(&self) -> Option<Duration> {
        bounds::time_left(&self.0)
    }
}

/// Interrupting.
impl Scope {
    /// Interrupts this scope and all below it; [`Source::User`] unless the interrupt says otherwise.
    ///
    /// Returns whether that changed anything: false if there was an interrupt of this mode, or a stronger one, before.
    /// A graceful interrupt that becomes an immediate one is an escalation, and keeps its first reason.
    ///
    /// Who waits is woken, and hooks run, before this returns.
    pub fn interrupt(&self, interrupt: impl Into<Interrupt>) -> bool {
        raise(&self.0, interrupt.into())
    }

    /// Something to interrupt this scope with, for whoever should do no more than that. It does not keep the scope.
    pub fn handle(&self) -> Handle {
        Handle::new(&self.0)
    }

    /// Interrupts immediately when dropped: so that what runs in other tasks stops when its owner's future is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use peregrine_interrupts::{Kind, ManualTimer, Scope};
    ///
    /// let run = Scope::root("run-1", ManualTimer::new());
    /// let agent = run.child(Kind::Agent, "researcher");
    /// drop(agent.cancel_on_drop());
    /// assert!(agent.is_cancelled() && !run.is_cancelled());
    ///
    /// run.cancel_on_drop().disarm();
    /// assert!(!run.is_cancelled());
    /// ```
    pub fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop::new(self.clone())
    }

    /// Runs `hook` once when there is an interrupt of this mode or a stronger one; at once if there is one already.
    /// Dropping the [`Hook`] takes it back.
    ///
    /// It runs in the thread that interrupts, before [`interrupt`](Self::interrupt) returns and after everyone who waits
    /// was woken. It must not block. For what has a handle but no future: aborting a task, killing a process.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use peregrine_interrupts::{ManualTimer, Mode, Scope};
    ///
    /// let run = Scope::root("run-1", ManualTimer::new());
    /// let (sender, receiver) = mpsc::channel();
    /// let hook = run.on(Mode::Immediate, move || drop(sender.send("stopped")));
    /// run.interrupt(Mode::Graceful);
    /// assert!(receiver.try_recv().is_err());
    /// run.interrupt(Mode::Immediate);
    /// assert_eq!(receiver.try_recv(), Ok("stopped"));
    /// # drop(hook);
    /// ```
    pub fn on(&self, mode: Mode, hook: impl FnOnce() + Send + 'static) -> Hook {
        Hook::new(&self.0, mode, Box::new(hook))
    }

    /// Adds handlers of one's own, and keeps limits for code that only looks.
    pub fn watch(&self) -> Watch {
        Watch::new(&self.0)
    }
}

/// Using up.
impl Scope {
    /// Adds to every budget of this unit that binds this scope: its own, and those above.
    ///
    /// A budget that is used to its warning's part warns, one that is used up interrupts the scope it belongs to; both
    /// before this returns. Call it when something is used, with what was used: a scope without such a budget ignores it.
    ///
    /// # Examples
    ///
    /// ```
    /// use peregrine_interrupts::{Budget, Kind, Limits, ManualTimer, Scope, Unit};
    ///
    /// let limits = Limits::new().with_budget(Budget::new(Unit::TOKENS, 10_000));
    /// let run = Scope::root_with("run-1", ManualTimer::new(), limits.clone());
    /// let agent = run.child_with(Kind::Agent, "researcher", Limits::new().with_budget(Budget::new(Unit::TOKENS, 4_000)));
    /// agent.charge(&Unit::TOKENS, 3_000);
    /// assert_eq!(agent.remaining(&Unit::TOKENS), Some(1_000));
    /// assert_eq!(run.remaining(&Unit::TOKENS), Some(7_000));
    ///
    /// agent.charge(&Unit::TOKENS, 1_500);
    /// assert!(!run.is_interrupted());
    /// assert_eq!(
    ///     agent.check().unwrap_err().to_string(),
    ///     "graceful interrupt of agent `researcher`: budget used up: 4500 of 4000 tokens"
    /// );
    /// ```
    pub fn charge(&self, unit: &Unit, amount: u64) {
        bounds::charge(&self.0, unit, amount);
    }

    /// What the scarcest budget of this unit leaves, among its own and those above. `None`: there is none.
    pub fn remaining(&self, unit: &Unit) -> Option<u64> {
        bounds::remaining(&self.0, unit)
    }

    /// Every budget that binds this scope, its own first, then upwards.
    pub fn budgets(&self) -> Vec<BudgetUse> {
        bounds::uses(&self.0)
    }
}

/// Waiting. All of these see to the limits that bind the scope, and every future is cancel safe in so far as dropping it
/// leaves nothing behind.
impl Scope {
    /// Waits for an interrupt of either mode.
    pub fn graceful(&self) -> WaitForInterrupt {
        WaitForInterrupt::new(&self.0, Mode::Graceful)
    }

    /// Waits for an immediate interrupt.
    pub fn cancelled(&self) -> WaitForInterrupt {
        WaitForInterrupt::new(&self.0, Mode::Immediate)
    }

    /// Sleeps, on the clock of the tree and whatever is interrupted meanwhile: for a grace period of one's own.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use peregrine_interrupts::{ManualTimer, Mode, Scope};
    ///
    /// # use futures_util::FutureExt as _;
    /// let timer = ManualTimer::new();
    /// let run = Scope::root("run-1", timer.clone());
    /// let mut grace = run.sleep(Duration::from_secs(2));
    /// run.interrupt(Mode::Immediate);
    /// assert!((&mut grace).now_or_never().is_none());
    /// timer.advance(Duration::from_secs(2));
    /// assert!(grace.now_or_never().is_some());
    /// ```
    pub fn sleep(&self, duration: Duration) -> Sleep {
        let node = self.0.clone();
        let until = self.elapsed().saturating_add(duration);
        Box::pin(async move {
            loop {
                let left = until.saturating_sub(node.shared().now());
                if left.is_zero() {
                    return;
                }
                node.shared().sleep(left).await;
            }
        })
    }

    /// Warnings before limits, those of this scope and those of the scopes above that bind it.
    pub fn warnings(&self) -> Warnings {
        Warnings::new(&self.0)
    }

    /// Runs `future` until an interrupt of either mode: for what is not part of a step and may end at any time, such as
    /// waiting for a person, for a permit, for the next attempt.
    ///
    /// # Errors
    ///
    /// Resolves to [`Interrupted`] if the interrupt came first; the future is dropped then. It is not even begun if the
    /// interrupt was there before. A result that is ready is never thrown away for an interrupt.
    pub fn run_until_graceful<F: Future>(&self, future: F) -> RunUntil<F> {
        RunUntil::new(self.graceful(), future)
    }

    /// Runs `future` until an immediate interrupt: for what belongs to a step, such as a call of a model. A graceful
    /// interrupt lets it finish.
    ///
    /// # Errors
    ///
    /// As [`run_until_graceful`](Self::run_until_graceful).
    ///
    /// # Examples
    ///
    /// ```
    /// use peregrine_interrupts::{Kind, ManualTimer, Mode, Scope};
    ///
    /// # futures_util::FutureExt::now_or_never(async {
    /// let run = Scope::root("run-1", ManualTimer::new());
    /// run.interrupt(Mode::Graceful);
    /// assert_eq!(run.run_until_stopped(async { 42 }).await, Ok(42));
    /// assert!(run.run_until_graceful(async { 42 }).await.is_err());
    /// # }).unwrap();
    /// ```
    pub fn run_until_stopped<F: Future>(&self, future: F) -> RunUntil<F> {
        RunUntil::new(self.cancelled(), future)
    }

    /// Runs `future`, which stops by itself when told, and gives it `grace` to do so after an immediate interrupt. Then it
    /// is abandoned and reported.
    ///
    /// # Errors
    ///
    /// See [`Guard`].
    pub fn guard<F: Future>(&self, grace: Duration, future: F) -> Guard<F> {
        Guard::new(self.cancelled(), grace, future)
    }

    /// The items of `stream`, until an interrupt of either mode ends it.
    pub fn stream_until_graceful<S: Stream>(&self, stream: S) -> StreamUntil<S> {
        StreamUntil::new(self.graceful(), stream)
    }

    /// The items of `stream`, until an immediate interrupt ends it.
    pub fn stream_until_stopped<S: Stream>(&self, stream: S) -> StreamUntil<S> {
        StreamUntil::new(self.cancelled(), stream)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("info", &self.info())
            .field("mode", &self.mode())
            .finish_non_exhaustive()
    }
}

pub(crate) fn info(node: &ScopeNode) -> ScopeInfo {
    ScopeInfo {
        id: node.id().get(),
        kind: node.data().kind,
        name: node.data().name.clone(),
    }
}

pub(crate) fn raise(node: &ScopeNode, interrupt: Interrupt) -> bool {
    let Interrupt { mode, source, detail } = interrupt;
    if node.has_reached(mode) {
        return false;
    }
    let reason = Reason {
        mode,
        source: source.unwrap_or(Source::User),
        scope: info(node),
        after: node.shared().now(),
        at: node.shared().wall(),
        detail,
    };
    node.raise(mode, &Arc::new(reason))
}

/// Graceful, or immediate if it is graceful already: what a person means who asks again.
pub(crate) fn raise_further(node: &ScopeNode, interrupt: impl Fn(Mode) -> Interrupt) -> bool {
    raise(node, interrupt(Mode::Graceful)) || raise(node, interrupt(Mode::Immediate))
}
