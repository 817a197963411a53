//! What a node has spent, as a snapshot.

use std::sync::Arc;

use peregrine_core::{Cost, NanoUsd};
use serde::Serialize;

use super::BudgetLimits;

/// Amounts of everything that is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amounts {
    /// Prompt and output tokens together.
    pub tokens: u64,
    /// Money, as far as it is known.
    pub cost: NanoUsd,
    /// Calls of tools.
    pub tool_calls: u64,
}

/// One node of a tree of budgets at one moment. What its children spend and reserve is part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BudgetStatus {
    /// The node's name.
    pub name: Arc<str>,
    /// Its limits, with what was added to them.
    pub limits: BudgetLimits,
    /// What settled calls spent.
    pub spent: Amounts,
    /// What calls in flight are estimated to spend.
    pub reserved: Amounts,
    /// How far `spent` is beyond the limits.
    pub overshoot: Amounts,
    /// How many reservations are neither settled nor dropped.
    pub in_flight: u64,
    /// Settled calls whose cost was not known. `spent` holds what was reserved for them, if their price was.
    pub unpriced_calls: u64,
}

impl BudgetStatus {
    /// What was spent in money: unknown as soon as one call's cost is.
    pub const fn cost(&self) -> Cost {
        match self.unpriced_calls {
            0 => Cost::Priced(self.spent.cost),
            _ => Cost::Unpriced,
        }
    }
}
