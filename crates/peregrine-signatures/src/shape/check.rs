//! Checks a whole value against a shape.
//!
//! Algorithm: one walk over the value. Where a union leaves several alternatives for a value, those that its keys
//! and tags rule out are dropped; only if several are left are they tried in turn (see [`Trial`]).
//!
//! The check changes a value only where two spellings mean the same: a whole float where an integer is wanted
//! becomes the integer, and a number among choices their spelling; `null` at a field that may be absent and can not be null is absence; fields that nobody
//! asked for are dropped if the caller said so. Nothing is ever filled in.

use serde_json::{Map, Value};

use super::trial::Trial;
use super::{Choice, Kind, ListRule, NodeId, NumberRule, ObjectRule, Shape, Start, TextRule};
use crate::UnknownFields;
use crate::error::{FOUND_EXCERPT, Violation, ViolationKind, excerpt};

/// How many problems are collected before the check ends.
pub(crate) const MAX_PROBLEMS: usize = 8;

/// Checks a value against a shape's root.
pub(crate) fn check(shape: &Shape, value: &mut Value, unknown: UnknownFields) -> Result<(), Vec<Violation>> {
    let mut checker = Checker::new(shape, unknown);
    checker.visit(shape.root(), value);
    checker.finish()
}

pub(crate) struct Checker<'s> {
    shape: &'s Shape,
    unknown: UnknownFields,
    problems: Vec<Violation>,
    trial: Trial<'s>,
}

impl<'s> Checker<'s> {
    pub(crate) fn new(shape: &'s Shape, unknown: UnknownFields) -> Self {
        Self {
            shape,
            unknown,
            problems: Vec::new(),
            trial: Trial::new(shape, unknown),
        }
    }

    pub(crate) fn finish(self) -> Result<(), Vec<Violation>> {
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(self.problems)
        }
    }

    /// Checks a value and all that is in it.
    pub(crate) fn visit(&mut self, id: NodeId, value: &mut Value) {
        if self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        match (self.shape.kind(id), &mut *value) {
            (Kind::Any, _) | (Kind::Null, Value::Null) | (Kind::Bool, Value::Bool(_)) => {}
            (Kind::Number(rule), Value::Number(number)) => self.number(id, rule, number),
            (Kind::Text(rule), Value::String(text)) => self.text(id, rule, text),
            (Kind::OneOf(choices), value) => self.choice(id, choices, value),
            (Kind::List(rule), Value::Array(items)) => {
                for (place, item) in items.iter_mut().enumerate() {
                    self.within_index(place, |checker| checker.visit(rule.items, item));
                }
                self.close_list(id, rule, items);
            }
            (Kind::Tuple(nodes), Value::Array(items)) => {
                for (place, (node, item)) in nodes.iter().zip(items.iter_mut()).enumerate() {
                    self.within_index(place, |checker| checker.visit(*node, item));
                }
                self.close_tuple(id, nodes.len(), items.len());
            }
            (Kind::Object(rule), Value::Object(map)) => self.object(id, rule, map),
            (Kind::Union(_), value) => self.union(id, value),
            (_, value) => self.wrong(ViolationKind::Type, id, found(value)),
        }
    }

    fn number(&mut self, id: NodeId, rule: &NumberRule, number: &mut serde_json::Number) {
        if !rule.has_type(number) {
            self.wrong(ViolationKind::Type, id, number.to_string());
        } else if !rule.in_range(number) {
            self.wrong(ViolationKind::Range, id, number.to_string());
        }
    }

    fn text(&mut self, id: NodeId, rule: &TextRule, text: &str) {
        match rule.misfit(text) {
            None => {}
            Some(kind @ ViolationKind::Length) => {
                self.wrong(kind, id, format!("{} characters", text.chars().count()));
            }
            Some(kind) => self.wrong(kind, id, found_text(text)),
        }
    }

    fn choice(&mut self, id: NodeId, choices: &[Choice], value: &mut Value) {
        if let Some(choice) = choices.iter().find(|choice| choice.is(value)) {
            if value.is_number() {
                value.clone_from(&choice.value);
            }
            return;
        }
        let kind = match self.shape.accepts(id, Start::of(value)) {
            true => ViolationKind::Choice,
            false => ViolationKind::Type,
        };
        self.wrong(kind, id, found(value));
    }

    /// Checks what is known of a list only at its end.
    pub(crate) fn close_list(&mut self, id: NodeId, rule: &ListRule, items: &[Value]) {
        if !rule.length.admits(items.len()) {
            self.wrong(ViolationKind::Length, id, format!("{} items", items.len()));
        }
        if rule.unique
            && let Some(twice) = first_duplicate(items)
        {
            let place = self.problems.len();
            self.wrong(
                ViolationKind::Duplicate,
                id,
                format!("{} again", found(&items[twice])),
            );
            self.problems[place..]
                .iter_mut()
                .for_each(|problem| problem.within_index(twice));
        }
    }

    pub(crate) fn close_tuple(&mut self, id: NodeId, expected: usize, count: usize) {
        if expected != count {
            self.wrong(ViolationKind::Length, id, format!("{count} items"));
        }
    }

    fn object(&mut self, id: NodeId, rule: &ObjectRule, map: &mut Map<String, Value>) {
        let (mut absent, mut known) = (false, 0);
        for field in &rule.fields {
            match map.get_mut(&*field.name) {
                None => {}
                Some(value) if !field.required && self.stands_for_absence(field.node, value) => absent = true,
                Some(value) => {
                    known += 1;
                    self.within_key(&field.name, |checker| checker.visit(field.node, value));
                }
            }
        }
        if absent {
            map.retain(|key, value| {
                let field = rule.fields.iter().find(|field| *field.name == **key);
                !field.is_some_and(|field| !field.required && self.stands_for_absence(field.node, value))
            });
        }
        if map.len() > known {
            self.rest(rule, map);
        }
        if known < rule.fields.len() {
            self.missing(rule, map);
        }
        self.close_length(id, rule, map);
    }

    /// `null` at a field that may be absent and can not be null: what providers' strict modes, in which every field
    /// is required, make models write for absence.
    fn stands_for_absence(&self, node: NodeId, value: &Value) -> bool {
        value.is_null() && !self.shape.accepts(node, Start::Null)
    }

    /// Checks the keys that are not among the fields.
    fn rest(&mut self, rule: &ObjectRule, map: &mut Map<String, Value>) {
        let ignores = self.unknown == UnknownFields::Ignore;
        let mut unknown = false;
        for (key, value) in map.iter_mut() {
            if self.problems.len() >= MAX_PROBLEMS {
                return;
            }
            if rule.fields.iter().any(|field| *field.name == **key) {
                continue;
            }
            match rule.rest(key) {
                Some(Some(node)) => self.within_key(key, |checker| checker.visit(node, value)),
                Some(None) => {}
                None if ignores => unknown = true,
                None => self.problems.push(unknown_field(rule, key, value)),
            }
        }
        if unknown {
            map.retain(|key, _| {
                rule.fields.iter().any(|field| *field.name == **key) || rule.rest(key).is_some()
            });
        }
    }

    /// Checks what is known of an object only at its end.
    pub(crate) fn close_object(&mut self, id: NodeId, rule: &ObjectRule, map: &Map<String, Value>) {
        self.missing(rule, map);
        self.close_length(id, rule, map);
    }

    fn missing(&mut self, rule: &ObjectRule, map: &Map<String, Value>) {
        for field in &rule.fields {
            if field.required && !map.contains_key(&*field.name) {
                let place = self.problems.len();
                self.wrong(ViolationKind::Missing, field.node, "nothing".to_owned());
                self.problems[place..]
                    .iter_mut()
                    .for_each(|problem| problem.within_key(&field.name));
            }
        }
    }

    fn close_length(&mut self, id: NodeId, rule: &ObjectRule, map: &Map<String, Value>) {
        if !rule.length.admits(map.len()) {
            self.wrong(ViolationKind::Length, id, format!("{} keys", map.len()));
        }
    }

    fn union(&mut self, id: NodeId, value: &mut Value) {
        let mut variants = self.shape.alternatives(id, Start::of(value));
        if variants.is_empty() {
            return self.wrong(ViolationKind::Type, id, found(value));
        }
        if variants.len() > 1
            && let Value::Object(map) = &*value
        {
            let plausible: Vec<NodeId> = variants
                .iter()
                .copied()
                .filter(|variant| self.is_plausible(*variant, map))
                .collect();
            variants = match plausible.is_empty() {
                false => plausible,
                // Nothing fits; the variant that its tag names has the most to say about why.
                true => match self.tagged(&variants, map) {
                    Some(variant) => vec![variant],
                    None => variants,
                },
            };
        }
        if let [only] = variants[..] {
            return self.visit(only, value);
        }
        for variant in variants {
            match self.trial.fits(variant, value) {
                Some(false) => {}
                Some(true) => return self.visit(variant, value),
                None => {
                    let expected = "an answer whose variants are simpler to tell apart";
                    self.problems
                        .push(Violation::new(ViolationKind::TooLarge, expected, found(value)));
                    return;
                }
            }
        }
        self.wrong(ViolationKind::Choice, id, found(value));
    }

    /// Whether keys and tags leave it possible that an object fits.
    fn is_plausible(&self, id: NodeId, map: &Map<String, Value>) -> bool {
        let Kind::Object(rule) = self.shape.kind(id) else {
            return true;
        };
        let fields_fit = rule.fields.iter().all(|field| match map.get(&*field.name) {
            None => !field.required,
            Some(value) => match self.shape.kind(field.node) {
                Kind::OneOf(choices) => choices.iter().any(|choice| choice.is(value)),
                _ => self.shape.accepts(field.node, Start::of(value)) || (value.is_null() && !field.required),
            },
        });
        let known = |key: &str| rule.fields.iter().any(|field| *field.name == *key);
        let rest_fits = self.unknown == UnknownFields::Ignore
            || map.keys().all(|key| known(key) || rule.rest(key).is_some());
        fields_fit && rest_fits
    }

    /// The one variant whose tag, a field of a single value, the object carries.
    fn tagged(&self, variants: &[NodeId], map: &Map<String, Value>) -> Option<NodeId> {
        let mut tagged = variants.iter().copied().filter(|variant| {
            let Kind::Object(rule) = self.shape.kind(*variant) else {
                return false;
            };
            rule.fields.iter().any(
                |field| match (self.shape.kind(field.node), map.get(&*field.name)) {
                    (Kind::OneOf(choices), Some(value)) => choices.len() == 1 && choices[0].is(value),
                    _ => false,
                },
            )
        });
        tagged.next().filter(|_| tagged.next().is_none())
    }

    fn wrong(&mut self, kind: ViolationKind, id: NodeId, found: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems
                .push(Violation::new(kind, self.shape.describe(id), found));
        }
    }

    fn within_key(&mut self, key: &str, visit: impl FnOnce(&mut Self)) {
        let before = self.problems.len();
        visit(self);
        self.problems[before..]
            .iter_mut()
            .for_each(|problem| problem.within_key(key));
    }

    fn within_index(&mut self, index: usize, visit: impl FnOnce(&mut Self)) {
        let before = self.problems.len();
        visit(self);
        self.problems[before..]
            .iter_mut()
            .for_each(|problem| problem.within_index(index));
    }
}

/// A key that nobody asked for.
pub(crate) fn unknown_field(rule: &ObjectRule, key: &str, value: &Value) -> Violation {
    let names: Vec<&str> = rule.fields.iter().map(|field| &*field.name).collect();
    let expected = format!("no such field, only {}", names.join(", "));
    let mut problem = Violation::new(ViolationKind::Unknown, expected, found(value));
    problem.within_key(key);
    problem
}

/// A value as an error shows it.
pub(crate) fn found(value: &Value) -> String {
    match value {
        Value::String(text) => found_text(text),
        // Their texts can be long; what they hold says enough.
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(map) => {
            let keys: Vec<&str> = map.keys().take(8).map(String::as_str).collect();
            excerpt(
                &format!("an object with the keys [{}]", keys.join(", ")),
                2 * FOUND_EXCERPT,
            )
        }
        scalar => scalar.to_string(),
    }
}

pub(crate) fn found_text(text: &str) -> String {
    Value::from(excerpt(text, FOUND_EXCERPT)).to_string()
}

/// The place of the first element that stands there already. Quadratic only in the rare list of equal texts' hashes:
/// elements are compared by their JSON text.
pub(super) fn first_duplicate(items: &[Value]) -> Option<usize> {
    let mut seen = std::collections::HashSet::with_capacity(items.len());
    items.iter().position(|item| !seen.insert(item.to_string()))
}
