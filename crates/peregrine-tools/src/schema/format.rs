//! The formats that are enforced.
//!
//! `date`, `time` and `date-time` follow RFC 3339, `uuid` RFC 9562; the integer widths are those that Rust types have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

/// A format that is enforced. It says nothing about values of other types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Integer {
        name: &'static str,
        least: i128,
        most: i128,
    },
    Uuid,
    Date,
    Time,
    DateTime,
    Ipv4,
    Ipv6,
    Ip,
}

macro_rules! widths {
    ($($name:literal => $type:ty),*) => {
        &[$(($name, <$type>::MIN as i128, <$type>::MAX as i128)),*]
    };
}

/// `int` and `uint` are the machine's word, which has 64 bits wherever this matters.
const WIDTHS: &[(&str, i128, i128)] = widths! {
    "int8" => i8, "int16" => i16, "int32" => i32, "int64" => i64, "int" => i64,
    "uint8" => u8, "uint16" => u16, "uint32" => u32, "uint64" => u64, "uint" => u64
};

impl Format {
    /// The format of a name, if it is enforced.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "uuid" => Self::Uuid,
            "date" => Self::Date,
            "time" => Self::Time,
            "date-time" => Self::DateTime,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "ip" => Self::Ip,
            _ => {
                let (name, least, most) = *WIDTHS.iter().find(|(known, ..)| *known == name)?;
                Self::Integer { name, least, most }
            }
        })
    }

    /// Whether a value has this format, or is of a type that the format says nothing about.
    pub(super) fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Integer { least, most, .. }, Value::Number(number)) => {
                let integer = number
                    .as_i64()
                    .map(i128::from)
                    .or(number.as_u64().map(i128::from));
                match (integer, number.as_f64()) {
                    (Some(integer), _) => (least..=most).contains(&integer),
                    // 2^64 is the first float that is too large for every width, and its cast is exact.
                    (None, Some(float)) if float.abs() <= 18_446_744_073_709_551_616.0 => {
                        (least..=most).contains(&(float.trunc() as i128))
                    }
                    _ => false,
                }
            }
            (Self::Integer { .. }, _) => true,
            (_, Value::String(text)) => self.fits_text(text),
            _ => true,
        }
    }

    fn fits_text(self, text: &str) -> bool {
        match self {
            Self::Integer { .. } => true,
            Self::Uuid => is_uuid(text),
            Self::Date => is_date(text.as_bytes()),
            Self::Time => is_time(text.as_bytes()),
            Self::DateTime => {
                let bytes = text.as_bytes();
                bytes.len() > 11
                    && is_date(&bytes[..10])
                    && matches!(bytes[10], b'T' | b't')
                    && is_time(&bytes[11..])
            }
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Ip => text.parse::<IpAddr>().is_ok(),
        }
    }

    /// What it expects.
    pub(super) fn words(self) -> String {
        match self {
            Self::Integer { name, least, most } => format!("a number from {least} to {most} ({name})"),
            Self::Uuid => "a UUID such as 123e4567-e89b-12d3-a456-426614174000".to_owned(),
            Self::Date => "a date such as 2026-11-21".to_owned(),
            Self::Time => "a time with an offset such as 13:05:00Z".to_owned(),
            Self::DateTime => "a date and time such as 2026-11-21T13:05:00Z".to_owned(),
            Self::Ipv4 => "an IPv4 address".to_owned(),
            Self::Ipv6 => "an IPv6 address".to_owned(),
            Self::Ip => "an IP address".to_owned(),
        }
    }
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups
            .iter()
            .all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The number that some digits are; `None` if they are not all digits.
fn digits(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + u32::from(byte - b'0'))
    })
}

fn is_date(bytes: &[u8]) -> bool {
    let [year @ .., b'-', m1, m2, b'-', d1, d2] = bytes else {
        return false;
    };
    let (4, Some(year), Some(month), Some(day)) =
        (year.len(), digits(year), digits(&[*m1, *m2]), digits(&[*d1, *d2]))
    else {
        return false;
    };
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    (1..=days).contains(&day)
}

fn is_time(bytes: &[u8]) -> bool {
    let Some((clock, rest)) = bytes.split_at_checked(8) else {
        return false;
    };
    let [h1, h2, b':', m1, m2, b':', s1, s2] = clock else {
        return false;
    };
    let offset = match rest {
        [b'.', fraction @ ..] => {
            let end = fraction
                .iter()
                .position(|byte| !byte.is_ascii_digit())
                .unwrap_or(fraction.len());
            if end == 0 {
                return false;
            }
            &fraction[end..]
        }
        _ => rest,
    };
    let offset_minutes = match offset {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            minutes(&[*h1, *h2], &[*m1, *m2]).map(|minutes| if *sign == b'+' { -minutes } else { minutes })
        }
        _ => None,
    };
    let (Some(offset), Some(minutes), Some(seconds)) = (
        offset_minutes,
        minutes(&[*h1, *h2], &[*m1, *m2]),
        digits(&[*s1, *s2]),
    ) else {
        return false;
    };
    // A leap second is the last of a day in UTC.
    let is_leap_second = seconds == 60 && (minutes + offset).rem_euclid(24 * 60) == 24 * 60 - 1;
    seconds <= 59 || is_leap_second
}

/// Minutes since midnight.
fn minutes(hours: &[u8], minutes: &[u8]) -> Option<i32> {
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    let whole = (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)?;
    i32::try_from(whole).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, good: &[&str], bad: &[&str]) {
        let format = Format::of(name).unwrap();
        for text in good {
            assert!(format.fits(&Value::from(*text)), "{name} {text}");
        }
        for text in bad {
            assert!(!format.fits(&Value::from(*text)), "{name} {text}");
        }
    }

    #[test]
    fn texts() {
        check(
            "date",
            &["2024-02-29", "0001-01-01"],
            &[
                "2023-02-29",
                "2024-13-01",
                "24-01-01",
                "2024-1-01",
                "2024-01-00",
                "",
            ],
        );
        check(
            "time",
            &["00:00:00Z", "23:59:60Z", "12:30:00.25+05:30", "22:59:60-01:00"],
            &[
                "24:00:00Z",
                "12:30",
                "12:30:00",
                "12:30:60Z",
                "12:30:00.Z",
                "12:30:00+5:30",
                "1é:30:00Z",
            ],
        );
        check(
            "date-time",
            &["2026-11-21T13:05:00Z", "2026-11-21t13:05:00.123456789-08:00"],
            &[
                "2026-11-21",
                "2026-11-21 13:05:00Z",
                "2026-11-21T25:05:00Z",
                "2026-11-2éT13:05:00Z",
            ],
        );
        check(
            "uuid",
            &[
                "123e4567-e89b-12d3-a456-426614174000",
                "123E4567-E89B-12D3-A456-426614174000",
            ],
            &[
                "123e4567e89b12d3a456426614174000",
                "123e4567-e89b-12d3-a456-42661417400g",
                "",
            ],
        );
        check("ipv4", &["127.0.0.1"], &["127.0.0.256", "::1", "127.1"]);
        check("ipv6", &["::1"], &["127.0.0.1", ":::"]);
        check("ip", &["::1", "10.0.0.1"], &["localhost"]);
        assert_eq!(Format::of("email"), None);
    }

    #[test]
    fn widths() {
        let fits = |name: &str, text: &str| {
            Format::of(name)
                .unwrap()
                .fits(&serde_json::from_str(text).unwrap())
        };
        assert!(fits("uint8", "255") && fits("uint8", "255.0") && fits("int8", "-128"));
        assert!(!fits("uint8", "256") && !fits("uint8", "-1") && !fits("int8", "-129"));
        assert!(fits("uint64", "18446744073709551615") && !fits("uint64", "18446744073709551616"));
        assert!(fits("int64", "-9223372036854775808") && !fits("int64", "9223372036854775808"));
        assert!(!fits("int", "1e300") && fits("uint", r#""text""#));
    }
}
