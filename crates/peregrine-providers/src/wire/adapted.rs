//! Schemas rewritten to what a dialect supports, remembered so that each is rewritten once.
//!
//! Invariant: at most [`MAX_SCHEMAS`] are kept; the oldest goes first.

use std::sync::{Arc, Mutex, PoisonError};

use peregrine_core::{JsonSchema, Result};
use serde_json::{Map, Value};

/// How many rewritten schemas a codec keeps.
const MAX_SCHEMAS: usize = 64;

/// A schema whose text, before or after, is longer than this is rewritten at each call, so that the cache stays
/// below 16 MiB.
const MAX_SCHEMA_BYTES: usize = 64 * 1024;

/// Schemas and their rewritten form, oldest first.
type Known = Vec<(JsonSchema, JsonSchema)>;

/// A rewriting and what it gave so far.
#[derive(Clone)]
pub(crate) struct AdaptedSchemas {
    adapt: fn(&Value) -> Result<Value>,
    known: Arc<Mutex<Known>>,
}

impl AdaptedSchemas {
    pub(crate) fn new(adapt: fn(&Value) -> Result<Value>) -> Self {
        Self {
            adapt,
            known: Arc::default(),
        }
    }

    /// The rewritten schema.
    pub(crate) fn get(&self, schema: &JsonSchema) -> Result<JsonSchema> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, rewritten)) = known.iter().find(|(key, _)| key == schema) {
            return Ok(rewritten.clone());
        }
        drop(known);
        // Made outside the lock: the same schema may be made twice, but nobody waits for another's schema.
        let rewritten = JsonSchema::new((self.adapt)(schema.value())?);
        if schema.as_str().len().max(rewritten.as_str().len()) <= MAX_SCHEMA_BYTES {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() == MAX_SCHEMAS {
                known.remove(0);
            }
            known.push((schema.clone(), rewritten.clone()));
        }
        Ok(rewritten)
    }
}

impl std::fmt::Debug for AdaptedSchemas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdaptedSchemas")
    }
}

/// Puts limits that the dialect has no keyword for into the description, where the model reads them.
pub(crate) fn describe(schema: &mut Map<String, Value>, limits: &[(&str, &Value)]) {
    if limits.is_empty() {
        return;
    }
    let limits: Vec<String> = limits
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    let limits = format!("({})", limits.join(", "));
    let text = match schema.get("description").and_then(Value::as_str) {
        Some(text) if !text.is_empty() => format!("{text} {limits}"),
        _ => limits,
    };
    schema.insert("description".to_owned(), Value::String(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static CALLS: AtomicUsize = AtomicUsize::new(0);

    fn wrap(value: &Value) -> Result<Value> {
        CALLS.fetch_add(1, Ordering::Relaxed);
        Ok(json!({"of": value}))
    }

    #[test]
    fn each_schema_is_rewritten_once_and_few_are_kept() {
        let schemas = AdaptedSchemas::new(wrap);
        let first = JsonSchema::new(json!({"type": "string"}));
        for _ in 0..3 {
            let same_text = JsonSchema::new(json!({"type": "string"}));
            assert_eq!(
                schemas.get(&first).unwrap().as_str(),
                r#"{"of":{"type":"string"}}"#
            );
            schemas.get(&same_text).unwrap();
        }
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);
        for n in 0..2 * MAX_SCHEMAS {
            schemas.get(&JsonSchema::new(json!(n))).unwrap();
        }
        assert_eq!(schemas.known.lock().unwrap().len(), MAX_SCHEMAS);
        schemas.get(&first).unwrap();
        assert_eq!(CALLS.load(Ordering::Relaxed), 2 + 2 * MAX_SCHEMAS);
        let long = JsonSchema::new(json!("x".repeat(MAX_SCHEMA_BYTES)));
        schemas.get(&long).unwrap();
        assert!(
            schemas.known.lock().unwrap().iter().all(|(key, _)| *key != long),
            "a long one is not kept"
        );
    }

    #[test]
    fn limits_join_a_description_or_become_one() {
        let mut schema = json!({"description": "An age.", "type": "integer"});
        let limits = [("minimum", &json!(0)), ("maximum", &json!(130))];
        describe(schema.as_object_mut().unwrap(), &limits);
        assert_eq!(
            schema.to_string(),
            r#"{"description":"An age. (minimum: 0, maximum: 130)","type":"integer"}"#
        );
        let mut schema = json!({"type": "string"});
        describe(schema.as_object_mut().unwrap(), &[("pattern", &json!("^a$"))]);
        assert_eq!(
            schema.to_string(),
            r#"{"type":"string","description":"(pattern: \"^a$\")"}"#
        );
    }
}
