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

use peregrine_core::{JsonSchema, Result};

use super::adapted::AdaptedSchemas;

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

/// Strict forms that were made before.
#[derive(Debug)]
pub(crate) struct StrictCache(AdaptedSchemas);

impl Default for StrictCache {
    fn default() -> Self {
        Self(AdaptedSchemas::new(rewrite::rewrite))
    }
}

impl StrictCache {
    /// The strict form of a schema.
    pub(crate) fn get(&self, schema: &JsonSchema) -> Result<JsonSchema> {
        self.0.get(schema)
    }
}
