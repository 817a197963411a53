//! Times, sizes and payloads, for people.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use peregrine::agent::durable::{Announced, Entry, What};
use peregrine::checkpoints::Record;
use peregrine::core::UnixTime;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, json};

/// How long what a record says may be, in characters.
const SUMMARY: usize = 60;

/// A time of day and its date, in UTC, as RFC 3339 has it.
pub(crate) fn time(at: UnixTime) -> String {
    let (seconds, millis) = (at.0 / 1_000, at.0 % 1_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // The algorithm of Howard Hinnant's `civil_from_days`: years that begin in March, so that the leap day is the last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{millis:03}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// A number of bytes, in the unit in which it has at most four digits.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (1..UNITS.len())
        .take_while(|unit| bytes >> (10 * unit) > 0)
        .last();
    match unit {
        None => format!("{bytes} B"),
        Some(unit) => {
            let tenths = u128::from(bytes) * 10 / (1_u128 << (10 * unit));
            format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
        }
    }
}

/// `1 record`, `2 records`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

/// JSON without characters that could drive a terminal: what JSON itself leaves unescaped of them is escaped, which
/// changes no value.
pub(crate) fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            '\u{7f}'..='\u{9f}' => text.push_str(&format!("\\u{:04x}", u32::from(char))),
            char => text.push(char),
        }
    }
    text
}

/// The payload as JSON, whatever it is. Bytes become `{"$base64": ".."}`, keys that are no text become their JSON; a
/// payload that is no MessagePack is bytes.
pub(crate) fn payload(record: &Record) -> Value {
    match record.decode::<Loose>() {
        Ok(Loose(value)) => value,
        Err(_) => bytes(&record.payload),
    }
}

/// What a record says, in a few words.
pub(crate) fn what(record: &Record, payload: &Value) -> String {
    let Ok(entry) = Entry::read(record) else {
        return summary(payload);
    };
    let name = entry.what.name();
    let detail = match &entry.what {
        What::Effect(Announced::Tool { name, .. } | Announced::Approval { name, .. }) => Some(name.clone()),
        What::Forked(forked) => Some(format!("from {} at {}", forked.from, forked.at)),
        _ => None,
    };
    match detail {
        Some(detail) => format!("{name} {}", brief(&detail, SUMMARY)),
        None => name.to_owned(),
    }
}

/// What a payload is about, in a few words: the name of what happened, where it has one.
pub(crate) fn summary(payload: &Value) -> String {
    let name = |value: &Value| value.as_str().map(str::to_owned);
    let text = match payload {
        Value::Object(map) => match ["type", "chat", "event", "kind", "role", "state"]
            .iter()
            .find_map(|key| map.get(*key).and_then(name))
        {
            Some(name) => name,
            None if map.contains_key("$base64") => "(bytes)".to_owned(),
            None => map.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        },
        Value::Array(items) => format!("({})", counted(items.len() as u64, "item")),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    brief(&text, SUMMARY)
}

/// The beginning of a text, on one line.
pub(crate) fn brief(text: &str, most: usize) -> String {
    let line: String = text
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(most)
        .collect();
    if line.len() < text.len() {
        line + ".."
    } else {
        line
    }
}

/// The first place at which two values differ, as a path.
pub(crate) fn first_difference(left: &Value, right: &Value) -> Option<String> {
    let (mut left, mut right, mut path) = (left, right, String::from("$"));
    // Values nest no deeper than what decoding allows.
    'deeper: loop {
        if left == right {
            return None;
        }
        match (left, right) {
            (Value::Object(one), Value::Object(other)) => {
                for (key, value) in one {
                    match other.get(key) {
                        Some(same) if same == value => {}
                        found => {
                            path.push('.');
                            path.push_str(&brief(key, SUMMARY));
                            let Some(found) = found else { return Some(path) };
                            (left, right) = (value, found);
                            continue 'deeper;
                        }
                    }
                }
                // All of the left is in the right, or only the order differs.
                if let Some(key) = other.keys().find(|key| !one.contains_key(*key)) {
                    path.push('.');
                    path.push_str(&brief(key, SUMMARY));
                }
                return Some(path);
            }
            (Value::Array(one), Value::Array(other)) => {
                let at = one
                    .iter()
                    .zip(other)
                    .take_while(|(one, other)| one == other)
                    .count();
                path.push_str(&format!("[{at}]"));
                match (one.get(at), other.get(at)) {
                    (Some(value), Some(found)) => (left, right) = (value, found),
                    _ => return Some(path),
                }
            }
            _ => return Some(path),
        }
    }
}

fn bytes(bytes: &[u8]) -> Value {
    json!({"$base64": STANDARD.encode(bytes)})
}

/// A value of any form that a payload may have.
struct Loose(Value);

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor).map(Self)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // JSON has no NaN and no infinity.
        Ok(Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(bytes(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Loose::deserialize(deserializer).map(|Loose(value)| value)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Loose::deserialize(deserializer).map(|Loose(value)| value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Loose(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut again: BTreeMap<String, u32> = BTreeMap::new();
        while let Some((Loose(key), Loose(value))) = entries.next_entry()? {
            let key = match key {
                Value::String(key) => key,
                other => other.to_string(),
            };
            // A key that comes twice is hostile, or was two keys; nothing is hidden.
            let mut name = key.clone();
            while map.contains_key(&name) {
                let times = again.entry(key.clone()).or_insert(1);
                *times += 1;
                name = format!("{key}#{times}");
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_civil() {
        for (ms, told) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(time(UnixTime(ms)), told);
        }
        // A hostile time is no panic.
        assert!(time(UnixTime(u64::MAX)).ends_with('Z'));
    }

    #[test]
    fn sizes_have_units() {
        for (bytes, told) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_590, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size(bytes), told);
        }
    }

    #[test]
    fn json_stays_the_same_value_without_control_characters() {
        let value = json!({"a\u{9b}31m": "\u{7f}x\u{85}\u{1b}[2J\u{e9}"});
        let text = harmless(&value.to_string());
        assert!(!text.chars().any(char::is_control), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn the_first_difference_is_a_path() {
        let at = |left, right| first_difference(&left, &right);
        assert_eq!(at(json!({"a": [1]}), json!({"a": [1]})), None);
        assert_eq!(
            at(json!({"a": [1, {"b": 2}]}), json!({"a": [1, {"b": 3}]})),
            Some("$.a[1].b".into())
        );
        assert_eq!(at(json!({"a": 1}), json!({"a": 1, "b": 2})), Some("$.b".into()));
        assert_eq!(at(json!({"a": 1, "b": 2}), json!({"a": 1})), Some("$.b".into()));
        assert_eq!(at(json!([1]), json!([1, 2])), Some("$[1]".into()));
        assert_eq!(at(json!(1), json!("x")), Some("$".into()));
    }

    #[test]
    fn payloads_are_told_in_a_few_words() {
        assert_eq!(
            summary(&json!({"type": "model_answered", "x": 1})),
            "model_answered"
        );
        assert_eq!(summary(&json!({"ModelAnswered": {}})), "ModelAnswered");
        assert_eq!(summary(&json!("a\u{1b}[2J\nb")), "a [2J b");
        assert_eq!(summary(&json!([1])), "(1 item)");
        assert_eq!(summary(&bytes(b"x")), "(bytes)");
    }
}
