//! From inputs to the user's message.
//!
//! Each input stands between tags of its name, in the order of the signature: texts as they are, other values as
//! compact JSON, `None` as an empty tag, media as parts of their own. Invariant: the same inputs give the same bytes
//! (keys of maps and elements of sets are sorted), and no input can end its own block: a text that holds its closing
//! tag is written as a JSON string with `<` escaped.

use std::fmt::Write as _;

use peregrine_core::{Message, Part, Role};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::compiled::{Compiled, FieldInfo};
use crate::media::{self, Media};
use crate::shape::{Checker, Kind, NodeId, Rest, Shape, Start};
use crate::{Error, InputError, UnknownFields};

/// Inputs or outputs by name: what run-time signatures take and give.
pub type Fields = Map<String, Value>;

/// What can be given to a signature as its inputs.
///
/// Derived for the input type of a `#[derive(Signature)]`; implemented for [`Fields`], which suit any signature.
pub trait Inputs {
    /// Hands over every input, in the order of the signature.
    ///
    /// # Errors
    ///
    /// [`InputError`] for an input that does not fit.
    fn write(&self, writer: &mut InputWriter<'_>) -> Result<(), InputError>;
}

impl Inputs for Fields {
    fn write(&self, writer: &mut InputWriter<'_>) -> Result<(), InputError> {
        let compiled = writer.compiled;
        for (name, _) in self {
            if !compiled.inputs().iter().any(|field| field.name() == name) {
                let names: Vec<&str> = compiled.inputs().iter().map(FieldInfo::name).collect();
                return Err(writer.error(name, format!("there is no such input, only {}", names.join(", "))));
            }
        }
        for field in compiled.inputs() {
            match self.get(field.name()) {
                Some(value) => writer.json(field.name(), value)?,
                None => return Err(writer.error(field.name(), "it is missing")),
            }
        }
        Ok(())
    }
}

/// Takes the inputs of one call. Made by [`Compiled`]; used by implementations of [`Inputs`].
#[derive(Debug)]
pub struct InputWriter<'c> {
    compiled: &'c Compiled,
    next: usize,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Prompt { parts: Vec<Part>, text: String },
    Fields(Fields),
}

impl<'c> InputWriter<'c> {
    /// Hands over the next input.
    ///
    /// # Errors
    ///
    /// [`InputError`] if the signature expects another one, if it is not a value of JSON, or if it breaks a constraint.
    pub fn value<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), InputError> {
        let field = self.expect(name)?;
        let mut value = serde_json::to_value(value).map_err(|error| self.error(name, error.to_string()))?;
        if field.is_constrained {
            self.check(field, &mut value)?;
        }
        self.put(field, value);
        Ok(())
    }

    /// Hands over the next input, which is media.
    ///
    /// # Errors
    ///
    /// [`InputError`] if the signature expects another one, or media of another kind.
    pub fn media<M: Media + ?Sized>(&mut self, name: &str, media: &M) -> Result<(), InputError> {
        let field = self.expect(name)?;
        let mut parts = Vec::new();
        match field.media.and_then(|kind| media.parts(kind, &mut parts)) {
            Some(()) => self.put_media(field, parts),
            None => return Err(self.error(name, format!("expected {}", field.type_name()))),
        }
        Ok(())
    }

    /// Hands over the next input as JSON, whatever its type.
    fn json(&mut self, name: &str, value: &Value) -> Result<(), InputError> {
        let field = self.expect(name)?;
        let Some(kind) = field.media else {
            let mut value = value.clone();
            self.check(field, &mut value)?;
            self.put(field, value);
            return Ok(());
        };
        let mut parts = Vec::new();
        media::from_json(value, kind, &mut parts).map_err(|problem| self.error(name, problem))?;
        self.put_media(field, parts);
        Ok(())
    }

    fn expect(&mut self, name: &str) -> Result<&'c FieldInfo, InputError> {
        match self.compiled.inputs().get(self.next) {
            Some(field) if field.name() == name => {
                self.next += 1;
                Ok(field)
            }
            Some(field) => Err(self.error(name, format!("`{}` comes first", field.name()))),
            None => Err(self.error(name, "there is no such input")),
        }
    }

    fn check(&self, field: &FieldInfo, value: &mut Value) -> Result<(), InputError> {
        let mut checker = Checker::new(self.compiled.input_shape(), UnknownFields::Reject);
        checker.visit(field.node, value);
        checker.finish().map_err(|problems| {
            let told: Vec<String> = problems
                .into_iter()
                .map(|mut problem| {
                    problem.within_key(field.name());
                    problem.to_string()
                })
                .collect();
            self.error(field.name(), told.join("; "))
        })
    }

    fn put(&mut self, field: &FieldInfo, mut value: Value) {
        if field.has_maps {
            sort_keys(self.compiled.input_shape(), field.node, &mut value);
        }
        match &mut self.sink {
            Sink::Fields(fields) => {
                fields.insert(field.name().to_owned(), value);
            }
            Sink::Prompt { text, .. } => write_block(text, field.name(), &value),
        }
    }

    fn put_media(&mut self, field: &FieldInfo, media: Vec<Part>) {
        match &mut self.sink {
            Sink::Fields(fields) => {
                fields.insert(field.name().to_owned(), media::to_json(&media));
            }
            Sink::Prompt { parts, text } if !media.is_empty() => {
                let name = field.name();
                let _ = writeln!(text, "<{name}>");
                parts.push(Part::text(std::mem::take(text)));
                parts.extend(media);
                let _ = writeln!(text, "</{name}>");
            }
            Sink::Prompt { text, .. } => write_block(text, field.name(), &Value::Null),
        }
    }

    fn error(&self, field: &str, problem: impl Into<String>) -> InputError {
        InputError {
            signature: self.compiled.name().to_owned(),
            field: field.to_owned(),
            problem: problem.into(),
        }
    }

    fn finish(self) -> Result<Sink, InputError> {
        match self.compiled.inputs().get(self.next) {
            None => Ok(self.sink),
            Some(field) => Err(self.error(field.name(), "it is missing")),
        }
    }
}

impl Compiled {
    /// The user's message for these inputs.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if they do not fit.
    pub fn user<I: Inputs + ?Sized>(&self, inputs: &I) -> Result<Message, Error> {
        let parts = Vec::new();
        let text = String::with_capacity(256);
        match self.written(inputs, Sink::Prompt { parts, text })? {
            Sink::Prompt { mut parts, mut text } => {
                // The last line end separates nothing.
                text.truncate(text.trim_end_matches('\n').len());
                if !text.is_empty() {
                    parts.push(Part::text(text));
                }
                Ok(Message::new(Role::User, parts))
            }
            Sink::Fields(_) => unreachable!("the sink keeps its kind"),
        }
    }

    /// The inputs by name, as compositions take them. Media become their JSON form.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if they do not fit.
    pub fn fields<I: Inputs + ?Sized>(&self, inputs: &I) -> Result<Fields, Error> {
        match self.written(inputs, Sink::Fields(Fields::new()))? {
            Sink::Fields(fields) => Ok(fields),
            Sink::Prompt { .. } => unreachable!("the sink keeps its kind"),
        }
    }

    fn written<I: Inputs + ?Sized>(&self, inputs: &I, sink: Sink) -> Result<Sink, Error> {
        let mut writer = InputWriter {
            compiled: self,
            next: 0,
            sink,
        };
        inputs.write(&mut writer)?;
        Ok(writer.finish()?)
    }
}

fn write_block(out: &mut String, name: &str, value: &Value) {
    let written = match value {
        Value::Null => writeln!(out, "<{name}/>"),
        Value::String(text) if !holds_tag(text, name) => writeln!(out, "<{name}>\n{text}\n</{name}>"),
        value => {
            let json = value.to_string();
            let json = if holds_tag(&json, name) {
                json.replace('<', "\\u003c")
            } else {
                json
            };
            writeln!(out, "<{name}>\n{json}\n</{name}>")
        }
    };
    written.expect("writing to a `String` does not fail");
}

/// Whether a text holds the closing tag, or what a model may take for it.
fn holds_tag(text: &str, name: &str) -> bool {
    text.match_indices("</").any(|(at, _)| {
        let rest = text[at + 2..].trim_start();
        rest.get(..name.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(name))
    })
}

/// Sorts the keys of maps and the elements of sets, whose order means nothing and may differ from run to run.
fn sort_keys(shape: &Shape, id: NodeId, value: &mut Value) {
    for node in shape.alternatives(id, Start::of(value)) {
        match (shape.kind(node), &mut *value) {
            (Kind::List(rule), Value::Array(items)) => {
                items
                    .iter_mut()
                    .for_each(|item| sort_keys(shape, rule.items, item));
                if rule.unique {
                    items.sort_by_cached_key(Value::to_string);
                }
            }
            (Kind::Tuple(nodes), Value::Array(items)) => {
                nodes
                    .iter()
                    .zip(items)
                    .for_each(|(node, item)| sort_keys(shape, *node, item));
            }
            (Kind::Object(rule), Value::Object(map)) => {
                let field = |key: &str| rule.fields.iter().find(|field| *field.name == *key);
                if !matches!(rule.rest, Rest::Closed) {
                    let (mut named, mut rest): (Vec<_>, Vec<_>) = std::mem::take(map)
                        .into_iter()
                        .partition(|(key, _)| field(key).is_some());
                    rest.sort_by(|(a, _), (b, _)| a.cmp(b));
                    named.append(&mut rest);
                    *map = named.into_iter().collect();
                }
                for (key, value) in map.iter_mut() {
                    match (field(key), &rule.rest) {
                        (Some(field), _) => sort_keys(shape, field.node, value),
                        (None, Rest::Each(node)) => sort_keys(shape, *node, value),
                        (None, Rest::Patterns(patterns)) => {
                            patterns
                                .iter()
                                .for_each(|(_, node)| sort_keys(shape, *node, value));
                        }
                        (None, Rest::Closed | Rest::Open) => {}
                    }
                }
            }
            _ => {}
        }
    }
}
