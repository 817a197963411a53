//! The rewriting behind [`strict`](super::strict).
//!
//! Algorithm: one walk from the root. At each subschema, `allOf` of one and `$ref` with siblings are merged into
//! it until neither is left; then its keywords are checked and rewritten in place, and its children walked.
//! A reference that is being inlined already stands as `anyOf: [{$ref}]` instead, so recursive types end. Depth
//! and number of subschemas are bounded, because inlining can multiply them.

use peregrine_core::{Error, Result};
use serde_json::{Map, Value, json};

const MAX_DEPTH: usize = 64;
const MAX_SUBSCHEMAS: usize = 20_000;

/// Keywords that strict structured output cannot guarantee and that change what fits.
const UNSUPPORTED: [&str; 17] = [
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "patternProperties",
    "propertyNames",
    "unevaluatedProperties",
    "unevaluatedItems",
    "prefixItems",
    "additionalItems",
    "contains",
    "$dynamicRef",
    "$recursiveRef",
    "allOf",
];

/// Constraints that are told to the model in words.
const TOLD: [&str; 5] = [
    "minLength",
    "maxLength",
    "uniqueItems",
    "minProperties",
    "maxProperties",
];

/// Formats that strict structured output knows.
const FORMATS: [&str; 9] = [
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
];

/// Keywords that describe and do not constrain: of two, the outer one counts.
const ANNOTATIONS: [&str; 11] = [
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
    "$schema",
    "$id",
    "$defs",
];

/// Rewrites a whole schema.
pub(super) fn rewrite(root: &Value) -> Result<Value> {
    let mut walk = Walk {
        root,
        path: "#".to_owned(),
        depth: 0,
        subschemas: 0,
        inlining: Vec::new(),
    };
    let Value::Object(schema) = walk.subschema(root)? else {
        return Err(walk.error("the root", "a strict schema is an object"));
    };
    if schema.contains_key("anyOf") || !says_type(&schema, "object") {
        return Err(walk.error(
            "the root",
            "the root of a strict schema has `type: object` and no union",
        ));
    }
    Ok(Value::Object(schema))
}

struct Walk<'a> {
    root: &'a Value,
    /// Where the walk is, as a JSON pointer.
    path: String,
    depth: usize,
    subschemas: usize,
    /// The references whose targets are being walked in place of them.
    inlining: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    fn error(&self, what: &str, help: &str) -> Error {
        Error::invalid_request(format!(
            "{what} at {} does not work in a strict schema; {help}, or do not ask for strict",
            self.path
        ))
    }

    /// Walks a child under the name `step`.
    fn child(&mut self, step: &str, schema: &'a Value) -> Result<Value> {
        let end = self.path.len();
        self.path.push('/');
        self.path.push_str(&step.replace('~', "~0").replace('/', "~1"));
        let rewritten = self.subschema(schema)?;
        self.path.truncate(end);
        Ok(rewritten)
    }

    fn grandchild(&mut self, keyword: &str, step: &str, schema: &'a Value) -> Result<Value> {
        let end = self.path.len();
        self.path.push('/');
        self.path.push_str(keyword);
        let rewritten = self.child(step, schema)?;
        self.path.truncate(end);
        Ok(rewritten)
    }

    fn subschema(&mut self, schema: &'a Value) -> Result<Value> {
        self.depth += 1;
        self.subschemas += 1;
        if self.depth > MAX_DEPTH || self.subschemas > MAX_SUBSCHEMAS {
            return Err(self.error("the schema", "it is nested too deeply or too large: simplify it"));
        }
        let Value::Object(schema) = schema else {
            return Err(self.error("a schema that is no object", "say which type is expected"));
        };
        let inlined_outside = self.inlining.len();
        let (flat, recursive) = self.flatten(schema)?;
        let rewritten = self.keywords(&flat, recursive)?;
        self.inlining.truncate(inlined_outside);
        self.depth -= 1;
        Ok(Value::Object(rewritten))
    }

    /// Merges `allOf` of one and `$ref` with siblings into the schema. The second value is a recursive
    /// reference that must stay.
    fn flatten(&mut self, schema: &'a Map<String, Value>) -> Result<(Fields<'a>, Option<&'a str>)> {
        let mut fields: Fields<'a> = schema
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        loop {
            if let Some(place) = place(&fields, "allOf") {
                let (_, all) = fields.remove(place);
                match all.as_array().map(Vec::as_slice) {
                    Some([]) => {}
                    Some([Value::Object(only)]) => self.merge(&mut fields, place, only)?,
                    _ => return Err(self.error("`allOf` of several", "merge them into one schema")),
                }
                continue;
            }
            let Some(place) = place(&fields, "$ref") else {
                return Ok((fields, None));
            };
            let Some(reference) = fields[place].1.as_str() else {
                return Err(self.error("a `$ref` that is no text", "refer to a place in the schema"));
            };
            let target = self.resolve(reference)?;
            if fields.len() == 1 {
                return Ok((fields, None));
            }
            fields.remove(place);
            if self.inlining.contains(&reference) {
                return Ok((fields, Some(reference)));
            }
            if self.inlining.len() == MAX_DEPTH {
                return Err(self.error("the `$ref`", "it refers to a reference to a reference, too often"));
            }
            self.inlining.push(reference);
            self.merge(&mut fields, place, target)?;
        }
    }

    /// Puts the fields of `inner` at `place`. Fields that both have must agree, or describe only.
    fn merge(&self, fields: &mut Fields<'a>, place: usize, inner: &'a Map<String, Value>) -> Result<()> {
        let mut added = Fields::new();
        for (name, value) in inner {
            match fields.iter().find(|(known, _)| known == name) {
                None => added.push((name, value)),
                Some((_, outer)) if *outer == value || ANNOTATIONS.contains(&name.as_str()) => {}
                Some(_) => {
                    let what = format!("`{name}` beside a reference that also has one");
                    return Err(self.error(&what, "say it in one place"));
                }
            }
        }
        fields.splice(place..place, added);
        Ok(())
    }

    fn resolve(&self, reference: &str) -> Result<&'a Map<String, Value>> {
        let target = match reference.strip_prefix('#') {
            Some("") => Some(self.root),
            // Pointers in a fragment are percent-encoded; names that need it are rare and not supported.
            Some(pointer) => self.root.pointer(pointer),
            None => None,
        };
        target.and_then(Value::as_object).ok_or_else(|| {
            self.error(
                &format!("`$ref: {reference}`"),
                "refer to a place in the same schema",
            )
        })
    }

    fn keywords(&mut self, fields: &Fields<'a>, recursive: Option<&str>) -> Result<Map<String, Value>> {
        let get = |name: &str| {
            fields
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| *value)
        };
        if let Some((name, _)) = fields.iter().find(|(name, _)| UNSUPPORTED.contains(name)) {
            return Err(self.error(&format!("`{name}`"), "leave it out"));
        }
        let mut out = Map::new();
        let mut told = Vec::new();
        for (name, value) in fields.iter().copied() {
            let rewritten = match name {
                "discriminator" => continue,
                "default" if value.is_null() => continue,
                "uniqueItems" if *value == Value::Bool(false) => continue,
                // Filled in below; standing here already, they keep their places.
                "properties" | "required" | "additionalProperties" => Value::Null,
                "format" if !value.as_str().is_some_and(|format| FORMATS.contains(&format)) => continue,
                told_name if TOLD.contains(&told_name) => {
                    told.push(format!("{name}: {value}"));
                    continue;
                }
                "items" => self.child(name, value)?,
                "$defs" | "definitions" => self.definitions(name, value)?,
                "anyOf" | "oneOf" => {
                    if recursive.is_some() || (name == "oneOf" && get("anyOf").is_some()) {
                        return Err(self.error(&format!("`{name}` beside another union"), "use one union"));
                    }
                    out.insert("anyOf".to_owned(), self.union(name, value)?);
                    continue;
                }
                _ if recursive.is_some() && !ANNOTATIONS.contains(&name) => {
                    return Err(self.error(&format!("`{name}` beside a recursive `$ref`"), "leave it out"));
                }
                _ => value.clone(),
            };
            out.insert(name.to_owned(), rewritten);
        }
        if let Some(reference) = recursive {
            out.insert("anyOf".to_owned(), json!([{"$ref": reference}]));
        }
        if !told.is_empty() {
            tell(&mut out, &told.join(", "));
        }
        let of_objects = ["properties", "required", "additionalProperties"];
        if says_type(&out, "object") || of_objects.iter().any(|name| out.contains_key(*name)) {
            self.object(
                &mut out,
                get("properties"),
                get("required"),
                get("additionalProperties"),
            )?;
        }
        Ok(out)
    }

    fn definitions(&mut self, keyword: &str, value: &'a Value) -> Result<Value> {
        let Value::Object(definitions) = value else {
            return Err(self.error(&format!("`{keyword}` that is no object"), "name each definition"));
        };
        let mut out = Map::new();
        for (name, definition) in definitions {
            out.insert(name.clone(), self.grandchild(keyword, name, definition)?);
        }
        Ok(Value::Object(out))
    }

    fn union(&mut self, keyword: &str, value: &'a Value) -> Result<Value> {
        let Value::Array(variants) = value else {
            return Err(self.error(&format!("`{keyword}` that is no list"), "list the variants"));
        };
        let variants = variants.iter().enumerate();
        variants
            .map(|(place, variant)| self.grandchild(keyword, &place.to_string(), variant))
            .collect::<Result<Vec<_>>>()
            .map(Value::Array)
    }

    fn object(
        &mut self,
        out: &mut Map<String, Value>,
        properties: Option<&'a Value>,
        required: Option<&'a Value>,
        additional: Option<&'a Value>,
    ) -> Result<()> {
        let empty = properties.and_then(Value::as_object).is_none_or(Map::is_empty);
        match additional {
            Some(Value::Object(schema)) if !schema.is_empty() => {
                return Err(self.error(
                    "a map (`additionalProperties` with a schema)",
                    "use a list of pairs",
                ));
            }
            Some(Value::Object(_) | Value::Bool(true)) if empty => {
                return Err(self.error("an object of any properties", "name its properties"));
            }
            _ => {}
        }
        let required: Vec<&str> = required
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut named = Map::new();
        match properties {
            Some(Value::Object(properties)) => {
                for (name, property) in properties {
                    let mut rewritten = self.grandchild("properties", name, property)?;
                    if !required.contains(&name.as_str()) {
                        allow_null(&mut rewritten);
                    }
                    named.insert(name.clone(), rewritten);
                }
            }
            None => {}
            Some(_) => return Err(self.error("`properties` that are no object", "name each property")),
        }
        if let Some(unknown) = required.iter().find(|name| !named.contains_key(**name)) {
            return Err(self.error(
                &format!("the required property {unknown:?}"),
                "describe it in `properties`",
            ));
        }
        out.entry("type").or_insert_with(|| "object".into());
        let names = named.keys().cloned().map(Value::String).collect();
        out.insert("properties".to_owned(), Value::Object(named));
        out.insert("required".to_owned(), Value::Array(names));
        out.insert("additionalProperties".to_owned(), Value::Bool(false));
        Ok(())
    }
}

/// The keywords of one subschema, in order.
type Fields<'a> = Vec<(&'a str, &'a Value)>;

fn place(fields: &Fields<'_>, name: &str) -> Option<usize> {
    fields.iter().position(|(known, _)| *known == name)
}

fn says_type(schema: &Map<String, Value>, name: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(word)) => word == name,
        Some(Value::Array(words)) => words.iter().any(|word| word == name),
        _ => false,
    }
}

fn tell(schema: &mut Map<String, Value>, what: &str) {
    let description = match schema.get("description").and_then(Value::as_str) {
        Some(description) if !description.is_empty() => format!("{description} ({what})"),
        _ => what.to_owned(),
    };
    schema.insert("description".to_owned(), description.into());
}

/// Lets `null` fit a schema.
fn allow_null(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    if let Some(Value::Array(variants)) = fields.get_mut("anyOf") {
        let null = json!({"type": "null"});
        if !variants.contains(&null) && !variants.iter().any(|v| v["type"] == "null") {
            variants.push(null);
        }
        return;
    }
    if !fields.contains_key("type") || fields.contains_key("const") {
        if !fields.get("const").is_some_and(Value::is_null) {
            *schema = json!({"anyOf": [schema.take(), {"type": "null"}]});
        }
        return;
    }
    if says_type(fields, "null") {
        return;
    }
    match fields.get_mut("type") {
        Some(Value::Array(words)) => words.push("null".into()),
        Some(word) => *word = json!([word.take(), "null"]),
        None => {}
    }
    if let Some(Value::Array(values)) = fields.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
}
