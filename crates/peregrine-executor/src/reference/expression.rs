//! The parameters of a step, read once: what is plain, and where results of other steps go.

use serde_json::{Map, Value};

use super::parse::{Piece, parse};
use super::{MalformedReference, Reference, Segment};

/// Parameters, with every reference bound to the place of its step in the plan.
#[derive(Debug, Clone)]
pub(crate) enum Expression {
    /// No references in it.
    Plain(Value),
    /// Nothing but a reference: the value as it is, with its type.
    Reference(Bound),
    /// References within a longer text.
    Text(Vec<TextPiece>),
    List(Vec<Expression>),
    Object(Vec<(String, Expression)>),
}

#[derive(Debug, Clone)]
pub(crate) enum TextPiece {
    Text(String),
    Reference(Bound),
}

#[derive(Debug, Clone)]
pub(crate) struct Bound {
    /// The place of the step in its plan.
    pub(crate) step: u32,
    pub(crate) reference: Reference,
}

/// What is wrong in parameters, with the way there, as in a JSON pointer (RFC 6901).
#[derive(Debug)]
pub(crate) enum Found {
    Malformed(String, MalformedReference),
    Unknown(String, Reference),
    TooDeep,
}

impl Expression {
    /// Reads parameters that nest at most `max_depth` deep. `find` says where a step is; everything wrong goes to
    /// `wrong`, and what is wrong is left out of the expression.
    pub(crate) fn read(
        parameters: &Value,
        max_depth: usize,
        find: &mut dyn FnMut(&str) -> Option<u32>,
        wrong: &mut Vec<Found>,
    ) -> Self {
        let mut path = String::new();
        let mut reader = Reader {
            find,
            wrong,
            max_depth,
        };
        reader.value(parameters, 0, &mut path)
    }

    /// Every reference, in the order in which they stand.
    pub(crate) fn references<'a>(&'a self, found: &mut impl FnMut(&'a Bound)) {
        match self {
            Self::Plain(_) => {}
            Self::Reference(bound) => found(bound),
            Self::Text(pieces) => pieces.iter().for_each(|piece| {
                if let TextPiece::Reference(bound) = piece {
                    found(bound);
                }
            }),
            Self::List(items) => items.iter().for_each(|item| item.references(found)),
            Self::Object(fields) => fields.iter().for_each(|(_, value)| value.references(found)),
        }
    }
}

struct Reader<'a> {
    find: &'a mut dyn FnMut(&str) -> Option<u32>,
    wrong: &'a mut Vec<Found>,
    max_depth: usize,
}

impl Reader<'_> {
    // The recursion is bounded by `max_depth`.
    fn value(&mut self, value: &Value, depth: usize, path: &mut String) -> Expression {
        if depth > self.max_depth {
            if !matches!(self.wrong.last(), Some(Found::TooDeep)) {
                self.wrong.push(Found::TooDeep);
            }
            return Expression::Plain(Value::Null);
        }
        match value {
            Value::String(text) => self.text(text, path),
            Value::Array(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    list.push(self.below(item, &Segment::Index(index), depth, path));
                }
                plain_list(list)
            }
            Value::Object(fields) => {
                let mut object = Vec::with_capacity(fields.len());
                for (name, value) in fields {
                    let inner = self.below(value, &Segment::Field(name.clone()), depth, path);
                    object.push((name.clone(), inner));
                }
                plain_object(object)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Expression::Plain(value.clone()),
        }
    }

    fn below(&mut self, value: &Value, segment: &Segment, depth: usize, path: &mut String) -> Expression {
        let length = path.len();
        path.push('/');
        match segment {
            Segment::Field(name) => path.push_str(&name.replace('~', "~0").replace('/', "~1")),
            Segment::Index(index) => path.push_str(&index.to_string()),
        }
        let inner = self.value(value, depth + 1, path);
        path.truncate(length);
        inner
    }

    fn text(&mut self, text: &str, path: &str) -> Expression {
        if !text.contains('$') {
            return Expression::Plain(Value::String(text.to_owned()));
        }
        let pieces = match parse(text) {
            Ok(pieces) => pieces,
            Err(malformed) => {
                self.wrong.push(Found::Malformed(path.to_owned(), malformed));
                return Expression::Plain(Value::Null);
            }
        };
        let mut bound = Vec::with_capacity(pieces.len());
        for piece in pieces {
            bound.push(match piece {
                Piece::Text(text) => TextPiece::Text(text),
                Piece::Reference(reference) => match (self.find)(&reference.step) {
                    Some(step) => TextPiece::Reference(Bound { step, reference }),
                    None => {
                        self.wrong.push(Found::Unknown(path.to_owned(), reference));
                        continue;
                    }
                },
            });
        }
        match &mut bound[..] {
            [TextPiece::Text(text)] => Expression::Plain(Value::String(std::mem::take(text))),
            [TextPiece::Reference(reference)] => Expression::Reference(reference.clone()),
            _ => Expression::Text(bound),
        }
    }
}

/// A list of plain values is plain.
fn plain_list(items: Vec<Expression>) -> Expression {
    if !items.iter().all(|item| matches!(item, Expression::Plain(_))) {
        return Expression::List(items);
    }
    let values = items.into_iter().filter_map(|item| match item {
        Expression::Plain(value) => Some(value),
        _ => None,
    });
    Expression::Plain(Value::Array(values.collect()))
}

fn plain_object(fields: Vec<(String, Expression)>) -> Expression {
    if !fields
        .iter()
        .all(|(_, value)| matches!(value, Expression::Plain(_)))
    {
        return Expression::Object(fields);
    }
    let values = fields.into_iter().filter_map(|(name, value)| match value {
        Expression::Plain(value) => Some((name, value)),
        _ => None,
    });
    Expression::Plain(Value::Object(values.collect::<Map<_, _>>()))
}
