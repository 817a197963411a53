//! How long a server keeps a model loaded.
//!
//! Invariant: the text form is a Go duration that the server will parse; a bare number is never sent as
//! text, because the server refuses that (`"-1"` is an error there, `-1` is not).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use peregrine_core::ConfigError;
use serde::Serialize;

/// How long a server keeps a model loaded after a call: seconds, or a Go duration such as `1h30m`.
///
/// # Examples
///
/// ```
/// use peregrine_providers::wire::ollama::KeepAlive;
///
/// assert_eq!("5m".parse::<KeepAlive>()?.to_string(), "5m");
/// assert_eq!("-1".parse::<KeepAlive>()?, KeepAlive::FOREVER);
/// assert!("five minutes".parse::<KeepAlive>().is_err());
/// # Ok::<(), peregrine_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct KeepAlive(Form);

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
enum Form {
    Seconds(i64),
    Text(Cow<'static, str>),
}

impl KeepAlive {
    /// Until the server ends.
    pub const FOREVER: Self = Self(Form::Seconds(-1));
    /// Not at all: the model is unloaded after the call.
    pub const UNLOAD: Self = Self(Form::Seconds(0));

    /// So many seconds; less than 0 is forever.
    pub const fn seconds(seconds: i64) -> Self {
        Self(Form::Seconds(seconds))
    }
}

impl From<Duration> for KeepAlive {
    /// Whole seconds as a number, everything else in milliseconds, rounded up.
    fn from(duration: Duration) -> Self {
        match (i64::try_from(duration.as_secs()), duration.subsec_nanos()) {
            (Ok(seconds), 0) => Self::seconds(seconds),
            (Ok(_), nanos) => {
                let millis = u128::from(duration.as_secs()) * 1000 + u128::from(nanos.div_ceil(1_000_000));
                Self(Form::Text(Cow::Owned(format!("{millis}ms"))))
            }
            (Err(_), _) => Self::FOREVER,
        }
    }
}

impl FromStr for KeepAlive {
    type Err = ConfigError;

    /// Reads a whole number of seconds or a Go duration: the forms of the server's own `OLLAMA_KEEP_ALIVE`.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let text = text.trim();
        if let Ok(seconds) = text.parse() {
            return Ok(Self::seconds(seconds));
        }
        if is_go_duration(text) {
            return Ok(Self(Form::Text(Cow::Owned(text.to_owned()))));
        }
        Err(ConfigError::new(format!(
            "{text:?} is no time to keep a model loaded; give seconds (0 unloads, -1 is forever) or a \
             duration such as 5m, 1h30m or 90s"
        )))
    }
}

impl fmt::Display for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Seconds(seconds) => write!(f, "{seconds}"),
            Form::Text(text) => f.write_str(text),
        }
    }
}

/// `[+-] (digits [. digits] unit)+`, as Go's `time.ParseDuration` reads it.
fn is_go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (digits, behind) = rest.split_at(number);
        let one_point = digits.matches('.').count() <= 1;
        if !one_point || !digits.contains(|c: char| c.is_ascii_digit()) {
            return false;
        }
        // Longest first, so that `ms` is not minutes.
        let units = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
        match units.iter().find_map(|unit| behind.strip_prefix(unit)) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(keep_alive: &KeepAlive) -> String {
        serde_json::to_string(keep_alive).unwrap()
    }

    #[test]
    fn zero_and_minus_one_are_values_and_numbers_stay_numbers() {
        assert_eq!(json(&KeepAlive::UNLOAD), "0");
        assert_eq!(json(&KeepAlive::FOREVER), "-1");
        assert_eq!(json(&"300".parse().unwrap()), "300");
        assert_eq!(json(&"-1".parse().unwrap()), "-1");
        assert_eq!(json(&" 5m ".parse().unwrap()), "\"5m\"");
        assert_eq!(json(&Duration::from_secs(90).into()), "90");
        assert_eq!(json(&Duration::from_micros(1_500_001).into()), "\"1501ms\"");
        assert_eq!(json(&Duration::MAX.into()), "-1");
    }

    #[test]
    fn go_durations_are_told_from_other_text() {
        for good in [
            "5m", "1h30m", "-1s", "+2h", "1.5h", ".5s", "3.s", "10ms", "1us", "1µs", "100ns",
        ] {
            assert!(is_go_duration(good), "{good}");
        }
        for bad in [
            "", "-", "5", "m", "5 m", "5m ", "1.2.3s", ".s", "5d", "5mm", "1h30",
        ] {
            assert!(!is_go_duration(bad), "{bad}");
        }
        assert!("5d".parse::<KeepAlive>().unwrap_err().message.contains("5d"));
    }
}
