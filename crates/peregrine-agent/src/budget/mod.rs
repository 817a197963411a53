//! Budgets: what a run may spend in tokens, money, tool calls and time, as a tree in which a child draws on its parents.
//!
//! A call is paid for twice over: [`Budget::reserve`] sets aside what it may need before it is made, and
//! [`Reservation::settle`] replaces that by what it did need. A reservation that is dropped gives everything back.
//!
//! Guarantee, for each node of the tree and each of its limits, however many callers race: what is spent never exceeds
//! the limit by more than what *one* call can exceed its own estimate by. It holds as long as calls keep within their
//! `at_most`; a call that does not is reported by its [`Settlement`], like every overshoot.
//!
//! Algorithm: a node admits a call whose `at_most` fits beside what is spent and the `at_most` of everything in flight.
//! A call that does not fit like that, or whose `at_most` nobody knows, is admitted alone: when nothing else that spends
//! the same resource is in flight there and its estimate fits. Everything else waits while something is in flight that
//! could turn out cheaper, and is refused otherwise. All nodes up to the root are asked before any is changed. A tree has
//! one lock, which is never held across an `await`.
//!
//! Those who wait are served in the order in which they came: nobody overtakes a waiter at the node and for the resource
//! that it waits for. Elsewhere in the tree, and for other resources, life goes on.
//!
//! Tool calls are exact: a call counts as one, so nobody waits for a tool call in flight to turn out cheaper. A tool that
//! runs an agent below the same budget therefore cannot wait for itself.
//!
//! This module knows no runtime and no clock. Wall time is not reserved: [`Budget::remaining_time`] says when to stop.

mod limits;
mod meter;
mod reached;
mod reservation;
mod status;
mod tree;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peregrine_core::{Cost, Monotonic};

pub use limits::{BudgetLimits, Estimate, Spent};
pub use reached::{LimitReached, Refusal, Resource};
pub use reservation::{Overshoot, Reservation, Settlement};
pub use status::{Amounts, BudgetStatus};
use tree::{NodeId, State};

/// One node of a tree of budgets. A cheap handle: clones are the same node.
///
/// # Examples
///
/// ```
/// use peregrine_agent::{Budget, BudgetLimits, Estimate, Refusal, Spent};
///
/// let team = Budget::named("team", BudgetLimits::default().with_tokens(1_000));
/// let agent = team.child(BudgetLimits::default().with_tool_calls(5));
///
/// let call = agent.try_reserve(&Estimate::tokens(300).with_tokens_at_most(600))?;
/// let settlement = call.settle(Spent::tokens(250));
/// assert!(settlement.overshoot().is_empty());
/// assert_eq!(team.status().spent.tokens, 250);
///
/// let refusal = agent.try_reserve(&Estimate::tokens(800)).unwrap_err();
/// let Refusal::Exhausted(limit) = refusal else { panic!("nothing is in flight") };
/// assert_eq!((limit.budget.as_str(), limit.limit, limit.used, limit.asked), ("team", 1_000, 250, 800));
/// # Ok::<(), Refusal>(())
/// ```
#[derive(Clone)]
pub struct Budget(Arc<Handle>);

/// What keeps a node alive: its handles share one of these.
struct Handle {
    tree: Arc<Tree>,
    node: NodeId,
}

#[derive(Default)]
struct Tree(Mutex<State>);

impl Budget {
    /// The root of a tree of its own, called `budget` in errors.
    pub fn new(limits: BudgetLimits) -> Self {
        Self::named("budget", limits)
    }

    /// The root of a tree of its own. Errors name it.
    pub fn named(name: impl Into<Arc<str>>, limits: BudgetLimits) -> Self {
        let tree = Arc::<Tree>::default();
        let node = tree.state().add(name.into(), None, limits);
        Self(Arc::new(Handle { tree, node }))
    }

    /// A part of this budget: what it spends is spent here too. Its own limits may be tighter, looser or none.
    pub fn child(&self, limits: BudgetLimits) -> Self {
        self.child_named("child", limits)
    }

    /// A part of this budget with a name for errors.
    pub fn child_named(&self, name: impl Into<Arc<str>>, limits: BudgetLimits) -> Self {
        let tree = self.0.tree.clone();
        let node = tree.state().add(name.into(), Some(self.0.node), limits);
        Self(Arc::new(Handle { tree, node }))
    }

    /// Whether it is `other`, or a part of it: then what it spends is spent there too.
    pub fn is_within(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.tree, &other.0.tree) && self.state().is_within(self.0.node, other.0.node)
    }

    /// Sets aside what a call may need, here and in all budgets above, or says why not.
    ///
    /// # Errors
    ///
    /// [`Refusal::Busy`] if it may fit once a call that is in flight has settled, or somebody else waits for that
    /// already; [`Refusal::Exhausted`] if no settling can make it fit, or if there is a limit on cost and the price of
    /// the call is not known. Nothing has changed then.
    pub fn try_reserve(&self, estimate: &Estimate) -> Result<Reservation, Refusal> {
        self.state().try_admit(self.0.node, estimate)?;
        Ok(Reservation::new(self.clone(), estimate))
    }

    /// Like [`try_reserve`](Self::try_reserve), but waits while the answer is [`Refusal::Busy`]. Waiters are served in
    /// the order in which they came.
    ///
    /// A waiter may be waiting for its own earlier reservation: settle a model's call before reserving the next one.
    ///
    /// # Errors
    ///
    /// The limit that no settling can make room below, or that cannot be kept since the price of the call is unknown.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue, and what was granted in the meantime.
    pub async fn reserve(&self, estimate: &Estimate) -> Result<Reservation, LimitReached> {
        let waiting = self.state().admit_or_enqueue(self.0.node, estimate)?;
        if let Some((ticket, notify)) = waiting {
            reservation::wait(self, ticket, &notify).await?;
        }
        Ok(Reservation::new(self.clone(), estimate))
    }

    /// Records what was spent without a reservation: by a run that is restored, or outside of any call.
    ///
    /// An unknown cost is counted as one unpriced call of no known cost.
    pub fn charge(&self, spent: Spent) -> Settlement {
        let nothing = Estimate::nothing();
        let mut state = self.state();
        state.admit(self.0.node, &nothing);
        let (settlement, wake) = state.settle(self.0.node, &nothing, spent);
        drop(state);
        wake.into_iter().for_each(|waiter| waiter.notify_one());
        settlement
    }

    /// Counts here, and not in the budgets above, what a run spent before it was taken up again.
    #[cfg(feature = "checkpoints")]
    pub(crate) fn carry(&self, spent: Spent) {
        self.state().carry(self.0.node, spent);
    }

    /// Starts the wall time of this budget, and of those above it, where it does not run yet.
    pub fn start(&self, now: Monotonic) {
        self.state().start(self.0.node, now);
    }

    /// The time until the nearest deadline of this budget and those above it (zero once it has passed), and what to
    /// report when it passes. `None` if none of them has a limit on time that has started.
    ///
    /// `now` is of the clock that [`start`](Self::start) was called with.
    pub fn remaining_time(&self, now: Monotonic) -> Option<(Duration, LimitReached)> {
        self.state().remaining_time(self.0.node, now)
    }

    /// What this node has spent and set aside, its children's part included.
    pub fn status(&self) -> BudgetStatus {
        self.state().status(self.0.node)
    }

    /// Raises the limits of this node, so that a paused run can go on. A limit that does not exist stays absent.
    pub fn top_up(&self, extra: &BudgetLimits) {
        let wake = self.state().top_up(self.0.node, extra);
        wake.into_iter().for_each(|waiter| waiter.notify_one());
    }

    /// Its name in errors.
    pub fn name(&self) -> Arc<str> {
        self.state().name(self.0.node)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.tree.state()
    }
}

impl Tree {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below panics between two changes that belong together, so a poisoned state is a whole one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.tree.state().remove_handle(self.node);
    }
}

impl Default for Budget {
    /// A budget without limits. It still counts.
    fn default() -> Self {
        Self::new(BudgetLimits::default())
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status().fmt(f)
    }
}

/// The amount of a cost, as far as it is known.
fn known(cost: Cost) -> u64 {
    cost.amount().unwrap_or_default().0
}
