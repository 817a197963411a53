//! Exact JSON, by `serde_json`, with one rule more: a key that stands twice in an object is a misfit, because one of
//! its values would be lost.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value};

use crate::error::{Violation, ViolationKind};

/// The value; `None` if the text is not JSON.
pub(super) fn parse(text: &str) -> Option<Result<Value, Violation>> {
    let mut duplicate = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Unique(&mut duplicate).deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(match duplicate {
        None => Ok(value),
        Some(problem) => Err(problem),
    })
}

/// A key that stands twice.
pub(super) fn duplicate(key: &str) -> Violation {
    let mut problem = Violation::new(ViolationKind::Duplicate, "one value", "a second one");
    problem.within_key(key);
    problem
}

/// Builds a value and notes the first duplicate key.
struct Unique<'d>(&'d mut Option<Violation>);

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
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
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let known = self.0.is_some();
            let Some(item) = items.next_element_seed(Unique(self.0))? else {
                return Ok(Value::Array(list));
            };
            if let Some(problem) = self.0.as_mut().filter(|_| !known) {
                problem.within_index(list.len());
            }
            list.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let known = self.0.is_some();
            let value = entries.next_value_seed(Unique(self.0))?;
            if let Some(problem) = self.0.as_mut().filter(|_| !known) {
                problem.within_key(&key);
            }
            match map.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(value);
                }
                Entry::Occupied(place) if self.0.is_none() => *self.0 = Some(duplicate(place.key())),
                Entry::Occupied(_) => {}
            }
        }
        Ok(Value::Object(map))
    }
}
