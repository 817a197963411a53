//! Schemas rewritten to what a dialect supports, remembered so that each is rewritten once.
//!
//! Invariant: at most [`MAX_SCHEMAS`] are kept; the oldest goes first.

use std::sync::{Arc, Mutex, PoisonError};

use peregrine_core::{JsonSchema, Result};
use serde_json::{Map, Value};

/// How many rewritten schemas a codec keeps.
const MAX_SCHEMAS: usize = 64;

/// Schemas and their rewritten text, oldest first.
type Known = Vec<(JsonSchema, Arc<str>)>;

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

    /// The rewritten schema's text.
    pub(crate) fn text(&self, schema: &JsonSchema) -> Result<Arc<str>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, text)) = known.iter().find(|(key, _)| key == schema) {
            return Ok(Arc::clone(text));
        }
        drop(known);
        let text: Arc<str> = (self.adapt)(schema.value())?.to_string().into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() == MAX_SCHEMAS {
            known.remove(0);
        }
        known.push((schema.clone(), Arc::clone(&text)));
        Ok(text)
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
            assert_eq!(&*schemas.text(&first).unwrap(), r#"{"of":{"type":"string"}}"#);
            schemas.text(&same_text).unwrap();
        }
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);
        for n in 0..2 * MAX_SCHEMAS {
            schemas.text(&JsonSchema::new(json!(n))).unwrap();
        }
        assert_eq!(schemas.known.lock().unwrap().len(), MAX_SCHEMAS);
        schemas.text(&first).unwrap();
        assert_eq!(CALLS.load(Ordering::Relaxed), 2 + 2 * MAX_SCHEMAS);
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
