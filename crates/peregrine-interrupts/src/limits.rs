//! Limits as data: how long a scope may take, how much it may use, how long it has to finish.

use std::fmt;
use std::time::Duration;

use crate::{Mode, Name, ScopeInfo};

/// Of what a budget counts.
///
/// # Examples
///
/// ```
/// use peregrine_interrupts::Unit;
///
/// const PAGES: Unit = Unit::from_static("pages");
/// assert_eq!(PAGES, Unit::from("pages".to_owned()));
/// assert_ne!(PAGES, Unit::TOKENS);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Unit(Name);

impl Unit {
    /// Tokens, read and written.
    pub const TOKENS: Self = Self::from_static("tokens");
    /// Money, in billionths of a US dollar.
    pub const NANO_USD: Self = Self::from_static("nano-USD");
    /// Calls of a model.
    pub const MODEL_CALLS: Self = Self::from_static("model calls");
    /// Calls of tools.
    pub const TOOL_CALLS: Self = Self::from_static("tool calls");

    /// The same as `Unit::from`, for constants.
    pub const fn from_static(name: &'static str) -> Self {
        Self(Name::from_static(name))
    }

    /// The name of the unit.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl<N: Into<Name>> From<N> for Unit {
    fn from(name: N) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What binds a scope and everything below it.
///
/// The nearest scope with limits does not replace those above it: all of them hold, and what is used below counts above.
/// A wait, a charge and whatever tells what is left look at each of these scopes; [`check`](crate::Scope::check) looks at
/// none of them.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use peregrine_interrupts::{Budget, Limits, Mode, TimeLimit, Unit};
///
/// let of_run = Limits::new()
///     .with_time(Duration::from_secs(600))
///     .with_budget(Budget::new(Unit::TOKENS, 200_000))
///     .with_budget(Budget::new(Unit::NANO_USD, 2_000_000_000).with_mode(Mode::Immediate))
///     .with_grace(Duration::from_secs(25));
/// let of_tool = Limits::new().with_time(TimeLimit::new(Duration::from_secs(30)).with_mode(Mode::Immediate));
/// # assert_ne!(of_run, of_tool);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// How long it may take. `None`: no limit.
    pub time: Option<TimeLimit>,
    /// How much it may use; two for one unit both hold.
    pub budgets: Vec<Budget>,
    /// How long a graceful interrupt of this scope, whatever it came from, may take until it becomes an immediate one;
    /// counted from the graceful interrupt, or from when the scope is made if that is later. `None`: as long as it takes.
    pub grace: Option<Duration>,
}

impl Limits {
    /// No limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the time: a [`Duration`], or a [`TimeLimit`].
    pub fn with_time(mut self, limit: impl Into<TimeLimit>) -> Self {
        self.time = Some(limit.into());
        self
    }

    /// Adds a budget.
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budgets.push(budget);
        self
    }

    /// Makes a graceful interrupt an immediate one after `period`.
    pub fn with_grace(mut self, period: Duration) -> Self {
        self.grace = Some(period);
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        let Self { time, budgets, grace } = self;
        time.is_none() && budgets.is_empty() && grace.is_none()
    }
}

/// The part of a limit at which its warning is given, unless another is set: 80 %.
pub const DEFAULT_WARNING_AT: f64 = 0.8;

/// How long a scope may take, counted from when it is made.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct TimeLimit {
    /// How long. Zero interrupts the scope at once.
    pub limit: Duration,
    /// How much of it was used before: by the same run, before it was resumed.
    pub used: Duration,
    /// How it interrupts; [`Mode::Graceful`] by default.
    pub mode: Mode,
    /// At which part of the limit a warning is given; [`DEFAULT_WARNING_AT`] by default. No warning at all if this is
    /// not between 0 and 1.
    pub warning_at: f64,
}

impl TimeLimit {
    /// A graceful one.
    pub const fn new(limit: Duration) -> Self {
        Self {
            limit,
            used: Duration::ZERO,
            mode: Mode::Graceful,
            warning_at: DEFAULT_WARNING_AT,
        }
    }

    /// Counts `used` as used already.
    pub const fn with_used(mut self, used: Duration) -> Self {
        self.used = used;
        self
    }

    /// How it interrupts.
    pub const fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// At which part of the limit a warning is given.
    pub const fn with_warning_at(mut self, part: f64) -> Self {
        self.warning_at = part;
        self
    }

    /// After how much of the time the warning comes.
    pub(crate) fn warning_after(&self) -> Option<Duration> {
        is_part(self.warning_at)
            .then(|| Duration::try_from_secs_f64(self.limit.as_secs_f64() * self.warning_at).ok())
            .flatten()
            .filter(|after| *after < self.limit)
    }
}

impl From<Duration> for TimeLimit {
    fn from(limit: Duration) -> Self {
        Self::new(limit)
    }
}

/// How much of something a scope may use.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Budget {
    /// What is counted.
    pub unit: Unit,
    /// How much there is. The scope is interrupted when this much is used: the last unit can be used, and nothing can
    /// be begun after it. Zero interrupts the scope at once.
    pub limit: u64,
    /// How much was used before: by the same run, before it was resumed.
    pub used: u64,
    /// How it interrupts; [`Mode::Graceful`] by default.
    pub mode: Mode,
    /// At which part of the limit a warning is given; [`DEFAULT_WARNING_AT`] by default. No warning at all if this is
    /// not between 0 and 1.
    pub warning_at: f64,
}

impl Budget {
    /// A graceful one.
    pub fn new(unit: impl Into<Unit>, limit: u64) -> Self {
        Self {
            unit: unit.into(),
            limit,
            used: 0,
            mode: Mode::Graceful,
            warning_at: DEFAULT_WARNING_AT,
        }
    }

    /// Counts `used` as used already.
    pub fn with_used(mut self, used: u64) -> Self {
        self.used = used;
        self
    }

    /// How it interrupts.
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// At which part of the limit a warning is given.
    pub fn with_warning_at(mut self, part: f64) -> Self {
        self.warning_at = part;
        self
    }

    /// At how much used the warning comes.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a part of a u64 is within it, `as` saturates, and a warning need not be exact to the last of 2^53"
    )]
    pub(crate) fn warning_after(&self) -> Option<u64> {
        is_part(self.warning_at)
            .then(|| (self.limit as f64 * self.warning_at).ceil() as u64)
            .filter(|after| *after < self.limit)
    }
}

/// False for NaN, too.
fn is_part(part: f64) -> bool {
    part > 0.0 && part < 1.0
}

/// How much of a budget is used, as [`Scope::budgets`](crate::Scope::budgets) tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BudgetUse {
    /// Whose budget it is: the scope asked, or one above it.
    pub scope: ScopeInfo,
    /// What is counted.
    pub unit: Unit,
    /// How much is used, by the scope and all below it.
    pub used: u64,
    /// How much there is.
    pub limit: u64,
}

impl BudgetUse {
    /// What is left.
    pub const fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_comes_at_its_part_or_not_at_all() {
        let tokens = |limit, part| {
            Budget::new(Unit::TOKENS, limit)
                .with_warning_at(part)
                .warning_after()
        };
        assert_eq!(tokens(100, DEFAULT_WARNING_AT), Some(80));
        assert_eq!(tokens(3, 0.8), None, "the warning would come with the interrupt");
        assert_eq!(tokens(10, 0.01), Some(1));
        assert_eq!(tokens(u64::MAX, 0.5), Some(1 << 63));
        for none in [0.0, 1.0, -1.0, 2.0, f64::NAN, f64::INFINITY] {
            assert_eq!(tokens(100, none), None, "{none}");
        }
        assert_eq!(tokens(0, 0.8), None);
        let time = |limit, part| TimeLimit::new(limit).with_warning_at(part).warning_after();
        assert_eq!(time(Duration::from_secs(10), 0.8), Some(Duration::from_secs(8)));
        assert_eq!(time(Duration::ZERO, 0.8), None);
        assert_eq!(time(Duration::from_secs(10), f64::NAN), None);
        assert!(time(Duration::MAX, 0.999_999).is_none_or(|after| after < Duration::MAX));
    }
}
