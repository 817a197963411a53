//! How steps are written in JSON, where that is not how they are held.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{OnFailure, Resources, Retries};

pub(super) const fn usual_wait() -> Duration {
    Duration::from_millis(100)
}

pub(super) const fn usual_max_wait() -> Duration {
    Duration::from_secs(30)
}

pub(super) fn no_parameters() -> Value {
    Value::Object(Map::new())
}

/// `null` is absent: structured output of models has no other way to leave something out.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

pub(super) fn parameters<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(no_parameters))
}

pub(super) fn resources<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Resources, D::Error> {
    struct Form;
    impl<'de> Visitor<'de> for Form {
        type Value = Resources;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object with `read` and `write`, or a list of what is written")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Resources, E> {
            Ok(Resources::default())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Resources, A::Error> {
            let write = Vec::deserialize(de::value::SeqAccessDeserializer::new(list))?;
            let read = Vec::new();
            Ok(Resources { read, write })
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Resources, A::Error> {
            Resources::deserialize(de::value::MapAccessDeserializer::new(map))
        }
    }
    deserializer.deserialize_any(Form)
}

pub(super) fn retries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Retries, D::Error> {
    struct Form;
    impl<'de> Visitor<'de> for Form {
        type Value = Retries;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("how many retries there are, or an object with `max`")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Retries, E> {
            Ok(Retries::default())
        }

        fn visit_u64<E: de::Error>(self, max: u64) -> Result<Retries, E> {
            let max =
                u32::try_from(max).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(max), &self))?;
            Ok(Retries::new(max))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Retries, A::Error> {
            Retries::deserialize(de::value::MapAccessDeserializer::new(map))
        }
    }
    deserializer.deserialize_any(Form)
}

/// A whole number of milliseconds, or a number with a unit. Written in milliseconds, or in microseconds with the unit.
pub(super) mod plain_duration {
    use super::{Deserializer, Duration, Form, Serialize, Serializer};

    pub(in crate::step) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if duration.subsec_nanos().is_multiple_of(1_000_000) {
            u64::try_from(duration.as_millis())
                .unwrap_or(u64::MAX)
                .serialize(serializer)
        } else {
            format!("{}us", duration.as_micros()).serialize(serializer)
        }
    }

    pub(in crate::step) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(Form)
    }
}

/// The same, or nothing.
pub(super) mod duration {
    use super::{Deserialize, Deserializer, Duration, Serializer, plain_duration};

    #[derive(Deserialize)]
    struct Plain(#[serde(with = "plain_duration")] Duration);

    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub(in crate::step) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => plain_duration::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::step) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Plain>::deserialize(deserializer)?.map(|Plain(duration)| duration))
    }
}

struct Form;

impl Visitor<'_> for Form {
    type Value = Duration;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            "a whole number of milliseconds, or a number with a unit (us, ms, s, m, h) such as \"1.5s\"",
        )
    }

    fn visit_u64<E: de::Error>(self, milliseconds: u64) -> Result<Duration, E> {
        Ok(Duration::from_millis(milliseconds))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

fn parse(text: &str) -> Option<Duration> {
    let unit = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let number = &text[..unit];
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let seconds = match &text[unit..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    // To the nearest microsecond: what a float adds below that was not meant.
    let exact = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
    let micros = (exact.as_nanos() + 500) / 1_000;
    Some(Duration::from_micros(u64::try_from(micros).ok()?))
}

impl Serialize for OnFailure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fail => "fail".serialize(serializer),
            Self::Abort => "abort".serialize(serializer),
            Self::Optional => "optional".serialize(serializer),
            Self::Fallback(Value::Null) => "continue".serialize(serializer),
            Self::Fallback(value) => serializer.collect_map([("fallback", value)]),
        }
    }
}

impl<'de> Deserialize<'de> for OnFailure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Object {
            fallback: Value,
        }
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = OnFailure;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("`fail`, `abort`, `optional`, `continue`, or an object with `fallback`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OnFailure, E> {
                match text {
                    "fail" => Ok(OnFailure::Fail),
                    "abort" => Ok(OnFailure::Abort),
                    "optional" => Ok(OnFailure::Optional),
                    "continue" => Ok(OnFailure::Fallback(Value::Null)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OnFailure, A::Error> {
                let object = Object::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(OnFailure::Fallback(object.fallback))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Check, CheckPolicy, Step};
    use serde_json::json;

    #[expect(
        clippy::needless_pass_by_value,
        reason = "so that callers write `json!` alone"
    )]
    fn read(more: Value) -> Result<Step, String> {
        let mut step = json!({"id": "a", "action": "x"});
        for (name, value) in more.as_object().unwrap() {
            step[name] = value.clone();
        }
        serde_json::from_str(&step.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn durations_have_two_forms() {
        for (given, expected) in [
            (json!(50), Duration::from_millis(50)),
            (json!("50ms"), Duration::from_millis(50)),
            (json!("1.5s"), Duration::from_millis(1500)),
            (json!("7us"), Duration::from_micros(7)),
            (json!("2m"), Duration::from_secs(120)),
            (json!("0.1s"), Duration::from_millis(100)),
            (json!("1h"), Duration::from_secs(3600)),
        ] {
            let step = read(json!({"timeout": given})).unwrap();
            assert_eq!(step.timeout, Some(expected), "{given}");
            let again: Step = serde_json::from_value(serde_json::to_value(&step).unwrap()).unwrap();
            assert_eq!(again, step);
        }
        assert_eq!(read(json!({"timeout": null})).unwrap().timeout, None);
        for wrong in [
            json!(0.5),
            json!(-1),
            json!("5"),
            json!("5 s"),
            json!("s"),
            json!("1e3s"),
            json!("1.2.3s"),
        ] {
            let error = read(json!({"timeout": wrong})).unwrap_err();
            assert!(error.contains("a whole number of milliseconds"), "{error}");
        }
    }

    #[test]
    fn what_is_null_is_absent_and_what_is_unknown_is_named() {
        let nulls = json!({"parameters": null, "depends_on": null, "resources": null, "timeout": null,
            "retries": null, "on_failure": null, "checks": null, "estimate": null});
        assert_eq!(read(nulls), Ok(Step::new("a", "x")));
        assert!(
            read(json!({"dependson": []}))
                .unwrap_err()
                .contains("unknown field `dependson`")
        );
        assert!(
            read(json!({"resources": {"reads": []}}))
                .unwrap_err()
                .contains("`reads`")
        );
        assert!(
            read(json!({"retries": {"max": 1, "often": true}}))
                .unwrap_err()
                .contains("`often`")
        );
        assert!(
            read(json!({"on_failure": "explode"}))
                .unwrap_err()
                .contains("`continue`")
        );
        assert!(read(json!({"on_failure": {"fallback": 1, "x": 2}})).is_err());
    }

    #[test]
    fn short_forms_mean_what_the_long_ones_do() {
        let step = read(
            json!({"resources": ["db"], "retries": 3, "on_failure": "continue",
            "checks": [{"action": "v", "policy": "gate_effects"}]}),
        );
        let expected = Step::new("a", "x")
            .writing("db")
            .with_retries(Retries::new(3))
            .with_on_failure(OnFailure::Fallback(Value::Null))
            .with_check(Check::new("v").with_policy(CheckPolicy::GateEffects));
        assert_eq!(step, Ok(expected.clone()));
        let again: Step = serde_json::from_value(serde_json::to_value(&expected).unwrap()).unwrap();
        assert_eq!(again, expected);
        let object = read(json!({"retries": {"max": 2, "wait": "1s", "panics": true},
            "on_failure": {"fallback": [1]}, "resources": {"read": ["f"]}}));
        let expected = Step::new("a", "x")
            .reading("f")
            .with_retries(
                Retries::new(2)
                    .with_wait(Duration::from_secs(1))
                    .with_panics(true),
            )
            .with_on_failure(OnFailure::Fallback(json!([1])));
        assert_eq!(object, Ok(expected));
    }

    #[test]
    fn waits_double_up_to_the_longest_and_never_overflow() {
        let retries = Retries::new(99);
        for seed in [0, 1, u64::MAX] {
            for (attempt, longest) in [
                (1, 100),
                (2, 200),
                (5, 1_600),
                (9, 25_600),
                (10, 30_000),
                (u32::MAX, 30_000),
            ] {
                let wait = retries.wait_after(attempt, seed);
                let longest = Duration::from_millis(longest);
                assert!(wait <= longest && wait >= longest / 2, "{attempt}: {wait:?}");
            }
        }
        assert_eq!(retries.wait_after(3, 9), retries.wait_after(3, 9));
        assert!((0..64).any(|seed| retries.wait_after(1, seed) != retries.wait_after(1, 0)));
    }
}
