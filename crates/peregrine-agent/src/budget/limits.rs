//! What may be spent, what a call is expected to spend, and what it did.

use std::time::Duration;

use peregrine_core::{Cost, NanoUsd};
use serde::{Deserialize, Serialize};

/// What may be spent. A limit may be used up exactly; 0 means that nothing may be spent; `None` is no limit.
///
/// # Examples
///
/// ```
/// use peregrine_agent::BudgetLimits;
/// use peregrine_core::NanoUsd;
///
/// let limits = BudgetLimits::default().with_cost(NanoUsd::from_cents(50)).with_tool_calls(20);
/// assert_eq!(limits.tokens, None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BudgetLimits {
    /// Prompt and output tokens together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Money. Calls whose price is not known are refused under such a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<NanoUsd>,
    /// Calls of tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<u64>,
    /// Time from [`Budget::start`](crate::Budget::start) on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_time: Option<Duration>,
}

impl BudgetLimits {
    /// Limits prompt and output tokens together.
    #[must_use]
    pub const fn with_tokens(mut self, tokens: u64) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Limits money.
    #[must_use]
    pub const fn with_cost(mut self, cost: NanoUsd) -> Self {
        self.cost = Some(cost);
        self
    }

    /// Limits calls of tools.
    #[must_use]
    pub const fn with_tool_calls(mut self, tool_calls: u64) -> Self {
        self.tool_calls = Some(tool_calls);
        self
    }

    /// Limits time.
    #[must_use]
    pub const fn with_wall_time(mut self, wall_time: Duration) -> Self {
        self.wall_time = Some(wall_time);
        self
    }
}

/// What a call is expected to spend, and what it can spend at most.
///
/// An `at_most` below its estimate is taken for the estimate. A call that can spend something is estimated at 1 at
/// least, so that it never starts on a limit that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// The tokens, prompt and output together.
    pub tokens: u64,
    /// The tokens it cannot exceed (the bound of its prompt and the most it may write); `None` if nobody knows, and the
    /// call then runs alone below a limit on tokens.
    pub tokens_at_most: Option<u64>,
    /// The cost; [`Cost::Unpriced`] is refused below a limit on cost.
    pub cost: Cost,
    /// The cost it cannot exceed; `None` if nobody knows.
    pub cost_at_most: Option<NanoUsd>,
    /// The calls of tools. Exact.
    pub tool_calls: u64,
}

impl Estimate {
    /// A call that spends nothing.
    pub const fn nothing() -> Self {
        Self {
            tokens: 0,
            tokens_at_most: Some(0),
            cost: Cost::Priced(NanoUsd::ZERO),
            cost_at_most: Some(NanoUsd::ZERO),
            tool_calls: 0,
        }
    }

    /// A model's call of about so many tokens, the most it can use unknown, free of charge.
    pub const fn tokens(tokens: u64) -> Self {
        Self {
            tokens,
            tokens_at_most: None,
            ..Self::nothing()
        }
    }

    /// So many calls of tools.
    pub const fn tool_calls(tool_calls: u64) -> Self {
        Self {
            tool_calls,
            ..Self::nothing()
        }
    }

    /// States the tokens that it cannot exceed.
    #[must_use]
    pub const fn with_tokens_at_most(mut self, tokens: u64) -> Self {
        self.tokens_at_most = Some(tokens);
        self
    }

    /// States the cost. The most it can cost is unknown then, until it is stated too.
    #[must_use]
    pub const fn with_cost(mut self, cost: Cost) -> Self {
        self.cost = cost;
        self.cost_at_most = None;
        self
    }

    /// States the cost that it cannot exceed.
    #[must_use]
    pub const fn with_cost_at_most(mut self, cost: NanoUsd) -> Self {
        self.cost_at_most = Some(cost);
        self
    }
}

impl Default for Estimate {
    fn default() -> Self {
        Self::nothing()
    }
}

/// What a call spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Prompt and output tokens together.
    pub tokens: u64,
    /// The cost, or that it is not known.
    pub cost: Cost,
    /// Calls of tools.
    pub tool_calls: u64,
}

impl Spent {
    /// Nothing.
    pub const fn nothing() -> Self {
        Self {
            tokens: 0,
            cost: Cost::Priced(NanoUsd::ZERO),
            tool_calls: 0,
        }
    }

    /// So many tokens, free of charge.
    pub const fn tokens(tokens: u64) -> Self {
        Self {
            tokens,
            ..Self::nothing()
        }
    }

    /// So many calls of tools.
    pub const fn tool_calls(tool_calls: u64) -> Self {
        Self {
            tool_calls,
            ..Self::nothing()
        }
    }

    /// States the cost.
    #[must_use]
    pub const fn with_cost(mut self, cost: Cost) -> Self {
        self.cost = cost;
        self
    }
}

impl Default for Spent {
    fn default() -> Self {
        Self::nothing()
    }
}
