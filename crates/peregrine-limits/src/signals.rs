//! What a provider says about its limits, read from the headers of its answers.
//!
//! | who | headers |
//! |---|---|
//! | OpenAI, Groq, Azure, xAI | `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, resets like `6m0.5s` or `120ms` |
//! | Cerebras, Mistral | the same with `-minute` behind |
//! | Anthropic | `anthropic-ratelimit-{requests,tokens,input-tokens}-{limit,remaining,reset}`, resets as RFC 3339 times |
//! | OpenRouter and others | `x-ratelimit-{limit,remaining,reset}`, resets as seconds, or as seconds or milliseconds since 1970 |
//! | IETF draft-ietf-httpapi-ratelimit-headers, up to 06 | `ratelimit-{limit,remaining,reset}` |
//! | all | `retry-after-ms`, `retry-after` in seconds or as an HTTP date (RFC 9110, section 10.2.3) |
//!
//! Headers are hostile: what is no number, no time or beyond all bounds is passed over, and what is left only ever makes
//! the limiter slower than it was configured to be.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::Quantity;

/// What a provider says about its limits. What it does not say is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signals {
    /// Its limit of requests.
    pub requests: Option<Window>,
    /// Its limit of tokens.
    pub tokens: Option<Window>,
    /// How long it asks to wait.
    pub retry_after: Option<Duration>,
}

/// One limit, by the provider's own account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// How much there is in all.
    pub limit: Option<u64>,
    /// How much is left.
    pub remaining: Option<u64>,
    /// When there is more: the end of a window, or the time until everything is there again; providers differ.
    pub reset: Option<Duration>,
}

/// Longer values are no header of this kind.
const MAX_VALUE_BYTES: usize = 64;

impl Signals {
    /// Nothing said.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads headers. `header` gives the value of a header by its lower-case name; `now` is the wall clock, for those that
    /// name a point in time.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use peregrine_limits::Signals;
    ///
    /// let signals = Signals::from_headers(SystemTime::now(), |name| match name {
    ///     "x-ratelimit-limit-requests" => Some("500"),
    ///     "x-ratelimit-remaining-requests" => Some("499"),
    ///     "x-ratelimit-reset-requests" => Some("120ms"),
    ///     _ => None,
    /// });
    /// let requests = signals.requests.unwrap();
    /// assert_eq!((requests.limit, requests.remaining), (Some(500), Some(499)));
    /// assert_eq!(requests.reset, Some(Duration::from_millis(120)));
    /// ```
    pub fn from_headers<'h>(now: SystemTime, header: impl Fn(&str) -> Option<&'h str>) -> Self {
        let header = |name: &str| {
            header(name)
                .map(str::trim)
                .filter(|value| !value.is_empty() && value.len() <= MAX_VALUE_BYTES)
        };
        let window = |names: [&str; 3]| {
            let [limit, remaining, reset] = names;
            let window = Window {
                limit: header(limit).and_then(number),
                remaining: header(remaining).and_then(number),
                reset: header(reset).and_then(|text| reset_in(text, now)),
            };
            (window != Window::default()).then_some(window)
        };
        let first = |candidates: &[[&str; 3]]| candidates.iter().find_map(|names| window(*names));
        Self {
            requests: first(&REQUESTS),
            tokens: first(&TOKENS),
            retry_after: header("retry-after-ms")
                .and_then(|text| seconds(text, 0.001))
                .or_else(|| header("retry-after").and_then(|text| reset_in(text, now))),
        }
    }

    /// Sets how long the provider asks to wait.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(crate) fn window(&self, quantity: Quantity) -> Option<&Window> {
        match quantity {
            Quantity::Requests => self.requests.as_ref(),
            Quantity::Tokens => self.tokens.as_ref(),
        }
    }
}

const REQUESTS: [[&str; 3]; 5] = [
    [
        "x-ratelimit-limit-requests-minute",
        "x-ratelimit-remaining-requests-minute",
        "x-ratelimit-reset-requests-minute",
    ],
    [
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ],
    [
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ],
    ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"],
    ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"],
];

const TOKENS: [[&str; 3]; 4] = [
    [
        "x-ratelimit-limit-tokens-minute",
        "x-ratelimit-remaining-tokens-minute",
        "x-ratelimit-reset-tokens-minute",
    ],
    [
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
    ],
    // The tightest of Anthropic's limits of tokens, where it tells.
    [
        "anthropic-ratelimit-tokens-limit",
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
    ],
    [
        "anthropic-ratelimit-input-tokens-limit",
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-input-tokens-reset",
    ],
];

/// A count; some write it with a fraction of zeros, and less than nothing is nothing.
fn number(text: &str) -> Option<u64> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite())?;
    // Saturates, below and above.
    Some(value as u64)
}

fn seconds(text: &str, unit: f64) -> Option<Duration> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite())? * unit;
    Duration::try_from_secs_f64(value.max(0.0)).ok()
}

/// How long from now, from whichever way to write a time.
fn reset_in(text: &str, now: SystemTime) -> Option<Duration> {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if let Some(value) = seconds(text, 1.0) {
        // Numbers too large for a wait are points in time: seconds from the year 2001 on, or milliseconds.
        return Some(match value.as_secs() {
            0..=999_999_999 => value,
            1_000_000_000..=99_999_999_999 => value.saturating_sub(since_epoch),
            _ => (value / 1_000).saturating_sub(since_epoch),
        });
    }
    if let Some(value) = spelled(text) {
        return Some(value);
    }
    let at = match rfc3339(text) {
        Some(at) => at,
        None => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(UNIX_EPOCH)
            .ok()?,
    };
    Some(at.saturating_sub(since_epoch))
}

/// `1h2m3.5s`, `120ms`.
fn spelled(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit = match unit {
            "d" => 86_400.0,
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum = sum.checked_add(seconds(value, unit)?)?;
        rest = tail;
    }
    Some(sum)
}

/// A time of RFC 3339 since 1970, in UTC or with an offset.
fn rfc3339(text: &str) -> Option<Duration> {
    let field = |from: usize, to: usize| text.get(from..to)?.parse::<u32>().ok();
    let is = |place: usize, byte: u8| text.as_bytes().get(place) == Some(&byte);
    let separators = is(4, b'-') && is(7, b'-') && is(13, b':') && is(16, b':');
    let between = text.as_bytes().get(10).is_some_and(|byte| b"Tt ".contains(byte));
    if !separators || !between {
        return None;
    }
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    let in_range = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !in_range {
        return None;
    }
    let rest = text.get(19..)?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (fraction, zone) = rest.split_at(zone_at);
    let fraction = match fraction {
        "" => 0.0,
        digits => format!("0{digits}")
            .parse::<f64>()
            .ok()
            .filter(|value| *value < 1.0)?,
    };
    // Days since 1970 in the proleptic Gregorian calendar, counting years from March on.
    let years = i64::from(if month <= 2 { year - 1 } else { year });
    let day_of_year =
        (153 * (i64::from(month) + if month > 2 { -3 } else { 9 }) + 2) / 5 + i64::from(day) - 1;
    let days = 365 * years + years / 4 - years / 100 + years / 400 + day_of_year - 719_468;
    let local = days * 86_400 + i64::from(hour * 3_600 + minute * 60 + second);
    let seconds = local - offset_seconds(zone)?;
    Some(Duration::new(
        u64::try_from(seconds).ok()?,
        (fraction * 1e9) as u32,
    ))
}

fn offset_seconds(zone: &str) -> Option<i64> {
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => return Some(0),
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
    (hours < 24 && minutes < 60).then(|| sign * (i64::from(hours) * 3_600 + i64::from(minutes) * 60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-01-01T00:00:00Z.
    const NOW: Duration = Duration::from_secs(1_767_225_600);

    fn read(headers: &[(&str, &str)]) -> Signals {
        Signals::from_headers(UNIX_EPOCH + NOW, |name| {
            headers
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| *value)
        })
    }

    fn wait(text: &str) -> Option<Duration> {
        reset_in(text, UNIX_EPOCH + NOW)
    }

    #[test]
    fn every_dialect_is_read() {
        let openai = read(&[
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-remaining-requests", "9999"),
            ("x-ratelimit-reset-requests", "6ms"),
            ("x-ratelimit-limit-tokens", "2000000"),
            ("x-ratelimit-remaining-tokens", "1999984"),
            ("x-ratelimit-reset-tokens", "0s"),
        ]);
        assert_eq!(openai.requests.unwrap().reset, Some(Duration::from_millis(6)));
        assert_eq!(openai.tokens.unwrap().remaining, Some(1_999_984));
        let anthropic = read(&[
            ("anthropic-ratelimit-requests-limit", "4000"),
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-reset", "2026-01-01T00:00:07Z"),
            ("anthropic-ratelimit-input-tokens-limit", "400000"),
            ("anthropic-ratelimit-input-tokens-remaining", "399000"),
            (
                "anthropic-ratelimit-input-tokens-reset",
                "2026-01-01T01:00:00.25+01:00",
            ),
            ("retry-after", "30"),
        ]);
        let requests = anthropic.requests.unwrap();
        assert_eq!((requests.limit, requests.remaining), (Some(4_000), Some(0)));
        assert_eq!(requests.reset, Some(Duration::from_secs(7)));
        assert_eq!(anthropic.tokens.unwrap().reset, Some(Duration::from_millis(250)));
        assert_eq!(anthropic.retry_after, Some(Duration::from_secs(30)));
        let other = read(&[
            ("x-ratelimit-limit", "20"),
            ("x-ratelimit-reset", "1767225660000"),
        ]);
        assert_eq!(other.requests.unwrap().reset, Some(Duration::from_secs(60)));
        assert_eq!(read(&[("content-type", "text/html")]), Signals::default());
    }

    #[test]
    fn every_way_to_write_a_time() {
        let cases = [
            ("1.5", 1_500),
            ("6m0s", 360_000),
            ("2m59.56s", 179_560),
            ("1h0m1s", 3_601_000),
            ("120ms", 120),
            ("1767225601", 1_000),
            ("2026-01-01T00:00:02Z", 2_000),
            ("2026-03-01T00:00:00Z", 59 * 86_400_000),
            ("2028-03-01T00:00:00z", (365 + 365 + 31 + 29) * 86_400_000),
            ("Thu, 01 Jan 2026 00:01:00 GMT", 60_000),
            ("2025-12-31T23:59:59Z", 0),
            ("-5", 0),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(wait(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in [
            "soon",
            "1x",
            "h",
            "2026-13-01T00:00:00Z",
            "2026-01-01T00:00:00",
            "NaN",
            "inf",
            "1e400",
            "m5",
        ] {
            assert_eq!(wait(text), None, "{text}");
        }
        assert_eq!(
            read(&[("retry-after-ms", "250"), ("retry-after", "9")]).retry_after,
            wait("0.25")
        );
    }

    proptest! {
        #[test]
        fn hostile_values_never_panic(text in "\\PC{0,80}", shaped in "[-+.:0-9TZhmsu ]{0,40}") {
            for text in [text.as_str(), shaped.as_str()] {
                let _ = Signals::from_headers(UNIX_EPOCH + NOW, |_| Some(text));
                let _ = rfc3339(text);
            }
        }

        #[test]
        fn times_come_back(seconds in 0_u64..250_000_000_000) {
            let date = UNIX_EPOCH + Duration::from_secs(seconds);
            let text = httpdate::fmt_http_date(date);
            prop_assert_eq!(httpdate::parse_http_date(&text).ok(), Some(date));
            let since = NOW.as_secs() + seconds % 200_000_000_000;
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(since));
            prop_assert_eq!(wait(&date), Some(Duration::from_secs(since - NOW.as_secs())));
        }
    }
}
