//! Rules for texts: length in characters, a pattern, a format.
//!
//! Patterns are matched in time linear in the text (`regex-lite`), so a hostile answer cannot make them slow.

use std::fmt;

use super::Length;
use crate::error::ViolationKind;

#[derive(Debug, Clone, Default)]
pub(crate) struct TextRule {
    pub(crate) length: Length,
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) format: Option<Format>,
    /// A format that is told to the model but not checked.
    pub(crate) hint: Option<Box<str>>,
}

impl TextRule {
    /// What is wrong with a text, if anything is.
    pub(crate) fn misfit(&self, text: &str) -> Option<ViolationKind> {
        // Counting is skipped where nothing depends on it.
        if self.length != Length::default() && !self.length.admits(text.chars().count()) {
            Some(ViolationKind::Length)
        } else if !self.patterns.iter().all(|pattern| pattern.is_match(text))
            || !self.format.is_none_or(|format| format.is_match(text))
        {
            Some(ViolationKind::Pattern)
        } else {
            None
        }
    }
}

/// A regular expression that must match somewhere in the text, as in JSON Schema.
#[derive(Clone)]
pub(crate) struct Pattern(regex_lite::Regex);

impl Pattern {
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        regex_lite::Regex::new(pattern)
            .map(Self)
            .map_err(|error| error.to_string())
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A format that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Date,
    Time,
    DateTime,
    Uuid,
}

impl Format {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "date" => Some(Self::Date),
            "time" => Some(Self::Time),
            "date-time" => Some(Self::DateTime),
            "uuid" => Some(Self::Uuid),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Date => "date",
            Self::Time => "time",
            Self::DateTime => "date-time",
            Self::Uuid => "uuid",
        }
    }

    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Date => "date like 2026-01-31",
            Self::Time => "time like 09:30:00Z",
            Self::DateTime => "time like 2026-01-31T09:30:00Z",
            Self::Uuid => "UUID",
        }
    }

    pub(crate) fn is_match(self, text: &str) -> bool {
        match self {
            Self::Date => is_date(text),
            Self::Time => is_time(text),
            Self::DateTime => match text.split_at_checked(10) {
                Some((date, rest)) => {
                    is_date(date) && rest.strip_prefix(['T', 't', ' ']).is_some_and(is_time)
                }
                None => false,
            },
            Self::Uuid => {
                let groups: Vec<&str> = text.split('-').collect();
                groups.len() == 5
                    && groups.iter().zip([8, 4, 4, 4, 12]).all(|(group, digits)| {
                        group.len() == digits && group.bytes().all(|byte| byte.is_ascii_hexdigit())
                    })
            }
        }
    }
}

/// RFC 3339 `full-date`.
fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else {
        return false;
    };
    let (Some(year), Some(month), Some(day)) = (digits(year, 4), digits(month, 2), digits(day, 2)) else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    (1..=days).contains(&day)
}

/// RFC 3339 `full-time`.
fn is_time(text: &str) -> bool {
    let Some((clock, rest)) = text.split_at_checked(8) else {
        return false;
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let [hour, minute, second] = parts[..] else {
        return false;
    };
    let fraction_end = rest.strip_prefix('.').map_or(Some(rest), |fraction| {
        let end = fraction
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(fraction.len());
        (end > 0).then(|| &fraction[end..])
    });
    let is_offset = |offset: &str| {
        matches!(offset, "Z" | "z")
            || offset
                .strip_prefix(['+', '-'])
                .and_then(|offset| offset.split_once(':'))
                .is_some_and(|(hours, minutes)| {
                    digits(hours, 2).is_some_and(|h| h < 24) && digits(minutes, 2).is_some_and(|m| m < 60)
                })
    };
    digits(hour, 2).is_some_and(|h| h < 24)
        && digits(minute, 2).is_some_and(|m| m < 60)
        && digits(second, 2).is_some_and(|s| s <= 60)
        && fraction_end.is_some_and(is_offset)
}

fn digits(text: &str, count: usize) -> Option<u32> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_tell_right_from_wrong() {
        for (format, right, wrong) in [
            (Format::Date, "2024-02-29", "2026-02-29"),
            (Format::Date, "2026-12-31", "2026-13-01"),
            (Format::Date, "0001-01-01", "31.12.2026"),
            (Format::Time, "23:59:60Z", "24:00:00Z"),
            (Format::Time, "09:30:00.25+02:00", "09:30:00"),
            (Format::DateTime, "2026-01-31T09:30:00-08:00", "2026-01-31"),
            (
                Format::DateTime,
                "2026-01-31t09:30:00.1z",
                "2026-01-31T09:30:00.Z",
            ),
            (
                Format::Uuid,
                "01234567-89ab-CDEF-0123-456789abcdef",
                "0123456789abcdef",
            ),
        ] {
            assert!(format.is_match(right), "{right}");
            assert!(!format.is_match(wrong), "{wrong}");
        }
        assert!(
            !Format::DateTime.is_match("2026-01-é1T"),
            "cut inside a character"
        );
    }
}
