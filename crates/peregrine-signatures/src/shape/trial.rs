//! Whether a value fits a node, yes or no, for the alternatives of a union.
//!
//! A hostile value for a union that contains itself could be tried in exponentially many ways, so all trials of one
//! check share a budget of steps; texts cost by their length. Nothing is copied or changed.

use serde_json::{Map, Value};

use super::{Kind, NodeId, ObjectRule, Shape, Start};
use crate::UnknownFields;

/// Legitimate answers of the largest size allowed take less; the most that this buys is well below a second.
const STEPS: u32 = 500_000;
/// How many bytes of a text are one step.
const BYTES_A_STEP: usize = 64;

pub(super) struct Trial<'s> {
    shape: &'s Shape,
    unknown: UnknownFields,
    steps: u32,
}

impl<'s> Trial<'s> {
    pub(super) fn new(shape: &'s Shape, unknown: UnknownFields) -> Self {
        Self {
            shape,
            unknown,
            steps: STEPS,
        }
    }

    /// Whether a check of the value would find nothing; `None` if the budget is spent.
    pub(super) fn fits(&mut self, id: NodeId, value: &Value) -> Option<bool> {
        self.steps = self.steps.checked_sub(1)?;
        Some(match (self.shape.kind(id), value) {
            (Kind::Any, _) | (Kind::Null, Value::Null) | (Kind::Bool, Value::Bool(_)) => true,
            (Kind::Number(rule), Value::Number(number)) => {
                let mut number = number.clone();
                rule.has_type(&mut number) && rule.in_range(&number)
            }
            (Kind::Text(rule), Value::String(text)) => {
                let cost = u32::try_from(text.len() / BYTES_A_STEP).ok()?;
                self.steps = self.steps.checked_sub(cost)?;
                rule.misfit(text).is_none()
            }
            (Kind::OneOf(choices), value) => choices.iter().any(|choice| choice.is(value)),
            (Kind::List(rule), Value::Array(items)) => {
                self.steps = self.steps.checked_sub(u32::try_from(items.len()).ok()?)?;
                rule.length.admits(items.len())
                    && (!rule.unique || super::check::first_duplicate(items).is_none())
                    && self.all(items.iter().map(|item| (rule.items, item)))?
            }
            (Kind::Tuple(nodes), Value::Array(items)) => {
                nodes.len() == items.len() && self.all(nodes.iter().copied().zip(items))?
            }
            (Kind::Object(rule), Value::Object(map)) => self.object(rule, map)?,
            (Kind::Union(variants), value) => {
                for variant in variants {
                    if self.fits(*variant, value)? {
                        return Some(true);
                    }
                }
                false
            }
            _ => false,
        })
    }

    fn all<'v>(&mut self, pairs: impl Iterator<Item = (NodeId, &'v Value)>) -> Option<bool> {
        for (node, value) in pairs {
            if !self.fits(node, value)? {
                return Some(false);
            }
        }
        Some(true)
    }

    fn object(&mut self, rule: &ObjectRule, map: &Map<String, Value>) -> Option<bool> {
        if rule
            .fields
            .iter()
            .any(|field| field.required && !map.contains_key(&*field.name))
        {
            return Some(false);
        }
        let mut kept = 0;
        for (key, value) in map {
            let fits = match rule.fields.iter().find(|field| *field.name == **key) {
                // `null` for a field that may be absent and can not be null is absence.
                Some(field)
                    if !field.required && value.is_null() && !self.shape.accepts(field.node, Start::Null) =>
                {
                    continue;
                }
                Some(field) => self.fits(field.node, value)?,
                None => match rule.rest(key) {
                    Some(Some(node)) => self.fits(node, value)?,
                    Some(None) => true,
                    None if self.unknown == UnknownFields::Ignore => continue,
                    None => false,
                },
            };
            if !fits {
                return Some(false);
            }
            kept += 1;
        }
        Some(rule.length.admits(kept))
    }
}
