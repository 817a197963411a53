//! From a schema to nodes.
//!
//! Algorithm: every schema is known by its JSON pointer. A node is reserved before its keywords are read, so that a
//! reference to a schema that is still being read finds its place; each schema is compiled once however often it is
//! referred to. At the end a walk over the references that stay in place refuses circles.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Number, Value};

use super::error::SchemaError;
use super::format::Format;
use super::node::{ArrayRule, ContainsRule, IfRule, Keyword, Needed, Node, NodeId, ObjectRule, Types};
use super::pattern::Pattern;
use super::{Validator, words};

/// How deep a schema may nest.
const MAX_DEPTH: usize = 128;

/// Keywords that say nothing about a value, or are read together with another one.
const READ_ELSEWHERE: &[&str] = &[
    // Notes.
    "$schema",
    "$comment",
    "$vocabulary",
    "$defs",
    "definitions",
    "$anchor",
    "$dynamicAnchor",
    "title",
    "description",
    "default",
    "examples",
    "example",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    // With `properties`, `items`, `contains` and `if`.
    "patternProperties",
    "additionalProperties",
    "prefixItems",
    "additionalItems",
    "minContains",
    "maxContains",
    "then",
    "else",
];

pub(super) fn compile(schema: &Value) -> Result<Validator, SchemaError> {
    let mut compiler = Compiler {
        document: schema,
        nodes: Vec::new(),
        known: HashMap::new(),
    };
    let root = compiler.schema(schema, String::new(), 0)?;
    let Compiler { mut nodes, known, .. } = compiler;
    refuse_circles(&nodes, &known)?;
    for node in &mut nodes {
        node.keywords.sort_by_key(order);
        let tracks = |keyword: &Keyword| {
            matches!(
                keyword,
                Keyword::UnevaluatedProperties(_) | Keyword::UnevaluatedItems(_)
            )
        };
        node.tracks = node.keywords.iter().any(tracks);
    }
    Ok(Validator { nodes, root })
}

/// Types say most, and `unevaluated..` must know what the others looked at.
fn order(keyword: &Keyword) -> u8 {
    match keyword {
        Keyword::Never | Keyword::Type(_) => 0,
        Keyword::Const(_) | Keyword::Enum(_) => 1,
        Keyword::UnevaluatedProperties(_) | Keyword::UnevaluatedItems(_) => 3,
        _ => 2,
    }
}

struct Compiler<'s> {
    document: &'s Value,
    nodes: Vec<Node>,
    /// Where the schema at a pointer is.
    known: HashMap<String, NodeId>,
}

impl<'s> Compiler<'s> {
    fn schema(&mut self, schema: &'s Value, at: String, depth: usize) -> Result<NodeId, SchemaError> {
        if let Some(id) = self.known.get(&at) {
            return Ok(*id);
        }
        if depth > MAX_DEPTH {
            return Err(SchemaError::TooDeep { at, limit: MAX_DEPTH });
        }
        let id = self.nodes.len();
        self.nodes.push(Node::default());
        self.known.insert(at.clone(), id);
        let keywords = match schema {
            Value::Bool(true) => Vec::new(),
            Value::Bool(false) => vec![Keyword::Never],
            Value::Object(map) => Place {
                compiler: self,
                map,
                at: &at,
                depth,
                keywords: Vec::new(),
            }
            .read()?,
            _ => {
                return Err(SchemaError::NotASchema {
                    at,
                    found: words::found(schema),
                });
            }
        };
        self.nodes[id].keywords = keywords;
        Ok(id)
    }
}

/// The object that is being read.
struct Place<'c, 's> {
    compiler: &'c mut Compiler<'s>,
    map: &'s Map<String, Value>,
    at: &'c str,
    depth: usize,
    keywords: Vec<Keyword>,
}

impl<'s> Place<'_, 's> {
    fn read(mut self) -> Result<Vec<Keyword>, SchemaError> {
        let map = self.map;
        for (keyword, value) in map {
            self.keyword(keyword, value)?;
        }
        self.object_rule()?;
        self.array_rule()?;
        Ok(self.keywords)
    }

    fn keyword(&mut self, keyword: &str, value: &'s Value) -> Result<(), SchemaError> {
        let compiled = match keyword {
            "type" => Keyword::Type(self.types(value)?),
            "enum" => Keyword::Enum(self.array(keyword, value)?.clone()),
            "const" => Keyword::Const(value.clone()),
            "minimum" => Keyword::Minimum(self.number(keyword, value)?),
            "maximum" => Keyword::Maximum(self.number(keyword, value)?),
            "exclusiveMinimum" => Keyword::ExclusiveMinimum(self.number(keyword, value)?),
            "exclusiveMaximum" => Keyword::ExclusiveMaximum(self.number(keyword, value)?),
            "multipleOf" => match self.number(keyword, value)? {
                step if step.as_f64().is_some_and(|step| step > 0.0) => Keyword::MultipleOf(step),
                _ => return self.malformed(keyword, "a number above 0"),
            },
            "minLength" => Keyword::MinLength(self.size(keyword, value)?),
            "maxLength" => Keyword::MaxLength(self.size(keyword, value)?),
            "pattern" => Keyword::Pattern(self.pattern(self.string(keyword, value)?)?),
            "format" => match Format::of(self.string(keyword, value)?) {
                Some(format) => Keyword::Format(format),
                None => return Ok(()),
            },
            "required" => self.required(value)?,
            "propertyNames" => Keyword::PropertyNames(self.sub(keyword, value)?),
            "minProperties" => Keyword::MinProperties(self.size(keyword, value)?),
            "maxProperties" => Keyword::MaxProperties(self.size(keyword, value)?),
            "dependentRequired" => {
                let mut pairs = Vec::new();
                for (name, names) in self.object(keyword, value)? {
                    pairs.push((name.clone(), self.strings(keyword, names)?));
                }
                Keyword::DependentRequired(pairs)
            }
            "dependentSchemas" => {
                Keyword::DependentSchemas(self.subs_by_name(keyword, value)?.into_iter().collect())
            }
            "dependencies" => return self.dependencies(value),
            "contains" => self.contains(value)?,
            "minItems" => Keyword::MinItems(self.size(keyword, value)?),
            "maxItems" => Keyword::MaxItems(self.size(keyword, value)?),
            "uniqueItems" => match value {
                Value::Bool(true) => Keyword::UniqueItems,
                Value::Bool(false) => return Ok(()),
                _ => return self.malformed(keyword, "true or false"),
            },
            "$ref" => Keyword::Ref(self.reference(value)?),
            "allOf" => Keyword::AllOf(self.subs(keyword, value)?),
            "anyOf" => Keyword::AnyOf(self.subs(keyword, value)?),
            "oneOf" => Keyword::OneOf(self.subs(keyword, value)?),
            "not" => Keyword::Not(self.sub(keyword, value)?),
            "if" => Keyword::If(IfRule {
                condition: self.sub(keyword, value)?,
                then: self.optional("then")?,
                otherwise: self.optional("else")?,
            }),
            "unevaluatedProperties" => Keyword::UnevaluatedProperties(self.sub(keyword, value)?),
            "unevaluatedItems" => Keyword::UnevaluatedItems(self.sub(keyword, value)?),
            "properties" | "items" => return Ok(()),
            "$id" if self.at.is_empty() => return Ok(()),
            "$id" | "$dynamicRef" | "$recursiveRef" => {
                return Err(SchemaError::Unsupported {
                    at: self.at.to_owned(),
                    what: format!(
                        "`{keyword}` changes what references mean; refer to `#/$defs/Name` instead"
                    ),
                });
            }
            _ if READ_ELSEWHERE.contains(&keyword) || keyword.starts_with("x-") => return Ok(()),
            _ => {
                return Err(SchemaError::UnknownKeyword {
                    at: self.at.to_owned(),
                    keyword: keyword.to_owned(),
                });
            }
        };
        self.keywords.push(compiled);
        Ok(())
    }

    fn required(&mut self, value: &'s Value) -> Result<Keyword, SchemaError> {
        let properties = self.map.get("properties").and_then(Value::as_object);
        let mut needed = Vec::new();
        for name in self.strings("required", value)? {
            let property = properties.and_then(|properties| properties.get(&name));
            let node = property.map(|property| self.named("properties", &name, property));
            needed.push(Needed {
                node: node.transpose()?,
                name,
            });
        }
        Ok(Keyword::Required(needed))
    }

    fn object_rule(&mut self) -> Result<(), SchemaError> {
        let map = self.map;
        let mut rule = ObjectRule::default();
        if let Some(value) = map.get("properties") {
            rule.properties = self.subs_by_name("properties", value)?;
        }
        if let Some(value) = map.get("patternProperties") {
            for (pattern, node) in self.subs_by_name("patternProperties", value)? {
                rule.patterns.push((self.pattern(&pattern)?, node));
            }
        }
        rule.additional = self.optional("additionalProperties")?;
        if !rule.properties.is_empty() || !rule.patterns.is_empty() || rule.additional.is_some() {
            self.keywords.push(Keyword::Object(rule));
        }
        Ok(())
    }

    fn array_rule(&mut self) -> Result<(), SchemaError> {
        let map = self.map;
        let mut rule = ArrayRule::default();
        match (map.get("prefixItems"), map.get("items")) {
            // What is now `prefixItems` and `items` was called `items` and `additionalItems` up to draft 7.
            (None, Some(items @ Value::Array(_))) => {
                rule.prefix = self.subs("items", items)?;
                rule.rest = self.optional("additionalItems")?;
            }
            (prefix, items) => {
                if let Some(prefix) = prefix {
                    rule.prefix = self.subs("prefixItems", prefix)?;
                }
                if items.is_some() {
                    rule.rest = self.optional("items")?;
                }
            }
        }
        if !rule.prefix.is_empty() || rule.rest.is_some() {
            self.keywords.push(Keyword::Array(rule));
        }
        Ok(())
    }

    fn contains(&mut self, value: &'s Value) -> Result<Keyword, SchemaError> {
        let map = self.map;
        let least = map
            .get("minContains")
            .map(|value| self.size("minContains", value));
        let most = map
            .get("maxContains")
            .map(|value| self.size("maxContains", value));
        Ok(Keyword::Contains(ContainsRule {
            node: self.sub("contains", value)?,
            least: least.transpose()?.unwrap_or(1),
            most: most.transpose()?,
        }))
    }

    /// Up to draft 7, `dependentRequired` and `dependentSchemas` in one.
    fn dependencies(&mut self, value: &'s Value) -> Result<(), SchemaError> {
        let (mut required, mut schemas) = (Vec::new(), Vec::new());
        for (name, dependency) in self.object("dependencies", value)? {
            match dependency {
                Value::Array(_) => required.push((name.clone(), self.strings("dependencies", dependency)?)),
                _ => schemas.push((name.clone(), self.named("dependencies", name, dependency)?)),
            }
        }
        self.keywords.push(Keyword::DependentRequired(required));
        self.keywords.push(Keyword::DependentSchemas(schemas));
        Ok(())
    }

    fn reference(&mut self, value: &'s Value) -> Result<NodeId, SchemaError> {
        let reference = self.string("$ref", value)?;
        let (pointer, target) =
            resolve(self.compiler.document, reference).ok_or_else(|| SchemaError::Reference {
                at: self.at.to_owned(),
                reference: reference.to_owned(),
            })?;
        self.compiler.schema(target, pointer, self.depth + 1)
    }

    // Values of keywords.

    fn malformed<T>(&self, keyword: &str, expected: &'static str) -> Result<T, SchemaError> {
        Err(SchemaError::Malformed {
            at: self.at.to_owned(),
            keyword: keyword.to_owned(),
            expected,
        })
    }

    fn types(&self, value: &Value) -> Result<Types, SchemaError> {
        const EXPECTED: &str = "the name of a type of JSON, or an array of such names";
        let names = match value {
            Value::Array(names) if !names.is_empty() => names.as_slice(),
            one => std::slice::from_ref(one),
        };
        let with = |types: Types, name: &Value| types.with(name.as_str()?);
        match names.iter().try_fold(Types::default(), with) {
            Some(types) => Ok(types),
            None => self.malformed("type", EXPECTED),
        }
    }

    fn number(&self, keyword: &str, value: &Value) -> Result<Number, SchemaError> {
        match value {
            Value::Number(number) => Ok(number.clone()),
            _ => self.malformed(keyword, "a number"),
        }
    }

    fn size(&self, keyword: &str, value: &Value) -> Result<u64, SchemaError> {
        let whole = |float: f64| float.fract() == 0.0 && (0.0..9e15).contains(&float);
        match value {
            Value::Number(number) => match (number.as_u64(), number.as_f64()) {
                (Some(size), _) => Ok(size),
                // Whole and in range, so the cast is exact.
                (None, Some(float)) if whole(float) => Ok(float as u64),
                _ => self.malformed(keyword, "a whole number from 0 on"),
            },
            _ => self.malformed(keyword, "a whole number from 0 on"),
        }
    }

    fn string(&self, keyword: &str, value: &'s Value) -> Result<&'s str, SchemaError> {
        match value.as_str() {
            Some(text) => Ok(text),
            None => self.malformed(keyword, "a string"),
        }
    }

    fn strings(&self, keyword: &str, value: &Value) -> Result<Vec<String>, SchemaError> {
        let strings = value.as_array().and_then(|items| {
            let strings = items.iter().map(|item| item.as_str().map(str::to_owned));
            strings.collect::<Option<Vec<_>>>()
        });
        match strings {
            Some(strings) => Ok(strings),
            None => self.malformed(keyword, "an array of strings"),
        }
    }

    fn array(&self, keyword: &str, value: &'s Value) -> Result<&'s Vec<Value>, SchemaError> {
        match value.as_array() {
            Some(items) if !items.is_empty() => Ok(items),
            _ => self.malformed(keyword, "an array that is not empty"),
        }
    }

    fn object(&self, keyword: &str, value: &'s Value) -> Result<&'s Map<String, Value>, SchemaError> {
        match value.as_object() {
            Some(map) => Ok(map),
            None => self.malformed(keyword, "an object"),
        }
    }

    fn pattern(&self, pattern: &str) -> Result<Pattern, SchemaError> {
        Pattern::new(pattern).map_err(|why| SchemaError::Pattern {
            at: self.at.to_owned(),
            pattern: pattern.to_owned(),
            why,
        })
    }

    // Schemas within this one.

    fn sub(&mut self, keyword: &str, value: &'s Value) -> Result<NodeId, SchemaError> {
        let at = format!("{}/{}", self.at, escape(keyword));
        self.compiler.schema(value, at, self.depth + 1)
    }

    fn optional(&mut self, keyword: &str) -> Result<Option<NodeId>, SchemaError> {
        let value = self.map.get(keyword);
        value.map(|value| self.sub(keyword, value)).transpose()
    }

    fn named(&mut self, keyword: &str, name: &str, value: &'s Value) -> Result<NodeId, SchemaError> {
        let at = format!("{}/{}/{}", self.at, escape(keyword), escape(name));
        self.compiler.schema(value, at, self.depth + 1)
    }

    fn subs(&mut self, keyword: &str, value: &'s Value) -> Result<Vec<NodeId>, SchemaError> {
        let items = self.array(keyword, value)?.iter().enumerate();
        items
            .map(|(index, item)| self.named(keyword, &index.to_string(), item))
            .collect()
    }

    fn subs_by_name(
        &mut self,
        keyword: &str,
        value: &'s Value,
    ) -> Result<BTreeMap<String, NodeId>, SchemaError> {
        let map = self.object(keyword, value)?;
        map.iter()
            .map(|(name, item)| Ok((name.clone(), self.named(keyword, name, item)?)))
            .collect()
    }
}

/// A step of a JSON pointer.
fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

/// The canonical pointer that a reference in the same document means, and what stands there.
fn resolve<'s>(document: &'s Value, reference: &str) -> Option<(String, &'s Value)> {
    let pointer = percent_decode(reference.strip_prefix('#')?)?;
    let target = document.pointer(&pointer)?;
    Some((pointer, target))
}

/// Decodes `%41`; `None` if that gives no text.
fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            decoded.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

/// Refuses schemas that apply themselves to the same place again, which would never end.
fn refuse_circles(nodes: &[Node], known: &HashMap<String, NodeId>) -> Result<(), SchemaError> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut states = vec![State::New; nodes.len()];
    for start in 0..nodes.len() {
        // Each entry: a node, and those below it that are still to be seen. No recursion: a chain of references may
        // be long.
        let mut stack: Vec<(NodeId, Vec<NodeId>)> = Vec::new();
        let below = |id: NodeId| nodes[id].keywords.iter().flat_map(Keyword::in_place).collect();
        if states[start] == State::New {
            states[start] = State::Open;
            stack.push((start, below(start)));
        }
        while let Some((id, rest)) = stack.last_mut() {
            match rest.pop() {
                None => {
                    states[*id] = State::Done;
                    stack.pop();
                }
                Some(next) if states[next] == State::Open => {
                    let at = known
                        .iter()
                        .filter(|(_, id)| **id == next)
                        .map(|(at, _)| at.clone());
                    return Err(SchemaError::CircularReference {
                        at: at.min().unwrap_or_default(),
                    });
                }
                Some(next) if states[next] == State::New => {
                    states[next] = State::Open;
                    stack.push((next, below(next)));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}
