//! Writes a shape as a JSON Schema for providers.
//!
//! The same shape gives the same bytes. Types that do not contain themselves are written where they are used, because
//! some providers take no keywords beside a `$ref`; types that do become definitions. Formats and limits that only
//! restate a machine type are left out.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{Kind, Length, Limit, NodeId, NumberRule, ObjectRule, Rest, Shape, TextRule};

/// How many schemas one schema may hold; writing types where they are used can multiply them.
const MAX_SCHEMAS: usize = 20_000;

impl Shape {
    /// The JSON Schema; `None` if it would be too large.
    pub(crate) fn to_json_schema(&self) -> Option<Value> {
        let mut writer = Writer {
            shape: self,
            recursive: self.recursive(),
            names: HashMap::new(),
            definitions: Map::new(),
            left: MAX_SCHEMAS,
        };
        let mut schema = writer.inline(self.root, None)?;
        if !writer.definitions.is_empty() {
            schema.insert("$defs".to_owned(), Value::Object(writer.definitions));
        }
        Some(Value::Object(schema))
    }
}

struct Writer<'s> {
    shape: &'s Shape,
    recursive: Vec<bool>,
    names: HashMap<NodeId, String>,
    definitions: Map<String, Value>,
    left: usize,
}

impl Writer<'_> {
    fn write(&mut self, id: NodeId, description: Option<&str>) -> Option<Value> {
        // Only named types become definitions: every cycle goes through one, since only a reference can close it.
        let node = self.shape.node(id);
        let Some(name) = node.name.as_deref().filter(|_| self.recursive[id.0 as usize]) else {
            return self.inline(id, description).map(Value::Object);
        };
        if !self.names.contains_key(&id) {
            let free = (1..).map(|n| {
                if n == 1 {
                    name.to_owned()
                } else {
                    format!("{name}{n}")
                }
            });
            let name = free
                .into_iter()
                .find(|name| !self.definitions.contains_key(name))?;
            // Its place is taken before it is written, because it leads to itself.
            self.definitions.insert(name.clone(), Value::Null);
            self.names.insert(id, name.clone());
            let schema = self.inline(id, None)?;
            self.definitions.insert(name, Value::Object(schema));
        }
        Some(json!({"$ref": format!("#/$defs/{}", self.names[&id])}))
    }

    fn inline(&mut self, id: NodeId, description: Option<&str>) -> Option<Map<String, Value>> {
        self.left = self.left.checked_sub(1)?;
        let node = self.shape.node(id);
        let mut out = Map::new();
        let mut description = description
            .or(node.description.as_deref())
            .unwrap_or_default()
            .to_owned();
        match &node.kind {
            Kind::Any => {}
            Kind::Null => put(&mut out, "type", "null"),
            Kind::Bool => put(&mut out, "type", "boolean"),
            Kind::Number(rule) => number(&mut out, rule),
            Kind::Text(rule) => text(&mut out, rule),
            Kind::OneOf(choices) => {
                if let Some(name) = common_type(choices.iter().map(|choice| &choice.value)) {
                    put(&mut out, "type", name);
                }
                let values: Vec<Value> = choices.iter().map(|choice| choice.value.clone()).collect();
                put(&mut out, "enum", values);
                for choice in choices {
                    if let Some(told) = &choice.description {
                        let line = format!("{}: {told}", choice.value);
                        description = if description.is_empty() {
                            line
                        } else {
                            format!("{description}\n{line}")
                        };
                    }
                }
            }
            Kind::List(rule) => {
                put(&mut out, "type", "array");
                let items = self.write(rule.items, None)?;
                put(&mut out, "items", items);
                length(&mut out, rule.length, "minItems", "maxItems");
                if rule.unique {
                    put(&mut out, "uniqueItems", true);
                }
            }
            Kind::Tuple(nodes) => {
                put(&mut out, "type", "array");
                let items: Vec<Value> = nodes
                    .iter()
                    .map(|node| self.write(*node, None))
                    .collect::<Option<_>>()?;
                put(&mut out, "prefixItems", items);
                put(&mut out, "minItems", nodes.len());
                put(&mut out, "maxItems", nodes.len());
            }
            Kind::Object(rule) => self.object(&mut out, rule)?,
            Kind::Union(variants) => self.union(&mut out, variants)?,
        }
        if !description.is_empty() {
            // Beside the type, where a reader looks first.
            out.shift_insert(
                usize::from(out.contains_key("type")),
                "description".to_owned(),
                description.into(),
            );
        }
        Some(out)
    }

    fn object(&mut self, out: &mut Map<String, Value>, rule: &ObjectRule) -> Option<()> {
        put(out, "type", "object");
        if !rule.fields.is_empty() || matches!(rule.rest, Rest::Closed) {
            let mut properties = Map::new();
            for field in &rule.fields {
                let schema = self.write(field.node, field.description.as_deref())?;
                properties.insert(field.name.to_string(), schema);
            }
            put(out, "properties", properties);
            let required: Vec<&str> = rule
                .fields
                .iter()
                .filter(|field| field.required)
                .map(|field| &*field.name)
                .collect();
            put(out, "required", required);
        }
        match &rule.rest {
            Rest::Closed => put(out, "additionalProperties", false),
            Rest::Open => put(out, "additionalProperties", true),
            Rest::Each(node) => {
                let values = self.write(*node, None)?;
                put(out, "additionalProperties", values);
            }
            Rest::Patterns(patterns) => {
                let mut written = Map::new();
                for (pattern, node) in patterns {
                    written.insert(pattern.as_str().to_owned(), self.write(*node, None)?);
                }
                put(out, "patternProperties", written);
                put(out, "additionalProperties", false);
            }
        }
        length(out, rule.length, "minProperties", "maxProperties");
        Some(())
    }

    /// `X or null` of a plain type is `type: [X, null]`, the form that every provider takes; else `anyOf`.
    fn union(&mut self, out: &mut Map<String, Value>, variants: &[NodeId]) -> Option<()> {
        let mut written = Vec::new();
        for variant in variants {
            written.push(self.write(*variant, None)?);
        }
        if let [Value::Object(plain), null] = written.as_slice()
            && *null == json!({"type": "null"})
            && !plain.contains_key("enum")
            && let Some(name @ Value::String(_)) = plain.get("type")
        {
            let both = json!([name, "null"]);
            *out = plain.clone();
            put(out, "type", both);
            return Some(());
        }
        put(out, "anyOf", written);
        Some(())
    }
}

fn put(out: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    out.insert(key.to_owned(), value.into());
}

fn number(out: &mut Map<String, Value>, rule: &NumberRule) {
    put(out, "type", if rule.integer { "integer" } else { "number" });
    let limit = |out: &mut Map<String, Value>, limit: Option<Limit>, inclusive: &str, exclusive: &str| {
        if let Some(Limit {
            value,
            exclusive: is_exclusive,
        }) = limit
        {
            put(
                out,
                if is_exclusive { exclusive } else { inclusive },
                value.to_json(),
            );
        }
    };
    limit(out, rule.min, "minimum", "exclusiveMinimum");
    limit(out, rule.max, "maximum", "exclusiveMaximum");
    if let Some(step) = rule.multiple_of {
        put(out, "multipleOf", step.to_json());
    }
}

fn text(out: &mut Map<String, Value>, rule: &TextRule) {
    put(out, "type", "string");
    length(out, rule.length, "minLength", "maxLength");
    match rule.patterns.as_slice() {
        [] => {}
        // One keyword holds one pattern; the others are checked here all the same.
        [first, ..] => put(out, "pattern", first.as_str()),
    }
    match (rule.format, &rule.hint) {
        (Some(format), _) => put(out, "format", format.name()),
        (None, Some(hint)) => put(out, "format", &**hint),
        (None, None) => {}
    }
}

fn length(out: &mut Map<String, Value>, length: Length, min: &str, max: &str) {
    if let Some(value) = length.min {
        put(out, min, value);
    }
    if let Some(value) = length.max {
        put(out, max, value);
    }
}

fn common_type<'v>(mut values: impl Iterator<Item = &'v Value>) -> Option<&'static str> {
    let name = |value: &Value| match value {
        Value::String(_) => Some("string"),
        Value::Bool(_) => Some("boolean"),
        Value::Number(number) if number.is_f64() => Some("number"),
        Value::Number(_) => Some("integer"),
        _ => None,
    };
    let first = name(values.next()?)?;
    values.all(|value| name(value) == Some(first)).then_some(first)
}
