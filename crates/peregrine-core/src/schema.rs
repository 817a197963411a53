//! A JSON Schema, kept as the text its author wrote and as a value.
//!
//! Invariant: the text is what codecs send when they need no change, byte for byte, so the order of
//! properties (which models follow when they write) is the author's.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A JSON Schema (draft 2020-12 unless it says otherwise). Cheap to clone.
///
/// # Examples
///
/// ```
/// use peregrine_core::JsonSchema;
///
/// let schema = JsonSchema::parse(r#"{"type":"object","properties":{"city":{"type":"string"}}}"#)?;
/// assert_eq!(schema.value()["type"], "object");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone)]
pub struct JsonSchema(Arc<Inner>);

struct Inner {
    text: String,
    value: Value,
}

impl JsonSchema {
    /// Reads a schema from its text and keeps the text.
    ///
    /// # Errors
    ///
    /// The JSON error if the text is not JSON.
    pub fn parse(text: impl Into<String>) -> Result<Self, serde_json::Error> {
        let text = text.into();
        let value = serde_json::from_str(&text)?;
        Ok(Self(Arc::new(Inner { text, value })))
    }

    /// Takes a schema as a value; its text is the compact form in the value's own order.
    pub fn new(value: Value) -> Self {
        Self(Arc::new(Inner {
            text: value.to_string(),
            value,
        }))
    }

    /// The schema of an object without properties.
    pub fn empty_object() -> Self {
        Self::new(serde_json::json!({"type": "object", "properties": {}}))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The value.
    pub fn value(&self) -> &Value {
        &self.0.value
    }
}

impl From<Value> for JsonSchema {
    fn from(value: Value) -> Self {
        Self::new(value)
    }
}

impl PartialEq for JsonSchema {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.text == other.0.text
    }
}

impl Eq for JsonSchema {}

impl std::fmt::Debug for JsonSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl Serialize for JsonSchema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonSchema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::new)
    }
}
