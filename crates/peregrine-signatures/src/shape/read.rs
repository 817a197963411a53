//! Reads JSON Schemas (draft 2020-12, as `schemars` writes them for serde types) into nodes.
//!
//! Objects that name their fields are closed unless the schema says otherwise: a model is to write what was asked
//! for. In an output of a Rust type, a field that can be null and has no default must be there: `Option` is a value
//! or `null`, also where serde would take absence for `None`. `oneOf` is read as `anyOf`, since serde takes the first variant that fits. A keyword that constrains and is
//! not known here is an error that names its place, never ignored.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::build::{Builder, schema_error};
use super::{
    Choice, Format, Kind, Length, Limit, ListRule, Node, NodeId, Number, NumberRule, ObjectField, ObjectRule,
    Pattern, Rest, TextRule,
};
use crate::DefinitionError;
use crate::spec::Side;

type Result<T> = std::result::Result<T, DefinitionError>;

const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 10_000;

/// Keywords that describe and do not constrain.
const ANNOTATIONS: [&str; 17] = [
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "discriminator",
    "contentEncoding",
    "contentMediaType",
    "$comment",
    "$schema",
    "$id",
    "$anchor",
    "$defs",
    "definitions",
    "format",
];

/// Keywords that are read below.
const KNOWN: [&str; 25] = [
    "$ref",
    "allOf",
    "anyOf",
    "oneOf",
    "type",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "uniqueItems",
    "properties",
    "required",
    "additionalProperties",
    "unevaluatedProperties",
    "patternProperties",
];
const KNOWN_SIZES: [&str; 2] = ["minProperties", "maxProperties"];

/// One schema with its definitions.
pub(super) struct Document<'v> {
    field: &'v str,
    root: &'v Value,
    /// References that were read, or are being read.
    references: HashMap<String, NodeId>,
    /// Where the reader is, as a JSON pointer.
    place: String,
    depth: usize,
    count: usize,
    /// Whether an `Option` without a default must be there.
    asks_for_options: bool,
}

impl<'v> Document<'v> {
    pub(super) fn new(field: &'v str, root: &'v Value) -> Self {
        Self {
            field,
            root,
            references: HashMap::new(),
            place: "#".to_owned(),
            depth: 0,
            count: 0,
            asks_for_options: false,
        }
    }

    /// The schema of a Rust type.
    pub(super) fn of_rust(field: &'v str, root: &'v Value, side: Side) -> Self {
        Self {
            asks_for_options: side == Side::Output,
            ..Self::new(field, root)
        }
    }

    pub(super) fn read(mut self, builder: &mut Builder) -> Result<NodeId> {
        self.reference(builder, "#")
    }

    fn error(&self, problem: impl Into<String>) -> DefinitionError {
        schema_error(self.field, &self.place, problem)
    }

    fn within<T>(&mut self, steps: &[&str], read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let end = self.place.len();
        for step in steps {
            self.place.push('/');
            self.place.push_str(&step.replace('~', "~0").replace('/', "~1"));
        }
        let done = read(self)?;
        self.place.truncate(end);
        Ok(done)
    }

    /// The node a reference stands for. It exists before it is read, so that types can contain themselves.
    fn reference(&mut self, builder: &mut Builder, reference: &str) -> Result<NodeId> {
        if let Some(id) = self.references.get(reference) {
            return Ok(*id);
        }
        let target = self.resolve(reference)?;
        let id = builder.push(Kind::Any);
        self.references.insert(reference.to_owned(), id);
        let read = self.schema(builder, target)?;
        let Node {
            kind, description, ..
        } = builder.node(read).clone();
        let title = target.get("title").and_then(Value::as_str);
        let name = match reference.rsplit_once('/') {
            Some((_, name)) => name,
            None => title.unwrap_or("Value"),
        };
        *builder.node_mut(id) = Node {
            kind,
            description,
            name: Some(Arc::from(name)),
        };
        Ok(id)
    }

    fn resolve(&self, reference: &str) -> Result<&'v Value> {
        let root: &'v Value = self.root;
        match reference.strip_prefix('#') {
            Some("") => Some(root),
            Some(pointer) => root.pointer(pointer),
            None => None,
        }
        .ok_or_else(|| {
            self.error(format!(
                "`$ref: {reference}` leads nowhere; refer to a place in the same schema"
            ))
        })
    }

    fn schema(&mut self, builder: &mut Builder, schema: &Value) -> Result<NodeId> {
        self.count += 1;
        if self.depth == MAX_DEPTH || self.count > MAX_NODES {
            return Err(self.error("it is nested too deeply or too large: simplify it"));
        }
        self.depth += 1;
        let id = match schema {
            Value::Bool(true) => builder.push(Kind::Any),
            Value::Object(map) => self.object_schema(builder, map)?,
            _ => return Err(self.error("a schema that nothing fits; say which type is expected")),
        };
        self.depth -= 1;
        Ok(id)
    }

    fn object_schema(&mut self, builder: &mut Builder, map: &Map<String, Value>) -> Result<NodeId> {
        if let Some(reference) = map.get("$ref") {
            let reference = reference
                .as_str()
                .ok_or_else(|| self.error("a `$ref` that is no text"))?;
            let is_plain = map.keys().all(|key| key == "$ref" || is_annotation(key));
            if is_plain {
                return self.reference(builder, reference);
            }
            let target = self.resolve(reference)?;
            let target = target
                .as_object()
                .ok_or_else(|| self.error("a `$ref` to no schema object"))?;
            let siblings = without(map, &["$ref"]);
            let merged = self.merged(&siblings, target)?;
            return self.schema(builder, &Value::Object(merged));
        }
        if let Some(all) = map.get("allOf") {
            let parts = all
                .as_array()
                .ok_or_else(|| self.error("an `allOf` that is no list"))?;
            let mut merged = without(map, &["allOf"]);
            for part in parts {
                let part = part
                    .as_object()
                    .ok_or_else(|| self.error("an `allOf` of something else than objects"))?;
                let part = match part.get("$ref").and_then(Value::as_str) {
                    Some(reference) if part.len() == 1 => match self.resolve(reference)? {
                        Value::Object(target) => target.clone(),
                        _ => return Err(self.error("a `$ref` to no schema object")),
                    },
                    _ => part.clone(),
                };
                merged = self.merged(&merged, &part)?;
            }
            return self.schema(builder, &Value::Object(merged));
        }
        let strange = |key: &&String| {
            !is_annotation(key) && !KNOWN.contains(&key.as_str()) && !KNOWN_SIZES.contains(&key.as_str())
        };
        if let Some(key) = map.keys().find(strange) {
            return Err(self.error(format!("`{key}` is not supported here; leave it out")));
        }
        let id = self.kinds(builder, map)?;
        if let Some(description) = text(map, "description")
            && builder.node(id).name.is_none()
        {
            builder.node_mut(id).description = Some(Arc::from(description));
        }
        Ok(id)
    }

    fn kinds(&mut self, builder: &mut Builder, map: &Map<String, Value>) -> Result<NodeId> {
        if let Some(value) = map.get("const") {
            return Ok(builder.push(Kind::OneOf(vec![choice(value)])));
        }
        if let Some(values) = map.get("enum") {
            let values = values.as_array().filter(|values| !values.is_empty());
            let values = values.ok_or_else(|| self.error("an `enum` without values"))?;
            return Ok(builder.push(Kind::OneOf(values.iter().map(choice).collect())));
        }
        for keyword in ["oneOf", "anyOf"] {
            if let Some(variants) = map.get(keyword) {
                return self.variants(builder, keyword, map, variants);
            }
        }
        match map.get("type") {
            Some(Value::String(name)) => self.typed(builder, name, map),
            Some(Value::Array(names)) => {
                let mut variants = Vec::new();
                for name in names {
                    let name = name
                        .as_str()
                        .ok_or_else(|| self.error("a `type` that is no text"))?;
                    variants.push(self.typed(builder, name, map)?);
                }
                match variants.is_empty() {
                    true => Err(self.error("a `type` that lists none")),
                    false => Ok(builder.union(&variants)),
                }
            }
            Some(_) => Err(self.error("a `type` that is no text")),
            None if map.contains_key("properties") || map.contains_key("additionalProperties") => {
                self.typed(builder, "object", map)
            }
            None if map.contains_key("items") || map.contains_key("prefixItems") => {
                self.typed(builder, "array", map)
            }
            None if map.keys().all(|key| is_annotation(key)) => Ok(builder.push(Kind::Any)),
            None => Err(self.error("constraints without a `type`; say which type is expected")),
        }
    }

    /// `oneOf` or `anyOf`. What stands beside it, as `serde(flatten)` of an enum makes it, is part of each variant.
    fn variants(
        &mut self,
        builder: &mut Builder,
        keyword: &str,
        map: &Map<String, Value>,
        variants: &Value,
    ) -> Result<NodeId> {
        let variants = variants.as_array().filter(|variants| !variants.is_empty());
        let variants = variants.ok_or_else(|| self.error(format!("a `{keyword}` without variants")))?;
        let mut base = without(map, &[keyword]);
        base.retain(|key, _| !is_annotation(key));
        if base.contains_key("oneOf") || base.contains_key("anyOf") {
            return Err(
                self.error("two unions at one place, as of two flattened enums; give one a field of its own")
            );
        }
        let mut nodes = Vec::new();
        for (place, variant) in variants.iter().enumerate() {
            let node = self.within(&[keyword, &place.to_string()], |document| {
                if base.is_empty() {
                    return document.schema(builder, variant);
                }
                let variant = variant
                    .as_object()
                    .ok_or_else(|| document.error("a variant that is no object"))?;
                let merged = document.merged(&base, variant)?;
                document.schema(builder, &Value::Object(merged))
            })?;
            nodes.push(node);
        }
        Ok(builder.union(&nodes))
    }

    fn typed(&mut self, builder: &mut Builder, name: &str, map: &Map<String, Value>) -> Result<NodeId> {
        let kind = match name {
            "null" => Kind::Null,
            "boolean" => Kind::Bool,
            "integer" | "number" => Kind::Number(self.number(name == "integer", map)?),
            "string" => Kind::Text(self.text(map)?),
            "array" => self.list(builder, map)?,
            "object" => Kind::Object(self.object(builder, map)?),
            _ => return Err(self.error(format!("`type: {name}` does not exist"))),
        };
        Ok(builder.push(kind))
    }

    fn number(&self, integer: bool, map: &Map<String, Value>) -> Result<NumberRule> {
        let mut rule = NumberRule {
            integer,
            width: integer.then(|| width(text(map, "format"))),
            single: !integer && text(map, "format") == Some("float"),
            ..NumberRule::default()
        };
        for (keyword, exclusive) in [("minimum", false), ("exclusiveMinimum", true)] {
            if let Some(value) = self.limit(map, keyword)? {
                rule.raise_min(Limit { value, exclusive });
            }
        }
        for (keyword, exclusive) in [("maximum", false), ("exclusiveMaximum", true)] {
            if let Some(value) = self.limit(map, keyword)? {
                rule.lower_max(Limit { value, exclusive });
            }
        }
        rule.multiple_of = self.limit(map, "multipleOf")?;
        Ok(rule)
    }

    fn limit(&self, map: &Map<String, Value>, keyword: &str) -> Result<Option<Number>> {
        match map.get(keyword) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(Number::of(number))),
            Some(_) => Err(self.error(format!("a `{keyword}` that is no number"))),
        }
    }

    fn text(&self, map: &Map<String, Value>) -> Result<TextRule> {
        let mut rule = TextRule {
            length: self.length(map, "minLength", "maxLength")?,
            ..TextRule::default()
        };
        if let Some(pattern) = text(map, "pattern") {
            rule.patterns.push(self.pattern(pattern)?);
        }
        if let Some(format) = text(map, "format") {
            rule.format = Format::parse(format);
            rule.hint = rule.format.is_none().then(|| Box::from(format));
        }
        Ok(rule)
    }

    fn pattern(&self, pattern: &str) -> Result<Pattern> {
        Pattern::new(pattern).map_err(|error| self.error(format!("the pattern `{pattern}`: {error}")))
    }

    fn length(&self, map: &Map<String, Value>, min: &str, max: &str) -> Result<Length> {
        let read = |keyword: &str| match map.get(keyword) {
            None => Ok(None),
            Some(value) => match value.as_u64().and_then(|length| usize::try_from(length).ok()) {
                Some(length) => Ok(Some(length)),
                None => Err(self.error(format!("a `{keyword}` that is no length"))),
            },
        };
        Ok(Length {
            min: read(min)?,
            max: read(max)?,
        })
    }

    fn list(&mut self, builder: &mut Builder, map: &Map<String, Value>) -> Result<Kind> {
        if let Some(items) = map.get("prefixItems") {
            let items = items
                .as_array()
                .ok_or_else(|| self.error("`prefixItems` that are no list"))?;
            let length = self.length(map, "minItems", "maxItems")?;
            let is_tuple = length.min == Some(items.len()) && length.max == Some(items.len());
            let is_closed = map.get("items").is_none_or(|rest| *rest == Value::Bool(false));
            if !is_tuple || !is_closed {
                return Err(
                    self.error("`prefixItems` with more or fewer items; say `minItems` and `maxItems`")
                );
            }
            let mut nodes = Vec::new();
            for (place, item) in items.iter().enumerate() {
                nodes.push(self.within(&["prefixItems", &place.to_string()], |d| d.schema(builder, item))?);
            }
            return Ok(Kind::Tuple(nodes));
        }
        let items = match map.get("items") {
            Some(items) => self.within(&["items"], |document| document.schema(builder, items))?,
            None => builder.push(Kind::Any),
        };
        Ok(Kind::List(ListRule {
            items,
            length: self.length(map, "minItems", "maxItems")?,
            unique: map.get("uniqueItems") == Some(&Value::Bool(true)),
        }))
    }

    fn object(&mut self, builder: &mut Builder, map: &Map<String, Value>) -> Result<ObjectRule> {
        let required: Vec<&str> = map
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut fields = Vec::new();
        for (name, property) in map
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let node = self.within(&["properties", name], |document| {
                document.schema(builder, property)
            })?;
            let told = property
                .as_object()
                .and_then(|property| text(property, "description"));
            fields.push(ObjectField {
                name: Arc::from(name.as_str()),
                node,
                required: required.contains(&name.as_str())
                    || (self.asks_for_options && is_plain_option(property)),
                description: told.map(Arc::from),
            });
        }
        if let Some(name) = required
            .iter()
            .find(|name| !fields.iter().any(|field| *field.name == ***name))
        {
            return Err(self.error(format!("`{name}` is required and has no schema")));
        }
        Ok(ObjectRule {
            rest: self.rest(builder, map, fields.is_empty())?,
            fields,
            length: self.length(map, "minProperties", "maxProperties")?,
        })
    }

    fn rest(&mut self, builder: &mut Builder, map: &Map<String, Value>, no_fields: bool) -> Result<Rest> {
        if let Some(patterns) = map.get("patternProperties").and_then(Value::as_object) {
            let mut read = Vec::new();
            for (pattern, schema) in patterns {
                let compiled = self.pattern(pattern)?;
                let node = self.within(&["patternProperties", pattern], |d| d.schema(builder, schema))?;
                read.push((compiled, node));
            }
            return match map.get("additionalProperties") {
                None | Some(Value::Bool(false)) => Ok(Rest::Patterns(read)),
                Some(_) => {
                    Err(self.error("`additionalProperties` beside `patternProperties`; use one of them"))
                }
            };
        }
        let keyword = ["additionalProperties", "unevaluatedProperties"]
            .into_iter()
            .find(|key| map.contains_key(*key));
        match keyword.map(|keyword| (keyword, &map[keyword])) {
            // An object of which nothing is said can hold anything; one that names its fields is closed.
            None if no_fields && !map.contains_key("properties") => Ok(Rest::Open),
            None | Some((_, Value::Bool(false))) => Ok(Rest::Closed),
            Some((_, Value::Bool(true))) => Ok(Rest::Open),
            Some((keyword, schema)) => {
                Ok(Rest::Each(self.within(&[keyword], |document| {
                    document.schema(builder, schema)
                })?))
            }
        }
    }

    /// Two schemas that both hold, as one. Keywords that both have must agree or describe only.
    fn merged(&self, first: &Map<String, Value>, second: &Map<String, Value>) -> Result<Map<String, Value>> {
        let mut merged = first.clone();
        for (key, value) in second {
            let conflict = || {
                self.error(format!(
                    "two different `{key}` for one value; say it in one place"
                ))
            };
            match (key.as_str(), merged.get_mut(key)) {
                (_, None) => {
                    merged.insert(key.clone(), value.clone());
                }
                (_, Some(known)) if known == value || is_annotation(key) => {}
                ("properties", Some(Value::Object(known))) => {
                    for (name, property) in value.as_object().into_iter().flatten() {
                        if known.get(name).is_some_and(|known| known != property) {
                            return Err(conflict());
                        }
                        known.insert(name.clone(), property.clone());
                    }
                }
                ("required", Some(Value::Array(known))) => {
                    for name in value.as_array().into_iter().flatten() {
                        if !known.contains(name) {
                            known.push(name.clone());
                        }
                    }
                }
                _ => return Err(conflict()),
            }
        }
        Ok(merged)
    }
}

fn is_annotation(key: &str) -> bool {
    ANNOTATIONS.contains(&key) || key.starts_with("x-")
}

fn without(map: &Map<String, Value>, keys: &[&str]) -> Map<String, Value> {
    let kept = map.iter().filter(|(key, _)| !keys.contains(&key.as_str()));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Whether the schema of a property is that of an `Option` without a default.
fn is_plain_option(property: &Value) -> bool {
    property.get("default").is_none() && is_nullable(property)
}

fn is_nullable(schema: &Value) -> bool {
    let Value::Object(map) = schema else {
        return *schema == Value::Bool(true);
    };
    let null = |name: &Value| name == "null";
    let is_null_type = match map.get("type") {
        Some(Value::Array(names)) => names.iter().any(null),
        Some(name) => null(name),
        None => map.keys().all(|key| is_annotation(key)),
    };
    let among = |keyword: &str, is_such: fn(&Value) -> bool| {
        let list = map.get(keyword).and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(is_such))
    };
    is_null_type
        || among("enum", Value::is_null)
        || among("anyOf", is_nullable)
        || among("oneOf", is_nullable)
}

fn text<'v>(map: &'v Map<String, Value>, key: &str) -> Option<&'v str> {
    map.get(key).and_then(Value::as_str)
}

fn choice(value: &Value) -> Choice {
    Choice {
        value: value.clone(),
        description: None,
    }
}

/// What an integer type holds, by the format that `schemars` gives it.
fn width(format: Option<&str>) -> (i128, i128) {
    match format {
        Some("int8") => (i128::from(i8::MIN), i128::from(i8::MAX)),
        Some("int16") => (i128::from(i16::MIN), i128::from(i16::MAX)),
        Some("int32") => (i128::from(i32::MIN), i128::from(i32::MAX)),
        Some("int64" | "int") => (i128::from(i64::MIN), i128::from(i64::MAX)),
        Some("uint8") => (0, i128::from(u8::MAX)),
        Some("uint16") => (0, i128::from(u16::MAX)),
        Some("uint32") => (0, i128::from(u32::MAX)),
        Some("uint64" | "uint") => (0, i128::from(u64::MAX)),
        _ => (i128::from(i64::MIN), i128::from(u64::MAX)),
    }
}
