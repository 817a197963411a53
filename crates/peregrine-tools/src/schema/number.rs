//! Numbers and equality as JSON Schema means them: by value, so that 1 and 1.0 are the same.
//!
//! Integers are compared as integers and floats as floats; where they meet, exactly and without rounding.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

/// A number, in the form in which it is exact.
#[derive(Debug, Clone, Copy)]
enum Exact {
    Integer(i128),
    /// Finite, and either not whole or at least 1e38 from zero, where no integer of JSON lies.
    Float(f64),
}

impl Exact {
    fn of(number: &Number) -> Self {
        if let Some(integer) = number.as_i64() {
            return Self::Integer(integer.into());
        }
        if let Some(integer) = number.as_u64() {
            return Self::Integer(integer.into());
        }
        let float = number.as_f64().unwrap_or(f64::NAN);
        if float.fract() == 0.0 && float.abs() < 1e38 {
            // Whole, and within the range of `i128`, so the cast is exact.
            return Self::Integer(float as i128);
        }
        Self::Float(float)
    }
}

/// Whether a number is whole.
pub(super) fn is_integer(number: &Number) -> bool {
    match Exact::of(number) {
        Exact::Integer(_) => true,
        Exact::Float(float) => float.fract() == 0.0,
    }
}

/// Compares two numbers by value.
pub(super) fn compare(one: &Number, two: &Number) -> Ordering {
    match (Exact::of(one), Exact::of(two)) {
        (Exact::Integer(one), Exact::Integer(two)) => one.cmp(&two),
        (Exact::Float(one), Exact::Float(two)) => one.total_cmp(&two),
        (Exact::Integer(one), Exact::Float(two)) => compare_mixed(one, two),
        (Exact::Float(one), Exact::Integer(two)) => compare_mixed(two, one).reverse(),
    }
}

fn compare_mixed(integer: i128, float: f64) -> Ordering {
    if float.abs() >= 1e38 {
        return if float > 0.0 {
            Ordering::Less
        } else {
            Ordering::Greater
        };
    }
    // Not whole: greater than its floor and than nothing above it.
    if integer <= float.floor() as i128 {
        Ordering::Less
    } else {
        Ordering::Greater
    }
}

/// Whether `number` is a whole multiple of `step`, both taken as the decimals they are written as.
pub(super) fn is_multiple(number: &Number, step: &Number) -> bool {
    if let (Some(number), Some(step)) = (Decimal::of(number), Decimal::of(step)) {
        let exponent = number.exponent.min(step.exponent);
        if let (Some(number), Some(step)) = (number.scaled(exponent), step.scaled(exponent)) {
            return step != 0 && number % step == 0;
        }
    }
    // Beyond 38 digits apart: no multiple can be told from its neighbours.
    let (number, step) = (
        number.as_f64().unwrap_or(f64::NAN),
        step.as_f64().unwrap_or(f64::NAN),
    );
    number % step == 0.0
}

/// `mantissa * 10^exponent`.
struct Decimal {
    mantissa: i128,
    exponent: i32,
}

impl Decimal {
    fn of(number: &Number) -> Option<Self> {
        let text = number.to_string();
        let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((&text, "0"));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let exponent: i32 = exponent.parse().ok()?;
        Some(Self {
            mantissa: format!("{whole}{fraction}").parse().ok()?,
            exponent: exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?,
        })
    }

    /// The mantissa at a smaller exponent, if it fits.
    fn scaled(&self, exponent: i32) -> Option<i128> {
        let places = u32::try_from(self.exponent.checked_sub(exponent)?).ok()?;
        self.mantissa.checked_mul(10_i128.checked_pow(places)?)
    }
}

/// Whether two values are the same, with numbers taken by value and objects without order.
pub(crate) fn equal(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => compare(one, two).is_eq(),
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| equal(one, two))
        }
        (Value::Object(one), Value::Object(two)) => {
            let same = |(key, one): (&String, &Value)| two.get(key).is_some_and(|two| equal(one, two));
            one.len() == two.len() && one.iter().all(same)
        }
        _ => one == two,
    }
}

/// The one text of a value: no white space, keys in order, whole numbers without a fraction. Values that are
/// [`equal`] have the same text, and no others have.
pub(crate) fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    // Writing to a string cannot fail.
    match value {
        Value::Number(number) => {
            let _ = match Exact::of(number) {
                Exact::Integer(integer) => write!(text, "{integer}"),
                Exact::Float(_) => write!(text, "{number}"),
            };
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        Value::Object(map) => write_object(map, text),
        Value::Null | Value::Bool(_) | Value::String(_) => {
            let _ = write!(text, "{value}");
        }
    }
}

fn write_object(map: &Map<String, Value>, text: &mut String) {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| key.as_str());
    text.push('{');
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        let _ = write!(text, "{}:", Value::from(key.as_str()));
        write_canonical(value, text);
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn numbers_compare_by_value() {
        let ordered = [
            "-1e300",
            "-9223372036854775808",
            "-1.5",
            "-1",
            "0",
            "0.5",
            "1",
            "9007199254740992",
            "9007199254740993",
            "18446744073709551615",
            "1e20",
            "1e300",
        ];
        for (i, one) in ordered.iter().enumerate() {
            for (j, two) in ordered.iter().enumerate() {
                assert_eq!(compare(&number(one), &number(two)), i.cmp(&j), "{one} {two}");
            }
        }
        assert!(compare(&number("1"), &number("1.0")).is_eq());
        assert!(compare(&number("0"), &number("-0.0")).is_eq());
        assert!(is_integer(&number("3.0")) && is_integer(&number("1e300")) && !is_integer(&number("3.5")));
    }

    #[test]
    fn multiples_are_decimal() {
        for (value, step) in [
            ("4.02", "0.01"),
            ("0.3", "0.1"),
            ("-6", "3"),
            ("0", "7"),
            ("1e3", "10"),
            ("1.5", "0.5"),
        ] {
            assert!(is_multiple(&number(value), &number(step)), "{value} {step}");
        }
        for (value, step) in [("4.025", "0.01"), ("7", "2"), ("0.35", "0.1"), ("1", "1e300")] {
            assert!(!is_multiple(&number(value), &number(step)), "{value} {step}");
        }
    }

    #[test]
    fn the_canonical_text_is_the_same_for_the_same_value() {
        let read = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        let one = read(r#"{"b":[1.0,2.5,"é\n"],"a":{"y":null,"x":1e2}}"#);
        let two = read(r#"{ "a":{"x":100,"y":null}, "b":[1,2.5,"\u00e9\n"] }"#);
        assert!(equal(&one, &two));
        assert_eq!(canonical(&one), canonical(&two));
        assert_eq!(canonical(&one), r#"{"a":{"x":100,"y":null},"b":[1,2.5,"é\n"]}"#);
        assert!(!equal(&one, &read(r#"{"b":[1,2.5,"é\n"],"a":{"y":null}}"#)));
    }
}
