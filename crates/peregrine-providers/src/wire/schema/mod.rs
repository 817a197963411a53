//! JSON Schemas as strict structured output takes them.
//!
//! A provider that guarantees that an answer fits a schema supports a part of JSON Schema only. [`strict`]
//! turns a schema into that part, or says what stands in the way and where. The rules are those of OpenAI's
//! structured outputs, which compatible servers share.
//!
//! - Every object gets `additionalProperties: false`, and all its properties are required; the ones that were
//!   optional may be `null` instead. **Whoever reads the answer must treat `null` as absence there.**
//! - A `$ref` with other keywords beside it is replaced by what it refers to; an `allOf` of one is flattened;
//!   `oneOf` becomes `anyOf`; `default: null` and unknown `format`s, which constrain nothing, are dropped.
//! - Constraints that can only be asked for, not guaranteed (`minLength`, `uniqueItems` ..), move into the
//!   description.
//! - What cannot be said is an error that names the place: several `allOf`, `not`, `if`/`then`/`else`,
//!   `dependent*`, `patternProperties`, maps, tuples.
//!
//! The order of properties, which models follow when they write, is kept.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use peregrine_core::{JsonSchema, Result};

mod rewrite;

/// Turns a schema into the form that strict structured output takes.
///
/// # Examples
///
/// ```
/// use peregrine_core::JsonSchema;
/// use peregrine_providers::wire::schema::strict;
///
/// let schema = JsonSchema::parse(
///     r#"{"type":"object","properties":{"city":{"type":"string"},"zip":{"type":"string"}},"required":["city"]}"#,
/// )?;
/// assert_eq!(
///     strict(&schema)?.as_str(),
///     r#"{"type":"object","properties":{"city":{"type":"string"},"zip":{"type":["string","null"]}},"required":["city","zip"],"additionalProperties":false}"#,
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`InvalidRequest`](peregrine_core::ErrorKind::InvalidRequest) that names the keyword and its place.
///
/// # Performance
///
/// Linear in the size of the result, which is bounded to 20,000 subschemas and 64 levels.
pub fn strict(schema: &JsonSchema) -> Result<JsonSchema> {
    rewrite::rewrite(schema.value()).map(JsonSchema::new)
}

/// How many schemas a cache holds, and how long a schema it holds at most, so that it stays below 16 MiB.
const MAX_CACHED: usize = 64;
const MAX_CACHED_BYTES: usize = 64 * 1024;

/// Strict forms that were made before: a short list, searched by identity and text, oldest out first.
#[derive(Debug, Default)]
pub(crate) struct StrictCache(Mutex<VecDeque<(JsonSchema, JsonSchema)>>);

impl StrictCache {
    /// The strict form of a schema.
    pub(crate) fn get(&self, schema: &JsonSchema) -> Result<JsonSchema> {
        if let Some(known) = self.find(schema) {
            return Ok(known);
        }
        // Made outside the lock: the same schema may be made twice, but nobody waits for another's schema.
        let made = strict(schema)?;
        if schema.as_str().len().max(made.as_str().len()) <= MAX_CACHED_BYTES {
            let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            entries.truncate(MAX_CACHED - 1);
            entries.push_front((schema.clone(), made.clone()));
        }
        Ok(made)
    }

    fn find(&self, schema: &JsonSchema) -> Option<JsonSchema> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .find(|(known, _)| known == schema)
            .map(|(_, made)| made.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_cache_makes_a_form_once_and_stays_small() {
        let cache = StrictCache::default();
        let schema = JsonSchema::new(json!({"type": "object", "properties": {"a": {"type": "string"}}}));
        let made = cache.get(&schema).unwrap();
        let again = cache.get(&JsonSchema::parse(schema.as_str()).unwrap()).unwrap();
        assert!(
            std::ptr::eq(made.as_str(), again.as_str()),
            "the same text is not transformed again"
        );
        for n in 0..200 {
            cache
                .get(&JsonSchema::new(json!({"type": "object", "title": n})))
                .unwrap();
        }
        assert_eq!(cache.0.lock().unwrap().len(), MAX_CACHED);
        let long = json!({"type": "object", "description": "x".repeat(MAX_CACHED_BYTES)});
        cache.get(&JsonSchema::new(long.clone())).unwrap();
        assert!(cache.find(&JsonSchema::new(long)).is_none());
        assert!(cache.get(&JsonSchema::new(json!({"type": "string"}))).is_err());
    }
}
