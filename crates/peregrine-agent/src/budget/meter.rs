//! One resource of one node: its limit, what is spent, what is in flight, and who waits.
//!
//! Sums over calls in flight are kept in 128 bits, where no number of 64-bit amounts that fits into memory can overflow,
//! so that taking an amount away again is exact.

use std::collections::BTreeSet;

use super::Estimate;

/// What a call asks of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) estimate: u64,
    /// Invariant: not below `estimate`.
    at_most: Option<u64>,
}

/// What a call asks of each resource. A cost of `None` has no known price.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks {
    pub(super) tokens: Ask,
    pub(super) cost: Option<Ask>,
    pub(super) tool_calls: Ask,
}

/// Whether a resource has room for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Fits,
    /// Maybe later.
    Busy,
    /// Never, unless the limit is raised.
    Exhausted,
}

#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) limit: Option<u64>,
    pub(super) used: u64,
    /// Sums over the calls in flight that ask for something.
    estimated: u128,
    at_most: u128,
    in_flight: u64,
    /// How many of them have no known most.
    unbounded: u64,
    /// The tickets of those who wait here, in the order of their coming.
    pub(super) queue: BTreeSet<u64>,
}

impl Ask {
    fn new(estimate: u64, at_most: Option<u64>) -> Self {
        // What may spend something asks for something, or it would be let in on a limit of 0.
        let estimate = match at_most {
            Some(0) => estimate,
            _ => estimate.max(1),
        };
        Self {
            estimate,
            at_most: at_most.map(|most| most.max(estimate)),
        }
    }

    pub(super) fn is_nothing(self) -> bool {
        self.at_most == Some(0)
    }

    /// What is charged where nobody can say what was spent.
    pub(super) fn worst(self) -> u64 {
        self.at_most.unwrap_or(self.estimate)
    }
}

impl From<&Estimate> for Asks {
    fn from(estimate: &Estimate) -> Self {
        let Estimate {
            tokens,
            tokens_at_most,
            cost,
            cost_at_most,
            tool_calls,
        } = *estimate;
        Self {
            tokens: Ask::new(tokens, tokens_at_most),
            cost: cost
                .amount()
                .map(|cost| Ask::new(cost.0, cost_at_most.map(|most| most.0))),
            tool_calls: Ask::new(tool_calls, Some(tool_calls)),
        }
    }
}

impl Meter {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Whether there is room for something that may turn out cheaper than it asks for. `ticket` is the caller's place
    /// among those who wait; a newcomer has none and is behind all of them.
    pub(super) fn room(&self, ask: Ask, ticket: Option<u64>) -> Room {
        let Some(limit) = self.limit else {
            return Room::Fits;
        };
        if ask.is_nothing() {
            return Room::Fits;
        }
        // What is used never falls, so no settling helps here.
        if u128::from(self.used) + u128::from(ask.estimate) > u128::from(limit) {
            return Room::Exhausted;
        }
        let behind = self
            .queue
            .first()
            .is_some_and(|first| ticket.is_none_or(|own| *first < own));
        let beside = self.unbounded == 0
            && ask.at_most.is_some_and(|most| {
                u128::from(self.used) + self.at_most + u128::from(most) <= u128::from(limit)
            });
        // Admitted alone, it fits by its estimate: see above.
        if !behind && (beside || self.in_flight == 0) {
            Room::Fits
        } else {
            Room::Busy
        }
    }

    /// Whether there is room for an exact amount. What is in flight will not turn out cheaper, so nobody waits for it.
    pub(super) fn exact_room(&self, ask: Ask) -> Room {
        let wanted = u128::from(self.used) + self.at_most + u128::from(ask.estimate);
        match self.limit {
            Some(limit) if !ask.is_nothing() && wanted > u128::from(limit) => Room::Exhausted,
            _ => Room::Fits,
        }
    }

    pub(super) fn hold(&mut self, ask: Ask) {
        if ask.is_nothing() {
            return;
        }
        self.in_flight += 1;
        self.estimated += u128::from(ask.estimate);
        match ask.at_most {
            Some(most) => self.at_most += u128::from(most),
            None => self.unbounded += 1,
        }
    }

    /// Undoes a `hold` of the same ask.
    pub(super) fn release(&mut self, ask: Ask) {
        if ask.is_nothing() {
            return;
        }
        self.in_flight -= 1;
        self.estimated -= u128::from(ask.estimate);
        match ask.at_most {
            Some(most) => self.at_most -= u128::from(most),
            None => self.unbounded -= 1,
        }
    }

    pub(super) fn spend(&mut self, amount: u64) {
        self.used = self.used.saturating_add(amount);
    }

    pub(super) fn raise(&mut self, extra: Option<u64>) {
        if let (Some(limit), Some(extra)) = (&mut self.limit, extra) {
            *limit = limit.saturating_add(extra);
        }
    }

    pub(super) fn reserved(&self) -> u64 {
        u64::try_from(self.estimated).unwrap_or(u64::MAX)
    }

    /// What is spent, and the exact amounts in flight.
    pub(super) fn committed(&self) -> u64 {
        self.used.saturating_add(self.reserved())
    }

    pub(super) fn overshoot(&self) -> u64 {
        self.limit.map_or(0, |limit| self.used.saturating_sub(limit))
    }
}
