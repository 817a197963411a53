//! A response schema, filled from the texts.
//!
//! Invariant: what comes out is valid for the schema, and every value stands in the texts, in the question, or
//! is fixed by the schema. What is not found is left out; if it is required it is null where the schema allows
//! that, or the schema's own default; else the whole call is an error that names the field. Keywords that
//! cannot be kept to (`pattern`, `not` ..) count as not found rather than as kept.
//!
//! Algorithm: the schema is walked top-down ([`fill`]); for each leaf [`find`] searches the texts for the
//! field's name and looks for a value of the right kind near it. An array of objects is filled from one table
//! row, list item or sentence for each object.

mod find;

use peregrine_core::{Error, Result};
use serde_json::{Map, Value, json};

use super::answer::{Answer, Fit};
use super::evidence::Evidence;
use super::query::Query;
use super::results::name_words;
use super::shape::{MAX_DEPTH, Shape, Type};
use super::text::{among, stem_of};
use super::values;
use find::Finder;

/// Keywords whose meaning is not checked here.
const UNCHECKED: [&str; 11] = [
    "pattern",
    "not",
    "if",
    "contains",
    "patternProperties",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedProperties",
    "unevaluatedItems",
];

/// An object without a schema: the answer and what it was taken from.
pub(super) fn any_object(answer: &Answer) -> Value {
    let quotes: Vec<Value> = answer
        .quotes
        .iter()
        .map(|quote| json!({"text": quote.text, "source": quote.source}))
        .collect();
    let text = answer
        .quotes
        .first()
        .filter(|_| answer.fit >= Fit::Match)
        .map(|quote| quote.text.as_str());
    json!({"answer": text, "quotes": quotes})
}

/// Fills a schema.
pub(super) fn fill(schema: &Value, evidence: &Evidence<'_>, answer: &Answer) -> Result<Value> {
    let mut filler = Filler {
        finder: Finder::new(evidence, answer),
        visits_left: MAX_VISITS,
    };
    filler.value("", &Shape::root(schema), 0).map_err(|Missing { path, why }| {
        let path = if path.is_empty() { "/" } else { &path };
        Error::invalid_request(format!(
            "the offline model cannot fill the response schema: {why} at {path}, and it makes nothing up; let the \
             field be null or left out, add text that says it, or use another model"
        ))
    })
}

/// What could not be filled.
struct Missing {
    path: String,
    why: String,
}

impl Missing {
    fn new(why: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            why: why.into(),
        }
    }

    fn within(mut self, name: &str) -> Self {
        self.path = format!("/{name}{}", self.path);
        self
    }
}

/// A field: what it is called, and what it is to be.
#[derive(Clone, Copy)]
struct Field<'a> {
    name: &'a str,
    shape: Shape<'a>,
}

impl Field<'_> {
    /// The stems of its name.
    fn stems(&self) -> Vec<String> {
        name_words(self.name).iter().map(|word| stem_of(word)).collect()
    }

    fn is_called(&self, words: &str) -> bool {
        name_words(self.name).iter().any(|word| among(words, word))
    }

    /// What to search for: its name, and less so what is said of it.
    fn query(&self) -> Query {
        let name = name_words(self.name).join(" ");
        Query::new(&[
            (&name, 1.0),
            (self.shape.text("title"), 0.8),
            (self.shape.text("description"), 0.3),
        ])
    }
}

struct Filler<'a> {
    finder: Finder<'a>,
    /// Schemas that refer to themselves several times would grow without end.
    visits_left: usize,
}

/// A schema with more places than this is not walked to its end.
const MAX_VISITS: usize = 10_000;

impl<'a> Filler<'a> {
    fn value(&mut self, name: &str, shape: &Shape<'_>, depth: usize) -> Result<Value, Missing> {
        let found = self.present(name, shape, depth);
        match found {
            Err(_) if shape.nullable => Ok(Value::Null),
            found => found,
        }
    }

    fn present(&mut self, name: &str, shape: &Shape<'_>, depth: usize) -> Result<Value, Missing> {
        if self.visits_left == 0 {
            return Err(Missing::new("the schema is too large"));
        }
        self.visits_left -= 1;
        if depth > MAX_DEPTH {
            return Err(Missing::new("the schema is nested too deeply"));
        }
        if let Some(keyword) = UNCHECKED.iter().find(|keyword| shape.get(keyword).is_some()) {
            return Err(Missing::new(format!(
                "the keyword {keyword:?} is more than it checks"
            )));
        }
        if *shape.schema == Value::Bool(false) {
            return Err(Missing::new("the schema allows no value"));
        }
        let field = Field { name, shape: *shape };
        if let Some(values) = shape.values() {
            let found = self.finder.listed(&field, values);
            return found.ok_or_else(|| Missing::new("none of the allowed values is mentioned"));
        }
        if let (Type::Any, Some(choices)) = (shape.kind(), shape.choices()) {
            let mut filled = choices
                .iter()
                .map(|choice| self.value(name, &shape.child(choice), depth + 1));
            let found = filled.find_map(|filled| filled.ok().filter(|value| !value.is_null()));
            return found.ok_or_else(|| Missing::new("nothing was found for any of the alternatives"));
        }
        let found = match shape.kind() {
            Type::Object => return self.object(shape, depth),
            Type::Array => return self.array(&field, depth),
            Type::Null => Some(Value::Null),
            Type::Bool => self.finder.flag(&field).map(Value::Bool),
            Type::Number | Type::Integer => self.finder.number(&field),
            Type::Text | Type::Any => self.finder.text(&field).map(Value::from),
        };
        found.ok_or_else(|| Missing::new("nothing was found"))
    }

    fn object(&mut self, shape: &Shape<'_>, depth: usize) -> Result<Value, Missing> {
        let mut object = Map::new();
        for (name, property) in shape.properties() {
            match self.value(name, &property, depth + 1) {
                Ok(value) => {
                    object.insert(name.to_owned(), value);
                }
                Err(_) if !shape.is_required(name) => {}
                Err(missing) => match property.get("default") {
                    Some(default) => {
                        object.insert(name.to_owned(), default.clone());
                    }
                    None => return Err(missing.within(name)),
                },
            }
        }
        let required = shape.get("required").and_then(Value::as_array);
        let mut required = required.into_iter().flatten().filter_map(Value::as_str);
        if let Some(name) = required.find(|name| !object.contains_key(*name)) {
            return Err(Missing::new("the schema requires a field that it does not describe").within(name));
        }
        if object.len() < shape.count("minProperties").unwrap_or(0) {
            return Err(Missing::new("too few fields were found"));
        }
        if object.len() > shape.count("maxProperties").unwrap_or(usize::MAX) {
            return Err(Missing::new("the schema allows fewer fields than it describes"));
        }
        Ok(Value::Object(object))
    }

    fn array(&mut self, field: &Field<'_>, depth: usize) -> Result<Value, Missing> {
        const USUALLY_AT_MOST: usize = 20;
        let shape = &field.shape;
        if shape.get("prefixItems").is_some() {
            return Err(Missing::new("the keyword \"prefixItems\" is more than it checks"));
        }
        let any = Value::Bool(true);
        let item = shape.child(shape.get("items").unwrap_or(&any));
        if let Some(keyword) = UNCHECKED.iter().find(|keyword| item.get(keyword).is_some()) {
            return Err(
                Missing::new(format!("the keyword {keyword:?} is more than it checks")).within("items"),
            );
        }
        let (least, most) = (
            shape.count("minItems").unwrap_or(0),
            shape.count("maxItems").unwrap_or(USUALLY_AT_MOST),
        );
        let element = Field {
            name: field.name,
            shape: item,
        };
        let mut found = match (item.values(), item.kind()) {
            (Some(values), _) => self.finder.all_listed(&element, values),
            (None, Type::Object) => self.objects(field, &item, most, depth),
            (None, Type::Number | Type::Integer) => self.finder.all_numbers(&element),
            (None, Type::Text | Type::Any) => self
                .finder
                .all_texts(&element)
                .into_iter()
                .map(Value::from)
                .collect(),
            _ => Vec::new(),
        };
        let mut unique: Vec<Value> = Vec::new();
        found.retain(|value| {
            let is_new = !unique.contains(value);
            unique.push(value.clone());
            is_new
        });
        found.truncate(most);
        if found.len() < least {
            return Err(Missing::new(format!(
                "{} of at least {least} items were found",
                found.len()
            )));
        }
        Ok(Value::Array(found))
    }

    /// One object for each unit that gives all that an object requires, and something at all.
    fn objects(&mut self, field: &Field<'_>, item: &Shape<'_>, most: usize, depth: usize) -> Vec<Value> {
        let names: Vec<Vec<String>> = item
            .properties()
            .map(|(name, shape)| Field { name, shape }.stems())
            .collect();
        let mut objects = Vec::new();
        for unit in self.finder.units_for(field, &names) {
            let outer = self.finder.scope.replace(unit);
            let filled = self.object(item, depth + 1);
            self.finder.scope = outer;
            if let Ok(Value::Object(object)) = filled
                && object.values().any(|value| !value.is_null())
            {
                objects.push(Value::Object(object));
            }
            if objects.len() == most {
                break;
            }
        }
        objects
    }
}

/// Whether a key in a text is a field's name, give or take one word.
fn is_key_of(key: &str, stems: &[String]) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    let words: Vec<String> = name_words(last).iter().map(|word| stem_of(word)).collect();
    let holds = |outer: &[String], inner: &[String]| inner.iter().all(|word| outer.contains(word));
    !words.is_empty()
        && !stems.is_empty()
        && words.len().abs_diff(stems.len()) <= 1
        && (holds(&words, stems) || holds(stems, &words))
}

/// The pairs of a unit.
fn pairs_of<'e>(evidence: &'e Evidence<'_>, unit: usize) -> Vec<values::Pair<'e>> {
    let index = &evidence.index;
    values::pairs(index.units[unit].kind, index.text(unit), index.header_of(unit))
}
