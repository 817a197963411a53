//! What was set aside for one call, how it is settled, and how a caller waits for one.

use std::fmt;

use peregrine_core::NanoUsd;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{Budget, Estimate, LimitReached, Resource, Spent};

/// What was set aside for one call. Dropping it gives it back.
#[must_use = "dropping a reservation gives back what it holds"]
pub struct Reservation {
    budget: Budget,
    estimate: Estimate,
    settled: bool,
}

/// What came of a call, for its budgets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[must_use = "it says whether a limit was exceeded"]
pub struct Settlement {
    pub(super) overshoot: Vec<Overshoot>,
    pub(super) charged_unpriced: Option<NanoUsd>,
}

/// A limit that a call went over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Overshoot {
    /// Which limit. It says the unit.
    pub resource: Resource,
    /// The limit.
    pub limit: u64,
    /// What is spent now.
    pub used: u64,
    /// The name of the budget.
    pub budget: String,
}

impl Reservation {
    /// Of what the tree holds for `estimate` already.
    pub(super) fn new(budget: Budget, estimate: &Estimate) -> Self {
        Self {
            budget,
            estimate: *estimate,
            settled: false,
        }
    }

    /// What it was made for.
    pub fn estimate(&self) -> &Estimate {
        &self.estimate
    }

    /// The budget it was made at.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Replaces what was set aside by what was spent, here and in all budgets above.
    ///
    /// A call that was cancelled half way has spent something too: settle it with what is known, or with what was
    /// estimated. An unknown cost is charged as the most that the call could cost, or as its estimate, where its price
    /// was known beforehand (below a limit on cost it always was).
    pub fn settle(mut self, spent: Spent) -> Settlement {
        self.settled = true;
        let (settlement, wake) = self
            .budget
            .state()
            .settle(self.budget.0.node, &self.estimate, spent);
        wake.into_iter().for_each(|waiter| waiter.notify_one());
        settlement
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.settled {
            let wake = self.budget.state().release(self.budget.0.node, &self.estimate);
            wake.into_iter().for_each(|waiter| waiter.notify_one());
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("budget", &self.budget.name())
            .field("estimate", &self.estimate)
            .finish_non_exhaustive()
    }
}

impl Settlement {
    /// The limits that this call went over, from its own budget up to the root. A limit that was exceeded before is
    /// listed again for each call that adds to it.
    pub fn overshoot(&self) -> &[Overshoot] {
        &self.overshoot
    }

    /// What was charged because the cost of the call was not known. Zero if its price was not known either.
    pub fn charged_unpriced(&self) -> Option<NanoUsd> {
        self.charged_unpriced
    }
}

impl Overshoot {
    /// How far beyond the limit.
    pub const fn by(&self) -> u64 {
        self.used.saturating_sub(self.limit)
    }
}

/// Waits until the queue says yes or no. The caller holds the reservation if it says yes.
pub(super) async fn wait(budget: &Budget, ticket: u64, notify: &Notify) -> Result<(), LimitReached> {
    /// Leaves the queue when dropped.
    struct Place<'a>(&'a Budget, u64);
    impl Drop for Place<'_> {
        fn drop(&mut self) {
            let wake = self.0.state().leave(self.1);
            wake.into_iter().for_each(|waiter| waiter.notify_one());
        }
    }

    // Once there is an answer the ticket is gone, and leaving does nothing.
    let _place = Place(budget, ticket);
    loop {
        // A permit of `Notify` is stored, so an answer that comes before this is not missed.
        notify.notified().await;
        let answer = budget.state().answer(ticket);
        if let Some(answer) = answer {
            return answer;
        }
    }
}
