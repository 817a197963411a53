//! JSON Schemas, as far as the offline model needs to understand them.
//!
//! A schema is looked at through its references, its `allOf` of one, and its choice between a shape and null;
//! depth is bounded, so a schema that refers to itself ends.

use serde_json::{Map, Value};

/// Schemas are not followed deeper than this.
pub(super) const MAX_DEPTH: usize = 24;

/// A schema within its root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape<'a> {
    root: &'a Value,
    /// The schema that says what the value looks like.
    pub(super) schema: &'a Value,
    /// Null will do too.
    pub(super) nullable: bool,
}

/// What a value is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Object,
    Array,
    Text,
    Number,
    Integer,
    Bool,
    Null,
    /// The schema does not say.
    Any,
}

impl<'a> Shape<'a> {
    pub(super) fn root(root: &'a Value) -> Self {
        Self::within(root, root)
    }

    /// Looks through references and null.
    fn within(root: &'a Value, schema: &'a Value) -> Self {
        let mut shape = Self {
            root,
            schema,
            nullable: false,
        };
        for _ in 0..MAX_DEPTH {
            shape.nullable |= shape.schema.get("nullable") == Some(&Value::Bool(true));
            let next = shape.referred().or_else(|| shape.only_choice());
            match next {
                Some(next) => shape.schema = next,
                None => break,
            }
        }
        if let Some(types) = shape.schema.get("type").and_then(Value::as_array) {
            shape.nullable |= types.iter().any(|word| word == "null");
        }
        shape
    }

    fn referred(&self) -> Option<&'a Value> {
        let pointer = self.schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        self.root.pointer(pointer)
    }

    /// The one alternative beside null of `anyOf` or `oneOf`, or the one schema of `allOf`.
    fn only_choice(&mut self) -> Option<&'a Value> {
        let schema = self.schema;
        if let Some([only]) = schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
            return Some(only);
        }
        let choices = self.choices()?;
        let is_null = |choice: &&Value| choice.get("type") == Some(&Value::from("null"));
        let others: Vec<&Value> = choices.iter().filter(|choice| !is_null(choice)).collect();
        self.nullable |= others.len() < choices.len();
        match others[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The alternatives of `anyOf` or `oneOf`.
    pub(super) fn choices(&self) -> Option<&'a Vec<Value>> {
        ["anyOf", "oneOf"]
            .iter()
            .find_map(|word| self.schema.get(*word)?.as_array())
    }

    /// The shape of a schema within this one.
    pub(super) fn child(&self, schema: &'a Value) -> Self {
        Self::within(self.root, schema)
    }

    pub(super) fn get(&self, keyword: &str) -> Option<&'a Value> {
        self.schema.get(keyword)
    }

    pub(super) fn text(&self, keyword: &str) -> &'a str {
        self.get(keyword).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn number(&self, keyword: &str) -> Option<f64> {
        self.get(keyword).and_then(Value::as_f64)
    }

    pub(super) fn count(&self, keyword: &str) -> Option<usize> {
        self.get(keyword)
            .and_then(Value::as_u64)
            .and_then(|count| usize::try_from(count).ok())
    }

    /// The allowed values, where they are listed.
    pub(super) fn values(&self) -> Option<&'a [Value]> {
        match self.get("const") {
            Some(only) => Some(std::slice::from_ref(only)),
            None => self.get("enum").and_then(Value::as_array).map(Vec::as_slice),
        }
    }

    pub(super) fn properties(&self) -> impl Iterator<Item = (&'a str, Shape<'a>)> + use<'a> {
        let shape = *self;
        let properties: Option<&'a Map<String, Value>> =
            shape.schema.get("properties").and_then(Value::as_object);
        properties
            .into_iter()
            .flatten()
            .map(move |(name, schema)| (name.as_str(), shape.child(schema)))
    }

    pub(super) fn is_required(&self, name: &str) -> bool {
        let required = self.get("required").and_then(Value::as_array);
        required.is_some_and(|required| required.iter().any(|required| required == name))
    }

    /// What the value is to be; the first type that is not null, if there are several.
    pub(super) fn kind(&self) -> Type {
        let word = match self.get("type") {
            Some(Value::String(word)) => Some(word.as_str()),
            Some(Value::Array(words)) => {
                let mut words = words.iter().filter_map(Value::as_str);
                words
                    .clone()
                    .find(|word| *word != "null")
                    .or_else(|| words.next())
            }
            _ => None,
        };
        match word {
            Some("object") => Type::Object,
            Some("array") => Type::Array,
            Some("string") => Type::Text,
            Some("number") => Type::Number,
            Some("integer") => Type::Integer,
            Some("boolean") => Type::Bool,
            Some("null") => Type::Null,
            _ if self.get("properties").is_some() => Type::Object,
            _ if self.get("items").is_some() => Type::Array,
            _ => Type::Any,
        }
    }

    /// Whether a number is within the bounds.
    pub(super) fn admits(&self, value: f64) -> bool {
        let is_multiple = |step: f64| step <= 0.0 || (value / step - (value / step).round()).abs() < 1e-9;
        value.is_finite()
            && self.number("minimum").is_none_or(|least| value >= least)
            && self.number("maximum").is_none_or(|most| value <= most)
            && self.number("exclusiveMinimum").is_none_or(|least| value > least)
            && self.number("exclusiveMaximum").is_none_or(|most| value < most)
            && self.number("multipleOf").is_none_or(is_multiple)
    }

    /// Whether a text is long and short enough.
    pub(super) fn admits_len(&self, text: &str) -> bool {
        let len = text.chars().count();
        self.count("minLength").is_none_or(|least| len >= least)
            && self.count("maxLength").is_none_or(|most| len <= most)
    }
}

/// A number as JSON: whole where the schema, or the text it came from, has it so.
pub(super) fn json_number(value: f64, whole: bool) -> Option<Value> {
    // Beyond 2^53 a float is no longer the whole number that was written.
    if whole && value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
        return Some(Value::from(value as i64));
    }
    (!whole && value.is_finite()).then(|| Value::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_and_nulls_are_looked_through() {
        let root = json!({
            "$defs": {"n": {"type": "integer", "minimum": 3}, "loop": {"$ref": "#/$defs/loop"}},
            "properties": {
                "a": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]},
                "b": {"type": ["string", "null"]},
                "c": {"$ref": "#/$defs/loop"},
                "d": {"allOf": [{"$ref": "#/$defs/n"}]},
                "e": {"anyOf": [{"type": "string"}, {"type": "integer"}]}
            },
            "required": ["a"]
        });
        let shape = Shape::root(&root);
        assert_eq!(
            (shape.kind(), shape.is_required("a"), shape.is_required("b")),
            (Type::Object, true, false)
        );
        let kinds: Vec<_> = shape
            .properties()
            .map(|(name, shape)| (name, shape.kind(), shape.nullable))
            .collect();
        assert_eq!(
            kinds,
            [
                ("a", Type::Integer, true),
                ("b", Type::Text, true),
                ("c", Type::Any, false),
                ("d", Type::Integer, false),
                ("e", Type::Any, false)
            ]
        );
        let (_, a) = shape.properties().next().unwrap();
        assert!(a.admits(3.0) && !a.admits(2.0) && !a.admits(f64::NAN));
        assert_eq!(json_number(3.0, true), Some(json!(3)));
        assert_eq!(json_number(3.5, true), None);
        assert_eq!(json_number(1e300, true), None);
    }
}
