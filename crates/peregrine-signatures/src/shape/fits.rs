//! Whether every value of one type is a value of another, for wires between signatures.
//!
//! The answer is safe, not complete: where it would need arithmetic on patterns or overlaps of unions it says no, and
//! names the place.

use super::{Kind, Length, Limit, NodeId, NumberRule, Rest, Shape, TextRule};

/// How deep two types are compared, and in how many steps: unions of unions multiply.
const MAX_DEPTH: usize = 64;
const MAX_STEPS: u32 = 100_000;

/// Checks that every value that fits `from` fits `to`. The error says why not.
pub(crate) fn fits(from: (&Shape, NodeId), to: (&Shape, NodeId)) -> Result<(), String> {
    Comparison {
        from: from.0,
        to: to.0,
        assumed: Vec::new(),
        steps: MAX_STEPS,
    }
    .node(from.1, to.1, 0)
}

struct Comparison<'a> {
    from: &'a Shape,
    to: &'a Shape,
    /// Pairs being compared further out: assumed to fit, as types that contain themselves need.
    assumed: Vec<(NodeId, NodeId)>,
    /// Steps left.
    steps: u32,
}

impl Comparison<'_> {
    fn node(&mut self, from: NodeId, to: NodeId, depth: usize) -> Result<(), String> {
        if self.assumed.contains(&(from, to)) {
            return Ok(());
        }
        if depth == MAX_DEPTH || self.steps == 0 {
            return Err("the types are too large to compare".to_owned());
        }
        self.steps -= 1;
        self.assumed.push((from, to));
        let outcome = self.kinds(from, to, depth);
        self.assumed.pop();
        outcome
    }

    fn kinds(&mut self, from: NodeId, to: NodeId, depth: usize) -> Result<(), String> {
        let below = depth + 1;
        let no = || {
            Err(format!(
                "not every {} is {}",
                self.from.describe(from),
                self.to.describe(to)
            ))
        };
        let fit = |fits: bool| if fits { Ok(()) } else { no() };
        match (self.from.kind(from), self.to.kind(to)) {
            (_, Kind::Any) | (Kind::Null, Kind::Null) | (Kind::Bool, Kind::Bool) => Ok(()),
            (Kind::Union(variants), _) => variants
                .iter()
                .try_for_each(|variant| self.node(*variant, to, below)),
            (Kind::OneOf(choices), _) => {
                let fits = choices.iter().all(|choice| {
                    let mut value = choice.value.clone();
                    let mut checker = super::Checker::new(self.to, crate::UnknownFields::Reject);
                    checker.visit(to, &mut value);
                    checker.finish().is_ok()
                });
                fit(fits)
            }
            (_, Kind::Union(variants)) => {
                let fits = variants
                    .iter()
                    .any(|variant| self.node(from, *variant, below).is_ok());
                if fits { Ok(()) } else { no() }
            }
            (Kind::Number(a), Kind::Number(b)) => fit(number(a, b)),
            (Kind::Text(a), Kind::Text(b)) => fit(text(a, b)),
            (Kind::List(a), Kind::List(b)) => {
                fit(length(a.length, b.length) && (a.unique || !b.unique))?;
                self.node(a.items, b.items, below)
                    .map_err(|problem| format!("in its items, {problem}"))
            }
            (Kind::Tuple(a), Kind::Tuple(b)) if a.len() == b.len() => {
                a.iter().zip(b).try_for_each(|(a, b)| self.node(*a, *b, below))
            }
            (Kind::Tuple(a), Kind::List(b)) => {
                fit(b.length.admits(a.len()) && !b.unique)?;
                a.iter().try_for_each(|item| self.node(*item, b.items, below))
            }
            (Kind::Object(a), Kind::Object(b)) => {
                fit(b.length == Length::default() || (a.fields.is_empty() && length(a.length, b.length)))?;
                for wanted in &b.fields {
                    match a.fields.iter().find(|field| field.name == wanted.name) {
                        Some(field) if wanted.required && !field.required => {
                            return Err(format!("its field `{}` may be absent", wanted.name));
                        }
                        Some(field) => self
                            .node(field.node, wanted.node, below)
                            .map_err(|problem| format!("in its field `{}`, {problem}", wanted.name))?,
                        None if wanted.required => return Err(format!("it has no field `{}`", wanted.name)),
                        None if !matches!(a.rest, Rest::Closed) => return no(),
                        None => {}
                    }
                }
                for field in a
                    .fields
                    .iter()
                    .filter(|field| !b.fields.iter().any(|b| b.name == field.name))
                {
                    match &b.rest {
                        Rest::Open => {}
                        Rest::Each(node) => self.node(field.node, *node, below)?,
                        _ => return Err(format!("its field `{}` is one too many", field.name)),
                    }
                }
                match (&a.rest, &b.rest) {
                    (Rest::Closed, _) | (_, Rest::Open) => Ok(()),
                    (Rest::Each(a), Rest::Each(b)) => self.node(*a, *b, below),
                    _ => no(),
                }
            }
            _ => no(),
        }
    }
}

fn number(from: &NumberRule, to: &NumberRule) -> bool {
    let above = |to: Limit| from.min.is_some_and(|from| within(from, to, true));
    let below = |to: Limit| from.max.is_some_and(|from| within(from, to, false));
    let width = |(min, max): (i128, i128)| {
        let limit = |value: i128| Limit {
            value: super::Number::Int(value),
            exclusive: false,
        };
        let inside = |(from_min, from_max)| from_min >= min && from_max <= max;
        from.width.is_some_and(inside) || (above(limit(min)) && below(limit(max)))
    };
    (from.integer || !to.integer)
        && to.min.is_none_or(above)
        && to.max.is_none_or(below)
        && to.width.is_none_or(width)
        && to.multiple_of.is_none_or(|step| from.multiple_of == Some(step))
}

/// Whether a limit is at least as narrow as another.
fn within(from: Limit, to: Limit, is_min: bool) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    match from.value.compare(to.value) {
        Some(Equal) => from.exclusive || !to.exclusive,
        Some(Greater) => is_min,
        Some(Less) => !is_min,
        None => false,
    }
}

fn text(from: &TextRule, to: &TextRule) -> bool {
    let has_pattern = |pattern: &super::Pattern| from.patterns.iter().any(|p| p.as_str() == pattern.as_str());
    length(from.length, to.length)
        && to.patterns.iter().all(has_pattern)
        && (to.format.is_none() || to.format == from.format)
}

fn length(from: Length, to: Length) -> bool {
    to.min.is_none_or(|to| from.min.is_some_and(|from| from >= to))
        && to.max.is_none_or(|to| from.max.is_some_and(|from| from <= to))
}
