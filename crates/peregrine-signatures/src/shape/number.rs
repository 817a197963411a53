//! Rules for numbers. Integers are compared exactly, everything else as 64-bit floats.

use std::cmp::Ordering;
use std::fmt;

/// A bound for a number.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Number {
    /// A whole number.
    Int(i128),
    /// Any number.
    Float(f64),
}

macro_rules! number_from {
    ($($int:ty),*) => {$(
        impl From<$int> for Number {
            fn from(number: $int) -> Self {
                Self::Int(i128::from(number))
            }
        }
    )*};
}

number_from!(i8, i16, i32, i64, i128, u8, u16, u32, u64);

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self::Int(number as i128)
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<f32> for Number {
    fn from(number: f32) -> Self {
        Self::Float(f64::from(number))
    }
}

impl Number {
    pub(crate) fn of(number: &serde_json::Number) -> Self {
        number
            .as_i128()
            .map_or_else(|| Self::Float(number.as_f64().unwrap_or(f64::NAN)), Self::Int)
    }

    pub(crate) fn to_json(self) -> serde_json::Value {
        match self {
            Self::Int(number) => match (i64::try_from(number), u64::try_from(number)) {
                (Ok(number), _) => number.into(),
                (_, Ok(number)) => number.into(),
                _ => (number as f64).into(),
            },
            Self::Float(number) => number.into(),
        }
    }

    fn as_f64(self) -> f64 {
        match self {
            Self::Int(number) => number as f64,
            Self::Float(number) => number,
        }
    }

    pub(crate) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(&b)),
            (a, b) => a.as_f64().partial_cmp(&b.as_f64()),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limit {
    pub(crate) value: Number,
    pub(crate) exclusive: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct NumberRule {
    pub(crate) integer: bool,
    pub(crate) min: Option<Limit>,
    pub(crate) max: Option<Limit>,
    pub(crate) multiple_of: Option<Number>,
    /// What the machine type holds. Checked, but not told to the model: it is noise there.
    pub(crate) width: Option<(i128, i128)>,
    /// Whether the machine type is a float of 32 bits, in which larger numbers would become infinite. As `width`.
    pub(crate) single: bool,
}

/// Whole floats below this stand for one integer only.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl NumberRule {
    /// Whether the number has the right type; `5.0` is the integer 5 and is made so.
    pub(crate) fn has_type(&self, number: &mut serde_json::Number) -> bool {
        if !self.integer || number.is_i64() || number.is_u64() {
            return true;
        }
        match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < EXACT => {
                *number = serde_json::Number::from(float as i64);
                true
            }
            _ => false,
        }
    }

    /// Whether the number lies within the limits.
    pub(crate) fn in_range(&self, number: &serde_json::Number) -> bool {
        let number = Number::of(number);
        let above = |limit: Limit| match number.compare(limit.value) {
            Some(Ordering::Greater) => true,
            Some(Ordering::Equal) => !limit.exclusive,
            _ => false,
        };
        let below = |limit: Limit| match number.compare(limit.value) {
            Some(Ordering::Less) => true,
            Some(Ordering::Equal) => !limit.exclusive,
            _ => false,
        };
        let in_width = match (number, self.width) {
            (Number::Int(number), Some((min, max))) => (min..=max).contains(&number),
            (number, _) => !self.single || (number.as_f64() as f32).is_finite(),
        };
        let is_multiple = match (number, self.multiple_of) {
            (_, None) => true,
            (Number::Int(number), Some(Number::Int(step))) => step != 0 && number % step == 0,
            (number, Some(step)) => (number.as_f64() / step.as_f64()).fract() == 0.0,
        };
        self.min.is_none_or(above) && self.max.is_none_or(below) && in_width && is_multiple
    }

    /// Takes the narrower of two lower limits.
    pub(crate) fn raise_min(&mut self, limit: Limit) {
        if self
            .min
            .is_none_or(|min| is_narrower(limit, min, Ordering::Greater))
        {
            self.min = Some(limit);
        }
    }

    /// Takes the narrower of two upper limits.
    pub(crate) fn lower_max(&mut self, limit: Limit) {
        if self.max.is_none_or(|max| is_narrower(limit, max, Ordering::Less)) {
            self.max = Some(limit);
        }
    }

    /// Whether no number can fit.
    pub(crate) fn is_empty(&self) -> bool {
        let (Some(min), Some(max)) = (self.min, self.max) else {
            return false;
        };
        match min.value.compare(max.value) {
            Some(Ordering::Less) => false,
            Some(Ordering::Equal) => min.exclusive || max.exclusive,
            _ => true,
        }
    }
}

fn is_narrower(new: Limit, old: Limit, wanted: Ordering) -> bool {
    match new.value.compare(old.value) {
        Some(Ordering::Equal) => new.exclusive && !old.exclusive,
        Some(ordering) => ordering == wanted,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> serde_json::Number {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn integers_are_compared_exactly_and_whole_floats_are_integers() {
        let rule = NumberRule {
            integer: true,
            max: Some(Limit {
                value: Number::Int(i128::from(u64::MAX) - 1),
                exclusive: false,
            }),
            ..NumberRule::default()
        };
        assert!(rule.in_range(&number("18446744073709551614")));
        assert!(
            !rule.in_range(&number("18446744073709551615")),
            "one more, the same as a float"
        );
        let mut five = number("5.0");
        assert!(rule.has_type(&mut five));
        assert_eq!(five, number("5"));
        assert!(!rule.has_type(&mut number("5.5")));
        assert!(!rule.has_type(&mut number("1e300")), "stands for many integers");
    }

    #[test]
    fn the_narrower_limit_counts() {
        let limit = |value, exclusive| Limit {
            value: Number::Int(value),
            exclusive,
        };
        let mut rule = NumberRule::default();
        rule.raise_min(limit(1, false));
        rule.raise_min(limit(0, true));
        rule.raise_min(limit(1, true));
        assert_eq!(rule.min, Some(limit(1, true)));
        rule.lower_max(limit(1, false));
        assert!(rule.is_empty());
    }
    #[test]
    fn limits_include_or_exclude_themselves() {
        for (exclusive, min, inside, max) in [(false, true, true, true), (true, false, true, false)] {
            let limit = |value| {
                Some(Limit {
                    value: Number::Int(value),
                    exclusive,
                })
            };
            let rule = NumberRule {
                min: limit(1),
                max: limit(3),
                ..NumberRule::default()
            };
            let verdicts = ["0.9", "1", "2", "3.0", "3.1"].map(|text| rule.in_range(&number(text)));
            assert_eq!(verdicts, [false, min, inside, max, false]);
        }
        let rule = NumberRule {
            multiple_of: Some(Number::Float(0.5)),
            ..NumberRule::default()
        };
        assert!(rule.in_range(&number("1.5")) && !rule.in_range(&number("1.7")));
    }
}
