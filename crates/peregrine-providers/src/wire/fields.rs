//! The fields of a JSON object, cut apart but not read: for objects of which some parts must stay as they
//! came (arguments of tool calls, fields of tomorrow), and of which one odd field must not spoil the others.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Names and unread values, in the order of the text.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// The text of a field that is not `null`.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.0.iter().rev().find(|(key, _)| key == name)?;
        Some(*value).filter(|value| value.get() != "null")
    }

    /// A field of this shape.
    pub(crate) fn read<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// A text that is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.read::<String>(name).filter(|text| !text.is_empty())
    }

    /// All fields but these, as a value; `None` if there are none.
    pub(crate) fn beside(&self, names: &[&str]) -> Option<Value> {
        let rest: Map<String, Value> = self
            .0
            .iter()
            .filter(|(key, _)| !names.contains(&key.as_ref()))
            .filter_map(|(key, value)| Some((key.to_string(), serde_json::from_str(value.get()).ok()?)))
            .collect();
        (!rest.is_empty()).then_some(Value::Object(rest))
    }

    /// The names, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_ref())
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Cut)
    }
}

struct Cut;

impl<'de> Visitor<'de> for Cut {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::with_capacity(map.size_hint().unwrap_or(4));
        while let Some(Name(name)) = map.next_key()? {
            fields.push((name, map.next_value()?));
        }
        Ok(Fields(fields))
    }
}

/// A name that is borrowed where it holds no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The arguments of a tool call as the text that a call keeps: an object compacted, a string as its content,
/// `{}` for nothing.
pub(crate) fn arguments(raw: Option<&RawValue>) -> String {
    let Some(raw) = raw else { return "{}".to_owned() };
    let text = match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => text,
        Err(_) => return super::json::compact(raw.get()),
    };
    if text.trim().is_empty() {
        return "{}".to_owned();
    }
    super::json::compact(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_cut_apart_and_read_one_by_one() {
        let text = r#"{"a\n":1,"n":null,"t":"x","e":"","odd":[1,{"b": 2.50}],"t":"y"}"#;
        let fields: Fields<'_> = serde_json::from_str(text).unwrap();
        assert_eq!(
            fields.names().collect::<Vec<_>>(),
            ["a\n", "n", "t", "e", "odd", "t"]
        );
        assert_eq!(fields.text("t").as_deref(), Some("y"), "the last one counts");
        assert_eq!(
            (fields.text("e"), fields.text("odd"), fields.text("n")),
            (None, None, None)
        );
        assert_eq!(fields.read::<u8>("a\n"), Some(1));
        assert_eq!(fields.get("odd").unwrap().get(), r#"[1,{"b": 2.50}]"#);
        assert_eq!(
            fields.beside(&["a\n", "odd", "t", "e"]),
            Some(serde_json::json!({"n": null}))
        );
        assert!(serde_json::from_str::<Fields<'_>>("[]").is_err());
    }

    #[test]
    fn arguments_of_every_shape() {
        let read = |text: &str| arguments(Some(serde_json::from_str::<&RawValue>(text).unwrap()));
        assert_eq!(read(r#"{ "a": [1.50, "x y"] }"#), r#"{"a":[1.50,"x y"]}"#);
        assert_eq!(read(r#""{ \"a\": 1 }""#), r#"{"a":1}"#);
        assert_eq!(read(r#""""#), "{}");
        assert_eq!(read(r#""{ broken""#), "{ broken");
        assert_eq!(arguments(None), "{}");
    }
}
