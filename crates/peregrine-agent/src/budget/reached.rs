//! Why something may not go on: the limit that was reached, as data.

use std::fmt;

use peregrine_core::NanoUsd;
use serde::{Deserialize, Serialize};

/// What a limit is about, and the unit that its numbers are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resource {
    /// Prompt and output tokens.
    Tokens,
    /// Money, in nano-US-dollars.
    Cost,
    /// Money again, but the limit is not used up: the price of the call is not known, so it cannot be kept.
    UnknownPrice,
    /// Calls of tools.
    ToolCalls,
    /// Time, in milliseconds.
    WallTime,
    /// Steps of a run: calls of the model.
    Steps,
    /// Output of tools in a run, in bytes.
    ToolOutput,
    /// The prompt of one call, in tokens.
    ContextTokens,
}

impl Resource {
    /// The lower-case name, as it is serialised.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Cost => "cost",
            Self::UnknownPrice => "unknown_price",
            Self::ToolCalls => "tool_calls",
            Self::WallTime => "wall_time",
            Self::Steps => "steps",
            Self::ToolOutput => "tool_output",
            Self::ContextTokens => "context_tokens",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A limit that leaves no room for what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LimitReached {
    /// What ran out. It says the unit of the three numbers.
    pub resource: Resource,
    /// The limit.
    pub limit: u64,
    /// What is spent, or held for good by calls in flight.
    pub used: u64,
    /// What was asked for on top; 0 where time just passed.
    pub asked: u64,
    /// The name of the budget, or of whatever else has the limit.
    pub budget: String,
}

impl LimitReached {
    /// A limit of `budget`: `asked` does not fit on top of `used`.
    pub fn new(resource: Resource, limit: u64, used: u64, asked: u64, budget: impl Into<String>) -> Self {
        Self {
            resource,
            limit,
            used,
            asked,
            budget: budget.into(),
        }
    }
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resource,
            limit,
            used,
            asked,
            budget,
        } = self;
        match resource {
            Resource::Tokens => write!(
                f,
                "`{budget}` may use {limit} tokens; {used} are used and the call needs about {asked}: raise the limit, \
                 or ask for less output or with a shorter history"
            ),
            Resource::Cost => write!(
                f,
                "`{budget}` may cost {}; {} is spent and the call needs about {}: raise the limit, or use a cheaper model",
                NanoUsd(*limit),
                NanoUsd(*used),
                NanoUsd(*asked)
            ),
            Resource::UnknownPrice => write!(
                f,
                "`{budget}` may cost {} and the price of the call is not known: add the model to the price table, or take \
                 the limit on cost away",
                NanoUsd(*limit)
            ),
            Resource::ToolCalls => write!(
                f,
                "`{budget}` may call tools {limit} times; {used} calls were made or are being made and {asked} more are \
                 asked for: raise the limit"
            ),
            Resource::WallTime => write!(
                f,
                "`{budget}` may take {limit} ms and has taken {used} ms: raise the limit"
            ),
            Resource::Steps => write!(
                f,
                "`{budget}` may take {limit} steps and has taken {used}: raise the limit, or give a smaller task"
            ),
            Resource::ToolOutput => write!(
                f,
                "`{budget}` may take {limit} bytes of tool output; {used} are there and {asked} more came: raise the \
                 limit, or let tools return less"
            ),
            Resource::ContextTokens => write!(
                f,
                "a prompt of `{budget}` may have {limit} tokens and this one has about {asked}: raise the limit, or use a \
                 shorter history window"
            ),
        }
    }
}

impl std::error::Error for LimitReached {}

/// Why nothing was reserved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It does not fit, and waiting does not help.
    #[error(transparent)]
    Exhausted(#[from] LimitReached),
    /// It does not fit beside what is in flight or waits; it may fit later.
    #[error("the budget is held by calls in flight: wait for them to settle, with `Budget::reserve`")]
    Busy,
}
