//! Constraints that an author puts on a field, beside what its type says.
//!
//! A constraint goes through `Option` to the value. `range`, `pattern` and `one_of` also go into the items of a list;
//! `length` counts the characters of a text, the items of a list or the keys of a map.

use serde_json::Value;

use super::build::Builder;
use super::{Choice, Kind, Length, Limit, NodeId, Pattern, Rest};
use crate::DefinitionError;

#[derive(Debug, Clone)]
pub(crate) enum Constraint {
    Range { min: Option<Limit>, max: Option<Limit> },
    Length(Length),
    Pattern(String),
    OneOf(Vec<Value>),
}

impl Constraint {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Range { .. } => "range",
            Self::Length(_) => "length",
            Self::Pattern(_) => "pattern",
            Self::OneOf(_) => "one_of",
        }
    }

    const fn wants(&self) -> &'static str {
        match self {
            Self::Range { .. } => "a number",
            Self::Length(_) => "a text, a list or a map",
            Self::Pattern(_) => "a text",
            Self::OneOf(_) => "a text, a number or a boolean",
        }
    }
}

impl Builder {
    /// A node like this one that also keeps a constraint. The node itself stays, because others may share it.
    pub(crate) fn constrain(
        &mut self,
        field: &str,
        id: NodeId,
        constraint: &Constraint,
    ) -> Result<NodeId, DefinitionError> {
        match self.constrained(id, constraint) {
            Ok(Some(id)) => Ok(id),
            Ok(None) => Err(format!("its type is not {}", constraint.wants())),
            Err(problem) => Err(problem),
        }
        .map_err(|problem| DefinitionError::Constraint {
            field: field.to_owned(),
            constraint: constraint.name(),
            problem,
        })
    }

    /// `None` if the constraint means nothing for the node.
    fn constrained(&mut self, id: NodeId, constraint: &Constraint) -> Result<Option<NodeId>, String> {
        let mut node = self.node(id).clone();
        match (&mut node.kind, constraint) {
            (Kind::Number(rule), Constraint::Range { min, max }) => {
                min.iter().for_each(|limit| rule.raise_min(*limit));
                max.iter().for_each(|limit| rule.lower_max(*limit));
                if rule.is_empty() {
                    return Err("no number lies in it".to_owned());
                }
            }
            (Kind::Text(rule), Constraint::Length(length)) => rule.length = narrowed(rule.length, *length)?,
            (Kind::Text(rule), Constraint::Pattern(pattern)) => {
                rule.patterns
                    .push(Pattern::new(pattern).map_err(|error| format!("`{pattern}`: {error}"))?);
            }
            (Kind::Text(_) | Kind::Number(_) | Kind::Bool | Kind::OneOf(_), Constraint::OneOf(values)) => {
                node.kind = Kind::OneOf(self.chosen(id, values)?);
            }
            (Kind::List(rule), Constraint::Length(length)) => rule.length = narrowed(rule.length, *length)?,
            (Kind::List(rule), _) => match self.constrained(rule.items, constraint)? {
                Some(items) => rule.items = items,
                None => return Ok(None),
            },
            (Kind::Object(rule), Constraint::Length(length)) if !matches!(rule.rest, Rest::Closed) => {
                rule.length = narrowed(rule.length, *length)?;
            }
            (Kind::Union(variants), _) => {
                let mut applied = false;
                for variant in variants.iter_mut() {
                    if matches!(self.node(*variant).kind, Kind::Null) {
                        continue;
                    }
                    match self.constrained(*variant, constraint)? {
                        Some(constrained) => *variant = constrained,
                        None => return Ok(None),
                    }
                    applied = true;
                }
                if !applied {
                    return Ok(None);
                }
            }
            _ => return Ok(None),
        }
        // What is constrained here is not the named type any more.
        node.name = None;
        Ok(Some(self.push_node(node)))
    }

    /// The choices, each of which must fit the type that the field has without them.
    fn chosen(&self, id: NodeId, values: &[Value]) -> Result<Vec<Choice>, String> {
        if values.is_empty() {
            return Err("it lists no value".to_owned());
        }
        let mut chosen: Vec<Choice> = Vec::new();
        for value in values {
            let description = match &self.node(id).kind {
                Kind::Text(_) if value.is_string() => None,
                Kind::Number(rule) if value.is_number() => {
                    let fits = value.as_number().is_some_and(|number| {
                        let mut number = number.clone();
                        rule.has_type(&mut number) && rule.in_range(&number)
                    });
                    if !fits {
                        return Err(format!("{value} does not fit the field's type"));
                    }
                    None
                }
                Kind::Bool if value.is_boolean() => None,
                Kind::OneOf(choices) => match choices.iter().find(|choice| choice.is(value)) {
                    Some(choice) => choice.description.clone(),
                    None => return Err(format!("{value} is not among the values of the field's type")),
                },
                _ => return Err(format!("{value} does not fit the field's type")),
            };
            if chosen.iter().any(|choice| choice.is(value)) {
                return Err(format!("it lists {value} twice"));
            }
            chosen.push(Choice {
                value: value.clone(),
                description,
            });
        }
        Ok(chosen)
    }
}

fn narrowed(old: Length, new: Length) -> Result<Length, String> {
    let length = Length {
        min: old.min.max(new.min),
        max: match (old.max, new.max) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        },
    };
    match (length.min, length.max) {
        (Some(min), Some(max)) if min > max => Err("no length lies in it".to_owned()),
        _ => Ok(length),
    }
}
