//! Money as integers: nano-US-dollars, and costs that say when no price is known.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// An amount of money in billionths of a US dollar. Never negative; arithmetic saturates.
///
/// # Examples
///
/// ```
/// use peregrine_core::NanoUsd;
///
/// assert_eq!(NanoUsd(1_500_000).to_string(), "$0.0015");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NanoUsd(pub u64);

impl NanoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// A whole number of US cents.
    pub const fn from_cents(cents: u64) -> Self {
        Self(cents.saturating_mul(10_000_000))
    }
}

impl Add for NanoUsd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for NanoUsd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for NanoUsd {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for NanoUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for NanoUsd {
    /// US dollars with as many decimals as are needed, at least two.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dollars, nanos) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        let decimals = format!("{nanos:09}");
        let needed = decimals.trim_end_matches('0').len().max(2);
        write!(f, "${dollars}.{}", &decimals[..needed])
    }
}

/// What a call cost: an amount, or the admission that no price is known. Unknown is never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cost {
    /// This much.
    Priced(NanoUsd),
    /// The price table does not know the model, or the provider did not say what was used.
    Unpriced,
}

impl Cost {
    /// The amount, if it is known.
    pub const fn amount(self) -> Option<NanoUsd> {
        match self {
            Self::Priced(amount) => Some(amount),
            Self::Unpriced => None,
        }
    }
}

impl Add for Cost {
    type Output = Self;

    /// The sum is unknown as soon as one part is.
    fn add(self, other: Self) -> Self {
        match (self, other) {
            (Self::Priced(one), Self::Priced(two)) => Self::Priced(one + two),
            _ => Self::Unpriced,
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Priced(amount) => amount.fmt(f),
            Self::Unpriced => f.write_str("unpriced"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_print_without_rounding() {
        let cases = [
            (0, "$0.00"),
            (1, "$0.000000001"),
            (2_500_000_000, "$2.50"),
            (75_000, "$0.000075"),
        ];
        for (nanos, text) in cases {
            assert_eq!(NanoUsd(nanos).to_string(), text);
        }
    }

    #[test]
    fn unknown_is_contagious_and_nothing_overflows() {
        assert_eq!(Cost::Priced(NanoUsd(1)) + Cost::Unpriced, Cost::Unpriced);
        assert_eq!(NanoUsd(u64::MAX) + NanoUsd(1), NanoUsd(u64::MAX));
        assert_eq!(NanoUsd(1) - NanoUsd(2), NanoUsd::ZERO);
        assert_eq!(NanoUsd::from_cents(150).to_string(), "$1.50");
    }
}
